"""How Spark brings the rows of one key together for materialize: executors write the records, and no row comes to this process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from featurestore.engines.asked_frame import read_in_place
from featurestore.engines.record_tasks import (
    STORED,
    RecordTask,
    RunTask,
    StoredKeysTask,
    VanishedTask,
    total,
)
from featurestore.engines.spark.shuffle import Sharing, check_not_derived, mapped
from featurestore.engines.spark.spark_source import SourceReader, named, spark_type
from featurestore.engines.steps import Route, route_of
from featurestore.engines.tasks import COUNTS, IdentityTask, key_column
from featurestore.materialize.kernel import Written
from featurestore.materialize.lease import Lease, LeaseLostError
from featurestore.materialize.lease_renewer import LeaseRenewer
from featurestore.materialize.records import existing
from featurestore.materialize.run_plan import PlannedRun
from featurestore.online import OnlineStore
from featurestore.semantics.forgotten import ForgottenKeys
from featurestore.sources.offline import Offline


class RecordShuffle:
    """Writes the records of runs by Spark's executors. project, online: its name, and the URL of its online store."""

    def __init__(self, sharing: Sharing, offline: Offline, store: OnlineStore, *, project: str, online: str) -> None:
        self._sharing, self._offline, self._store = sharing, offline, store
        self._project, self._online = project, online

    def written(self, run: PlannedRun, lease: Lease) -> Iterator[Written]:
        """See `RunEngine`: by a run key, which is another one for each instant."""
        view, offline = run.view, self._offline
        route, forgotten = route_of(view, offline.raw_types(view.source)), offline.forgotten()
        try:
            rows = self._rows(run, route, forgotten)
            for marks in run.marks:
                task = RunTask(view, self._project, self._online, marks, lease.let_others(), run.changes)
                renewer = LeaseRenewer(lease, name=f"featurestore lease of {view.name}")
                try:
                    written = self._instant(rows, task, RecordTask(task, route, self._sharing.limits, forgotten))
                finally:
                    renewer.stop()
                if renewer.is_lost:
                    raise LeaseLostError(f"{view.declared.title}: another run has taken over")
                if run.changes is not None:  # a task that ran twice cannot tell which records are new
                    written = written._replace(records=len(existing(self._store, run.codec)) - (run.present or 0))
                yield written
        except Exception:
            offline.check_unchanged(view.source, run.files)  # which is why, where it is not
            lease.renew()  # the same
            raise
        offline.check_unchanged(view.source, run.files)

    def _rows(self, run: PlannedRun, route: Route, forgotten: ForgottenKeys | None) -> Any:
        """The rows of a run's files, those of one key in one partition, with their key."""
        from pyspark.sql import functions as f

        sharing, source = self._sharing, route.source
        new = None if run.changes is None else run.changes.new_files
        reader = SourceReader(sharing.session, self._offline, lambda source: read_in_place(source, run.files))
        rows = reader.read(route, new_files=new)
        names = [key_column(place) for place in range(len(route.keys))]
        if route.by_identity:
            check_not_derived(route)
            shuffled = rows.repartition(sharing.shuffle_partitions, *map(named, source.identity))
            spread = mapped(sharing.session, shuffled, IdentityTask(route, sharing.limits, forgotten))
            rows = spread.where(f.col(COUNTS).isNull()).drop(COUNTS)
        else:
            keys = [named(column).try_cast(spark_type(of)) for column, of in route.keys]
            rows = rows.select("*", *(key.alias(name) for key, name in zip(keys, names, strict=True)))
            rows = rows.dropna(subset=names)  # which replace nothing, and belong to no key
        return rows.repartition(sharing.shuffle_partitions, *names)

    def _instant(self, rows: Any, run: RunTask, task: RecordTask) -> Written:
        """Write the records of an instant: those of keys with rows, then those of keys that vanished."""
        from pyspark.sql import functions as f

        spark, count = self._sharing.session, self._sharing.shuffle_partitions
        told = mapped(spark, rows, task)
        if run.changes is None:
            stored = mapped(spark, spark.range(0, 1, 1, 1), StoredKeysTask(run))
            together = told.unionByName(stored).repartition(count, STORED)
            told = mapped(spark, together, VanishedTask(run))
        return total([row[0] for row in told.where(f.col(COUNTS).isNotNull()).select(COUNTS).collect()])
