"""Tasks that write records: they are given the rows of some keys, and write what the kernel of materialize makes of them straight into the
online store.

What they give back is the store key of each key that was asked for, where records of other keys are to be emptied, and what they
wrote, as one row of which `COUNTS` alone is not null. A task may run as often as an engine likes: what it writes is the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import orjson

from featurestore.engines.steps import Route
from featurestore.engines.task_statistics import TaskStatistics, sent
from featurestore.engines.tasks import (
    BATCH_ROWS,
    COUNTS,
    TaskLimits,
    batches_of_table,
    engine_of,
    key_column,
    restored_rows,
)
from featurestore.lazy import pa, pc
from featurestore.materialize.kernel import (
    BATCH_KEYS,
    Changes,
    RecordWriting,
    RunInstants,
    SlotWriter,
    Written,
    keys_sql,
    session_of_rows,
)
from featurestore.materialize.lease import RunKey
from featurestore.materialize.records import asked_keys, collect
from featurestore.online import open_online
from featurestore.online.view_codec import ViewCodec
from featurestore.semantics.forgotten import ForgottenKeys
from featurestore.semantics.source_columns import key_list
from featurestore.semantics.view import ResolvedView
from featurestore.sources.session import Session

NEW_FILE, STORED, ASKED = "__new_file", "__stored", "__asked"
"""Columns: of a source's rows, whether their file came since the last run; of what tasks give, a store key, and whether it was asked for."""


@dataclass(frozen=True)
class RunTask:
    """What the tasks of a run have in common. online: the URL of the store. marks: the instant that they write. key: by which they
    write. changes: which keys are asked for; None: all."""

    view: ResolvedView
    project: str
    online: str
    marks: RunInstants
    key: RunKey
    changes: Changes | None
    statistics: TaskStatistics | None = None
    """What is gathered of the values that are written. None: nothing is."""

    @contextmanager
    def slots(self) -> Iterator[SlotWriter]:
        """What writes into the store, which is open for as long."""
        with closing(open_online(self.online)) as store:
            codec = ViewCodec(self.project, self.view, tagged=store.tagged)
            yield SlotWriter(self.view, codec, store, self.key.writer(store), self.marks, self.changes is None)


class TaskRows(NamedTuple):
    """Rows that a task was given. new_from: the first of those that lie in new files, which come last; None where that does not matter."""

    rows: pa.Table
    new_from: int | None


@dataclass(frozen=True)
class RecordTask:
    """Writes the records of the keys of a partition. The rows come with their key, `key_column`, all rows of a key in one partition, and
    perhaps rows of other keys, which are versions of these."""

    run: RunTask
    route: Route
    limits: TaskLimits
    forgotten: ForgottenKeys | None

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The keys that were asked for, where every key is, and what was written."""
        given = list(batches)
        if not sum(batch.num_rows for batch in given):
            yield from batches_of_table(told())
            return
        table, view = pa.Table.from_batches(given), self.run.view
        rows, new_from = self._placed(table)
        with (
            self.run.slots() as slots,
            engine_of(self.limits, self.forgotten) as offline,
            session_of_rows(view, rows, offline) as session,
        ):
            instants = [self.run.marks.instant]
            sql = keys_sql(view, session, self.run.changes, instants=instants, new_rows_from=new_from)
            failures: list[Exception] = []
            gathering = None if self.run.statistics is None else self.run.statistics.begun(failures)
            writing = RecordWriting(slots, session, gathering=gathering)
            written = writing.write(collect(session, self._own(session, table, sql)))
            statistics = None if gathering is None or not written.keys else sent(gathering, failures)
            if slots.everything:
                yield from told(asked_keys(session, view, slots.codec), asked=True).to_batches(max_chunksize=BATCH_ROWS)
        yield from told(written=written, statistics=statistics).to_batches()

    def _placed(self, table: pa.Table) -> TaskRows:
        if self.run.changes is None or NEW_FILE not in table.column_names:
            return TaskRows(restored_rows(self.route, table), None)
        is_new = table[NEW_FILE]
        before, new = table.filter(pc.invert(is_new)), table.filter(is_new)
        return TaskRows(restored_rows(self.route, pa.concat_tables([before, new])), before.num_rows)

    def _own(self, session: Session, table: pa.Table, sql: str) -> str:
        """Of keys that a query gives those whose rows are all here."""
        if not self.route.by_identity:
            return sql
        places, view = range(len(self.route.keys)), self.run.view
        session.connection.register("given_keys", table.select([key_column(place) for place in places]))
        keys = ", ".join(
            f"CAST({key_column(place)} AS {of.duckdb}) AS k{place}"
            for place, (_, of) in zip(places, self.route.keys, strict=True)
        )
        return f"SELECT {key_list(view)} FROM ({sql}) SEMI JOIN (SELECT DISTINCT {keys} FROM given_keys) USING ({key_list(view)})"


@dataclass(frozen=True)
class StoredKeysTask:
    """Gives the store keys of all records that a view version has. It runs where it is given a row."""

    run: RunTask

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The keys, some more than once."""
        yield pa.RecordBatch.from_pylist([], told().schema)
        if sum(batch.num_rows for batch in batches):
            with self.run.slots() as slots:
                for keys in slots.store.scan(slots.codec.record_prefix):
                    yield from told(pa.array(keys, pa.binary())).to_batches()


@dataclass(frozen=True)
class VanishedTask:
    """Empties the records of those keys of a partition that were not asked for. Of what it is given, equal keys are in one partition."""

    run: RunTask

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """What was written here, and what its partition was told of."""
        vanished, asked = set[bytes](), set[bytes]()
        for batch in batches:
            counts = batch.filter(pc.is_valid(batch[COUNTS]))
            keys = batch.filter(pc.is_valid(batch[STORED]))
            asked.update(keys[STORED].filter(keys[ASKED]).to_pylist())
            vanished.update(keys[STORED].filter(pc.invert(keys[ASKED])).to_pylist())
            yield counts.cast(told().schema) if counts.num_rows else pa.RecordBatch.from_pylist([], told().schema)
        gone, records = sorted(vanished - asked), 0
        if gone:
            with self.run.slots() as slots:
                for start in range(0, len(gone), BATCH_KEYS):
                    part = gone[start : start + BATCH_KEYS]
                    records += slots.write(part, [None] * len(part))
        yield from told(written=Written(0, 0, 0, records)).to_batches()


def told(
    keys: pa.Array | None = None, *, asked: bool = False, written: Written | None = None, statistics: str | None = None
) -> pa.Table:
    """What a task gives back: keys, and what was written, with what was gathered of it."""
    stored = pa.array([], pa.binary()) if keys is None else keys.cast(pa.binary())
    texts = [] if written is None else [orjson.dumps([list(written), statistics]).decode()]
    counts = pa.array(texts, pa.string())
    none = len(counts)
    return pa.table(
        {
            STORED: pa.concat_arrays([stored, pa.nulls(none, pa.binary())]),
            ASKED: pa.array([asked] * len(stored) + [None] * none, pa.bool_()),
            COUNTS: pa.concat_arrays([pa.nulls(len(stored), pa.string()), counts]),
        }
    )


class Recorded(NamedTuple):
    """What tasks have written, and what each gathered of it."""

    written: Written
    statistics: tuple[str, ...]


def total(texts: list[str]) -> Recorded:
    """What tasks have written, together."""
    written, statistics = Written(0, 0, 0, 0), list[str]()
    for text in texts:
        counts, gathered = orjson.loads(text)
        written = written.plus(Written(*counts))
        statistics += [] if gathered is None else [gathered]
    return Recorded(written, tuple(statistics))
