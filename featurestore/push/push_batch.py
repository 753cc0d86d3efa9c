"""One batch of pushes: sorted out, reserved, logged and applied, in the hands of the holder of the log's lock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from featurestore.declare.push import KNOWN_AT, REPLACES
from featurestore.errors import DeposedError, OnlineUnavailableError, PushError, RowRefusedError
from featurestore.lazy import pa
from featurestore.online.source_state import NEVER, SourceState
from featurestore.push.apply_log import BatchReading
from featurestore.push.current_rows import outdated
from featurestore.push.deduplicate import Deduplicated, deduplicate
from featurestore.push.judged_rows import JudgedRows
from featurestore.push.locked_state import AppliedSource, LockedState, StateChangedError, settled
from featurestore.push.merge_rows import PushedView
from featurestore.push.moved_rows import MovedRows, nothing, waiting
from featurestore.push.push_queue import Fate, PushQueue, QueuedPush
from featurestore.push.pushed import Pushed, rows_without_key
from featurestore.sources.offline import Offline
from featurestore.sources.push_logs import ASIDE

__all__ = ["PushBatch"]

GIVEN_UP = "Nobody waits for this push any more"
"""What is said of a push to nobody."""


class _GivenUpError(Exception):
    """Nobody waits any more for some requests of a batch, of which nothing was kept yet."""

    def __init__(self, requests: Sequence[QueuedPush]) -> None:
        super().__init__(GIVEN_UP)
        self.requests = requests


class _UnreadableRowsError(Exception):
    """A derived column or a condition cannot be computed for a row of the batch, of which nothing was kept."""


class PushBatch:
    """Keeps pushes that share one batch; to be used under the log's lock, and again where the state changed meanwhile."""

    def __init__(
        self, state: LockedState, offline: Offline, queue: PushQueue, *, applied: Callable[[], AppliedSource],
    ) -> None:  # fmt: skip
        self._state, self._offline, self._queue, self._applied = state, offline, queue, applied
        self._log, self._applying, self._title = state.log, state.applying, state.source.title

    def kept(self, requests: Sequence[QueuedPush]) -> Sequence[Pushed | PushError]:
        """What becomes of each push; raises where nothing is kept of any, and StateChangedError where it is to be tried again."""
        tables = [request.table for request in requests]
        applied = self._current()
        state, clock = self._state.read()
        applied.source.check_open(clock)
        state = self._state.caught_up(applied, state, clock)
        now = max(clock, state.applied)
        if self._log.last_known_at() is None and applied.source.history is None:
            state = self._state.publish_empty(applied, state, now)
        views = self._state.published(applied)
        whole = pa.concat_tables(tables)
        known = self._state.known(applied.source, whole)
        overwriting = {number: request.overwrite for number, request in enumerate(requests) if request.overwrite}
        refused: Mapping[int, PushError] = self._read_on_by_others(requests, clock)
        if overwriting:
            changed = outdated(applied.source, tables, overwriting, log=self._log, forgotten=self._offline.forgotten)
            refused = {**refused, **changed}
        judged = JudgedRows.of(applied.source, tables, whole, overwriting=overwriting)
        refused = {**judged.refused, **refused}
        while True:
            found = deduplicate(
                applied.source, tables, known, now=now, refused=refused, overwriting=overwriting,
                quarantined=judged.quarantined,
            )  # fmt: skip
            moves = _moves(found, requests)
            aside = {
                which: whole.take(pa.array(rows))
                for which, rows in zip(ASIDE, (found.late, found.quarantined), strict=True)
                if rows
            }
            for which, rows in (
                aside.items() if moves else ()
            ):  # kept aside after this, and before all else: a process that dies loses none
                moved = MovedRows.of(rows, which)
                self._log.move(moved.before)
                moves |= moved.within
            if not found.fresh:
                if moves:
                    self._log.move(moves)
                break
            of = [request for number, request in enumerate(requests) if number not in refused]
            fresh = whole.take(pa.array(found.fresh))
            try:
                self._write(applied, fresh, found, (state, clock), views=views, of=of, moves=moves)
                break
            except _UnreadableRowsError as error:
                refused = self._unreadable(tables, views, refused, str(error))
            except _GivenUpError as error:
                gone = [number for number, request in enumerate(requests) if request in error.requests]
                refused = {**refused, **dict.fromkeys(gone, PushError(GIVEN_UP))}
        if moves:
            self._keep_moved_aside(now)
        else:
            for which, rows in aside.items():
                self._keep_aside(rows, now, which)
        found.outcomes = judged.telling(found.outcomes)
        lacking = rows_without_key(applied.source, applied.views, whole) if found.fresh else None
        return found.outcomes if lacking is None else _telling(found, tables, lacking)

    def _current(self) -> AppliedSource:
        applied = self._applied()
        if applied.source.columns != self._state.source.columns:
            raise PushError(
                f"{applied.source.title}: its columns were changed since it was first pushed to, and its log keeps those "
                "that it began with; give the source another name"
            )
        return applied

    def _unreadable(
        self, tables: Sequence[pa.Table], views: Sequence[PushedView], refused: Mapping[int, PushError], why: str
    ) -> dict[int, PushError]:
        """The requests that have a row for which an expression fails, found by reading each alone."""
        found = dict(refused)
        for number, table in enumerate(tables):
            if number not in found:
                failure = self._first_failure(table, views)
                if failure is not None:
                    said = f"{self._title}: row {failure[0]}: {failure[1]}"
                    found[number] = RowRefusedError(said, {failure[0]: failure[1]})
        if len(found) == len(refused):
            raise PushError(f"{self._title}: {why}")
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

    def _read_on_by_others(self, requests: Sequence[QueuedPush], now: int) -> dict[int, PushError]:
        """The requests whose rows come from partitions of streams that are not where they were when the rows were read; under the
        lock, so that nobody moves them until these rows are kept."""
        if all(request.advance is None for request in requests):
            return {}
        self._keep_moved_aside(now)
        held: dict[str, str | None] = {**self._log.positions()}
        found: dict[int, PushError] = {}
        for number, request in enumerate(requests):
            for name, since in request.advance.since.items() if request.advance is not None else ():
                if held.get(name) != since:
                    said = f"{self._title}: another consumer reads {name} by now, or it was set to another place"
                    found[number] = DeposedError(f"{said}; nothing of these rows was kept")
            if request.advance is not None and number not in found:
                held |= dict.fromkeys(request.advance.since, "")  # of a second one, nothing is kept
        return found

    def _keep_moved_aside(self, now: int) -> None:
        """Keep rows aside that lie beside the position of the stream that they come from, where they are not yet."""
        for which in ASIDE:
            rows, token = waiting(self._log.positions(), which)
            if rows is None:
                continue
            if token is not None and self._offline.log(self._state.source, which).positions().get(which) != token:
                self._keep_aside(rows, now, which, token=token)
            self._log.move(nothing(which))

    def _keep_aside(self, rows: pa.Table, now: int, which: str, *, token: str | None = None) -> None:
        """which: the log that they belong into. token: by which it is known that they are there."""
        log = self._offline.log(self._state.source, which)
        with log.lock("keeping rows aside"):
            last = log.last_known_at()
            first = now if last is None else max(now, last + 1)
            stamped = _stamped(rows, range(first, first + rows.num_rows), [None] * rows.num_rows)
            log.append(_batches(stamped, log.schema), None if token is None else {which: token})

    def _write(
        self, applied: AppliedSource, rows: pa.Table, found: Deduplicated, read: tuple[SourceState, int], *,
        views: Sequence[PushedView], of: Sequence[QueuedPush], moves: Mapping[str, str],
    ) -> None:  # fmt: skip
        source, (state, clock) = applied.source, read
        first = self._first(state, clock)
        state = state._replace(reserved=first, confirmed=first - 1)
        self._state.swap({}, state)
        table = _stamped(rows, range(first, first + rows.num_rows), found.replaced(first))
        try:
            reading: BatchReading = self._applying.read(views, table)  # what fails must never come into the log
        except ValueError as error:
            self._state.swap({}, state._replace(reserved=None))
            raise _UnreadableRowsError(str(error)) from error
        gone = self._queue.begins_to_keep(of)
        if gone:
            self._state.swap({}, state._replace(reserved=None))
            raise _GivenUpError(gone)
        self._log.append(_batches(table, self._log.schema), moves or None)
        self._queue.fate = Fate.LOGGED
        upto = settled(source, table)
        puts = self._applying.records(reading, upto=upto)
        self._state.wait(upto)
        try:
            self._state.swap({**puts, **found.renewed(first)}, SourceState(upto, None, upto, first + rows.num_rows - 1))
        except StateChangedError:  # what is online now lacks rows of the log, these among them, whatever it was
            try:
                self._state.caught_up(applied, *self._state.read())
            except StateChangedError as again:
                raise again.error from None
        self._queue.fate = Fate.SERVED

    def _first(self, state: SourceState, now: int) -> int:
        """The first known_at of a batch: after the clock, and after all that was ever confirmed or served."""
        last, said = self._log.last_known_at(), self._log.confirmed()
        least = max(state.complete, said.written, said.served, NEVER if last is None else last)
        if least > now:  # a clock that is behind is waited for before anything is kept
            try:
                self._state.wait(least)
            except OnlineUnavailableError as error:
                way = f"To push before that, take back what is ahead: featurestore take-back {self._state.source.name}"
                raise error.saying(f"{error} {way}.") from error
        return max(least, now) + 1


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


def _moves(found: Deduplicated, requests: Sequence[QueuedPush]) -> dict[str, str]:
    """How far streams were read when the rows are kept of the requests that are not refused."""
    moves: dict[str, str] = {}
    for outcome, request in zip(found.outcomes, requests, strict=True):
        if request.advance is not None and isinstance(outcome, Pushed):
            moves |= request.advance.upto
    return moves


def _stamped(rows: pa.Table, known: Sequence[int], replaces: Sequence[int | None]) -> pa.Table:
    return rows.append_column(KNOWN_AT, pa.array(known, pa.int64())).append_column(
        REPLACES, pa.array(replaces, pa.int64())
    )


def _batches(rows: pa.Table, schema: pa.Schema) -> list[pa.RecordBatch]:
    batches: list[pa.RecordBatch] = rows.cast(schema).combine_chunks().to_batches()
    return batches
