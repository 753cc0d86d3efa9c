"""A first run of materialize over many keys, in one chunk and in several, by one process and by several, and the rest of one that ended half way, as
jobs (see `pairs`)."""

import resource
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import redis

from benchmarks.data import DATA, TIMESTAMP, VERSION
from benchmarks.latency import Figures
from featurestore import (
    Count,
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Latest,
    ManualClock,
    Mean,
    ParquetSource,
)
from featurestore.materialize.done_chunks import DoneChunks
from featurestore.types import Int64

KEYS = 1_000_000
ROWS_PER_KEY = 2
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY_US = 86_400_000_000


class _EndedError(Exception):
    """The run is to end here."""


def _rows() -> Path:
    """The file of rows, which is made where it is not there."""
    path = DATA / f"v{VERSION}-backfill-{KEYS}.parquet"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        numbers, count = np.random.default_rng(7), KEYS * ROWS_PER_KEY
        times = int(NOON.timestamp()) * 1_000_000 - numbers.integers(1, 30 * DAY_US, count)
        columns = {f"x{place}": numbers.normal(size=count) for place in range(4)}
        keys = numbers.permutation(np.repeat(np.arange(KEYS), ROWS_PER_KEY))
        pq.write_table(pa.table({"id": keys, "at": pa.array(times, TIMESTAMP), **columns}), path)
    return path


def filled(chunks: int, threads: int, done: int = 0, processes: int = 1, redis_url: str = "") -> Callable[[], Figures]:
    """The run of all keys into LMDB, or into a Redis that is emptied, in so many chunks, of which some are done by a run that ended
    after them, by so many processes."""
    if redis_url:
        redis.Redis.from_url(redis_url).flushall(asynchronous=True)
    source = ParquetSource("rows", str(_rows()), event_time="at")
    features = {
        **{f"x{place}": Latest(f"x{place}") for place in range(4)},
        "rows": Count(window="30d"),
        "mean": Mean("x0", window="30d"),
    }
    view = FeatureView(
        "facts", entity=Entity("thing", key={"id": Int64}), source=source, features=features, refresh="1d"
    )
    folder = tempfile.TemporaryDirectory(prefix="benchmark-", dir=DATA)
    lines = ('project = "benchmark"', f'online = "{redis_url or "lmdb://online"}"', "definitions = []", "[offline]", f"threads = {threads}",
             "[materialize]", f"chunk_keys = {-(-KEYS // chunks)}", f"processes = {processes}", "")  # fmt: skip
    Path(folder.name, "featurestore.toml").write_text("\n".join(lines))
    store = FeatureStore(folder.name, clock=ManualClock(NOON))
    store.apply([FeatureService("all", features=[view])])
    if done:
        _end_after(store, done)

    def call(_: object = folder) -> Figures:
        (run,) = store.materialize(progress=False)
        worker_kb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # of the one that took most
        return {"keys": run.keys, "worker_peak_mb": worker_kb / 1024}

    return call


def _end_after(store: FeatureStore, chunks: int) -> None:
    """A run that ends where one chunk more is to be noted."""
    packed, left = DoneChunks.packed, iter(range(chunks + 1))

    def ending(note: DoneChunks) -> bytes:
        if next(left, None) is None:
            raise _EndedError
        return packed(note)

    DoneChunks.packed = ending  # type: ignore[assignment, method-assign]  # replaced while it is timed
    try:
        store.materialize(progress=False)
    except _EndedError:
        return
    finally:
        DoneChunks.packed = packed  # type: ignore[method-assign]  # replaced while it is timed
    raise AssertionError("the run was to end")
