"""What the platforms share about values: a lookup's answer in their names, as JSON or as text, and texts as values."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeVar, cast

import numpy as np
import orjson

from featurestore.number_texts import float_of, whole_of
from featurestore.plurals import plural
from featurestore.server.json_answers import AS_THEY_ARE
from featurestore.server.limits import SMALL_BYTES
from featurestore.server.problems import BadRequest, LimitError
from featurestore.server.strict_json import read_json, read_whole
from featurestore.serving.online_result import OnlineResult
from featurestore.settings import ServerConfig
from featurestore.types import FeatureType, JsonValue, Scalar, from_json, timestamp_of, to_json

T = TypeVar("T")


def read_object(body: bytes) -> dict[str, Any]:
    """The object that a body is; BadRequest where it is none."""
    value = read_json(body) if len(body) <= SMALL_BYTES else read_whole(body)
    if not isinstance(value, dict):
        raise BadRequest(f"The body must be an object, and is {type(value).__name__}")
    return value


def member(asked: Mapping[str, Any], name: str, of: type[T]) -> T | None:
    """A member of an object, None where it has none; BadRequest where it is of another type."""
    found = asked.get(name)
    if found is not None and type(found) is not of:
        raise BadRequest(f"{name} must be {of.__name__}, and is {type(found).__name__}")
    return found


def texts(asked: Mapping[str, Any], name: str) -> list[str] | None:
    """A member that is a list of texts, None where there is none; BadRequest where it is anything else."""
    found = member(asked, name, list)
    if found is not None and not all(isinstance(each, str) for each in found):
        raise BadRequest(f"{name} must be a list of texts")
    return found


def check_rows(count: int, config: ServerConfig) -> None:
    """LimitError where a lookup has so many rows, BadRequest where it has none."""
    if count > config.lookup_rows:
        detail = (
            f"The body has more than {config.lookup_rows} {plural(config.lookup_rows, 'row')}; send fewer at a time"
        )
        raise LimitError("lookup_rows", detail)
    if not count:
        raise BadRequest("There must be one row at least")


def check_pushed_rows(count: int, config: ServerConfig) -> None:
    """LimitError where a push has so many rows."""
    if count > config.push_rows:
        raise LimitError(
            "push_rows",
            f"The body has more than {config.push_rows} {plural(config.push_rows, 'row')}; send fewer at a time",
        )


def shown_names(result: OnlineResult, asked: str) -> list[str]:
    """The names of the columns: a service's own; of a view that was asked for by its name those of its features."""
    if result.service.name == asked:
        return [column.name for column in result.service.columns]
    return [column.feature or column.name for column in result.service.columns]


def json_columns(columns: Mapping[str, Sequence[Any]], types: Mapping[str, FeatureType]) -> list[Sequence[Any]]:
    """Columns of values in their JSON forms."""
    return [
        values if types[name].kind in AS_THEY_ARE else [to_json(types[name], value) for value in values]
        for name, values in columns.items()
    ]


def column_types(result: OnlineResult) -> dict[str, FeatureType]:
    """The type of each column of an answer."""
    return {column.name: column.type for column in result.service.columns}


# --- texts --------------------------------------------------------------------------------

SECONDS = re.compile(r"-?\d{1,12}(\.\d{1,9})?", re.ASCII)
"""An instant as seconds since the epoch."""


def text_of(of: FeatureType, value: Scalar) -> str:
    """A value that is no null as text, which `from_text` reads as the same bits."""
    written = to_json(of, value)
    if isinstance(written, str):
        return written
    if isinstance(written, float):
        return repr(written)
    return orjson.dumps(written).decode()


def from_text(of: FeatureType, text: str) -> JsonValue:
    """The JSON form of a value that came as text; ValueError where it is none of the type."""
    if of.kind == "Bool":
        if text.lower() not in {"true", "false", "0", "1"}:
            raise ValueError(f"{text!r} is neither true nor false")
        return text.lower() in {"true", "1"}
    if of.kind in {"Int32", "Int64"}:
        return whole_of(text)
    if of.is_float:
        return _float_form(of, text)
    if of.kind == "Timestamp" and SECONDS.fullmatch(text):
        return to_json(of, timestamp_of(int(Decimal(text) * 1_000_000)))
    if of.element is not None:
        return cast("JsonValue", orjson.loads(text))
    return text


def _float_form(of: FeatureType, text: str) -> JsonValue:
    """A number, to the nearest that the type has."""
    number = float_of(text)
    if of.kind == "Float32" and math.isfinite(number):
        with np.errstate(over="ignore"):
            number = float(np.float32(text))
        if math.isinf(number):
            raise ValueError(f"{text!r} is beyond any number of the type")
    return to_json(of, number)


def key_rows(
    inputs: Mapping[str, FeatureType], keys: Sequence[Sequence[Any]], config: ServerConfig
) -> list[dict[str, Any]]:
    """Rows of a lookup, of a list of texts for each key. BadRequest where one is no key, LimitError where a text is too long."""
    rows = []
    for key in keys:
        if len(key) != len(inputs):
            raise BadRequest(
                f"The key has {len(key)} {plural(len(key), 'part')}, and must have {', '.join(inputs) or 'none'}"
            )
        row: dict[str, Any] = {}
        for (name, of), part in zip(inputs.items(), key, strict=True):
            text = part if isinstance(part, str) else orjson.dumps(part).decode()
            if len(text.encode()) > config.key_bytes:
                raise LimitError(
                    "key_bytes",
                    f"'{name}' has more than the {config.key_bytes} {plural(config.key_bytes, 'byte')} that are taken in a key",
                )
            try:
                row[name] = from_text(of, text)
                from_json(of, row[name])  # which says what is wrong with it
            except ValueError as error:
                raise BadRequest(f"'{name}' must be {of}: {error}") from None
        rows.append(row)
    return rows
