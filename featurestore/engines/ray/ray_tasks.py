"""What Ray runs: each a function of plain bytes and tables, which gives tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from featurestore.declare.frames import table_of
from featurestore.declare.sources import is_url
from featurestore.durable.parquet import local, storable
from featurestore.durable.temporary import TemporaryFolder
from featurestore.engines.buckets import buckets_of_keys, buckets_of_source, buckets_of_spine, buckets_of_spread
from featurestore.engines.key_tasks import KeysTask
from featurestore.engines.tasks import AnswerTask, FunctionTask, IdentityTask, check_versions, engine_of
from featurestore.lazy import pa, pq
from featurestore.sources.object_stores import put
from featurestore.sources.source_files import SourceFile
from featurestore.sources.sources import Told
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


def split_file(said: bytes, versions: dict[str, str], count: int, number: int, file: SourceFile, told: Told) -> Any:
    """The rows of a file of a source, by key or by identity. number: the source's among the routes of the step."""
    task: AnswerTask = loaded(said, versions)
    route = task.step.routes[number]
    # One thread reads rows in the order of the file, so that what is run again gives the same tables.
    with engine_of(replace(task.limits, threads=1), task.forgotten) as offline:
        offline.told = {route.source.name: told}
        with offline.session(files={route.source.name: (file,)}) as session, session.reading():
            rows = session.rows(route.source, route.columns)
        return _several(buckets_of_source(rows, route, count, offline))


def find_keys(said: bytes, versions: dict[str, str], count: int, number: int, file: SourceFile, told: Told) -> Any:
    """The keys of a file of a source, each once. number: the source's among the routes of the task."""
    task: KeysTask = loaded(said, versions)
    route = task.routes[number]
    with engine_of(task.limits, task.forgotten) as offline:
        offline.told = {route.source.name: told}
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


def evaluate_functions(said: bytes, versions: dict[str, str], rows: pa.Table) -> pa.Table:
    """The rows with the on-demand features."""
    task: FunctionTask = loaded(said, versions)
    with engine_of(task.limits, None) as offline:
        return task.evaluated(rows, offline)


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
