"""Immutable literals: the values that an on-demand function may read as constants, and one text for each."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from types import EllipsisType, NoneType
from typing import Any
from zoneinfo import ZoneInfo

from featurestore.declare.libraries import is_users

LITERALS = (
    "int, float, complex, str, bytes, bool, None, Decimal, Fraction, dates, times, enum members, tuples, frozensets"
)

PLAIN: dict[type, Callable[[Any], str]] = {
    NoneType: repr,
    EllipsisType: repr,
    bool: repr,
    int: hex,  # decimal digits of a long int are refused by Python
    float: float.hex,
    complex: lambda value: f"{value.real.hex()},{value.imag.hex()}",
    str: ascii,  # repr prints what this Python's Unicode tables call printable
    bytes: repr,
    Decimal: str,
    Fraction: lambda value: f"{value.numerator:x}/{value.denominator:x}",
    date: date.isoformat,
    timedelta: lambda value: f"{value.days},{value.seconds},{value.microseconds}",
    timezone: lambda value: f"{value.utcoffset(None)},{value.tzname(None)!a}",
    ZoneInfo: lambda value: ascii(value.key),
}


def canonical(value: object) -> str | None:
    """One text per value, by type and to the bit; None for what is no literal. A subclass's instance is none."""
    kind = type(value)
    parts: tuple[object, ...]
    if isinstance(value, Enum):
        head, parts = f"enum {kind.__qualname__}.{value.name}", (value.value,)
    elif isinstance(value, tuple) and kind is tuple:
        head, parts = "tuple", value
    elif isinstance(value, frozenset) and kind is frozenset:
        head, parts = "frozenset", tuple(value)
    elif isinstance(value, datetime) and kind is datetime:
        head, parts = f"datetime {value.replace(tzinfo=None).isoformat()} {value.fold}", (value.tzinfo,)
    elif isinstance(value, time) and kind is time:
        head, parts = f"time {value.replace(tzinfo=None).isoformat()} {value.fold}", (value.tzinfo,)
    else:
        return f"{kind.__name__}:{PLAIN[kind](value)}" if kind in PLAIN else None
    texts = [canonical(part) for part in parts]
    known = [text for text in texts if text is not None]
    if len(known) < len(texts):
        return None
    return f"{head}({','.join(sorted(known) if kind is frozenset else known)})"


def shown(value: object) -> str:
    """A literal as a person reads it, the same in every process."""
    if isinstance(value, Enum):
        return f"{type(value).__qualname__}.{value.name}  # {shown(value.value)}"
    if isinstance(value, frozenset):
        return f"frozenset({{{', '.join(sorted(map(shown, value)))}}})"
    if isinstance(value, tuple):
        return f"({', '.join(map(shown, value))}{',' if len(value) == 1 else ''})"
    return repr(value)


def has_methods(member: Enum) -> bool:
    """Whether the user gave an enum methods: code that reading a member's value would not show."""
    for kind in type(member).__mro__:
        for value in vars(kind).values():
            function = getattr(value, "fget", None) or getattr(value, "__func__", None) or value
            if is_users(function):
                return True
    return False
