"""The audit's flow: serving log → (key, as_of as served) → the as-of query → compare bits → causes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from featurestore.clock import to_datetime
from featurestore.declare.frames import table_of
from featurestore.errors import (
    FeatureStoreError,
    FingerprintError,
    LogDamagedError,
    NotFoundError,
    OnlineDamagedError,
    SpineError,
    did_you_mean,
)
from featurestore.lazy import pa
from featurestore.project import Project
from featurestore.reports.audit.audit_counts import AuditCounts, Compared
from featurestore.reports.audit.bits import Bits, same_bits
from featurestore.reports.audit.evidence import Ground
from featurestore.reports.audit.functions import compare_functions
from featurestore.reports.audit.logged import Logged, SpineOfRequests, answered, chunks
from featurestore.reports.audit.recompute import Ints, Recomputed, ask_keys
from featurestore.reports.audit.report import Audit
from featurestore.reports.audit.search import DifferingRows, Search
from featurestore.semantics.service import ResolvedService, ServiceColumn, ServiceView
from featurestore.semantics.status import Status
from featurestore.serving.log.serving_log import losses
from featurestore.sources.session import Session
from featurestore.sources.source_files import again


@dataclass(frozen=True)
class Audited:
    """What to audit: requests answered from `since` to before `until` (µs), of one service or of all.

    against: service → the fingerprint whose definitions training follows, where that is not the one that was served.
    spine: a frame of what training was asked for; see SpineOfRequests.
    """

    since: int | None = None
    until: int | None = None
    service: str | None = None
    against: Mapping[str, str] = field(default_factory=dict)
    spine: Any = None


def _table_of_spine(frame: Any) -> pa.Table:
    try:
        return table_of(frame)
    except (TypeError, ValueError) as error:
        raise SpineError(f"The spine cannot be read: {error}") from None


@dataclass(frozen=True)
class LoggedVersion:
    """A service version that was logged, as it is audited. files: those of the log, oldest first. since, until: see Audited."""

    version: ResolvedService
    """What it is compared with."""
    served: ResolvedService | None
    """The version that answered, where it is another one."""
    files: tuple[Path, ...]
    since: int | None
    until: int | None


class AuditEngine(Protocol):
    """Where logged rows are compared that are not compared in this process."""

    def compared(
        self, logged: LoggedVersion, counts: AuditCounts, damaged: dict[str, str], spine: SpineOfRequests | None
    ) -> bool:
        """Count what was served of a version, and files that are damaged, as `audit_files` does; False where that is for this process."""


def audit(project: Project, what: Audited, engine: AuditEngine | None = None) -> Audit:
    """Compare what was served with training. Raises SpineError where a spine does not name requests, NotFoundError where no
    service was ever called so. engine: compares what it can; None: this process compares everything."""
    folder = project.serving_log.folder
    spine = None if what.spine is None else SpineOfRequests(_table_of_spine(what.spine))
    counts, left_out, budgets = AuditCounts(), {}, {}
    damaged: dict[str, str] = {}
    if what.service is not None:
        known = {name for version in project.registry.history() for name in version.document["services"]}
        if what.service not in known | {path.name for path in folder.glob("*/")}:
            raise NotFoundError(f"No feature service '{what.service}' was applied.{did_you_mean(what.service, known)}")
    listed = project.serving_log.segments(service=what.service, since=what.since, until=what.until)
    for (name, fingerprint), files in listed.items():
        title = f"{name} {fingerprint}"
        try:
            version = project.served_service(name, what.against.get(name, fingerprint))
            served = None if version.fingerprint == fingerprint else project.service_version(name, fingerprint)
            budgets[name] = version.declared.skew_budget
            logged = LoggedVersion(version, served, tuple(files), what.since, what.until)
            if engine is None or not engine.compared(logged, counts, damaged, spine):
                audit_files(Ground.of(project), logged, counts, damaged, spine)
        except SpineError:
            raise
        except FileNotFoundError:  # by the log's retention; what was read of the version is counted
            left_out[title] = "a file of its log was deleted while it was read; audit again"
            continue
        except (LogDamagedError, OnlineDamagedError) as error:
            damaged[title] = str(error)
            continue
        except FeatureStoreError as error:  # the rest can be audited all the same
            left_out[title] = _refused(error)
            continue
        if served is not None:
            left_out |= _lacking(title, version.declared.columns, served.declared.columns)
    unmatched = (0, 0) if spine is None else (spine.not_served, spine.not_trained)
    since, until = (None if us is None else to_datetime(us) for us in (what.since, what.until))
    return Audit(
        counts.features(project.offline), counts.lateness(), losses(folder), left_out, budgets, *unmatched, damaged=damaged,
        project=project.config.project, since=since, until=until, audited_at=to_datetime(project.now()),
    )  # fmt: skip


def audit_files(
    ground: Ground, logged: LoggedVersion, counts: AuditCounts, damaged: dict[str, str],
    spine: SpineOfRequests | None = None,
) -> None:  # fmt: skip
    """Count what was served of a version, chunk by chunk. damaged: gets the files that are not what was written, which are left out."""
    for rows, libraries in chunks(logged.files, logged.since, logged.until, damaged=partial(_note, damaged)):
        told = answered(rows)
        matched = (told, None) if spine is None else spine.match(told, logged.version)
        _audit_rows(ground, Logged(logged.version, logged.served, matched[0], matched[1], libraries), counts)


def _refused(error: FeatureStoreError) -> str:
    """Why a version is left out; where only code is another, that its views' values are left out too."""
    if not isinstance(error, FingerprintError) or not any(name.startswith("on_demand.") for name, *_ in error.changes):
        return str(error)
    whole = f"no value of it was compared, those of its views neither: {error}"
    return f"{whole}; or audit where the code is that served it, or against= a version that is at hand"


def _note(damaged: dict[str, str], path: Path) -> None:
    damaged[str(path)] = "its bytes are not what was written, so that its rows were not audited; restore it from a copy"


def _lacking(title: str, wanted: tuple[str, ...], served: tuple[str, ...]) -> dict[str, str]:
    """The features that only one of two versions has."""
    missing = {f"{title} {name}": "it was not served" for name in wanted if name not in served}
    return missing | {f"{title} {name}": "training has no such feature" for name in served if name not in wanted}


def _audit_rows(ground: Ground, logged: Logged, counts: AuditCounts) -> None:
    if not logged.rows.num_rows:
        return
    if logged.lacking:
        raise NotFoundError(f"the log has no '{logged.lacking[0]}', which the version that it is compared with takes")
    for part in logged.version.parts:
        as_of = logged.as_of(part)
        if as_of is not None:
            counts.late(logged, part, as_of)
    compared = compared_with_training(ground, logged)
    for column in logged.version.columns:
        if column.name in compared:
            counts.add(logged, compared[column.name])


def compared_with_training(ground: Ground, logged: Logged) -> dict[str, Compared]:
    """By column what was served of logged rows and what training says, and why they differ where they do."""
    trained, compared = again(lambda: _asked(ground, logged))
    return compared | compare_functions(logged, trained, compared)


def _asked(ground: Ground, logged: Logged) -> tuple[dict[str, pa.Array], dict[str, Compared]]:
    """What training says of logged rows, and how that compares; of one state of the sources' files."""
    trained: dict[str, pa.Array] = {}
    compared: dict[str, Compared] = {}
    with ground.session() as session, session.reading():
        for part in logged.version.parts:
            as_of = logged.as_of(part)
            if as_of is not None:
                said = ask_keys(session, part, logged.inputs, as_of, inputs=logged.version.inputs)
                trained |= said.columns
                compared |= _compare(ground, session, logged, (part, as_of, said))
    return trained, compared


def _compare(
    ground: Ground, session: Session, logged: Logged, asked: tuple[ServiceView, Ints, Recomputed]
) -> dict[str, Compared]:
    """A part's columns: where value or status differ, and why. What was withheld is no value."""
    part, as_of, trained = asked
    columns, served = logged.of_part(part)
    differs = {column.name: _differs(column, served, trained) for column in columns}
    causes = {name: np.full(len(as_of), "", object) for name in differs}
    details = {name: np.full(len(as_of), "", object) for name in differs}
    rows = np.flatnonzero(np.logical_or.reduce(list(differs.values()))) if differs else np.empty(0, np.int64)
    if len(rows):
        index = pa.array(rows)
        own = {other.name: other for other in (logged.served.parts if logged.served else ())}
        question = DifferingRows(
            part, logged.version.inputs, logged.brought.take(index), logged.times[rows], as_of[rows],
            served.at(rows), trained.at(rows), {name: where[rows] for name, where in differs.items()},
            None if logged.asked is None else logged.asked.take(index), own.get(part.name),
        )  # fmt: skip
        found = Search(ground, session, question)
        found.run()
        for name in differs:
            causes[name][rows], details[name][rows] = found.causes[name], found.details[name]
    return {
        column.name: Compared(
            column, part, served.columns[column.name], trained.columns[column.name], causes[column.name],
            details[column.name], (served.statuses[column.name], trained.statuses[column.name]),
        )
        for column in columns
    }  # fmt: skip


def _differs(column: ServiceColumn, served: Recomputed, trained: Recomputed) -> Bits:
    own, status = served.columns[column.name], served.statuses[column.name]
    if own.type != column.type.arrow:
        return np.ones(len(own), np.bool_)
    same = same_bits(own, trained.columns[column.name], column.type) & (status == trained.statuses[column.name])
    differs: Bits = ~same & (status != Status.WITHHELD.name)
    return differs
