"""What the registry tells: applied versions, what is kept and what is to be freed, and runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from featurestore.clock import to_datetime
from featurestore.registry.documents import Document

__all__ = ["Freed", "KeptVersion", "RegistryState", "RunRecord", "ServiceVersion", "Version"]


@dataclass(frozen=True)
class Version:
    """One applied state. `applied_at` is in µs; number 0, with an empty document, is the state before the first."""

    number: int
    applied_at: int
    document: Document
    digest: str
    note: str = ""

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
    """A service version that is served on; `version`: the registry's last version that held it; `since`: µs."""

    service: str
    fingerprint: str
    version: int
    since: int

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
