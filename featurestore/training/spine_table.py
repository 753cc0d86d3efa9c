"""The spine as a table that SQL reads: its inputs by place, so that no name of a user's stands beside one of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from featurestore.errors import SpineError, did_you_mean
from featurestore.lazy import duckdb, pa, pc
from featurestore.semantics.columns import (
    instant_expression,
    read_sql,
    said_type,
    type_of_arrow,
    type_of_column,
    widens,
)
from featurestore.semantics.input_columns import (
    NUMBERS_FOR_TEXT,
    PERIOD,
    WrongTypeError,
    WrongValueError,
    is_period,
    taken,
)
from featurestore.semantics.time import BEGINNING, END
from featurestore.semantics.values import scalars
from featurestore.sources.schemas import taken_columns
from featurestore.training.spine import SpineChunk
from featurestore.types import FeatureType, timestamp_of

GIVEN = "spine_given"
"""The chunk as it came: `n` and the columns that are read, `c0, c1, …`."""


COARSER = {"s": 1_000_000, "ms": 1000}
"""Units of timestamps in µs, of which some values are none."""


class SpineTable(NamedTuple):
    """The table `spine (n, t, i0, i1, …)`, whose rows are numbered by n from 0.

    times: t by n, in µs. columns: each input's column of the table.
    """

    times: npt.NDArray[np.int64]
    columns: Mapping[str, str]

    def values(self, connection: duckdb.DuckDBPyConnection, names: Sequence[str]) -> dict[str, pa.Array]:
        """Some inputs by n."""
        if not names:
            return {}
        selected = ", ".join(self.columns[name] for name in names)
        table: pa.Table = connection.sql(f"SELECT n, {selected} FROM spine").to_arrow_table()
        number, *columns = table.columns
        order = pa.array(np.argsort(number.to_numpy()))
        return {name: column.take(order).combine_chunks() for name, column in zip(names, columns, strict=True)}

    def row(self, connection: duckdb.DuckDBPyConnection, names: Sequence[str], row: int) -> str:
        """How a message names a row: by some of its inputs, or by its number where there are none."""
        if not names:
            return f"row {row}"
        selected = ", ".join(self.columns[name] for name in names)
        found: pa.Table = connection.sql(f"SELECT {selected} FROM spine WHERE n = {row}").to_arrow_table()
        return ", ".join(f"{name}={scalars(column)[0]!r}" for name, column in zip(names, found.columns, strict=True))


def load_chunk(
    connection: duckdb.DuckDBPyConnection,
    chunk: SpineChunk,
    *,
    timestamp: str | None,
    timezone: str,
    inputs: Mapping[str, FeatureType],
    from_pandas: bool,
) -> SpineTable:
    """Make the table `spine` of a chunk's inputs; t is 0 where no timestamp is named.

    Raises SpineError where a column is missing, is of another type or holds a value that its input's type does not, or a
    time is null. from_pandas: see `whole_numbers`.
    """
    raw = _give(connection, chunk, timestamp, inputs, from_pandas=from_pandas)
    columns = {name: f"i{place}" for place, name in enumerate(inputs)}
    selected = ["n"]
    for place, (name, of) in enumerate(inputs.items()):
        selected.append(f"{_read((name, f'c{place}', raw[place]), of, timezone)} AS {columns[name]}")
    instant = "0" if timestamp is None else _instant(timestamp, f"c{len(inputs)}", raw[len(inputs)], timezone)
    connection.execute(f"CREATE OR REPLACE TABLE spine AS SELECT {', '.join(selected)}, {instant} AS t FROM {GIVEN}")
    connection.unregister(GIVEN)
    times: pa.Table = connection.sql("SELECT n, t FROM spine").to_arrow_table()
    if times["t"].null_count:
        row = pc.min(times.filter(pc.is_null(times["t"]))["n"]).as_py() + chunk.first
        raise SpineError(f"Row {row} of the spine has no time in column '{timestamp}'")
    result = np.empty(times.num_rows, np.int64)
    result[times["n"].to_numpy()] = times["t"].to_numpy()
    beyond = (result < BEGINNING) | (result > END)
    if beyond.any():
        row = int(np.argmax(beyond))
        raise SpineError(
            f"Row {row + chunk.first} of the spine has {timestamp} = {timestamp_of(int(result[row]))}, which is no instant that a "
            "value can be asked for"
        )
    return SpineTable(result, columns)


def check_input_types(
    connection: duckdb.DuckDBPyConnection, schema: pa.Schema, inputs: Mapping[str, FeatureType], *, timezone: str
) -> None:
    """SpineError where a column has a type of which its input takes no value, for a caller that has the types before the rows. One of
    a type that Arrow casts nothing to is left to its rows."""
    for name, of in inputs.items():
        column = _one_value(schema.field(name).type) if name in schema.names else None
        if column is not None:
            chunk = SpineChunk(pa.table({name: column}), 0)
            load_chunk(connection, chunk, timestamp=None, timezone=timezone, inputs={name: of}, from_pandas=False)


def _one_value(of: pa.DataType) -> pa.Array | None:
    """A value of a type, such as 0; None where none is at hand."""
    for value in (pa.array([0]), pa.array([0], pa.int32()), pa.array(["0"]), pa.array([[]], pa.list_(pa.null()))):
        try:
            return value.cast(of)
        except pa.ArrowException:
            continue
    return None


def _give(
    connection: duckdb.DuckDBPyConnection, chunk: SpineChunk, timestamp: str | None,
    inputs: Mapping[str, FeatureType], *, from_pandas: bool,
) -> list[str]:  # fmt: skip
    """Register `GIVEN`; the DuckDB types of its columns, those of the inputs and then that of the timestamp."""
    table = chunk.table
    given: dict[str, pa.ChunkedArray] = {}
    for name in (*inputs, *([] if timestamp is None else [timestamp])):
        if name not in table.column_names:
            role = "input" if len(given) < len(inputs) else "timestamp"
            hint = did_you_mean(name, table.column_names, noun="Its columns")
            other = "" if role == "input" else " timestamp= names another."
            raise SpineError(f"The spine has no {role} column '{name}'.{hint}{other}")
        column = table[name]
        if isinstance(column.type, pa.BaseExtensionType) and is_period(column.type):
            of = inputs[name] if len(given) < len(inputs) else "a timestamp"
            raise SpineError(f"Spine column '{name}' holds periods, and must be {of}{PERIOD}")
        _check_micros(column, name, chunk.first)
        if len(given) < len(inputs):
            column = _taken(column, name, inputs[name], chunk.first, from_pandas=from_pandas)
        given[f"c{len(given)}"] = column
    try:
        connection.register(GIVEN, pa.table({**given, "n": np.arange(table.num_rows)}))
        described = connection.execute(f"DESCRIBE {GIVEN}").fetchall()
    except duckdb.NotImplementedException as error:
        held = taken_columns(pa.table(given))
        names = [*inputs, timestamp]
        odd = next((place for place in range(len(given)) if place not in held), 0)
        of = "a timestamp" if odd == len(inputs) else inputs[str(names[odd])]
        raise SpineError(f"Spine column '{names[odd]}' is {given[f'c{odd}'].type}, and must be {of}") from error
    return [of for _, of, *_ in described][: len(given)]


def _check_micros(column: pa.ChunkedArray, name: str, first: int) -> None:
    """SpineError where a time of a coarser unit is none in µs."""
    if not pa.types.is_timestamp(column.type) or column.type.unit not in COARSER:
        return
    reach = ((1 << 63) - 1) // COARSER[column.type.unit]
    numbers = column.cast(pa.int64())
    beyond = pc.or_(pc.greater(numbers, reach), pc.less(numbers, -reach))
    row = pc.index(beyond, True).as_py()
    if row >= 0:
        raise SpineError(
            f"Row {row + first} of the spine: '{name}' is {numbers[row]} {column.type.unit} from 1970, which is no instant in µs"
        )


def _read(column: tuple[str, str, str], of: FeatureType, zone: str) -> str:
    """What reads an input as its type; column: its name, its column of `GIVEN`, and the DuckDB type of that."""
    name, place, raw = column
    own = of if raw == '"NULL"' else type_of_column(raw)
    if own is None or not widens(own, of):
        raise SpineError(f"Spine column '{name}' is {said_type(raw)}, and must be {of}{_hint(raw, of)}")
    return read_sql(place, raw, of, zone)


def _taken(
    column: pa.ChunkedArray, name: str, of: FeatureType, first: int, *, from_pandas: bool
) -> pa.ChunkedArray:  # fmt: skip
    """An input column of another type than its own, where each value is exactly one of that; else as it is."""
    own = type_of_arrow(column.type)
    if column.null_count < len(column) and own is not None and widens(own, of):
        return column
    try:
        return pa.chunked_array([taken(column, of, from_pandas=from_pandas)])
    except WrongValueError as error:
        raise SpineError(f"Row {error.row + first} of the spine: '{name}' must be {of}: {error}") from None
    except WrongTypeError:
        return column  # which is refused by its own name


def _instant(name: str, place: str, raw: str, timezone: str) -> str:
    try:
        return instant_expression(place, raw, timezone)
    except ValueError:
        hint = "; a day is no instant: say which moment of the day is meant" if raw == "DATE" else ""
        if raw == "VARCHAR":
            hint = f"; convert it, as pandas does by pd.to_datetime(spine['{name}'], utc=True)"
        elif raw in {"BIGINT", "INTEGER", "DOUBLE", "UBIGINT"}:
            hint = f"; say its unit, as pd.to_datetime(spine['{name}'], unit='s', utc=True) does"
        raise SpineError(f"Spine column '{name}' is {said_type(raw)}, and must be a timestamp{hint}") from None


def _hint(raw: str, of: FeatureType) -> str:
    if raw == "VARCHAR":
        return "; text is never taken for another type, so convert the column first"
    if raw in {"FLOAT", "DOUBLE"} and of.kind.startswith("Int"):
        return "; a number with a fraction is no key, so convert the column first"
    own = type_of_column(raw)
    if of.kind == "String" and own is not None and own.kind.startswith(("Int", "Float")):
        return NUMBERS_FOR_TEXT
    return ""
