"""Distances are those that TensorFlow Data Validation measures: its numbers lie beside this file."""

from __future__ import annotations

import json
import math
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.statistics.distances import infinity_norm, jensen_shannon, jensen_shannon_of_counts
from featurestore.statistics.histogram import Bucket, Histogram
from tests.draws import draws

GOLDEN: dict[str, Any] = json.loads(Path(__file__).with_name("golden_tfdv.json").read_text())
DATA = Path(__file__).with_name("golden_tfdv.parquet")


def histogram(*buckets: tuple[float, float, float], nan: float = 0) -> Histogram:
    return Histogram(tuple(Bucket(*bucket) for bucket in buckets), nan)


@pytest.mark.parametrize("feature", ["amt", "cnt"])
def test_jensen_shannon_is_that_of_the_golden_buckets(feature: str) -> None:
    """To 1e-12, and the same from either side."""
    train, serve = (histogram(*GOLDEN[feature][f"{side}_buckets"]) for side in ("train", "serve"))
    assert jensen_shannon(train, serve) == pytest.approx(GOLDEN[feature]["value"], rel=0, abs=1e-12)
    assert jensen_shannon(serve, train) == pytest.approx(GOLDEN[feature]["value"], rel=0, abs=1e-12)


def test_the_infinity_norm_is_that_of_the_golden_data() -> None:
    """To 1e-12, and the same from either side."""
    rows = pq.read_table(DATA, columns=["side", "city"]).to_pylist()
    counts = [Counter(row["city"] for row in rows if row["side"] == side) for side in ("train", "serve")]
    for found in (infinity_norm(*counts), infinity_norm(*reversed(counts))):
        assert found == pytest.approx(GOLDEN["city"]["value"], rel=0, abs=1e-12)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({}, {}, 0.0),
        ({"a": 3}, {"a": 5}, 0.0),
        ({"a": 3}, {"b": 5}, 1.0),
        ({"a": 3}, {}, 1.0),
        ({"a": 0}, {"b": 1}, 1.0),
        ({"a": 1, "b": 1}, {"a": 1, "b": 3}, 0.25),
        ({"é": 1, "z": 1}, {"y": 1}, 1.0),
        ({b"\xff": 1, b"\x00": 3}, {b"\x00": 4}, 0.25),
    ],
)
def test_the_infinity_norm_of_few_values(one: Any, other: Any, expected: Any) -> None:
    """A side without values has shares of 0."""
    assert infinity_norm(one, other) == expected


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (histogram((0, 1, 4)), histogram((0, 1, 8)), 0.0),
        (histogram((0, 1, 4)), histogram((1, 2, 4)), 1.0),
        (histogram((0, 2, 4)), histogram((0, 1, 2), (1, 2, 2)), 0.0),
        (histogram((0, 1, 4)), histogram((0, 2, 4)), 0.31127812445913283),
        (histogram((1, 1, 4)), histogram((1, 1, 7)), 0.0),
        (histogram((1, 1, 4)), histogram((0, 2, 4)), 1.0),
        (histogram((math.inf, math.inf, 4)), histogram((math.inf, math.inf, 4)), 1.0),
        (histogram(nan=4), histogram(nan=4), 1.0),
        (histogram((0, 1, 2), nan=2), histogram((0, 1, 2), nan=2), 0.5),
        (histogram((0, 1, 2), (math.inf, math.inf, 2)), histogram((0, 1, 2), (math.inf, math.inf, 2)), 0.5),
        (histogram((-1.7e308, 1.7e308, 2)), histogram((-1.7e308, 1.7e308, 9)), 0.0),
        (histogram((0, 5e-324, 2)), histogram((0, 5e-324, 9)), 0.0),
    ],
)
def test_jensen_shannon_of_few_buckets(one: Histogram, other: Histogram, expected: float) -> None:
    """What is infinite or NaN meets nothing, not even the same; a bucket without width meets none but its like."""
    assert jensen_shannon(one, other) == pytest.approx(expected, rel=0, abs=1e-15)
    assert jensen_shannon(other, one) == pytest.approx(expected, rel=0, abs=1e-15)


def test_no_values_have_no_distance() -> None:
    """It is the caller's to say so."""
    for empty in (histogram(), histogram((0, 1, 0))):
        with pytest.raises(ValueError, match="no values"):
            jensen_shannon(empty, histogram((0, 1, 4)))
    with pytest.raises(ValueError, match="no values"):
        jensen_shannon_of_counts({"a": 1}, {"a": 0})


def test_counts_are_compared_as_buckets_are() -> None:
    """Of texts: each is a bucket of its own."""
    one, other = {"a": 3, "b": 1}, {"a": 1, "c": 4}
    points = [histogram(*((ord(value), ord(value), count) for value, count in side.items())) for side in (one, other)]
    assert jensen_shannon_of_counts(one, other) == pytest.approx(jensen_shannon(*points), abs=1e-15)


EDGES = st.lists(st.integers(-50, 50), min_size=2, max_size=8, unique=True).map(sorted)


@st.composite
def histograms(draw: Any) -> Histogram:
    """Some buckets side by side, single values, and what is infinite."""
    edges = draw(EDGES)
    counts = draw(st.lists(st.integers(0, 9), min_size=len(edges) - 1, max_size=len(edges) - 1))
    buckets = [Bucket(low / 4, high / 4, count) for low, high, count in zip(edges, edges[1:], counts, strict=False)]
    buckets += [Bucket(at / 4, at / 4, count) for at, count in draw(st.dictionaries(st.integers(-9, 9), st.integers(1, 9), max_size=2)).items()]  # fmt: skip
    buckets += [Bucket(math.inf, math.inf, count) for count in draw(st.lists(st.integers(1, 3), max_size=1))]
    return Histogram((*buckets, Bucket(99.0, 99.5, 1)), draw(st.integers(0, 3)))


def by_hand(one: Histogram, other: Histogram) -> float:
    """The same by fractions: each cell of a quarter, each single value, and what meets nothing."""

    def masses(side: Histogram, name: str) -> dict[Any, Fraction]:
        found: dict[Any, Any] = Counter({(name, "nan"): Fraction(side.nan)})
        for low, high, count in side.buckets:
            if math.isinf(low):
                found[name, "infinite"] += Fraction(count)
            elif low == high:
                found["point", low] += Fraction(count)
            else:
                cells = range(round(low * 4), round(high * 4))
                for cell in cells:
                    found["cell", cell] += Fraction(count) / len(cells)
        total = sum(found.values())
        return {key: mass / total for key, mass in found.items() if mass}

    p, q = masses(one, "one"), masses(other, "other")
    terms = [(mass, (mass + q.get(key, 0)) / 2) for key, mass in p.items()]
    terms += [(mass, (mass + p.get(key, 0)) / 2) for key, mass in q.items()]
    return sum(mass * math.log2(mass / middle) for mass, middle in terms) / 2


@settings(max_examples=draws(400), deadline=None)
@given(histograms(), histograms())
def test_jensen_shannon_by_hand(one: Histogram, other: Histogram) -> None:
    """Whatever the buckets."""
    assert jensen_shannon(one, other) == pytest.approx(by_hand(one, other), abs=1e-12)
