"""How columns are read: which type holds a column's values exactly, and which instant a time is."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pyarrow as pa
import pytest

from featurestore import ParquetSource
from featurestore.semantics.columns import (
    Mixed,
    RawColumns,
    finer_than_micros,
    floored_sql,
    floored_type,
    instant_expression,
    instant_sql,
    read_sql,
    type_of_arrow,
    type_of_column,
    type_that_holds,
    widens,
)
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

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TYPES = [
    Bool,
    Int32,
    Int64,
    Float32,
    Float64,
    String,
    Bytes,
    Date,
    Decimal(10, 2),
    Decimal(38, 0),
    Array(Int64),
    Array(Decimal(5, 1)),
]
TYPES += [Timestamp, Array(Timestamp), Array(String), Array(Float32), Array(Float32, 3)]


def asked(sql: str) -> Any:
    """The one value of an expression."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return connection.sql(f"SELECT {sql} AS one").to_arrow_table()["one"][0].as_py()


@pytest.mark.parametrize("of", TYPES, ids=str)
def test_a_type_is_found_by_its_own_names(of: FeatureType) -> None:
    assert type_of_column(of.duckdb) == of
    assert type_of_arrow(of.arrow) == of


@pytest.mark.parametrize(("raw", "of"), [
    ("ENUM('a', 'b')", String), ("DOUBLE[3]", Array(Float64)), ("FLOAT[3]", Array(Float32, 3)), ("FLOAT[]", Array(Float32)),
    ("UINTEGER[]", Array(Int64)), ("TIMESTAMP_NS", Timestamp), ("UBIGINT", None), ("UBIGINT[]", None), ("UBIGINT[2]", None),
    ("STRUCT(a INTEGER)", None), ("HUGEINT", None),
])  # fmt: skip
def test_a_column_of_duckdb_has_the_type_that_holds_it(raw: str, of: FeatureType | None) -> None:
    assert type_of_column(raw) == of


@pytest.mark.parametrize(("arrow", "of"), [
    (pa.uint32(), Int64), (pa.uint64(), None), (pa.large_string(), String), (pa.timestamp("s"), Timestamp),
    (pa.list_(pa.float32(), 2), Array(Float32, 2)), (pa.list_(pa.float64(), 2), Array(Float64)), (pa.list_(pa.uint64()), None),
    (pa.large_list(pa.int8()), Array(Int32)), (pa.decimal128(7, 3), Decimal(7, 3)), (pa.float16(), None),
])  # fmt: skip
def test_a_column_of_arrow_has_the_type_that_holds_it(arrow: pa.DataType, of: FeatureType | None) -> None:
    assert type_of_arrow(arrow) == of


@pytest.mark.parametrize(("source", "target", "exactly"), [
    (Int32, Int64, True), (Int32, Float64, True), (Float32, Float64, True), (Int64, Float64, False), (Int32, Float32, False),
    (Int64, Int32, False), (Float64, Float32, False), (String, String, True), (String, Bytes, False),
    (Int32, Decimal(10, 0), True), (Int32, Decimal(9, 0), False), (Int32, Decimal(12, 2), True), (Int32, Decimal(11, 2), False),
    (Int64, Decimal(19, 0), True), (Int64, Decimal(18, 0), False), (Int64, Decimal(21, 2), True), (Int64, Decimal(20, 2), False),
    (Decimal(10, 2), Decimal(12, 4), True), (Decimal(10, 2), Decimal(11, 4), False), (Decimal(10, 2), Decimal(10, 1), False),
    (Decimal(10, 2), Decimal(9, 2), False), (Decimal(10, 2), Decimal(11, 2), True), (Decimal(3, 0), Int32, False),
    (Array(Int32), Array(Int64), True), (Array(Int64), Array(Int32), False), (Array(Int32), Int64, False), (Int32, Array(Int64), False),
    (Array(Float32, 3), Array(Float32), True), (Array(Float32), Array(Float32, 3), True), (Array(Float32, 2), Array(Float32, 3), False),
])  # fmt: skip
def test_one_type_holds_every_value_of_another(source: FeatureType, target: FeatureType, *, exactly: bool) -> None:
    assert widens(source, target) == exactly


@pytest.mark.parametrize(("nanos", "us"), [(0, 0), (999, 0), (1000, 1), (-1, -1), (-1000, -1), (-1001, -2)])
def test_nanoseconds_are_floored(nanos: int, us: int) -> None:
    """Alone and in lists, to what is then read as microseconds."""
    column, wanted = f"make_timestamp_ns({nanos})", datetime(1970, 1, 1) + timedelta(microseconds=us)  # noqa: DTZ001
    assert asked(instant_expression(column, "TIMESTAMP_NS", "UTC")) == us
    assert asked(floored_sql(column, "TIMESTAMP_NS")) == wanted
    assert asked(floored_sql(f"[[{column}], NULL]", "TIMESTAMP_NS[][]")) == [[wanted], None]
    assert asked(read_sql(column, "TIMESTAMP_NS", Timestamp, "UTC")) == EPOCH + timedelta(microseconds=us)
    assert asked(read_sql(f"[{column}]", "TIMESTAMP_NS[]", Array(Timestamp), "UTC")) == [
        EPOCH + timedelta(microseconds=us)
    ]


def test_what_is_finer_than_microseconds_says_so() -> None:
    for raw, floored in (
        ("TIMESTAMP_NS", "TIMESTAMP"),
        ("TIMESTAMP_NS[]", "TIMESTAMP[]"),
        ("TIMESTAMPTZ_NS", "TIMESTAMP WITH TIME ZONE"),
    ):
        assert (finer_than_micros(raw), floored_type(raw)) == (True, floored)
    for raw in ("TIMESTAMP", "TIMESTAMP[]", "BIGINT[3]", "TIMESTAMP WITH TIME ZONE"):
        assert (finer_than_micros(raw), floored_type(raw), floored_sql("c", raw)) == (False, raw, "c")


@pytest.mark.parametrize(
    "raw", ["TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "TIMESTAMP WITH TIME ZONE"]
)
@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "Europe/Berlin"])
def test_a_time_without_a_zone_is_one_of_the_sources(raw: str, zone: str) -> None:
    """One with a zone is the instant that it is."""
    column = "TIMESTAMPTZ '2024-07-01 12:00:00+00'" if "ZONE" in raw else f"TIMESTAMP '2024-07-01 12:00:00'::{raw}"
    noon = datetime(2024, 7, 1, 12, tzinfo=UTC if "ZONE" in raw else ZoneInfo(zone))
    assert asked(instant_expression(column, raw, zone)) == (noon - EPOCH) // timedelta(microseconds=1)
    assert asked(read_sql(column, raw, Timestamp, zone)) == noon
    with pytest.raises(ValueError, match="must be a TIMESTAMP"):
        instant_expression("c", "DATE", zone)


@pytest.mark.parametrize(("words", "raw", "happened", "instant"), [
    ({}, "DATE", True, datetime(2024, 1, 2, tzinfo=UTC)),
    ({}, "DATE", False, datetime(2024, 1, 2, tzinfo=UTC)),
    ({"date": "start"}, "DATE", True, datetime(2024, 1, 1, tzinfo=UTC)),
    ({"timezone": "Asia/Tokyo"}, "DATE", True, datetime(2024, 1, 1, 15, tzinfo=UTC)),
    ({"period": "1h"}, "TIMESTAMP", True, datetime(2024, 1, 1, 1, tzinfo=UTC)),
    ({"period": "1h"}, "TIMESTAMP", False, datetime(2024, 1, 1, tzinfo=UTC)),
    ({}, "TIMESTAMP", True, datetime(2024, 1, 1, tzinfo=UTC)),
])  # fmt: skip
def test_a_day_ends_at_the_next_midnight_and_a_period_after_it(
    words: dict[str, Any], raw: str, *, happened: bool, instant: datetime
) -> None:
    source = ParquetSource("rows", "rows.parquet", event_time="at", **words)
    sql = instant_sql(source, f"{raw} '2024-01-01'", raw, happened=happened)
    assert asked(sql) == (instant - EPOCH) // timedelta(microseconds=1)


def test_a_day_without_an_instant_is_null_and_a_number_is_no_time() -> None:
    source = ParquetSource("rows", "rows.parquet", event_time="at")
    assert asked(instant_sql(source, "DATE '5000000-01-01'", "DATE")) is None
    assert asked(instant_sql(source, f"DATE '{date(9999, 12, 31)}'", "DATE")) == 253402300800000000
    with pytest.raises(ValueError, match="it is BIGINT, and a time is"):
        instant_sql(source, "c", "BIGINT")


def test_infinities_of_nanoseconds_are_the_furthest_instants_that_others_write() -> None:
    """Those of microseconds stay infinite."""
    for word, us in (("infinity", (2**63 - 1) // 1000), ("-infinity", (1 - 2**63) // 1000)):
        assert asked(instant_expression(f"'{word}'::TIMESTAMP_NS", "TIMESTAMP_NS", "UTC")) == us
        far = read_sql(f"'{word}'::TIMESTAMP_NS", "TIMESTAMP_NS", Timestamp, "UTC")
        assert asked(f"epoch_us({far})") == us
        still = read_sql(f"'{word}'::TIMESTAMP", "TIMESTAMP", Timestamp, "Asia/Tokyo")
        assert asked(f"{still} = '{word}'::TIMESTAMPTZ")


def test_columns_of_a_source_say_what_is_wrong_with_them() -> None:
    """And go by the type that they had, where they are of several."""
    mixed = Mixed({"INTEGER": Int32, "BIGINT": Int64}, "INTEGER", "a.parquet, b.parquet")
    raw = RawColumns(
        {"a": "BIGINT", "b": "JSON"}, faults={"b": "is broken"}, mixed={"a": mixed}, missing={"a": "c.parquet"}
    )
    assert raw == {"a": "BIGINT", "b": "JSON"}
    for columns in (
        raw,
        raw.with_types({"d": "DATE"}),
        RawColumns.named_as(raw, {"a": "VARCHAR"}),
        RawColumns.named_as(raw, {}),
    ):
        assert isinstance(columns, RawColumns)
        assert (RawColumns.fault(columns, "b"), RawColumns.fault(columns, "a")) == ("is broken", None)
        assert (RawColumns.mix(columns, "a"), RawColumns.mix(columns, "b"), columns.missing) == (
            mixed,
            None,
            {"a": "c.parquet"},
        )
    assert raw.with_types({"d": "DATE"}) == {**raw, "d": "DATE"}
    assert RawColumns.mix(RawColumns.named_as(raw, {"a": "BIGINT"}), "a") == mixed._replace(first="BIGINT")
    plain, alone = {"a": "BIGINT"}, RawColumns({"a": "BIGINT"})
    for columns in (plain, alone):
        assert RawColumns.named_as(columns, {"a": "INTEGER"}) is columns
        assert (RawColumns.fault(columns, "a"), RawColumns.mix(columns, "a")) == (None, None)


@pytest.mark.parametrize(
    ("arrow", "of"),
    [
        (pa.uint64(), Int64),
        (pa.float16(), Float32),
        (pa.decimal256(38, 0), Decimal(38, 0)),
        (pa.decimal256(39, 0), None),
        (pa.decimal128(3, 5), None),
        (pa.decimal128(3, -1), None),
        (pa.int16(), Int32),
        (pa.duration("s"), None),
    ],
)
def test_what_holds_a_column_as_it_comes(arrow: pa.DataType, of: FeatureType | None) -> None:
    """Beside the types of features: halves, unsigned numbers of 64 bits, and decimals of other widths; none that would lose digits."""
    assert type_that_holds(arrow) == of


def test_no_feature_type_has_more_digits_behind_the_point_than_it_has() -> None:
    """Nor fewer than none: what Arrow can write and DuckDB cannot is no type of a feature."""
    assert type_of_arrow(pa.decimal128(3, 5)) is None
    assert type_of_arrow(pa.decimal128(3, -1)) is None
