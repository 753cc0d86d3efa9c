"""Ray moves the rows: what is its own, beside what every engine passes in `test_engines.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from featurestore import Entity, FeatureService, FeatureStore, FeatureView, ManualClock, ParquetSource
from featurestore.engines.ray import RayEngine
from featurestore.errors import FeatureStoreError, FilesChangedError, SpineError
from featurestore.training.manifest import load_manifest
from featurestore.types import Array, Float32, Int64
from tests.platforms.clusters import OWN_WORDS, ray_cluster
from tests.platforms.engine_kinds import NOON, ago, spine_of, write
from tests.platforms.record_pairs import Pair, moved, of_moved
from tests.platforms.s3_server import s3_server
from tests.platforms.shop import BLOCK, PAGES, bits
from tests.servers import RedisServer

pytestmark = pytest.mark.filterwarnings(OWN_WORDS)
USER = Entity("user", key={"user": Int64})


@pytest.fixture(scope="module")
def s3() -> Iterator[pafs.FileSystem]:
    with s3_server() as client:
        yield client


@pytest.fixture(scope="module")
def ray(s3: pafs.FileSystem) -> Iterator[Any]:
    """A cluster whose workers know where the object store is."""
    with ray_cluster() as module:
        yield module


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FeatureStore]:
    """A view of three keys, applied as a service."""
    path = write(
        tmp_path / "rows.parquet", user=[1, 2, 3], at=[ago(1)] * 3, x=[0.1, -0.0, None],
        v=pa.array([[1.0, -0.0], None, [0.5, 2.0]], pa.list_(pa.float32())),
    )  # fmt: skip
    source = ParquetSource("rows", path, event_time="at", derived={"pair": "CAST(v AS FLOAT[2])"})
    view = FeatureView("view", entity=USER, source=source, refresh="1h", features=["x", "pair"])
    with FeatureStore.local(clock=ManualClock(NOON)) as opened:
        opened.apply([FeatureService("ranking", features=[view])])
        yield opened


SPINE = spine_of([{"user": user, "event_timestamp": NOON} for user in (1, 2, 3, 4)])


def expected(store: FeatureStore) -> pa.Table:
    return store.get_historical_features(SPINE, "ranking").to_arrow()


def same(found: pa.Table, store: FeatureStore) -> None:
    rows = expected(store)
    assert found.column_names == rows.column_names
    for name in rows.column_names:
        assert bits(found.sort_by("id")[name].to_pylist()) == bits(rows[name].to_pylist()), name


def test_a_frame_is_a_dataset_with_the_types_of_one_machine(ray: Any, store: FeatureStore) -> None:
    """An embedding keeps its length, and the manifest says by what the frame was made."""
    frame = RayEngine(store, partitions=2).get_historical_features(SPINE, "ranking")
    schema = frame.dataset.schema().base_schema
    assert schema == expected(store).schema.remove_metadata()
    assert schema.field("view__pair").type == Array(Float32, 2).arrow
    tables = ray.get(frame.dataset.to_arrow_refs())
    same(pa.concat_tables(tables), store)
    assert frame.manifest["versions"]["ray"] == ray.__version__
    assert "view__x" in repr(frame)


def test_spines_of_every_kind(ray: Any, store: FeatureStore, tmp_path: Path) -> None:
    """Files, an Arrow table, datasets of Arrow and of pandas, of blocks some of which are null alone."""
    (tmp_path / "spine").mkdir()
    pq.write_table(SPINE.slice(0, 3), tmp_path / "spine" / "a.parquet")
    pq.write_table(SPINE.slice(3), tmp_path / "spine" / "b.parquet")
    blocks = [
        SPINE.append_column("note", pa.array(["x"] * 4)).slice(0, 2),
        SPINE.slice(2).append_column("note", pa.nulls(2)),
    ]
    pandas = SPINE.to_pandas()
    spines = [tmp_path / "spine", SPINE, ray.data.from_arrow(blocks), ray.data.from_pandas([pandas[:1], pandas[1:]])]
    for number, spine in enumerate(spines):
        manifest = (
            RayEngine(store, partitions=2).get_historical_features(spine, "ranking").to_parquet(tmp_path / str(number))
        )
        assert manifest["rows"] == 4
        found = pq.read_table(tmp_path / str(number))
        same(found.drop_columns([name for name in ("note",) if name in found.column_names]), store)
    assert "note" in pq.read_table(tmp_path / "2").column_names


def test_spine_sources_and_frame_in_an_object_store(ray: Any, s3: pafs.FileSystem, tmp_path: Path) -> None:
    """Workers read there and write there, and the manifest lies beside the folder."""
    s3.create_dir("lake")
    rows = pa.table(
        {"user": [1, 2, 3], "at": pa.array([ago(1)] * 3, pa.timestamp("us", "UTC")), "x": [0.1, -0.0, None]}
    )
    for name, table in (("rows/a.parquet", rows[:2]), ("rows/b.parquet", rows[2:]), ("spine.parquet", SPINE)):
        with s3.open_output_stream(f"lake/{name}") as file:
            pq.write_table(table, file)
    source = ParquetSource("rows", "s3://lake/rows", event_time="at")
    view = FeatureView("view", entity=USER, source=source, refresh="1h", features=["x"])
    with FeatureStore.local(clock=ManualClock(NOON)) as opened:
        opened.apply([FeatureService("ranking", features=[view])])
        frame = RayEngine(opened, partitions=2).get_historical_features("s3://lake/spine.parquet", "ranking")
        assert frame.to_parquet("s3://lake/trained/")["rows"] == 4
        same(pq.read_table("lake/trained", filesystem=s3), opened)
        assert load_manifest("s3://lake/trained").fingerprint == frame.manifest["fingerprint"]
        assert opened.registry.frames()[0].path == "s3://lake/trained"
        with pytest.raises(FeatureStoreError, match=r"s3://lake/trained holds part-000000.parquet"):
            frame.to_parquet("s3://lake/trained")


def test_a_folder_that_holds_something_is_refused(ray: Any, store: FeatureStore, tmp_path: Path) -> None:
    frame = RayEngine(store, partitions=1).get_historical_features(SPINE, "ranking")
    assert frame.to_parquet(tmp_path / "out")["rows"] == 4
    assert load_manifest(tmp_path / "out").fingerprint == frame.manifest["fingerprint"]
    with pytest.raises(
        FeatureStoreError, match=r"holds part-000000.parquet: name a folder that is empty, or not there"
    ):
        frame.to_parquet(tmp_path / "out")
    with pytest.raises(FeatureStoreError, match="there is no folder"):
        frame.to_parquet(tmp_path / "none" / "out")
    with pytest.raises(FeatureStoreError, match="is no folder"):
        frame.to_parquet(tmp_path / "rows.parquet")


def test_a_file_that_was_changed_is_told_by_the_task_that_reads_it(
    ray: Any, store: FeatureStore, tmp_path: Path
) -> None:
    frame = RayEngine(store, partitions=1).get_historical_features(SPINE, "ranking")
    write(tmp_path / "rows.parquet", user=[1], at=[ago(1)], x=[9.0], v=pa.array([[1.0, 2.0]], pa.list_(pa.float32())))
    with pytest.raises(FilesChangedError, match=r"rows\.parquet"):
        frame.to_parquet(tmp_path / "out")
    with pytest.raises(FilesChangedError, match=r"rows\.parquet"):
        _ = frame.dataset


def test_a_dataset_is_no_spine_of_this_process_and_the_error_says_whose(ray: Any, store: FeatureStore) -> None:
    said = (
        r"Dataset of ray\.data\S+ is no spine of this process: RayEngine\(store\)\.get_historical_features answers it"
    )
    with pytest.raises(SpineError, match=said):
        store.get_historical_features(ray.data.from_arrow(SPINE), "ranking")


def test_what_is_wrong_with_a_spine_shows_before_anything_runs(ray: Any, store: FeatureStore) -> None:
    engine = RayEngine(store)
    with pytest.raises(SpineError, match=r"list is no spine of Ray's; pass a Ray dataset, an Arrow table, or the path"):
        engine.get_historical_features([1], "ranking")
    with pytest.raises(SpineError, match="no input column 'user'"):
        engine.get_historical_features(SPINE.drop_columns("user"), "ranking")
    with pytest.raises(SpineError, match="no timestamp column 'event_timestamp'"):
        engine.get_historical_features(ray.data.from_arrow(SPINE.drop_columns("event_timestamp")), "ranking")
    with pytest.raises(SpineError, match="'user' is String"):
        engine.get_historical_features(SPINE.set_column(1, "user", pa.array(["a"] * 4)), "ranking")
    twice = pa.Table.from_arrays([*SPINE.columns, SPINE["id"]], names=[*SPINE.column_names, "id"])
    with pytest.raises(SpineError, match="has a column 'id' twice"):
        engine.get_historical_features(twice, "ranking")


def test_what_is_wrong_with_a_row_is_told_by_the_task_that_finds_it(
    ray: Any, store: FeatureStore, tmp_path: Path
) -> None:
    """In the error that one machine raises."""
    untimed = SPINE.set_column(2, "event_timestamp", pa.array([NOON, None, NOON, NOON], pa.timestamp("us", "UTC")))
    with pytest.raises(SpineError, match="has no time in column 'event_timestamp'"):
        RayEngine(store, partitions=1).get_historical_features(untimed, "ranking").to_parquet(tmp_path / "out")
    odd = SPINE.set_column(1, "user", pa.array([1, 2**64 - 1, 3, 4], pa.uint64()))
    with pytest.raises(SpineError, match="'user' must be Int64: 18446744073709551615 does not fit"):
        RayEngine(store, partitions=2).get_historical_features(odd, "ranking").to_parquet(tmp_path / "other")


def test_workers_with_other_versions_are_refused(
    ray: Any, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from featurestore.training.manifest import library_versions

    known = library_versions()
    monkeypatch.setattr("featurestore.engines.ray.ray_rows.library_versions", lambda: {**known, "duckdb": "1.0.0"})
    frame = RayEngine(store, partitions=1).get_historical_features(SPINE, "ranking")
    with pytest.raises(RuntimeError, match=rf"A node has duckdb {known['duckdb']}, and the driver has 1.0.0"):
        _ = frame.dataset


@pytest.mark.parametrize("page", ["ray.md", "engines.md"])
def test_the_pages_run(page: str, ray: Any, store: FeatureStore, tmp_path: Path) -> None:
    example, *others = (text for kind, text in BLOCK.findall((PAGES / page).read_text()) if kind == "python")
    said = {"store": store, "spine": ray.data.from_arrow(SPINE), "folder": tmp_path, "instants": [NOON, ago(2)]}
    exec(compile(example, page, "exec"), said)
    for other in others[:1]:
        exec(compile(other, page, "exec"), said)
        assert pq.read_table(tmp_path / "everyone").num_rows == 6
        assert said["report"].compared == 0
    for other in others[1:2]:
        with RedisServer() as server, Pair(server, tmp_path, RayEngine) as pair:
            pair.apply(of_moved(write(tmp_path / "moved.parquet", **moved())))
            said |= {"store": pair.other}
            exec(compile(other, page, "exec"), said)
            pair.one.materialize(progress=False)
            assert pair.check() > len(said["runs"]) == 1
    for other in others[2:]:
        exec(compile(other, page, "exec"), {})
    assert load_manifest(tmp_path / "trained").raw["rows"] == 4
    same(pq.read_table(tmp_path / "trained").select(expected(store).column_names), store)
