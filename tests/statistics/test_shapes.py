"""Two columns in the same parts: every value lies in one, wherever it comes from."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal as Number
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.statistics.shapes import LISTED_TEXTS, MOST_PARTS, OTHERS, Shape, parts_of
from featurestore.types import (
    Array,
    Bool,
    Bytes,
    Date,
    Decimal,
    FeatureType,
    Float32,
    Float64,
    Int64,
    String,
    Timestamp,
)


def column(values: list[Any], of: FeatureType) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, of.arrow)])


def shape_of(one: list[Any], other: list[Any], of: FeatureType) -> Shape:
    sides = column(one, of), column(other, of)
    parts = parts_of(*sides, of)
    return Shape(parts.labels, *(parts.shares(side) for side in sides))


def test_few_numbers_are_parts_of_their_own() -> None:
    """A count reads 0, 1, 2, and not "0 to 0.1"."""
    found = shape_of([0, 1, 1, None, 2], [1, 5], Int64)
    assert found == Shape(("0", "1", "2", "5"), (0.25, 0.5, 0.25, 0.0), (0.0, 0.5, 0.0, 0.5))


def test_many_numbers_lie_in_equal_parts_and_a_far_one_beyond() -> None:
    """One value a million times as great as the others does not squeeze them into one part."""
    found = shape_of([float(n) for n in range(1000)], [*(float(n) for n in range(999)), 1e9], Float64)
    assert len(found.labels) == MOST_PARTS == len(found.baseline) == len(found.served)
    assert max(found.baseline) < 0.06
    assert found.labels[0].startswith("up to ")
    assert found.labels[-1].startswith("above ")
    assert found.served[-1] == pytest.approx(found.baseline[-1])


def test_what_is_not_finite_is_beside_the_numbers() -> None:
    """NaN and the infinities are parts of their own, where they are there; null is no value."""
    found = shape_of([1.0, math.nan, None], [math.inf, -math.inf, 1.0, 1.0], Float64)
    assert found == Shape(("1", "-Infinity", "Infinity", "NaN"), (0.5, 0.0, 0.0, 0.5), (0.5, 0.25, 0.25, 0.0))


def test_texts_are_the_most_frequent_ones_of_either_side() -> None:
    """One that is frequent on one side alone is there, and all others are one part more."""
    found = shape_of(["a"] * 50 + [f"rare {n}" for n in range(50)], ["new"] * 10, String)
    assert found.labels[:2] == ("new", "a")
    assert (len(found.labels), found.labels[-1]) == (LISTED_TEXTS + 1, OTHERS)
    assert (found.baseline[0], found.served[0]) == (0.0, 1.0)
    assert sum(found.baseline) == pytest.approx(1)


@pytest.mark.parametrize(
    ("of", "value", "label"),
    [
        (Bool, True, "true"), (Bytes, b"\x00\xff", "AP8="), (Decimal(6, 2), Number("12.50"), "12.5"), (Date, date(2024, 5, 1), "2024-05-01"),
        (Timestamp, datetime(2024, 5, 1, 12, tzinfo=UTC), "2024-05-01 12:00"), (String, "<script>", "<script>"),
        (String, "x" * 10_000, "x" * 59 + "…"), (Array(Int64), [7, 7], "7"), (Array(Float32, 2), [0.5, 0.5], "0.5"),
    ],
)  # fmt: skip
def test_a_part_is_named_as_its_values_read(of: FeatureType, value: Any, label: str) -> None:
    assert shape_of([value], [value, None], of) == Shape((label,), (1.0,), (1.0,))


def test_times_beyond_the_calendar_have_names_too() -> None:
    """The least and the greatest instant that there are."""
    far = pa.chunked_array([pa.array([2**63 - 1, -(2**63 - 1)], pa.int64()).cast(Timestamp.arrow)])
    assert len(parts_of(far, far, Timestamp).labels) == 2
    days = [date(2024, 1, 1) + timedelta(days=n) for n in range(100)]
    assert shape_of(days, days, Date).labels[0].startswith("up to 2024-01-0")


def test_no_values_lie_nowhere() -> None:
    """A column of nulls has no shape, and takes none from the other side."""
    assert shape_of([None], [None], Float64) == Shape((), (), ())
    assert shape_of([None], ["a"], String) == Shape(("a",), (0.0,), (1.0,))


@given(st.lists(st.floats(), max_size=60), st.lists(st.floats(), max_size=60))
def test_every_value_lies_in_one_part(one: list[float], other: list[float]) -> None:
    """Whatever the doubles are: the shares of a side that has values are 1 together."""
    found = shape_of(one, other, Float64)
    for values, shares in ((one, found.baseline), (other, found.served)):
        assert sum(shares) == pytest.approx(1 if values else 0)
        assert all(share >= 0 for share in shares)
    assert len(set(found.labels)) >= min(1, len(one) + len(other))


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=30, max_size=60, unique=True))
def test_parts_lie_where_their_edges_say(values: list[float]) -> None:
    """Each value in the part that goes up to the first edge which is not less."""
    side = column(values, Float64)
    parts = parts_of(side, side, Float64)
    counted = [0] * len(parts.labels)
    for value in values:
        counted[next((n for n, edge in enumerate(parts.edges) if value <= edge), len(parts.edges))] += 1
    assert parts.shares(side) == pytest.approx([count / len(values) for count in counted])
