"""A Redis server that takes connections and answers nothing: what a caller waits is the configured number, once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from featurestore import DataFrameSource, Entity, FeatureService, FeatureStore, FeatureView
from featurestore.errors import OnlineUnavailableError
from featurestore.online import Guard, open_online
from featurestore.online import redis as module
from featurestore.online.timed_connection import TimedSocket
from featurestore.types import Int64
from tests.server.test_http import serving
from tests.servers import RedisServer

QUERY = "timeout=600&retries=5"


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


@pytest.fixture
def failures(monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
    """Every connection error after which an attempt might be made again; a silence is one of them."""
    found: list[Exception] = []
    judged = module._is_passing

    def judge(error: Exception) -> bool:
        found.append(error)
        return judged(error)

    monkeypatch.setattr(module, "_is_passing", judge)
    return found


@pytest.mark.parametrize("connected", [False, True])
@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.get([b"k"]),
        lambda store: store.write({b"k": b"v"}),
        lambda store: store.write({b"g": b"1", b"k": b"v"}, guard=Guard(b"g", None)),
        lambda store: list(store.scan(b"k")),
    ],
    ids=["get", "write", "guarded", "scan"],
)
def test_one_silence_is_all_that_a_call_waits_for(
    server: RedisServer, failures: list[Exception], call: Callable[[Any], Any], connected: bool
) -> None:
    """The first silence takes all of the time, and there is no further attempt; neither after the question for the policy.
    The same handle works when the server goes on."""
    with closing(open_online(server.url_with(query=QUERY))) as store:
        if connected:
            store.get([])
        with server.silent_for(store):
            for _ in range(2):
                failures.clear()
                with pytest.raises(OnlineUnavailableError):
                    call(store)
                assert len(failures) <= 1  # none, where a batch was sent and nobody may send it again
        call(store)


def test_what_fails_at_once_is_tried_again_while_time_is_left(failures: list[Exception]) -> None:
    """A server that is away is tried as often as `retries` says, where `timeout` allows it, and no longer."""
    with RedisServer() as gone:
        url = gone.url_with(query="timeout=60&retries=3")
        short = gone.url_with(query="timeout=0.001&retries=30")
    with closing(open_online(url)) as store, pytest.raises(OnlineUnavailableError):
        store.get([b"k"])
    assert len(failures) == 4
    failures.clear()
    with closing(open_online(short)) as store, pytest.raises(OnlineUnavailableError):
        store.get([b"k"])
    assert len(failures) == 1


def test_a_step_has_what_the_steps_before_have_left(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connecting, asking for the policy, the guard and the batch share one number, and so does the wait for a connection."""
    left: list[float] = []
    ends: list[float] = []
    limit = TimedSocket._limit

    def limited(sock: TimedSocket) -> None:
        limit(sock)
        ends.append(sock.deadline.at)
        if sock.gettimeout():  # 0, where an older redis-py asks what is there already
            left.append(sock.gettimeout())

    monkeypatch.setattr(TimedSocket, "_limit", limited)
    with closing(open_online(server.url_with(query="timeout=60&connect_timeout=70&pool_timeout=80"))) as store:
        store.write({b"own": b"1", b"x": b"2"}, guard=Guard(b"own", None))
        assert len(left) > 5
        assert left == sorted(left, reverse=True)
        assert left[0] < 60
        assert len({*ends}) == 1
        before = len(ends)
        store.get([b"own"])
        assert min(ends[before:]) > ends[0]  # another call, another minute


def test_a_server_says_503_after_one_silence(server: RedisServer, failures: list[Exception], tmp_path: Path) -> None:
    """Lookups and readiness alike, whether the service is loaded or not."""
    (tmp_path / "featurestore.toml").write_text(
        f'project = "silent"\nonline = "{server.url_with(query=QUERY)}"\ndefinitions = []\n'
    )
    thing = Entity("thing", key={"thing": Int64})
    rows = pd.DataFrame({"thing": [1], "at": [datetime(2026, 3, 1, tzinfo=UTC)], "x": [1.0]})
    source = DataFrameSource("rows", rows, event_time="at")
    views = [FeatureView(f"v{n}", entity=thing, source=source, refresh="1h", features=["x"]) for n in range(3)]
    with FeatureStore(tmp_path) as store:
        store.apply([FeatureService("model", features=views)])
        store.materialize(progress=False)
        asked = {"service": "model", "rows": [{"thing": 1}]}
        with serving(store) as client:
            for loaded in (False, True):
                with server.silent_for(store.online):
                    for ask in (lambda: client.post("/v1/online-features", json=asked), lambda: client.get("/readyz")):
                        failures.clear()
                        answer = ask()
                        assert (answer.status_code, len(failures)) == (503, 1), (loaded, answer.text)
                assert client.get("/readyz").status_code == 200
                assert client.post("/v1/online-features", json=asked).status_code == 200


def test_who_waits_while_another_finds_the_store_silent_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Callers that wait for a service to be loaded, or for a shared round trip, do not each wait for a silence of their own."""
    thing = Entity("thing", key={"thing": Int64})
    rows = pd.DataFrame({"thing": [1], "at": [datetime(2026, 3, 1, tzinfo=UTC)], "x": [1.0]})
    view = FeatureView(
        "view", entity=thing, source=DataFrameSource("rows", rows, event_time="at"), refresh="1h", features=["x"]
    )
    begun, asking, calls = threading.Event(), threading.Event(), 0
    monkeypatch.setattr("featurestore.serving.served_versions.RELOAD_SECONDS", 1e9)
    with FeatureStore.local() as store:
        store.apply([FeatureService("model", features=[view])])
        store.materialize(progress=False)

        def silent(keys: Any) -> Any:
            nonlocal calls
            calls += 1
            begun.set()
            assert asking.wait(600)
            raise OnlineUnavailableError("silent")

        async def ask_together() -> list[Any]:
            first = asyncio.ensure_future(store.aget_online_features([{"thing": 1}], "model"))
            with ThreadPoolExecutor(1) as own:
                assert await asyncio.get_running_loop().run_in_executor(own, begun.wait, 600)
            more = [asyncio.ensure_future(store.aget_online_features([{"thing": 1}], "model")) for _ in range(12)]
            await asyncio.sleep(0)  # each of them comes as far as it can
            asking.set()
            return await asyncio.gather(first, *more, return_exceptions=True)

        monkeypatch.setattr(type(store.online), "blocking", True)
        for loaded in (False, True):
            if loaded:  # from now on only the shared round trip is left
                store.get_online_features([{"thing": 1}], "model")
            begun.clear()
            asking.clear()
            calls = 0
            with monkeypatch.context() as patch:
                patch.setattr(store.online, "get", silent)
                found = asyncio.run(ask_together())
            assert [str(error) for error in found] == ["silent"] * 13
            assert calls == 1
