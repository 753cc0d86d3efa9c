"""Several machines, each with a folder of its own, on one project: the registry in PostgreSQL, values in Redis."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import FeatureStore
from featurestore.lazy import pd
from tests.servers import FeatureServer, PostgresServer, RedisServer

DEFINITIONS = """
from featurestore import ARRIVAL, Entity, FeatureService, FeatureView, ParquetSource
from featurestore.types import Int64

thing = Entity("thing", key={{"thing": Int64}})
rows = ParquetSource("rows", {rows!r}, event_time="at")
files = ParquetSource("files", {rows!r}, event_time="at", known_at=ARRIVAL)
view = FeatureView("view", entity=thing, source=rows, refresh="1h", ttl="3650d", features={features!r})
model = FeatureService("model", features=[view])
seen = FeatureView("seen", entity=thing, source=files, refresh="1h", features=["x"])
"""


class Machine:
    """A machine: a folder with the project's files."""

    def __init__(self, folder: Path, rows: Path, *, registry: str, online: str) -> None:
        self.folder, self._rows = folder, rows
        folder.mkdir()
        (folder / "featurestore.toml").write_text(
            f'project = "shop"\nregistry = "{registry}"\nonline = "{online}"\n[server]\nauthentication = "off"\n'
        )
        self.deploy("x")

    def deploy(self, *features: str) -> None:
        text = DEFINITIONS.format(rows=str(self._rows / "*.parquet"), features=list(features))
        (self.folder / "definitions.py").write_text(text)

    def begin(self, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "featurestore", *command],
            cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, *command: str) -> str:
        process = self.begin(*command)
        told, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
        return told

    @contextmanager
    def serving(self) -> Iterator[httpx.Client]:
        running = FeatureServer(
            self.folder, answers="/healthz", cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        with running, running.client(timeout=600) as client:
            yield client


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def machines(tmp_path: Path, postgres: PostgresServer, redis: RedisServer) -> list[Machine]:
    with redis.client() as client:
        client.flushall()
    at = pa.array([pd.Timestamp("2026-03-01", tz="UTC")] * 3, pa.timestamp("us", "UTC"))
    (tmp_path / "rows").mkdir()
    pq.write_table(
        pa.table({"thing": [1, 2, 3], "at": at, "x": [1, 2, 3], "y": [4, 5, 6]}), tmp_path / "rows/a.parquet"
    )
    return [
        Machine(tmp_path / name, tmp_path / "rows", registry=postgres.url, online=redis.url)
        for name in ("jobs", "server", "more")
    ]


def test_a_server_takes_up_what_another_machine_applied(machines: list[Machine]) -> None:
    """And materialized, without a request that fails; both say the same of what was applied, and train the same rows."""
    jobs, server, _ = machines
    jobs.run("apply", "--yes")
    jobs.run("materialize", "--quiet")
    asked = {"service": "model", "rows": [{"thing": 1}]}
    with server.serving() as client:
        first = client.post("/v1/online-features", json=asked)
        assert (first.status_code, first.json()["rows"]) == (200, [[1]])
        jobs.deploy("x", "y")
        jobs.run("apply", "--yes")
        filling = jobs.begin("materialize", "--quiet")
        while filling.poll() is None:
            assert client.post("/v1/online-features", json=asked).status_code == 200
        assert filling.communicate()[1] == ""
        deadline = time.monotonic() + 600
        while True:
            answer = client.post("/v1/online-features", json=asked)
            assert answer.status_code == 200
            if answer.json()["fingerprint"] != first.json()["fingerprint"]:
                break
            assert time.monotonic() < deadline
        assert answer.json()["rows"] == [[1, 4]]
    server.deploy("x", "y")
    frames, spine = [], pd.DataFrame({"thing": [1, 2, 3], "event_timestamp": pd.Timestamp.now("UTC")})
    for machine in (jobs, server):
        with FeatureStore(machine.folder) as store:
            frames.append(store.get_historical_features(spine, "model").to_arrow())
    assert frames[0].equals(frames[1])


def test_machines_that_apply_and_materialize_at_once_do_it_once(machines: list[Machine]) -> None:
    """Of those who apply one does it; of those who materialize one fills the view, and the others have nothing to do or are told who does."""
    applying = [machine.begin("apply", "--yes") for machine in machines]
    told = [process.communicate(timeout=600) for process in applying]
    for process, (_, errors) in zip(applying, told, strict=True):
        assert process.returncode == 0 or "Look at the new plan" in errors, errors
    assert 0 in {process.returncode for process in applying}
    running = [machine.begin("materialize", "--quiet") for machine in machines]
    told = [process.communicate(timeout=600) for process in running]
    for process, (_, errors) in zip(running, told, strict=True):
        assert process.returncode == 0 or "is being materialized by process" in errors, errors
    assert 0 in {process.returncode for process in running}
    with FeatureStore(machines[0].folder) as store:
        assert [version.number for version in store.history()] == [1]
        runs = store.registry.runs("view")
        assert len({run.instant for run in runs}) == len([run for run in runs if run.status == "complete"])
        assert store.get_online_features([{"thing": 2}], "model").to_dict()["view__x"] == [2]


def test_the_first_sight_of_a_file_is_every_machine_s(machines: list[Machine]) -> None:
    """Its rows count from one instant on, whoever trains; a journal of each machine's own would give each another."""
    jobs, server, _ = machines
    jobs.run("apply", "--yes")
    with FeatureStore(jobs.folder) as first, FeatureStore(server.folder) as second:
        stays = [store._project.offline.arrivals.stays("files") for store in (first, second)]
    assert len(stays[0]) == 1
    assert stays[0] == stays[1]
