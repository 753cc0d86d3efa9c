"""A record's identifier: the text of its key, or of a key of several columns a JSON array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from featurestore.plurals import plural
from featurestore.server.compatible.values import text_of
from featurestore.server.problems import BadRequest
from featurestore.types import FeatureType, Scalar, from_json, to_json


def identifier_of(types: Sequence[FeatureType], key: Sequence[Scalar]) -> str:
    """The identifier of a key."""
    return text_of(types[0], key[0]) if len(types) == 1 else orjson.dumps(json_of_key(types, key)).decode()


def json_of_key(types: Sequence[FeatureType], key: Sequence[Scalar]) -> list[Any]:
    """A key as the members of a JSON array."""
    return [to_json(of, part) for of, part in zip(types, key, strict=True)]


def key_of_json(types: Sequence[FeatureType], given: Sequence[Any]) -> list[Scalar]:
    """The key that `json_of_key` told; ValueError or TypeError where it told none such."""
    key = [from_json(of, part) for of, part in zip(types, given, strict=True)]
    if None in key:
        raise ValueError("a key has no null")
    return key


def parts_of(identifier: Any, columns: Sequence[str]) -> list[Any]:
    """The parts of an identifier: itself, or those of a JSON array; BadRequest."""
    if not isinstance(identifier, str):
        raise BadRequest("There must be a RecordIdentifierValueAsString")
    if len(columns) == 1:
        return [identifier]
    try:
        parts = orjson.loads(identifier)
    except orjson.JSONDecodeError:
        parts = None
    if not isinstance(parts, list) or any(isinstance(part, dict | list | None) for part in parts):
        raise BadRequest(
            f'An identifier of {len(columns)} {plural(len(columns), "column")} ({", ".join(columns)}) is a JSON array, such as ["UA", 17]'
        )
    return parts


def asked_identifier(query: Mapping[str, list[str]]) -> str:
    """The one identifier of a query; BadRequest."""
    given = query.get("RecordIdentifierValueAsString", [])
    if len(given) != 1:
        raise BadRequest("There must be one RecordIdentifierValueAsString")
    return given[0]
