"""What DuckDB's functions are said to be is what they are."""

from __future__ import annotations

import time

import duckdb
import pytest

from featurestore.semantics.expressions import check
from featurestore.semantics.functions import REFUSED, known_functions


def test_functions_without_arguments_are_constant() -> None:
    """Every function that may be called without arguments gives the same in another session at another time."""
    with duckdb.connect() as connection:
        names = connection.execute(
            "SELECT DISTINCT lower(function_name) FROM duckdb_functions() WHERE internal AND function_type IN "
            "('scalar', 'macro') AND len(parameters) = 0 ORDER BY 1"
        ).fetchall()
    allowed = []
    for (name,) in names:
        with duckdb.connect() as connection:
            try:
                check(connection, f"{name}()", {})
            except ValueError:
                continue
        allowed.append(name)
    assert "pi" in allowed

    def values(setup: str) -> list[object]:
        with duckdb.connect() as connection:
            connection.execute(setup)
            return [connection.execute(f"SELECT {name}()::VARCHAR").fetchall() for name in allowed]

    before = values("SET TimeZone = 'UTC'")
    time.sleep(0.002)
    assert values("CREATE SCHEMA other; SET schema = 'other'; SET TimeZone = 'Asia/Tokyo'") == before


def test_what_duckdb_calls_unstable_is_refused() -> None:
    """No function that DuckDB itself does not call consistent may be used."""
    with duckdb.connect() as connection:
        names = connection.execute(
            "SELECT DISTINCT lower(function_name) FROM duckdb_functions() WHERE function_type = 'scalar' AND stability "
            "<> 'CONSISTENT'"
        ).fetchall()
    assert len(names) > 20
    assert [name for (name,) in names if not known_functions()[name].refused] == []


@pytest.mark.parametrize("name", sorted(set(REFUSED) & set(known_functions())))
def test_refused_by_name(name: str) -> None:
    """Every function of the list is refused with its reason."""
    assert known_functions()[name].refused == REFUSED[name]


def test_duckdb_says_too_much() -> None:
    """DuckDB calls these consistent, though they read the clock; were it to stop, the list could be shorter."""
    with duckdb.connect() as connection:
        rows = connection.execute(
            "SELECT DISTINCT function_name FROM duckdb_functions() WHERE stability = 'CONSISTENT' AND function_name IN "
            "('current_localtime', 'current_localtimestamp', 'age') ORDER BY 1"
        ).fetchall()
    assert [name for (name,) in rows] == ["age", "current_localtime", "current_localtimestamp"]
