"""One pusher a source: those who push at the same time share one turn, and turns follow each other in every process.

A turn holds the log's lock and goes: read the state → apply what a dead pusher left → sort out retries, late rows and
rows from the future → reserve known_at → append to the log (fsync) → wait until the clock has come there → write all
records, identities and the state at once. A pusher that dies on the way leaves a reservation, and perhaps rows in the log;
lookups answer for the instant before it until the next turn has applied them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from featurestore.declare.push import KNOWN_AT, REPLACES, PushSource
from featurestore.errors import OnlineStoreError, PushError
from featurestore.operations.pushing.applying import Applying, Reading
from featurestore.operations.pushing.folding import folded_records
from featurestore.operations.pushing.identities import IDENTITY, Identity, digests_of, identity_keys
from featurestore.operations.pushing.line import Line
from featurestore.operations.pushing.merging import PushedView
from featurestore.operations.pushing.rows import table_of_rows
from featurestore.operations.pushing.sorting import Known, Pushed, Sorted, next_version, sort_rows
from featurestore.operations.pushing.state import NEVER, SourceState, source_prefix, state_key
from featurestore.semantics.values import instants
from featurestore.semantics.view import ResolvedView
from featurestore.stores.codec import pack_watermark
from featurestore.stores.offline import Offline
from featurestore.stores.online import Guard, OnlineStore
from featurestore.stores.push_logs import LATE

__all__ = ["Applied", "Pushed", "Pusher"]

MARGIN = 2_000
"""µs by which known_at is reserved ahead of a clock that runs, at least, so that the reservation is seen before it comes.
It is twice what a reservation has taken of late: one that is seen too late has to be made again."""

Puts = dict[bytes, bytes | None]
T = TypeVar("T")


class Applied(NamedTuple):
    """A push source as it is applied now, the view versions over it, and those that are replaced and not freed yet."""

    source: PushSource
    views: list[ResolvedView]
    left: list[ResolvedView]


class _ChangedError(OnlineStoreError):
    """The state changed before this pusher wrote anything: the last write of one that was killed can show only after its
    lock is gone, on its way to a server, or until the next writer of an embedded store settles it."""


def _twice(attempt: Callable[[], T]) -> T:
    """What is done under the log's lock; once more where the write of one that was killed came between."""
    try:
        return attempt()
    except _ChangedError:
        return attempt()


class _UnreadableError(Exception):
    """A derived column or a condition cannot be computed for a row of the turn, of which nothing was kept."""


class Pusher:
    """Pushes to one source; safe to use from several threads, beside pushers in other processes.

    applied: what is applied of the source now. wait: returns when the online store's clock has come to an instant (µs),
    and raises where that cannot be expected.
    """

    def __init__(
        self, source: PushSource, offline: Offline, store: OnlineStore, *, project: str,
        applied: Callable[[], Applied], wait: Callable[[int], None], margin: int = MARGIN,
    ) -> None:  # fmt: skip
        self.source = source
        self._offline, self._store, self._project = offline, store, project
        self._applied, self._wait = applied, wait
        self._least, self._margin = margin, margin * 10  # µs: at least, and now; nothing is known of the store yet
        self._state_key = state_key(project, source)
        self._prefix = source_prefix(project, source)
        self._log = offline.log(source)
        self._applying = Applying(offline, store, self._log, project=project)
        self._line, self._turn = Line(), threading.Lock()
        self._thread = ThreadPoolExecutor(1, f"push {source.name}")
        self._held: bytes | None = None  # the state online, while the log is locked
        self._wrote = False  # whether this one has written it since

    def push(self, rows: Any, *, json: bool = False) -> Pushed:
        """Keep rows and apply them; when it returns they are on the disk, and the next lookup sees them.

        Raises PushError, with nothing of this push kept; OnlineStoreError where the rows may be in the log but not online
        yet: pushing them again is safe where the source has an identity.
        """
        return self.submit(rows, json=json).result()

    def submit(self, rows: Any, *, json: bool = False) -> Future[Pushed]:
        """`push` that does not wait: what will become of the rows. Raises PushError for rows that cannot be read.

        One thread takes the turns of all who wait, which then wake up for their own answer only.
        """
        answer = self._line.join(table_of_rows(self.source, rows, json=json))
        if self._line.needs_service():
            self._thread.submit(self._serve)
        return answer

    def _serve(self) -> None:
        """Take turns until nobody waits."""
        while self._line.goes_on():
            with self._turn:
                self._take_turn()

    def repair(self) -> None:
        """Apply what is in the log and not online yet."""
        with self.alone():
            _twice(lambda: self._caught_up(self._applied(), *self._read_state()))

    def forget(self) -> int:
        """Forget the identities of rows that are older than the lateness, which nothing replaces any more; how many."""
        count = 0
        for keys in self._store.scan(self._prefix + IDENTITY):
            with self.alone():
                now, values = self._store.get(keys)
                earliest = now - self._applied().source.lateness
                held = zip(keys, values, strict=True)
                old = [key for key, data in held if data is not None and Identity.unpack(data).time < earliest]
                if old:
                    self._store.write(dict.fromkeys(old))
                count += len(old)
        return count

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep every pusher of the source waiting, in all processes."""
        with self._turn, self._log.lock():
            yield

    def fill(self, view: ResolvedView, publish: Callable[[int], Puts], batch: int = 4_000) -> int:
        """Make every record of a view version from the log, and publish it in one step; the number of keys.

        publish: what to write last, for the instant that the records are true for. Pushes wait meanwhile, lookups do not.
        """
        pushed = PushedView(self._project, view)
        with self.alone():
            state, now = self._read_state()
            state = self._caught_up(self._applied(), state, now)
            upto = max(state.applied, now)
            self._swap({}, SourceState(upto))  # before records of that instant are there to be looked up
            left = {key for keys in self._store.scan(pushed.keys.record_prefix) for key in keys}
            puts: Puts = {}
            count = 0
            for key, record in folded_records(pushed, self._offline, upto=upto):
                puts[key] = record
                left.discard(key)
                count += 1
                if len(puts) == batch:
                    self._store.write(puts)
                    puts = {}
            for key in left:  # of keys whose rows were deleted since a fill that never came to its end
                puts[key] = None
                if len(puts) == batch:
                    self._store.write(puts)
                    puts = {}
            self._swap({**puts, **publish(upto)}, SourceState(upto))
            return count

    # --- one turn ---------------------------------------------------------------------------

    def _take_turn(self) -> None:
        requests = self._line.take()
        if not requests:
            return
        try:
            outcomes = self._pushed([request.table for request in requests])
        except BaseException as error:  # noqa: BLE001 - raised where each of them is waited for
            for request in requests:
                request.answer.set_exception(error)
            return
        for request, outcome in zip(requests, outcomes, strict=True):
            if isinstance(outcome, PushError):
                request.answer.set_exception(outcome)
            else:
                request.answer.set_result(outcome)

    def _pushed(self, tables: Sequence[pa.Table]) -> Sequence[Pushed | PushError]:
        with self._log.lock():
            return _twice(lambda: self._kept(tables))

    def _kept(self, tables: Sequence[pa.Table]) -> Sequence[Pushed | PushError]:
        applied = self._current()
        state, now = self._read_state()
        applied.source.check_open(now)
        state = self._caught_up(applied, state, now)
        now = max(now, state.applied)
        if self._log.last_known_at() is None and applied.source.history is None:
            self._publish_empty(applied, now)
        views = self._applying.published([*applied.views, *applied.left])
        whole = pa.concat_tables(tables)
        known = self._known(applied.source, whole)
        refused: Mapping[int, PushError] = {}
        while True:
            found = sort_rows(applied.source, tables, known, now=now, refused=refused)
            if not found.fresh:
                break
            try:
                self._write(applied.source, whole.take(pa.array(found.fresh)), found, state, views=views)
                break
            except _UnreadableError as error:
                refused = self._unreadable(tables, views, refused, str(error))
        if found.late:
            self._keep_aside(whole.take(pa.array(found.late)), now)
        return found.outcomes

    def _current(self) -> Applied:
        applied = self._applied()
        if applied.source.columns != self.source.columns:
            raise PushError(
                f"{applied.source.title}: its columns were changed since it was first pushed to, and its log keeps those "
                "that it began with; give the source another name"
            )
        return applied

    def _read_state(self) -> tuple[SourceState, int]:
        reading = self._store.get([self._state_key])
        self._held, self._wrote = reading.values[0], False
        return SourceState.unpack(reading.values[0]), reading.now

    def _caught_up(self, applied: Applied, state: SourceState, now: int) -> SourceState:
        """Apply what the log has and the records have not; a reservation without rows is given up."""
        last = self._log.last_known_at()
        if state.reserved is None and (last is None or last <= state.applied):
            return state
        views = self._applying.published([*applied.views, *applied.left])
        if state.applied == NEVER and not views:
            state = self._remembered(applied.source, state, now)
        elif (rows := self._log.tail(state.applied)).num_rows:
            settled = _settled(applied.source, rows)
            self._wait(settled)
            puts = self._applying.records(self._applying.read(views, rows), upto=settled)
            state = SourceState(settled)
            self._swap({**puts, **self._identities_of(applied.source, rows)}, state)
        if state.reserved is not None:
            state = SourceState(state.applied)
            self._swap({}, state)
        return state

    def _remembered(self, source: PushSource, state: SourceState, now: int) -> SourceState:
        """After the online store was emptied, the identities of those rows that can still be pushed again, by segment."""
        last = self._log.last_known_at()
        after = min(now, now if last is None else last) - source.lateness - source.tolerance - 1
        for segment in self._log.segments():
            if segment.last is not None and segment.last > after:
                rows = self._log.read(after, segment.last)
                settled = _settled(source, rows)
                self._wait(settled)
                done = segment.last == last
                state = SourceState(settled) if done else SourceState(segment.last, segment.last + 1)
                self._swap(self._identities_of(source, rows), state)
                after = segment.last
        return state

    def _known(self, source: PushSource, rows: pa.Table) -> Known:
        """What is remembered of each row's identity."""
        if not source.identity:
            return Known({}, [], [])
        keys = identity_keys(source, self._prefix, rows)
        distinct = list(dict.fromkeys(keys))
        held = self._store.get(distinct).values
        known = {key: None if data is None else Identity.unpack(data) for key, data in zip(distinct, held, strict=True)}
        return Known(known, keys, digests_of(source, rows))

    def _unreadable(
        self, tables: Sequence[pa.Table], views: Sequence[PushedView], refused: Mapping[int, PushError], why: str
    ) -> dict[int, PushError]:
        """The requests that have a row for which an expression fails, found by reading each alone."""
        found = dict(refused)
        for number, table in enumerate(tables):
            if number not in found:
                failure = self._first_failure(table, views)
                if failure is not None:
                    found[number] = PushError(f"{self.source.title}: row {failure[0]}: {failure[1]}")
        if len(found) == len(refused):
            raise PushError(f"{self.source.title}: {why}")
        return found

    def _first_failure(self, table: pa.Table, views: Sequence[PushedView]) -> tuple[int, str] | None:
        """The first row for which an expression fails, and how; found by halving."""
        first, end, why = 0, table.num_rows + 1, ""
        while end - first > 1:  # the first rows are read without failure, up to `end` there is one
            middle = (first + end) // 2
            rows = table.slice(0, middle)
            try:
                self._applying.read(views, _stamped(rows, range(rows.num_rows), [None] * rows.num_rows))
                first = middle
            except ValueError as error:
                end, why = middle, str(error)
        return (first, why) if why else None

    def _keep_aside(self, rows: pa.Table, now: int) -> None:
        log = self._offline.log(self.source, LATE)
        with log.lock():
            last = log.last_known_at()
            first = now if last is None else max(now, last + 1)
            stamped = _stamped(rows, range(first, first + rows.num_rows), [None] * rows.num_rows)
            log.append(_batches(stamped, log.schema))

    # --- reserve, append, apply -------------------------------------------------------------

    def _write(
        self, source: PushSource, rows: pa.Table, found: Sorted, state: SourceState, *, views: Sequence[PushedView]
    ) -> None:
        first = self._reserve(state)
        table = _stamped(rows, range(first, first + rows.num_rows), found.replaced(first))
        try:
            reading: Reading = self._applying.read(views, table)  # what fails must never come into the log
        except ValueError as error:
            self._swap({}, SourceState(state.applied))
            raise _UnreadableError(str(error)) from error
        self._log.append(_batches(table, self._log.schema))
        settled = _settled(source, table)
        puts = self._applying.records(reading, upto=settled)
        self._wait(settled)
        self._swap({**puts, **found.renewed(first)}, SourceState(settled))

    def _reserve(self, state: SourceState) -> int:
        """The first instant of a turn, reserved before the clock has come there."""
        if state.applied != NEVER:
            self._wait(state.applied)  # a clock that is behind is waited for before anything is kept
        last = self._log.last_known_at()
        while True:
            now = self._store.get([]).now
            first = max(now, state.applied, *([] if last is None else [last])) + 1 + self._margin
            self._swap({}, SourceState(state.applied, first))
            seen = self._store.get([]).now
            self._margin = max(self._least, 2 * (seen - now), self._margin * 9 // 10)
            if seen < first:
                return first

    def _swap(self, puts: Puts, after: SourceState) -> None:
        """Write, where the state is still the one that was read when the log was locked."""
        packed, guard = after.pack(), Guard(self._state_key, self._held)
        if not self._store.write({**puts, self._state_key: packed}, guard=guard):
            raise (OnlineStoreError if self._wrote else _ChangedError)(
                f"{self.source.title}: another pusher changed its state online while this one held the log's lock; do all "
                "pushers of the project use one folder of logs?"
            )
        self._held, self._wrote = packed, True

    def _publish_empty(self, applied: Applied, now: int) -> None:
        """Before the first row: every view is complete, since there is nothing to fill it with."""
        marks = [PushedView(self._project, view).keys.watermark_key for view in applied.views]
        unset = [mark for mark, held in zip(marks, self._store.get(marks).values, strict=True) if held is None]
        if unset:
            self._store.write(dict.fromkeys(unset, pack_watermark([now])))

    def _identities_of(self, source: PushSource, rows: pa.Table) -> Puts:
        """What is to be remembered of rows that the log has and a dead pusher did not get to say."""
        known = self._known(source, rows)
        times, learned = instants(rows[source.event_time]), rows[KNOWN_AT].to_pylist()
        identities = dict(known.identities)
        for n, key in enumerate(known.keys):
            identities[key] = next_version(identities[key], learned[n], times[n], known.digests[n])
        return {key: held.pack() for key, held in identities.items() if held is not None}


def _settled(source: PushSource, rows: pa.Table) -> int:
    """The instant (µs) by which logged rows are all known and have happened: from then on they may be looked up."""
    happened = pc.max(rows[source.event_time].cast(pa.int64())).as_py()
    known: int = rows[KNOWN_AT][-1].as_py()
    return known if happened is None else max(known, happened)


def _stamped(rows: pa.Table, known: Sequence[int], replaces: Sequence[int | None]) -> pa.Table:
    return rows.append_column(KNOWN_AT, pa.array(known, pa.int64())).append_column(
        REPLACES, pa.array(replaces, pa.int64())
    )


def _batches(rows: pa.Table, schema: pa.Schema) -> list[pa.RecordBatch]:
    batches: list[pa.RecordBatch] = rows.cast(schema).combine_chunks().to_batches()
    return batches
