"""One pusher a source: those who push at the same time share one batch, and batches follow each other in every process.

A batch holds the log's lock and goes: read the state → apply what the log has and the records have not → sort out
retries, late rows and rows from the future → reserve known_at → append to the log (fsync) → wait until the clock has come
there → write all records, identities and the state at once. A pusher that dies on the way leaves a reservation, and perhaps
rows in the log; lookups answer for the last confirmed instant, which is before it, until the next batch has applied them.

What is confirmed is only ever raised under the lock, when the records have all of the log, and every known_at lies
beyond all that was. So it is true of each state that the store was ever in, also of one that it goes back to.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from featurestore.clock import to_datetime
from featurestore.declare.push import KNOWN_AT, REPLACES, PushSource
from featurestore.durable.forks import renewed_in_child
from featurestore.errors import (
    FeatureStoreError,
    LogBusyError,
    OnlineStoreError,
    OnlineUnavailableError,
    PushError,
)
from featurestore.lazy import pa, pc
from featurestore.online import Guard, OnlineStore
from featurestore.online.source_state import NEVER, SourceState, state_key
from featurestore.online.value_checksums import read_past_damage
from featurestore.online.view_codec import ViewCodec, pack_watermark, source_prefix
from featurestore.push.apply_log import Applying, BatchReading, missing_rows
from featurestore.push.current_rows import CurrentRows, outdated
from featurestore.push.deduplicate import (
    IDENTITY,
    Deduplicated,
    Identity,
    KnownIdentities,
    deduplicate,
    digests_of,
    identity_keys,
    next_version,
)
from featurestore.push.merge_rows import PushedView
from featurestore.push.push_queue import Fate, PushAnswer, PushQueue, QueuedPush
from featurestore.push.pushed import Pushed, rows_without_key
from featurestore.push.rebuild_records import folded_records
from featurestore.push.rows import given_rows, write_rows
from featurestore.semantics.rows import counts_from
from featurestore.semantics.values import instants
from featurestore.semantics.view import ResolvedView
from featurestore.sources.log import Return
from featurestore.sources.offline import Offline
from featurestore.sources.push_logs import LATE

__all__ = ["AppliedSource", "Pushed", "Pusher", "TakenBack"]

GIVEN_UP = "Nobody waits for this push any more"
"""What is said of a push to nobody."""

Puts = dict[bytes, bytes | None]
T = TypeVar("T")


class AppliedSource(NamedTuple):
    """A push source as it is applied now, the view versions over it, those that are replaced and not freed yet, and those that are
    refreshed, which materialize fills.

    gone: the watermark keys of the versions over it that were applied once and are none of these.
    """

    source: PushSource
    views: list[ResolvedView]
    left: list[ResolvedView]
    refreshed: Sequence[ResolvedView] = ()
    gone: Callable[[], list[bytes]] = list


class TakenBack(NamedTuple):
    """How many rows were taken out of a log, and the Parquet file in which they are now, which can be pushed again."""

    rows: int
    file: Path | None


class _StateChangedError(Exception):
    """The state changed under the hands of this pusher: the last write of one that was killed can show only after its
    lock is gone, on its way to a server, or until the next writer of an embedded store settles it; or the store lost it.

    error: what to say where it happens again.
    """

    def __init__(self, error: OnlineStoreError) -> None:
        super().__init__(str(error))
        self.error = error


def _twice(attempt: Callable[[], T]) -> T:
    """What is done under the log's lock; once more where the state changed before anything was kept."""
    try:
        return attempt()
    except _StateChangedError:
        try:
            return attempt()
        except _StateChangedError as again:
            raise again.error from None


class _GivenUpError(Exception):
    """Nobody waits any more for some requests of a batch, of which nothing was kept yet."""

    def __init__(self, requests: Sequence[QueuedPush]) -> None:
        super().__init__(GIVEN_UP)
        self.requests = requests


class _UnreadableError(Exception):
    """A derived column or a condition cannot be computed for a row of the batch, of which nothing was kept."""


class Pusher:
    """Pushes to one source; safe to use from several threads, beside pushers in other processes.

    applied: what is applied of the source now. wait: returns when the online store's clock has come to an instant (µs),
    and raises where that cannot be expected.
    """

    def __init__(
        self, source: PushSource, offline: Offline, store: OnlineStore, *, project: str,
        applied: Callable[[], AppliedSource], wait: Callable[[int], None],
    ) -> None:  # fmt: skip
        self.source = source
        self._offline, self._store, self._project = offline, store, project
        self._applied, self._wait = applied, wait
        self._state_key = state_key(project, source, tagged=store.tagged)
        self._prefix = source_prefix(project, source.name, tagged=store.tagged)
        self._log = offline.log(source)
        self._applying = Applying(offline, store, self._log, project=project)
        self.renew()
        renewed_in_child(self)
        self._held: bytes | None = None  # the state online, while the log is locked

    def renew(self) -> None:
        """Begin with nobody waiting: as a pusher is made, and in a child, where the parent's thread takes no batches."""
        self._queue, self._batch_lock = PushQueue(), threading.Lock()
        self._thread = ThreadPoolExecutor(1, f"push {self.source.name}")

    def push(self, rows: Any, *, json: bool = False) -> Pushed:
        """Keep rows and apply them; when it returns they are on the disk, and the next lookup sees them.

        Raises PushError, with nothing of this push kept; OnlineStoreError and LogError, which say whether the rows were
        kept. Pushing them again is safe where the source has an identity.
        """
        return self.submit(rows, json=json).result()

    def submit(self, rows: Any, *, json: bool = False, overwrite: bool | CurrentRows = False) -> PushAnswer:
        """`push` that does not wait: what will become of the rows. Raises PushError for rows that cannot be read.

        overwrite: the rows say what they are from now on, whatever they were before; where current rows of a key are given, only
        while these are the current ones, and RowsChangedError else. One thread takes the batches of all who wait, which then
        wake up for their own answer only.
        """
        answer = self._queue.join(given_rows(self.source, rows, json=json), overwrite=overwrite)
        if self._queue.needs_service():
            self._thread.submit(self._serve)
        return answer

    def _serve(self) -> None:
        """Take batches until nobody waits."""
        while self._queue.goes_on():
            with self._batch_lock:
                self._take_batch()

    def repair(self) -> None:
        """Apply what is in the log and not online yet."""
        with self.alone("bringing online what is in it"):
            _twice(self._confirmed)

    def confirm(self, *, older: int) -> None:
        """Say online that all of the log is there by now, where that was said longer ago than `older` (µs).

        What is not there is brought there first. Nothing is done where anybody works on the log, who says it then.
        """
        now, (held,) = self._store.get([self._state_key])
        if held is not None and now - SourceState.unpack(held).complete < older:
            return
        if not self._batch_lock.acquire(blocking=False):
            return
        try:
            with self._log.attempt("confirming that all of it is online") as alone:
                if alone:
                    _twice(self._confirmed)
        finally:
            self._batch_lock.release()

    def _confirmed(self) -> None:
        state, now = self._read_state()
        state = self._caught_up(self._applied(), state, now)
        self._swap({}, state._replace(confirmed=max(state.complete, now, self._log.confirmed().served)))

    def forget(self) -> int:
        """Forget the identities of rows that are older than the lateness, which nothing replaces any more; how many."""
        count = 0
        for keys in self._store.scan(self._prefix + IDENTITY):
            with self.alone("forgetting old identities"):
                now, values = self._store.get(keys)
                earliest = now - self._applied().source.lateness
                held = zip(keys, values, strict=True)
                old = [key for key, data in held if data is not None and Identity.unpack(data).time < earliest]
                if old:
                    self._store.write(dict.fromkeys(old))
                count += len(old)
        return count

    def forget_keys(self, keys: Sequence[tuple[ResolvedView, Sequence[tuple[Any, ...]]]], *, at: int) -> int:
        """Take keys that are forgotten out of the records of view versions over the source; how many there were.

        What was pushed of them since is there afterwards. at: the instant (µs) by which rows of them are forgotten; every row to
        come is known later.
        """
        with self.alone("forgetting a key"):
            applied, (state, now) = self._applied(), self._read_state()
            state = self._caught_up(applied, state, now)
            upto = max(state.complete, now)
            if self._log.last_known_at() is not None:
                self._log.confirm(served=max(at, upto))
            filled = {view.view.fingerprint for view in self._applying.published([*applied.views, *applied.left])}
            puts: Puts = {}
            for version, own in keys:
                view = self._pushed_view(version)
                puts |= dict.fromkeys(map(view.keys.key, own))
                if own and version.fingerprint in filled:
                    puts |= dict(folded_records(view, self._offline, upto=upto, keys=own))
            before, damaged = read_past_damage(self._store, list(puts))
            if self._held is None:
                self._store.write(puts)
            else:
                self._swap(puts, state._replace(applied=upto, confirmed=upto))
            return len(before) - before.count(None) + len(damaged)

    def forget_rows(self, rows: pa.Table) -> None:
        """Forget what is remembered of logged rows, so that they are new when they are pushed again. What is remembered of later
        versions of them stays."""
        source = self._applied().source
        if not source.identity or not rows.num_rows:
            return
        known = set(rows[KNOWN_AT].to_pylist())
        keys, erased = list(dict.fromkeys(identity_keys(source, self._prefix, rows))), {*digests_of(source, rows)}
        with self.alone("forgetting rows"):
            puts: Puts = {}
            for key, data in zip(keys, self._store.get(keys).values, strict=True):
                held = None if data is None else Identity.unpack(data)
                if held is not None and held.known_at in known:
                    puts[key] = None
                elif held is not None:
                    puts[key] = held._replace(versions=tuple(one for one in held.versions if one not in erased)).pack()
            if puts:
                self._store.write(puts)

    @contextmanager
    def alone(self, doing: str = "working on it") -> Iterator[None]:
        """Keep every pusher of the source waiting, in all processes; doing: what for, for those who give up waiting."""
        if not self._batch_lock.acquire(timeout=self._offline.logs.wait_seconds):
            raise LogBusyError(
                f"{self.source.title}: this process has been working on its log for more than {self._offline.logs.wait_seconds:g} s"
            )
        try:
            with self._log.lock(doing):
                yield
        finally:
            self._batch_lock.release()

    def fill(self, view: ResolvedView, publish: Callable[[int], Puts], batch: int = 4_000) -> int:
        """Make every record of a view version from the log, and publish it in one step; the number of keys.

        publish: what to write last, for the instant that the records are true for. Pushes wait meanwhile, lookups do not.
        """
        with self.alone(f"filling view '{view.name}'"):
            state, now = self._read_state()
            state = self._caught_up(self._applied(), state, now)
            upto = max(state.complete, now)
            state = state._replace(applied=upto, confirmed=upto)
            self._swap({}, state)  # before records of that instant are there to be looked up
            puts: Puts = {}
            count = 0
            for key, record in self._filled(self._pushed_view(view), upto=upto):
                puts[key] = record
                count += record is not None
                if len(puts) == batch:
                    state = state._replace(confirmed=max(upto, self._store.get([]).now))  # nobody pushes meanwhile
                    self._swap(puts, state)
                    puts = {}
            self._swap({**puts, **publish(upto)}, state)
            return count

    def take_back(self, place: Callable[[int], Path], *, ahead: int) -> TakenBack:
        """Take the rows out of the log that are known further ahead of the clock than `ahead` (µs), as a clock says that was
        wrong, into a file; and all that is online of the source, which is to be filled again.

        place: the file for an instant (µs). Killed anywhere, the next call completes it.
        """
        with self.alone("taking back rows that are ahead of the clock"):
            applied, (state, now) = self._applied(), self._read_state()
            said, last = self._log.confirmed(), self._log.last_known_at()
            if max(state.complete, *said, NEVER if last is None else last) <= now + ahead:
                return TakenBack(0, None)
            rows = self._log.ahead_of(now)
            file = place(now) if rows.num_rows else None
            if file is not None:
                write_rows(rows.drop_columns([KNOWN_AT, REPLACES]), file)
            marks = [self._pushed_view(view).keys.watermark_key for view in [*applied.views, *applied.left]]
            marks += [self._codec(view).watermark_key for view in applied.refreshed]
            gone: Puts = dict.fromkeys([*marks, *applied.gone(), self._state_key])
            if not self._store.write(gone, guard=Guard(self._state_key, self._held)):
                raise self._told()
            for keys in self._store.scan(self._prefix + IDENTITY):
                self._store.write(dict.fromkeys(keys))
            self._log.take_back(now)  # last: until then, all of this is done again
            return TakenBack(rows.num_rows, file)

    def _filled(self, view: PushedView, *, upto: int) -> Iterator[tuple[bytes, bytes | None]]:
        """Each record, then None for keys whose rows were deleted since a fill that never came to its end."""
        left = {key for keys in self._store.scan(view.keys.record_prefix) for key in keys}
        for key, record in folded_records(view, self._offline, upto=upto):
            left.discard(key)
            yield key, record
        yield from dict.fromkeys(left).items()

    def _codec(self, view: ResolvedView) -> ViewCodec:
        return ViewCodec(self._project, view, tagged=self._store.tagged)

    def _pushed_view(self, view: ResolvedView) -> PushedView:
        return PushedView(self._project, view, tagged=self._store.tagged)

    # --- one batch ---------------------------------------------------------------------------

    def _take_batch(self) -> None:
        requests = self._queue.take()
        if not requests:
            return
        try:
            outcomes = self._pushed(requests)
        except BaseException as error:  # noqa: BLE001 - raised where each of them is waited for
            while requests:
                for request in requests:
                    request.answer.set_exception(error)
                requests = self._queue.take() if isinstance(error, LogBusyError) else []  # who waited as long
            return
        for request, outcome in zip(requests, outcomes, strict=True):
            if isinstance(outcome, PushError):
                request.answer.set_exception(outcome)
            else:
                request.answer.set_result(outcome.telling(naive=request.naive) if request.naive else outcome)

    def _pushed(self, requests: Sequence[QueuedPush]) -> Sequence[Pushed | PushError]:
        try:
            with self._log.lock("pushing rows"):
                return _twice(lambda: self._kept(requests))
        except PushError:
            raise
        except FeatureStoreError as error:
            fate = self._queue.fate
            if fate is Fate.OPEN and error.kept != "unknown":  # the log took nothing of it
                fate = Fate.REFUSED
            raise fate.told(error) from error

    def _kept(self, requests: Sequence[QueuedPush]) -> Sequence[Pushed | PushError]:
        tables = [request.table for request in requests]
        applied = self._current()
        state, clock = self._read_state()
        applied.source.check_open(clock)
        state = self._caught_up(applied, state, clock)
        now = max(clock, state.applied)
        if self._log.last_known_at() is None and applied.source.history is None:
            state = self._publish_empty(applied, state, now)
        views = self._applying.published([*applied.views, *applied.left])
        whole = pa.concat_tables(tables)
        known = self._known(applied.source, whole)
        overwriting = {number: request.overwrite for number, request in enumerate(requests) if request.overwrite}
        refused: Mapping[int, PushError] = {}
        if overwriting:
            refused = outdated(applied.source, tables, overwriting, log=self._log, forgotten=self._offline.forgotten)
        while True:
            found = deduplicate(applied.source, tables, known, now=now, refused=refused, overwriting=overwriting)
            if not found.fresh:
                break
            waiting = [request for number, request in enumerate(requests) if number not in refused]
            try:
                self._write(applied, whole.take(pa.array(found.fresh)), found, (state, clock), views=views, of=waiting)
                break
            except _UnreadableError as error:
                refused = self._unreadable(tables, views, refused, str(error))
            except _GivenUpError as error:
                gone = [number for number, request in enumerate(requests) if request in error.requests]
                refused = {**refused, **dict.fromkeys(gone, PushError(GIVEN_UP))}
        if found.late:
            self._keep_aside(whole.take(pa.array(found.late)), now)
        lacking = rows_without_key(applied.source, applied.views, whole) if found.fresh else None
        return found.outcomes if lacking is None else _telling(found, tables, lacking)

    def _current(self) -> AppliedSource:
        applied = self._applied()
        if applied.source.columns != self.source.columns:
            raise PushError(
                f"{applied.source.title}: its columns were changed since it was first pushed to, and its log keeps those "
                "that it began with; give the source another name"
            )
        return applied

    def _read_state(self) -> tuple[SourceState, int]:
        now, (self._held,) = self._store.get([self._state_key])
        return SourceState.unpack(self._held), now

    def _caught_up(self, applied: AppliedSource, state: SourceState, now: int) -> SourceState:
        """Apply what the log has and the records have not; a reservation without rows is given up.

        That is what a pusher left that died, or what an online store lacks that came back older.
        """
        last = self._log.last_known_at()
        if state.is_old:
            state = state._replace(confirmed=state.applied, last=last)
            if last is not None and last > state.applied:
                state = state._replace(last=state.applied)
            self._swap({}, state)
        self._check_log(state.last, last)
        if self._held is not None and state.complete < self._log.confirmed().written:
            self._unpublish(applied.gone())
        if state.reserved is None and last == state.last:
            return state
        views = self._applying.published([*applied.views, *applied.left])
        if state.applied == NEVER and not views:
            state = self._remembered(applied.source, state, now)
        else:
            state = self._applied_since(applied.source, state, views, now)
        if state.reserved is not None:
            state = state._replace(reserved=None)
            self._swap({}, state)
        return state

    def _check_log(self, online: int | None, last: int | None) -> None:
        """OnlineStoreError where the records have rows that this log has not."""
        if online is not None and (last is None or last < online):
            raise OnlineStoreError(
                f"{self.source.title}: the online store has rows up to known_at {to_datetime(online).isoformat()}, and the "
                f"log in {self._log.name} {'is empty' if last is None else f'ends at {to_datetime(last).isoformat()}'}: it "
                "was filled from another log. All pushers of a project use one folder of logs; restore the one that it was "
                "filled from, or, to go on with this one, run featurestore teardown, plan, apply and materialize."
            )

    def _unpublish(self, marks: list[bytes]) -> None:
        """Take away what an older store may have brought back: view versions that are applied no more. No push would reach
        them, and what is confirmed would be said of them, too."""
        there = [key for key, mark in zip(marks, self._store.get(marks).values, strict=True) if mark is not None]
        if there:
            self._store.write(dict.fromkeys(there))

    def _applied_since(self, source: PushSource, state: SourceState, views: list[PushedView], now: int) -> SourceState:
        """Apply the rows after the last that is in the records, so many at once."""
        came_back: Return | None = Return(state.complete, now)
        for rows in missing_rows(self._log, state.last, event_time=source.event_time):
            if came_back is not None and rows[KNOWN_AT][0].as_py() != state.reserved:  # these are no dead pusher's
                self._log.note_return(came_back)
            came_back = None
            settled = _settled(source, rows)
            self._wait(settled)
            puts = self._applying.records(self._applying.read(views, rows), upto=settled)
            state = SourceState(settled, None, settled, rows[KNOWN_AT][-1].as_py())
            self._swap({**puts, **self._identities_of(source, rows)}, state)
        return state

    def _remembered(self, source: PushSource, state: SourceState, now: int) -> SourceState:
        """After the online store was emptied, the identities of those rows that can still be pushed again, by segment."""
        last = self._log.last_known_at()
        after = min(now, now if last is None else last) - source.lateness - source.tolerance
        for segment in self._log.segments():
            if segment.last is not None and segment.last > after:
                rows = self._log.read(after, segment.last)
                settled = _settled(source, rows)
                self._wait(settled)
                done = segment.last == last
                state = SourceState(settled if done else segment.last, last=segment.last)
                self._swap(self._identities_of(source, rows), state)
                after = segment.last
        return state._replace(last=last)

    def _known(self, source: PushSource, rows: pa.Table) -> KnownIdentities:
        """What is remembered of each row's identity."""
        if not source.identity:
            return KnownIdentities({}, [], [])
        keys = identity_keys(source, self._prefix, rows)
        distinct = list(dict.fromkeys(keys))
        held = self._store.get(distinct).values
        known = {key: None if data is None else Identity.unpack(data) for key, data in zip(distinct, held, strict=True)}
        return KnownIdentities(known, keys, digests_of(source, rows))

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
        with log.lock("keeping late rows aside"):
            last = log.last_known_at()
            first = now if last is None else max(now, last + 1)
            stamped = _stamped(rows, range(first, first + rows.num_rows), [None] * rows.num_rows)
            log.append(_batches(stamped, log.schema))

    # --- reserve, append, apply -------------------------------------------------------------

    def _write(
        self, applied: AppliedSource, rows: pa.Table, found: Deduplicated, read: tuple[SourceState, int], *,
        views: Sequence[PushedView], of: Sequence[QueuedPush],
    ) -> None:  # fmt: skip
        source, (state, clock) = applied.source, read
        first = self._first(state, clock)
        state = state._replace(reserved=first, confirmed=first - 1)
        self._swap({}, state)
        table = _stamped(rows, range(first, first + rows.num_rows), found.replaced(first))
        try:
            reading: BatchReading = self._applying.read(views, table)  # what fails must never come into the log
        except ValueError as error:
            self._swap({}, state._replace(reserved=None))
            raise _UnreadableError(str(error)) from error
        gone = self._queue.begins_to_keep(of)
        if gone:
            self._swap({}, state._replace(reserved=None))
            raise _GivenUpError(gone)
        self._log.append(_batches(table, self._log.schema))
        self._queue.fate = Fate.LOGGED
        settled = _settled(source, table)
        puts = self._applying.records(reading, upto=settled)
        self._wait(settled)
        try:
            self._swap({**puts, **found.renewed(first)}, SourceState(settled, None, settled, first + rows.num_rows - 1))
        except _StateChangedError:  # what is online now lacks rows of the log, these among them, whatever it was
            try:
                self._caught_up(applied, *self._read_state())
            except _StateChangedError as again:
                raise again.error from None
        self._queue.fate = Fate.SERVED

    def _first(self, state: SourceState, now: int) -> int:
        """The first known_at of a batch: after the clock, and after all that was ever confirmed or served."""
        last, said = self._log.last_known_at(), self._log.confirmed()
        least = max(state.complete, said.written, said.served, NEVER if last is None else last)
        if least > now:  # a clock that is behind is waited for before anything is kept
            try:
                self._wait(least)
            except OnlineUnavailableError as error:
                way = f"To push before that, take back what is ahead: featurestore take-back {self.source.name}"
                raise type(error)(f"{error} {way}.") from error
        return max(least, now) + 1

    def _swap(self, puts: Puts, after: SourceState) -> None:
        """Write, where the state is still the one that was read when the log was locked."""
        packed, guard = after.pack(), Guard(self._state_key, self._held)
        self._log.confirm(written=after.complete)  # before the store is told
        if not self._store.write({**puts, self._state_key: packed}, guard=guard):
            raise _StateChangedError(self._told())
        self._held = packed

    def _told(self) -> OnlineStoreError:
        """What to say of a state that is not the one that was written."""
        _, (held,) = self._store.get([self._state_key])
        if held is None or SourceState.unpack(held).complete < SourceState.unpack(self._held).complete:
            return OnlineUnavailableError(
                f"{self.source.title}: the online store was emptied, or came back older, while rows were pushed; try again."
            )
        return OnlineStoreError(
            f"{self.source.title}: another pusher changed its state online while this one held the log's lock; do all "
            "pushers of the project use one folder of logs?"
        )

    def _publish_empty(self, applied: AppliedSource, state: SourceState, now: int) -> SourceState:
        """Before the first row: every view is complete, since there is nothing to fill it with."""
        marks = [self._pushed_view(view).keys.watermark_key for view in applied.views]
        unset = [mark for mark, held in zip(marks, self._store.get(marks).values, strict=True) if held is None]
        if unset:
            state = state._replace(confirmed=max(state.complete, now))
            self._swap(dict.fromkeys(unset, pack_watermark([now])), state)
        return state

    def _identities_of(self, source: PushSource, rows: pa.Table) -> Puts:
        """What is to be remembered of rows that the log has and a dead pusher did not get to say. Of rows that were forgotten,
        nothing."""
        for name in source.identity[:1]:  # which no other row is without
            rows = rows.filter(pc.is_valid(rows[name]))
        known = self._known(source, rows)
        times, learned = instants(rows[source.event_time]), rows[KNOWN_AT].to_pylist()
        identities = dict(known.identities)
        for n, key in enumerate(known.keys):
            identities[key] = next_version(identities[key], learned[n], times[n], known.digests[n])
        return {key: held.pack() for key, held in identities.items() if held is not None}


def _telling(
    found: Deduplicated, tables: Sequence[pa.Table], lacking: npt.NDArray[np.bool_]
) -> list[Pushed | PushError]:
    """The outcomes of requests, with how many of the fresh rows of each have no key."""
    fresh = np.zeros(len(lacking), bool)
    fresh[found.fresh] = True
    lacking, first = lacking & fresh, 0
    outcomes: list[Pushed | PushError] = []
    for outcome, table in zip(found.outcomes, tables, strict=True):
        count = int(lacking[first : first + table.num_rows].sum())
        outcomes.append(outcome.telling(without_key=count) if isinstance(outcome, Pushed) else outcome)
        first += table.num_rows
    return outcomes


def _settled(source: PushSource, rows: pa.Table) -> int:
    """The instant (µs) by which logged rows are all known and have happened: from then on they may be looked up."""
    happened = pc.max(rows[source.event_time].cast(pa.int64())).as_py()
    known: int = rows[KNOWN_AT][-1].as_py()
    return known if happened is None else int(counts_from(happened, known))


def _stamped(rows: pa.Table, known: Sequence[int], replaces: Sequence[int | None]) -> pa.Table:
    return rows.append_column(KNOWN_AT, pa.array(known, pa.int64())).append_column(
        REPLACES, pa.array(replaces, pa.int64())
    )


def _batches(rows: pa.Table, schema: pa.Schema) -> list[pa.RecordBatch]:
    batches: list[pa.RecordBatch] = rows.cast(schema).combine_chunks().to_batches()
    return batches
