"""Compaction in the background: what `compact` does to a log, once enough of its segments are full.

One thread a project, which lives only while there is something to seal. Pushes do not wait for it: they only look whether
this process has filled a segment since they looked last.
"""

from __future__ import annotations

import logging
import threading
import time

from featurestore.durable.forks import event, mutex, renewed_in_child
from featurestore.errors import LogError
from featurestore.sources.log import Log

THREAD = "featurestore-compaction"

REST_SECONDS = 0.005
"""Seconds for which it stops every few milliseconds, so that pushes have the interpreter half of the time at least."""

RETRY_SECONDS = 60.0
"""Seconds for which a log that could not be compacted is left alone."""

_LOGGER = logging.getLogger("featurestore")


class Compactor:
    """Seals logs in the background. after: how many segments must be full and not sealed; 0: never."""

    def __init__(self, after: int) -> None:
        self._after = after
        self._lock, self._stopped = mutex(), event()
        self.renew()
        renewed_in_child(self)

    def renew(self) -> None:
        """Begin with nothing to seal: as it is made, and in a child, where the parent's thread seals nothing."""
        self._seen: dict[Log, int] = {}
        self._failed: dict[Log, float] = {}
        self._wanted: list[Log] = []
        self._thread: threading.Thread | None = None

    def notice(self, log: Log) -> None:
        """Begin to compact a log where that is due; returns at once."""
        if not self._after or self._seen.get(log) == log.filled or self._stopped.is_set():
            return
        self._seen[log] = log.filled
        try:
            unsealed = log.unsealed()
        except LogError:  # the rows are kept, whatever became of the log since
            return
        if unsealed < self._after or time.monotonic() < self._failed.get(log, 0):
            return
        with self._lock:
            if log not in self._wanted:
                self._wanted.append(log)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name=THREAD, daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Stop after the segment that is being sealed, if any, and wait for that; idempotent."""
        self._stopped.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._wanted or self._stopped.is_set():
                    self._thread = None
                    return
                log = self._wanted.pop(0)
            try:
                log.compact_beside(stop=self._stopped.is_set, rest=lambda: self._stopped.wait(REST_SECONDS))
            except LogError as error:  # pushes and readers go on with the segments as they are
                self._failed[log] = time.monotonic() + RETRY_SECONDS
                _LOGGER.warning("A push log could not be compacted in the background: %s", error)
