"""Advice: which words are said to be too short or too long for what was measured, and by what duration."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from featurestore.declare.durations import parse_duration, show_duration
from featurestore.reports.availability import Lag, Settling, Switches, ViewAvailability
from featurestore.reports.availability.advice import advice_on, readable

MINUTE, HOUR = 60_000_000, 3_600_000_000

MEASURED = ViewAvailability(
    view="view", fingerprint="", source="rows", how="sighting", known=Lag(20_000, 1, 2, 9 * MINUTE, 10 * MINUTE),
    known_least=Lag(20_000, 1, 2, 8 * MINUTE, 9 * MINUTE), untold=0, beyond=0, beyond_at_most=0, versions=0,
    servable=Lag(), waiting=0, absent=0, late=0, late_lag=Lag(), settling=Settling(0, 0, 3 * MINUTE, 0, 4 * MINUTE),
    switches=Switches(200, 0, 0, Lag(200, 1, 2, 6 * MINUTE, 7 * MINUTE)), refresh=HOUR, known_after=10 * MINUTE,
    settle=5 * MINUTE, ready_after=10 * MINUTE, lateness=None,
)  # fmt: skip

LONGER = [
    ({}, []),
    ({"known_after": 20 * MINUTE}, []),
    ({"known_after": 21 * MINUTE}, [("known_after", 10 * MINUTE, False)]),
    ({"known_after": HOUR, "known": Lag(9_999, 1, 2, 3, 4)}, []),
    ({"settle": 11 * MINUTE}, [("settle", 4 * MINUTE, False)]),
    ({"ready_after": 21 * MINUTE}, [("ready_after", 7 * MINUTE, False)]),
    ({"ready_after": 16 * MINUTE, "settle": 8 * MINUTE, "switches": Switches(200, 0, 0, Lag(200, 1, 2, 3, 4))}, []),
    ({"beyond": 200}, []),
    ({"beyond": 201, "known_after": 8 * MINUTE}, [("known_after", 9 * MINUTE, True)]),
    ({"settling": Settling(0, 200, 5 * MINUTE, 0, HOUR)}, []),
    ({"settling": Settling(0, 201, 6 * MINUTE, 6 * MINUTE, HOUR)}, [("settle", 6 * MINUTE, True)]),
    ({"switches": Switches(200, 2, 0, Lag(200, 1, 2, 3, HOUR))}, []),
    ({"switches": Switches(200, 3, 0, Lag(200, 1, 2, 12 * MINUTE, HOUR))}, [("ready_after", 12 * MINUTE, True)]),
]


@pytest.mark.parametrize(("changes", "said"), LONGER)
def test_advice_begins_beyond_one_in_a_hundred(changes: dict[str, Any], said: list[tuple[str, int, bool]]) -> None:
    """One in a hundred may break a promise; and what is twice as long as ever needed is told, where the data are plenty."""
    advice = list(advice_on(replace(MEASURED, **changes), longest_ready=HOUR + 5 * MINUTE))
    assert [(told.word, told.measured, told.broken) for told in advice] == said


@pytest.mark.parametrize("exponent", range(19))
def test_what_is_advised_is_at_least_what_was_measured(exponent: int) -> None:
    """And a duration that can be declared, at most 2.5 times as long."""
    for measured in (10**exponent, 10**exponent + 1, 7 * 10**exponent // 3):
        advised = readable(measured)
        assert measured <= advised <= max(2.5 * measured, 86_400_000_000 * (measured // 86_400_000_000 + 1))
        assert parse_duration(show_duration(advised)) == advised
    assert readable(-(10**exponent)) == readable(0) == 0
