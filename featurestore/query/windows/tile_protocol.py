"""The interface through which the query reads tiles, which stand for the rows of some files."""

from __future__ import annotations

from typing import Protocol

from featurestore.lazy import duckdb, pa
from featurestore.query.windows.filtered_rows import Ints
from featurestore.query.windows.fold_input import CountedColumn, FoldRows
from featurestore.query.windows.ranges import MonotoneRun
from featurestore.query.windows.window_folds import FilteredColumn
from featurestore.semantics.source_columns import Scan

TILES = "asof_tiles"
"""The temporary table of tiles that a query reads: `key_no`, `tile_start`, `event_us`, and what the tiles add up to."""


class TiledRows(Protocol):
    """The tiles of some keys, as the rows that they stand for are folded."""

    @property
    def runs(self) -> list[MonotoneRun]:
        """The tiles in the order of their keys, each at the instant that it ends: one run, or none. No edge of a window lies
        inside a tile."""

    @property
    def event_us(self) -> Ints:
        """The newest event_time (µs) of each tile's rows."""

    def column(self, name: CountedColumn) -> FilteredColumn:
        """What they add up to of a column under its condition."""


class Tiling(Protocol):
    """Tiles that answer for rows at one instant, and the rows that are read beside them."""

    def use(self, connection: duckdb.DuckDBPyConnection, plan: FoldRows) -> tuple[Scan, str]:
        """Fill `TILES` with the tiles that answer at `plan.at` for the keys of `asof_keys`. What reads the other rows: a
        scan, and a condition on them for `FoldRows.statement`."""

    def rows(self, plan: FoldRows, table: pa.Table, *, keys: int, first: int) -> TiledRows:
        """The tiles in `table`, a part of `TILES`, of `keys` keys numbered from `first`."""
