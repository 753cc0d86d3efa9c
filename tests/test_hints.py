"""What an error says beside what is wrong, where callers stumbled: what was null, what a NaN is, what becomes of a Period."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd
import pytest

from featurestore import (
    DataFrameSource,
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Latest,
    PushSource,
    Request,
    on_demand,
)
from featurestore.errors import FeatureStoreError, FingerprintError, OnDemandError, PushError, RequestError, SpineError
from featurestore.types import Float64, Int64, String, Timestamp
from tests.small import NOON, THING, hours, opened, raised, table, view_of

VIEW = view_of(table(thing=[1], at=[hours(-1)], x=[1.0]), {"x": Latest("x")}, refresh="1h")
PUSHED = PushSource("rows", schema={"thing": Int64, "at": Timestamp, "s": String}, event_time="at")
PUSHES = FeatureView("pushes", entity=THING, source=PUSHED, features=["s"])


@on_demand(inputs=[VIEW["x"], Request("by", Float64), Request("more", Float64)], output=Float64)
def share(x, by, more):  # type: ignore[no-untyped-def]  # a user's function without types  # noqa: ANN001, ANN201
    """Fails for nulls."""
    return x / by + more


@pytest.fixture(scope="module")
def store() -> Iterator[FeatureStore]:
    services = FeatureService("service", features=[VIEW, PUSHES]), FeatureService("shares", features=[share])
    with opened(*services) as (store, _):
        store.materialize(progress=False)
        yield store


def test_a_function_that_fails_names_the_inputs_that_were_null(store: FeatureStore) -> None:
    """Alike in training and in a lookup."""
    row: dict[str, Any] = {"thing": 9, "by": 2.0, "more": None}
    spine = pd.DataFrame([{**row, "event_timestamp": NOON}]).astype({"more": "Float64"})
    for ask in (
        lambda: store.get_online_features(row, "shares"),
        lambda: store.get_historical_features(spine, "shares"),
    ):
        told = raised(OnDemandError, ask)
        assert "NoneType" in told
        assert ". Null here: view__x, more; a function is given None for each (tests/test_hints.py:" in told
    fine = raised(OnDemandError, lambda: store.get_online_features({"thing": 1, "by": 0.0, "more": 1.0}, "shares"))
    assert "Null" not in fine


def test_a_nan_for_an_integer_or_a_text_says_how_a_null_is_given(store: FeatureStore) -> None:
    nan = float("nan")
    cases: list[tuple[type[FeatureStoreError], Callable[[], Any]]] = [
        (RequestError, lambda: store.get_online_features({"thing": nan}, "service")),
        (PushError, lambda: store.push("rows", {"thing": nan, "at": NOON})),
        (PushError, lambda: store.push("rows", {"thing": 1, "at": NOON, "s": nan})),
    ]
    for error, ask in cases:
        assert "; where it stands for null, give None" in raised(error, ask)
    assert "null" not in raised(RequestError, lambda: store.get_online_features({"thing": 1.5}, "service"))


def test_a_period_says_how_it_becomes_an_instant(store: FeatureStore) -> None:
    """It was taken for a number whose unit is to be said, which gave the month 648 in 1970."""
    months = pd.period_range("2024-01", periods=1, freq="M")
    says = ".dt.to_timestamp() gives its start"
    spine = pd.DataFrame({"thing": [1], "event_timestamp": months})
    assert says in raised(SpineError, lambda: store.get_historical_features(spine, "service"))
    spine = pd.DataFrame({"thing": months, "event_timestamp": [NOON]})
    assert says in raised(SpineError, lambda: store.get_historical_features(spine, "service"))
    assert says in raised(PushError, lambda: store.push("rows", pd.DataFrame({"thing": [1], "at": months})))
    spine = pd.DataFrame({"thing": [1], "event_timestamp": [NOON], "month": months})  # of no use here
    assert store.get_historical_features(spine, "view").to_pandas()["month"].tolist() == list(months)


def test_numbers_in_a_spine_say_how_they_become_text() -> None:
    """As in a frame that is pushed: a CSV file of ids is read as numbers by most libraries."""
    source = DataFrameSource("names", pd.DataFrame({"name": ["1"], "at": [NOON], "x": [1.0]}), event_time="at")
    view = FeatureView(
        "named", entity=Entity("name", key={"name": String}), source=source, refresh="1h", features=["x"]
    )
    says = ", and must be String; numbers are never taken for text: convert it, as .astype('string') does in pandas"
    with FeatureStore.local() as store:
        for name in (1, 1.5):
            spine = pd.DataFrame({"name": [name], "event_timestamp": [NOON]})
            assert says in raised(SpineError, lambda spine=spine: store.get_historical_features(spine, [view]))
        spine = pd.DataFrame({"name": [True], "event_timestamp": [NOON]})
        assert "convert" not in raised(SpineError, lambda: store.get_historical_features(spine, [view]))


def test_an_empty_fingerprint_is_shown_as_one(store: FeatureStore) -> None:
    told = raised(FingerprintError, lambda: store.get_online_features({"thing": 1}, "service", fingerprint=""))
    assert "was never applied with fingerprint ''" in told
