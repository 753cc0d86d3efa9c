"""Rule 2's order of values: the bytes, DuckDB's terms and the oracle say the same."""

from __future__ import annotations

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.semantics.columns import order_sql
from featurestore.semantics.order import order_bytes, order_value, place
from featurestore.semantics.values import canonical
from featurestore.types import FeatureType, Int64, String
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
