"""Tiles that stand for the rows of some files: how they are made of rows, joined, and read beside the rows of other files.

At one instant a tile answers for its rows where all of them count and no edge of a window lies inside it. The rows of
every other tile are read as they are, so that what a fold is asked for is the same with tiles and without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import duckdb
import numpy as np
import pyarrow as pa

from featurestore.query.asof import same_key
from featurestore.query.changed_keys import all_keys_sql
from featurestore.query.windows.batching import key_batches, memory_batches
from featurestore.query.windows.fold_input import COUNTED, FoldRows, earliest
from featurestore.query.windows.tiled import TILES
from featurestore.semantics.rows import rows_sql, visible_span
from featurestore.semantics.source_columns import Scan, key_list
from featurestore.semantics.sql import file_list
from featurestore.semantics.view import ResolvedFeature, ResolvedView
from featurestore.tiles.tile_rows import TileRows, joined, tile_grid, tile_table

__all__ = ["FileTiles", "Rest", "count_rows", "joined_sql", "make_tiles", "width_for"]

MINUTE, HOUR = 60_000_000, 3_600_000_000
CANDIDATES = (5 * MINUTE, 15 * MINUTE, HOUR, 6 * HOUR, 24 * HOUR)
"""Widths of tiles, µs."""

LEAST = 500_000
"""Rows that are read as quickly as tiles are, all together."""

WORTH = 3
"""So many times fewer tiles and rows must be read than there are rows, or tiles are not worth making."""


class Rest(NamedTuple):
    """How SQL reads the rows beside the tiles: files that have none, then from number `first` on tiled ones."""

    scan: Scan
    first: int


class FileTiles(NamedTuple):
    """Tiles (b, b + width] of files: the query's `Tiling`."""

    width: int
    """µs"""

    files: tuple[str, ...]
    """Where they lie, Parquet of `tile_rows`."""

    rest: Callable[[Sequence[int]], Rest]
    """What to read beside them when the rows of some tiles (their b) are asked for."""

    def use(self, connection: duckdb.DuckDBPyConnection, plan: FoldRows) -> tuple[Scan, str]:
        """Fill `TILES` with the tiles that answer at `plan.at` for the keys of `asof_keys`; what reads the other rows: a scan, and
        the condition of `FoldRows.statement` on them."""
        view, at = plan.view, plan.at
        assert at is not None
        cut = _cut_tiles(view, plan.features, at, self.width)
        start = earliest(view, plan.features, at)
        source = (
            f"(SELECT x.key_no - 1 AS key_no, t.* EXCLUDE ({key_list(view)}, e), t.e AS event_us FROM read_parquet({file_list(self.files)}, "
            f"union_by_name = true, hive_partitioning = false) t "
            f"JOIN asof_keys x ON {same_key(view, 't')} WHERE t.v_first <= {at})"
        )
        seen, older = (
            ("true", "false") if start is None else (f"b > {start - self.width}", f"b <= {start - self.width}")
        )
        part = f"v_last > {at}" + (f" OR b IN ({', '.join(map(str, cut))})" if cut else "")
        run = connection.execute
        run(f"CREATE OR REPLACE TEMP TABLE {TILES} AS FROM {source} WHERE {seen}")
        run(
            f"CREATE OR REPLACE TEMP TABLE asof_older AS SELECT key_no, b, v_last, event_us FROM {source} WHERE {older}"
        )
        run(
            f"CREATE OR REPLACE TEMP TABLE asof_apart AS SELECT DISTINCT key_no, b FROM (SELECT key_no, b FROM {TILES} WHERE {part} "
            f"UNION ALL SELECT key_no, b FROM asof_older WHERE {part})"
        )
        whole = "(FROM {}) ANTI JOIN asof_apart USING (key_no, b)"
        run(
            f"CREATE OR REPLACE TEMP TABLE {TILES} AS SELECT * EXCLUDE (v_first, v_last) FROM {whole.format(TILES)} "
            f"UNION ALL BY NAME SELECT key_no, max(b) AS b, max(event_us) AS event_us FROM {whole.format('asof_older')} GROUP BY key_no"
        )
        apart = [b for (b,) in connection.execute("SELECT DISTINCT b FROM asof_apart").fetchall()]
        rest = self.rest(sorted({*apart, *cut}))
        b = tile_grid(view, self.width).start_sql("r.event_us")
        return rest.scan, f"(r.file < {rest.first} OR (x.key_no - 1, {b}) IN (SELECT (key_no, b) FROM asof_apart))"

    def rows(self, plan: FoldRows, table: pa.Table, *, keys: int, first: int) -> TileRows:
        """The tiles in a part of `TILES`, of `keys` keys numbered from `first`."""
        return TileRows(plan, table, keys=keys, first=first, width=self.width)


def _edges(view: ResolvedView, features: Sequence[ResolvedFeature], at: int) -> set[int]:
    """The instants at which the window of some feature begins or ends at `at`."""
    found = {at}
    for span in {visible_span(view, feature) for feature in features}:
        found |= {span.end(at)} | ({span.start(at)} if span.length is not None else set())
    return found


def _cut_tiles(view: ResolvedView, features: Sequence[ResolvedFeature], at: int, width: int) -> list[int]:
    """The b of the tiles inside which an edge of a window lies at `at`."""
    grid = tile_grid(view, width)
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


def make_tiles(connection: duckdb.DuckDBPyConnection, plan: FoldRows, *, width: int) -> Iterator[pa.Table]:
    """The tiles of the rows that were counted, some keys at a time, in order of their b."""
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
            tables = pool.map(partial(tile_table, plan, width=width), parts)
            made = pa.concat_tables(tables, promote_options="default")
            connection.register("made_tiles", made)
            yield connection.sql(
                f"SELECT {key_list(plan.view, 'x')}, t.* EXCLUDE (key_no) FROM made_tiles t "
                "JOIN asof_keys x ON x.key_no = t.key_no + 1 ORDER BY b"
            ).to_arrow_table()
            connection.unregister("made_tiles")


def joined_sql(view: ResolvedView, files: Sequence[str], columns: Sequence[str]) -> str:
    """The tiles of several files, of which those of one key and b become one. columns: those that any of them has."""
    keys = key_list(view)
    named = {"b", *keys.split(", ")}
    read = f"read_parquet({file_list(files)}, union_by_name = true, hive_partitioning = false)"
    kept = ", ".join(f"CAST({joined(name)}({name}) AS BIGINT) AS {name}" for name in columns if name not in named)
    return f"SELECT {keys}, b, {kept} FROM {read} GROUP BY {keys}, b ORDER BY b"


def width_for(
    connection: duckdb.DuckDBPyConnection, view: ResolvedView, scan: Scan, *, ats: Sequence[int]
) -> int | None:
    """The width of tiles for which least is to be read at instants like `ats`; None where rows are as good.

    What is read are the tiles, and the rows of the tiles that an edge cuts.
    """
    keys, names = key_list(view), [f"w{i}" for i in range(len(CANDIDATES))]
    start = earliest(view, view.folded, ats[0])
    rows = f"({rows_sql(view, scan)})" + (f" WHERE event_us > {start}" if start is not None else "")
    counts = ", ".join(
        f"approx_count_distinct(hash({keys}, {tile_grid(view, width).start_sql('event_us')})) AS {name}"
        for name, width in zip(names, CANDIDATES, strict=True)
    )
    total, first, last, *tiles = connection.execute(
        f"SELECT count(*), min(event_us), max(event_us), {counts} FROM {rows}"
    ).fetchall()[0]
    if total < LEAST:
        return None
    costs = {}
    for width, count in zip(CANDIDATES, tiles, strict=True):
        cuts = max(len(_cut_tiles(view, view.folded, at, width)) for at in ats)
        costs[width] = count + total * min(1.0, cuts * width / max(last - first, 1))
    best = min(costs, key=lambda width: costs[width])
    return best if costs[best] * WORTH <= total else None
