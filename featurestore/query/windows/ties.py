"""Finds the requests whose chosen row tied with a different one, up to its canonical bytes.

Rows tie that are equal in key, event_time, known_at and tiebreak (rule 2). A tie is a conflict of a request where its rows
differ, and at least two that do count for the request, one of which was picked.
"""

from __future__ import annotations

import numpy as np

from featurestore.query.windows.filtered_rows import Bits, Ints
from featurestore.semantics.rows import RowTimes


class Ties:
    """The groups of rows that tie, of rows in rule 2's order.

    before, whole: by place, a hash of what comes before the bytes, and of the bytes.
    """

    def __init__(self, rows: RowTimes, before: Ints, whole: Ints) -> None:
        key, event_time, self._rows = rows.key, rows.event_us, rows
        same = (key[1:] == key[:-1]) & (event_time[1:] == event_time[:-1]) & (before[1:] == before[:-1])
        self._group = np.concatenate([[0], np.cumsum(~same)])[: len(key)]
        self._begin = np.concatenate([[0], np.flatnonzero(~same) + 1, [len(key)]])
        self._whole = whole
        differ = np.flatnonzero(same & (whole[1:] != whole[:-1]))  # equal bytes lie side by side
        self._mixed = np.zeros(len(self._begin), np.bool_)
        self._mixed[self._group[differ]] = True
        self._any = len(differ) > 0

    def decided(self, picked: Ints, counted: Bits, as_of: Ints) -> Bits:
        """The requests with a conflict. picked: int64[requests, rows], places or -1; counted: by place, whether a row is
        one that the fold takes at all."""
        result = np.zeros(len(as_of), np.bool_)
        if not self._any:
            return result
        request, column = np.nonzero((picked >= 0) & self._mixed[self._group[np.maximum(picked, 0)]])
        place = picked[request, column]
        other = self._begin[self._group[place]]
        while len(request):  # one row of each tie a step; mostly the first or the second tells
            hit = (
                counted[other] & (self._whole[other] != self._whole[place]) & self._rows.counting(other, as_of[request])
            )
            result[request[hit]] = True
            other = other + 1
            left = ~hit & (other < self._begin[self._group[place] + 1])
            request, place, other = request[left], place[left], other[left]
        return result
