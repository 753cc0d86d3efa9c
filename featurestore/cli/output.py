"""How results are printed: reports and tables for a person, JSON for a program."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import Any

import typer

from featurestore.lazy import pa
from featurestore.plurals import plural
from featurestore.report import UNBOUNDED_COLUMNS, Report, Reported, ReportTable, plain

SHOWN_ROWS = 20
"""Rows of a frame that are printed for a person."""


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    import orjson

    typer.echo(orjson.dumps(plain(value), option=orjson.OPT_INDENT_2).decode())


def print_report(report: Report) -> None:
    """A report as wide as the terminal; elsewhere as wide as it must be."""
    typer.echo(report.text(shutil.get_terminal_size().columns if sys.stdout.isatty() else UNBOUNDED_COLUMNS))


def print_found(found: Reported, *, as_json: bool) -> None:
    """What a verb found, for a program or for a person."""
    if as_json:
        print_json(found.to_dict())
    else:
        print_report(found.report())


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table alone."""
    print_report(Report("", (ReportTable(columns, rows),)))


def rows_of_table(table: pa.Table) -> list[dict[str, Any]]:
    """An Arrow table as rows of Python values, instants in UTC."""
    from featurestore.semantics.values import scalars

    columns = [scalars(column) for column in table.columns]
    return [dict(zip(table.column_names, values, strict=True)) for values in zip(*columns, strict=True)]


def print_rows(table: pa.Table) -> None:
    """The first rows of a frame, and how many more there are."""
    shown = rows_of_table(table.slice(0, SHOWN_ROWS))
    print_table(table.column_names, [list(row.values()) for row in shown])
    typer.echo(
        f"{table.num_rows} {plural(table.num_rows, 'row')}"
        + (f", the first {SHOWN_ROWS} shown" if table.num_rows > SHOWN_ROWS else "")
    )
