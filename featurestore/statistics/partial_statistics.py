"""What some of the rows of columns are like, so that it can be sent, and put together with what others are like.

It is made and joined by `GatheredStatistics`. As bytes it is an Arrow stream of one row: the rows that are held of each column as a list, and
the draws that several columns share once. What is no column is JSON in the metadata of its schema, under a version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any, Self

import numpy as np
import orjson

from featurestore import arrow_ipc
from featurestore.lazy import pa
from featurestore.statistics.column_counts import ColumnCounts, NumberCounts, SizeCounts
from featurestore.statistics.held_rows import Draws, HeldRows
from featurestore.statistics.moments import QuickMoments

VERSION = 1
PARTIAL = b"featurestore.partial_statistics"
"""The key of the metadata."""


@dataclass(frozen=True, eq=False)
class PartialColumn:
    """One column. counts: of all its rows; None where these are all held, and tell them."""

    counts: ColumnCounts | None
    held: HeldRows


@dataclass(frozen=True, eq=False)
class PartialStatistics:
    """Some of the rows. columns: by name."""

    rows: int
    columns: Mapping[str, PartialColumn]

    def packed(self) -> bytes:
        """As bytes, which `unpacked` reads."""
        arrays: dict[str, pa.Array] = {}
        shared: list[Draws] = []
        said = []
        for number, (name, column) in enumerate(self.columns.items()):
            held = column.held
            place = next((n for n, draws in enumerate(shared) if np.array_equal(draws, held.draws)), len(shared))
            if place == len(shared):
                shared.append(held.draws)
                arrays[f"draws {place}"] = _as_one(pa.array(held.draws))
            arrays[f"rows {number}"] = _as_one(held.rows)
            said.append([name, held.bits, place, None if column.counts is None else astuple(column.counts)])
        words = {"version": VERSION, "rows": self.rows, "columns": said}
        table = pa.table(arrays).replace_schema_metadata({PARTIAL: orjson.dumps(words, default=tuple)})
        return arrow_ipc.to_bytes(table, compression="lz4")

    @classmethod
    def unpacked(cls, data: bytes) -> Self:
        """What `packed` gave. ValueError where it is something else, or of another version."""
        try:
            table = arrow_ipc.from_bytes(data)
            words = orjson.loads(table.schema.metadata[PARTIAL])
            if words["version"] != VERSION:
                raise ValueError(f"they are of version {words['version']}, and not {VERSION}")
            columns = {}
            for number, (name, bits, place, counts) in enumerate(words["columns"]):
                draws = _of_one(table[f"draws {place}"]).to_numpy(zero_copy_only=False)
                held = HeldRows(_of_one(table[f"rows {number}"]), draws, bits)
                columns[name] = PartialColumn(None if counts is None else _counts(*counts), held)
            return cls(words["rows"], columns)
        except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"Partial statistics cannot be read: {error}") from error


def _as_one(values: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)


def _of_one(column: pa.ChunkedArray) -> pa.Array:
    (chunk,) = column.chunks
    return chunk.flatten()


def _counts(missing: int, nulls: int, numbers: Any, norms: Any, sizes: Any, lengths: Any) -> ColumnCounts:
    of_numbers, of_norms = (NumberCounts(QuickMoments(*moments), *others) for moments, *others in (numbers, norms))
    return ColumnCounts(missing, nulls, of_numbers, of_norms, SizeCounts(*sizes), SizeCounts(*lengths))
