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

from featurestore import ARRIVAL, Count, CsvSource, Entity, FeatureStore, FeatureView, LastN, ManualClock, ParquetSource
from featurestore.errors import DeclarationError, FilesChangedError, SourceError, SpineError
from featurestore.sources import object_stores
from featurestore.sources.offline import Offline
from featurestore.types import Int32, String
from tests.platforms.conftest import Told
from tests.platforms.s3_server import BUSY, bad_way, put_empty, refusal, s3_server, written_at
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


def test_a_file_is_what_its_content_is(s3: pafs.FileSystem, bucket: str, tmp_path: Path) -> None:
    """Written anew in the same second, with as many bytes, it is another; the same content at another time too."""
    offline, of, key = Offline(tmp_path), source(f"s3://{bucket}/rows"), "rows/a.parquet"
    found = []
    now = datetime.now(UTC).replace(microsecond=0)
    for amount, at in ((1, now), (2, now), (1, now + timedelta(seconds=1)), (1, now)):
        put(s3, f"{bucket}/{key}", rows(amount))
        written_at(bucket, key, at)
        files = offline.files(of)
        offline.check_unchanged(of, files)
        assert files[0].modified // 10**9 == at.timestamp()
        found += files
    assert len({file.size for file in found}) == 1
    assert len({file.modified for file in found}) == 3
    assert found[3] == found[0]
    with pytest.raises(FilesChangedError, match=r"a\.parquet was written anew"):
        offline.check_unchanged(of, [found[1]])


def test_nothing_of_an_earlier_content_is_kept(s3: pafs.FileSystem, bucket: str) -> None:
    """By whoever reads: the file has the same size, and for all that the store says of times it is the same."""
    of = source(f"s3://{bucket}/rows")
    view = FeatureView("v", entity=USER, source=of, refresh="continuous", features=["n"])
    spine = pa.table({"user": ["ann"], "event_timestamp": [NOON + timedelta(hours=12)]})
    now = datetime.now(UTC).replace(microsecond=0)
    with FeatureStore.local(clock=ManualClock(NOON + timedelta(days=1))) as store:
        for amount in (1, 2, 3):
            put(s3, f"{bucket}/rows/a.parquet", rows(amount))
            written_at(bucket, "rows/a.parquet", now)
            assert store.get_historical_features(spine, [view]).to_arrow()["v__n"].to_pylist() == [amount]


def test_a_tag_is_asked_for_once_where_a_file_is_older(
    s3: pafs.FileSystem, bucket: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of one that was just written it is asked for each time."""
    keys = [f"rows/{name}.parquet" for name in "abc"]
    for key in keys:
        put(s3, f"{bucket}/{key}", rows(1))
    for key in keys[:2]:
        written_at(bucket, key, datetime.now(UTC) - timedelta(hours=1))

    def asked() -> list[int]:
        caplog.clear()
        names(f"s3://{bucket}/rows", tmp_path)
        heads = [record.getMessage() for record in caplog.records if f"HEAD /{bucket}/rows/" in record.getMessage()]
        return [sum(key in head for head in heads) for key in keys]

    with caplog.at_level("INFO"):
        assert asked() == [1, 1, 1]
        assert asked() == [0, 0, 1]


@pytest.mark.parametrize("what", ["written anew", "removed"])
def test_what_changes_while_it_is_read_is_read_again(
    s3: pafs.FileSystem, bucket: str, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """With the rows that are there then, and none of before."""
    for name, amount in (("a", 1), ("b", 2)):
        put(s3, f"{bucket}/rows/{name}.parquet", rows(amount))
    of = source(f"s3://{bucket}/rows")
    view = FeatureView(
        "v", entity=USER, source=of, refresh="continuous", features={"all": LastN("n", 9, window="lifetime")}
    )
    real, changed = object_stores.register, []

    def register(*said: Any) -> None:
        real(*said)
        if not changed:
            changed.append(what)
            if what == "removed":
                s3.delete_file(f"{bucket}/rows/a.parquet")
            else:
                put(s3, f"{bucket}/rows/a.parquet", rows(3))

    monkeypatch.setattr("featurestore.sources.session.register", register)
    with FeatureStore.local(clock=ManualClock(NOON + timedelta(days=1))) as store:
        spine = pa.table({"user": ["ann"], "event_timestamp": [NOON + timedelta(hours=12)]})
        found = store.get_historical_features(spine, [view]).to_arrow()
    assert changed == [what]
    assert found["v__all"].to_pylist() == [[2] if what == "removed" else [3, 2]]


def test_names_that_urls_write_otherwise(s3: pafs.FileSystem, bucket: str) -> None:
    """They are names as they stand, and what folders say is read as it is of those on a disk."""
    odd = ["a b", "a+b", "a%20b", "a%2Bb", "ü", "a&b", "a#b", "a'b\"c", "日本", "a\\b", "{a}", "~a"]
    for number, name in enumerate(odd):
        put(s3, f"{bucket}/rows/{name}/p=x %2F+{number}/{name}.parquet", rows(number))
    of = source(f"s3://{bucket}/rows/**/*.parquet", partitions={"p": String})
    view = FeatureView(
        "v",
        entity=USER,
        source=of,
        refresh="continuous",
        features={"all": LastN("n", 99), "p": LastN("p", 99)},
        ttl="9d",
    )
    with FeatureStore.local(clock=ManualClock(NOON + timedelta(days=1))) as store:
        spine = pa.table({"user": ["ann"], "event_timestamp": [NOON + timedelta(hours=12)]})
        found = store.get_historical_features(spine, [view]).to_arrow()
    assert found["v__all"].to_pylist() == [[*range(len(odd))][::-1]]
    assert found["v__p"].to_pylist() == [[f"x /+{number}" for number in range(len(odd))][::-1]]


def test_more_files_than_a_listing_has_at_once(s3: pafs.FileSystem, bucket: str, tmp_path: Path) -> None:
    put_empty(bucket, (f"rows/{number:04}.txt" for number in range(2100)))
    for name in ("0000", "0999", "1000", "2099"):
        put(s3, f"{bucket}/rows/{name}.parquet", rows(1))
    assert names(f"s3://{bucket}/rows", tmp_path) == [f"{name}.parquet" for name in ("0000", "0999", "1000", "2099")]


def test_a_store_that_is_busy_is_asked_again(s3: pafs.FileSystem, bucket: str, tmp_path: Path) -> None:
    put(s3, f"{bucket}/rows/a.parquet", rows(1))
    with bad_way() as way:
        way.answers = [BUSY] * 2
        assert names(f"s3://{bucket}/rows", tmp_path) == ["a.parquet"]
        assert way.answers == []


@pytest.mark.parametrize(
    ("status", "code", "message", "words"),
    [
        ("403 Forbidden", "AccessDenied", "Access Denied", "Access Denied|ACCESS_DENIED"),
        ("400 Bad Request", "ExpiredToken", "The provided token has expired.", "token has expired|EXPIRED"),
        ("403 Forbidden", "SignatureDoesNotMatch", "The signature does not match.", "signature|SIGNATURE"),
        ("400 Bad Request", "AuthorizationHeaderMalformed", "the region 'us-east-1' is wrong; expecting 'eu-west-1'",
         "expecting 'eu-west-1'"),
        ("301 Moved Permanently", "PermanentRedirect", "The bucket must be addressed using the endpoint.",
         "must be addressed|301|REDIRECT"),
        ("500 Internal Server Error", "InternalError", "We encountered an internal error.", "internal error|INTERNAL"),
    ],
)  # fmt: skip
def test_what_a_store_refuses_is_told_in_its_words(
    s3: pafs.FileSystem, bucket: str, tmp_path: Path, status: str, code: str, message: str, words: str
) -> None:
    with bad_way() as way:
        way.answers = [refusal(status, code, message)] * 40
        with pytest.raises(SourceError, match=rf"s3://{bucket}/rows cannot be read: .*({words})") as caught:
            names(f"s3://{bucket}/rows", tmp_path)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3://no-such-bucket/rows", "cannot be read|no Parquet file matches"),
        ("s3://{bucket}/nothing", "no Parquet file matches s3://"),
        ("s3://", "names no bucket"),
        ("s3://key:secret@{bucket}/rows", "has credentials in it; the environment says them"),
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
    with pytest.raises(DeclarationError, match="a URL is given as text, 's3://…', since a Path has one slash"):
        source(Path("s3://b/x"))  # type: ignore[arg-type]  # the mistake
    with pytest.raises(DeclarationError, match="lies in no folder of this machine, and of object stores only Parquet"):
        CsvSource("rows", "s3://b/x.csv", schema={"at": "Timestamp"}, event_time="at")
