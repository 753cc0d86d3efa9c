"""Folds over windows in training, as jobs (see `pairs`): the product, and the two queries one would write by hand in DuckDB.

Eight aggregates of one float column: count, sum, mean and max over 1 day and over 30 days. The queries by hand take every row
that happened in the window: they do not ask when it became known, and their sums are not exact.
"""

import tempfile
from collections.abc import Callable

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.data import Dataset, View, opened
from benchmarks.product import open_store
from featurestore import Count, Entity, FeatureView, Max, Mean, ParquetSource, Sum
from featurestore.types import Int64

WINDOWS = {"1d": 1, "30d": 30}
"""Name → days."""


def _asked_of(root: str, rows: str, size: str) -> tuple[Dataset, View, str]:
    """rows: "windowed" or "hot", or "a tenth of" them. Where they lie, what they are, the path of the spine."""
    data = opened(root)
    if rows.startswith("a tenth of "):
        data = data.tenth
    view = data.hot if rows.endswith("hot") else data.windowed
    return data, view, str(data.spine_path(size, f"{view.name}_spine"))


def _declared(data: Dataset, made: View, *, known_at: bool) -> FeatureView:
    column = made.feature_names()[0]
    return FeatureView(
        made.name,
        entity=Entity(made.key, key={made.key: Int64}),
        source=ParquetSource(
            f"{made.name}_rows", str(data.view_path(made)), event_time="event_time",
            known_at="known_at" if known_at else None,
        ),
        features={
            f"{fold.__name__.lower()}_{window}": fold(column, window=window)
            for window in WINDOWS
            for fold in (Count, Sum, Mean, Max)
        },
        refresh="continuous",
    )  # fmt: skip


def folds(root: str, size: str, threads: int, known_at: bool, rows: str = "windowed") -> Callable[[], pa.Table]:
    """The training frame as Arrow; known_at: whether rows count from when they became known, or when they happened."""
    data, made, spine_path = _asked_of(root, rows, size)
    folder = tempfile.TemporaryDirectory(prefix="benchmark-")
    store = open_store(folder.name, online="lmdb://online", threads=threads)
    view = _declared(data, made, known_at=known_at)

    def call(_: object = folder) -> pa.Table:
        spine = pq.read_table(spine_path)
        return store.get_historical_features(spine, [view], timestamp="t").to_arrow()

    return call


def window_query(root: str, size: str, threads: int, rows: str = "windowed") -> Callable[[], pa.Table]:
    """One statement: spine and rows of its keys in one table, a RANGE frame a window, the spine's rows kept, in its order."""
    data, view, spine_path = _asked_of(root, rows, size)
    key, column = view.key, view.feature_names()[0]
    terms, windows = _terms(column, "OVER w{days}"), []
    for days in WINDOWS.values():
        frame = f"RANGE BETWEEN INTERVAL {days} DAYS PRECEDING AND CURRENT ROW"
        windows.append(f"w{days} AS (PARTITION BY {key} ORDER BY instant {frame})")
    spine = f"(SELECT *, file_row_number AS n FROM read_parquet('{spine_path}'))"
    own = f"(SELECT * FROM read_parquet('{data.view_path(view)}') WHERE {key} IN (SELECT {key} FROM {spine}))"
    both = (
        f"SELECT {key}, t AS instant, NULL::DOUBLE AS {column}, n FROM {spine} UNION ALL "
        f"SELECT {key}, event_time, {column}, NULL FROM {own}"
    )
    inner = f"SELECT {key}, instant AS t, n, {terms} FROM ({both}) WINDOW {', '.join(windows)}"
    return _asked(f"SELECT * EXCLUDE (n) FROM ({inner}) WHERE n IS NOT NULL ORDER BY n", threads)


def range_join(root: str, size: str, threads: int, rows: str = "windowed") -> Callable[[], pa.Table]:
    """One statement: every row of the longest window joined to every row of the spine, then grouped."""
    data, view, spine_path = _asked_of(root, rows, size)
    key, column = view.key, view.feature_names()[0]
    terms = _terms(column, "FILTER (r.event_time > s.t - INTERVAL {days} DAYS)")
    spine = f"(SELECT *, file_row_number AS n FROM read_parquet('{spine_path}'))"
    longest = max(WINDOWS.values())
    joined = (
        f"{spine} s LEFT JOIN read_parquet('{data.view_path(view)}') r ON r.{key} = s.{key} "
        f"AND r.event_time <= s.t AND r.event_time > s.t - INTERVAL {longest} DAYS"
    )
    inner = f"SELECT s.n, any_value(s.{key}) AS {key}, any_value(s.t) AS t, {terms} FROM {joined} GROUP BY s.n"
    return _asked(f"SELECT * EXCLUDE (n) FROM ({inner}) ORDER BY n", threads)


def rows_read(root: str, size: str, threads: int, rows: str = "windowed") -> Callable[[], pa.Table]:
    """The least that any of them does: the spine is read, and the key, instant and value of each row, as Arrow."""
    data, view, spine_path = _asked_of(root, rows, size)
    column = view.feature_names()[0]

    def call() -> pa.Table:
        pq.read_table(spine_path)
        return _asked(f"SELECT {view.key}, event_time, {column} FROM read_parquet('{data.view_path(view)}')", threads)()

    return call


def _terms(column: str, over: str) -> str:
    return ", ".join(
        f"{fold}({column}) {over.format(days=days)} AS {fold}_{name}"
        for name, days in WINDOWS.items()
        for fold in ("count", "sum", "avg", "max")
    )


def _asked(sql: str, threads: int) -> Callable[[], pa.Table]:
    return lambda: duckdb.connect(config={"threads": threads}).sql(sql).to_arrow_table()
