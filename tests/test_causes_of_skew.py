"""The known causes of training-serving skew: each happens in a plain pipeline beside the store, and not in the store.

The list is that of Google's Rules of ML, Sculley et al. 2015, Breck et al. 2017, and the documentation of Chronon, Databricks and
Vertex AI. Every test first shows the cause at work in what is usually written by hand, and then that the store serves
the bits that training has.
"""

from __future__ import annotations

import json
import math
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

from featurestore import (
    Count,
    FeatureService,
    Latest,
    Mean,
    Request,
    RequestTime,
    on_demand,
)
from featurestore.errors import DeclarationError, FingerprintError, SourceError
from featurestore.types import Float64
from tests.small import NOON, apply, both, hours, opened, raised, spine, table, trained, view_of, write

HOUR = timedelta(hours=1)


def numbers(seed: int = 7, rows: int = 200) -> list[float]:
    """Over 13 orders of magnitude."""
    return (np.random.default_rng(seed).normal(size=rows) * 10.0 ** (np.arange(rows) % 13)).tolist()


def test_1_two_implementations_of_one_feature() -> None:
    """A mean in SQL for training and a running mean in Python for serving differ in their last bits; one fold does not."""
    values = numbers()
    rows = table(thing=[1] * len(values), at=[hours(-len(values) + n) for n in range(len(values))], x=values)
    ((in_sql,),) = duckdb.sql("SELECT avg(x) FROM rows").fetchall()
    running = 0.0
    for n, value in enumerate(values, 1):
        running += (value - running) / n
    assert running != in_sql
    with opened(view_of(rows, {"mean": Mean("x", window="30d")})) as (store, _):
        assert both(store, thing=[1])["view__mean"] == [math.fsum(values) / len(values)]


def test_2_the_table_changed_after_training(tmp_path: Path) -> None:
    """A row that is corrected in place gives training another value than was served; a correction that says when it was
    learned does not."""
    first = table(thing=[1], at=[hours(-2)], known=[hours(-2)], x=[1.0])
    path = write(tmp_path / "rows.parquet", first)
    published = pd.read_parquet(path).set_index("thing")["x"].to_dict()
    write(path, table(thing=[1], at=[hours(-2)], known=[hours(-2)], x=[2.0]))
    examples = pd.read_parquet(path)
    assert examples[examples["at"] <= NOON]["x"].tolist() != [published[1]]
    write(path, first)
    view = view_of(path, ["x"], known_at="known", identity="at")
    with opened(view) as (store, clock):
        assert both(store, thing=[1])["view__x"] == [1.0]
        write(path, table(thing=[1, 1], at=[hours(-2)] * 2, known=[hours(-2), hours(1)], x=[1.0, 2.0]))
        clock.set(hours(2))
        assert both(store, thing=[1])["view__x"] == [2.0]
        assert trained(store, NOON, thing=[1])["view__x"].to_pylist() == [1.0], "what was served at noon, still"


def test_3_leakage() -> None:
    """A join on the day gives training what happened after the label; the as-of query gives what serving had."""
    rows = table(thing=[1, 1], at=[hours(-1), hours(3)], x=[1.0, 99.0])
    label = pd.Timestamp(NOON)
    frame = rows.to_pandas()
    by_day = frame[frame["at"].dt.date == label.date()]["x"].iloc[-1]
    assert by_day == 99.0
    with opened(view_of(rows, ["x"])) as (store, _):
        assert both(store, thing=[1])["view__x"] == [1.0]


def test_4_availability_lag() -> None:
    """What had happened was not there yet when it was served: a join by event time alone takes it for known."""
    rows = table(thing=[1, 1], at=[hours(-5), hours(-1)], known=[hours(-5), hours(2)], x=[1.0, 2.0])
    frame = rows.to_pandas()
    by_event_time = frame[frame["at"] <= NOON].sort_values("at")["x"].iloc[-1]
    there = frame[frame["known"] <= NOON].sort_values("at")["x"].iloc[-1]
    assert (by_event_time, there) == (2.0, 1.0)
    with opened(view_of(rows, ["x"], known_at="known")) as (store, _):
        assert both(store, thing=[1])["view__x"] == [there]


def test_5_different_defaults() -> None:
    """Training fills nulls with the column's mean, serving with 0; a default that is declared is one for both."""
    rows = table(thing=[1, 2], at=[hours(-1)] * 2, x=[4.0, None])
    offline = rows.to_pandas()["x"].fillna(rows.to_pandas()["x"].mean()).tolist()
    online = [value or 0.0 for value in rows["x"].to_pylist()]
    assert offline != online
    with opened(view_of(rows, {"x": Latest("x", default=-1.0)})) as (store, _):
        assert both(store, thing=[1, 2, 3])["view__x"] == [4.0, None, -1.0], "a null in the row is a value"


def test_6_a_lookback_on_one_side_only() -> None:
    """Training looks back a day, the online store keeps what it has; here the ttl is judged on both sides, inclusively."""
    rows = table(thing=[1, 2, 3], at=[hours(-25), hours(-24), hours(-23)], x=[1.0, 2.0, 3.0])
    kept = dict(zip(rows["thing"].to_pylist(), rows["x"].to_pylist(), strict=True))
    within = [t for t, at in zip(rows["thing"].to_pylist(), rows["at"].to_pylist(), strict=True) if at >= hours(-24)]
    assert set(kept) != set(within)
    with opened(view_of(rows, ["x"], ttl="1d")) as (store, _):
        found = both(store, thing=[1, 2, 3])
        assert found["view__x"] == [None, 2.0, 3.0]
        assert found["view__x__status"] == ["EXPIRED", "PRESENT", "PRESENT"]


def test_7_window_edges_and_time_zones() -> None:
    """A day by the calendar in one zone, and the last 24 hours, count other rows; a window is one span, open at its start."""
    zone = ZoneInfo("America/New_York")
    times = [hours(-24), hours(-24) + timedelta(microseconds=1), hours(-9), NOON, NOON + timedelta(microseconds=1)]
    rows = table(thing=[1] * 5, at=times)
    by_calendar = sum(at.astimezone(zone).date() == NOON.astimezone(zone).date() for at in times)
    rolling = sum(NOON - timedelta(days=1) <= at <= NOON for at in times)
    assert by_calendar != rolling
    with opened(view_of(rows, {"n": Count(window="1d")}, refresh="1h")) as (store, _):
        assert both(store, thing=[1])["view__n"] == [3]


def test_8_types_and_precision() -> None:
    """An id with a null goes through float64 in pandas, a rate through Float32 in a record: both come out as others."""
    large, rate = (1 << 53) + 1, 0.1
    rows = table(thing=[1, 2], at=[hours(-1)] * 2, id=pa.array([large, None], pa.int64()), rate=[rate, rate])
    assert int(rows.to_pandas()["id"].iloc[0]) != large
    assert float(np.float32(rate)) != rate
    with opened(view_of(rows, ["id", "rate"])) as (store, _):
        found = both(store, thing=[1, 2])
        assert (found["view__id"], found["view__rate"]) == ([large, None], [rate, rate])


def test_9_late_and_out_of_order_writes() -> None:
    """Whoever writes last wins in a plain table; here the order is that of the rows' own times, however they arrive."""
    rows = table(thing=[1, 1, 1], at=[hours(-3), hours(-1), hours(-2)], x=[1.0, 3.0, 2.0])
    store_by_hand: dict[int, float] = {}
    for row in rows.to_pylist():
        store_by_hand[row["thing"]] = row["x"]
    newest = max(rows.to_pylist(), key=lambda row: row["at"])["x"]
    assert store_by_hand[1] != newest
    with opened(view_of(rows, ["x"])) as (store, _):
        assert both(store, thing=[1])["view__x"] == [newest]


def scaling(mean: float) -> Any:
    """A transform whose constant was fitted: part of its definition."""
    view = view_of(table(thing=[1], at=[hours(-1)], x=[3.0]), ["x"])

    @on_demand(inputs=[view["x"]], output=Float64)
    def centred(x):
        return None if x is None else x - mean

    return FeatureService("service", features=[view, centred])


def test_10_a_transform_refitted_or_missing_at_serving() -> None:
    """A scaler that is fitted anew on what is served gives another value; a function is part of the service's version."""
    trained_rows, served_rows = np.array([1.0, 2.0, 3.0]), np.array([3.0])
    fitted, refitted = trained_rows - trained_rows.mean(), served_rows - served_rows.mean()
    assert fitted[-1] != refitted[-1]
    assert fitted[-1] != served_rows[-1], "and without the transform"
    with opened(scaling(2.0)) as (store, _):
        assert both(store, thing=[1])["centred"] == [1.0]
        trained_on = store.get_historical_features(spine(NOON, thing=[1]), "service").manifest["fingerprint"]
        store.apply([scaling(3.0)])
        assert both(store, thing=[1])["centred"] == [0.0]
        assert "other code" in raised(
            FingerprintError, lambda: store.get_online_features({"thing": 1}, "service", fingerprint=trained_on)
        )


def test_11_column_order_and_names() -> None:
    """A dict from JSON has the order in which it was written, and a model takes columns by place; a service has one order."""
    rows = table(thing=[1], at=[hours(-1)], b=[1.0], a=[2.0])
    weights = np.array([10.0, 1.0])
    by_place = [
        np.array(list(json.loads(text).values())) @ weights for text in ('{"a": 2, "b": 1}', '{"b": 1, "a": 2}')
    ]
    assert by_place == [21.0, 12.0]
    view = view_of(rows, ["b", "a"])
    with opened(FeatureService("service", features=[view["a", "b"]])) as (store, _):
        store.materialize(progress=False)
        frame = store.get_historical_features(spine(NOON, thing=[1]), "service")
        online = store.get_online_features({"thing": 1}, "service")
        assert list(frame.features) == list(online.features) == ["view__a", "view__b"]
        assert frame.features.dtypes.equals(online.features.dtypes)
        assert frame.to_numpy().tobytes() == online.to_numpy().tobytes()


def test_12_a_definition_edited_after_training() -> None:
    """The same name means another thing after an edit; a model that names what it was trained on is refused, with the
    difference, once that is gone."""
    rows = table(thing=[1, 1], at=[hours(-30), hours(-1)], x=[10.0, 2.0])
    before, after = {"mean": Mean("x", window="2d")}, {"mean": Mean("x", window="1d")}
    with opened(view_of(rows, before, refresh="1h")) as (store, _):
        assert both(store, thing=[1])["view__mean"] == [6.0]
        trained_on = store.get_historical_features(spine(NOON, thing=[1]), "service").manifest["fingerprint"]
        apply(store, view_of(rows, after, refresh="1h"))
        assert both(store, thing=[1])["view__mean"] == [2.0], "what whoever names no fingerprint is served"
        refused = raised(
            FingerprintError, lambda: store.get_online_features({"thing": 1}, "service", fingerprint=trained_on)
        )
        assert "172800000000" in refused.replace("_", "") or "2d" in refused


def test_13_request_values_and_the_clock() -> None:
    """`now()` in a function is another instant in training than in serving: it is refused, and the request's time is an input."""
    view = view_of(table(thing=[1], at=[hours(-3)], x=[1.0]), {"x": Latest("x")})

    def reads_the_clock(x):
        return datetime.now().timestamp() - x  # noqa: DTZ005 - that is what must be refused

    when_served = reads_the_clock(0.0)
    time.sleep(0.001)
    in_training = reads_the_clock(0.0)
    assert in_training != when_served
    assert "clock" in raised(DeclarationError, lambda: on_demand(inputs=[view["x"]], output=Float64)(reads_the_clock))

    @on_demand(inputs=[view["x"], Request("bid", Float64), RequestTime()], output=Float64)
    def scored(x, bid, now):
        return x * bid + now.hour

    with opened(FeatureService("service", features=[scored])) as (store, clock):
        store.materialize(progress=False)
        clock.set(hours(2))
        served = store.get_online_features({"thing": 1, "bid": 2.5}, "service").to_dict()["scored"]
        assert served == [2.5 + 14]
        frame = store.get_historical_features(spine(hours(2), thing=[1], bid=[2.5]), "service")
        assert frame.to_arrow()["scored"].to_pylist() == served


def test_14_sampling_and_feedback_lie_outside_a_store() -> None:
    """Which requests become training rows, and what the model's own answers change, no store can see; the docs say so."""
    said = (Path(__file__).parent.parent / "docs" / "semantics.md").read_text().lower()
    assert "sampling" in said
    assert "feedback" in said


def test_15_a_silent_change_upstream(tmp_path: Path) -> None:
    """Whoever copies a table for training keeps minutes where serving has seconds by now; here both read the same rows, and a
    type that changes is an error that names the column."""
    path = write(tmp_path / "rows.parquet", table(thing=[1], at=[hours(-2)], x=[2.0]))
    copied = pd.read_parquet(path).set_index("thing")["x"].to_dict()
    view = view_of(path, ["x"])
    with opened(view) as (store, clock):
        assert both(store, thing=[1])["view__x"] == [2.0]
        write(path, table(thing=[1, 1], at=[hours(-2), hours(1)], x=[2.0, 120.0]))
        assert pd.read_parquet(path).groupby("thing")["x"].last().to_dict() != copied
        clock.set(hours(2))
        assert both(store, thing=[1])["view__x"] == [120.0]
        write(path, table(thing=[1], at=[hours(-2)], x=["2 min"]))
        assert "column 'x' (feature 'x') was Float64 (DOUBLE) when it was applied and is String (VARCHAR)" in raised(
            SourceError, lambda: store.materialize(progress=False)
        )
