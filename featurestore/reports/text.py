"""How values stand in a text report for a person."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from featurestore.types import Array, FarDate, FarTimestamp, FeatureType, Timestamp, to_json

__all__ = ["aligned", "shown_cell", "shown_instant"]

WIDEST = 40
"""Characters of a value in a text report; what is longer is cut."""


def shown_instant(value: datetime | None) -> str:
    """As short as it is exact: "2013-01-01 12:00:00Z"."""
    return "-" if value is None else f"{value.astimezone(UTC).replace(tzinfo=None).isoformat(sep=' ')}Z"


def shown_cell(value: Any, of: FeatureType) -> str:
    """A canonical value of a type, with all of its digits."""
    if value is None:
        return "null"
    if isinstance(value, (FarDate, FarTimestamp)):
        return str(to_json(of, value))
    if of == Timestamp:
        return shown_instant(value)
    plain = of.kind in {"Bool", "Int32", "Int64", "Date", "Decimal"} or of == Array(Timestamp)
    text = str(value) if plain else repr(value)
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with each column as wide as its widest cell."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
