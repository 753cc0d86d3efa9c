"""Counts compared values by feature and hour, keeps examples, and says how late each view was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from featurestore.clock import instant_of, to_datetime
from featurestore.errors import FeatureStoreError
from featurestore.lazy import pa
from featurestore.online.source_state import LAG_US
from featurestore.reports.audit.bits import Bits
from featurestore.reports.audit.causes import REWRITTEN
from featurestore.reports.audit.logged import Logged
from featurestore.reports.audit.recompute import Ints
from featurestore.reports.audit.report import COUNTS, Difference, FeatureAudit, HourAudit, Lateness
from featurestore.reports.explain.explain import explain_as_of
from featurestore.semantics.service import ResolvedService, ServiceColumn, ServiceView
from featurestore.semantics.status import Status
from featurestore.semantics.values import scalars
from featurestore.semantics.view import ResolvedView
from featurestore.serving.served_rows import as_of_column
from featurestore.sources.offline import Offline
from featurestore.typed_json import typed, untyped

EXAMPLES_OF_EACH_CAUSE = 2
"""Differences of one feature and cause that a report shows."""

MOST_EXPLAINED = 20
"""Examples whose rows are shown, over the whole report: one of each view and cause, the first ones."""

HOUR_US = 3_600_000_000


@dataclass(frozen=True)
class Compared:
    """One column of logged rows, as it was served and as training says."""

    column: ServiceColumn
    part: ServiceView | None
    """The view that it is of; None of an on-demand feature."""
    served: pa.Array
    trained: pa.Array
    causes: npt.NDArray[np.object_]
    """Of each row; "" where there is no difference."""
    details: npt.NDArray[np.object_]
    """What is known of each cause."""
    statuses: tuple[npt.NDArray[np.str_], npt.NDArray[np.str_]] | None = None
    """As served, and in training; None of an on-demand feature."""

    @property
    def differs(self) -> Bits:
        """The rows with a cause."""
        differs: Bits = self.causes != ""
        return differs


class AuditCounts:
    """What was compared so far; counts of other rows can be added, those of later ones after those of earlier ones."""

    def __init__(self) -> None:
        self._features: dict[tuple[str, str, str], FeatureAudit] = {}
        self._hours: dict[tuple[str, str, str], dict[int, npt.NDArray[np.int64]]] = {}
        self._behind: dict[tuple[str, str, str], list[tuple[Ints, Ints]]] = {}
        self._lags: dict[tuple[str, str, str], int] = {}
        self._views: dict[tuple[str, str, str], ResolvedView] = {}

    def late(self, logged: Logged, part: ServiceView, as_of: Ints) -> None:
        """Count how far the as_of that were served lie behind those of rule 0."""
        key = (logged.version.name, logged.fingerprint, part.name)
        behind = part.view.timing.as_of(logged.times) - as_of
        self._behind.setdefault(key, []).append(np.unique(behind, return_counts=True))
        self._lags[key] = LAG_US if part.view.is_pushed else 0

    def add(self, logged: Logged, compared: Compared) -> None:
        """Count one column of logged rows."""
        key = (logged.version.name, logged.fingerprint, compared.column.name)
        told = self._features.setdefault(key, FeatureAudit(*key))
        hours = self._hours.setdefault(key, {})
        if compared.part is not None:
            self._views[key] = compared.part.view
        differs = compared.differs
        rewritten = np.isin(compared.causes, list(REWRITTEN))
        served, trained = (
            side.is_valid().to_numpy(zero_copy_only=False) for side in (compared.served, compared.trained)
        )
        flags = (np.ones(len(differs), np.bool_), ~differs, rewritten, differs & ~rewritten,
                 differs & trained & ~served, differs & served & ~trained)  # fmt: skip
        numbers, where = np.unique(logged.times // HOUR_US, return_inverse=True)
        counts = np.stack([np.bincount(where, weights=flag, minlength=len(numbers)) for flag in flags], 1)
        for number, row in zip(numbers.tolist(), counts.astype(np.int64), strict=True):
            hours[number] = hours.get(number, 0) + row
        for cause, count in Counter(compared.causes[differs].tolist()).items():
            told.causes[cause] = told.causes.get(cause, 0) + count
        shown = Counter(example.cause for example in told.examples)
        for row in np.flatnonzero(differs).tolist():
            cause = compared.causes[row]
            if shown[cause] < EXAMPLES_OF_EACH_CAUSE:
                shown[cause] += 1
                told.examples.append(self._example(logged, compared, row))

    def add_counts(self, other: AuditCounts) -> None:
        """Count what was compared of later rows too."""
        for key, told in other._features.items():
            mine = self._features.setdefault(key, FeatureAudit(*key))
            hours = self._hours.setdefault(key, {})
            for number, row in other._hours[key].items():
                hours[number] = hours.get(number, 0) + row
            for cause, count in told.causes.items():
                mine.causes[cause] = mine.causes.get(cause, 0) + count
            shown = Counter(example.cause for example in mine.examples)
            for example in told.examples:
                if shown[example.cause] < EXAMPLES_OF_EACH_CAUSE:
                    shown[example.cause] += 1
                    mine.examples.append(example)
        for key, behind in other._behind.items():
            self._behind.setdefault(key, []).extend(behind)
        self._lags |= other._lags
        self._views |= other._views

    def plain(self) -> dict[str, Any]:
        """These counts as plain JSON, before `features` was asked for; `of` reads it."""
        features = [
            {
                "key": key,
                "causes": told.causes,
                "examples": [typed(_fields(example)) for example in told.examples],
                "hours": [[number, row.tolist()] for number, row in self._hours[key].items()],
            }
            for key, told in self._features.items()
        ]
        behind = [
            {"key": key, "lag": self._lags[key], "counted": [[side.tolist() for side in pair] for pair in pairs]}
            for key, pairs in self._behind.items()
        ]
        return {"features": features, "behind": behind}

    @classmethod
    def of(cls, said: Mapping[str, Any], version: ResolvedService) -> Self:
        """What `plain` said of rows that were compared with a version."""
        counts = cls()
        views = {part.name: part.view for part in version.parts}
        parts = {column.name: column.part for column in version.columns}
        for one in said["features"]:
            service, fingerprint, name = key = tuple(one["key"])
            examples = [Difference(**untyped(example)) for example in one["examples"]]
            told = FeatureAudit(service, fingerprint, name, causes=one["causes"], examples=examples)
            counts._features[key] = told
            counts._hours[key] = {number: np.array(row, np.int64) for number, row in one["hours"]}
            part = parts[name]
            if part is not None:
                counts._views[key] = views[part]
        for one in said["behind"]:
            key = tuple(one["key"])
            counts._behind[key] = [(np.array(us, np.int64), np.array(of, np.int64)) for us, of in one["counted"]]
            counts._lags[key] = one["lag"]
        return counts

    def features(self, offline: Offline) -> tuple[FeatureAudit, ...]:
        """Every feature that was compared, in the order of services and columns, its first examples with the rows that make them."""
        self._explain(offline)
        for key, told in self._features.items():
            hours = sorted(self._hours[key].items())
            told.hours = [HourAudit(to_datetime(number * HOUR_US), **_named(counts)) for number, counts in hours]
            vars(told).update(_named(sum(counts for _, counts in hours)))
        return tuple(self._features.values())

    def lateness(self) -> tuple[Lateness, ...]:
        """How late each view of each service was."""
        return tuple(_lateness(*key, found, lag=self._lags[key]) for key, found in self._behind.items())

    def _example(self, logged: Logged, compared: Compared, row: int) -> Difference:
        rows, part = logged.rows, compared.part
        keys = logged.inputs
        names = logged.version.key_inputs if part is None else part.inputs
        key = {name: scalars(keys[name].slice(row, 1))[0] for name in names}
        present = Status.PRESENT.name
        statuses = (present, present) if compared.statuses is None else tuple(str(s[row]) for s in compared.statuses)
        served, trained = (scalars(side.slice(row, 1))[0] for side in (compared.served, compared.trained))
        as_of = None if part is None else rows[as_of_column(part)][row].as_py()
        cause, detail = compared.causes[row], compared.details[row]
        return Difference(
            rows["request"][row].as_py(), rows["row"][row].as_py(), rows["time"][row].as_py(), key, as_of, served, trained,
            (statuses[0], statuses[1]), cause, detail,
        )  # fmt: skip

    def _explain(self, offline: Offline) -> None:
        """Show the rows that make training's value, of one example of each view and cause."""
        explained: set[tuple[str, str]] = set()
        for key, view in self._views.items():
            for place, example in enumerate(self._features[key].examples):
                if (view.name, example.cause) in explained or len(explained) >= MOST_EXPLAINED:
                    continue
                explained.add((view.name, example.cause))
                own = {column.name: value for column, value in zip(view.keys, example.key.values(), strict=True)}
                assert example.as_of is not None
                with suppress(FeatureStoreError):  # a report without these rows is better than none
                    found = explain_as_of(view, offline, own, as_of=instant_of(example.as_of), limit=10)
                    self._features[key].examples[place] = replace(example, explanation=found)


def _fields(example: Difference) -> dict[str, Any]:
    """Of an example that nothing explains yet."""
    return {field.name: getattr(example, field.name) for field in fields(Difference) if field.name != "explanation"}


def _named(counts: Any) -> dict[str, int]:
    return dict(zip(COUNTS, counts.tolist(), strict=True))


def _lateness(
    service: str, fingerprint: str, view: str, counted: list[tuple[Ints, Ints]], *, lag: int
) -> Lateness:  # fmt: skip
    """counted: by how far rows lay behind, and how many did, piece by piece."""
    behind = np.concatenate([np.repeat(values, counts) for values, counts in counted])
    late = behind[behind > lag]
    p50, p99, greatest = (int(np.percentile(late, q, method="higher")) if len(late) else 0 for q in (50, 99, 100))
    return Lateness(service, fingerprint, view, len(behind), len(late), int((behind < 0).sum()), p50, p99, greatest)
