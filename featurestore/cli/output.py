"""How results are printed: tables and text for a person, JSON for a program."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["cell", "json_of", "print_json", "print_rows", "print_table", "rows_of_table"]

WIDE = 10_000
"""Columns of a table that no terminal shows: nothing is cut."""

SHOWN = 20
"""Rows of a frame that are printed for a person."""


def json_of(value: Any) -> Any:
    """The JSON form of a canonical scalar of any type; see featurestore.types."""
    from featurestore import types

    if isinstance(value, (list, tuple)):
        return [json_of(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): json_of(item) for key, item in value.items()}
    far = ((types.FarTimestamp, types.Timestamp), (types.FarDate, types.Date))
    forms = (*far, (datetime, types.Timestamp), (date, types.Date), (bytes, types.Bytes), (float, types.Float64))
    for kind, of in forms:
        if isinstance(value, kind):
            return types.to_json(of, value)
    return format(value, "f") if isinstance(value, Decimal) else value


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    import orjson

    typer.echo(orjson.dumps(json_of(value), option=orjson.OPT_INDENT_2).decode())


def cell(value: Any) -> str:
    """A value as it stands in a table."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(cell, value))}]"
    if isinstance(value, datetime):
        return f"{value.replace(tzinfo=None).isoformat(sep=' ')}{'' if value.utcoffset() else 'Z'}"
    return str(json_of(value))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table as wide as the terminal; elsewhere as wide as it must be."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else WIDE, highlight=False)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in columns:
        table.add_column(Text(name), overflow="fold")
    for row in rows:
        table.add_row(*(Text(value if isinstance(value, str) else cell(value)) for value in row))
    console.print(table)


def rows_of_table(table: pa.Table) -> list[dict[str, Any]]:
    """An Arrow table as rows of Python values, instants in UTC."""
    from featurestore.semantics.values import scalars

    columns = [scalars(column) for column in table.columns]
    return [dict(zip(table.column_names, values, strict=True)) for values in zip(*columns, strict=True)]


def print_rows(table: pa.Table) -> None:
    """The first rows of a frame, and how many more there are."""
    shown = rows_of_table(table.slice(0, SHOWN))
    print_table(table.column_names, [list(row.values()) for row in shown])
    typer.echo(f"{table.num_rows} rows" + (f", the first {SHOWN} shown" if table.num_rows > SHOWN else ""))
