"""Values that bring their kind along, as JSON: who reads it gets the same Python value, and needs no column's type for it.

Text, whole numbers, booleans and null stand as they are, and lists as lists. Any other value is an object of one name, its kind:
`{"Decimal": "1.50"}`, `{"Timestamp": "2026-03-01T09:00:00.000000Z"}`, `{"Float64": "NaN"}`, `{"tuple": […]}`, `{"dict": [[key, value], …]}`.
"""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any

from featurestore import types
from featurestore.types import from_json, to_json

JSON_FORMS = (
    (types.FarTimestamp, types.Timestamp), (types.FarDate, types.Date), (datetime, types.Timestamp), (date, types.Date),
    (bytes, types.Bytes), (float, types.Float64),
)  # fmt: skip
"""Kinds of Python's, and the feature type whose JSON form their values have; of two that fit, the first."""

BY_KIND = {of.kind: of for _, of in JSON_FORMS}


def typed(value: Any) -> Any:
    """The JSON form of a canonical scalar of any feature type, or of lists, tuples and dicts of such; TypeError for what is none."""
    if value is None or isinstance(value, (bool, str)):
        return value
    for kind, of in JSON_FORMS:
        if isinstance(value, kind):
            return {of.kind: to_json(of, value)}
    if isinstance(value, int):
        return int(value)
    if isinstance(value, Decimal):
        return {"Decimal": str(value)}
    if isinstance(value, list):
        return [typed(item) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [typed(item) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[typed(name), typed(item)] for name, item in value.items()]}
    raise TypeError(f"{type(value).__name__} has no JSON form")


def untyped(said: Any) -> Any:
    """The value that `typed` said; ValueError where it is none."""
    if isinstance(said, list):
        return [untyped(item) for item in said]
    if not isinstance(said, dict):
        return said
    ((kind, form),) = said.items()
    if kind == "Decimal":
        return Decimal(form)
    if kind == "tuple":
        return tuple(untyped(item) for item in form)
    if kind == "dict":
        return {untyped(name): untyped(item) for name, item in form}
    if kind not in BY_KIND:
        raise ValueError(f"{kind!r} is no kind of value")
    return from_json(BY_KIND[kind], form)
