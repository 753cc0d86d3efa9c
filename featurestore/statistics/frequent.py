"""The most frequent of values that come with how often each is there; of equally frequent ones the least."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

FREQUENT_NUMBERS = 20
"""How many of the most frequent numbers are told."""

SORTED_COUNTS = 1_024
"""Counts that are sorted as they are; of more, first those that are too small are left out."""

Pairs = list[tuple[Any, int]]


class FrequentNumbers:
    """The most frequent numbers of a column, which come from the least to the greatest, each once."""

    def __init__(self) -> None:
        self._found: Pairs = []

    def add(self, values: npt.NDArray[Any], counts: npt.NDArray[np.int64] | None = None) -> None:
        """Take the next ones, each of which is there so often, or once."""
        if counts is None:
            first = values[:FREQUENT_NUMBERS]
            found: Pairs = [(value, 1) for value in first.tolist()]
        else:
            places = most_frequent(counts, FREQUENT_NUMBERS)
            found = list(zip(values[places].tolist(), counts[places].tolist(), strict=True))
        if self._found:
            found = sorted([*self._found, *found], key=lambda pair: (-pair[1], pair[0]))[:FREQUENT_NUMBERS]
        self._found = found

    def found(self) -> tuple[tuple[float, int], ...]:
        """The most frequent first."""
        return tuple(self._found)


def most_frequent(counts: npt.NDArray[np.int64], most: int) -> npt.NDArray[np.int64]:
    """The places of the `most` greatest counts, the greatest first; of equal ones the first ones, in their order."""
    places: npt.NDArray[np.int64] = np.arange(len(counts))
    if len(counts) > SORTED_COUNTS:
        least = np.partition(counts, -most)[-most]
        above, equal = np.flatnonzero(counts > least), np.flatnonzero(counts == least)[:most]
        places = np.concatenate([above, equal])
    return places[np.argsort(-counts[places], kind="stable")][:most]
