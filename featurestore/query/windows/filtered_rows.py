"""The rows of a run that a fold counts, and what is found at the ends of ranges of them.

A fold counts the rows of a monotone run where its condition holds and, where it skips nulls, the column is not null.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from featurestore.query.windows.ranges import MonotoneRun, Range

Ints = npt.NDArray[np.int64]
Bits = npt.NDArray[np.bool_]


class FilteredRows(NamedTuple):
    """The rows of one run that a fold counts."""

    places: Ints
    """Where they lie among all rows."""

    before: Ints | None
    """How many of them lie before each row of the run; None where they are all of the run's."""

    @classmethod
    def of(cls, run: MonotoneRun, counted: Bits | None) -> FilteredRows:
        """The run's rows where `counted` (by place) holds; all of them without it."""
        if counted is None:
            return cls(run.places, None)
        here = counted[run.places]
        if here.all():
            return cls(run.places, None)
        return cls(run.places[here], np.concatenate([[0], np.cumsum(here)]))

    def range(self, of_run: Range) -> Range:
        """The part of these rows that lies in a range of the run."""
        return of_run if self.before is None else Range(self.before[of_run.low], self.before[of_run.high])

    def select(self, by_place: Ints) -> Ints:
        """What these rows have of numbers by place (the last axis)."""
        return by_place if len(self.places) == by_place.shape[-1] else by_place[..., self.places]


def picked_places(
    rows: Sequence[FilteredRows], ranges: Sequence[Range], end: Literal["newest", "oldest"], count: int
) -> Ints:
    """The places of the `count` newest or oldest rows of each request, int64[requests, count], the outermost first, -1 where
    there are fewer. ranges: of each of the parts in which the rows lie."""
    none = -1 if end == "newest" else np.iinfo(np.int64).max
    found = []
    for some, part in zip(rows, ranges, strict=True):
        for step in range(count):
            at = part.high - 1 - step if end == "newest" else part.low + step
            place = some.places[np.clip(at, 0, len(some.places) - 1)] if len(some.places) else none
            found.append(np.where((at >= part.low) & (at < part.high), place, none))
    places = np.stack(found, axis=1)
    if len(rows) > 1:
        places = -np.sort(-places, axis=1) if end == "newest" else np.sort(places, axis=1)
    return np.where(places[:, :count] == none, -1, places[:, :count])
