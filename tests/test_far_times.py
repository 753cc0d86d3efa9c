"""Times that Python cannot hold are values like any other: served as they are trained, in every form."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore import (
    Count,
    CountDistinct,
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    LastDistinctN,
    LastN,
    Latest,
    ManualClock,
    Max,
    Min,
    PushSource,
    Request,
    on_demand,
)
from featurestore.errors import PushError
from featurestore.semantics.order import order_bytes, order_value
from featurestore.semantics.values import scalars
from featurestore.server.json_answers import json_body
from featurestore.types import (
    Array,
    Date,
    FarDate,
    FarTimestamp,
    FeatureType,
    Int64,
    Timestamp,
    date_of,
    days_of,
    from_json,
    micros_of,
    timestamp_of,
    to_json,
)
from tests.small import NOON, TIME, apply, both, hours, opened, raised, table, view_of

INFINITY = 2**63 - 1
YEAR_1, YEAR_10000 = -62_135_596_800_000_000, 253_402_300_800_000_000
MOMENTS = [INFINITY, -INFINITY, -INFINITY - 1, 2**62, YEAR_1 - 1, YEAR_1, YEAR_10000 - 1, YEAR_10000, 0, None]
DAYS = [2**31 - 1, -(2**31) + 1, -(2**31), -719_163, -719_162, 2_932_896, 2_932_897, 0, None]


def moments(numbers: Any) -> pa.Array:
    return pa.array(numbers, pa.int64()).cast(TIME)


def days(numbers: Any) -> pa.Array:
    return pa.array(numbers, pa.int32()).cast(pa.date32())


@given(st.integers(-(2**63), 2**63 - 1))
def test_a_timestamp_keeps_its_micros_in_every_form(number: int) -> None:
    value = timestamp_of(number)
    assert isinstance(value, datetime) == (YEAR_1 <= number < YEAR_10000)
    assert micros_of(value) == number
    assert Timestamp.accept(value) == value
    assert type(Timestamp.accept(value)) is type(value)
    assert from_json(Timestamp, orjson.loads(orjson.dumps(to_json(Timestamp, value)))) == value
    assert order_value(Timestamp, order_bytes(Timestamp, value)) == value
    assert scalars(moments([number])) == [value]
    assert pa.array([value, NOON], TIME).cast(pa.int64())[0].as_py() == number


@given(st.integers(-(2**31), 2**31 - 1))
def test_a_date_keeps_its_day_in_every_form(number: int) -> None:
    value = date_of(number)
    assert days_of(value) == number
    assert Date.accept(value) == value
    assert from_json(Date, to_json(Date, value)) == value
    assert order_value(Date, order_bytes(Date, value)) == value
    assert scalars(days([number])) == [value]


@pytest.mark.parametrize(
    ("of", "value", "text"),
    [
        (Timestamp, FarTimestamp(YEAR_10000), "+10000-01-01T00:00:00.000000Z"),
        (Timestamp, FarTimestamp(YEAR_1 - 1), "+0000-12-31T23:59:59.999999Z"),
        (Timestamp, FarTimestamp(INFINITY), "+294247-01-10T04:00:54.775807Z"),
        (Timestamp, FarTimestamp(-INFINITY), "-290308-12-21T19:59:05.224193Z"),
        (Date, FarDate(2**31 - 1), "+5881580-07-11"),
        (Date, FarDate(-(2**31) + 1), "-5877641-06-24"),
    ],
)
def test_a_far_time_has_a_year_with_a_sign_in_json(of: FeatureType, value: Any, text: str) -> None:
    assert to_json(of, value) == text
    assert from_json(of, text) == value


@pytest.mark.parametrize(
    "text", ["+294247-01-10T04:00:54.775808Z", "+10000-13-01T00:00:00Z", "+10000-01-01", "10000-01-01T00:00:00Z"]
)
def test_what_is_no_far_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="timestamp|fit"):
        from_json(Timestamp, text)


def test_numpy_and_zones_make_far_times() -> None:
    assert Timestamp.accept(np.datetime64(2**62, "us")) == FarTimestamp(2**62)
    assert Timestamp.accept(np.datetime64("12013-12-01T00:00:00", "s")) == from_json(
        Timestamp, "+12013-12-01T00:00:00Z"
    )
    assert Date.accept(np.datetime64(10**7, "D")) == FarDate(10**7)
    late = datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-5)))
    assert Timestamp.accept(late) == FarTimestamp(YEAR_10000 + 4 * 3_600_000_000)
    early = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5)))
    assert Timestamp.accept(early) == FarTimestamp(YEAR_1 - 5 * 3_600_000_000)
    for of, value in (
        (Timestamp, 2**62),
        (Date, 10**7),
        (Timestamp, FarDate(10**7)),
        (Date, FarTimestamp(2**62)),
        (Int64, date.max),
    ):
        with pytest.raises(ValueError, match="is no"):
            of.accept(value)


FEATURES = {
    "moment": Latest("moment"), "day": Latest("day"), "many": Latest("many"), "n": Count("moment", window="1d"),
    "greatest": Max("moment", window="1d"), "least": Min("day", window="1d"), "last": LastN("moment", n=3),
    "kinds": LastDistinctN("day", n=3), "distinct": CountDistinct("moment", window="1d"),
}  # fmt: skip


def rows(numbers: list[int | None] = MOMENTS) -> pa.Table:
    """Each moment and day alone and in a list, two rows a key."""
    count = len(numbers) * 2
    chosen = [numbers[i // 2] for i in range(count)]
    return table(
        thing=[i // 2 for i in range(count)], at=[hours(-2 + i % 2) for i in range(count)], moment=moments(chosen),
        day=days([DAYS[i // 2 % len(DAYS)] for i in range(count)]),
        many=pa.ListArray.from_arrays(pa.array(range(count + 1), pa.int32()), moments(chosen)),
    )  # fmt: skip


@pytest.mark.parametrize("naive", [False, True])
def test_far_times_are_served_as_they_are_trained(naive: bool) -> None:
    """From a frame and its Parquet file, through materialize and lookup; in Arrow, pandas, numpy, Python and JSON."""
    numbers = MOMENTS[:2] + MOMENTS[3:] if naive else MOMENTS  # DuckDB gives the least one of all no zone
    source = rows(numbers)
    if naive:
        source = source.set_column(2, "moment", source["moment"].cast(pa.timestamp("us")))
    with opened(view_of(source, FEATURES)) as (store, _):
        keys = list(range(len(numbers)))
        found = both(store, thing=keys)
        assert found["view__moment"] == [None if n is None else timestamp_of(n) for n in numbers]
        assert found["view__many"] == [[None if n is None else timestamp_of(n)] for n in numbers]
        online = store.get_online_features([{"thing": key} for key in keys], "service")
        asked = table(thing=keys, event_timestamp=[NOON] * len(keys))
        training = store.get_historical_features(asked, "service")
        assert training._repr_html_()
        assert online._repr_html_()
        assert online.to_arrow()["view__moment"].cast(pa.int64()).to_pylist() == numbers
        assert training.features.equals(online.features)
        assert online.to_numpy(object).tolist() == training.to_numpy(object).tolist()
        answered = orjson.loads(b"".join(json_body(online)))
        for column, values in zip(answered["columns"], zip(*answered["rows"], strict=True), strict=True):
            of = next(c.type for c in online.service.columns if c.name == column)
            assert [from_json(of, value) for value in values] == online.to_dict()[column]
        explained = store.explain("view", {"thing": 0}, at=NOON)
        assert str(explained)


def test_far_times_in_parquet_are_those_of_the_frame(tmp_path: Path) -> None:
    source = rows()
    pq.write_table(source, tmp_path / "rows.parquet")
    with opened(view_of(tmp_path / "rows.parquet", FEATURES)) as (store, _):
        assert both(store, thing=[0, 1])["view__moment"] == [FarTimestamp(INFINITY), FarTimestamp(-INFINITY)]


def test_far_times_are_pushed_as_they_are_read() -> None:
    schema = {"thing": Int64, "at": Timestamp, "moment": Timestamp, "day": Date, "many": Array(Timestamp)}
    pushed = PushSource("rows", schema=schema, event_time="at")
    view = FeatureView("view", entity=Entity("thing", key={"thing": Int64}), source=pushed, features=FEATURES)
    frame = rows()
    with opened(view) as (store, clock):
        half = frame.num_rows // 2
        store.push("rows", frame.slice(0, half))
        store.push(
            "rows",
            [dict(zip(schema, row, strict=True)) for row in zip(*map(scalars, frame.slice(half).columns), strict=True)],
        )
        keys = list(range(len(MOMENTS)))
        online = store.get_online_features([{"thing": key} for key in keys], "service")
        assert online.to_arrow()["view__moment"].cast(pa.int64()).to_pylist() == MOMENTS
        asked = table(thing=keys, event_timestamp=[clock()] * len(keys))
        trained = store.get_historical_features(asked, "service").to_arrow()
        assert trained.select(online.to_arrow().column_names).replace_schema_metadata(None).equals(online.to_arrow())
        store.materialize(progress=False)
        store.compact()
        again = store.get_historical_features(asked, "service").to_arrow()
        assert again.equals(trained)


def test_a_far_time_is_a_key_a_request_value_and_an_output(tmp_path: Path) -> None:
    """Looked up by rows, frames and JSON, logged and audited."""
    (tmp_path / "featurestore.toml").write_text('project = "p"\ndefinitions = []\n[serving_log]\nrate = 1.0\n')
    source = table(moment=moments(MOMENTS[:8]), day=days(DAYS[:8]), at=[hours(-1)] * 8, x=list(range(8)))
    spot = Entity("spot", key={"moment": Timestamp, "day": Date})
    view = view_of(source, ["x"], entity=spot)

    @on_demand(inputs=[Request("asked", Timestamp), Request("day", Date)], output=Timestamp)
    def same(asked, day):  # type: ignore[no-untyped-def]  # a user's function without types
        return asked

    with FeatureStore(tmp_path, clock=ManualClock(NOON)) as store:
        apply(store, view, FeatureService("service", features=[view, same]))
        store.materialize(progress=False)
        frame = table(moment=source["moment"], day=source["day"], asked=source["moment"])
        lines = [
            dict(zip(frame.column_names, row, strict=True)) for row in zip(*map(scalars, frame.columns), strict=True)
        ]
        texts = [
            {name: to_json(Date if name == "day" else Timestamp, value) for name, value in line.items()}
            for line in lines
        ]
        found = [
            store.get_online_features(asked, "service").to_dict()
            for asked in (lines, frame, frame.to_pandas(types_mapper=pd.ArrowDtype))
        ]
        found.append(store.lookup("service").get(texts, json=True).to_dict())
        for one in found:
            assert one["view__x"] == list(range(8))
            assert one["same"] == [timestamp_of(n) for n in MOMENTS[:8] if n is not None]
            assert one == found[0]
        spine = frame.append_column("event_timestamp", pa.array([NOON] * 8, TIME))
        trained = store.get_historical_features(spine, "service").to_arrow()
        assert trained["view__x"].to_pylist() == list(range(8))
        assert trained["same"].cast(pa.int64()).to_pylist() == MOMENTS[:8]
        audit = store.audit()
        assert audit.compared == audit.exact > 0
        assert str(audit)


def test_an_infinite_validity_is_open_and_one_that_never_was_has_ended() -> None:
    """On both paths, pushed and read; DuckDB has no µs for its infinities."""
    ends = [INFINITY, -INFINITY, 2**62 + 1, -(2**62) - 1, None]
    statuses = ["PRESENT", "EXPIRED", "PRESENT", "EXPIRED", "PRESENT"]
    source = table(thing=list(range(5)), at=[hours(-1)] * 5, until=moments(ends), x=list(range(5)))
    with opened(view_of(source, ["x"], until="until")) as (store, _):
        assert both(store, thing=list(range(5)))["view__x__status"] == statuses
    pushed = PushSource(
        "rows", schema={"thing": Int64, "at": Timestamp, "until": Timestamp, "x": Int64}, event_time="at", until="until"
    )
    view = FeatureView("view", entity=Entity("thing", key={"thing": Int64}), source=pushed, features=["x"])
    with opened(view) as (store, clock):
        store.push("rows", source)
        online = store.get_online_features([{"thing": key} for key in range(5)], "service")
        assert online.statuses["view__x"] == statuses
        asked = table(thing=list(range(5)), event_timestamp=[clock()] * 5)
        trained = store.get_historical_features(asked, "service", with_status=True).to_arrow()
        assert trained["view__x__status"].to_pylist() == statuses


def test_a_row_that_happened_at_an_infinity_never_counts() -> None:
    """It is as one without a time: in files it is counted as such, pushed it is too far ahead, or too late."""
    source = table(thing=[1, 1, 2], at=moments([INFINITY, -INFINITY, 0]), x=[1, 2, 3])
    with opened(view_of(source, ["x"])) as (store, _):
        assert both(store, thing=[1, 2])["view__x"] == [None, 3]
    far = table(thing=[1], at=days([2**31 - 2]), x=[1])
    with opened(view_of(far, ["x"])) as (store, _):
        assert both(store, thing=[1])["view__x"] == [None]
    pushed = PushSource("rows", schema={"thing": Int64, "at": Timestamp, "x": Int64}, event_time="at")
    view = FeatureView("view", entity=Entity("thing", key={"thing": Int64}), source=pushed, features=["x"])
    with opened(view) as (store, _):
        text = raised(PushError, lambda: store.push("rows", {"thing": 1, "at": FarTimestamp(INFINITY), "x": 1}))
        assert "it happened at +294247-01-10T04:00:54.775807Z" in text
        assert store.push("rows", {"thing": 1, "at": FarTimestamp(-INFINITY), "x": 1}).late == 1
    assert datetime(9999, 1, 1, tzinfo=UTC) == timestamp_of(micros_of(datetime(9999, 1, 1, tzinfo=UTC)))
