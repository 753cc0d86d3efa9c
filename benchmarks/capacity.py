"""A simulation of many servers before Redis primaries, fed with service times that are measured, as jobs (see `pairs`).

Requests come at random instants, evenly over time; each goes to the server that has less to do of two that are drawn, waits there behind those
that came before, and then waits the same way at the primary that has its key. A server is a process on one processor, and so is a primary. In
the middle one server is lost: what it held is asked again elsewhere, and what goes to it until that is noticed is asked again later.
"""

import json
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import redis

from benchmarks.data import END, View, values_of
from benchmarks.latency import Figures
from benchmarks.load import drive
from benchmarks.product import SERVICE, server_cpu_seconds
from featurestore import Entity, FeatureService, FeatureStore, FeatureView, ParquetSource
from featurestore.types import Int64

KEYS, MEASURED_CALLS = 20_000, 3_000
SIMULATED = 200_000
"""Requests."""

Floats = npt.NDArray[np.float64]


def fill(redis_url: str, project: str) -> Callable[[], None]:
    """A project with a view of 18 features, 15 numbers and 3 texts, materialized into `redis_url`."""
    lines = ['project = "capacity"', f"online = {json.dumps(redis_url)}", "definitions = []"]
    Path(project, "featurestore.toml").write_text("\n".join([*lines, ""]))
    made, rng = View("v", "customer", KEYS, KEYS, 18, 4), np.random.default_rng(4)
    words = pa.array([f"word-{i:03d}" for i in range(200)])
    values = {field.name: values_of(rng, field.type, KEYS, words) for field in made.columns()}
    times = pa.array([END - 3_600_000_000] * KEYS, pa.timestamp("us", "UTC"))
    pq.write_table(pa.table({"customer": range(KEYS), "at": times, **values}), Path(project, "rows.parquet"))

    def call() -> None:
        store = FeatureStore(project)
        source = ParquetSource("rows", str(Path(project, "rows.parquet")), event_time="at")
        view = FeatureView("v", entity=Entity("customer", key={"customer": Int64}), source=source,
                           features=made.feature_names(), refresh="1h")  # fmt: skip
        store.apply([view, FeatureService(SERVICE, features=[view])])
        store.materialize(progress=False)

    return call


def _asked(keys: int, requests: int) -> list[list[dict[str, int]]]:
    choice = random.Random(2)
    return [[{"customer": key} for key in choice.sample(range(KEYS), keys)] for _ in range(requests)]


@dataclass(frozen=True)
class ServiceTimes:
    """What a request takes, in µs on the processors."""

    server: Floats
    """Of some requests, the server's."""

    redis_us: float
    """A primary's, on average."""


def measured_times(project: str, redis_url: str, server: list[str], keys: int, seconds: float) -> ServiceTimes:
    """Over HTTP with 16 connections: the time on the processors of the server and of Redis a request. How much single requests differ is that
    of lookups in this process, each timed on its own thread's processor time, so that waiting for a processor is no part of it."""
    url, process, key = server
    primary = redis.Redis.from_url(redis_url)
    bodies = [json.dumps({"service": SERVICE, "rows": rows}).encode() for rows in _asked(keys, 1_000)]
    before: list[tuple[float, float]] = []

    def spent() -> tuple[float, float]:
        told = primary.info("cpu")
        return server_cpu_seconds(process), told["used_cpu_user"] + told["used_cpu_sys"]

    figures = drive(f"{url}/v1/online-features", bodies, connections=16, seconds=seconds, key=key, begun=lambda: before.append(spent()))  # fmt: skip
    own_us, redis_us = (
        (after - first) / figures["requests"] * 1e6 for after, first in zip(spent(), before[0], strict=True)
    )
    with FeatureStore(project) as store:
        taken = []
        for number, rows in enumerate(_asked(keys, MEASURED_CALLS + 200)):
            began = time.thread_time_ns()
            store.get_online_features(rows, SERVICE).to_dict()
            if number >= 200:
                taken.append(time.thread_time_ns() - began)
    shape = np.array(taken, np.float64)
    return ServiceTimes(shape / shape.mean() * own_us, redis_us)


@dataclass(frozen=True)
class Simulated:
    """What came of it; times in µs."""

    latency: Floats
    """Of each request, in the order in which they came."""

    server_use: float
    """The part of their time that servers worked, before one was lost."""

    primary_use: float
    again: int
    """Requests that were asked twice."""


def simulate(
    times: ServiceTimes, *, servers: int, primaries: int, per_s: float, requests: int, seed: int, lost: bool,
    noticed_s: float = 1.0, retry_us: float = 1_000.0,
) -> Simulated:  # fmt: skip
    """Let so many requests come; see the module. lost: whether a server is lost in the middle. noticed_s: until no request goes to it any more;
    retry_us: what a request loses that does."""
    drawn = np.random.default_rng(seed)
    came = np.cumsum(drawn.exponential(1e6 / per_s, requests))
    work = drawn.choice(times.server, requests)
    primary = drawn.integers(0, primaries, requests)
    pair = np.sort(drawn.integers(0, servers, (requests, 2)), axis=1)
    middle = came[requests // 2] if lost else math.inf
    free, done, busy = [0.0] * servers, np.empty(requests), 0.0
    began = came.copy()
    again = 0
    dead = servers - 1
    for number, (arrived, one, two) in enumerate(zip(came.tolist(), *pair.T.tolist(), strict=True)):
        chosen, at = (one if free[one] <= free[two] else two), arrived
        if at >= middle and chosen == dead:
            if at < middle + noticed_s * 1e6:  # it is asked, and does not answer
                again, at = again + 1, at + retry_us
            chosen = drawn.integers(0, dead) if one == two else one
        end = max(at, free[chosen]) + work[number]
        if chosen == dead and at < middle < end:  # it had it when it was lost
            again, chosen = again + 1, int(drawn.integers(0, dead))
            end = max(middle + retry_us, free[chosen]) + work[number]
        free[chosen] = end
        done[number] = end
        busy += work[number] * (at < middle)
    order = np.argsort(done)
    ended = np.empty(requests)
    free = [0.0] * primaries
    for number in order.tolist():
        end = max(done[number], free[primary[number]]) + times.redis_us
        free[primary[number]] = ended[number] = end
    elapsed = min(middle, came[-1]) - came[0]
    return Simulated(
        ended - began, busy / servers / elapsed, times.redis_us * requests / primaries / (came[-1] - came[0]), again
    )


def waiting_us(times: Sequence[float] | Floats, use: float) -> float:
    """The mean wait before a single server at that use, where requests come at random (Pollaczek and Khinchine)."""
    work = np.asarray(times, np.float64)
    return float(use * (work**2).mean() / (2 * work.mean() * (1 - use)))


def simulated(
    project: str, redis_url: str, servers: dict[str, list[str]], keys: int, of: int, use: float, lost: bool, seconds: float
) -> Callable[[], Figures]:  # fmt: skip
    """`of` servers, each in use for that part of its time, with as many primaries as are in use as much."""
    return partial(_simulated, project, redis_url, servers["ours"], keys, of, use, lost, seconds)


def _simulated(
    project: str, redis_url: str, server: list[str], keys: int, of: int, use: float, lost: bool, seconds: float
) -> Figures:
    times = measured_times(project, redis_url, server, keys, seconds)
    mean = float(times.server.mean())
    per_s = of * use / mean * 1e6
    primaries = max(1, math.ceil(per_s * times.redis_us / 1e6 / use))
    found = simulate(times, servers=of, primaries=primaries, per_s=per_s, requests=SIMULATED, seed=5, lost=lost)
    half = SIMULATED // 2
    before, after = found.latency[SIMULATED // 20 : half], found.latency[half:]
    alone = simulate(
        times, servers=1, primaries=1_000_000, per_s=use / mean * 1e6, requests=SIMULATED, seed=6, lost=False
    )
    wait = float((alone.latency - times.redis_us).mean() - mean)
    told: dict[str, Any] = {
        "server_us": mean, "redis_us": times.redis_us, "requests_per_core": 1e6 / mean, "per_s": per_s, "primaries": primaries,
        "server_use": found.server_use, "primary_use": found.primary_use, "again": found.again,
        "p50_us": np.percentile(before, 50), "p99_us": np.percentile(before, 99), "p999_us": np.percentile(before, 99.9),
        "p99_after_us": np.percentile(after, 99), "p999_after_us": np.percentile(after, 99.9), "max_after_us": after.max(),
        "one_server_wait_us": wait, "formula_wait_us": waiting_us(times.server, use),
    }  # fmt: skip
    return {name: float(value) for name, value in told.items()}
