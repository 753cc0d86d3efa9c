"""Every key of a source, and the newest rows of each, found in one pass: for whoever asks for all keys at once.

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

    def where(self, chosen: Bools) -> _KeyedRows:
        """Some of them."""
        places = np.flatnonzero(chosen)
        times = self.event_us[places], self.counts_from[places]
        return _KeyedRows(tuple(key[places] for key in self.keys), *times, self.file[places], self.row[places])


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
    """The rows that are kept; at the end in a table, which has more than the newest where there are many keys. sql: `keyed_rows_sql`."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, table: str, sql: str, instants: Sequence[int]) -> None:
        self._table, self._instants = table, instants
        self._writer = connection.cursor()  # since the connection has an open result while its rows come
        self._parts: list[_KeyedRows] = []
        self._kept = self._loose = 0
        like = f"SELECT * EXCLUDE (known, file, row), known AS counts_from, file, row FROM ({sql}) LIMIT 0"
        connection.execute(f"CREATE OR REPLACE TABLE {table} AS {like}")

    def add(self, rows: _KeyedRows) -> None:
        """Take some rows, in any order."""
        self._parts.append(rows)
        self._loose += len(rows.row)
        if self._loose >= max(MET_ROWS, self._kept):
            self._meet()
            if self._kept > KEPT_ROWS:
                self._put()

    def end(self) -> None:
        """Put what is kept into the table."""
        if self._loose:
            self._meet()
        self._put()
        self._writer.close()

    def _meet(self) -> None:
        """Keep of the rows so far those that are still the newest."""
        codes, count = _numbered([part.keys for part in self._parts])
        silent, chosen = np.ones(count, np.bool_), [np.zeros(len(part.row), np.bool_) for part in self._parts]
        for at in self._instants:
            newest, counting = np.full(count, NONE), [part.counting(at) for part in self._parts]
            for code, happened in zip(codes, counting, strict=True):
                np.maximum.at(newest, code, happened)
            silent &= newest == NONE
            newest[newest == NONE] = END  # which no row has
            for code, happened, some in zip(codes, counting, chosen, strict=True):
                np.logical_or(some, happened == newest[code], out=some)
        for code, some in zip(codes, chosen, strict=True):
            _choose_one(code, silent, some)
        kept = [part.where(some) for part, some in zip(self._parts, chosen, strict=True)]
        keys = tuple(np.concatenate(key) for key in zip(*(part.keys for part in kept), strict=True))
        columns: list[Any] = [np.concatenate(column) for column in zip(*(part[1:] for part in kept), strict=True)]
        self._parts, self._kept, self._loose = [_KeyedRows(keys, *columns)], len(columns[0]), 0

    def _put(self) -> None:
        given = f"{self._table}_given"
        for keys, *columns in self._parts:
            every = [*keys, *columns]
            self._writer.register(given, pa.table(every, names=[f"c{place}" for place in range(len(every))]))
            self._writer.execute(f"INSERT INTO {self._table} SELECT * FROM {given}")
            self._writer.unregister(given)
        self._parts, self._kept = [], 0


def _choose_one(codes: Ints, silent: Bools, chosen: Bools) -> None:
    """Choose a row of each key of which none counts, so that there is the key; then it is silent no more."""
    places = np.flatnonzero(silent[codes])
    if len(places):
        found, first = np.unique(codes[places], return_index=True)
        chosen[places[first]] = True
        silent[found] = False


def _numbered(keys: Sequence[Sequence[Ints]]) -> tuple[list[Ints], int]:
    """Of parts of rows each row's key as a number from 0 on, and a number that is above all of these."""
    columns = [list(parts) for parts in zip(*keys, strict=True)]
    codes, count = _distances(columns[0])
    for parts in columns[1:]:
        further, among = _distances(parts)
        codes, count = _distances([code * among + more for code, more in zip(codes, further, strict=True)])
    return codes, count


def _distances(parts: list[Ints]) -> tuple[list[Ints], int]:
    """`_numbered` of one column."""
    least, span = min(int(part.min()) for part in parts), max(int(part.max()) for part in parts)
    span, rows = span - least + 1, sum(map(len, parts))
    if span <= FEW_PER_ROW * rows:
        return [part - least for part in parts], span
    numbered = pa.chunked_array(parts).dictionary_encode()
    return [chunk.indices.to_numpy() for chunk in numbered.chunks], len(numbered.chunk(0).dictionary)
