"""The tiles of files as rows of a table, each the tile of one key.

    k0, k1 …            the key
    tile_start          (µs) the tile's rows happened in (tile_start, tile_start + hop]; the newest of them at `event_us`
    first_counts_at     the instant from which the first of its rows counts; `last_counts_at`: from which all of them do
    <field>_<n>_<place>  what the n-th tiled column adds up to: a field of its PartialSums as 64-bit integers. Sums are limbs of
                        32 bits, Σ sums_n_place · 2^(32 · (place - 100)); NaN, inf and -inf are places 0, 1 and 2 of `special`;
                        other fields have place 0. A column that would hold nothing but zeros may be left out

Partial sums merge, so that several rows may stand for parts of one tile. A tile of pushed rows keeps the same integers,
packed otherwise: see `series`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple, get_args

import numpy as np

from featurestore.lazy import pa
from featurestore.query.windows.addends import GREATEST, Addends
from featurestore.query.windows.filtered_rows import FilteredRows, Ints
from featurestore.query.windows.fold_input import CountedColumn, FoldRows, column_name
from featurestore.query.windows.ranges import MonotoneRun, Range, monotone_runs
from featurestore.query.windows.window_folds import FilteredColumn, WindowedRows
from featurestore.semantics.folds import PartialSums, SumField
from featurestore.semantics.folds.columnar import on_grid
from featurestore.semantics.folds.limbs import Limbs
from featurestore.semantics.rows import RowTimes
from featurestore.semantics.time import BEGINNING
from featurestore.semantics.view import ResolvedFeature, algebra_of
from featurestore.semantics.windows import TileGrid
from featurestore.types import FeatureType, Int64

ORIGIN = 100
"""What is added to a limb's place, so that names have no sign; the squares of the smallest doubles lie 68 places below."""

MERGED_BY = {
    "first_counts_at": "min", "last_counts_at": "max", "event_us": "max", "least": "min", "greatest": "min"
}  # fmt: skip
"""The SQL aggregate that merges a column across parts of one tile, by its name or that of the field it holds; else `sum`."""

EMPTY = {"least": GREATEST, "greatest": GREATEST}
"""What a field holds of no values; else 0."""


class TiledColumn(NamedTuple):
    """One column under one condition, as tiles keep it."""

    feature: ResolvedFeature
    """One that reads it."""

    sum_fields: tuple[SumField, ...]
    """What is kept beside the number of its values: all that the view's folds of it are finished from."""


def tiled_columns(features: Sequence[ResolvedFeature]) -> dict[CountedColumn, TiledColumn]:
    """What tiles keep for a view's folds; their order is that of the numbers in names."""
    found: dict[CountedColumn, TiledColumn] = {}
    for feature in features:
        before = found.get(column_name(feature), TiledColumn(feature, ()))
        fields = dict.fromkeys((*before.sum_fields, *(algebra_of(feature).sum_fields or ())))
        found[column_name(feature)] = TiledColumn(before.feature, tuple(fields))
    return found


def merged_by(column: str) -> str:
    """The SQL aggregate that makes one of the values that a column has of parts of one tile."""
    return MERGED_BY.get(column) or MERGED_BY.get(column.partition("_")[0], "sum")


def tile_table(plan: FoldRows, rows: pa.Table, grid: TileGrid) -> pa.Table:
    """The tiles of some rows in the order of their keys and times: (key_no, tile_start, …), a row a tile."""
    key, event_us, counts_from = (rows[name].to_numpy() for name in ("key_no", "event_us", "counts_from"))
    starts = grid.start(event_us)
    edges = np.flatnonzero((key[1:] != key[:-1]) | (starts[1:] != starts[:-1])) + 1
    begin, end = np.insert(edges, 0, 0), np.append(edges, len(key))
    every = [MonotoneRun(np.arange(len(key)), np.array([0, len(key)]), event_us, counts_from, None)]
    made: dict[str, Any] = {
        "key_no": key[begin],
        "tile_start": starts[begin],
        "first_counts_at": np.minimum.reduceat(counts_from, begin),
        "last_counts_at": np.maximum.reduceat(counts_from, begin),
        "event_us": event_us[end - 1],
    }
    for number, tiled in enumerate(tiled_columns(plan.features).values()):
        column = plan.column(rows, column_name(tiled.feature), every)
        made |= _columns(number, WindowedRows(column, [Range(begin, end)]).partial_sums(tiled.sum_fields))
    return pa.table({name: pa.array(values, pa.int64()) for name, values in made.items()})


def _columns(number: int, sums: PartialSums) -> Iterator[tuple[str, Ints]]:
    for field in ("values", *get_args(SumField)):
        integers, first = getattr(sums, field), 0
        if isinstance(integers, Limbs):
            grid = on_grid(integers)
            integers, first = grid.digits, grid.base // 32 + ORIGIN
        for place, row in enumerate(() if integers is None else np.atleast_2d(integers), first):
            if field in EMPTY or row.any():
                yield f"{field}_{number}_{place}", row


class TileRows:
    """The tiles of some keys: rows in the order of key, tile_start and event_us, each a row whose partial sums are given."""

    def __init__(self, plan: FoldRows, rows: pa.Table, *, keys: int, first: int, grid: TileGrid) -> None:
        """rows: the tiles of `keys` keys, numbered from `first` on."""
        self._rows, self._names = rows, list(tiled_columns(plan.features))
        self.event_us = rows["event_us"].to_numpy()
        ends = rows["tile_start"].to_numpy() + grid.hop
        line = RowTimes(rows["key_no"].to_numpy().astype(np.int64) - first, ends, np.full(len(ends), BEGINNING), None)
        self.runs = list(monotone_runs(line, keys))  # one, or none

    def column(self, name: CountedColumn) -> FilteredColumn:
        """What they add up to of a column under its condition."""
        filtered = [FilteredRows.of(run, None) for run in self.runs]
        return FilteredColumn(
            pa.nulls(0, pa.int64()), filtered, _TileAddends(self._rows, self._names.index(name), name[1])
        )


class _TileAddends(Addends):
    """What each tile adds to the partial sums of one tiled column, read from its columns when it is asked for."""

    def __init__(self, rows: pa.Table, number: int, of: FeatureType | None) -> None:
        super().__init__(pa.nulls(0), of or Int64)
        self._rows, self._number = rows, number

    @property
    def counts(self) -> Ints:
        """See Addends."""
        return self._integers("values", 0)

    @cached_property
    def sums(self) -> Limbs:
        """See Addends."""
        return self._limbs("sums")

    @cached_property
    def squares(self) -> Limbs:
        """See Addends."""
        return self._limbs("squares")

    @cached_property
    def special(self) -> Ints | None:
        """See Addends."""
        there = self._places("special")
        return np.stack([self._integers("special", place) for place in range(3)]) if there else None

    @cached_property
    def least(self) -> Ints:
        """See Addends."""
        return self._integers("least", 0)

    @cached_property
    def greatest(self) -> Ints:
        """See Addends."""
        return self._integers("greatest", 0)

    def _limbs(self, field: SumField) -> Limbs:
        places = self._places(field) or [ORIGIN]
        digits = [self._integers(field, place) for place in range(min(places), max(places) + 1)]
        return Limbs(32 * (min(places) - ORIGIN), np.stack(digits))

    def _places(self, field: SumField) -> list[int]:
        """The places of which there are columns."""
        start = f"{field}_{self._number}_"
        return [int(name.removeprefix(start)) for name in self._rows.column_names if name.startswith(start)]

    def _integers(self, field: str, place: int) -> Ints:
        """One of each tile."""
        name, empty = f"{field}_{self._number}_{place}", EMPTY.get(field, 0)
        if name not in self._rows.column_names:
            return np.full(self._rows.num_rows, empty, np.int64)
        found: Ints = self._rows[name].fill_null(empty).to_numpy()
        return found
