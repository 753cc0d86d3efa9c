"""How numbers are read of text: by one rule, wherever that is."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal as Exact
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.number_texts import decimal_of, float_of, whole_of
from featurestore.server.compatible.values import from_text
from featurestore.sources.text.texts import value_of
from featurestore.typed_texts import json_value
from featurestore.types import Date, Decimal, FeatureType, Float64, Int64, Timestamp, from_json

READERS: dict[str, Callable[[FeatureType, str], Any]] = {
    "files and folders": lambda of, text: value_of(text, of),
    "platforms' routes": lambda of, text: from_json(of, from_text(of, text)),
    "command line": lambda of, text: from_json(of, json_value(text, of)),
}
NONE = ("", " 1", "1 ", "1\n", "1_0", "٣", "+-1", "1e", "0x1", "1,5", "--1", "½", "\N{MINUS SIGN}1")
"""Of which Python takes some."""


@pytest.mark.parametrize("text", NONE)
@pytest.mark.parametrize("of", [Int64, Float64, Decimal(38, 2)], ids=str)
def test_what_is_no_number_is_refused_wherever_it_is_read(of: FeatureType, text: str) -> None:
    for reader in READERS.values():
        with pytest.raises(ValueError, match="is no|is neither"):
            reader(of, text)
    if of.kind == "Decimal":
        with pytest.raises(ValueError, match="is no decimal"):
            from_json(of, text)


@settings(deadline=None)
@given(
    st.one_of(st.floats(allow_nan=False).map(repr), st.text("0123456789+-.eE_ ", max_size=9), st.integers().map(str))
)
def test_all_readers_make_the_same_of_a_text(text: str) -> None:
    """And what Python makes of it, where they make anything."""
    for of, rule, exact in ((Int64, whole_of, int), (Float64, float_of, float), (Decimal(38, 9), decimal_of, Exact)):
        found = set()
        for reader in READERS.values():
            try:
                found.add(repr(reader(of, text)))
            except ValueError:
                found.add("")
        assert len(found) == 1
        try:
            value = rule(text)
        except ValueError:
            continue
        assert value == exact(text)


@pytest.mark.parametrize("text", ["1e400", "-1E999"])
def test_a_number_beyond_float64_is_no_infinity(text: str) -> None:
    for reader in READERS.values():
        with pytest.raises(ValueError, match="beyond"):
            reader(Float64, text)
    assert float_of("-inf") == -math.inf


@pytest.mark.parametrize(
    "text", ["1e999999999", "-1E+999999999999999999", "1e-999999999", "1" * 5000, "0." + "1" * 5000]
)
def test_a_decimal_of_any_length_is_refused_at_once(text: str) -> None:
    """A power of ten with an exponent of nine digits takes more memory than there is."""
    with pytest.raises(ValueError, match="does not fit|decimal places|beyond any decimal") as caught:
        from_json(Decimal(38, 2), text)
    assert "sys." not in str(caught.value)
    with pytest.raises(ValueError, match="does not fit|is no integer"):
        whole_of("1" * 5000)


@pytest.mark.parametrize("text", ["0e999999999", "-0E-99999", "0.00"])
def test_nothing_is_nothing_whatever_its_exponent(text: str) -> None:
    assert str(from_json(Decimal(4, 2), text)) == "0.00"


@pytest.mark.parametrize(("of", "text"), [(Date, "+٢٠٢٦1-01-01"), (Timestamp, "+12026-01-01T00:00:0٠Z")])
def test_far_times_are_of_ascii_digits(of: FeatureType, text: str) -> None:
    with pytest.raises(ValueError, match="is no"):
        from_json(of, text)
