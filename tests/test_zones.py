"""Instants without a zone, wherever they come in: told, whichever of several stands first; and read alike."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from featurestore import DataFrameSource, FeatureStore, FeatureView, Latest, PushSource, Request, on_demand
from featurestore.errors import DeclarationError, SpineError
from featurestore.types import Array, Int64, Timestamp
from tests.small import NOON, THING, hours, opened, table, view_of

AWARE, NAIVE = hours(1), hours(2).replace(tzinfo=None)
ORDERS = [[AWARE, NAIVE], [NAIVE, AWARE], [None, AWARE, NAIVE], [pd.NaT, NAIVE, AWARE]]
IDS = ["aware first", "naive first", "null, aware", "NaT, naive"]
TOLD = "timestamps without a zone are read as UTC: "

FRAMES: dict[str, Callable[[str, list[Any]], Any]] = {
    "pandas": lambda name, values: pd.DataFrame({"thing": [1] * len(values), name: pd.Series(values, dtype=object)}),
    "categories": lambda name, values: pd.DataFrame(
        {"thing": [1] * len(values), name: pd.Series(pd.Categorical(pd.Series(values, dtype=object)))}
    ),
    "dict": lambda name, values: {"thing": [1] * len(values), name: values},
    "Timestamps": lambda name, values: pd.DataFrame(
        {"thing": [1] * len(values), name: pd.Series([pd.Timestamp(value) for value in values], dtype=object)}
    ),
}


def view() -> FeatureView:
    return view_of(table(thing=[1, 1, 1], at=[hours(0), hours(1), hours(1.5)], x=[0, 1, 2]), ["x"])


@pytest.mark.parametrize("kind", FRAMES)
@pytest.mark.parametrize("order", ORDERS[:2], ids=IDS[:2])
def test_a_spine_that_mixes_them_is_told_and_read_alike(kind: str, order: list[datetime]) -> None:
    """They are read as UTC, and where another zone is said they are refused: none was read as UTC then without a word."""
    spine = FRAMES[kind]("event_timestamp", order)
    with opened(view(), at=hours(9)) as (store, _):
        frame = store.get_historical_features(spine, "service")
        assert [notice.partition(";")[0] for notice in frame.notices] == [f"{TOLD}'event_timestamp'"]
        assert sorted(frame.to_arrow()["view__x"].to_pylist()) == [1, 2]
        with pytest.raises(SpineError, match="'event_timestamp' mixes instants with a timezone and without"):
            store.get_historical_features(spine, "service", timezone="Europe/Berlin")
        assert store.get_historical_features(FRAMES[kind]("event_timestamp", [AWARE] * 2), "service").notices == ()


@on_demand(inputs=[Request("seen", Array(Timestamp))], output=Int64)
def times_seen(seen):  # type: ignore[no-untyped-def]  # a user's function without types  # noqa: ANN001, ANN201
    """How many they are."""
    return None if seen is None else len(seen)


@pytest.mark.parametrize("order", ORDERS[:3], ids=IDS[:3])
def test_instants_in_lists_are_told_too(order: list[Any]) -> None:
    spine = pd.DataFrame({"event_timestamp": [NOON], "seen": pd.Series([order], dtype=object)})
    with opened(view()) as (store, _):
        frame = store.get_historical_features(spine, [times_seen])
        assert [notice.partition(";")[0] for notice in frame.notices] == [f"{TOLD}'seen'"]


PUSHED = PushSource(
    "clicks", schema={"thing": Int64, "at": Timestamp, "seen": Array(Timestamp)}, event_time="at", identity=["thing"]
)
CLICKS = FeatureView("click", entity=THING, source=PUSHED, features=["seen"])


@pytest.mark.parametrize("order", ORDERS[:2], ids=IDS[:2])
def test_pushes_that_mix_them_are_told(order: list[datetime]) -> None:
    def rows(first: int) -> list[dict[str, Any]]:
        return [{"thing": first + n, "at": value} for n, value in enumerate(order)]

    with opened(CLICKS, at=hours(3)) as (store, _):
        answers = [store.push("clicks", rows(0)), store.push("clicks", pd.DataFrame(rows(10)).astype({"at": object}))]
        answers += [store.push("clicks", {"thing": [20, 21], "at": order})]
        answers += [store.push("clicks", {"thing": 30, "at": AWARE, "seen": order})]
        answers += [store.push("clicks", {"thing": [40], "at": [AWARE], "seen": [order]})]
        answers += [store.push("clicks", {"thing": 50, "at": np.datetime64(NAIVE)})]
        answers += [store.push("clicks", {"thing": 60, "at": pa.scalar(NAIVE)})]
        texts = {"thing": 70, "at": AWARE.isoformat(), "seen": [str(value) for value in order]}
        answers += [store.push("clicks", texts, json=True)]
        assert [answer.naive for answer in answers] == [*[("at",)] * 3, *[("seen",)] * 2, *[("at",)] * 2, ("seen",)]
        assert store.push("clicks", {"thing": 80, "at": AWARE, "seen": pd.NaT}).naive == ()
        read = store.get_online_features([{"thing": 30}, {"thing": 40}, {"thing": 70}], "service").to_dict()
        assert read["click__seen"] == [[value.replace(tzinfo=UTC) for value in order]] * 3


@pytest.mark.parametrize("order", ORDERS, ids=IDS)
def test_a_plan_tells_of_a_frame_that_mixes_them(order: list[Any]) -> None:
    frame = FRAMES["pandas"]("at", order).assign(x=1, seen=pd.Series([order] * len(order), dtype=object))
    features = {"x": Latest("x"), "seen": Latest("seen")}
    with FeatureStore.local() as store:
        told = store.plan([view_of(frame, features)]).notices
    assert [notice.text.partition(";")[0] for notice in told if notice.text.startswith(TOLD)] == [f"{TOLD}'at', 'seen'"]
    with pytest.raises(DeclarationError, match="'at' mixes instants with a timezone and without"):
        DataFrameSource("rows", FRAMES["pandas"]("at", order), event_time="at", timezone="Europe/Berlin")


def test_a_snapshot_at_an_instant_without_a_zone_says_so() -> None:
    """Also of several, whichever of them it is; its values are those of the same time in UTC."""
    with opened(view()) as (store, _):
        for at in (NAIVE, [AWARE, NAIVE], [NAIVE, AWARE]):
            frame = store.snapshot("service", at=at)
            assert frame.notices == (f"{TOLD}'at'; give it one where it is local",)
            assert frame.notices[0] in repr(frame)
        assert store.snapshot("service", at=NAIVE).to_arrow()["view__x"].to_pylist() == [2]
        assert store.snapshot("service", at=[AWARE]).notices == ()


def test_the_other_verbs_say_it_where_python_logs(caplog: pytest.LogCaptureFixture) -> None:
    calls: dict[str, Callable[[FeatureStore, datetime], Any]] = {
        "at": lambda store, at: store.explain("view", {"thing": 1}, at=at),
        "since": lambda store, at: store.audit(since=at),
        "until": lambda store, at: store.audit(until=at),
        "start": lambda store, at: store.simulate(at, hours(2), lookups=1),
    }
    caplog.set_level(logging.WARNING, "featurestore")
    for option, call in calls.items():
        with opened(view(), at=hours(3)) as (store, _):
            caplog.clear()
            call(store, AWARE)
            assert TOLD not in caplog.text
            call(store, AWARE.replace(tzinfo=None))
            assert f"{TOLD}'{option}'" in caplog.text
