"""A record's identifier: the text of its key, or of a key of several columns a JSON array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from featurestore.server.compatible.values import text_of
from featurestore.server.problems import BadRequest
from featurestore.types import FeatureType, Scalar, to_json


def identifier_of(types: Sequence[FeatureType], key: Sequence[Scalar]) -> str:
    """The identifier of a key."""
    if len(types) == 1:
        return text_of(types[0], key[0])
    return orjson.dumps([to_json(of, part) for of, part in zip(types, key, strict=True)]).decode()


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
    if not isinstance(parts, list):
        raise BadRequest(
            f'An identifier of {len(columns)} columns ({", ".join(columns)}) is a JSON array, such as ["UA", 17]'
        )
    return parts


def asked_identifier(query: Mapping[str, list[str]]) -> str:
    """The one identifier of a query; BadRequest."""
    given = query.get("RecordIdentifierValueAsString", [])
    if len(given) != 1:
        raise BadRequest("There must be one RecordIdentifierValueAsString")
    return given[0]
