"""A training frame says what it was made from, and is the same in memory, on disk, in parts and in chunks."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import FeatureService, FeatureStore, FeatureView, Latest
from featurestore.durable.checksums import unsigned
from featurestore.durable.parquet import restored
from featurestore.errors import DeclarationError, ManifestError, SourceError, SpineError
from featurestore.sources.source_files import footer_digest
from featurestore.training.manifest import load_manifest
from featurestore.training.training_frame import MANIFEST_KEY, TrainingFrame
from featurestore.types import Array, Float32
from tests.small import NOON, hours, opened, raised, spine, table, view_of, write

SECOND = timedelta(seconds=1)
MICROSECOND = timedelta(microseconds=1)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three rows at once."""
    monkeypatch.setattr("featurestore.training.spine.CHUNK_ROWS", 3)


def views(folder: Path) -> list[FeatureView]:
    """An hourly view over two files and a continuous one over a frame, with invalid and conflicting rows."""
    rows = table(
        thing=[1, 1, 2, None, 2],
        at=[hours(-3), hours(-3), hours(-2), hours(-2), None],
        x=[1.5, -0.0, None, 4.0, 5.0],
        vector=pa.array([[0.5, -0.0]] * 5, pa.list_(pa.float32(), 2)),
    )
    paths = [write(folder / "a.parquet", rows.slice(0, 2)), write(folder / "b.parquet", rows.slice(2))]
    features = {"x": Latest("x"), "vector": Latest("vector", type=Array(Float32, 2))}
    hourly = view_of([str(path) for path in paths], features, name="hourly", refresh="1h", ready_after="10m")
    facts = view_of(table(thing=[1, 2], y=["a", "b"]), ["y"], name="facts", event_time=None)
    return [hourly, facts]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FeatureStore]:
    folder = tmp_path / "sources"
    folder.mkdir()
    with opened(*views(folder)) as (store, _):
        yield store


def asked() -> pa.Table:
    """Ten rows, three of which lie past the last complete instant of the hourly view; two have a conflict."""
    when = [hours(n / 2) for n in (-8, -7, -6, -5, -4, -3, -2, 3, 4, 5)]
    return spine(when, thing=[1, 1, 1, 2, 2, 2, 9, 1, 2, 1])


def manifest_in(path: Path | str) -> Any:
    return unsigned(json.loads(pq.read_schema(path).metadata[MANIFEST_KEY]))


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("kind", ["Arrow", "pandas", "polars", "Parquet", "relation"])
def test_a_frame_written_in_chunks_is_the_one_in_memory(
    store: FeatureStore, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same rows in the same order, of the same types, with a manifest that counts all of them."""
    rows = asked()
    kinds = {
        "Arrow": rows, "pandas": rows.to_pandas(), "polars": pl.DataFrame(rows),
        "Parquet": write(tmp_path / "spine.parquet", rows), "relation": duckdb.sql("SELECT * FROM rows"),
    }  # fmt: skip
    frame = store.get_historical_features(kinds[kind], "service", with_status=True, with_event_time=True)
    written = pq.read_table(frame.to_parquet(tmp_path / "frame.parquet"))
    monkeypatch.undo()
    whole = store.get_historical_features(rows, "service", with_status=True, with_event_time=True)
    own = rows.column_names
    assert (
        written.drop_columns(own)
        .cast(whole.to_arrow().drop_columns(own).schema)
        .equals(whole.to_arrow().drop_columns(own))
    )
    assert restored(written).schema.field("hourly__vector").type == Array(Float32, 2).arrow
    assert written.select(own).to_pylist() == rows.to_pylist()
    assert frame.manifest == whole.manifest


def test_a_relative_path_with_a_colon_is_a_path(
    store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A spine, a frame and its manifest under a name of which Arrow takes the first part for a scheme."""
    monkeypatch.chdir(tmp_path)
    expected = store.get_historical_features(asked(), "service")
    for folder in (Path(), Path("day:1")):
        folder.mkdir(exist_ok=True)
        write(tmp_path / folder / "spine-09:00.parquet", asked())
        frame = store.get_historical_features(folder / "spine-09:00.parquet", "service")
        written = frame.to_parquet(folder / "day-09:00.parquet")
        assert written == folder / "day-09:00.parquet"
        assert pq.read_table(written.absolute()).num_rows == expected.to_arrow().num_rows
        assert store.load_manifest(written).fingerprint == expected.manifest["fingerprint"]


@pytest.mark.usefixtures("small_chunks")
def test_chunks_are_written_as_they_are_answered(store: FeatureStore, tmp_path: Path) -> None:
    """Ten rows, three at once, are four row groups; nothing waits for the last of them."""
    frame = store.get_historical_features(write(tmp_path / "spine.parquet", asked()), "service")
    written = pq.read_metadata(frame.to_parquet(tmp_path / "frame.parquet"))
    assert [written.row_group(n).num_rows for n in range(written.num_row_groups)] == [3, 3, 3, 1]
    smaller = pq.read_metadata(frame.to_parquet(tmp_path / "smaller.parquet", group_rows=2))
    assert [smaller.row_group(n).num_rows for n in range(smaller.num_row_groups)] == [2, 1, 2, 1, 2, 1, 1]


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("kind", ["Arrow", "Parquet", "relation"])
def test_a_frame_is_streamed_as_it_is_answered(store: FeatureStore, tmp_path: Path, kind: str) -> None:
    """Three rows at once, before the next are answered; what was answered already as it is. All again, where it can be asked again."""
    rows = asked()
    kinds = {
        "Arrow": rows,
        "Parquet": write(tmp_path / "spine.parquet", rows),
        "relation": duckdb.sql("SELECT * FROM rows"),
    }
    whole = store.get_historical_features(rows, "service").to_arrow().replace_schema_metadata(None)
    frame = store.get_historical_features(kinds[kind], "service")
    assert frame.is_answered is (kind == "Arrow")
    for _ in range(1 if frame.once else 2):
        reader = frame.to_reader()
        first = reader.read_next_batch()
        if kind == "Parquet":
            assert (first.num_rows, frame.manifest["rows"]) == (3, 3)
        assert pa.Table.from_batches([first, *reader], reader.schema).to_pylist() == whole.to_pylist()
        assert reader.schema.names == whole.schema.names


@pytest.mark.parametrize("chunk", [3, 1_000_000])
@pytest.mark.parametrize("lazy", [True, False])
def test_one_manifest_in_the_frame_the_file_and_beside_it(
    store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, lazy: bool
) -> None:
    """Equal in all three, and in the Arrow table, however many chunks were counted."""
    monkeypatch.setattr("featurestore.training.spine.CHUNK_ROWS", chunk)
    frame = store.get_historical_features(write(tmp_path / "spine.parquet", asked()) if lazy else asked(), "service")
    path = frame.to_parquet(tmp_path / "frame.parquet")
    assert frame.manifest["rows"] == 10
    assert manifest_in(path) == frame.manifest
    beside = json.loads(path.with_name("frame.parquet.manifest.json").read_text())
    assert unsigned(beside) == frame.manifest
    assert unsigned(json.loads(frame.to_arrow().schema.metadata[MANIFEST_KEY])) == frame.manifest
    with pytest.raises(ManifestError, match="damaged, or was changed by hand"):
        load_manifest({**beside, "columns": {}})


def test_the_manifest_says_what_the_frame_was_made_from(store: FeatureStore, tmp_path: Path) -> None:
    """Definitions by fingerprint, every source file as it was, versions, and what was counted."""
    frame = store.get_historical_features(asked(), "service")
    manifest = frame.manifest
    service = store._project.service("service")
    assert manifest["service"] == "service"
    assert manifest["fingerprint"] == service.fingerprint
    assert manifest["views"] == {part.name: part.view.fingerprint for part in service.parts}
    assert manifest["columns"] == {
        "hourly__x": "Float64", "hourly__vector": "Array(Float32, 2)", "facts__y": "String",
    }  # fmt: skip
    assert list(manifest["columns"]) == list(frame.features.columns)
    assert manifest["created"] == NOON.isoformat()
    files = [tmp_path / "sources" / name for name in ("a.parquet", "b.parquet")]
    assert manifest["sources"]["hourly_rows"] == [
        {
            "path": str(path),
            "size": path.stat().st_size,
            "modified_ns": path.stat().st_mtime_ns,
            "footer": footer_digest(str(path)),
        }
        for path in files
    ]
    (frame_source,) = manifest["sources"]["facts_rows"]
    assert frame_source["path"].startswith("frame:")
    assert manifest["without_history"] == ["facts_rows"]
    assert manifest["versions"] == {
        "python": platform.python_version(),
        **{name: version(name) for name in ("featurestore", "duckdb", "numpy", "pandas", "pyarrow")},
    }
    assert manifest["rows"] == 10
    assert manifest["spine_rows_past_the_last_complete_instant"] == {"hourly": 3, "facts": 3}
    assert manifest["conflicts"] == {"hourly": 2, "facts": 0}
    assert manifest["invalid_rows"] == {
        "hourly": {"no known_at or identity": 1, "no key or event_time": 1},
        "facts": {"no known_at or identity": 0, "no key or event_time": 0},
    }


def test_another_frame_is_another_source_in_the_manifest() -> None:
    """A frame in memory has no file; its content names it."""
    seen = []
    for x in (10, 10, 11):
        with opened(view_of(table(thing=[1], at=[NOON], x=[x]), ["x"])) as (store, _):
            seen.append(store.get_historical_features(spine(NOON, thing=[1]), "service").manifest["sources"])
    assert seen[0] == seen[1]
    assert seen[0] != seen[2]


@pytest.mark.usefixtures("small_chunks")
def test_a_frame_that_fails_leaves_what_was_there(store: FeatureStore, tmp_path: Path) -> None:
    """A mistake in a later chunk: the file before it is whole, and nothing half-written lies beside it."""
    folder = tmp_path / "out"
    folder.mkdir()
    store.get_historical_features(asked(), "service").to_parquet(folder / "frame.parquet")
    before = (folder / "frame.parquet").read_bytes()
    bad = write(tmp_path / "bad.parquet", table(thing=[1] * 5, event_timestamp=[NOON] * 4 + [None]))
    frame = store.get_historical_features(bad, "service")
    text = raised(SpineError, lambda: frame.to_parquet(folder / "frame.parquet"))
    assert text == "Row 4 of the spine has no time in column 'event_timestamp'"
    assert (folder / "frame.parquet").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["frame.parquet", "frame.parquet.manifest.json"]


@pytest.mark.usefixtures("small_chunks")
def test_a_source_that_changes_between_chunks_is_an_error(store: FeatureStore, tmp_path: Path) -> None:
    """One frame is made from one state of its sources."""
    frame = store.get_historical_features(write(tmp_path / "spine.parquet", asked()), "service")
    blocks = frame.blocks()
    next(blocks)
    with (tmp_path / "sources" / "b.parquet").open("ab") as file:
        file.write(b"more")
    assert "changed while they were read" in raised(SourceError, lambda: next(blocks))


def test_every_form_of_a_frame_has_the_same_rows(store: FeatureStore) -> None:
    """`features`, to_pandas, to_arrow, to_numpy, polars and len agree."""
    frame = store.get_historical_features(asked(), "service")
    whole = frame.to_arrow()
    assert len(frame) == whole.num_rows == len(frame.features) == len(frame.to_pandas()) == 10
    assert list(frame.to_pandas().columns) == whole.column_names == pl.DataFrame(frame).columns
    assert list(frame.features.columns) == whole.column_names[2:]
    pd.testing.assert_frame_equal(frame.to_pandas()[whole.column_names[2:]], frame.features)
    assert frame.to_numpy(object)[:, 2].tolist() == whole["facts__y"].to_pylist()


# --- Split by time --------------------------------------------------------------------------------------------------


def split_frame(at: list[datetime], *, pandas: bool = False) -> TrainingFrame:
    """A frame whose spine has these instants, and a column `n` that numbers its rows."""
    asked = table(thing=[1] * len(at), event_timestamp=at, n=list(range(len(at))))
    with opened(view_of(table(thing=[1], at=[hours(-9)], x=[10]), ["x"])) as (store, _):
        given = asked.to_pandas().set_index(pd.Index([5] * len(at))) if pandas else asked
        return store.get_historical_features(given, "service", with_status=True)


def numbers(frame: TrainingFrame) -> list[int]:
    return frame.to_arrow()["n"].to_pylist()


def test_a_row_at_the_moment_of_the_split_is_in_the_second_part() -> None:
    """The first part ends before `at`; without a gap every row is in one of the two, in its order."""
    frame = split_frame([NOON + MICROSECOND, NOON, NOON - MICROSECOND, hours(3), hours(-3)])
    first, second = frame.split_by_time(NOON)
    assert (numbers(first), numbers(second)) == ([2, 4], [0, 1, 3])


def test_rows_in_the_gap_are_in_neither_part() -> None:
    """From `at` on, `at` included, up to `at` + gap, which is the first instant of the second part."""
    end = NOON + timedelta(days=1)
    frame = split_frame([NOON - MICROSECOND, NOON, NOON + SECOND, end - MICROSECOND, end, end + MICROSECOND])
    for gap in ("1d", timedelta(days=1), "24h"):
        first, second = frame.split_by_time(NOON, gap=gap)
        assert (numbers(first), numbers(second)) == ([0], [4, 5])


@pytest.mark.parametrize(
    "at", [NOON, "2024-05-01T12:00:00Z", "2024-05-01T12:00", "2024-05-01 14:00+02:00", datetime(2024, 5, 1, 12)]
)
def test_the_moment_is_an_instant_however_it_is_written(at: Any) -> None:
    """Aware, in another zone, or naive, which is UTC."""
    first, second = split_frame([NOON - MICROSECOND, NOON]).split_by_time(at)
    assert (numbers(first), numbers(second)) == ([0], [1])


def test_a_part_is_a_frame_of_its_own(tmp_path: Path) -> None:
    """With its statuses, its index, its count in the manifest and on disk; it can be split again, and be empty."""
    frame = split_frame([hours(n) for n in range(6)], pandas=True)
    first, second = frame.split_by_time(hours(4))
    assert [part.manifest["rows"] for part in (frame, first, second)] == [6, 4, 2]
    assert {**first.manifest, "rows": 6} == frame.manifest
    assert first.to_arrow()["view__x__status"].to_pylist() == ["PRESENT"] * 4
    assert first.to_pandas().index.tolist() == first.features.index.tolist() == [5] * 4
    assert manifest_in(second.to_parquet(tmp_path / "second.parquet")) == second.manifest
    assert pq.read_table(tmp_path / "second.parquet").equals(second.to_arrow())
    again = first.split_by_time(hours(2))
    assert [numbers(part) for part in again] == [[0, 1], [2, 3]]
    none, all_of_it = frame.split_by_time(hours(-1))
    assert (len(none), len(all_of_it)) == (0, 6)
    assert none.to_arrow().schema.equals(frame.to_arrow().schema)
    assert list(none.features.columns) == ["view__x"]


def test_a_gap_is_a_duration() -> None:
    """A bare number has no unit, and is refused."""
    frame = split_frame([NOON])
    assert "bare number" in raised(DeclarationError, lambda: frame.split_by_time(NOON, gap=3))


# --- Extra columns --------------------------------------------------------------------------------------------------


def test_statuses_and_event_times_are_asked_for(store: FeatureStore) -> None:
    """A status a feature, an event time a view, after the features; neither is a feature."""
    plain = store.get_historical_features(asked(), "service")
    full = store.get_historical_features(asked(), "service", with_status=True, with_event_time=True)
    extra = [
        "hourly__x__status",
        "hourly__vector__status",
        "facts__y__status",
        "hourly__event_time",
        "facts__event_time",
    ]
    assert full.to_arrow().column_names == plain.to_arrow().column_names + extra
    assert full.to_pandas().columns.tolist() == full.to_arrow().column_names
    pd.testing.assert_frame_equal(full.features, plain.features)
    assert full.to_arrow()["facts__event_time"].null_count == 10


def test_an_event_time_is_that_of_the_row_which_made_the_value() -> None:
    """None for a key without rows or with none within the ttl; an ended row was chosen, so its time is there."""
    rows = table(
        thing=[1, 2, 3], at=[hours(-1), hours(-5), hours(-1)], end=[None, None, hours(0)], x=[1, 2, 3],
    )  # fmt: skip
    view = view_of(rows, ["x"], ttl="2h", until="end")
    other = view_of(rows, ["x"], name="other")
    service = FeatureService("service", features=[view, other.alias("again")])
    with opened(service) as (store, _):
        got = store.get_historical_features(
            spine(NOON, thing=pa.array([1, 2, 3, 9, None])), "service", with_status=True, with_event_time=True
        ).to_arrow()
        explained = [store.explain("view", {"thing": thing}, at=NOON) for thing in (1, 2, 3, 9, None)]
    assert got["view__x__status"].to_pylist() == ["PRESENT", "EXPIRED", "EXPIRED", "MISSING", "MISSING"]
    assert got["view__event_time"].to_pylist() == [hours(-1), None, hours(-1), None, None]
    assert got["again__event_time"].to_pylist() == [hours(-1), hours(-5), hours(-1), None, None]
    assert got["view__event_time"].to_pylist() == [answer.event_time for answer in explained]
    assert got["view__x__status"].to_pylist() == [answer.status for answer in explained]
