"""A project as it is opened: its configuration, what is declared and applied, and its stores, each when first needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any, NamedTuple

from featurestore.catalog import Catalog
from featurestore.clock import Clock, PastClock, reader, wall_clock
from featurestore.config import Config
from featurestore.declare.problems import shown
from featurestore.declare.services import ADHOC, FeatureService
from featurestore.declare.views import FeatureView, Selection
from featurestore.durable.forks import mutex
from featurestore.errors import ConfigError, DeclarationError, NotFoundError, RequestError, SourceError
from featurestore.materialize.materializer import Materializer
from featurestore.online import OnlineStore, open_online
from featurestore.online.watched import WatchedStore
from featurestore.push.push_sources import Pushing
from featurestore.registry.activity import PushTrail
from featurestore.registry.differences import Differences, differences
from featurestore.registry.kept_statistics import StatisticsKeeper
from featurestore.registry.rebind import applied_views, check_applied, rebind
from featurestore.registry.rollout import held_views
from featurestore.registry.store import Registry
from featurestore.semantics.columns import RawColumns
from featurestore.semantics.service import ResolvedService, resolve_service
from featurestore.semantics.view import ResolvedView, resolve
from featurestore.serving.feature_list import selections_of
from featurestore.serving.log.project_log import ProjectLog
from featurestore.serving.recorder import Recorder
from featurestore.serving.served_versions import Serving
from featurestore.sources.arrivals import Arrivals, beside
from featurestore.sources.instances import Instances
from featurestore.sources.offline import Offline
from featurestore.sources.push_logs import PushLogs
from featurestore.streams.poison import Poison
from featurestore.tiles.file_tile_choice import tiles_folder
from featurestore.training.manifest import Manifest


class _Opened(NamedTuple):
    """The online store, and what works on it."""

    store: OnlineStore
    serving: Serving
    pushing: Pushing
    materializer: Materializer


class Project:
    """What every verb works on; safe to use from several threads. catalog: the definitions at hand. before: makes the store that stands
    before the online store."""

    def __init__(
        self, config: Config, catalog: Catalog, clock: Clock | None,
        *, before: Callable[[OnlineStore], OnlineStore] | None = None,
    ) -> None:  # fmt: skip
        if clock is not None and not callable(clock):
            raise ConfigError(f"clock is a callable that returns a datetime with a zone, and not {shown(clock)}")
        config.check_restored()
        self.config = config
        self.catalog = catalog
        self._all_declared = catalog != Catalog()  # by files, of which a plan removes what they do not declare
        self._compared: tuple[Catalog, int, dict[tuple[str, ...] | None, Differences]] = catalog, -1, {}
        self.clock = clock
        self.now = reader(clock)
        self.registry = Registry(config.registry, project=config.project, now=self.now)
        self.push_trail = PushTrail(self.registry.add_activity)
        self.statistics = StatisticsKeeper(self.registry, config.statistics)
        limits = config.offline
        self._arrivals = Arrivals(
            beside(config.registry),
            project=config.project,
            now=wall_clock if isinstance(clock, PastClock) else self.now,
        )
        self.offline = Offline(
            config.root,
            located=config.sources,
            logs=PushLogs(config.logs, config.project, wait_seconds=config.lock_timeout, shared=config.push_log),
            arrivals=self._arrivals,
            instances=Instances(memory_limit=limits.memory_limit, threads=limits.threads, spill=limits.spill),
        )
        self.offline.forgotten = self.registry.forgotten_keys
        self.offline.copies_folder = limits.copies
        self.offline.databases = config.databases
        self.offline.catalogs = config.catalogs
        self.poison = Poison(
            config.push_log or config.logs, config.project, now=self.now, wait_seconds=config.lock_timeout
        )
        self.serving_log = ProjectLog(config.serving_log, config.project, now=self.now)
        # By name what was settled last, beside what it was made of; all of that is never changed.
        self._views: dict[str, tuple[FeatureView, RawColumns, ResolvedView]] = {}
        self._services: dict[str, tuple[FeatureService, dict[str, ResolvedView], ResolvedService]] = {}
        self._before = before
        self._lock = mutex()
        self._opened: _Opened | None = None

    def close(self) -> None:
        """Release the online store, write the serving log's rest, remove DuckDB's spill folder; idempotent."""
        if self._opened is not None:
            self._opened.pushing.close()
            self.push_trail.close()
            self._opened.store.close()
        self.serving_log.close()
        self.poison.close()
        self.offline.close()
        self.registry.close()
        self._arrivals.close()

    @cached_property
    def online(self) -> OnlineStore:
        """The online store."""
        return self._online().store

    @cached_property
    def serving(self) -> Serving:
        """The loaded services."""
        return self._online().serving

    @cached_property
    def pushing(self) -> Pushing:
        """The pushers."""
        return self._online().pushing

    @cached_property
    def materializer(self) -> Materializer:
        """What fills and frees view versions."""
        return self._online().materializer

    def _online(self) -> _Opened:
        if self._opened is None:
            with self._lock:  # one process opens an LMDB folder once
                if self._opened is None:
                    self._opened = self._open()
        return self._opened

    def _open(self) -> _Opened:
        config, registry, offline = self.config, self.registry, self.offline
        opened, project, log = open_online(config.online, clock=self.clock), config.project, self.serving_log.open()
        store: OnlineStore = WatchedStore(opened) if opened.blocking else opened
        store = self._before(store) if self._before is not None else store
        pushing = Pushing(
            registry,
            offline,
            store,
            project=project,
            clock=self.clock,
            compact_after=config.compact_after,
            declared=lambda: self.catalog.sources,
        )
        recorder = None if log is None else Recorder(log, config.serving_log, registry)
        serving = Serving(
            registry, store, project, lambda: self.catalog, recorder=recorder, vouched=pushing, now=self.now
        )
        tiles = tiles_folder(config.offline.tiles or None, project=project, online=config.online)
        return _Opened(
            store,
            serving,
            pushing,
            Materializer(registry, offline, store, pushing, config=config, tiles=tiles, statistics=self.statistics),
        )

    # --- definitions ------------------------------------------------------------------------

    @property
    def definitions(self) -> Catalog:
        """The definitions at hand over those that were applied."""
        return self.registry.current().catalog.merged(self.catalog)

    def differences(self, among: tuple[str, ...] | None = None) -> Differences:
        """In which definitions (only those named) those at hand differ from those that are applied."""
        version, catalog, compared = self.registry.current(), self.catalog, self._compared
        if compared[0] is not catalog or compared[1] != version.number:
            compared = self._compared = catalog, version.number, {}
        known = compared[2].get(among)
        if known is None:
            known = differences(catalog, version, all_declared=self._all_declared, among=among)
            compared[2][among] = known
        return known

    def differences_of(self, features: Any) -> Differences:
        """The same of the definitions that these features are made of, where they are asked for by name."""
        items = [features] if isinstance(features, str) else features
        if not isinstance(items, (list, tuple)) or not all(isinstance(item, str) for item in items):
            return self.differences(())
        service: FeatureService = self.definitions.service_of(features)
        views = [item.view for item in service.selections()]
        names = [service.name, *(item.name for item in service.on_demand)]
        for view in views:
            names += [view.name, view.source.name, view.entity.name]
        return self.differences(tuple(dict.fromkeys(names)))

    def add(self, definitions: Sequence[Any]) -> None:
        """Take definitions in among those at hand."""
        with self._lock:
            self.catalog = self.catalog.merged(Catalog.of(definitions))

    def selection(self, view: Any) -> Selection:
        """A view, by its name or itself, or some of its features: "view:feature" or a selection without another name."""
        asked = view
        if isinstance(view, str):
            if ":" in view:
                declared, feature = self.definitions.view_and_feature(view)
                return declared[feature]
            asked = self.definitions.view(view)
        if isinstance(asked, FeatureView):
            return Selection(view=asked)
        if not isinstance(asked, Selection):
            raise RequestError(
                f'A view is asked for by its name, "view" or "view:feature", or itself, and not by {shown(view)}'
            )
        return asked

    def view(self, view: str | FeatureView) -> ResolvedView:
        """A view, by its name or itself, over its source as it is now."""
        declared = self.definitions.view(view) if isinstance(view, str) else view
        raw = self.offline.raw_types(declared.source)
        if raw.mixed:
            applied = self.registry.current().document["views"].get(declared.name)
            return resolve(declared, RawColumns.named_as(raw, {} if applied is None else applied["raw"]))
        last = self._views.get(declared.name)
        if last is None or last[0] is not declared or last[1] is not raw:
            last = self._views[declared.name] = declared, raw, resolve(declared, raw)
        return last[2]

    def service(self, features: Any) -> ResolvedService:
        """A service, by name or itself, or what a list of features makes, over the sources as they are now."""
        service: FeatureService = self.definitions.service_of(features)
        views = {item.view.name: self.view(item.view) for item in service.selections()}
        last = self._services.get(service.name)
        if last is None or last[0] is not service or any(last[1][name] is not view for name, view in views.items()):
            last = self._services[service.name] = service, views, resolve_service(service, views)
        return last[2]

    def manifest_service(self, manifest: Manifest) -> ResolvedService:
        """The service that a manifest names, over its sources as they are now, with the definitions that it says.

        FingerprintError where they are not those at hand, and were never applied or are gone.
        """
        made, named = manifest.definition, manifest.service != ADHOC
        with suppress(NotFoundError, DeclarationError, SourceError):
            asked = manifest.service if named or made is None else selections_of(made, self.definitions)
            service = self.service(asked)
            if service.fingerprint == manifest.fingerprint:
                return service
        return self._as_now(self.serving.manifest_version(manifest))

    def applied(self, names: Sequence[str] | None = None) -> list[ResolvedView]:
        """The applied views (only those named), and those of kept services, over their sources as they are now."""
        current, kept = self.registry.current(), [held.view for held in held_views(self.registry)]
        return applied_views(current, self.catalog, self.offline, names=names, kept=kept)

    def check_applied(self, names: Sequence[str] | None) -> None:
        """NotFoundError where one of the names is that of no applied view, nor of one of a kept service."""
        kept = [held.view for held in held_views(self.registry)]
        check_applied(self.registry.current(), self.catalog, names=names, kept=kept)

    def rebound(self, applied: ResolvedView) -> ResolvedView:
        """An applied view over its source as it is now."""
        return rebind(applied, self.catalog, self.offline)

    def served_service(self, name: str, fingerprint: str) -> ResolvedService:
        """A service version that was served, over its sources as they are now."""
        return self._as_now(self.serving.served_version(name, fingerprint))

    def service_version(self, name: str, fingerprint: str) -> ResolvedService:
        """The same without its functions, which may be gone."""
        return self._as_now(self.serving.applied_version(name, fingerprint))

    def _as_now(self, version: ResolvedService) -> ResolvedService:
        return resolve_service(version.declared, {part.view.name: self.rebound(part.view) for part in version.parts})
