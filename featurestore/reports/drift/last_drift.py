"""What the last comparison of each service found, in `drifts.json` beside the serving log."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from featurestore.clock import instant_of
from featurestore.reports.drift.report import Drift
from featurestore.reports.last_findings import keep_findings, last_findings

FILE = "drifts.json"


class DriftedService(NamedTuple):
    """The newest comparison of a service. at: when (µs). distances: feature → measure → how far apart; limits: likewise, what is
    allowed."""

    at: int
    distances: Mapping[str, Mapping[str, float]]
    limits: Mapping[str, Mapping[str, float]]


def keep_drift(folder: Path, drift: Drift) -> None:
    """Keep what it found. Where the folder is not there, or cannot be written, nothing is kept."""
    distances = {
        feature.feature: {name: value for name, value in feature.distances.items() if value is not None}
        for feature in drift.features
    }
    limits = {feature.feature: dict(feature.limits) for feature in drift.features if feature.limits}
    own = DriftedService(instant_of(drift.compared_at), distances, limits)._asdict()
    keep_findings(folder / FILE, lambda kept: {**kept, drift.service: own})


def last_drifts(folder: Path) -> dict[str, DriftedService]:
    """The newest comparison of each service; a file that is not what was written says nothing. Raises OSError."""
    found: dict[str, Any] = last_findings(folder / FILE)
    return {name: DriftedService(**one) for name, one in found.items()}
