"""The values that cut ordered ones into parts of as many values each."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

QUANTILES = 10
"""Into how many parts of as many values each the quantiles cut a column."""


class Quantiles:
    """The values at the ranks that cut `count` ordered ones into parts."""

    def __init__(self, count: int) -> None:
        self._ranks = _ranks(count)
        self._seen = 0
        self._found: list[float] = []

    def add(self, values: npt.NDArray[Any], counts: npt.NDArray[np.int64] | None = None) -> None:
        """Take the next ones, from the least to the greatest, each so many times, or once."""
        left = self._ranks[len(self._found) :]
        if counts is None:
            seen = self._seen + len(values)
            places: Any = [rank - self._seen - 1 for rank in left if rank <= seen]
        else:
            upto = self._seen + np.cumsum(counts)
            seen = int(upto[-1])
            places = np.searchsorted(upto, [rank for rank in left if rank <= seen])
        self._found += values[places].tolist() if len(places) else []
        self._seen = seen

    def found(self) -> tuple[float, ...]:
        """From the least to the greatest."""
        return tuple(self._found)


@lru_cache(64)
def _ranks(count: int) -> list[int]:
    """Counted from 1; none of no values."""
    return [max(1, -(-count * part // QUANTILES)) for part in range(QUANTILES + 1)] if count else []
