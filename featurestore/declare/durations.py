"""Durations: written "1h30m" or as a timedelta, kept as an int of microseconds, the unit of every time in the product."""

from __future__ import annotations

import datetime as dt
import re
from contextlib import suppress
from typing import Annotated

from pydantic import AfterValidator, PlainSerializer, PlainValidator, WithJsonSchema

from featurestore.clock import datetime_of, instant_of
from featurestore.declare.problems import shown
from featurestore.errors import DeclarationError, RequestError
from featurestore.plurals import plural
from featurestore.types import FIRST_MICRO, LAST_MICRO

# Greatest first: the order in which they are written. A day is 24 hours, a week 7 days; there are no calendars here.
UNITS = {
    "w": 604_800_000_000,
    "d": 86_400_000_000,
    "h": 3_600_000_000,
    "m": 60_000_000,
    "s": 1_000_000,
    "ms": 1_000,
    "us": 1,
}
SHOWN = {unit: size for unit, size in UNITS.items() if unit != "w"}
GREATEST = 2**63 - 1
"""Times are 64-bit microseconds everywhere; a longer duration could be added to none of them."""

TEXT = re.compile("".join(f"(?:([0-9]+){unit})?" for unit in UNITS))
RIGHT = "Write whole numbers with units, greatest first, such as '7d', '1h30m', '90s' or '500ms'"
INSTANT = "datetime(2026, 3, 1, 9, tzinfo=UTC)"
UNITS_SHOWN = "units: w, d (24 hours), h, m (minutes), s, ms, us"


def parse_duration(value: object) -> int:
    """Microseconds of a text such as "1h30m" or of a `datetime.timedelta`.

    Raises DeclarationError for anything else: a bare number, because its unit is unclear; a negative
    duration; a fraction of a microsecond; and what does not fit 64 bits.
    """
    if isinstance(value, str):
        return _checked(value, _of_text(value))
    if isinstance(value, dt.timedelta):
        # A pandas.Timedelta is a timedelta that counts nanoseconds; what it has beyond microseconds must not vanish.
        whole, rest = divmod(value, dt.timedelta(microseconds=1))
        if rest:
            raise DeclarationError(f"Duration {value!r} is no whole number of microseconds, the finest unit there is.")
        return _checked(value, int(whole))
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise DeclarationError(
            f"Duration {value!r} is a bare number, so its unit is unclear. {RIGHT}, or a datetime.timedelta ({UNITS_SHOWN})."
        )
    raise DeclarationError(
        f"Duration {value!r} is a {type(value).__name__}. {RIGHT}, or a datetime.timedelta ({UNITS_SHOWN})."
    )


def began(since: dt.datetime | str | None, now: int) -> int | None:
    """The instant (µs) that an aware datetime is, or a duration before `now` ("1d"); None for None."""
    if isinstance(since, str):
        return now - asked_duration(since, "since")
    return asked_instant(since, "since") if since is not None else None


def asked_duration(value: object, option: str) -> int:
    """The duration (µs) that a caller gives; DeclarationError, which names the option, where it is none."""
    try:
        return parse_duration(value)
    except DeclarationError as error:
        raise DeclarationError(f"{option}: {error}") from None


def asked_instant(value: object, option: str) -> int:
    """The instant (µs) that a caller gives as a datetime; RequestError, which names the option, where it is none."""
    if not isinstance(value, dt.datetime) or type(value).__name__ == "NaTType":
        raise RequestError(f"{option}: {shown(value)} is no instant; give a datetime with a zone, such as {INSTANT}")
    instant = instant_of(value)
    if not FIRST_MICRO <= instant <= LAST_MICRO:
        raise RequestError(f"{option}: {value} lies outside the years 1 to 9999 of UTC")
    return instant


def asked_moment(value: object, option: str) -> int:
    """The same of a datetime or of ISO text, of which a naive one means UTC."""
    moment = value
    with suppress(ValueError):
        moment = datetime_of(value) if isinstance(value, str) else value
    return asked_instant(moment, option)


def rough_duration(us: int) -> str:
    """A duration to the precision that a person reads: its two greatest units at most; what is negative with its sign."""
    if us < 0:
        return f"-{rough_duration(-us)}"
    sizes = tuple(SHOWN.values())
    pairs = zip(sizes, (*sizes[1:], 1), strict=True)
    return next((show_duration(us // next_one * next_one) for size, next_one in pairs if us >= size), "0s")


def show_duration(us: int) -> str:
    """The shortest exact mixed form: 5_400_000_000 is "1h30m", 0 is "0s".

    Weeks are read but not shown: "30d" says more than "4w2d", and one unit for long durations keeps lists comparable.
    """
    if us < 0:
        raise ValueError(f"A duration is never negative: {us} {plural(us, 'microsecond')}.")
    parts = []
    for unit, size in SHOWN.items():
        count, us = divmod(us, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def _of_text(text: str) -> int:
    match = TEXT.fullmatch(text)
    if match is None or not text:
        raise DeclarationError(f"Duration {text!r} cannot be read. {RIGHT} ({UNITS_SHOWN}).")
    if any(len(count) > 19 for count in match.groups(default="")):
        raise _too_long(text)
    return sum(int(count) * size for count, size in zip(match.groups(default="0"), UNITS.values(), strict=True))


def _checked(value: object, us: int) -> int:
    if us < 0:
        raise DeclarationError(f"Duration {value!r} is negative. Give its length, such as {show_duration(-us)!r}.")
    if us > GREATEST:
        raise _too_long(value)
    return us


def _too_long(value: object) -> DeclarationError:
    return DeclarationError(
        f"Duration {value!r} is too long: the greatest is {show_duration(GREATEST)!r}, 64 bits of microseconds."
    )


def _positive(us: int) -> int:
    if us == 0:
        raise DeclarationError("Duration '0s' is zero, and here it must be longer, such as '1m' or '1h'.")
    return us


# Dumped as text, so that what a model dumps can be validated again: an int alone would be refused.
Duration = Annotated[
    int,
    PlainValidator(parse_duration),
    PlainSerializer(show_duration, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["7d", "1h30m", "500ms"]}),
]
PositiveDuration = Annotated[Duration, AfterValidator(_positive)]
