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
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any

from featurestore.declare.problems import shown
from featurestore.errors import RequestError
from featurestore.plurals import plural
from featurestore.registry.records import ServiceVersion
from featurestore.report import Report, Reported, ReportTable, cell, plain, plain_fields, shown_instant
from featurestore.reports.audit.causes import CAUSES
from featurestore.serving.log.serving_log import Losses

if TYPE_CHECKING:
    from featurestore.reports.explain.explanation import Explanation

TITLE = "What was served, against training"


@dataclass(frozen=True)
class Difference:
    """One value that was served and is not training's."""

    request: str
    row: int
    """Its number in the request, from 0."""
    time: datetime
    key: dict[str, Any]
    as_of: datetime | None
    """The instant that it was served for; None of an on-demand feature."""
    served: Any
    trained: Any
    statuses: tuple[str, str]
    """As served, and in training."""
    cause: str
    """One of CAUSES."""
    detail: str
    """What is known of the cause."""
    explanation: Explanation | None = None
    """The rows that make training's value, where they were asked for."""

    def told(self, feature: str) -> str:
        """In a line, as a value of this feature."""
        return (
            f"{feature} of {self.key} at {cell(self.time)} (request {self.request}): served {cell(self.served)} "
            f"{self.statuses[0]}, training says {cell(self.trained)} {self.statuses[1]}: {self.cause}"
            + (f": {self.detail}" if self.detail else "")
        )


@dataclass(kw_only=True)
class _Outcomes:
    """How many values were compared, and how they came out."""

    compared: int = 0
    exact: int = 0
    """With training's bits and status."""
    rewritten: int = 0
    """Those that differ because the rows are others by now."""
    skewed: int = 0
    """Those that differ otherwise."""
    missing_when_served: int = 0
    """Of those that differ: training has a value, serving had none."""
    missing_in_training: int = 0
    """Of those that differ: serving had a value, training has none."""


@dataclass
class HourAudit(_Outcomes):
    """The values of one feature that were served within one hour."""

    hour: datetime


COUNTS = tuple(field.name for field in fields(_Outcomes))


@dataclass
class FeatureAudit(_Outcomes):
    """One feature of one service version, in all and hour by hour."""

    service: str
    fingerprint: str
    feature: str
    hours: list[HourAudit] = field(default_factory=list)
    causes: dict[str, int] = field(default_factory=dict)
    """Cause → how many values differ by it."""
    examples: list[Difference] = field(default_factory=list)
    """Some values that differ, of each cause."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; keys as text."""
        return {
            **plain_fields(self, "service", "fingerprint", "feature", *COUNTS, "causes", "hours"),
            "examples": [{**plain(example), "key": str(example.key)} for example in self.examples],
        }


@dataclass(frozen=True)
class Lateness:
    """How far the as_of of one view lay behind that of rule 0; durations in µs."""

    service: str
    fingerprint: str
    view: str
    requests: int
    """Rows that were served."""
    stale: int
    """Rows served for an older instant."""
    early: int
    """Rows served for a later instant: defects."""
    p50: int
    """Of the stale rows; so are the next two."""
    p99: int
    greatest: int


@dataclass(frozen=True)
class Audit(Reported):
    """What the serving log shows, held against training."""

    features: tuple[FeatureAudit, ...]
    """What became of the values of each feature of each service version."""
    lateness: tuple[Lateness, ...]
    """How late each view of each service version was served."""
    losses: Losses
    """What the log lacks, as far as the processes that served it know."""
    not_audited: dict[str, str]
    """What was left out → why: service versions that are not at hand, features that one side has not."""
    budgets: Mapping[str, float] = field(default_factory=dict)
    """Service → the share of its values that may be skewed."""
    not_served: int = 0
    """Rows of a spine that the log has not."""
    not_trained: int = 0
    """Logged rows that the spine has not."""
    damaged: Mapping[str, str] = field(default_factory=dict)
    """Files of the log, and service versions over damaged push logs, whose rows were left out → why."""
    project: str = ""
    """Whose requests they were."""
    since: datetime | None = None
    """Requests from then on; None: all that is logged."""
    until: datetime | None = None
    """Requests before then; None: up to `audited_at`."""
    audited_at: datetime | None = None
    """When it was made, by the store's clock."""

    def title(self, told: FeatureAudit | Lateness) -> str:
        """How the service version is named that something is told of: with its fingerprint where there are several."""
        every: list[FeatureAudit | Lateness] = [*self.features, *self.lateness]
        versions = {of.fingerprint for of in every if of.service == told.service}
        return told.service if len(versions) == 1 else str(ServiceVersion(told.service, told.fingerprint))

    @property
    def about(self) -> str:
        """Whose requests it is about, of when, and when it was made, in a line."""
        since = "the beginning of the log" if self.since is None else shown_instant(self.since)
        made = None if self.audited_at is None else self.audited_at.replace(microsecond=0)
        until = shown_instant(made if self.until is None else self.until)
        return f"project {self.project}, requests from {since} to {until}, audited at {shown_instant(made)}"

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

    def reasons_to_stop(self, minimum_compared: int = 1) -> list[str]:
        """Why a gate stops what comes after it; none where it lets that through.

        It stops where files of the log are damaged, a service is over its skew budget, or fewer than `minimum_compared` values were
        compared: what looked at nothing has found nothing out. 0 lets that through. Raises RequestError for what is no such number.
        """
        check_minimum(minimum_compared)
        reasons = [f"{what} is damaged: {why}" for what, why in self.damaged.items()]
        reasons += [
            f"{name} is over its skew budget: {share:.4%} of its values, where {self.budgets.get(name, 0.0):.4%} are allowed"
            for name, share in self.over_budget.items()
        ]
        if self.compared < minimum_compared:
            reasons.append(
                f"{self.compared:,} {plural(self.compared, 'value was', 'values were')} compared, and a gate wants {minimum_compared:,} at least: too little was served, or logged, of "
                f"{self.about}. minimum_compared says how many are enough, 0 that none are needed, as where nobody was served yet"
            )
        return reasons

    @property
    def causes(self) -> dict[str, int]:
        """Cause → how many values differ by it, in the order of CAUSES."""
        counted = dict.fromkeys(CAUSES, 0)
        for feature in self.features:
            for cause, count in feature.causes.items():
                counted[cause] += count
        return {cause: count for cause, count in counted.items() if count}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; keys as text."""
        sums = ("compared", "exact", "rewritten", "skewed", "over_budget", "causes")
        whole = ("project", "since", "until", "audited_at")
        left_out = ("lateness", "losses", "not_served", "not_trained", "not_audited", "damaged")
        features = [feature.to_dict() for feature in self.features]
        return {**plain_fields(self, *whole, *sums), "features": features, **plain_fields(self, *left_out)}

    def report(self) -> Report:
        """Features and views in tables; then each example, what was left out and why, and the sums."""
        examples = [example.told(name) for name, example in self.examples()]
        return Report(TITLE, (self.about, *self.tables(), *examples, *self.remarks()))

    def examples(self) -> list[tuple[str, Difference]]:
        """Each value that is shown, with the name of its feature, and the version's where it is one of several."""
        return [
            (f.feature if self.title(f) == f.service else f"{self.title(f)}: {f.feature}", example)
            for f in self.features
            for example in f.examples
        ]

    def tables(self) -> list[ReportTable]:
        """Features, and views, each with its counts; none where nothing was compared."""
        missing = ("missing when served", "missing in training")
        header = ("service", "feature", "compared", "exact", "rewritten", "skewed", *missing, "causes")
        rows = [
            (self.title(f), f.feature, *(getattr(f, name) for name in COUNTS),
             ", ".join(f"{count:,} {cause}" for cause, count in f.causes.items()))
            for f in self.features
        ]  # fmt: skip
        return [ReportTable(header, rows), lateness_table(self)] if rows else []

    def remarks(self) -> list[str]:
        """What was left out and why, and the sums."""
        lost, summary = (
            self.losses,
            f"{self.compared:,} {plural(self.compared, 'value')} compared, {self.skewed:,} skewed",
        )
        notes = [f"{what} was not audited: {why}" for what, why in self.not_audited.items()]
        notes += self.reasons_to_stop(minimum_compared=0)
        if self.not_served or self.not_trained:
            spine = f"{self.not_served:,} {plural(self.not_served, 'row of the spine was', 'rows of the spine were')} not logged, {self.not_trained:,} logged {plural(self.not_trained, 'row is', 'rows are')} not in the spine"
            notes.append(spine)
        if not lost.offered:
            text = (
                "No lookup was offered to the log: [serving_log] in featurestore.toml says how many are kept, rate = 1.0 all; "
                "a script has to end with store.close(), or to open its store by `with`."
            )
            notes.append(text)
        notes.append(
            f"{summary}; of {lost.offered:,} {plural(lost.offered, 'request')} {lost.written:,} logged, {lost.dropped:,} dropped, {lost.lost:,} lost"
            + (f"; {len(self.damaged):,} damaged" if self.damaged else "")
        )
        return notes

    def to_html(self) -> str:
        """A page that a person can read, with plots, complete in itself; it needs the extra `featurestore[report]`."""
        from featurestore.reports.audit.page import page

        return page(self)


def check_minimum(minimum_compared: int) -> None:
    """RequestError where that is no number of values."""
    if type(minimum_compared) is not int or minimum_compared < 0:
        raise RequestError(f"minimum_compared is a number of values, 0 or more, and not {shown(minimum_compared)}")


def lateness_table(audit: Audit) -> ReportTable:
    """How late each view was."""
    header = ("service", "view", "rows", "stale", "by p50", "p99", "at most", "early")
    rows = [
        (
            audit.title(v),
            v.view,
            v.requests,
            v.stale,
            *(f"{us / 1e6:g} s" for us in (v.p50, v.p99, v.greatest)),
            v.early,
        )
        for v in audit.lateness
    ]
    return ReportTable(header, rows)
