"""What is true of a registry that is an SQLite file, beside what is true of every registry."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from featurestore.errors import RegistryError, RegistryUnavailableError
from featurestore.registry.store import SCHEMA, Registry, RunRecord
from tests.registry.older import make_older
from tests.registry.places import by_hand
from tests.registry.test_registry import state


@pytest.fixture
def registry(tmp_path):
    ticks = iter(range(1_000_000, 2_000_000))
    return Registry(tmp_path / "deep/registry.db", now=lambda: next(ticks))


def test_reading_makes_no_file(registry):
    """Nor a folder for it."""
    assert registry.current().number == 0
    assert not registry.place.parent.exists()


def test_the_file_is_written_ahead(registry):
    """So that readers never wait for a writer."""
    registry.commit(state(), expected=0)
    with closing(sqlite3.connect(registry.place)) as other:
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        other.execute("BEGIN IMMEDIATE")
        assert registry.current().number == 1


def test_a_lock_that_is_not_released_is_told(tmp_path):
    """After `timeout` seconds, and nothing is lost."""
    registry = Registry(tmp_path / "r.db", timeout=0.05)
    registry.commit(state(), expected=0)
    with closing(sqlite3.connect(registry.place, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(
            RegistryUnavailableError,
            match=r"r\.db cannot be used: other processes have been writing to it for 0\.05 s; try again",
        ):
            registry.commit(state(), expected=1)
        other.execute("ROLLBACK")
    assert registry.commit(state(), expected=1) == 2


def _no_sqlite(path):
    path.write_bytes(b"this is no database, but a text that is long enough to be looked at" * 40)


def _truncated(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path.write_bytes(path.read_bytes()[:5000])


def _of_something_else(path):
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE contacts (name)")


def _newer(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


def _rewritten(path):
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("""UPDATE versions SET document = replace(document, '"f1"', '"f2"')""")


def _garbled(path):
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE versions SET document = '{'")


def _a_folder(path):
    path.unlink()
    path.mkdir()


DAMAGES = [
    (_no_sqlite, "cannot be used: file is not a database"),
    (_truncated, "cannot be used: database disk image is malformed"),
    (_of_something_else, "is an SQLite file of something else, no registry"),
    (_newer, rf"newer version of featurestore \(schema 99; this one reads {SCHEMA}\); upgrade it here"),
    (_rewritten, "version 1 is damaged"),
    (_garbled, "version 1 is damaged"),
    (_a_folder, "cannot be used: unable to open database file"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_a_damaged_file_is_a_registry_error(registry, damage, message):
    """That names the file; it is never taken for an empty registry."""
    registry.commit(state(views={"v": "f1"}), expected=0)
    damage(registry.place)
    with pytest.raises(RegistryError, match=message) as caught:
        registry.current()
    assert str(registry.place) in str(caught.value)


@pytest.mark.parametrize(("damage", "message"), DAMAGES[:4])
def test_a_damaged_file_is_not_written(registry, damage, message):
    """Nor is one of a newer version, or of something else."""
    registry.commit(state(), expected=0)
    damage(registry.place)
    before = registry.place.read_bytes()
    with pytest.raises(RegistryError, match=message):
        registry.record_run(RunRecord("v", "f", 1, 2, 3, 4, 5, "complete"))
    assert registry.place.read_bytes() == before


def test_a_path_that_cannot_be_made_is_a_registry_error(tmp_path):
    """Such as one below a file."""
    (tmp_path / "file").touch()
    with pytest.raises(RegistryError, match="cannot be used"):
        Registry(tmp_path / "file/registry.db").commit(state(), expected=0)


def test_a_registry_is_of_one_project(tmp_path: Path) -> None:
    """Another project's is refused by name, before anything is read or removed."""
    Registry(tmp_path / "r.db", project="shop").commit(state(views={"v": "f1"}), expected=0)
    other = Registry(tmp_path / "r.db", project="fleet")
    with pytest.raises(RegistryError, match="registry of project 'shop', and this is project 'fleet'"):
        other.current()
    with pytest.raises(RegistryError, match="'shop'"):
        other.commit(state(), expected=1)
    assert Registry(tmp_path / "r.db", project="shop").generation() == 1


@pytest.mark.parametrize("schema", range(1, SCHEMA))
def test_a_file_of_any_earlier_version_is_read_as_it_is_and_brought_up_when_it_is_written(registry, schema):
    """What was in it is there before and after, and what it had no place for is empty before; then it has every table."""
    registry.commit(state(views={"v": "f1"}), expected=0, note="first")
    registry.record_run(RunRecord("v", "f1", 1, 2, 3, 4, 5, "complete"))
    made = by_hand(registry.place, "SELECT type, name FROM sqlite_master ORDER BY 1, 2")
    history, runs = registry.history(), registry.runs()
    make_older(registry.place, schema)
    before = registry.place.read_bytes()
    older = Registry(registry.place)
    assert (older.history(), older.runs(), older.state()) == (history, runs, (1, (), ()))
    assert (older.kept(), older.api_keys()) == ((), [])
    assert len(older.activity()) == (2 if schema >= 6 else 0)
    assert registry.place.read_bytes() == before
    assert older.commit(state(), expected=1) == 2
    assert by_hand(registry.place, "PRAGMA user_version") == [(SCHEMA,)]
    assert by_hand(registry.place, "SELECT type, name FROM sqlite_master ORDER BY 1, 2") == made
    assert (older.history()[1:], older.runs()) == (history, runs)
