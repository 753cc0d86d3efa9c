"""What the registry tells: applied versions, what is kept and what is to be freed, and runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from featurestore.catalog import Catalog
from featurestore.clock import to_datetime
from featurestore.registry.documents import Document, catalog_of, resolved_service, resolved_view
from featurestore.semantics.service import ResolvedService
from featurestore.semantics.view import ResolvedView


@dataclass(frozen=True)
class Version:
    """One applied state, which never changes: its definitions are read from the document once, when first asked for.

    Not to be changed: all who ask for a version are given the same one.
    """

    number: int
    """From 1 on; 0, with an empty document, is the state before the first."""
    applied_at: int
    """When (µs)."""
    document: Document
    digest: str
    note: str = ""
    _views: dict[str, ResolvedView] = field(default_factory=dict, compare=False)
    _services: dict[str, ResolvedService] = field(default_factory=dict, compare=False)

    @cached_property
    def catalog(self) -> Catalog:
        """Everything that was applied, as definitions."""
        return catalog_of(self.document)

    def view(self, name: str) -> ResolvedView:
        """See `documents.resolved_view`."""
        if name not in self._views:
            self._views[name] = resolved_view(self.document, name)
        return self._views[name]

    def service(self, name: str) -> ResolvedService:
        """See `documents.resolved_service`."""
        if name not in self._services:
            self._services[name] = resolved_service(self.document, name)
        return self._services[name]

    def __repr__(self) -> str:
        at = f" applied {to_datetime(self.applied_at):%Y-%m-%d %H:%M:%S}Z" if self.number else ""
        return f"Version({self.number}{at}, digest {self.digest[:8]}{f', {self.note}' if self.note else ''})"


class Freed(NamedTuple):
    """A version of a view by its fingerprint."""

    view: str
    fingerprint: str


class ServiceVersion(NamedTuple):
    """A version of a service by its fingerprint."""

    service: str
    fingerprint: str

    def __str__(self) -> str:
        return f"{self.service}@{self.fingerprint[:12]}"


class KeptVersion(NamedTuple):
    """A service version that is served on although another took its place."""

    service: str
    fingerprint: str
    version: int
    """The registry's last version that held it."""
    since: int
    """When it was replaced (µs)."""

    @property
    def named(self) -> ServiceVersion:
        """The service version."""
        return ServiceVersion(self.service, self.fingerprint)


@dataclass(frozen=True)
class RunRecord:
    """One run of materialize over one view: for which instant, when (µs), how many rows read and keys written."""

    view: str
    fingerprint: str
    instant: int
    started: int
    finished: int
    rows: int
    keys: int
    status: str
    detail: dict[str, Any] = field(default_factory=dict)
    id: int | None = None


class RegistryState(NamedTuple):
    """What tells whether anything was applied, kept, retired or freed."""

    generation: int
    leftovers: tuple[Freed, ...]
    kept: tuple[KeptVersion, ...] = ()
