"""The as-of join, without a sort of the rows: the newest row that counts for each request, of rows that come in any order.

A row that counts from an instant on counts for its key's first request at or after it, the row's *slot*, and for all requests of the
key behind that, until it ends. So of each slot only the newest rows are kept, and at the end a running maximum along
the slots of a key says which is the newest of each request. What that leaves open is handed back: requests of which the
newest row has ended, and those for which several rows are equal as far as times tell.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from featurestore.semantics.rows import RowTimes, counts_at
from featurestore.semantics.time import END

Ints = npt.NDArray[np.int64]
Slots = npt.NDArray[np.int32]

NONE = np.iinfo(np.int64).min
"""Before any instant: where no row is."""

LOOSE_MIN_ROWS = 1_000_000
"""Rows that may be kept at least before those are dropped that others have outdone; as many as there are requests, where those are more."""


class Requests(NamedTuple):
    """The keys, as numbers from 0 on, and instants (µs) that are asked for, sorted by both."""

    key: Ints
    as_of: Ints


class Kept(NamedTuple):
    """Rows that may be the newest of a slot."""

    slot: Slots
    event_us: Ints
    counts_from: Ints
    counts_until: Ints | None
    file: npt.NDArray[np.uint64]
    row: Ints

    def where(self, chosen: npt.NDArray[np.bool_] | Ints) -> Kept:
        """Some of them."""
        some: list[Any] = [None if column is None else column[chosen] for column in self]
        return Kept(*some)


class Found(NamedTuple):
    """Requests by their places, and the rows that answer them by theirs among `rows`."""

    rows: Kept
    single: Ints
    """Requests that one row answers."""

    row: Ints
    """That row of each."""

    several: Ints
    """Requests for which the further terms of rule 2 decide, once for each row that they decide about."""

    among: Ints
    """That row of each."""

    left: Ints
    """Requests of which the newest row has ended, so that an older one may answer."""


class RowSearch:
    """Requests that meet rows; keys are numbers below `keys`. `add` all rows, in any order, then ask for what was `found`."""

    def __init__(self, requests: Requests, keys: int) -> None:
        counts = np.bincount(requests.key, minlength=keys)
        self._end = np.cumsum(counts).astype(np.int32)
        self._begin = self._end - counts.astype(np.int32)
        self._longest = int(counts.max(initial=0))
        self._key = requests.key
        self._as_of = np.append(requests.as_of, END)  # the last is nobody's
        self._last = np.where(counts > 0, self._as_of[self._end - 1], NONE)
        self._has_several = counts > 1
        self._newest = np.full(len(requests.key), NONE)
        self._kept: list[Kept] = []
        self._loose = 0

    def add(self, rows: RowTimes, file: npt.NDArray[np.uint64], row: Ints) -> None:
        """Meet some rows, whose `file` and `row` say where they lie."""
        # Rows that begin to count after the last request of their key are left out before anything else is looked at.
        met = np.flatnonzero(counts_at(rows.counts_from, None, self._last.take(rows.key)))
        slot, event_us = self._slots(rows.key[met], rows.counts_from[met]), rows.event_us[met]
        newer = np.flatnonzero(event_us >= self._newest.take(slot))
        chosen = met[newer]
        until = None if rows.counts_until is None else rows.counts_until[chosen]
        some = Kept(slot[newer], event_us[newer], rows.counts_from[chosen], until, file[chosen], row[chosen])
        np.maximum.at(self._newest, some.slot, some.event_us)
        self._kept.append(some)
        self._loose += len(chosen)
        if self._loose > max(LOOSE_MIN_ROWS, len(self._key)):
            self._kept, self._loose = [self._compact()], 0

    def _slots(self, key: Ints, counts_from: Ints) -> Slots:
        """Of rows that count at the last request of their key, the first request at which each does."""
        found: Slots = self._begin.take(key)
        if self._longest > 1:
            places = np.flatnonzero(self._has_several.take(key))
            key, counts_from = key[places], counts_from[places]
            slot, end = self._begin.take(key) - np.int32(1), self._end.take(key)
            step = 1 << self._longest.bit_length()
            while step := step >> 1:  # the slot is behind the last request that is known to come before the row
                probe = slot + np.int32(step)
                counts = counts_at(counts_from, None, self._as_of.take(probe, mode="clip"))
                np.copyto(slot, probe, where=(probe < end) & ~counts)
            found[places] = slot + np.int32(1)
        return found

    def _compact(self) -> Kept:
        """The rows that are still the newest of their slots, and of these the last learned, as far as counts_from tells.

        Of rows with one event_time, it never falls as what rule 2 looks at next (known_at) grows; so one that is greater
        than the others' decides, and equal ones do not.
        """
        columns: list[Any] = [
            None if parts[0] is None else np.concatenate(parts) for parts in zip(*self._kept, strict=True)
        ]
        kept = Kept(*columns)
        kept = kept.where(kept.event_us == self._newest[kept.slot])
        learned = np.full(len(self._newest), NONE)
        np.maximum.at(learned, kept.slot, kept.counts_from)
        return kept.where(kept.counts_from == learned[kept.slot])

    def found(self) -> Found:
        """What answers each request, of the rows that were added."""
        nothing = np.empty(0, np.int64)
        if not len(self._key) or not self._kept:
            none = Kept(np.empty(0, np.int32), nothing, nothing, None, np.empty(0, np.uint64), nothing)
            return Found(none, nothing, nothing, nothing, nothing, nothing)
        kept = self._compact()
        kept = kept.where(np.argsort(kept.slot))
        size = np.bincount(kept.slot, minlength=len(self._key))
        won = self._running()
        size, begin = size[won], (np.cumsum(size) - size)[won]
        alone = np.flatnonzero(size == 1)
        row = begin[alone]
        counts = self._not_ended(kept, row, alone)
        more = np.flatnonzero(size > 1)
        within = np.arange(int(size[more].sum())) - np.repeat(np.cumsum(size[more]) - size[more], size[more])
        several, among = np.repeat(more, size[more]), np.repeat(begin[more], size[more]) + within
        stay = self._not_ended(kept, among, several)
        ended = np.setdiff1d(more, several[stay])
        return Found(
            kept, alone[counts], row[counts], several[stay], among[stay], np.concatenate([alone[~counts], ended])
        )

    def _not_ended(self, kept: Kept, rows: Ints, requests: Ints) -> npt.NDArray[np.bool_]:
        """Whether each of these rows counts for the request beside it."""
        until = None if kept.counts_until is None else kept.counts_until[rows]
        found: npt.NDArray[np.bool_] = counts_at(kept.counts_from[rows], until, self._as_of[requests])
        return found

    def _running(self) -> Ints:
        """Of each request the slot of its newest row, which is its own or one of its key's before; of equal ones the last,
        since rows that begin to count later were learned later."""
        won = np.arange(len(self._key))
        before = won - self._begin[self._key]
        step = 1
        while step < self._longest:
            earlier, own = won[:-step], won[step:]
            better = (before[step:] >= step) & (self._newest[earlier] > self._newest[own])
            won[step:] = np.where(better, earlier, own)
            step *= 2
        return won
