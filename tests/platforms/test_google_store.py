"""Parquet files, spines and training frames in a store that speaks Google's protocol: an emulator, Arrow's client."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from featurestore import Count, Entity, FeatureStore, FeatureView, ManualClock, ParquetSource
from featurestore.errors import FilesChangedError, SourceError
from featurestore.sources import object_stores
from featurestore.sources.offline import Offline
from featurestore.types import Int32, String
from tests.platforms.conftest import Told
from tests.ports import free_port
from tests.sources.same_rows import ROWS, WORDS, answers, parquet, table

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
USER = Entity("user", key={"user": String})
SERVER = """
import sys, time
from gcp_storage_emulator.server import create_server
create_server("127.0.0.1", int(sys.argv[1]), in_memory=True).start()
time.sleep(1e6)
"""
STARTING_SECONDS = 120


@pytest.fixture
def server() -> Iterator[tuple[subprocess.Popen[bytes], pafs.FileSystem]]:
    """The emulator, which the environment names as Google's own libraries read it, and a client with a bucket `lake`."""
    port = free_port()
    # A process of its own: Arrow asks for what an object says of itself with Python's lock held.
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(port)], stderr=subprocess.DEVNULL)
    try:
        _wait_for(port, process)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
            object_stores._system.cache_clear()
            endpoint = f"127.0.0.1:{port}"
            client = pafs.GcsFileSystem(anonymous=True, endpoint_override=endpoint, scheme="http", project_id="shop")
            client.create_dir("lake")
            yield process, client
    finally:
        object_stores._system.cache_clear()
        process.kill()
        process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + STARTING_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


def rows(*amounts: int) -> pa.Table:
    at = [NOON + timedelta(minutes=amount) for amount in amounts]
    return pa.table({"user": ["ann"] * len(amounts), "at": pa.array(at, pa.timestamp("us", "UTC")), "n": list(amounts)})


def test_values_types_and_statuses_are_those_of_local_files(server: Any, tmp_path: Path, tell: Told) -> None:
    _, client = server
    expected = answers(parquet(tmp_path, ROWS, **WORDS))
    listed = table(ROWS).rename_columns({"embedding": "list"})
    for number, first in enumerate(range(0, len(ROWS), 17)):
        pq.write_table(listed[first : first + 17], f"lake/rows/part {number} ü.parquet", filesystem=client)
    words = {**WORDS, "derived": {"embedding": "CAST(list AS FLOAT[2])"}}
    found = answers(ParquetSource("rows", "gs://lake/rows", **words))
    assert found == expected
    compared = sum(map(len, found[0]["values"])) + sum(map(len, found[1]["values"]))
    what = f"pyarrow {version('pyarrow')}, gcp-storage-emulator {version('gcp-storage-emulator')}"
    tell("gs", version=what, ran="Arrow's client ran; the service is emulated", compared=compared)


def test_sources_spines_and_frames(server: Any, tmp_path: Path) -> None:
    """Which files there are, partitions, a file that is written anew in the same second, and a frame that is made again."""
    _, client = server
    for name in ("hour=1/a.parquet", "hour=2/b.parquet", "_temporary/c.parquet", "hour=1/notes.txt"):
        pq.write_table(rows(1, 2), f"lake/x/{name}", filesystem=client)
    of = ParquetSource("rows", "gs://lake/x", event_time="at", partitions={"hour": Int32})
    offline = Offline(tmp_path)
    assert [file.name for file in offline.files(of)] == ["hour=1/a.parquet", "hour=2/b.parquet"]
    one = ParquetSource("rows", "gs://lake/x/*/b*", event_time="at", partitions={"hour": Int32})
    assert [file.path for file in offline.files(one)] == ["gs://lake/x/hour=2/b.parquet"]
    with pytest.raises(SourceError, match="no Parquet file matches gs://lake/nothing"):
        offline.files(ParquetSource("rows", "gs://lake/nothing", event_time="at"))
    views = [
        FeatureView("counted", entity=USER, source=of, refresh="1h", features={"n": Count(window="lifetime")}),
        FeatureView("last", entity=USER, source=of, refresh="1h", features=["hour", "n"]),
    ]
    times = pa.array([NOON + timedelta(hours=2)], pa.timestamp("us", "UTC"))
    pq.write_table(pa.table({"user": ["ann"], "event_timestamp": times}), "lake/spine.parquet", filesystem=client)
    with FeatureStore.local(clock=ManualClock(NOON + timedelta(days=1))) as store:
        frame = store.get_historical_features("gs://lake/spine.parquet", views)
        frame.to_parquet("gs://lake/frames/training.parquet")
        found = pq.read_table("lake/frames/training.parquet", filesystem=client)
        assert found.drop_columns(["event_timestamp"]).to_pylist() == [
            {"user": "ann", "counted__n": 4, "last__hour": 2, "last__n": 2}
        ]
        manifest = store.load_manifest("gs://lake/frames/training.parquet")
        assert [file["path"] for file in manifest.sources["rows"]] == [
            "gs://lake/x/hour=1/a.parquet", "gs://lake/x/hour=2/b.parquet",
        ]  # fmt: skip
        pq.write_table(rows(3), "lake/x/hour=2/late.parquet", filesystem=client)
        again = store.get_historical_features("gs://lake/spine.parquet", views, sources_as_in=manifest)
        assert again.to_arrow().to_pylist() == found.to_pylist()
        store.apply(views)
        store.materialize(progress=False)
        assert store.get_online_features([{"user": "ann"}], views).to_arrow()["counted__n"].to_pylist() == [5]
        before = offline.files(of)
        pq.write_table(rows(1, 5), "lake/x/hour=1/a.parquet", filesystem=client)
        after = offline.files(of)
        assert [file.size for file in before] == [file.size for file in after]
        assert before[0].modified != after[0].modified
        assert before[1:] == after[1:]
        with pytest.raises(FilesChangedError, match=r"a\.parquet was written anew"):
            store.get_historical_features("gs://lake/spine.parquet", views, sources_as_in=manifest)
        newest = store.get_historical_features("gs://lake/spine.parquet", views).to_arrow()
        assert newest["last__n"].to_pylist() == [5]


def test_a_store_that_is_gone_is_told(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not asked again for a quarter of an hour, as Google's client does by itself."""
    process, client = server
    pq.write_table(rows(1), "lake/x/a.parquet", filesystem=client)
    of, offline = ParquetSource("rows", "gs://lake/x", event_time="at"), Offline(tmp_path)
    assert len(offline.files(of)) == 1
    monkeypatch.setattr(object_stores, "REQUEST_SECONDS", 2)
    object_stores._system.cache_clear()
    process.kill()
    process.wait()
    with pytest.raises(SourceError, match=r"gs://lake/x cannot be read: .*UNAVAILABLE"):
        offline.files(of)
