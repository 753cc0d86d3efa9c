"""Training frames made again from the files that the manifest of another names."""

from __future__ import annotations

import json
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
from featurestore.errors import FilesChangedError, ManifestError
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
