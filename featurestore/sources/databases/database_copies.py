"""Rows of databases, copied to Parquet files as they come: each file has those whose cursor is beyond that of the files before.

The files are never changed, so that the query, incremental runs and tiles take them for files that land. An index says which
there are; it is replaced last, so that of a copy that was killed nothing counts. Where there are many, the last ones become
one; those that were before stay a day, for who is reading them.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from featurestore.declare.database_source import DatabaseSource
from featurestore.durable.disk import replace, told
from featurestore.durable.lock import BusyError, exclusive
from featurestore.durable.own_folder import own_folder
from featurestore.errors import did_you_mean
from featurestore.lazy import pa, pq
from featurestore.sources.copies import KEPT_SECONDS, write_parquet
from featurestore.sources.databases.connections import (
    DatabaseConnection,
    DatabaseKind,
    connected,
    database_of,
    literal,
    place,
    quoted,
)
from featurestore.sources.databases.database_overlap import begin_of, unseen
from featurestore.sources.source_files import source_error

INDEX = "index.json"
WAIT_SECONDS = 600.0
"""How long another process may copy before one gives up waiting for it."""

MANY_FILES = 48
"""How many files there are before the last ones become one; a list of files of which each has more rows than all after it is
shorter."""

ROW_GROUP_ROWS = 1 << 17


class CopyIndex(NamedTuple):
    """Which files of a folder have a source's rows. files: in their order. upto: the greatest cursor, as SQL. next: the number
    of the next file. replaced: files that others have taken the place of, and when (s since the epoch)."""

    files: tuple[str, ...] = ()
    upto: str | None = None
    next: int = 0
    replaced: tuple[tuple[str, float], ...] = ()


def copied_files(source: DatabaseSource, folder: Path, databases: Mapping[str, str]) -> dict[str, str]:
    """The files of a source's rows, with those that came since the last call: by path the name. Raises SourceError."""
    url = databases.get(source.database)
    if url is None:
        raise source_error(
            source,
            f"[databases] of featurestore.toml has no '{source.database}'; say {source.database} = \"postgresql://…\" there."
            f"{did_you_mean(source.database, databases, noun='Databases')}",
        )
    within = folder / _digest([*place(url), source.table, source.query, source.cursor])
    own_folder(within)
    try:
        with exclusive(within / "lock", doing=f"copying {source.title}", wait_seconds=WAIT_SECONDS):
            index = _index(within)
            with connected(source, url) as connection:
                index = _take_new(source, connection, database_of(source, url), within, index)
            if len(index.files) > MANY_FILES:
                index = _merged(within, index)
            _remove_replaced(within, index)
    except BusyError as error:
        raise source_error(source, f"its rows are being copied: {error}") from error
    except OSError as error:
        raise source_error(source, f"its rows cannot be copied: {told(error, within)}") from error
    return {str(within / name): name for name in index.files}


def _digest(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value).encode(), digest_size=12).hexdigest()


def _index(folder: Path) -> CopyIndex:
    try:
        found: dict[str, Any] = json.loads((folder / INDEX).read_text())
    except FileNotFoundError:
        return CopyIndex()
    replaced = tuple((str(name), float(at)) for name, at in found.get("replaced", ()))
    return CopyIndex(tuple(found["files"]), found["upto"], found.get("next", len(found["files"])), replaced)


def _put(folder: Path, index: CopyIndex) -> CopyIndex:
    replace(folder / INDEX, json.dumps(index._asdict()).encode())
    return index


def new_rows(source: DatabaseSource, of: DatabaseKind, after: str | None) -> tuple[str, str]:
    """Two queries of the rows beyond a cursor: of the greatest cursor, and of the rows up to what is put in its place."""
    rows, cursor = _rows_and_cursor(source, of)
    beyond = "" if after is None else f" WHERE {cursor} > {after}"
    upto = f"{beyond} AND {cursor} <= " if beyond else f" WHERE {cursor} <= "
    return f"SELECT max({cursor}) AS c FROM {rows} AS r{beyond}", f"SELECT * FROM {rows} AS r{upto}"


def rows_without_cursor(source: DatabaseSource, of: DatabaseKind) -> str:
    """A query of how many rows have none."""
    rows, cursor = _rows_and_cursor(source, of)
    return f"SELECT count(*) AS c FROM {rows} AS r WHERE {cursor} IS NULL"


def _rows_and_cursor(source: DatabaseSource, of: DatabaseKind) -> tuple[str, str]:
    # The query ends on a line of its own, as it may end in a comment. SQLite takes a quoted name of no column, alone, for text.
    rows = f"({source.query.strip().rstrip(';')}\n)" if source.query else quoted(of, source.table or "")
    return rows, f"r.{quoted(of, source.cursor)}"


def _take_new(
    source: DatabaseSource, connection: DatabaseConnection, of: DatabaseKind, folder: Path, index: CopyIndex
) -> CopyIndex:
    """Copy the rows beyond the index's cursor, and say so in it."""
    copied, begin, after = [folder / one for one in index.files], None, index.upto
    if source.overlap and index.upto is not None:
        begin = begin_of(source, index.upto, copied[-1])
        after = literal(of, source, begin)
    greatest, rows = new_rows(source, of, after)
    newest = _one(source, connection, greatest)
    if index.upto is None and (without := _one(source, connection, rows_without_cursor(source, of))):
        raise source_error(
            source,
            f"of its rows {without} have no cursor '{source.cursor}', and would never be seen; leave them out in a query",
        )
    if newest is None:
        return index
    upto = literal(of, source, newest)
    name = f"{index.next:06}.parquet"
    with connection.rows(f"{rows}{upto}") as reader:
        batches = iter(reader) if begin is None else unseen(source, begin, copied, reader)
        first = next(batches, None)
        if first is None:
            return index
        try:
            write_parquet(folder / name, reader.schema, chain([first], batches))
        except pa.ArrowException as error:
            raise source_error(source, f"its rows cannot be copied: {' '.join(str(error).split())}") from error
    return _put(folder, index._replace(files=(*index.files, name), upto=upto, next=index.next + 1))


def _one(source: DatabaseSource, connection: DatabaseConnection, sql: str) -> Any:
    """The one value that a query gives."""
    with connection.rows(sql) as reader:
        value = reader.read_all().column(0)[0]
    try:
        return value.as_py()
    except (OverflowError, ValueError):  # of times that Python has not
        raise source_error(
            source,
            f"its greatest cursor '{source.cursor}' lies outside the years 1 to 9999; leave such rows out in a query",
        ) from None


def _merged(folder: Path, index: CopyIndex) -> CopyIndex:
    """Make one file of the last ones: of all from the first on that has no more rows than those after it together."""
    opened = [pq.ParquetFile(folder / name) for name in index.files]
    try:
        counts = [file.metadata.num_rows for file in opened]
        first = next((n for n, count in enumerate(counts) if count <= sum(counts[n + 1 :])), len(counts))
        kept, gone, number = list(index.files[:first]), [], index.next
        for places, schema in _runs([file.schema_arrow for file in opened], first):
            names = [index.files[n] for n in places]
            if len(names) > 1:
                name, number = f"{number:06}.parquet", number + 1
                _merge([opened[n] for n in places], schema, [folder / one for one in names], folder / name)
                gone += [(one, time.time()) for one in names]
                names = [name]
            kept += names
    finally:
        for file in opened:
            file.close()
    return _put(folder, index._replace(files=tuple(kept), next=number, replaced=(*index.replaced, *gone)))


def _runs(schemas: Sequence[pa.Schema], first: int) -> list[tuple[list[int], pa.Schema]]:
    """The places from the first on, parted where a column came, went or changed its type; each with the columns that its files
    have. One that is without a type, as all its values are null, is as that of the others."""
    runs: list[tuple[list[int], pa.Schema]] = []
    for number in range(first, len(schemas)):
        schema = schemas[number]
        joint = _joint(runs[-1][1], schema) if runs else None
        if joint is None:
            runs.append(([number], schema))
        else:
            runs[-1] = ([*runs[-1][0], number], joint)
    return runs


def _joint(one: pa.Schema, other: pa.Schema) -> pa.Schema | None:
    if one.names != other.names:
        return None
    fields = []
    for field, beside in zip(one, other, strict=True):
        if field.type != beside.type and not (pa.types.is_null(field.type) or pa.types.is_null(beside.type)):
            return None
        fields.append(beside if pa.types.is_null(field.type) else field)
    return pa.schema(fields)


def _merge(files: Sequence[pq.ParquetFile], schema: pa.Schema, paths: Sequence[Path], made: Path) -> None:
    write_parquet(made, schema, _rows(files, schema))
    assert pq.read_metadata(made).num_rows == sum(file.metadata.num_rows for file in files)
    newest = max(path.stat().st_mtime_ns for path in paths)
    os.utime(made, ns=(newest, newest))  # its rows did not come now


def _rows(files: Sequence[pq.ParquetFile], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for file in files:
        for batch in file.iter_batches(ROW_GROUP_ROWS):
            columns = zip(batch.columns, schema.types, strict=True)
            arrays = [pa.nulls(len(c), of) if pa.types.is_null(c.type) else c for c, of in columns]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _remove_replaced(folder: Path, index: CopyIndex) -> None:
    """Remove what was replaced a day ago, and what killed processes left: nobody else writes."""
    before = time.time() - KEPT_SECONDS
    kept = tuple((name, at) for name, at in index.replaced if at >= before)
    wanted = {*index.files, *(name for name, _ in kept)}
    left = [path for path in folder.iterdir() if path.suffix in {".parquet", ".partial"} and path.name not in wanted]
    for path in left:
        with suppress(OSError):
            path.unlink()
    if kept != index.replaced:
        _put(folder, index._replace(replaced=kept))
