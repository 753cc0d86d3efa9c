"""Parquet files, spines, frames, Delta tables and the serving log in a store that speaks Azure's protocol: its emulator, Arrow's client."""

from __future__ import annotations

import json
import os
import subprocess
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
from deltalake import DeltaTable, write_deltalake

from featurestore import Count, DeltaSource, Entity, FeatureStore, FeatureView, ManualClock, ParquetSource
from featurestore.errors import FilesChangedError, SourceError
from featurestore.sources import object_stores
from featurestore.sources.object_stores import AzureAccount
from featurestore.sources.offline import Offline
from featurestore.types import Int32, String
from tests.platforms.conftest import Told
from tests.ports import free_port
from tests.servers import PATIENCE_SECONDS
from tests.serving import shipped_cases
from tests.sources.same_rows import ROWS, WORDS, answers, parquet, table

ROOT = Path(__file__).parents[2]
AZURITE = Path(os.environ.get("AZURITE", ROOT / ".azurite"))
"""The folder that `npm ci` filled."""
NODE = os.environ.get("AZURITE_NODE", "node")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
USER = Entity("user", key={"user": String})
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""That of every emulator, as its documentation says."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[bytes], pafs.FileSystem]]:
    """The emulator, which the environment names as Azure's own tools read it, and a client with containers `lake` and `logs`."""
    port, log = free_port(), tmp_path_factory.mktemp("azurite") / "log"
    main = AZURITE / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    words = [NODE, str(main), "--inMemoryPersistence", "--blobPort", str(port), "--skipApiVersionCheck"]
    with log.open("wb") as out, pytest.MonkeyPatch.context() as patch:
        process = subprocess.Popen(words, stdout=out, stderr=out, cwd=log.parent)
        try:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while b"listens on" not in log.read_bytes():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            endpoint = f"http://127.0.0.1:{port}/devstoreaccount1"
            said = (
                f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={KEY};BlobEndpoint={endpoint};"
            )
            patch.setenv("AZURE_STORAGE_CONNECTION_STRING", said)
            object_stores._system.cache_clear()
            client = AzureAccount.of_environment().file_system()
            for name in ("lake", "logs"):
                client.create_dir(name)
            yield process, client
        finally:
            object_stores._system.cache_clear()
            process.kill()
            process.wait()


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
    found = answers(ParquetSource("rows", "az://lake/rows", **words))
    assert found == expected
    compared = sum(map(len, found[0]["values"])) + sum(map(len, found[1]["values"]))
    said = json.loads((AZURITE / "node_modules" / "azurite" / "package.json").read_text())["version"]
    what = f"pyarrow {version('pyarrow')}, azurite {said}"
    tell("az", version=what, ran="Arrow's client ran; the service is emulated", compared=compared)


def test_sources_spines_and_frames(server: Any, tmp_path: Path) -> None:
    """Which files there are, partitions, a file that is written anew in the same second, and a frame that is made again."""
    _, client = server
    for name in ("hour=1/a.parquet", "hour=2/b.parquet", "_temporary/c.parquet", "hour=1/notes.txt"):
        pq.write_table(rows(1, 2), f"lake/x/{name}", filesystem=client)
    of = ParquetSource("rows", "az://lake/x", event_time="at", partitions={"hour": Int32})
    offline = Offline(tmp_path)
    assert [file.name for file in offline.files(of)] == ["hour=1/a.parquet", "hour=2/b.parquet"]
    one = ParquetSource("rows", "az://lake/x/*/b*", event_time="at", partitions={"hour": Int32})
    assert [file.path for file in offline.files(one)] == ["az://lake/x/hour=2/b.parquet"]
    for nothing, says in (
        ("az://lake/nothing", "no Parquet file matches az://lake/nothing"),
        ("az://nobodys/rows", "az://nobodys/rows cannot be read: there is no container 'nobodys'"),
    ):
        with pytest.raises(SourceError, match=says):
            offline.files(ParquetSource("rows", nothing, event_time="at"))
    views = [
        FeatureView("counted", entity=USER, source=of, refresh="1h", features={"n": Count(window="lifetime")}),
        FeatureView("last", entity=USER, source=of, refresh="1h", features=["hour", "n"]),
    ]
    times = pa.array([NOON + timedelta(hours=2)], pa.timestamp("us", "UTC"))
    pq.write_table(pa.table({"user": ["ann"], "event_timestamp": times}), "lake/spine.parquet", filesystem=client)
    with FeatureStore.local(clock=ManualClock(NOON + timedelta(days=1))) as store:
        frame = store.get_historical_features("az://lake/spine.parquet", views)
        frame.to_parquet("az://lake/frames/training.parquet")
        found = pq.read_table("lake/frames/training.parquet", filesystem=client)
        assert found.drop_columns(["event_timestamp"]).to_pylist() == [
            {"user": "ann", "counted__n": 4, "last__hour": 2, "last__n": 2}
        ]
        manifest = store.load_manifest("az://lake/frames/training.parquet")
        pq.write_table(rows(3), "lake/x/hour=2/late.parquet", filesystem=client)
        again = store.get_historical_features("az://lake/spine.parquet", views, sources_as_in=manifest)
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
            store.get_historical_features("az://lake/spine.parquet", views, sources_as_in=manifest)


def test_a_delta_table(server: Any) -> None:
    options = AzureAccount.of_environment().options()
    write_deltalake("az://lake/table", rows(1, 2), storage_options=options)
    write_deltalake("az://lake/table", rows(3), mode="append", storage_options=options)
    of = DeltaSource("rows", "az://lake/table", event_time="at")
    view = FeatureView("counted", entity=USER, source=of, refresh="1h", features={"n": Count(window="lifetime")})
    spine = pa.table({"user": ["ann"], "event_timestamp": [NOON + timedelta(hours=2)]})
    with FeatureStore.local(clock=ManualClock(NOON + timedelta(days=1))) as store:
        first = store.get_historical_features(spine, [view])
        assert first.to_arrow()["counted__n"].to_pylist() == [3]
        DeltaTable("az://lake/table", storage_options=options).delete("n = 3")
        assert store.get_historical_features(spine, [view]).to_arrow()["counted__n"].to_pylist() == [2]
        again = store.get_historical_features(spine, [view], sources_as_in=first)
        assert again.to_arrow()["counted__n"].to_pylist() == [3]


@pytest.mark.parametrize(
    "case",
    [
        shipped_cases.test_each_hour_is_shipped_once_and_read_from_there,
        shipped_cases.test_what_comes_late_and_what_was_merged_again_counts_once,
        shipped_cases.test_what_was_damaged_there_is_told,
        shipped_cases.test_a_key_that_one_machine_forgot_leaves_the_disk_of_another,
    ],
)
def test_the_serving_log_is_shipped(case: Any, server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, client = server
    for info in client.get_file_info(pafs.FileSelector("logs", recursive=True)):  # what another case left
        if info.type == pafs.FileType.File:
            client.delete_file(info.path)
    monkeypatch.setattr(shipped_cases, "STORE", "az")
    case(client, tmp_path)


def test_a_store_that_is_gone_is_told_without_its_key(server: Any, tmp_path: Path) -> None:
    """The last of these tests, since the emulator ends."""
    process, client = server
    pq.write_table(rows(1), "lake/y/a.parquet", filesystem=client)
    of, offline = ParquetSource("rows", "az://lake/y", event_time="at"), Offline(tmp_path)
    assert len(offline.files(of)) == 1
    process.kill()
    process.wait()
    with pytest.raises(SourceError, match="az://lake/y cannot be read: ") as caught:
        offline.files(of)
    assert KEY not in str(caught.value)
