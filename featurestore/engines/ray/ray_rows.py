"""How Ray brings the rows of one key together: tasks that split tables, and tasks that get a part of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from featurestore.engines.asked_frame import AskedFrame
from featurestore.engines.file_parts import files_with_facts
from featurestore.engines.key_tasks import KeysTask
from featurestore.engines.ray.ray_tasks import (
    answer,
    evaluate_functions,
    find_keys,
    spine_of_keys,
    split_file,
    split_keys,
    split_spine,
    spread_identities,
)
from featurestore.engines.steps import Route
from featurestore.engines.tasks import AnswerTask, FunctionTask, TaskLimits, engine_of
from featurestore.errors import FeatureStoreError
from featurestore.lazy import pa
from featurestore.semantics.source_columns import own_columns
from featurestore.semantics.sql import quote
from featurestore.training.manifest import LIBRARIES, library_versions


class PlannedKeys(NamedTuple):
    """The spine of a snapshot, and those of its keys that are at hand."""

    task: KeysTask
    here: pa.Table


RayStep = AnswerTask | FunctionTask | PlannedKeys


class PlannedRows(NamedTuple):
    """Rows that are not made yet: their columns, and what makes them of a spine, one after the other."""

    schema: pa.Schema
    tasks: tuple[RayStep, ...] = ()


class RayPlan:
    """The `RowMover` that Ray is, without its cluster: each task is run here for no rows, so that what is wrong with the columns shows."""

    def __init__(self, asked: AskedFrame) -> None:
        self._asked = asked

    def answered(self, rows: PlannedRows, task: AnswerTask) -> PlannedRows:
        """The columns of a spine with the features of a step."""
        task.check_inputs(rows.schema)
        offline = self._asked.project.offline
        with offline.session() as session:
            nothing = []
            for route in task.step.routes:
                self._asked.files(route.source)
                types = {**route.columns, **dict.fromkeys(own_columns(route.source), "BIGINT")}
                selected = ", ".join(f"CAST(NULL AS {of}) AS {quote(name)}" for name, of in types.items())
                nothing.append(session.connection.sql(f"SELECT {selected} WHERE false").to_arrow_table())
        found, _ = next(task.answered(rows.schema.empty_table(), nothing))
        return PlannedRows(found.schema, (*rows.tasks, task))

    def evaluated(self, rows: PlannedRows, task: FunctionTask) -> PlannedRows:
        """The columns with those of the functions."""
        with engine_of(task.limits, None) as offline:
            return PlannedRows(task.evaluated(rows.schema.empty_table(), offline).schema, (*rows.tasks, task))

    def keyed(self, task: KeysTask, here: pa.Table) -> PlannedRows:
        """The columns of the spine of a snapshot."""
        return PlannedRows(task.spine(here.slice(0, 0)).schema, (PlannedKeys(task, here),))


class RayRun:
    """Makes rows that were planned, as often as it is asked."""

    def __init__(
        self,
        asked: AskedFrame,
        tasks: Sequence[RayStep],
        spine: Callable[[], list[Any]],
        partitions: int,
    ) -> None:
        self._asked, self._tasks, self._spine, self._partitions = asked, tasks, spine, partitions
        self._versions = worker_versions()

    def tables(self) -> tuple[list[Any], list[Any]]:
        """References to the tables of all rows, and to what was counted of them."""
        import ray
        from ray import cloudpickle

        tables, counts = self._spine(), list[Any]()
        for task in self._tasks:
            if isinstance(task, PlannedKeys):
                tables = self._keyed(*task, ray.put(cloudpickle.dumps(task.task)))
                continue
            said = ray.put(cloudpickle.dumps(task))
            if isinstance(task, FunctionTask):
                evaluate = remote(evaluate_functions, task.limits, returns=2)
                made = [evaluate.remote(said, self._versions, table) for table in tables]
                tables, more = [table for table, _ in made], [counted for _, counted in made]
                counts += more
            else:
                tables, more = self._step(tables, task, said)
                counts += more
        return tables, counts

    def _keyed(self, task: KeysTask, here: pa.Table, said: Any) -> list[Any]:
        """The tables of the spine of a snapshot."""
        count = self._partitions
        split = remote(split_keys, task.limits, returns=count)
        found = [listed(split.remote(said, self._versions, count, here))]
        for number, route in enumerate(task.routes):
            found += self._read(route, number, remote(find_keys, task.limits, returns=count), said)
        spine = remote(spine_of_keys, task.limits)
        return [spine.remote(said, self._versions, *(piece[bucket] for piece in found)) for bucket in range(count)]

    def _step(self, spine: list[Any], task: AnswerTask, said: Any) -> tuple[list[Any], list[Any]]:
        ask, count = remote(answer, task.limits, returns=2), self._partitions
        counts: list[Any] = []
        if not task.step.routes:
            parts = [[[table]] for table in spine]
        else:
            split = remote(split_spine, task.limits, returns=count)
            split_up = [listed(split.remote(said, self._versions, count, table)) for table in spine]
            routed = []
            for number, route in enumerate(task.step.routes):
                pieces = self._read(route, number, remote(split_file, task.limits, returns=count), said)
                if route.by_identity:
                    spread = remote(spread_identities, task.limits, returns=count + 1)
                    pieces = [
                        spread.remote(said, self._versions, count, number, *(piece[bucket] for piece in pieces))
                        for bucket in range(count)
                    ]
                    counts += [piece.pop() for piece in pieces]
                routed.append(pieces)
            parts = [[[piece[bucket] for piece in of] for of in (split_up, *routed)] for bucket in range(count)]
        tables = []
        for part in parts:
            table, counted = ask.remote(
                said, self._versions, [len(of) for of in part], *(piece for of in part for piece in of)
            )
            tables.append(table)
            counts.append(counted)
        return tables, counts

    def _read(self, route: Route, number: int, read: Any, said: Any) -> list[list[Any]]:
        """What a task reads of each file of a source, by bucket."""
        files, offline = self._asked.files(route.source), self._asked.project.offline
        return [
            listed(read.remote(said, self._versions, self._partitions, number, file, facts))
            for file, facts in files_with_facts(offline, route, files)
        ]


def remote(function: Callable[..., Any], limits: TaskLimits, *, returns: int = 1) -> Any:
    """A function that Ray runs, with as many CPUs as a task has threads."""
    import ray

    return ray.remote(num_cpus=limits.threads, num_returns=returns)(function)


def worker_versions() -> dict[str, str]:
    """The versions of libraries that each node is to have."""
    return {name: library_versions()[name] for name in LIBRARIES}


def result_of(references: Any) -> Any:
    """What tasks gave; what one raised of ours is raised as it is."""
    import ray

    try:
        return ray.get(references)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, FeatureStoreError):
            raise error.cause from error
        raise


def listed(references: Any) -> list[Any]:
    """References to what a task gives, of which Ray gives no list where it is one."""
    return references if isinstance(references, list) else [references]
