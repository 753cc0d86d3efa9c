"""A duration is read in one way, kept in microseconds, and shown so that it can be read again."""

import datetime as dt

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from featurestore.declare.durations import GREATEST, UNITS, Duration, PositiveDuration, parse_duration, show_duration
from featurestore.errors import DeclarationError

SECOND = 1_000_000


@pytest.mark.parametrize(
    ("given_value", "us", "shown"),
    [
        ("1h", 3600 * SECOND, "1h"),
        ("30m", 1800 * SECOND, "30m"),
        ("90m", 5400 * SECOND, "1h30m"),
        ("1h30m", 5400 * SECOND, "1h30m"),
        ("7d", 7 * 86_400 * SECOND, "7d"),
        ("1d", 86_400 * SECOND, "1d"),
        ("24h", 86_400 * SECOND, "1d"),
        ("2w", 14 * 86_400 * SECOND, "14d"),
        ("90s", 90 * SECOND, "1m30s"),
        ("500ms", 500_000, "500ms"),
        ("10us", 10, "10us"),
        ("1w2d3h4m5s6ms7us", 788_645_006_007, "9d3h4m5s6ms7us"),
        ("0s", 0, "0s"),
        ("0d", 0, "0s"),
        (dt.timedelta(hours=1, microseconds=3), 3600 * SECOND + 3, "1h3us"),
        (dt.timedelta(0), 0, "0s"),
        (pd.Timedelta("1h"), 3600 * SECOND, "1h"),
    ],
)
def test_reads_and_shows(given_value: object, us: int, shown: str) -> None:
    assert parse_duration(given_value) == us
    assert type(parse_duration(given_value)) is int
    assert show_duration(us) == shown


@pytest.mark.parametrize(
    ("given_value", "message"),
    [
        (3600, "3600 is a bare number, so its unit is unclear.*'1h30m'"),
        (1.5, "1.5 is a bare number"),
        (0, "0 is a bare number"),
        (True, "True is a bool"),
        (None, "None is a NoneType"),
        ("3600", "'3600' cannot be read.*units: w, d"),
        ("", "'' cannot be read"),
        ("-1h", "'-1h' cannot be read"),
        ("1.5h", "'1.5h' cannot be read"),
        ("1H", "'1H' cannot be read"),
        ("1h 30m", "'1h 30m' cannot be read"),
        ("30m1h", "greatest first"),
        ("1h1h", "'1h1h' cannot be read"),
        ("1h\n", "cannot be read"),
        ("1y", "'1y' cannot be read"),
        ("٣h", "cannot be read"),
        ("9" * 5000 + "us", "too long"),
        ("106751992d", "too long: the greatest is '106751991d"),
        (dt.timedelta(hours=-1), r"negative.*'1h'"),
        (pd.Timedelta(1500, unit="ns"), "no whole number of microseconds"),
    ],
)
def test_refuses(given_value: object, message: str) -> None:
    with pytest.raises(DeclarationError, match=message):
        parse_duration(given_value)


@given(st.integers(0, GREATEST))
def test_what_is_shown_is_read_back(us: int) -> None:
    assert parse_duration(show_duration(us)) == us


@given(st.lists(st.integers(0, 1000), min_size=len(UNITS), max_size=len(UNITS)))
def test_units_add_up(counts: list[int]) -> None:
    """A text's value is the sum of its parts', whatever their sizes, and its shown form is a fixed point."""
    text = "".join(f"{count}{unit}" for count, unit in zip(counts, UNITS, strict=True))
    us = sum(count * size for count, size in zip(counts, UNITS.values(), strict=True))
    assert parse_duration(text) == us
    assert parse_duration(show_duration(us)) == us


@given(st.timedeltas(min_value=dt.timedelta(0), max_value=dt.timedelta(microseconds=GREATEST)))
def test_a_timedelta_keeps_every_microsecond(delta: dt.timedelta) -> None:
    assert dt.timedelta(microseconds=parse_duration(delta)) == delta


def test_negative_is_never_shown() -> None:
    with pytest.raises(ValueError, match="never negative"):
        show_duration(-1)


class Window(BaseModel, frozen=True):
    length: PositiveDuration
    offset: Duration = 0


def test_a_model_holds_microseconds_and_dumps_what_it_can_read() -> None:
    window = Window.model_validate({"length": "1h", "offset": dt.timedelta(minutes=5)})
    assert (window.length, window.offset) == (3600 * SECOND, 300 * SECOND)
    assert window.model_dump() == {"length": "1h", "offset": "5m"}
    assert Window.model_validate(window.model_dump()) == window
    assert Window.model_validate_json(window.model_dump_json()) == window
    assert Window.model_json_schema()["properties"]["length"]["type"] == "string"


@pytest.mark.parametrize(("length", "message"), [("0s", "zero"), (60, "unit is unclear"), ("soon", "cannot be read")])
def test_a_model_refuses(length: object, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Window.model_validate({"length": length})
