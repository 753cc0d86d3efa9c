"""What a comparison of served values with a baseline says: distances by feature, and which are beyond their limits.

Drift is no skew. A value has drifted where the world gives other values than it did; it is skewed where serving and training
disagree about one and the same value. Drift is a matter of models, and is never a defect of the store; the audit has the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from featurestore.plurals import plural
from featurestore.report import Report, Reported, ReportTable, shown_instant
from featurestore.statistics.shapes import Shape

SHOWN = ("l_infinity", "jensen_shannon", "psi", "kolmogorov_smirnov", "wasserstein", "length", "norm")
"""The measures that the table shows, beside the shares of what is missing."""

SIGNIFICANT = 4
"""Digits of a distance in the table; `to_dict` has all."""


class Exceeded(NamedTuple):
    """A distance beyond what is allowed."""

    feature: str
    measure: str
    value: float
    limit: float


class UncheckedLimit(NamedTuple):
    """A limit that nothing could be held against, so that nobody knows whether it is kept."""

    feature: str
    measure: str
    limit: float
    why: str


@dataclass(frozen=True)
class PeriodDrift:
    """The values of one feature that were served within one period, against the same baseline."""

    start: datetime
    rows: int
    missing: float
    """The share of nulls among them."""
    distances: Mapping[str, float | None]
    """By measure; None where there is none, as without values."""
    shares: tuple[float, ...]
    """Which share of its values lies in each part of the feature's shape."""


@dataclass(frozen=True)
class FeatureDrift:
    """How far the served values of one feature are from the baseline's."""

    feature: str
    type: str
    baseline_rows: int
    served_rows: int
    baseline_missing: float | None
    """The share of nulls; None where there are no rows."""
    served_missing: float | None
    distances: Mapping[str, float | None]
    """By measure (see `featurestore.statistics.column_distances`); None where a side has no values of which there is one."""
    limits: Mapping[str, float]
    """Measure → what its service allows."""
    shape: Shape
    """Which share of the values of each side lies where."""
    periods: tuple[PeriodDrift, ...] = ()
    """One after the other, where they were asked for; periods in which nothing was served are left out."""

    @property
    def exceeded(self) -> list[Exceeded]:
        """The distances that are beyond their limits."""
        return [
            Exceeded(self.feature, measure, value, limit)
            for measure, limit in self.limits.items()
            if (value := self.distances.get(measure)) is not None and value > limit
        ]

    @property
    def unchecked(self) -> list[UncheckedLimit]:
        """The limits of distances that there are not, though a side has values. Of two sides without any, nothing has drifted."""
        sides = {"the baseline": self.shape.baseline, "what was served": self.shape.served}
        empty = [name for name, shares in sides.items() if not any(shares)]
        why = f"{empty[0]} has no values" if empty else "a side has no finite values"
        return [
            UncheckedLimit(self.feature, measure, limit, why)
            for measure, limit in self.limits.items()
            if self.distances.get(measure) is None and len(empty) < len(sides)
        ]


@dataclass(frozen=True)
class Drift(Reported):
    """What was served of one service version, against a baseline."""

    project: str
    service: str
    fingerprint: str
    baseline: str
    """What the served values are compared with, in words."""
    since: datetime
    """Requests from then on."""
    until: datetime
    """Requests before then."""
    features: tuple[FeatureDrift, ...]
    exceeded: tuple[Exceeded, ...]
    """Every distance that is beyond its limit."""
    damaged: Mapping[str, str]
    """Files of the log whose rows were left out → why."""
    not_compared: Mapping[str, str]
    """Features of the service that are left out → why."""
    compared_at: datetime
    unchecked: tuple[UncheckedLimit, ...] = ()
    """Every limit that could not be checked: of features that are left out, where a side has no values, and of measures that a
    feature's type has not."""

    def feature(self, name: str) -> FeatureDrift:
        """That of one column; KeyError where there is none of the name."""
        return {feature.feature: feature for feature in self.features}[name]

    def report(self) -> Report:
        """A line for each feature, those that are beyond a limit in sentences below."""
        about = (
            f"project {self.project}, requests from {shown_instant(self.since)} to {shown_instant(self.until)}, "
            f"against {self.baseline}"
        )
        title = f"Drift of {self.service}"
        return Report(title, (about, self._table(), *self._periods(), *self._remarks()))

    def _table(self) -> ReportTable:
        shown = [name for name in SHOWN if any(name in feature.distances for feature in self.features)]
        header = ("feature", "type", "rows", "served", "missing", "served missing", *(_short(name) for name in shown))
        rows = [
            (
                found.feature, found.type, found.baseline_rows, found.served_rows, _share(found.baseline_missing),
                _share(found.served_missing), *(_distance(found, name) for name in shown),
            )
            for found in self.features
        ]  # fmt: skip
        return ReportTable(header, rows)

    def _periods(self) -> list[Report]:
        found = []
        for feature in self.features:
            if feature.periods:
                shown = [name for name in SHOWN if name in feature.distances]
                header = ("from", "rows", "missing", *(_short(name) for name in shown))
                rows = [
                    (
                        shown_instant(of.start), of.rows, _share(of.missing),
                        *(_number(of.distances[name]) for name in shown),
                    )
                    for of in feature.periods
                ]  # fmt: skip
                found.append(Report(feature.feature, (ReportTable(header, rows),)))
        return found

    def _remarks(self) -> list[str]:
        notes = [f"{name} was not compared: {why}" for name, why in self.not_compared.items()]
        notes += [f"{path} is damaged: {why}" for path, why in self.damaged.items()]
        notes += [
            f"{of.feature} is over its limit: {of.measure} is {_number(of.value)}, where {_number(of.limit)} is allowed"
            for of in self.exceeded
        ]
        notes += [f"{of.feature}: its limit of {of.measure} was not checked: {of.why}" for of in self.unchecked]
        limited = sum(len(feature.limits) for feature in self.features)
        notes.append(
            f"{len(self.features):,} {plural(len(self.features), 'feature')} compared, {len(self.exceeded):,} of {limited:,} {plural(limited, 'limit')} exceeded. Drift is another "
            "thing than skew, of which `featurestore audit` tells"
        )
        return notes


def _short(measure: str) -> str:
    return measure.replace("_", " ")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.{SIGNIFICANT}g}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.{SIGNIFICANT - 2}%}"


def _distance(found: FeatureDrift, measure: str) -> str:
    """As a number, with a mark where it is beyond its limit; nothing where the type has no such measure."""
    if measure not in found.distances:
        return ""
    beyond = any(of.measure == measure for of in found.exceeded)
    return f"{_number(found.distances[measure])}{' !' if beyond else ''}"
