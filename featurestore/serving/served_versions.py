"""Which version of a service is served: the newest whose views are all complete online, and whose functions this process has.

A changed view is filled beside the version that is served, and takes its place in one step, when its first values may
be served. A model that names a fingerprint gets exactly those definitions, or is refused with the difference; those of
kept versions are filled and pushed to for as long as they are kept. A list of features is answered as an applied service of
them would be.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any, NamedTuple

from featurestore.catalog import Catalog
from featurestore.clock import wall_clock
from featurestore.declare.on_demand import OnDemand
from featurestore.declare.services import ADHOC, FeatureService
from featurestore.durable.forks import mutex
from featurestore.errors import (
    NOT_APPLIED_YET,
    DeclarationError,
    FeatureStoreError,
    FingerprintError,
    NotFoundError,
    NotMaterializedError,
    OnlineUnavailableError,
    RegistryUnavailableError,
    RequestError,
)
from featurestore.online import OnlineStore
from featurestore.online.due import due_within
from featurestore.online.view_codec import ViewCodec, unpack_watermark
from featurestore.registry.diff import changes
from featurestore.registry.documents import Document, service_views
from featurestore.registry.store import Registry, ServiceVersion, Version
from featurestore.semantics.service import ResolvedService, resolve_service
from featurestore.semantics.view import ResolvedView
from featurestore.serving.feature_list import FeatureList, listed_service, selections_of
from featurestore.serving.lookup import BegunLookup, Lookup
from featurestore.serving.newest_version import NewestVersion
from featurestore.serving.online_result import OnlineResult
from featurestore.serving.recorder import Recorder
from featurestore.serving.request_id import checked_id
from featurestore.serving.view_readers import Vouched
from featurestore.training.manifest import Manifest

RELOAD_SECONDS = 2.0
"""Seconds after which a loaded service looks whether a newer version is to be served."""


PRESENTED_MANIFESTS = 1_000
"""Definitions of manifests that are remembered at most; the one presented first is forgotten first."""

LISTS_HELD = 1_000
"""Lists of features that are kept loaded at most; the one loaded first goes first."""


class Patience(NamedTuple):
    """How long a lookup may wait for the online store, and whether the defaults are taken where it cannot be reached."""

    seconds: float = inf
    takes_defaults: bool = False

    def late(self, error: Exception) -> OnlineUnavailableError:
        """What to raise for a store that cannot be reached, or took too long."""
        if isinstance(error, OnlineUnavailableError):
            return error
        return OnlineUnavailableError(f"The online store did not answer within the {self.seconds:g} s that were given.")


NO_HURRY = Patience()

Named = str | FeatureList
"""What a lookup asks for: an applied service by its name, or features."""


def is_published(view: ResolvedView, store: OnlineStore, project: str) -> bool:
    """Whether a view version has an instant online whose time to be served has come."""
    reading = store.get([ViewCodec(project, view, tagged=store.tagged).watermark_key])
    return view.timing.served(unpack_watermark(reading.values[0]), reading.now) is not None


async def _beside(call: Callable[[], Lookup], due: float) -> Lookup:
    """The result of a call in a worker thread; TimeoutError where it is later than an instant of the monotonic clock."""
    async with asyncio.timeout(None if due == inf else max(0.0, due - time.monotonic())):
        return await asyncio.get_running_loop().run_in_executor(None, call)


class ServiceBehind(NamedTuple):
    """A service that this process does not serve as it is applied, for want of the code. served: the fingerprint of the older
    version that it serves to clients that name none; None where it has the code of none. why: with the step that helps."""

    service: str
    applied: str
    served: str | None
    why: str


@dataclass
class _Loaded:
    lookup: Lookup
    generation: int
    newest: bool
    checked: float
    catalog: Catalog


class Serving:
    """Loads services from the registry and keeps them up to date; safe to use from several threads.

    functions: gives the definitions at hand, whose on-demand functions are run where their code is what was applied.
    """

    def __init__(
        self, registry: Registry, store: OnlineStore, project: str, functions: Callable[[], Catalog],
        *, recorder: Recorder | None = None, vouched: Vouched | None = None, now: Callable[[], int] = wall_clock,
    ) -> None:  # fmt: skip
        self._now = now  # where the store cannot be asked
        self._registry = registry
        self._store = store
        self._project = project
        self._functions = functions
        self._recorder, self._vouched = recorder, vouched
        self._loaded: dict[tuple[Named, str | None], _Loaded] = {}
        self._presented: dict[ServiceVersion, Document] = {}
        self._newest = NewestVersion(registry.generation)
        self._silence: tuple[float, type[FeatureStoreError], str] | None = (
            None  # when and by what error it was last told
        )
        self._lock = mutex()

    def reload(self) -> None:
        """Forget what was loaded; the next lookup reads the registry."""
        with self._lock:
            self._loaded.clear()

    def lookup(self, name: Named, fingerprint: str | None = None, *, since: float | None = None) -> Lookup:
        """The loaded service; NotFoundError, FingerprintError, RegistryError or OnlineStoreError.

        since: when the caller began to wait, by the monotonic clock. Nobody waits for two silences of the store or the registry.
        """
        loaded = self._loaded.get((name, fingerprint))
        now = time.monotonic()
        if loaded is not None and now - loaded.checked < RELOAD_SECONDS:
            return loaded.lookup
        with self._waited(now if since is None else since):
            loaded = self._loaded.get((name, fingerprint))
            if loaded is not None and now - loaded.checked < RELOAD_SECONDS:
                return loaded.lookup
            generation = self._registry.generation() if loaded is None else self._newest.number()
            if generation is not None:
                loaded = self._up_to_date(name, fingerprint, generation, loaded)
            assert loaded is not None, "what is loaded is served on while the registry does not answer"
            loaded.checked = now
            return loaded.lookup

    def _up_to_date(self, name: Named, fingerprint: str | None, generation: int, loaded: _Loaded | None) -> _Loaded:
        """What is to be served of a service by a version of the registry; what is loaded where that cannot be read."""
        if loaded is None or not loaded.newest or loaded.generation != generation or self._has_other_code(loaded):
            try:
                loaded = self._load(name, fingerprint, generation, loaded)
            except RegistryUnavailableError:
                if loaded is None:
                    raise
            self._hold(name, fingerprint, loaded)
        return loaded

    @contextmanager
    def _waited(self, since: float) -> Iterator[None]:
        """Alone; the error where the store or the registry was found silent since an instant of the monotonic clock."""
        with self._lock:
            if self._silence is not None and self._silence[0] >= since:
                raise self._silence[1](self._silence[2])
            try:
                yield
            except (OnlineUnavailableError, RegistryUnavailableError) as error:
                self._silence = time.monotonic(), type(error), str(error)
                raise

    def get(
        self, name: Named, fingerprint: str | None, rows: Any, *, json: bool = False, request_id: str | None = None,
        patience: Patience = NO_HURRY,
    ) -> OnlineResult:  # fmt: skip
        """A lookup; where the loaded version is gone by now, one of the version that took its place."""
        request_id = None if request_id is None else checked_id(request_id)
        try:
            with due_within(patience.seconds):
                return self._got(name, fingerprint, rows, json=json, request_id=request_id)
        except OnlineUnavailableError:
            loaded = self._loaded.get((name, fingerprint)) if patience.takes_defaults else None
            if loaded is None:
                raise
        return self._unavailable(loaded.lookup, rows, json=json, request_id=request_id)

    def _unavailable(self, lookup: Lookup, rows: Any, *, json: bool, request_id: str | None) -> OnlineResult:
        return self.recorded(lookup, lookup.unavailable(rows, now=self._now(), json=json), request_id)

    def _got(
        self, name: Named, fingerprint: str | None, rows: Any, *, json: bool, request_id: str | None
    ) -> OnlineResult:
        lookup = self.lookup(name, fingerprint)
        while True:
            try:
                return self.recorded(lookup, lookup.get(rows, json=json), request_id)
            except NotMaterializedError:
                newer = self._again(name, fingerprint)
                if newer.service.fingerprint == lookup.service.fingerprint:
                    raise
                lookup = newer

    def recorded(self, lookup: Lookup, result: OnlineResult, request_id: str | None) -> OnlineResult:
        """The result, with the id under which it is logged, where it is."""
        if self._recorder is not None and lookup.is_applied:
            result.request = self._recorder.record(result, request_id)
        return result

    def applied_version(self, name: str, fingerprint: str) -> ResolvedService:
        """A service as it was applied under a fingerprint, without its functions; FingerprintError where it never was."""
        found = self._registry.find_service(name, fingerprint)
        if found is None:
            raise FingerprintError(_never(name, fingerprint))
        return found.service(name)

    def served_version(self, name: str, fingerprint: str) -> ResolvedService:
        """`applied_version` with its functions; FingerprintError where these are not at hand."""
        return self._with_functions(self.applied_version(name, fingerprint))

    def manifest_version(self, manifest: Manifest) -> ResolvedService:
        """The version that a manifest names, whether or not it is online; FingerprintError where that was never applied."""
        version = self.present(manifest)
        if self._registry.find_service(*version) is not None:
            return self.served_version(*version)
        for service, _ in self._of_history(version):
            return self._with_functions(service)
        raise self._refused(version, _never(*version), manifest.definition)

    async def aget(
        self, name: Named, fingerprint: str | None, rows: Any, *, json: bool = False, request_id: str | None = None,
        patience: Patience = NO_HURRY,
    ) -> OnlineResult:  # fmt: skip
        """`get` for coroutines; what reads the registry does so in a worker thread."""
        request_id = None if request_id is None else checked_id(request_id)
        due = time.monotonic() + patience.seconds
        try:
            return await self._agot(name, fingerprint, rows, due, json=json, request_id=request_id)
        except (TimeoutError, OnlineUnavailableError) as error:
            loaded = self._loaded.get((name, fingerprint)) if patience.takes_defaults else None
            if loaded is None:
                raise patience.late(error) from None
        return self._unavailable(loaded.lookup, rows, json=json, request_id=request_id)

    def begin(
        self, name: Named, fingerprint: str | None, rows: Any, *, json: bool = False, within_seconds: float = inf
    ) -> BegunLookup | None:
        """`aget` without a coroutine; None where the service must be loaded first. What it answers is to be `recorded`."""
        lookup = self._at_hand(name, fingerprint)
        return None if lookup is None else lookup.begin(rows, json=json, due=time.monotonic() + within_seconds)

    def _at_hand(self, name: Named, fingerprint: str | None) -> Lookup | None:
        """The loaded service, where it was looked not long ago whether a newer version is to be served."""
        loaded = self._loaded.get((name, fingerprint))
        is_fresh = loaded is not None and time.monotonic() - loaded.checked < RELOAD_SECONDS
        return loaded.lookup if loaded is not None and is_fresh else None

    async def _agot(
        self, name: Named, fingerprint: str | None, rows: Any, due: float, *, json: bool, request_id: str | None
    ) -> OnlineResult:
        """due: until when it may wait, by the monotonic clock; TimeoutError."""
        lookup = self._at_hand(name, fingerprint)
        if lookup is None:
            lookup = await _beside(partial(self.lookup, name, fingerprint, since=time.monotonic()), due)
        while True:
            try:
                return self.recorded(lookup, await lookup.aget(rows, json=json, due=due), request_id)
            except NotMaterializedError:
                newer = await _beside(partial(self._again, name, fingerprint), due)
                if newer.service.fingerprint == lookup.service.fingerprint:
                    raise
                lookup = newer

    def _again(self, name: Named, fingerprint: str | None) -> Lookup:
        """The version to be served now, whenever it was looked for last; RegistryError where nobody tells which one that is. It is
        waited for outside of the lock: others can go on with what they have."""
        generation = self._newest.needed()
        with self._waited(time.monotonic()):
            loaded = self._load(name, fingerprint, generation, self._loaded.get((name, fingerprint)))
            loaded.checked = time.monotonic()
            self._hold(name, fingerprint, loaded)
            return loaded.lookup

    def _hold(self, name: Named, fingerprint: str | None, loaded: _Loaded) -> None:
        """Keep what was loaded at hand; of lists, which anybody may think of, not more than so many."""
        if (name, fingerprint) not in self._loaded and isinstance(name, FeatureList):
            lists = [key for key in self._loaded if isinstance(key[0], FeatureList)]
            for key in lists[: max(0, len(lists) + 1 - LISTS_HELD)]:
                del self._loaded[key]
        self._loaded[name, fingerprint] = loaded

    def _load(self, name: Named, fingerprint: str | None, generation: int, before: _Loaded | None) -> _Loaded:
        catalog = self._functions()
        service, newest = self._found(name, fingerprint)
        if before is not None and before.lookup.service.fingerprint == service.fingerprint:
            return _Loaded(before.lookup, generation, newest, before.checked, catalog)
        is_applied = self._registry.find_service(*_version_of(service)) is not None
        if self._recorder is not None and is_applied:
            self._recorder.prepare(service)
        lookup = Lookup(service, self._store, project=self._project, vouched=self._vouched, is_applied=is_applied)
        return _Loaded(lookup, generation, newest, 0.0, catalog)

    def _found(self, name: Named, fingerprint: str | None) -> tuple[ResolvedService, bool]:
        """The version to serve, and whether no newer one may take its place; see `lookup` for errors."""
        if isinstance(name, FeatureList):
            return self._listed(name.features, fingerprint)
        if fingerprint is None:
            return self._served(name)
        return self._pinned(name, fingerprint), True

    def _has_other_code(self, loaded: _Loaded) -> bool:
        """Whether definitions were taken in since, among which may be the functions of a newer version."""
        return self._functions() is not loaded.catalog

    def _versions(self, name: str) -> Iterator[Version]:
        """The versions of the registry that hold distinct versions of the service, newest first."""
        seen = set()
        for version in self._registry.history():
            record = version.document["services"].get(name)
            if record is not None and record["fingerprint"] not in seen:
                seen.add(record["fingerprint"])
                yield version

    def _served(self, name: str) -> tuple[ResolvedService, bool]:
        """The version to serve, and whether no newer one waits to be filled: the newest that is complete and whose functions
        are at hand. The newest with its functions where none is complete, but none that is older than one without."""
        current = self._registry.current().document
        if name not in current["services"]:
            return self._listed(name, None)
        found = self._newest_complete(version.service(name) for version in self._versions(name))
        assert found is not None, "there is the current one"
        return found

    def _newest_complete(self, versions: Iterable[ResolvedService]) -> tuple[ResolvedService, bool] | None:
        """Of the versions of a service, newest first, the one to serve (see `_served`); None where there is none."""
        first: ResolvedService | None = None
        lacking: FingerprintError | None = None
        for version in versions:
            try:
                service = self._with_functions(version)
            except FingerprintError as error:  # code reaches a process when it is deployed, not when it is applied
                lacking = lacking or error
                continue
            if not self.unfilled(service):
                return service, first is None
            if lacking is None:
                first = first or service
        if first is None and lacking is not None:
            raise lacking
        return None if first is None else (first, False)

    def _listed(self, features: Any, fingerprint: str | None) -> tuple[ResolvedService, bool]:
        """The service that a list of features makes, chosen among the applied versions as `_served` does.

        fingerprint: only what has it. Raises NotFoundError for names that are not applied, FingerprintError for definitions
        that are not the applied ones (unless those that were applied before are served still).
        """
        refused: FingerprintError | None = None
        try:
            current = listed_service(features, self._registry.current())
        except FingerprintError as error:
            refused = error
        except DeclarationError as error:
            raise RequestError(str(error)) from error
        except NotFoundError as error:
            raise NotFoundError(f"{error}{self._apply_first(features)}") from None
        found = self._newest_complete(self._list_versions(features, fingerprint))
        if found is not None and (refused is None or not self.unfilled(found[0])):
            return found
        if refused is not None:
            raise refused
        raise FingerprintError(
            f"These features were never applied with fingerprint {fingerprint}; as they are applied they have "
            f"{current.fingerprint}. Present the training frame's manifest itself to be told what differs"
        )

    def _apply_first(self, features: Any) -> str:
        """What an error about features that are not applied goes on with, where the definitions at hand have them."""
        try:
            self._functions().service_of(features)
        except (NotFoundError, RequestError):
            return ""
        return f" {NOT_APPLIED_YET}"

    def _list_versions(self, features: Any, fingerprint: str | None) -> Iterator[ResolvedService]:
        """What a list makes of the versions of the registry, each once, newest first."""
        seen = set()
        for version in self._registry.history():
            try:
                service = listed_service(features, version)
            except (NotFoundError, FingerprintError, DeclarationError):  # there it was not, or was something else
                continue
            if service.fingerprint not in seen and fingerprint in {None, service.fingerprint}:
                seen.add(service.fingerprint)
                yield service

    def without_registry(self) -> list[str] | None:
        """Where the registry does not answer, and what is loaded is served on: the views of that without values online. None
        where it answers, or nothing is loaded."""
        if not self._loaded or self._newest.number() is not None:
            return None
        return sorted({name for loaded in list(self._loaded.values()) for name in self.unfilled(loaded.lookup.service)})

    def behind(self) -> list[ServiceBehind]:
        """The applied services that are not served as they are applied since their functions have other code here."""
        found = []
        current = self._registry.current()
        for name, record in current.document["services"].items():
            try:
                self._with_functions(current.service(name))
            except FingerprintError as error:
                try:
                    served, why = self._served(name)[0].fingerprint, str(error)
                except FingerprintError as refused:
                    served, why = None, str(refused)
                found.append(ServiceBehind(name, record["fingerprint"], served, why))
        return found

    def present(self, manifest: Manifest) -> ServiceVersion:
        """The version that a manifest names; what it was made with is remembered, for the refusal to say what changed."""
        version = ServiceVersion(manifest.service, manifest.fingerprint)
        if manifest.definition is not None and version not in self._presented:
            with self._lock:
                self._presented[version] = manifest.definition
                while len(self._presented) > PRESENTED_MANIFESTS:
                    del self._presented[next(iter(self._presented))]
        return version

    def is_published(self, view: str, fingerprint: str) -> bool:
        """Whether the applied version of a view is this one, and it is served in place of the version before it.

        It is when every view of every service that reads it is complete: until then the version before is served whole.
        """
        current = self._registry.current()
        document = current.document
        if document["views"].get(view, {}).get("fingerprint") != fingerprint:
            return False
        together = {view}
        for service in document["services"]:
            read = service_views(document, service)
            together.update(read if view in read else ())
        return all(is_published(current.view(name), self._store, self._project) for name in together)

    def unfilled(self, service: ResolvedService) -> list[str]:
        """The names of its views that have no values online to be served."""
        return [part.name for part in service.parts if not is_published(part.view, self._store, self._project)]

    def _pinned(self, name: str, fingerprint: str) -> ResolvedService:
        version = ServiceVersion(name, fingerprint)
        found = self._registry.find_service(name, fingerprint)
        if found is None:
            return self._unapplied(version)
        service = found.service(name)
        record = self._registry.current().document["services"].get(name)
        stays = record is not None and record["fingerprint"] == fingerprint
        if not stays and all(kept.named != version for kept in self._registry.kept()):
            gone = self.unfilled(service)
            if gone:
                why = (
                    f"Service '{name}' is no longer served as the model was trained on it ({fingerprint}): that version was "
                    f"retired, and these views of it are not online any more: {', '.join(gone)}"
                )
                raise self._refused(version, why, service.definition)
        return self._with_functions(service)

    def _unapplied(self, version: ServiceVersion) -> ResolvedService:
        """What was asked for by a name and a fingerprint that no applied service ever had: a view or a feature by its name, or
        a list of features of which a training frame was made, by its manifest."""
        name, fingerprint = version
        current, made = self._registry.current(), self._presented.get(version)
        named = current.document
        if name not in named["services"]:
            if ":" in name or name in named["views"] or name in named["on_demand"]:
                return self._listed(name, fingerprint)[0]
            for service, past in self._of_history(version):
                if past is current or not self.unfilled(service):
                    return self._with_functions(service)
        raise self._refused(version, _never(name, fingerprint), made)

    def _of_history(self, version: ServiceVersion) -> Iterator[tuple[ResolvedService, Version]]:
        """What was presented under a name and a fingerprint, as versions of the registry have it, newest first."""
        made = self._presented.get(version)
        if made is None:
            return
        for past in self._registry.history():
            with suppress(NotFoundError, DeclarationError):
                service = listed_service(selections_of(made, past.catalog), past)
                if service.fingerprint == version.fingerprint:
                    yield service, past

    def _refused(self, version: ServiceVersion, why: str, definition: Document | None) -> FingerprintError:
        """The refusal of a version, with what differs between it and the one that is applied."""
        applied = self._registry.current()
        current, named = applied.document["services"].get(version.service), "the one applied is"
        if current is None and definition is not None:  # a list of features, or a service that nobody applied
            with suppress(NotFoundError, DeclarationError):
                service = listed_service(selections_of(definition, applied.catalog), applied)
                current = {"fingerprint": service.fingerprint, "definition": service.definition}
                named = "what is applied of its features has"
        if current is None:
            return FingerprintError(f"{why}; no service of that name is applied")
        why += (
            f"; {named} {current['fingerprint']}. Train the model again on that one, or apply the definitions that it was "
            "trained on again"
        )
        if definition is None:
            return FingerprintError(f"{why}. Present the manifest itself to be told what differs")
        found = changes(definition, current["definition"])
        text = "\n".join(f"  {change}" for change in found)
        return FingerprintError(f"{why}. What changed since:\n{text}", changes=found)

    def _with_functions(self, service: ResolvedService) -> ResolvedService:
        """The service with the functions at hand, where they are the code that was applied."""
        if not service.on_demand:
            return service
        have = self._functions().on_demand
        features = []
        for item in service.declared.features:
            if isinstance(item, OnDemand) and item.function is None:  # else it was given itself
                own = have.get(item.name)
                if own is None or own.code != item.code:
                    raise _other_code(service, item, own)
                item = item.with_function_of(own)  # noqa: PLW2901
            features.append(item)
        declared: FeatureService = service.declared.model_copy(update={"features": tuple(features)})
        return resolve_service(declared, {part.view.name: part.view for part in service.parts})


def _other_code(service: ResolvedService, applied: OnDemand, own: OnDemand | None) -> FingerprintError:
    """The refusal of a version whose function this process has not."""
    state = "is not declared in the code of this process" if own is None else "has other code in this process"
    field = f"on_demand.{applied.name}.code"
    return FingerprintError(
        f"On-demand feature '{applied.name}' of service '{service.name}' {state} than in the version to be served "
        f"({service.fingerprint}). Deploy the code that was applied and restart (a process keeps the code that it began with), "
        "or apply the code that is here",
        changes=[(field, applied.source, None if own is None else own.source)],
    )


def _version_of(service: ResolvedService) -> ServiceVersion:
    return ServiceVersion(service.name, service.fingerprint)


def _never(name: str, fingerprint: str) -> str:
    what = "The list of features" if name == ADHOC else f"Service '{name}'"
    return f"{what} was never applied with fingerprint {fingerprint or repr(fingerprint)}"
