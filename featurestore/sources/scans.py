"""What SQL reads of files, tables and frames: their columns as they are given, and where each row lies.

That is two columns beside those of the source: the file's number, and the row's within it. The engine knows both under names of
its own (`file_row_number`, `rowid`, …), which a column of the data hides, in any case of its letters. So columns are read by
position, under names that the engine has for nothing, and where a row lies is named as no column of the data is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from featurestore.declare.sources import Source
from featurestore.lazy import duckdb, pa
from featurestore.semantics.columns import RawColumns
from featurestore.semantics.source_columns import Scan
from featurestore.semantics.sql import file_list, folded, numbered_columns, quote
from featurestore.sources.engine_types import NOTHING, converted_sql
from featurestore.sources.partitions import FILE_NUMBER
from featurestore.sources.schemas import FileColumns
from featurestore.sources.source_files import SourceFile


class Pointer(NamedTuple):
    """The names, as SQL writes them, of the two columns that say where a row lies."""

    file: str
    row: str


def rows_of_table(
    source: Source, relation: str, stored: Sequence[tuple[str, str]], columns: RawColumns, *, row: str, more: int = 0
) -> Scan:
    """The rows of one table. stored: its columns in their order, with their DuckDB types; `more` of the store's own follow.
    row: what numbers a row, in the engine's own names."""
    pointer = _pointer_beside(columns)
    read = _read(source, stored, columns)
    rows = _placed(relation, len(stored) + more, read, pointer, file="0", row=row)
    return Scan(f"({rows})", *pointer)


def rows_of_files(
    connection: duckdb.DuckDBPyConnection, name: str, source: Source, files: Sequence[tuple[SourceFile, FileColumns]],
    columns: RawColumns, *, beside: Iterable[str],
) -> Scan:  # fmt: skip
    """The rows of Parquet files, numbered as they are given. beside: names that are to come beside the columns'.

    Files of equal columns are read at once; tables that are made for it have names that begin with `name`.
    """
    pointer = _pointer_beside([*columns, *beside])
    kinds: dict[int, list[int]] = {}
    for number, (_, of) in enumerate(files):
        kinds.setdefault(id(of), []).append(number)
    parts: list[str] = []
    for numbers in kinds.values():
        stored = files[numbers[0]][1]
        relation = (
            f"read_parquet({file_list(files[number][0].parquet for number in numbers)}, hive_partitioning = false)"
        )
        read = _read(source, list(zip(stored.names, stored.raws, strict=True)), columns)
        place = _number(connection, f"{name}_kind{len(parts)}", numbers)
        parts.append(_placed(relation, len(stored.names), read, pointer, file=place, row="file_row_number"))
    return Scan(f"({' UNION ALL '.join(parts)})", *pointer)


def rows_of_copies(paths: Sequence[str], columns: RawColumns, beside: Scan, *, first: int) -> Scan:
    """The rows of Parquet files that have just these columns, numbered from `first` on, with the pointer that another scan has."""
    read = {name: f"c{place}" for place, name in enumerate(columns)}
    pointer = Pointer(beside.file, beside.row)
    relation = f"read_parquet({file_list(paths)}, hive_partitioning = false)"
    file = f"CAST(file_index + {first} AS UBIGINT)"
    return Scan(f"({_placed(relation, len(columns), read, pointer, file=file, row='file_row_number')})", *pointer)


def both_scans(one: Scan, other: Scan, columns: RawColumns) -> Scan:
    """The rows of two scans of equal columns and pointers, whose files have numbers of their own."""
    names = ", ".join([*map(quote, columns), one.file, one.row])
    return one._replace(relation=f"(SELECT {names} FROM {one.relation} UNION ALL SELECT {names} FROM {other.relation})")


def _number(connection: duckdb.DuckDBPyConnection, name: str, numbers: Sequence[int]) -> str:
    """The number of a file, of those that are read at once."""
    if len(numbers) == 1:
        return f"CAST({numbers[0]} AS UBIGINT)"
    if numbers[-1] - numbers[0] == len(numbers) - 1:  # they follow each other
        return f"CAST(file_index + {numbers[0]} AS UBIGINT)" if numbers[0] else "file_index"
    given = pa.table({"place": np.arange(len(numbers), dtype=np.uint64), "number": pa.array(numbers, FILE_NUMBER)})
    connection.register(f"{name}_given", given)
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS FROM {name}_given")
    connection.unregister(f"{name}_given")
    return f"(SELECT any_value(number) FROM {name} WHERE place = file_index)"


def _pointer_beside(names: Iterable[str]) -> Pointer:
    """A pointer that has the name of none of these columns."""
    taken = {folded(name) for name in names}
    return Pointer(*(quote(_free(name, taken)) for name in ("__file", "__row")))


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _placed(relation: str, count: int, read: Mapping[str, str], pointer: Pointer, *, file: str, row: str) -> str:
    """A SELECT of the rows of a relation of so many columns, with the pointer that `file` and `row` are, in the engine's own
    names. read: the columns that it gives, by name, as SQL over `c0, c1, …`."""
    given = "".join(f"{sql} AS {quote(name)}, " for name, sql in read.items())
    return f"SELECT {given}{file} AS {pointer.file}, {row} AS {pointer.row} FROM {numbered_columns(relation, count)}"


def _read(source: Source, stored: Sequence[tuple[str, str]], columns: Mapping[str, str]) -> dict[str, str]:
    """Each column, by name, as SQL over `c0, c1, …`: what is stored, as the type of which it is given."""
    place = {name: (f"c{number}", raw) for number, (name, raw) in enumerate(stored)}
    read = {}
    for name, wanted in columns.items():
        column, raw = place.get(name, ("NULL", NOTHING))
        read[name] = converted_sql(column, raw, wanted, title=f"column '{name}' of source '{source.name}'")
    return read
