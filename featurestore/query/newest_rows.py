"""Every key of a source, and the newest rows of each, found in one pass: for callers that ask for all keys at once.

Rows come from DuckDB a batch after the other. Of each key those are kept that happened last of the rows which count at an instant
that is asked for, several where they are equal by event_time, or one row where none counts. What is kept waits in a table, from
which the as-of query then reads in place of the source. So it is where keys are whole numbers, which numpy tells apart quicker
than DuckDB groups them; else the source is read twice, by SQL.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from featurestore.lazy import duckdb, pa, pc
from featurestore.query.asof import newest_table
from featurestore.query.asof_search import NONE
from featurestore.query.changed_keys import all_keys_sql, has_newest, keyed_rows_sql, newest_terms
from featurestore.semantics.engine import stream
from featurestore.semantics.rows import counts_at, counts_from
from featurestore.semantics.source_columns import Scan, key_list
from featurestore.semantics.time import BEGINNING, END
from featurestore.semantics.view import ResolvedView

READ_ROWS = 1 << 16
"""Rows that are read at once, few enough that what is made of them stays in a processor's cache."""

MET_ROWS = 1 << 20
"""Rows that meet each other at least; of fewer, most would be kept until the next ones come."""

KEPT_ROWS = 1 << 21
"""Rows that are kept in this process at most; more go into DuckDB's table, which spills."""

FEW_PER_ROW = 4
"""Keys are numbered by their distance from the least where that is at most so many times as many as there are rows: a tenth of the
time of a hash table."""

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class _KeyedRows(NamedTuple):
    """Some rows, a column each: their keys, µs, and where they lie. One that can count at no instant counts from about END."""

    keys: tuple[Ints, ...]
    event_us: Ints
    counts_from: Ints
    file: npt.NDArray[np.uint64]
    row: Ints

    @classmethod
    def of(cls, batch: pa.RecordBatch, settle: int) -> _KeyedRows:
        """Rows of `keyed_rows_sql`."""
        *keys, event_us, known, file, row = batch.columns
        if event_us.null_count or known.null_count:
            invalid = pc.or_(pc.is_null(event_us), pc.is_null(known))
            event_us, known = pc.if_else(invalid, BEGINNING, event_us), pc.if_else(invalid, END, known)
        happened = event_us.to_numpy()
        begins = counts_from(happened, known.to_numpy(), settle)
        return cls(
            tuple(key.to_numpy().astype(np.int64, copy=False) for key in keys),
            happened,
            begins,
            file.to_numpy(),
            row.to_numpy(),
        )

    def counting(self, at: int) -> Ints:
        """When each happened; NONE where it does not count at an instant."""
        return np.where(counts_at(self.counts_from, None, at), self.event_us, NONE)

    @property
    def columns(self) -> list[npt.NDArray[Any]]:
        """The columns, those of the keys first."""
        return [*self.keys, *self[1:]]


def collected_keys_sql(
    connection: duckdb.DuckDBPyConnection, view: ResolvedView, scan: Scan, *, instants: Sequence[int]
) -> str:
    """`all_keys_sql` for keys that will be asked for at these instants (µs), over this connection; where that is quicker, of a table of
    it that has their newest rows already."""
    if not instants or not has_newest(view) or not all(key.type.kind in {"Int32", "Int64"} for key in view.keys):
        return all_keys_sql(view, scan, newest_at=instants)
    keys, table, sql = key_list(view), newest_table(view), keyed_rows_sql(view, scan)
    kept = _KeptRows(connection, table, sql, instants)
    for batch in stream(connection, sql, READ_ROWS):
        kept.add(_KeyedRows.of(batch, view.timing.settle))
    kept.end()
    return f"SELECT {keys}, {newest_terms(view, instants)} FROM {table} GROUP BY {keys}"


class _KeptRows:
    """The rows that are kept; at the end in a table, which has more than the newest where there are many keys. sql: `keyed_rows_sql`.

    They lie in columns that are filled again and again: the rows of a batch are copied there while they are in the processor's cache, and
    the memory that they came in is free for the next one. To keep a million in the memory that they come in took a fifth longer: it is in
    the kernel, which has to give a process each page that it has not had.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, table: str, sql: str, instants: Sequence[int]) -> None:
        self._table, self._instants = table, instants
        self._writer = connection.cursor()  # since the connection has an open result while its rows come
        self._columns: list[npt.NDArray[Any]] = []
        self._kept = self._held = 0
        """How many rows have met each other, at the beginning of the columns; and how many there are."""
        like = f"SELECT * EXCLUDE (known, file, row), known AS counts_from, file, row FROM ({sql}) LIMIT 0"
        connection.execute(f"CREATE OR REPLACE TABLE {table} AS {like}")

    def add(self, rows: _KeyedRows) -> None:
        """Take some rows, in any order."""
        held = self._held + len(rows.row)
        if not self._columns or held > len(self._columns[-1]):
            self._make_room(rows, max(held, self._kept + max(MET_ROWS, self._kept) + READ_ROWS))
        for column, values in zip(self._columns, rows.columns, strict=True):
            column[self._held : held] = values
        self._held = held
        if held - self._kept >= max(MET_ROWS, self._kept):
            self._meet()
            if self._kept > KEPT_ROWS:
                self._put()

    def end(self) -> None:
        """Put what is kept into the table."""
        if self._held > self._kept:
            self._meet()
        self._put()
        self._writer.close()

    def _make_room(self, like: _KeyedRows, rows: int) -> None:
        before, self._columns = self._columns, [np.empty(rows, column.dtype) for column in like.columns]
        for column, values in zip(self._columns, before, strict=False):
            column[: self._held] = values[: self._held]

    def _meet(self) -> None:
        """Keep of the rows so far those that are still the newest; so many at a time as stay in a processor's cache."""
        codes, count = _numbered(self._rows(slice(self._held)).keys)
        parts = [slice(start, min(start + READ_ROWS, self._held)) for start in range(0, self._held, READ_ROWS)]
        newest = {at: np.full(count, NONE) for at in self._instants}
        for part in parts:
            for at, times in newest.items():
                np.maximum.at(times, codes[part], self._rows(part).counting(at))
        silent = np.logical_and.reduce([times == NONE for times in newest.values()])
        for times in newest.values():
            times[times == NONE] = END  # which no row has
        kept = 0
        for part in parts:
            rows, code = self._rows(part), codes[part]
            chosen = np.logical_or.reduce([rows.counting(at) == times[code] for at, times in newest.items()])
            _choose_one(code, silent, chosen)
            places = np.flatnonzero(chosen)
            for column, values in zip(self._columns, rows.columns, strict=True):
                column[kept : kept + len(places)] = values[places]
            kept += len(places)
        self._kept = self._held = kept

    def _rows(self, part: slice) -> _KeyedRows:
        *keys, event_us, begins, file, row = (column[part] for column in self._columns)
        return _KeyedRows(tuple(keys), event_us, begins, file, row)

    def _put(self) -> None:
        given = f"{self._table}_given"
        if self._held:
            every = [column[: self._held] for column in self._columns]
            self._writer.register(given, pa.table(every, names=[f"c{place}" for place in range(len(every))]))
            self._writer.execute(f"INSERT INTO {self._table} SELECT * FROM {given}")
            self._writer.unregister(given)
        self._columns, self._kept, self._held = [], 0, 0


def _choose_one(codes: Ints, silent: Bools, chosen: Bools) -> None:
    """Choose a row of each key of which none counts, so that there is the key; then it is silent no more."""
    places = np.flatnonzero(silent[codes])
    if len(places):
        found, first = np.unique(codes[places], return_index=True)
        chosen[places[first]] = True
        silent[found] = False


def _numbered(keys: Sequence[Ints]) -> tuple[Ints, int]:
    """Each row's key as a number from 0 on, and a number that is above all of these."""
    codes, count = _distances(keys[0])
    for column in keys[1:]:
        further, among = _distances(column)
        codes, count = _distances(codes * among + further)
    return codes, count


def _distances(column: Ints) -> tuple[Ints, int]:
    """`_numbered` of one column."""
    least, greatest = int(column.min()), int(column.max())
    if (span := greatest - least + 1) <= FEW_PER_ROW * len(column):
        return column - least, span
    numbered = pa.array(column).dictionary_encode()
    return numbered.indices.to_numpy(), len(numbered.dictionary)
