"""Row conditions and derived columns: SQL expressions over one row of a source.

One engine evaluates them in batch, over Parquet, and in push, over Arrow, with the same text over the same columns.
So whatever is not made of the row alone is refused when a plan is made.

DuckDB concludes from the statistics of a Parquet file what a condition can be, and the statistics that Arrow writes
leave NaN out: over such a file even `isnan(x)` is false for every row. `guarded` keeps statistics out.
"""

from __future__ import annotations

import functools
import json
import re
import threading
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from featurestore.errors import did_you_mean
from featurestore.lazy import duckdb, pa
from featurestore.semantics.columns import RawColumns, finer_than_micros, floored_sql, floored_type
from featurestore.semantics.engine import (
    KeptInstance,
    Node,
    arguments,
    connect,
    is_arrow,
    settle_session,
    text_of,
    without_places,
)
from featurestore.semantics.functions import EXACT, LIST_AGGREGATES, REFUSED, known_functions, list_aggregate
from featurestore.semantics.sql import folded, quote
from featurestore.semantics.tokens import normalised, qualified_calls, quoted_names

__all__ = ["check", "check_faults", "columns_named", "evaluate", "guarded", "normalised", "settled"]

PLAIN = {"FUNCTION", "COMPARISON", "CONJUNCTION", "CONSTANT", "CASE", "CAST", "OPERATOR", "BETWEEN", "COLLATE", "TYPE"}
REFUSED_CLASSES = {
    "SUBQUERY": "a subquery: an expression sees one row",
    "WINDOW": "a window function: an expression sees one row",
    "PARAMETER": "a parameter: write the value",
    "STAR": "'*': name the columns",
    "POSITIONAL_REFERENCE": "a column by its position: name it",
    "DEFAULT": "DEFAULT: write the value",
}
SORTS = {"list_sort", "array_sort", "list_reverse_sort", "array_reverse_sort", "len", "length", "array_length"}
"""Functions whose result does not hang on the order of their argument's elements."""
ORDERING = {"list_sort", "array_sort", "list_reverse_sort", "array_reverse_sort"}
"""Functions that put -0.0 and 0.0, which DuckDB takes for equal, in either order, as it happens to read them."""
UNORDERED = {"list_distinct", "array_distinct", "list_intersect", "array_intersect"}


def guarded(columns: Mapping[str, str]) -> str:
    """A select list of columns, by name and DuckDB type, of which DuckDB knows no statistics; values keep their bits, and
    timestamps finer than µs are floored.

    Expressions must be evaluated over `SELECT {guarded(columns)} FROM source`, in conditions too.
    """
    return ", ".join(
        f"TRY({quote(name)}) AS {quote(name)}"
        if "FLOAT" in of or "DOUBLE" in of
        else f"{floored_sql(quote(name), of)} AS {quote(name)}"
        if finer_than_micros(of)
        else quote(name)
        for name, of in columns.items()
    )


def check(connection: duckdb.DuckDBPyConnection, expression: str, columns: Mapping[str, str]) -> str:
    """The DuckDB type of an expression over one row of columns, by name and DuckDB type.

    ValueError, naming what is wrong, where it is no single expression, reads columns that are not there, has wrong
    types, or could give another value for the same row: clock, session, chance, order, aggregates, subqueries.
    """
    node = _read(connection, expression, columns)
    _Check(connection, columns, expression).node(node, frozenset())
    try:
        return _type(connection, normalised(expression), columns)
    except duckdb.Error as error:
        raise ValueError(f"the expression {expression!r} does not fit its columns: {_first_line(error)}") from None


def _read(connection: duckdb.DuckDBPyConnection, expression: str, columns: Mapping[str, str]) -> Node:
    """The tree of an expression; where it cannot be read for the name of a column, ValueError says how that is written."""
    try:
        return _parsed(connection, expression)
    except ValueError as error:
        unquoted = set(map(folded, re.findall(r"\w+", re.sub(r"'[^']*'|\"[^\"]*\"", " ", expression))))
        words = connection.execute("SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category <> 'unreserved'")
        meant = next(
            (word for (word,) in words.fetchall() if word in unquoted & {folded(name) for name in columns}), None
        )
        if meant is None:
            raise
        raise ValueError(f"{error}; where '{meant}' is the column, write \"{meant}\": it is a word of SQL") from None


def _type(connection: duckdb.DuckDBPyConnection, sql: str, columns: Mapping[str, str]) -> str:
    nulls = ", ".join(f"CAST(NULL AS {floored_type(of)}) AS {quote(name)}" for name, of in columns.items()) or "NULL"
    of: str = connection.execute(f"DESCRIBE SELECT ({sql}) FROM (SELECT {nulls})").fetchall()[0][1]
    return of


def _parsed(connection: duckdb.DuckDBPyConnection, expression: str) -> Node:
    """The tree of one expression. It is read as it stands and in parentheses: what closes them is none."""
    try:
        text = normalised(expression)
    except ValueError as error:
        raise ValueError(f"the expression {expression!r} cannot be read: {error}") from None
    if ";" in text.split(" ")[:-1]:
        raise ValueError(f"{expression!r} is not one expression")
    found = [_select(connection, sql, expression) for sql in (f"SELECT {text}", f"SELECT ({text})")]
    if found[0] != found[1] or ";" in text.split(" "):
        raise ValueError(f"{expression!r} is not one expression")
    return found[0]


def _select(connection: duckdb.DuckDBPyConnection, sql: str, expression: str) -> Node:
    read = json.loads(connection.execute("SELECT json_serialize_sql(?)", [sql]).fetchall()[0][0])
    if read["error"]:
        raise ValueError(f"the expression {expression!r} cannot be read: {read['error_message']}")
    statements = read["statements"]
    node = statements[0]["node"]
    alone = len(statements) == 1 and node["type"] == "SELECT_NODE" and len(node["select_list"]) == 1
    clauses = ("modifiers", "where_clause", "group_expressions", "group_sets", "having", "sample", "qualify")
    if (
        not alone
        or any(node[clause] for clause in clauses)
        or node["cte_map"]["map"]
        or node["from_table"]["type"] != "EMPTY"
        or node["select_list"][0].get("alias")
    ):
        raise ValueError(f"{expression!r} is not one expression")
    found: Node = without_places(node["select_list"][0])
    return found


class _Check:
    """Walks a tree; ValueError at the first node that may not be there."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, columns: Mapping[str, str], text: str) -> None:
        self._connection = connection
        self._columns = columns
        self._names = {name.lower(): name for name in columns}
        self._quoted, self._qualified = quoted_names(text), qualified_calls(text)

    def node(self, node: Node, bound: frozenset[str], within: str = "") -> None:
        """bound: the parameters of the lambdas around, in lower case. within: the function whose argument it is."""
        kind = node["class"]
        if kind == "COLUMN_REF":
            self._column(node["column_names"], bound)
        elif kind == "LAMBDA":
            self._lambda(node, bound)
        elif kind not in PLAIN or node["type"] == "GROUPING_FUNCTION":
            raise ValueError(f"an expression cannot use {REFUSED_CLASSES.get(kind, kind.lower().replace('_', ' '))}")
        elif kind == "FUNCTION":
            self._function(node, bound, within)
        else:
            for child in _children(node):
                self.node(child, bound)

    def _column(self, names: list[str], bound: frozenset[str]) -> None:
        name = names[0].lower()
        if name in bound:
            return
        if name in self._names:
            if names[0] in self._quoted and names[0] not in self._columns:
                raise ValueError(
                    f"there is no column '{names[0]}'; there is '{self._names[name]}', and a quoted name is exact"
                )
            return
        if name in REFUSED:
            raise ValueError(f"an expression cannot use '{names[0]}', which {REFUSED[name]}")
        raise ValueError(f"there is no column '{names[0]}'.{did_you_mean(names[0], self._columns, noun='Columns')}")

    def _lambda(self, node: Node, bound: frozenset[str]) -> None:
        if is_arrow(node):
            self.node(node["lhs"], bound)
            self.node(node["expr"], bound)
            return
        self.node(node["expr"], bound | set(_parameters(node)))

    def _function(self, node: Node, bound: frozenset[str], within: str) -> None:
        name = node["function_name"].lower()
        if node["distinct"] or node["filter"] or node["order_bys"]["orders"]:
            raise ValueError(f"an expression cannot use '{name}' as an aggregate over rows: it sees one row")
        if (
            schema := node["schema"] or node["catalog"]
        ) and name in self._qualified:  # else the engine's grammar made it
            raise ValueError(f"'{schema}.{name}(…)' is unclear in an expression; write {name}({schema}, …)")
        function = known_functions().get(name)
        if function is None:
            named = [known for known, of in known_functions().items() if known[0].isalpha() and not of.refused]
            raise ValueError(f"there is no function '{name}'.{did_you_mean(name, named, noun='Functions')}")
        given = arguments(node)
        refused = "" if name in UNORDERED and within in SORTS else function.refused
        if name == "age" and len(given) == 1:
            refused = "reads the clock when it has one argument"
        if refused:
            hint = f"; sort it: list_sort({name}(…))" if name in UNORDERED else ""
            raise ValueError(f"an expression cannot use '{name}', which {refused}{hint}")
        for argument in given:
            self.node(argument, bound, name)
        if name in ORDERING and given:
            of = None if _reads(given[0], bound) else self._type(given[0])
            if of is None or "FLOAT" in of or "DOUBLE" in of:
                shown = of or "the parameter of a lambda, which may be a list of floats"
                raise ValueError(f"an expression cannot use '{name}' over {shown}: it puts 0.0 and -0.0 in any order")
        if function.aggregates or name in LIST_AGGREGATES:
            self._aggregate(function.aggregates, given, bound)
        elif function.macros:
            self._macros(name, function.macros)

    def _aggregate(self, aggregate: str, given: list[Node], bound: frozenset[str]) -> None:
        if not aggregate:
            named: Node = given[1] if len(given) > 1 else {"class": ""}
            if named["class"] != "CONSTANT":
                raise ValueError("an expression must name the aggregate over a list as text, such as 'max'")
            aggregate = text_of(named).lower()
        needs = aggregate in EXACT and bool(given) and not _reads(given[0], bound)
        of = self._type(given[0]) if needs else None
        refused = list_aggregate(aggregate, of)
        if refused:
            raise ValueError(f"an expression cannot use an aggregate over a list so: {refused}")

    def _type(self, node: Node) -> str | None:
        tree = json.loads(self._connection.execute("SELECT json_serialize_sql('SELECT 1')").fetchall()[0][0])
        tree["statements"][0]["node"]["select_list"] = [node]
        try:
            (sql,) = self._connection.execute("SELECT json_deserialize_sql(?)", [json.dumps(tree)]).fetchall()[0]
            return _type(self._connection, sql.removeprefix("SELECT "), self._columns)
        except duckdb.Error as error:
            raise ValueError(f"an argument does not fit its columns: {_first_line(error)}") from None

    def _macros(self, name: str, macros: tuple[tuple[tuple[str, ...], str], ...]) -> None:
        """What a macro of DuckDB stands for is held to the same."""
        for parameters, definition in macros:
            try:
                tree = _parsed(self._connection, definition)
                _Check(self._connection, dict.fromkeys(parameters, "ANY"), definition).node(tree, frozenset())
            except ValueError as error:
                raise ValueError(f"an expression cannot use '{name}', which stands for {definition}: {error}") from None


def _children(node: Any) -> Iterator[Node]:
    """The nearest nodes below one."""
    for item in node.values() if isinstance(node, dict) else node:
        if isinstance(item, dict) and "class" in item:
            yield item
        elif isinstance(item, dict | list):
            yield from _children(item)


def _reads(node: Node, bound: frozenset[str]) -> bool:
    """Whether a lambda's parameter is read, whose type only the engine knows."""
    if node["class"] == "COLUMN_REF":
        return node["column_names"][0].lower() in bound
    return any(_reads(child, bound) for child in _children(node))


def _first_line(error: Exception) -> str:
    return str(error).split("\n", maxsplit=1)[0]


class _Engine(threading.local):
    """A connection for each thread; a forked child makes its own."""

    kept: KeptInstance | None = None

    def get(self) -> duckdb.DuckDBPyConnection:
        if self.kept is not None and (usable := self.kept.usable()) is not None:
            return usable
        connection = connect(":memory:", config={"threads": 1})
        settle_session(connection)
        self.kept = KeptInstance(connection)
        return connection


_ENGINE = _Engine()


class Settled(NamedTuple):
    """What a plan needs to know of an expression: its DuckDB type, and the columns that it reads, in their order."""

    type: str
    columns: tuple[str, ...]


def check_faults(expression: str, columns: Mapping[str, str]) -> None:
    """ValueError where an expression reads a column that is there, and cannot be read; it says why."""
    if not isinstance(columns, RawColumns) or not columns.faults:
        return
    named = {name.lower() for name in columns_named(expression)}
    for column, fault in columns.faults.items():
        if column.lower() in named:
            raise ValueError(f"column '{column}' {fault}")


def settled(expression: str, columns: Mapping[str, str]) -> Settled:
    """`check`, and the columns that the expression reads; remembered, since the same one is asked for at every load."""
    return _settled(expression, tuple(columns.items()))


@functools.lru_cache(maxsize=1024)
def _settled(expression: str, columns: tuple[tuple[str, str], ...]) -> Settled:
    connection = _ENGINE.get()
    of = check(connection, expression, dict(columns))
    named = set(_columns_of(_parsed(connection, expression)))
    return Settled(of, tuple(name for name, _ in columns if name.lower() in named))


def _columns_of(node: Node) -> Iterator[str]:
    if node["class"] == "COLUMN_REF":
        yield node["column_names"][0].lower()
    for child in _children(node):
        yield from _columns_of(child)


def columns_named(expression: str) -> tuple[str, ...]:
    """The columns that an expression names, before it is known which there are; in lower case, but for quoted ones."""
    return tuple(dict.fromkeys(_names(_parsed(_ENGINE.get(), expression), frozenset())))


def _names(node: Node, bound: frozenset[str]) -> Iterator[str]:
    if node["class"] == "COLUMN_REF":
        name: str = node["column_names"][0]
        yield from () if name.lower() in bound else (name,)
    elif node["class"] == "LAMBDA" and not is_arrow(node):
        yield from _names(node["expr"], bound | set(_parameters(node)))
    else:
        for child in _children(node):
            yield from _names(child, bound)


def _parameters(node: Node) -> Iterator[str]:
    """The names of a lambda's parameters, in lower case."""
    left = node["lhs"]
    names = [left] if left["class"] == "COLUMN_REF" else arguments(left)
    yield from (name["column_names"][0].lower() for name in names)


def evaluate(table: pa.Table, expressions: Mapping[str, str]) -> pa.Table:
    """The columns that expressions give, by name and in their order, for each row of a table, in its order.

    ValueError where one fails for a row, such as a cast of text that is no number; it names the column.
    """
    if not expressions:
        return table.select([])
    connection = _ENGINE.get()
    connection.register("rows", table)
    try:
        columns = {name: of for name, of, *_ in connection.sql("DESCRIBE rows").fetchall()}
        rows = f"(SELECT {guarded(columns)} FROM rows)"
        selected = [f"({normalised(sql)}) AS {quote(name)}" for name, sql in expressions.items()]
        try:
            return connection.sql(f"SELECT {', '.join(selected)} FROM {rows}").to_arrow_table()
        except duckdb.Error as error:
            for name, one in zip(expressions, selected, strict=True):
                try:
                    connection.sql(f"SELECT {one} FROM {rows}").to_arrow_table()
                except duckdb.Error as own:
                    raise ValueError(f"column '{name}' cannot be computed: {_first_line(own)}") from own
            raise ValueError(f"columns cannot be computed: {_first_line(error)}") from error
    finally:
        connection.unregister("rows")
