"""What an estimate says, beside what was taken, as jobs (see `pairs`): frames and runs of materialize of several shapes.

Rows are those that are written, of a frame its rows, of a run its records. CPU seconds and memory are those of the whole process.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from benchmarks.data import END
from benchmarks.latency import Figures
from benchmarks.product import declare
from benchmarks.scaling import folded, generate, place_of, spine_path, views_of
from featurestore import FeatureService, FeatureStore, FeatureView, ManualClock
from featurestore.clock import to_datetime
from featurestore.report import Reported
from featurestore.reports.estimate import Estimate

SERVICE = "all"
MB = 1 << 20


@dataclass(frozen=True)
class Shape:
    """rows: of all sources together. spine: rows, or 0 for a run of materialize."""

    rows: int
    spine: int = 0
    folds: bool = False
    many: bool = False
    """Whether there is a view for each column, instead of one a source."""

    later: bool = False
    """Of materialize: whether it is the run an hour after the first."""


SHAPES = {
    "frame, newest rows, 100 k over 0.1 M": Shape(100_000, 100_000),
    "frame, newest rows, 1 M over 1 M": Shape(1_000_000, 1_000_000),
    "frame, newest rows, 1 M over 10 M": Shape(10_000_000, 1_000_000),
    "frame, short spine, 10 k over 10 M": Shape(10_000_000, 10_000),
    "frame, windows, 250 k over 1 M": Shape(1_000_000, 250_000, folds=True),
    "frame, windows, 1 M over 10 M": Shape(10_000_000, 1_000_000, folds=True),
    "frame, 12 views, 250 k over 1 M": Shape(1_000_000, 250_000, many=True),
    "materialize, newest rows, 1 M": Shape(1_000_000),
    "materialize, newest rows, 10 M": Shape(10_000_000),
    "materialize, windows, 10 M": Shape(10_000_000, folds=True),
    "materialize, windows, 10 M, an hour later": Shape(10_000_000, folds=True, later=True),
}


def _declared(shape: Shape) -> list[FeatureView]:
    data = place_of(shape.rows)
    views = [declare(data, view, refresh="1h", ttl_days=None) for view in views_of(shape.rows)]
    if shape.folds:
        return [folded(view) for view in views]
    if not shape.many:
        return views
    return [
        FeatureView(f"{view.name}_{name}", entity=view.entity, source=view.source, features=[name], refresh="1h")
        for view in views for name in view.features
    ]  # fmt: skip


def _opened(shape: Shape, folder: Path, threads: int) -> FeatureStore:
    generate(shape.rows, shape.spine or 10_000)
    clock = ManualClock(to_datetime(END - (0 if shape.spine else 20 * 86_400_000_000)))
    lines = [
        'project = "benchmark"',
        'online = "lmdb://online"',
        "definitions = []",
        "[offline]",
        f"threads = {threads}",
    ]
    Path(folder, "featurestore.toml").write_text("\n".join([*lines, ""]))
    store = FeatureStore(folder, clock=clock)
    store.apply([FeatureService(SERVICE, features=_declared(shape))])
    if shape.later:
        store.materialize(progress=False)
        clock.set(clock() + timedelta(hours=1))
    return store


def _opened_apart(shape: Shape, threads: int) -> tuple[FeatureStore, tempfile.TemporaryDirectory[str]]:
    """The store in a folder of its own. What it read to get there is not in the process's memory any more, as of one that was just started."""
    folder = tempfile.TemporaryDirectory(prefix="benchmark-", dir=place_of(shape.rows).root.parent)
    return _opened(shape, Path(folder.name), threads), folder


def estimated(shape: str, threads: int) -> Callable[[], Figures]:
    """What is told before."""
    said = SHAPES[shape]
    store, folder = _opened_apart(said, threads)

    def call(_: object = folder) -> Figures:
        found = _estimate(said, store)
        assert isinstance(found, Reported)
        assert found.cpu_seconds is not None
        assert found.peak_bytes is not None
        written = sum(one.bytes_written or 0 for one in found.work)
        rows = sum(one.rows_written for one in found.work)
        return {"rows": rows, "written_mb": written / MB, "cpu_s": found.cpu_seconds, "peak_mb": found.peak_bytes / MB,
                "estimating_s": found.measured_seconds}  # fmt: skip

    return call


def _estimate(shape: Shape, store: FeatureStore) -> Estimate:
    if shape.spine:
        return store.estimate_historical_features(str(spine_path(shape.rows, shape.spine)), SERVICE, timestamp="t")
    return store.estimate_materialize()


def taken(shape: str, threads: int) -> Callable[[], Figures]:
    """What it took."""
    said = SHAPES[shape]
    store, folder = _opened_apart(said, threads)

    def call() -> Figures:
        if said.spine:
            frame = store.get_historical_features(str(spine_path(said.rows, said.spine)), SERVICE, timestamp="t")
            written = frame.to_parquet(Path(folder.name, "frame.parquet"))
            return {"rows": frame.manifest["rows"], "written_mb": Path(written).stat().st_size / MB}
        runs = store.materialize(progress=False)
        used = sum(path.stat().st_blocks * 512 for path in Path(folder.name, "online").rglob("*"))
        return {"rows": sum(run.keys for run in runs), "written_mb": used / MB}

    return call
