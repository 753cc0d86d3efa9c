"""The batch history of a push source: its rows beside the log's, as one relation.

A row of the history counts from when it was known by the history's own words, where that and its event_time lie at or
before the cutover; a pushed row is known after it. Pointers tell them apart: segments of a log count from 1, files of a
history from -1 down.
"""

from __future__ import annotations

from collections.abc import Mapping

from featurestore.declare.push import KNOWN_AT, REPLACES, PushSource
from featurestore.declare.sources import Source
from featurestore.errors import did_you_mean
from featurestore.semantics.columns import read_sql, type_of_column, widens
from featurestore.semantics.expectations import pushed_expectations
from featurestore.semantics.rows import counts_from_sql, timed_sql
from featurestore.semantics.source_columns import Scan, cell
from featurestore.semantics.sql import quote
from featurestore.sources.log import ROW, SEGMENT


def check_history(source: PushSource, history: Source, raw: Mapping[str, str]) -> None:
    """DeclarationError where the history's columns, by name and DuckDB type, do not hold what the schema says."""
    for name, of in source.columns.items():
        if name not in raw:
            hint = did_you_mean(name, raw, noun="Its columns")
            raise source.error(f"its history, {history.title}, has no column '{name}', which the schema names.{hint}")
        own = type_of_column(raw[name])
        if own is None or not widens(own, of):
            raise source.error(
                f"column '{name}' of its history, {history.title}, is {raw[name]}, which does not fit {of} of the schema "
                "without loss"
            )


def with_history(source: PushSource, log: Scan, history: Source, scan: Scan, raw: Mapping[str, str]) -> Scan:
    """The log's rows and those of the history that lie before the cutover, with the columns of the log.

    scan, raw: how SQL reads the history, and its columns by name and DuckDB type.
    """
    rows = history_sql(
        source, history, scan, raw, known="known",
        beside=f"CAST(-1 - file AS BIGINT) AS {SEGMENT}, CAST(row AS BIGINT) AS {ROW}",
    )  # fmt: skip
    rows += f" AND {counts_from_sql()} <= {source.cutover_instant}"
    return Scan(f"(SELECT * FROM {log.relation} UNION ALL BY NAME {rows})", log.file, log.row)


def history_sql(
    source: PushSource, history: Source, scan: Scan, raw: Mapping[str, str], *, known: str, beside: str = ""
) -> str:
    """The rows of a history that ever count, with the columns of the log, and what is to be `beside` them. known: what stands
    for when the store learned of a row."""
    zone = history.timezone or "UTC"
    columns = ", ".join(
        f"CAST({read_sql(quote(name), raw[name], of, zone)} AS {of.duckdb}) AS {cell(name)}"
        for name, of in source.columns.items()
    )
    named = ", ".join(f"{cell(name)} AS {quote(name)}" for name in source.columns)
    own = ", ".join(filter(None, [f"{known} AS {KNOWN_AT}", f"CAST(NULL AS BIGINT) AS {REPLACES}", beside]))
    rows = timed_sql(history, raw, scan, columns, expectations=pushed_expectations(source))
    return f"SELECT {named}, {own} FROM ({rows}) WHERE event_us IS NOT NULL AND known IS NOT NULL"


def unmet_history_sql(source: PushSource, history: Source, scan: Scan, raw: Mapping[str, str]) -> str:
    """One row: how many rows of a history that happened by the cutover do not meet each of what the push source expects."""
    expectations = pushed_expectations(source)
    counts = ", ".join(f"count(*) FILTER (u{i})" for i in range(len(expectations)))
    rows = timed_sql(history, raw, scan, "1 AS one", expectations=expectations)
    return f"SELECT {counts} FROM ({rows}) WHERE event_us <= {source.cutover_instant}"
