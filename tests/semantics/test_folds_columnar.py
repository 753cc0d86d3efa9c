"""Exact sums by column are the scalar algebra's, to the bit, on every input."""

from __future__ import annotations

import itertools
import math
from decimal import Decimal as D
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.semantics.folds import FOLDS
from featurestore.semantics.folds.algebra import PartialSums
from featurestore.semantics.folds.columnar import (
    added,
    decimal_sums,
    on_grid,
    python_sums,
    round_sums,
    whole_sums,
    with_specials,
)
from featurestore.semantics.folds.limbs import (
    Limbs,
    limbs_of_decimals,
    limbs_of_floats,
    limbs_of_ints,
    squares_of_decimals,
    squares_of_floats,
    squares_of_ints,
)
from featurestore.semantics.folds.moments import moments
from featurestore.types import Decimal, FeatureType, Float32, Float64, Int32, Int64
from tests.draws import draws
from tests.fold_oracle import fold, nearest
from tests.semantics.values import NUMBERS, merged, of_type

few = settings(max_examples=draws(120), deadline=None)
FLOAT_RESULTS = pytest.mark.parametrize("result", [Float64, Float32], ids=str)


def array_of(of: FeatureType, values: list[Any]) -> Any:
    """A column as the kernels take it: float64, int64 or decimal128."""
    if of.kind == "Decimal":
        return pa.array(values, of.arrow)
    return np.array(values, np.float64 if of.is_float else np.int64)


def limbs_of(of: FeatureType, values: list[Any]) -> Limbs:
    make = limbs_of_floats if of.is_float else limbs_of_decimals if of.kind == "Decimal" else limbs_of_ints
    return make(array_of(of, values))


def squares_of(of: FeatureType, values: list[Any]) -> Limbs:
    make = squares_of_floats if of.is_float else squares_of_decimals if of.kind == "Decimal" else squares_of_ints
    return make(array_of(of, values))


def exactly(limbs: Limbs, unit: int = 1) -> list[Fraction]:
    return [Fraction(whole) * Fraction(2) ** limbs.base / unit for whole in python_sums(limbs.digits)]


def bits(values: Any) -> list[str]:
    return [float(value).hex() for value in values]


@pytest.mark.parametrize("of", NUMBERS, ids=str)
@few
@given(data=st.data())
def test_limbs_are_the_numbers_and_their_squares(of: FeatureType, data: st.DataObject) -> None:
    """Exactly, in limbs below 2^32, and in no more of them than the numbers need."""
    values = data.draw(st.lists(of_type(of), max_size=20))
    finite = [Fraction(x) if math.isfinite(x) else Fraction(0) for x in values]
    unit = 10**of.scale
    first, second = limbs_of(of, values), squares_of(of, values)
    assert exactly(first, unit) == finite
    assert exactly(second, unit**2) == [x * x for x in finite]
    assert not first.digits.size or int(np.abs(first.digits).max()) < 1 << 32
    assert not second.digits.size or 0 <= int(second.digits.min()) <= int(second.digits.max()) < 1 << 32
    if of.is_float and any(finite):
        assert first.digits[-1].any()
        assert first.digits[0].any()


@few
@pytest.mark.parametrize("of", NUMBERS, ids=str)
@given(data=st.data())
def test_sums_over_different_bases_add_up(of: FeatureType, data: st.DataObject) -> None:
    """Those of two columns, and of their squares: exactly, and on the grid of 32 bits on which tiles are kept."""
    values = [
        value
        for value in (data.draw(of_type(of)) for _ in range(4))
        if not isinstance(value, float) or math.isfinite(value)
    ]
    half = len(values) // 2
    one, two = values[:half], values[half : 2 * half]
    for make in (limbs_of, squares_of):
        a, b = make(of, one), make(of, two)
        both = added(a, b)
        assert exactly(both) == [x + y for x, y in zip(exactly(a), exactly(b), strict=True)]
        grid = on_grid(both)
        assert grid.base % 32 == 0
        assert exactly(grid) == exactly(both)
        assert ((grid.digits[:-1] >= 0) & (grid.digits[:-1] < 1 << 32)).all()


def test_limbs_of_many_rows_do_not_depend_on_blocks() -> None:
    """Rows are worked on in blocks; the last one is short."""
    values = np.random.default_rng(1).normal(size=50_001) * 10.0 ** np.arange(50_001, dtype=np.float64).clip(0, 13)
    first, second = limbs_of_floats(values), squares_of_floats(values)
    assert exactly(first) == [Fraction(x) for x in values.tolist()]
    assert exactly(second) == [Fraction(x) ** 2 for x in values.tolist()]


def test_sliced_decimals_and_null_ones() -> None:
    """A slice is read from its offset, and null is 0."""
    column = pa.array([D("9.99"), None, D("-1.23"), D("4.56")], pa.decimal128(38, 2))[1:]
    assert exactly(limbs_of_decimals(column)) == [0, -123, 456]
    assert exactly(squares_of_decimals(column)) == [0, 123**2, 456**2]


windows = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)).map(sorted), min_size=1, max_size=12)


def sums_of(limbs: Limbs, edges: list[Any]) -> np.ndarray:
    """The exact sums of windows of rows, as differences of prefix sums."""
    sums = np.pad(np.cumsum(limbs.digits, axis=1), ((0, 0), (1, 0)))
    low, high = (np.minimum([edge[i] for edge in edges], sums.shape[1] - 1) for i in (0, 1))
    return sums[:, high] - sums[:, low]


def scalar(
    kind: str, of: FeatureType, result: FeatureType, values: list[Any], edges: list[Any], **parameters: Any
) -> list:
    algebra = FOLDS[kind].algebra(of, result, **parameters)
    states = [algebra.lift(value, 0) for value in values]
    return [algebra.finish(merged(algebra, states[low:high])) for low, high in edges]


def counted(edges: list[Any], flags: list[bool]) -> np.ndarray:
    return np.array([sum(flags[low:high]) for low, high in edges], np.int64)


@pytest.mark.parametrize("of", [Float32, Float64], ids=str)
@FLOAT_RESULTS
@few
@given(data=st.data())
def test_sums_and_means_of_floats(of: FeatureType, result: FeatureType, data: st.DataObject) -> None:
    """Of every window, NaN, infinities, subnormals and overflow included."""
    values, edges = data.draw(st.lists(of_type(of), max_size=40)), data.draw(windows)
    limbs = limbs_of(of, values)
    sums = sums_of(limbs, edges)
    specials = [counted(edges, flags) for flags in ([x != x for x in values], [x == math.inf for x in values],
                                                    [x == -math.inf for x in values])]  # fmt: skip
    n = counted(edges, [True] * len(values))
    for kind, divisor in (("Sum", None), ("Mean", np.maximum(n, 1))):
        found = with_specials(round_sums(limbs.base, sums, result, divisor=divisor), *specials)
        assert found.dtype == result.numpy
        expected = [0.0 if value is None else value for value, _ in scalar(kind, of, result, values, edges)]
        assert bits(found) == bits(expected)


@pytest.mark.parametrize("of", [Int32, Int64, Decimal(10, 2), Decimal(38, 0), Decimal(38, 20)], ids=str)
@FLOAT_RESULTS
@few
@given(data=st.data())
def test_means_of_whole_numbers(of: FeatureType, result: FeatureType, data: st.DataObject) -> None:
    """Of integers and decimals: divided by how many there are and by the scale, and rounded once."""
    values, edges = data.draw(st.lists(of_type(of), max_size=40)), data.draw(windows)
    n = np.maximum(counted(edges, [True] * len(values)), 1)
    found = round_sums(0, sums_of(limbs_of(of, values), edges), result, divisor=n, scale=of.scale)
    assert bits(found) == bits([value or 0.0 for value, _ in scalar("Mean", of, result, values, edges)])


@pytest.mark.parametrize("result", [Int32, Int64, Decimal(38, 0), Decimal(20, 3)], ids=str)
@few
@given(data=st.data())
def test_sums_of_integers(result: FeatureType, data: st.DataObject) -> None:
    """The sum, or that it does not fit."""
    values, edges = data.draw(st.lists(of_type(Int64), max_size=40)), data.draw(windows)
    sums = sums_of(limbs_of_ints(np.array(values, np.int64)), edges)
    expected = scalar("Sum", Int64, result, values, edges)
    if result.kind == "Decimal":
        found, over = decimal_sums(sums, result)
        found.validate(full=True)
        whole = found.to_pylist()
    else:
        array, over = whole_sums(sums, 32 if result == Int32 else 64)
        whole = [None if beyond else value for value, beyond in zip(array.tolist(), over, strict=True)]
    empty = [low == min(high, len(values)) or low >= len(values) for low, high in edges]
    assert [None if none else value for none, value in zip(empty, whole, strict=True)] == [
        value for value, _ in expected
    ]
    assert over.tolist() == [status.name == "OVERFLOW" for _, status in expected]


@pytest.mark.parametrize("of", [Decimal(10, 2), Decimal(38, 0), Decimal(38, 20)], ids=str)
@few
@given(data=st.data())
def test_sums_of_decimals(of: FeatureType, data: st.DataObject) -> None:
    """The sum with all its digits, or that it does not fit 38 of them."""
    values, edges = data.draw(st.lists(of_type(of), max_size=40)), data.draw(windows)
    for result in (Decimal(38, of.scale), Decimal(38, of.scale + 1)):
        found, over = decimal_sums(sums_of(limbs_of(of, values), edges), result, scale=of.scale)
        expected = scalar("Sum", of, result, values, edges)
        assert [x or None for x in found.to_pylist()] == [value or None for value, _ in expected]
        assert over.tolist() == [status.name == "OVERFLOW" for _, status in expected]


@pytest.mark.parametrize("of", NUMBERS, ids=str)
@pytest.mark.parametrize("kind", ["Var", "StdDev"])
@FLOAT_RESULTS
@settings(max_examples=draws(60), deadline=None)
@given(data=st.data())
def test_spreads(kind: str, of: FeatureType, result: FeatureType, data: st.DataObject) -> None:
    """Of every window of finite values, by the same one rounding."""
    values = [x for x in data.draw(st.lists(of_type(of), max_size=40)) if math.isfinite(x)]
    edges, ddof = data.draw(windows), data.draw(st.integers(0, 2))
    n = counted(edges, [True] * len(values))
    first, second = limbs_of(of, values), squares_of(of, values)
    sums = [Limbs(limbs.base, sums_of(limbs, edges)) for limbs in (first, second)]
    algebra = FOLDS[kind].algebra(of, result, ddof=ddof)
    found = moments(algebra, n, *sums)  # type: ignore[arg-type]  # of Var and StdDev, they are
    assert found.dtype == result.numpy
    expected = [value for value, _ in scalar(kind, of, result, values, edges, ddof=ddof)]
    assert bits(found[n > ddof]) == bits([value for value in expected if value is not None])


SPECIALS = (math.isnan, math.inf.__eq__, (-math.inf).__eq__)


@FLOAT_RESULTS
@pytest.mark.parametrize("ddof", [0, 1, 2])
@pytest.mark.parametrize("kind", ["Var", "StdDev"])
@pytest.mark.parametrize(
    ("of", "values"),
    [
        (Int64, [3, 5, 9, 9, -4]),
        (Float64, [3.0, 0.5, 9.0, -0.25]),
        (Float64, [3.0, math.nan, 9.0, math.inf, -0.5, 7.0, -math.inf]),
    ],
)
def test_spreads_of_requests(kind: str, of: FeatureType, values: list[Any], ddof: int, result: FeatureType) -> None:
    """Null unless there are more than ddof values, NaN of one that is not finite; what is not finite is counted only where there is such."""
    edges = [[low, high] for high in range(len(values) + 1) for low in range(high + 1)]
    flags = [[is_one(value) for value in values] for is_one in SPECIALS]
    special = np.array([counted(edges, one) for one in flags]) if any(map(any, flags)) else None
    sums, squares = (
        Limbs(limbs.base, sums_of(limbs, edges)) for limbs in (limbs_of(of, values), squares_of(of, values))
    )
    parts = PartialSums(counted(edges, [True] * len(values)), sums, squares, special)
    found = FOLDS[kind].algebra(of, result, ddof=ddof).finish_sums(parts)
    assert found.values.type == result.arrow
    assert found.overflow is None
    meant = [value for value, _ in scalar(kind, of, result, values, edges, ddof=ddof)]
    told, expected = (
        [None if value is None else float(value).hex() for value in each] for each in (found.values.to_pylist(), meant)
    )
    assert told == expected


@pytest.mark.parametrize(
    "values",
    [
        [2.0**-175, 3 * 2.0**-175],  # of which only the sum of the squares has a bit so low
        [2.0**-176] * 4 + [2.0**-175] * 3,  # only the sum
        [2.0**-174, 3 * 2.0**-174],  # neither
        [2.0**-176, 2.0**-175],
        [0.0, 0.0],
    ],
)
@pytest.mark.parametrize("kind", ["Var", "StdDev"])
def test_spreads_of_numbers_about_as_small_as_sums_are_shortened(kind: str, values: list[float]) -> None:
    """Sums whose 900 low bits are zero are computed with without them."""
    found = scalar(kind, Float64, Float64, values, [(0, len(values))])
    rows = list(enumerate(values))
    assert [value for value, _ in found] == [fold(kind, "Float64", "Float64", rows)[0]]


@pytest.mark.parametrize("unit", [2.0**-100, 2.0**200])
@pytest.mark.parametrize("kind", ["Var", "StdDev"])
def test_spreads_of_sums_without_the_limbs_that_are_zero(kind: str, unit: float) -> None:
    """Tiles leave those out, so that a sum in which the small numbers cancel begins far above half of where that of the squares does."""
    values = [unit, -unit, unit * 2.0**100, 3 * unit * 2.0**100]
    every = [(0, len(values))]
    whole = limbs_of(Float64, values)
    sums, squares = sums_of(whole, every), squares_of(Float64, values)
    zero = int(np.flatnonzero(sums.any(axis=1))[0])
    assert 2 * (whole.base + 32 * zero) > squares.base
    algebra = FOLDS[kind].algebra(Float64, Float64)
    first = Limbs(whole.base + 32 * zero, sums[zero:])
    found = moments(algebra, np.array([len(values)]), first, Limbs(squares.base, sums_of(squares, every)))  # type: ignore[arg-type]  # of Var and StdDev, they are
    assert bits(found) == bits([fold(kind, "Float64", "Float64", list(enumerate(values)))[0]])


whole_limbs = st.lists(
    st.one_of(st.integers(-(1 << 62), 1 << 62), st.sampled_from([0, 1, -1, 1 << 31, (1 << 53) + 1, (1 << 32) - 1])),
    min_size=1, max_size=6,
)  # fmt: skip


@FLOAT_RESULTS
@settings(max_examples=draws(1000), deadline=None)
@given(
    limbs=whole_limbs,
    base=st.integers(-2300, 1100),
    divisor=st.integers(1, (1 << 31) - 1) | st.just(1),
    scale=st.integers(0, 40),
)
def test_any_limbs_are_rounded_once(limbs: list[int], base: int, divisor: int, scale: int, result: FeatureType) -> None:
    """Whatever the limbs, far above and far below what the type holds: the nearest float, even of two."""
    exact = sum((Fraction(digit) * Fraction(2) ** (32 * j + base) for j, digit in enumerate(limbs)), Fraction(0))
    sums = np.array(limbs, np.int64).reshape(-1, 1)
    assert bits(round_sums(base, sums, result)) == bits([nearest(exact, str(result))])
    found = round_sums(base, sums, result, divisor=np.array([divisor]), scale=scale)
    assert bits(found) == bits([nearest(exact / divisor / 10**scale, str(result))])


@FLOAT_RESULTS
@few
@given(data=st.data())
def test_halfway_cases_go_to_the_even_one(result: FeatureType, data: st.DataObject) -> None:
    """A number between two floats, and one bit far below it, above or below."""
    width = 24 if result == Float32 else 53
    mantissa = data.draw(st.just(0) | st.integers(1 << (width - 1), (1 << width) - 1))
    lowest = -149 if result == Float32 else -1074
    exponent, far = data.draw(st.just(lowest - 1) | st.integers(lowest - 60, 60)), data.draw(st.integers(1, 200))
    for tail in (-1, 0, 1):
        whole = ((2 * mantissa + 1) << far) + tail
        digits = np.array([(whole >> 32 * j) & 0xFFFFFFFF for j in range(10)], np.int64).reshape(-1, 1)
        exact = Fraction(whole) * Fraction(2) ** (exponent - far)
        assert bits(round_sums(exponent - far, digits, result)) == bits([nearest(exact, str(result))])
        assert bits(round_sums(exponent - far, -digits, result)) == bits([nearest(-exact, str(result))])


def test_quotients_that_are_halfway_for_as_far_as_they_are_computed() -> None:
    """1 / d, where d · (54 bits ending in 01) = 2^80 - 1: the next bit that is set is 80 below, and decides."""
    tried = 0
    for primes in itertools.product(*([1, prime] for prime in (3, 5, 5, 11, 17, 31, 41, 257, 61681, 4278255361))):
        divisor = math.prod(primes)
        quotient = ((1 << 80) - 1) // divisor
        if quotient.bit_length() == 54 and quotient % 4 == 1:
            tried += 1
            found = round_sums(0, np.array([[1, -1]]), Float64, divisor=np.array([divisor] * 2))
            assert bits(found) == bits([1 / divisor, -1 / divisor])
            assert bits(found) == bits([nearest(Fraction(sign, divisor), "Float64") for sign in (1, -1)])
    assert tried


def test_a_divisor_that_would_lose_bits() -> None:
    """From 2^31 on a remainder and a limb are more than an int64 holds."""
    with pytest.raises(ValueError, match="divisors are"):
        round_sums(0, np.ones((1, 1), np.int64), Float64, divisor=np.array([1 << 31]))
