"""A log as one relation for DuckDB: its sealed segments as Parquet files, the others from memory.

A row is pointed at by (segment, row within the segment), which stays true for as long as the log does: sealing keeps
a segment's number and the order of its rows. Sealed segments are a prefix of the log, without gaps.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from featurestore.compile.rows import Scan
from featurestore.semantics.sql import literal, quote

__all__ = ["ROW", "SEGMENT", "scan_of"]

SEGMENT, ROW = "__log_segment", "__log_row"


def scan_of(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    schema: pa.Schema,
    *,
    sealed: Sequence[tuple[int, Path]],
    unsealed: Sequence[tuple[int, Sequence[pa.RecordBatch]]],
) -> Scan:
    """Make the temporary view `name`: the log's columns, SEGMENT and ROW; the tables that it reads bear its name too.

    sealed: (number, Parquet file). unsealed: (number, all rows in order). The view is the log as it was when it was
    made: Parquet files are never deleted, and the rest it holds in memory.
    """
    recent = pa.concat_tables([_numbered(number, batches, schema) for number, batches in unsealed])
    connection.register(f"{name}_recent", recent)
    parts = [f"SELECT * FROM {quote(f'{name}_recent')}"]
    if sealed:
        files = f"read_parquet([{', '.join(literal(str(path)) for _, path in sealed)}], hive_partitioning = false)"
        wanted = _types(connection, quote(f"{name}_recent"))
        stored = _types(connection, files)
        columns = [
            # Parquet knows no arrays of fixed length; a cast where none is needed would keep filters from the files.
            quote(column)
            if stored[column] == wanted[column]
            else f"CAST({quote(column)} AS {wanted[column]}) AS {quote(column)}"
            for column in schema.names
        ]
        first = sealed[0][0]
        pointer = f"CAST(file_index + {first} AS BIGINT) AS {SEGMENT}, CAST(file_row_number AS BIGINT) AS {ROW}"
        parts.insert(0, f"SELECT {', '.join(columns)}, {pointer} FROM {files}")
    connection.execute(f"CREATE OR REPLACE TEMP VIEW {quote(name)} AS {' UNION ALL '.join(parts)}")
    return Scan(quote(name), SEGMENT, ROW)


def _numbered(number: int, batches: Sequence[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    table = pa.Table.from_batches(batches, schema)
    table = table.append_column(SEGMENT, pa.array(np.full(table.num_rows, number, np.int64)))
    return table.append_column(ROW, pa.array(np.arange(table.num_rows, dtype=np.int64)))


def _types(connection: duckdb.DuckDBPyConnection, relation: str) -> dict[str, str]:
    return {name: of for name, of, *_ in connection.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()}
