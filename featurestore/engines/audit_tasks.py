"""Audits: tasks that read some files of the serving log, ask the kernel about their rows, and compare, by the code of one machine.

No row goes anywhere: a task reads the files of sources where they lie, as one machine does for each piece of the log, and gives back
counts and some examples. What the journals say goes along with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol

from featurestore.declare.delta_source import DeltaSource
from featurestore.declare.push import PushSource
from featurestore.declare.sources import DataFrameSource, ParquetSource, Source
from featurestore.engines.tasks import TaskLimits, engine_of
from featurestore.errors import FeatureStoreError, FilesChangedError
from featurestore.lazy import pa
from featurestore.project import Project
from featurestore.reports.audit.audit import LoggedVersion, audit_files
from featurestore.reports.audit.audit_counts import AuditCounts
from featurestore.reports.audit.evidence import Ground, ViewEvidence, evidence_of
from featurestore.semantics.forgotten import ForgottenKeys
from featurestore.semantics.source_columns import read_columns
from featurestore.semantics.view import ResolvedView
from featurestore.sources.source_files import SourceFile, again
from featurestore.sources.sources import Told


class AuditOutcome(NamedTuple):
    """What a task found. damaged: files of the log → why. error: what ended it before all of its rows were compared."""

    counts: AuditCounts
    damaged: dict[str, str]
    error: FeatureStoreError | FileNotFoundError | None


@dataclass(frozen=True)
class AuditTask:
    """Compares what was served of a version. groups: the files of the log that are compared together, in their order. evidence: by view and
    fingerprint. files, told: of each source that is read where it lies. sent: the rows of the others."""

    logged: LoggedVersion
    groups: tuple[tuple[Path, ...], ...]
    evidence: Mapping[tuple[str, str], ViewEvidence]
    files: Mapping[str, tuple[SourceFile, ...]]
    told: Mapping[str, Told]
    sent: Mapping[str, pa.Table]
    limits: TaskLimits
    forgotten: ForgottenKeys | None

    def outcome(self, number: int) -> AuditOutcome:
        """What one of the groups says."""
        counts, damaged = AuditCounts(), dict[str, str]()
        with engine_of(self.limits, self.forgotten) as offline:
            offline.told = self.told
            ground = Ground(offline, self._of_view, self.files, self.sent)
            try:
                audit_files(ground, replace(self.logged, files=self.groups[number]), counts, damaged)
            except (FeatureStoreError, FileNotFoundError) as error:
                return AuditOutcome(counts, damaged, error)
        return AuditOutcome(counts, damaged, None)

    def _of_view(self, view: ResolvedView) -> ViewEvidence:
        return self.evidence[view.name, view.fingerprint]


class AuditMover(Protocol):
    """What runs audit tasks: all that an engine must do for an audit."""

    def outcomes(self, task: AuditTask) -> list[AuditOutcome]:
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

    def compared(self, logged: LoggedVersion, tally: AuditCounts, damaged: dict[str, str]) -> bool:
        """See `AuditEngine`: versions are left to this process some of whose rows tasks cannot read."""

        def found() -> list[AuditOutcome] | None:
            task = self._task(logged)
            outcomes = None if task is None else self.mover.outcomes(task)
            for outcome in outcomes or ():
                if isinstance(outcome.error, FilesChangedError):
                    raise outcome.error
            return outcomes

        outcomes = again(found)
        if outcomes is None:
            return False
        for outcome in outcomes:
            tally.add_counts(outcome.counts)
            damaged |= outcome.damaged
            if isinstance(outcome.error, FileNotFoundError) and all(file.exists() for file in logged.files):
                raise FeatureStoreError(
                    "a task found no file of the log where it is here; the folder of the serving log is to be there, under the same path, on "
                    f"every node: {outcome.error}"
                ) from outcome.error
            if outcome.error is not None:
                raise outcome.error
        return True

    def _task(self, logged: LoggedVersion) -> AuditTask | None:
        """The task of a version; None where it would lack rows."""
        evidence, views = {}, [part.view for part in logged.served.parts] if logged.served else []
        for view in (part.view for part in logged.version.parts):
            found = evidence_of(self.project, view)
            found = replace(found, others=tuple(found.others))
            evidence[view.name, view.fingerprint] = found
            views += [view, *found.others]
        files: dict[str, tuple[SourceFile, ...]] = {}
        told: dict[str, Told] = {}
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
                told[name] = self._told(source, files[name])
            elif isinstance(source, DataFrameSource) or (isinstance(source, PushSource) and source.history is None):
                sent[name] = self._rows(source, [view for view in views if view.source.name == name])
                if sent[name].nbytes > self.send_bytes:
                    return None
            else:
                return None
        return AuditTask(
            logged, _groups(logged.files, self.tasks), evidence, files, told, sent, self.limits, self.project.offline.forgotten()
        )  # fmt: skip

    def _told(self, source: ParquetSource | DeltaSource, files: tuple[SourceFile, ...]) -> Told:
        offline = self.project.offline
        instants = offline.instants(source, files) if source.arrives else [0] * len(files)
        with offline.session() as session:
            columns = offline.agreed_columns(session.connection, source, files)
        return Told(columns, dict(zip(files, instants, strict=True)))

    def _rows(self, source: Source, views: Sequence[ResolvedView]) -> pa.Table:
        offline = self.project.offline
        columns = read_columns(source, views, offline.raw_types(source))
        with offline.session() as session, session.reading():
            return session.rows(source, columns)


def _groups(files: Sequence[Path], count: int) -> tuple[tuple[Path, ...], ...]:
    """Files in so many groups at most, each of some that follow each other."""
    size = -(-len(files) // max(1, count))
    return tuple(tuple(files[first : first + size]) for first in range(0, len(files), size))
