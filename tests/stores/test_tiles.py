"""Records of tiles: merging rows into them, in whatever portions, is folding the rows that lie in each window."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any

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
from featurestore.semantics.lanes import UNTIL, Cell, Lanes, PushedRow, pushed_place
from featurestore.semantics.time import END
from featurestore.semantics.view import ResolvedView, algebra_of
from featurestore.semantics.windows import Span
from featurestore.stores.offline import Offline
from featurestore.stores.tiles import TileCodec
from featurestore.types import Float64, Int64, String, Timestamp
from tests.semantics.values import of_type
from tests.world import resolved

TYPES = {"x": Float64, "n": Int64, "s": String}
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
    source = PushSource("rows", schema={"id": Int64, "at": Timestamp, **TYPES}, event_time="at")
    view = FeatureView("view", entity=Entity("thing", key={"id": Int64}), source=source, features=features)
    return resolved(view, Offline(Path())).parts[0].view


VIEW = _view()
LANES = Lanes(VIEW)
CODEC = TileCodec(LANES)


@st.composite
def pushed(draw: st.DrawFn) -> list[PushedRow]:
    """Rows in the order of known_at, happened in any order."""
    rows = []
    for known_at in range(draw(st.integers(1, 30))):
        e = draw(st.integers(-15, 25))
        values = {name: draw(st.none() | of_type(of)) for name, of in TYPES.items()}
        met = {LANES.conditions[0]: values["n"] is not None and values["n"] > 0}
        rows.append(PushedRow((), e, known_at, pushed_place(e, known_at), {**values, UNTIL: END}, met))
    return rows


def _record(rows: Sequence[PushedRow], sizes: Sequence[int]) -> bytes:
    """The rows added in portions, the record packed and unpacked in between."""
    record, at = CODEC.pack(CODEC.empty()), 0
    for size in (*sizes, len(rows)):
        part = rows[at : at + size]
        at += len(part)
        if part:
            kept = CODEC.unpack(record)
            CODEC.add(kept, part)
            record = CODEC.pack(kept)
    return record


def _folded(rows: Sequence[PushedRow], as_of: int) -> list[Any]:
    """Each feature from the rows in its window, one by one."""
    found = []
    for feature in VIEW.features:
        algebra, span = algebra_of(feature), feature.span or Span(None)
        cell = Cell(algebra, feature.fold.column, feature.where)
        seen = [cell.lift(row) for row in rows if span.start(as_of) < row.event_time <= span.end(as_of)]
        value, status = algebra.finish(reduce(algebra.merge, [s for s in seen if s is not None], algebra.zero))
        found.append((repr(value), status))
    return found


@settings(deadline=None, max_examples=150)
@given(rows=pushed(), sizes=st.lists(st.integers(1, 5), max_size=5), later=st.integers(0, 12))
def test_a_record_says_what_its_rows_say(rows: list[PushedRow], sizes: list[int], later: int) -> None:
    """Every fold, over windows with and without an offset, from the newest row on, to the bit."""
    as_of = max(row.event_time for row in rows) + later
    # What is trimmed goes by known_at, which is the clock's.
    rows = [row._replace(known_at=row.known_at - 1000 + as_of) for row in rows]
    kept = CODEC.unpack(_record(rows, sizes))
    values, statuses = LANES.values(CODEC.tiles(kept), as_of)
    assert list(zip(map(repr, values), statuses, strict=True)) == _folded(rows, as_of)
    assert (kept.known, kept.instant) == (len(rows), rows[-1].known_at)


@settings(deadline=None, max_examples=60)
@given(rows=pushed(), sizes=st.lists(st.integers(1, 5), max_size=5))
def test_portions_change_no_byte_of_a_record(rows: list[PushedRow], sizes: list[int]) -> None:
    """Rows added one by one, in portions or all at once make the same bytes."""
    once = _record(rows, [])
    assert _record(rows, sizes) == _record(rows, [1] * len(rows)) == once
    assert CODEC.pack(CODEC.unpack(once)) == once


def test_tiles_out_of_reach_are_forgotten() -> None:
    """A record's size is bounded by its windows, not by its rows."""
    sizes = []
    for count in (2_000, 4_000):
        rows = [PushedRow((), e, e, pushed_place(e, e), {"x": 1.5, "n": 1, "s": "a", UNTIL: END}, {LANES.conditions[0]: True})
                for e in range(count)]  # fmt: skip
        sizes.append(len(_record(rows, [10] * (count // 10))))
    assert sizes[1] <= sizes[0] + 100
