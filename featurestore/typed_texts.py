"""Values that a person types, on a command line or into a form: text, read by the type that was declared."""

from __future__ import annotations

from typing import Any

from featurestore.number_texts import float_of, whole_of
from featurestore.types import FeatureType


def json_value(text: str, of: FeatureType) -> Any:
    """The JSON form that a text stands for; ValueError says why it is none. `null` is null, but for a String."""
    if of.kind == "String":
        return text
    if text == "null":
        return None
    if of.kind == "Bool":
        if text not in {"true", "false"}:
            raise ValueError(f"{text!r} is neither true nor false")
        return text == "true"
    if of.kind in {"Int32", "Int64"}:
        return whole_of(text)
    if of.is_float:
        return _float(text)
    if of.kind in {"Array", "Embedding"}:
        return _array(text)
    return text


def _float(text: str) -> Any:
    return text if text in {"NaN", "Infinity", "-Infinity"} else float_of(text)


def _array(text: str) -> Any:
    import orjson

    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        raise ValueError(f"{text!r} is no JSON array") from None
