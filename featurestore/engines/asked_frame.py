"""What an engine was asked for: a service for a spine, the files that are read for it, and what its frame says of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from featurestore.declare.sources import Source
from featurestore.durable.temporary import TemporaryFolder
from featurestore.engines.key_tasks import KeysTask
from featurestore.engines.steps import Step, steps_of
from featurestore.engines.task_statistics import TaskStatistics, gathered_of
from featurestore.engines.tasks import AnswerTask, FunctionTask, TaskLimits
from featurestore.errors import SourceError
from featurestore.lazy import pa
from featurestore.plurals import plural
from featurestore.project import Project
from featurestore.registry.frames import named_columns
from featurestore.semantics.columns import RawColumns
from featurestore.semantics.service import ResolvedService
from featurestore.semantics.source_columns import read_columns
from featurestore.sources.expected import row_expectations
from featurestore.sources.object_stores import put
from featurestore.sources.source_files import SourceFile
from featurestore.store import FeatureStore
from featurestore.training.historical import Listing, check_options, listing_of, manifest_of
from featurestore.training.kernel import (
    Counts,
    Options,
    check_expected,
    check_sources,
    event_time_name,
    source_counts,
    status_name,
)
from featurestore.training.pinned import asked_listing
from featurestore.training.snapshot import TIMESTAMP, AskedInstants, check_snapshot
from featurestore.training.training_frame import described_frame, enter, manifest_beside, write_manifest

SEND_BYTES = 16_000_000
"""Bytes of rows that go along with a task, by default; Spark Connect takes no task that is much larger than ten times that."""

Rows = TypeVar("Rows")


class RowMover(Protocol[Rows]):
    """What moves rows, wherever they lie: all that an engine must do. It makes no value, and says nothing of what one means."""

    def answered(self, rows: Rows, task: AnswerTask) -> Rows:
        """The rows of a spine with the features of the task's step. Those of one key, and the rows of that key in the sources of
        the step's routes, are brought into one partition, and there the task runs."""

    def evaluated(self, rows: Rows, task: FunctionTask) -> Rows:
        """The rows with the on-demand features, which need no other row."""

    def keyed(self, task: KeysTask, here: pa.Table) -> Rows:
        """The spine of a snapshot. Keys are found in the rows of the task's routes wherever these are read, equal ones, those that are
        `here` among them, are brought into one partition, and there the task makes the rows of the spine."""


@dataclass(frozen=True)
class AskedFrame:
    """A service that is asked for a spine. now: µs. listing: the files that are read, and no others. manifest: what the frame is
    made of, without what is counted."""

    project: Project
    service: ResolvedService
    options: Options
    now: int
    listing: Listing
    manifest: dict[str, Any]

    raw: dict[str, RawColumns]
    """By source its columns."""

    @classmethod
    def of(
        cls,
        store: FeatureStore,
        features: Any,
        options: Options,
        versions: Mapping[str, str],
        sources_as_in: Any = None,
    ) -> Self:
        """Resolve features, and list the files of their sources. versions: those of the engine, for the manifest. sources_as_in: the
        manifest whose files are read, or what holds one; None: those of now."""
        project = store._project
        service, now = store._frames.service(features), project.now()
        check_options(service, options)
        listing = asked_listing(service, project.offline, sources_as_in) or listing_of(service, project.offline)
        manifest = manifest_of(service, project.offline, listing, now=now, options=options)
        manifest["versions"] |= versions
        raw = {part.view.source.name: project.offline.raw_types(part.view.source) for part in service.parts}
        return cls(project, service, options, now, listing, manifest, raw)

    @classmethod
    def of_snapshot(
        cls, store: FeatureStore, features: Any, options: Options, versions: Mapping[str, str], instants: AskedInstants,
        sources_as_in: Any = None,
    ) -> Self:  # fmt: skip
        """The same of a snapshot. SpineError where the service has none."""
        asked = cls.of(store, features, options, versions, sources_as_in)
        check_snapshot(asked.service)
        asked.manifest["notices"] += instants.notices
        return asked

    @property
    def spine_columns(self) -> list[str]:
        """The columns of the spine of a snapshot."""
        return [*self.service.key_inputs, TIMESTAMP]

    def answer(
        self,
        engine: RowMover[Rows],
        rows: Rows,
        spine: Sequence[str],
        *,
        limits: TaskLimits,
        send_bytes: int,
        partitions: int,
    ) -> tuple[Rows, Counts]:
        """The rows of a spine, whose columns these are, with all features, and what this process counted itself. partitions: in how many
        the rows of a key are brought together."""
        statistics = TaskStatistics.of(named_columns(self.service), self.project.statistics, partitions)
        nothing = {part.name: 0 for part in self.service.parts}
        steps, counts = steps_of(self.service, self.raw), Counts(conflicts=nothing, past=nothing)
        with self.project.offline.session(files=self.listing) as session, session.reading():
            counts += check_sources(session, self.service, now=self.now)
        forgotten = self.project.offline.forgotten()
        for number, step in enumerate(steps):
            sent, counted = self._sent(step, send_bytes)
            counts += counted
            of = frozenset(part.name for route in step.routes for part in route.parts if not route.by_identity)
            rows = engine.answered(
                rows,
                AnswerTask(
                    step, sent, of, self.options, self.now, limits, forgotten, first=number == 0, statistics=statistics
                ),
            )
        check_expected(self.service, counts)  # of what goes along: nothing is begun where that refuses
        if len(steps) > 1 and self.service.on_demand:
            rows = engine.evaluated(rows, FunctionTask(self.service, tuple(spine), self.options, limits, statistics))
        return rows, counts

    def snapshot(self, engine: RowMover[Rows], at: Sequence[int], *, limits: TaskLimits) -> Rows:
        """The spine of a snapshot at these instants (µs): every key that any row of the files ever had at each of them."""
        steps = steps_of(self.service, self.raw)
        routes = tuple(route for step in steps for route in step.routes)
        task = KeysTask(self.service, routes, tuple(at), limits, self.project.offline.forgotten())
        sent = [part for step in steps for part in step.service.parts if part.view.source in step.sent]
        with self.project.offline.session(files=self.listing) as session, session.reading():
            here = task.found(sent, session)
        return engine.keyed(task, here)

    def _sent(self, step: Step, most: int) -> tuple[dict[str, pa.Table], Counts]:
        """The rows of a step's sources that go to every partition, and by part how many of them cannot count."""
        sent: dict[str, pa.Table] = {}
        counted = Counts()
        for source in step.sent:
            parts = [part for part in step.service.parts if part.view.source.name == source.name]
            columns = read_columns(source, [part.view for part in parts], self.raw[source.name])
            with self.project.offline.session(files=self.listing) as session, session.reading():
                table = session.rows(source, columns)
                counted += source_counts(session, parts)
            if table.nbytes > most:
                why = "its entity has no keys" if not parts[0].inputs else "executors cannot read it where it lies"
                raise SourceError(
                    f"{source.title} goes to every task, since {why}, and its rows take {table.nbytes:,} {plural(table.nbytes, 'byte')}, more than send_bytes="
                    f"{most:,}. Put them into Parquet files as a ParquetSource, or let more be sent ({source.origin})"
                )
            sent[source.name] = table
        return sent, counted

    def files(self, source: Source) -> tuple[SourceFile, ...]:
        """The files of a source that tasks read where they lie; SourceError where some of its rows are in copies of this process."""
        return read_in_place(source, self.listing[source.name])

    def columns(self, spine: Sequence[str]) -> list[str]:
        """The columns of the frame of a spine that has these, in order."""
        columns = [*spine, *(column.name for column in self.service.columns)]
        if self.options.with_status:
            columns += [status_name(column) for column in self.service.columns if column.part is not None]
        if self.options.with_event_time:
            columns += [event_time_name(part) for part in self.service.parts]
        return columns

    @property
    def may_refuse(self) -> bool:
        """Whether rows that tasks read may be such that there is to be no frame."""
        every = (one for part in self.service.parts for one in row_expectations(part.view))
        return any(one.said.otherwise == "refuse" for one in every)

    def counted(self, counts: Counts) -> dict[str, Any]:
        """The manifest of a frame that was written, with what was counted; FilesChangedError where a file that was read is not as it
        was listed, ExpectationError where rows are not what is expected of them: then what was written is not to be used."""
        for source in {part.view.source.name: part.view.source for part in self.service.parts}.values():
            self.project.offline.check_unchanged(source, self.listing[source.name])
        manifest = {**self.manifest, "notices": list(self.manifest["notices"])}
        check_expected(self.service, counts).enter(manifest)
        return manifest

    def enter(self, path: Path | str, manifest: dict[str, Any], counts: Counts) -> None:
        """Write the manifest beside a frame, which lies on this machine or at a URL, and enter that in the registry, with the statistics
        that tasks gathered."""
        if isinstance(path, str):
            here = TemporaryFolder()
            try:
                write_manifest(here.path / "frame", manifest)
                put(manifest_beside(path), manifest_beside(here.path / "frame"))
            finally:
                here.remove()
        else:
            write_manifest(path, manifest)
        keeper, now = self.project.statistics, self.project.now()
        gathered = gathered_of(counts.statistics, named_columns(self.service), keeper, rows=counts.rows)
        described = described_frame(path, self.service, gathered, keeper, now)
        enter(path, manifest, self.service, self.project.registry, now, lambda write: keeper.beside(write, described))


def read_in_place(source: Source, files: tuple[SourceFile, ...]) -> tuple[SourceFile, ...]:
    """Files that tasks read where they lie; SourceError where some of their rows are in copies of this process."""
    copies = [file.path for file in files if file.copy]
    if copies:
        raise SourceError(
            f"{source.title}: of {copies[0]} rows were deleted, and executors cannot read the copy that this process has of the "
            f"rest. Purge the deletions from the table ({source.origin})"
        )
    return files
