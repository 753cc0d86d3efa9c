"""Pushed rows that are kept aside in quarantine: looked at, pushed again after a correction, or discarded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from featurestore.clock import to_datetime
from featurestore.declare.push import KNOWN_AT, REPLACES, PushSource
from featurestore.errors import DeposedError, NotFoundError, PushError
from featurestore.lazy import pa, pc
from featurestore.push.push_queue import Advance
from featurestore.push.push_sources import Pushing
from featurestore.push.pushed import Pushed
from featurestore.push.quarantine_counts import happened
from featurestore.semantics.expectations import pushed_expectations, removing, unmet
from featurestore.semantics.values import scalars
from featurestore.sources.log import Log
from featurestore.sources.offline import Offline
from featurestore.sources.push_logs import QUARANTINE

REPLAYED = "(replayed from quarantine)"
"""Under which a source's log has the ids of rows that were taken again and are not erased yet."""

OTHER_COLUMNS = "the columns that the source has by now"
"""What a row does not meet that a former definition of the source kept aside."""

OVERTAKEN = (
    "another version of it was pushed since it was kept aside, or it was deleted; discard it, or replay it by its id, and it "
    "replaces that"
)
"""Why a row is not replayed that nobody named."""

ERASED_AT_ONCE = 100
"""Rows that are erased together: each erasure begins a segment of the log."""


def _text(ids: Sequence[int]) -> str:
    return ",".join(map(str, ids))


class QuarantinedRow(NamedTuple):
    """A row that counts nowhere, since it does not meet what is expected of it."""

    id: int | None
    """By which `replay_quarantined` and `discard_quarantined` name a pushed row; None of a row of a file."""
    place: str
    """Where it lies: when it was kept aside, or its file and its number there."""
    values: Mapping[str, Any]
    """Its columns: of a pushed row all, of a row of a file those that the view reads."""
    unmet: tuple[str, ...]
    """What it does not meet, by now; empty of a pushed row that could be pushed again."""


class PushedQuarantine:
    """The rows of one push source that are kept aside."""

    def __init__(self, source: PushSource, offline: Offline, pushing: Pushing) -> None:
        self._source, self._offline, self._pushing = source, offline, pushing

    def count(self) -> int:
        """How many there are; of what was counted before nothing is read."""
        log = self._log()
        return 0 if log is None else self._pushing.quarantine_counts.of(log, self._source.event_time)

    def rows(self, *, most: int | None = None) -> list[QuarantinedRow]:
        """They, in the order in which they were kept aside; so many at most."""
        return self._described(self._table().slice(0, most))

    def replay(self, ids: Sequence[int] | None) -> dict[int, Pushed | PushError]:
        """Push rows again that meet what is expected by now; what became of each, by its id. One that was taken is kept aside no more.

        The log keeps which were taken and not erased yet, in the same append as each row, so that none is taken twice. ids: only these,
        and those too of which another version was learned since, which they then replace.
        """
        table = self._chosen(ids)
        if not self._has_columns(table):
            why = "the source's columns were changed since it was kept aside; push its values as a row of now, and discard it"
            return {number: PushError(f"{self._source.title}: {why}") for number in table[KNOWN_AT].to_pylist()}
        self._erase_replayed()
        table = self._chosen(ids)
        done: dict[int, Pushed | PushError] = {}
        taken: list[int] = []
        pusher = self._pushing.pusher_of(self._source.name)
        overtaken = pusher.overtaken(table) if ids is None and pusher is not None else [False] * table.num_rows
        for place, row in enumerate(self._described(table)):
            assert row.id is not None
            if overtaken[place]:
                done[row.id] = PushError(f"{self._source.title}: {OVERTAKEN}")
                continue
            if row.unmet:
                done[row.id] = PushError(f"{self._source.title}: it does not meet {' and '.join(row.unmet)}")
                continue
            before, taken = _text(taken), [*taken, row.id]
            done[row.id] = self._pushed(table.slice(place, 1), before=before, after=_text(taken))
            if isinstance(done[row.id], PushError):
                taken.pop()
            if len(taken) == ERASED_AT_ONCE:
                self._erase_replayed()
                taken = []
        self._erase_replayed()
        return done

    def _pushed(self, row: pa.Table, *, before: str, after: str) -> Pushed | PushError:
        """What became of a row. before, after: the ids of those that were taken and not erased yet."""
        rows = row.select(list(self._source.columns))
        held = self._pushing.positions(self._source.name).get(REPLAYED)
        if (held or "") != before:
            raise self._is_replayed_by_another()
        try:
            answer = self._pushing.submit(self._source.name, rows, advance=Advance({REPLAYED: held}, {REPLAYED: after}))
            return answer.result()
        except DeposedError:
            raise self._is_replayed_by_another() from None
        except PushError as error:
            return error

    def _is_replayed_by_another(self) -> PushError:
        return PushError(f"{self._source.title}: another process replays rows of its quarantine; try again")

    def _erase_replayed(self) -> None:
        """Erase rows that were taken, also by a replay that was killed before it did, and then forget which these were."""
        held = self._pushing.positions(self._source.name).get(REPLAYED)
        if held:
            self._erase([int(number) for number in held.split(",")])
            nothing = self._pushing.submit(
                self._source.name, self._table().slice(0, 0).select(list(self._source.columns)),
                advance=Advance({REPLAYED: held}, {REPLAYED: ""}),
            )  # fmt: skip
            try:
                nothing.result()
            except DeposedError:
                raise self._is_replayed_by_another() from None

    def discard(self, ids: Sequence[int] | None) -> int:
        """Erase rows without pushing them; how many. ids: only these."""
        chosen = self._chosen(ids)
        return self._erase(chosen[KNOWN_AT].to_pylist()) if chosen.num_rows else 0

    def _erase(self, ids: Sequence[int]) -> int:
        return self._offline.log(self._source, QUARANTINE).erase(pa.array(ids, pa.int64()), kept=(REPLACES,))

    def _table(self) -> pa.Table:
        """The rows of the log that were not erased."""
        log = self._log()
        if log is None:
            columns = {name: pa.array([], of.arrow) for name, of in self._source.columns.items()}
            return pa.table({**columns, KNOWN_AT: pa.array([], pa.int64())})
        table = log.read()
        return table.filter(happened(table, self._source.event_time))

    def _log(self) -> Log | None:
        is_there = self._offline.logs.has(self._source.name, QUARANTINE)
        return self._offline.log(self._source, QUARANTINE) if is_there else None

    def _chosen(self, ids: Sequence[int] | None) -> pa.Table:
        table = self._table()
        if ids is None:
            return table
        known = {*table[KNOWN_AT].to_pylist()}
        for number in ids:
            if number not in known:
                raise NotFoundError(f"No row {number} of {self._source.title} is in quarantine")
        return table.filter(pc.is_in(table[KNOWN_AT], pa.array(ids, pa.int64())))

    def _has_columns(self, table: pa.Table) -> bool:
        """Whether rows have the columns that the source has by now; else they were kept aside by a former definition."""
        own = {field.name: field.type for field in table.schema if field.name not in {KNOWN_AT, REPLACES}}
        return own == {name: of.arrow for name, of in self._source.columns.items()}

    def _described(self, table: pa.Table) -> list[QuarantinedRow]:
        why = self._unmet(table) if self._has_columns(table) else [(OTHER_COLUMNS,)] * table.num_rows
        columns = {
            name: scalars(table[name].combine_chunks())
            for name in table.column_names
            if name not in {KNOWN_AT, REPLACES}
        }
        return [
            QuarantinedRow(
                number, f"kept aside at {to_datetime(number):%Y-%m-%d %H:%M:%S}Z",
                {name: values[row] for name, values in columns.items()}, why[row],
            )
            for row, number in enumerate(table[KNOWN_AT].to_pylist())
        ]  # fmt: skip

    def _unmet(self, table: pa.Table) -> list[tuple[str, ...]]:
        """What each row does not meet, of what is expected by now."""
        expectations = pushed_expectations(self._source)
        flags = unmet(self._source, expectations, table)
        return [
            tuple(expectations[place].said.title for place in removing(expectations) if flags[place][row])
            for row in range(table.num_rows)
        ]
