"""The columns of a source: what its files, table or frame say of them, and as what they are read.

Files need to agree in the columns that are used. What a column is in each of them is compared as a whole, lists and
structs included: a column that the engine would change, or that files have in types of which none holds the others, is
kept out of the scan, with the reason, for a definition that uses it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from featurestore.declare.push import PushSource
from featurestore.declare.sources import FileSource, Source, is_url
from featurestore.durable.forks import mutex
from featurestore.lazy import duckdb, pa, pq
from featurestore.semantics.columns import Mixed, RawColumns, type_of_column, widens
from featurestore.semantics.engine import connect
from featurestore.semantics.source_columns import own_columns
from featurestore.semantics.sql import file_list, folded, numbered_columns
from featurestore.sources.engine_types import NOTHING, EngineChange, change_in, common_type, given_type, type_tree
from featurestore.sources.object_stores import readable as readable_file
from featurestore.sources.object_stores import register
from featurestore.sources.source_files import SourceFile, source_error
from featurestore.sources.unreadable import no_parquet


class FileColumns(NamedTuple):
    """The columns of a file in their order: names, Arrow types, and the DuckDB types as which the engine reads them."""

    names: tuple[str, ...]
    types: tuple[pa.DataType, ...]
    raws: tuple[str, ...]


class Schemas:
    """The columns of files that were looked at before; safe to use from several threads.

    Files of equal columns have one FileColumns, so that they are told by identity.
    """

    def __init__(self) -> None:
        self._files: dict[SourceFile, FileColumns] = {}
        self._stored: dict[tuple[object, ...], FileColumns] = {}
        self._lock = mutex()

    def of(self, connection: duckdb.DuckDBPyConnection, source: Source, file: SourceFile) -> FileColumns:
        """The columns of a Parquet file; SourceError where it cannot be read."""
        with self._lock:
            known = self._files.get(file)
            if known is None:
                known = self._files[file] = self._read(connection, source, file.parquet)
            return known

    def _read(self, connection: duckdb.DuckDBPyConnection, source: Source, path: str) -> FileColumns:
        try:
            if is_url(path):
                register(connection, [path])
            stored = pq.read_metadata(readable_file(path) if is_url(path) else path).schema
            schema = stored.to_arrow_schema()
        except (pa.ArrowException, OSError) as error:
            raise source_error(source, no_parquet(path, error, of_source=True)) from error
        leaves = (stored.column(place) for place in range(len(stored)))
        # The engine reads by how a file stores its columns, which Arrow's types do not say (timestamps of 96 bits).
        shape = (
            tuple(schema.names),
            *map(str, schema.types),
            *((c.physical_type, str(c.logical_type)) for c in leaves),
        )
        if shape not in self._stored:
            relation = f"read_parquet({file_list([path])}, hive_partitioning = false)"
            rows = connection.execute(f"DESCRIBE SELECT * FROM {numbered_columns(relation, len(schema))}").fetchall()
            self._stored[shape] = FileColumns(tuple(schema.names), tuple(schema.types), tuple(of for _, of, *_ in rows))
        return self._stored[shape]


def pushed_types(source: PushSource) -> dict[str, str]:
    """The columns that pushed rows have, by name, with their DuckDB types."""
    return {name: of.duckdb for name, of in source.columns.items()}


def taken_columns(frame: pa.Table) -> dict[int, tuple[pa.ChunkedArray, str]]:
    """The columns of a frame that the engine takes, by place, as it takes them, with its types for them."""
    found = {}
    for place, column in enumerate(frame.columns):
        taken = _taken(column)
        of = _engine_type(pa.schema([("c", taken.type)]).serialize().to_pybytes())
        if of is not None:
            found[place] = (taken, of)
    return found


@lru_cache(maxsize=4096)
def _engine_type(schema: bytes) -> str | None:
    """The engine's type for a column, None where it takes none such. The schema of that column as bytes, since Arrow's types
    compare equal where what their fields say besides differs, which the engine reads."""
    column = pa.ipc.read_schema(pa.py_buffer(schema))
    frame = pa.table([pa.chunked_array([], column.field(0).type)], schema=column)
    with connect(":memory:", config={"threads": 1}) as connection:
        try:
            connection.register("one", frame)
            return str(connection.execute("DESCRIBE one").fetchall()[0][1])
        except duckdb.Error:
            return None


def _taken(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of half floats, or of long decimals of few digits, as the type of its values that the engine takes."""
    of = column.type
    if pa.types.is_float16(of):
        return column.cast(pa.float32())
    if pa.types.is_decimal256(of) and of.precision <= 38 and 0 <= of.scale <= of.precision:
        return column.cast(pa.decimal128(of.precision, of.scale))
    return column


def readable(source: Source, stored: Sequence[tuple[str, str]], schema: pa.Schema | None = None) -> RawColumns:
    """The columns of one table, in their order with their DuckDB types, as they are given. schema: what a frame has of
    which these are those that the engine takes."""
    names = [name for name, _ in stored] if schema is None else schema.names
    faults = unnamed(source, [names])
    engine = dict(stored)
    for field in schema or ():
        change = (
            change_in(field.type, type_tree(engine[field.name]))
            if field.name in engine
            else EngineChange("", str(field.type), None)
        )
        if change is not None:
            faults.setdefault(field.name, f"{change}; cast it in the data")
    return RawColumns({name: given_type(of) for name, of in stored if name not in faults}, faults=faults)


def unnamed(source: Source, tables: Iterable[Sequence[str]]) -> dict[str, str]:
    """Of the columns that SQL cannot name, why: columns of one source, in the order of each of its files."""
    ours = {folded(name) for name in own_columns(source)}
    alike: dict[str, dict[str, None]] = {}
    faults: dict[str, str] = {}
    for names in tables:
        for name in names:
            alike.setdefault(folded(name), {})[name] = None
        if len(set(names)) < len(names):
            twice = {name for name in names if names.count(name) > 1}
            faults |= dict.fromkeys(twice, "is there twice; rename one of the two in the data")
    for fold, spelled in alike.items():
        if len(spelled) > 1:
            shown = " and ".join(f"'{name}'" for name in spelled)
            why = f"cannot be told apart in SQL: {shown} differ in case alone; rename one of them in the data"
            faults |= dict.fromkeys(spelled, why)
        elif not fold:
            faults[""] = "has no name; give it one in the data"
        elif fold in ours:
            faults[next(iter(spelled))] = "has the name of a column of the store's own; rename it in the data"
    return faults


def agreed_columns(source: FileSource, files: Sequence[tuple[SourceFile, FileColumns]]) -> RawColumns:
    """The columns of all these files, in the order in which they come, as the types that hold what each of them has."""
    first: dict[int, tuple[SourceFile, FileColumns]] = {}
    for file, columns in files:
        first.setdefault(id(columns), (file, columns))
    kinds = list(first.values())  # files of equal columns are one
    faults = unnamed(source, [columns.names for _, columns in kinds])
    names = dict.fromkeys(name for _, columns in kinds for name in columns.names)
    types, mixed, missing = {}, {}, {}
    for name in names:
        if name in faults:
            continue
        stored = [_stored(columns, name) for _, columns in kinds]
        lacking = next((file.path for (file, _), one in zip(kinds, stored, strict=True) if one is None), None)
        there = [(one, file.path) for (file, _), one in zip(kinds, stored, strict=True) if one is not None]
        if lacking is not None:
            missing[name] = lacking
        fault = _fault(source, name, there, lacking)
        if fault is not None:
            faults[name] = fault
            continue
        declared = source.declared_types.get(name)
        types[name] = declared.duckdb if declared else common_type([raw for (raw, _), _ in there]) or NOTHING
        mix = _mix(there)
        if mix is not None:
            mixed[name] = mix
    for name in source.optional:
        if name not in names and name in source.declared_types:
            types[name], missing[name] = source.declared_types[name].duckdb, files[0][0].path
        elif name not in names:
            faults[name] = "is in none of its files, so that nobody knows its type; leave it out until one has it"
    return RawColumns(types, faults=faults, mixed=mixed, missing=missing)


Stored: TypeAlias = "tuple[str, pa.DataType]"
"""A column as the engine reads it, and its Arrow type."""


def _stored(columns: FileColumns, name: str) -> Stored | None:
    if name not in columns.names:
        return None
    place = columns.names.index(name)
    return columns.raws[place], columns.types[place]


def _fault(source: FileSource, name: str, there: Sequence[tuple[Stored, str]], lacking: str | None) -> str | None:
    """Why a column cannot be read, of which each kind of file there is has one of these; None where it can."""
    for (raw, own), path in there:
        change = change_in(own, type_tree(raw))
        if change is not None:
            return f"{change}, in {path}; cast it in the data"
    if common_type([raw for (raw, _), _ in there]) is None:
        return f"is not one column: its files disagree on it: {_difference(there)}; cast it in the data"
    if lacking is not None and not source.may_lack(name):
        return (
            f"is missing in {lacking}, and there in {there[0][1]}; say optional={[name]!r} where it is null in files "
            "that do not have it"
        )
    return None


def _difference(there: Sequence[tuple[Stored, str]]) -> str:
    """The types of the first two files that no one type holds, and where within the column they differ."""
    (raw, own), path = there[0]
    apart = [(of, where) for (other, of), where in there[1:] if common_type([raw, other]) is None]
    if not apart:  # each fits the first, and not all together
        return "; ".join(f"{of} in {where}" for (_, of), where in there)
    (other, other_path), *_ = apart
    within, one, another = _apart(own, other)
    at = f" at '{within}'" if within else ""
    return f"{one} in {path}, {another} in {other_path}{at}"


def _apart(one: pa.DataType, other: pa.DataType, path: str = "") -> tuple[str, pa.DataType, pa.DataType]:
    """Where two types begin to differ: the only part that does, as deep as it goes."""
    same = one.id == other.id and one.num_fields == other.num_fields
    parts = [(one.field(place), other.field(place)) for place in range(one.num_fields)] if same else []
    if parts and all(a.name == b.name for a, b in parts):
        differing = [(a, b) for a, b in parts if a.type != b.type]
        if len(differing) == 1:
            (a, b), list_ = differing[0], pa.types.is_list(one) or pa.types.is_large_list(one)
            return _apart(a.type, b.type, f"{path}[]" if list_ else f"{path}.{a.name}")
    return path, one, other


def _mix(there: Sequence[tuple[Stored, str]]) -> Mixed | None:
    """The types of a column that has several, all of which one holds; None where it has one."""
    seen = {given_type(raw): path for (raw, _), path in reversed(there) if raw != NOTHING}
    raws = list(reversed(seen))
    held = {raw: of for raw in raws if (of := type_of_column(raw)) is not None}
    if len(raws) < 2 or len(held) < len(raws):
        return None
    narrow = [raw for raw in raws if all(widens(held[raw], of) for of in held.values())] or raws
    shown = ", ".join(f"{held[raw]} ({raw}) in {seen[raw]}" for raw in raws)
    return Mixed(held, min(narrow), shown)
