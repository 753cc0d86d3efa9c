"""Tiles that stand for the rows of some files: how they are made of rows, joined, and read beside the rows of other files.

At one instant a tile answers for its rows where all of them count and no edge of a window lies inside it. The rows of
every other tile are read as they are, so that what a fold is asked for is the same with tiles and without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np

from featurestore.lazy import duckdb, pa
from featurestore.query.changed_keys import all_keys_sql
from featurestore.query.windows.batching import key_batches, memory_batches
from featurestore.query.windows.fold_input import COUNTED, FoldRows, earliest
from featurestore.query.windows.tile_protocol import TILES
from featurestore.semantics.rows import rows_sql, visible_span
from featurestore.semantics.source_columns import Scan, key_list, same_key
from featurestore.semantics.sql import file_list
from featurestore.semantics.view import ResolvedFeature, ResolvedView
from featurestore.semantics.windows import TileGrid
from featurestore.tiles.tile_rows import TileRows, merged_by, tile_table

MINUTE, HOUR = 60_000_000, 3_600_000_000
HOPS = (5 * MINUTE, 15 * MINUTE, HOUR, 6 * HOUR, 24 * HOUR)
"""The hops that tiles of files may have (µs)."""

TILED_MIN_ROWS = 500_000
"""Fewer rows in the longest window are read as quickly as their tiles are."""

TILED_MIN_SAVING = 3
"""So many times fewer tiles and rows must be read than there are rows, or tiles are not worth making. Measured on 5,000,000
rows (`python -m benchmarks materialize`): with 50,000 keys, of which each has a hundred rows, tiles saved nothing."""


class Rest(NamedTuple):
    """How SQL reads the rows beside the tiles."""

    scan: Scan
    """Files without tiles, then files with tiles."""

    first_tiled_file: int
    """The number of the first of those that have tiles."""


class FileTiles(NamedTuple):
    """Tiles of files at one instant: the query's `Tiling`."""

    grid: TileGrid

    paths: tuple[str, ...]
    """Where they lie, Parquet of `tile_rows`."""

    rest: Callable[[Sequence[int]], Rest]
    """What to read beside them when the rows of some tiles, which start at these instants, are asked for."""

    def use(self, connection: duckdb.DuckDBPyConnection, plan: FoldRows) -> tuple[Scan, str]:
        """Fill `TILES` with the tiles that answer at `plan.at` for the keys of `asof_keys`; what reads the other rows: a scan, and
        the condition of `FoldRows.statement` on them."""
        view, at, run = plan.view, plan.at, connection.execute
        assert at is not None
        cut = _cut_tiles(view, plan.features, at, self.grid)
        window_start = earliest(view, plan.features, at)
        read = f"read_parquet({file_list(self.paths)}, union_by_name = true, hive_partitioning = false)"
        started = (
            f"(SELECT x.key_no - 1 AS key_no, t.* EXCLUDE ({key_list(view)}) FROM {read} t "
            f"JOIN asof_keys x ON {same_key(view, 'x', 't')} WHERE t.first_counts_at <= {at})"
        )
        seen = "true" if window_start is None else f"tile_start > {window_start - self.grid.hop}"
        in_part = f"last_counts_at > {at}" + (f" OR tile_start IN ({', '.join(map(str, cut))})" if cut else "")
        run(f"CREATE OR REPLACE TEMP TABLE {TILES} AS FROM {started} WHERE {seen}")
        run(
            "CREATE OR REPLACE TEMP TABLE asof_older AS "
            f"SELECT key_no, tile_start, last_counts_at, event_us FROM {started} WHERE NOT ({seen})"
        )
        run(
            f"CREATE OR REPLACE TEMP TABLE asof_apart AS SELECT DISTINCT key_no, tile_start FROM ("
            f"SELECT key_no, tile_start FROM {TILES} WHERE {in_part} UNION ALL "
            f"SELECT key_no, tile_start FROM asof_older WHERE {in_part})"
        )
        whole = "(FROM {}) ANTI JOIN asof_apart USING (key_no, tile_start)"
        run(
            f"CREATE OR REPLACE TEMP TABLE {TILES} AS "
            f"SELECT * EXCLUDE (first_counts_at, last_counts_at) FROM {whole.format(TILES)} UNION ALL BY NAME "
            "SELECT key_no, max(tile_start) AS tile_start, max(event_us) AS event_us "
            f"FROM {whole.format('asof_older')} GROUP BY key_no"
        )
        apart = [start for (start,) in run("SELECT DISTINCT tile_start FROM asof_apart").fetchall()]
        rest = self.rest(sorted({*apart, *cut}))
        tile = f"(x.key_no - 1, {self.grid.start_sql('r.event_us')})"
        beside = f"{tile} IN (SELECT (key_no, tile_start) FROM asof_apart)"
        return rest.scan, f"(r.file < {rest.first_tiled_file} OR {beside})"

    def rows(self, plan: FoldRows, table: pa.Table, *, keys: int, first: int) -> TileRows:
        """The tiles in a part of `TILES`, of `keys` keys numbered from `first`."""
        return TileRows(plan, table, keys=keys, first=first, grid=self.grid)


def _edges(view: ResolvedView, features: Sequence[ResolvedFeature], at: int) -> set[int]:
    """The instants at which the window of some feature begins or ends at `at`."""
    found = {at}
    for span in {visible_span(view, feature) for feature in features}:
        found |= {span.end(at)} | ({span.start(at)} if span.length is not None else set())
    return found


def _cut_tiles(view: ResolvedView, features: Sequence[ResolvedFeature], at: int, grid: TileGrid) -> list[int]:
    """The starts of the tiles inside which an edge of a window lies at `at`."""
    return sorted({grid.start(edge) for edge in _edges(view, features, at) if grid.cuts(edge)})


def count_rows(
    connection: duckdb.DuckDBPyConnection, view: ResolvedView, scan: Scan
) -> tuple[FoldRows, dict[int, tuple[int, int]]]:
    """Fill `COUNTED` with all rows that a scan reads; what was read, and by number of a file the event_time of its oldest and
    of its newest row (µs)."""
    plan, keys, run = FoldRows.of(view, view.folded), key_list(view), connection.execute
    run(
        "CREATE OR REPLACE TEMP TABLE asof_keys AS "
        f"SELECT CAST(row_number() OVER () AS INTEGER) AS key_no, {keys} FROM ({all_keys_sql(view, scan)})"
    )
    run(f"CREATE OR REPLACE TEMP TABLE {COUNTED} AS {plan.statement(scan, only='true')}")
    times = run(f"SELECT file, min(event_us), max(event_us) FROM {COUNTED} GROUP BY file").fetchall()
    return plan, {file: (first, last) for file, first, last in times}


def make_tiles(connection: duckdb.DuckDBPyConnection, plan: FoldRows, grid: TileGrid) -> Iterator[pa.Table]:
    """The tiles of the rows that were counted, some keys at a time, in the order of their starts."""
    (count,) = connection.execute("SELECT count(*) FROM asof_keys").fetchall()[0]
    if not count:
        return
    (threads,) = connection.execute("SELECT current_setting('threads')").fetchall()[0]
    with ThreadPoolExecutor(threads) as pool:
        for first, last in memory_batches(connection, [COUNTED], keys=count, width=plan.width):
            rows: pa.Table = connection.sql(plan.rows(first, last)).to_arrow_table().combine_chunks()
            key = rows["key_no"].to_numpy()
            bounds = [np.searchsorted(key, share).tolist() for share in key_batches(first, last, [key])]
            parts = [rows.slice(begin, end - begin) for begin, end in bounds if begin < end]
            if not parts:
                continue
            tables = pool.map(partial(tile_table, plan, grid=grid), parts)
            made = pa.concat_tables(tables, promote_options="default")
            connection.register("made_tiles", made)
            yield connection.sql(
                f"SELECT {key_list(plan.view, 'x')}, t.* EXCLUDE (key_no) FROM made_tiles t "
                "JOIN asof_keys x ON x.key_no = t.key_no + 1 ORDER BY tile_start"
            ).to_arrow_table()
            connection.unregister("made_tiles")


def joined_sql(view: ResolvedView, paths: Sequence[str], columns: Sequence[str]) -> str:
    """The tiles of several files, parts of one tile as one. columns: those that any of the files has."""
    keys = key_list(view)
    tile = [*keys.split(", "), "tile_start"]
    read = f"read_parquet({file_list(paths)}, union_by_name = true, hive_partitioning = false)"
    merged = [f"CAST({merged_by(name)}({name}) AS BIGINT) AS {name}" for name in columns if name not in tile]
    return f"SELECT {', '.join([*tile, *merged])} FROM {read} GROUP BY {', '.join(tile)} ORDER BY tile_start"


def tile_grid(view: ResolvedView, hop: int) -> TileGrid:
    """Tiles of files start at the refresh offset, so that edges of windows cut as few as can be."""
    return TileGrid(hop, view.timing.offset)


def hop_for(connection: duckdb.DuckDBPyConnection, view: ResolvedView, scan: Scan, *, ats: Sequence[int]) -> int | None:
    """The hop with which least is to be read at instants like `ats`; None where rows are as good.

    What is read are the tiles, and the rows of the tiles that an edge cuts.
    """
    start = earliest(view, view.folded, ats[0])
    rows = f"({rows_sql(view, scan)})" + (f" WHERE event_us > {start}" if start is not None else "")
    grids = {hop: tile_grid(view, hop) for hop in HOPS}
    counts = [f"approx_count_distinct(hash({key_list(view)}, {grid.start_sql('event_us')}))" for grid in grids.values()]
    total, first, last, *tiles = connection.execute(
        f"SELECT count(*), min(event_us), max(event_us), {', '.join(counts)} FROM {rows}"
    ).fetchall()[0]
    if total < TILED_MIN_ROWS:
        return None
    costs = {}
    for (hop, grid), count in zip(grids.items(), tiles, strict=True):
        cuts = max(len(_cut_tiles(view, view.folded, at, grid)) for at in ats)
        costs[hop] = count + total * min(1.0, cuts * hop / max(last - first, 1))
    best = min(costs, key=lambda hop: costs[hop])
    return best if costs[best] * TILED_MIN_SAVING <= total else None
