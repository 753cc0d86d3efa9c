"""How Ray brings the rows of one key together for materialize: workers write the records, and no row comes to this process."""

from __future__ import annotations

from typing import Any

from featurestore.engines.asked_frame import read_in_place
from featurestore.engines.file_parts import files_with_facts
from featurestore.engines.ray.ray_rows import listed, remote, result_of, worker_versions
from featurestore.engines.ray.ray_tasks import empty_vanished, split_run_file, spread_run, stored_keys, write_records
from featurestore.engines.record_tasks import Recorded, RecordTask, total
from featurestore.engines.steps import Route
from featurestore.engines.tasks import IdentityTask, TaskLimits
from featurestore.materialize.run_plan import PlannedRun
from featurestore.sources.offline import Offline


class RayRecords:
    """Writes records by Ray's workers: the `RecordMover` that Ray is."""

    def __init__(self, offline: Offline, partitions: int, limits: TaskLimits) -> None:
        self._offline, self._partitions, self._limits = offline, partitions, limits
        self._versions = worker_versions()

    def by_key(self, run: PlannedRun, route: Route, spread: IdentityTask) -> list[list[Any]]:
        """References to the rows of each partition: several tables of each."""
        import ray
        from ray import cloudpickle

        count, said = self._partitions, ray.put(cloudpickle.dumps(spread))
        new = None if run.changes is None else run.changes.new_files
        split, files = remote(split_run_file, self._limits, returns=count), read_in_place(route.source, run.files)
        pieces = [
            listed(split.remote(said, self._versions, count, file, facts, None if new is None else number in new))
            for number, (file, facts) in enumerate(files_with_facts(self._offline, route, files))
        ]
        if route.by_identity:
            spread_out = remote(spread_run, self._limits, returns=count)
            pieces = [
                listed(spread_out.remote(said, self._versions, count, *(piece[bucket] for piece in pieces)))
                for bucket in range(count)
            ]
        return [[piece[bucket] for piece in pieces] for bucket in range(count)]

    def recorded(self, rows: list[list[Any]], task: RecordTask) -> Recorded:
        """Write the records of an instant: those of keys with rows, then those of keys that vanished."""
        import ray
        from ray import cloudpickle

        count, said = self._partitions, ray.put(cloudpickle.dumps(task))
        write = remote(write_records, self._limits, returns=count)
        told = [listed(write.remote(said, self._versions, count, *pieces)) for pieces in rows]
        if task.run.changes is None:
            stored = remote(stored_keys, self._limits, returns=count)
            told.append(listed(stored.remote(said, self._versions, count)))
        empty = remote(empty_vanished, self._limits)
        counted = [empty.remote(said, self._versions, *(piece[bucket] for piece in told)) for bucket in range(count)]
        return total([text for texts in result_of(counted) for text in texts])
