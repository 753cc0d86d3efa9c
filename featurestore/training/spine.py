"""The spine: the keys and instants for which training asks, from every kind of frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

from featurestore.declare.frames import is_pandas, own_pandas, own_table, table_of
from featurestore.declare.sources import ParquetSource, is_url, no_path
from featurestore.durable.parquet import parquet_file
from featurestore.errors import SpineError
from featurestore.lazy import pa, pq
from featurestore.semantics.engine import batches_of, is_relation
from featurestore.sources.object_stores import ObjectStoreError, listed, looked_at, readable
from featurestore.sources.source_files import PlaceError, files_below
from featurestore.sources.unreadable import no_parquet

CHUNK_ROWS = 2_000_000
"""Rows that are answered at once: what bounds the memory of a spine that is larger."""

READ_ROWS = 100_000
"""Rows that are read at once; a chunk ends with the batch that fills it."""

ENGINES = {"pyspark": "SparkEngine(store, spine.sparkSession)", "ray": "RayEngine(store)"}
"""By the library that holds a spine elsewhere: what answers it there."""


@dataclass(frozen=True)
class SpineChunk:
    """Some consecutive rows of a spine as Arrow, `first` being the number of the first one."""

    table: pa.Table
    first: int


class SpineFile(NamedTuple):
    """A Parquet file of a spine as it was found."""

    path: str
    size: int
    """Bytes."""

    modified: int
    """ns since the epoch."""

    rows: int


@dataclass(frozen=True)
class SpineFiles:
    """The Parquet files of a spine, of which any rows can be read without those before them."""

    files: tuple[SpineFile, ...]
    schema: pa.Schema

    @classmethod
    def of(cls, path: str | Path) -> Self:
        """Those of a file, a folder or a URL, as they are now. Raises SpineError."""
        paths = _files_of(path)
        schema = _schema_of(paths)
        return cls(tuple(_found(each) for each in paths), schema)

    @property
    def rows(self) -> int:
        """How many rows all have."""
        return sum(file.rows for file in self.files)

    def read(self, first: int, count: int) -> pa.Table:
        """Some consecutive rows. SpineError where a file that has some of them is not as it was found."""
        found: list[pa.RecordBatch] = []
        for file in self.files:
            if first < file.rows and count > 0:
                if _found(file.path) != file:
                    raise SpineError(f"The spine's file {file.path} changed while it was read; ask again")
                taken = min(count, file.rows - first)
                found += _rows_of(file.path, self.schema, first, taken)
                first, count = 0, count - taken
            else:
                first = max(0, first - file.rows)
        return pa.Table.from_batches(found, self.schema)


class SpineRows(NamedTuple):
    """Some rows of a spine, which are read when they are asked for; `first` is the number of the first one."""

    read: Callable[[], pa.Table]
    first: int


def chunks_of(spine: Any, *, zone: str = "UTC") -> Iterator[SpineChunk]:
    """The spine in order, in chunks of their own: polars, Arrow, a Parquet path or a DuckDB relation; pandas where nobody
    else holds it, as `pandas_of` gives it. zone: as which naive timestamps are to be read."""
    if isinstance(spine, (str, Path)):
        files = _files_of(spine)
        schema = _schema_of(files)
        yield from _chunks_of_reader(pa.RecordBatchReader.from_batches(schema, _batches(files, schema)))
        return
    if isinstance(spine, SpineRows):
        table = spine.read()
        for first in range(0, max(1, table.num_rows), CHUNK_ROWS):
            yield _chunk(table.slice(first, CHUNK_ROWS), spine.first + first)
        return
    if is_relation(spine):
        yield from _chunks_of_reader(batches_of(spine, min(READ_ROWS, CHUNK_ROWS)))
        return
    if isinstance(spine, pa.RecordBatchReader):
        yield from (SpineChunk(own_table(chunk.table), chunk.first) for chunk in _chunks_of_reader(spine))
        return
    elsewhere = ENGINES.get(type(spine).__module__.partition(".")[0])
    if elsewhere is not None:
        raise SpineError(
            f"{type(spine).__name__} of {type(spine).__module__} is no spine of this process: {elsewhere}.get_historical_features answers "
            "it where it lies; where it is small, pass it as a pandas or Arrow frame"
        )
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


def _files_of(spine: str | Path) -> list[str]:
    """The Parquet files of a spine that is a file, a folder or a URL, in order."""
    problem = no_path(str(spine), remote=True)
    if problem is not None:
        raise SpineError(f"The spine's path: {problem}")
    return _stored_files(str(spine)) if is_url(str(spine)) else _local_files(Path(spine))


def _local_files(path: Path) -> list[str]:
    if not path.exists():
        raise SpineError(f"The spine's file {path} does not exist")
    try:
        files = files_below(path) if path.is_dir() else [str(path)]
    except PlaceError as error:
        raise SpineError(f"The spine cannot be read: {error}") from None
    if not files:
        raise SpineError(f"The spine's folder {path} has no Parquet file")
    for file in files:
        if not Path(file).is_file():  # to open a pipe is to wait for its writer
            raise SpineError(f"The spine's file {file} cannot be read: it is no file")
    return files


def _stored_files(url: str) -> list[str]:
    try:
        _, stored = listed(url, ParquetSource.SUFFIXES)
    except ObjectStoreError as error:
        raise SpineError(f"The spine cannot be read: {error}") from error
    if not stored:
        raise SpineError(f"The spine cannot be read: there is no Parquet file at {url}")
    return [file.url for file in stored]


def _found(path: str) -> SpineFile:
    """A file as it is now. Raises SpineError."""
    try:
        if is_url(path):
            (stored,) = looked_at([path])
            if stored is None:
                raise SpineError(f"The spine's file {path} does not exist")
            size, modified = stored.size, stored.modified
        else:
            there = Path(path).stat()
            size, modified = there.st_size, there.st_mtime_ns
    except (ObjectStoreError, OSError) as error:
        raise SpineError(f"The spine cannot be read: {error}") from error
    with _opened(path) as opened:
        return SpineFile(path, size, modified, opened.metadata.num_rows)


def _rows_of(file: str, schema: pa.Schema, first: int, count: int) -> list[pa.RecordBatch]:
    """Some consecutive rows of a file, of which the row groups are read that have some of them."""
    with _opened(file) as opened:
        groups: list[int] = []
        begin = skipped = 0
        for number in range(opened.num_row_groups):
            end = begin + opened.metadata.row_group(number).num_rows
            if begin < first + count and end > first:
                skipped = begin if not groups else skipped
                groups.append(number)
            begin = end
        try:
            table = opened.read_row_groups(groups).slice(first - skipped, count)
        except (pa.ArrowException, OSError) as error:
            raise SpineError(f"The spine cannot be read: {no_parquet(file, error)}") from error
        return list(table.select(schema.names).cast(schema).to_batches())


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
