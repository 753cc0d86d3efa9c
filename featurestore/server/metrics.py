"""What the server counts, for Prometheus: requests, rows and values as they pass, and the state of the store when it is asked."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from operator import add
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from starlette.types import Scope

from featurestore.online import OnlineStore
from featurestore.online.watched import WatchedStore, connections
from featurestore.push.pushed import Pushed
from featurestore.semantics.status import Status
from featurestore.server.access_log import ASKED
from featurestore.server.admission import principal_of
from featurestore.server.limits import ServerLimits
from featurestore.server.problems import ERROR, refusal_reason
from featurestore.server.request_ids import REQUEST
from featurestore.server.store_state import StoreState
from featurestore.serving.online_result import OnlineResult
from featurestore.store import FeatureStore

SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""The folder in which several workers keep their numbers. The library reads it from the environment when it is imported."""

BUCKETS_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

OTHER = "(other)"
"""The one label of all paths that are no route: clients choose them, and there may be any number."""

FEATURES = "(features)"
"""The one label of all lookups of features that no service has put together."""

LOOK_SECONDS = 1.0
"""Seconds between two looks at what is under way."""

CLOSED = 0
"""In place of a status: the client hung up before an answer began."""

TOKENS = "(tokens)"
"""The principal of a token, in the metrics: what a token calls itself, its issuer decides."""

TIMES_AT_ONCE = 100
"""Times of requests of which a histogram is told at once."""

OUTCOMES = ("accepted", "unchanged", "late", "quarantined")


class _LookupCounters(NamedTuple):
    """Of one service and principal."""

    requests: Counter
    rows: Counter
    values: tuple[Counter, ...]
    """By the number of the status."""


class _LookupTally:
    """What was looked up by one principal of one service since it was told last."""

    __slots__ = ("requests", "rows", "values")

    def __init__(self) -> None:
        self.requests = self.rows = 0
        self.values = [0] * len(Status)
        """By the number of the status."""


class _Times(NamedTuple):
    """How long requests took, and those of which the histogram was not told yet: of many in a row it is told in a third of the time."""

    histogram: Histogram
    waiting: deque[float]

    def tell(self) -> None:
        """Tell it; safe from several threads, of which each tells what it takes."""
        with suppress(IndexError):
            while True:
                self.histogram.observe(self.waiting.popleft())


class Metrics:
    """The metrics of one application; it is told of what passes, from the event loop and from lanes alike.

    Label values are what is applied, what keys are called and what the code names, never what a client sends. Lookups are counted here, and
    Prometheus's counters are told when somebody asks for them, of times also once there are many; in one of several workers, which asks for those of all, at once.
    """

    def __init__(self, store: FeatureStore, limits: ServerLimits) -> None:
        self._limits = limits
        self.paths: frozenset[str] = frozenset()
        """Those that are routes."""
        self._state = StoreState(store)
        self._registry = CollectorRegistry()
        self._registry.register(self._state)
        self._request_seconds = Histogram(
            "featurestore_request_seconds", "From the head of a request to the first byte of its answer", ("route", "status"),
            buckets=BUCKETS_SECONDS, registry=self._registry,
        )  # fmt: skip
        self._in_flight = Gauge(
            "featurestore_requests_in_flight", "Requests under way, as the limit `requests` counts them",
            multiprocess_mode="livesum", registry=self._registry,
        )  # fmt: skip
        self._refusals = self._counter("refusals", "Requests refused for a limit, or for who asks", "reason")
        self._lookup_rows = self._counter("lookup_rows", "Rows that were looked up", "service")
        self._asked = self._counter(
            "service_requests", "Lookups that were answered, by who asked", "service", "principal"
        )
        self._values = self._counter("values", "Values that were served", "service", "status")
        self._store_seconds = Histogram(
            "featurestore_store_seconds", "Of a call of an online store on another machine, retries included", ("call", "outcome"),
            buckets=BUCKETS_SECONDS, registry=self._registry,
        )  # fmt: skip
        self._connections = Gauge(
            "featurestore_store_connections", "Connections to the online store: those in use, and as many as may be", ("state",),
            multiprocess_mode="livesum", registry=self._registry,
        )  # fmt: skip
        self._unlogged = self._counter(
            "access_log_dropped", "Lines that the access log has not, since nobody took them"
        )
        self._pushed_rows = self._counter("pushed_rows", "Rows that were pushed", "source", "outcome")
        failures = self._counter(
            "statistics_failures", "Statistics of runs, frames and served hours that could not be kept"
        )
        store.when_statistics_fail(failures.inc)
        self._seconds: dict[tuple[str, int], _Times] = {}
        self._calls: dict[tuple[str, str], Histogram] = {}
        self._tallies: dict[tuple[str, str], _LookupTally] = {}
        self._lookups: dict[tuple[str, str], _LookupCounters] = {}
        self._tallying = Lock()  # lanes count too
        self._telling = Lock()  # held until all is told: else who asks meanwhile misses what was taken
        self._is_shared = SHARED in os.environ
        self._sources: dict[str, tuple[Counter, ...]] = {}

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"featurestore_{name}", text, labels, registry=self._registry)

    # --- what passes --------------------------------------------------------------------------

    def answered(self, scope: Scope, path: str, status: int, seconds: float) -> None:
        """The answer to a request begins, or its client hung up: CLOSED."""
        times = self._seconds.get((path, status // 100))
        if times is None:
            times = self._times(self.route(scope, path), status // 100)
        times.waiting.append(seconds)
        if len(times.waiting) >= TIMES_AT_ONCE or self._is_shared:
            times.tell()
        if status >= 400 and (error := scope.get(ERROR)) is not None:
            self.refused(error)

    def route(self, scope: Scope, path: str) -> str:
        """The route as it was declared; a request that was refused before there was one has its path, where that is one."""
        found = getattr(scope.get("route"), "path", path)
        return found if found in self.paths else OTHER

    def _times(self, route: str, hundreds: int) -> _Times:
        key = route, hundreds
        if key not in self._seconds:
            self._seconds[key] = _Times(
                self._request_seconds.labels(route, f"{hundreds}xx" if hundreds else "closed"), deque()
            )
        return self._seconds[key]

    def unlogged(self, lines: int) -> None:
        """Lines of the access log that could not be written."""
        self._unlogged.inc(lines)

    def refused(self, error: Exception) -> None:
        """A request was answered with this error, which counts where it is a refusal."""
        reason = refusal_reason(error)
        if reason is not None:
            self._refusals.labels(reason).inc()

    def looked_up(self, scope: Scope, result: OnlineResult, *, is_service: bool) -> None:
        """The answer to a lookup, by a service's name or by features. The scope is told what was asked for."""
        name = result.service.name if is_service else FEATURES
        rows = len(result)
        scope[ASKED] = "service", name, rows
        if result.request is not None:  # the id under which it is logged
            scope[REQUEST] = result.request
        principal = principal_of(scope).name
        if principal.startswith("jwt:"):  # an issuer's tokens may have any number of names, and are one
            principal = TOKENS
        counts = result.status_counts()
        with self._tallying:
            tally = self._tallies.get((name, principal))
            if tally is None:
                tally = self._tallies[name, principal] = _LookupTally()
            tally.requests += 1
            tally.rows += rows
            tally.values = list(map(add, tally.values, counts))
        if self._is_shared:  # other workers tell of it too
            self._tell()

    def _tell(self) -> None:
        """Add to the counters what was looked up since they were told last. A counter takes longer than all that is counted of a lookup."""
        with self._telling:
            with self._tallying:
                tallies, self._tallies = self._tallies, {}
            for (service, principal), tally in tallies.items():
                counters = self._lookups.get((service, principal))
                if counters is None:
                    values = tuple(self._values.labels(service, status.name) for status in Status)
                    counters = self._lookups[service, principal] = _LookupCounters(
                        self._asked.labels(service, principal), self._lookup_rows.labels(service), values
                    )
                counters.requests.inc(tally.requests)
                counters.rows.inc(tally.rows)
                for counter, count in zip(counters.values, tally.values, strict=True):
                    if count:
                        counter.inc(count)

    def pushed(self, scope: Scope, source: str, counts: Pushed) -> None:
        """What became of the rows of a push. The scope is told what was asked for."""
        scope[ASKED] = "source", source, counts.accepted + counts.unchanged + counts.late + counts.quarantined
        counters = self._sources.get(source)
        if counters is None:
            counters = self._sources[source] = tuple(self._pushed_rows.labels(source, name) for name in OUTCOMES)
        for counter, name in zip(counters, OUTCOMES, strict=True):
            counter.inc(getattr(counts, name))

    def watch_store(self, store: OnlineStore) -> None:
        """Be told of its calls, where it is on another machine."""
        if isinstance(store, WatchedStore):
            store.watcher = self._called

    def _called(self, call: str, seconds: float, answered: bool) -> None:
        key = call, "answered" if answered else "failed"
        child = self._calls.get(key)
        if child is None:
            child = self._calls[key] = self._store_seconds.labels(*key)
        child.observe(seconds)

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """While this lasts, the other workers see what is under way in this one, not older than LOOK_SECONDS."""
        watch = asyncio.create_task(self._watch()) if SHARED in os.environ else None
        try:
            yield
        finally:
            if watch is not None:
                watch.cancel()
                with suppress(asyncio.CancelledError):
                    await watch

    async def _watch(self) -> None:
        while True:
            self._look()
            await asyncio.sleep(LOOK_SECONDS)

    def _look(self) -> None:
        self._in_flight.set(self._limits.requests)
        held = connections()
        if held.most:
            self._connections.labels("in use").set(held.in_use)
            self._connections.labels("limit").set(held.most)

    # --- what is told -------------------------------------------------------------------------

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """All metrics, of all workers, and their media type: Prometheus's text, or OpenMetrics where `Accept` asks for it."""
        encode, media_type = choose_encoder(accept)
        self._look()
        self._tell()
        for times in list(self._seconds.values()):
            times.tell()
        folder = os.environ.get(SHARED)
        if folder is None:
            return encode(self._registry), media_type
        _forget_ended(Path(folder))
        together = CollectorRegistry()
        MultiProcessCollector(together, folder)  # type: ignore[no-untyped-call]  # the library has no types for it
        together.register(self._state)
        return encode(together), media_type


def _forget_ended(folder: Path) -> None:
    """Remove what is under way in workers that are no more; what they have counted stays."""
    for path in folder.glob("gauge_live*.db"):
        process = int(path.stem.rpartition("_")[2])
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            mark_process_dead(process, str(folder))  # type: ignore[no-untyped-call]  # the library has no types for it
        except PermissionError:
            continue
