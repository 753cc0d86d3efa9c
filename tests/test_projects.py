"""Projects that share a store, views that go away, and cells that run twice."""

from __future__ import annotations

import linecache
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from featurestore import FeatureService, FeatureStore, ManualClock
from featurestore.errors import NotMaterializedError
from tests.console import featurestore
from tests.small import NOON, hours, opened, table, view_of

ROOT = Path(__file__).parents[1]


def project(folder: Path, name: str, redis_url: str) -> FeatureStore:
    (folder / name).mkdir()
    (folder / name / "featurestore.toml").write_text(f'project = "{name}"\nonline = "{redis_url}"\ndefinitions = []\n')
    return FeatureStore(folder / name, clock=ManualClock(NOON))


def keys_of(store: FeatureStore) -> set[bytes]:
    prefix = f"{store.config.project}:".encode()
    return {key for keys in store.online.scan(prefix) for key in keys}


def test_two_projects_on_one_redis_never_meet(tmp_path: Path, redis_url: str) -> None:
    """The same definitions over other rows: each is served its own, and tearing one down leaves the other whole."""
    with project(tmp_path, "shop", redis_url) as shop, project(tmp_path, "shop_2", redis_url) as other:
        for store, x in ((shop, 1), (other, 2)):
            view = view_of(table(thing=[1], at=[NOON], x=[x]), ["x"])
            store.apply([FeatureService("service", features=[view])])
        assert shop.status()[0].fingerprint == other.status()[0].fingerprint
        shop.materialize(progress=False)
        with pytest.raises(NotMaterializedError):
            other.get_online_features({"thing": 1}, "service")
        other.materialize(progress=False)
        assert [s.get_online_features({"thing": 1}, "service").to_dict()["view__x"] for s in (shop, other)] == [
            [1],
            [2],
        ]
        assert shop.teardown() > 0
        assert keys_of(shop) == set()
        assert other.get_online_features({"thing": 1}, "service").to_dict()["view__x"] == [2]
        assert other.teardown() > 0


@pytest.mark.parametrize("kind", ["lmdb", "redis"])
def test_a_view_that_is_removed_frees_its_keys(tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> None:
    """From a repository whose files no longer declare it; what else there is stays."""
    url = f"lmdb://{tmp_path}/online" if kind == "lmdb" else request.getfixturevalue("redis_url")
    declared = """
from featurestore import Entity, FeatureService, FeatureView, ParquetSource
from featurestore.types import Int64
rows = ParquetSource("rows", "rows.parquet", event_time="at", refresh="1h")
thing = Entity("thing", key={"thing": Int64})
kept = FeatureView("kept", entity=thing, source=rows, features=["x"])
service = FeatureService("service", features=[kept])
"""
    more = 'gone = FeatureView("gone", entity=thing, source=rows, features=["x"], ttl="1d")\n'
    folder = tmp_path / "repo"
    folder.mkdir()
    (folder / "featurestore.toml").write_text(f'project = "removal"\nonline = "{url}"\n')
    pq.write_table(table(thing=[1, 2], at=[NOON] * 2, x=[1, 2]), folder / "rows.parquet")
    (folder / "definitions.py").write_text(declared + more)
    with FeatureStore(folder, clock=ManualClock(hours(1))) as store:
        store.apply()
        store.materialize(progress=False)
        both_views = keys_of(store)
    (folder / "definitions.py").write_text(declared)
    with FeatureStore(folder, clock=ManualClock(hours(1))) as store:
        applied = store.apply()
        assert [(view, keys) for view, _, keys in applied.freed] == [("gone", len(both_views) // 2)]
        assert keys_of(store) < both_views
        assert len(keys_of(store)) == len(both_views) // 2
        assert store.get_online_features({"thing": 2}, "service").to_dict()["kept__x"] == [2]
        store.teardown()


CELL = """
from featurestore import DataFrameSource, Entity, FeatureService, FeatureView, Request, on_demand
from featurestore.types import Int64

thing = Entity("thing", key={"thing": Int64})
source = DataFrameSource("rows", rows, event_time="at")
view = FeatureView("view", entity=thing, source=source, features=["x"], refresh="1h")


@on_demand(inputs=[view["x"], Request("y", Int64)], output=Int64)
def total(x, y):
    return x + y  # plus


service = FeatureService("service", features=[view, total])
store.apply([service])
store.materialize(progress=False)
found = store.get_online_features({"thing": 1, "y": 5}, "service").to_dict()
"""


def run_cell(number: int, code: str, names: dict[str, Any]) -> None:
    """As a notebook does: each run is a file of its own, which only the cache of lines knows."""
    name = f"<cell {number}>"
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
    exec(compile(code, name, "exec"), names)


def test_running_a_cell_twice_is_no_error() -> None:
    """The same definitions again are the same version; edited ones take their place in the next run."""
    rows = table(thing=[1], at=[hours(-1)], x=[10])
    with opened() as (store, clock):
        names: dict[str, Any] = {"store": store, "rows": rows}
        for number in range(2):
            run_cell(number, CELL, names)
            assert names["found"]["total"] == [15]
        assert len(store.history()) == 1
        run_cell(2, CELL.replace("x + y  # plus", "x - y"), names)
        assert names["found"]["total"] == [5]
        run_cell(
            3,
            CELL.replace('features=["x"]', 'features=["x"], ttl="30m"').replace("x + y", "0 if x is None else x"),
            names,
        )
        clock.set(hours(1))
        store.materialize(progress=False)
        assert store.get_online_features({"thing": 1, "y": 5}, "service").to_dict()["view__x"] == [None]
        assert len(store.history()) == 3


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere(tmp_path: Path, terminal: bool) -> None:
    """With keys, rate and time left; without a terminal one plain line a run, and no control characters."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "150"}

    def materialize(stderr: Any) -> None:
        command = [sys.executable, "-m", "featurestore", "--repo", "shop", "materialize"]
        subprocess.run(command, cwd=tmp_path, env=environ, check=True, stdout=subprocess.DEVNULL, stderr=stderr)

    featurestore("init", str(tmp_path / "shop"))
    featurestore("--repo", str(tmp_path / "shop"), "apply")
    if not terminal:
        with (tmp_path / "told").open("wb") as file:
            materialize(file)
        lines = (tmp_path / "told").read_text().splitlines()
        assert len(lines) in {1, 2}  # two, while what was computed early is not to be served yet
        assert all("customer_orders as of" in line and "keys/s" in line and line.isprintable() for line in lines)
        return
    ours, theirs = pty.openpty()
    materialize(theirs)
    os.close(theirs)
    told = b""
    try:
        while piece := os.read(ours, 65536):
            told += piece
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert b"\x1b[" in told
    assert b"3/3" in told
    assert b"customer_orders as of" in told
