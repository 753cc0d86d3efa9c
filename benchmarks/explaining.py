"""Explanations of one key among 5 M rows, as jobs (see `pairs`): `store.explain` and the text of it."""

import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from benchmarks.data import BATCH, END, START, Dataset, View, opened
from benchmarks.product import open_store
from featurestore import Count, Entity, FeatureStore, FeatureView, Max, Mean, ParquetSource, PushSource, Sum
from featurestore.declare.sources import Source
from featurestore.types import Float64, Int64, Timestamp

AT = datetime.fromtimestamp(END / 1e6, UTC) - timedelta(days=10)
KEY = 77
ONE_IN = 5
"""Of which every such row is of the hot key."""


def explain(root: str, case: str, threads: int) -> Callable[[], str]:
    """case: one of CASES."""
    data = opened(root)
    folder = tempfile.TemporaryDirectory(prefix="benchmark-")
    store = open_store(folder.name, online="lmdb://online", threads=threads)
    view = CASES[case](data, store, Path(folder.name))
    key = dict.fromkeys(view.entity.key, KEY)

    def call(_: object = folder) -> str:
        return str(store.explain(view, key, at=AT))

    return call


def _rows(data: Dataset, made: View, path: Path | None = None) -> ParquetSource:
    return ParquetSource(
        f"{made.name}_rows", str(path or data.view_path(made)), event_time="event_time", known_at="known_at"
    )


def _wide(data: Dataset, path: Path | None = None, *, keyed: bool = True) -> FeatureView:
    """15 columns of the newest row."""
    made = data.views[0]
    return FeatureView(
        made.name, entity=Entity(made.key, key={made.key: Int64} if keyed else {}), source=_rows(data, made, path),
        features=made.feature_names(), refresh="1h", settle="5m", ttl="30d",
    )  # fmt: skip


def _hot_rows(data: Dataset, made: View, folder: Path) -> Path:
    """The rows of a source, of which every fifth is of the hot key."""
    path = folder / "hot.parquet"
    hot = f"CASE WHEN file_row_number % {ONE_IN} = 0 THEN {KEY} ELSE {made.key} END"
    rows = f"SELECT * REPLACE ({hot} AS {made.key}) FROM read_parquet('{data.view_path(made)}', file_row_number = true)"
    duckdb.sql(f"COPY (SELECT * EXCLUDE (file_row_number) FROM ({rows})) TO '{path}' (ROW_GROUP_SIZE {BATCH})")
    return path


def _folded(source: Source, column: str, **key: Any) -> FeatureView:
    return FeatureView(
        "folded", entity=Entity("account", key=key), source=source, refresh="1h" if key else "1d",
        features={
            f"{fold.__name__.lower()}_{days}d": fold(column, window=f"{days}d")
            for days in (1, 30) for fold in (Count, Sum, Mean, Max)
        },
    )  # fmt: skip


def _pushed(data: Dataset, store: FeatureStore, _: Path) -> FeatureView:
    """A log of a fifth of the rows, the sealed and the open segments as compaction leaves them."""
    source = PushSource(
        "pushed", schema={"account": Int64, "happened": Timestamp, "amount": Float64}, event_time="happened"
    )
    count, log = data.windowed.rows // 5, store.offline.log(source)
    random = np.random.default_rng(7)
    known = START + np.arange(count) * ((END - START) // count)
    for start in range(0, count, 500):
        part = slice(start, min(start + 500, count))
        rows = part.stop - part.start
        columns = [
            random.integers(0, data.windowed.keys // 5, rows), known[part] - 60_000_000, random.random(rows), known[part],
            [None] * rows,
        ]  # fmt: skip
        with log.lock():
            log.append(
                [pa.record_batch([pa.array(c, f.type) for c, f in zip(columns, log.schema, strict=True)], log.schema)]
            )
    log.compact()
    return _folded(source, "amount", account=Int64)


CASES: dict[str, Callable[[Dataset, FeatureStore, Path], FeatureView]] = {
    "plain": lambda data, *_: _wide(data),
    "windowed": lambda data, *_: _folded(_rows(data, data.windowed), "windowed_f0", account=Int64),
    "plain without keys": lambda data, *_: _wide(data, keyed=False),
    "windowed without keys": lambda data, *_: _folded(_rows(data, data.windowed), "windowed_f0"),
    "plain, hot key": lambda data, _, folder: _wide(data, _hot_rows(data, data.views[0], folder)),
    "windowed, hot key": lambda data, _, folder: _folded(
        _rows(data, data.windowed, _hot_rows(data, data.windowed, folder)), "windowed_f0", account=Int64
    ),
    "pushed": _pushed,
}
