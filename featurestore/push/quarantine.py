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
"""Under which a source's log has the ids of rows that were taken again, or are discarded, and are not erased yet."""

TURN = "(turn at quarantine)"
"""Under which it has how often that was changed: whoever chose rows before somebody else's change is told, and chooses anew."""

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


class _Leaving(NamedTuple):
    """What the log of a source has under REPLAYED and TURN. ids: with commas between; "A:B" are all from A to B."""

    ids: str | None
    turn: str | None

    def then(self, ids: str) -> tuple[Advance, _Leaving]:
        """The change to other ids, which is made where nobody else made one, and what is there then."""
        after = _Leaving(ids, str(int(self.turn or 0) + 1))
        since = {REPLAYED: self.ids, TURN: self.turn}
        return Advance(since, {REPLAYED: ids, TURN: str(after.turn)}), after


class PushedQuarantine:
    """The rows of one push source that are kept aside.

    A row leaves by a replay or a discard, and by one of them: both note in the log which rows leave before these are erased, a replay in the append
    of the row itself.
    """

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
        leaving = self._erased(self._leaving())
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
            rows = table.slice(place, 1).select(list(self._source.columns))
            advance, after = leaving.then(_text([*taken, row.id]))
            try:
                done[row.id] = self._pushing.submit(self._source.name, rows, advance=advance).result()
            except DeposedError:
                raise self._is_changed_by_another() from None
            except PushError as error:
                done[row.id] = error
                continue
            taken, leaving = [*taken, row.id], after
            if len(taken) == ERASED_AT_ONCE:
                leaving, taken = self._erased(leaving), []
        self._erased(leaving)
        return done

    def _is_changed_by_another(self) -> PushError:
        return PushError(f"{self._source.title}: another process replays or discards rows of its quarantine; try again")

    def _leaving(self) -> _Leaving:
        positions = self._pushing.positions(self._source.name)
        return _Leaving(positions.get(REPLAYED), positions.get(TURN))

    def _noted(self, leaving: _Leaving, ids: str) -> _Leaving:
        """Note which rows leave, without a row."""
        advance, after = leaving.then(ids)
        nothing = pa.table({name: pa.array([], of.arrow) for name, of in self._source.columns.items()})
        try:
            self._pushing.submit(self._source.name, nothing, advance=advance).result()
        except DeposedError:
            raise self._is_changed_by_another() from None
        return after

    def _erased(self, leaving: _Leaving) -> _Leaving:
        """Erase the rows that leave, also where whoever noted it was killed before, and then forget which these were."""
        if not leaving.ids:
            return leaving
        self._erase(self._numbers(leaving.ids))
        return self._noted(leaving, "")

    def _numbers(self, ids: str) -> list[int]:
        found: list[int] = []
        for said in ids.split(","):
            first, _, last = said.partition(":")
            if last:
                found += (number for number in self._table()[KNOWN_AT].to_pylist() if int(first) <= number <= int(last))
            else:
                found.append(int(first))
        return found

    def discard(self, ids: Sequence[int] | None) -> int:
        """Erase rows without pushing them; how many this call erased, of which none was pushed. ids: only these."""
        table = self._chosen(ids)
        if not table.num_rows:
            return 0
        if not self._has_columns(
            table
        ):  # nobody replays them, and the source takes no rows beside which that could be noted
            return self._erase(table[KNOWN_AT].to_pylist())
        leaving = self._erased(self._leaving())
        there = self._table()[KNOWN_AT].to_pylist()
        chosen = there if ids is None else sorted({*ids} & {*there})
        if not chosen:
            return 0
        leaving = self._noted(leaving, f"{chosen[0]}:{chosen[-1]}" if ids is None else _text(chosen))
        count = self._erase(chosen)
        self._noted(leaving, "")
        return count

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
