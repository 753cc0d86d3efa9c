"""Whether two columns hold the same bits, and what a value went through where they do not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

from featurestore.lazy import pa, pc
from featurestore.semantics.order import same_value
from featurestore.semantics.values import scalars
from featurestore.types import FeatureType

Bits = npt.NDArray[np.bool_]


def same_bits(a: pa.Array, b: pa.Array, of: FeatureType) -> Bits:
    """Where two columns of a type hold one value each: `same_value`, for columns at once."""
    if of.element is not None:
        return np.array([same_value(of, x, y) for x, y in zip(scalars(a), scalars(b), strict=True)], np.bool_)
    if of.is_float:
        bits = pa.int64() if of.kind == "Float64" else pa.int32()
        a, b = a.view(bits), b.view(bits)
    null_a, null_b = (column.is_null().to_numpy(zero_copy_only=False) for column in (a, b))
    equal = pc.fill_null(pc.equal(a, b), False).to_numpy(zero_copy_only=False)
    same: Bits = (null_a & null_b) | (equal & ~null_a & ~null_b)
    return same


def passage(served: Any, trained: Any, of: FeatureType) -> str | None:
    """What `trained`, a canonical scalar of the type, went through where `served` came out; None where nothing known did.

    That is a narrower type, a coarser time, a null that became a default, or an encoding.
    """
    if of.element is not None and served is not None and trained is not None:
        if len(served) != len(trained):
            return None
        pairs = [pair for pair in zip(served, trained, strict=True) if not same_value(of.element, *pair)]
        through = {passage(one, other, of.element) for one, other in pairs}
        return through.pop() if len(through) == 1 else None
    if served is None or trained is None:
        return _of_null(served, trained)
    for name, result in _narrowed(trained, of):
        if same_value(of, served, result):
            return name
    return None


def _of_null(served: Any, trained: Any) -> str | None:
    other = trained if served is None else served
    if other is None:
        return None
    if isinstance(other, float) and math.isnan(other):
        return "null and NaN were taken for one another"
    if other in (0, "", b"", False) or (isinstance(other, (list, tuple)) and not other):
        return f"null and {other!r} were taken for one another"
    return None


def _narrowed(value: Any, of: FeatureType) -> Iterator[tuple[str, Any]]:
    """What a value becomes on its way through something narrower, where that is still a value of its type."""
    for name, through in THROUGH.get(of.kind, ()):
        try:
            yield name, of.accept(through(value))
        except (ValueError, OverflowError, UnicodeError, ArithmeticError):
            continue


def _whole(value: datetime, micros: int) -> datetime:
    return value.replace(microsecond=value.microsecond // micros * micros)


Through = Callable[[Any], Any]

FLOATS: tuple[tuple[str, Through], ...] = (
    ("the sign of a zero was lost", lambda x: 0.0 if x == 0 else x),
    ("the sign of a zero was changed", lambda x: -0.0 if x == 0 else x),
    ("it went through Float32", lambda x: float(np.float32(x)) if abs(x) < 3e38 else x),
    ("it went through Float16", lambda x: float(np.float16(x)) if abs(x) < 6e4 else x),
    ("its fraction was cut", lambda x: float(math.trunc(x))),
    ("its fraction was rounded", lambda x: float(round(x))),
)
INTEGERS: tuple[tuple[str, Through], ...] = (
    ("it went through Float64", lambda x: int(float(x))),
    ("it went through Float32", lambda x: int(np.float32(x))),
    ("it went through Int32", lambda x: (x + (1 << 31)) % (1 << 32) - (1 << 31)),
)

THROUGH: dict[str, tuple[tuple[str, Through], ...]] = {
    "Float64": FLOATS,
    "Float32": FLOATS,
    "Int64": INTEGERS,
    "Int32": INTEGERS,
    "Timestamp": (
        ("it was cut to milliseconds", lambda x: _whole(x, 1_000)),
        ("it was cut to seconds", lambda x: _whole(x, 1_000_000)),
    ),
    "Decimal": (("it went through Float64", lambda x: Decimal(repr(float(x)))),),
    "String": (
        ("white space was cut", lambda x: x.strip()),
        ("UTF-8 was read as Latin-1", lambda x: x.encode().decode("latin-1")),
        ("upper case was lost", lambda x: x.lower()),
    ),
}
"""Type → what its values are often put through."""
