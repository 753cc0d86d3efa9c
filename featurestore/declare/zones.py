"""Instants without a zone: which they are, and what the caller is told of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from typing import Any

import numpy as np

from featurestore.lazy import pa

LOCAL = "say timezone= where they are local, timezone='UTC' where not"
"""What helps where a source or a spine may declare its zone."""


def said_zones(value: Any) -> Iterator[bool]:
    """Of each instant, the text of one, and each in a list, whether it says its zone; of what is null nothing."""
    if hasattr(value, "as_py"):
        value = value.as_py()
    if isinstance(value, str):
        zone = value[10:]
        yield "Z" in zone or "z" in zone or "+" in zone or "-" in zone
    elif isinstance(value, datetime):
        if type(value).__name__ != "NaTType":
            yield value.tzinfo is not None
    elif getattr(getattr(value, "dtype", None), "kind", "") == "M":  # numpy's, which have none
        if not np.isnat(value).all():
            yield False
    elif isinstance(value, Iterable) and not isinstance(value, (bytes, bytearray)):
        for item in value:
            yield from said_zones(item)


def naive_columns(schema: pa.Schema, names: Collection[str]) -> tuple[str, ...]:
    """Those of the columns whose instants have no zone, alone or in lists."""
    return tuple(field.name for field in schema if field.name in names and has_instants(field.type, zoned=False))


def has_instants(of: pa.DataType, *, zoned: bool) -> bool:
    """Whether it is a type of instants with a zone, or of those without, alone or in lists."""
    while of.num_fields == 1 and hasattr(of, "value_type"):
        of = of.value_type
    return bool(pa.types.is_timestamp(of)) and (of.tz is not None) == zoned


def without_zone(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The same instants, with the type of those that say no zone: UTC is meant."""
    return column.cast(_unzoned(column.type))


def _unzoned(of: pa.DataType) -> pa.DataType:
    return pa.timestamp(of.unit) if pa.types.is_timestamp(of) else pa.list_(_unzoned(of.value_type))


def read_as_utc(columns: Iterable[str], advice: str = LOCAL) -> str:
    """The notice of columns whose instants have no zone."""
    return f"timestamps without a zone are read as UTC: {', '.join(map(repr, columns))}; {advice}"


def naive_notices(given: Iterable[Any], option: str) -> list[str]:
    """A notice where one of the instants given for an option has no zone."""
    is_naive = any(False in said_zones(value) for value in given if isinstance(value, datetime))
    return [read_as_utc([option], "give it one where it is local")] if is_naive else []
