"""How memory and time on the processors grow with data, as jobs (see `pairs`): a training frame written to a file.

Three views of so many rows in all, one folder of data for each number of rows, beside those of `data`.

    python -m benchmarks.scaling 10 50       generate the data: M spine rows, M source rows
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.data import DATA, DAY, DAYS, START, TIMESTAMP, VERSION, Dataset, View, write_spine, write_view
from benchmarks.latency import Figures
from benchmarks.product import declare, open_store
from featurestore import Count, FeatureService, FeatureStore, FeatureView, Mean

SERVICE = "all"
MILLION = 1_000_000
SHARES = ((0.4, 6), (0.4, 4), (0.2, 2))
"""Of each view its part of the rows, and how many features it has."""
ROWS_PER_KEY = 25


def views_of(rows: int) -> tuple[View, ...]:
    """The views of so many rows in all."""
    return tuple(
        View(f"s{i}", f"key{i}", int(rows * share), int(rows * share) // ROWS_PER_KEY, features, 10 + i)
        for i, (share, features) in enumerate(SHARES)
    )


def place_of(rows: int) -> Dataset:
    """Where the data of so many rows lie."""
    return Dataset(DATA / f"v{VERSION}-scale-{rows}")


def spine_path(rows: int, spine: int) -> Path:
    """A spine of so many rows over them."""
    return place_of(rows).root / f"spine_{spine}.parquet"


def generate(rows: int, spine: int) -> None:
    """Make what is not there yet."""
    data, views = place_of(rows), views_of(rows)
    data.root.mkdir(parents=True, exist_ok=True)
    for view in views:
        write_view(data.view_path(view), view)
    write_spine(spine_path(rows, spine), views, spine, seed=300)


def _store(
    rows: int, folder: Path, *, folds: bool = False, threads: int, memory_limit: str | None = None
) -> FeatureStore:
    """A store in a folder, whose service is of all three views: their newest rows, or sums and counts of their first column over a day and
    a month."""
    data = place_of(rows)
    views = [declare(data, view, refresh="1h", ttl_days=None) for view in views_of(rows)]
    if folds:
        views = [folded(view) for view in views]
    store = open_store(str(folder), online="lmdb://online", threads=threads, memory_limit=memory_limit)
    if not store.history():
        store.apply([FeatureService(SERVICE, features=views)])
    return store


def folded(view: FeatureView) -> FeatureView:
    """A view of counts and means instead of the newest rows."""
    column = f"{view.name}_f0"
    features = {f"{name}_{days}d": fold for days in (1, 30) for name, fold in (
        ("rows", Count(window=f"{days}d")), ("mean", Mean(column, window=f"{days}d")),
    )}  # fmt: skip
    return FeatureView(view.name, entity=view.entity, source=view.source, features=features, refresh="1h")


def frame(
    rows: int, spine: int, threads: int, folds: bool = False, memory_limit: str | None = None
) -> Callable[[], Figures]:
    """The training frame of the spine, written to a Parquet file; `memory_limit` as the configuration has it."""
    generate(rows, spine)
    folder = tempfile.TemporaryDirectory(prefix="benchmark-", dir=place_of(rows).root)
    store = _store(rows, Path(folder.name), folds=folds, threads=threads, memory_limit=memory_limit)

    def call() -> Figures:
        made = store.get_historical_features(str(spine_path(rows, spine)), SERVICE, timestamp="t")
        written = made.to_parquet(Path(folder.name, "frame.parquet"))
        return {"written_mb": written.stat().st_size / (1 << 20)}

    return call


def few_keys(rows: int, spine: int, keys: int, copied: bool, threads: int) -> Callable[[], None]:
    """The frame of so many keys, ten instants of each, where `optimize` has copied the rows, or has not."""
    generate(rows, spine)
    data, views = place_of(rows), views_of(rows)
    folder = data.root / ("sorted" if copied else "plain")
    folder.mkdir(exist_ok=True)
    store = _store(rows, folder, threads=threads)
    if copied:
        store.optimize()
    drawn = np.random.default_rng(5)
    chosen = {view.key: np.repeat(drawn.integers(0, view.keys, keys), 10) for view in views}
    instants = START + drawn.integers(5 * DAY, DAYS * DAY, keys * 10)
    asked = pa.table({**chosen, "t": pa.array(instants).cast(TIMESTAMP)})

    def call() -> None:
        store.get_historical_features(asked, SERVICE, timestamp="t").to_arrow()

    return call


def sort_rows(rows: int, spine: int, threads: int) -> Callable[[], Figures]:
    """The first `optimize` of all three sources."""
    generate(rows, spine)
    folder = tempfile.TemporaryDirectory(prefix="benchmark-", dir=place_of(rows).root)
    store = _store(rows, Path(folder.name), threads=threads)

    def call(_: object = folder) -> Figures:
        return {"written_mb": sum(one.bytes for one in store.optimize()) / (1 << 20)}

    return call


if __name__ == "__main__":
    millions = [float(text) for text in sys.argv[1:]]
    generate(int(millions[1] * MILLION), int(millions[0] * MILLION))
