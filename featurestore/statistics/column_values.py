"""Values of columns as they are counted: as numbers, as texts, and which of them are finite."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from featurestore.lazy import pa, pc
from featurestore.types import FeatureType

ARROW_PLAIN_SCALE = 6
"""Digits after the point up to which Arrow writes a small decimal without an exponent."""

DOUBLE_DIGITS = 15
"""Digits up to which the unscaled value of a decimal, and the power of ten by which it is divided, are doubles."""

NUMBER_KINDS = frozenset({"Bool", "Int32", "Int64", "Float32", "Float64", "Date", "Timestamp", "Decimal"})
TEXT_KINDS = frozenset({"Bool", "String", "Bytes", "Decimal"})

Numbers = npt.NDArray[Any]


def present_values(rows: pa.Array, of: FeatureType) -> pa.Array:
    """The values that are there in rows of a type; of lists, their elements that are."""
    there = rows.drop_null() if rows.null_count else rows
    if of.element is None:
        return there
    values = pc.list_flatten(there)
    return values.drop_null() if values.null_count else values


def values_of(rows: pa.Array) -> int:
    """How many values rows have, nulls among them: of lists their elements."""
    return len(pc.list_flatten(rows)) + rows.null_count if pa.types.is_nested(rows.type) else len(rows)


def as_texts(values: pa.Array, of: FeatureType) -> pa.Array:
    """Values that are there as texts: a truth as "true" or "false", a decimal with all digits of its scale."""
    if of.kind == "Decimal" and of.scale > ARROW_PLAIN_SCALE:
        return pa.array([format(value, "f") for value in values.to_pylist()], pa.string())
    return values.cast(pa.string()) if of.kind in {"Bool", "Decimal"} else values


def as_numbers(values: pa.Array, of: FeatureType) -> Numbers:
    """Values that are there as numbers; dates and times are counts."""
    if of.kind == "Bool":
        values = values.cast(pa.int8())
    elif of.kind == "Date":
        values = values.cast(pa.int32())
    elif of.kind == "Timestamp":
        values = values.cast(pa.int64())
    elif of.kind == "Decimal":
        return _nearest_doubles(values, of)
    elif of.kind == "Float32":
        values = values.cast(pa.float64())
    found: Numbers = values.to_numpy(zero_copy_only=False)
    return found


def _nearest_doubles(values: pa.Array, of: FeatureType) -> Numbers:
    """Decimals without nulls, each rounded once, which Arrow's own cast does not do."""
    if of.precision > DOUBLE_DIGITS or values.type.bit_width != 128:
        found: Numbers = values.cast(pa.string()).cast(pa.float64()).to_numpy(zero_copy_only=False)
        return found
    held = values.buffers()[1]
    if held is None:
        return np.zeros(0)
    unscaled = np.frombuffer(held, np.int64)[::2][values.offset : values.offset + len(values)]
    quotients: Numbers = unscaled / 10.0**of.scale
    return quotients


def finite_of(numbers: Numbers) -> Numbers:
    """Those that are finite."""
    if numbers.dtype.kind != "f":
        return numbers
    kept = np.isfinite(numbers)
    return numbers if kept.all() else numbers[kept]


def plain_number(value: Any) -> Any:
    """A plain number, without the sign of a zero."""
    number = value.item()
    return abs(number) if number == 0 else number
