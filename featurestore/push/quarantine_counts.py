"""How many rows of push sources are in quarantine: counted as they come, so that asking often costs nothing however many there are."""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple

from featurestore.declare.push import KNOWN_AT, REPLACES
from featurestore.durable.forks import mutex
from featurestore.lazy import pa, pc
from featurestore.sources.log import Log
from featurestore.sources.log.manifest import Segment


class _SegmentCount(NamedTuple):
    """A segment as it was when its rows were counted. there: those that were not erased."""

    segment: Segment
    there: int

    def holds(self, now: Segment) -> bool:
        """Whether these rows are still in it, as they were: a segment only grows, and is another file when rows of it were erased."""
        was = self.segment
        same = (was.file, was.checks, was.first) == (now.file, now.checks, now.first)
        return same and (was.rows or 0, was.last or 0) <= (now.rows or 0, now.last or 0)


class QuarantineCounts:
    """The counts of logs, segment by segment; safe to use from several threads. A segment is read when it is first seen, and then only
    the rows that came since."""

    def __init__(self) -> None:
        self._lock = mutex()
        self._counted: dict[str, dict[int, _SegmentCount]] = {}

    def of(self, log: Log, event_time: str) -> int:
        """Rows of a log that were not erased. event_time: the column that each of them has a value of. Raises LogError."""
        with self._lock:
            before = self._counted.get(log.name, {})
            found = {
                one.number: self._segment(log, one, before.get(one.number), event_time)
                for one in log.segments()
                if one.rows
            }
            self._counted[log.name] = found
        return sum(one.there for one in found.values())

    def _segment(self, log: Log, now: Segment, before: _SegmentCount | None, event_time: str) -> _SegmentCount:
        assert now.first is not None
        if before is None or not before.holds(now):
            return _SegmentCount(now, there(log.read(now.first - 1, now.last), event_time))
        if before.segment.last == now.last:
            return before
        return _SegmentCount(now, before.there + there(log.read(before.segment.last, now.last), event_time))


def happened(table: pa.Table, event_time: str) -> pa.ChunkedArray:
    """Which rows of a log were not erased: of these nothing is left, and every other one has happened."""
    if event_time in table.column_names:
        return pc.is_valid(table[event_time])
    own = [
        name for name in table.column_names if name not in {KNOWN_AT, REPLACES}
    ]  # of a former definition, which named it otherwise
    return reduce(pc.or_, (pc.is_valid(table[name]) for name in own))


def there(table: pa.Table, event_time: str) -> int:
    """How many these are."""
    return int(pc.sum(happened(table, event_time)).as_py() or 0)
