"""One training frame and one run of materialize, on this process and on clusters of this machine, as jobs (see `pairs`).

What is told is of all processes together: this one, and whatever it started. A cluster is started before, and does everything once before what
counts. The frames, and what is in Redis, are compared with those of this process.
"""

import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import redis

from benchmarks.data import DAY, DAYS, END, START, TIMESTAMP, View, write_view
from benchmarks.latency import Figures
from benchmarks.process_trees import TreeUse
from benchmarks.servers import Told, empty_redis
from featurestore import (
    Count,
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    LastN,
    Latest,
    Max,
    Mean,
    ParquetSource,
    StdDev,
    Sum,
)
from featurestore.clock import to_datetime
from featurestore.types import Int64

SERVICE = "model"
KEY = "user"
FILES = 4
ORDERS = View("orders", KEY, 2_500_000, 100_000, 5, 21)
VISITS = View("visits", KEY, 2_500_000, 100_000, 5, 22)
SPINE_ROWS = 1_000_000
PARTITIONS = 8
CPUS = 2
"""How many tasks a cluster runs at once at most."""


@contextmanager
def rows_of_engines(root: str) -> Iterator[Told]:
    """rows: a folder of the sources and the spine, made where it is not there; made: one for frames; and an empty Redis."""
    rows = Path(root) / "engines"
    scale = 10 if root.endswith("small") else 1
    rows.mkdir(parents=True, exist_ok=True)
    for view in (ORDERS, VISITS):
        for number in range(FILES):
            part = replace(
                view, rows=view.rows // FILES // scale, keys=view.keys // scale, seed=view.seed * 10 + number
            )
            (rows / view.name).mkdir(exist_ok=True)
            write_view(rows / view.name / f"{number}.parquet", part)
    _write_spine(rows / "spine.parquet", SPINE_ROWS // scale, ORDERS.keys // scale)
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=root) as made, empty_redis(root) as told:
        yield {"rows": str(rows), "made": made, **told}


def _write_spine(path: Path, count: int, keys: int) -> None:
    if path.exists():
        return
    numbers = np.random.default_rng(23)
    instants = START + numbers.integers(5 * DAY, DAYS * DAY, count)
    columns = {
        KEY: numbers.integers(0, keys * 101 // 100, count),
        "event_timestamp": pa.array(instants).cast(TIMESTAMP),
    }
    partial_path = path.with_suffix(".partial")
    pq.write_table(pa.table({"id": np.arange(count), **columns, "label": numbers.integers(0, 2, count)}), partial_path)
    partial_path.rename(path)


def _views(rows: str) -> list[FeatureView]:
    """Ten features: newest values, and folds over windows."""
    entity = Entity(KEY, key={KEY: Int64})
    sources = {
        name: ParquetSource(name, str(Path(rows, name)), event_time="event_time", known_at="known_at")
        for name in (ORDERS.name, VISITS.name)
    }
    of_orders = {
        "amount": Latest("orders_f0"), "count": Latest("orders_f3"), "city": Latest("orders_f4"), "mean_7d": Mean("orders_f0", window="7d"),
        "deviation_7d": StdDev("orders_f0", window="7d"), "rows_30d": Count(window="30d"), "max_7d": Max("orders_f1", window="7d"),
    }  # fmt: skip
    of_visits = {
        "page": Latest("visits_f4"),
        "pages": LastN("visits_f4", 3, window="3d"),
        "dwell_1d": Sum("visits_f0", window="1d"),
    }
    return [
        FeatureView("orders", entity=entity, source=sources["orders"], features=of_orders, refresh="1h", ttl="20d"),
        FeatureView("visits", entity=entity, source=sources["visits"], features=of_visits, refresh="1h"),
    ]


def _opened(rows: str, folder: Path, redis_url: str) -> FeatureStore:
    lines = ['project = "engines"', f'online = "{redis_url}"', "definitions = []", "[offline]", f"threads = {CPUS}", ""]
    folder.mkdir()
    Path(folder, "featurestore.toml").write_text("\n".join(lines))
    store = FeatureStore(folder, clock=lambda: to_datetime(END))
    store.apply([FeatureService(SERVICE, features=_views(rows))])
    return store


def _frame_here(store: FeatureStore, spine: str, out: Path) -> None:
    out.mkdir()
    store.get_historical_features(spine, SERVICE).to_parquet(out / "part.parquet")


def _frame_there(engine: Any, spine: str, out: Path) -> None:
    engine.get_historical_features(spine, SERVICE).to_parquet(out)


def run(rows: str, made: str, redis_url: str, engine: str, workers: int) -> Callable[[], Figures]:
    """The frame and the run of materialize, both for the second time in a session. engine: "here", "spark" or "ray", of so many executors or
    workers of one processor each."""
    place, spine = Path(made, f"{engine}-{workers}"), str(Path(rows, "spine.parquet"))
    stack, began = ExitStack(), time.perf_counter()
    with TreeUse() as use:
        cluster = _started(stack, engine, workers, Path(made))
    figures = {"start_s": time.perf_counter() - began, "start_cpu_s": sum(use.cpu_s.values())}
    store = stack.enter_context(_opened(rows, place, redis_url))
    asked: Any = store if cluster is None else cluster(store)
    frame = partial(_frame_here if cluster is None else _frame_there, asked, spine)
    server = redis.Redis.from_url(redis_url)

    def materialize() -> None:
        server.flushall()
        asked.materialize(progress=False)

    frame(place / "first")
    shutil.rmtree(place / "first")
    materialize()

    def call() -> Figures:
        with stack:
            own = _taken("frame", lambda: frame(place / "frame")) | _taken("run", materialize)
        digests = _digests(place / "frame", server)
        expected = Path(made, "expected")
        if engine == "here":
            expected.write_text(digests)
        elif expected.read_text() != digests:
            raise AssertionError(f"{engine} made other values than this process: {digests}")
        return figures | own | {"cpu_s": own["frame_cpu_s"], "wall_s": own["frame_s"], "peak_mb": own["frame_mb"]}

    return call


def _started(stack: ExitStack, engine: str, workers: int, folder: Path) -> Callable[[FeatureStore], Any] | None:
    """A cluster that runs until the end of the stack, as what makes an engine of a store; None of this process."""
    if engine == "here":
        return None
    from tests.platforms.clusters import ray_cluster, spark_session

    if engine == "spark":
        from featurestore.engines.spark import SparkEngine

        session = stack.enter_context(spark_session(folder, executors=workers))
        return lambda store: SparkEngine(store, session, partitions=PARTITIONS)
    from featurestore.engines.ray import RayEngine

    stack.enter_context(ray_cluster(cpus=workers, object_store_bytes=1_000_000_000))
    return lambda store: RayEngine(store, partitions=PARTITIONS)


def _taken(what: str, call: Callable[[], object]) -> Figures:
    """What a call takes of all processes."""
    began = time.perf_counter()
    with TreeUse() as use:
        call()
    wall = time.perf_counter() - began
    by_kind = {f"{what}_{kind}_cpu_s": seconds for kind, seconds in use.cpu_s.items()}
    return {f"{what}_s": wall, f"{what}_cpu_s": sum(use.cpu_s.values()), f"{what}_mb": use.peak_mb, **by_kind}


def _digests(frame: Path, server: redis.Redis) -> str:
    """Of the rows of a frame in the order of their numbers, and of all that is in Redis but for whose run it was."""
    found = pa.concat_tables(pq.read_table(path) for path in sorted(frame.glob("*.parquet"))).sort_by("id")
    found = found.cast(pa.schema([pa.field(one.name, _plain(one.type)) for one in found.schema]))
    told = hashlib.sha256("\n".join(found.column_names).encode())
    for column in found.columns:
        told.update(repr(column.combine_chunks().to_pylist()).encode())
    records = hashlib.sha256()
    keys = sorted(server.scan_iter(count=10_000))
    for start in range(0, len(keys), 10_000):
        part = keys[start : start + 10_000]
        for key, value in zip(part, server.mget(part), strict=True):
            records.update(key + b"\0" + (value or b"") + b"\0")
    return f"frame {found.num_rows} rows {told.hexdigest()[:16]}, {len(keys)} keys {records.hexdigest()[:16]}"


def _plain(of: pa.DataType) -> pa.DataType:
    """A type as every engine writes it."""
    if pa.types.is_timestamp(of):
        return pa.timestamp("us", "UTC")
    return pa.list_(pa.field("item", of.value_type)) if pa.types.is_list(of) else of
