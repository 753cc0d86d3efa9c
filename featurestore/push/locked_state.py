"""The state of a push source online, in the hands of the holder of the log's lock: written only where it is still what was read,
after the records have all that the log has.

What is confirmed is only ever raised under the lock, when the records have all of the log, and every known_at lies
beyond all that was. So it is true of each state that the store was ever in, also of one that it goes back to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from featurestore.clock import to_datetime
from featurestore.declare.push import KNOWN_AT, PushSource
from featurestore.errors import OnlineStoreError, OnlineUnavailableError
from featurestore.lazy import pa, pc
from featurestore.online import Guard, OnlineStore
from featurestore.online.source_state import NEVER, SourceState, state_key
from featurestore.online.value_checksums import read_past_damage
from featurestore.online.view_codec import ViewCodec, pack_watermark, source_prefix
from featurestore.push.apply_log import Applying, missing_rows
from featurestore.push.deduplicate import IDENTITY, Identity, KnownIdentities, digests_of, identity_keys, next_version
from featurestore.push.merge_rows import PushedView
from featurestore.semantics.rows import counts_from
from featurestore.semantics.values import instants
from featurestore.semantics.view import ResolvedView
from featurestore.sources.log import Log, Return
from featurestore.sources.offline import Offline

__all__ = ["AppliedSource", "LockedState", "Puts", "StateChangedError", "settled", "twice"]

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


class StateChangedError(Exception):
    """The state changed under the hands of this pusher: the last write of one that was killed can show only after its
    lock is gone, on its way to a server, or until the next writer of an embedded store settles it; or the store lost it.

    error: what to say where it happens again.
    """

    def __init__(self, error: OnlineStoreError) -> None:
        super().__init__(str(error))
        self.error = error


def twice(attempt: Callable[[], T]) -> T:
    """What is done under the log's lock; once more where the state changed before anything was kept."""
    try:
        return attempt()
    except StateChangedError:
        try:
            return attempt()
        except StateChangedError as again:
            raise again.error from None


class LockedState:
    """A source's state online; to be used under the log's lock.

    source: as it was when it was first pushed to. prefix: of all that is online of it. held: the state's bytes as they were
    read or written last. wait: returns when the online store's clock has come to an instant (µs), and raises where that
    cannot be expected.
    """

    def __init__(
        self, source: PushSource, offline: Offline, store: OnlineStore, *, project: str, wait: Callable[[int], None],
    ) -> None:  # fmt: skip
        self.source, self.wait = source, wait
        self.log: Log = offline.log(source)
        self.applying = Applying(offline, store, self.log, project=project)
        self.key = state_key(project, source, tagged=store.tagged)
        self.prefix = source_prefix(project, source.name, tagged=store.tagged)
        self.held: bytes | None = None
        self._store, self._project = store, project

    def read(self) -> tuple[SourceState, int]:
        """The state online, and the clock's instant (µs) at which it was so."""
        now, (self.held,) = self._store.get([self.key])
        return SourceState.unpack(self.held), now

    def drop_damaged(self, applied: AppliedSource) -> None:
        """Take away watermarks that are damaged. Where the state is, or what is remembered of a row, all that stands on it goes: then it is as
        in a store that was emptied, where the log says it again and every view is filled anew."""
        marks = [self.codec(view).watermark_key for view in (*applied.views, *applied.left)]
        every = [self.key, *marks, *applied.gone()]
        _, damaged = read_past_damage(self._store, every)
        remembered = self.prefix + IDENTITY
        if self.key in damaged or any(read_past_damage(self._store, keys)[1] for keys in self._store.scan(remembered)):
            self._store.write(dict.fromkeys(every))  # first: where there is no state, what is remembered is made anew
            for keys in self._store.scan(remembered):
                self._store.write(dict.fromkeys(keys))
        elif damaged:
            self._store.write(dict.fromkeys(damaged))

    def swap(self, puts: Puts, after: SourceState) -> None:
        """Write, where the state is still the one that was read when the log was locked."""
        packed, guard = after.pack(), Guard(self.key, self.held)
        self.log.confirm(written=after.complete)  # before the store is told
        if not self._store.write({**puts, self.key: packed}, guard=guard):
            raise StateChangedError(self.told())
        self.held = packed

    def told(self) -> OnlineStoreError:
        """What to say of a state that is not the one that was written."""
        _, (held,) = self._store.get([self.key])
        if SourceState.unpack(held).complete < SourceState.unpack(self.held).complete:
            return OnlineUnavailableError(
                f"{self.source.title}: the online store was emptied, or came back older, while rows were pushed; try again."
            )
        return OnlineStoreError(
            f"{self.source.title}: another pusher changed its state online while this one held the log's lock; do all "
            "pushers of the project use one folder of logs?"
        )

    def codec(self, view: ResolvedView) -> ViewCodec:
        """How keys and records of a view version over it are written."""
        return ViewCodec(self._project, view, tagged=self._store.tagged)

    def published(self, applied: AppliedSource) -> list[PushedView]:
        """The view versions that are complete online, replaced ones too."""
        return self.applying.published([*applied.views, *applied.left])

    def publish_empty(self, applied: AppliedSource, state: SourceState, now: int) -> SourceState:
        """Before the first row: every view is complete, since there is nothing to fill it with."""
        marks = [self.codec(view).watermark_key for view in applied.views]
        unset = [mark for mark, held in zip(marks, self._store.get(marks).values, strict=True) if held is None]
        if unset:
            state = state._replace(confirmed=max(state.complete, now))
            self.swap(dict.fromkeys(unset, pack_watermark([now])), state)
        return state

    def caught_up(self, applied: AppliedSource, state: SourceState, now: int) -> SourceState:
        """Apply what the log has and the records have not; a reservation without rows is given up.

        That is what a pusher left that died, or what an online store lacks that came back older.
        """
        last = self.log.last_known_at()
        if state.is_old:
            state = state._replace(confirmed=state.applied, last=last)
            if last is not None and last > state.applied:
                state = state._replace(last=state.applied)
            self.swap({}, state)
        self._check_log(state.last, last)
        if self.held is not None and state.complete < self.log.confirmed().written:
            self._unpublish(applied.gone())
        if state.reserved is None and last == state.last:
            return state
        views = self.published(applied)
        if state.applied == NEVER and not views:
            state = self._remembered(applied.source, state, now)
        else:
            state = self._applied_since(applied.source, state, views, now)
        if state.reserved is not None:
            state = state._replace(reserved=None)
            self.swap({}, state)
        return state

    def _check_log(self, online: int | None, last: int | None) -> None:
        """OnlineStoreError where the records have rows that this log has not."""
        if online is not None and (last is None or last < online):
            raise OnlineStoreError(
                f"{self.source.title}: the online store has rows up to known_at {to_datetime(online).isoformat()}, and the "
                f"log in {self.log.name} {'is empty' if last is None else f'ends at {to_datetime(last).isoformat()}'}: it "
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
        for rows in missing_rows(self.log, state.last, event_time=source.event_time):
            if came_back is not None and rows[KNOWN_AT][0].as_py() != state.reserved:  # these are no dead pusher's
                self.log.note_return(came_back)
            came_back = None
            upto = settled(source, rows)
            self.wait(upto)
            puts = self.applying.records(self.applying.read(views, rows), upto=upto)
            state = SourceState(upto, None, upto, rows[KNOWN_AT][-1].as_py())
            self.swap({**puts, **self._identities_of(source, rows)}, state)
        return state

    def _remembered(self, source: PushSource, state: SourceState, now: int) -> SourceState:
        """After the online store was emptied, the identities of those rows that can still be pushed again, by segment."""
        last = self.log.last_known_at()
        after = min(now, now if last is None else last) - source.lateness - source.tolerance
        for segment in self.log.segments():
            if segment.last is not None and segment.last > after:
                rows = self.log.read(after, segment.last)
                upto = settled(source, rows)
                self.wait(upto)
                done = segment.last == last
                state = SourceState(upto if done else segment.last, last=segment.last)
                self.swap(self._identities_of(source, rows), state)
                after = segment.last
        return state._replace(last=last)

    def known(self, source: PushSource, rows: pa.Table) -> KnownIdentities:
        """What is remembered of each row's identity."""
        if not source.identity:
            return KnownIdentities({}, [], [])
        keys = identity_keys(source, self.prefix, rows)
        distinct = list(dict.fromkeys(keys))
        held = self._store.get(distinct).values
        known = {key: None if data is None else Identity.unpack(data) for key, data in zip(distinct, held, strict=True)}
        return KnownIdentities(known, keys, digests_of(source, rows))

    def _identities_of(self, source: PushSource, rows: pa.Table) -> Puts:
        """What is to be remembered of rows that the log has and a dead pusher did not get to say. Of rows that were forgotten,
        nothing."""
        for name in source.identity[:1]:  # which no other row is without
            rows = rows.filter(pc.is_valid(rows[name]))
        known = self.known(source, rows)
        times, learned = instants(rows[source.event_time]), rows[KNOWN_AT].to_pylist()
        identities = dict(known.identities)
        for n, key in enumerate(known.keys):
            identities[key] = next_version(identities[key], learned[n], times[n], known.digests[n])
        return {key: held.pack() for key, held in identities.items() if held is not None}


def settled(source: PushSource, rows: pa.Table) -> int:
    """The instant (µs) by which logged rows are all known and have happened: from then on they may be looked up."""
    happened = pc.max(rows[source.event_time].cast(pa.int64())).as_py()
    known: int = rows[KNOWN_AT][-1].as_py()
    return known if happened is None else int(counts_from(happened, known))
