"""The definitions of a store as pages ask for them: of which whoever has a limited key is told what he may read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from featurestore.access.principal import EVERYBODY, Principal
from featurestore.catalog import Catalog
from featurestore.console.readable import LEFT_OUT, PARTS, Readable
from featurestore.errors import NotFoundError, did_you_mean
from featurestore.registry.records import KeptVersion
from featurestore.report import within
from featurestore.reports.description import Description
from featurestore.reports.lineage.lineage import Direction, Lineage
from featurestore.store import FeatureStore

T = TypeVar("T")

NOT_THERE = "There is no {noun} '{name}', or this key may not read it"


class NotReadableError(NotFoundError):
    """Something that there is not, or that whoever asks may not read: nobody can tell which."""


class AppliedRecord(NamedTuple):
    """A definition as one version has it."""

    number: int
    applied_at: int
    """µs."""
    record: Mapping[str, Any] | None
    """None where the version has none."""
    note: str


class ReadableDefinitions:
    """What whoever looks may ask a store of its definitions. principal: who that is.

    Where something cannot be read its operations raise NotReadableError, as they do where there is no such thing.
    """

    def __init__(self, store: FeatureStore, principal: Principal = EVERYBODY) -> None:
        self._store, self._principal = store, principal

    @cached_property
    def readable(self) -> Readable | None:
        """What may be read; None where that is everything."""
        return Readable.of(self._principal, self._store.catalog)

    @property
    def is_limited(self) -> bool:
        """Whether not everything may be read."""
        return self._principal.only_on is not None

    @property
    def root(self) -> Path:
        """The folder from which paths are shown."""
        return self._store.config.root

    def within(self, path: str) -> str:
        """A path, or a text with paths, as it is seen from the repository."""
        return within(path, self.root)

    @property
    def catalog(self) -> Catalog:
        """The definitions that may be read, each whole: which of a view's features may be is another thing."""
        whole, may = self._store.catalog, self.readable
        if may is None:
            return whole
        parts: dict[str, Any] = {part: only(getattr(whole, part), may.names(part)) for part in PARTS.values()}
        return Catalog(**parts)

    def has_feature(self, view: str, feature: str) -> bool:
        """Whether a feature of a view may be read."""
        return self.readable is None or self.readable.has_feature(f"{view}:{feature}")

    def applied(self, part: str) -> dict[str, Any]:
        """The records of what is applied, by name. part: "views", "services", …"""
        found: dict[str, Any] = self._store.registry.current().document[part]
        return found if self.readable is None else only(found, self.readable.names(part))

    def skew_budgets(self) -> dict[str, float]:
        """By applied service the share of its values that may be skewed."""
        applied = self._store.registry.current()
        return {name: applied.service(name).declared.skew_budget for name in self.applied("services")}

    def declared_code(self, view: str) -> Any:
        """What a view says as it is applied; None where it is not, or not all of it may be read."""
        record = self.applied("views").get(view)
        if record is None or (self.readable is not None and f"view:{view}" not in (self._principal.only_on or ())):
            return None
        return record["declared"]

    def describe(self, name: str) -> list[Description]:
        """What bears a name, without what may not be read of it."""
        may = self.readable
        if may is None:
            return list(self._store.describe(name))
        every = self.named(self._store.describe, name)
        found = [may.description(one, self.titles(one)) for one in every if may.has_description(one)]
        if not found:
            raise self.refused("definition", name)
        return found

    def titles(self, of: Description | str) -> frozenset[str]:
        """Of a view or a source, the expectations that name nothing which may not be read, as they are written."""
        name, catalog, may = of if isinstance(of, str) else of.name, self._store.catalog, self.readable
        view, is_source = catalog.views.get(name), not isinstance(of, str) and of.kind == "source"
        source = catalog.sources.get(name) if view is None or is_source else view.source
        items: list[Any] = [] if source is None else [source] if view is None or is_source else [source, view]
        assert may is not None
        return frozenset(
            said.title
            for item in items
            for said in item.expectations
            if source is not None and may.has_expectation(source.name, said)
        )

    def history(self, part: str, name: str) -> list[AppliedRecord]:
        """A definition in each applied version of everything, the oldest first. part: of the catalog."""
        self.check(part, name)
        return [
            AppliedRecord(
                version.number, version.applied_at, version.document[part].get(name), self._note(version.note)
            )
            for version in sorted(self._store.history(), key=lambda one: one.number)
        ]

    def _note(self, note: str) -> str:
        return LEFT_OUT if self.is_limited and note else note

    def kept(self, service: str) -> list[KeptVersion]:
        """The versions of a service that are served on although another took their place."""
        return [one for one in self._store.registry.kept() if one.service == service]

    def service_definition(self, name: str, fingerprint: str) -> Any:
        """A version of a service as plain JSON; None where it is not known. What it says of views is left out where not all may be read."""
        version = self._store.registry.find_service(name, fingerprint)
        if version is None:
            return None
        definition = version.document["services"][name]["definition"]
        return definition if self.readable is None else {word: definition[word] for word in ("columns", "on_demand")}

    def lineage(self, name: str, *, direction: Direction = "both") -> Lineage:
        """The lineage of what bears a name."""
        may = self.readable
        if may is None:
            return self._store.lineage(name, direction=direction)
        found: Lineage = self.named(lambda name: self._store.lineage(name, direction=direction), name)
        nodes = {
            one.id: replace(one, detail={word: said for word, said in one.detail.items() if word != "error"})
            for one in found.nodes.values()
            if one.id in may.nodes
            or (one.kind == "training frame" and one.detail.get("service") in may.services)
            or (one.kind == "served version" and one.id.removeprefix("served:").rpartition("@")[0] in may.services)
        }
        roots = tuple(root for root in found.roots if root in nodes)
        if not roots:
            raise self.refused("definition", name)
        kept = tuple(edge for edge in found.edges if edge.start in nodes and edge.end in nodes)
        return Lineage(roots, nodes, kept)

    # --- what may not be read ---------------------------------------------------------------

    def check(self, part: str, name: str | None) -> None:
        """NotReadableError where something of a part of the catalog may not be read."""
        if name is not None and self.readable is not None and name not in self.readable.names(part):
            noun = next(kind for kind, of in PARTS.items() if of == part)
            raise self.refused(noun, name)

    def named(self, ask: Callable[[str], T], name: str) -> T:
        """What an operation says of a name; where there is no such thing, what is said of one that may not be read."""
        try:
            return ask(name)
        except NotFoundError:
            raise self.refused("definition", name) from None

    def refused(self, noun: str, name: str) -> NotReadableError:
        """The error about something that there is not, or that may not be read; it names what is like it of what may be."""
        known = [own for part in PARTS.values() for own in getattr(self.catalog, part)]
        return NotReadableError(f"{NOT_THERE.format(noun=noun, name=name[:100])}.{did_you_mean(name, known)}")


def only(found: Mapping[str, T], names: Iterable[str]) -> dict[str, T]:
    """Those of some names."""
    kept = frozenset(names)
    return {name: one for name, one in found.items() if name in kept}
