"""How Spark spreads an audit: a task for some files of the serving log, which no row but counts and examples leaves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from featurestore.engines.audit_tasks import AuditTask
from featurestore.engines.spark.shuffle import mapped
from featurestore.lazy import pa


@dataclass(frozen=True)
class AuditSpread:
    """Runs audit tasks by Spark's executors: the `AuditMover` that Spark is."""

    session: Any

    def outcomes(self, task: AuditTask) -> list[bytes]:
        """What each group says, in their order."""
        count = len(task.groups)
        told = mapped(self.session, self.session.range(0, count, 1, count), _Group(task)).collect()
        found = {row["number"]: bytes(row["outcome"]) for row in told}
        return [found[number] for number in range(count)]


@dataclass(frozen=True)
class _Group:
    """Takes numbers of groups, `id`."""

    task: AuditTask

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        schema = pa.schema([("number", pa.int64()), ("outcome", pa.binary())])
        for batch in batches:
            rows = [{"number": number, "outcome": self.task.outcome(number)} for number in batch["id"].to_pylist()]
            yield pa.RecordBatch.from_pylist(rows, schema)
