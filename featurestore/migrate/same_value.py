"""Whether two stores gave one value, whatever type each has it in."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Literal

Likeness = Literal["same", "type", "other"]


def likeness(here: Any, there: Any) -> Likeness:
    """ "same" where the values are equal, "type" where they are in another form, "other" where they differ.

    Null and NaN are equal here: pandas, which Feast's frames are of, cannot tell them apart.
    """
    if is_null(here) or is_null(there):
        return "same" if is_null(here) and is_null(there) else "other"
    if _plain(here) == _plain(there):
        return "same"
    return "type" if _loosely(here, there) else "other"


def is_null(value: Any) -> bool:
    """Whether it is null, NaN or no time."""
    return (
        value is None
        or (isinstance(value, float) and math.isnan(value))
        or type(value).__name__ in {"NaTType", "NAType"}
    )


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if hasattr(value, "to_pydatetime"):  # of whole microseconds
        value = value.floor("us").to_pydatetime()
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    if isinstance(value, (list, tuple)):
        return [None if is_null(item) else _plain(item) for item in value]
    return value


def _loosely(here: Any, there: Any) -> bool:
    """Whether one is the other as JSON, as text, as a number of another type or as the day of an instant."""
    one, other = _plain(here), _plain(there)
    if isinstance(one, str) and not isinstance(other, str):
        return _json(one) == _of_map(there) or one == str(there)
    if isinstance(one, str) and isinstance(other, str):
        return _json(one) is not None and _json(one) == _json(other)
    if isinstance(one, Decimal) or isinstance(other, Decimal):
        return _decimal(one) is not None and _decimal(one) == _decimal(other)
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return math.isclose(one, other, rel_tol=2**-22) if isinstance(one, float) or isinstance(other, float) else False
    if isinstance(one, date) and isinstance(other, datetime):
        return one == other.date()
    return False


def _json(text: str) -> Any:
    try:
        return _of_map(json.loads(text))
    except ValueError:
        return None


def _of_map(value: Any) -> Any:
    """A map, a list of pairs, or a struct of which parts are null, in one form."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _of_map(item) for key, item in value.items() if not is_null(item)}
    if isinstance(value, (list, tuple)):
        pairs = [item for item in value if isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str)]
        return (
            {key: _of_map(item) for key, item in pairs}
            if value and len(pairs) == len(value)
            else [_of_map(item) for item in value]
        )
    return _plain(value)


def _decimal(value: Any) -> Decimal | None:
    try:
        return Decimal(str(value))
    except ArithmeticError:
        return None
