"""The as-of join as a binary search: the newest row that counts for each request.

Rows and requests are sorted once as pairs (key, instant), each pair one integer, and met by binary search. What the pair
alone does not answer is handed back: the requests of which several of the newest rows do not count yet (or no longer), and
those for which several rows count that happened at one instant.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from featurestore.semantics.rows import RowTimes

Ints = npt.NDArray[np.int64]

TRIED_INSTANTS = 3
"""So many of a request's newest instants are looked at before it is handed back."""


class Requests(NamedTuple):
    """The keys and instants (µs) that are asked for, in any order."""

    key: Ints
    as_of: Ints


class Found(NamedTuple):
    """Requests and rows by their places."""

    single: Ints
    """Requests that one row answers."""

    row: Ints
    """That row of each."""

    several: Ints
    """Requests for which the further terms of rule 2 decide, once for each row that they decide about."""

    among: Ints
    """That row of each."""

    left: Ints
    """Requests of which none of the newest rows counts, but an older one may."""


class _Met(NamedTuple):
    """Of each request that met a row: its place, and where its newest rows lie, [low, high) of `order`."""

    request: Ints
    low: Ints
    high: Ints
    order: Ints


def newest(rows: RowTimes, requests: Requests, keys: int) -> Found:
    """The newest rows of each request; keys are numbers below `keys`."""
    if not len(rows.event_us) or not len(requests.key):
        nothing = np.empty(0, np.int64)
        return Found(nothing, nothing, nothing, nothing, nothing)
    line, asked, bits = _pairs(rows, requests, keys)
    order = np.argsort(line)
    line = line[order]
    request = np.argsort(asked)  # sorted as well, so that the search goes through memory once
    place = np.searchsorted(line, asked[request], "right") - 1
    found, low = [], np.empty(len(asked), np.int64)
    for _ in range(TRIED_INSTANTS):
        here = (place >= 0) & (line[place] >> bits == requests.key[request])
        request, place = request[here], place[here]
        low[request] = place
        equal = np.flatnonzero((place > 0) & (line[place - 1] == line[place]))
        low[request[equal]] = np.searchsorted(line, line[place[equal]], "left")
        found.append(_judged(rows, requests, _Met(request, low[request], place + 1, order)))
        request = found[-1].left
        place = low[request] - 1
        if not len(request):
            break
    single, row, several, among, _ = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return Found(single, row, several, among, request)


def _pairs(rows: RowTimes, requests: Requests, keys: int) -> tuple[Ints, Ints, int]:
    """(key, instant) of rows and of requests as one integer each, the key above the last so many bits.

    Instants count from the first event_time; a request before it comes just before its key's first row.
    """
    least, most = int(rows.event_us.min()), int(rows.event_us.max())
    as_of = np.clip(requests.as_of, least - 1, most)
    bits = (most - least).bit_length()
    if bits + keys.bit_length() < 63:
        return (rows.key << bits) + (rows.event_us - least), (requests.key << bits) + (as_of - least), bits
    instants, rank = np.unique(rows.event_us, return_inverse=True)
    bits = len(instants).bit_length()
    before = np.searchsorted(instants, as_of, "right") - 1
    return (rows.key << bits) + rank, (requests.key << bits) + before, bits


def _judged(rows: RowTimes, requests: Requests, met: _Met) -> Found:
    """Which of the newest rows count, and which of those that do was learned last, as far as counts_from tells.

    Of rows with one event_time, it never falls as what rule 2 looks at next (known_at) grows; so one that is greater than
    the others' decides, and equal ones do not.
    """
    alone = met.high - met.low == 1
    request, row = met.request[alone], met.order[met.low[alone]]
    counts = rows.counting(row, requests.as_of[request])
    single, answer, left = request[counts], row[counts], [request[~counts]]

    low, size = met.low[~alone], (met.high - met.low)[~alone]
    within = np.arange(int(size.sum())) - np.repeat(np.cumsum(size) - size, size)
    several, among = np.repeat(met.request[~alone], size), met.order[np.repeat(low, size) + within]
    counts = rows.counting(among, requests.as_of[several])
    left.append(np.setdiff1d(met.request[~alone], several[counts]))
    several, among = _last_learned(several[counts], among[counts], rows.counts_from)
    same = several[1:] == several[:-1]
    twice = np.zeros(len(several), np.bool_)
    twice[1:] |= same
    twice[:-1] |= same
    return Found(
        np.concatenate([single, several[~twice]]),
        np.concatenate([answer, among[~twice]]),
        several[twice],
        among[twice],
        np.concatenate(left),
    )


def _last_learned(several: Ints, among: Ints, counts_from: Ints) -> tuple[Ints, Ints]:
    """Of each request's rows, which lie side by side, those with the greatest counts_from."""
    if not len(several):
        return several, among
    starts = np.flatnonzero(np.concatenate([[True], several[1:] != several[:-1]]))
    greatest = np.maximum.reduceat(counts_from[among], starts)
    last = counts_from[among] == np.repeat(greatest, np.diff([*starts, len(several)]))
    return several[last], among[last]
