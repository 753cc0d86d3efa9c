"""How numbers are written as text, wherever text is read: ASCII digits, a sign, and of what is not whole a point and an exponent.

Python's own int, float and Decimal take more: `1_0`, blanks around it, and the digits of every script.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal, InvalidOperation

WHOLE = re.compile(r"[+-]?[0-9]+")
NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
NOT_FINITE = re.compile(r"[+-]?(?:nan|inf|infinity)", re.IGNORECASE)


def whole_of(text: str) -> int:
    """The integer that a text is; ValueError where it is none."""
    if not WHOLE.fullmatch(text):
        raise ValueError(f"{text!r} is no integer")
    if len(text) > 100:  # beyond any type, and Python's words about it are not ours
        raise ValueError(f"an integer of {len(text)} digits does not fit")
    return int(text)


def float_of(text: str) -> float:
    """The float64 that is nearest to the number that a text is, or what is not finite where it says so; ValueError where it
    is none, or beyond every float64."""
    if NOT_FINITE.fullmatch(text):
        return float(text)
    if not NUMBER.fullmatch(text):
        raise ValueError(f"{text!r} is no number")
    found = float(text)
    if math.isinf(found):
        raise ValueError(f"{text!r} is beyond any number of the type")
    return found


def decimal_of(text: str) -> Decimal:
    """The exact number that a text is; ValueError where it is none."""
    if not NUMBER.fullmatch(text):
        raise ValueError(f"{text!r} is no decimal")
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent beyond the library's
        raise ValueError(f"{text!r} is beyond any decimal") from None
