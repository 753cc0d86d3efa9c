"""The as-of query, run: which row each request is answered from.

Its rows wait in DuckDB, which spills, and are searched some keys at a time, on as many threads as DuckDB has.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from featurestore.lazy import duckdb, pa
from featurestore.query.asof import near_sql, rows_statements, ties_statements
from featurestore.query.asof_search import Requests, newest
from featurestore.semantics.rows import RowTimes
from featurestore.semantics.source_columns import Scan
from featurestore.semantics.view import ResolvedView

SEARCH_BATCH_ROWS = 1_000_000
"""Rows that are searched at once: what bounds the memory beside DuckDB's."""

UNSORTED_MAX_BATCHES = 16
"""Batches for which each may look at all rows; for more, the rows are first sorted by key. Measured on 8,000,000 rows: to sort them
takes 0.65 s, and a batch is then read in 0.05 s instead of 0.09, so that 16 batches make up for it."""

CHOSEN = "asof_chosen"

Ints = npt.NDArray[np.int64]


class RowChoice(NamedTuple):
    """Which row each request is answered from, where it has one."""

    request_no: Ints
    place: Ints
    """Of each of these the `choice_no` of its row in the table `CHOSEN (choice_no, file, row)`; requests may share a row."""

    conflicted: Ints
    """The requests that only the canonical bytes decided."""


class _Part(NamedTuple):
    """What some keys gave."""

    request_no: Ints
    """The requests that one row answers."""

    place: Ints
    """Of each of these its row's place among `rows`."""

    rows: pa.Table
    met: pa.Table
    """A row each of a request and a row, where several may be its last."""

    left: pa.Table
    """The requests that an older row may answer."""


def choose(
    connection: duckdb.DuckDBPyConnection, view: ResolvedView, scan: Scan, requests: str, *, at: int | None
) -> RowChoice:
    """Run the program for a table of requests `(request_no, k…, as_of)` whose keys are not null; `at`: the one instant of all of them."""
    for table, sql in rows_statements(view, scan, requests, at=at):
        connection.execute(f"CREATE OR REPLACE TEMP TABLE {table} AS {sql}")
    parts = list(_searched(connection, view))
    starts = np.cumsum([0, *(part.rows.num_rows for part in parts)])
    request_no = [part.request_no for part in parts]
    place = [part.place + start for part, start in zip(parts, starts[:-1].tolist(), strict=True)]
    rows, conflicted = [part.rows for part in parts], np.empty(0, np.int64)
    met, left = (pa.concat_tables([getattr(part, of) for part in parts]) for of in ("met", "left"))
    if met.num_rows or left.num_rows:
        ties = _ties(connection, view, scan, met=met, left=left)
        request_no.append(ties["request_no"].to_numpy())
        place.append(np.arange(starts[-1], starts[-1] + ties.num_rows))
        rows.append(ties.select(["file", "row"]))
        conflicted = ties.filter(ties["conflict"])["request_no"].to_numpy()
    chosen = pa.concat_tables(rows)
    connection.register(CHOSEN, chosen.append_column("choice_no", pa.array(np.arange(chosen.num_rows))))
    return RowChoice(np.concatenate(request_no), np.concatenate(place), conflicted)


def _ties(
    connection: duckdb.DuckDBPyConnection, view: ResolvedView, scan: Scan, *, met: pa.Table, left: pa.Table
) -> pa.Table:
    """The winners of what the search did not decide: (request_no, file, row, conflict)."""
    given = {"asof_met": met, "asof_left": left}
    for name, table in given.items():
        connection.register(f"{name}_given", table)
        connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS FROM {name}_given")
        connection.unregister(f"{name}_given")
    for table, sql in ties_statements(view, scan):
        connection.execute(f"CREATE OR REPLACE TEMP TABLE {table} AS {sql}")
    return connection.sql("SELECT request_no, file, row, conflict FROM asof_winners").to_arrow_table()


def _searched(connection: duckdb.DuckDBPyConnection, view: ResolvedView) -> Iterator[_Part]:
    """All requests met with all rows, some keys at a time."""
    (threads,) = connection.execute("SELECT current_setting('threads')").fetchall()[0]
    asked = connection.sql("SELECT request_no, key_no, as_of FROM asof_requests").fetchnumpy()
    by_key = np.argsort(asked["key_no"])
    request_no, key, as_of = (asked[name][by_key] for name in ("request_no", "key_no", "as_of"))
    edges = _edges(connection)
    running: deque[Future[_Part]] = deque()
    with ThreadPoolExecutor(threads) as pool:  # numpy leaves the interpreter to others
        for first, last in itertools.pairwise(edges):
            rows = connection.sql(near_sql(view, first, last)).fetchnumpy()
            part = slice(*np.searchsorted(key, [first, last]).tolist())
            asked_here = Requests(key[part] - first, as_of[part])
            running.append(pool.submit(_part, rows, request_no[part], asked_here, first, keys=last - first))
            if len(running) > threads:
                yield running.popleft().result()
        for future in running:
            yield future.result()


def _edges(connection: duckdb.DuckDBPyConnection) -> list[int]:
    """The numbers of keys at which to cut, so that a batch has about `SEARCH_BATCH_ROWS` rows; keys are numbered in no order."""
    (keys,) = connection.execute("SELECT count(*) FROM asof_keys").fetchall()[0]
    (total,) = connection.execute("SELECT count(*) FROM asof_rows").fetchall()[0]
    passes = max(1, min(keys, round(total / SEARCH_BATCH_ROWS)))
    if passes > UNSORTED_MAX_BATCHES:
        connection.execute("CREATE OR REPLACE TEMP TABLE asof_rows AS FROM asof_rows ORDER BY key_no")
    return [1 + keys * number // passes for number in range(passes)] + [keys + 1]


def _part(rows: dict[str, Any], request_no: Ints, requests: Requests, first: int, *, keys: int) -> _Part:
    times = RowTimes(rows["key_no"].astype(np.int64), rows["event_us"], rows["counts_from"], rows.get("counts_until"))
    requests = Requests(requests.key.astype(np.int64), requests.as_of)
    found = newest(times, requests, keys)
    answers = np.zeros(len(times.event_us), np.bool_)
    answers[found.row] = True
    chosen = np.flatnonzero(answers)
    place = np.empty(len(times.event_us), np.int32)
    place[chosen] = np.arange(len(chosen), dtype=np.int32)  # many requests may share a row, which is then read once

    def pointers(which: Ints) -> dict[str, Any]:
        return {name: pa.array(rows[name][which]) for name in ("file", "row")}

    left = {"key_no": requests.key[found.left] + first, "as_of": requests.as_of[found.left]}
    return _Part(
        request_no[found.single],
        place[found.row].astype(np.int64),
        pa.table(pointers(chosen)),
        pa.table({"request_no": request_no[found.several], **pointers(found.among)}),
        pa.table({"request_no": request_no[found.left], **left}),
    )
