"""What the last audit of each service found, in `audits.json` beside the serving log."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from featurestore.clock import instant_of
from featurestore.reports.audit.report import COUNTS, Audit
from featurestore.reports.last_findings import keep_findings, last_findings

FILE = "audits.json"


class AuditedService(NamedTuple):
    """The newest audit of a service. at: when (µs). counts: of values, by what they came out as; early: rows that were served for a
    later instant than that of rule 0."""

    at: int
    counts: Mapping[str, int]
    early: int

    @property
    def skew(self) -> float:
        """The share of values that were defects, which the service's `skew_budget` limits."""
        return (self.counts["skewed"] + self.early) / max(1, self.counts["compared"])


def keep_audit(folder: Path, audit: Audit) -> None:
    """Keep what it found of each service that it has compared values of. Where the folder is not there, or cannot be written, nothing is kept."""
    services = dict.fromkeys(feature.service for feature in audit.features)
    if services and audit.audited_at is not None:
        own = {name: _found(audit, name, instant_of(audit.audited_at))._asdict() for name in services}
        keep_findings(folder / FILE, lambda kept: {**kept, **own})


def _found(audit: Audit, service: str, at: int) -> AuditedService:
    features = [feature for feature in audit.features if feature.service == service]
    counts = {count: sum(getattr(feature, count) for feature in features) for count in COUNTS}
    return AuditedService(at, counts, sum(view.early for view in audit.lateness if view.service == service))


def last_audits(folder: Path) -> dict[str, AuditedService]:
    """The newest audit of each service that was ever audited; a file that is not what was written says nothing. Raises OSError."""
    found: dict[str, Any] = last_findings(folder / FILE)
    return {name: AuditedService(**one) for name, one in found.items()}
