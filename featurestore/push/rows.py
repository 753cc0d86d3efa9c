"""What was pushed, as a table of the source's columns."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from featurestore.declare.frames import is_pandas, table_of
from featurestore.declare.push import PushSource
from featurestore.declare.zones import naive_columns, said_zones
from featurestore.durable.disk import replace
from featurestore.durable.parquet import storable
from featurestore.errors import PushError, did_you_mean
from featurestore.lazy import pa, pc, pq
from featurestore.semantics.input_columns import WrongTypeError, WrongValueError, taken
from featurestore.semantics.values import canonical
from featurestore.types import FeatureType, from_json

INT64 = 1 << 63


def write_rows(rows: pa.Table, file: Path) -> None:
    """Rows into a Parquet file that can be pushed; whole and on the disk when it returns."""
    written = io.BytesIO()
    pq.write_table(storable(rows), written)
    replace(file, written.getvalue())


class GivenRows(NamedTuple):
    """Rows as the source's columns, and the columns that had timestamps without a zone, which were read as UTC."""

    table: pa.Table
    naive: tuple[str, ...]


def table_of_rows(source: PushSource, rows: Any, *, json: bool = False) -> pa.Table:
    """The table of `given_rows`."""
    return given_rows(source, rows, json=json).table


def given_rows(source: PushSource, rows: Any, *, json: bool = False) -> GivenRows:
    """The rows as the source's columns, in their canonical Arrow types.

    rows: a list of mappings (or one), or a frame. A column that is left out is null. `json`: values are in their JSON
    forms. Raises PushError, naming the row and the column, for an unknown column, a value of another type, or a null
    where the row could then not be placed: in event_time (but for a deletion) and in the identity.
    """
    if isinstance(rows, Mapping) and not any(_is_column(source, name, value) for name, value in rows.items()):
        rows = [rows]
    if isinstance(rows, Sequence) and not isinstance(rows, (str, bytes)):
        given = _of_mappings(source, rows, json=json)
    else:
        given = _of_frame(source, rows)
    _check_nulls(source, given.table)
    return given


def _is_column(source: PushSource, name: str, value: Any) -> bool:
    """Whether a mapping's value holds a value for each of several rows, and is not the one value of an array column."""
    return isinstance(value, (list, tuple)) and (name not in source.columns or source.columns[name].element is None)


def _of_mappings(source: PushSource, rows: Sequence[Any], *, json: bool) -> GivenRows:
    columns = None if json else _plain(source, rows)
    naive: tuple[str, ...] = ()
    if columns is None:
        columns = _accepted(source, rows, json=json)
        timed = [name for name, of in source.columns.items() if "Timestamp" in str(of)]
        naive = tuple(name for name in timed if any(False in said_zones(row.get(name)) for row in rows))
    arrays = {name: canonical(pa.array(columns[name], of.arrow), of) for name, of in source.columns.items()}
    return GivenRows(pa.table(arrays), naive)


def _plain(source: PushSource, rows: Sequence[Any]) -> dict[str, list[Any]] | None:
    """The rows' values by column where all are canonical scalars already; None else."""
    names = source.columns.keys()
    if not all(type(row) is dict and row.keys() <= names for row in rows):
        return None
    columns = {name: [row.get(name) for row in rows] for name in names}
    return columns if all(_is_plain(source.columns[name], values) for name, values in columns.items()) else None


def _is_plain(of: FeatureType, values: list[Any]) -> bool:
    kinds = {*map(type, values)}
    if of.kind == "Int64":
        return kinds == {int} and min(values) >= -INT64 and max(values) < INT64
    if of.kind == "Timestamp":
        return kinds == {datetime} and all(value.tzinfo is UTC for value in values)
    return of.kind == "Float64" and kinds <= {float, type(None)}


def _accepted(source: PushSource, rows: Sequence[Any], *, json: bool) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {name: [] for name in source.columns}
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise PushError(f"{source.title}: row {number} is {type(row).__name__}, and must map columns to values")
        for name in row:
            if name not in columns:
                hint = did_you_mean(str(name), columns, noun="Its columns")
                raise PushError(
                    f"{source.title}: row {number} has a column '{name}' that the source has not: drop it, or name it in "
                    f"schema=.{hint}"
                )
        for name, of in source.columns.items():
            value = row.get(name)
            try:
                columns[name].append(from_json(of, value) if json else of.accept(value))
            except (ValueError, TypeError) as error:
                form = _said_as_json(of, value) if not json else ""
                raise PushError(f"{source.title}: row {number}, column '{name}' must be {of}: {error}{form}") from None
    return columns


def _said_as_json(of: FeatureType, value: Any) -> str:
    """The end of a message about text that is a JSON form of the type; nothing about other values."""
    if not isinstance(value, str):
        return ""
    try:
        from_json(of, value)
    except (ValueError, TypeError):
        return ""
    return "; or push(…, json=True), which takes all values in their JSON forms"


def _of_frame(source: PushSource, rows: Any) -> GivenRows:
    try:
        table = table_of(rows, owned=True)  # whose columns are copied below, each into one chunk
    except TypeError:
        raise PushError(
            f"{source.title}: {type(rows).__name__} is neither rows nor a frame; pass a list of dicts, or a frame"
        ) from None
    except ValueError as error:
        raise PushError(f"{source.title}: the frame cannot be read: {error}") from None
    for name in table.column_names:
        if name not in source.columns:
            hint = did_you_mean(name, source.columns, noun="Its columns")
            raise PushError(f"{source.title} has no column '{name}': drop it, or name it in schema=.{hint}")
    columns = {}
    for name, of in source.columns.items():
        column = table[name] if name in table.column_names else pa.nulls(table.num_rows, of.arrow)
        columns[name] = _column(source, name, of, column, from_pandas=is_pandas(rows))
    return GivenRows(pa.table(columns), naive_columns(table.schema, source.columns))


def _column(source: PushSource, name: str, of: FeatureType, column: Any, *, from_pandas: bool) -> pa.Array:
    try:
        return taken(column, of, from_pandas=from_pandas)
    except WrongValueError as error:
        raise PushError(f"{source.title}: row {error.row}, column '{name}' must be {of}: {error}") from None
    except WrongTypeError as error:
        raise PushError(f"{source.title}: column '{name}' {error}") from None


def _check_nulls(source: PushSource, table: pa.Table) -> None:
    deleted = None
    if source.deleted is not None:
        deleted = pc.fill_null(table[source.deleted], False)
    for name in source.identity:
        _refuse_null(source, table[name], name, "identity")
    times = table[source.event_time]
    if deleted is not None:
        times = pc.if_else(deleted, pa.scalar(0).cast(times.type), times)
    _refuse_null(source, times, source.event_time, "event_time")


def _refuse_null(source: PushSource, column: Any, name: str, role: str) -> None:
    if column.null_count:
        row = pc.index(pc.is_null(column), True).as_py()
        raise PushError(f"{source.title}: row {row} has no '{name}', which is its {role}")
