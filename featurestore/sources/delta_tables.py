"""The files of a Delta Lake table: what its log says of a version, read by the `deltalake` library."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from featurestore.declare.delta_source import DeltaSource
from featurestore.declare.sources import OBJECT_STORES, is_url
from featurestore.durable.parquet import parquet_file
from featurestore.errors import SourceError
from featurestore.lazy import pa, pq
from featurestore.semantics.columns import type_of_arrow
from featurestore.sources import object_stores
from featurestore.sources.copies import Batches
from featurestore.sources.object_stores import readable
from featurestore.sources.partitions import NULL, partition_type
from featurestore.sources.source_files import SourceFile, source_error

if TYPE_CHECKING:
    from deltalake import DeltaTable

LOG = "_delta_log"
MAPPING = "delta.columnMapping.mode"
PHYSICAL, NUMBER = "delta.columnMapping.physicalName", "delta.columnMapping.id"
FIELD_ID = b"PARQUET:field_id"
PARTITION = "partition."
"""How the library begins the names of the columns of a file's partition values."""


class DeltaFile(NamedTuple):
    """A data file of a table, and how its rows are read."""

    file: SourceFile
    read_as: Any
    """What of it counts, and under which names, as plain JSON. None: it is read as it is."""
    rows: Callable[[], Batches]
    """Reads what counts."""


class DeltaVersion(NamedTuple):
    """The files of one version of a table."""

    version: int
    files: list[DeltaFile]


class DeltaTables:
    """Reads the logs of tables; one in which nothing changed is read once. Safe to use from several threads."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Any, DeltaVersion]] = {}

    def version(self, source: DeltaSource, place: str) -> DeltaVersion:
        """What counts of the table in a folder, or below a URL. Raises SourceError where there is none, or where it is kept in a way
        that is not read."""
        key = (place, source.table_version, repr(source.partitions), _log_state(source, place))
        known = self._known.get(source.name)
        if known is None or known[0] != key:
            known = self._known[source.name] = key, _version(source, place)
        return known[1]


def _log_state(source: DeltaSource, place: str) -> Any:
    """What a log is as it lies there: another one where anything was committed, or the table made anew."""
    if is_url(place):
        try:
            return object_stores.entries(f"{place}/{LOG}")
        except object_stores.ObjectStoreError as error:
            raise source_error(source, str(error)) from error
    try:
        with os.scandir(Path(place, LOG)) as entries:
            return sorted((entry.name, entry.stat().st_size, entry.stat().st_mtime_ns) for entry in entries)
    except OSError:
        return None


def _version(source: DeltaSource, place: str) -> DeltaVersion:
    table = _table(source, place)
    _check_partitions(source, table)
    columns = _columns(source, table)
    adds = pa.table(table.get_add_actions(flatten=True)).to_pylist()
    left = pa.table(table.deletion_vectors()).to_pylist()
    kept = {_path(source, place, row["filepath"]): row["selection_vector"] for row in left}
    paths = {_path(source, place, add["path"]): add for add in adds}
    if unknown := kept.keys() - paths.keys():
        raise source_error(source, f"{place} has deletions of {min(unknown)}, which is none of its files")
    files = []
    for path, add in sorted(paths.items()):
        file = SourceFile(path, add["size_bytes"], add["modification_time"] * 1_000_000, _name(add))
        words = {"left": kept.get(path), "columns": columns}
        read_as = {word: said for word, said in words.items() if said is not None} or None
        files.append(DeltaFile(file, read_as, partial(rows_left, path, kept.get(path, []), columns)))
    return DeltaVersion(table.version(), files)


def _table(source: DeltaSource, place: str) -> DeltaTable:
    try:
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError, TableNotFoundError
    except ModuleNotFoundError as error:
        raise SourceError(
            f"{source.title} takes the library deltalake: pip install 'featurestore[delta]' ({source.origin})"
        ) from error
    try:
        return DeltaTable(place, version=source.table_version, storage_options=_options(place))
    except TableNotFoundError:
        raise source_error(source, f"there is no Delta table in {place}") from None
    except (DeltaError, OSError, ValueError) as error:
        which = "" if source.table_version is None else f", version {source.table_version},"
        raise source_error(source, f"the Delta table {place}{which} cannot be read: {error}") from error


def _options(place: str) -> dict[str, str] | None:
    """What the library is told of a store beside what it reads of the environment itself, where Arrow reads more there."""
    scheme = place.partition("://")[0]
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if scheme == "s3" and endpoint is not None:
        return {"AWS_ENDPOINT_URL": endpoint, "AWS_ALLOW_HTTP": str(endpoint.startswith("http://")).lower()}
    account = os.environ.get("AZURE_STORAGE_ACCOUNT")
    return {"azure_storage_account_name": account} if scheme == "az" and account is not None else None


def _columns(source: DeltaSource, table: DeltaTable) -> dict[str, str] | None:
    """Of a table whose files name columns otherwise, as what they are read: name or id in a file → name in the table; None of
    another."""
    mode = table.metadata().configuration.get(MAPPING, "none")
    if mode == "none":
        return None
    if mode not in {"name", "id"}:
        raise source_error(source, f"its table has {MAPPING} = {mode}, which is not known")
    fields = json.loads(table.schema().to_json())["fields"]
    return {str(_physical(source, field, mode)): field["name"] for field in fields if _is_read(field["type"])}


def _physical(source: DeltaSource, field: Mapping[str, Any], mode: str) -> Any:
    word = PHYSICAL if mode == "name" else NUMBER
    if word not in field["metadata"]:
        raise source_error(
            source, f"its table has {MAPPING} = {mode}, and does not say {word} of column '{field['name']}'"
        )
    return field["metadata"][word]


def _is_read(of: Any) -> bool:
    """Whether a column's type has no fields within it, which files would name otherwise too."""
    return isinstance(of, str) or (of["type"] == "array" and _is_read(of["elementType"]))


def _check_partitions(source: DeltaSource, table: DeltaTable) -> None:
    """SourceError where a partition is read as another type than the table has it."""
    types = {field.name: field.type for field in pa.schema(table.schema().to_arrow())}
    for name in table.metadata().partition_columns:
        own, read = type_of_arrow(types[name]), partition_type(source, name)
        if name in source.partitions and source.partitions[name] is None:
            continue
        if own != read:
            raise source_error(
                source,
                f"its partition '{name}' is {own or types[name]} in the table; say partitions={{{name!r}: {own}}}",
            )


def _path(source: DeltaSource, place: str, told: str) -> str:
    """A file as the log names it: percent-encoded, below the table's folder, or elsewhere as a URL."""
    parts = urlsplit(told)
    name = unquote(parts.path)
    if not parts.scheme:
        path = f"{place}/{name}" if is_url(place) else str(Path(place) / name)
    elif parts.scheme == "file" and not is_url(place):
        path = name
    elif parts.scheme.removesuffix("a") in OBJECT_STORES:
        path = f"{parts.scheme.removesuffix('a')}://{parts.netloc}{name}"
    else:
        raise source_error(source, f"{place} has files elsewhere, {told}, which cannot be read")
    if is_url(path) and any(sign in path for sign in "*?["):
        raise source_error(source, f"{path} has one of * ? [ in its name, which the engine takes for a pattern")
    return path


def _name(add: Mapping[str, Any]) -> str:
    folders = [
        f"{quote(name.removeprefix(PARTITION), safe='')}={_text(value)}"
        for name, value in add.items()
        if name.startswith(PARTITION)
    ]
    return "/".join([*folders, add["path"].rpartition("/")[2]])


def _text(value: Any) -> str:
    """A partition's value as the name of a folder says it."""
    if value is None:
        return NULL
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (date, datetime)):
        return quote(value.isoformat(), safe="")
    return quote(str(value), safe="")


def rows_left(path: str, kept: Sequence[bool], columns: Mapping[str, str] | None) -> Batches:
    """The rows of a file that were not deleted, in their order. kept: which of the first are left; rows beyond it are. columns:
    those that are read, as the table names them, by their names or ids in the file; None: all, as they are."""
    file = parquet_file(readable(path))
    schema = file.schema_arrow
    names = None if columns is None else _named(schema, columns)
    if names is not None:
        schema = pa.schema([schema.field(own).with_name(name) for own, name in names.items()])
    return schema, _rows_left(file, kept, names, schema)


def _named(schema: pa.Schema, columns: Mapping[str, str]) -> dict[str, str]:
    """The columns of a file that the table has: name in the file → name in the table."""
    numbers = {field.name: (field.metadata or {}).get(FIELD_ID, b"").decode() for field in schema}
    by_id = all(key.isdigit() for key in columns)
    found = {own: columns.get(number if by_id else own) for own, number in numbers.items()}
    return {own: name for own, name in found.items() if name is not None}


def _rows_left(
    file: pq.ParquetFile, kept: Sequence[bool], names: Mapping[str, str] | None, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    first = 0
    with file:
        for batch in file.iter_batches(columns=None if names is None else list(names)):
            said = kept[first : first + batch.num_rows]
            first += batch.num_rows
            arrays = batch.columns if names is None else [batch.column(own) for own in names]
            whole = pa.RecordBatch.from_arrays(arrays, schema=schema)
            yield whole.filter(pa.array([*said, *[True] * (batch.num_rows - len(said))], pa.bool_()))
