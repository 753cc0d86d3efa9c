"""One pusher a source: those who push at the same time share one turn, and turns follow each other in every process.

A turn holds the log's lock and goes: read the state → apply what a dead pusher left → sort out retries, late rows and
rows from the future → reserve known_at → append to the log (fsync) → wait until the clock has come there → write all
records, identities and the state at once. A pusher that dies on the way leaves a reservation, and perhaps rows in the log;
lookups answer for the instant before it until the next turn has applied them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

from featurestore.clock import to_datetime
from featurestore.declare.push import KNOWN_AT, REPLACES, PushSource
from featurestore.errors import OnlineStoreError, PushError
from featurestore.operations.pushing.folding import folded_records
from featurestore.operations.pushing.identities import Identity, digests_of, identity_keys
from featurestore.operations.pushing.merging import PushedView, Read, read_rows
from featurestore.operations.pushing.rows import table_of_rows
from featurestore.operations.pushing.state import SourceState, source_prefix, state_key
from featurestore.semantics.values import instants
from featurestore.semantics.view import ResolvedView
from featurestore.stores.codec import pack_watermark
from featurestore.stores.offline import Offline
from featurestore.stores.online import Guard, OnlineStore

__all__ = ["Pushed", "Pusher"]

TURN = 5_000
"""Rows that one turn takes at most, however many wait."""

MARGIN = 2_000
"""µs by which known_at is reserved ahead of a clock that runs, so that the reservation is seen before it comes."""


class Pushed(NamedTuple):
    """What became of the rows of one push: kept, unchanged (retries), late (kept aside)."""

    accepted: int
    unchanged: int
    late: int


@dataclass
class _Request:
    table: pa.Table
    answer: Future[Pushed] = field(default_factory=Future)


class _Mine(NamedTuple):
    """The known_at that a fresh row of this turn will have, before it is reserved."""

    place: int


class _Sorted(NamedTuple):
    """The rows of a turn that are new, beside what each replaces; late ones; and what becomes of each request."""

    fresh: list[int]
    replaces: list[int | _Mine | None]
    identities: dict[bytes, list[Any]]
    late: list[int]
    outcomes: list[Pushed | PushError]


class Pusher:
    """Pushes to one source; safe to use from several threads, beside pushers in other processes.

    versions: the view versions over the source that are complete online, or being filled. wait: returns when the online
    store's clock has come to an instant (µs).
    """

    def __init__(
        self, source: PushSource, offline: Offline, store: OnlineStore, *, project: str,
        versions: Callable[[], list[ResolvedView]], wait: Callable[[int], None], margin: int = MARGIN,
    ) -> None:  # fmt: skip
        self.source = source
        self._offline, self._store, self._project = offline, store, project
        self._versions, self._wait, self._margin = versions, wait, margin
        self._state_key = state_key(project, source)
        self._prefix = source_prefix(project, source)
        self._log = offline.log(source)
        self._waiting: list[_Request] = []
        self._gate, self._turn = threading.Lock(), threading.Lock()
        self._views: dict[str, PushedView] = {}
        self._held: bytes | None = None  # the state online, while the log is locked

    def push(self, rows: Any, *, json: bool = False) -> Pushed:
        """Keep rows and apply them; when it returns they are on the disk, and the next lookup sees them.

        Raises PushError, with nothing of this push kept; OnlineStoreError where the rows may be in the log but not online
        yet: pushing them again is safe where the source has an identity.
        """
        request = _Request(table_of_rows(self.source, rows, json=json))
        if not request.table.num_rows:
            return Pushed(0, 0, 0)
        with self._gate:
            self._waiting.append(request)
        with self._turn:
            if not request.answer.done():
                self._take_turn()
        return request.answer.result()

    def repair(self) -> None:
        """Apply what is in the log and not online yet."""
        with self._turn, self._log.lock():
            state, _ = self._read_state()
            if state.reserved is not None or self._behind(state):
                self._caught_up(state)

    def fill(self, view: ResolvedView, publish: Callable[[int], dict[bytes, bytes | None]], batch: int = 4_000) -> int:
        """Make every record of a view version from the log, and publish it in one step; the number of keys.

        publish: what to write last, for the instant that the records are true for. Pushes wait meanwhile.
        """
        pushed = PushedView(self._project, view)
        with self._turn, self._log.lock():
            state, now = self._read_state()
            state = self._caught_up(state)
            upto = max(state.applied, now)
            puts: dict[bytes, bytes | None] = {}
            count = 0
            for key, record in folded_records(pushed, self._offline, upto=upto):
                puts[key] = record
                count += 1
                if len(puts) == batch:
                    self._store.write(puts)
                    puts = {}
            self._swap({**puts, **publish(upto)}, SourceState(upto))
            return count

    # --- one turn ---------------------------------------------------------------------------

    def _take_turn(self) -> None:
        with self._gate:
            requests: list[_Request] = []
            rows = 0
            while self._waiting and (not requests or rows + self._waiting[0].table.num_rows <= TURN):
                request = self._waiting.pop(0)
                requests.append(request)
                rows += request.table.num_rows
        try:
            outcomes = self._pushed([request.table for request in requests])
        except BaseException as error:
            for request in requests:
                request.answer.set_exception(error)
            if not isinstance(error, Exception):
                raise
            return
        for request, outcome in zip(requests, outcomes, strict=True):
            if isinstance(outcome, PushError):
                request.answer.set_exception(outcome)
            else:
                request.answer.set_result(outcome)

    def _pushed(self, tables: Sequence[pa.Table]) -> Sequence[Pushed | PushError]:
        with self._log.lock():
            state, now = self._read_state()
            self.source.check_open(now)
            if state.reserved is not None or self._behind(state):
                state = self._caught_up(state)
            now = max(now, state.applied)
            if self._log.last_known_at() is None and self.source.history is None:
                self._publish_empty(now)
            found = self._sorted(tables, now)
            table = pa.concat_tables(tables)
            if found.late:
                self._keep_aside(table.take(pa.array(found.late)), now)
            if found.fresh:
                self._write(table.take(pa.array(found.fresh)), found, state)
            return found.outcomes

    def _read_state(self) -> tuple[SourceState, int]:
        reading = self._store.get([self._state_key])
        self._held = reading.values[0]
        return SourceState.unpack(reading.values[0]), reading.now

    def _behind(self, state: SourceState) -> bool:
        last = self._log.last_known_at()
        return last is not None and last > state.applied

    def _caught_up(self, state: SourceState) -> SourceState:
        """Apply what the log has and the records have not; a reservation without rows is given up."""
        rows = self._log.tail(state.applied)
        if not rows.num_rows:
            if state.reserved is not None:
                self._swap({}, SourceState(state.applied))
            return SourceState(state.applied)
        last = rows[KNOWN_AT][-1].as_py()
        self._wait(last)
        identities = self._identities_of(rows)
        puts = self._applied(rows)
        self._swap({**puts, **identities}, SourceState(last))
        return SourceState(last)

    def _sorted(self, tables: Sequence[pa.Table], now: int) -> _Sorted:
        source = self.source
        earliest, latest = now - source.lateness, now + source.tolerance
        whole = pa.concat_tables(tables)
        identities, keys, digests = self._known_identities(whole) if source.identity else ({}, [], [])
        found = _Sorted([], [], identities, [], [])
        first = 0
        for table in tables:
            times = instants(table[source.event_time])
            ahead = next((n for n, e in enumerate(times) if e is not None and e > latest), None)
            if ahead is not None:
                found.outcomes.append(self._ahead(ahead, times[ahead], now))
            else:
                found.outcomes.append(_sort(found, times, range(first, first + len(times)), keys, digests, earliest))
            first += len(times)
        return found

    def _ahead(self, row: int, happened: int | None, now: int) -> PushError:
        assert happened is not None
        return PushError(
            f"{self.source.title}: row {row} happened at {to_datetime(happened).isoformat()}, and the store's clock is at "
            f"{to_datetime(now).isoformat()}; a row may be at most {self.source.tolerance / 1e6:g} s ahead of it"
        )

    def _known_identities(self, rows: pa.Table) -> tuple[dict[bytes, list[Any]], list[bytes], list[bytes]]:
        """What is remembered of each row's identity, by its key: [identity or None, changed]; the rows' keys and digests."""
        keys = identity_keys(self.source, self._prefix, rows)
        distinct = list(dict.fromkeys(keys))
        held = self._store.get(distinct).values
        known = {
            key: [None if data is None else Identity.unpack(data)] for key, data in zip(distinct, held, strict=True)
        }
        return known, keys, digests_of(self.source, rows)

    def _keep_aside(self, rows: pa.Table, now: int) -> None:
        log = self._offline.log(self.source, "late")
        with log.lock():
            last = log.last_known_at()
            first = now if last is None else max(now, last + 1)
            log.append(_stamped(rows, range(first, first + rows.num_rows), [None] * rows.num_rows, log.schema))

    # --- reserve, append, apply -------------------------------------------------------------

    def _write(self, rows: pa.Table, found: _Sorted, state: SourceState) -> None:
        first = self._reserve(state)
        replaces = [first + n.place if isinstance(n, _Mine) else n for n in found.replaces]
        known = range(first, first + rows.num_rows)
        self._log.append(_stamped(rows, known, replaces, self._log.schema))
        table = pa.Table.from_batches(_stamped(rows, known, replaces, self._log.schema))
        identities = {
            key: _renewed(held[0], first).pack() for key, held in found.identities.items() if held[0] is not None
        }
        puts = self._applied(table)
        latest = max((e for e in instants(table[self.source.event_time]) if e is not None), default=first)
        self._wait(max(known[-1], latest))
        self._swap({**puts, **identities}, SourceState(known[-1]))

    def _reserve(self, state: SourceState) -> int:
        """The first instant of a turn, reserved before the clock has come there."""
        margin = self._margin
        last = self._log.last_known_at()
        while True:
            now = self._store.get([]).now
            first = max(now, state.applied, *([] if last is None else [last])) + 1 + margin
            self._swap({}, SourceState(state.applied, first))
            if self._store.get([]).now < first:
                return first
            margin = max(1, margin * 2)

    def _swap(self, puts: dict[bytes, bytes | None], after: SourceState) -> None:
        """Write, where the state is still the one that was read when the log was locked."""
        packed, guard = after.pack(), Guard(self._state_key, self._held)
        if not self._store.write({**puts, self._state_key: packed}, guard=guard):
            raise OnlineStoreError(
                f"{self.source.title}: another pusher changed its state online while this one held the log's lock; do all "
                "pushers of the project use one folder of logs?"
            )
        self._held = packed

    def _applied(self, rows: pa.Table) -> dict[bytes, bytes | None]:
        """The records of all views with these logged rows in them."""
        views = self._published()
        if not views:
            return {}
        read = read_rows(self.source, views, rows)
        replaced = self._replaced(read, views)
        puts: dict[bytes, bytes | None] = {}
        for view in views:
            puts.update(self._records(view, read, replaced, upto=read.rows[-1].known_at))
        return puts

    def _published(self) -> list[PushedView]:
        """The view versions that are complete online; the others read the log when they are filled."""
        versions = self._versions()
        self._views = {v.fingerprint: self._views.get(v.fingerprint) or PushedView(self._project, v) for v in versions}
        views = list(self._views.values())
        marks = self._store.get([view.keys.watermark_key for view in views]).values
        return [view for view, mark in zip(views, marks, strict=True) if mark is not None]

    def _publish_empty(self, now: int) -> None:
        """Before the first row: every view is complete, since there is nothing to fill it with."""
        marks = [PushedView(self._project, view).keys.watermark_key for view in self._versions()]
        unset = [mark for mark, held in zip(marks, self._store.get(marks).values, strict=True) if held is None]
        if unset:
            self._store.write(dict.fromkeys(unset, pack_watermark([now])))

    def _replaced(self, read: Read, views: list[PushedView]) -> list[dict[str, Any]]:
        """The columns of the rows that are replaced."""
        found = []
        for known_at in {n for n in read.replaces if n is not None}:
            before = read_rows(self.source, views, self._log.read(known_at - 1, known_at))
            found += [row.values for row in before.rows]
        return found

    def _records(
        self, view: PushedView, read: Read, replaced: list[dict[str, Any]], *, upto: int
    ) -> dict[bytes, bytes | None]:
        columns = [key.column for key in view.view.keys]
        anew = {tuple(values[c] for c in columns) for values in replaced}
        anew |= {
            tuple(row.values[c] for c in columns)
            for row, n in zip(read.rows, read.replaces, strict=True) if n is not None
        }  # fmt: skip
        anew = {key for key in anew if None not in key}
        again = {view.keys.key(key) for key in anew}
        groups: dict[bytes, list[Any]] = {}
        for row, deletes in zip(read.rows, read.deletes, strict=True):
            key = view.key_of(row.values)
            if key is not None and not deletes and key not in again:
                groups.setdefault(key, []).append(row)
        puts: dict[bytes, bytes | None] = {}
        for (key, rows), record in zip(groups.items(), self._store.get(list(groups)).values, strict=True):
            puts[key] = view.merged(record, rows)
        if anew:
            puts |= dict.fromkeys(again)
            puts |= dict(folded_records(view, self._offline, upto=upto, keys=list(anew)))
        return puts

    def _identities_of(self, rows: pa.Table) -> dict[bytes, bytes | None]:
        """What is to be remembered of rows that the log has and a dead pusher did not get to say."""
        if not self.source.identity:
            return {}
        known, keys, digests = self._known_identities(rows)
        times, learned = instants(rows[self.source.event_time]), rows[KNOWN_AT].to_pylist()
        for n, key in enumerate(keys):
            known[key][0] = _next(known[key][0], learned[n], times[n], digests[n])
        return {key: held[0].pack() for key, held in known.items()}


def _sort(
    found: _Sorted, times: list[int | None], rows: range, keys: list[bytes], digests: list[bytes], earliest: int
) -> Pushed:
    """Sort one request's rows."""
    accepted = unchanged = late = 0
    for row, e in zip(rows, times, strict=True):
        held = found.identities[keys[row]] if keys else [None]
        if held[0] is not None and digests[row] in held[0].versions:
            unchanged += 1
            continue
        if e is not None and e < earliest:
            found.late.append(row)
            late += 1
            continue
        mine = _Mine(len(found.fresh))
        found.fresh.append(row)
        found.replaces.append(None if held[0] is None or held[0].event_time < earliest else held[0].known_at)
        if keys:
            held[0] = _next(held[0], mine, e, digests[row])
        accepted += 1
    return Pushed(accepted, unchanged, late)


NO_TIME = -(1 << 63)


def _next(held: Identity | None, known_at: Any, event_time: int | None, digest: bytes) -> Identity:
    """The identity after a version more; a version without a time (a deletion) leaves the time as it was."""
    before = () if held is None else held.versions
    time = event_time if event_time is not None else NO_TIME if held is None else held.event_time
    return Identity(known_at, time, (*before, digest))


def _renewed(identity: Identity, first: int) -> Identity:
    """The identity with the known_at that its place among the fresh rows stands for."""
    mine: Any = identity.known_at
    return identity._replace(known_at=first + mine.place) if isinstance(mine, _Mine) else identity


def _stamped(rows: pa.Table, known: range, replaces: list[int | None], schema: pa.Schema) -> list[pa.RecordBatch]:
    stamped = rows.append_column(KNOWN_AT, pa.array(known, pa.int64())).append_column(
        REPLACES, pa.array(replaces, pa.int64())
    )
    batches: list[pa.RecordBatch] = stamped.cast(schema).combine_chunks().to_batches()
    return batches
