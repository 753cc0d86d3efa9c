"""The most frequent of values that come with how often each is there; of equally frequent ones the least."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

FREQUENT_NUMBERS = 20
"""How many of the most frequent numbers are told."""

Pairs = list[tuple[Any, int]]


class FrequentNumbers:
    """The most frequent numbers of a column, which come from the least to the greatest, each once."""

    def __init__(self) -> None:
        self._found: Pairs = []

    def add(self, values: npt.NDArray[Any], counts: npt.NDArray[np.int64]) -> None:
        """Take the next ones."""
        if not self._found and counts.max() == 1:
            first = values[:FREQUENT_NUMBERS].tolist()
            self._found = list(zip(first, [1] * len(first), strict=True))
            return
        places = most_frequent(counts, FREQUENT_NUMBERS)
        self._found += zip(values[places].tolist(), counts[places].tolist(), strict=True)
        self._found = sorted(self._found, key=lambda pair: (-pair[1], pair[0]))[:FREQUENT_NUMBERS]

    def found(self) -> tuple[tuple[float, int], ...]:
        """The most frequent first."""
        return tuple(self._found)


def most_frequent(counts: npt.NDArray[np.int64], most: int) -> npt.NDArray[np.int64]:
    """The places of the `most` greatest counts, the first ones of equal ones, in no order."""
    if len(counts) <= most:
        return np.arange(len(counts))
    least = np.partition(counts, -most)[-most]
    above = np.flatnonzero(counts > least)
    return np.concatenate([above, np.flatnonzero(counts == least)[: most - len(above)]])
