"""Ctrl-C within a query is a KeyboardInterrupt, in whatever way the engine is asked, and nothing that goes on after errors takes it for one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from featurestore.lazy import duckdb
from featurestore.semantics.engine import connect

FOREVER = "SELECT sum(sin(range)) FROM range(1000000000000)"

WORKED_SECONDS = 0.3
"""Processor time after which a process is within what it was begun for."""

BEGUN = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which whoever starts a process in the background takes from it
def begin():
    print("begun", flush=True)
"""

TOLD = """
try:
    go()
except Exception as error:
    print("an error:", type(error).__name__, error)
except KeyboardInterrupt:
    print("KeyboardInterrupt")
else:
    print("it was done")
"""

WAYS = {
    "execute": "connection.execute(FOREVER)",
    "relation": "connection.sql(FOREVER).fetchall()",
    "arrow": "connection.sql(FOREVER).to_arrow_table()",
    "table": "connection.execute('CREATE TABLE made AS ' + FOREVER)",
    "cursor": "connection.cursor().execute('SELECT 1').execute(FOREVER)",
    "several": "connection.executemany('SELECT sum(range + ?) FROM range(1000000000000)', [[1], [2]])",
}


@contextmanager
def begun(code: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        yield process
    finally:
        process.kill()
        process.wait()


def worked(process: subprocess.Popen[str]) -> float:
    """Its processor time (s)."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def interrupted(code: str, *, queries: int = 1) -> str:
    """What a process says that is interrupted when it is within `go`. queries: how many that runs, of which DuckDB 1.4 takes each signal to
    end one alone."""
    with begun(BEGUN + code + TOLD) as process:
        for number in range(queries):
            before = worked(process)
            while process.poll() is None and worked(process) - before < WORKED_SECONDS:
                time.sleep(0.01)
            assert number or process.poll() is None
            process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=600)
        return said.strip()


@pytest.mark.parametrize("way", WAYS)
def test_a_query_that_is_interrupted(way: str) -> None:
    code = f"""
from featurestore.semantics.engine import connect
from featurestore.semantics.engine import settle_session
FOREVER = {FOREVER!r}
connection = connect(config={{"threads": 1}})
settle_session(connection)
def go():
    begin()
    {WAYS[way]}
"""
    assert interrupted(code, queries=2 if way == "several" else 1) == "KeyboardInterrupt"


def test_what_goes_on_after_errors_does_not_go_on_after_an_interruption() -> None:
    """Statistics, which make no operation fail."""
    code = f"""
from featurestore.registry.kept_statistics import Gathering
from featurestore.semantics.engine import connect, settle_session
gathering = Gathering({{}}, lambda error: print("it goes on after", error))
connection = connect(config={{"threads": 1}})
settle_session(connection)
def go():
    begin()
    gathering.add(lambda: connection.sql({FOREVER!r}).fetchall(), 1)
"""
    assert interrupted(code) == "KeyboardInterrupt"


def test_other_errors_are_those_of_the_engine() -> None:
    with connect() as connection:
        with pytest.raises(duckdb.ParserException):
            connection.execute("SELEC 1")
        with pytest.raises(AttributeError):
            connection.there_is_no_such_word()  # type: ignore[attr-defined]
        assert connection.execute("SELECT 1 AS a").fetchall() == [(1,)]
        relation = connection.sql("SELECT 2 AS a")
        assert (relation.columns, relation.fetchall()) == (["a"], [(2,)])
    with pytest.raises(duckdb.ConnectionException):
        connection.execute("SELECT 1")
