"""The world of a simulation: the project's definitions over a folder of their own, on a clock that is set.

The definitions are the real ones, with the value fingerprints that they have; only where their data lies differs: each
batch source is a folder in which files land, and the online store, the registry, the push logs and the serving log lie
beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from featurestore.catalog import Catalog
from featurestore.clock import Clock, ManualClock, to_datetime
from featurestore.config import Config, lmdb_url
from featurestore.declare.on_demand import OnDemand
from featurestore.declare.push import PushSource
from featurestore.declare.services import FeatureService
from featurestore.declare.sources import Source
from featurestore.declare.views import FeatureView, Selection
from featurestore.durable.temporary import TemporaryFolder
from featurestore.errors import SourceError
from featurestore.online import OnlineStore
from featurestore.push.pushed import Pushed
from featurestore.reports.audit import Audit
from featurestore.reports.simulation.failing import FailingStore
from featurestore.semantics.service import ResolvedService, resolve_service
from featurestore.semantics.view import ResolvedView, resolve
from featurestore.serving.online_result import OnlineResult
from featurestore.settings import ServingLogConfig
from featurestore.sources.arrivals import Sighting
from featurestore.sources.offline import Offline


class Store(Protocol):
    """The verbs of a feature store that a simulation uses."""

    @property
    def offline(self) -> Offline:
        """The sources and push logs."""

    def apply(self, definitions: Iterable[Any]) -> object:
        """Apply definitions."""

    def materialize(self, views: Sequence[str] | None = None, *, progress: bool = True) -> Sequence[object]:
        """Compute and publish what is due."""

    def push(self, source: str, rows: Any) -> Pushed:
        """Keep rows."""

    def repair(self) -> None:
        """Apply what dead pushers left."""

    def get_online_features(self, rows: Any, service: str) -> OnlineResult:
        """Look rows up."""

    def audit(self) -> Audit:
        """What was served, against training."""

    def close(self) -> None:
        """Release everything."""


Open = Callable[[Config, Catalog, Clock, Callable[[OnlineStore], OnlineStore]], Store]
"""Opens a store; the last argument stands before its online store."""


class World:
    """A folder, a clock and a store, which may be opened anew. Close it when it is over; the folder goes with it."""

    def __init__(self, real: Config, open_store: Open) -> None:
        self._temporary = TemporaryFolder()
        self.folder = self._temporary.path
        self.sources = self.folder / "sources"
        self.clock = ManualClock(to_datetime(0))
        self.failing: FailingStore | None = None
        self._open_store = open_store
        self._config = Config(
            project=real.project,
            registry=self.folder / "registry.db",
            online=lmdb_url(self.folder / "online"),
            logs=self.folder / "logs",
            definitions=(),
            offline=real.offline,
            serving_log=ServingLogConfig(folder=self.folder / "served", rate=1.0),
            root=self.folder,
        )
        self._catalog = Catalog()
        self._store: Store | None = None

    def open(self, services: Sequence[FeatureService]) -> None:
        """Open the store over these definitions; they are not applied yet."""
        self._catalog = Catalog.of(services)
        self.restart()

    @property
    def store(self) -> Store:
        """The store as it is open now."""
        assert self._store is not None
        return self._store

    def restart(self) -> None:
        """Close the store where it is open, and open it anew, as another process does."""
        if self._store is not None:
            self._store.close()
        self._store = self._open_store(self._config, self._catalog, self.clock, self._before)

    def _before(self, online: OnlineStore) -> OnlineStore:
        self.failing = FailingStore(online)
        return self.failing

    def advance(self, instant: int) -> None:
        """Move the clock to an instant (µs), never back: a push moves it by a microsecond."""
        self.clock.wait_until(instant)

    def see(self, source: Source, files: Iterable[tuple[Path, int]]) -> None:
        """Tell the journal of arrivals when (µs) each of some files was first seen."""
        for path, seen in files if source.arrives else ():
            status = path.stat()
            sighting = Sighting(path.name, status.st_size, status.st_mtime_ns)
            self.store.offline.arrivals.see(source.name, lambda sighting=sighting: [sighting], now=seen)  # type: ignore[misc]  # mypy infers no type of a lambda with defaults

    def close(self) -> None:
        """Close the store and remove the folder; idempotent."""
        if self._store is not None:
            self._store.close()
        self._temporary.remove()


def reading(services: Sequence[FeatureService], sources: Mapping[str, Source]) -> list[FeatureService]:
    """The services as they are declared, each view over the source of that name among `sources`."""

    def view_of(view: FeatureView) -> FeatureView:
        return view.model_copy(update={"source": sources[view.source.name]})

    def item_of(item: Any) -> Any:
        if isinstance(item, Selection):
            return item.model_copy(update={"view": view_of(item.view)})
        if isinstance(item, OnDemand):
            return item.model_copy(update={"inputs": tuple(item_of(value) for value in item.inputs)})
        return item

    return [
        service.model_copy(update={"features": tuple(item_of(item) for item in service.features)})
        for service in services
    ]


def relocated(source: Source, kind: Callable[..., Source], place: Any) -> Source:
    """A source as it is declared, but for its kind and where its rows lie."""
    declared = source.model_dump(mode="json", include=set(Source.model_fields) - {"name", "kind", "expectations"})
    made = kind(source.name, place, expectations=source.expectations, **declared)
    made._origin = source._origin
    return made


def settled(services: Sequence[FeatureService], offline: Offline) -> list[ResolvedService]:
    """The services over their sources as `offline` has them."""
    views = {name: resolve(view, offline.raw_types(view.source)) for name, view in Catalog.of(services).views.items()}
    return [resolve_service(service, views) for service in services]


def check_alike(real: Sequence[FeatureService], offline: Offline, simulated: Iterable[ResolvedView]) -> None:
    """SourceError where a simulated view does not have the value fingerprint of the real one.

    Left out are views of which the cutover was moved, which is part of a fingerprint.
    """
    declared = Catalog.of(real).views
    for view in simulated:
        own = resolve(declared[view.name], offline.raw_types(declared[view.name].source))
        source = own.source
        if (
            isinstance(source, PushSource)
            and isinstance(view.source, PushSource)
            and source.cutover != view.source.cutover
        ):
            continue
        if own.fingerprint != view.fingerprint:
            raise SourceError(
                f"{source.title}: its columns have other types in Parquet files, so that {own.declared.title} would be "
                f"another view there; it cannot be simulated ({source.origin})"
            )
