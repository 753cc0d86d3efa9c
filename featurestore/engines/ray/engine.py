"""What a user has of Ray: a project's verbs, answered by a cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from featurestore.declare.arguments import checked
from featurestore.engines.asked_frame import SEND_BYTES, AskedFrame
from featurestore.engines.audit_tasks import EngineAudit
from featurestore.engines.ray.ray_audits import RayAudits
from featurestore.engines.ray.ray_frame import RayFrame
from featurestore.engines.ray.ray_records import RayRecords
from featurestore.engines.ray.ray_rows import PlannedRows, RayPlan, RayRun
from featurestore.engines.ray.ray_tasks import read_spine, schema_of, taken
from featurestore.engines.record_run import EngineRuns, materialize_by
from featurestore.engines.tasks import TaskLimits
from featurestore.errors import SpineError
from featurestore.lazy import pa
from featurestore.materialize.materialize import Run
from featurestore.reports.audit import Audit
from featurestore.store import FeatureStore
from featurestore.training.kernel import Options
from featurestore.training.manifest import Manifest
from featurestore.training.snapshot import AskedInstants
from featurestore.training.spine import SpineFiles

SPINE_ROWS = 1_000_000
"""Rows of a spine of files that one task reads."""

PARTITIONS_PER_CPU = 4


class RayEngine:
    """Answers a project's services on Ray, in the cluster that `ray.init` named.

    partitions: how many the rows of a key are brought together in; four for each CPU of the cluster where it is not said. The others are
    as `SparkEngine` has them: memory_limit, threads and spill of a task, and send_bytes.
    """

    def __init__(
        self, store: FeatureStore, *, partitions: int | None = None, memory_limit: str = "1GB", threads: int = 1,
        spill: str | None = None, send_bytes: int = SEND_BYTES,
    ) -> None:  # fmt: skip
        self._store, self._partitions, self._send_bytes = store, partitions, send_bytes
        self._limits = TaskLimits(threads, memory_limit, spill)

    def get_historical_features(
        self, spine: Any, features: Any, *, timestamp: str = "event_timestamp", timezone: str | None = None,
        with_status: bool = False, with_event_time: bool = False, sources_as_in: Any = None,
    ) -> RayFrame:  # fmt: skip
        """The training frame of a spine, as `FeatureStore.get_historical_features` says; its rows come in no order.

        spine: a Ray dataset, which is executed now, an Arrow table, or the path of Parquet files. Nothing else is computed before the frame
        is written or read. Raises SpineError, SourceError and what the store raises of features.
        """
        options = Options(timestamp, timezone, with_status, with_event_time)
        asked = AskedFrame.of(self._store, features, options, _versions(), sources_as_in)
        schema, given = self._spine(spine)
        return self._frame(asked, RayPlan(asked), PlannedRows(schema), given, schema.names)

    @checked
    def snapshot(
        self, features: Any, *, at: datetime | Sequence[datetime], with_status: bool = False, sources_as_in: Any = None
    ) -> RayFrame:
        """The values of every key at an instant or several, as `FeatureStore.snapshot` says; its rows come in no order.

        Keys are found where the rows lie. Nothing is computed before the frame is written or read. Raises SpineError where the views have
        different keys, and what `get_historical_features` raises.
        """
        instants, options = AskedInstants.of(at), Options(with_status=with_status)
        asked = AskedFrame.of_snapshot(self._store, features, options, _versions(), instants, sources_as_in)
        plan = RayPlan(asked)
        keys = asked.snapshot(plan, instants.at, limits=self._limits)
        return self._frame(asked, plan, keys, list, asked.spine_columns)

    @checked
    def materialize(
        self, views: Sequence[str] | None = None, *, full: bool = False, progress: bool = True
    ) -> list[Run]:  # fmt: skip
        """Compute and publish what is due of the applied views, as `FeatureStore.materialize` says: workers write the records. What stays in
        this process is what `SparkEngine.materialize` says. Raises ConfigError where the online store is embedded, and what the store raises."""
        _versions()
        project = self._store._project
        records = RayRecords(project.offline, self._parts, self._limits)
        runs = EngineRuns(project, records, self._limits, self._parts)
        return materialize_by(self._store, runs, views, full=full, progress=progress, who="Ray's workers")

    @checked
    def audit(
        self, *, since: datetime | str | None = None, until: datetime | None = None, service: str | None = None,
        against: Mapping[str, str] | Manifest | None = None, spine: Any = None, keep: bool = True,
    ) -> Audit:  # fmt: skip
        """What was served and logged, compared with what training says, as `FeatureStore.audit` says: workers read the log and the sources,
        and compare. The folder of the serving log is there, under the same path, on every node.

        This process compares what was served of versions whose sources tasks cannot read: those over files that are copied first, databases,
        DuckDB tables, and a push source with a history; and all of it where the spine has more than send_bytes. Raises what the store raises.
        """
        _versions()
        engine = EngineAudit(self._store._project, RayAudits(), self._limits, self._parts, self._send_bytes)
        return self._store._audit(since, until, service, against, spine=spine, keep=keep, engine=engine)

    @property
    def _parts(self) -> int:
        import ray

        return self._partitions or PARTITIONS_PER_CPU * max(1, int(ray.cluster_resources().get("CPU", 1)))

    def _frame(
        self, asked: AskedFrame, plan: RayPlan, rows: PlannedRows, given: Callable[[], list[Any]], spine: Sequence[str]
    ) -> RayFrame:
        """The frame of planned rows of a spine, which has these columns. given: gives tables of it to the cluster."""
        parts = self._parts
        planned, counts = asked.answer(
            plan, rows, spine, limits=self._limits, send_bytes=self._send_bytes, partitions=parts
        )
        return RayFrame(RayRun(asked, planned.tasks, given, parts), counts, asked, spine)

    def _spine(self, spine: Any) -> tuple[pa.Schema, Callable[[], list[Any]]]:
        """The columns of a spine, and what gives its tables to the cluster."""
        import ray
        from ray.data import Dataset

        if isinstance(spine, (str, Path)):
            files = SpineFiles.of(spine)
            schema = files.schema
            places = [
                (first, min(SPINE_ROWS, files.rows - first)) for first in range(0, max(1, files.rows), SPINE_ROWS)
            ]

            def tables() -> list[Any]:
                said, read = ray.put(files), ray.remote(read_spine)
                return [read.remote(said, first, count) for first, count in places]

        elif isinstance(spine, pa.Table):
            schema = spine.schema

            def tables() -> list[Any]:
                return [ray.put(spine.slice(first, SPINE_ROWS)) for first in range(0, max(1, len(spine)), SPINE_ROWS)]

        elif isinstance(spine, Dataset):
            blocks: list[Any] = spine.to_arrow_refs()
            look = ray.remote(schema_of)
            schemas = [found for found in ray.get([look.remote(block) for block in blocks]) if found.names]
            if not schemas:
                raise SpineError("The spine is a Ray dataset without columns")
            schema = pa.unify_schemas(schemas)

            def tables() -> list[Any]:
                return blocks

        else:
            raise SpineError(
                f"{type(spine).__name__} is no spine of Ray's; pass a Ray dataset, an Arrow table, or the path of Parquet files. "
                "ray.data.from_pandas makes a dataset of a frame"
            )
        twice = [name for name in schema.names if schema.names.count(name) > 1]
        if twice:
            raise SpineError(f"The spine has a column '{twice[0]}' twice; rename or drop one of the two")
        schema = schema.remove_metadata()

        def as_here() -> list[Any]:
            take, said = ray.remote(taken), ray.put(schema)
            return [take.remote(table, said) for table in tables()]

        return taken(schema.empty_table(), schema).schema, as_here


def _versions() -> dict[str, str]:
    """The version of Ray, for the manifest, once this process is in a cluster."""
    import ray

    if not ray.is_initialized():
        ray.init()
    return {"ray": ray.__version__}
