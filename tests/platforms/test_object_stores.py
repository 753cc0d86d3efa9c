"""Parquet files in an object store: a real S3 server, Arrow's client, and the engine that reads through it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from featurestore import ARRIVAL, Count, CsvSource, Entity, FeatureStore, FeatureView, ManualClock, ParquetSource
from featurestore.errors import DeclarationError, FilesChangedError, SourceError, SpineError
from featurestore.sources import object_stores
from featurestore.sources.offline import Offline
from featurestore.types import Int32, String
from tests.platforms.conftest import Told
from tests.platforms.s3_server import s3_server
from tests.sources.same_rows import ROWS, WORDS, answers, parquet, table

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
USER = Entity("user", key={"user": String})


@pytest.fixture(scope="module")
def s3() -> Iterator[pafs.FileSystem]:
    with s3_server() as client:
        yield client


@pytest.fixture
def bucket(s3: pafs.FileSystem, request: pytest.FixtureRequest) -> str:
    name = f"lake{abs(hash(request.node.name))}"
    s3.create_dir(name)
    return name


def put(s3: pafs.FileSystem, place: str, rows: pa.Table) -> None:
    with s3.open_output_stream(place) as file:
        pq.write_table(rows, file)


def rows(*amounts: int, user: str = "ann") -> pa.Table:
    at = [NOON + timedelta(minutes=amount) for amount in amounts]
    return pa.table({"user": [user] * len(amounts), "at": pa.array(at, pa.timestamp("us", "UTC")), "n": list(amounts)})


def source(url: str | list[str], **said: Any) -> ParquetSource:
    return ParquetSource("rows", url, event_time="at", **said)


def names(url: str | list[str], tmp_path: Path) -> list[str]:
    """The files that a source has, below their place."""
    return [file.name for file in Offline(tmp_path).files(source(url))]


def test_values_types_and_statuses_are_those_of_local_files(
    s3: pafs.FileSystem, bucket: str, tmp_path: Path, tell: Told
) -> None:
    expected = answers(parquet(tmp_path, ROWS, **WORDS))
    listed = table(ROWS).rename_columns({"embedding": "list"})
    for number, first in enumerate(range(0, len(ROWS), 17)):
        put(s3, f"{bucket}/rows/part {number}.parquet", listed[first : first + 17])
    words = {**WORDS, "derived": {"embedding": "CAST(list AS FLOAT[2])"}}
    found = answers(ParquetSource("rows", f"s3://{bucket}/rows", **words))
    assert found == expected
    compared = sum(map(len, found[0]["values"])) + sum(map(len, found[1]["values"]))
    ran = "Arrow's client ran; the service is moto's"
    tell("s3", version=f"pyarrow {version('pyarrow')}, moto {version('moto')}", ran=ran, compared=compared)


def test_which_files_a_url_names(s3: pafs.FileSystem, bucket: str, tmp_path: Path) -> None:
    """The rules are those of folders."""
    for name in (
        "a.parquet",
        "sub/b ü=%.parquet",
        "sub/_temporary/c.parquet",
        "_notes.parquet",
        "d.csv",
        "other/e.parquet",
    ):
        put(s3, f"{bucket}/x/{name}", rows(1))
    url = f"s3://{bucket}/x"
    assert names(url, tmp_path) == ["a.parquet", "other/e.parquet", "sub/b ü=%.parquet"]
    assert names(f"{url}/", tmp_path) == names(url, tmp_path)
    assert names(f"{url}/a.parquet", tmp_path) == ["a.parquet"]
    assert names(f"{url}/*.parquet", tmp_path) == ["a.parquet"]
    assert names(f"{url}/_*.parquet", tmp_path) == ["_notes.parquet"]
    assert names(f"{url}/[os]*/*.parquet", tmp_path) == ["other/e.parquet", "sub/b ü=%.parquet"]
    assert names(f"{url}/**/*.parquet", tmp_path) == ["a.parquet", "other/e.parquet", "sub/b ü=%.parquet"]
    assert names(f"{url}/s*", tmp_path) == ["sub/b ü=%.parquet"]
    assert names([f"{url}/sub", f"{url}/**/b*.parquet"], tmp_path) == ["b ü=%.parquet"]
    assert names(f"{url}/d.csv", tmp_path) == ["d.csv"]


def test_partitions_and_arrivals(s3: pafs.FileSystem, bucket: str) -> None:
    clock = ManualClock(NOON + timedelta(days=1))
    with FeatureStore.local(clock=clock) as store:
        put(s3, f"{bucket}/rows/hour=1/a.parquet", rows(1, 2))
        of = source(f"s3://{bucket}/rows", partitions={"hour": Int32}, known_at=ARRIVAL)
        features = {"n": Count(window="lifetime")}
        views = [
            FeatureView("counted", entity=USER, source=of, refresh="1h", features=features),
            FeatureView("last", entity=USER, source=of, refresh="1h", features=["hour"]),
        ]
        store.apply(views)
        store.materialize(progress=False)
        clock.set(NOON + timedelta(days=2))
        put(s3, f"{bucket}/rows/hour=3/b.parquet", rows(9))
        store.materialize(progress=False)
        at = [NOON + timedelta(days=1, hours=12), NOON + timedelta(days=2)]
        found = store.get_historical_features(pa.table({"user": ["ann"] * 2, "event_timestamp": at}), views).to_arrow()
        served = store.get_online_features({"user": "ann"}, views).to_arrow()
    assert found["counted__n"].to_pylist() == [2, 3]
    assert found["last__hour"].to_pylist() == [1, 3]
    assert served["counted__n"].to_pylist() == [3]


def test_a_spine_in_a_store(s3: pafs.FileSystem, bucket: str) -> None:
    put(s3, f"{bucket}/rows.parquet", rows(1, 2, 3))
    at = pa.array([NOON + timedelta(minutes=minute) for minute in (2, 5)], pa.timestamp("us", "UTC"))
    put(s3, f"{bucket}/spine/a.parquet", pa.table({"user": ["ann"] * 2, "event_timestamp": at}))
    view = FeatureView(
        "v", entity=USER, source=source(f"s3://{bucket}/rows.parquet"), refresh="continuous", features=["n"]
    )
    with FeatureStore.local(clock=ManualClock(NOON + timedelta(days=1))) as store:
        found = store.get_historical_features(f"s3://{bucket}/spine", [view]).to_arrow()
        assert found["v__n"].to_pylist() == [2, 3]
        with pytest.raises(SpineError, match="no Parquet file at"):
            store.get_historical_features(f"s3://{bucket}/nothing", [view]).to_arrow()


def test_a_file_that_is_written_anew_or_removed_is_noticed(s3: pafs.FileSystem, bucket: str, tmp_path: Path) -> None:
    offline, of = Offline(tmp_path), source(f"s3://{bucket}/rows")
    put(s3, f"{bucket}/rows/a.parquet", rows(1))
    put(s3, f"{bucket}/rows/b.parquet", rows(2))
    files = offline.files(of)
    offline.check_unchanged(of, files)
    put(s3, f"{bucket}/rows/a.parquet", rows(1, 2, 3, 4))
    with pytest.raises(FilesChangedError, match=r"a\.parquet was written anew"):
        offline.check_unchanged(of, files)
    s3.delete_file(f"{bucket}/rows/a.parquet")
    with pytest.raises(FilesChangedError, match=r"a\.parquet is gone"):
        offline.check_unchanged(of, files)
    assert [file.name for file in offline.files(of)] == ["b.parquet"]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3://no-such-bucket/rows", "cannot be read|no Parquet file matches"),
        ("s3://{bucket}/nothing", "no Parquet file matches s3://"),
        ("s3://", "names no bucket"),
        ("s3://{bucket}/table", "is a Delta table"),
        ("s3://{bucket}/text.parquet", "cannot be read as Parquet"),
        ("s3://{bucket}/odd", r"has one of \* \? \[ in its name"),
    ],
)
def test_what_cannot_be_read_is_told(s3: pafs.FileSystem, bucket: str, tmp_path: Path, url: str, words: str) -> None:
    put(s3, f"{bucket}/table/a.parquet", rows(1))
    put(s3, f"{bucket}/odd/a[1].parquet", rows(1))
    for place, text in (("table/_delta_log/0.json", b"{}"), ("text.parquet", b"user,at\n")):
        with s3.open_output_stream(f"{bucket}/{place}") as file:
            file.write(text)
    with pytest.raises(SourceError, match=words) as caught:
        Offline(tmp_path).raw_types(source(url.replace("{bucket}", bucket)))
    assert "secret" not in str(caught.value)


def test_a_store_that_is_away_is_told_without_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "some",
        "AWS_SECRET_ACCESS_KEY": "hidden-word",
    }
    for name, value in {**said, "AWS_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    object_stores._system.cache_clear()
    with pytest.raises(SourceError, match=r"s3://lake/rows cannot be read") as caught:
        Offline(tmp_path).raw_types(source("s3://lake/rows"))
    object_stores._system.cache_clear()
    assert "hidden-word" not in str(caught.value)


def test_a_child_process_has_a_client_of_its_own(s3: pafs.FileSystem, bucket: str, tmp_path: Path) -> None:
    """Whose threads the parent's are not."""
    put(s3, f"{bucket}/rows/a.parquet", rows(1))
    of = source(f"s3://{bucket}/rows")
    assert len(Offline(tmp_path).files(of)) == 1
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, str(len(Offline(tmp_path).files(of))).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 9) == b"1"


def test_which_sources_lie_in_stores() -> None:
    for path in ("gs://b/x", "az://c/x", "s3://b/*.parquet"):
        assert source(path).path == (path,)
    for path in ("s3:/b/x", "hdfs://h/x", "https://h/x", "S3://b/x"):
        with pytest.raises(DeclarationError, match="lies in no folder of this machine"):
            source(path)
    with pytest.raises(DeclarationError, match="lies in no folder of this machine"):
        CsvSource("rows", "s3://b/x.csv", schema={"at": "Timestamp"}, event_time="at")
