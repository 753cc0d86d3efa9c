"""Tasks: what runs in a partition of an engine, Arrow batches in and Arrow batches out.

Rows of several tables come in one stream: `TAG` says of which table a row is, and the column of that table holds it as a struct.
What a partition counted comes out as one row more, of which `COUNTS` alone is not null.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import orjson

from featurestore.engines.steps import Route, Step
from featurestore.engines.task_statistics import TaskStatistics
from featurestore.errors import SourceError
from featurestore.lazy import pa, pc
from featurestore.semantics.columns import said_type
from featurestore.semantics.forgotten import ForgottenKeys
from featurestore.semantics.rows import words_sql
from featurestore.semantics.service import ResolvedService
from featurestore.semantics.source_columns import ARRIVED, cell, has_key, identity_terms, key_list
from featurestore.sources.instances import Instances
from featurestore.sources.offline import Offline
from featurestore.sources.schemas import taken_columns
from featurestore.training.kernel import (
    Counts,
    Options,
    PartValues,
    answer_rows,
    columns_of,
    source_counts,
)
from featurestore.training.spine import CHUNK_ROWS, SpineChunk
from featurestore.training.spine_table import check_input_types, load_chunk

TAG, COUNTS, SPINE = "__tag", "__counts", "__spine"
OF_SPINE, OF_COUNTS = -1, -2
"""Tags beside those of sources, which count from 0."""

BATCH_ROWS = 50_000

UNSIGNED = {"UTINYINT": "uint8", "USMALLINT": "uint16", "UINTEGER": "uint32"}
"""DuckDB types that some engines have none for: their values come in wider integers, and go back exactly."""


def table_column(number: int) -> str:
    """The column of the stream that holds a source's rows."""
    return f"__rows{number}"


def key_column(number: int) -> str:
    """The column of the stream that holds a part of the key."""
    return f"__key{number}"


@dataclass(frozen=True)
class TaskLimits:
    """What a task may take of the machine that it runs on. memory_limit: as DuckDB writes it. spill: a folder for the rest."""

    threads: int = 1
    memory_limit: str = "1GB"
    spill: str | None = None


def check_versions(wanted: Mapping[str, str]) -> None:
    """RuntimeError where a library that values pass through has another version here than this, which the driver has."""
    for name, there in wanted.items():
        try:
            here = version(name)
        except PackageNotFoundError:
            here = ""
        if here != there:
            has = f"has {name} {here}" if here else f"has no {name}"
            raise RuntimeError(f"A node {has}, and the driver has {there}: install the same on every node")


@lru_cache(maxsize=4)
def _instances(limits: TaskLimits) -> Instances:
    """Those of this process. To open one and to close it takes 24 ms of its processor, of which a cluster's worker has some for each task."""
    spill = None if limits.spill is None else Path(limits.spill)
    return Instances(memory_limit=limits.memory_limit, threads=limits.threads, spill=spill)


@contextmanager
def engine_of(limits: TaskLimits, forgotten: ForgottenKeys | None) -> Iterator[Offline]:
    """The offline store of a task, which knows no place of any source, and takes the instances that the process's tasks take in turn."""
    offline = Offline(Path(), instances=_instances(limits))
    offline.forgotten = lambda: forgotten
    try:
        yield offline
    finally:
        offline.logs.close()


@dataclass(frozen=True)
class AnswerTask:
    """Answers a step for the rows of a partition. sent: by source the rows that go to every partition. counted: the parts whose rows
    that cannot count are counted here."""

    step: Step
    sent: Mapping[str, pa.Table]
    counted: frozenset[str]
    options: Options
    now: int
    limits: TaskLimits
    forgotten: ForgottenKeys | None
    first: bool = True
    """Whether the rows of the spine are counted here."""

    statistics: TaskStatistics | None = None
    """What is gathered of the features. None: nothing is."""

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The rows of the spine with their features, and the counts."""
        tables, counts = _apart(batches, [SPINE, *(table_column(number) for number in range(len(self.step.routes)))])
        if tables is None:
            return
        spine, *given = tables
        schema = None
        rows = [restored_rows(route, table) for route, table in zip(self.step.routes, given, strict=True)]
        for found, own in self.answered(spine, rows):
            counts += own
            target = _plain(found)
            schema = target.schema
            yield from _with_counts(target, None).to_batches(max_chunksize=BATCH_ROWS)
        assert schema is not None
        yield from _counts_row(schema, counts).to_batches()

    def check_inputs(self, spine: pa.Schema) -> None:
        """SpineError where a column of the spine is of no type that an input takes, before any row is read."""
        with engine_of(self.limits, None) as offline, offline.session() as session:
            check_input_types(session.connection, spine, self.step.inputs, timezone=self.options.zone)

    def answered(self, spine: pa.Table, rows: Sequence[pa.Table]) -> Iterator[tuple[pa.Table, Counts]]:
        """The rows of the spine with their features, some at a time, and what was counted of them. rows: of each route, in the types
        of its files. There is a table even where the spine has no row."""
        given = {route.source.name: table for route, table in zip(self.step.routes, rows, strict=True)}
        with engine_of(self.limits, self.forgotten) as offline:
            for first in range(0, max(1, spine.num_rows), CHUNK_ROWS):
                found, counts = answer_rows(
                    self.step.service, {**self.sent, **given}, spine.slice(first, CHUNK_ROWS), offline=offline, now=self.now,
                    options=self.options, counted=() if first else self.counted,
                )  # fmt: skip
                if self.statistics is not None and found.num_rows:
                    counts = replace(counts, statistics=self.statistics.gathered(found))
                yield found, counts if self.first else replace(counts, rows=0)


@dataclass(frozen=True)
class IdentityTask:
    """Gives every version of a row to each key that any of them has. The rows come as they lie in the files."""

    route: Route
    limits: TaskLimits
    forgotten: ForgottenKeys | None

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The rows that have an identity, as often as it has keys, with the key that they go to; and the counts."""
        given = list(batches)
        if not given:
            return
        spread, counts = self.spread(pa.Table.from_batches(given))
        yield from _with_counts(spread, None).to_batches(max_chunksize=BATCH_ROWS)
        yield from _counts_row(spread.schema, counts).to_batches()

    def spread(self, table: pa.Table) -> tuple[pa.Table, Counts]:
        """The rows of a table that have an identity, as often as it has keys, with the key that they go to; and what was counted."""
        view, rows = self.route.view, restored_rows(self.route, table)
        with (
            engine_of(self.limits, self.forgotten) as offline,
            offline.session(rows={self.route.source.name: rows}) as session,
        ):
            counts = source_counts(session, self.route.parts)
            identified = " AND ".join(
                f"{cell(name)} IS NOT NULL" for name in view.source.identity
            )  # as every part's rows are read
            words = f"SELECT row, {key_list(view)}, row({identity_terms(view)}) AS identity FROM ({words_sql(view, session.scan(view.source))}) WHERE {identified}"
            sql = (
                f"WITH w AS ({words}), d AS (SELECT DISTINCT identity, {key_list(view)} FROM w WHERE {has_key(view)}) "
                f"SELECT w.row, {key_list(view, 'd')} FROM w JOIN d USING (identity)"
            )
            found: pa.Table = session.connection.sql(sql).to_arrow_table().combine_chunks()
        places = {key.column: f"k{number}" for number, key in enumerate(view.keys)}
        spread = table.take(found["row"].combine_chunks())
        for number, (column, of) in enumerate(self.route.keys):
            spread = spread.append_column(key_column(number), found[places[column]].cast(of.arrow))
        return spread, counts


@dataclass(frozen=True)
class FunctionTask:
    """Evaluates a service's on-demand features over the features that are there."""

    service: ResolvedService
    spine: tuple[str, ...]
    """The spine's own columns."""

    options: Options
    limits: TaskLimits
    statistics: TaskStatistics | None = None
    """What is gathered of the functions' columns. None: nothing is."""

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The rows with the functions' columns after the others, and the counts."""
        with engine_of(self.limits, None) as offline:
            for batch in batches:
                table = pa.Table.from_batches([batch])
                told = table.filter(pc.is_valid(table[COUNTS]))
                found = self.evaluated(table.filter(pc.is_null(table[COUNTS])), offline)
                rows, counts = _plain(found), self.counted(found)
                for name in rows.column_names[told.num_columns :]:
                    told = told.append_column(name, pa.nulls(told.num_rows, rows[name].type))
                told = pa.concat_tables([rows, told])
                if counts.statistics:
                    own = _counts_row(told.schema.remove(told.schema.get_field_index(COUNTS)), counts)
                    told = pa.concat_tables([told, own.select(told.column_names)])
                yield from batches_of_table(told)

    def counted(self, rows: pa.Table) -> Counts:
        """What is counted of rows with the functions' columns, beside what was before: what is gathered of these."""
        if self.statistics is None or not rows.num_rows:
            return Counts()
        made = [column.name for column in self.service.columns if column.on_demand is not None]
        return Counts(statistics=self.statistics.gathered(rows.select(made)))

    def evaluated(self, rows: pa.Table, offline: Offline) -> pa.Table:
        """Rows with the functions' columns after the others."""
        with offline.session() as session:
            chunk = SpineChunk(rows.select(list(self.spine)), 0)
            spine = load_chunk(
                session.connection, chunk, timestamp=self.options.timestamp, timezone=self.options.zone,
                inputs=self.service.inputs, from_pandas=False,
            )  # fmt: skip
            values = {
                part.name: PartValues(
                    {
                        part.column(feature.name): _typed(rows[part.column(feature.name)], feature.type.arrow)
                        for feature in part.features
                    },
                    {},
                    pa.nulls(0),
                )
                for part in self.service.parts
            }
            made = columns_of(self.service, values, spine, session.connection)
        for column in self.service.columns:
            if column.on_demand is not None:
                rows = rows.append_column(column.name, made[column.name])
        return rows


def restored_rows(route: Route, table: pa.Table) -> pa.Table:
    """A source's rows in the types of its files, where an engine has given them in wider ones; SourceError, with both types, where
    it gave others."""
    columns = []
    for name, raw in route.columns.items():
        column = table[name]
        if raw in UNSIGNED:
            column = _back(route, name, column, getattr(pa, UNSIGNED[raw])())
        elif raw == "BIGINT" and pa.types.is_decimal(column.type) and column.type.scale == 0:
            column = _back(route, name, column, pa.int64())
        columns.append(column)
    names = list(route.columns)
    if route.source.arrives:
        columns.append(table[ARRIVED])
        names.append(ARRIVED)
    restored = pa.table(columns, names=names)
    taken = taken_columns(restored)
    for place, (name, raw) in enumerate(route.columns.items()):
        found = taken[place][1] if place in taken else str(restored.schema.field(place).type)
        if found != raw:
            raise SourceError(
                f"{route.source.title}: column '{name}' comes as {said_type(found)}, and is {said_type(raw)} in its files. The engine that moves "
                f"the rows changes it; cast it in the data ({route.source.origin})"
            )
    return restored


def _back(route: Route, name: str, column: pa.ChunkedArray, to: pa.DataType) -> pa.ChunkedArray:
    try:
        return column.cast(to)
    except pa.ArrowInvalid as error:
        raise SourceError(
            f"{route.source.title}: column '{name}' holds what is no {to}: {error}; cast the column in the data ({route.source.origin})"
        ) from None


def _apart(batches: Iterator[pa.RecordBatch], names: list[str]) -> tuple[list[pa.Table] | None, Counts]:
    """The tables of a stream by their columns, and what steps before counted; None where the stream has no batch."""
    parts: list[list[pa.RecordBatch]] = [[] for _ in names]
    counts, is_begun = Counts(), False
    for batch in batches:
        tags = batch[TAG]
        for tag in tags.unique().to_pylist():
            chosen = pc.equal(tags, tag)
            if tag == OF_COUNTS:
                for text in batch[COUNTS].filter(chosen).to_pylist():
                    counts += Counts.of(orjson.loads(text))
            else:
                rows = batch[names[tag + 1]].filter(chosen)
                parts[tag + 1].append(pa.RecordBatch.from_struct_array(rows))
        if not is_begun:
            is_begun = True
            for part, name in zip(parts, names, strict=True):
                part.insert(0, pa.RecordBatch.from_struct_array(batch[name].slice(0, 0)))
    return ([pa.Table.from_batches(part) for part in parts] if is_begun else None), counts


def batches_of_table(table: pa.Table) -> list[pa.RecordBatch]:
    """The rows of a table in batches, of which there is at least one, that says the columns."""
    whole = table.combine_chunks()
    return whole.to_batches(max_chunksize=BATCH_ROWS) or [pa.RecordBatch.from_pylist([], whole.schema)]


def _plain(table: pa.Table) -> pa.Table:
    """A table in types that every engine has: lists for those of fixed length."""
    return pa.table([_listed(column) for column in table.columns], names=table.column_names)


def _listed(column: Any) -> Any:
    return column.cast(pa.list_(column.type.value_type)) if pa.types.is_fixed_size_list(column.type) else column


def _typed(column: pa.ChunkedArray, of: pa.DataType) -> pa.Array:
    """A column in its feature's type again."""
    whole = column.combine_chunks()
    whole = pa.concat_arrays(whole.chunks) if isinstance(whole, pa.ChunkedArray) else whole
    return whole if whole.type == of else whole.cast(of)


def _with_counts(table: pa.Table, text: str | None) -> pa.Table:
    return table.append_column(COUNTS, pa.array([text] * table.num_rows, pa.string()))


def _counts_row(schema: pa.Schema, counts: Counts) -> pa.Table:
    """One row that holds nothing but counts."""
    row = pa.table([pa.nulls(1, field.type) for field in schema], schema=schema)
    return _with_counts(row, orjson.dumps(counts.plain()).decode())
