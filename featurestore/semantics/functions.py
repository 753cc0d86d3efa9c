"""Which of DuckDB's functions an expression may call: those whose result is made of their arguments and nothing else.

DuckDB says of each function how stable it is, and that decides; REFUSED has those of which it says too much, and those
whose result hangs on an order that nobody gave. `tests/semantics/test_functions.py` holds both to what they do.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from featurestore.semantics.engine import connect

CLOCK = "reads the clock"
SESSION = "depends on the session"
VERSION = "depends on the engine's version"
ORDER = "gives its elements in an order that nobody gave"

REFUSED = {
    "current_localtime": CLOCK,
    "current_localtimestamp": CLOCK,
    "current_date": CLOCK,
    "current_time": CLOCK,
    "current_timestamp": CLOCK,
    "get_current_time": CLOCK,
    "get_current_timestamp": CLOCK,
    "localtime": CLOCK,
    "localtimestamp": CLOCK,
    "now": CLOCK,
    "today": CLOCK,
    "transaction_timestamp": CLOCK,
    "ago": CLOCK,
    "random": "is random",
    "uuid": "is random",
    "uuidv4": "is random",
    "uuidv7": "is random",
    "gen_random_uuid": "is random",
    "alias": "depends on how the expression is written",
    "hash": VERSION,
    "create_sort_key": VERSION,
    "version": VERSION,
    "vector_type": VERSION,
    "json_serialize_plan": SESSION,
    "json_serialize_sql": VERSION,
    "json_deserialize_sql": VERSION,
    "finalize": VERSION,
    "combine": VERSION,
    "to_aggregate_state": VERSION,
    "user": SESSION,
    "current_user": SESSION,
    "session_user": SESSION,
    "current_role": SESSION,
    "current_setting": SESSION,
    "getvariable": SESSION,
    "current_catalog": SESSION,
    "list_distinct": ORDER,
    "array_distinct": ORDER,
    "list_intersect": ORDER,
    "array_intersect": ORDER,
    "list_grade_up": "puts equal elements in an order that nobody gave",
    "array_grade_up": "puts equal elements in an order that nobody gave",
    "grade_up": "puts equal elements in an order that nobody gave",
    "unnest": "makes several rows of one",
}
"""Function → what is wrong with it."""

LIST_AGGREGATES = {"list_aggregate", "list_aggr", "array_aggregate", "array_aggr", "aggregate"}
AGGREGATE_CALL = re.compile(r"list_aggr\(l, '(\w+)'\)")


class Function(NamedTuple):
    """What DuckDB says of a function. refused: why it may not be called, or empty. macro: (parameters, definition)."""

    refused: str
    macros: tuple[tuple[tuple[str, ...], str], ...] = ()
    aggregates: str = ""
    """For a function over lists that stands for an aggregate, such as list_sum: that aggregate."""


@cache
def known_functions() -> dict[str, Function]:
    """Every function that comes with DuckDB, by its name in lower case."""
    with connect(":memory:") as connection:
        rows = connection.execute(
            "SELECT lower(function_name), list(function_type), coalesce(bool_and(stability = 'CONSISTENT') "
            "FILTER (function_type = 'scalar'), true), list([parameters, [macro_definition]] ORDER BY macro_definition) "
            "FILTER (function_type = 'macro') FROM duckdb_functions() WHERE internal GROUP BY ALL"
        ).fetchall()
    return {
        name: _function(name, set(types), stable=stable, macros=macros or []) for name, types, stable, macros in rows
    }


def _function(name: str, types: set[str], *, stable: bool, macros: list[tuple[list[str], list[str]]]) -> Function:
    if name in REFUSED:
        return Function(REFUSED[name])
    if "aggregate" in types or "window" in types:
        return Function("is an aggregate over rows, and an expression sees one row")
    if not types & {"scalar", "macro"}:
        return Function("is a function that makes a table")
    if not stable:
        return Function("is not deterministic, or depends on the session")
    found = tuple((tuple(parameters or ()), definition) for parameters, (definition,) in macros)
    call = AGGREGATE_CALL.fullmatch(found[0][1]) if len(found) == 1 else None
    return Function("", found, call[1] if call else "")


ANY = {
    "any_value", "arbitrary", "bit_and", "bit_or", "bit_xor", "bool_and", "bool_or", "count", "first", "last", "max", "min",
    "string_agg", "group_concat", "listagg",
}  # fmt: skip
"""Aggregates whose result over a list is one of its elements, or exact, or follows their order."""
EXACT = {"sum", "avg", "mean"}
INTEGERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"}


def list_aggregate(aggregate: str, of: str | None) -> str:
    """Why an aggregate over a list may not be used, or empty. of: the list's DuckDB type, None where it is not known."""
    if aggregate in ANY:
        return ""
    if aggregate not in EXACT:
        return (
            f"'{aggregate}' over a list may depend on how the engine adds up; use count, min, max, or sum of integers"
        )
    element = (of or "").removesuffix("[]")
    element = re.sub(r"\[\d+\]$", "", element)
    if element in INTEGERS or (element.startswith("DECIMAL(") and aggregate == "sum"):
        return ""
    shown = f"is {of}" if of else "is the parameter of a lambda"
    return (
        f"'{aggregate}' over a list is exact for integers{' and decimals' if aggregate == 'sum' else ''} only, and this "
        f"list {shown}; cast its elements, or add them up in their order with list_reduce"
    )
