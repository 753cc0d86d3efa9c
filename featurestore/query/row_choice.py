"""The as-of query, run: which row each request is answered from.

Its rows come from DuckDB a batch after the other, and meet the requests as they come. Those that may end, and those of which one
instant asks for each key's newest, wait in a table of DuckDB's, which spills; where the requests say when the newest happened,
only these come.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from featurestore.lazy import duckdb, pa
from featurestore.query.asof import (
    asked_rows_sql,
    keys_statements,
    newest_column,
    newest_sql,
    newest_table,
    rows_statement,
    ties_statements,
)
from featurestore.query.asof_search import Found, Kept, Requests, RowSearch
from featurestore.semantics.engine import stream
from featurestore.semantics.rows import RowTimes
from featurestore.semantics.source_columns import Scan
from featurestore.semantics.view import ResolvedView

SEARCH_BATCH_ROWS = 32_768
"""Rows that are searched at once, few enough that what is made of them stays in a processor's cache."""

CHOSEN = "asof_chosen"

Ints = npt.NDArray[np.int64]


class RowChoice(NamedTuple):
    """Which row each request is answered from, where it has one."""

    request_no: Ints
    place: Ints
    """Of each of these the `choice_no` of its row in the table `CHOSEN (choice_no, file, row, event_us)`; requests may share a row."""

    conflicted: Ints
    """The requests that only the canonical bytes decided."""


class _Asked(NamedTuple):
    """The requests, sorted by key and instant."""

    request_no: Ints
    key_no: Ints
    as_of: Ints


def choose(
    connection: duckdb.DuckDBPyConnection, view: ResolvedView, scan: Scan, requests: str, *, at: int | None
) -> RowChoice:
    """Run the program for a table of requests `(request_no, k…, as_of)` whose keys are not null; `at`: the one instant of all of them."""
    has_newest = at is not None and newest_column(at) in connection.sql(f"FROM {requests} LIMIT 0").columns
    newest_at = at if has_newest else None
    for table, sql in keys_statements(view, requests, newest_at=newest_at):
        connection.execute(f"CREATE OR REPLACE TEMP TABLE {table} AS {sql}")
    asked = _Asked(*_columns(connection, "SELECT request_no, key_no, as_of FROM asof_requests ORDER BY key_no, as_of"))
    found = _searched(connection, view, scan, asked, at=at, newest_at=newest_at)
    rows, place = _rows(found)
    request_no, conflicted = asked.request_no[found.single], np.empty(0, np.int64)
    if len(found.several) or len(found.left):
        ties = _ties(connection, view, scan, asked, found)
        request_no = np.concatenate([request_no, ties["request_no"].to_numpy()])
        place = np.concatenate([place, np.arange(rows.num_rows, rows.num_rows + ties.num_rows)])
        rows = pa.concat_tables([rows, ties.select(rows.column_names)])
        conflicted = ties.filter(ties["conflict"])["request_no"].to_numpy()
    _given(connection, CHOSEN, rows.append_column("choice_no", pa.array(np.arange(rows.num_rows))))
    return RowChoice(request_no, place, conflicted)


def same_row_sql(connection: duckdb.DuckDBPyConnection, one: str, chosen: str) -> str:
    """That a source's row is one of `CHOSEN`. Where all lie in one file it is named, since DuckDB hands only a join by a single
    column down to its reader, which then leaves out what is not chosen (1.1 s instead of 1.35 for 97,000 of 5,000,000 rows)."""
    files = connection.execute(f"SELECT DISTINCT file FROM {CHOSEN} LIMIT 2").fetchall()
    file = str(files[0][0]) if len(files) == 1 else f"{chosen}.file"
    return f"{one}.file = {file} AND {one}.row = {chosen}.row"


def _has_table(connection: duckdb.DuckDBPyConnection, name: str) -> bool:
    """Whether there is a table of a name."""
    found = connection.execute("SELECT count(*) FROM duckdb_tables() WHERE table_name = ?", [name]).fetchall()
    return bool(found[0][0])


def _given(connection: duckdb.DuckDBPyConnection, name: str, rows: pa.Table) -> None:
    """Make a temporary table of rows."""
    connection.register(f"{name}_given", rows)
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS FROM {name}_given")
    connection.unregister(f"{name}_given")


def _columns(connection: duckdb.DuckDBPyConnection, sql: str) -> list[Any]:
    """The columns of a query's rows, none of which is null."""
    table: pa.Table = connection.sql(sql).to_arrow_table()
    return [column.to_numpy() for column in table.columns]


def _searched(
    connection: duckdb.DuckDBPyConnection, view: ResolvedView, scan: Scan, asked: _Asked, *, at: int | None,
    newest_at: int | None,
) -> Found:  # fmt: skip
    """All requests met with all rows, or with those that may answer them, as far as they are known."""
    (keys,) = connection.execute("SELECT count(*) FROM asof_keys").fetchall()[0]
    kept = newest_at is not None and _has_table(connection, newest_table(view))
    rows = asked_rows_sql(view, scan, newest_at=newest_at, kept=kept)
    if newest_at is None and (view.source.identity or at is not None):
        table, sql = rows_statement(view, scan)
        connection.execute(f"CREATE OR REPLACE TEMP TABLE {table} AS {sql}")
        rows = f"FROM {table}" if at is None else newest_sql(view, at)
    search = RowSearch(Requests(asked.key_no - 1, asked.as_of), keys)
    for batch in stream(connection, rows, SEARCH_BATCH_ROWS):
        column = {name: batch[name].to_numpy() for name in batch.schema.names}
        times = RowTimes(column["key_no"] - 1, column["event_us"], column["counts_from"], column.get("counts_until"))
        search.add(times, column["file"], column["row"])
    return search.found()


def _rows(found: Found) -> tuple[pa.Table, Ints]:
    """The rows that answer requests alone, once each, however many share one, and for each of these requests the place of its row."""
    answers = np.zeros(len(found.rows.row), np.bool_)
    answers[found.row] = True
    return pa.table(_pointers(found.rows, np.flatnonzero(answers))), (np.cumsum(answers) - 1)[found.row]


def _pointers(rows: Kept, which: Ints) -> dict[str, Any]:
    return {"file": rows.file[which], "row": rows.row[which], "event_us": rows.event_us[which]}


def _ties(
    connection: duckdb.DuckDBPyConnection, view: ResolvedView, scan: Scan, asked: _Asked, found: Found
) -> pa.Table:
    """The winners of what the search did not decide: (request_no, file, row, event_us, conflict)."""
    met = {"request_no": asked.request_no[found.several], **_pointers(found.rows, found.among)}
    left = {name: column[found.left] for name, column in asked._asdict().items()}
    for name, columns in (("asof_met", met), ("asof_left", left)):
        _given(connection, name, pa.table(columns))
    for table, sql in ties_statements(view, scan, left=len(found.left) > 0):
        connection.execute(f"CREATE OR REPLACE TEMP TABLE {table} AS {sql}")
    return connection.sql(
        "SELECT w.request_no, w.file, w.row, t.event_us, w.conflict FROM asof_winners w JOIN asof_tied t "
        "ON w.request_no = t.request_no AND w.file = t.file AND w.row = t.row"
    ).to_arrow_table()
