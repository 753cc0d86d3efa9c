"""Audits: tasks that read some files of the serving log, ask the kernel about their rows, and compare, by the code of one machine.

No row goes anywhere: a task reads the files of sources where they lie, as one machine does for each piece of the log, and gives back
counts and some examples. What the journals say goes along with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from featurestore.declare.delta_source import DeltaSource
from featurestore.declare.push import PushSource
from featurestore.declare.sources import DataFrameSource, ParquetSource, Source
from featurestore.engines.audit_outcome import AuditOutcome
from featurestore.engines.tasks import TaskLimits, engine_of
from featurestore.errors import FeatureStoreError, FilesChangedError
from featurestore.lazy import pa, pq
from featurestore.project import Project
from featurestore.reports.audit.audit import LoggedVersion, audit_files
from featurestore.reports.audit.audit_counts import AuditCounts
from featurestore.reports.audit.evidence import Ground, ViewEvidence, evidence_of
from featurestore.reports.audit.logged import CHUNK_ROWS, SpineOfRequests
from featurestore.semantics.forgotten import ForgottenKeys
from featurestore.semantics.source_columns import read_columns
from featurestore.semantics.view import ResolvedView
from featurestore.sources.source_files import SourceFile, again
from featurestore.sources.sources import SourceFacts


@dataclass(frozen=True)
class AuditTask:
    """Compares what was served of a version. groups: the files of the log that are compared together, in their order. evidence: by view and
    fingerprint. files, facts: of each source that is read where it lies. sent: the rows of the others. spine: see SpineOfRequests."""

    logged: LoggedVersion
    groups: tuple[tuple[Path, ...], ...]
    evidence: Mapping[tuple[str, str], ViewEvidence]
    files: Mapping[str, tuple[SourceFile, ...]]
    facts: Mapping[str, SourceFacts]
    sent: Mapping[str, pa.Table]
    limits: TaskLimits
    forgotten: ForgottenKeys | None
    spine: pa.Table | None

    def outcome(self, number: int) -> bytes:
        """What one of the groups says, as `AuditOutcome.of_bytes` reads it."""
        counts, damaged = AuditCounts(), dict[str, str]()
        spine = None if self.spine is None else SpineOfRequests(self.spine)
        failed: FeatureStoreError | FileNotFoundError | None = None
        with engine_of(self.limits, self.forgotten) as offline:
            offline.facts = self.facts
            ground = Ground(offline, self._of_view, self.files, self.sent)
            try:
                audit_files(ground, replace(self.logged, files=self.groups[number]), counts, damaged, spine)
            except (FeatureStoreError, FileNotFoundError) as error:
                failed = error
        matched = ([], 0) if spine is None else (spine.matched, spine.not_trained)
        return AuditOutcome(counts, damaged, failed, *matched).to_bytes()

    def _of_view(self, view: ResolvedView) -> ViewEvidence:
        return self.evidence[view.name, view.fingerprint]


class AuditMover(Protocol):
    """What runs audit tasks: all that an engine must do for an audit."""

    def outcomes(self, task: AuditTask) -> list[bytes]:
        """What each group of the task says, in their order."""


@dataclass(frozen=True)
class EngineAudit:
    """Compares logged rows by an engine; an `AuditEngine`. tasks: so many at most. send_bytes: how large the rows of a source may be that
    go along."""

    project: Project
    mover: AuditMover
    limits: TaskLimits
    tasks: int
    send_bytes: int

    def compared(
        self, logged: LoggedVersion, counts: AuditCounts, damaged: dict[str, str], spine: SpineOfRequests | None
    ) -> bool:
        """See `AuditEngine`: versions are left to this process some of whose rows tasks cannot read, and all where the spine is more than
        goes along."""
        if spine is not None and spine.table.nbytes > self.send_bytes:
            return False

        def found() -> list[AuditOutcome] | None:
            task = self._task(logged, None if spine is None else spine.table)
            if task is None:
                return None
            outcomes = [AuditOutcome.of_bytes(said, logged.version) for said in self.mover.outcomes(task)]
            for outcome in outcomes:
                if isinstance(outcome.error, FilesChangedError):
                    raise outcome.error
            return outcomes

        outcomes = again(found)
        if outcomes is None:
            return False
        for outcome in outcomes:
            counts.add_counts(outcome.counts)
            damaged |= outcome.damaged
            if spine is not None:
                spine.add(outcome.matched, outcome.not_trained)
            if isinstance(outcome.error, FileNotFoundError) and all(file.exists() for file in logged.files):
                raise FeatureStoreError(
                    "a task found no file of the log where it is here; the folder of the serving log is to be there, under the same path, on "
                    f"every node: {outcome.error}"
                ) from outcome.error
            if outcome.error is not None:
                raise outcome.error
        return True

    def _task(self, logged: LoggedVersion, spine: pa.Table | None) -> AuditTask | None:
        """The task of a version; None where it would lack rows."""
        evidence, views = {}, [part.view for part in logged.served.parts] if logged.served else []
        for view in (part.view for part in logged.version.parts):
            found = evidence_of(self.project, view)
            found = replace(found, others=tuple(found.others))
            evidence[view.name, view.fingerprint] = found
            views += [view, *found.others]
        files: dict[str, tuple[SourceFile, ...]] = {}
        facts: dict[str, SourceFacts] = {}
        sent: dict[str, pa.Table] = {}
        sources: dict[str, Source] = {}
        for source in (view.source for view in views):
            if sources.setdefault(source.name, source) != source:
                return None  # of a name there are rows once
        for name, source in sources.items():
            if isinstance(source, (ParquetSource, DeltaSource)):
                files[name] = self.project.offline.files(source)
                if any(file.copy for file in files[name]):
                    return None
                facts[name] = self._facts(source, files[name])
            elif isinstance(source, DataFrameSource) or (isinstance(source, PushSource) and source.history is None):
                sent[name] = self._rows(source, [view for view in views if view.source.name == name])
                if sent[name].nbytes > self.send_bytes:
                    return None
            else:
                return None
        return AuditTask(
            logged, groups_of(logged.files, self.tasks), evidence, files, facts, sent, self.limits, self.project.offline.forgotten(), spine
        )  # fmt: skip

    def _facts(self, source: ParquetSource | DeltaSource, files: tuple[SourceFile, ...]) -> SourceFacts:
        with self.project.offline.session() as session:
            return self.project.offline.facts_of(session.connection, source, files)

    def _rows(self, source: Source, views: Sequence[ResolvedView]) -> pa.Table:
        offline = self.project.offline
        columns = read_columns(source, views, offline.raw_types(source))
        with offline.session() as session, session.reading():
            return session.rows(source, columns)


def groups_of(files: Sequence[Path], most: int) -> tuple[tuple[Path, ...], ...]:
    """Files in so many groups at most, each of some that follow each other. A group has about as many rows as are compared at once, or
    more: a task that compares fewer reads the sources for them all the same."""
    rows = np.array([_rows_of(file) for file in files], np.int64)
    count = int(np.clip(-(-rows.sum() // CHUNK_ROWS), 1, max(1, most)))
    middles = np.cumsum(rows) - rows / 2
    numbers = np.minimum(middles * count // max(1, rows.sum()), count - 1).astype(np.int64)
    groups = (tuple(file for file, of in zip(files, numbers, strict=True) if of == number) for number in range(count))
    return tuple(filter(None, groups))


def _rows_of(file: Path) -> int:
    """The rows of a file of the log; none of one that is gone, or damaged, of which its reader says so."""
    try:
        return int(pq.read_metadata(file).num_rows)
    except (OSError, pa.ArrowException):
        return 0
