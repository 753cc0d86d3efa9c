"""Training frames that are written to an object store: whole or not at all, and found again by their URL."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from featurestore import DataFrameSource, Entity, FeatureService, FeatureStore, FeatureView
from featurestore.cli import app
from featurestore.errors import FeatureStoreError, ManifestError
from featurestore.integrations.training_sets import facts
from featurestore.training.training_frame import Block, TrainingFrame
from featurestore.types import Int64, String
from tests.platforms.s3_server import BUSY, bad_way, s3_server

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MIB = 1 << 20


@pytest.fixture(scope="module")
def s3() -> Iterator[pafs.FileSystem]:
    with s3_server() as client:
        client.create_dir("frames")
        yield client


def client() -> Any:
    return boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])


def names() -> list[str]:
    return sorted(found["Key"] for found in client().list_objects_v2(Bucket="frames").get("Contents", []))


def definitions() -> list[Any]:
    rows = pa.table({"user": ["ann"], "at": pa.array([NOON], pa.timestamp("us", "UTC")), "n": [7]})
    view = FeatureView(
        "v",
        entity=Entity("user", key={"user": String}),
        source=DataFrameSource("rows", rows, event_time="at"),
        refresh="1h",
        features=["n"],
    )
    return [FeatureService("model", features=[view])]


SPINE = pa.table({"user": ["ann", "ben"], "event_timestamp": pa.array([NOON] * 2, pa.timestamp("us", "UTC"))})


def large(fill: int) -> TrainingFrame:
    """A frame whose file takes several parts."""
    noise = pa.array(os.urandom(MIB) for _ in range(24))
    block = Block(pa.table({"noise": noise, "n": [fill] * 24}), {}, {}, np.zeros(24, np.int64))
    return TrainingFrame({"n": Int64}, {"rows": 24}, lambda: iter((block,)))


def test_a_frame_is_the_same_as_in_a_file(s3: pafs.FileSystem, tmp_path: Path) -> None:
    """With its manifest within and beside; it is taken by its URL wherever a frame is taken by its path."""
    url = "s3://frames/some folder/a+b %20ü=1.parquet"
    with FeatureStore.local() as store:
        (service,) = definitions()
        store.apply(definitions())
        frame = store.get_historical_features(SPINE, service)
        assert frame.to_parquet(url) == url
        frame.to_parquet(tmp_path / "here.parquet")
        with s3.open_input_file(url.removeprefix("s3://")) as file:
            assert pq.read_table(file).equals(pq.read_table(tmp_path / "here.parquet"), check_metadata=True)
        with s3.open_input_file(url.removeprefix("s3://") + ".manifest.json") as file:
            assert file.read() == (tmp_path / "here.parquet.manifest.json").read_bytes()
        assert store.load_manifest(url).fingerprint == frame.manifest["fingerprint"]
        assert store.load_manifest(url + ".manifest.json").fingerprint == frame.manifest["fingerprint"]
        assert facts(url)["content"] == facts(tmp_path / "here.parquet")["content"]
        assert json.dumps(f"frame:{url}") in json.dumps(store.lineage("model").to_dict())


def test_what_is_no_frame_of_a_store(s3: pafs.FileSystem) -> None:
    for url in ("s3://", "s3://frames", "s3://frames/", "s3://frames/a/", "s3://frames//a", "s3://frames/a[1].parquet"):
        with pytest.raises(FeatureStoreError, match=r"cannot be written: s3://.*(names no file|has one of)"):
            large(0).to_parquet(url)
    with pytest.raises(
        FeatureStoreError, match="The training frame cannot be written: s3://nobodys/a.parquet cannot be"
    ):
        large(0).to_parquet("s3://nobodys/a.parquet")
    for url, words in (
        ("s3://frames/nothing.parquet", "There is no file"),
        ("s3://nobodys/a", "There is no file|cannot be read"),
    ):
        with pytest.raises(ManifestError, match=words):
            FeatureStore.local().load_manifest(url)


def test_a_way_that_breaks_shows_nothing_of_a_frame(s3: pafs.FileSystem) -> None:
    """What was there before stays, wherever it breaks."""
    url = "s3://frames/breaks.parquet"
    large(1).to_parquet(url)
    before = client().head_object(Bucket="frames", Key="breaks.parquet")["ETag"]
    for left in (0, 3 * MIB, 23 * MIB):
        with bad_way() as way:
            way.left = left
            with pytest.raises(
                FeatureStoreError, match=r"The training frame cannot be written: s3://.* cannot be written"
            ):
                large(2).to_parquet(url)
            assert way.reached.is_set()
        assert client().head_object(Bucket="frames", Key="breaks.parquet")["ETag"] == before
        assert [name for name in names() if name.startswith("breaks")] == [
            "breaks.parquet",
            "breaks.parquet.manifest.json",
        ]


def test_a_process_that_is_killed_shows_nothing_of_a_frame(s3: pafs.FileSystem) -> None:
    code = "from tests.platforms.test_frames_in_stores import large\nlarge(2).to_parquet('s3://frames/killed.parquet')"
    with bad_way() as way:
        way.left, way.stalls = 12 * MIB, True
        writer = subprocess.Popen([sys.executable, "-c", code], env=dict(os.environ))
        assert way.reached.wait(600)
        writer.send_signal(signal.SIGKILL)
        assert writer.wait() == -signal.SIGKILL
    assert [name for name in names() if name.startswith("killed")] == []


def test_a_store_that_is_busy_is_asked_again(s3: pafs.FileSystem) -> None:
    with bad_way() as way:
        way.answers = [BUSY] * 2
        large(3).to_parquet("s3://frames/busy.parquet")
        assert way.answers == []
    assert "busy.parquet.manifest.json" in names()


def test_by_the_command_line(s3: pafs.FileSystem, tmp_path: Path) -> None:
    """A spine and a frame by their URLs."""
    (tmp_path / "featurestore.toml").write_text('project = "p"\nonline = "lmdb://online"\n')
    (tmp_path / "definitions.py").write_text(
        "from tests.platforms.test_frames_in_stores import definitions\n(model,) = definitions()\n"
    )
    with s3.open_output_stream("frames/spine.parquet") as file:
        pq.write_table(SPINE, file)
    said = ["--repo", str(tmp_path)]
    for line in (
        "apply --yes",
        "historical s3://frames/spine.parquet model -o s3://frames/cli.parquet",
        "manifest s3://frames/cli.parquet",
        "snapshot model --at 2026-03-02 -o s3://frames/snapshot.parquet",
    ):
        done = CliRunner().invoke(app, [*said, *line.split()])
        assert done.exit_code == 0, done.output
    with s3.open_input_file("frames/cli.parquet") as file:
        assert pq.read_table(file)["v__n"].to_pylist() == [7, None]
    assert {"cli.parquet", "cli.parquet.manifest.json", "snapshot.parquet", "snapshot.parquet.manifest.json"} <= {
        *names()
    }
