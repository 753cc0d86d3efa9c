"""What an audit says: counts by feature and hour, causes, examples, and how late the values were.

A value is

    exact        it has training's bits and status
    rewritten    it has not, and the rows that training sees are others than there were when it was computed
    skewed       it has not, although they are the same: a defect

Whether the as_of itself was the right one is another question: by rule 0 it is `stale` when it is older (operations),
`early` when it is later (a defect). The two are never one number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from featurestore.reports.audit.causes import CAUSES
from featurestore.serving.log.serving_log import Losses

if TYPE_CHECKING:
    from featurestore.reports.explain.explanation import Explanation

__all__ = ["COUNTS", "Audit", "Difference", "FeatureAudit", "HourAudit", "Lateness"]


@dataclass(frozen=True)
class Difference:
    """One value that was served and is not training's.

    statuses: served, trained. detail: what is known of the cause. explanation: the rows that make training's value.
    """

    request: str
    row: int
    time: datetime
    key: dict[str, Any]
    as_of: datetime | None
    served: Any
    trained: Any
    statuses: tuple[str, str]
    cause: str
    detail: str
    explanation: Explanation | None = None


@dataclass
class HourAudit:
    """The values of one feature that were served within one hour; the last two are among the differing ones."""

    hour: datetime
    compared: int = 0
    exact: int = 0
    rewritten: int = 0
    skewed: int = 0
    missing_when_served: int = 0
    missing_in_training: int = 0


COUNTS = ("compared", "exact", "rewritten", "skewed", "missing_when_served", "missing_in_training")


@dataclass
class FeatureAudit:
    """One feature of one service version, hour by hour. missing_when_served: training has a value and serving had none."""

    service: str
    fingerprint: str
    feature: str
    hours: list[HourAudit] = field(default_factory=list)
    causes: dict[str, int] = field(default_factory=dict)
    examples: list[Difference] = field(default_factory=list)

    @property
    def compared(self) -> int:
        """Values compared."""
        return sum(hour.compared for hour in self.hours)

    @property
    def exact(self) -> int:
        """Values with training's bits and status."""
        return sum(hour.exact for hour in self.hours)

    @property
    def rewritten(self) -> int:
        """Values that differ because the rows are others by now."""
        return sum(hour.rewritten for hour in self.hours)

    @property
    def skewed(self) -> int:
        """Values that differ otherwise."""
        return sum(hour.skewed for hour in self.hours)

    @property
    def missing_when_served(self) -> int:
        """Values that training has and serving had not."""
        return sum(hour.missing_when_served for hour in self.hours)

    @property
    def missing_in_training(self) -> int:
        """Values that serving had and training has not."""
        return sum(hour.missing_in_training for hour in self.hours)


@dataclass(frozen=True)
class Lateness:
    """How old the as_of of one view was, against rule 0: rows, and µs of the stale ones."""

    service: str
    view: str
    requests: int
    stale: int
    early: int
    p50: int
    p99: int
    greatest: int


@dataclass(frozen=True)
class Audit:
    """What the log shows.

    not_audited: what is left out, and why: service versions whose definitions or sources are not at hand, features that
    one side has not. budgets: service → share of its values that may be skewed. not_served, not_trained: rows of a given
    spine that the log has not, and logged rows that the spine has not. damaged: files of the log, and service versions over
    damaged push logs, whose rows were left out, and why.
    """

    features: tuple[FeatureAudit, ...]
    lateness: tuple[Lateness, ...]
    losses: Losses
    not_audited: dict[str, str]
    budgets: Mapping[str, float] = field(default_factory=dict)
    not_served: int = 0
    not_trained: int = 0
    damaged: Mapping[str, str] = field(default_factory=dict)

    @property
    def compared(self) -> int:
        """Values compared."""
        return sum(feature.compared for feature in self.features)

    @property
    def exact(self) -> int:
        """Values with training's bits and status."""
        return sum(feature.exact for feature in self.features)

    @property
    def rewritten(self) -> int:
        """Values that differ because the rows are others by now."""
        return sum(feature.rewritten for feature in self.features)

    @property
    def skewed(self) -> int:
        """Values that differ although the rows are the same, and as_of that were early: defects."""
        return sum(feature.skewed for feature in self.features) + sum(view.early for view in self.lateness)

    @property
    def over_budget(self) -> dict[str, float]:
        """The services whose share of defects is beyond their `skew_budget`, with that share."""
        over = {}
        for name in dict.fromkeys(feature.service for feature in self.features):
            skewed = sum(feature.skewed for feature in self.features if feature.service == name)
            skewed += sum(view.early for view in self.lateness if view.service == name)
            share = skewed / max(1, sum(feature.compared for feature in self.features if feature.service == name))
            if share > self.budgets.get(name, 0.0):
                over[name] = share
        return over

    @property
    def causes(self) -> dict[str, int]:
        """Cause → how many values differ by it, in the order of CAUSES."""
        counted = dict.fromkeys(CAUSES, 0)
        for feature in self.features:
            for cause, count in feature.causes.items():
                counted[cause] += count
        return {cause: count for cause, count in counted.items() if count}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON has them; keys as text."""
        return {
            "compared": self.compared,
            "exact": self.exact,
            "rewritten": self.rewritten,
            "skewed": self.skewed,
            "over_budget": self.over_budget,
            "causes": self.causes,
            "features": [_told(feature) for feature in self.features],
            "lateness": [vars(view) for view in self.lateness],
            "losses": self.losses._asdict(),
            "not_served": self.not_served,
            "not_trained": self.not_trained,
            "not_audited": self.not_audited,
            "damaged": self.damaged,
        }

    def to_html(self) -> str:
        """A page that a person can read, with plots, complete in itself; it needs the extra `featurestore[report]`."""
        from featurestore.reports.audit.page import page

        return page(self)


def _told(feature: FeatureAudit) -> dict[str, Any]:
    names = ("service", "fingerprint", "feature", *COUNTS, "causes")
    return {
        **{name: getattr(feature, name) for name in names},
        "hours": [vars(hour) for hour in feature.hours],
        "examples": [
            {
                **vars(example),
                "key": str(example.key),
                "explanation": None if example.explanation is None else example.explanation.to_dict(),
            }
            for example in feature.examples
        ],
    }
