"""A project on a read-only file system, a full disk and damaged files: what can be read is read, and errors say what is wrong."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from featurestore import (
    Count,
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    ManualClock,
    ParquetSource,
    PushSource,
)
from featurestore.cli import app
from featurestore.errors import ConfigError, FeatureStoreError, OnlineStoreError, RegistryError, SourceError
from featurestore.types import Float64, Int64, Timestamp

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def project(folder: Path) -> FeatureStore:
    """A store with a view of a file and one of pushes, filled."""
    (folder / "featurestore.toml").write_text('project = "p"\ndefinitions = []\n[serving_log]\nrate = 1.0\n')
    times = pd.to_datetime([NOW - timedelta(hours=2)] * 2)
    pd.DataFrame({"thing": [1, 2], "at": times, "x": [1.0, 2.0]}).to_parquet(folder / "rows.parquet")
    thing = Entity("thing", key={"thing": Int64})
    rows = ParquetSource("rows", "rows.parquet", event_time="at")
    pushed = PushSource("pushed", schema={"thing": Int64, "at": Timestamp, "x": Float64}, event_time="at")
    views = [
        FeatureView("filed", entity=thing, source=rows, refresh="1h", features=["x"]),
        FeatureView("recent", entity=thing, source=pushed, features={"n": Count(window="1d")}),
    ]
    store = FeatureStore(folder, clock=ManualClock(NOW))
    store.apply([FeatureService("model", features=views)])
    store.push("pushed", row())
    store.materialize(progress=False)
    return store


def row() -> dict[str, Any]:
    return {"thing": 1, "at": NOW - timedelta(hours=1), "x": 0.5}


def contents(folder: Path) -> dict[Path, tuple[int, str]]:
    """Every file and folder, when it was written, and what it holds."""
    return {
        path: (path.stat().st_mtime_ns, "" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(folder.rglob("*"))
    }


def test_a_fresh_process_reads_what_lies_on_a_read_only_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lookups, status, training and verify answer as before and write nothing there; what has to write says read-only."""
    with project(tmp_path) as store:
        asked = pd.DataFrame({"thing": [1, 2, 3], "event_timestamp": [NOW] * 3})
        trained = store.get_historical_features(asked, "model").to_arrow()
        served = store.get_online_features([{"thing": thing} for thing in (1, 2, 3)], "model").to_dict()
    before, real = contents(tmp_path), os.statvfs

    class ReadOnly:
        """What the system says of a file system, with the mark of a read-only one."""

        f_flag = os.ST_RDONLY

    def statvfs(path: Any) -> Any:
        return ReadOnly() if Path(path).is_relative_to(tmp_path) else real(path)

    monkeypatch.setattr(os, "statvfs", statvfs)
    with FeatureStore(tmp_path, clock=ManualClock(NOW + timedelta(minutes=30))) as store:
        found = store.get_online_features([{"thing": thing} for thing in (1, 2, 3)], "model")
        assert (
            found.to_dict()
            == served
            == {"thing": [1, 2, 3], "filed__x": [1.0, 2.0, None], "recent__n": [1, None, None]}
        )
        assert {view.state for view in store.status()} <= {"fresh", "stale"}
        assert store.get_historical_features(asked, "model").to_arrow() == trained
        assert store.verify().ok
        with pytest.raises(RegistryError, match=r"registry.*cannot be written: read-only file system"):
            store.apply(note="more")
        with pytest.raises(FeatureStoreError, match="read-only file system"):
            store.push("pushed", row())
        with pytest.raises(OnlineStoreError, match=r"cannot be written: read-only file system \(.*online\)"):
            store.materialize(full=True, progress=False)
    assert {path: held for path, held in contents(tmp_path).items() if path in before and path.is_file()} == {
        path: held for path, held in before.items() if path.is_file()
    }


FULL = """
import resource, signal, sys
from datetime import timedelta
from pathlib import Path
from featurestore.clock import ManualClock
from featurestore.errors import FeatureStoreError
from tests.test_read_only import NOW, row
from featurestore import FeatureStore
store = FeatureStore(Path(sys.argv[1]), clock=ManualClock(NOW + timedelta(hours=3)))
spine = __import__("pandas").DataFrame({"thing": [1], "event_timestamp": [NOW]})
frame = store.get_historical_features(spine, "model")
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
for what in (lambda: store.apply(note="x"), lambda: store.push("pushed", row()), lambda: store.materialize(progress=False),
             lambda: frame.to_parquet(Path(sys.argv[1]) / "frame.parquet")):
    try:
        what()
        print("went on")
    except FeatureStoreError as error:
        print(type(error).__name__, error)
print(store.get_online_features({"thing": 1}, "model").to_dict()["filed__x"])
"""


def test_a_full_disk_is_said_to_be_full(tmp_path: Path) -> None:
    """Where no file may grow, each verb that writes says so in the product's own words, and lookups go on."""
    project(tmp_path).close()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    *said, served = done.stdout.splitlines()
    assert served == "[1.0]", done.stdout
    assert len(said) == 4, done.stdout
    for line in said:
        assert "full" in line, line


@pytest.mark.parametrize(
    ("name", "content", "error", "says"),
    [
        ("rows.parquet", b"PAR1 and then nothing", SourceError, "rows.parquet"),
        ("rows.parquet", b"", SourceError, "rows.parquet"),
        (".featurestore/registry.db", b"SQLite format 3\0" + b"x" * 5000, RegistryError, "registry.db"),
        (".featurestore/registry.db", b"nothing of the kind" * 500, RegistryError, "registry.db"),
        ("featurestore.toml", 'project = "é"'.encode("latin-1"), ConfigError, "is not UTF-8"),
        ("featurestore.toml", b"project = ", ConfigError, "featurestore.toml"),
        ("definitions.py", "# é\nx = 'é'\n".encode("latin-1"), FeatureStoreError, "definitions.py"),
        ("definitions.py", b"\0\0", FeatureStoreError, "definitions.py"),
    ],
)
def test_a_damaged_file_is_named(
    tmp_path: Path, name: str, content: bytes, error: type[FeatureStoreError], says: str
) -> None:
    """What is read of a file that is not what it should be ends in an error of the product's that names it; the command
    line ends with its message, and no traceback."""
    project(tmp_path).close()
    toml = tmp_path / "featurestore.toml"
    toml.write_text(toml.read_text().replace("definitions = []\n", ""))
    (tmp_path / name).write_bytes(content)
    spine = tmp_path / "spine.parquet"
    pd.DataFrame({"thing": [1], "event_timestamp": [NOW]}).to_parquet(spine)

    def ask() -> None:
        with FeatureStore(tmp_path) as store:
            store.get_historical_features(spine, "model")

    with pytest.raises(error, match=says):
        ask()
    run = CliRunner().invoke(
        app, ["--repo", str(tmp_path), "historical", str(spine), "model", "-o", str(tmp_path / "out.parquet")]
    )
    assert run.exit_code == 1, run.output
    assert says in run.output
    assert "Traceback" not in run.output


def test_a_damaged_spine_is_named(tmp_path: Path) -> None:
    """A Parquet file that is none, as the frame that training is asked for."""
    with project(tmp_path) as store:
        (tmp_path / "spine.parquet").write_bytes(b"PAR1 and then nothing")
        with pytest.raises(FeatureStoreError, match=r"spine\.parquet"):
            store.get_historical_features(tmp_path / "spine.parquet", "model").to_arrow()
