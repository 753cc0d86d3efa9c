"""The data set that every benchmark reads: views and their spines, the same values on every machine.

    python -m benchmarks.data [--small]

Rows lie in the order in which they arrived, as an appending job writes them. Most arrive minutes after they happened, one in a
thousand days later, and one in a hundred is a second version of a row of the same key and event time.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

DATA = Path(__file__).parent / "data"
VERSION = 1  # of what is generated: raised when this file's output changes, so that old data is never measured
START = 1_704_067_200_000_000  # 2024-01-01T00:00Z, µs
DAY = 86_400_000_000
DAYS = 90
BATCH = 1 << 17  # rows per Parquet row group
TIMESTAMP = pa.timestamp("us", tz="UTC")

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class View:
    """One generated source: `features` value columns beside key, event_time and known_at."""

    name: str
    key: str
    rows: int
    keys: int
    features: int
    seed: int
    skew: int = 1  # above 1, few keys have most of the rows

    def some_keys(self, rng: np.random.Generator, rows: int, among: int) -> Ints:
        """Keys of so many rows, of the first `among`."""
        if self.skew == 1:
            return rng.integers(0, among, rows)
        return (rng.random(rows) ** self.skew * among).astype(np.int64)

    def columns(self) -> list[pa.Field]:
        """The value columns: every fifth an integer, every fifth a string, the others doubles."""
        kinds = {3: pa.int64(), 4: pa.string()}
        return [pa.field(f"{self.name}_f{i}", kinds.get(i % 5, pa.float64())) for i in range(self.features)]

    def feature_names(self) -> list[str]:
        return [field.name for field in self.columns()]


TRAINED = (
    View("v1", "key1", 5_000_000, 100_000, 15, 1),
    View("v2", "key2", 5_000_000, 200_000, 10, 2),
    View("v3", "key3", 100_000, 1_000, 5, 3),
)
SERVED = View("served", "customer", 5_000_000, 200_000, 18, 4)  # what is materialized and looked up
WINDOWED = View("windowed", "account", 5_000_000, 200_000, 1, 5)  # what windows are folded over
HOT = View("hot", "account", 5_000_000, 200_000, 1, 6, skew=4)  # the same, one row in twenty of one key
END = START + DAYS * DAY
SPINES = {"100k": 100_000, "1m": 1_000_000}


@dataclass(frozen=True)
class Dataset:
    """Where one size of the data set lies."""

    root: Path
    scale: int = 1  # everything is divided by it

    @property
    def views(self) -> tuple[View, ...]:
        """The views of the training frame."""
        return tuple(self._scaled(view) for view in TRAINED)

    @property
    def served(self) -> View:
        return self._scaled(SERVED)

    @property
    def windowed(self) -> View:
        return self._scaled(WINDOWED)

    @property
    def hot(self) -> View:
        return self._scaled(HOT)

    @property
    def tenth(self) -> "Dataset":
        """The windowed view and its spines again, a tenth as large, for how time grows with data."""
        return replace(self, root=self.root / "tenth", scale=self.scale * 10)

    def _scaled(self, view: View) -> View:
        return replace(view, rows=view.rows // self.scale, keys=view.keys // self.scale)

    def view_path(self, view: View) -> Path:
        return self.root / f"{view.name}.parquet"

    def spine_path(self, size: str, of: str = "spine") -> Path:
        return self.root / f"{of}_{size}.parquet"


def located(*, small: bool = False) -> Dataset:
    """Where the data set is, or would be."""
    return Dataset(DATA / f"v{VERSION}-{'small' if small else 'full'}", 10 if small else 1)


def dataset(*, small: bool = False) -> Dataset:
    """The data set, generated first where it is not there yet."""
    found = located(small=small)
    generate(found)
    return found


def generate(data: Dataset) -> None:
    data.root.mkdir(parents=True, exist_ok=True)
    for view in (*data.views, data.served):
        write_view(data.view_path(view), view)
    _write_spines(data, "spine", data.views, seed=100)
    for part, view in (*_windowed(data), *_windowed(data.tenth)):
        part.root.mkdir(parents=True, exist_ok=True)
        write_view(part.view_path(view), view)
        _write_spines(part, f"{view.name}_spine", (view,), seed=200)


def _windowed(data: Dataset) -> tuple[tuple[Dataset, View], ...]:
    return ((data, data.windowed), (data, data.hot))


def _write_spines(data: Dataset, of: str, views: tuple[View, ...], *, seed: int) -> None:
    for number, (size, rows) in enumerate(SPINES.items()):
        write_spine(data.spine_path(size, of), views, rows // data.scale, seed=seed + number)


def write_view(path: Path, view: View) -> None:
    """The rows of a view, unless they are there."""
    _write(path, _view_schema(view), _view_batches(view))


def write_spine(path: Path, views: tuple[View, ...], rows: int, *, seed: int) -> None:
    """So many keys of each view and instants, unless they are there."""
    schema = pa.schema([*(pa.field(view.key, pa.int64()) for view in views), pa.field("t", TIMESTAMP)])
    _write(path, schema, _spine_batches(views, rows, seed=seed))


def _write(path: Path, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
    """All or nothing: a file of the final name is complete."""
    if path.exists():
        return
    partial = path.with_suffix(".partial")
    with pq.ParquetWriter(partial, schema, compression="snappy") as writer:
        for batch in batches:
            writer.write_batch(batch, row_group_size=BATCH)
    partial.rename(path)


def _view_schema(view: View) -> pa.Schema:
    times = [pa.field("event_time", TIMESTAMP), pa.field("known_at", TIMESTAMP)]
    return pa.schema([pa.field(view.key, pa.int64()), *times, *view.columns()])


def _view_batches(view: View) -> Iterator[pa.RecordBatch]:
    rng = np.random.default_rng(view.seed)
    key, event_time, known_at = _history(rng, view)
    words = pa.array([f"word-{i:03d}" for i in range(200)])
    for start in range(0, view.rows, BATCH):
        part = slice(start, min(start + BATCH, view.rows))
        rows = part.stop - part.start
        values = [values_of(rng, field.type, rows, words) for field in view.columns()]
        times = [pa.array(column[part]).cast(TIMESTAMP) for column in (event_time, known_at)]
        yield pa.record_batch([pa.array(key[part]), *times, *values], schema=_view_schema(view))


def _history(rng: np.random.Generator, view: View) -> tuple[Ints, Ints, Ints]:
    """Keys, event times and known_at of all rows, in order of arrival."""
    again = view.rows // 100
    first = view.rows - again
    key = view.some_keys(rng, first, view.keys)
    event_time = START + rng.integers(0, DAYS * DAY // 1_000_000, first) * 1_000_000
    known_at = event_time + (rng.exponential(300e6, first)).astype(np.int64)
    late = rng.random(first) < 0.001
    known_at[late] += rng.integers(DAY, 10 * DAY, int(late.sum()))
    versions = rng.choice(first, again, replace=False)
    key = np.concatenate([key, key[versions]])
    event_time = np.concatenate([event_time, event_time[versions]])
    known_at = np.concatenate([known_at, known_at[versions] + rng.integers(1, DAY, again)])
    order = np.argsort(known_at, kind="stable")
    return key[order], event_time[order], known_at[order]


def values_of(rng: np.random.Generator, kind: pa.DataType, rows: int, words: pa.Array) -> pa.Array:
    """A value column, one in fifty null."""
    missing = rng.random(rows) < 0.02
    if pa.types.is_string(kind):
        return words.take(pa.array(rng.integers(0, len(words), rows), mask=missing))
    if pa.types.is_integer(kind):
        return pa.array(rng.integers(0, 1_000_000, rows), mask=missing)
    return pa.array(rng.normal(size=rows), mask=missing)


def _spine_batches(views: tuple[View, ...], rows: int, *, seed: int) -> Iterator[pa.RecordBatch]:
    rng = np.random.default_rng(seed)
    for start in range(0, rows, BATCH):
        size = min(BATCH, rows - start)
        # One key in a hundred was never seen.
        keys = [pa.array(view.some_keys(rng, size, view.keys * 101 // 100)) for view in views]
        instant = START + rng.integers(5 * DAY // 1_000_000, DAYS * DAY // 1_000_000, size) * 1_000_000
        names = [*(view.key for view in views), "t"]
        yield pa.record_batch([*keys, pa.array(instant).cast(TIMESTAMP)], names=names)


def opened(root: str) -> Dataset:
    """The data set that lies at `root`, as a job in another process is told."""
    return Dataset(Path(root), 10 if root.endswith("small") else 1)


if __name__ == "__main__":
    print(dataset(small="--small" in sys.argv[1:]).root)
