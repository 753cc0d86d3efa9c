"""A Redis Cluster under load that loses a primary (SIGKILL), as a job (see `pairs`): what callers saw, and what came back without hands.

Each primary has a replica, and the cluster's own time limit for a node is 2 s. Threads look views up at a modest rate, one pushes rows, and
all that is served is logged. Afterwards runs of materialize, the audit and the check of all records say whether anything is other than it should be.
"""

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.latency import Figures
from featurestore import Entity, FeatureService, FeatureStore, FeatureView, Latest, ParquetSource, PushSource, Sum
from featurestore.errors import OnlineUnavailableError
from featurestore.online.source_state import state_key
from featurestore.online.view_codec import ViewCodec
from featurestore.types import Float64, Int64, String, Timestamp

VIEWS, KEYS, CALLERS = 12, 500, 3
LOOKUPS_PER_S, PUSHES_PER_S = 60, 10
BEFORE_S, AFTER_S = 4.0, 15.0
PROJECT = "benchmark"
THING = Entity("thing", key={"thing": Int64})


@dataclass
class _Seen:
    """What one caller saw: of each call when it began and ended, what it was for, and the name of the error, if it was one."""

    calls: list[tuple[float, float, str, str | None]] = field(default_factory=list)
    wrong: int = 0


def fail_over(primaries: int, whole: bool) -> Callable[[], Figures]:
    """Lookups and pushes through the loss of the primary that holds the pushed view. whole: whether a cluster that lacks a primary answers
    nothing, which is Redis's own default."""
    from tests.servers import RedisCluster

    stack = ExitStack()
    cluster = stack.enter_context(
        RedisCluster(count=primaries, replicas=True, cluster_require_full_coverage="yes" if whole else "no")
    )
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
    store = stack.enter_context(_opened(folder, cluster.url))
    lost = cluster.primary_of(state_key(PROJECT, _source(), tagged=True))
    codecs = {view.name: ViewCodec(PROJECT, view, tagged=True) for view in store._project.applied()}
    of_lost = {name for name, codec in codecs.items() if cluster.primary_of(codec.watermark_key) is lost}

    def call() -> Figures:
        with stack:
            done, seen = Event(), [_Seen() for _ in range(CALLERS + 1)]
            work = [lambda one=one, n=n: _look(store, done, one, n) for n, one in enumerate(seen[:CALLERS])]
            threads = [Thread(target=target) for target in (*work, lambda: _push(store, done, seen[-1]))]
            for thread in threads:
                thread.start()
            time.sleep(BEFORE_S)
            killed = time.perf_counter()
            lost.stop()
            time.sleep(AFTER_S)
            done.set()
            for thread in threads:
                thread.join()
            return _figures(seen, of_lost | {"pushed"}, killed) | _afterwards(store)

    return call


def _source() -> PushSource:
    schema = {"id": Int64, "thing": Int64, "at": Timestamp, "x": Float64, "note": String}
    return PushSource("events", schema=schema, event_time="at", identity="id")


def _opened(folder: Path, url: str) -> FeatureStore:
    at = datetime.now(UTC) - timedelta(days=1)
    views = []
    for number in range(VIEWS):
        path = folder / f"rows{number}.parquet"
        keys = list(range(KEYS))
        pq.write_table(
            pa.table({"thing": keys, "at": pa.array([at] * KEYS, pa.timestamp("us", "UTC")), "x": [key * 1000.0 + number for key in keys]}), path
        )  # fmt: skip
        source = ParquetSource(f"rows{number}", str(path), event_time="at")
        views.append(FeatureView(f"view{number}", entity=THING, source=source, features=["x"], refresh="1h"))
    pushed = FeatureView(
        "pushed", entity=THING, source=_source(), features={"last": Latest("x"), "sum": Sum("x", window="1d")}
    )
    lines = [f'project = "{PROJECT}"', f'online = "{url}"', "definitions = []", "[serving_log]", "rate = 1.0", ""]
    Path(folder, "featurestore.toml").write_text("\n".join(lines))
    store = FeatureStore(folder)
    store.apply([FeatureService(f"of_{view.name}", features=[view]) for view in (*views, pushed)])
    store.materialize(progress=False)
    return store


def _paced(done: Event, rate: float, call: Callable[[int], None]) -> None:
    """Call so often a second, as long as calls do not take longer."""
    began, number = time.perf_counter(), 0
    while not done.is_set():
        call(number)
        number += 1
        done.wait(max(0.0, began + number / rate - time.perf_counter()))
        began = max(began, time.perf_counter() - number / rate - 1.0)  # what was missed is not made up for


def _noted(seen: _Seen, what: str, call: Callable[[], Any]) -> Any:
    began, error, found = time.perf_counter(), None, None
    try:
        found = call()
    except OnlineUnavailableError as refused:
        error = type(refused).__name__
    seen.calls.append((began, time.perf_counter(), what, error))
    return found


def _look(store: FeatureStore, done: Event, seen: _Seen, caller: int) -> None:
    def one(number: int) -> None:
        turn = number * CALLERS + caller
        view, key = turn % (VIEWS + 1), turn * 7 % KEYS
        name = "pushed" if view == VIEWS else f"view{view}"
        found = _noted(seen, name, lambda: store.get_online_features({"thing": key}, f"of_{name}").to_dict())
        if found is not None and name != "pushed" and found[f"{name}__x"] != [key * 1000.0 + view]:
            seen.wrong += 1

    _paced(done, LOOKUPS_PER_S / CALLERS, one)


def _push(store: FeatureStore, done: Event, seen: _Seen) -> None:
    def one(number: int) -> None:
        rows = [{"id": number, "thing": number % KEYS, "at": datetime.now(UTC), "x": float(number), "note": None}]
        _noted(seen, "push", lambda: store.push("events", rows))

    _paced(done, PUSHES_PER_S, one)


def _figures(seen: list[_Seen], of_lost: set[str], killed: float) -> Figures:
    calls = sorted(call for one in seen for call in one.calls)
    found: Figures = {"calls": len(calls), "wrong": sum(one.wrong for one in seen), "load": os.getloadavg()[0]}
    kinds = {
        "lost": lambda what: what in of_lost,
        "others": lambda what: what not in of_lost and what != "push",
        "pushes": lambda what: what == "push",
    }
    for kind, is_of in kinds.items():
        own = [call for call in calls if is_of(call[2])]
        failed = [call for call in own if call[3] is not None]
        answered = [end for _, end, _, error in own if error is None and end > killed]
        since = [began for began, _, _, error in failed if error is not None] + [killed]
        found |= {
            f"{kind}_calls": len(own),
            f"{kind}_errors": len(failed),
            f"{kind}_last_error_s": max(0.0, max(since) - killed),
            f"{kind}_unanswered_s": _gap([killed, *answered]),
            f"{kind}_longest_ms": max((end - began) * 1000 for began, end, _, _ in own),
        }
    return found


def _gap(ends: list[float]) -> float:
    """The longest time without an answer."""
    return max((later - earlier for earlier, later in pairwise(sorted(ends))), default=float("inf"))


def _afterwards(store: FeatureStore) -> Figures:
    """What is other than it should be, before and after what runs by a schedule has run; then nothing may be."""
    before = store.verify()
    store.materialize(progress=False)
    after, audited = store.verify(), store.audit()
    if not after.ok or audited.skewed:
        raise AssertionError(f"after the fail-over: {after}, {audited}")
    missed = sum(view.missing + view.different for view in before.views)
    return {"records_lost": missed, "audited": audited.compared, "skewed": audited.skewed}
