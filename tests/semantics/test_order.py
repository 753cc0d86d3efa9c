"""Rule 2's order of values: the bytes, DuckDB's terms and the oracle say the same."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.semantics.order import (
    event_time_of,
    order_bytes,
    order_sql,
    order_value,
    place,
    pushed_place,
    read_all,
    same_value,
    widening_reader,
)
from featurestore.semantics.values import canonical
from featurestore.types import FeatureType, Float32, Float64, Int32, Int64, String, parse_type
from tests.oracle import sort_key
from tests.semantics.values import TYPES, name, of_type

by_type = pytest.mark.parametrize("of", TYPES, ids=str)


@pytest.fixture(scope="module")
def db() -> duckdb.DuckDBPyConnection:
    return duckdb.connect()


@by_type
@settings(deadline=None)
@given(data=st.data())
def test_the_bytes_compare_as_the_oracle_does(of: FeatureType, data: st.DataObject) -> None:
    """For two values, null included: less, equal or greater alike; and one is never the beginning of the other."""
    a, b = (data.draw(st.one_of(st.none(), of_type(of))) for _ in "ab")
    x, y = order_bytes(of, a), order_bytes(of, b)
    p, q = sort_key(name(of), a), sort_key(name(of), b)
    assert (x < y, x == y) == (p < q, p == q)
    assert x == y or not (x.startswith(y) or y.startswith(x))


@by_type
@settings(deadline=None)
@given(data=st.data())
def test_the_bytes_read_back(of: FeatureType, data: st.DataObject) -> None:
    """The value is the same one, to the bit."""
    value = data.draw(st.one_of(st.none(), of_type(of)))
    assert sort_key(name(of), order_value(of, order_bytes(of, value))) == sort_key(name(of), value)


@by_type
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_duckdb_orders_alike(of: FeatureType, db: duckdb.DuckDBPyConnection, data: st.DataObject) -> None:
    """`ORDER BY` of `order_sql` puts values in the order of their bytes."""
    values = data.draw(st.lists(st.one_of(st.none(), of_type(of)), max_size=40))
    given_ = pa.table({"i": pa.array(range(len(values)), pa.int64()), "x": canonical(pa.array(values, of.arrow), of)})
    db.register("given_values", given_)
    found = db.execute(f"SELECT i FROM given_values ORDER BY {', '.join(order_sql('x', of))}").fetchall()
    db.unregister("given_values")
    in_order = [order_bytes(of, values[i]) for (i,) in found]
    assert in_order == sorted(in_order)


moments = st.integers(-(1 << 62), 1 << 62)
words = st.one_of(st.none(), st.text("ab\0", max_size=3))
row = st.tuples(moments | st.integers(0, 1), st.integers(0, 1), words, words, st.integers(-1, 1))


@settings(deadline=None)
@given(a=row, b=row)
def test_places_compare_as_rows_do(a: tuple, b: tuple) -> None:
    """By event_time, known_at, tiebreak, and then every column by name."""

    def placed(row: tuple) -> bytes:
        event_time, known_at, tiebreak, text, number = row
        return place(event_time, known_at, [(String, tiebreak)], {"text": (String, text), "Number": (Int64, number)})

    def key(row: tuple) -> tuple:
        event_time, known_at, tiebreak, text, number = row
        return event_time, known_at, sort_key("String", tiebreak), sort_key("Int64", number), sort_key("String", text)

    assert (placed(a) < placed(b), placed(a) == placed(b)) == (key(a) < key(b), key(a) == key(b))


GOLDEN = {
    ("Bool", True): "0101",
    ("Int32", -2): "017ffffffe",
    ("Int64", 5): "018000000000000005",
    ("Float32", 1.0): "01bf800000",
    ("Float64", -1.0): "01400fffffffffffff",
    ("Float64", math.nan): "01fff8000000000000",
    ("String", "a\0"): "016100ff0000",
    ("Bytes", b""): "010000",
    ("Date", date(1970, 1, 2)): "0180000001",
    ("Timestamp", datetime(1970, 1, 1, 0, 0, 0, 7, tzinfo=UTC)): "018000000000000007",
    ("Decimal(10, 2)", Decimal("-0.01")): "017fffffffffffffffffffffffffffffff",
    ("Array(Int32)", (1, None)): "01010180000001010000",
    ("Array(Float32, 2)", (1.0, -0.0)): "01bf8000007fffffff",
    ("Int64", None): "00",
}


@pytest.mark.parametrize(("of", "value"), GOLDEN)
def test_the_bytes_are_those_that_records_hold(of: str, value: Any) -> None:
    """States of folds keep values so, for good."""
    scalar = list(value) if isinstance(value, tuple) else value
    assert order_bytes(parse_type(of), scalar).hex() == GOLDEN[of, value]


FLOATS = [0.0, -0.0, 1.5, -1.5, math.inf, -math.inf, math.nan, 5e-324, -5e-324, 1e308, -1e308]


def bits(values: Sequence[Any]) -> list[Any]:
    return [None if value is None else struct.pack(">d", value) for value in values]


@pytest.mark.parametrize("count", [1, 15, 16, 40])
@pytest.mark.parametrize("others", [[], [b""], [b"\x00"]])
def test_many_floats_are_read_as_each_by_itself(count: int, others: list[bytes]) -> None:
    """Whether they are read at once or not; what is null or left out is null among them."""
    values: list[Any] = (FLOATS * 4)[:count]
    data = [order_bytes(Float64, value) for value in values] + others
    found = read_all(widening_reader(Float64, Float64), data)
    assert bits(found) == bits(values + [None] * len(others))


@pytest.mark.parametrize("happened", [0, 1, -1, 1 << 62, -(1 << 62)])
def test_a_place_says_when_its_row_happened(happened: int) -> None:
    assert event_time_of(pushed_place(happened, 7)) == happened


def test_many_floats_of_which_some_are_null_are_read_one_by_one() -> None:
    """Also where they take so many bytes together as whole ones could; and where all are null, or left out."""
    for nulls, left_out in [(2, 0), (16, 0), (0, 16), (8, 8)]:
        values = [0.5] * (16 - nulls - left_out)
        data = [order_bytes(Float64, value) for value in [*values, *[None] * nulls]] + [b""] * left_out
        assert read_all(widening_reader(Float64, Float64), data) == values + [None] * (nulls + left_out)


def test_what_only_looks_like_floats_is_read_as_what_it_is() -> None:
    """Integers of 8 bytes, and texts as long."""
    cases: list[tuple[FeatureType, list[Any]]] = [(Int64, list(range(-20, 20))), (String, ["abcdef"] * 20)]
    for of, values in cases:
        assert read_all(widening_reader(of, of), [order_bytes(of, value) for value in values]) == values


def test_a_wider_type_reads_every_value_of_a_narrower_one() -> None:
    for of, to, value in [(Int32, Int64, -7), (Float32, Float64, 0.5), (Int32, Int32, None), (Int32, Int64, None)]:
        assert widening_reader(of, to)(order_bytes(of, value)) == value
    wider = widening_reader(parse_type("Decimal(4, 1)"), parse_type("Decimal(6, 3)"))
    assert str(wider(order_bytes(parse_type("Decimal(4, 1)"), Decimal("1.5")))) == "1.500"


def test_two_values_are_the_same_to_the_bit() -> None:
    assert same_value(Float64, math.nan, -math.nan)
    assert same_value(Int64, None, None)
    assert not same_value(Float64, 0.0, -0.0)
    assert not same_value(Int64, None, 0)
