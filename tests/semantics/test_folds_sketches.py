"""The approximate folds keep what they promise: one form, one count, and the declared accuracy."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.semantics.folds import FOLDS
from featurestore.semantics.folds.quantiles import MOST_BUCKETS
from featurestore.types import FeatureType, Float64, Int64, String
from tests import fold_oracle
from tests.semantics.values import NUMBERS, lifted, merged, of_type

slow = settings(max_examples=15, deadline=None)


def approx_count(of: FeatureType, precision: int = 12):
    return FOLDS["ApproxCountDistinct"].algebra(of, Int64, precision=precision)


def quantile(of: FeatureType, q: float, accuracy: float = 0.01):
    return FOLDS["ApproxQuantile"].algebra(of, Float64, q=q, accuracy=accuracy)


@pytest.mark.parametrize("many", [0, 1, 10, 1000, 1025, 5000, 50_000])
def test_about_as_many_as_there_are(many: int) -> None:
    """4,096 registers err by 1.6 % as a rule; four times that is far out for any one set."""
    algebra = approx_count(Int64)
    state = merged(algebra, [algebra.lift(i, 0) for i in range(many)])
    state = merged(algebra, [state, *(algebra.lift(i, 1) for i in range(0, many, 3))], 1)
    assert algebra.finish(state)[0] == pytest.approx(many, rel=0.065)


def test_registers_turn_dense_by_their_number_alone() -> None:
    """At one row more than a quarter of them in use, whatever the order in which they came to be."""
    algebra = approx_count(String, 6)
    states = [algebra.lift(str(i), 0) for i in range(400)]
    for few in range(0, 400, 7):
        forms = {algebra.pack(merged(algebra, states[:few], seed)) for seed in range(4)}
        used = len({state[0] >> 6 for state in states[:few]})
        assert len(forms) == 1
        assert isinstance(algebra.unpack(*forms), bytes) == (used > 16)


def test_the_hash_is_the_one_that_is_named() -> None:
    """A state is bytes that another version must be able to read: register and rank of some values, once and for all."""
    algebra = approx_count(Int64)
    assert [algebra.pack(algebra.lift(value, 0)).hex() for value in (0, 1, -1)] == ["0002ed01", "00014b81", "0000f001"]


@pytest.mark.parametrize("share", [0.25, 0.5, 1 - 1 / 4096])
def test_registers_as_high_as_they_can_be_count_by_the_series_of_the_paper(share: float) -> None:
    """What no test can fill: a share of the registers is at the greatest rank, and the rest one below."""
    registers, below = 4096, 52
    high = round(registers * share)
    x = 1 - share
    tau = (1 - x - sum((1 - x**2.0**-k) ** 2 * 2.0**-k for k in range(1, 60))) / 3
    expected = registers**2 / (2 * math.log(2)) / ((registers - high + registers * tau) * 2.0**-below)
    counted, _ = approx_count(Int64).finish(bytes([below + 1] * high + [below] * (registers - high)))
    assert counted == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("precision", [4, 16])
def test_from_the_fewest_registers_to_the_most(precision: int) -> None:
    """Those and no others."""
    algebra = approx_count(Int64, precision)
    assert algebra.finish(algebra.lift(7, 0)) == approx_count(Int64).finish(approx_count(Int64).lift(7, 0))
    with pytest.raises(ValueError, match="precision is 4 to 16"):
        approx_count(Int64, precision + (1 if precision > 4 else -1))


@pytest.mark.parametrize("of", NUMBERS, ids=str)
@slow
@given(data=st.data())
def test_a_quantile_is_within_its_accuracy(of: FeatureType, data: st.DataObject) -> None:
    """|answer − value at the rank| ≤ accuracy · |value at the rank|, from the smallest subnormal to the greatest double."""
    values = data.draw(st.lists(of_type(of), max_size=300))
    q, accuracy = (
        data.draw(st.sampled_from([0.0, 0.1, 0.5, 0.7, 0.99, 1.0])),
        data.draw(st.sampled_from([0.3, 0.2, 0.01, 1e-3])),
    )
    algebra = quantile(of, q, accuracy)
    rows = [(0, value) for value in values]
    state = merged(algebra, lifted(algebra, rows))
    found, expected = algebra.finish(state)[0], fold_oracle.quantile_at_rank(rows, repr(q))
    assert state.level == 0
    if expected is None or not math.isfinite(expected):
        assert repr(found) == repr(expected)
    else:
        error = abs(Fraction(found) - Fraction(expected))
        subnormal = Fraction(2) ** -1075 if abs(expected) < 2.0**-1022 else 0
        assert error <= Fraction(repr(accuracy)) * abs(Fraction(expected)) + subnormal


@slow
@given(seed=st.integers(0, 99), exponents=st.integers(40, 1000))
def test_too_many_buckets_are_merged_alike(seed: int, exponents: int) -> None:
    """The level is the least at which all buckets fit, in whatever order rows come, and states stay bounded."""
    algebra = quantile(Float64, 0.5)
    values = [(-1.0) ** i * math.ldexp(1 + (i * 37 % 64) / 64, i * 7919 % exponents - 500) for i in range(6000)]
    states = [algebra.lift(value, 0) for value in values]
    one, other = merged(algebra, states, seed), merged(algebra, states, seed + 1)
    assert algebra.pack(one) == algebra.pack(other)
    used = [{side[0][0] for state in states if (side := getattr(state, sign))} for sign in ("below", "above")]
    needed = next(
        level for level in range(20) if sum(len({bucket >> level for bucket in side}) for side in used) <= MOST_BUCKETS
    )
    assert one.level == needed
    assert algebra.unpack(algebra.pack(one)) == one
