"""Times at the ends of what 64 bits of ns, µs or a coarser unit hold: themselves on every path, or refused; never others."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import Entity, FeatureStore, FeatureView, LastN, Latest, PushSource
from featurestore.errors import DeclarationError, PushError, RequestError, SpineError
from featurestore.types import Array, Date, FarDate, FarTimestamp, Int64, Timestamp, timestamp_of
from tests.small import NOON, both, hours, opened, table, trained, view_of

NANOS = [2**63 - 1, -(2**63) + 1, -(2**63) + 2, -(2**63), 2**62 + 1, -1, 999, -1000, None]


@pytest.mark.parametrize(
    "beyond",
    [
        np.datetime64(2**62, "s"),  # 2^62 million is 0 in 64 bits
        np.datetime64(2**58, "h"),
        np.datetime64(2**60, "ms"),
        np.datetime64(-(2**62), "m"),
    ],
)
def test_a_moment_of_numpy_that_does_not_fit_is_refused(beyond: np.datetime64) -> None:
    with pytest.raises(ValueError, match="does not fit Timestamp"):
        Timestamp.accept(beyond)


def test_a_day_of_numpy_that_does_not_fit_is_refused() -> None:
    for unit in ("D", "W"):
        with pytest.raises(ValueError, match="does not fit Date"):
            Date.accept(np.datetime64(2**62, unit))
    with pytest.raises(ValueError, match="beyond every date"):
        Date.accept(np.datetime64(2**60, "Y"))


def test_times_of_numpy_that_fit_are_what_they_are() -> None:
    assert Timestamp.accept(np.datetime64(5, ("s", 25))) == datetime(1970, 1, 1, 0, 2, 5, tzinfo=UTC)
    assert Timestamp.accept(np.datetime64(10**12, "s")) == FarTimestamp(10**18)
    assert Timestamp.accept(np.datetime64(-1, "ns")) == datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
    assert Date.accept(np.datetime64(10**6, "W")) == FarDate(7 * 10**6)
    assert Date.accept(np.datetime64("2026-03", "M")) == date(2026, 3, 1)
    moments = np.array([1_999, -1], "datetime64[ns]")
    assert Array(Timestamp).accept(moments) == [timestamp_of(1), timestamp_of(-1)]


def test_a_lookup_and_a_push_refuse_a_moment_that_does_not_fit() -> None:
    """They took it for 1970, and answered with the values of that key."""
    beyond = np.datetime64(2**62, "s")
    schema = {"k": Timestamp, "at": Timestamp, "x": Timestamp}
    pushed = PushSource("rows", schema=schema, event_time="at")
    view = FeatureView("view", entity=Entity("spot", key={"k": Timestamp}), source=pushed, features=["x"])
    with opened(view) as (store, _):
        row = {"k": datetime(1970, 1, 1, tzinfo=UTC), "at": hours(-1), "x": NOON}
        store.push("rows", row)
        with pytest.raises(RequestError, match="Row 0: 'k' must be Timestamp: .* does not fit"):
            store.get_online_features([{"k": beyond}], "service")
        with pytest.raises(PushError, match="row 0, column 'x' must be Timestamp: .* does not fit"):
            store.push("rows", {**row, "x": beyond})


def nanos(zone: str | None) -> pa.Array:
    return pa.array(NANOS, pa.int64()).cast(pa.timestamp("ns", zone))


@pytest.mark.parametrize("zone", [None, "UTC"])
@pytest.mark.parametrize("filed", [False, True])
def test_the_ends_of_nanoseconds_are_instants(tmp_path: Path, zone: str | None, filed: bool) -> None:
    """pandas' `Timestamp.max` and `min`, which DuckDB takes for infinities: floored like all others, alone and in lists."""
    count = len(NANOS)
    rows: Any = table(
        thing=list(range(count)), at=[hours(-1)] * count, x=nanos(zone),
        many=pa.ListArray.from_arrays(pa.array(range(count + 1), pa.int32()), nanos(zone)),
    )  # fmt: skip
    if filed:
        pq.write_table(rows, tmp_path / "rows.parquet", version="2.6")
        rows = tmp_path / "rows.parquet"
    features = {"x": Latest("x"), "many": Latest("many"), "last": LastN("x", n=2)}
    with opened(view_of(rows, features)) as (store, _):
        found = both(store, thing=list(range(count)))
    floored = [None if number is None else timestamp_of(number // 1000) for number in NANOS]
    assert found["view__x"] == floored
    assert found["view__many"] == found["view__last"] == [[moment] for moment in floored]


def test_the_ends_of_nanoseconds_are_pushed_as_they_are_read() -> None:
    pushed = PushSource("rows", schema={"thing": Int64, "at": Timestamp, "x": Timestamp}, event_time="at")
    view = FeatureView("view", entity=Entity("thing", key={"thing": Int64}), source=pushed, features=["x"])
    with opened(view) as (store, _):
        keys = list(range(len(NANOS)))
        store.push("rows", table(thing=keys, at=[hours(-1)] * len(keys), x=nanos("UTC")))
        online = store.get_online_features([{"thing": key} for key in keys], "service").to_dict()
    assert online["view__x"] == [None if number is None else timestamp_of(number // 1000) for number in NANOS]


def test_a_row_valid_since_the_least_timestamp_of_pandas_counts() -> None:
    facts = pd.DataFrame({"thing": [1], "since": [pd.Timestamp.min], "end": [pd.Timestamp.max], "x": [7]})
    assert str(facts["since"].dtype) == "datetime64[ns]"
    view = view_of(facts, ["x"], event_time=None, valid_from="since")
    with opened(view) as (store, _):
        assert both(store, thing=[1])["view__x"] == [7]
        assert trained(store, hours(-1_000_000), thing=[1])["view__x"].to_pylist() == [7]


@pytest.mark.parametrize(
    ("unit", "number", "why"),
    [
        ("s", 2**62, f"Row 1 of the spine: 'event_timestamp' is {2**62} s from 1970, which is no instant in µs"),
        ("ms", -(2**62), f"Row 1 of the spine: 'event_timestamp' is {-(2**62)} ms from 1970"),
        ("us", -(2**63), "Row 1 of the spine has event_timestamp = .*, which is no instant that a value can be asked for"),
        ("us", 2**63 - 2, "Row 1 of the spine has event_timestamp = .*, which is no instant that a value can be asked for"),
    ],
)  # fmt: skip
def test_a_spine_whose_time_is_out_of_reach_is_refused_by_its_row(unit: str, number: int, why: str) -> None:
    times = pa.array([0, number]).cast(pa.timestamp(unit, "UTC"))
    view = view_of(table(thing=[1], at=[hours(-1)], x=[1]), ["x"], refresh="1h")
    with opened(view) as (store, _), pytest.raises(SpineError, match=why):
        store.get_historical_features(pa.table({"thing": [1, 1], "event_timestamp": times}), "service").to_arrow()


def test_a_key_of_a_spine_that_is_no_instant_is_refused_by_its_row() -> None:
    view = view_of(table(k=[NOON], at=[hours(-1)], x=[1]), ["x"], entity=Entity("spot", key={"k": Timestamp}))
    asked = pa.table({"k": pa.array([2**62]).cast(pa.timestamp("s")), "event_timestamp": pa.array([NOON])})
    with opened(view) as (store, _), pytest.raises(SpineError, match="Row 0 of the spine: 'k' (is|must be)"):
        store.get_historical_features(asked, "service").to_arrow()


MIXED = pd.Series([datetime(2024, 5, 1, 11, 45, tzinfo=UTC), datetime(2024, 5, 1, 13, 30)], dtype=object)  # noqa: DTZ001


def test_instants_with_a_zone_and_without_are_not_mixed_where_a_zone_is_declared() -> None:
    """Those without were read as UTC, whatever the source or the spine said."""
    frame = pd.DataFrame({"thing": [1, 1], "at": MIXED, "x": [1, 2]})
    with pytest.raises(DeclarationError, match="'at' mixes instants with a timezone and without"):
        view_of(frame, ["x"], timezone="Europe/Berlin")
    with opened(view_of(frame, ["x"])) as (store, _):
        assert both(store, thing=[1])["view__x"] == [1]  # 13:30 UTC is not yet
        spine = pd.DataFrame({"thing": [1, 1], "event_timestamp": MIXED})
        with pytest.raises(SpineError, match="'event_timestamp' mixes instants with a timezone and without"):
            store.get_historical_features(spine, "service", timezone="Europe/Berlin").to_arrow()
        assert store.get_historical_features(spine, "service").to_arrow()["view__x"].to_pylist() == [1, 2]


VERBS: dict[str, Callable[[FeatureStore, Any], Any]] = {
    "snapshot at": lambda store, at: store.snapshot("service", at=at),
    "snapshots at": lambda store, at: store.snapshot("service", at=[NOON, at]),
    "explain at": lambda store, at: store.explain("view", {"thing": 1}, at=at),
    "audit since": lambda store, at: store.audit(since=at),
    "audit until": lambda store, at: store.audit(until=at),
    "availability since": lambda store, at: store.availability(since=at),
    "simulate start": lambda store, at: store.simulate(at),
    "simulate end": lambda store, at: store.simulate(end=at),
    "split at": lambda store, at: store.snapshot("service", at=NOON).split_by_time(at),
}


@pytest.mark.parametrize("verb", VERBS)
def test_an_instant_that_is_none_is_refused_by_the_name_of_its_argument(verb: str) -> None:
    """NaT counts as a datetime, and split a frame into two empty ones; datetimes may lie in the year 0 of UTC."""
    early = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5)))
    view = view_of(table(thing=[1], at=[hours(-1)], x=[1]), ["x"], refresh="1h", ready_after="30m")
    with opened(view) as (store, _):
        option = verb.split()[1]
        for at in (pd.NaT, np.datetime64("NaT"), "noon", object(), NOON.date()):
            with pytest.raises(
                (RequestError, DeclarationError), match=f"^{option}: .* is no instant|^since: Duration 'noon'"
            ):
                VERBS[verb](store, at)
        with pytest.raises(
            RequestError, match=f"^{option}: {re.escape(str(early))} lies outside the years 1 to 9999 of UTC"
        ):
            VERBS[verb](store, early)


def test_an_explanation_of_values_before_the_first_year_is_refused() -> None:
    view = view_of(table(thing=[1], at=[hours(-1)], x=[1]), ["x"], refresh="1h", settle="5m", ready_after="30m")
    with opened(view) as (store, _):
        for at in (datetime(1, 1, 1, tzinfo=UTC), datetime(1, 1, 1, 0, 29, tzinfo=UTC)):
            with pytest.raises(RequestError, match="^at: at .* are those of an instant outside the years 1 to 9999"):
                store.explain("view", {"thing": 1}, at=at)
        for at in (datetime(1, 1, 1, 0, 30, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)):
            explained = store.explain("view", {"thing": 1}, at=at)
            assert explained.values == {"x": None if at.year == 1 else 1}
            assert str(explained)
            assert store.snapshot("service", at=at).to_arrow()["view__x"].to_pylist() == [explained.values["x"]]
