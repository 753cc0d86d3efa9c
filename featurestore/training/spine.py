"""The spine: the keys and instants for which training asks, from every kind of frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featurestore.declare.frames import is_pandas, own_pandas, own_table, table_of
from featurestore.declare.sources import ParquetSource, is_url, no_path
from featurestore.durable.parquet import parquet_file
from featurestore.errors import SpineError
from featurestore.lazy import pa, pq
from featurestore.semantics.engine import batches_of, is_relation
from featurestore.sources.object_stores import ObjectStoreError, listed, readable
from featurestore.sources.source_files import PlaceError, files_below
from featurestore.sources.unreadable import no_parquet

CHUNK_ROWS = 2_000_000
"""Rows that are answered at once: what bounds the memory of a spine that is larger."""

READ_ROWS = 100_000
"""Rows that are read at once; a chunk ends with the batch that fills it."""


@dataclass(frozen=True)
class SpineChunk:
    """Some consecutive rows of a spine as Arrow, `first` being the number of the first one."""

    table: pa.Table
    first: int


def chunks_of(spine: Any, *, zone: str = "UTC") -> Iterator[SpineChunk]:
    """The spine in order, in chunks of their own: polars, Arrow, a Parquet path or a DuckDB relation; pandas where nobody
    else holds it, as `pandas_of` gives it. zone: as which naive timestamps are to be read."""
    if isinstance(spine, (str, Path)):
        problem = no_path(str(spine), remote=True)
        if problem is not None:
            raise SpineError(f"The spine's path: {problem}")
        yield from _chunks_of_reader(_stored_reader(str(spine)) if is_url(str(spine)) else _parquet_reader(Path(spine)))
        return
    if is_relation(spine):
        yield from _chunks_of_reader(batches_of(spine, min(READ_ROWS, CHUNK_ROWS)))
        return
    if isinstance(spine, pa.RecordBatchReader):
        yield from (SpineChunk(own_table(chunk.table), chunk.first) for chunk in _chunks_of_reader(spine))
        return
    if is_pandas(spine):
        _check_distinct([str(name) for name in spine.columns])
    try:
        table = table_of(spine, owned=True, zone=zone)
    except ValueError as error:
        raise SpineError(f"The spine cannot be read: {error}") from None
    except TypeError:
        raise SpineError(
            f"{type(spine).__name__} is no spine; pass a pandas, polars or Arrow frame, a Parquet path or a DuckDB relation"
        ) from None
    _check_distinct(table.column_names)
    for first in range(0, max(1, table.num_rows), CHUNK_ROWS):
        rows = table.slice(first, CHUNK_ROWS)
        yield SpineChunk(rows if is_pandas(spine) else own_table(rows), first)


def _parquet_reader(path: Path) -> pa.RecordBatchReader:
    """The rows of a file, or of the files below a folder, one after the other, with the names and types that they have."""
    if not path.exists():
        raise SpineError(f"The spine's file {path} does not exist")
    try:
        files = files_below(path) if path.is_dir() else [str(path)]
    except PlaceError as error:
        raise SpineError(f"The spine cannot be read: {error}") from None
    if not files:
        raise SpineError(f"The spine's folder {path} has no Parquet file")
    for file in files:
        if not Path(file).is_file():  # to open a pipe is to wait for whoever writes to it
            raise SpineError(f"The spine's file {file} cannot be read: it is no file")
    schema = _schema_of(files)
    return pa.RecordBatchReader.from_batches(schema, _batches(files, schema))


def _stored_reader(url: str) -> pa.RecordBatchReader:
    """The same of an object store."""
    try:
        _, stored = listed(url, ParquetSource.SUFFIXES)
    except ObjectStoreError as error:
        raise SpineError(f"The spine cannot be read: {error}") from error
    if not stored:
        raise SpineError(f"The spine cannot be read: there is no Parquet file at {url}")
    files = [file.url for file in stored]
    schema = _schema_of(files)
    return pa.RecordBatchReader.from_batches(schema, _batches(files, schema))


def _schema_of(files: Sequence[str]) -> pa.Schema:
    """The columns of the first file, which the others must have too; one that is all null in a file is no other type."""
    fields: dict[str, pa.Field] = {}
    where: dict[str, str] = {}
    for file in files:
        with _opened(file) as opened:
            schema = opened.schema_arrow
        _check_distinct(schema.names)
        odd = sorted({*fields} ^ {*schema.names}) if file != files[0] else []
        if odd:
            has = file if odd[0] in schema.names else files[0]
            raise SpineError(f"The spine's files differ: of {files[0]} and {file}, only {has} has a column '{odd[0]}'")
        for field in schema:
            known = fields.get(field.name)
            if known is None or pa.types.is_null(known.type):
                fields[field.name], where[field.name] = field.with_nullable(True), file
            elif field.type != known.type and not pa.types.is_null(field.type):
                raise SpineError(
                    f"The spine's files differ: column '{field.name}' is {known.type} in {where[field.name]} and {field.type} "
                    f"in {file}"
                )
    return pa.schema(list(fields.values()))


def _batches(files: Sequence[str], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for file in files:
        with _opened(file) as opened:
            try:
                for batch in opened.iter_batches(min(READ_ROWS, CHUNK_ROWS)):
                    yield batch.select(schema.names).cast(schema)
            except (pa.ArrowException, OSError) as error:
                raise SpineError(f"The spine cannot be read: {no_parquet(file, error)}") from error


def _opened(file: str) -> pq.ParquetFile:
    try:
        return parquet_file(readable(file))
    except (pa.ArrowException, OSError) as error:
        raise SpineError(f"The spine cannot be read: {no_parquet(file, error)}") from error


def _chunks_of_reader(reader: pa.RecordBatchReader) -> Iterator[SpineChunk]:
    _check_distinct(reader.schema.names)
    pending: list[pa.RecordBatch] = []
    rows = first = 0
    for batch in reader:
        pending.append(batch)
        rows += batch.num_rows
        if rows >= CHUNK_ROWS:
            yield _chunk(pa.Table.from_batches(pending), first)
            first, rows, pending = first + rows, 0, []
    if pending or not first:
        yield _chunk(pa.Table.from_batches(pending, reader.schema), first)


def _chunk(table: pa.Table, first: int) -> SpineChunk:
    try:
        return SpineChunk(table_of(table, owned=True), first)
    except ValueError as error:
        raise SpineError(f"The spine cannot be read, from row {first} on: {error}") from None


def _check_distinct(names: list[str]) -> None:
    """Refuse a spine that has a column twice."""
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise SpineError(f"The spine has a column '{twice[0]}' twice; rename or drop one of the two")


def pandas_of(spine: Any) -> Any:
    """The spine as it is now where it is a pandas frame, so that its index and dtypes come back untouched; else None."""
    return own_pandas(spine) if is_pandas(spine) else None


def stays(spine: Any) -> bool:
    """Whether a spine is sure to have the same rows when it is read again; those of a stream are gone by then."""
    kept = (str, Path, pa.Table, pa.RecordBatch)
    return isinstance(spine, kept) or is_pandas(spine) or type(spine).__module__.startswith("polars.dataframe")
