"""Sessions one after the other are answered by one DuckDB instance, and none sees what another has made."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from featurestore import FeatureStore, ManualClock, TableSource
from featurestore.sources.offline import Offline
from tests.small import NOON, hours, table, view_of, write


def number(offline: Offline) -> Any:
    """Which instance answers: a sequence of its own counts what was asked of it."""
    with offline.session() as session:
        session.connection.execute("CREATE SEQUENCE IF NOT EXISTS asked")
        return session.connection.execute("SELECT nextval('asked')").fetchall()[0][0]


def left(offline: Offline) -> list[Any]:
    """What a new session finds that it has not made."""
    sql = [
        "SELECT table_name FROM duckdb_tables()", "SELECT view_name FROM duckdb_views() WHERE NOT internal",
        "SELECT database_name FROM duckdb_databases() WHERE NOT internal AND database_name <> 'memory'",
    ]  # fmt: skip
    with offline.session() as session:
        found = [session.connection.execute(one).fetchall() for one in sql]
        return [*found, session.connection.execute("SELECT current_setting('TimeZone')").fetchall()]


def test_nothing_of_a_session_is_left_to_the_next(tmp_path: Path) -> None:
    """Tables of every kind, frames, settings, and what threads beside it have made."""
    offline = Offline(tmp_path)
    with offline.session() as session, session.beside() as beside:
        session.connection.execute("CREATE TABLE spine AS SELECT 1 AS n")
        assert beside.connection.execute("SELECT n FROM spine").fetchall() == [(1,)]
        for connection in (session.connection, beside.connection):
            connection.execute("CREATE TEMP TABLE own AS SELECT 1 AS n")
            connection.execute("CREATE TEMP VIEW seen AS SELECT 1 AS n")
            connection.register("given", pa.table({"n": [1]}))
            connection.execute("SET TimeZone = 'Asia/Tokyo'")
    assert left(offline) == [[], [], [], [("UTC",)]]


def test_the_rows_of_some_keys_are_read_once(tmp_path: Path) -> None:
    """However often they are asked for, and whatever becomes of the files; of each source whose rows of other keys replace none of them."""
    rows = table(
        thing=[1, 2, 2, None], part=["a", "b", "c", "d"], at=[hours(-3), hours(-2), hours(-1), hours(0)], x=[1, 2, 3, 4]
    )
    path = write(tmp_path / "rows.parquet", rows)
    with FeatureStore.local(clock=ManualClock(NOON)) as store:
        for words, once in (
            ({}, True),
            ({"identity": "thing"}, True),
            ({"identity": ["thing", "part"]}, True),
            ({"identity": "part"}, False),
        ):
            more: dict[str, Any] = {"known_at": "at", **words} if words else {}
            store.apply([view_of(path, ["x"], **more)])
            (view,) = store._project.applied(["view"])
            with store._project.offline.session() as session:
                session.connection.register("requests", pa.table({"k0": [2]}))
                with session.of_keys(pa.table({"k0": [2, 2, None, 9]})):
                    first, again = (session.scan_of_keys(view, "requests").relation for _ in range(2))
                    counted = f"SELECT count(*), min(thing) FROM {first}"
                    assert session.connection.execute(counted).fetchall() == ([(2, 2)] if once else [(4, 1)])
                    assert first == again
                    assert (first != session.scan(view.source).relation) == once
                assert session.scan_of_keys(view, "requests") == session.scan(view.source)
                assert session.connection.execute(
                    "SELECT count(*) FROM duckdb_tables() WHERE table_name LIKE 'rows_of_keys%'"
                ).fetchall() == [(0,)]


def test_sessions_in_turn_have_one_instance_and_sessions_at_once_have_their_own(tmp_path: Path) -> None:
    offline = Offline(tmp_path)
    assert [number(offline), number(offline), number(offline)] == [1, 2, 3]
    with offline.session():
        assert number(offline) == 1
    assert number(offline) == 4
    offline.close()
    assert number(offline) == 1


def test_an_instance_in_which_something_failed_is_not_used_again(tmp_path: Path) -> None:
    offline = Offline(tmp_path)
    assert number(offline) == 1
    with pytest.raises(duckdb.Error), offline.session() as session:
        session.connection.execute("SELECT nothing")
    assert number(offline) == 1


def test_a_duckdb_file_is_let_go_when_its_session_ends(tmp_path: Path) -> None:
    """So that it can be written, and is read anew, by the next session too."""
    path = tmp_path / "w.duckdb"
    offline = Offline(tmp_path)
    source = TableSource("rows", path, table="t", event_time="at")
    for count in (1, 2):
        with duckdb.connect(str(path)) as writing:
            writing.execute(f"CREATE OR REPLACE TABLE t AS SELECT n, now() AS at FROM range({count}) r(n)")
        with offline.session() as session:
            rows = session.connection.execute(f"SELECT count(*) FROM {session.scan(source).relation}").fetchall()
        assert rows == [(count,)]
    assert left(offline)[2] == []


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_leaves_the_instances_of_its_parent_alone(tmp_path: Path) -> None:
    offline = Offline(tmp_path)
    assert number(offline) == 1
    pid = os.fork()
    if pid == 0:
        os._exit(0 if [number(offline), number(offline)] == [1, 2] else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert number(offline) == 2
