"""The values that cut ordered ones into parts of as many values each."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

QUANTILES = 10
"""Into how many parts of as many values each the quantiles cut a column."""


class Quantiles:
    """The values at the ranks that cut `count` ordered ones into parts."""

    def __init__(self, count: int) -> None:
        self._ranks = [max(1, -(-count * part // QUANTILES)) for part in range(QUANTILES + 1)] if count else []
        self._seen = 0
        self._found: list[float] = []

    def add(self, values: npt.NDArray[Any], counts: npt.NDArray[np.int64]) -> None:
        """Take the next ones, from the least to the greatest."""
        upto = self._seen + np.cumsum(counts)
        wanted = [rank for rank in self._ranks[len(self._found) :] if rank <= upto[-1]]
        self._found += values[np.searchsorted(upto, wanted)].tolist() if wanted else []
        self._seen = int(upto[-1])

    def found(self) -> tuple[float, ...]:
        """From the least to the greatest."""
        return tuple(self._found)
