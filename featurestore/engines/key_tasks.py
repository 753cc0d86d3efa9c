"""Keys: the spine of a snapshot, made where the rows lie: every key that any row ever had, at each of its instants.

Keys are found where rows are read, each once there; equal ones then come into one partition, where the spine is made of them. They
travel as columns that `key_column` names, in the types in which the kernel reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from featurestore.engines.steps import Route
from featurestore.engines.tasks import TaskLimits, batches_of_table, engine_of, key_column, restored_rows
from featurestore.lazy import pa
from featurestore.semantics.forgotten import ForgottenKeys
from featurestore.semantics.service import ResolvedService, ServiceView
from featurestore.sources.session import Session
from featurestore.training.snapshot import key_names, keys_at, snapshot_keys_sql


@dataclass(frozen=True)
class KeysTask:
    """What the spine of a snapshot is made of. routes: the sources whose rows are read where they lie. at: the instants, µs."""

    service: ResolvedService
    routes: tuple[Route, ...]
    at: tuple[int, ...]
    limits: TaskLimits
    forgotten: ForgottenKeys | None

    @property
    def names(self) -> list[str]:
        """The columns of keys; one that is constant for an entity without keys."""
        return [key_column(place) for place, _ in enumerate(key_names(list(self.service.key_inputs)))]

    def found(self, parts: Sequence[ServiceView], session: Session) -> pa.Table:
        """The keys of the rows that a session reads of the sources of some parts, each once, in their order."""
        keys = list(self.service.key_inputs)
        if not parts:
            types = [of.arrow for of in self.service.key_inputs.values()] or [pa.int32()]
            return pa.table([pa.array([], of) for of in types], names=self.names)
        sql = f"{snapshot_keys_sql(parts, session, keys)} ORDER BY ALL"
        table: pa.Table = session.connection.sql(sql).to_arrow_table()
        return table.rename_columns(self.names)

    def spine(self, keys: pa.Table) -> pa.Table:
        """The rows of the spine of some keys, of which some come more than once. All of a key's are given to one task."""
        with engine_of(self.limits, None) as offline, offline.session() as session:
            session.connection.register("given_keys", keys.select(self.names))
            sql = f"SELECT DISTINCT {', '.join(self.names)} FROM given_keys ORDER BY ALL"
            once: pa.Table = session.connection.sql(sql).to_arrow_table()
        return keys_at(self.service, once, self.at)


@dataclass(frozen=True)
class FoundKeysTask:
    """Gives the keys of rows as an engine reads them. number: of the route."""

    task: KeysTask
    number: int

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The keys, each once; nothing of a partition that has no batch."""
        given = list(batches)
        if not given:
            return
        task, route = self.task, self.task.routes[self.number]
        rows = {route.source.name: restored_rows(route, pa.Table.from_batches(given))}
        with engine_of(task.limits, task.forgotten) as offline, offline.session(rows=rows) as session:
            yield from batches_of_table(task.found(route.parts, session))


@dataclass(frozen=True)
class SpineTask:
    """Makes the rows of the spine of a partition's keys."""

    task: KeysTask

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The rows; nothing of a partition that has no batch."""
        given = list(batches)
        if given:
            yield from batches_of_table(self.task.spine(pa.Table.from_batches(given)))
