"""Converts the columns that a caller gives to declared types, and refuses what would lose something."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np

from featurestore.lazy import pa, pc
from featurestore.semantics.columns import type_of_arrow, widens
from featurestore.semantics.values import EXACT_IN_FLOAT64, canonical, is_list, micros, scalars
from featurestore.types import FeatureType

INTEGERS = {"Int32", "Int64"}


def _is_exact(arrow: pa.DataType) -> bool:
    return bool(pa.types.is_integer(arrow) or pa.types.is_decimal(arrow))


def _is_number(arrow: pa.DataType) -> bool:
    return bool(pa.types.is_integer(arrow) or pa.types.is_floating(arrow))


NARROWED: dict[str, Callable[[pa.DataType], bool]] = {
    "Int32": _is_exact,
    "Int64": _is_exact,
    "Float32": _is_number,
    "Float64": _is_number,
    "Decimal": _is_exact,
    "String": lambda arrow: bool(arrow == pa.uuid()),
    "Bytes": lambda arrow: bool(pa.types.is_fixed_size_binary(arrow)),
}
"""The columns of which each value is asked whether it is one of the type, as it is where it comes alone."""


PERIOD = "; a period is a stretch of time: .dt.to_timestamp() gives its start, .dt.end_time its end"
NUMBERS_FOR_TEXT = "; numbers are never taken for text: convert it, as .astype('string') does in pandas"


def is_period(given: pa.DataType) -> bool:
    """Whether it is pandas' type of periods, which are numbers of their own kind to all other libraries."""
    return isinstance(given, pa.BaseExtensionType) and given.extension_name == "pandas.period"


class WrongTypeError(ValueError):
    """A column of values that are none of the type, whatever they are."""


class WrongValueError(ValueError):
    """One value of a column, in row `row`, is none of the type."""

    def __init__(self, row: int, why: str) -> None:
        super().__init__(why)
        self.row = row


def taken(column: pa.ChunkedArray | pa.Array, of: FeatureType, *, from_pandas: bool = False) -> pa.Array:
    """The column in the type's own Arrow type; WrongTypeError, or WrongValueError for its first value that is none.

    A column without a value is one of any type. Finer timestamps floor to µs, naive ones are UTC. Numbers of another width
    are taken where each is exactly one of the type. from_pandas: see `whole_numbers`.
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if array.null_count == len(array):
        return pa.nulls(len(array), of.arrow)
    if from_pandas and of.kind in INTEGERS and pa.types.is_floating(array.type):
        array = whole_numbers(array)
    if not _fits(array.type, of):
        raise WrongTypeError(f"is {array.type}, and must be {of}{_conversion(array.type, of)}")
    try:
        return _exact(array, of)
    except (ValueError, OverflowError, pa.ArrowException) as error:
        raise _first_wrong(array, of, error) from None


def _conversion(given: pa.DataType, of: FeatureType) -> str:
    """How a column of another type becomes one of this, for what frames usually have instead."""
    if is_period(given):
        return PERIOD
    is_text = pa.types.is_string(given) or pa.types.is_large_string(given) or pa.types.is_string_view(given)
    if of.kind == "Timestamp" and is_text:
        return "; text is never taken for another type: convert it, as pd.to_datetime(…, utc=True) does"
    if of.kind == "Date" and pa.types.is_timestamp(given):
        return "; say which day an instant is of, as .dt.date does in pandas"
    if of.kind == "String" and (pa.types.is_integer(given) or pa.types.is_floating(given)):
        return NUMBERS_FOR_TEXT
    if of.kind == "Decimal" and pa.types.is_floating(given):
        return "; a float is no exact decimal: give it decimal.Decimal values, or Arrow's decimal128"
    return "; text is never taken for another type, so convert it first" if is_text else ""


def whole_numbers(array: pa.Array) -> pa.Array:
    """The integers of a pandas column of floats: it became one for want of a null, so a NaN is a null, in each of pandas'
    kinds of columns. WrongValueError for the first that may be no integer."""
    values = array.to_numpy(zero_copy_only=False)
    null = np.isnan(values)
    wrong = ~null & ((values != np.floor(values)) | ~(np.abs(values) <= EXACT_IN_FLOAT64))
    if wrong.any():
        row = int(np.argmax(wrong))
        value = float(values[row])
        why = "is no integer" if not value.is_integer() else "is beyond the integers that float64 holds exactly"
        raise WrongValueError(row, f"{value!r} {why}; use a dtype that has nulls, such as Int64")
    return pa.array(np.where(null, 0, values).astype(np.int64), mask=null)


def _fits(arrow: pa.DataType, of: FeatureType) -> bool:
    """Whether a value of this Arrow type can be one of the type."""
    if pa.types.is_null(arrow):
        return True
    if of.element is not None:
        return is_list(arrow) and _fits(arrow.value_type, of.element)
    own = type_of_arrow(arrow)
    return (own is not None and widens(own, of)) or (of.kind in NARROWED and NARROWED[of.kind](arrow))


def _exact(array: pa.Array, of: FeatureType) -> pa.Array:
    own = type_of_arrow(array.type)
    if pa.types.is_timestamp(array.type):
        return micros(array)
    if own is not None and widens(own, of) and not _has_timestamps(of):
        return canonical(array, of)
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), of.arrow)
    if of.kind == "Array":
        assert of.element is not None
        values = _exact(array.flatten(), of.element)
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy()
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
        return pa.ListArray.from_arrays(offsets, values, mask=pc.is_null(array), type=of.arrow)
    return canonical(pa.array([_accepted(of, value) for value in scalars(array)], of.arrow), of)


def _accepted(of: FeatureType, value: Any) -> Any:
    """The canonical scalar of a column's value."""
    return of.accept(whole_decimal(value) if of.kind in INTEGERS else value)


def whole_decimal(value: Any) -> Any:
    """A decimal without a fraction as the integer that it is, as which DuckDB gives its HUGEINT; else the value itself."""
    return int(value) if isinstance(value, Decimal) and value == value.to_integral_value() else value


def _has_timestamps(of: FeatureType) -> bool:
    return of.kind == "Timestamp" or (of.element is not None and _has_timestamps(of.element))


def _first_wrong(array: pa.Array, of: FeatureType, error: Exception) -> ValueError:
    """Which row is the first whose value is none of the type, and why."""
    for row in range(len(array)):
        try:
            _accepted(of, scalars(array.slice(row, 1))[0])
        except (ValueError, TypeError, OverflowError) as why:
            return WrongValueError(row, f"{why}{_advice(array.type, of)}")
    return WrongTypeError(str(error))


def _advice(arrow: Any, of: FeatureType) -> str:
    """How a column is made one of the type, where that loses something."""
    while is_list(arrow):
        arrow = arrow.value_type
    kind = of.kind if of.element is None else of.element.kind
    if kind == "Float32" and arrow == pa.float64():
        return '; or round the column first, as .astype("float32") and .cast(pa.float32()) do'
    return ""
