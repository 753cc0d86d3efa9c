"""What a simulation found: the audit, how old values were, what was injected, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from featurestore.clock import to_datetime
from featurestore.declare.durations import show_duration
from featurestore.plurals import plural
from featurestore.report import Report, Reported, ReportTable, instant_json, plain_fields, shown_instant
from featurestore.reports.audit import Audit
from featurestore.reports.audit.report import FeatureAudit, lateness_table
from featurestore.reports.simulation.faults import Faults
from featurestore.reports.simulation.landing import Landed
from featurestore.reports.simulation.pushes import Sent


@dataclass
class ViewRuns:
    """What became of the scheduled runs of one view."""

    view: str
    completed: int = 0
    failed: int = 0
    """Died in the middle."""
    skipped: int = 0
    paused: int = 0
    """Fell into the pause."""
    refused: int = 0
    """Found the lease of a run that died, which had not run out."""


@dataclass(frozen=True)
class Simulation(Reported):
    """A stretch of history as it was replayed, and what this repository would have in production."""

    start: int
    """In µs."""
    end: int
    """In µs."""
    seed: int
    services: tuple[str, ...]
    faults: Faults
    pause: tuple[int, int]
    """From when to when nothing was pushed and no run took place, in µs."""
    landed: Mapping[str, Landed]
    """By batch source."""
    pushed: Mapping[str, Sent]
    """By push source."""
    runs: tuple[ViewRuns, ...]
    counts: Mapping[str, int]
    """Of lookups, restarts, and of what was refused."""
    refused: Mapping[str, str]
    """One message of each kind of refusal."""
    audit: Audit
    """Of the simulation's own serving log."""
    notes: tuple[str, ...] = ()
    """What could not be replayed as it is."""
    advice: tuple[str, ...] = field(default=())
    """A sentence for each finding."""

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
            "from": instant_json(self.start),
            "to": instant_json(self.end),
            "faults": self.faults.model_dump(mode="json"),
            "pause": [instant_json(instant) for instant in self.pause] if self.faults.pause else None,
            "features": [_feature(feature) for feature in self.audit.features],
            **plain_fields(self, "seed", "services", "compared", "differing", "early", "stale", "skewed"),
            **plain_fields(self.audit, "lateness", "losses"),
            **plain_fields(self, "landed", "pushed", "runs", "counts", "refused", "notes", "advice"),
        }

    def report(self) -> Report:
        """Features, views, runs and sources in tables; then examples, and what is to be said of all."""
        audit = self.audit
        features = [
            (f.service, f.feature, f.compared, f.exact, f.compared - f.exact,
             ", ".join(f"{count:,} {cause}" for cause, count in f.causes.items()))
            for f in audit.features
        ]  # fmt: skip
        runs = [(r.view, r.completed, r.failed, r.skipped, r.paused, r.refused) for r in self.runs]
        twice = {name: (s.duplicates, 0) for name, s in self.landed.items()}
        twice |= {name: (s.unchanged, s.kept_aside) for name, s in self.pushed.items()}
        sources = [
            (name, s.history, s.rows, s.late, show_duration(s.late_by), *twice[name])
            for name, s in {**self.landed, **self.pushed}.items()
        ]
        examples = [example.told(feature.feature) for feature in audit.features for example in feature.examples[:1]]
        lookups = self.counts.get("lookups", 0)
        summary = (
            f"seed {self.seed}: {self.compared:,} {plural(self.compared, 'value')} of {lookups:,} {plural(lookups, 'lookup')} compared, {self.differing:,} differ, "
            f"{self.early:,} {plural(self.early, 'row')} early, {self.stale:,} stale"
        )
        parts: tuple[str | ReportTable, ...] = (
            ReportTable(("service", "feature", "compared", "exact", "differing", "causes"), features),
            lateness_table(audit),
            ReportTable(("view", "runs", "died", "skipped", "in the pause", "refused"), runs),
            ReportTable(("source", "before", "came", "late", "by at most", "twice", "kept aside"), sources),
            *examples[:SHOWN_EXAMPLES],
            *self.notes,
            *self.advice,
            summary,
        )
        start, end = (shown_instant(to_datetime(instant)) for instant in (self.start, self.end))
        return Report(f"{start} to {end}, replayed", parts)


SHOWN_EXAMPLES = 5
"""Differences that are shown, each of another feature; `to_dict` has more."""

FEATURE = ("service", "fingerprint", "feature", "compared", "exact", "rewritten", "skewed", "causes")
EXAMPLE = ("row", "time", "as_of", "served", "trained", "cause")


def _feature(feature: FeatureAudit) -> dict[str, Any]:
    examples = [
        {**plain_fields(example, *EXAMPLE, "statuses"), "key": str(example.key)} for example in feature.examples
    ]
    return {**plain_fields(feature, *FEATURE), "examples": examples}
