"""Conflicts of folds that pick rows: a picked row tied with others in all but its bytes, and these decided.

Rows tie that are equal in key, event_time, known_at and tiebreak (rule 2). A tie is a conflict of a request where its rows
differ, and at least two that do count for the request, one of which was picked.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from featurestore.query.windows.filtered_rows import Bits, Ints
from featurestore.semantics.rows import counts_at

__all__ = ["Lifetimes", "Ties"]


class Lifetimes(NamedTuple):
    """When each row counts, from `counts_from` on and before `counts_until` (None: for ever), µs by place."""

    counts_from: Ints
    counts_until: Ints | None

    def alive(self, places: Ints, as_of: Ints) -> Bits:
        """Whether each row counts at an instant of its own."""
        until = None if self.counts_until is None else self.counts_until[places]
        alive: Bits = counts_at(self.counts_from[places], until, as_of)
        return alive


class Ties:
    """The groups of rows that tie, of rows in rule 2's order.

    before, whole: by place, a hash of what comes before the bytes, and of the bytes. key, event_time: by place.
    """

    def __init__(self, key: Ints, event_time: Ints, before: Ints, whole: Ints) -> None:
        same = (key[1:] == key[:-1]) & (event_time[1:] == event_time[:-1]) & (before[1:] == before[:-1])
        self._group = np.concatenate([[0], np.cumsum(~same)])[: len(key)]
        self._begin = np.concatenate([[0], np.flatnonzero(~same) + 1, [len(key)]])
        self._whole = whole
        differ = np.flatnonzero(same & (whole[1:] != whole[:-1]))  # equal bytes lie side by side
        self._mixed = np.zeros(len(self._begin), np.bool_)
        self._mixed[self._group[differ]] = True
        self._any = len(differ) > 0

    def decided(self, picked: Ints, counted: Bits, lifetimes: Lifetimes, as_of: Ints) -> Bits:
        """The requests with a conflict. picked: int64[requests, rows], places or -1; counted: by place, whether a row is
        one that the fold takes at all."""
        result = np.zeros(len(as_of), np.bool_)
        if not self._any:
            return result
        request, column = np.nonzero((picked >= 0) & self._mixed[self._group[np.maximum(picked, 0)]])
        place = picked[request, column]
        other = self._begin[self._group[place]]
        while len(request):  # one row of each tie a step; mostly the first or the second tells
            hit = counted[other] & (self._whole[other] != self._whole[place]) & lifetimes.alive(other, as_of[request])
            result[request[hit]] = True
            other = other + 1
            left = ~hit & (other < self._begin[self._group[place] + 1])
            request, place, other = request[left], place[left], other[left]
        return result
