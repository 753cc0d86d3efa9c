"""The files of a Delta Lake table: what its log says of a version, read by the `deltalake` library."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from featurestore.declare.delta_source import DeltaSource
from featurestore.declare.sources import OBJECT_STORES, is_url
from featurestore.durable.parquet import filterable, filterable_schema, parquet_file
from featurestore.errors import SourceError
from featurestore.lazy import pa, pc, pq
from featurestore.semantics.columns import type_of_arrow
from featurestore.sources import object_stores
from featurestore.sources.copies import Batches
from featurestore.sources.object_stores import readable
from featurestore.sources.partitions import NULL, partition_type
from featurestore.sources.source_files import SourceFile, source_error
from featurestore.sources.tables.table_files import (
    Commit,
    Originals,
    TableCopies,
    TableFile,
    TableState,
    arrivals,
    without_unchanging,
)

if TYPE_CHECKING:
    from deltalake import DeltaTable

LOG = "_delta_log"
COMMIT = re.compile(r"\d{20}\.json")
CHECKPOINT = re.compile(r"(\d{20})\.checkpoint.*\.parquet")
MAPPING = "delta.columnMapping.mode"
PHYSICAL, NUMBER = "delta.columnMapping.physicalName", "delta.columnMapping.id"
FIELD_ID = b"PARQUET:field_id"
CHANGE = "_change_type"
"""The column of a file of changed rows that says how each was changed."""
INSERTED, DELETED = ("insert", "update_postimage"), ("delete", "update_preimage")
ZONED = re.compile(r"(Z|[+-]\d\d:?\d\d)$")
PARTITION = "partition."
"""How the library begins the names of the columns of a file's partition values."""


class DeltaTables:
    """Reads the logs of tables; one in which nothing changed is read once. Safe to use from several threads."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Any, TableState]] = {}
        self._commits: dict[tuple[str, Any], Commit] = {}
        self._before: dict[tuple[str, str, Any, str], dict[str, TableFile]] = {}

    def state(self, source: DeltaSource, place: str, kept: TableCopies) -> TableState:
        """What counts of the table in a folder, or below a URL.

        Raises SourceError where there is none, or where it is kept in a way that is not read.
        """
        log = _log_state(source, place)
        key = (place, source.table_version, source.arrives, repr(source.partitions), log)
        known = self._known.get(source.name)
        if known is None or known[0] != key:
            table = _table(source, place, source.table_version)
            columns = _columns(source, table)
            found = _state(source, place, table, columns)
            if source.arrives:
                found = self._arriving(source, place, table, found, columns, kept)
            known = self._known[source.name] = key, found
        return known[1]

    def _arriving(
        self, source: DeltaSource, place: str, table: DeltaTable, newest: TableState, columns: dict[str, str] | None,
        kept: TableCopies,
    ) -> TableState:  # fmt: skip
        """A table whose rows are known from when they came, with what was there before it was compacted."""
        assert newest.number is not None
        # Listed after the table was: it may have been committed to meanwhile.
        log = _log_state(source, place) or ()
        entries = {int(entry[0][:20]): entry for entry in log if COMMIT.fullmatch(entry[0])}
        checkpoints = {int(match[1]) for entry in log if (match := CHECKPOINT.fullmatch(entry[0]))}
        first = newest.number + 1
        while first - 1 in entries:
            first -= 1
        if first > newest.number:
            raise source_error(
                source,
                f"the log of {place} has no commit of version {newest.number} any more, so when its rows came is not known",
            )
        shape = _LoggedColumns.of(table, is_mapped=columns is not None)
        commits = [self._commit(source, place, entries[number], shape) for number in range(first, newest.number + 1)]

        def before(commit: Commit) -> dict[str, TableFile]:
            if first and not any(first - 1 <= number < commit.number for number in checkpoints):
                return {}  # what it takes to know that version is cleaned up
            key = (place, newest.table, entries[commit.number], repr(columns))
            if key not in self._before:
                earlier = _state(source, place, _table(source, place, commit.number - 1), columns)
                removed = [one._replace(as_is=False) for one in earlier.files if one.file.path in commit.removes]
                self._before[key] = {one.file.path: one for one in removed}
            return self._before[key]

        def exists(one: TableFile) -> bool:
            return _exists(source, one.file.path)

        def is_unchanged(commit: Commit) -> bool:
            if shape.is_mapped:
                return False
            earlier = before(commit)
            if not commit.replaced <= earlier.keys():
                return False
            written = _state(source, place, _table(source, place, commit.number), columns).files
            written = [one for one in written if one.file.path in commit.adds]
            try:
                return kept.are_same(newest.table, list(earlier.values()), written, exists)
            except OSError as error:
                raise source_error(
                    source, f"what {commit.title} of its table wrote cannot be compared with what it replaced: {error}"
                ) from error

        there = {one.file.path: one for one in newest.files}
        commits = without_unchanging(commits, there, is_unchanged)
        files, stand_ins = Originals(before, partial(kept.has_copy, newest.table), exists).read_instead(commits, there)
        return newest._replace(files=list(files.values()), came=arrivals(commits, files), stand_ins=tuple(stand_ins))

    def _commit(self, source: DeltaSource, place: str, entry: tuple[str, int, int], shape: _LoggedColumns) -> Commit:
        known = self._commits.get((place, entry))
        if known is None:
            known = self._commits[place, entry] = _read_commit(source, place, entry, shape)
        return known


class _LoggedColumns(NamedTuple):
    """What of a table's columns matters to what its log says of commits."""

    partitions: dict[str, pa.DataType]
    """The types of the columns that it is partitioned by, in their order."""
    others: frozenset[str]
    """The names of its other columns."""
    is_mapped: bool
    """Whether its files name columns otherwise: then partitions are not told apart, and what it says of changed rows is not read."""

    @classmethod
    def of(cls, table: DeltaTable, *, is_mapped: bool) -> _LoggedColumns:
        types = {field.name: field.type for field in pa.schema(table.schema().to_arrow())}
        partitions = {name: types[name] for name in table.metadata().partition_columns}
        return cls(partitions, frozenset(types.keys() - partitions), is_mapped)

    def partition(self, said: Mapping[str, Any]) -> str:
        """The partition of a file, as `_name` begins with it. said: an action that names it."""
        if self.is_mapped:
            return ""
        values = {
            PARTITION + name: _typed(said["partitionValues"].get(name), of) for name, of in self.partitions.items()
        }
        return _name({**values, "path": ""}).removesuffix("/")

    def keeps_rows(self, predicate: str) -> bool:
        """Whether what is overwritten where this holds may leave rows of a file, which are then written anew: where it is about a column
        that is no partition."""
        said = re.sub("'[^']*'", "''", predicate)
        return any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", said, re.IGNORECASE) for name in self.others)


def _read_commit(source: DeltaSource, place: str, entry: tuple[str, int, int], shape: _LoggedColumns) -> Commit:
    """What an entry of a log says: its name, size and ns of modification."""
    name, _, modified = entry
    path = f"{place}/{LOG}/{name}"
    try:
        with readable(path) if is_url(path) else Path(path).open("rb") as file:
            actions = [json.loads(line) for line in file.read().splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise source_error(source, f"{path} cannot be read: {error}") from error
    kinds = ("add", "remove", "commitInfo", "cdc")
    said = {kind: [action[kind] for action in actions if action.get(kind)] for kind in kinds}
    info = said["commitInfo"][0] if said["commitInfo"] else {}
    at_ms = int(info.get("inCommitTimestamp") or info.get("timestamp") or modified // 1_000_000)
    operation, options = str(info.get("operation", "unknown")), info.get("operationParameters", {})
    overwrites = options.get("mode") == "Overwrite" and not shape.keeps_rows(str(options.get("predicate", "")))
    feed = [] if shape.is_mapped else said["cdc"]
    paths = [_path(source, place, one["path"]) for one in said["add"]]
    return Commit(
        int(name[:20]), at_ms * 1000, f"version {int(name[:20])} ({operation})",
        frozenset(paths), frozenset(_path(source, place, one["path"]) for one in said["remove"]),
        changes=any(one.get("dataChange", True) for one in (*said["add"], *said["remove"])),
        replaces=overwrites or "REPLACE TABLE" in operation,
        inserted=tuple(_changed(source, place, one, shape, at_ms, INSERTED) for one in feed if operation != "DELETE"),
        deleted=tuple(_changed(source, place, one, shape, at_ms, DELETED) for one in feed),
        partitions={path: shape.partition(one) for path, one in zip(paths, said["add"], strict=True)},
    )  # fmt: skip


def _changed(
    source: DeltaSource, place: str, said: Mapping[str, Any], shape: _LoggedColumns, at_ms: int, kinds: tuple[str, ...]
) -> TableFile:
    """The rows that a commit changed in some ways, as a file of them that it names."""
    path, partition = _path(source, place, said["path"]), shape.partition(said)
    file = SourceFile(path, said["size"], at_ms * 1_000_000, f"{partition}/{path.rpartition('/')[2]}".lstrip("/"))
    state = {"path": path, "changed": kinds}
    return TableFile(file, state, partial(changed_rows, path, kinds), as_is=False, partition=partition)


def _typed(text: str | None, of: pa.DataType) -> Any:
    """The value of a partition, which a log writes as text."""
    if not text:
        return None
    if pa.types.is_timestamp(of) and of.tz is not None and not ZONED.search(text):
        text += "Z"
    return pa.scalar(text).cast(of).as_py()


def _exists(source: DeltaSource, path: str) -> bool:
    if not is_url(path):
        return Path(path).is_file()
    try:
        return object_stores.looked_at([path]) != [None]
    except object_stores.ObjectStoreError as error:
        raise source_error(source, str(error)) from error


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


def _state(source: DeltaSource, place: str, table: DeltaTable, columns: dict[str, str] | None) -> TableState:
    """The files of a version. columns: as what those of its files are read, where they name them otherwise."""
    _check_partitions(source, table)
    adds = pa.table(table.get_add_actions(flatten=True)).to_pylist()
    left = pa.table(table.deletion_vectors()).to_pylist()
    kept = {_path(source, place, row["filepath"]): row["selection_vector"] for row in left}
    paths = {_path(source, place, add["path"]): add for add in adds}
    if unknown := kept.keys() - paths.keys():
        raise source_error(source, f"{place} has deletions of {min(unknown)}, which is none of its files")
    files = []
    for path, add in sorted(paths.items()):
        file = SourceFile(path, add["size_bytes"], add["modification_time"] * 1_000_000, _name(add))
        state = {"path": path, "left": kept.get(path), "columns": columns}
        rows = partial(rows_left, path, kept.get(path, []), columns)
        as_is = path not in kept and columns is None
        partition = "" if columns is not None else file.name.rpartition("/")[0]
        files.append(TableFile(file, state, rows, as_is, num_rows=add.get("num_records"), partition=partition))
    return TableState(str(table.metadata().id), table.version(), files, {})


def _table(source: DeltaSource, place: str, version: int | None) -> DeltaTable:
    try:
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError, TableNotFoundError
    except ModuleNotFoundError as error:
        raise SourceError(
            f"{source.title} takes the library deltalake: pip install 'featurestore[delta]' ({source.origin})"
        ) from error
    try:
        return DeltaTable(place, version=version, storage_options=_options(place))
    except TableNotFoundError:
        raise source_error(source, f"there is no Delta table in {place}") from None
    except (DeltaError, OSError, ValueError) as error:
        which = "" if version is None else f", version {version},"
        raise source_error(source, f"the Delta table {place}{which} cannot be read: {error}") from error


def _options(place: str) -> dict[str, str] | None:
    """What the library is told of a store beside what it reads of the environment itself, where Arrow reads more there."""
    scheme = place.partition("://")[0]
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if scheme == "s3" and endpoint is not None:
        return {"AWS_ENDPOINT_URL": endpoint, "AWS_ALLOW_HTTP": str(endpoint.startswith("http://")).lower()}
    return object_stores.AzureAccount.of_environment().options() if scheme == "az" else None


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
        if own is not None and own.kind == "Bytes":
            raise source_error(
                source,
                f"its partition '{name}' is Bytes, which is not read; say partitions={{{name!r}: None}} to leave it out",
            )
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
    schema = filterable_schema(file.schema_arrow)
    names = None if columns is None else _named(schema, columns)
    if names is not None:
        schema = pa.schema([schema.field(own).with_name(name) for own, name in names.items()])
    return schema, _rows_left(file, kept, names, schema)


def changed_rows(path: str, kinds: Sequence[str]) -> Batches:
    """The rows of a file of changed rows that were changed in one of these ways, without the column that says which."""
    file = parquet_file(readable(path))
    schema = filterable_schema(file.schema_arrow)

    def batches() -> Iterator[pa.RecordBatch]:
        with file:
            for batch in map(filterable, file.iter_batches()):
                chosen = batch.filter(pc.is_in(batch[CHANGE], pa.array(kinds, batch[CHANGE].type)))
                yield chosen.drop_columns([CHANGE])

    return schema.remove(schema.get_field_index(CHANGE)), batches()


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
        for batch in map(filterable, file.iter_batches(columns=None if names is None else list(names))):
            said = kept[first : first + batch.num_rows]
            first += batch.num_rows
            arrays = batch.columns if names is None else [batch.column(own) for own in names]
            whole = pa.RecordBatch.from_arrays(arrays, schema=schema)
            yield whole.filter(pa.array([*said, *[True] * (batch.num_rows - len(said))], pa.bool_()))
