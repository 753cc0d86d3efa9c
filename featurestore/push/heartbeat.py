"""Confirms several times a second, in the online store, that all logged rows are there.

One thread a project, in processes that push and in servers. It also brings online what a dead pusher left, or what a store
lacks that came back older, within a second of that.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable

from featurestore.durable.forks import event, mutex, renewed_in_child
from featurestore.errors import FeatureStoreError
from featurestore.push.pusher import Pusher

BEAT_SECONDS = 0.3
"""Seconds between two beats."""

_LOGGER = logging.getLogger("featurestore")


class Heartbeat:
    """Confirms the sources of `pushers`, which is asked at each beat, from `start` to `close`."""

    def __init__(self, pushers: Callable[[], Iterable[Pusher]]) -> None:
        self._pushers = pushers
        self._lock, self._stopped, self._told = mutex(), event(), ""
        self.renew()
        renewed_in_child(self)

    def renew(self) -> None:
        """Begin without a thread: as it is made, and in a child, which has none of its parent's."""
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, where it has not yet and is not closed; returns at once."""
        with self._lock:
            if self._thread is None and not self._stopped.is_set():
                self._thread = threading.Thread(target=self._work, name="featurestore-heartbeat", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Stop after the beat that is under way, if any, and wait for that; idempotent."""
        self._stopped.set()
        with self._lock:  # one thread begins it
            thread = self._thread
        if thread is not None:
            thread.join()

    def _work(self) -> None:
        while not self._stopped.wait(BEAT_SECONDS):
            try:
                for pusher in self._pushers():
                    pusher.confirm(older=round(BEAT_SECONDS * 500_000))
                self._told = ""
            except FeatureStoreError as error:  # the next beat tries again; lookups say that they are stale
                if self._told != type(error).__name__:
                    self._told = type(error).__name__
                    _LOGGER.warning("What was pushed could not be confirmed online: %s", error)
