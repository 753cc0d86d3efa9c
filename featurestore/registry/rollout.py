"""Which versions of services are served beside each other: kept when another takes their place, until they are retired.

A service version that is kept holds its views: they are materialized, pushed to and served as the current ones are, to
clients that name its fingerprint. What is kept is in the registry, and changes only by the steps of a plan. View versions that nobody holds any more are freed
online, those that were replaced once what takes their place is served.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from featurestore.errors import NotFoundError
from featurestore.registry.documents import Document, service_views, view_fingerprints
from featurestore.registry.steps import KeepVersion, RetireVersion, VersionStep
from featurestore.registry.store import KeptVersion, Registry, RegistryState, ServiceVersion, Version
from featurestore.semantics.view import ResolvedView

Free = Callable[[str, str], int]
"""Frees the online keys of a view version, by name and fingerprint, and returns how many there were."""

Published = Callable[[str, str], bool]
"""Whether a view version, by name and fingerprint, is complete online and served."""

ALL = "all"
"""What retires every version that is kept."""


@dataclass(frozen=True)
class Rollout:
    """What a plan is to do with versions. keep: those that it replaces are served on. retire: kept ones that are not any
    more, as "service@fingerprint", the beginning of a fingerprint where it fits one, or "all".

    rows_served: how many rows of a service version (name, fingerprint) were logged as served in the last day; None: not known.
    """

    keep: bool = False
    retire: tuple[str, ...] = ()
    rows_served: Callable[[str, str], int | None] = lambda _service, _fingerprint: None


class HeldView(NamedTuple):
    """A view version that is not the current one, and the kept service versions that read it."""

    view: ResolvedView
    services: tuple[ServiceVersion, ...]


class Versions(NamedTuple):
    """The steps of versions, the versions that stay kept, and the view versions that kept service versions read before and after."""

    steps: tuple[VersionStep, ...]
    kept: tuple[KeptVersion, ...]
    kept_before: frozenset[tuple[str, str]]
    kept_after: frozenset[tuple[str, str]]


def versions_between(registry: Registry, before: Document, after: Document, rollout: Rollout) -> Versions:
    """What becomes of each version that is served now. NotFoundError where `rollout.retire` names none, or several."""
    had = registry.kept()
    documents = {kept.version: registry.version(kept.version).document for kept in had}
    views = {kept.named: _views(documents[kept.version], kept.service) for kept in had}
    current, next_ = _services(before), _services(after)
    views |= {version: _views(before, version.service) for version in current}
    retired = named(had, rollout.retire)
    replaced = [version for version in current if version not in next_]
    keeps = replaced if rollout.keep else []
    stays = tuple(kept for kept in had if kept.named not in retired and kept.named not in next_)
    kept_after = frozenset(view for version in [*keeps, *(kept.named for kept in stays)] for view in views[version])
    live = kept_after | view_fingerprints(after).items()
    over = [*([] if rollout.keep else replaced), *(version for version in retired if version not in next_)]
    steps: list[VersionStep] = [
        KeepVersion(*version, code=_other_code(before, after, version.service)) for version in keeps
    ]
    successors = {version.service: version.fingerprint for version in next_}
    for version in over:
        frees = tuple(sorted(name for name, fingerprint in views[version] - live))
        rows = rollout.rows_served(*version)
        steps.append(RetireVersion(*version, successors.get(version.service), frees, rows))
    kept_before = frozenset(view for kept in had for view in views[kept.named])
    return Versions(tuple(steps), stays, kept_before, kept_after)


def _services(document: Document) -> dict[ServiceVersion, None]:
    return {ServiceVersion(name, record["fingerprint"]): None for name, record in document["services"].items()}


def _views(document: Document, service: str) -> frozenset[tuple[str, str]]:
    return frozenset(service_views(document, service).items())


def _other_code(before: Document, after: Document, service: str) -> tuple[str, ...]:
    """The on-demand features of a service whose code is another afterwards, or gone."""
    refs = before["services"][service]["declared"]["features"]
    names = [ref["on_demand"] for ref in refs if "on_demand" in ref]

    def code(document: Document, name: str) -> str | None:
        record = document["on_demand"].get(name)
        return None if record is None else str(record["definition"]["code"])

    return tuple(name for name in names if code(before, name) != code(after, name))


def named(kept: Sequence[KeptVersion], names: Iterable[str]) -> list[ServiceVersion]:
    """The kept versions that "service@fingerprint" (or its beginning) and "all" name; NotFoundError."""
    found: dict[ServiceVersion, None] = {}
    for name in names:
        service, separator, start = name.partition("@")
        fits = [
            one.named
            for one in kept
            if name == ALL or (separator and one.service == service and one.fingerprint.startswith(start))
        ]
        if name != ALL and (len(fits) != 1 or not start):
            listed = ", ".join(str(one.named) for one in kept) or "none"
            what = f"fits {len(fits)} kept versions" if len(fits) > 1 else "is no version that is kept"
            raise NotFoundError(f"'{name}' {what}; say service@fingerprint, or all. Kept: {listed}")
        found.update(dict.fromkeys(fits))
    return list(found)


def held_views(registry: Registry, state: RegistryState | None = None) -> list[HeldView]:
    """The view versions that are served beside the current ones, for kept versions of services, each once.

    state: the registry's, where it was read already.
    """
    state = registry.state() if state is None else state
    current = view_fingerprints(registry.version(state.generation).document)
    found: dict[tuple[str, str], tuple[Version, list[ServiceVersion]]] = {}
    for one in state.kept:
        version = registry.version(one.version)
        for view in service_views(version.document, one.service).items():
            if current.get(view[0]) != view[1]:
                found.setdefault(view, (version, []))[1].append(one.named)
    return [HeldView(version.view(name), tuple(services)) for (name, _), (version, services) in found.items()]


def free_version(registry: Registry, free: Free, view: str, fingerprint: str) -> tuple[str, str, int]:
    """Free first and strike from the list afterwards, so that a process that dies in between only frees again."""
    keys = free(view, fingerprint)
    registry.freed(view, fingerprint)
    return view, fingerprint, keys


def free_leftovers(registry: Registry, *, free: Free, published: Published) -> tuple[tuple[str, str, int], ...]:
    """Free the view versions that were removed, or whose successor is served by now; (view, fingerprint, keys) each.

    For materialize to call when it has published a view; what still waits stays on the registry's list.
    """
    live = view_fingerprints(registry.current().document)
    return tuple(
        free_version(registry, free, view, fingerprint)
        for view, fingerprint in registry.leftovers()
        if view not in live or published(view, live[view])
    )
