"""Which rows count at an instant, as ranges: rule 1 for folds of many rows, in n log n.

Rows of one key lie in rule 2's order, that of their event times. A *monotone run* is a part of them along which neither the
instant from which a row counts nor the instant from which it no longer does ever goes back. In a run, the rows that count at
an as_of within a window are neighbours, found by binary search:

    event_us > start and counts_until > as_of    from some row on        counts_from ≤ as_of and event_us ≤ end    up to some row

Where rows are learned in the order in which they happened, there is one run. A row that was overtaken (a later one
was known before it) goes to the next run, so late rows cost as many runs as they overtake each other in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from featurestore.semantics.rows import RowTimes
from featurestore.semantics.time import END
from featurestore.semantics.windows import Span

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class MonotoneRun:
    """Rows, in the order of their keys, then of rule 2, along which neither `counts_from` nor `counts_until` ever goes back."""

    places: Ints
    """Where its rows lie among all of them."""

    first: Ints
    """Of each key the number of its first row in the run, and one more for the end."""

    event_us: Ints
    """The event_time of its rows."""

    counts_from: Ints
    """See RowTimes."""

    counts_until: Ints | None
    """None: its rows count for ever."""


class Range(NamedTuple):
    """For each request the part [low, high) of a run."""

    low: Ints
    high: Ints


def monotone_runs(rows: RowTimes, keys: int) -> Iterator[MonotoneRun]:
    """The rows in as few runs as overtaking asks for; those that a later version replaces are in runs of their own."""
    every = np.arange(len(rows.event_us), dtype=np.int64)
    if rows.counts_until is None:
        parts = [every]
    else:
        ends = rows.counts_until < END
        parts = [every[~ends], every[ends]]
    for number, left in enumerate(parts):
        while len(left):
            kept = _never_back(rows, left, ending=number == 1)
            yield _run(rows, left if kept.all() else left[kept], keys, ending=number == 1)
            left = left[~kept]  # noqa: PLW2901 - what is left for the next run


def _run(rows: RowTimes, places: Ints, keys: int, *, ending: bool) -> MonotoneRun:
    counts = np.bincount(rows.key[places], minlength=keys)
    first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    whole = len(places) == len(rows.event_us)
    until = None if rows.counts_until is None or not ending else rows.counts_until[places]
    return MonotoneRun(
        places,
        first,
        rows.event_us if whole else rows.event_us[places],
        rows.counts_from if whole else rows.counts_from[places],
        until,
    )


def _never_back(rows: RowTimes, places: Ints, *, ending: bool) -> npt.NDArray[np.bool_]:
    """The rows that no later row of their key overtakes: none after them has a smaller counts_from (or counts_until)."""
    kept = _least_from_here(rows.key[places], rows.counts_from[places])
    if ending and rows.counts_until is not None:
        kept &= _least_from_here(rows.key[places], rows.counts_until[places])
    return kept


def _least_from_here(key: Ints, values: Ints) -> npt.NDArray[np.bool_]:
    """Whether each instant is the least among those of its key from its place on."""
    later = (key[1:] != key[:-1]) | (values[1:] >= values[:-1])
    if later.all():
        return np.ones(len(values), np.bool_)
    width = int(values.max()) - int(values.min())
    if int(key[-1]) * width >= END:  # added to the greatest instant, more than an integer holds
        values = np.unique(values, return_inverse=True)[1]
        width = int(values.max())
    ranked = key * width + values  # one order over all keys: no later key's is smaller
    least: npt.NDArray[np.bool_] = np.minimum.accumulate(ranked[::-1])[::-1] == ranked
    return least


def range_of(run: MonotoneRun, span: Span, key: Ints, as_of: Ints) -> Range:
    """The part of a run that counts for each request (key, as_of) within a window."""
    low, last = run.first[key], run.first[key + 1]
    high = _first_above(run.counts_from, low, last, as_of)
    if span.offset:
        high = np.minimum(high, _first_above(run.event_us, low, last, span.end(as_of)))
    start = low if span.length is None else _first_above(run.event_us, low, last, span.start(as_of))
    if run.counts_until is not None:
        start = np.maximum(start, _first_above(run.counts_until, low, last, as_of))
    return Range(start, np.maximum(start, high))


def _first_above(values: Ints, low: Ints, high: Ints, bound: Ints) -> Ints:
    """For each request the first place in [low, high) whose value is greater than its bound, else high."""
    low, high = low.copy(), high.copy()
    for _ in range(int((high - low).max(initial=0)).bit_length()):
        middle = (low + high) >> 1
        inside = low < high
        above = values[np.minimum(middle, len(values) - 1)] > bound
        high = np.where(inside & above, middle, high)
        low = np.where(inside & ~above, middle + 1, low)
    return low
