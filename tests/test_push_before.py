"""A view over a push source before anything was pushed: nothing until it is complete, then MISSING on both paths."""

from __future__ import annotations

from datetime import timedelta

import pytest

from featurestore import Count, Entity, FeatureService, FeatureView, LastN, Latest, PushSource, Sum
from featurestore.errors import NotMaterializedError
from featurestore.types import Float64, Int64, String, Timestamp
from tests.small import NOON, THING, both, hours, opened, table, trained

CLICKS = PushSource(
    "clicks", schema={"id": String, "thing": Int64, "at": Timestamp, "x": Float64}, event_time="at", identity="id"
)
VIEW = FeatureView(
    "view", entity=THING, source=CLICKS,
    features={"n": Count(window="1h"), "sum": Sum("x", window="1h"), "last": LastN("x", n=2, window="1h"), "x": Latest("x")},
)  # fmt: skip
NAMES = ("n", "sum", "last", "x")


def test_before_any_push() -> None:
    """Applied: an error online, MISSING in training. Materialized: MISSING in both, now and later, and not stale."""
    with opened(VIEW) as (store, clock):
        with pytest.raises(NotMaterializedError, match="run featurestore materialize"):
            store.get_online_features([{"thing": 1}], "service")
        before = trained(store, NOON, thing=[1, None])
        for name in NAMES:
            assert before[f"view__{name}"].to_pylist() == [None, None]
            assert before[f"view__{name}__status"].to_pylist() == ["MISSING"] * 2
        for _ in range(2):
            told = both(store, thing=[1, None])
            assert told == {
                f"view__{name}{end}": [what] * 2
                for name in NAMES
                for end, what in (("", None), ("__status", "MISSING"))
            }
            online = store.get_online_features([{"thing": 1}], "service")
            assert (online.as_of, online.stale) == ({"view": clock()}, {"view": False})
            clock.advance(timedelta(minutes=7))


def test_a_first_push_makes_it_complete() -> None:
    """Without materialize; other keys are still unknown, and what training says of instants before it stays as it was."""
    with opened(VIEW) as (store, clock):
        store.push("clicks", [{"id": "a", "thing": 1, "at": NOON, "x": 2.0}])
        online = store.get_online_features([{"thing": 1}, {"thing": 2}], "service")
        assert online.to_dict()["view__n"] == [1, None]
        assert online.statuses["view__n"] == ["PRESENT", "MISSING"]
        assert trained(store, hours(-1), thing=[1])["view__n__status"].to_pylist() == ["MISSING"]
        clock.advance(timedelta(minutes=1))
        assert both(store, thing=[1, 2])["view__n__status"] == ["PRESENT", "MISSING"]


def test_a_view_without_keys_is_alike() -> None:
    """One record for all: unknown until a row comes."""
    whole = FeatureView("all", entity=Entity("all", key={}), source=CLICKS, features={"n": Count(window="1h")})
    with opened(whole, FeatureService("service", features=[whole])) as (store, _):
        store.materialize(progress=False)
        assert store.get_online_features([{}], "service").statuses["all__n"] == ["MISSING"]


def test_the_record_of_a_view_without_keys_is_made_anew() -> None:
    """Of all rows, where one of them was replaced that cannot be taken out of it."""
    features = {"n": Count(window="1h"), "x": Latest("x"), "sum": Sum("x", window="1h")}
    whole = FeatureView("all", entity=Entity("all", key={}), source=CLICKS, features=features)
    with opened(whole, FeatureService("service", features=[whole])) as (store, clock):
        store.push("clicks", [{"id": name, "thing": 1, "at": NOON, "x": x} for name, x in (("a", 1.0), ("b", 4.0))])
        store.push("clicks", {"id": "b", "thing": 2, "at": hours(-0.5), "x": 2.0})
        online = store.get_online_features([{}], "service").to_dict()
        assert online == {"all__n": [2], "all__x": [1.0], "all__sum": [3.0]}
        spine = table(event_timestamp=[clock()])
        trained_on = store.get_historical_features(spine, "service").to_arrow().drop_columns(["event_timestamp"])
        assert trained_on.to_pydict() == online


def test_the_record_of_a_key_that_is_derived_is_made_anew() -> None:
    """The source's own columns do not say which rows are the key's."""
    source = PushSource("clicks", schema=CLICKS.columns, event_time="at", identity="id", derived={"half": "thing // 2"})
    half = Entity("half", key={"half": Int64})
    view = FeatureView("view", entity=half, source=source, features={"x": Latest("x"), "sum": Sum("x", window="1h")})
    with opened(view) as (store, _):
        given = [("a", 2, 1.0), ("b", 3, 4.0), ("c", 4, 8.0)]
        store.push("clicks", [{"id": name, "thing": thing, "at": NOON, "x": x} for name, thing, x in given])
        assert both(store, half=[1, 2])["view__sum"] == [5.0, 8.0]
        store.push("clicks", {"id": "b", "thing": 3, "at": hours(-0.5), "x": 2.0})
        found = both(store, half=[1, 2])
        assert (found["view__x"], found["view__sum"]) == ([1.0, 8.0], [3.0, 8.0])
