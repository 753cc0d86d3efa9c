"""An engine that moves rows within this process: all that the contract asks, in the fewest lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from featurestore import FeatureStore
from featurestore.engines.asked_frame import SEND_BYTES, AskedFrame
from featurestore.engines.audit_tasks import AuditTask, EngineAudit
from featurestore.engines.buckets import (
    buckets_of_keys,
    buckets_of_source,
    buckets_of_spine,
    buckets_of_spread,
    buckets_of_stored,
)
from featurestore.engines.file_parts import buckets_of_file, files_with_facts
from featurestore.engines.key_tasks import KeysTask
from featurestore.engines.record_run import EngineRuns, materialize_by
from featurestore.engines.record_tasks import NEW_FILE, Recorded, RecordTask, StoredKeysTask, VanishedTask, total
from featurestore.engines.steps import Route
from featurestore.engines.tasks import (
    COUNTS,
    AnswerTask,
    FunctionTask,
    IdentityTask,
    TaskLimits,
    batches_of_table,
    engine_of,
)
from featurestore.materialize.materialize import Run
from featurestore.materialize.run_plan import PlannedRun
from featurestore.reports.audit import Audit
from featurestore.sources.offline import Offline
from featurestore.training.kernel import Counts, Options
from featurestore.training.snapshot import AskedInstants


class Rows(NamedTuple):
    """Rows in so many tables, and what was counted of them."""

    tables: list[pa.Table]
    counts: Counts = Counts()


class HereEngine:
    """Brings the rows of one key together in lists of tables."""

    def __init__(self, asked: AskedFrame, partitions: int) -> None:
        self._asked, self._partitions = asked, partitions

    def answered(self, rows: Rows, task: AnswerTask) -> Rows:
        """Split the spine and each source by key, and answer bucket by bucket."""
        if not task.step.routes:
            return self._ask(task, [[table] for table in rows.tables], rows.counts)
        counts, count = rows.counts, self._partitions
        with engine_of(task.limits, task.forgotten) as offline:
            split = [[buckets_of_spine(table, task, count, offline) for table in rows.tables]]
            for route in task.step.routes:
                pieces = [buckets_of_source(part, route, count, offline) for part in self._read(route)]
                if route.by_identity:
                    spread = [
                        IdentityTask(route, task.limits, task.forgotten).spread(joined(pieces, bucket))
                        for bucket in range(count)
                    ]
                    pieces = [buckets_of_spread(found, route, count, offline) for found, _ in spread]
                    counts = sum((own for _, own in spread), counts)
                split.append(pieces)
        return self._ask(task, [[joined(pieces, bucket) for pieces in split] for bucket in range(count)], counts)

    def evaluated(self, rows: Rows, task: FunctionTask) -> Rows:
        """Table by table."""
        with engine_of(task.limits, None) as offline:
            tables = [task.evaluated(table, offline) for table in rows.tables]
        return Rows(tables, sum(map(task.counted, tables), rows.counts))

    def keyed(self, task: KeysTask, here: pa.Table) -> Rows:
        """Find keys in half of a source's rows at a time, and make the spine bucket by bucket."""
        count, found = self._partitions, [here]
        with engine_of(task.limits, task.forgotten) as offline:
            for route in task.routes:
                for part in self._read(route):
                    with offline.session(rows={route.source.name: part}) as session:
                        found.append(task.found(route.parts, session))
            split = [buckets_of_keys(keys, count, offline) for keys in found]
        return Rows([task.spine(joined(split, bucket)) for bucket in range(count)])

    def _read(self, route: Route) -> list[pa.Table]:
        with self._asked.project.offline.session(files=self._asked.listing) as session:
            table = session.rows(route.source, route.columns)
        return [table.slice(0, len(table) // 2), table.slice(len(table) // 2)]

    def _ask(self, task: AnswerTask, parts: list[list[pa.Table]], counts: Counts) -> Rows:
        answered = [found for spine, *rows in parts for found in task.answered(spine, rows)]
        return Rows([table for table, _ in answered], sum((own for _, own in answered), counts))


class HereRecords:
    """Writes records of runs in this process, partition by partition."""

    def __init__(self, offline: Offline, partitions: int = 3) -> None:
        self._offline, self._partitions = offline, partitions

    def by_key(self, run: PlannedRun, route: Route, spread: IdentityTask) -> list[pa.Table]:
        """A table of each bucket."""
        count, new = self._partitions, None if run.changes is None else run.changes.new_files
        pieces = []
        for number, part in enumerate(files_with_facts(self._offline, route, run.files)):
            tables = buckets_of_file(route, count, part, spread.limits, spread.forgotten)
            for bucket, table in enumerate(tables if new is not None else ()):
                tables[bucket] = table.append_column(NEW_FILE, pa.array([number in new] * len(table), pa.bool_()))
            pieces.append(tables)
        if route.by_identity:
            with engine_of(spread.limits, None) as offline:
                found = [spread.spread(joined(pieces, bucket))[0] for bucket in range(count)]
                pieces = [buckets_of_spread(table, route, count, offline, keep_keys=True) for table in found]
        return [joined(pieces, bucket) for bucket in range(count)]

    def recorded(self, rows: list[pa.Table], task: RecordTask) -> Recorded:
        """Write bucket by bucket; those that vanished, in two buckets more."""
        told = [pa.Table.from_batches(task(iter(batches_of_table(table)))) for table in rows]
        if task.run.changes is None:
            told.append(
                pa.Table.from_batches(StoredKeysTask(task.run)(iter([pa.RecordBatch.from_pylist([{"id": 0}])])))
            )
            with engine_of(task.limits, None) as offline:
                split = [buckets_of_stored(table, 2, offline) for table in told]
            vanished = VanishedTask(task.run)
            told = [pa.Table.from_batches(vanished(iter(batches_of_table(joined(split, bucket))))) for bucket in (0, 1)]
        return total(pa.concat_tables(told)[COUNTS].drop_null().to_pylist())


class HereAudits:
    """Runs audit tasks in this process."""

    def outcomes(self, task: AuditTask) -> list[bytes]:
        return [task.outcome(number) for number in range(len(task.groups))]


class HereVerbs(NamedTuple):
    """The verbs, as engines have them."""

    store: FeatureStore

    def audit(self, *, keep: bool = True, send_bytes: int = SEND_BYTES, **words: Any) -> Audit:
        said = {**dict.fromkeys(("since", "until", "service", "against", "spine")), **words}
        engine = EngineAudit(self.store._project, HereAudits(), TaskLimits(), 3, send_bytes)
        return self.store._audit(**said, keep=keep, engine=engine)

    def materialize(
        self, views: list[str] | None = None, *, full: bool = False, progress: bool = True
    ) -> list[Run]:  # fmt: skip
        project = self.store._project
        runs = EngineRuns(project, HereRecords(project.offline), TaskLimits(), 3)
        return materialize_by(self.store, runs, views, full=full, progress=progress, who="this process")


def joined(pieces: list[list[pa.Table]], bucket: int) -> pa.Table:
    return pa.concat_tables([piece[bucket] for piece in pieces])


def answered_here(
    store: FeatureStore, spine: pa.Table, features: Any, folder: Path, *, partitions: int = 3,
    send_bytes: int = SEND_BYTES, memory_limit: str = "1GB", sources_as_in: Any = None, **asked: Any,
) -> dict[str, Any]:  # fmt: skip
    """The frame of a spine, written to a folder; its manifest."""
    question = AskedFrame.of(store, features, Options(**asked), {}, sources_as_in)
    half, limits = len(spine) // 2, TaskLimits(memory_limit=memory_limit)
    rows = Rows([spine.slice(0, half), spine.slice(half)])
    engine = HereEngine(question, partitions)
    answered = question.answer(
        engine, rows, spine.column_names, limits=limits, send_bytes=send_bytes, partitions=partitions
    )
    return written(question, *answered, spine.column_names, folder)


def rows_here(store: FeatureStore, spine: pa.Table, features: Any) -> list[pa.Table]:
    """The frame of a spine."""
    question = AskedFrame.of(store, features, Options(), {})
    engine, rows = HereEngine(question, 3), Rows([spine])
    found, counts = question.answer(
        engine, rows, spine.column_names, limits=TaskLimits(), send_bytes=SEND_BYTES, partitions=3
    )
    question.counted(counts + found.counts)
    return found.tables


def snapshot_here(
    store: FeatureStore, features: Any, at: Any, folder: Path, *, partitions: int = 3, sources_as_in: Any = None,
    **asked: Any,
) -> dict[str, Any]:  # fmt: skip
    """A snapshot, written to a folder; its manifest."""
    instants = AskedInstants.of(at)
    question = AskedFrame.of_snapshot(store, features, Options(**asked), {}, instants, sources_as_in)
    engine, limits, spine = HereEngine(question, partitions), TaskLimits(), question.spine_columns
    keys = question.snapshot(engine, instants.at, limits=limits)
    answered = question.answer(engine, keys, spine, limits=limits, send_bytes=SEND_BYTES, partitions=partitions)
    return written(question, *answered, spine, folder)


def written(question: AskedFrame, rows: Rows, counts: Counts, spine: list[str], folder: Path) -> dict[str, Any]:
    folder.mkdir()
    for number, table in enumerate(rows.tables):
        pq.write_table(table.select(question.columns(spine)), folder / f"{number}.parquet")
    manifest = question.counted(counts + rows.counts)
    question.enter(folder, manifest, counts + rows.counts)
    return manifest
