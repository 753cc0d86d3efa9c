"""The product's side, as jobs (see `pairs`): the declarations of the generated views, and the calls that are measured.

The libraries that the product loads on first use are loaded here, as the floors have theirs; imports are measured on their own.
"""

import json
import os
import random
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import duckdb  # noqa: F401
import pandas  # noqa: F401, ICN001
import pyarrow as pa
import pyarrow.parquet as pq
import redis

from benchmarks.data import END, Dataset, View, opened
from benchmarks.latency import Figures, latencies
from benchmarks.load import drive
from benchmarks.servers import redis_cpu_s
from featurestore import Entity, FeatureService, FeatureStore, FeatureView, ParquetSource
from featurestore.clock import to_datetime
from featurestore.types import Int64

SERVICE = "served_service"


def declare(data: Dataset, view: View, *, refresh: str, ttl_days: int | None) -> FeatureView:
    """A generated view as a user would declare it, every column a feature."""
    return FeatureView(
        view.name,
        entity=Entity(view.key, key={view.key: Int64}),
        source=ParquetSource(
            f"{view.name}_rows", str(data.view_path(view)), event_time="event_time", known_at="known_at"
        ),
        features=view.feature_names(),
        refresh=refresh,
        ttl=None if ttl_days is None else f"{ttl_days}d",
    )


def open_store(
    project: str, *, online: str | None = None, threads: int | None = None, env: str | None = None,
    memory_limit: str | None = None,
) -> FeatureStore:  # fmt: skip
    """The store of a project folder, at the end of the generated history; made first where `online` is given.

    env "logged" logs all that is served; env "undescribed" keeps no statistics.
    """
    if online is not None:
        lines = ['project = "benchmark"', 'registry = "registry.db"', f"online = {json.dumps(online)}"]
        lines += ["definitions = []"]
        if threads is not None:
            lines += ["[offline]", f"threads = {threads}"]
        if memory_limit is not None:
            lines += [f"memory_limit = {json.dumps(memory_limit)}"]
        lines += ["[env.logged.serving_log]", "rate = 1.0", "[env.undescribed.statistics]", "enabled = false"]
        Path(project, "featurestore.toml").write_text("\n".join([*lines, ""]))
    return FeatureStore(project, env=env, clock=lambda: to_datetime(END))


def training(root: str, size: str, ttl_days: int | None, threads: int) -> Callable[[], pa.Table]:
    """The training frame as Arrow; `as_of` is each row's own instant, as the floors take it."""
    data = opened(root)
    folder = tempfile.TemporaryDirectory(prefix="benchmark-")
    store = open_store(folder.name, online="lmdb://online", threads=threads)
    views = [declare(data, view, refresh="continuous", ttl_days=ttl_days) for view in data.views]

    def call(_: object = folder) -> pa.Table:  # the folder lives as long as the call
        spine = pq.read_table(data.spine_path(size))
        return store.get_historical_features(spine, views, timestamp="t").to_arrow()

    return call


def _applied(root: str, project: str, online: str) -> FeatureStore:
    data = opened(root)
    store = open_store(project, online=online)
    view = declare(data, data.served, refresh="1h", ttl_days=None)
    store.apply([view, FeatureService(SERVICE, features=[view])])
    return store


def _materialize(store: FeatureStore, keys: int, _: object = None) -> Figures:
    started = time.perf_counter()
    store.materialize()
    return {"keys_per_s": keys / (time.perf_counter() - started)}


def materialize_redis(root: str, redis_url: str) -> Callable[[], Figures]:
    """A first materialization of all keys into an empty Redis, and how many keys a second of its own processor time the server takes."""
    client, keys = redis.Redis.from_url(redis_url), opened(root).served.keys
    client.flushall()
    folder = tempfile.TemporaryDirectory(prefix="benchmark-")
    store = _applied(root, folder.name, redis_url)

    def call() -> Figures:
        spent = redis_cpu_s(client)
        figures = _materialize(store, keys, folder)
        return {**figures, "server_keys_per_cpu_s": keys / (redis_cpu_s(client) - spent)}

    return call


def materialize_lmdb(root: str) -> Callable[[], Figures]:
    """A first materialization of all keys into an empty LMDB."""
    folder = tempfile.TemporaryDirectory(prefix="benchmark-")
    return partial(_materialize, _applied(root, folder.name, "lmdb://online"), opened(root).served.keys, folder)


def materialize_described(root: str, env: str | None) -> Callable[[], Figures]:
    """A first materialization into an empty LMDB, with the statistics that an environment keeps."""
    data, folder = opened(root), tempfile.TemporaryDirectory(prefix="benchmark-")
    open_store(folder.name, online="lmdb://online").close()
    store = open_store(folder.name, env=env)
    store.apply([declare(data, data.served, refresh="1h", ttl_days=None)])
    return partial(_materialize, store, data.served.keys, folder)


def training_written(root: str, size: str, env: str | None) -> Callable[[], object]:
    """A training frame, answered and written to a file, with the statistics that an environment keeps."""
    data, folder = opened(root), tempfile.TemporaryDirectory(prefix="benchmark-")
    open_store(folder.name, online="lmdb://online", threads=2).close()
    store = open_store(folder.name, env=env)
    views = [declare(data, view, refresh="continuous", ttl_days=None) for view in data.views]

    def call(_: object = folder) -> object:  # the folder lives as long as the call
        frame = store.get_historical_features(pq.read_table(data.spine_path(size)), views, timestamp="t")
        return frame.to_parquet(Path(folder.name, "frame.parquet"))

    return call


def fill(root: str, redis_url: str, project: str) -> Callable[[], None]:
    """Materialize into `redis_url`, for the jobs that look up."""
    store = _applied(root, project, redis_url)

    def call() -> None:
        store.materialize()

    return call


def _rows(keys: int, rounds: int, among: int) -> list[list[dict[str, int]]]:
    choice = random.Random(2)
    return [[{"customer": key} for key in choice.sample(range(among), keys)] for _ in range(rounds)]


def lookup_logged(root: str, project: str, keys: int, rounds: int, env: str | None) -> Callable[[], Figures]:
    """get_online_features of `keys` rows as `to_dict`, and the time on the processors of one, the log's included."""
    store = open_store(project, env=env)

    def call() -> Figures:
        asked = _rows(keys, rounds, opened(root).served.keys)
        spent = -time.process_time()
        figures = latencies(lambda rows: store.get_online_features(rows, SERVICE).to_dict(), asked)
        store.close()
        spent += time.process_time()
        _check_losses(store)
        return {**figures, "cpu_us": spent / (rounds + 100) * 1e6}  # 100: those that warm up

    return call


def _check_losses(store: FeatureStore) -> None:
    losses = store.serving_log_losses()
    if losses.written != losses.offered:
        raise RuntimeError(f"not all was logged: {losses}")


def lookup(root: str, project: str, keys: int, rounds: int, form: str) -> Callable[[], Figures]:
    """get_online_features of `keys` rows, as `to_dict` or `to_numpy`."""
    store = open_store(project)

    def call(rows: list[dict[str, int]]) -> object:
        result = store.get_online_features(rows, SERVICE)
        return result.to_numpy(object) if form == "to_numpy" else result.to_dict()  # some features are text

    return partial(latencies, call, _rows(keys, rounds, opened(root).served.keys))


def requested_rows(root: str, keys: int, rounds: int) -> list[list[dict[str, int]]]:
    """Rows of so many requests."""
    return _rows(keys, rounds, opened(root).served.keys)


def _bodies(root: str, keys: int) -> list[bytes]:
    asked = requested_rows(root, keys, 1000)
    return [json.dumps({"service": SERVICE, "rows": rows}).encode() for rows in asked]


def _route(server: list[str], path: str, bodies: list[bytes], *, connections: int, seconds: float) -> Figures:
    """One route of a server, with the time that a request takes the server's processors."""
    base_url, process, key = server
    before: list[float] = []

    def begun() -> None:
        before.append(server_cpu_seconds(process))

    figures = drive(f"{base_url}{path}", bodies, connections=connections, seconds=seconds, key=key, begun=begun)
    return {**figures, "cpu_us": (server_cpu_seconds(process) - before[0]) / figures["requests"] * 1e6}


def noop_route(servers: dict[str, list[str]], connections: int, seconds: float) -> Callable[[], Figures]:
    """A route that does nothing."""
    return partial(_route, servers["noop"], "/noop", [b"{}"], connections=connections, seconds=seconds)


def online_route(
    root: str, servers: dict[str, list[str]], keys: int, connections: int, seconds: float
) -> Callable[[], Figures]:
    """POST /v1/online-features."""
    told: dict[str, Any] = {"connections": connections, "seconds": seconds}
    return partial(_route, servers["ours"], "/v1/online-features", _bodies(root, keys), **told)


def plain_route(
    root: str, servers: dict[str, list[str]], keys: int, connections: int, seconds: float
) -> Callable[[], Figures]:
    """The same bodies to a route in plain ASGI, which asks for a key, and has nothing but their JSON to read and to write."""
    told: dict[str, Any] = {"connections": connections, "seconds": seconds}
    return partial(_route, servers["plain"], "/", _bodies(root, keys), **told)


WIDE_KEYS, WIDTH = 10_000, 100


def fill_wide(redis_url: str, project: str) -> Callable[[], None]:
    """A project with a view of 100 doubles, materialized into `redis_url`."""
    lines = ['project = "wide"', f"online = {json.dumps(redis_url)}", "definitions = []"]
    Path(project, "featurestore.toml").write_text("\n".join([*lines, ""]))
    values = {f"f{n}": [key / (n + 7) for key in range(WIDE_KEYS)] for n in range(WIDTH)}
    times = pa.array([END - 3_600_000_000] * WIDE_KEYS, pa.timestamp("us", "UTC"))
    pq.write_table(pa.table({"customer": range(WIDE_KEYS), "at": times, **values}), Path(project, "rows.parquet"))

    def call() -> None:
        store = FeatureStore(project)
        source = ParquetSource("rows", str(Path(project, "rows.parquet")), event_time="at")
        entity = Entity("customer", key={"customer": Int64})
        view = FeatureView("wide", entity=entity, source=source, features=list(values), refresh="1h")
        store.apply([view, FeatureService(SERVICE, features=[view])])
        store.materialize()

    return call


def wide_route(servers: dict[str, list[str]], connections: int, seconds: float) -> Callable[[], Figures]:
    """POST /v1/online-features for one key of a view of 100 features."""
    bodies = [json.dumps({"service": SERVICE, "rows": rows}).encode() for rows in _rows(1, 1000, WIDE_KEYS)]
    told: dict[str, Any] = {"connections": connections, "seconds": seconds}
    return partial(_route, servers["ours"], "/v1/online-features", bodies, **told)


def route_of(root: str, servers: dict[str, list[str]], env: str, keys: int, seconds: float) -> Callable[[], Figures]:
    """The same at one of two servers, of which one logs all."""
    bodies = _bodies(root, keys)

    def call() -> Figures:
        figures = _route(servers[env], "/v1/online-features", bodies, connections=16, seconds=seconds)
        url, _, key = servers[env]
        with urlopen(Request(f"{url}/v1/serving-log", headers={"X-API-Key": key})) as answer:
            losses = json.load(answer)
        if losses["dropped"] or losses["lost"]:
            raise RuntimeError(f"not all was logged: {losses}")
        return figures

    return call


def server_cpu_seconds(process: str) -> float:
    """What a process has taken of the processors."""
    fields = Path("/proc", process, "stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
