"""Tiles as rows of a table: what the rows of one key in (b, b + width] add up to, a row a tile.

    k…, b           the key, and the instant (µs) after which the tile begins
    v_first, v_last the instants from which the first and from which all of its rows count; e: its newest event_time
    c0, c1 …        of each track how many values there are
    s0_100 …        the sum of a track's finite values as limbs of 32 bits: Σ_m s0_m · 2^(32 · (m - 100)); q0_…: of their squares
    p0_0 …          how many values are NaN, inf and -inf, where any is not finite
    l0, g0 …        the least code, and the least of ~code (see `totals`)

A *track* is one column under one condition. Totals add up, so that several rows may stand for parts of one tile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from featurestore.declare.sources import ParquetSource
from featurestore.query.windows.addends import GREATEST, INTEGERS, Decode, decode_of
from featurestore.query.windows.filtered_rows import FilteredRows, Ints
from featurestore.query.windows.fold_input import ColumnName, FoldRows, column_name
from featurestore.query.windows.ranges import MonotoneRun, Range, monotone_runs
from featurestore.query.windows.window_folds import FilteredColumn, WindowedRows
from featurestore.semantics.folds import Part, PartialSums
from featurestore.semantics.folds.columnar import Limbs, on_grid
from featurestore.semantics.rows import RowTimes
from featurestore.semantics.time import BEGINNING
from featurestore.semantics.view import ResolvedFeature, ResolvedView, algebra_of
from featurestore.semantics.windows import TileGrid
from featurestore.types import FeatureType, Int64

__all__ = ["TileRows", "can_be_tiled", "joined", "tile_grid", "tile_table"]

ORIGIN = 100
"""What is added to a limb's place, so that names have no sign; the squares of the smallest doubles lie 68 places below."""

JOINED = {"v_first": "min", "v_last": "max", "e": "max", "l": "min", "g": "min"}
"""What becomes of a column where several rows stand for parts of one tile, by its name or its letter; others add up."""


class Track(NamedTuple):
    """One column under one condition, a feature that reads it, and the partial sums that are kept of it."""

    feature: ResolvedFeature
    parts: tuple[Part, ...]


def can_be_tiled(view: ResolvedView) -> bool:
    """Whether tiles of some of a view's files can stand for their rows.

    They cannot where a row of another file may replace one of theirs, where a fold picks rows or keeps sets or sketches,
    and where a least or greatest value is no number.
    """
    source = view.source
    if not isinstance(source, ParquetSource) or source.event_time is None or source.identity or not view.folded:
        return False
    return all(_has_tiles(feature) for feature in view.folded)


def _has_tiles(feature: ResolvedFeature) -> bool:
    """Whether it is finished from partial sums; codes of values that are no numbers differ from file to file."""
    parts, of = algebra_of(feature).parts, feature.reads
    coded = not {"least", "greatest"} & {*(parts or ())} or (of is not None and _is_numeric(of))
    return parts is not None and coded


def _is_numeric(of: FeatureType) -> bool:
    return of.is_float or of.kind in INTEGERS


def tracks(features: Sequence[ResolvedFeature]) -> dict[ColumnName, Track]:
    """The tracks of a view's folds; their order is that of the numbers in names."""
    found: dict[ColumnName, Track] = {}
    for feature in features:
        before = found.get(column_name(feature))
        parts = (*(before.parts if before else ()), *(algebra_of(feature).parts or ()))
        found[column_name(feature)] = Track(before.feature if before else feature, tuple(dict.fromkeys(parts)))
    return found


def tile_grid(view: ResolvedView, width: int) -> TileGrid:
    """Tiles of files: one starts at the refresh offset, so that edges of windows cut as few as can be."""
    return TileGrid(width, view.timing.offset)


def joined(column: str) -> str:
    """The SQL aggregate that makes one of the parts of a tile, of a column."""
    return JOINED.get(column, JOINED.get(column[0], "sum"))


def tile_table(plan: FoldRows, rows: pa.Table, *, width: int) -> pa.Table:
    """The tiles of some rows in the order of their keys and times: (key_no, b, …), a row a tile."""
    key, e, v = (rows[name].to_numpy() for name in ("key_no", "event_us", "counts_from"))
    b = tile_grid(plan.view, width).start(e)
    edges = np.flatnonzero((key[1:] != key[:-1]) | (b[1:] != b[:-1])) + 1
    begin, end = np.insert(edges, 0, 0), np.append(edges, len(key))
    every = [MonotoneRun(np.arange(len(key)), np.array([0, len(key)]), e, v, None)]
    made: dict[str, Any] = {
        "key_no": key[begin], "b": b[begin],
        "v_first": np.minimum.reduceat(v, begin), "v_last": np.maximum.reduceat(v, begin), "e": e[end - 1],
    }  # fmt: skip
    for number, track in enumerate(tracks(plan.features).values()):
        column = plan.column(rows, column_name(track.feature), every)
        made |= _columns(number, WindowedRows(column, [Range(begin, end)]).partial_sums(track.parts))
    return pa.table({name: pa.array(values, pa.int64()) for name, values in made.items()})


def _columns(number: int, of: PartialSums) -> Iterator[tuple[str, Ints]]:
    yield f"c{number}", of.values
    for letter, limbs in (("s", of.sums), ("q", of.squares)):
        if limbs is not None:
            grid = on_grid(limbs)
            for place, digits in enumerate(grid.digits, grid.base // 32 + ORIGIN):
                if digits.any():
                    yield f"{letter}{number}_{place}", digits
    for place, marks in enumerate(of.special if of.special is not None else ()):
        yield f"p{number}_{place}", marks
    for letter, codes in (("l", of.least), ("g", of.greatest)):
        if codes is not None:
            yield f"{letter}{number}", codes


class TileRows:
    """The tiles of some keys, numbered from `first`: rows in the order of key, b and event_time, each a row whose totals are given."""

    def __init__(self, plan: FoldRows, rows: pa.Table, *, keys: int, first: int, width: int) -> None:
        self._rows, self._tracks = rows, list(tracks(plan.features))
        self.event_us = rows["event_us"].to_numpy()
        ends = rows["b"].to_numpy() + width
        line = RowTimes(rows["key_no"].to_numpy().astype(np.int64) - first, ends, np.full(len(ends), BEGINNING), None)
        self.runs = list(monotone_runs(line, keys))  # one, or none

    def column(self, name: ColumnName) -> FilteredColumn:
        """What they add up to of a column under its condition."""
        filtered = [FilteredRows.of(run, None) for run in self.runs]
        return FilteredColumn(
            pa.nulls(0, pa.int64()), filtered, _TileAddends(self._rows, self._tracks.index(name), name[1])
        )


class _TileAddends:
    """The partial sums of tiles, by place, of one track: each column read when it is asked for."""

    def __init__(self, rows: pa.Table, number: int, of: FeatureType | None) -> None:
        self._rows, self._number, self._of = rows, number, of or Int64

    @property
    def counts(self) -> Ints:
        """How many values there are in each tile."""
        return self._ints(f"c{self._number}", empty=0)

    @cached_property
    def sums(self) -> Limbs:
        """The sums."""
        return self._limbs(f"s{self._number}_")

    @cached_property
    def squares(self) -> Limbs:
        """The sums of squares."""
        return self._limbs(f"q{self._number}_")

    @cached_property
    def special(self) -> Ints | None:
        """How many values are NaN, inf, -inf."""
        names = [f"p{self._number}_{place}" for place in range(3)]
        if not set(names) & set(self._rows.column_names):
            return None
        return np.stack([self._ints(name, empty=0) for name in names])

    @property
    def least(self) -> Ints:
        """The least code of each tile."""
        return self._ints(f"l{self._number}", empty=GREATEST)

    @property
    def greatest(self) -> Ints:
        """The least complement of a code."""
        return self._ints(f"g{self._number}", empty=GREATEST)

    @property
    def decode(self) -> Decode:
        """The values of codes."""
        return decode_of(self._of)

    def _limbs(self, start: str) -> Limbs:
        places = [int(name.removeprefix(start)) for name in self._rows.column_names if name.startswith(start)]
        low, high = min(places, default=ORIGIN), max(places, default=ORIGIN)
        digits = [self._ints(f"{start}{place}", empty=0) for place in range(low, high + 1)]
        return Limbs(32 * (low - ORIGIN), np.stack(digits))

    def _ints(self, name: str, *, empty: int) -> Ints:
        """A column by place; `empty` where a part has no such column."""
        if name not in self._rows.column_names:
            return np.full(self._rows.num_rows, empty, np.int64)
        found: Ints = self._rows[name].fill_null(empty).to_numpy()
        return found
