"""The one as-of query: for each request (a key and an as_of), the row that rule 2 puts last among those that count.

It is a short program of SQL statements over temporary tables, each of which can be printed:

    keys      each requested key as one small integer, k
    rows      the source's rows as (k, e, v, g, pointer), restricted to the requested keys
    instant   for each request the event_time of its newest row that counts; how it is found depends on the requests:
              at one instant, by a maximum per key; along a spine, by an ASOF join on event_time whose few candidates
              that were not yet known are found again among running maxima; with identities, by their lifetimes
    tied      the rows of that key and event_time which count
    several   the requests for which more than one row is tied
    winners   one row a request: where several are tied, the last by known_at, tiebreak and canonical bytes
"""

from __future__ import annotations

from typing import NamedTuple

from featurestore.compile.rows import Scan, cell, key_list, order_terms, rows_sql, tiebreak_terms, words_sql
from featurestore.semantics.view import ResolvedView

__all__ = ["Statement", "statements"]


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
    return " AND ".join(f"x.k{i} = {other}.k{i}" for i in range(max(1, len(view.keys))))


def _alive(view: ResolvedView, row: str, as_of: str) -> str:
    """Whether a row counts at an as_of: rule 1, as `compile.rows` says it."""
    return f"{row}v <= {as_of}" + (f" AND {row}g > {as_of}" if view.source.identity else "")


def rows_statement(view: ResolvedView, scan: Scan) -> Statement:
    """`rows`: the source's rows of the requested keys."""
    lifetime = "r.v, r.g" if view.source.identity else "r.v"
    return Statement(
        "asof_rows",
        f"SELECT x.k, r.e, {lifetime}, r.file, r.row FROM ({rows_sql(view, scan)}) r JOIN asof_keys x ON {same_key(view, 'r')}",
    )


def instant_statements(view: ResolvedView, *, at: int | None) -> list[Statement]:
    """`instant`: (n, k, a, e) for each request that has a row which counts; `at`: all requests are for that instant."""
    if at is not None:
        newest = f"SELECT k, max(e) AS e FROM asof_rows WHERE {_alive(view, '', str(at))} GROUP BY k"
        return [
            Statement("asof_instant", f"SELECT q.n, q.k, q.a, r.e FROM asof_requests q JOIN ({newest}) r ON q.k = r.k")
        ]
    lifetime = "r.v, r.g" if view.source.identity else "r.v"
    first = (
        f"SELECT q.n, q.k, q.a, r.e, {lifetime} FROM asof_requests q ASOF JOIN asof_rows r ON q.k = r.k AND q.a >= r.e"
    )
    left = f"SELECT n, k, a FROM asof_first WHERE NOT ({_alive(view, '', 'a')})"
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
    found = f"SELECT n, k, a, e FROM asof_first WHERE {_alive(view, '', 'a')}"
    return [
        Statement("asof_first", first),
        Statement("asof_left", left),
        Statement("asof_instant", f"{found} UNION ALL {again}"),
    ]


def tied_statements(view: ResolvedView) -> list[Statement]:
    """`tied`: (n, file, row) for every row which counts at its request's instant; `several`: the n with more than one."""
    tied = (
        "SELECT q.n, r.file, r.row FROM asof_instant q "
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


def statements(view: ResolvedView, scan: Scan, requests: str, *, at: int | None = None) -> list[Statement]:
    """The whole program for a table of requests `(n, k…, a)` whose keys are not null."""
    return [
        *keys_statements(view, requests),
        rows_statement(view, scan),
        *instant_statements(view, at=at),
        *tied_statements(view),
        *winners_statements(view, scan),
    ]
