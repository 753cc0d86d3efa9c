"""What DuckDB's versions do differently, and that nothing of it is seen."""

from __future__ import annotations

import math
from collections.abc import Iterator

import duckdb
import pytest

from featurestore.semantics.engine import arguments, connect, is_arrow, settle_session, text_of
from featurestore.semantics.expressions import _parsed, check
from featurestore.semantics.order import order_sql
from featurestore.types import Float64

ENGINE = tuple(int(part) for part in duckdb.__version__.split(".")[:2])


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        settle_session(connection)
        yield connection


def test_versions_1_4_and_1_5_give_back_what_they_sorted_by(connection: duckdb.DuckDBPyConnection) -> None:
    """Of two zeros the sign is lost where a column is a term of its own order; our terms are never the column itself."""
    rows = "(VALUES (-0.0::DOUBLE), (0.0::DOUBLE), (-0.0::DOUBLE)) t(x)"

    def signs(terms: str) -> list[float]:
        return [math.copysign(1, x) for (x,) in connection.execute(f"SELECT x FROM {rows} ORDER BY {terms}").fetchall()]

    lost = ENGINE in {(1, 4), (1, 5)}
    assert sorted(signs("x")) == ([1, 1, 1] if lost else [-1, -1, 1])
    assert signs(", ".join(order_sql("x", Float64))) == [-1, -1, 1]
    ranked = f"row_number() OVER (ORDER BY {', '.join(order_sql('x', Float64))})"
    assert [
        math.copysign(1, x) for x, _ in connection.execute(f"SELECT x, {ranked} FROM {rows} ORDER BY 2").fetchall()
    ] == [-1, -1, 1]


def test_text_is_ordered_by_its_bytes(connection: duckdb.DuckDBPyConnection) -> None:
    """Before version 1.4 an empty text came after one that begins with a zero byte, so those versions are refused."""
    assert connection.execute("SELECT x FROM (VALUES (chr(0)), ('')) t(x) ORDER BY x").fetchall() == [("",), ("\0",)]


def test_an_arrow_makes_no_lambda(connection: duckdb.DuckDBPyConnection) -> None:
    """It reads from JSON. Before version 2 the engine alone would take one for a lambda as well."""
    with pytest.raises(ValueError, match="no column 'y'"):
        check(connection, "list_transform(xs, y -> y + 1)", {"xs": "BIGINT[]"})
    with pytest.raises(ValueError, match="does not fit its columns"):  # though there is a column of that name
        check(connection, "list_transform(xs, y -> y + 1)", {"xs": "BIGINT[]", "y": "BIGINT"})
    assert check(connection, "list_transform(js, lambda j: j -> 'a')", {"js": "JSON[]"}) == "JSON[]"
    assert is_arrow(_parsed(connection, "j -> 'a'"))
    assert is_arrow(_parsed(connection, "(x, y) -> x"))
    assert not is_arrow(arguments(_parsed(connection, "list_transform(xs, lambda y: y + 1)"))[1])


def test_a_tree_is_read_alike(connection: duckdb.DuckDBPyConnection) -> None:
    """Arguments and constants, which version 2 wraps in another way."""
    first, second = arguments(_parsed(connection, "list_aggregate(xs, 'max')"))
    assert (first["column_names"], text_of(second)) == (["xs"], "max")


def test_what_the_engines_own_grammar_calls_is_called_by_nobody(connection: duckdb.DuckDBPyConnection) -> None:
    """Before version 2 the tree says `main.list_value` of `[x]`; who writes it is told that it is unclear."""
    assert check(connection, "[x, 1]", {"x": "BIGINT"}) == "BIGINT[]"
    for written in ("main.abs(x)", 'main."abs"(x)', "MAIN.ABS(x)", "main . abs (x)"):
        with pytest.raises(ValueError, match="unclear"):
            check(connection, written, {"x": "BIGINT"})


def test_no_table_is_a_variable_of_python() -> None:
    """Whatever modules and functions call theirs, a name that is no table's is not found, in a cursor either."""
    with connect() as connection:
        for name in ("given", "words", "method", "value", "duckdb", "connection"):
            for asked in (connection, connection.cursor()):
                with pytest.raises(duckdb.CatalogException, match=f"Table with name {name} does not exist"):
                    asked.sql(f"SELECT * FROM {name}")


def test_relations_take_relations() -> None:
    with connect() as connection:
        one, two = connection.sql("SELECT 1 AS a"), connection.sql("SELECT 2 AS a")
        assert sorted(one.union(two).fetchall()) == [(1,), (2,)]
