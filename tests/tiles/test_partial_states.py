"""A tile of files keeps of its rows the same integers as a tile of pushed rows."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore import Count, Entity, FeatureView, Mean, ParquetSource, PushSource, StdDev, Sum, Var
from featurestore.declare.folds import Fold
from featurestore.query.windows.fold_input import FoldRows, column_name
from featurestore.semantics.order import pushed_place
from featurestore.semantics.time import END
from featurestore.semantics.windows import TileGrid
from featurestore.sources.offline import Offline
from featurestore.tiles.series import UNTIL, PushedRow, TileRange, ViewTiles
from featurestore.tiles.tile_codec import TileCodec
from featurestore.tiles.tile_rows import tile_table, tiled_columns
from featurestore.types import Float64, Int64, Timestamp
from tests.semantics.values import of_type
from tests.world import resolved

HOP = 4
SCHEMA = {"id": Int64, "at": Timestamp, "x": Float64, "n": Int64}
WHERE = "n > 0"
THING = Entity("thing", key={"id": Int64})


def folds(**more: Any) -> dict[str, Fold]:
    """Of two columns and under a condition, all over one window."""
    found: dict[str, Fold] = {"rows": Count(window="20us", **more)}
    for column in ("x", "n"):
        for fold in (Count, Sum, Mean, Var, StdDev):
            found[f"{fold.__name__}_{column}".lower()] = fold(column, window="20us", **more)
        found[f"some_{column}"] = Mean(column, window="20us", where=WHERE, **more)
    return found


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> FoldRows:
    """Of a refreshed view over files."""
    path = tmp_path_factory.mktemp("rows") / "rows.parquet"
    pq.write_table(pa.table({name: pa.array([], of.arrow) for name, of in SCHEMA.items()}), path)
    source = ParquetSource("rows", path, event_time="at")
    view = resolved(
        FeatureView("view", entity=THING, source=source, refresh="20us", features=folds()), Offline(Path())
    ).parts[0].view  # fmt: skip
    return FoldRows.of(view, view.folded)


def pushed_tiles() -> ViewTiles:
    """Of a continuous view over pushed rows."""
    source = PushSource("rows", schema=SCHEMA, event_time="at")
    view = FeatureView("view", entity=THING, source=source, features=folds(hop=f"{HOP}us"))
    return ViewTiles(resolved(view, Offline(Path())).parts[0].view)


PUSHED = pushed_tiles()
Row = tuple[int, float | None, int | None]


def of_files(plan: FoldRows, rows: list[Row]) -> pa.Table:
    """The tiles of rows as `tile_rows` keeps them."""
    aggregates = {"x": [x for _, x, _ in rows], "n": [n for _, _, n in rows]}
    columns = {f"x{i}": pa.array(aggregates[name], of.arrow) for i, (name, of) in enumerate(plan.columns)}
    times = pa.array([e for e, _, _ in rows], pa.int64())
    met = pa.array([n is not None and n > 0 for _, _, n in rows], pa.bool_())
    nothing = pa.array([0] * len(rows), pa.int32())
    return tile_table(
        plan,
        pa.table({"key_no": nothing, "event_us": times, "counts_from": times, **columns, "w0": met}),
        TileGrid(HOP),
    )


def kept(tile: dict[str, int], number: int, name: str, unit: int) -> Fraction:
    """What a tile of files keeps of the n-th tiled column, as the integer of that name in a tile of pushed rows."""
    places = {"nan": [0], "plus": [1], "minus": [2], "unbounded": [0, 1, 2]}
    if name in places:
        return Fraction(sum(tile.get(f"special_{number}_{place}", 0) for place in places[name]))
    if name == "values":
        return Fraction(tile.get(f"values_{number}_0", 0))
    part, scale = ("sums", unit) if name == "sum" else ("squares", unit * unit)
    limbs = {
        int(column.split("_")[2]): digits for column, digits in tile.items() if column.startswith(f"{part}_{number}_")
    }
    return sum((digits * Fraction(1 << 32) ** (place - 100) for place, digits in limbs.items()), Fraction(0)) * scale


@settings(deadline=None, max_examples=40)
@given(
    rows=st.lists(st.tuples(st.integers(-15, 15), st.none() | of_type(Float64), st.none() | of_type(Int64)), min_size=1)
)
def test_both_keep_the_same_integers(plan: FoldRows, rows: list[Row]) -> None:
    """Of each tile and each number of each fold; nulls, NaN, infinities and the smallest doubles included."""
    rows.sort(key=lambda row: row[0])
    pushed = [
        PushedRow((), e, o, pushed_place(e, o), {"x": x, "n": n, UNTIL: END}, {f"({WHERE})": n is not None and n > 0})
        for o, (e, x, n) in enumerate(rows, -1000)  # so early that no tile is out of reach
    ]
    codec = TileCodec(PUSHED)
    record = codec.changed(None, pushed)
    assert record is not None
    tiles = of_files(plan, rows).to_pylist()
    numbers = {
        (name[0], name[2]): number
        for number, name in enumerate(
            map(column_name, (each.feature for each in tiled_columns(plan.features).values()))
        )
    }
    (series,) = PUSHED.series
    assert [tile["tile_start"] for tile in tiles] == sorted({TileGrid(HOP).start(e) for e, _, _ in rows})
    for tile in tiles:
        start = tile["tile_start"]
        states = codec.read([record]).merged([TileRange(0, start, start, range(len(series.aggregates)))])
        for aggregate, (state,) in zip(series.aggregates, states, strict=True):
            unit = getattr(aggregate.algebra, "measure", None)
            integers = state if isinstance(state, tuple) else (state,)
            for (column, where, name), integer in zip(aggregate.numbers, integers, strict=True):
                assert kept(tile, numbers[column, where], name, 1 if unit is None else unit.unit) == integer, (
                    name,
                    rows,
                )


def test_not_finite_values_are_counted_apart(plan: FoldRows) -> None:
    """As the places of one part."""
    (tile,) = of_files(plan, [(1, x, 1) for x in (math.nan, math.inf, math.inf, -math.inf, 2.0)]).to_pylist()
    number = next(i for i, name in enumerate(tiled_columns(plan.features)) if (name[0], name[2]) == ("x", None))
    assert [tile[f"special_{number}_{place}"] for place in range(3)] == [1, 2, 1]
