"""The golden records of tiles, made anew: `python -m tests.golden_tiles` rewrites their bytes and what is read from them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from featurestore import (
    ApproxCountDistinct,
    ApproxQuantile,
    Count,
    CountDistinct,
    Entity,
    FeatureView,
    First,
    LastDistinctN,
    LastN,
    Latest,
    Max,
    Mean,
    Min,
    PushSource,
    StdDev,
    Sum,
    Var,
)
from featurestore.declare.folds import Fold
from featurestore.semantics.order import pushed_place
from featurestore.semantics.time import END
from featurestore.sources.offline import Offline
from featurestore.tiles.series import UNTIL, PushedRow, Replaced, ViewTiles
from featurestore.tiles.tile_codec import TileCodec
from featurestore.types import Float64, Int64, String, Timestamp
from tests.golden_wire import GOLDEN
from tests.world import resolved

RECORDS = GOLDEN / "tile_records.json"
AS_OF = 40
FLOATS = (1.5, -0.0, 5e-324, 1.7e308, -1e-3, None, 0.1, 1e17, -2.5)
INTS = (0, -1, 7, (1 << 63) - 1, None, -(1 << 63), 300, 70_000, 1)
TEXTS = ("a", "", None, "ü\x00", "b", "a", "c")

SUMS: dict[str, Any] = {
    "count": Count(windows=["20us", "7us"], hop="1us"),
    "n": Sum("n", window="20us", hop="4us"),
    "mean": Mean("x", window="20us", hop="4us"),
    "some": Mean("x", where="n > 0", window="lifetime"),
    "var": Var("x", window="6us", offset="5us", hop="3us"),
    "stddev": StdDev("n", window="lifetime"),
}
REST: dict[str, Any] = {
    "min": Min("x", window="20us", hop="4us"),
    "max": Max("s", window="7us", hop="3us"),
    "first": First("s", window="lifetime"),
    "latest": Latest("n", window="20us", hop="4us"),
    "last": LastN("x", n=3, window="lifetime"),
    "distinct": LastDistinctN("s", n=2, window="20us", hop="4us"),
    "set": CountDistinct("s", bound=3, window="20us", hop="4us"),
    "sketch": ApproxCountDistinct("n", window="20us", hop="4us"),
    "median": ApproxQuantile("x", q=0.5, window="lifetime"),
    "bare": Latest("x"),
}
VIEWS: dict[str, dict[str, Fold]] = {"sums": SUMS, "every fold": {**SUMS, **REST}}


def view_tiles(features: dict[str, Fold]) -> ViewTiles:
    """The tiles of a view with these features."""
    schema = {"id": Int64, "at": Timestamp, "x": Float64, "n": Int64, "s": String}
    source = PushSource("rows", schema=schema, event_time="at")
    view = FeatureView("view", entity=Entity("thing", key={"id": Int64}), source=source, features=features)
    return ViewTiles(resolved(view, Offline(Path())).parts[0].view)


def rows(count: int, *, special: bool) -> list[PushedRow]:
    """Rows that happened before 1970 and after, in any order; special: NaN and infinities among them."""
    found = []
    for number in range(count):
        x = (math.nan, math.inf, -math.inf)[number % 3] if special and number % 4 == 1 else FLOATS[number % len(FLOATS)]
        values = {"x": x, "n": INTS[number * 5 % len(INTS)], "s": TEXTS[number % len(TEXTS)], UNTIL: END}
        event_time, n = number * 7 % 50 - 12, values["n"]
        met = {"(n > 0)": isinstance(n, int) and n > 0}
        found.append(PushedRow((), event_time, number, pushed_place(event_time, number), values, met))
    return found


def made() -> dict[str, list[str]]:
    """Records as hex: of one row, of many in portions, with NaN and infinities, and (of sums) with rows taken out again."""
    found = {}
    for name, features in VIEWS.items():
        codec = TileCodec(view_tiles(features))
        records = [
            codec.changed(None, rows(count, special=special), instant=AS_OF)
            for count, special in ((1, False), (12, False), (12, True))
        ]
        more = [row._replace(known_at=AS_OF + 1) for row in rows(5, special=True)]
        records.append(codec.changed(records[1], more))
        if name == "sums":
            gone = [Replaced(row, AS_OF + 2) for row in rows(9, special=True)]
            records.append(codec.changed(records[2], [], gone))
        found[name] = [record.hex() for record in records if record is not None]
    return found


def said(name: str, records: list[str]) -> list[str]:
    """What is read from each record, feature by feature, read together."""
    tiles = view_tiles(VIEWS[name])
    columns, statuses = tiles.columns(TileCodec(tiles).read([bytes.fromhex(record) for record in records]), AS_OF + 2)
    by_feature = [list(zip(map(repr, values), of, strict=True)) for values, of in zip(columns, statuses, strict=True)]
    return [", ".join(f"{value} {of.name}" for value, of in record) for record in zip(*by_feature, strict=True)]


if __name__ == "__main__":
    records = made()
    RECORDS.write_text(
        json.dumps({name: {"records": of, "said": said(name, of)} for name, of in records.items()}, indent=1) + "\n"
    )
