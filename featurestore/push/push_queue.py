"""The queue of those who push to one source; a batch takes as many of them as it has room for."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import NamedTuple

from featurestore.errors import FeatureStoreError, OnlineUnavailableError
from featurestore.lazy import pa
from featurestore.push.current_rows import CurrentRows
from featurestore.push.pushed import Pushed
from featurestore.push.rows import GivenRows

BATCH_ROWS = 5_000
"""Rows that one batch takes at most, however many wait."""


class Fate(Enum):
    """What has become of the rows of a batch so far, in words."""

    REFUSED = "Nothing of this push was kept; push the rows again."
    OPEN = (
        "The rows are just being written to the log, and may be kept. Push the same rows again: where the source has an identity, "
        "rows that were kept change nothing."
    )
    LOGGED = (
        "The rows are kept: they are in the log, and the next push to the source, run of materialize or start of a server "
        "applies them."
    )
    SERVED = "The rows are kept and applied; only rows that count nowhere, since they came too late or are quarantined, were not kept aside."

    def told(self, error: FeatureStoreError) -> FeatureStoreError:
        """The error with what has become of the rows."""
        found = error.saying(f"{error} {self.value}")
        found.kept = {Fate.REFUSED: "no", Fate.OPEN: "unknown"}.get(self, "yes")
        return found


class PushAnswer(Future[Pushed]):
    """What will become of a push. A caller that waits for no longer than so many seconds is told by OnlineUnavailableError what has become
    of its rows: those that are not in the log by then never come there."""

    def __init__(self, queue: PushQueue) -> None:
        super().__init__()
        self._queue = queue
        self.is_given_up = False

    def within(self, seconds: float) -> Pushed:
        """Wait for it."""
        try:
            return self.result(None if seconds == inf else seconds)
        except FutureTimeoutError:
            if self.done():  # by now, or its own error
                return self.result()
            return self._given_up()

    async def awaited(self, seconds: float) -> Pushed:
        """`within` for coroutines."""
        try:
            async with asyncio.timeout(None if seconds == inf else seconds):
                return await asyncio.wrap_future(self)
        except TimeoutError:
            if self.done() and not self.cancelled():  # by now, or its own error
                return self.result()
            return self._given_up()

    def _given_up(self) -> Pushed:
        """What has become of it, where it is done just now."""
        fate = Fate.REFUSED if self.cancel() else self._queue.give_up(self)
        if fate is None:
            return self.result()
        raise fate.told(OnlineUnavailableError("The push was not answered in the time that it was given."))


class Advance(NamedTuple):
    """How far partitions of a stream are read when the rows are kept that come from them. since: where each must still be, as
    `Log.positions` has it (None: nowhere yet); upto: where each is then."""

    since: Mapping[str, str | None]
    upto: Mapping[str, str]


@dataclass(eq=False)
class QueuedPush:
    """Rows that wait, and what becomes of them. overwrite: whether they say what rows are from now on, and in place of which.
    advance: of the stream that they come from."""

    table: pa.Table
    naive: tuple[str, ...]
    answer: PushAnswer
    overwrite: bool | CurrentRows = False
    advance: Advance | None = None


class PushQueue:
    """Safe to use from several threads. fate: what has become of the rows of the batch that was taken last."""

    def __init__(self) -> None:
        self._waiting: deque[QueuedPush] = deque()
        self._served = False  # whether the thread takes batches
        self._gate = threading.Lock()
        self.fate = Fate.REFUSED

    def join(
        self, rows: GivenRows, *, overwrite: bool | CurrentRows = False, advance: Advance | None = None
    ) -> PushAnswer:
        """Stand at the end with some rows; without any, and without an advance, there is nothing to wait for."""
        request = QueuedPush(*rows, answer=PushAnswer(self), overwrite=overwrite, advance=advance)
        if rows.table.num_rows or advance is not None:
            with self._gate:
                self._waiting.append(request)
            request.answer.add_done_callback(self._leave)
        else:
            request.answer.set_result(Pushed(0, 0, 0))
        return request.answer

    def _leave(self, answer: Future[Pushed]) -> None:
        """Let go of the rows of somebody who gave up while waiting."""
        if answer.cancelled():
            with self._gate:
                self._waiting = deque(request for request in self._waiting if request.answer is not answer)

    def give_up(self, answer: PushAnswer) -> Fate | None:
        """What has become of the rows of a push of the batch that is worked on, for which nobody waits any more; None where it is
        done. Rows that are not kept yet never are."""
        with self._gate:
            fate = self.fate
            if answer.done():
                return None
            answer.is_given_up = fate is Fate.REFUSED
            return fate

    def begins_to_keep(self, requests: Sequence[QueuedPush]) -> list[QueuedPush]:
        """Those of a batch that were given up; where there are none, none is any more, and the batch is kept."""
        with self._gate:
            gone = [request for request in requests if request.answer.is_given_up]
            if not gone:
                self.fate = Fate.OPEN
            return gone

    def take(self) -> list[QueuedPush]:
        """Those of the next batch, out of the queue; the others of it gave up waiting."""
        with self._gate:
            self.fate = Fate.REFUSED
            requests: list[QueuedPush] = []
            rows = 0
            while self._waiting and (not requests or rows + self._waiting[0].table.num_rows <= BATCH_ROWS):
                request = self._waiting.popleft()
                if request.answer.set_running_or_notify_cancel():
                    requests.append(request)
                    rows += request.table.num_rows
            return requests

    def needs_service(self) -> bool:
        """Whether nobody served the queue until now; the caller does from now on."""
        with self._gate:
            idle, self._served = not self._served, True
            return idle

    def goes_on(self) -> bool:
        """Whether anybody waits; where nobody does, it is served no more."""
        with self._gate:
            self._served = bool(self._waiting)
            return self._served
