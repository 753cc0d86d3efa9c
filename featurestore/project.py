"""A project as it is opened: its configuration, what is declared and applied, and its stores, each when first needed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from featurestore.catalog import Catalog
from featurestore.clock import Clock, reader
from featurestore.config import Config
from featurestore.declare.durations import parse_duration
from featurestore.declare.push import PushSource
from featurestore.declare.services import FeatureService
from featurestore.declare.views import FeatureView
from featurestore.durable.owner import OwnedFolder
from featurestore.errors import MaterializeError
from featurestore.materialize.materialize import Run, materialize_view
from featurestore.materialize.progress import progress_for
from featurestore.online import OnlineStore, open_online
from featurestore.push.pushing import Pushing
from featurestore.registry.delete_online import free_view
from featurestore.registry.documents import (
    service_views,
    view_fingerprints,
)
from featurestore.registry.rebind import applied_views, rebind
from featurestore.registry.rollout import HeldView, Rollout, held_views
from featurestore.registry.store import Registry
from featurestore.semantics.columns import RawColumns
from featurestore.semantics.service import ResolvedService, resolve_service
from featurestore.semantics.view import ResolvedView, resolve
from featurestore.serving.log.serving_log import Losses, ServingLog, losses, rows_served
from featurestore.serving.log.upkeep import Limits, Upkeep, keep_up
from featurestore.serving.recorder import Recorder
from featurestore.serving.serving import Serving, is_published
from featurestore.sources.arrivals import Arrivals
from featurestore.sources.offline import Offline
from featurestore.sources.push_logs import PushLogs
from featurestore.tiles.of_files import free_tiles

__all__ = ["Project"]

DAY = 86_400_000_000
"""µs for which a plan looks back into the serving log."""


class _Opened(NamedTuple):
    """The online store, and what works on it."""

    store: OnlineStore
    serving: Serving
    pushing: Pushing


class Project:
    """What every verb works on; safe to use from several threads. catalog: the definitions at hand. before: what is to
    stand before the online store."""

    def __init__(
        self, config: Config, catalog: Catalog, clock: Clock | None,
        *, before: Callable[[OnlineStore], OnlineStore] | None = None,
    ) -> None:  # fmt: skip
        self.config = config
        self.catalog = catalog
        self.clock = clock
        self.now = reader(clock)
        self.registry = Registry(config.registry, project=config.project, now=self.now)
        limits = config.offline
        self.offline = Offline(
            config.root,
            located=config.sources,
            memory_limit=limits.memory_limit,
            threads=limits.threads,
            spill=limits.spill,
            logs=PushLogs(config.logs, config.project, patience=config.lock_timeout),
            arrivals=Arrivals(config.registry.with_suffix(".arrivals.db"), project=config.project, now=self.now),
        )
        self.serving_log: ServingLog | None = None
        self._served = OwnedFolder(
            config.serving_log.folder, config.project, what="serving log", key="serving_log.folder"
        )
        # By name what was settled last, beside what it was made of; all of that is never changed.
        self._views: dict[str, tuple[FeatureView, RawColumns, ResolvedView]] = {}
        self._services: dict[str, tuple[FeatureService, dict[str, ResolvedView], ResolvedService]] = {}
        self._before = before
        self._lock = threading.Lock()
        self._opened: _Opened | None = None

    def close(self) -> None:
        """Release the online store, write the serving log's rest, remove DuckDB's spill folder; idempotent."""
        if self._opened is not None:
            self._opened.pushing.close()
            self._opened.store.close()
        if self.serving_log is not None:
            self.serving_log.close()
        self.offline.close()

    @property
    def online(self) -> OnlineStore:
        """The online store."""
        return self._online().store

    @property
    def serving(self) -> Serving:
        """The loaded services."""
        return self._online().serving

    @property
    def pushing(self) -> Pushing:
        """The pushers."""
        return self._online().pushing

    def _online(self) -> _Opened:
        if self._opened is None:
            with self._lock:  # one process opens an LMDB folder once
                if self._opened is None:
                    online, project = open_online(self.config.online, clock=self.clock), self.config.project
                    online = self._before(online) if self._before is not None else online
                    pushing = Pushing(
                        self.registry, self.offline, online, project=project, clock=self.clock,
                        compact_after=self.config.compact_after,
                    )  # fmt: skip
                    serving = Serving(
                        self.registry, online, project, lambda: self.catalog, recorder=self._recorder(), vouched=pushing
                    )
                    self._opened = _Opened(online, serving, pushing)
        return self._opened

    def _recorder(self) -> Recorder | None:
        said = self.config.serving_log
        if not said.rate and not any(said.rates.values()):
            return None
        self.serving_log = ServingLog(self.served, upkeep=self.keep_up_log, claim=self._served.claim)
        return Recorder(
            self.serving_log, rate=said.rate, rates=said.rates, by=said.by, bys=said.bys,
            registry_version=self._registry_version,
        )  # fmt: skip

    @property
    def served(self) -> Path:
        """The folder of the serving log, which is this project's or nobody's; ConfigError where it is another's."""
        self._served.check()
        return self._served.path

    def keep_up_log(self, between: Callable[[], None] = lambda: None) -> Upkeep | None:
        """Merge the serving log's past hours and delete what is too old or too much; None where another process is at it."""
        said = self.config.serving_log
        if self.served.is_dir():
            self._served.claim()
        limits = Limits(None if said.retention is None else parse_duration(said.retention), said.max_bytes)
        return keep_up(said.folder, limits, now=self.now(), between=between)

    def losses(self) -> Losses:
        """What became of the requests that were to be logged."""
        return losses(self.served) if self.serving_log is None else self.serving_log.all_losses()

    def _registry_version(self, service: str, fingerprint: str) -> int | None:
        found = self.registry.find_service(service, fingerprint)
        return None if found is None else found.number

    # --- definitions ------------------------------------------------------------------------

    @property
    def definitions(self) -> Catalog:
        """The definitions at hand over those that were applied."""
        return self.registry.current().catalog.merged(self.catalog)

    def add(self, definitions: Sequence[Any]) -> None:
        """Take definitions in among those at hand."""
        with self._lock:
            self.catalog = self.catalog.merged(Catalog.of(definitions))

    def view(self, view: Any) -> ResolvedView:
        """A view, by name or itself, over its source as it is now."""
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

    def applied(self, names: Sequence[str] | None = None) -> list[ResolvedView]:
        """The applied views (only those named), and those of kept services, over their sources as they are now."""
        current, held = self.registry.current(), [held.view for held in self.held()]
        return applied_views(current, self.catalog, self.offline, names=names, held=held)

    def held(self) -> list[HeldView]:
        """The view versions that are served beside the current ones, for kept versions of services."""
        state = self.registry.state()
        current = view_fingerprints(self.registry.version(state.generation).document)
        return held_views(self.registry, current, state.kept)

    def rollout(self, *, keep: bool, retire: str | Iterable[str]) -> Rollout:
        """What a plan is to do with versions of services; retire: one name, or several."""
        log, since = self.served, self.now() - DAY

        def served(service: str, fingerprint: str) -> int | None:
            return rows_served(log, service, fingerprint, since=since) if log.exists() else None

        return Rollout(keep, (retire,) if isinstance(retire, str) else tuple(retire), served)

    def at_hand(self, applied: ResolvedView) -> ResolvedView:
        """An applied view over its source as it is now."""
        return rebind(applied, self.catalog, self.offline)

    def served_service(self, name: str, fingerprint: str) -> ResolvedService:
        """A service version that was served, over its sources as they are now."""
        return self._as_now(self.serving.served_version(name, fingerprint))

    def service_version(self, name: str, fingerprint: str) -> ResolvedService:
        """The same without its functions, which may be gone."""
        return self._as_now(self.serving.applied_version(name, fingerprint))

    def _as_now(self, version: ResolvedService) -> ResolvedService:
        return resolve_service(version.declared, {part.view.name: self.at_hand(part.view) for part in version.parts})

    # --- view versions online ---------------------------------------------------------------

    def materialize(self, view: ResolvedView, *, full: bool, progress: bool) -> list[Run]:
        """Make one view complete online, up to now; nothing of a version that was retired meanwhile is left there."""
        if not self._stays(view):
            return []
        try:
            runs = self._fill(view, full=full, progress=progress)
        except MaterializeError:  # whose lease was freed with all else of the version
            if self._stays(view):
                raise
            runs = []
        if not self._stays(view):  # whoever retired it has freed it, perhaps before the last write
            self.free(view.name, view.fingerprint)
        return runs

    def _stays(self, view: ResolvedView) -> bool:
        """Whether a view version is applied, held by a kept service, or still to be freed."""
        version = (view.name, view.fingerprint)
        current = view_fingerprints(self.registry.current().document)
        held = ((one.view.name, one.view.fingerprint) for one in self.held())
        return version in current.items() or version in held or version in self.registry.leftovers()

    @property
    def _tiles(self) -> OwnedFolder | None:
        """The folder of tiles; leases keep writers apart, so each online store, which holds them, has one of its own."""
        if not self.config.offline.tiles:
            return None
        url = urlsplit(self.config.online)
        try:
            port = url.port
        except (
            ValueError
        ):  # it names what was read as the port, which may be a part of a password; opening it says what is wrong
            port = None
        place = f"{self.config.project} {url.scheme} {url.hostname} {port} {url.path}"
        folder = self.config.offline.tiles / sha256(place.encode()).hexdigest()[:12]
        return OwnedFolder(folder, self.config.project, what="folder of tiles", key="offline.tiles")

    def _fill(self, view: ResolvedView, *, full: bool, progress: bool) -> list[Run]:
        if view.is_pushed:
            assert isinstance(view.source, PushSource)
            if not view.source.is_open(self.online.get([]).now):  # what its history will know is not known yet
                return []
            return self.pushing.fill(view, full=full)
        shown = progress_for(shown=progress)
        return materialize_view(
            view, self.offline, self.online, project=self.config.project, progress=shown, full=full,
            tiles=self._tiles,
        )  # fmt: skip

    def free(self, view: str, fingerprint: str) -> int:
        """Free what a view version has online; how many keys there were."""
        if self._tiles is not None:
            free_tiles(self._tiles, view, fingerprint)
        with self.pushing.alone(view, fingerprint):
            return free_view(self.online, self.config.project, view, fingerprint)

    def is_published(self, view: str, fingerprint: str) -> bool:
        """Whether the applied version of a view is this one, and it is served in place of the version before it.

        It is when every view of every service that reads it is complete: until then the version before is served whole.
        """
        current = self.registry.current()
        document = current.document
        if document["views"].get(view, {}).get("fingerprint") != fingerprint:
            return False
        together = {view}
        for service in document["services"]:
            read = service_views(document, service)
            together.update(read if view in read else ())
        project = self.config.project
        return all(is_published(current.view(name), self.online, project) for name in together)
