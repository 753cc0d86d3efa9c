"""A run that is killed anywhere changes nothing that a lookup can see, and the next one completes its work."""

from __future__ import annotations

import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import Entity, FeatureService, FeatureStore, FeatureView, ManualClock, ParquetSource
from featurestore.types import Int64

NOON = datetime(2013, 1, 1, 12, tzinfo=UTC)
KEYS = 3_000

VICTIM = """
import os, signal, sys
from datetime import datetime
import featurestore.materialize.kernel as m
from featurestore import FeatureStore
m.BATCH_KEYS = m.EMBEDDED_BATCH_KEYS = 10
write, writes = m.SlotWriter.write, []
def dying(*args):
    writes.append(args)
    if len(writes) == 100:
        os.kill(os.getpid(), signal.SIGKILL)
    return write(*args)
m.SlotWriter.write = dying
FeatureStore(sys.argv[1], clock=lambda: datetime.fromisoformat(sys.argv[2])).materialize(progress=False)
"""


def write(path: Path, at: datetime, value: int) -> None:
    times = pa.array([at] * KEYS, pa.timestamp("us", "UTC"))
    pq.write_table(pa.table({"id": range(KEYS), "at": times, "x": [value] * KEYS}), path)


@pytest.mark.parametrize("online", ["lmdb", "redis"])
def test_a_killed_process_is_completed_by_the_next(online: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """SIGKILL in the middle of a run: the old values are served for all keys, then the new ones for all."""
    url = "lmdb://online" if online == "lmdb" else request.getfixturevalue("redis_url")
    (tmp_path / "featurestore.toml").write_text(f'project = "killed"\nonline = "{url}"\ndefinitions = []\n')
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "a.parquet", NOON - timedelta(hours=2), 1)
    source = ParquetSource("rows", "data", event_time="at")
    view = FeatureView("facts", entity=Entity("thing", key={"id": Int64}), source=source, features=["x"], refresh="1h")
    clock = ManualClock(NOON)
    rows = [{"id": i} for i in range(KEYS)]
    with FeatureStore(tmp_path, clock=clock) as store:
        store.apply([FeatureService("service", features=[view])])
        store.materialize(progress=False)
        write(tmp_path / "data" / "b.parquet", NOON + timedelta(minutes=30), 2)
        clock.advance(timedelta(hours=1))
        victim = subprocess.Popen(
            [sys.executable, "-c", VICTIM, str(tmp_path), clock().isoformat()],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        said = victim.communicate()
        assert victim.returncode == -signal.SIGKILL, said
        result = store.get_online_features(rows, "service")
        assert set(result.to_dict()["facts__x"]) == {1}
        assert result.stale == {"facts": True}
        assert [run.keys for run in store.materialize(progress=False)] == [KEYS]
        result = store.get_online_features(rows, "service")
        assert set(result.to_dict()["facts__x"]) == {2}
        assert result.stale == {"facts": False}
        store.teardown()
