"""The one as-of query: for each request (a key and an as_of), the row that rule 2 puts last among those that count.

It is a short program of SQL statements over temporary tables, each of which can be printed:

    rows      the source's rows as (key, e, v, g, pointer), restricted to the requested keys
    instant   for each request the event_time of its newest row that counts; how it is found depends on the requests:
              at one instant, by a maximum per key; along a spine, by an ASOF join on event_time whose few candidates
              that were not yet known are found again among running maxima; with identities, by their lifetimes
    tied      the rows of that key and event_time which count
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


def _same_key(view: ResolvedView, left: str, right: str) -> str:
    return " AND ".join(f"{left}.k{i} = {right}.k{i}" for i in range(max(1, len(view.keys))))


def rows_statement(view: ResolvedView, scan: Scan, requests: str) -> Statement:
    """`rows`: the source's rows of the requested keys."""
    return Statement("asof_rows", rows_sql(view, scan, only=requests))


def instant_statements(view: ResolvedView, requests: str, *, at: int | None) -> list[Statement]:
    """`instant`: (n, k…, a, e) for each request that has a row which counts; `at`: all requests are for that instant."""
    keys, alive = key_list(view, "q"), "r.v <= q.a AND r.g > q.a" if view.source.identity else "r.v <= q.a"
    if at is not None:
        lifetime = f"v <= {at} AND g > {at}" if view.source.identity else f"v <= {at}"
        newest = f"SELECT {key_list(view)}, max(e) AS e FROM asof_rows WHERE {lifetime} GROUP BY {key_list(view)}"
        sql = f"SELECT q.n, {keys}, q.a, r.e FROM {requests} q JOIN ({newest}) r ON {_same_key(view, 'q', 'r')}"
        return [Statement("asof_instant", sql)]
    join = f"ASOF JOIN asof_rows r ON {_same_key(view, 'q', 'r')}"
    first = Statement("asof_first", f"SELECT q.n, {keys}, q.a, r.e FROM {requests} q {join} AND q.a >= r.e")
    counts = f"EXISTS (SELECT 1 FROM asof_rows r WHERE {_same_key(view, 'q', 'r')} AND r.e = q.e AND {alive})"
    left = Statement("asof_left", f"SELECT n, {key_list(view)}, a FROM asof_first q WHERE NOT {counts}")
    if view.source.identity:
        again = (
            f"SELECT q.n, {keys}, q.a, max(r.e) AS e FROM asof_left q JOIN asof_rows r ON {_same_key(view, 'q', 'r')} "
            f"WHERE {alive} GROUP BY ALL"
        )
    else:
        running = (
            f"SELECT {key_list(view)}, v, max(e) OVER (PARTITION BY {key_list(view)} ORDER BY v) AS e FROM asof_rows "
            f"WHERE ({key_list(view)}) IN (SELECT ({key_list(view)}) FROM asof_left)"
        )
        again = (
            f"SELECT q.n, {keys}, q.a, r.e FROM asof_left q "
            f"ASOF JOIN ({running}) r ON {_same_key(view, 'q', 'r')} AND q.a >= r.v"
        )
    sql = f"SELECT * FROM asof_first WHERE n NOT IN (SELECT n FROM asof_left) UNION ALL {again}"
    return [first, left, Statement("asof_instant", sql)]


def tied_statement(view: ResolvedView) -> Statement:
    """`tied`: (n, file, row, ties) for every row which counts at its request's instant."""
    alive = "r.v <= q.a AND r.g > q.a" if view.source.identity else "r.v <= q.a"
    return Statement(
        "asof_tied",
        "SELECT q.n, r.file, r.row, count(*) OVER (PARTITION BY q.n) AS ties FROM asof_instant q "
        f"JOIN asof_rows r ON {_same_key(view, 'q', 'r')} AND r.e = q.e AND {alive}",
    )


def winners_statement(view: ResolvedView, scan: Scan) -> Statement:
    """`winners`: (n, file, row, conflict), one row a request, chosen among the tied by rule 2."""
    columns = ", ".join(cell(column) for column in sorted(view.columns))
    decided = [*order_terms(view, first=("o",))[:1], *tiebreak_terms(view)]
    order = ", ".join(_descending(term) for term in [*decided, *order_terms(view, first=())])
    before = ", ".join(_descending(term) for term in decided)
    tied = (
        f"SELECT t.n, t.file, t.row, s.* FROM asof_tied t JOIN (SELECT file, row, o, {columns} FROM "
        f"({words_sql(view, scan)}) WHERE (file, row) IN (SELECT (file, row) FROM asof_tied WHERE ties > 1)) s "
        "ON t.file = s.file AND t.row = s.row WHERE t.ties > 1"
    )
    ranked = (
        f"SELECT n, file, row, row_number() OVER (PARTITION BY n ORDER BY {order}) AS place, "
        f"rank() OVER (PARTITION BY n ORDER BY {before}) AS class, "
        f"dense_rank() OVER (PARTITION BY n ORDER BY {order}) AS distinct_place FROM ({tied})"
    )
    return Statement(
        "asof_winners",
        "SELECT n, file, row, false AS conflict FROM asof_tied WHERE ties = 1 UNION ALL "
        "SELECT n, arg_min(file, place), arg_min(row, place), count(*) FILTER (class = 1 AND distinct_place > 1) > 0 "
        f"FROM ({ranked}) GROUP BY n",
    )


def _descending(term: str) -> str:
    return term.removesuffix(" ASC NULLS FIRST") + " DESC NULLS LAST"


def statements(view: ResolvedView, scan: Scan, requests: str, *, at: int | None = None) -> list[Statement]:
    """The whole program for a table of requests `(n, k…, a)` whose keys are not null."""
    return [
        rows_statement(view, scan, requests),
        *instant_statements(view, requests, at=at),
        tied_statement(view),
        winners_statement(view, scan),
    ]
