"""The files of a Delta Lake table: what its log says of a version, read by the `deltalake` library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from featurestore.declare.delta_source import DeltaSource
from featurestore.errors import SourceError
from featurestore.lazy import pa, pq
from featurestore.semantics.columns import type_of_arrow
from featurestore.sources.partitions import NULL, partition_type
from featurestore.sources.source_files import source_error

if TYPE_CHECKING:
    from deltalake import DeltaTable

MAPPING = "delta.columnMapping.mode"
PARTITION = "partition."
"""How the library begins the names of the columns of a file's partition values."""


class DeltaFiles(NamedTuple):
    """The files of one version of a table."""

    version: int
    names: dict[str, str]
    """The path of each, and its name with its partitions as folders `name=value`, whatever folder it lies in."""
    kept: dict[str, list[bool]]
    """Of files of which rows were deleted, which rows are left; rows beyond the list are."""


def delta_files(source: DeltaSource, folder: Path) -> DeltaFiles:
    """What counts of the table in a folder. Raises SourceError where there is none, or where it is kept in a way that is not read."""
    table = _table(source, folder)
    mode = table.metadata().configuration.get(MAPPING, "none")
    if mode != "none":
        raise source_error(
            source,
            f"{folder} has {MAPPING} = {mode}: its files name columns otherwise than the table. That is not read; copy it into one without",
        )
    _check_partitions(source, table)
    adds = pa.table(table.get_add_actions(flatten=True)).to_pylist()
    paths = {_path(source, folder, add["path"]): add for add in adds}
    names = {path: _name(add) for path, add in sorted(paths.items())}
    left = pa.table(table.deletion_vectors()).to_pylist()
    kept = {_path(source, folder, quote(row["filepath"], safe="/:")): row["selection_vector"] for row in left}
    return DeltaFiles(table.version(), names, kept)


def _table(source: DeltaSource, folder: Path) -> DeltaTable:
    try:
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError, TableNotFoundError
    except ModuleNotFoundError as error:
        raise SourceError(
            f"{source.title} takes the library deltalake: pip install 'featurestore[delta]' ({source.origin})"
        ) from error
    try:
        return DeltaTable(str(folder), version=source.table_version)
    except TableNotFoundError:
        raise source_error(source, f"there is no Delta table in {folder}") from None
    except (DeltaError, OSError, ValueError) as error:
        which = "" if source.table_version is None else f", version {source.table_version},"
        raise source_error(source, f"the Delta table {folder}{which} cannot be read: {error}") from error


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


def _path(source: DeltaSource, folder: Path, told: str) -> str:
    """A file as the log names it: percent-encoded, below the table's folder, or elsewhere as a URL."""
    parts = urlsplit(told)
    if parts.scheme not in {"", "file"}:
        raise source_error(source, f"{folder} has files elsewhere, {told}, which cannot be read")
    return str(folder / unquote(parts.path))


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


def rows_left(path: str, kept: list[bool]) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """The rows of a file that were not deleted, in their order."""
    file = pq.ParquetFile(path)
    return file.schema_arrow, _rows_left(file, kept)


def _rows_left(file: pq.ParquetFile, kept: list[bool]) -> Iterator[pa.RecordBatch]:
    first = 0
    with file:
        for batch in file.iter_batches():
            said = kept[first : first + batch.num_rows]
            first += batch.num_rows
            yield batch.filter(pa.array([*said, *[True] * (batch.num_rows - len(said))]))
