"""Columns of values: each function beside the same in plain Python, of slices, of several chunks, of nulls and of none."""

from __future__ import annotations

import math
import random
import re
import struct
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal as D
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from featurestore.errors import RequestError
from featurestore.semantics.values import (
    canonical,
    canonical_chunks,
    fill,
    matrix_of,
    micros,
    scalars,
    take,
    to_numpy,
    to_pandas,
)
from featurestore.types import (
    Array,
    Bool,
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
from tests.small import opened, table, view_of

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
VALUES: dict[FeatureType, list[Any]] = {
    Bool: [True, None, False, True],
    Int32: [0, None, -1, 2**31 - 1],
    Int64: [None, 2**53, -(2**53), 7],
    Float32: [0.5, None, math.inf, -0.0],
    Float64: [1.5, -0.0, None, math.inf],
    String: ["", "ä", None, "b"],
    Date: [date(1, 1, 1), None, date(9999, 12, 31), date(1970, 1, 1)],
    Timestamp: [NOON, None, NOON - timedelta(days=40_000), NOON + timedelta(microseconds=1)],
    Decimal(10, 2): [D("0.01"), None, D("-9.99"), D("1.00")],
    Array(Int64): [[], None, [1, None], [3]],
    Array(Timestamp): [[NOON, None], None, [], [NOON]],
    Array(Float32, 2): [[0.5, 1.0], None, [2.0, -0.0], [1.0, 1.0]],
}
NUMBERS = [of for of in VALUES if of in {Bool, Int32, Int64, Float32, Float64}]
by_type = pytest.mark.parametrize("of", VALUES, ids=str)


def forms(of: FeatureType, values: list[Any]) -> list[pa.Array | pa.ChunkedArray]:
    """The values as one array, as a part of a longer one, in two chunks, and in three, one of them empty and one a part."""
    whole = pa.array(values, of.arrow)
    longer = pa.array([*values[1:3], *values, *values[:1]], of.arrow)
    parts = [whole[:0], whole[:2], longer.slice(4, len(values) - 2)]
    return [whole, longer.slice(2, len(values)), pa.chunked_array([whole[:1], whole[1:]]), pa.chunked_array(parts)]


@by_type
def test_taken_are_the_values_at_the_places_and_null_at_none(of: FeatureType) -> None:
    chance = random.Random(1)
    for values in (3 * VALUES[of], [value for value in VALUES[of] if value is not None]):
        for places in ([], [0], [-1], [2, 0, 0], [chance.randrange(-1, len(values)) for _ in range(20)]):
            for form in forms(of, values):
                taken = take(form, np.array(places, np.int64))
                assert (taken.type, scalars(taken)) == (of.arrow, [None if at < 0 else values[at] for at in places])
    assert scalars(take(pa.array([], of.arrow), np.array([-1, -1]))) == [None, None]


def test_a_few_values_are_taken_of_chunks_that_hold_more_text_than_an_array_can() -> None:
    """Of twenty chunks with 128 MiB each, which are one and the same in memory."""
    chunk = pa.array(["a", None, "x" * (1 << 27), "b"])
    whole = pa.chunked_array([chunk] * 20)
    taken = take(whole, np.array([79, 0, -1, 41, 3, 76, 0]))
    assert (taken.type, taken.to_pylist()) == (pa.string(), ["b", "a", None, None, "b", "a", "a"])
    assert take(whole, np.array([], np.int64)).to_pylist() == []


@by_type
def test_scalars_are_what_was_put_in(of: FeatureType) -> None:
    for form in forms(of, VALUES[of]):
        assert scalars(form) == VALUES[of]
        assert scalars(canonical(form, of)) == VALUES[of]


def test_times_are_in_one_zone_object() -> None:
    """In lists too, of any kind."""
    assert {moment.tzinfo for moment in scalars(pa.array([NOON, NOON], Timestamp.arrow))} == {UTC}
    for kind in (pa.list_, pa.large_list, lambda of: pa.list_(of, 1)):
        found = scalars(pa.array([[NOON], None], kind(Timestamp.arrow)))
        assert (found, found[0][0].tzinfo is UTC) == ([[NOON], None], True)


@by_type
def test_filled_are_the_places_that_are_marked(of: FeatureType) -> None:
    values, default = VALUES[of], VALUES[of][3]
    array = pa.array(values, of.arrow)
    for where in ([False] * 4, [True] * 4, [False, True, False, False], [True, False, False, True]):
        wanted = [default if marked else value for marked, value in zip(where, values, strict=True)]
        assert scalars(fill(array, np.array(where), of, default)) == wanted


@pytest.mark.parametrize(("unit", "number", "us"), [
    ("s", -3, -3_000_000), ("ms", -3, -3_000), ("us", -3, -3), ("ns", -3, -1), ("ns", -1000, -1), ("ns", -1001, -2), ("ns", 1999, 1),
])  # fmt: skip
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"])
def test_times_are_floored_to_microseconds(unit: str, number: int, us: int, zone: str | None) -> None:
    """Wherever they are shown."""
    array = pa.array([number, None, number], pa.timestamp(unit, zone))
    for form in (array, pa.chunked_array([array[:1], array[1:]])):
        found = micros(form)
        assert found.type == pa.timestamp("us", "UTC")
        assert found.cast(pa.int64()).to_pylist() == [us, None, us]


def test_there_is_one_nan() -> None:
    """Of floats alone, in lists and in embeddings; what is no NaN keeps its bits, and null stays null."""
    odd = struct.unpack("<d", struct.pack("<Q", 0xFFF8000000000001))[0]
    doubles = canonical(pa.array([odd, None, -0.0, 1.5]), Float64)
    assert doubles.to_numpy(zero_copy_only=False)[[0, 2]].view(np.uint64).tolist() == [0x7FF8000000000000, 1 << 63]
    assert doubles.is_null().to_pylist() == [False, True, False, False]
    lists = pa.array([[7.0], [1.0, odd], None, [], [None, odd]], pa.list_(pa.float64()))
    for form in (lists, lists[1:]):
        found = canonical(form, Array(Float64))
        assert [None if one is None else [str(value) for value in one] for one in found.to_pylist()] == [
            *([["7.0"]] if len(form) == 5 else []), ["1.0", "nan"], None, [], ["None", "nan"],
        ]  # fmt: skip
        bits = found.flatten().drop_null().to_numpy(zero_copy_only=False).view(np.uint64).tolist()
        assert bits.count(0x7FF8000000000000) == 2
    embedded = canonical(pa.array([[odd, 1.0], None], pa.list_(pa.float64())), Array(Float32, 2))
    assert embedded.is_null().to_pylist() == [False, True]
    assert embedded[:1].flatten().to_numpy(zero_copy_only=False).view(np.uint32).tolist() == [0x7FC00000, 0x3F800000]
    chunks = canonical_chunks(pa.chunked_array([pa.array([1]), pa.array([2, None])]), Float64)
    assert (chunks.type, chunks.to_pylist()) == (pa.float64(), [1.0, 2.0, None])


@pytest.mark.parametrize(("lists", "told"), [
    ([[1.0], [1.0, 2.0, 3.0]], "lists of 1, 3 elements are no"), ([[1.0, 2.0], [1.0]], "lists of 1, 2 elements are no"),
    ([[1.0, None]], "an element is null"),
])  # fmt: skip
def test_what_is_no_embedding_is_refused(lists: list[list[float | None]], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        canonical(pa.array(lists, pa.list_(pa.float64())), Array(Float32, 2))


@by_type
def test_a_matrix_is_the_same_from_arrow_and_from_scalars(of: FeatureType) -> None:
    """A row a value, a column a feature; null is NaN in numbers, and None in objects."""
    values = VALUES[of]
    array, types = canonical(pa.array(values, of.arrow), of), {"a": of, "b": of}
    other = values[::-1]
    columns = {"a": array, "b": canonical(pa.array(other, of.arrow), of)}
    found = to_numpy(columns, types, dtype=object)
    assert found.shape == (4, 2)
    assert found.tolist() == [list(pair) for pair in zip(values, other, strict=True)]
    assert matrix_of({"a": values, "b": other}, types.values(), object).tolist() == found.tolist()
    if of not in NUMBERS:
        for refused in (lambda: to_numpy(columns, types), lambda: matrix_of({"a": values}, [of], None)):
            with pytest.raises(ValueError, match="column 'a' is .*, which is no number"):
                refused()
        return
    for dtype in (None, np.float32):
        one, two = to_numpy(columns, types, dtype=dtype), matrix_of({"a": values, "b": other}, types.values(), dtype)
        assert one.dtype == two.dtype == (dtype or np.float64)
        wanted = np.array(
            [[math.nan if v is None else v for v in pair] for pair in zip(values, other, strict=True)], one.dtype
        )
        assert one.tobytes() == two.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("whole", [2**53 + 1, -(2**53) - 1])
def test_an_integer_that_a_float_cannot_hold_is_refused(whole: int) -> None:
    array = pa.array([0, None, whole])
    for made in (
        lambda: to_numpy({"n": array}, {"n": Int64}),
        lambda: matrix_of({"n": [0, None, whole]}, [Int64], None),
        lambda: to_pandas({"n": array}, {"n": Int64}, dtypes="numpy"),
    ):
        with pytest.raises(ValueError, match="column 'n' holds an integer beyond 2"):
            made()


def test_no_columns_and_no_rows_make_an_empty_matrix() -> None:
    assert to_numpy({}, {}).shape == (0, 0)
    assert matrix_of({}, [], object).shape == (0, 0)
    assert to_numpy({"n": pa.array([], pa.int64())}, {"n": Int64}).shape == (0, 1)


def test_pandas_has_the_dtype_of_the_type_whatever_the_data() -> None:
    """With nulls and without."""
    dtypes = {
        Int64: "float64",
        Bool: "float64",
        Float32: "float32",
        String: "object",
        Timestamp: "datetime64[us]",
        Date: "datetime64[us]",
    }
    for of, dtype in dtypes.items():
        values = [value for value in VALUES[of] if of is not Date or value is None or value.year == 1970]
        for some in (values, [value for value in values if value is not None], []):
            array = canonical(pa.array(some, of.arrow), of)
            frame = to_pandas({"x": array}, {"x": of}, dtypes="numpy")
            assert str(frame["x"].dtype) == dtype
            assert frame["x"].isna().tolist() == [value is None for value in some]


WHOLE = [2**53 + 1, -(2**63), 2**63 - 1]
REFUSED: list[tuple[FeatureType, Any, Any, str]] = [
    (Int64, [1, None], "int64", "null or NaN, which int64 cannot hold"),
    (Float64, [1.0, math.nan], "int8", "null or NaN, which int8 cannot hold"),
    (Int64, [1, 2**31], "int32", "holds 2147483648, which int32 cannot hold"),
    (Int64, [-1], "uint64", "holds -1, which uint64 cannot hold"),
    (Int64, [2], "bool", "holds 2, which bool cannot hold"),
    (Float64, [1.5], "int64", "holds 1.5, which int64 cannot hold"),
    (Float64, [2.0**63], "int64", "which int64 cannot hold"),
    (Float64, [2.0**64], "uint64", "which uint64 cannot hold"),
    (Float64, [math.inf], "int64", "holds inf, which int64 cannot hold"),
    (Int64, [2**53 + 1], "float64", "beyond 2^53, which float64 cannot hold; use Arrow dtypes, or to_numpy(np.int64)"),
]


def both_matrices(of: FeatureType, values: list[Any], dtype: Any) -> list[Callable[[], Any]]:
    """Of one column, as training and as a lookup make it."""
    columns = {"a": pa.array(values, of.arrow)}
    return [lambda: to_numpy(columns, {"a": of}, dtype=dtype), lambda: matrix_of({"a": values}, [of], dtype)]


def test_whole_numbers_stay_what_they_are_in_a_matrix_of_them() -> None:
    """They went through float64, which holds no more than 2^53, and what did not fit came out as another number."""
    for make in both_matrices(Int64, WHOLE, np.int64):
        found = make()
        assert (found.dtype, found.ravel().tolist()) == (np.dtype("int64"), WHOLE)
    for make in both_matrices(Float64, [-0.0, 255.0], "uint8"):
        assert make().ravel().tolist() == [0, 255]
    for make in both_matrices(Bool, [True, False], bool):
        assert make().ravel().tolist() == [True, False]


@pytest.mark.parametrize(("of", "values", "dtype", "says"), REFUSED)
def test_a_number_that_a_dtype_cannot_hold_is_refused(
    of: FeatureType, values: list[Any], dtype: Any, says: str
) -> None:
    for make in both_matrices(of, values, dtype):
        with pytest.raises(RequestError, match=re.escape(says)):
            make()


def test_a_matrix_of_no_columns_has_its_rows() -> None:
    view = view_of(table(thing=[1, 2], at=[NOON] * 2, x=[1, 2]), ["x"], refresh="1h")
    with opened(view) as (store, _):
        store.materialize(progress=False)
        frame = store.snapshot("service", at=NOON)
        result = store.get_online_features([{"thing": 1}, {"thing": 2}], "service")
    for dtype in (None, "int64", object):
        assert frame.to_numpy(dtype, columns=[]).shape == result.to_numpy(dtype, columns=[]).shape == (2, 0)
