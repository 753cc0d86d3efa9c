"""What one would write by hand, as jobs (see `pairs`): the newest earlier row, without asking when it became known or which
of equal rows counts; Redis without a feature store; a route that does nothing.
"""

import random
import struct
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from itertools import chain

import duckdb
import lmdb
import numpy as np
import polars as pl
import pyarrow as pa
import redis

from benchmarks.data import SPINES, Dataset, opened
from benchmarks.latency import Figures, latencies
from benchmarks.servers import redis_cpu_s

BATCH_KEYS = 4_000
"""Keys of a batch into Redis, as the product sends them."""

RECORD = 190
"""Bytes of a record of 18 features, a sixth of them short texts."""


def duckdb_training(data: Dataset, size: str, ttl_days: int | None, threads: int) -> pa.Table:
    """One statement: an ASOF JOIN per view, the wide columns along, in the spine's order."""
    columns, joins = [], []
    for view in data.views:
        names = view.feature_names()
        if ttl_days is not None:
            fresh = f"{view.name}.event_time >= s.t - INTERVAL {ttl_days} DAY"
            names = [f"CASE WHEN {fresh} THEN {name} END AS {name}" for name in names]
        columns += names
        joins.append(
            f"ASOF LEFT JOIN read_parquet('{data.view_path(view)}') AS {view.name}"
            f" ON s.{view.key} = {view.name}.{view.key} AND s.t >= {view.name}.event_time"
        )
    keys = [f"s.{view.key}" for view in data.views]
    query = (
        f"SELECT {', '.join([*keys, 's.t', *columns])}"
        f" FROM (SELECT *, file_row_number AS n FROM read_parquet('{data.spine_path(size)}')) AS s"
        f" {' '.join(joins)} ORDER BY s.n"
    )
    return duckdb.connect(config={"threads": threads}).sql(query).to_arrow_table()


def polars_training(data: Dataset, size: str, ttl_days: int | None) -> pl.DataFrame:
    """Everything sorted by time once, a join_asof per view, then back to the spine's order."""
    tolerance = None if ttl_days is None else timedelta(days=ttl_days)
    frame = pl.scan_parquet(data.spine_path(size)).with_row_index("n").sort("t")
    for view in data.views:
        rows = pl.scan_parquet(data.view_path(view)).drop("known_at").sort("event_time")
        frame = frame.join_asof(
            rows, left_on="t", right_on="event_time", by=view.key, tolerance=tolerance, check_sortedness=False
        ).drop("event_time", strict=False)
    return frame.sort("n").drop("n").collect()


def training_duckdb(root: str, size: str, ttl_days: int | None, threads: int) -> Callable[[], pa.Table]:
    return partial(duckdb_training, opened(root), size, ttl_days, threads)


def training_polars(root: str, size: str, ttl_days: int | None, threads: int) -> Callable[[], pl.DataFrame]:
    if pl.thread_pool_size() != threads:
        raise RuntimeError(f"Polars has {pl.thread_pool_size()} threads; POLARS_MAX_THREADS must say {threads}")
    return partial(polars_training, opened(root), size, ttl_days)


def gathered(root: str, size: str, threads: int) -> Callable[[], list[pa.Table]]:
    """The least that training has to do: of each view a statement reads key, times and number of every row, and another the
    features of as many rows as the spine has, which were chosen beforehand. Nothing asks which row is whose answer."""
    data, choice = opened(root), np.random.default_rng(3)
    connection = duckdb.connect(config={"threads": threads, "preserve_insertion_order": False})
    for view in data.views:
        rows = np.unique(choice.integers(0, view.rows, SPINES[size] // data.scale))
        connection.register(f"chosen_{view.name}", pa.table({"row": rows}))

    def call() -> list[pa.Table]:
        found = []
        for view in data.views:
            source = f"read_parquet('{data.view_path(view)}', file_row_number = true)"
            times = f"{view.key}, event_time, known_at, file_row_number"
            connection.sql(f"SELECT {times} FROM {source}").to_arrow_table()
            features = ", ".join(view.feature_names())
            joined = f"{source} JOIN chosen_{view.name} ON file_row_number = row"
            found.append(connection.sql(f"SELECT {features} FROM {joined}").to_arrow_table())
        return found

    return call


def _newest_rows(data: Dataset, threads: int) -> Callable[[], pa.Table]:
    """Two statements that find which row of each key is the newest, and read its columns."""
    view = data.served
    source = f"read_parquet('{data.view_path(view)}', file_row_number = true)"
    newest = f"SELECT {view.key}, max(event_time) AS event_time FROM {source} GROUP BY ALL"
    chosen = f"SELECT file_row_number AS row FROM {source} JOIN ({newest}) USING ({view.key}, event_time)"
    columns = ", ".join(view.feature_names())
    connection = duckdb.connect(config={"threads": threads, "preserve_insertion_order": False})

    def call() -> pa.Table:
        connection.execute(f"CREATE TABLE chosen AS {chosen}")
        return connection.sql(f"SELECT {columns} FROM {source} JOIN chosen ON file_row_number = row").to_arrow_table()

    return call


def _records(data: Dataset) -> list[tuple[bytes, bytes]]:
    """As many as the view has keys, of about the size that the product's have."""
    return [(struct.pack("<9xq", n), bytes(RECORD)) for n in range(data.served.keys)]


def newest_into_lmdb(root: str, threads: int) -> Callable[[], Figures]:
    """Keys per second of the least that materialize has to do: the newest rows are read; as many records, made beforehand, are put
    into LMDB in one synced transaction. Nothing asks when rows became known or which of equal ones counts; nothing is encoded or
    read back."""
    data = opened(root)
    folder, newest, records = (
        tempfile.TemporaryDirectory(prefix="benchmark-"),
        _newest_rows(data, threads),
        _records(data),
    )
    environment = lmdb.open(folder.name, map_size=1 << 30)

    def call(_: object = folder) -> Figures:
        started = time.perf_counter()
        rows = newest()
        with environment.begin(write=True) as transaction:
            transaction.cursor().putmulti(records)
        return {"keys_per_s": data.served.keys / (time.perf_counter() - started), "rows": rows.num_rows}

    return call


def newest_into_redis(root: str, redis_url: str, threads: int) -> Callable[[], Figures]:
    """The same with Redis: each batch of records, packed beforehand, is sent as one transaction and its keys are asked for, the next
    one when the last was answered. The answers are not looked at."""
    data = opened(root)
    newest, records = _newest_rows(data, threads), _records(data)
    client = redis.Redis.from_url(redis_url)
    client.flushall()
    batches = [records[start : start + BATCH_KEYS] for start in range(0, len(records), BATCH_KEYS)]
    connection = client.connection_pool.get_connection()
    sent = [_packed(connection, batch) for batch in batches]

    def call() -> Figures:
        started, spent = time.perf_counter(), redis_cpu_s(client)
        rows = newest()
        for batch in sent:
            connection.send_packed_command([batch])
            for _ in range(4):
                connection.read_response()
        taken = {"keys_per_s": data.served.keys / (time.perf_counter() - started), "rows": rows.num_rows}
        return {**taken, "server_keys_per_cpu_s": data.served.keys / (redis_cpu_s(client) - spent)}

    return call


def _packed(connection: redis.Connection, records: list[tuple[bytes, bytes]]) -> bytes:
    """A transaction that puts records, and the question for them."""
    put = ("MSET", *chain.from_iterable(records))
    asked = ("MGET", *(key for key, _ in records))
    return b"".join(b"".join(connection.pack_command(*words)) for words in (("MULTI",), put, ("EXEC",), asked))


def mget(redis_url: str, keys: int, rounds: int) -> Callable[[], Figures]:
    """A bare MGET of keys that a materialization has written."""
    client = redis.Redis.from_url(redis_url)
    stored = list(client.scan_iter(count=10_000, _type="STRING"))
    choice = random.Random(1)
    wanted = [choice.sample(stored, keys) for _ in range(rounds)]
    return partial(latencies, client.mget, wanted)
