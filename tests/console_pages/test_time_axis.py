"""An axis of time: instants lie in order, and a few of them have labels."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.clock import instant_of
from featurestore.console.time_axis import MOST_TICKS, TimeAxis

NOON = instant_of(datetime(2024, 5, 1, 12, tzinfo=UTC))
HOUR = 3_600_000_000


@pytest.mark.parametrize(
    ("length", "first", "second"),
    [
        (timedelta(microseconds=5), "2024-05-01 00.000000", "00.000001"),
        (timedelta(seconds=20), "2024-05-01 12:00:00", "12:00:05"),
        (timedelta(minutes=30), "2024-05-01 12:00", "12:05"),
        (timedelta(hours=8), "2024-05-01 12:00", "13:00"),
        (timedelta(days=1), "2024-05-01 12:00", "15:00"),
        (timedelta(days=10), "2024-05-03", "05-05"),
    ],
)  # fmt: skip
def test_labels_are_whole_steps(length: timedelta, first: str, second: str) -> None:
    """Seconds, minutes, hours or days, by how long the axis is; the day is said once."""
    ticks = TimeAxis(NOON, NOON + length // timedelta(microseconds=1), 0, 100).ticks()
    assert [tick.label for tick in ticks][:2] == [first, second]


def test_midnight_says_the_day() -> None:
    ticks = TimeAxis(NOON, NOON + 24 * HOUR, 0, 100).ticks()
    assert "05-02 00:00" in [tick.label for tick in ticks]


@given(st.integers(-(2**62), 2**62), st.integers(0, 2**61))
def test_any_stretch_of_time_has_an_axis(start: int, length: int) -> None:
    """Beyond the calendar too: instants lie between its ends, in their order, and labels are few and apart."""
    axis = TimeAxis(start, start + length, 10, 90)
    places = [axis.x(start - 1), axis.x(start), axis.x(start + length // 2), axis.x(start + length), axis.x(2**63)]
    assert places == sorted(places)
    assert all(10 <= place <= 90 for place in places)
    ticks = axis.ticks()
    assert len(ticks) <= MOST_TICKS + 1
    assert [tick.x for tick in ticks] == sorted(tick.x for tick in ticks)
