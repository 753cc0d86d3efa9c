"""Rows of push sources, pushed by the real pusher under a clock that is set, as a test says when each was learned."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

from featurestore.clock import ManualClock, to_datetime
from featurestore.declare.push import KNOWN_AT, PushSource
from featurestore.declare.services import FeatureService
from featurestore.errors import SourceError
from featurestore.lazy import pa
from featurestore.semantics.values import instants
from featurestore.store import FeatureStore


class PushedRows(NamedTuple):
    """Rows of a push source that are pushed together: the table, the known_at (µs) that each will have, ascending, and the
    instant (µs) before which it is not pushed: no row is pushed before it happened."""

    source: str
    table: pa.Table
    known: tuple[int, ...]
    ready: tuple[int, ...]

    @classmethod
    def of(cls, source: PushSource, table: pa.Table) -> list[PushedRows]:
        """Rows in the order in which they were learned; those of one instant are known a µs apart.

        table: the source's columns, and perhaps KNOWN_AT: rows with one are pushed at it, or when they happened where that
        is later. The others are pushed as they happen, and are all known by then.
        """
        happened = _instants(source, table[source.event_time].combine_chunks())
        said: list[int | None] = [None] * table.num_rows
        if KNOWN_AT in table.column_names:
            said = _instants(source, table[KNOWN_AT].combine_chunks())
            table = table.drop_columns([KNOWN_AT])
        groups: dict[tuple[int, bool], list[int]] = {}
        for row, (e, known) in enumerate(zip(happened, said, strict=True)):
            if known is None and e is None:
                raise SourceError(
                    f"{source.title}: row {row} has neither '{source.event_time}' nor known_at: nothing says when to push it"
                )
            at = e if known is None else known if e is None else max(known, e)
            groups.setdefault((at or 0, known is not None), []).append(row)
        found = []
        for (at, told), rows in sorted(groups.items()):
            first = at if told else at - min(len(rows), source.tolerance) + 1
            known_at = tuple(range(first, first + len(rows)))
            ready = tuple(max(at, instant) for instant in known_at)
            found.append(cls(source.name, table.take(pa.array(rows)), known_at, ready))
        return found

    def upto(self, instant: int) -> tuple[PushedRows | None, PushedRows | None]:
        """The rows that are pushed by an instant (µs), and the others."""
        count = sum(ready <= instant for ready in self.ready)
        before = PushedRows(self.source, self.table.slice(0, count), self.known[:count], self.ready[:count])
        after = PushedRows(self.source, self.table.slice(count), self.known[count:], self.ready[count:])
        return (before if before.known else None), (after if after.known else None)


def _instants(source: PushSource, column: pa.Array) -> list[int | None]:
    if not pa.types.is_timestamp(column.type):
        raise SourceError(f"{source.title}: a time is {column.type}, and must be a timestamp")
    return instants(column.cast(pa.timestamp("us", column.type.tz), safe=False))


class Replay:
    """A store of its own that takes pushes as they become known; it vanishes with the object.

    service: over the test's rows. pushes: in any order.
    """

    def __init__(self, service: FeatureService, pushes: Sequence[PushedRows]) -> None:
        self.clock = ManualClock(to_datetime(0))
        self._left = sorted(pushes, key=lambda rows: rows.known)
        self._service = service.name
        self.store = FeatureStore.local(clock=self.clock)
        weakref.finalize(self, FeatureStore.close, self.store)
        if self._left:
            self.clock.set(to_datetime(self._left[0].known[0] - 1))
        self.store.apply([service])

    def everything(self) -> None:
        """Push all that is left."""
        self._push(self._left)
        self._left = []

    def upto(self, instant: int) -> None:
        """Push what is known by an instant (µs), and let the clock stand there."""
        parts = [rows.upto(instant) for rows in self._left]
        self._push([before for before, _ in parts if before is not None])
        self._left = [after for _, after in parts if after is not None]
        self.clock.set(to_datetime(instant))

    def _push(self, pushes: Sequence[PushedRows]) -> None:
        for rows in pushes:
            self.clock.set(to_datetime(rows.known[0] - 1))  # the store knows of a row from the next µs on
            self.store.push(rows.source, rows.table)

    def served(self, row: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        """What a lookup is served now, and the statuses of the features that views hold."""
        self.store.materialize(progress=False)
        result = self.store.get_online_features([row], self._service)
        columns, statuses = result.columns, result.statuses
        return (
            {column.name: columns[column.name][0] for column in result.service.columns},
            {name: status[0] for name, status in statuses.items()},
        )
