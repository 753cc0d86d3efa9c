"""Exact rationals and their roots, rounded once: what a search for the nearest float finds, near every edge of a float."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.semantics.folds.exact import rounded, rounded_root
from featurestore.types import FeatureType, Float32, Float64
from tests.fold_oracle import nearest

FLOATS = pytest.mark.parametrize("of", [Float32, Float64], ids=str)
BESIDE = st.sampled_from([-1, 0, 0, 1])


@st.composite
def ratios(draw: st.DrawFn, digits: int, least: int, greatest: int) -> Fraction:
    """Numbers halfway between two floats of so many digits, and a little beside: of any size, from the least to the greatest."""
    if draw(st.booleans()):
        return Fraction(draw(st.integers(0, 1 << 70)), draw(st.integers(1, 1 << 70)))
    whole = 2 * draw(st.integers(0, 1 << (digits + 1))) + draw(st.sampled_from([0, 1, 1]))
    return abs(whole + Fraction(draw(BESIDE), 1 << 90)) * Fraction(2) ** draw(
        st.sampled_from([least, least - 1, -digits, 0, greatest])
    )


@FLOATS
@settings(max_examples=250, deadline=None)
@given(data=st.data())
def test_a_ratio_is_the_nearest_float(of: FeatureType, data: st.DataObject) -> None:
    """Subnormal ones and infinity included; a negative one is the same with a sign."""
    edges = (24, -150, 103) if of == Float32 else (53, -1075, 970)
    exact = data.draw(ratios(*edges))
    wanted = nearest(exact, str(of))
    assert rounded(exact.numerator, exact.denominator, of).hex() == wanted.hex()
    unreduced = rounded(exact.numerator * 12, exact.denominator * 12, of)
    assert unreduced.hex() == wanted.hex()
    if exact:
        assert rounded(-exact.numerator, exact.denominator, of).hex() == (-wanted).hex()


@FLOATS
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_root_is_the_nearest_float(of: FeatureType, data: st.DataObject) -> None:
    """Of squares of numbers halfway between two floats, and a little beside; of numbers of any size."""
    edges = (24, -100, 60) if of == Float32 else (53, -300, 300)
    root = data.draw(ratios(*edges))
    square = abs(root * root + Fraction(data.draw(BESIDE), 1 << 400))
    found = rounded_root(square.numerator, square.denominator, of)
    assert found.hex() == nearest(square, str(of), 2).hex()


def test_the_edges_of_a_single_float() -> None:
    least, greatest = Fraction(1, 1 << 149), Fraction((1 << 24) - 1) * (1 << 104)
    half = Fraction(1 << 103)
    for exact, wanted in [
        (least, 2.0**-149), (least / 2, 0.0), (least / 2 + least / 999, 2.0**-149), (least * Fraction(3, 2), 2.0**-148),
        (greatest, float(greatest)), (greatest + half - 1, float(greatest)), (greatest + half, math.inf), (Fraction(1 << 128), math.inf),
    ]:  # fmt: skip
        assert rounded(exact.numerator, exact.denominator, Float32) == wanted
    assert str(rounded(0, 5, Float32)) == str(rounded(0, 5, Float64)) == "0.0"
    assert str(rounded(-1, 1 << 200, Float32)) == str(rounded(-1, 1 << 1200, Float64)) == "-0.0"
    assert rounded(-(1 << 1200), 1, Float64) == rounded(-(1 << 200), 1, Float32) == -math.inf
    assert rounded_root(1 << 4000, 1, Float64) == math.inf


def test_what_lies_beside_the_middle_of_two_floats_is_not_in_it() -> None:
    """However little: what an estimate of the exponent is short of, and what an integer root leaves."""
    assert rounded((1 << 26) + 3, 4, Float32) == 1 << 24
    middle, parts = (1 << 53) + 1, 3**20
    assert rounded_root(middle**2, 1, Float64) == (1 << 53)
    assert rounded_root(middle**2 + 1, 1, Float64) == (1 << 53) + 2
    assert rounded_root(middle**2 * parts + 1, parts, Float64) == (1 << 53) + 2
