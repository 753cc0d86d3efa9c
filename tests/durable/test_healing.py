"""What a killed writer leaves in an SQLite file, or among tiles, is put right by the next use, a mere reader's too."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from featurestore import ARRIVAL, FeatureService, FeatureStore, FeatureView, ManualClock, ParquetSource
from featurestore.registry.documents import empty_document
from featurestore.registry.store import Registry, RunRecord
from featurestore.sources.arrivals import Arrivals, Sighting
from featurestore.tiles.file_tile_store import HopChoice, TiledFile, TileFiles
from tests.small import NOON, THING, both, hours, spine, table, write

A, B = Sighting("a.parquet", 1, 1), Sighting("b.parquet", 2, 2)

KILLED = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA synchronous = FULL")
connection.execute("PRAGMA cache_size = 2")  # what is changed spills into the file before it is committed
connection.execute("BEGIN IMMEDIATE")
for name, in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
    connection.execute(f"DROP TRIGGER {name}")  # which keeps rows of a trail from being deleted
for name, in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'").fetchall():
    connection.execute(f"DELETE FROM {name}")
connection.execute("CREATE TABLE spilled (x)")
connection.executemany("INSERT INTO spilled VALUES (?)", [("x" * 1000,)] * 500)
os._exit(9)
"""


def kill_within(path: Path) -> None:
    """Kill a process in the middle of a transaction that has changed everything, and of which much is on the disk."""
    assert subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False, timeout=600).returncode == 9
    left = [Path(f"{path}{end}") for end in ("-journal", "-wal")]
    assert any(file.exists() and file.stat().st_size > 100_000 for file in left) or path.stat().st_size > 400_000


def copied_within(path: Path) -> None:
    """What a machine finds that went down in the middle of a commit: the file and what is beside it, as they were then."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA cache_size = 2")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("CREATE TABLE spilled (x)")
        connection.executemany("INSERT INTO spilled VALUES (?)", [("x" * 1000,)] * 500)
        beside = [Path(f"{path}{end}") for end in ("-journal", "-wal") if Path(f"{path}{end}").exists()]
        for file in [path, *beside]:
            shutil.copyfile(file, f"{file}.then")
    for file in [path, *beside]:
        Path(f"{file}.then").replace(file)


LEAVE = pytest.mark.parametrize("leave", [kill_within, copied_within])


@pytest.fixture
def journal(tmp_path: Path) -> Arrivals:
    made = Arrivals(tmp_path / "arrivals.db", now=lambda: 5)
    made.see("rows", lambda: [A], now=3, known_by=4)
    return made


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    made = Registry(tmp_path / "registry.db", now=lambda: 5)
    made.commit({**empty_document(), "views": {"v": {"fingerprint": "f1"}}}, expected=0)
    return made


@LEAVE
@pytest.mark.parametrize("first", ["read", "write"])
def test_a_journal_of_arrivals_heals(journal: Arrivals, leave: Callable[[Path | str], None], first: str) -> None:
    """Whoever comes first: the reader gets what was committed, and so does the writer."""
    leave(journal.place)
    if first == "read":
        assert journal.seen("rows", [A, B]) == [3, None]
    journal.see("rows", lambda: [A, B])
    assert journal.seen("rows", [A, B]) == [3, 5]
    assert _is_whole(journal.place)


@LEAVE
@pytest.mark.parametrize("first", ["read", "write"])
def test_a_registry_heals(registry: Registry, leave: Callable[[Path | str], None], first: str) -> None:
    """What was written ahead and never committed is no version."""
    leave(registry.place)
    if first == "read":
        assert registry.current().document["views"] == {"v": {"fingerprint": "f1"}}
    assert registry.record_run(RunRecord("v", "f1", 1, 2, 3, 4, 5, "complete")) == 1
    assert registry.commit(empty_document(), expected=1) == 2
    assert _is_whole(registry.place)


def _is_whole(path: Path | str) -> bool:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'spilled'").fetchone() == (0,)
        return bool(connection.execute("PRAGMA integrity_check").fetchone() == ("ok",))


def test_what_was_committed_and_not_checkpointed_is_there(registry: Registry) -> None:
    """A log written ahead that its writer left with a commit in it."""
    code = (
        "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute(\"INSERT INTO leftovers VALUES ('v', 'f0')\"); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(registry.place)], check=False, timeout=600).returncode == 9
    assert Path(f"{registry.place}-wal").stat().st_size
    assert registry.leftovers() == (("v", "f0"),)


@pytest.mark.parametrize("leave", [lambda path: path.touch(), kill_within])
def test_a_file_that_was_just_being_made_is_no_file(tmp_path: Path, leave: Callable[[Path | str], None]) -> None:
    """Nothing was committed to it: it reads as one that is not there, and is made by the next writer."""
    made: list[Any] = [Registry(tmp_path / "registry.db"), Arrivals(tmp_path / "arrivals.db", now=lambda: 5)]
    for one in made:
        leave(one.place)
    assert made[0].generation() == 0
    assert made[1].seen("rows", [A]) == [None]
    assert made[0].commit(empty_document(), expected=0) == 1
    made[1].see("rows", lambda: [A])
    assert made[1].seen("rows", [A]) == [5]


def test_every_sqlite_file_of_a_project_heals_by_itself(tmp_path: Path) -> None:
    """Killed within each of them, again and again: runs, training and lookups in new processes go on as if nothing was."""
    (tmp_path / "featurestore.toml").write_text('project = "healed"\ndefinitions = []\n')
    (tmp_path / "rows").mkdir()
    write(tmp_path / "rows" / "a.parquet", table(thing=[1], at=[hours(-3)], x=[1]))
    source = ParquetSource("rows", "rows", event_time="at", known_at=ARRIVAL)
    view = FeatureView("view", entity=THING, source=source, features=["x"], refresh="1h")
    clock = ManualClock(NOON)
    with FeatureStore(tmp_path, clock=clock) as store:
        store.apply([FeatureService("service", features=[view])])
        assert both(store, thing=[1])["view__x"] == [1]
    files = sorted(
        path for path in tmp_path.rglob("*") if path.is_file() and path.read_bytes()[:15] == b"SQLite format 3"
    )
    assert [path.name for path in files] == ["registry.arrivals.db", "registry.db"]
    for number in range(2, 4):
        for path in files:
            kill_within(path)
        write(tmp_path / "rows" / f"{number}.parquet", table(thing=[1], at=[hours(number - 5)], x=[number]))
        clock.advance(timedelta(hours=1))
        with FeatureStore(tmp_path, clock=clock) as store:
            assert store.get_online_features([{"thing": 1}], "service").to_dict()["view__x"] == [number - 1]
            assert store.get_historical_features(spine(NOON, thing=[1]), "service").to_arrow()[
                "view__x"
            ].to_pylist() == [1]
            assert both(store, thing=[1])["view__x"] == [number]


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that any user may look into."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@LEAVE
def test_a_disk_that_cannot_be_written_heals_in_a_copy(shared: Path, leave: Callable[[Path | str], None]) -> None:
    """A reader who may write neither the file nor beside it gets what was committed, and changes nothing."""
    registry = Registry(shared / "registry.db", now=lambda: 5)
    registry.commit({**empty_document(), "views": {"v": {"fingerprint": "f1"}}}, expected=0)
    journal = Arrivals(shared / "arrivals.db", now=lambda: 5)
    journal.see("rows", lambda: [A], now=3)
    leave(registry.place)
    leave(journal.place)
    for path in shared.iterdir():
        path.chmod(0o444)
    shared.chmod(0o555)
    before = {path: path.read_bytes() for path in shared.iterdir()}
    child = os.fork()
    if not child:  # as a user who has no right to write; root has it everywhere
        try:
            if os.geteuid() == 0:
                os.setuid(65534)
            assert registry.current().document["views"] == {"v": {"fingerprint": "f1"}}
            assert journal.seen("rows", [A, B]) == [3, None]
        except BaseException as error:
            os.write(2, repr(error).encode())
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status == 0
    assert {path: path.read_bytes() for path in shared.iterdir()} == before
    shared.chmod(0o755)


def test_tiles_that_a_killed_run_joined_or_was_removing_count_once(tmp_path: Path) -> None:
    """Killed between a joined part and the removal of those in it, or within the removal of one."""
    tiles = TileFiles(tmp_path, "view", "f" * 64)
    tiles.choose(HopChoice(60, 10))
    files = [TiledFile(f"{number}.parquet", number, number, None, 0, 9) for number in range(4)]
    parts = [tiles.add(60, [file], [pa.table({"x": [number]})]) for number, file in enumerate(files)]
    joined = tiles.add(60, files[:2], [pa.table({"x": [0, 1]})])
    Path(parts[3].paths[0]).unlink()
    kept = tiles.parts(files)
    assert sorted(part.name for part in kept) == sorted([joined.name, parts[2].name])
    assert sorted(part.name for part in tiles.parts(files)) == sorted([joined.name, parts[2].name])
