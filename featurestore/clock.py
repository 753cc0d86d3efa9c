"""The only module that reads the wall clock.

Instants are int64 microseconds since 1970-01-01T00:00:00Z everywhere in this product; `datetime`
appears only where a person meets it. A `Clock` is any callable that returns an aware datetime.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

ISO = re.compile(r"(?:\d{4}-?\d\d-?\d\d|\d{4}-?W\d\d(?:-?\d)?)(?:[Tt ][0-9:.,Zz+-]+)?", re.ASCII)
"""A date, or a week and its day, and what may be a time with its offset."""


def wall_clock() -> int:
    """Now, in microseconds since the epoch, by this machine's clock."""
    return time.time_ns() // 1000


def instant_of(value: datetime) -> int:
    """Microseconds since the epoch of an aware datetime; a naive one is read as UTC."""
    if value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    return (value - EPOCH) // _MICROSECOND


def datetime_of(text: str) -> datetime:
    """The datetime that ISO 8601 text says, naive where it says no offset; ValueError where it is none.

    Python's own reading takes any sign between date and time: `2026-03-01+05:00` was five o'clock, and `x` an hour's name.
    """
    if not ISO.fullmatch(text):
        raise ValueError(f"{text!r} is no ISO 8601")
    return datetime.fromisoformat(text)


def to_datetime(instant: int) -> datetime:
    """The aware UTC datetime of an instant in microseconds."""
    return EPOCH + timedelta(microseconds=instant)


def reader(clock: Clock | None) -> Callable[[], int]:
    """A function that reads `clock` in microseconds; the wall clock where none is given."""
    if clock is None:
        return wall_clock
    return lambda: instant_of(clock())


class ManualClock:
    """A clock that stands still until it is told to move; for tests, replays and the demo."""

    def __init__(self, now: datetime) -> None:
        self._now = to_datetime(instant_of(now))

    def __call__(self) -> datetime:
        """The instant at which it stands."""
        return self._now

    def set(self, now: datetime) -> None:
        """Move to an instant, forwards or back."""
        self._now = to_datetime(instant_of(now))

    def advance(self, by: timedelta) -> None:
        """Move forwards by a duration."""
        self._now += by

    def wait_until(self, instant: int) -> None:
        """What waiting is on a clock that stands still: it moves there (µs), never back."""
        self._now = max(self._now, to_datetime(instant))


class PastClock(ManualClock):
    """An instant that is taken for now by a user who asks about the past. What only the true time can say stays true: when a
    file was first seen."""
