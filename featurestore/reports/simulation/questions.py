"""What is looked up: keys that the simulated store has seen, now and then one that it has not, and request values.

Request values are drawn by type, evenly: integers, floats and decimals from 0 to 100, booleans, letters a to z, up to four
bytes, the day and the instants of the day before the lookup, arrays of up to three of these. A key that is unknown is drawn
likewise, far away from what is usual.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

from featurestore.clock import to_datetime
from featurestore.lazy import pa
from featurestore.semantics.rows import words_sql
from featurestore.semantics.service import ResolvedService
from featurestore.semantics.source_columns import has_key, key_list
from featurestore.semantics.values import scalars
from featurestore.semantics.view import ResolvedView
from featurestore.sources.offline import Offline
from featurestore.types import FeatureType

POOL_KEYS = 10_000
"""Keys of a view that are drawn from: those of which something was learned last."""

UNKNOWN_SHARE = 0.05
"""The share of rows that ask for a key that nothing has, for each view."""

MOST_ROWS = 10
"""Rows of one request at most."""

Key = tuple[Any, ...]


class Questions:
    """Draws the rows of lookups for some services; keys are those of the last `refresh`."""

    def __init__(self, services: Sequence[ResolvedService], drawn: random.Random) -> None:
        self._services = {service.name: service for service in services}
        self._drawn = drawn
        self._keys: dict[str, list[Key]] = {}

    def refresh(self, offline: Offline, views: Sequence[ResolvedView]) -> None:
        """Draw from the keys that the views' sources have now."""
        found: dict[tuple[Any, ...], list[Key]] = {}
        for view in views:
            same = (view.source.name, view.keys)
            if view.keys and same not in found:
                found[same] = _keys_of(view, offline)
            self._keys[view.name] = found.get(same, [])

    def rows(self, service: str, now: int) -> list[dict[str, Any]]:
        """The rows of one request at `now` (µs)."""
        return [self._row(self._services[service], now) for _ in range(self._drawn.randint(1, MOST_ROWS))]

    def _row(self, service: ResolvedService, now: int) -> dict[str, Any]:
        drawn = self._drawn
        row: dict[str, Any] = {}
        for part in sorted(
            service.parts, key=lambda part: -len(part.inputs)
        ):  # so that keys of several columns stay whole
            pool = self._keys.get(part.view.name, [])
            known = bool(pool) and drawn.random() >= UNKNOWN_SHARE
            key = drawn.choice(pool) if known else tuple(_unknown(drawn, key.type, now) for key in part.view.keys)
            for name, value in zip(part.inputs, key, strict=True):
                row.setdefault(name, value)
        return row | {name: value_of(drawn, of, now) for name, of in service.request_inputs.items()}


def _keys_of(view: ResolvedView, offline: Offline) -> list[Key]:
    if not view.keys:  # there is one, which is ()
        return []
    keys = key_list(view)
    with offline.session() as session:
        table: pa.Table = session.connection.sql(
            f"SELECT {keys} FROM ({words_sql(view, session.scan(view.source))}) WHERE {has_key(view)} GROUP BY ALL "
            f"ORDER BY max(known) DESC NULLS LAST, {keys} LIMIT {POOL_KEYS}"
        ).to_arrow_table()
    return list(zip(*(scalars(table[name].combine_chunks()) for name in table.column_names), strict=True))


def value_of(drawn: random.Random, of: FeatureType, now: int) -> Any:
    """A value of a type; see the module."""
    if of.element is not None:
        return [value_of(drawn, of.element, now) for _ in range(of.length or drawn.randint(0, 3))]
    if of.length is not None:
        return [float(drawn.randint(-100, 100)) for _ in range(of.length)]
    return DRAWN[of.kind](drawn, of, now)


def _unknown(drawn: random.Random, of: FeatureType, now: int) -> Any:
    if of.kind == "String":
        return f"unknown {drawn.randint(0, 999)}"
    if of.kind in {"Int32", "Int64"}:
        return -(2**31) + drawn.randint(0, 999)
    return value_of(drawn, of, now)


def _decimal(drawn: random.Random, of: FeatureType, _: int) -> Decimal:
    greatest = min(100, 10 ** (of.precision - of.scale) - 1) * 10**of.scale
    return Decimal(drawn.randint(0, greatest)).scaleb(-of.scale)


DAY_US = 86_400_000_000
DRAWN: dict[str, Callable[[random.Random, FeatureType, int], Any]] = {
    "Bool": lambda drawn, _, __: drawn.random() < 0.5,
    "Int32": lambda drawn, _, __: drawn.randint(0, 100),
    "Int64": lambda drawn, _, __: drawn.randint(0, 100),
    "Float32": lambda drawn, _, __: float(drawn.randint(0, 10_000)) / 128,
    "Float64": lambda drawn, _, __: drawn.uniform(0, 100),
    "String": lambda drawn, _, __: drawn.choice("abcdefghijklmnopqrstuvwxyz"),
    "Bytes": lambda drawn, _, __: drawn.randbytes(drawn.randint(0, 4)),
    "Date": lambda drawn, _, now: (to_datetime(now) - timedelta(days=drawn.randint(0, 1))).date(),
    "Timestamp": lambda drawn, _, now: to_datetime(now - drawn.randint(0, DAY_US)),
    "Decimal": _decimal,
}
