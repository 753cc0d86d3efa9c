"""What the last audit of each service found, in a file beside the serving log, for whoever watches over it.

<folder>/audits.json    service → counts of values, and when; with a checksum
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import orjson

from featurestore.clock import instant_of
from featurestore.durable.checksums import decoded, encoded
from featurestore.durable.disk import replace
from featurestore.errors import FeatureStoreError
from featurestore.reports.audit.report import COUNTS, Audit

FILE = "audits.json"


class AuditedService(NamedTuple):
    """The newest audit of a service. at: when (µs). counts: of values, by what they came out as; early: rows that were served for a
    later instant than that of rule 0."""

    at: int
    counts: Mapping[str, int]
    early: int


def keep_audit(folder: Path, audit: Audit) -> None:
    """Keep what it found of each service that it has compared values of. Where the folder is not there, or cannot be written, nothing is kept."""
    services = dict.fromkeys(feature.service for feature in audit.features)
    if not services or audit.audited_at is None:
        return
    try:
        found = last_audits(folder)
        for name in services:
            features = [feature for feature in audit.features if feature.service == name]
            counts = {count: sum(getattr(feature, count) for feature in features) for count in COUNTS}
            early = sum(view.early for view in audit.lateness if view.service == name)
            found[name] = AuditedService(instant_of(audit.audited_at), counts, early)
        replace(folder / FILE, encoded({name: one._asdict() for name, one in found.items()}))
    except (OSError, FeatureStoreError):
        return


def last_audits(folder: Path) -> dict[str, AuditedService]:
    """The newest audit of each service that was ever audited; a file that is not what was written says nothing. Raises OSError."""
    try:
        words = decoded((folder / FILE).read_bytes())
    except FileNotFoundError:
        return {}
    except (ValueError, orjson.JSONDecodeError):
        return {}
    return {name: AuditedService(**one) for name, one in words.items()}
