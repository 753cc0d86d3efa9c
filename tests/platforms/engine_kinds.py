"""Each engine behind one face: it is asked for a spine's frame, which lies in a folder then."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from featurestore import FeatureStore
from featurestore.engines.ray import RayEngine
from featurestore.engines.spark import SparkEngine
from featurestore.statistics.feature_statistics import FeatureStatistics
from featurestore.training.manifest import load_manifest
from featurestore.training.snapshot import TIMESTAMP
from featurestore.training.training_frame import TrainingFrame
from tests.platforms.clusters import processes_below, ray_cluster, spark_executors, spark_session
from tests.platforms.here_engine import HereVerbs, answered_here, rows_here, snapshot_here
from tests.platforms.shop import bits
from tests.sources import same_rows
from tests.statistics.test_gathered_statistics import same

NOON = same_rows.NOON
COUNTED = ("rows", "conflicts", "invalid_rows", "notices", "spine_rows_past_the_last_complete_instant")
ASKED = ("with_status", "with_event_time", "timezone", "sources_as_in")


@dataclass(frozen=True)
class EngineKind:
    """An engine that runs. version: what runs. frame, snapshot: write the frame of a spine, or the values of all keys at instants, asked
    with words, to a folder that is not there; the manifest. engine_of: what materializes and audits a store. rows: the frame of a
    spine as the engine's own kind of rows. workers: the processes that run its tasks at this moment; None where it has none of its own. exact: whether it
    leaves the Arrow types as they are."""

    name: str
    version: str
    frame: Callable[..., dict[str, Any]]
    snapshot: Callable[..., dict[str, Any]]
    engine_of: Callable[[FeatureStore], Any]
    rows: Callable[[FeatureStore, pa.Table, Any], Any]
    workers: Callable[[], list[int]] | None = None
    exact: bool = True

    def same(
        self, store: FeatureStore, spine: pa.Table, features: Any, folder: Path, **words: Any
    ) -> tuple[pa.Table, int]:
        """That its frame is that of one machine: its columns, each bit, and what is counted; the rows, and how many values there are."""
        expected = store.get_historical_features(
            spine, features, **{word: words[word] for word in ASKED if word in words}
        )
        out = next_folder(folder)
        manifest = self.frame(store, spine, features, out, **words)
        found = self._as_expected(store, out, manifest, expected, by=["id"], skip=spine.num_columns)
        return found, found.num_rows * (found.num_columns - spine.num_columns)

    def same_snapshot(
        self, store: FeatureStore, features: Any, at: Any, folder: Path, **words: Any
    ) -> tuple[pa.Table, int]:
        """That its snapshot is that of one machine, keys and instants too; the rows in the order of these, and how many values there are."""
        asked = {word: words[word] for word in ("with_status", "sources_as_in") if word in words}
        expected, out = store.snapshot(features, at=at, **asked), next_folder(folder)
        manifest = self.snapshot(store, features, at, out, **words)
        names = expected.to_arrow().column_names
        by = names[: names.index(TIMESTAMP) + 1]
        found = self._as_expected(store, out, manifest, expected, by=by, skip=0)
        return found, found.num_rows * found.num_columns

    def _as_expected(
        self, store: FeatureStore, out: Path, manifest: dict[str, Any], expected: TrainingFrame, *, by: list[str], skip: int
    ) -> pa.Table:  # fmt: skip
        """The rows that were written, in an order, which are those expected, as are the statistics that a store keeps of them. skip: so many
        columns are not compared."""
        found, rows = pq.read_table(out, partitioning=None), expected.to_arrow()
        found, rows = (table.sort_by([(name, "ascending") for name in by]) for table in (found, rows))
        assert found.column_names == rows.column_names
        assert found.num_rows == rows.num_rows
        if self.exact:
            assert found.schema.remove_metadata() == rows.schema.remove_metadata()
        for name in rows.column_names[skip:]:
            assert bits(found[name].to_pylist()) == bits(rows[name].to_pylist()), name
        assert {name: manifest[name] for name in COUNTED} == {name: expected.manifest[name] for name in COUNTED}
        assert load_manifest(out).fingerprint == expected.manifest["fingerprint"]
        self._check_statistics(store, out, expected)
        return found

    def _check_statistics(self, store: FeatureStore, out: Path, expected: TrainingFrame) -> None:
        """That the statistics which are kept of what was written are those of the same rows on one machine."""
        (kept,) = store.statistics(training_set=out).found
        assert expected.gather is not None
        gathering = expected.gather(expected.types)
        assert gathering is not None
        for block in expected.read_blocks():
            gathering.add(block.features, len(block.instants))
        found = gathering.gathered()
        assert found is not None
        assert kept.rows == found[0]
        same_features(kept.features, found[1])


def same_features(found: Sequence[FeatureStatistics], expected: Sequence[FeatureStatistics]) -> None:
    """That the same is told, but for the last digits of mean and deviation; of samples, which differ, that both are."""
    assert [one.feature for one in found] == [one.feature for one in expected]
    for one, other in zip((each.column for each in found), (each.column for each in expected), strict=True):
        if other.sampled_rows is None:
            same(one, other)
        else:
            assert one.sampled_rows is not None
            assert (one.rows, one.missing) == (other.rows, other.missing)


def of_spark(session: Any) -> EngineKind:
    """Spark, classic or Connect."""

    def frame(store: FeatureStore, spine: pa.Table, features: Any, out: Path, **words: Any) -> dict[str, Any]:
        asked = {word: words.pop(word) for word in ASKED if word in words}
        rows = session.createDataFrame(spine)
        for field in spine.schema:
            if (
                pa.types.is_timestamp(field.type) and field.type.tz is None
            ):  # which it took for instants of the session's zone
                rows = rows.withColumn(field.name, rows[field.name].cast("timestamp_ntz"))
        return SparkEngine(store, session, **words).get_historical_features(rows, features, **asked).to_parquet(out)

    def snapshot(store: FeatureStore, features: Any, at: Any, out: Path, **words: Any) -> dict[str, Any]:
        asked = {word: words.pop(word) for word in ASKED if word in words}
        return SparkEngine(store, session, **words).snapshot(features, at=at, **asked).to_parquet(out)

    def rows(store: FeatureStore, spine: pa.Table, features: Any) -> Any:
        return SparkEngine(store, session).get_historical_features(session.createDataFrame(spine), features).dataframe

    def workers() -> list[int]:
        if not session.sparkContext.statusTracker().getActiveStageIds():
            return []
        return spark_executors()

    return EngineKind(
        "spark",
        f"Spark {session.version}",
        frame,
        snapshot,
        lambda store: SparkEngine(store, session),
        rows,
        workers,
        exact=False,
    )


def of_ray(ray: Any) -> EngineKind:
    """Ray; the spine comes as a dataset of several blocks."""

    def frame(store: FeatureStore, spine: pa.Table, features: Any, out: Path, **words: Any) -> dict[str, Any]:
        asked = {word: words.pop(word) for word in ASKED if word in words}
        half = len(spine) // 2
        dataset = ray.data.from_arrow([spine.slice(0, half), spine.slice(half)])
        engine = RayEngine(store, **{"partitions": 3, **words})
        return engine.get_historical_features(dataset, features, **asked).to_parquet(out)

    def snapshot(store: FeatureStore, features: Any, at: Any, out: Path, **words: Any) -> dict[str, Any]:
        asked = {word: words.pop(word) for word in ASKED if word in words}
        return RayEngine(store, **{"partitions": 3, **words}).snapshot(features, at=at, **asked).to_parquet(out)

    def rows(store: FeatureStore, spine: pa.Table, features: Any) -> Any:
        return RayEngine(store).get_historical_features(spine, features).dataset

    def workers() -> list[int]:
        busy = ("ray::split", "ray::spread", "ray::answer", "ray::find", "ray::spine", "ray::write", "ray::audit")
        return [pid for pid, said in processes_below(os.getpid()).items() if said.startswith(busy)]

    return EngineKind(
        "ray", f"Ray {ray.__version__}", frame, snapshot, lambda store: RayEngine(store, partitions=3), rows, workers
    )


@contextmanager
def running(name: str, place: Path) -> Iterator[EngineKind]:
    """An engine of a name, and whatever it runs on. place: a folder for what that leaves."""
    if name == "here":
        yield EngineKind("here", "this process", answered_here, snapshot_here, HereVerbs, rows_here)
    elif name == "spark":
        with spark_session(place) as session:
            yield of_spark(session)
    else:
        with ray_cluster() as ray:
            yield of_ray(ray)


def next_folder(folder: Path) -> Path:
    """One that is not there."""
    return folder / f"out{len(list(folder.glob('out*')))}"


def spine_of(rows: list[dict[str, Any]], **types: Any) -> pa.Table:
    """A spine whose rows are numbered by the caller, `id`, since they come back in no order."""
    spine = pa.Table.from_pylist([{"id": number, **row} for number, row in enumerate(rows)])
    for name, of in {"event_timestamp": pa.timestamp("us", "UTC"), **types}.items():
        spine = spine.set_column(spine.column_names.index(name), name, spine[name].cast(of))
    return spine


def write(path: Path, **columns: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    times = {name for name, values in columns.items() if isinstance(values, list) and isinstance(values[0], datetime)}
    pq.write_table(
        pa.table({name: pa.array(v, pa.timestamp("us", "UTC")) if name in times else v for name, v in columns.items()}),
        path,
    )
    return str(path)


def ago(hours: float) -> datetime:
    return NOON - timedelta(hours=hours)
