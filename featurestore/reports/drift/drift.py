"""The flow: serving log and baseline → the columns of one service version → distances by feature → limits."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from featurestore.clock import to_datetime
from featurestore.declare.durations import show_duration
from featurestore.errors import NotFoundError, RequestError, did_you_mean
from featurestore.lazy import pa
from featurestore.project import Project
from featurestore.reports.audit.logged import answered, chunks
from featurestore.reports.drift.baseline import Baseline
from featurestore.reports.drift.report import Drift, FeatureDrift, PeriodDrift, UncheckedLimit
from featurestore.semantics.service import ResolvedService, ServiceColumn
from featurestore.semantics.values import canonical_chunks
from featurestore.serving.served_rows import MAX_READINGS, feature_column
from featurestore.statistics.column_distances import distances_of, measures_of
from featurestore.statistics.shapes import Parts, Shape, parts_of
from featurestore.types import Timestamp

TIME = "\0time"
"""A column of the times of requests; no feature's name has a zero byte."""

MOST_PERIODS = 1_000
"""Periods into which a stretch may be cut."""


@dataclass(frozen=True)
class DriftAsked:
    """What to compare: requests of a service answered from `since` to before `until` (µs).

    baseline: the frame of training; None: what was served within `before` (µs) ahead of `since`. every: the length of the
    periods that are compared one by one beside the whole (µs); None: none are.
    """

    service: str
    since: int
    until: int
    baseline: Baseline | None
    before: int
    every: int | None = None


def drift(project: Project, asked: DriftAsked) -> Drift:
    """Compare what was logged with the baseline. Raises NotFoundError where no such service was applied, RequestError where
    one of the sides has no rows."""
    _check_periods(asked)
    version = _version(project, asked)
    damaged: dict[str, str] = {}
    served = _served(project, version, asked.since, asked.until, damaged)
    if not served.num_rows:
        raise _nothing(version, asked.since, asked.until)
    if asked.baseline is None:
        start = asked.since - asked.before
        before, words = (
            _served(project, version, start, asked.since, damaged),
            f"the {show_duration(asked.before)} before",
        )
        if not before.num_rows:
            raise _nothing(version, start, asked.since)
    else:
        before, words = asked.baseline.columns(version), asked.baseline.title
    features, left_out, unchecked = [], {}, []
    for column in version.columns:
        why = _why_not(column, before, served, words)
        if why is None:
            feature = _compared(column, before[column.name], served, asked, version)
            features.append(feature)
            unchecked += feature.unchecked
        else:
            left_out[column.name] = why
            limits = _limits(column, version).items()
            unchecked += [UncheckedLimit(column.name, measure, limit, why) for measure, limit in limits]
        unchecked += _of_no_measure(column, version)
    return Drift(
        project=project.config.project, service=version.name, fingerprint=version.fingerprint, baseline=words,
        since=to_datetime(asked.since), until=to_datetime(asked.until), features=tuple(features),
        exceeded=tuple(of for feature in features for of in feature.exceeded), damaged=damaged, not_compared=left_out,
        compared_at=to_datetime(project.now()), unchecked=tuple(unchecked),
    )  # fmt: skip


def _check_periods(asked: DriftAsked) -> None:
    if asked.since >= asked.until:
        raise RequestError("`until` is not after `since`, so that nothing lies between them")
    if asked.every is not None and not 0 < asked.every <= asked.until - asked.since <= asked.every * MOST_PERIODS:
        raise RequestError(
            f"every is {show_duration(asked.every)}, and must cut the {show_duration(asked.until - asked.since)} that are "
            f"compared into 1 to {MOST_PERIODS} periods"
        )


def _version(project: Project, asked: DriftAsked) -> ResolvedService:
    """The version of the service that the baseline is of, else the one that is applied."""
    if asked.baseline is not None and asked.baseline.fingerprint is not None:
        if asked.baseline.service != asked.service:
            raise RequestError(
                f"{asked.baseline.title} is of service '{asked.baseline.service}', and not of '{asked.service}'"
            )
        return project.service_version(asked.service, asked.baseline.fingerprint)
    applied = project.registry.current().document["services"]
    if asked.service not in applied:
        raise NotFoundError(f"No feature service '{asked.service}' is applied.{did_you_mean(asked.service, applied)}")
    return project.service_version(asked.service, applied[asked.service]["fingerprint"])


def _nothing(version: ResolvedService, since: int, until: int) -> RequestError:
    return RequestError(
        f"No lookup of service '{version.name}' ({version.fingerprint[:12]}) is logged from {to_datetime(since).isoformat()} to "
        f"{to_datetime(until).isoformat()}, so that there is nothing to compare. [serving_log] in featurestore.toml says "
        "which share is logged"
    )


def _served(project: Project, version: ResolvedService, since: int, until: int, damaged: dict[str, str]) -> pa.Table:
    """The service's columns as they were served, by their names, and the times under TIME; without what was answered while there
    was no store to ask."""
    for _ in range(MAX_READINGS - 1):
        with suppress(FileNotFoundError):  # the log's retention took a file that was listed
            return _read(project, version, since, until, damaged)
    return _read(project, version, since, until, damaged)


def _read(project: Project, version: ResolvedService, since: int, until: int, damaged: dict[str, str]) -> pa.Table:
    listed = project.serving_log.segments(service=version.name, since=since, until=until)
    names = {feature_column(column.name): column.name for column in version.columns}
    found = []
    files = listed.get((version.name, version.fingerprint), [])
    for rows, _ in chunks(files, since, until, damaged=partial(_note, damaged)):
        told = answered(rows)
        own = {*told.column_names}
        there = [name for name in names if name in own]
        found.append(told.select(["time", *there]).rename_columns([TIME, *(names[name] for name in there)]))
    return pa.concat_tables(found) if found else pa.table({TIME: pa.array([], Timestamp.arrow)})


def _note(damaged: dict[str, str], path: Path) -> None:
    damaged[str(path)] = "its bytes are not what was written, so that its rows are left out; restore it from a copy"


def _why_not(column: ServiceColumn, before: pa.Table, served: pa.Table, words: str) -> str | None:
    """Why a column cannot be compared; None where it can."""
    for table, where in ((before, words), (served, "the serving log")):
        if table.schema.get_field_index(column.name) < 0:
            return f"{where} has no such column"
        if table[column.name].type != column.type.arrow:
            return f"{where} has it as {table[column.name].type}, and it is {column.type}"
    return None


def _compared(
    column: ServiceColumn, before: Any, served: pa.Table, asked: DriftAsked, version: ResolvedService
) -> FeatureDrift:
    own = canonical_chunks(served[column.name], column.type)
    parts = parts_of(before, own, column.type)
    periods = () if asked.every is None else _periods(column, before, own, served[TIME], asked, parts)
    return FeatureDrift(
        feature=column.name, type=str(column.type), baseline_rows=len(before), served_rows=len(own),
        baseline_missing=_missing(before), served_missing=_missing(own),
        distances=distances_of(before, own, column.type), limits=_limits(column, version),
        shape=Shape(parts.labels, parts.shares(before), parts.shares(own)), periods=periods,
    )  # fmt: skip


def _limits(column: ServiceColumn, version: ResolvedService) -> Mapping[str, float]:
    """What the service allows: its limits for all features, as far as the type has the measures, and over these the feature's own."""
    said = version.declared.drift_limits
    own = said.get(column.name)
    everywhere = {name: limit for name, limit in said.items() if not isinstance(limit, Mapping)}
    known = measures_of(column.type)
    return {
        name: limit
        for name, limit in {**everywhere, **(own if isinstance(own, Mapping) else {})}.items()
        if name in known
    }


def _of_no_measure(column: ServiceColumn, version: ResolvedService) -> list[UncheckedLimit]:
    """The feature's own limits of measures that its type has not."""
    own, known = version.declared.drift_limits.get(column.name), measures_of(column.type)
    why = f"a {column.type} has the measures {', '.join(known)}"
    said = own.items() if isinstance(own, Mapping) else ()
    return [UncheckedLimit(column.name, measure, limit, why) for measure, limit in said if measure not in known]


def _periods(
    column: ServiceColumn, before: Any, own: Any, times: Any, asked: DriftAsked, parts: Parts
) -> tuple[PeriodDrift, ...]:
    assert asked.every is not None
    numbers = (times.cast(pa.int64()).to_numpy() - asked.since) // asked.every
    found = []
    for number in np.unique(numbers).tolist():
        part = own.filter(pa.array(numbers == number))
        found.append(
            PeriodDrift(
                to_datetime(asked.since + number * asked.every), len(part), part.null_count / len(part),
                distances_of(before, part, column.type), parts.shares(part),
            )
        )  # fmt: skip
    return tuple(found)


def _missing(column: Any) -> float | None:
    return column.null_count / len(column) if len(column) else None
