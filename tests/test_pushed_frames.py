"""A push takes what a source takes: a frame's rows are what the same rows are one by one."""

from __future__ import annotations

import math
from datetime import date
from decimal import Decimal as Number
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from featurestore import Entity, FeatureView, Latest, PushSource
from featurestore.errors import DeclarationError, PushError, RequestError, SpineError
from featurestore.push.rows import table_of_rows
from featurestore.types import (
    Array,
    Bool,
    Bytes,
    Date,
    Decimal,
    FeatureType,
    Float32,
    Float64,
    Int32,
    Int64,
    String,
    Timestamp,
)
from tests.small import NOON, hours, opened, raised, table, view_of

TYPES: dict[FeatureType, Any] = {
    Bool: True, Int32: 5, Int64: 2**53 + 1, Float32: 0.5, Float64: 0.1, String: "é", Bytes: b"\0", Date: date(2024, 5, 1),
    Timestamp: NOON, Decimal(10, 2): Number("1.50"), Array(Int64): [1, None], Array(String): ["a"],
    Array(Timestamp): [NOON, None], Array(Array(Float64)): [[0.5], None], Array(Float32, 2): [0.5, -0.0],
}  # fmt: skip


def source(of: FeatureType) -> PushSource:
    return PushSource("rows", schema={"thing": Int64, "at": Timestamp, "x": of}, event_time="at")


def pushed(of: FeatureType, x: Any) -> pa.Array:
    """The column x as a push takes it: from pandas or polars where it is of these, else from Arrow."""
    rows: Any = table(thing=[1] * len(x), at=[NOON] * len(x))
    if isinstance(x, pd.Series):
        rows = pd.DataFrame({"thing": 1, "at": NOON, "x": x})
    elif isinstance(x, pl.Series):
        rows = pl.DataFrame(rows).with_columns(x=x)
    else:
        rows = rows.append_column("x", x)
    return table_of_rows(source(of), rows)["x"].combine_chunks()


NOTHING = {
    "objects": pd.Series([None, None], dtype=object),
    "NaN": pd.Series([math.nan, math.nan]),
    "NaN objects": pd.Series([math.nan, None], dtype=object),
    "NA": pd.Series([pd.NA, pd.NA], dtype="Int64"),
    "NaT": pd.Series([pd.NaT, pd.NaT]),
    "text": pd.Series([None, None], dtype="str"),
    "Arrow": pa.nulls(2),
    "Arrow text": pa.nulls(2, pa.large_string()),
    "Arrow numbers": pa.nulls(2, pa.float64()),
    "polars": pl.Series([None, None]),
}


@pytest.mark.parametrize("of", TYPES, ids=str)
@pytest.mark.parametrize("nothing", NOTHING)
def test_a_column_without_a_value_is_one_of_every_type(of: FeatureType, nothing: str) -> None:
    found = pushed(of, NOTHING[nothing])
    assert found.type == of.arrow
    assert found.null_count == 2


@pytest.mark.parametrize(
    ("of", "nested", "expected"),
    [
        (Array(Int64), pa.array([[None], [], None], pa.list_(pa.null())), [[None], [], None]),
        (Array(String), pd.Series([[None], [], None]), [[None], [], None]),
        (Array(Array(Float64)), pa.array([[None], [[]]], pa.list_(pa.list_(pa.null()))), [[None], [[]]]),
        (Array(Timestamp), pa.array([[None]], pa.large_list(pa.null())), [[None]]),
    ],
)
def test_lists_without_a_value_are_lists_of_every_type(of: FeatureType, nested: Any, expected: Any) -> None:
    assert pushed(of, nested).to_pylist() == expected


@pytest.mark.parametrize("of", TYPES, ids=str)
def test_a_frame_is_what_its_rows_are(of: FeatureType) -> None:
    rows = [{"thing": 1, "at": NOON, "x": value} for value in (TYPES[of], None)]
    alone = table_of_rows(source(of), rows)
    for frame in (pa.table(rows_of(of, rows)), pd.DataFrame(rows), pl.DataFrame(pa.table(rows_of(of, rows)))):
        if (
            of.element is not None
            and of.length is None
            and of.element.element is None
            and isinstance(frame, pd.DataFrame)
        ):
            frame["x"] = frame["x"].astype(object)
        if isinstance(frame, pd.DataFrame) and of.kind in {"Int32", "Int64"}:
            frame["x"] = pd.array([TYPES[of], None], dtype="Int64")
        if isinstance(frame, pd.DataFrame) and of.element == Timestamp:
            continue  # pandas makes lists of aware instants what Arrow cannot tell from others
        assert table_of_rows(source(of), frame).equals(alone), type(frame)


def rows_of(of: FeatureType, rows: list[dict[str, Any]]) -> dict[str, Any]:
    whole = {name: [row[name] for row in rows] for name in ("thing", "at")}
    return {**whole, "x": pa.array([row["x"] for row in rows], of.arrow)}


BEFORE_1970 = -123_456_789_012_345_678  # ns, with a rest that floors


@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
def test_finer_instants_floor_as_they_do_alone(zone: str | None) -> None:
    nanoseconds = [BEFORE_1970, -1, 1, 1_700_000_000_123_456_789]
    floored = [n // 1000 for n in nanoseconds]
    column = pa.array(nanoseconds, pa.timestamp("ns", zone))
    assert pushed(Timestamp, column).cast(pa.int64()).to_pylist() == floored
    assert pushed(Timestamp, pd.Series(column.to_pandas())).cast(pa.int64()).to_pylist() == floored
    lists = pa.array([nanoseconds, None], pa.list_(column.type))
    assert pushed(Array(Timestamp), lists)[0].values.cast(pa.int64()).to_pylist() == floored
    for stamp in (pd.Timestamp, lambda n: np.datetime64(n, "ns"), lambda n: pa.scalar(n, pa.timestamp("ns"))):
        rows = [{"at": NOON, "x": stamp(n)} for n in nanoseconds]
        assert table_of_rows(source(Timestamp), rows)["x"].cast(pa.int64()).to_pylist() == floored


def test_an_instant_of_numpy_is_never_a_number() -> None:
    for value in (
        np.datetime64(5, "ns"),
        np.timedelta64(5, "ns"),
        np.timedelta64(5, "us"),
        np.datetime64("2024", "us"),
    ):
        with pytest.raises(ValueError, match="is no integer"):
            Int64.accept(value)
    assert Int64.accept(np.int64(5)) == Int64.accept(pa.scalar(5)) == 5
    assert Timestamp.accept(pd.NaT) is String.accept(pd.NA) is Timestamp.accept(np.datetime64("NaT", "ns")) is None


EXACT = [
    (Float32, pa.array([0.5, math.nan, -0.0, math.inf, None])),
    (Float32, pa.array([1, 2**24])),
    (Float64, pa.array([1, 2**53])),
    (Int32, pa.array([1, -(2**31), None])),
    (Int64, pa.array([1, 2**63 - 1], pa.uint64())),
    (Decimal(10, 2), pa.array([Number("1.500")])),
    (Decimal(10, 2), pa.array([Number("1.5")], pa.decimal256(60, 5))),
    (Decimal(5, 2), pa.array([7, 999], pa.int64())),
    (Array(Float32, 2), pa.array([[0.5, 1.0], None])),
    (Array(Float32), pa.array([[0.5, None]])),
    (Array(Int32), pa.array([[1, None], None], pa.large_list(pa.int64()))),
]


@pytest.mark.parametrize(("of", "column"), EXACT)
def test_a_number_of_another_width_is_taken_where_it_is_exactly_one(of: FeatureType, column: pa.Array) -> None:
    found = pushed(of, column)
    assert found.type == of.arrow
    assert str(found.to_pylist()) == str([of.accept(value) for value in column.to_pylist()])


WRONG = [
    (Float32, pa.array([0.5, 0.1]), 'row 1, column \'x\' must be Float32: 0.1 is not exactly a Float32; declare a wider type; or round the column first, as .astype("float32") and .cast(pa.float32()) do'),
    (Float32, pd.Series([0.1]), "0.1 is not exactly a Float32"),
    (Array(Float32, 2), pa.array([[0.5, 0.5], [0.5, 0.1]]), "row 1, column 'x' must be Array(Float32, 2): 0.1 is not exactly"),
    (Array(Float32, 2), pa.array([[0.5]]), "row 0, column 'x' must be Array(Float32, 2): 1 element is given"),
    (Int32, pa.array([1, 2**31]), "row 1, column 'x' must be Int32: 2147483648 does not fit Int32"),
    (Int64, pa.array([1, 2**63], pa.uint64()), "row 1, column 'x' must be Int64: 9223372036854775808 does not fit Int64"),
    (Float64, pa.array([2**53 + 1]), "row 0, column 'x' must be Float64: 9007199254740993 is not exactly a Float64"),
    (Decimal(10, 2), pa.array([Number("1.555")]), "row 0, column 'x' must be Decimal(10, 2): Decimal('1.555') has more than 2"),
    (Int64, pd.Series([1.0, math.nan, 1.5]), "row 2, column 'x' must be Int64: 1.5 is no integer"),
    (Int64, pd.Series([2.0**53 + 2, math.nan]), "row 0, column 'x' must be Int64: 9007199254740994.0 is beyond the integers that float64 holds exactly"),
    (Int64, pd.Series([math.inf, math.nan]), "row 0, column 'x' must be Int64: inf is no integer"),
    (Int64, pa.array([1.0]), "column 'x' is double, and must be Int64"),
    (Int64, pa.array(["1"]), "column 'x' is string, and must be Int64"),
    (String, pa.array([b"a"]), "column 'x' is binary, and must be String"),
    (Timestamp, pa.array(["2026-03-01"]), "is string, and must be Timestamp; text is never taken for another type: convert it, as pd.to_datetime(…, utc=True) does"),
    (String, pd.Series([1]), "is int64, and must be String; numbers are never taken for text: convert it, as .astype('string') does"),
    (Decimal(10, 2), pd.Series([1.25]), "is double, and must be Decimal(10, 2); a float is no exact decimal: give it decimal.Decimal values"),
    (Date, pd.Series([pd.Timestamp("2026-03-01")]), "and must be Date; say which day an instant is of, as .dt.date does in pandas"),
    (Timestamp, pa.array([1]), "column 'x' is int64, and must be Timestamp"),
    (Date, pa.array([NOON]), "column 'x' is timestamp[us, tz=UTC], and must be Date"),
    (Timestamp, pa.array([2**60], pa.timestamp("s")), "row 0, column 'x' must be Timestamp"),
    (Int64, pa.array([{"a": 1}]), "column 'x' is struct<a: int64>, and must be Int64"),
    (Array(Int64), pa.array([1]), "column 'x' is int64, and must be Array(Int64)"),
    (Array(Int64), pa.array([["a"]]), "column 'x' is list<item: string>, and must be Array(Int64)"),
    (Bool, pd.Series([True, math.nan, 2.0], dtype=object), "the frame cannot be read: "),
]  # fmt: skip


@pytest.mark.parametrize(("of", "column", "says"), WRONG)
def test_what_is_no_value_of_the_type_is_named_by_row_and_column(of: FeatureType, column: Any, says: str) -> None:
    text = raised(PushError, lambda: pushed(of, column))
    assert text.startswith("PushSource 'rows': ")
    assert says in text


def test_a_frame_that_cannot_be_read_is_one_error_everywhere() -> None:
    """Mixed cells, and a column twice: as a source, a spine, a push and a lookup."""
    mixed = pd.DataFrame({"thing": [1, "b"], "at": [NOON] * 2, "x": [1.0, 2.0]})
    twice = pa.table([[1], [2], [1.0], [2.0]], names=["thing", "at", "x", "x"])
    great = pd.DataFrame({"thing": [2**70], "at": [NOON], "x": [1.0]})
    with opened(view_of(table(thing=[1], at=[hours(-1)], x=[1.0]), ["x"])) as (store, _):
        store.materialize(progress=False)
        for frame in (mixed, twice, great):
            refused: list[tuple[type[Exception], Any]] = [
                (DeclarationError, lambda frame=frame: view_of(frame, ["x"])),
                (PushError, lambda frame=frame: table_of_rows(source(Float64), frame)),
                (RequestError, lambda frame=frame: store.get_online_features(frame, "service")),
                (SpineError, lambda frame=frame: store.get_historical_features(frame, "service", timestamp="at")),
            ]
            for error, call in refused:
                assert raised(error, call)


def test_a_key_that_float64_cannot_hold_is_asked_for_by_nobody() -> None:
    """A numpy-backed integer column with nulls has become float64, which has no 2^53 + 1."""
    frame = pd.DataFrame({"thing": [2.0**53 + 2, math.nan]})
    with opened(view_of(table(thing=[1], at=[hours(-1)], x=[1.0]), ["x"])) as (store, clock):
        store.materialize(progress=False)
        refused = raised(RequestError, lambda: store.get_online_features(frame, "service"))
        assert "Row 0: 'thing' must be Int64: 9007199254740994.0 is beyond the integers" in refused
        asked = frame.assign(event_timestamp=clock())
        assert "Row 0" in raised(SpineError, lambda: store.get_historical_features(asked, "service"))


WITHOUT = {
    "numpy": pd.Series([2.0, math.nan]),
    "pandas": pd.Series([2.0, None], dtype="Float64"),
    "pandas, computed": pd.Series([2.0, 0.0], dtype="Float64") / pd.Series([1.0, 0.0], dtype="Float64"),
    "arrow": pd.Series([2.0, None], dtype=pd.ArrowDtype(pa.float64())),
    "arrow, a NaN": pd.Series(pd.arrays.ArrowExtensionArray(pa.array([2.0, math.nan]))),
    "arrow, narrow": pd.Series(pd.arrays.ArrowExtensionArray(pa.array([2.0, math.nan], pa.float32()))),
}


@pytest.mark.parametrize("column", WITHOUT.values(), ids=WITHOUT)
def test_a_nan_among_whole_numbers_of_pandas_is_null(column: pd.Series) -> None:
    """In every kind of pandas column: as a pushed value, as a key of a spine, and as one of a request."""
    assert pushed(Int64, column).to_pylist() == [2, None]
    with opened(view_of(table(thing=[2], at=[hours(-1)], x=[1.0]), ["x"])) as (store, clock):
        store.materialize(progress=False)
        frame = pd.DataFrame({"thing": column, "event_timestamp": clock()})
        assert store.get_online_features(frame[["thing"]], "service").to_dict()["view__x"] == [1.0, None]
        trained = store.get_historical_features(frame, "service", with_status=True).to_arrow()
        assert trained["view__x"].to_pylist() == [1.0, None]
        assert trained["view__x__status"].to_pylist() == ["PRESENT", "MISSING"]


def test_a_nan_of_another_frame_is_no_whole_number() -> None:
    """Nor does a frame that is none of pandas' have whole numbers among its floats."""
    column = pa.array([2.0, math.nan])
    assert raised(PushError, lambda: pushed(Int64, column))
    with opened(view_of(table(thing=[2], at=[hours(-1)], x=[1.0]), ["x"])) as (store, clock):
        store.materialize(progress=False)
        frame = table(thing=column, event_timestamp=[clock()] * 2)
        assert raised(SpineError, lambda: store.get_historical_features(frame, "service"))
        assert raised(RequestError, lambda: store.get_online_features(frame.select(["thing"]), "service"))


def test_what_a_frame_pushes_is_served_and_trained() -> None:
    """Nanoseconds, null columns and wider numbers, beside the same rows one by one: one log, one value."""
    rows = PushSource(
        "rows", event_time="at",
        schema={"thing": Int64, "at": Timestamp, "small": Float32, "moment": Timestamp, "many": Array(Int32), "text": String},
    )  # fmt: skip
    names = ["small", "moment", "many", "text"]
    view = FeatureView(
        "view", entity=Entity("thing", key={"thing": Int64}), source=rows, features={n: Latest(n) for n in names}
    )
    at = pa.array([int((NOON.timestamp() - 60) * 10**9) + 999], pa.timestamp("ns"))
    frame = pa.table({
        "thing": pa.array([1], pa.uint64()), "at": at, "small": [0.25], "moment": pa.array([BEFORE_1970], pa.timestamp("ns")),
        "many": [[1, None]], "text": pa.nulls(1),
    })  # fmt: skip
    with opened(view) as (store, clock):
        assert store.push("rows", frame).accepted == 1
        moment = pd.Timestamp(BEFORE_1970)
        row = {"thing": 2, "at": pd.Timestamp(at[0].value), "small": 0.25, "moment": moment, "many": [1, None]}
        assert store.push("rows", row).accepted == 1
        online = store.get_online_features([{"thing": 1}, {"thing": 2}], "service").to_arrow()
        asked = table(thing=[1, 2], event_timestamp=[clock(), clock()])
        trained = store.get_historical_features(asked, "service").to_arrow()
        assert trained.select(online.column_names).replace_schema_metadata(None).equals(online)
        for column in online.columns:
            assert column[0] == column[1]
        assert online["view__moment"].cast(pa.int64())[0].as_py() == BEFORE_1970 // 1000
