"""How Spark brings the rows of one key together for materialize: executors write the records, and no row comes to this process."""

from __future__ import annotations

from typing import Any

from featurestore.engines.asked_frame import read_in_place
from featurestore.engines.record_tasks import STORED, Recorded, RecordTask, StoredKeysTask, VanishedTask, total
from featurestore.engines.spark.shuffle import Sharing, check_not_derived, mapped
from featurestore.engines.spark.spark_source import SourceReader, named, spark_type
from featurestore.engines.steps import Route
from featurestore.engines.tasks import COUNTS, IdentityTask, key_column
from featurestore.materialize.run_plan import PlannedRun
from featurestore.sources.offline import Offline


class RecordShuffle:
    """Writes records by Spark's executors: the `RecordMover` that Spark is."""

    def __init__(self, sharing: Sharing, offline: Offline) -> None:
        self._sharing, self._offline = sharing, offline

    def by_key(self, run: PlannedRun, route: Route, spread: IdentityTask) -> Any:
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
            rows = mapped(sharing.session, shuffled, spread).where(f.col(COUNTS).isNull()).drop(COUNTS)
        else:
            keys = [named(column).try_cast(spark_type(of)) for column, of in route.keys]
            rows = rows.select("*", *(key.alias(name) for key, name in zip(keys, names, strict=True)))
            rows = rows.dropna(subset=names)  # which replace nothing, and belong to no key
        return rows.repartition(sharing.shuffle_partitions, *names)

    def recorded(self, rows: Any, task: RecordTask) -> Recorded:
        """Write the records of an instant: those of keys with rows, then those of keys that vanished."""
        from pyspark.sql import functions as f

        spark, count, run = self._sharing.session, self._sharing.shuffle_partitions, task.run
        told = mapped(spark, rows, task)
        if run.changes is None:
            stored = mapped(spark, spark.range(0, 1, 1, 1), StoredKeysTask(run))
            together = told.unionByName(stored).repartition(count, STORED)
            told = mapped(spark, together, VanishedTask(run))
        return total([row[0] for row in told.where(f.col(COUNTS).isNotNull()).select(COUNTS).collect()])
