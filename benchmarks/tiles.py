"""Continuous views over pushed rows, as jobs (see `pairs`): pushing to them, looking them up, and what is by hand beside it."""

import random
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import redis

from benchmarks.latency import Figures, latencies
from benchmarks.load import drive
from featurestore import (
    Count,
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    First,
    Latest,
    Max,
    Mean,
    Min,
    PushSource,
    StdDev,
    Sum,
    Var,
)  # fmt: skip
from featurestore.declare.folds import Fold
from featurestore.types import Float64, Int64, Timestamp

SERVICE = "account_service"
KEYS, ROWS = 200, 400
"""Of the views that are looked up: keys, and rows each, most of them recent, so that every tile of every window is in use."""

VIEWS: dict[str, tuple[list[str], dict[str, Callable[..., Fold]]]] = {
    "few": (["1d", "30d"], {"count": Count, "total": Sum, "mean": Mean, "most": Max}),
    "many": (
        ["1h", "1d", "30d"],
        {
            "count": Count, "total": Sum, "mean": Mean, "most": Max, "least": Min, "var": Var, "stddev": StdDev,
            "first": First, "latest": Latest,
        },
    ),
}  # fmt: skip
"""Name → the windows over which each of the folds is declared, to which "many" adds a count of large amounts."""


def payments(of: str, name: str = "account") -> FeatureView:
    """A view `of` VIEWS."""
    windows, folds = VIEWS[of]
    source = PushSource(
        "payments", schema={"account": Int64, "at": Timestamp, "amount": Float64}, event_time="at", lateness="60d"
    )
    features: dict[str, Fold] = {fold: made("amount", windows=windows) for fold, made in folds.items()}
    if of == "many":
        features["large"] = Count("amount", where="amount > 100", windows=windows)
    return FeatureView(name, entity=Entity("account", key={"account": Int64}), source=source, features=features)


def _store(folder: str, online: str, name: str) -> FeatureStore:
    lines = ['project = "benchmark"', 'registry = "registry.db"', f'online = "{online}"', "definitions = []"]
    Path(folder, "featurestore.toml").write_text("\n".join([*lines, ""]))
    store = FeatureStore(folder)
    view = payments(name)
    store.apply([view, FeatureService(SERVICE, features=[view])])
    return store


def payment(choice: random.Random, account: int, now: datetime) -> dict[str, Any]:
    """A payment of the last 30 days: as many in the last hour as in the day before, and as in the month before that."""
    back = choice.uniform(0, choice.choice((3600, 86_400, 30 * 86_400)))
    return {"account": account, "at": now - timedelta(seconds=back), "amount": choice.lognormvariate(3, 2)}


def fill_tiles(redis_url: str, project: str) -> Callable[[], None]:
    """Push the rows that the lookups read."""
    store = _store(project, redis_url, "many")

    def call() -> None:
        choice, now = random.Random(3), datetime.now(UTC)
        rows = [payment(choice, account, now) for account in range(KEYS) for _ in range(ROWS)]
        for start in range(0, len(rows), 5_000):
            store.push("payments", rows[start : start + 5_000])

    return call


def lookup_tiles(project: str, keys: int, rounds: int) -> Callable[[], Figures]:
    """get_online_features of 30 continuous aggregates of `keys` rows, and its time on the processor."""
    store = FeatureStore(project)
    choice = random.Random(2)
    asked = [[{"account": key} for key in choice.sample(range(KEYS), keys)] for _ in range(rounds)]

    def call(rows: list[dict[str, int]]) -> object:
        return store.get_online_features(rows, SERVICE).to_dict()

    return partial(with_cpu, call, asked)


def mget_tiles(redis_url: str, keys: int, rounds: int) -> Callable[[], Figures]:
    """A bare MGET of as many of the same records."""
    client = redis.Redis.from_url(redis_url)
    found = list(client.scan_iter(count=10_000, _type="STRING"))
    stored = [key for key in found if client.strlen(key) > 1_000]
    choice = random.Random(1)
    return partial(with_cpu, client.mget, [choice.sample(stored, keys) for _ in range(rounds)])


def with_cpu(call: Callable[[Any], object], arguments: list[Any]) -> Figures:
    """`latencies`, and the time on the processor of one call."""
    started = time.process_time()
    figures = latencies(call, arguments)
    return {**figures, "cpu_ms": (time.process_time() - started) * 1e3 / (len(arguments) + 100)}


def apply_pushed(project: str, online: str) -> Callable[[], None]:
    """A project with the view that is pushed to, and nothing pushed yet."""
    return partial(_apply, project, online)


def _apply(project: str, online: str) -> None:
    _store(project, online, "few").close()


def push_route(base_url: str, key: str, connections: int, seconds: float) -> Callable[[], Figures]:
    """POST /v1/push of single rows, by so many connections."""
    choice, now = random.Random(4), datetime.now(UTC)
    rows = [payment(choice, choice.randrange(100_000), now) for _ in range(20_000)]
    bodies = [orjson.dumps({"source": "payments", "rows": [row]}) for row in rows]
    return partial(drive, f"{base_url}/v1/push", bodies, connections=connections, seconds=seconds, key=key)


def push(online: str, batch: int, pushers: int, seconds: float, redis_url: str = "") -> Callable[[], Figures]:
    """Rows a second, durable and applied online: `pushers` threads that push batches of so many rows for so long."""
    if redis_url:
        redis.Redis.from_url(redis_url).flushall()
    folder = tempfile.TemporaryDirectory(prefix="benchmark-")
    store = _store(folder.name, redis_url if online == "redis" else "lmdb://online", "few")
    choice, now = random.Random(4), datetime.now(UTC)
    made = [payment(choice, choice.randrange(100_000), now) for _ in range(max(20_000, batch))]
    batches = [made[start : start + batch] for start in range(0, len(made) - batch + 1, batch)]
    store.push("payments", made[:1])

    def call(_: object = folder) -> Figures:
        counts = [0] * pushers
        until = time.perf_counter() + seconds

        def pusher(number: int) -> None:
            place = number * 997
            while time.perf_counter() < until:
                store.push("payments", batches[place % len(batches)])
                counts[number] += 1
                place += 1

        started = time.perf_counter()
        threads = [threading.Thread(target=pusher, args=(number,)) for number in range(pushers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        taken = time.perf_counter() - started
        return {"rows_per_s": sum(counts) * batch / taken, "pushes_per_s": sum(counts) / taken}

    return call
