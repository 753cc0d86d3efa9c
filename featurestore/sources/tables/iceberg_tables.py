"""The files of an Apache Iceberg table: what its metadata say of a snapshot, read by the `pyiceberg` library.

A Parquet file of this machine that has the table's columns as the table has them, and no deletions, is read as it is. Any other
is copied through the library's own reader, which knows what was deleted, renamed, widened and added.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlsplit

from featurestore.declare.iceberg_source import IcebergSource
from featurestore.errors import FilesChangedError, SourceError
from featurestore.lazy import pa, pq
from featurestore.sources.copies import Batches
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
    from pyiceberg.schema import Schema
    from pyiceberg.table import FileScanTask, Table

METADATA = re.compile(r"v?(\d+)(?:-.*)?\.metadata\.json")
"""The names of files of metadata, with their numbers."""

SHOWN_PROPERTIES = frozenset({"type", "warehouse", "py-io-impl", "py-catalog-impl"})
"""Properties of a catalog that a message may have the values of."""


Telling = Callable[[], AbstractContextManager[None]]
"""Within it, what the library raises is an error of ours."""


class IcebergTables:
    """Reads what tables say of their files; what nothing changed in is read once. Safe to use from several threads."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Any, TableState]] = {}
        self._commits: dict[tuple[str, int], Commit] = {}
        self._columns: dict[str, Any] = {}  # by the path of a file its columns, or why they are not known

    def state(
        self, source: IcebergSource, place: Path | None, catalogs: Mapping[str, Mapping[str, str]], kept: TableCopies
    ) -> TableState:
        """The files of the snapshot that a source names. place: where it lies, None where its catalog knows it.

        Raises SourceError where there is no such table or snapshot, or where it is kept in a way that is not read;
        FilesChangedError where it was changed while it was looked at.
        """
        library(source)
        properties = {} if place is not None else _catalog_of(source, catalogs)
        with _told(source, properties), _opened(source, place, properties) as table:
            key = (table.metadata_location, source.snapshot, source.ref, source.columns_of, source.arrives)
            known = self._known.get(source.name)
            if known is None or known[0] != key:
                planning = _Planned(source, table, partial(_told, source, properties), self._columns_of)
                pinned = _pinned(source, table)
                schema = planning.schema(pinned)
                found = planning.state(pinned, schema)
                if source.arrives and found.number is not None:
                    found = self._arriving(planning, schema, found, kept)
                known = self._known[source.name] = key, found
            return known[1]

    def _arriving(self, planning: _Planned, schema: Schema, newest: TableState, kept: TableCopies) -> TableState:
        """A table whose rows are known from when they came, with what was there before it was compacted."""
        commits, published = [], _published(planning.source, planning.table, newest.number)
        for one in reversed(list(_ancestors(planning.table, newest.number))):
            key = (newest.table, one.snapshot_id)
            if key not in self._commits:
                self._commits[key] = _commit(planning.table, one)
            commit = self._commits[key]
            commits.append(commit._replace(at=published.get(commit.number, commit.at)))
        parents = {one.snapshot_id: one.parent_snapshot_id for one in planning.table.metadata.snapshots}

        def before(commit: Commit) -> dict[str, TableFile]:
            parent = parents[commit.number]
            if parent not in parents:
                return {}
            removed = [one for one in planning.state(parent, schema).files if one.state["path"] in commit.removes]
            return {one.state["path"]: one._replace(as_is=False) for one in removed}

        def exists(one: TableFile) -> bool:
            return bool(planning.table.io.new_input(one.state["path"]).exists())

        def is_unchanged(commit: Commit) -> bool:
            earlier = before(commit)
            if not commit.replaced <= earlier.keys():
                return False
            written = [one for one in planning.state(commit.number, schema).files if one.state["path"] in commit.adds]
            return kept.are_same(newest.table, list(earlier.values()), written, exists)

        there = {one.state["path"]: one for one in newest.files}
        commits = without_unchanging(commits, there, is_unchanged)
        files, _ = Originals(before, partial(kept.has_copy, newest.table), exists).read_instead(commits, there)
        came = {files[path].file.path: arrival for path, arrival in arrivals(commits, files).items()}
        return newest._replace(files=list(files.values()), came=came)

    def _columns_of(self, table: Table, data: Any, path: str) -> Any:
        """The columns of a local Parquet file with the table's ids for them; None where they are not known."""
        from pyiceberg.io.pyarrow import pyarrow_to_schema
        from pyiceberg.manifest import FileFormat

        if data.file_format != FileFormat.PARQUET or not Path(path).is_file():
            return None
        if path not in self._columns:
            try:
                self._columns[path] = pyarrow_to_schema(
                    pq.read_schema(path),
                    table.metadata.name_mapping(),
                    downcast_ns_timestamp_to_us=False,
                    format_version=table.metadata.format_version,
                ).as_struct()
            except (ValueError, TypeError, OSError):  # the reader that copies it will say
                self._columns[path] = None
        return self._columns[path]


class _Planned(NamedTuple):
    """What it takes to plan the files of a snapshot."""

    source: IcebergSource
    table: Table
    telling: Telling
    columns: Callable[[Table, Any, str], Any]

    def schema(self, pinned: int | None) -> Schema:
        """The columns of a snapshot; None: of the current one, those that the table has now. SourceError where the table has not the schema
        any more that a source names."""
        if self.source.columns_of is None:
            return self.table.scan(snapshot_id=pinned).projection()
        found = self.table.schemas().get(self.source.columns_of)
        if found is None:
            raise source_error(
                self.source, f"its table has no schema {self.source.columns_of} any more: schemas are expired"
            )
        return found

    def state(self, pinned: int | None, schema: Schema) -> TableState:
        """The files of a snapshot, None: of the current one, with these columns."""
        scan = self.table.scan(snapshot_id=pinned)
        current = pinned if pinned is not None else self.table.metadata.current_snapshot_id
        try:
            tasks = sorted(scan.plan_files(), key=lambda task: task.file.file_path)
        except ValueError as error:
            if "equality deletes" in str(error):
                raise source_error(
                    self.source,
                    f"snapshot {current} of its table has equality deletes, as Flink and others write them. They are not read: rewrite its "
                    "data files, as rewrite_data_files of Spark does",
                ) from error
            raise
        found = [self._file(schema, task) for task in tasks]
        files = [file for file, _ in found]
        if files and all(file.as_is and lacks for file, lacks in found):
            # Of columns that no file has nobody knows the types: one is copied, which has them all.
            files[0] = files[0]._replace(as_is=False)
        return TableState(str(self.table.metadata.table_uuid), current, files, {}, schema.schema_id)

    def _file(self, schema: Schema, task: FileScanTask) -> tuple[TableFile, bool]:
        """A data file, and whether it lacks a column of the table where it is read as it is."""
        data, where = task.file, task.file.file_path
        local = _local(self.table, where)
        name = quote(where.removeprefix(self.table.location().rstrip("/") + "/"), safe=" ")
        file = SourceFile(local or where, data.file_size_in_bytes, 0, name)
        deletes = sorted(f"{one.file_path} {one.content} {one.record_count}" for one in task.delete_files)
        own = None if deletes or local is None else self.columns(self.table, data, local)
        lacks = None if own is None else _lacks(self.table, schema, own, data.spec_id)
        state = {"path": where, "left": deletes, "schema": _schema_digest(self.table, schema, data.spec_id)}
        rows = partial(_rows, self.table, schema, task, self.telling)
        return TableFile(file, state, rows, as_is=lacks is not None), bool(lacks)


def _ancestors(table: Table, snapshot: int | None) -> Iterator[Any]:
    """A snapshot and those that it came from, as far as they are not expired, the newest first."""
    found = None if snapshot is None else table.metadata.snapshot_by_id(snapshot)
    while found is not None:
        yield found
        parent = found.parent_snapshot_id
        found = None if parent is None else table.metadata.snapshot_by_id(parent)


def _published(source: IcebergSource, table: Table, snapshot: int | None) -> dict[int, int]:
    """By snapshot when (µs) it came to be in the main branch, as far as the table says: one that was written to another branch, or to
    none, is older than that. Empty where it is another branch or tag whose snapshot is read: a table keeps no log of these."""
    from pyiceberg.table.refs import MAIN_BRANCH

    if source.ref not in {None, MAIN_BRANCH}:
        return {}
    published: dict[int, int] = {}
    for entry in table.metadata.snapshot_log:
        head = table.metadata.snapshot_by_id(entry.snapshot_id)
        # One that was made there follows what was there: of that an entry is missing only if it was expired.
        is_made_there = head is not None and head.timestamp_ms == entry.timestamp_ms
        for one in _ancestors(table, entry.snapshot_id):
            if one.snapshot_id in published:
                break
            published[one.snapshot_id] = (one if is_made_there else entry).timestamp_ms * 1000
    return published if snapshot in published else {}


def _commit(table: Table, snapshot: Any) -> Commit:
    from pyiceberg.manifest import ManifestContent, ManifestEntryStatus
    from pyiceberg.table.snapshots import Operation

    paths: dict[Any, set[str]] = {ManifestEntryStatus.ADDED: set(), ManifestEntryStatus.DELETED: set()}
    for manifest in snapshot.manifests(table.io):
        if manifest.content == ManifestContent.DATA and manifest.added_snapshot_id == snapshot.snapshot_id:
            for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=False):
                if entry.status in paths and entry.snapshot_id == snapshot.snapshot_id:
                    paths[entry.status].add(entry.data_file.file_path)
    operation = snapshot.summary.operation if snapshot.summary is not None else Operation.OVERWRITE
    return Commit(
        snapshot.snapshot_id, snapshot.timestamp_ms * 1000, f"snapshot {snapshot.snapshot_id} ({operation.value})",
        frozenset(paths[ManifestEntryStatus.ADDED]), frozenset(paths[ManifestEntryStatus.DELETED]),
        operation != Operation.REPLACE, replaces=False,
    )  # fmt: skip


def library(source: IcebergSource) -> None:
    """SourceError where the library is not installed."""
    try:
        import pyiceberg.table  # noqa: F401
    except ModuleNotFoundError as error:
        raise SourceError(
            f"{source.title} takes the library pyiceberg: pip install 'featurestore[iceberg]' ({source.origin})"
        ) from error


def _catalog_of(source: IcebergSource, catalogs: Mapping[str, Mapping[str, str]]) -> Mapping[str, str]:
    properties = catalogs.get(source.catalog or "")
    if properties is None:
        raise source_error(
            source,
            f'featurestore.toml has no [catalogs.{source.catalog}]; say there what it is, such as type = "rest" and uri = "https://…"',
        )
    return properties


@contextmanager
def _opened(source: IcebergSource, place: Path | None, properties: Mapping[str, str]) -> Iterator[Table]:
    from pyiceberg.catalog import load_catalog
    from pyiceberg.table import StaticTable

    if place is not None:
        yield StaticTable.from_metadata(str(_metadata(source, place)))
        return
    # A catalog that is a database would get tables, where it has none, by being opened.
    with closing(load_catalog(source.catalog, **{"init_catalog_tables": "false", **properties})) as catalog:
        yield catalog.load_table(source.table or "")


@contextmanager
def _told(source: IcebergSource, properties: Mapping[str, str]) -> Iterator[None]:
    """What the library raises as SourceError, without the values of properties that may be secret."""
    from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

    try:
        yield
    except SourceError:
        raise
    except (NoSuchTableError, NoSuchNamespaceError):
        raise source_error(source, f"catalog '{source.catalog}' has no table '{source.table}'") from None
    except FileNotFoundError as error:
        raise FilesChangedError(
            f"{source.title}: what its metadata name is gone, and snapshots of it were expired meanwhile; ask again: {_words(error, properties)} "
            f"({source.origin})"
        ) from error
    except Exception as error:  # noqa: BLE001 - the library has no class for what a catalog raises
        what = f"catalog '{source.catalog}'" if source.catalog else "its table"
        raise source_error(source, f"{what} cannot be read: {_words(error, properties)}") from None


def _words(error: Exception, properties: Mapping[str, str]) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    for name, value in properties.items():
        password = urlsplit(value).password if name == "uri" else value
        if password and name not in SHOWN_PROPERTIES:
            text = text.replace(password, "…")
    return text


def _metadata(source: IcebergSource, place: Path) -> Path:
    """The newest file of metadata of a table in a folder, or the one that is named."""
    if place.is_file():
        if not place.name.endswith(".metadata.json"):
            raise source_error(source, f"{place} is no metadata of an Iceberg table, whose names end in .metadata.json")
        return place
    found = {path: int(match[1]) for path in place.glob("metadata/*") if (match := METADATA.fullmatch(path.name))}
    if not found:
        raise source_error(source, f"there is no Iceberg table in {place}: it has no metadata/….metadata.json")
    newest = [path for path, number in found.items() if number == max(found.values())]
    if len(newest) > 1:
        shown = " and ".join(sorted(path.name for path in newest))
        raise source_error(
            source,
            f"{place} has {shown}, and its catalog alone knows which of them counts; name the catalog, or the file",
        )
    return newest[0]


def _pinned(source: IcebergSource, table: Table) -> int | None:
    """The snapshot that a source names; None where that is the current one."""
    if source.snapshot is not None:
        if table.metadata.snapshot_by_id(source.snapshot) is None:
            there = ", ".join(str(one.snapshot_id) for one in table.metadata.snapshots[-3:]) or "none"
            raise source_error(
                source,
                f"its table has no snapshot {source.snapshot} any more, or never had it: snapshots are expired. The newest are {there}",
            )
        return source.snapshot
    if source.ref is None:
        return None
    named = table.metadata.snapshot_by_name(source.ref)
    if named is None:
        refs = ", ".join(sorted(table.metadata.refs)) or "none"
        raise source_error(source, f"its table has no branch or tag '{source.ref}'; it has {refs}")
    return int(named.snapshot_id)


def _local(table: Table, location: str) -> str | None:
    """The path of a file on this machine, None where it lies elsewhere."""
    from pyiceberg.io.pyarrow import PyArrowFileIO

    scheme, _, path = PyArrowFileIO.parse_location(location, table.io.properties)
    return path if scheme == "file" else None


def _shape(of: Any) -> Any:
    """What a type is to a reader: names, ids and kinds, without which of them may be null."""
    from pyiceberg.types import ListType, MapType, StructType

    if isinstance(of, StructType):
        return [[field.field_id, field.name, _shape(field.field_type)] for field in of.fields]
    if isinstance(of, ListType):
        return ["list", of.element_id, _shape(of.element_type)]
    if isinstance(of, MapType):
        return ["map", of.key_id, _shape(of.key_type), of.value_id, _shape(of.value_type)]
    return str(of)


def _schema_digest(table: Table, schema: Schema, spec: int) -> Any:
    """What of a schema the rows of a file hang on, as plain JSON."""
    defaults = {field.name: str(field.initial_default) for field in schema.fields if field.initial_default is not None}
    return [_shape(schema.as_struct()), defaults, sorted(_by_partition(table, spec))]


def _by_partition(table: Table, spec: int) -> set[int]:
    """The columns whose values a file's partition says where the file does not."""
    from pyiceberg.transforms import IdentityTransform

    found = table.metadata.specs().get(spec)
    fields = () if found is None else found.fields
    return {field.source_id for field in fields if isinstance(field.transform, IdentityTransform)}


def _lacks(table: Table, schema: Schema, own: Any, spec: int) -> set[int] | None:
    """The columns that a file lacks, which are null in its rows; None where it is not to be read as it is."""
    wanted, there = ({field.field_id: field for field in of.fields} for of in (schema, own))
    if there.keys() - wanted.keys():
        return None
    for number, field in there.items():
        if field.name != wanted[number].name or _shape(field.field_type) != _shape(wanted[number].field_type):
            return None
    lacks = wanted.keys() - there.keys()
    said = _by_partition(table, spec) | {
        number for number, field in wanted.items() if field.initial_default is not None
    }
    return None if lacks & said or any(wanted[number].required for number in lacks) else lacks


def _rows(table: Table, schema: Schema, task: FileScanTask, telling: Telling) -> Batches:
    """The rows of a data file that count, as the table has their columns."""
    from pyiceberg.expressions import AlwaysTrue
    from pyiceberg.io.pyarrow import ArrowScan, schema_to_pyarrow

    of = schema_to_pyarrow(schema, include_field_ids=False).remove_metadata()

    def batches() -> Iterator[pa.RecordBatch]:
        with telling():
            for batch in ArrowScan(table.metadata, table.io, schema, AlwaysTrue()).to_record_batches([task]):
                yield from pa.Table.from_batches([batch]).cast(of).to_batches()

    return of, batches()
