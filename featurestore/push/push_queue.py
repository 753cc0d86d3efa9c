"""The queue of those who push to one source; a batch takes as many of them as it has room for."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field

from featurestore.lazy import pa
from featurestore.push.pushed import Pushed
from featurestore.push.rows import GivenRows

BATCH_ROWS = 5_000
"""Rows that one batch takes at most, however many wait."""


@dataclass
class QueuedPush:
    """Rows that wait, and what becomes of them."""

    table: pa.Table
    naive: tuple[str, ...] = ()
    answer: Future[Pushed] = field(default_factory=Future)


class PushQueue:
    """Safe to use from several threads."""

    def __init__(self) -> None:
        self._waiting: deque[QueuedPush] = deque()
        self._served = False  # whether the thread takes batches
        self._gate = threading.Lock()

    def join(self, rows: GivenRows) -> Future[Pushed]:
        """Stand at the end with some rows; without any, there is nothing to wait for."""
        request = QueuedPush(*rows)
        if rows.table.num_rows:
            with self._gate:
                self._waiting.append(request)
        else:
            request.answer.set_result(Pushed(0, 0, 0))
        return request.answer

    def take(self) -> list[QueuedPush]:
        """Those of the next batch, out of the queue; the others of it gave up waiting."""
        with self._gate:
            requests: list[QueuedPush] = []
            rows = 0
            while self._waiting and (not requests or rows + self._waiting[0].table.num_rows <= BATCH_ROWS):
                request = self._waiting.popleft()
                if request.answer.set_running_or_notify_cancel():
                    requests.append(request)
                    rows += request.table.num_rows
            return requests

    def needs_service(self) -> bool:
        """Whether nobody served the queue until now; whoever asks does from now on."""
        with self._gate:
            idle, self._served = not self._served, True
            return idle

    def goes_on(self) -> bool:
        """Whether anybody waits; where nobody does, it is served no more."""
        with self._gate:
            self._served = bool(self._waiting)
            return self._served
