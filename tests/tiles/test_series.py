"""What a continuous view over pushed rows keeps: tiles (b, b + hop], how far back they matter, and what is kept once."""

from __future__ import annotations

from typing import Any

import pytest

from featurestore import Count, Entity, FeatureView, First, Latest, Max, Mean, PushSource, StdDev, Sum, Var
from featurestore.semantics.order import event_time_of, pushed_place
from featurestore.semantics.time import BEGINNING, END
from featurestore.semantics.windows import Span
from featurestore.sources.offline import Offline
from featurestore.tiles.series import ViewTiles
from featurestore.types import Float64, Int64, Timestamp
from tests.world import resolved

THING = Entity("thing", key={"id": Int64})


def series_of(tmp_path: Any, *, ttl: str | None = None, until: str | None = None, **features: Any) -> ViewTiles:
    schema = {"id": Int64, "at": Timestamp, "x": Float64, "n": Int64, **({until: Timestamp} if until else {})}
    source = PushSource("rows", schema=schema, event_time="at", until=until)
    view = FeatureView("view", entity=THING, source=source, features=features, ttl=ttl)
    return ViewTiles(resolved(view, Offline(tmp_path)).parts[0].view)


@pytest.mark.parametrize("length", [5, 7, 10])
def test_the_oldest_tile_is_the_one_that_the_longest_window_begins_with(length: int, tmp_path: Any) -> None:
    (series,) = series_of(tmp_path, a=Sum("x", window=f"{length}us", hop="5us")).series
    for as_of in range(-12, 13):
        first = Span(length, hop=5).start(as_of) + 1  # µs
        assert series.reach.start(as_of) == series.grid.start(first)


def test_windows_of_one_hop_share_a_series_as_far_back_as_the_longest_of_them(tmp_path: Any) -> None:
    """An offset is a part of how far back it is."""
    tiles = series_of(
        tmp_path,
        a=Sum("x", window="6us", hop="2us"),
        b=Max("x", window="2us", offset="8us", hop="2us"),
        c=Sum("x", window="9us", hop="3us"),
        d=Sum("x", window="lifetime"),
    ).series
    assert [(series.grid.hop, series.reach.length, len(series.aggregates)) for series in tiles] == [
        (0, None, 1),
        (2, 10, 2),
        (3, 9, 1),
    ]


def test_folds_that_keep_the_same_share_an_aggregate(tmp_path: Any) -> None:
    """Of one column, under one condition; what differs in any of these does not."""
    tiles = series_of(
        tmp_path,
        a=Sum("x", window="6us", hop="2us"),
        b=Mean("x", window="4us", hop="2us"),
        c=Var("x", window="6us", hop="2us"),
        d=StdDev("x", window="6us", hop="2us"),
        e=Sum("n", window="6us", hop="2us"),
        f=Sum("x", where="n > 0", window="6us", hop="2us"),
        g=Count("x", window="6us", hop="2us"),
        h=Count(window="6us", hop="2us"),
    )
    aggregates = [(aggregate.column, aggregate.where) for aggregate in tiles.series[0].aggregates]
    assert aggregates == [("x", None), ("x", None), ("n", None), ("x", "(n > 0)"), ("x", None), (None, None)]
    assert tiles.conditions == ("(n > 0)",)


def test_the_end_of_a_validity_is_kept_for_the_newest_row_alone(tmp_path: Any) -> None:
    """Beside `Latest`, and not beside `First`, which no validity ends."""
    with_until = series_of(tmp_path, until="until", a=Latest("x"), b=First("x", window="lifetime"))
    assert [aggregate.column for aggregate in with_until.series[0].aggregates] == ["x", "", "x"]
    assert [aggregate.column for aggregate in series_of(tmp_path, a=Latest("x")).series[0].aggregates] == ["x"]


def test_places_are_in_the_order_of_event_time_and_then_of_when_rows_were_learned() -> None:
    rows = [(e, o) for e in (BEGINNING, -1, 0, 1, END) for o in (BEGINNING, -1, 0, 1, END)]
    places = [pushed_place(e, o) for e, o in rows]
    assert places == sorted(places)
    assert len(set(places)) == len(rows)
    assert [event_time_of(place) for place in places] == [e for e, _ in rows]
    assert pushed_place(1, -1).hex() == "80000000000000017fffffffffffffff"  # as records keep it
