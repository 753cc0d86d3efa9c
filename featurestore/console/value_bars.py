"""The values of a column as bars: the buckets of a histogram, or the most frequent values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from featurestore.statistics.column_statistics import ColumnStatistics, NumberStatistics

WIDTH, HEIGHT = 360.0, 90.0

MOST_BARS = 12
"""Frequent values that are drawn."""

LONGEST_LABEL = 60
"""Characters of a value below a bar."""


@dataclass(frozen=True)
class ValueBar:
    """So many values, and which."""

    x: float
    width: float
    y: float
    height: float
    label: str
    told: str


@dataclass(frozen=True)
class ValueBars:
    """The drawing of one column; coordinates are those of a drawing that is `width` wide and `height` high."""

    feature: str
    type: str
    bars: tuple[ValueBar, ...]
    told: str
    width: float = WIDTH
    height: float = HEIGHT


def value_bars(feature: str, column: ColumnStatistics) -> ValueBars:
    """The drawing; without bars where a column has no values."""
    numbers = column.norms or column.numbers
    counted = _of_texts(column) if numbers is None else _of_numbers(numbers)
    most = max((count for _, count in counted), default=0) or 1
    step = WIDTH / max(1, len(counted))
    bars = []
    for number, (label, count) in enumerate(counted):
        high = round(HEIGHT * count / most, 1)
        bars.append(
            ValueBar(
                round(number * step, 1), round(step, 1), round(HEIGHT - high, 1), high, label, f"{label}: {count:,.0f}"
            )
        )
    what = "norms" if column.norms is not None else "values"
    return ValueBars(
        feature, column.type, tuple(bars), f"How many of the {what} of {feature} lie where; the table has the figures"
    )


def _of_numbers(numbers: NumberStatistics) -> Sequence[tuple[str, float]]:
    found = [
        (_number(one.low) if one.low == one.high else f"{_number(one.low)} to {_number(one.high)}", one.values)
        for one in numbers.histogram.buckets
    ]
    return [*found, *([("NaN", numbers.histogram.nan)] if numbers.histogram.nan else [])]


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else str(value)


def _of_texts(column: ColumnStatistics) -> Sequence[tuple[str, float]]:
    if column.texts is None:
        return []
    listed = column.texts.frequent[:MOST_BARS]
    others = column.texts.values - sum(count for _, count in listed)
    found: list[tuple[str, float]] = [(_cut(repr(word)), count) for word, count in listed]
    return [*found, *([("all others", others)] if others > 0 else [])]


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL - 1]}…"
