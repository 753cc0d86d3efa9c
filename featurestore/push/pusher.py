"""One pusher a source: those who push at the same time share one batch, and batches follow each other in every process.

A batch holds the log's lock and goes: read the state → apply what the log has and the records have not → sort out
retries, late rows and rows from the future → reserve known_at → append to the log (fsync) → wait until the clock has come
there → write all records, identities and the state at once. A pusher that dies on the way leaves a reservation, and perhaps
rows in the log; lookups answer for the last confirmed instant, which is before it, until the next batch has applied them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from featurestore.declare.push import KNOWN_AT, REPLACES, PushSource
from featurestore.durable.forks import renewed_in_child
from featurestore.errors import FeatureStoreError, LogBusyError, PushError
from featurestore.lazy import pa
from featurestore.online import Guard, OnlineStore
from featurestore.online.source_state import NEVER, SourceState
from featurestore.online.value_checksums import read_past_damage
from featurestore.push.current_rows import CurrentRows
from featurestore.push.deduplicate import IDENTITY, Identity, digests_of, identity_keys
from featurestore.push.locked_state import AppliedSource, LockedState, Puts, twice
from featurestore.push.merge_rows import PushedView
from featurestore.push.push_batch import PushBatch
from featurestore.push.push_queue import Advance, Fate, PushAnswer, PushQueue, QueuedPush
from featurestore.push.pushed import Pushed
from featurestore.push.rebuild_records import folded_records
from featurestore.push.rows import given_rows, write_rows
from featurestore.semantics.view import ResolvedView
from featurestore.sources.offline import Offline

__all__ = ["Pushed", "Pusher", "TakenBack"]


class TakenBack(NamedTuple):
    """How many rows were taken out of a log, and the Parquet file in which they are now, which can be pushed again."""

    rows: int
    file: Path | None


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
        self._applied = applied
        self._state = LockedState(source, offline, store, project=project, wait=wait)
        self._log = self._state.log
        self.renew()
        renewed_in_child(self)

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

    def submit(
        self, rows: Any, *, json: bool = False, overwrite: bool | CurrentRows = False, advance: Advance | None = None
    ) -> PushAnswer:
        """`push` that does not wait: what will become of the rows. Raises PushError for rows that cannot be read.

        overwrite: the rows say what they are from now on, whatever they were before; where current rows of a key are given, only
        while these are the current ones, and RowsChangedError else. advance: of the stream that they come from, which is kept
        with them, or else with the rows that they change nothing of; DeposedError where another has read on there. One thread
        takes the batches of all who wait, which then wake up for their own answer only.
        """
        answer = self._queue.join(given_rows(self.source, rows, json=json), overwrite=overwrite, advance=advance)
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
            twice(self._confirmed)

    def positions(self) -> dict[str, str]:
        """How far streams were read that feed the source, by partition, as of the rows that are in its log."""
        with self._log.lock("reading how far its streams were read"):
            return self._log.positions()

    def confirm(self, *, older: int) -> None:
        """Say online that all of the log is there by now, where that was said longer ago than `older` (µs).

        What is not there is brought there first. Nothing is done where anybody works on the log, who says it then.
        """
        now, (held,) = self._store.get([self._state.key])
        if held is not None and now - SourceState.unpack(held).complete < older:
            return
        if not self._batch_lock.acquire(blocking=False):
            return
        try:
            with self._log.attempt("confirming that all of it is online") as alone:
                if alone:
                    twice(self._confirmed)
        finally:
            self._batch_lock.release()

    def _confirmed(self) -> None:
        state, now = self._state.read()
        state = self._state.caught_up(self._applied(), state, now)
        self._state.swap({}, state._replace(confirmed=max(state.complete, now, self._log.confirmed().served)))

    def forget(self) -> int:
        """Forget the identities of rows that are older than the lateness, which nothing replaces any more; how many."""
        count = 0
        for keys in self._store.scan(self._state.prefix + IDENTITY):
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
            applied, (state, now) = self._applied(), self._state.read()
            state = self._state.caught_up(applied, state, now)
            upto = max(state.complete, now)
            if self._log.last_known_at() is not None:
                self._log.confirm(served=max(at, upto))
            filled = {view.view.fingerprint for view in self._state.published(applied)}
            puts: Puts = {}
            for version, own in keys:
                view = self._pushed_view(version)
                puts |= dict.fromkeys(map(view.keys.key, own))
                if own and version.fingerprint in filled:
                    puts |= dict(folded_records(view, self._offline, upto=upto, keys=own))
            before, damaged = read_past_damage(self._store, list(puts))
            if self._state.held is None:
                self._store.write(puts)
            else:
                self._state.swap(puts, state._replace(applied=upto, confirmed=upto))
            return len(before) - before.count(None) + len(damaged)

    def overtaken(self, rows: pa.Table) -> list[bool]:
        """Of each row that was kept aside at its known_at, whether another version of it was learned since, or it was deleted."""
        known = self._state.known(self._applied().source, rows)
        if not known.keys:
            return [False] * rows.num_rows
        return [
            held is not None and held.known_at > aside and digest not in held.versions
            for held, digest, aside in zip(
                map(known.identities.__getitem__, known.keys), known.digests, rows[KNOWN_AT].to_pylist(), strict=True
            )
        ]

    def forget_rows(self, rows: pa.Table) -> None:
        """Forget what is remembered of logged rows, so that they are new when they are pushed again. What is remembered of later
        versions of them stays."""
        source = self._applied().source
        if not source.identity or not rows.num_rows:
            return
        types = {field.name: field.type for field in rows.schema}
        there = [name for name, of in source.columns.items() if types.get(name) == of.arrow]
        if not {*source.identity} <= {
            *there
        }:  # the log keeps the columns that it began with, and these are of a later version
            return
        known = set(rows[KNOWN_AT].to_pylist())
        keys, erased = (
            list(dict.fromkeys(identity_keys(source, self._state.prefix, rows))),
            {*digests_of(source, rows, there)},
        )
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

    def fill(
        self, view: ResolvedView, publish: Callable[[int], Puts], batch: int = 4_000, *, past_damage: bool = False
    ) -> int:
        """Make every record of a view version from the log, and publish it in one step; the number of keys.

        publish: what to write last, for the instant that the records are true for. Pushes wait meanwhile, lookups do not. past_damage: what
        is damaged of what the store says of the source goes first, and views that were complete by it are to be filled again.
        """
        with self.alone(f"filling view '{view.name}'"):
            applied = self._applied()
            if past_damage:
                self._state.drop_damaged(applied)
            state, now = self._state.read()
            state = self._state.caught_up(applied, state, now)
            upto = max(state.complete, now)
            state = state._replace(applied=upto, confirmed=upto)
            self._state.swap({}, state)  # before records of that instant are there to be looked up
            puts: Puts = {}
            count = 0
            for key, record in self._filled(self._pushed_view(view), upto=upto):
                puts[key] = record
                count += record is not None
                if len(puts) == batch:
                    state = state._replace(confirmed=max(upto, self._store.get([]).now))  # nobody pushes meanwhile
                    self._state.swap(puts, state)
                    puts = {}
            self._state.swap({**puts, **publish(upto)}, state)
            return count

    def take_back(self, place: Callable[[int], Path], *, ahead: int) -> TakenBack:
        """Take the rows out of the log that are known further ahead of the clock than `ahead` (µs), as a clock says that was
        wrong, into a file; and all that is online of the source, which is to be filled again.

        place: the file for an instant (µs). Killed anywhere, the next call completes it.
        """
        with self.alone("taking back rows that are ahead of the clock"):
            applied, (state, now) = self._applied(), self._state.read()
            said, last = self._log.confirmed(), self._log.last_known_at()
            if max(state.complete, *said, NEVER if last is None else last) <= now + ahead:
                return TakenBack(0, None)
            rows = self._log.ahead_of(now)
            file = place(now) if rows.num_rows else None
            if file is not None:
                write_rows(rows.drop_columns([KNOWN_AT, REPLACES]), file)
            views = [*applied.views, *applied.left, *applied.refreshed]
            marks = [self._state.codec(view).watermark_key for view in views]
            gone: Puts = dict.fromkeys([*marks, *applied.gone(), self._state.key])
            if not self._store.write(gone, guard=Guard(self._state.key, self._state.held)):
                raise self._state.told()
            for keys in self._store.scan(self._state.prefix + IDENTITY):
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

    def _pushed_view(self, view: ResolvedView) -> PushedView:
        return PushedView(self._project, view, tagged=self._store.tagged)

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
        batch = PushBatch(self._state, self._offline, self._queue, applied=self._applied)
        try:
            with self._log.lock("pushing rows"):
                return twice(lambda: batch.kept(requests))
        except PushError:
            raise
        except FeatureStoreError as error:
            fate = self._queue.fate
            if fate is Fate.OPEN and error.kept != "unknown":  # the log took nothing of it
                fate = Fate.REFUSED
            raise fate.told(error) from error
