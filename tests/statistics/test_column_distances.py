"""Every type has its measures, and each is 0 between equal columns and more between others."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal as D
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.declare.drift_limits import MEASURES
from featurestore.statistics.column_distances import distances_of, measures_of
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

HERE = Path(__file__)
SIDES: list[tuple[FeatureType, list[Any], list[Any]]] = [
    (Bool, [True, False, None], [True, True, None]),
    (Int32, [1, 2], [3]),
    (Int64, [2**53], [2**53 + 1, None]),
    (Float32, [1.5, float("nan")], [1.5, float("inf")]),
    (Float64, [0.0, 1.0], [5.0]),
    (String, ["a", "b"], ["a", None]),
    (Bytes, [b"\xff"], [b"\x00"]),
    (Date, [date(2026, 1, 1)], [date(2026, 1, 9)]),
    (Timestamp, [datetime(2026, 1, 1, tzinfo=UTC)], [datetime(2026, 1, 9, tzinfo=UTC)]),
    (Decimal(5, 2), [D("1.25")], [D("2.50")]),
    (Array(String), [["a"], [], None], [["b", None]]),
    (Array(Int64), [[1, 2]], [[7]]),
    (Array(Float32, 2), [[3.0, 4.0], None], [[6.0, 8.0]]),
]


def column(of: FeatureType, values: list[Any]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, of.arrow)])


@pytest.mark.parametrize(("of", "one", "other"), SIDES, ids=[str(of) for of, *_ in SIDES])
def test_each_type_has_its_measures(of: FeatureType, one: list[Any], other: list[Any]) -> None:
    """Of equal columns, in chunks of any size, all are 0; of others at least one is more, and none is negative."""
    found = distances_of(column(of, one), column(of, other), of)
    assert tuple(found) == measures_of(of)
    assert all(value is not None and value >= 0 for value in found.values())
    assert max(value or 0 for value in found.values()) > 0
    parts = pa.chunked_array([pa.array([value], of.arrow) for value in reversed(one)])
    same = distances_of(column(of, one), parts, of)
    bucketed = of.is_float and of == Float32  # NaN and the infinities match nothing in a histogram, not even themselves
    assert {name: value for name, value in same.items() if value} == ({"jensen_shannon": 0.5} if bucketed else {})


def test_known_distances() -> None:
    """Of lists and embeddings those of the elements, and of their lengths beside."""
    lists = distances_of(column(Array(Int64), [[1], [1, 1]]), column(Array(Int64), [[1, 1], None]), Array(Int64))
    assert lists["missing"] == 0.5
    assert lists["length"] == 0.5
    assert lists["kolmogorov_smirnov"] == 0
    vectors = distances_of(
        column(Array(Float32, 2), [[3, 4], [0, 5]]), column(Array(Float32, 2), [[5, 0]]), Array(Float32, 2)
    )
    assert vectors["norm"] == 0
    assert vectors["kolmogorov_smirnov"] == 0.25
    texts = distances_of(column(String, ["a", "b"]), column(String, ["a"]), String)
    assert texts["l_infinity"] == 0.5
    assert texts["missing"] == 0


@pytest.mark.parametrize("feature", ["amt", "cnt", "city"])
def test_the_golden_columns_are_as_far_apart_as_tensorflow_data_validation_says(feature: str) -> None:
    """Of numbers nearly: it counts what lies in a bucket by sketches, and here that is exact."""
    golden = json.loads(HERE.with_name("golden_tfdv.json").read_text())[feature]
    rows = pq.read_table(HERE.with_name("golden_tfdv.parquet"))
    of = {"amt": Float64, "cnt": Int64, "city": String}[feature]
    sides = [
        rows.filter(pa.compute.equal(rows["side"], side))[feature].cast(of.arrow).drop_null()
        for side in ("train", "serve")
    ]
    measure = "l_infinity" if of == String else "jensen_shannon"
    within = 1e-12 if of == String else 2e-4
    assert distances_of(sides[0], sides[1], of)[measure] == pytest.approx(golden["value"], rel=0, abs=within)


@pytest.mark.parametrize("of", [of for of, *_ in SIDES], ids=str)
def test_sides_without_values_have_no_distances(of: FeatureType) -> None:
    """None, and never 0; of nulls alone only what is missing is known."""
    empty, nulls = column(of, []), column(of, [None, None])
    assert set(distances_of(empty, nulls, of).values()) == {None}
    assert {name: value for name, value in distances_of(nulls, nulls, of).items() if value is not None} == {
        "missing": 0
    }


@pytest.mark.parametrize("first", [2**53, 2**62, 2**63 - 3, -(2**63)])
def test_whole_numbers_that_are_one_double_have_distances(first: int) -> None:
    """Numbers of customers beyond 2**53, say: what tells them apart tells them apart, and to a histogram they are one value."""
    sides = column(Int64, [first, first + 1]), column(Int64, [first + 1, first + 2])
    found = distances_of(*sides, Int64)
    assert found["kolmogorov_smirnov"] == 0.5
    assert found["jensen_shannon"] in {0, 1}
    assert distances_of(sides[0], sides[0], Int64)["jensen_shannon"] == 0


def test_singles_are_bucketed_as_the_same_doubles() -> None:
    """To the bit: the edges of buckets have the digits of doubles; the greatest singles make no warning."""
    most = 3.4028234663852886e38
    for values, others in ([0.0, 1.0, 3.5, 7.0], [0.5, 6.75]), ([most, -most, 1.0], [0.0, 1.0]):
        singles, doubles = (
            distances_of(column(of, values), column(of, others), of)["jensen_shannon"] for of in (Float32, Float64)
        )
        assert singles == doubles


def test_every_measure_is_described() -> None:
    """None is without a type that has it."""
    assert {name for of, *_ in SIDES for name in measures_of(of)} == set(MEASURES)
