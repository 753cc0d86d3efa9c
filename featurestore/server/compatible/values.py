"""What the platforms share about values: a lookup's answer in their names, as JSON or as text, and texts as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from featurestore.server.json_answers import AS_THEY_ARE
from featurestore.server.limits import SMALL_BYTES
from featurestore.server.problems import BadRequest, LimitError
from featurestore.server.strict_json import read_json, read_whole
from featurestore.serving.online_result import OnlineResult
from featurestore.settings import ServerConfig
from featurestore.types import FeatureType, to_json


def read_object(body: bytes) -> dict[str, Any]:
    """The object that a body is; BadRequest where it is none."""
    value = read_json(body) if len(body) <= SMALL_BYTES else read_whole(body)
    if not isinstance(value, dict):
        raise BadRequest(f"The body must be an object, and is {type(value).__name__}")
    return value


def check_rows(count: int, config: ServerConfig) -> None:
    """LimitError where a lookup has so many rows, BadRequest where it has none."""
    if count > config.lookup_rows:
        detail = f"The body has more than {config.lookup_rows} rows; send fewer at a time"
        raise LimitError("lookup_rows", detail)
    if not count:
        raise BadRequest("There must be one row at least")


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
