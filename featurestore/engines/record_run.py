"""Runs of materialize whose records are written where an engine has the rows: what is the same for every engine.

This process decides what is due, holds the lease and publishes. An engine is asked for the rows of a run by key, once, and to write the
records of each of its instants.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from featurestore.engines.record_tasks import Recorded, RecordTask, RunTask
from featurestore.engines.steps import Route, goes_by_key, part_of_view, route_of
from featurestore.engines.task_statistics import TaskStatistics, gathered_of
from featurestore.engines.tasks import IdentityTask, TaskLimits
from featurestore.errors import ConfigError
from featurestore.materialize.kernel import Written
from featurestore.materialize.lease import Lease, LeaseLostError
from featurestore.materialize.lease_renewer import LeaseRenewer
from featurestore.materialize.materialize import Run, RunEngine
from featurestore.materialize.run_plan import PlannedRun
from featurestore.materialize.stored_keys import count_records
from featurestore.project import Project
from featurestore.registry.frames import feature_name
from featurestore.registry.kept_statistics import GatheredFeatures
from featurestore.semantics.view import ResolvedView
from featurestore.store import FeatureStore

Rows = TypeVar("Rows")


class RecordMover(Protocol[Rows]):
    """What moves the rows of a run of materialize: all that an engine must do beside moving those of a frame."""

    def by_key(self, run: PlannedRun, route: Route, spread: IdentityTask) -> Rows:
        """The rows of a run's files, those of one key in one partition, with `NEW_FILE` where keys that may have changed are asked for.
        Of a route by identity `spread` gives each version to every key, and the rows keep the key that it says."""

    def recorded(self, rows: Rows, task: RecordTask) -> Recorded:
        """Write the records of an instant: the task runs once for each partition; where every key is asked for, then `StoredKeysTask`
        and, of what these give, equal store keys in one partition, `VanishedTask`."""


@dataclass(frozen=True)
class EngineRuns(Generic[Rows]):
    """Writes the records of runs by an engine; a `RunEngine`."""

    project: Project
    mover: RecordMover[Rows]
    limits: TaskLimits
    partitions: int
    gathered: dict[int, GatheredFeatures | None] = field(default_factory=dict)
    """See `RunEngine`."""

    def written(self, run: PlannedRun, lease: Lease) -> Iterator[Written]:
        """See `RunEngine`: by a run key, which is another one for each instant."""
        view, offline, config = run.view, self.project.offline, self.project.config
        route, forgotten = route_of(view, offline.raw_types(view.source)), offline.forgotten()
        features, keeper = (
            {one.name: (feature_name(view.name, one.name), one.type) for one in view.features},
            self.project.statistics,
        )
        statistics = TaskStatistics.of(features, keeper, self.partitions)
        try:
            rows = self.mover.by_key(run, route, IdentityTask(route, self.limits, forgotten))
            for marks in run.marks:
                shared = RunTask(
                    view, config.project, config.online, marks, lease.let_others(), run.changes, statistics
                )
                renewer = LeaseRenewer(lease, name=f"featurestore lease of {view.name}")
                try:
                    written, gathered = self.mover.recorded(rows, RecordTask(shared, route, self.limits, forgotten))
                finally:
                    renewer.stop()
                if renewer.is_lost:
                    raise LeaseLostError(f"{view.declared.title}: another run has taken over")
                if run.changes is not None:  # a task that ran twice cannot tell which records are new
                    present = count_records(offline, self.project.online, run.codec)
                    written = written._replace(records=present - (run.present or 0))
                self.gathered[marks.instant] = gathered_of(gathered, features, keeper, rows=written.keys)
                yield written
        except Exception:
            offline.check_unchanged(view.source, run.files)  # which is why, where it is not
            lease.renew()  # the same
            raise
        offline.check_unchanged(view.source, run.files)


def materialize_by(
    store: FeatureStore, runs: RunEngine, views: Sequence[str] | None, *, full: bool, progress: bool, who: str
) -> list[Run]:
    """What is due of the applied views: an engine writes the records of those whose rows it reads, and this process those of the others.
    who: the engine's workers, as a message names them. ConfigError where the online store is embedded."""
    project = store._project
    if not project.online.blocking:
        raise ConfigError(
            f"online in featurestore.toml is {project.config.online.partition('://')[0]}://, which lies on this machine, and {who} "
            "write from others. Put the project online in Redis (redis://…), or call materialize of the store itself"
        )

    def engine_of(view: ResolvedView) -> RunEngine | None:
        return runs if goes_by_key(view.source, part_of_view(view)) else None

    return store._runs.materialize(views, full=full, progress=progress, engine_of=engine_of)
