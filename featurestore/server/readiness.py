"""Whether lookups can be answered, looked at by one thread at a time, however many ask."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any

import orjson

from featurestore.access.principal import Principal
from featurestore.errors import FeatureStoreError, OnlineUnavailableError
from featurestore.online.view_codec import ViewCodec, unpack_watermark
from featurestore.server.drain import Drain
from featurestore.server.presented import unready
from featurestore.server.problems import HttpAnswer, problem, problem_of
from featurestore.serving.lookup import Lookup
from featurestore.store import FeatureStore
from featurestore.training.manifest import Manifest

SHARED_SECONDS = 1.0
"""How old an answer may be that is given to a client without a key."""

NO_SECONDS = 0.001
"""Seconds for a store that was found to be away just now."""

PATH = "/readyz"
UNTOLD = "The server cannot answer lookups. A client whose key has the scope 'read' is told why"


class Readiness:
    """The answers of `/readyz`. A look waits for the online store, and has a thread of its own: other requests go on."""

    def __init__(self, store: FeatureStore, pinned: Mapping[str, Manifest], drain: Drain) -> None:
        self._store, self._pinned, self._drain = store, pinned, drain
        self._thread = ThreadPoolExecutor(1, "featurestore-ready")
        self._look: asyncio.Future[HttpAnswer] | None = None
        self._seen = 0.0

    async def answer(self, principal: Principal) -> HttpAnswer:
        """Ready or not; why, and all that names what is applied, only for those who may read everything."""
        if self._drain.is_on:
            return _not_ready("The server drains: it answers what it is still asked, and stops soon", "Draining")
        may_know = principal.may("read") and principal.only_on is None
        now = asyncio.get_running_loop().time()
        look = self._look
        if look is None or (look.done() and (may_know or now - self._seen >= SHARED_SECONDS)):
            look = self._begin()
        found = await asyncio.shield(look)
        return found if may_know else _general(found)

    def _begin(self) -> asyncio.Future[HttpAnswer]:
        loop = asyncio.get_running_loop()
        self._look = look = loop.run_in_executor(self._thread, self._looked)

        def seen(done: asyncio.Future[HttpAnswer]) -> None:
            self._seen = loop.time()
            if not done.cancelled():
                done.exception()  # the requests that wait are told; it may be that none does any more

        look.add_done_callback(seen)
        return look

    def _looked(self) -> HttpAnswer:
        try:
            return self._found()
        except OnlineUnavailableError as error:
            return _ready({"unavailable": str(error)}) if self._has_defaults() else problem_of(error, PATH)
        except FeatureStoreError as error:
            return problem_of(error, PATH)

    def _has_defaults(self) -> bool:
        """Whether every service is answered by defaults now, which takes one that was looked up before: it is looked up for no rows."""
        if self._store.config.server.when_unavailable == "raise":
            return False
        for name in self._named():
            version = self._pinned[name].fingerprint if name in self._pinned else None
            try:
                self._store.get_online_features(
                    [], name, fingerprint=version, within_seconds=NO_SECONDS, when_unavailable="defaults"
                )
            except OnlineUnavailableError:
                return False
        return True

    def _named(self) -> set[str]:
        """The services that are asked for."""
        return {*self._pinned} or {*self._store.registry.current().document["services"]}

    def _found(self) -> HttpAnswer:
        store, pinned = self._store, self._pinned
        if pinned:
            why = unready(store, pinned)
            if why is not None:
                return _not_ready(why, "NotServed")
            return _ready({"manifests": {name: manifest.fingerprint for name, manifest in pinned.items()}})
        served_on = store.without_registry()
        if served_on is not None:
            return _unfilled(served_on) or _ready({"registry": "It cannot be read; what is loaded is served on"})
        services = self._named()
        if not services:
            return _not_ready("No feature service was applied", "NotApplied")
        behind = store.behind()
        refused = [service.why for service in behind if service.served is None]
        if refused:
            return _not_ready("; ".join(refused), "Fingerprint")
        lookups = {name: store.lookup(name) for name in sorted(services)}
        missing = _unfilled(self._missing(lookups.values()))
        if missing is not None:
            return missing
        return _ready({"behind": [service._asdict() for service in behind]} if behind else {})

    def _missing(self, lookups: Iterable[Lookup]) -> list[str]:
        """The views that services read, in the versions that are served, and that have no values for now; asked all at once."""
        online, project = self._store.online, self._store.config.project
        views = {part.view.fingerprint: part.view for lookup in lookups for part in lookup.service.parts}
        marks = [ViewCodec(project, view, tagged=online.tagged).watermark_key for view in views.values()]
        reading = online.get(marks)
        held = zip(views.values(), reading.values, strict=True)
        gone = (view.name for view, mark in held if view.timing.served(unpack_watermark(mark), reading.now) is None)
        return sorted({*gone})

    def close(self) -> None:
        """End the thread, once it has looked."""
        self._thread.shutdown(wait=False)


def _ready(more: Mapping[str, Any]) -> HttpAnswer:
    return HttpAnswer(200, "application/json", [orjson.dumps({"status": "ready", **more})])


def _not_ready(why: str, kind: str) -> HttpAnswer:
    return problem(503, "Not ready", why, kind=kind, path=PATH)


def _unfilled(views: Sequence[str]) -> HttpAnswer | None:
    """The refusal for views without values; None where there is none of them."""
    if not views:
        return None
    return _not_ready(f"These views have no values online: {', '.join(views)}", "NotMaterialized")


def _general(answer: HttpAnswer) -> HttpAnswer:
    """The same without a name of anything: the kind of what is missing is all that is told."""
    if answer.status == HTTPStatus.OK:
        return _ready({})
    kind = orjson.loads(answer.pieces[0])["type"].rpartition(":")[2]
    return problem(answer.status, "Not ready", UNTOLD, kind=kind, path=PATH)
