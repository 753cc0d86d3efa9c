"""Runs of materialize an hour apart, and values of many instants, as jobs (see `pairs`): 5 M rows, a file a day, few keys."""

import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import duckdb
import pyarrow as pa

from benchmarks.data import END, START, opened
from featurestore import (
    Count,
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    ManualClock,
    Max,
    Mean,
    ParquetSource,
    Sum,
)  # fmt: skip
from featurestore.types import Int64

SERVICE = "account_service"
DAY = 86_400_000_000
HOUR = timedelta(hours=1)


def _store(root: str, folder: Path, *, keys: int, tiles: bool, threads: int) -> tuple[FeatureStore, ManualClock]:
    """A store over the windowed rows of so many keys, a file for each day on which some were learned, six hours before their end."""
    rows = folder / "rows"
    rows.mkdir()
    data = opened(root)
    made, column = data.windowed, data.windowed.feature_names()[0]
    path, day = data.view_path(made), f"(epoch_us(known_at) - {START}) // {DAY}"
    duckdb.sql(
        f"COPY (SELECT * REPLACE ({made.key} % {keys} AS {made.key}), {day} AS day FROM '{path}') TO '{rows}' "
        "(FORMAT parquet, PARTITION_BY (day), WRITE_PARTITION_COLUMNS false)"
    )
    lines = ['project = "benchmark"', "definitions = []", "[offline]", f"threads = {threads}"]
    Path(folder, "featurestore.toml").write_text("\n".join([*lines, "" if tiles else "tiles = false", ""]))
    clock = ManualClock(datetime.fromtimestamp(END / 1e6, UTC).replace(minute=10) - 6 * HOUR)
    store = FeatureStore(folder, clock=clock)
    view = FeatureView(
        "account", entity=Entity(made.key, key={made.key: Int64}), refresh="1h", settle="5m",
        source=ParquetSource("rows", "rows/*/*.parquet", event_time="event_time", known_at="known_at"),
        features={
            f"{fold.__name__.lower()}_{days}d": fold(column, window=f"{days}d")
            for days in (1, 30) for fold in (Count, Sum, Mean, Max)
        },
    )  # fmt: skip
    store.apply([FeatureService(SERVICE, features=[view])])
    return store, clock


def hourly(root: str, keys: int, tiles: bool, threads: int) -> Callable[[], None]:
    """The third run, an hour after the second, which has made tiles where there are to be any."""
    folder = tempfile.TemporaryDirectory(prefix="benchmark-")
    store, clock = _store(root, Path(folder.name), keys=keys, tiles=tiles, threads=threads)
    for _ in range(2):
        store.materialize(progress=False)
        clock.set(clock() + HOUR)

    def call(_: object = folder) -> None:
        if [run.full for run in store.materialize(progress=False)] != [False]:
            raise RuntimeError("no run of changed keys was due")

    return call


def backfill(root: str, keys: int, instants: int, together: bool, threads: int) -> Callable[[], pa.Table]:
    """The values of all keys at so many instants an hour apart, asked for together or one after the other."""
    folder = tempfile.TemporaryDirectory(prefix="benchmark-")
    store, clock = _store(root, Path(folder.name), keys=keys, tiles=False, threads=threads)
    asked = [clock() - number * HOUR for number in reversed(range(instants))]

    def call(_: object = folder) -> pa.Table:
        if together:
            return store.snapshot(SERVICE, at=asked).to_arrow()
        return pa.concat_tables([store.snapshot(SERVICE, at=one).to_arrow() for one in asked])

    return partial(call)
