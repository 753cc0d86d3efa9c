"""What a user has of Spark: a project's verbs, answered by a session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from featurestore.declare.arguments import checked
from featurestore.declare.problems import shown
from featurestore.engines.asked_frame import SEND_BYTES, AskedFrame
from featurestore.engines.audit_tasks import EngineAudit
from featurestore.engines.record_run import EngineRuns, materialize_by
from featurestore.engines.spark.audit_spread import AuditSpread
from featurestore.engines.spark.record_shuffle import RecordShuffle
from featurestore.engines.spark.shuffle import KeyShuffle, Sharing, without_counts
from featurestore.engines.spark.spark_frame import SparkFrame
from featurestore.engines.spark.spark_source import spark_place
from featurestore.engines.tasks import COUNTS, TaskLimits
from featurestore.errors import ConfigError, SpineError
from featurestore.materialize.materialize import Run
from featurestore.reports.audit import Audit
from featurestore.store import FeatureStore
from featurestore.training.kernel import Options
from featurestore.training.manifest import Manifest
from featurestore.training.snapshot import AskedInstants


class SparkEngine:
    """Answers a project's services on Spark.

    session: a SparkSession, classic or Connect, of version 4 or later. partitions: of each shuffle; `spark.sql.shuffle.partitions`
    where it is not said. memory_limit: what DuckDB may take in a task, as it writes it ("1GB"); the rows of a partition come beside
    it. threads: those of a task, as many as its cores. spill: a folder on the local disk of each node. send_bytes: how large the
    rows may be that go to every partition.
    """

    def __init__(
        self, store: FeatureStore, session: Any, *, partitions: int | None = None, memory_limit: str = "1GB", threads: int = 1,
        spill: str | None = None, send_bytes: int = SEND_BYTES,
    ) -> None:  # fmt: skip
        version = str(getattr(session, "version", ""))
        if not version[:1].isdigit():
            raise ConfigError(f"session is a SparkSession, and not {shown(session)}")
        if int(version.partition(".")[0]) < 4:
            raise ConfigError(f"Spark {version} is too old: version 4 is needed")
        self._store = store
        self._sharing = Sharing(session, partitions, send_bytes, TaskLimits(threads, memory_limit, spill))

    def get_historical_features(
        self, spine: Any, features: Any, *, timestamp: str = "event_timestamp", timezone: str | None = None,
        with_status: bool = False, with_event_time: bool = False, sources_as_in: Any = None,
    ) -> SparkFrame:  # fmt: skip
        """The training frame of a spine, as `FeatureStore.get_historical_features` says; its rows come in no order.

        spine: a Spark DataFrame, or the path of Parquet files. Nothing is computed before the frame is written or read. Raises
        SpineError, SourceError and what the store raises of features.
        """
        options = Options(timestamp, timezone, with_status, with_event_time)
        asked = AskedFrame.of(self._store, features, options, {"spark": self._sharing.session.version}, sources_as_in)
        given, shuffle = self._spine(spine), KeyShuffle(self._sharing, asked)
        self._check_told_apart(asked.columns(given.columns))
        rows, counts = asked.answer(
            shuffle,
            without_counts(given),
            given.columns,
            limits=self._sharing.limits,
            send_bytes=self._sharing.send_bytes,
            partitions=self._sharing.shuffle_partitions,
        )
        return SparkFrame(rows, counts, asked, given.columns)

    @checked
    def snapshot(
        self, features: Any, *, at: datetime | Sequence[datetime], with_status: bool = False, sources_as_in: Any = None
    ) -> SparkFrame:
        """The values of every key at an instant or several, as `FeatureStore.snapshot` says; its rows come in no order.

        Keys are found where the rows lie. Nothing is computed before the frame is written or read. Raises SpineError where the views have
        different keys, and what `get_historical_features` raises.
        """
        instants, options = AskedInstants.of(at), Options(with_status=with_status)
        asked = AskedFrame.of_snapshot(
            self._store, features, options, {"spark": self._sharing.session.version}, instants, sources_as_in
        )
        shuffle, spine = KeyShuffle(self._sharing, asked), asked.spine_columns
        self._check_told_apart(asked.columns(spine))
        limits, send_bytes = self._sharing.limits, self._sharing.send_bytes
        keys = asked.snapshot(shuffle, instants.at, limits=limits)
        partitions = self._sharing.shuffle_partitions
        rows, counts = asked.answer(shuffle, keys, spine, limits=limits, send_bytes=send_bytes, partitions=partitions)
        return SparkFrame(rows, counts, asked, spine)

    @checked
    def materialize(
        self, views: Sequence[str] | None = None, *, full: bool = False, progress: bool = True
    ) -> list[Run]:  # fmt: skip
        """Compute and publish what is due of the applied views, as `FeatureStore.materialize` says: executors write the records.

        This process decides what is due and switches to it. It also writes the records of views that executors cannot read: those over
        what is in no Parquet file or Delta table, those of entities without keys, and those that pushes keep. Raises ConfigError where
        the online store is embedded, and what the store raises.
        """
        project, limits = self._store._project, self._sharing.limits
        runs = EngineRuns(
            project, RecordShuffle(self._sharing, project.offline), limits, self._sharing.shuffle_partitions
        )
        return materialize_by(self._store, runs, views, full=full, progress=progress, who="Spark's executors")

    @checked
    def audit(
        self, *, since: datetime | str | None = None, until: datetime | None = None, service: str | None = None,
        against: Mapping[str, str] | Manifest | None = None, spine: Any = None, keep: bool = True,
    ) -> Audit:  # fmt: skip
        """What was served and logged, compared with what training says, as `FeatureStore.audit` says: executors read the log and the sources,
        and compare. The folder of the serving log is there, under the same path, on every node.

        This process compares what was served of versions whose sources tasks cannot read: those over files that are copied first, databases,
        DuckDB tables, and a push source with a history; and all of it where the spine has more than send_bytes. Raises what the store raises.
        """
        sharing = self._sharing
        engine = EngineAudit(
            self._store._project,
            AuditSpread(sharing.session),
            sharing.limits,
            sharing.shuffle_partitions,
            sharing.send_bytes,
        )
        return self._store._audit(since, until, service, against, spine=spine, keep=keep, engine=engine)

    def _spine(self, spine: Any) -> Any:
        from pyspark.sql import DataFrame

        if isinstance(spine, (str, Path)):
            spine = self._sharing.session.read.parquet(spark_place(spine))
        if not isinstance(spine, DataFrame):
            raise SpineError(
                f"{type(spine).__name__} is no spine of Spark's; pass a Spark DataFrame, or the path of Parquet files. "
                "spark.createDataFrame makes one of a frame"
            )
        names: list[str] = spine.columns
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise SpineError(f"The spine has a column '{twice[0]}' twice; rename or drop one of the two")
        own = next((name for name in names if name.casefold() == COUNTS), None)
        if own is not None:
            raise SpineError(f"The spine has a column '{own}', which is a name of the engine's own; rename it")
        return spine

    def _check_told_apart(self, columns: Sequence[str]) -> None:
        """SpineError where the session takes two columns of a frame for one."""
        if str(self._sharing.session.conf.get("spark.sql.caseSensitive")).lower() == "true":
            return
        first: dict[str, str] = {}
        for name in columns:
            other = first.setdefault(name.lower(), name)
            if other != name:
                raise SpineError(
                    f"The frame has columns '{other}' and '{name}', which this Spark session takes for one; rename the one of the spine, or "
                    "set spark.sql.caseSensitive to true"
                )
