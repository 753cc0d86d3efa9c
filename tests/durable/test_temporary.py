"""Temporary folders of killed processes are cleared by the next one, and those of living processes never."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from featurestore.durable.temporary import TemporaryFolder

STORE = """
import sys
import pandas as pd
from featurestore import DataFrameSource, Entity, FeatureStore, FeatureView, FeatureService
from featurestore.sources.instances import Instances
from featurestore.sources.offline import Offline
from featurestore.testing import FeatureTest
from featurestore.types import Int64
from pathlib import Path
rows = pd.DataFrame({"thing": [1], "at": pd.to_datetime(["2026-03-01T00:00Z"]), "x": [1.0]})
source = DataFrameSource("rows", rows, event_time="at")
view = FeatureView("view", entity=Entity("thing", key={"thing": Int64}), source=source, refresh="1h", features=["x"])
store = FeatureStore.local()
store.apply([FeatureService("model", features=[view])])
store.materialize(progress=False)
spilling = Offline(Path(sys.argv[1]), instances=Instances(spill=Path(sys.argv[1]) / "spill"))
with spilling.session() as session:
    (folder,) = session.connection.execute("SELECT current_setting('temp_directory')").fetchall()[0]
    (Path(folder) / "duckdb_temp_storage-0.tmp").write_bytes(b"spilled")
    print("ready", flush=True)
    sys.stdin.read()
"""


@contextmanager
def process(place: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has a local store and spills; it lives until its input ends."""
    environment = {**os.environ, "TMPDIR": str(place)}
    with subprocess.Popen(
        [sys.executable, "-c", STORE, str(place)],
        env=environment,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        try:
            yield running
        finally:
            assert running.stdin is not None
            running.stdin.close()


def folders(place: Path) -> set[Path]:
    return {path for path in [*place.iterdir(), *(place / "spill").iterdir()] if path.name.startswith("featurestore")}


def test_what_a_killed_process_left_is_cleared_by_the_next(tmp_path: Path) -> None:
    """A local store's files, the folder that DuckDB spills to, and one that the configuration names; not those of a process
    that lives, whose store goes on working, and no folder of anybody else."""
    others = tmp_path / "featurestore-mine"
    others.mkdir()
    with process(tmp_path) as living:
        its = folders(tmp_path)
        with process(tmp_path) as killed:
            both = folders(tmp_path)
            killed.send_signal(signal.SIGKILL)
            killed.wait()
        left = folders(tmp_path) - its
        assert left == both - its
        assert len(left) >= 2
        assert any((folder / "duckdb_temp_storage-0.tmp").exists() for folder in left)
        with process(tmp_path):
            now = folders(tmp_path)
            assert not left & now
            assert its <= now
        assert folders(tmp_path) == its  # one that ends clears up after itself
        assert living.poll() is None
    assert folders(tmp_path) == {others}


def test_a_folder_that_was_not_locked_yet_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between making a folder and locking it, another process may take it for one that was left: it is gone then, or that
    process holds its lock."""
    made = iter(["featurestore-of-gone", "featurestore-of-taken", "featurestore-of-own"])
    taken: list[TemporaryFolder] = []

    def make(prefix: str, dir: Path) -> str:  # noqa: A002 - tempfile's own word
        path = dir / next(made)
        if path.name.endswith("taken"):
            monkeypatch.undo()
            other = TemporaryFolder(dir)
            taken.append(other)
            other.path.rename(path)
            monkeypatch.setattr("featurestore.durable.temporary.tempfile.mkdtemp", make)
        elif not path.name.endswith("gone"):
            path.mkdir()
        return str(path)

    monkeypatch.setattr("featurestore.durable.temporary.tempfile.mkdtemp", make)
    own = TemporaryFolder(tmp_path)
    assert own.path.name == "featurestore-of-own"
    own.remove()
    own.remove()
    assert not own.path.exists()
    assert len(taken) == 1


def test_a_child_does_not_remove_what_is_its_parents(tmp_path: Path) -> None:
    """A process that was forked ends, and the folder stays."""
    own = TemporaryFolder(tmp_path)
    child = os.fork()
    if child == 0:
        own.remove()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert own.path.is_dir()
    own.remove()
