"""The application of one store: the edge, the hot routes behind it, and FastAPI for all else."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from featurestore.access.authentication import Authentication
from featurestore.access.principal import EVERYBODY, LOOKING
from featurestore.access.sessions import SESSION_SECRET, Sessions, drawn_secret
from featurestore.console.addresses import ROOT
from featurestore.errors import FeatureStoreError
from featurestore.server.access_log import AccessLog
from featurestore.server.compatible.chosen import chosen_routes
from featurestore.server.connection import Connections
from featurestore.server.console_routes import ConsoleRoutes
from featurestore.server.drain import Drain
from featurestore.server.edge import ALWAYS, HttpEdge
from featurestore.server.hot_routes import HotRoutes
from featurestore.server.limits import ServerLimits
from featurestore.server.materializing import Materializing
from featurestore.server.metrics import Metrics
from featurestore.server.presented import presented
from featurestore.server.problems import BadRequest, answer_error, answer_http
from featurestore.server.readiness import Readiness
from featurestore.server.routes import add_materialize, add_metrics, add_routes
from featurestore.store import FeatureStore

if TYPE_CHECKING:
    from featurestore.server.traces import Traces

GARBAGE = 10_000
"""New objects between two looks of the garbage collector; requests make many, and hardly any that only it can free."""


TURN_SECONDS = 0.0005
"""Seconds after which a thread gives up Python's lock when another one waits for it."""


class Application(FastAPI):
    """A FastAPI application behind an edge: whatever is added to it, routes and middlewares, is behind it too."""

    edge: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, by the edge; all that is no request goes past it."""
        if scope["type"] == "http":
            await self.edge(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    async def beyond_the_edge(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that the edge has let through."""
        await super().__call__(scope, receive, send)


def create_app(
    store: FeatureStore, *, manifests: Iterable[Any] = (), close_store: bool = False, authentication: bool | None = None,
    compatible: Iterable[str] | None = None, only_look: bool = False, console: bool = False,
) -> Application:  # fmt: skip
    """The application of a store. close_store: close it when the application shuts down.

    manifests: what `store.load_manifest` takes; their services are served in exactly these versions to clients that name none.
    authentication: whether requests must bring a key or a token; by default as configured. compatible: platforms whose clients are
    answered too, by default as configured. only_look: without authentication, nobody may push or materialize. console: the console
    is at /ui, whatever is configured. Raises ManifestError, and FingerprintError with the difference where a version is refused.
    """
    pinned = presented(store, manifests)
    limits, drain = ServerLimits(store.config.server), Drain(store.config.server.drain_seconds)
    readiness, materializing = Readiness(store, pinned, drain), Materializing(store)
    is_on = store.config.server.authentication == "required" if authentication is None else authentication
    asks = Authentication(store.config if is_on else None, everybody=LOOKING if only_look else EVERYBODY)
    metrics = Metrics(store, limits)
    traces = _traces(store.config.server.traces)
    stream = store.config.server.access_log
    access_log = None if stream == "off" else AccessLog(stream, metrics.unlogged)
    pages = _console(store, limits, asks) if store.config.server.console == "on" or console else None

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        with contextlib.suppress(FeatureStoreError):  # a server starts without its online store, and says so when asked
            await run_in_threadpool(store.repair)
        with contextlib.suppress(FeatureStoreError):
            await run_in_threadpool(store.confirm_pushes)
        with contextlib.suppress(FeatureStoreError):
            metrics.watch_store(await run_in_threadpool(lambda: store.online))
        connections = Connections(store.config.server, metrics.refused)
        with _less_garbage(), _quick_turns(), traces.running() if traces is not None else contextlib.nullcontext():
            async with connections.watched(), metrics.watched():
                with drain.on_sigterm(connections.drain):
                    yield {"connections": connections}
        if access_log is not None:
            await access_log.close()
        if traces is not None:
            await run_in_threadpool(traces.close)
        await run_in_threadpool(materializing.close)
        if pages is not None:
            await run_in_threadpool(pages.close)
        limits.close()
        readiness.close()
        if close_store:
            await run_in_threadpool(store.close)

    app = Application(title="featurestore", version="1", lifespan=lifespan, openapi_url=None, redirect_slashes=False)
    for kind in (FeatureStoreError, BadRequest):
        app.add_exception_handler(kind, answer_error)
    app.add_exception_handler(HTTPException, answer_http)
    app.add_exception_handler(Exception, answer_error)
    hot = HotRoutes(store, pinned, limits, metrics)
    of_platforms = chosen_routes(store.config.server.compatible if compatible is None else compatible, hot)
    edge = HttpEdge(limits, asks, metrics, hot, app.beyond_the_edge, access_log, of_platforms, pages)
    app.edge = edge if traces is None else traces.around(edge, metrics, frozenset(ALWAYS))
    add_routes(app, store, pinned, limits, hot, readiness, secured=asks.is_on)
    add_materialize(app, store, limits, materializing)
    add_metrics(app, metrics)
    metrics.paths = frozenset(route.path for route in app.routes if isinstance(route, Route)) | {ROOT}
    if of_platforms is not None:
        metrics.paths |= of_platforms.paths
    return app


def _console(store: FeatureStore, limits: ServerLimits, asks: Authentication) -> ConsoleRoutes:
    return ConsoleRoutes(store, limits, asks, Sessions(os.environ.get(SESSION_SECRET) or drawn_secret()))


def _traces(said: str) -> Traces | None:
    if said == "off":
        return None
    from featurestore.server.traces import Traces

    return Traces()


@contextlib.contextmanager
def _quick_turns() -> Iterator[None]:
    """The event loop waits for a lane, several times a request, for as long as a thread may keep Python's lock."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, TURN_SECONDS))
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@contextlib.contextmanager
def _less_garbage() -> Iterator[None]:
    """What is loaded by now stays; scanning it again and again would pause requests."""
    gc.collect()
    gc.freeze()
    before = gc.get_threshold()
    if 0 < before[0] < GARBAGE:  # and not where it does not look at all
        gc.set_threshold(GARBAGE, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()  # else nothing of it is given back when the interpreter ends
