"""Materialize by request: one call at a time in a process, in a thread of its own; and how far views have come."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from featurestore.errors import FeatureStoreError, MaterializeError
from featurestore.registry.activity import Activity, acting_as
from featurestore.registry.rebind import check_applied
from featurestore.reports.status import ViewStatus
from featurestore.store import FeatureStore

_LOGGER = logging.getLogger("featurestore.server")


class Materializing:
    """What requests have asked to be filled. Views that other processes work on are held apart by their leases."""

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self._stop = threading.Event()
        self._one = threading.Lock()
        self._thread: threading.Thread | None = None
        self._looks = ThreadPoolExecutor(1, "featurestore-status")
        self._look: asyncio.Future[list[ViewStatus]] | None = None

    async def status(self) -> list[ViewStatus]:
        """How far each view has come. It may read a source, so there is one look at a time, whose answer all get who come meanwhile."""
        if self._look is None or self._look.done():
            self._look = asyncio.get_running_loop().run_in_executor(self._looks, self._store.status)
            self._look.add_done_callback(
                lambda done: done.cancelled() or done.exception()
            )  # it may be that nobody waits any more
        return await asyncio.shield(self._look)

    def begin(self, views: Sequence[str], *, full: bool, who: str) -> None:
        """Begin to fill what is due of these applied views. Raises NotFoundError, and MaterializeError
        where this process is at it already."""
        check_applied(self._store.registry.current(), self._store.catalog, names=views, kept=())
        if not self._one.acquire(blocking=False):
            raise MaterializeError("This server materializes already; GET /v1/status tells how far it has come")
        self._thread = threading.Thread(
            target=self._work, args=(views, full, who), name="featurestore materialize", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """End after the batch that is being written; the next run completes the work."""
        self._stop.set()
        self._looks.shutdown(wait=False)
        if self._thread is not None:
            self._thread.join()

    def _work(self, views: Sequence[str], full: bool, who: str) -> None:
        try:
            with acting_as(who):
                for name in views:
                    if self._stop.is_set():
                        return
                    self._fill(name, full=full)
        finally:
            self._one.release()

    def _fill(self, view: str, *, full: bool) -> None:
        """One view; what it fails with is told in the log and the trail, and the others go on."""
        try:
            self._store.materialize([view], full=full, progress=False, stop=self._stop)
        except (FeatureStoreError, OSError) as error:
            if self._stop.is_set():
                return
            kind = type(error).__name__
            _LOGGER.warning("FeatureView '%s' was not materialized. %s: %s", view, kind, error)
            try:
                self._store.registry.add_activity([Activity("fail to materialize", view, {"error": kind})])
            except FeatureStoreError as lost:
                _LOGGER.warning("That is not in the trail of activity: %s", lost)
