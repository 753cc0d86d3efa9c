"""Reads the rows of a log that the online records lack, some at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from featurestore.declare.push import KNOWN_AT
from featurestore.sources.log import Log

__all__ = ["PIECE_ROWS", "missing_rows"]

PIECE_ROWS = 20_000
"""Rows that are applied at once, where many are missing."""


def missing_rows(log: Log, after: int | None, *, event_time: str, least: int = PIECE_ROWS) -> Iterator[pa.Table]:
    """The rows after a known_at, in order, at least so many at a time.

    Between two pieces the log stood still for long enough that all rows of the one had happened before any of the next
    was known: so there is an instant for which the records are true when the one was applied and the other was not.
    """
    held: pa.Table | None = None
    for segment in log.segments():
        if segment.last is None or (after is not None and segment.last <= after):
            continue
        rows = log.read(after, segment.last)
        after = segment.last
        held = rows if held is None else pa.concat_tables([held, rows])
        begin = 0
        for cut in _cuts(held, event_time):
            if cut - begin >= least:
                yield held.slice(begin, cut - begin)
                begin = cut
        held = held.slice(begin)
    if held is not None and held.num_rows:
        yield held


def _cuts(rows: pa.Table, event_time: str) -> list[int]:
    """The numbers of the rows that were known after all rows before them were known and had happened."""
    known = rows[KNOWN_AT].to_numpy()
    happened = rows[event_time].cast(pa.int64()).fill_null(np.iinfo(np.int64).min).to_numpy()
    settled = np.maximum.accumulate(np.maximum(known, happened))
    found: list[int] = (np.flatnonzero(settled[:-1] < known[1:]) + 1).tolist()
    return found
