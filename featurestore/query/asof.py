"""The one as-of query: for each request (a key and an as_of), the row that rule 2 puts last among those that count.

It is a short program over temporary tables, whose SQL statements can be printed; `query.row_choice` runs it:

    keys      each requested key as one small integer, k
    rows      the source's rows as (k, e, v, g, pointer), restricted to the requested keys; where all requests are for one
              instant, then to each key's newest that count at it
              Here `query.nearest` finds each request's newest rows by event_time. For most requests one of them counts;
              `met` are the rows where several do, `left` the requests for which the newest few do not.
    instant   for each request that is left, the event_time of its newest row that counts: found again among running
              maxima; with identities, by their lifetimes
    tied      the rows of that key and event_time which count
    several   the requests for which more than one row is tied
    winners   one row a request: where several are tied, the last by known_at, tiebreak and canonical bytes
"""

from __future__ import annotations

from typing import NamedTuple

from featurestore.semantics.rows import Scan, cell, key_list, order_terms, rows_sql, tiebreak_terms, words_sql
from featurestore.semantics.view import ResolvedView

__all__ = ["Statement", "keys_statements", "near_sql", "rows_statements", "same_key", "ties_statements"]


class Statement(NamedTuple):
    """A temporary table and the query that fills it."""

    table: str
    sql: str


def keys_statements(view: ResolvedView, requests: str) -> list[Statement]:
    """`keys`, each key as one small integer whatever its columns, and `requests` by that integer: (n, k, a)."""
    keys = key_list(view)
    distinct = f"SELECT DISTINCT {keys} FROM {requests}"
    return [
        Statement("asof_keys", f"SELECT CAST(row_number() OVER () AS INTEGER) AS k, {keys} FROM ({distinct})"),
        Statement("asof_requests", f"SELECT q.n, x.k, q.a FROM {requests} q JOIN asof_keys x ON {same_key(view, 'q')}"),
    ]


def same_key(view: ResolvedView, other: str) -> str:
    """That a row of `other` bears the numbered key `x`."""
    return " AND ".join(f"x.k{i} = {other}.k{i}" for i in range(max(1, len(view.keys))))


def _alive(view: ResolvedView, row: str, as_of: str) -> str:
    """Whether a row counts at an as_of: rule 1, as `semantics.rows` says it."""
    return f"{row}v <= {as_of}" + (f" AND {row}g > {as_of}" if view.source.identity else "")


def rows_statement(view: ResolvedView, scan: Scan) -> Statement:
    """`rows`: the source's rows of the requested keys."""
    lifetime = "r.v, r.g" if view.source.identity else "r.v"
    return Statement(
        "asof_rows",
        f"SELECT x.k, r.e, {lifetime}, r.file, r.row FROM ({rows_sql(view, scan)}) r JOIN asof_keys x ON {same_key(view, 'r')}",
    )


def near_sql(view: ResolvedView, first: int, last: int) -> str:
    """The rows of the keys [first, last), numbered from `first`."""
    g = ", g" if view.source.identity else ""
    return f"SELECT k - {first} AS k, e, v{g}, file, row FROM asof_rows WHERE k >= {first} AND k < {last}"


def newest_statement(view: ResolvedView, at: int) -> Statement:
    """`rows` again, where all requests are for one instant: of each key the newest by event_time that count at it."""
    newest = f"SELECT k, max(e) AS e FROM asof_rows WHERE {_alive(view, '', str(at))} GROUP BY k"
    return Statement(
        "asof_rows",
        f"SELECT r.* FROM asof_rows r JOIN ({newest}) m ON r.k = m.k AND r.e = m.e WHERE {_alive(view, 'r.', str(at))}",
    )


def instant_statement(view: ResolvedView) -> Statement:
    """`instant`: (n, k, a, e) for each request that is left and has a row which counts."""
    if view.source.identity:
        again = (
            "SELECT q.n, q.k, q.a, max(r.e) AS e FROM asof_left q JOIN asof_rows r ON q.k = r.k "
            f"WHERE {_alive(view, 'r.', 'q.a')} GROUP BY ALL"
        )
    else:
        running = (
            "SELECT k, v, max(e) OVER (PARTITION BY k ORDER BY v) AS e FROM asof_rows "
            "WHERE k IN (SELECT k FROM asof_left)"
        )
        again = f"SELECT q.n, q.k, q.a, r.e FROM asof_left q ASOF JOIN ({running}) r ON q.k = r.k AND q.a >= r.v"
    return Statement("asof_instant", again)


def tied_statements(view: ResolvedView) -> list[Statement]:
    """`tied`: (n, file, row) for the rows that may be a request's last; `several`: the n with more than one."""
    tied = (
        "SELECT n, file, row FROM asof_met UNION ALL SELECT q.n, r.file, r.row FROM asof_instant q "
        f"JOIN asof_rows r ON r.k = q.k AND r.e = q.e AND {_alive(view, 'r.', 'q.a')}"
    )
    return [
        Statement("asof_tied", tied),
        Statement("asof_several", "SELECT n FROM asof_tied GROUP BY n HAVING count(*) > 1"),
    ]


def winners_statements(view: ResolvedView, scan: Scan) -> list[Statement]:
    """`winners`: (n, file, row, conflict), one row a request, chosen among the tied by rule 2.

    `last` keeps the tied that known_at and tiebreak put last; only where that leaves `equal` ones are all columns read.
    """
    columns = ", ".join(cell(column) for column in sorted(view.columns))
    tiebreak = "".join(f", {cell(column)}" for column in view.source.tiebreak)
    words = words_sql(view, scan)
    before = ", ".join(map(_descending, [*order_terms(view, first=("o",))[:1], *tiebreak_terms(view)]))
    order = ", ".join(map(_descending, order_terms(view, first=())))
    last = (
        f"SELECT t.n, t.file, t.row FROM asof_tied t JOIN (SELECT file, row, o{tiebreak} FROM ({words})) s "
        "ON t.file = s.file AND t.row = s.row WHERE t.n IN (SELECT n FROM asof_several) "
        f"QUALIFY rank() OVER (PARTITION BY t.n ORDER BY {before}) = 1"
    )
    ranked = (
        f"SELECT t.n, t.file, t.row, row_number() OVER (PARTITION BY t.n ORDER BY {order}) AS place, "
        f"dense_rank() OVER (PARTITION BY t.n ORDER BY {order}) AS distinct_place FROM asof_last t "
        f"JOIN (SELECT file, row, {columns} FROM ({words})) s ON t.file = s.file AND t.row = s.row "
        "WHERE t.n IN (SELECT n FROM asof_equal)"
    )
    winners = (
        "SELECT n, file, row, false AS conflict FROM asof_tied WHERE n NOT IN (SELECT n FROM asof_several) UNION ALL "
        "SELECT n, file, row, false FROM asof_last WHERE n NOT IN (SELECT n FROM asof_equal) UNION ALL "
        f"SELECT n, arg_min(file, place), arg_min(row, place), max(distinct_place) > 1 FROM ({ranked}) GROUP BY n"
    )
    return [
        Statement("asof_last", last),
        Statement("asof_equal", "SELECT n FROM asof_last GROUP BY n HAVING count(*) > 1"),
        Statement("asof_winners", winners),
    ]


def _descending(term: str) -> str:
    return term.removesuffix(" ASC NULLS FIRST") + " DESC NULLS LAST"


def rows_statements(view: ResolvedView, scan: Scan, requests: str, *, at: int | None = None) -> list[Statement]:
    """The program up to the rows, for a table of requests `(n, k…, a)` whose keys are not null; `at`: the one instant of
    all of them, where there is only one."""
    newest = [] if at is None else [newest_statement(view, at)]
    return [*keys_statements(view, requests), rows_statement(view, scan), *newest]


def ties_statements(view: ResolvedView, scan: Scan) -> list[Statement]:
    """The program from the tables `asof_met (n, file, row)` and `asof_left (n, k, a)` on."""
    return [instant_statement(view), *tied_statements(view), *winners_statements(view, scan)]
