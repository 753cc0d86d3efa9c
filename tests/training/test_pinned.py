"""Training frames made again from the files that the manifest of another names."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import (
    Count,
    CsvSource,
    DataFrameSource,
    Entity,
    FeatureStore,
    FeatureView,
    ManualClock,
    ParquetSource,
    PushSource,
)
from featurestore.errors import FeatureStoreError, FilesChangedError, ManifestError
from featurestore.sources.source_files import footer_digest
from featurestore.types import String

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
USER = Entity("user", key={"user": String})
SPINE = pa.table({"user": ["ann"], "event_timestamp": pa.array([NOON], pa.timestamp("us", "UTC"))})


def rows(count: int) -> pa.Table:
    return pa.table(
        {"user": ["ann"] * count, "at": pa.array([NOON - timedelta(hours=2)] * count, pa.timestamp("us", "UTC"))}
    )


def view(of: Any) -> FeatureView:
    return FeatureView("rows", entity=USER, source=of, refresh="1h", features={"n": Count(window="1d")})


def counted(frame: Any) -> list[int | None]:
    found: list[int | None] = frame.to_arrow()["rows__n"].to_pylist()
    return found


@pytest.fixture
def store() -> Iterator[FeatureStore]:
    with FeatureStore.local(clock=ManualClock(NOON)) as store:
        yield store


def test_files_that_came_since_are_left_out(store: FeatureStore, tmp_path: Path) -> None:
    """And one that was written anew, or is gone, is told, with what it was made for."""
    pq.write_table(rows(1), tmp_path / "a.parquet")
    pq.write_table(rows(2), tmp_path / "b.parquet")
    of = view(ParquetSource("rows", tmp_path, event_time="at"))
    first = store.get_historical_features(SPINE, [of])
    first.to_parquet(tmp_path / "_frame.parquet")
    pq.write_table(rows(4), tmp_path / "aa.parquet")
    assert counted(store.get_historical_features(SPINE, [of])) == [7]
    for given in (
        first,
        first.manifest,
        tmp_path / "_frame.parquet",
        str(tmp_path / "_frame.parquet"),
        first.to_arrow(),
    ):
        again = store.get_historical_features(SPINE, [of], sources_as_in=given)
        assert counted(again) == counted(first) == [3]
        assert again.manifest["sources"] == first.manifest["sources"]
    spine = tmp_path / "_spine.parquet"
    pq.write_table(SPINE, spine)
    read_late = store.get_historical_features(str(spine), [of], sources_as_in=first)
    pq.write_table(rows(8), tmp_path / "ab.parquet")
    assert counted(read_late) == [3]  # a spine that is a path is answered when it is read
    pq.write_table(rows(3), tmp_path / "b.parquet")
    with pytest.raises(FilesChangedError, match=r"b\.parquet was written anew since the frame of .* was made"):
        store.get_historical_features(SPINE, [of], sources_as_in=first)
    (tmp_path / "b.parquet").unlink()
    with pytest.raises(FilesChangedError, match=r"b\.parquet is gone since the frame of .* was made"):
        store.get_historical_features(SPINE, [of], sources_as_in=first)
    assert counted(store.get_historical_features(SPINE, [of])) == [13]


def test_snapshots_and_parts_are_made_again(store: FeatureStore, tmp_path: Path) -> None:
    """A folder of parts is gone on with for the same manifest, whatever came, and holds no others."""
    pq.write_table(rows(1), tmp_path / "a.parquet")
    pq.write_table(SPINE, tmp_path / "_spine.parquet")
    of, at = [view(ParquetSource("rows", tmp_path / "*.parquet", event_time="at"))], NOON
    first = store.snapshot(of, at=at)
    parts = store.snapshot_parts(tmp_path / "first", of, at=at)
    pq.write_table(rows(2), tmp_path / "aa.parquet")
    assert counted(store.snapshot(of, at=at)) == [3]
    for given in (first, parts.manifest, tmp_path / "first"):
        again = store.snapshot(of, at=at, sources_as_in=given)
        assert counted(again) == counted(first) == [1]
        assert again.manifest["sources"] == first.manifest["sources"]
    for number, made in enumerate((1, 0)):
        words = {"part_rows": 1, "sources_as_in": first}
        of_keys = store.snapshot_parts(tmp_path / "keys", of, at=at, **words)  # type: ignore[arg-type]  # words of several types
        of_spine = store.historical_parts(tmp_path / "set", tmp_path / "_spine.parquet", of, **words)  # type: ignore[arg-type]  # words of several types
        for written in (of_keys, of_spine):
            assert written.made == made
            assert written.manifest["sources"] == first.manifest["sources"]
            assert pq.read_table(written.folder / written.manifest["parts"][0]["name"])["rows__n"].to_pylist() == [1]
        pq.write_table(rows(4), tmp_path / f"b{number}.parquet")
    for other in (None, store.snapshot(of, at=at)):
        with pytest.raises(
            FeatureStoreError, match=r"another frame: its sources_as_in \(a digest.*\) were \w{16}, and"
        ):
            store.snapshot_parts(tmp_path / "keys", of, at=at, part_rows=1, sources_as_in=other)
    (tmp_path / "a.parquet").unlink()
    with pytest.raises(FilesChangedError, match=r"a\.parquet is gone since the frame of .* was made"):
        store.snapshot(of, at=at, sources_as_in=first)
    with pytest.raises(FilesChangedError, match=r"a\.parquet is gone since the frame of .* was made"):
        store.snapshot_parts(tmp_path / "more", of, at=at, sources_as_in=first)
    assert not (tmp_path / "more.manifest.json").exists()


def test_a_file_of_the_same_size_and_time_is_told_by_its_footer(store: FeatureStore, tmp_path: Path) -> None:
    """As far as that says what the file holds; a manifest of before it was kept says nothing of it."""
    path = tmp_path / "rows" / "a.parquet"
    path.parent.mkdir()

    def written(amount: int) -> int:
        pq.write_table(rows(1).append_column("x", pa.array([amount])), path)
        os.utime(path, ns=(1, 1))
        return path.stat().st_size

    sizes = {written(5)}
    of = [view(ParquetSource("rows", path.parent, event_time="at"))]
    first = store.get_historical_features(SPINE, of)
    (said,) = first.manifest["sources"]["rows"]
    assert sorted(said) == ["footer", "modified_ns", "path", "size"]
    parts = store.snapshot_parts(tmp_path / "keys", of, at=NOON)
    (tmp_path / "keys" / parts.manifest["parts"][0]["name"]).unlink()
    assert counted(store.get_historical_features(SPINE, of, sources_as_in=first)) == [1]
    assert len(sizes | {written(6)}) == 1
    with pytest.raises(
        FilesChangedError, match=r"a\.parquet was written anew since the frame of .*, with its size and"
    ):
        store.get_historical_features(SPINE, of, sources_as_in=first)
    with pytest.raises(FilesChangedError, match=r"a\.parquet was written anew since the folder was begun"):
        store.snapshot_parts(tmp_path / "keys", of, at=NOON)
    older = json.loads(json.dumps(first.manifest))
    del older["sources"]["rows"][0]["footer"]
    assert counted(store.get_historical_features(SPINE, of, sources_as_in=older)) == [1]
    written(5)
    assert counted(store.get_historical_features(SPINE, of, sources_as_in=first)) == [1]
    assert store.snapshot_parts(tmp_path / "keys", of, at=NOON).made == 1


def test_what_has_no_footer(tmp_path: Path) -> None:
    whole = tmp_path / "a.parquet"
    pq.write_table(rows(1), whole)
    assert re.fullmatch("[0-9a-f]{16}", footer_digest(str(whole)) or "")
    for name, content in (("empty", b""), ("text", b"user,at\n"), ("cut", whole.read_bytes()[-99:])):
        (tmp_path / name).write_bytes(content)
        assert footer_digest(str(tmp_path / name)) is None
    for name in ("s3://lake/a.parquet", "frame:0", str(tmp_path), str(tmp_path / "none")):
        assert footer_digest(name) is None


def test_other_sources(store: FeatureStore, tmp_path: Path) -> None:
    """Frames by their content, CSV by its files, a push log with the files of its history."""
    frame = store.get_historical_features(SPINE, [view(DataFrameSource("rows", rows(2), event_time="at"))])
    same = view(DataFrameSource("rows", rows(2), event_time="at"))
    assert counted(store.get_historical_features(SPINE, [same], sources_as_in=frame)) == [2]
    with pytest.raises(FilesChangedError, match="frame:.* is gone since"):
        store.get_historical_features(
            SPINE, [view(DataFrameSource("rows", rows(3), event_time="at"))], sources_as_in=frame
        )
    (tmp_path / "csv").mkdir()
    text = f"user,at\nann,{(NOON - timedelta(hours=1)).isoformat()}\n"
    (tmp_path / "csv" / "a.csv").write_text(text)
    of = view(CsvSource("text", tmp_path / "csv", schema={"user": "String", "at": "Timestamp"}, event_time="at"))
    first = store.get_historical_features(SPINE, [of])
    (tmp_path / "csv" / "b.csv").write_text(text)
    assert counted(store.get_historical_features(SPINE, [of])) == [2]
    assert counted(store.get_historical_features(SPINE, [of], sources_as_in=first)) == [1]
    (tmp_path / "old").mkdir()
    past = rows(2).append_column("known", pa.array([NOON - timedelta(hours=1)] * 2, pa.timestamp("us", "UTC")))
    pq.write_table(past, tmp_path / "old" / "a.parquet")
    history = ParquetSource("old", tmp_path / "old", event_time="at", known_at="known", known_after="1s")
    pushed = PushSource(
        "pushed",
        schema={"user": String, "at": "Timestamp"},
        event_time="at",
        history=history,
        cutover=NOON - timedelta(minutes=30),
    )
    live = FeatureView("rows", entity=USER, source=pushed, features={"n": Count(window="1d")})
    store.apply([live])
    store.push("pushed", rows(1))
    at = SPINE.set_column(1, "event_timestamp", pa.array([NOON + timedelta(hours=1)], pa.timestamp("us", "UTC")))
    first = store.get_historical_features(at, [live])
    pq.write_table(past, tmp_path / "old" / "b.parquet")
    before, after = counted(first), counted(store.get_historical_features(at, [live]))
    assert before != after
    assert counted(store.get_historical_features(at, [live], sources_as_in=first)) == before


def test_what_the_manifest_does_not_say(store: FeatureStore) -> None:
    source = view(DataFrameSource("rows", rows(1), event_time="at"))
    said = json.loads(json.dumps(store.get_historical_features(SPINE, [source]).manifest))
    for sources in ({}, {"rows": []}, {"other": said["sources"]["rows"]}):
        with pytest.raises(ManifestError, match="names no files of .*'rows'"):
            store.get_historical_features(SPINE, [source], sources_as_in={**said, "sources": sources})
    for odd in ({"path": 1, "size": 1, "modified_ns": 1}, {"path": "x"}, {"path": "x", "size": None, "modified_ns": 1}):
        with pytest.raises(ManifestError, match="rows"):
            store.get_historical_features(SPINE, [source], sources_as_in={**said, "sources": {"rows": [odd]}})
    with pytest.raises(ManifestError, match="int is no manifest"):
        store.get_historical_features(SPINE, [source], sources_as_in=7)
