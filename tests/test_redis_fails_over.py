"""A primary that is lost while its replica is behind: acknowledged writes are gone, and what is answered is true of its as_of."""

from __future__ import annotations

import ast
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import featurestore
from featurestore import DataFrameSource, FeatureService, FeatureStore, FeatureView, ManualClock
from featurestore.clock import instant_of
from featurestore.errors import OnlineUnavailableError
from featurestore.online.source_state import state_key
from tests.servers import RedisCluster, RedisSentinel, RedisServer
from tests.small import NOON, THING, trained
from tests.test_online_returns import known, project, read
from tests.test_push import SWIPES, row, view_over

HOUR = timedelta(hours=1)
PASSWORD = "s3cret"

BATCH = FeatureView(
    "batch", entity=THING, refresh="1h", features=["y"],
    source=DataFrameSource(
        "hourly", pd.DataFrame({"thing": [1, 1], "at": [NOON - HOUR / 2, NOON + HOUR / 2], "y": [1.0, 2.0]}), event_time="at"
    ),
)  # fmt: skip


@contextmanager
def servers_of(kind: str) -> Iterator[tuple[str, list[RedisServer], Any]]:
    """The URL of a store, its replicas, and the primary of the push source."""
    if kind == "sentinel":
        with RedisSentinel(password=PASSWORD) as servers:
            yield servers.url, [servers.replica], servers.primary
    else:
        with RedisCluster(password=PASSWORD, replicas=True) as cluster:
            yield cluster.url, cluster.replicas, cluster.primary_of(state_key("returns", SWIPES, tagged=True))


def answered(store: FeatureStore, service: str) -> Any:
    """The answer, once there is one: until then it says that the store cannot be reached, and nothing else."""
    deadline = time.monotonic() + 600
    while True:
        try:
            return store.get_online_features({"thing": 1}, service)
        except OnlineUnavailableError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.parametrize("kind", ["sentinel", "cluster"])
def test_what_a_fail_over_has_lost_is_not_said_to_be_there(kind: str, tmp_path: Path) -> None:
    """Pushed and materialized, acknowledged and served, and lost with the primary: both views say an as_of that they had before, and that
    they are stale; the next run brings all back, and the audit finds nothing skewed."""
    clock = ManualClock(NOON)
    with (
        servers_of(kind) as (url, replicas, primary),
        project(tmp_path, f"{url}?connect_timeout=60&timeout=60", clock=clock, rate=1.0) as store,
        project(tmp_path, f"{url}?connect_timeout=60&timeout=60", logs="elsewhere", clock=clock, rate=1.0) as reader,
    ):
        view = view_over()
        store.apply(
            [view, BATCH, FeatureService("service", features=[view]), FeatureService("hourly", features=[BATCH])]
        )
        store.materialize(progress=False)
        store.push("swipes", row(1, x=5.0))
        assert (read(reader, store), answered(reader, "hourly").to_dict()["batch__y"]) == (5.0, [1.0])
        with primary.client() as client:
            assert client.wait(1, 60_000) == 1
        for replica in replicas:
            replica.fall_behind()
        clock.advance(HOUR)
        store.push("swipes", row(2, x=12.0))
        store.materialize(progress=False)
        assert (read(reader, store), answered(reader, "hourly").to_dict()["batch__y"]) == (12.0, [2.0])
        primary.stop()
        found = answered(reader, "service")
        assert instant_of(found.as_of["view"]) < known(store)[1]
        assert found.stale == {"view": True}
        assert read(reader, store) == 5.0
        hourly = answered(reader, "hourly")
        assert (
            hourly.to_dict()["batch__y"]
            == trained(store, hourly.as_of["batch"], "hourly", thing=[1])["batch__y"].to_pylist()
        )
        if kind == "sentinel":  # in a cluster it may have had another primary
            assert (hourly.as_of["batch"], hourly.stale) == (NOON, {"batch": True})
        store.materialize(progress=False)
        assert (read(reader, store), answered(reader, "hourly").to_dict()["batch__y"]) == (12.0, [2.0])
        store.push("swipes", row(3, x=1.0))
        assert read(reader, store) == 1.0
        assert store.audit().skewed == 0
        assert store.verify().ok
        assert store.teardown() > 0
        assert [keys for keys in store.online.scan(b"") if keys] == []


def test_all_that_makes_keys_asks_the_store_how() -> None:
    """Else what is written under a hash tag would be looked for without one."""
    makers = {"ViewCodec", "PushedView", "state_key", "source_prefix", "key_prefix", "reader_of"}
    for path in Path(featurestore.__file__).parent.rglob("*.py"):
        text = path.read_text()
        for node in ast.walk(ast.parse(text)) if any(f"{maker}(" in text for maker in makers) else ():
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in makers:
                assert "tagged" in {word.arg for word in node.keywords}, f"{path}:{node.lineno}"
