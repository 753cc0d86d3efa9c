"""Distances of samples are what counting and plain sums say of the same numbers."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.statistics.sample_distances import (
    LEAST_SHARE,
    Sample,
    kolmogorov_smirnov,
    stability_index,
    stability_index_of_counts,
    wasserstein,
)
from tests.draws import draws

NUMBERS = st.lists(st.integers(-4, 4) | st.floats(-1e6, 1e6), min_size=1, max_size=30)


def _moved(one: list[float], other: list[float]) -> float:
    """How far values are moved in the mean, each side repeated until both are as long."""
    length = math.lcm(len(one), len(other))
    ranked = [[value for value in sorted(side) for _ in range(length // len(side))] for side in (one, other)]
    return float(sum(abs(Fraction(a) - Fraction(b)) for a, b in zip(*ranked, strict=True)) / length)


def sample(values: list[float]) -> Sample:
    return Sample.of(np.array(values, np.float64))


@settings(max_examples=draws(200), deadline=None)
@given(NUMBERS, NUMBERS)
def test_distances_of_finite_numbers_are_what_their_definitions_say(one: list[float], other: list[float]) -> None:
    """Wasserstein-1 is the mean distance of what stands at the same rank, where both sides are as long; and both measures are the
    same from either side."""
    sides = sample(one), sample(other)
    found = kolmogorov_smirnov(*sides), wasserstein(*sides)
    shares = [[Fraction(sum(value <= at for value in side), len(side)) for at in one + other] for side in (one, other)]
    assert found[0] == pytest.approx(float(max(abs(p - q) for p, q in zip(*shares, strict=True))), rel=1e-12, abs=1e-15)
    assert found[1] == pytest.approx(_moved(one, other), rel=1e-9, abs=1e-9)
    assert found == (kolmogorov_smirnov(*reversed(sides)), pytest.approx(wasserstein(*reversed(sides)), rel=1e-12))


@settings(max_examples=draws(100), deadline=None)
@given(NUMBERS)
def test_a_sample_is_at_no_distance_from_itself(values: list[float]) -> None:
    """However often each value is there, and in whichever order."""
    sides = sample(values), sample(list(reversed(values * 3)))
    assert kolmogorov_smirnov(*sides) == 0
    assert wasserstein(*sides) == 0
    assert stability_index(*sides) == pytest.approx(0, abs=1e-12)


@settings(max_examples=draws(100), deadline=None)
@given(NUMBERS, NUMBERS)
def test_the_stability_index_is_its_sum_over_the_tenths_of_the_baseline(one: list[float], other: list[float]) -> None:
    """The parts end at the values of rank n/10, 2n/10, …, each value in the first part whose end it does not pass."""
    ranked = sorted(one)
    edges = sorted({ranked[math.ceil(Fraction(len(one) * part, 10)) - 1] for part in range(1, 10)})
    counts = [Counter(sum(value > edge for edge in edges) for value in side) for side in (one, other)]
    total = 0.0
    for part in {*counts[0], *counts[1]}:
        p, q = (max(count[part] / count.total(), LEAST_SHARE) for count in counts)
        total += (p - q) * math.log(p / q)
    assert stability_index(sample(one), sample(other)) == pytest.approx(total, rel=1e-9, abs=1e-12)


def test_what_is_no_finite_number() -> None:
    """NaN is the greatest for Kolmogorov-Smirnov and a part of its own for the index; Wasserstein-1 is of finite numbers."""
    nan, infinite = math.nan, math.inf
    assert kolmogorov_smirnov(sample([1, nan]), sample([1, 2])) == 0.5
    assert kolmogorov_smirnov(sample([nan]), sample([nan, nan])) == 0
    assert kolmogorov_smirnov(sample([infinite]), sample([nan])) == 1
    assert kolmogorov_smirnov(sample([-infinite]), sample([infinite])) == 1
    assert wasserstein(sample([1, nan, infinite]), sample([3, -infinite])) == 2
    assert wasserstein(sample([nan]), sample([1])) is None
    assert stability_index(sample([nan, 1]), sample([nan, 1])) == 0
    assert stability_index(sample([nan, 1]), sample([nan])) > 1
    assert stability_index(sample([-0.0]), sample([0.0])) == 0
    assert wasserstein(sample([-1.7e308]), sample([1.7e308])) == infinite
    assert wasserstein(sample([-1.7e308, -1.7e308]), sample([0.0, -1.7e308])) == pytest.approx(0.85e308)


def test_integers_beyond_the_doubles_are_told_apart() -> None:
    """Two neighbours above 2^53 are one double."""
    one, other = (Sample.of(np.array([value], np.int64)) for value in (2**53, 2**53 + 1))
    assert kolmogorov_smirnov(one, other) == 1
    assert stability_index(one, other) > 1


def test_texts_that_the_baseline_has_not_are_one_part() -> None:
    """A share of 0 counts as the least there is."""
    assert stability_index_of_counts({"a": 1, "b": 1}, {"a": 5, "b": 5}) == 0
    p, q = 0.5, 1.0
    least = LEAST_SHARE
    expected = (p - least) * math.log(p / least) * 2 + (least - q) * math.log(least / q)
    assert stability_index_of_counts({"a": 1, "b": 1}, {"c": 1, "d": 2}) == pytest.approx(expected)


def test_sides_without_values_have_no_distance() -> None:
    """They are refused, and never 0."""
    for measure in (kolmogorov_smirnov, stability_index):
        with pytest.raises(ValueError, match="no values"):
            measure(sample([1]), sample([]))
    with pytest.raises(ValueError, match="no values"):
        stability_index_of_counts({}, {"a": 1})
    assert wasserstein(sample([]), sample([1])) is None
