"""What Ray runs: each a function of plain bytes and tables, which gives tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from featurestore.declare.frames import table_of
from featurestore.declare.sources import is_url
from featurestore.durable.parquet import local, storable
from featurestore.durable.temporary import TemporaryFolder
from featurestore.engines.audit_tasks import AuditTask
from featurestore.engines.buckets import (
    buckets_of_keys,
    buckets_of_spine,
    buckets_of_spread,
    buckets_of_stored,
)
from featurestore.engines.file_parts import buckets_of_file
from featurestore.engines.key_tasks import KeysTask
from featurestore.engines.record_tasks import NEW_FILE, RecordTask, StoredKeysTask, VanishedTask
from featurestore.engines.tasks import (
    COUNTS,
    AnswerTask,
    FunctionTask,
    IdentityTask,
    batches_of_table,
    check_versions,
    engine_of,
)
from featurestore.lazy import pa, pq
from featurestore.sources.object_stores import put
from featurestore.sources.source_files import SourceFile
from featurestore.sources.sources import SourceFacts
from featurestore.training.kernel import Counts
from featurestore.training.spine import SpineFiles


def loaded(said: bytes, versions: dict[str, str]) -> Any:
    """A task as it was sent, once this node is seen to have the versions of the libraries that its values pass through."""
    check_versions(versions)
    from ray import cloudpickle

    return cloudpickle.loads(said)


def read_spine(files: SpineFiles, first: int, count: int) -> pa.Table:
    """Some consecutive rows of a spine that is files."""
    return files.read(first, count)


def schema_of(rows: pa.Table) -> pa.Schema:
    """The columns of rows that lie elsewhere."""
    return rows.schema.remove_metadata()


def taken(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Rows of a spine as one machine takes them. schema: of all of its parts, which may be null alone in some."""
    return table_of(rows.select(schema.names).cast(schema) if rows.num_columns else schema.empty_table(), owned=True)


def split_spine(said: bytes, versions: dict[str, str], count: int, rows: pa.Table) -> Any:
    """Rows of a spine by key."""
    task: AnswerTask = loaded(said, versions)
    with engine_of(task.limits, None) as offline:
        return _several(buckets_of_spine(rows, task, count, offline))


def split_file(
    said: bytes, versions: dict[str, str], count: int, number: int, file: SourceFile, facts: SourceFacts
) -> Any:
    """The rows of a file of a source, by key or by identity. number: the source's among the routes of the step."""
    task: AnswerTask = loaded(said, versions)
    return _several(buckets_of_file(task.step.routes[number], count, (file, facts), task.limits, task.forgotten))


def find_keys(
    said: bytes, versions: dict[str, str], count: int, number: int, file: SourceFile, facts: SourceFacts
) -> Any:
    """The keys of a file of a source, each once. number: the source's among the routes of the task."""
    task: KeysTask = loaded(said, versions)
    route = task.routes[number]
    with engine_of(task.limits, task.forgotten) as offline:
        offline.facts = {route.source.name: facts}
        with offline.session(files={route.source.name: (file,)}) as session, session.reading():
            keys = task.found(route.parts, session)
        return _several(buckets_of_keys(keys, count, offline))


def split_keys(said: bytes, versions: dict[str, str], count: int, keys: pa.Table) -> Any:
    """Keys that were found where the frame was asked for."""
    task: KeysTask = loaded(said, versions)
    with engine_of(task.limits, None) as offline:
        return _several(buckets_of_keys(keys, count, offline))


def spine_of_keys(said: bytes, versions: dict[str, str], *keys: pa.Table) -> pa.Table:
    """The spine of a snapshot, of all keys of a bucket."""
    task: KeysTask = loaded(said, versions)
    return task.spine(pa.concat_tables(keys))


def split_run_file(
    said: bytes, versions: dict[str, str], count: int, file: SourceFile, facts: SourceFacts, is_new: bool | None
) -> Any:
    """The rows of a file for a run of materialize, by key or by identity. is_new: whether the file came since the last run; None where
    that does not matter."""
    task: IdentityTask = loaded(said, versions)
    tables = buckets_of_file(task.route, count, (file, facts), task.limits, task.forgotten)
    if is_new is not None:
        tables = [table.append_column(NEW_FILE, pa.array([is_new] * len(table), pa.bool_())) for table in tables]
    return _several(tables)


def spread_run(said: bytes, versions: dict[str, str], count: int, *rows: pa.Table) -> Any:
    """Rows of some identities by each key that any version has, with that key beside them."""
    task: IdentityTask = loaded(said, versions)
    spread, _ = task.spread(pa.concat_tables(rows))
    with engine_of(task.limits, None) as offline:
        return _several(buckets_of_spread(spread, task.route, count, offline, keep_keys=True))


def write_records(said: bytes, versions: dict[str, str], count: int, *rows: pa.Table) -> Any:
    """Write the records of a partition's keys; what the task gives back, by store key."""
    task: RecordTask = loaded(said, versions)
    told_back = pa.Table.from_batches(task(iter(batches_of_table(pa.concat_tables(rows)))))
    with engine_of(task.limits, None) as offline:
        return _several(buckets_of_stored(told_back, count, offline))


def stored_keys(said: bytes, versions: dict[str, str], count: int) -> Any:
    """The store keys of all records that there are."""
    task: RecordTask = loaded(said, versions)
    given = pa.Table.from_batches(StoredKeysTask(task.run)(iter([pa.RecordBatch.from_pylist([{"id": 0}])])))
    with engine_of(task.limits, None) as offline:
        return _several(buckets_of_stored(given, count, offline))


def empty_vanished(said: bytes, versions: dict[str, str], *told_back: pa.Table) -> list[str]:
    """What was written, and, where every key is asked for, empty the records of those of a bucket that were not."""
    task: RecordTask = loaded(said, versions)
    table = pa.concat_tables(told_back)
    if task.run.changes is None:
        table = pa.Table.from_batches(VanishedTask(task.run)(iter(batches_of_table(table))))
    texts: list[str] = table[COUNTS].drop_null().to_pylist()
    return texts


def spread_identities(said: bytes, versions: dict[str, str], count: int, number: int, *rows: pa.Table) -> Any:
    """Rows of some identities by each key that any version has, and what was counted of them."""
    task: AnswerTask = loaded(said, versions)
    route = task.step.routes[number]
    spread, counts = IdentityTask(route, task.limits, task.forgotten).spread(pa.concat_tables(rows))
    with engine_of(task.limits, None) as offline:
        return *buckets_of_spread(spread, route, count, offline), counts


def answer(said: bytes, versions: dict[str, str], lengths: Sequence[int], *rows: pa.Table) -> tuple[pa.Table, Counts]:
    """The rows of a spine with their features, and what was counted. rows: of the spine, then of each route, so many tables of each."""
    task: AnswerTask = loaded(said, versions)
    tables, first = [], 0
    for length in lengths:
        tables.append(pa.concat_tables(rows[first : first + length]))
        first += length
    spine, *given = tables
    answered = list(task.answered(spine, given))
    return pa.concat_tables([table for table, _ in answered]), sum((counts for _, counts in answered), Counts())


def evaluate_functions(said: bytes, versions: dict[str, str], rows: pa.Table) -> tuple[pa.Table, Counts]:
    """The rows with the on-demand features, and what is counted of these."""
    task: FunctionTask = loaded(said, versions)
    with engine_of(task.limits, None) as offline:
        found = task.evaluated(rows, offline)
    return found, task.counted(found)


def audit_group(said: bytes, versions: dict[str, str], number: int) -> bytes:
    """What a group of files of the serving log says."""
    task: AuditTask = loaded(said, versions)
    return task.outcome(number)


def shown(rows: pa.Table, columns: Sequence[str]) -> pa.Table:
    """Columns in the order of a frame."""
    return rows.select(list(columns))


def write_part(rows: pa.Table, columns: Sequence[str], folder: str, number: int) -> None:
    """Write rows as a file of a frame, which has its name once it is whole."""
    name, table = f"part-{number:06}.parquet", storable(shown(rows, columns))
    if is_url(folder):
        temporary = TemporaryFolder()
        try:
            pq.write_table(table, temporary.path / name)
            put(f"{folder.rstrip('/')}/{name}", temporary.path / name)
        finally:
            temporary.remove()
        return
    partial = Path(folder, f".{name}.partial")
    pq.write_table(table, local(partial))
    partial.replace(Path(folder, name))


def _several(tables: list[pa.Table]) -> Any:
    """As Ray takes what a task gives: one is no list of one."""
    return tables if len(tables) > 1 else tables[0]
