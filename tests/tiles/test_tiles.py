"""Records of tiles: merging rows into them, in whatever portions, is folding the rows that lie in each window."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
from featurestore.errors import OnlineStoreError
from featurestore.semantics.order import pushed_place
from featurestore.semantics.status import Status
from featurestore.semantics.time import END
from featurestore.semantics.view import ResolvedView, algebra_of
from featurestore.semantics.windows import Span
from featurestore.sources.offline import Offline
from featurestore.tiles.series import UNTIL, PartialAggregate, PushedRow, ViewTiles
from featurestore.tiles.tile_codec import BLOCK_READ_MIN_RECORDS, TileCodec
from featurestore.types import Float64, Int64, String, Timestamp
from tests.draws import draws
from tests.semantics.values import of_type
from tests.world import resolved

TYPES = {"x": Float64, "n": Int64, "s": String}
THING = Entity("thing", key={"id": Int64})
ROWS = PushSource("rows", schema={"id": Int64, "at": Timestamp, **TYPES}, event_time="at")
WINDOWS: list[dict[str, Any]] = [
    {"window": "20us", "hop": "4us"},
    {"window": "7us", "hop": "3us"},
    {"window": "6us", "offset": "5us", "hop": "3us"},
    {"window": "lifetime"},
]


def _view() -> ResolvedView:
    features: dict[str, Any] = {}
    for number, words in enumerate(WINDOWS):
        for fold in (Sum, Mean, Var, StdDev, Min, Max, Count, First, Latest):
            for column in TYPES:
                if fold in {Sum, Mean, Var, StdDev} and column == "s":
                    continue
                features[f"{fold.__name__}_{column}_{number}".lower()] = fold(column, **words)
        features[f"some_{number}"] = Mean("x", where="n > 0", **words)
        features[f"last_{number}"] = LastN("x", n=3, **words)
        features[f"last_distinct_{number}"] = LastDistinctN("s", n=2, **words)
        features[f"distinct_{number}"] = CountDistinct("s", bound=3, **words)
        features[f"approx_{number}"] = ApproxCountDistinct("s", **words)
        features[f"median_{number}"] = ApproxQuantile("x", q=0.5, **words)
    view = FeatureView("view", entity=THING, source=ROWS, features=features)
    return resolved(view, Offline(Path())).parts[0].view


VIEW = _view()
TILES = ViewTiles(VIEW)
CODEC = TileCodec(TILES)


@st.composite
def pushed(draw: st.DrawFn) -> list[PushedRow]:
    """Rows in the order of known_at, happened in any order."""
    rows = []
    for known_at in range(draw(st.integers(1, 30))):
        e = draw(st.integers(-15, 25))
        values = {name: draw(st.none() | of_type(of)) for name, of in TYPES.items()}
        met = {TILES.conditions[0]: values["n"] is not None and values["n"] > 0}
        rows.append(PushedRow((), e, known_at, pushed_place(e, known_at), {**values, UNTIL: END}, met))
    return rows


def _record(rows: Sequence[PushedRow], sizes: Sequence[int]) -> bytes:
    """The rows added in portions, the record packed and unpacked in between."""
    record: bytes | None = None
    at = 0
    for size in (*sizes, len(rows)):
        part = rows[at : at + size]
        at += len(part)
        if part:
            record = CODEC.changed(record, part)
    assert record is not None
    return record


def _folded(rows: Sequence[PushedRow], as_of: int) -> list[Any]:
    """Each feature from the rows in its window, one by one."""
    found = []
    for feature in VIEW.features:
        algebra, span = algebra_of(feature), feature.span or Span(None)
        aggregate = PartialAggregate(algebra, feature.fold.column, feature.where)
        seen = [aggregate.lift(row) for row in rows if span.start(as_of) < row.event_time <= span.end(as_of)]
        value, status = algebra.finish(reduce(algebra.merge, [s for s in seen if s is not None], algebra.zero))
        found.append((repr(value), status))
    return found


def _values(records: Sequence[bytes], as_of: int) -> list[list[Any]]:
    """Each feature of each record."""
    columns, statuses = TILES.columns(CODEC.read(records), as_of)
    found = [
        list(zip(map(repr, column), status, strict=True)) for column, status in zip(columns, statuses, strict=True)
    ]
    return [list(row) for row in zip(*found, strict=True)]


@settings(deadline=None, max_examples=draws(150))
@given(rows=pushed(), sizes=st.lists(st.integers(1, 5), max_size=5), later=st.integers(0, 12))
def test_a_record_says_what_its_rows_say(rows: list[PushedRow], sizes: list[int], later: int) -> None:
    """Every fold, over windows with and without an offset, from the newest row on, to the bit."""
    as_of = max(row.event_time for row in rows) + later
    # What is trimmed goes by known_at, which is the clock's.
    rows = [row._replace(known_at=row.known_at - 1000 + as_of) for row in rows]
    kept = CODEC.unpack(_record(rows, sizes))
    assert _values([_record(rows, sizes)], as_of) == [_folded(rows, as_of)]
    assert (kept.rows, kept.instant) == (len(rows), rows[-1].known_at)


@settings(deadline=None, max_examples=draws(25))
@given(
    several=st.lists(pushed(), min_size=BLOCK_READ_MIN_RECORDS, max_size=BLOCK_READ_MIN_RECORDS + 3),
    later=st.integers(0, 12),
)
def test_many_records_say_what_each_says(several: list[list[PushedRow]], later: int) -> None:
    """Records that are read all at once say the same as one by one: what the rows say, to the bit."""
    as_of = max(row.event_time for rows in several for row in rows) + later
    several = [[row._replace(known_at=row.known_at - 1000 + as_of) for row in rows] for rows in several]
    records = [_record(rows, [3]) for rows in several]
    assert _values(records, as_of) == [_folded(rows, as_of) for rows in several]
    tiles = CODEC.read(records)
    assert [*zip(tiles.rows, tiles.instants, strict=True)] == [(len(rows), rows[-1].known_at) for rows in several]


@settings(deadline=None, max_examples=draws(60))
@given(rows=pushed(), sizes=st.lists(st.integers(1, 5), max_size=5))
def test_portions_change_no_byte_of_a_record(rows: list[PushedRow], sizes: list[int]) -> None:
    """Rows added one by one, in portions or all at once make the same bytes."""
    once = _record(rows, [])
    assert _record(rows, sizes) == _record(rows, [1] * len(rows)) == once
    assert CODEC.changed(once, rows) == once


@pytest.mark.parametrize("features", [{"n": Sum("n", window="1h")}, {"x": Max("x", window="1h")}], ids=["sum", "max"])
def test_a_lane_may_have_numbers_alone_or_none(features: dict[str, Any]) -> None:
    """A lane of one fold reads as it was written, one record or many."""
    view = resolved(FeatureView("view", entity=THING, source=ROWS, features=features), Offline(Path())).parts[0].view
    view_tiles = ViewTiles(view)
    codec = TileCodec(view_tiles)
    rows = [PushedRow((), e, e, pushed_place(e, e), {"x": e / 2, "n": e, UNTIL: END}, {}) for e in range(1, 4)]
    records = [codec.changed(None, rows[:count], instant=5) for count in range(1, 4)] * BLOCK_READ_MIN_RECORDS
    tiles = codec.read([record for record in records if record is not None])
    expected = [1, 3, 6] if "n" in features else [0.5, 1.0, 1.5]
    assert view_tiles.columns(tiles, 5) == (
        [expected * BLOCK_READ_MIN_RECORDS],
        [[Status.PRESENT] * 3 * BLOCK_READ_MIN_RECORDS],
    )


def test_records_of_another_format_are_refused() -> None:
    """The error says what to do; nothing is read as what it is not."""
    old = b"\x02" + bytes(100)
    for records in ([old], [old] * BLOCK_READ_MIN_RECORDS):
        with pytest.raises(OnlineStoreError, match="format 2.*materialize --full"):
            CODEC.read(records)


def test_tiles_out_of_reach_are_forgotten() -> None:
    """A record's size is bounded by its windows, not by its rows."""
    sizes = []
    for count in (2_000, 4_000):
        rows = [PushedRow((), e, e, pushed_place(e, e), {"x": 1.5, "n": 1, "s": "a", UNTIL: END}, {TILES.conditions[0]: True})
                for e in range(count)]  # fmt: skip
        sizes.append(len(_record(rows, [10] * (count // 10))))
    assert sizes[1] <= sizes[0] + 100
