"""What became of services: the training frames that were written, and the versions that are served and logged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featurestore.catalog import Catalog
from featurestore.declare.sources import is_url
from featurestore.errors import ConfigError, DeclarationError, FeatureStoreError, RegistryError
from featurestore.lazy import pa, pads, pc
from featurestore.online import OnlineStore
from featurestore.online.view_codec import ViewCodec, unpack_watermark
from featurestore.registry.frames import WrittenFrame
from featurestore.registry.store import Registry
from featurestore.report import instant_json
from featurestore.reports.lineage.graph import Graph, service_id
from featurestore.semantics.service import ResolvedService
from featurestore.semantics.view import ResolvedView
from featurestore.serving.log.serving_log import is_sound, segments
from featurestore.sources.object_stores import ObjectStoreError, looked_at


@dataclass(frozen=True)
class ServedVersion:
    """A version of a service that lookups are or were answered from."""

    service: str
    fingerprint: str
    views: dict[str, dict[str, Any]]
    """Under the name that the service has for each: the instant that lookups are served (None where there is none yet), all complete ones, and whether pushes keep it up to date."""
    requests: int
    """How many of it are in the serving log."""
    error: str = ""
    """Why it is not known what is online; empty where it is."""

    @property
    def is_online(self) -> bool:
        """Whether lookups that ask for it are answered."""
        return bool(self.views) and all(view["as_of"] is not None for view in self.views.values())


@dataclass(frozen=True)
class Uses:
    """The frames in the registry, the versions of services, and the fingerprint of each service as it is defined now."""

    frames: Sequence[WrittenFrame]
    versions: Sequence[ServedVersion]
    fingerprints: Mapping[str, str]


def uses_of(
    registry: Registry, online: Callable[[], OnlineStore], project: str, log: Path, fingerprints: Mapping[str, str],
    made: AbstractSet[str],
) -> Uses:  # fmt: skip
    """What the registry, the online store and the serving log know. online: opens the store; where that fails, the
    versions say so. fingerprints: of services at hand that differ from what was applied. made: ids of nodes; of other services
    nothing is read, nor of frames that are made of none of these."""
    records = registry.current().document["services"]
    applied = {name: record["fingerprint"] for name, record in records.items() if service_id(name) in made}
    frames = [one for one in registry.frames() if service_id(one.service) in made or not made.isdisjoint(one.reads)]
    return Uses(frames, list(_versions(registry, online, project, log, made)), {**applied, **fingerprints})


def _versions(
    registry: Registry, online: Callable[[], OnlineStore], project: str, log: Path, made: AbstractSet[str]
) -> Iterator[ServedVersion]:
    """Every version of the services in `made` that is online, or of which requests were logged; by name, the newest first."""
    logged = {version: files for version, files in segments(log).items() if service_id(version[0]) in made}
    known = {name: None for version in registry.history() for name in version.document["services"]}
    applied = ((name, mark) for name in known if service_id(name) in made for mark in registry.services(name))
    versions = dict.fromkeys([*applied, *logged])
    unreachable = ""  # once is enough: each try may wait for a timeout
    for name, fingerprint in versions:
        requests, error, views = _requests(logged.get((name, fingerprint), [])), unreachable, {}
        try:
            found = registry.find_service(name, fingerprint)
            service = None if found is None else found.service(name)
            if service is not None and not unreachable:
                views = _views(service, online(), project)
        except (RegistryError, DeclarationError) as refused:
            error = f"its definitions cannot be read: {refused}"
        except FeatureStoreError as refused:
            error = unreachable = f"the online store cannot be asked: {refused}"
        version = ServedVersion(name, fingerprint, views, requests, error)
        if version.is_online or requests or error:
            yield version


def _views(service: ResolvedService, store: OnlineStore, project: str) -> dict[str, dict[str, Any]]:
    marks = [ViewCodec(project, part.view, tagged=store.tagged).watermark_key for part in service.parts]
    reading = store.get(marks)
    return {
        part.name: _instants(part.view, unpack_watermark(value), reading.now)
        for part, value in zip(service.parts, reading.values, strict=True)
    }


def _instants(view: ResolvedView, complete: Sequence[int], now: int) -> dict[str, Any]:
    served = view.timing.served(complete, now)
    return {
        "view": view.name,
        "as_of": instant_json(served),
        "instants": [instant_json(instant) for instant in complete],
        "pushed": view.is_pushed,
    }


def _requests(files: Sequence[Path]) -> int:
    """How many requests lie in segments of the log."""
    if not files:
        return 0
    try:
        column = pads.dataset([str(path) for path in files], format="parquet").to_table(columns=["request"])["request"]
    except (OSError, pa.ArrowException):  # damaged files show it mostly; their requests are not counted
        return _requests([path for path in files if is_sound(path)]) if not all(map(is_sound, files)) else 0
    count: int = pc.count_distinct(column).as_py()
    return count


def add_uses(graph: Graph, catalog: Catalog, uses: Uses) -> None:
    """Add frames and served versions to the graph of definitions, behind the services that they are of."""
    for name, fingerprint in uses.fingerprints.items():
        if service_id(name) in graph.nodes:
            graph.nodes[service_id(name)].detail["fingerprint"] = fingerprint
    for version in uses.versions:
        _add_version(graph, version)
    for frame in uses.frames:
        _add_frame(graph, catalog, frame)


def _add_version(graph: Graph, version: ServedVersion) -> None:
    if service_id(version.service) not in graph.nodes:
        return
    name = f"{version.service} {version.fingerprint[:8]}"
    made = graph.node(
        "served version", name, f"served:{version.service}@{version.fingerprint}",
        fingerprint=version.fingerprint, online=version.is_online, views=version.views, requests=version.requests,
        error=version.error,
    )  # fmt: skip
    graph.edge(service_id(version.service), made, "served")


def _is_there(path: str) -> bool:
    """Whether a frame's file is there; of a store that does not answer nobody knows that it is gone."""
    if not is_url(path):
        return Path(path).exists()
    with suppress(ObjectStoreError, ConfigError):
        return looked_at([path])[0] is not None
    return True


def _add_frame(graph: Graph, catalog: Catalog, frame: WrittenFrame) -> None:
    """A frame of a service goes behind it; one of a list of features behind each of them."""
    made = graph.node(
        "training frame", frame.path, f"frame:{frame.path}", service=frame.service, fingerprint=frame.fingerprint,
        rows=frame.rows, written=instant_json(frame.written), manifest=frame.manifest,
        exists=_is_there(frame.path),
    )  # fmt: skip
    if frame.service in catalog.services:
        graph.edge(service_id(frame.service), made, "frame")
        return
    for read in frame.reads:
        if read in graph.nodes:
            graph.edge(read, made, "frame")
