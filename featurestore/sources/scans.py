"""What SQL reads of files, tables and frames: their columns as they are given, and where each row lies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import duckdb
import numpy as np
import pyarrow as pa

from featurestore.declare.sources import Source
from featurestore.semantics.columns import RawColumns
from featurestore.semantics.source_columns import Scan
from featurestore.semantics.sql import file_list
from featurestore.sources.engine_types import NOTHING, converted_sql
from featurestore.sources.partitions import FILE_NUMBER
from featurestore.sources.pointers import placed, pointer_beside
from featurestore.sources.schemas import FileColumns
from featurestore.sources.source_files import SourceFile

__all__ = ["rows_of_files", "rows_of_table"]


def rows_of_table(
    source: Source, relation: str, stored: Sequence[tuple[str, str]], columns: RawColumns, *, row: str, more: int = 0
) -> Scan:
    """The rows of one table. stored: its columns in their order, with their DuckDB types; `more` of the store's own follow.
    row: what numbers a row, in the engine's own names."""
    pointer = pointer_beside(columns)
    read = _read(source, stored, columns)
    rows = placed(relation, len(stored) + more, read, pointer, file="0", row=row)
    return Scan(f"({rows})", *pointer)


def rows_of_files(
    connection: duckdb.DuckDBPyConnection, name: str, source: Source, files: Sequence[tuple[SourceFile, FileColumns]],
    columns: RawColumns, *, beside: Iterable[str],
) -> Scan:  # fmt: skip
    """The rows of Parquet files, numbered as they are given. beside: names that are to come beside the columns'.

    Files of equal columns are read at once; tables that are made for it have names that begin with `name`.
    """
    pointer = pointer_beside([*columns, *beside])
    kinds: dict[int, list[int]] = {}
    for number, (_, of) in enumerate(files):
        kinds.setdefault(id(of), []).append(number)
    parts: list[str] = []
    for numbers in kinds.values():
        stored = files[numbers[0]][1]
        relation = f"read_parquet({file_list(files[number][0].path for number in numbers)}, hive_partitioning = false)"
        read = _read(source, list(zip(stored.names, stored.raws, strict=True)), columns)
        place = _number(connection, f"{name}_kind{len(parts)}", numbers)
        parts.append(placed(relation, len(stored.names), read, pointer, file=place, row="file_row_number"))
    return Scan(f"({' UNION ALL '.join(parts)})", *pointer)


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


def _read(source: Source, stored: Sequence[tuple[str, str]], columns: Mapping[str, str]) -> dict[str, str]:
    """Each column, by name, as SQL over `c0, c1, …`: what is stored, as the type of which it is given."""
    place = {name: (f"c{number}", raw) for number, (name, raw) in enumerate(stored)}
    read = {}
    for name, wanted in columns.items():
        column, raw = place.get(name, ("NULL", NOTHING))
        read[name] = converted_sql(column, raw, wanted, title=f"column '{name}' of source '{source.name}'")
    return read
