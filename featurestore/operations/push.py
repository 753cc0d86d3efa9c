"""push: rows into a source's log and the records of every view over it; see `operations.pushing`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from featurestore.clock import Clock, to_datetime
from featurestore.declare.push import PushSource
from featurestore.errors import NotFoundError, OnlineUnavailableError, PushError, did_you_mean
from featurestore.operations.materialize import Run
from featurestore.operations.parts import takes_pushes
from featurestore.operations.pushing.pusher import MARGIN, Pushed, Pusher
from featurestore.registry.documents import Document, catalog_of, resolved_view
from featurestore.registry.store import Registry
from featurestore.semantics.view import ResolvedView
from featurestore.stores.codec import ViewCodec, pack_watermark
from featurestore.stores.offline import Offline
from featurestore.stores.online import OnlineStore

__all__ = ["Pushing"]

PATIENCE = 10.0
"""Seconds for which a clock that was injected may stand still before a push gives up waiting for it."""


class Pushing:
    """The pushers of a project, one a source, made when they are first needed; safe to use from several threads."""

    def __init__(
        self, registry: Registry, offline: Offline, store: OnlineStore, *, project: str, clock: Clock | None
    ) -> None:
        self._registry, self._offline, self._store, self._project = registry, offline, store, project
        own = getattr(clock, "wait_until", None)
        self._wait: Callable[[int], None] = own or self._wait_for_the_clock
        self._margin = 0 if own else MARGIN
        self._pushers: dict[str, Pusher] = {}
        self._lock = threading.Lock()
        self._known: tuple[int, dict[str, list[ResolvedView]]] = (-1, {})

    def push(self, name: str, rows: Any, *, json: bool = False) -> Pushed:
        """Keep rows and apply them. Raises NotFoundError, PushError, LogError and OnlineStoreError; see Pusher."""
        return self._pusher(name).push(rows, json=json)

    def fill(self, view: ResolvedView, *, full: bool) -> list[Run]:
        """Make a view over pushed rows complete online: all of it where it never was, else what a dead pusher left."""
        assert isinstance(view.source, PushSource)
        pusher, codec = self._pusher(view.source.name), ViewCodec(self._project, view)
        reading = self._store.get([codec.watermark_key])
        if reading.values[0] is not None and not full:
            pusher.repair()
            return []
        started, instant = time.perf_counter(), reading.now

        def publish(upto: int) -> dict[bytes, bytes | None]:
            nonlocal instant
            instant = upto
            return {codec.watermark_key: pack_watermark([upto])}

        keys = pusher.fill(view, publish)
        seconds = time.perf_counter() - started
        return [Run(view.name, view.fingerprint, instant, keys, keys, full=True, seconds=seconds, files=())]

    def _pusher(self, name: str) -> Pusher:
        with self._lock:
            if name not in self._pushers:
                source = self._source(name)
                self._pushers[name] = Pusher(
                    source, self._offline, self._store, project=self._project,
                    versions=lambda: self._versions(name), wait=self._wait, margin=self._margin,
                )  # fmt: skip
            return self._pushers[name]

    def _source(self, name: str) -> PushSource:
        sources = catalog_of(self._registry.current().document).sources
        pushed = [known for known, source in sources.items() if isinstance(source, PushSource)]
        if name not in sources:
            raise NotFoundError(
                f"No push source '{name}' was applied.{did_you_mean(name, pushed, noun='Push sources')}"
            )
        source = sources[name]
        if not isinstance(source, PushSource):
            raise PushError(f"{source.title} is read from files; only a PushSource takes rows")
        return source

    def _versions(self, name: str) -> list[ResolvedView]:
        """The view versions over a source that may be online: those applied, and those that are still to be freed."""
        generation = self._registry.generation()
        left = self._registry.leftovers()
        if self._known[0] != hash((generation, left)):
            self._known = (hash((generation, left)), self._all_versions(set(left)))
        return self._known[1].get(name, [])

    def _all_versions(self, left: set[tuple[str, str]]) -> dict[str, list[ResolvedView]]:
        current = self._registry.current().document
        found = {(view, record["fingerprint"]): current for view, record in current["views"].items()}
        for version in self._registry.history() if left else ():
            for view, record in version.document["views"].items():
                if (view, record["fingerprint"]) in left:
                    found.setdefault((view, record["fingerprint"]), version.document)
        by_source: dict[str, list[ResolvedView]] = {}
        for (view, _), document in found.items():
            if _is_pushed(document, view):
                resolved = resolved_view(document, view)
                if takes_pushes(resolved):
                    by_source.setdefault(resolved.source.name, []).append(resolved)
        return by_source

    def _wait_for_the_clock(self, instant: int) -> None:
        """Return when the online store's clock has come to an instant."""
        moved, last = time.monotonic(), None
        while True:
            now = self._store.get([]).now
            if now >= instant:
                return
            if now != last:
                moved, last = time.monotonic(), now
            elif time.monotonic() - moved > PATIENCE:
                raise OnlineUnavailableError(
                    f"The online store's clock stands at {to_datetime(now).isoformat()}, and what was pushed is known from "
                    f"{to_datetime(instant).isoformat()} on; it is in the log, and applied by the next push or run of "
                    "materialize"
                )
            time.sleep(min((instant - now) / 1e6, 0.01))


def _is_pushed(document: Document, view: str) -> bool:
    declared = document["views"][view]["declared"]["source"]
    return bool(document["sources"][declared]["declared"]["kind"] == "push")
