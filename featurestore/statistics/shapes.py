"""Two columns of one feature in the same parts: which share of each lies where, so that one can be drawn over the other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from featurestore import types
from featurestore.clock import to_datetime
from featurestore.lazy import pa, pc
from featurestore.statistics.column_distances import TEXTS, numbers_in, texts_in
from featurestore.statistics.sample_distances import Sample
from featurestore.types import FeatureType

MOST_PARTS = 24
"""Parts of a column of numbers; where it has no more different numbers than that, each is a part."""

LISTED_TEXTS = 12
"""Texts that are parts of their own: the most frequent of both sides. All others together are one more."""

OUTER_SHARE = 0.005
"""The share of the values at either end that the outermost part takes, so that one far value does not squeeze all others."""

LONGEST_TEXT = 60
"""Characters of a text that names a part."""

OTHERS = "all others"


@dataclass(frozen=True)
class Parts:
    """The parts into which values of a type are put.

    type: of the values, or of the elements of lists. labels: one for each part, in their order, of which those of what is not finite come
    last. edges: the numbers up to which the parts go, but for the last one, whose values lie beyond; numbers: those that are parts of their
    own instead; texts: likewise.
    """

    type: FeatureType
    labels: tuple[str, ...]
    edges: tuple[float, ...] = ()
    numbers: tuple[float, ...] = ()
    texts: tuple[str | bytes, ...] = ()

    def shares(self, column: pa.ChunkedArray) -> tuple[float, ...]:
        """Which share of the values of a column lies in each part; no values lie nowhere."""
        values = _values(column)
        counts = self._of_texts(values) if self.type.kind in TEXTS else self._of_numbers(numbers_in(values))
        total = sum(counts)
        return tuple(count / total if total else 0.0 for count in counts)

    def _of_texts(self, values: pa.ChunkedArray) -> list[int]:
        found = texts_in(values)
        listed = [int(found.get(text, 0)) for text in self.texts]
        return [*listed, int(sum(found.values())) - sum(listed)] if len(self.labels) > len(self.texts) else listed

    def _of_numbers(self, sample: Sample) -> list[int]:
        finite, counted = sample.finite(), list[int]()
        if self.numbers:
            places = np.searchsorted(np.array(self.numbers), finite.values)
            counted = np.bincount(places, weights=finite.counts, minlength=len(self.numbers)).astype(int).tolist()
        elif self.edges:
            places = np.searchsorted(np.array(self.edges), finite.values, side="left")
            counted = np.bincount(places, weights=finite.counts, minlength=len(self.edges) + 1).astype(int).tolist()
        odd = (
            {label: int(sample.counts[are(sample.values)].sum()) for label, are in ODD.items()}
            if _has_odd(sample)
            else {}
        )
        return [*counted, *(odd.get(label, 0) for label in self.labels[len(counted) :])]


ODD: dict[str, Any] = {"-Infinity": np.isneginf, "Infinity": np.isposinf, "NaN": np.isnan}
"""What is no finite number, and how it is told."""


@dataclass(frozen=True)
class Shape:
    """Which share of a column's values lies in each part, of a baseline and of another column. labels: those of the parts."""

    labels: tuple[str, ...]
    baseline: tuple[float, ...]
    served: tuple[float, ...]


def parts_of(baseline: pa.ChunkedArray, other: pa.ChunkedArray, of: FeatureType) -> Parts:
    """The parts that suit both columns, of a type and in its own Arrow type; of lists, their elements are the values."""
    inner, sides = of.element or of, (_values(baseline), _values(other))
    if inner.kind in TEXTS:
        return _parts_of_texts(*sides, inner)
    samples = [numbers_in(side) for side in sides]
    odd = [label for label, are in ODD.items() if any(_has_odd(one) and are(one.values).any() for one in samples)]
    finite = [one.finite() for one in samples]
    numbers = np.union1d(finite[0].values, finite[1].values)
    if len(numbers) <= MOST_PARTS:
        labels = (_label(number, inner) for number in numbers.tolist())
        return Parts(inner, (*labels, *odd), numbers=tuple(numbers.tolist()))
    edges = _edges(finite)
    first, last = (_label(edge, inner) for edge in (edges[0], edges[-1]))
    between = (f"{_label(low, inner)} to {_label(high, inner)}" for low, high in pairwise(edges))
    return Parts(inner, (f"up to {first}", *between, f"above {last}", *odd), edges=edges)


def _values(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """What is there; of lists, what their elements are."""
    there = column.drop_null()
    is_list = (
        pa.types.is_list(there.type) or pa.types.is_large_list(there.type) or pa.types.is_fixed_size_list(there.type)
    )
    return pc.list_flatten(there).drop_null() if is_list else there


def _has_odd(sample: Sample) -> bool:
    return sample.values.dtype.kind == "f"


def _parts_of_texts(one: pa.ChunkedArray, other: pa.ChunkedArray, of: FeatureType) -> Parts:
    shares: dict[str | bytes, float] = {}
    for side in (one, other):
        counts = texts_in(side)
        total = sum(counts.values())
        for text, count in counts.items():
            shares[text] = max(shares.get(text, 0.0), count / total)
    ordered = sorted(shares, key=lambda text: (-shares[text], text))
    listed = tuple(ordered[:LISTED_TEXTS])
    labels = tuple(_cut(str(types.to_json(of, text)) if of.kind == "Bytes" else str(text)) for text in listed)
    return Parts(of, (*labels, OTHERS) if len(ordered) > len(listed) else labels, texts=listed)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 1]}…"


def _edges(sides: list[Sample]) -> tuple[float, ...]:
    """Equally far from each other, from where the least values of both sides are over to where the greatest begin."""
    low = min(_at_share(side, OUTER_SHARE) for side in sides if side.size)
    high = max(_at_share(side, 1 - OUTER_SHARE) for side in sides if side.size)
    if low == high:  # nearly all values are this one
        low, high = (
            float(pick(side.values[end] for side in sides if side.size)) for pick, end in ((min, 0), (max, -1))
        )
    scale = 1.0 if math.isfinite(high - low) else 0.5  # the range of doubles is no double
    edges = np.linspace(low * scale, high * scale, MOST_PARTS - 1) / scale
    return tuple(np.unique(edges).tolist())


def _at_share(sample: Sample, share: float) -> float:
    """The value up to which such a share of a sample goes."""
    upto = np.cumsum(sample.counts)
    return float(sample.values[np.searchsorted(upto, share * upto[-1])])


def _label(number: float, of: FeatureType) -> str:
    """A number as a value of its type reads, to four digits where it is one of many."""
    if of.kind == "Timestamp":
        return f"{to_datetime(int(number)):%Y-%m-%d %H:%M}" if abs(number) < FAR_US else f"{number:.4g}"
    if of.kind == "Date":
        return f"{to_datetime(int(number) * DAY_US):%Y-%m-%d}" if abs(number) * DAY_US < FAR_US else f"{number:.4g}"
    return f"{number:,.0f}" if number == int(number) and abs(number) < 1e6 else f"{number:.4g}"


DAY_US, FAR_US = 86_400_000_000, 5e16
"""A day, and how far from 1970 a time is still told by its date, some 1,600 years."""
