"""What a simulation found: the audit, how old values were, what was injected, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from featurestore.clock import to_datetime
from featurestore.reports.audit import Audit
from featurestore.reports.simulation.faults import Faults
from featurestore.reports.simulation.landing import Landed
from featurestore.reports.simulation.pushes import Sent

__all__ = ["Simulation", "ViewRuns"]


@dataclass
class ViewRuns:
    """What became of the scheduled runs of one view: completed, died in the middle, skipped, fell into the pause, or were
    refused because the lease of one that died had not run out."""

    view: str
    completed: int = 0
    failed: int = 0
    skipped: int = 0
    paused: int = 0
    refused: int = 0


@dataclass(frozen=True)
class Simulation:
    """A stretch of history as it was replayed, and what this repository would have in production.

    start, end, pause: µs. landed, pushed: by source. runs: by view. counts: of lookups, restarts, and of what was refused,
    with one message of each kind in `refused`. notes: what could not be replayed as it is. advice: a sentence for each
    finding. The audit is of the simulation's own serving log.
    """

    start: int
    end: int
    seed: int
    services: tuple[str, ...]
    faults: Faults
    pause: tuple[int, int]
    landed: Mapping[str, Landed]
    pushed: Mapping[str, Sent]
    runs: tuple[ViewRuns, ...]
    counts: Mapping[str, int]
    refused: Mapping[str, str]
    audit: Audit
    notes: tuple[str, ...] = ()
    advice: tuple[str, ...] = field(default=())

    @property
    def compared(self) -> int:
        """Values compared."""
        return sum(feature.compared for feature in self.audit.features)

    @property
    def differing(self) -> int:
        """Served values that are not training's, for whatever cause: here nobody rewrites history, so that a value which
        the audit calls rewritten was served without a row that came late."""
        return sum(feature.compared - feature.exact for feature in self.audit.features)

    @property
    def early(self) -> int:
        """Rows served for an instant whose time had not come."""
        return sum(view.early for view in self.audit.lateness)

    @property
    def stale(self) -> int:
        """Rows of a view that were served for an older instant than rule 0 asks for."""
        return sum(view.stale for view in self.audit.lateness)

    @property
    def skewed(self) -> int:
        """Values that differ, and rows that were early: what `--fail-on-skew` fails on."""
        return self.differing + self.early

    def to_dict(self) -> dict[str, Any]:
        """Plain values, the same for the same seed: no name of a process or a folder, and no time of this machine."""
        return {
            "from": to_datetime(self.start),
            "to": to_datetime(self.end),
            "seed": self.seed,
            "services": list(self.services),
            "faults": self.faults.model_dump(mode="json"),
            "pause": [to_datetime(instant) for instant in self.pause] if self.faults.pause else None,
            "compared": self.compared,
            "differing": self.differing,
            "early": self.early,
            "stale": self.stale,
            "skewed": self.skewed,
            "features": [_feature(feature) for feature in self.audit.features],
            "lateness": [{name: getattr(view, name) for name in LATENESS} for view in self.audit.lateness],
            "losses": self.audit.losses._asdict(),
            "landed": {name: asdict(landed) for name, landed in self.landed.items()},
            "pushed": {name: asdict(sent) for name, sent in self.pushed.items()},
            "runs": [asdict(runs) for runs in self.runs],
            "counts": dict(sorted(self.counts.items())),
            "refused": dict(self.refused),
            "notes": list(self.notes),
            "advice": list(self.advice),
        }


FEATURE = ("service", "fingerprint", "feature", "compared", "exact", "rewritten", "skewed", "causes")
LATENESS = ("service", "view", "requests", "stale", "early", "p50", "p99", "greatest")
EXAMPLE = ("row", "time", "as_of", "served", "trained", "cause")


def _feature(feature: Any) -> dict[str, Any]:
    examples = [
        {
            **{name: getattr(example, name) for name in EXAMPLE},
            "key": str(example.key),
            "statuses": list(example.statuses),
        }
        for example in feature.examples
    ]
    return {**{name: getattr(feature, name) for name in FEATURE}, "examples": examples}
