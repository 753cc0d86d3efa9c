"""A record's identifier: the text of its key, or of a key of several columns a JSON array; and a key as where a page ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from featurestore.server.compatible.values import text_of
from featurestore.server.problems import BadRequest
from featurestore.types import FeatureType, Scalar, from_json, to_json


def identifier_of(types: Sequence[FeatureType], key: Sequence[Scalar]) -> str:
    """The identifier of a key."""
    return text_of(types[0], key[0]) if len(types) == 1 else key_token(types, key)


def key_token(types: Sequence[FeatureType], key: Sequence[Scalar]) -> str:
    """A key as a NextToken, which is never empty."""
    return orjson.dumps([to_json(of, part) for of, part in zip(types, key, strict=True)]).decode()


def key_of_token(types: Sequence[FeatureType], token: str) -> list[Scalar]:
    """The key that a NextToken is; BadRequest."""
    try:
        key = [from_json(of, part) for of, part in zip(types, orjson.loads(token), strict=True)]
    except (ValueError, TypeError):
        key = [None]
    if None in key:
        raise BadRequest("NextToken is none that was given")
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
            f'An identifier of {len(columns)} columns ({", ".join(columns)}) is a JSON array, such as ["UA", 17]'
        )
    return parts


def asked_identifier(query: Mapping[str, list[str]]) -> str:
    """The one identifier of a query; BadRequest."""
    given = query.get("RecordIdentifierValueAsString", [])
    if len(given) != 1:
        raise BadRequest("There must be one RecordIdentifierValueAsString")
    return given[0]
