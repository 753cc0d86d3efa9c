"""The spine: the keys and instants for which training asks, from every kind of frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.declare.frames import is_pandas, own_pandas, own_table, table_of
from featurestore.errors import SpineError, did_you_mean
from featurestore.semantics.columns import instant_expression, read_sql, type_of_arrow, type_of_column, widens
from featurestore.semantics.sql import file_list, quote
from featurestore.semantics.taken import WrongTypeError, WrongValueError, taken
from featurestore.stores.source_files import PlaceError, files_below
from featurestore.types import FeatureType

__all__ = ["CHUNK", "SpineChunk", "chunks_of", "load_chunk", "pandas_of", "stays"]

CHUNK = 2_000_000
"""Rows that are answered at once: what bounds the memory of a spine that is larger."""

BATCH = 100_000
"""Rows that are read at once; a chunk ends with the batch that fills it."""


@dataclass(frozen=True)
class SpineChunk:
    """Some consecutive rows of a spine as Arrow, `first` being the number of the first one."""

    table: pa.Table
    first: int


def chunks_of(spine: Any) -> Iterator[SpineChunk]:
    """The spine in order, in chunks of their own: polars, Arrow, a Parquet path or a DuckDB relation; pandas where nobody
    else holds it, as `pandas_of` gives it."""
    if isinstance(spine, (str, Path)):
        yield from _chunks_of_reader(_parquet_reader(Path(spine)))
        return
    if isinstance(spine, duckdb.DuckDBPyRelation):
        yield from _chunks_of_reader(spine.to_arrow_reader(min(BATCH, CHUNK)))
        return
    if isinstance(spine, pa.RecordBatchReader):
        yield from (SpineChunk(own_table(chunk.table), chunk.first) for chunk in _chunks_of_reader(spine))
        return
    if is_pandas(spine):
        _check_distinct([str(name) for name in spine.columns])
    try:
        table = table_of(spine, owned=True)
    except ValueError as error:
        raise SpineError(f"The spine cannot be read: {error}") from None
    except TypeError:
        raise SpineError(
            f"{type(spine).__name__} is no spine; pass a pandas, polars or Arrow frame, a Parquet path or a DuckDB relation"
        ) from None
    _check_distinct(table.column_names)
    for first in range(0, max(1, table.num_rows), CHUNK):
        rows = table.slice(first, CHUNK)
        yield SpineChunk(rows if is_pandas(spine) else own_table(rows), first)


def _parquet_reader(path: Path) -> pa.RecordBatchReader:
    if not path.exists():
        raise SpineError(f"The spine's file {path} does not exist")
    connection = duckdb.connect(":memory:")
    connection.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
    try:
        files = files_below(path) if path.is_dir() else [str(path)]
    except PlaceError as error:
        raise SpineError(f"The spine cannot be read: {error}") from None
    if not files:
        raise SpineError(f"The spine's folder {path} has no Parquet file")
    read = f"read_parquet({file_list(files)}, hive_partitioning = false)"
    try:
        return connection.sql(f"SELECT * FROM {read}").to_arrow_reader(min(BATCH, CHUNK))
    except duckdb.Error as error:
        raise SpineError(f"The spine's file {path} cannot be read: {error}") from error


def _chunks_of_reader(reader: pa.RecordBatchReader) -> Iterator[SpineChunk]:
    pending: list[pa.RecordBatch] = []
    rows = first = 0
    for batch in reader:
        pending.append(batch)
        rows += batch.num_rows
        if rows >= CHUNK:
            yield SpineChunk(table_of(pa.Table.from_batches(pending), owned=True), first)
            first, rows, pending = first + rows, 0, []
    if pending or not first:
        yield SpineChunk(table_of(pa.Table.from_batches(pending, reader.schema), owned=True), first)


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


def load_chunk(
    connection: duckdb.DuckDBPyConnection,
    chunk: SpineChunk,
    *,
    timestamp: str | None,
    timezone: str,
    inputs: dict[str, FeatureType],
    from_pandas: bool,
) -> npt.NDArray[np.int64]:
    """Make the table `spine (n, t, columns of `inputs`)` and return t by n, in µs.

    Raises SpineError where a column is missing, is of another type, or a time is null. from_pandas: a numpy-backed
    integer column with nulls has become float64; whole numbers are taken for the integers they were.
    """
    names = list(inputs) + ([] if timestamp is None else [timestamp])
    for name in names:
        if name not in chunk.table.column_names:
            role = "timestamp" if name == timestamp else "input"
            hint = did_you_mean(name, chunk.table.column_names, noun="Its columns")
            raise SpineError(f"The spine has no {role} column '{name}'.{hint}")
    columns = {}
    for name in names:
        column = chunk.table[name]
        if from_pandas and name in inputs and pa.types.is_floating(column.type):
            column = _whole(column, name, inputs[name], chunk.first)
        if name in inputs:
            column = _taken(column, name, inputs[name], chunk.first)
        columns[name] = column
    numbers = pa.array(np.arange(chunk.table.num_rows))
    connection.register("spine_rows", pa.table({**columns, "__n": numbers}))
    raw = {name: of for name, of, *_ in connection.execute("DESCRIBE spine_rows").fetchall()}
    selected = ["__n AS n"]
    for name, of in inputs.items():
        own = type_of_column(raw[name]) if raw[name] != '"NULL"' else of
        if own is None or not widens(own, of):
            raise SpineError(f"Spine column '{name}' is {raw[name]}, and must be {of}{_hint(raw[name], of)}")
        selected.append(f"{read_sql(quote(name), raw[name], of, timezone)} AS {quote(name)}")
    selected.append("0 AS t" if timestamp is None else f"{_instant(timestamp, raw[timestamp], timezone)} AS t")
    connection.execute(f"CREATE OR REPLACE TABLE spine AS SELECT {', '.join(selected)} FROM spine_rows")
    connection.unregister("spine_rows")
    times: pa.Table = connection.sql("SELECT n, t FROM spine").to_arrow_table()
    if times["t"].null_count:
        row = pc.min(times.filter(pc.is_null(times["t"]))["n"]).as_py() + chunk.first
        raise SpineError(f"Row {row} of the spine has no time in column '{timestamp}'")
    result = np.empty(times.num_rows, np.int64)
    result[times["n"].to_numpy()] = times["t"].to_numpy()
    return result


def _taken(column: pa.ChunkedArray, name: str, of: FeatureType, first: int) -> pa.ChunkedArray:
    """An input column of another type than its own, where each value is exactly one of that; else as it is."""
    own = type_of_arrow(column.type)
    if column.null_count < len(column) and own is not None and widens(own, of):
        return column
    try:
        return pa.chunked_array([taken(column, of)])
    except WrongValueError as error:
        raise SpineError(f"Row {error.row + first} of the spine: '{name}' must be {of}: {error}") from None
    except WrongTypeError:
        return column  # which is refused by its own name


def _instant(name: str, raw: str, timezone: str) -> str:
    try:
        return instant_expression(quote(name), raw, timezone)
    except ValueError:
        hint = "; a day is no instant: say which moment of the day is meant" if raw == "DATE" else ""
        raise SpineError(f"Spine column '{name}' is {raw}, and must be a timestamp{hint}") from None


def _whole(column: pa.ChunkedArray, name: str, of: FeatureType, first: int) -> pa.ChunkedArray:
    if of.kind not in {"Int32", "Int64"}:
        return column
    values = column.to_numpy()
    wrong = ~np.isnan(values) & ((values != np.floor(values)) | (np.abs(values) > 1 << 53))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise SpineError(f"Row {row + first} of the spine has {name} = {values[row]}, and '{name}' is {of}")
    null = np.isnan(values)
    return pa.chunked_array([pa.array(np.where(null, 0, values).astype(np.int64), mask=null)]).cast(of.arrow)


def _hint(raw: str, of: FeatureType) -> str:
    if raw == "VARCHAR":
        return "; text is never taken for another type, so convert the column first"
    if raw in {"FLOAT", "DOUBLE"} and of.kind.startswith("Int"):
        return "; a number with a fraction is no key, so convert the column first"
    return ""
