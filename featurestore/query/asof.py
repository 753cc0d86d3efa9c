"""The one as-of query: for each request (a key and an as_of), the row that rule 2 puts last among those that count.

It is a short program, whose SQL statements can be printed; `query.row_choice` runs it:

    keys      each requested key as one small integer, key_no
    rows      the source's rows of the requested keys as (key_no, event_us, counts_from, counts_until, file, row), a batch after the
              other; where all requests are for one instant, each key's newest that count at it, which the requests may say
              themselves
              Here `query.asof_search` finds each request's newest rows by event_time. For most requests there is one;
              `met` are the rows where several are equal, `left` the requests of which the newest has ended.
    instant   for each request that is left, the event_time of its newest row that counts
    tied      the rows of that key and event_time which count
    several   the requests for which more than one row is tied
    winners   one row a request: where several are tied, the last by known_at, tiebreak and canonical bytes
"""

from __future__ import annotations

from typing import NamedTuple

from featurestore.semantics.rows import counts_at_sql, rows_sql, words_sql
from featurestore.semantics.source_columns import Scan, cell, key_list, order_terms, same_key, tiebreak_terms
from featurestore.semantics.view import ResolvedView


class Statement(NamedTuple):
    """A temporary table and the query that fills it."""

    table: str
    sql: str


def newest_column(at: int) -> str:
    """The column of requests, all of them for one instant (µs), that says when each one's newest row happened which counts at it (µs; null
    where none does): a caller that finds the keys among all rows finds that, too, and asks for each once. Of a source whose rows have no versions."""
    return f"newest_at_{at % (1 << 64)}"


def newest_table(view: ResolvedView) -> str:
    """The table of a session in which such rows wait, where the search for keys kept them: `(k…, event_us, counts_from,
    file, row)`, perhaps with others."""
    return f"newest_rows_{view.fingerprint}"


def keys_statements(view: ResolvedView, requests: str, *, newest_at: int | None = None) -> list[Statement]:
    """`keys`, each key as one small integer whatever its columns, and `requests` by that integer: (request_no, key_no, as_of). newest_at: the
    instant of which the requests have the `newest_column`, which `keys` then has as `newest_us`."""
    keys = key_list(view)
    if newest_at is not None:  # the search for keys asks for each once
        number, newest = "CAST(request_no + 1 AS INTEGER) AS key_no", newest_column(newest_at)
        return [
            Statement("asof_keys", f"SELECT {number}, {keys}, {newest} AS newest_us FROM {requests}"),
            Statement("asof_requests", f"SELECT request_no, {number}, as_of FROM {requests}"),
        ]
    distinct = f"SELECT DISTINCT {keys} FROM {requests}"
    return [
        Statement("asof_keys", f"SELECT CAST(row_number() OVER () AS INTEGER) AS key_no, * FROM ({distinct})"),
        Statement(
            "asof_requests",
            f"SELECT q.request_no, x.key_no, q.as_of FROM {requests} q JOIN asof_keys x ON {same_key(view, 'x', 'q')}",
        ),
    ]


def asked_rows_sql(view: ResolvedView, scan: Scan, *, newest_at: int | None = None, kept: bool = False) -> str:
    """The source's rows of the requested keys. newest_at: only those that count at an instant and happened when `newest_us` says. kept:
    that these are in `newest_table`."""
    rows = newest_table(view) if kept else f"({rows_sql(view, scan)})"
    lifetime = "r.counts_from, r.counts_until" if view.source.identity else "r.counts_from"
    newest = (
        "" if newest_at is None else f" AND x.newest_us = r.event_us AND {counts_at_sql(view, newest_at, table='r.')}"
    )
    return (
        f"SELECT x.key_no, r.event_us, {lifetime}, r.file, r.row FROM {rows} r "
        f"JOIN asof_keys x ON {same_key(view, 'x', 'r')}{newest}"
    )


def rows_statement(view: ResolvedView, scan: Scan) -> Statement:
    """`rows` as a table, for those that are asked for more than once."""
    return Statement("asof_rows", asked_rows_sql(view, scan))


def newest_sql(view: ResolvedView, at: int) -> str:
    """Of `rows`, where all requests are for one instant, each key's newest by event_time that count at it: to search all of them
    took a first materialization of 200,000 keys a twentieth longer."""
    newest = f"SELECT key_no, max(event_us) AS event_us FROM asof_rows WHERE {counts_at_sql(view, at)} GROUP BY key_no"
    return f"SELECT r.* FROM asof_rows r JOIN ({newest}) m ON r.key_no = m.key_no AND r.event_us = m.event_us WHERE {counts_at_sql(view, at, table='r.')}"


def instant_statement(view: ResolvedView) -> Statement:
    """`instant`: (request_no, key_no, as_of, event_us) for each request that is left and has a row which counts."""
    return Statement(
        "asof_instant",
        "SELECT q.request_no, q.key_no, q.as_of, max(r.event_us) AS event_us FROM asof_left q JOIN asof_rows r ON q.key_no = r.key_no "
        f"WHERE {counts_at_sql(view, 'q.as_of', table='r.')} GROUP BY ALL",
    )


def tied_statements(view: ResolvedView, *, left: bool) -> list[Statement]:
    """`tied`: (request_no, file, row, event_us) for the rows that may be a request's last; `several`: the requests with more than one.
    left: whether there are requests in `asof_left`."""
    tied = "SELECT request_no, file, row, event_us FROM asof_met"
    if left:
        tied += (
            " UNION ALL SELECT q.request_no, r.file, r.row, r.event_us FROM asof_instant q "
            f"JOIN asof_rows r ON r.key_no = q.key_no AND r.event_us = q.event_us AND {counts_at_sql(view, 'q.as_of', table='r.')}"
        )
    return [
        Statement("asof_tied", tied),
        Statement("asof_several", "SELECT request_no FROM asof_tied GROUP BY request_no HAVING count(*) > 1"),
    ]


def winners_statements(view: ResolvedView, scan: Scan) -> list[Statement]:
    """`winners`: (request_no, file, row, conflict), one row a request, chosen among the tied by rule 2.

    `last` keeps the tied that known_at and tiebreak put last; only where that leaves `equal` ones are all columns read.
    """
    columns = ", ".join(cell(column) for column in sorted(view.columns))
    tiebreak = "".join(f", {cell(column)}" for column in view.source.tiebreak)
    words = words_sql(view, scan)
    before = ", ".join(map(_descending, [*order_terms(view, first=("learned_us",))[:1], *tiebreak_terms(view)]))
    order = ", ".join(map(_descending, order_terms(view, first=())))
    last = (
        f"SELECT t.request_no, t.file, t.row FROM asof_tied t JOIN (SELECT file, row, learned_us{tiebreak} FROM ({words})) s "
        "ON t.file = s.file AND t.row = s.row WHERE t.request_no IN (SELECT request_no FROM asof_several) "
        f"QUALIFY rank() OVER (PARTITION BY t.request_no ORDER BY {before}) = 1"
    )
    ranked = (
        f"SELECT t.request_no, t.file, t.row, row_number() OVER (PARTITION BY t.request_no ORDER BY {order}) AS place, "
        f"dense_rank() OVER (PARTITION BY t.request_no ORDER BY {order}) AS distinct_place FROM asof_last t "
        f"JOIN (SELECT file, row, {columns} FROM ({words})) s ON t.file = s.file AND t.row = s.row "
        "WHERE t.request_no IN (SELECT request_no FROM asof_equal)"
    )
    winners = (
        "SELECT request_no, file, row, false AS conflict FROM asof_tied WHERE request_no NOT IN (SELECT request_no FROM asof_several) UNION ALL "
        "SELECT request_no, file, row, false FROM asof_last WHERE request_no NOT IN (SELECT request_no FROM asof_equal) UNION ALL "
        f"SELECT request_no, arg_min(file, place), arg_min(row, place), max(distinct_place) > 1 FROM ({ranked}) GROUP BY request_no"
    )
    return [
        Statement("asof_last", last),
        Statement("asof_equal", "SELECT request_no FROM asof_last GROUP BY request_no HAVING count(*) > 1"),
        Statement("asof_winners", winners),
    ]


def _descending(term: str) -> str:
    return term.removesuffix(" ASC NULLS FIRST") + " DESC NULLS LAST"


def ties_statements(view: ResolvedView, scan: Scan, *, left: bool) -> list[Statement]:
    """The program from the tables `asof_met (request_no, file, row, event_us)` and `asof_left (request_no, key_no, as_of)` on;
    left: whether there are requests in the second."""
    instant = [instant_statement(view)] if left else []
    return [*instant, *tied_statements(view, left=left), *winners_statements(view, scan)]
