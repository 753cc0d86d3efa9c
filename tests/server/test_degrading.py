"""A server whose online store stands still or is gone: what it answers, in which time, and how it comes back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest

from featurestore import (
    Count,
    DataFrameSource,
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Latest,
    PushSource,
    Request,
    on_demand,
)
from featurestore.errors import NotFoundError, OnlineUnavailableError
from featurestore.types import Float64, Int64, Timestamp
from tests.server.test_http import serving
from tests.servers import RedisServer, until

THING = Entity("thing", key={"thing": Int64})
ROWS = pd.DataFrame({"thing": [1, 2], "at": [datetime(2026, 3, 1, tzinfo=UTC)] * 2, "x": [1.0, 2.0]})
SOURCE = DataFrameSource("rows", ROWS, event_time="at")
CLICKS = PushSource("clicks", schema={"thing": Int64, "id": Int64, "at": Timestamp}, event_time="at", identity="id")
PUSHED = FeatureView("clicked", entity=THING, source=CLICKS, features={"n": Count(window="1d")})
LOOKUP, PUSH = "/v1/online-features", "/v1/push"
PATIENT = "timeout=600&retries=0"
SILENT_SECONDS = 0.3


def service(**more: Latest) -> FeatureService:
    """A view and a function of it; more: features of the view."""
    features = {"x": Latest("x", default=-1.0), "bare": Latest("x"), **more}
    view = FeatureView("view", entity=THING, source=SOURCE, refresh="1h", features=features)

    @on_demand(inputs=[view["x"], Request("y", Float64)], output=Float64)
    def together(x, y):  # type: ignore[no-untyped-def]  # a user's function without types  # noqa: ANN001, ANN202
        return x + y

    return FeatureService("model", features=[view, together])


ASKED = {"service": "model", "rows": [{"thing": 1, "y": 1.0}, {"thing": 3, "y": 1.0}]}
MANY = {"service": "model", "rows": [{"thing": n, "y": 1.0} for n in range(1, 9001)]}


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def opened(redis: RedisServer, tmp_path: Path) -> Iterator[Callable[..., FeatureStore]]:
    """Opens a project over the server, with these lines of [server], applied and filled."""
    with ExitStack() as stack:

        def open_with(*lines: str, query: str = PATIENT, fill: bool = True) -> FeatureStore:
            with redis.client() as client:
                client.flushall()
            (tmp_path / "featurestore.toml").write_text(
                f'project = "p"\nonline = "{redis.url_with(query=query)}"\ndefinitions = []\n[serving_log]\nrate = 1.0\n[server]\n'
                + "\n".join(lines)
            )
            store = stack.enter_context(FeatureStore(tmp_path))
            if fill:
                store.apply([service()])
                store.materialize(progress=False)
            return store

        yield open_with


@contextmanager
def gone(redis: RedisServer) -> Iterator[None]:
    """A store that nobody reaches; it is back at the end, as empty as it was filled."""
    redis.stop()
    try:
        yield
    finally:
        redis.start()


@pytest.mark.parametrize("asked", [ASKED, MANY], ids=["small", "large"])
@pytest.mark.parametrize("by", ["setting", "header"])
def test_a_lookup_ends_in_the_time_that_it_is_given(
    opened: Callable[..., FeatureStore], redis: RedisServer, asked: dict[str, Any], by: str
) -> None:
    """With a store that would wait for ten minutes: 503 with Retry-After. It is answered again when the store goes on."""
    store = opened(f"lookup_seconds = {SILENT_SECONDS if by == 'setting' else 600}")
    headers = {} if by == "setting" else {"X-Request-Timeout": str(SILENT_SECONDS)}
    with serving(store) as client:
        until(lambda: client.post(LOOKUP, json=asked, headers=headers).status_code == 200)
        with redis.silent():
            for _ in range(2):
                answer = client.post(LOOKUP, json=asked, headers=headers, timeout=600)
                assert (answer.status_code, answer.json()["type"]) == (503, "urn:featurestore:OnlineUnavailable")
                assert int(answer.headers["Retry-After"]) >= 1
        until(lambda: client.post(LOOKUP, json=asked, headers=headers).status_code == 200)


@pytest.mark.parametrize("count", [1, 3000], ids=["small", "large"])
@pytest.mark.parametrize("by", ["setting", "header"])
def test_a_push_ends_in_the_time_that_it_is_given(
    opened: Callable[..., FeatureStore], redis: RedisServer, count: int, by: str
) -> None:
    """With a store that would wait for ten minutes: 503 with Retry-After, which says truly that nothing was kept, nor will be. The
    same push is taken when the store goes on."""
    store = opened(f"push_seconds = {SILENT_SECONDS if by == 'setting' else 600}", fill=False)
    store.apply([PUSHED])
    headers = {} if by == "setting" else {"X-Request-Timeout": str(SILENT_SECONDS)}
    rows = [{"thing": 1, "id": number, "at": datetime.now(UTC).isoformat()} for number in range(count)]
    asked = {"source": "clicks", "rows": rows}
    with serving(store) as client:
        first = {"source": "clicks", "rows": [{**rows[0], "id": -1}]}
        until(lambda: client.post(PUSH, json=first, headers=headers).status_code == 200)
        with redis.silent():
            for _ in range(2):
                answer = client.post(PUSH, json=asked, headers=headers, timeout=600)
                assert (answer.status_code, answer.json()["type"]) == (503, "urn:featurestore:OnlineUnavailable")
                assert int(answer.headers["Retry-After"]) >= 1
                assert "Nothing of this push was kept" in answer.json()["detail"]
                assert answer.json()["kept"] == "no"
        assert store.push("clicks", rows, json=True) == (count, 0, 0)
        until(lambda: client.post(PUSH, json=first, headers=headers).status_code == 200)


@pytest.mark.parametrize("said", ["0", "-1", "soon", "nan"])
def test_a_time_that_is_none_is_refused(opened: Callable[..., FeatureStore], said: str) -> None:
    with serving(opened()) as client:
        for path, asked in ((LOOKUP, ASKED), (PUSH, {"source": "clicks", "rows": []})):
            answer = client.post(path, json=asked, headers={"X-Request-Timeout": said})
            assert (answer.status_code, "X-Request-Timeout" in answer.json()["detail"]) == (400, True)


def test_who_asks_while_the_store_is_left_alone_is_told_when_to_come_again(
    opened: Callable[..., FeatureStore], redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retry-After is when the store is asked again."""
    monkeypatch.setattr("featurestore.online.breaker.FIRST_SECONDS", 600.0)
    monkeypatch.setattr("featurestore.online.breaker.LONGEST_SECONDS", 600.0)
    store = opened()
    with serving(store) as client:
        assert client.post(LOOKUP, json=ASKED).status_code == 200
        with gone(redis):
            until(lambda: "asked again in" in client.post(LOOKUP, json=ASKED).json()["detail"])
            assert 1 < int(client.post(LOOKUP, json=ASKED).headers["Retry-After"]) <= 600
            assert 1 < int(client.get("/readyz").headers["Retry-After"]) <= 600


@pytest.mark.parametrize("asked", [ASKED, MANY], ids=["small", "large"])
def test_defaults_stand_in_for_what_cannot_be_reached(
    opened: Callable[..., FeatureStore], redis: RedisServer, asked: dict[str, Any]
) -> None:
    """Where it is asked for: each is UNAVAILABLE, in the answer, the metrics and the serving log, and has no as_of; the audit compares what
    was answered, and nothing else."""
    store = opened(
        'when_unavailable = "defaults"',
        f"lookup_seconds = {SILENT_SECONDS if asked is ASKED else 600}",
    )
    with serving(store) as client:
        answered: list[dict[str, Any]] = [{}]

        def is_answered() -> bool:
            answered[0] = client.post(LOOKUP, json=asked).json()
            return bool(answered[0].get("statuses", [["UNAVAILABLE"]])[0][0] == "PRESENT")

        until(is_answered)
        assert answered[0]["as_of"]
        with redis.silent_for(store.online):
            answer = client.post(LOOKUP, json=asked, headers={"X-Request-ID": "silent"})
            assert answer.status_code == 200
            told = answer.json()
            assert told["columns"] == ["view__x", "view__bare", "together"]
            assert {*map(tuple, told["rows"])} == {(-1.0, None, None)}
            assert {*map(tuple, told["statuses"])} == {("UNAVAILABLE",) * 3}
            assert (told["as_of"], told["stale"]) == ({}, {"view": True})
            assert client.get("/readyz").json()["status"] == "ready"
            wrong = client.post(LOOKUP, json={**ASKED, "rows": [{"thing": "one", "y": 1.0}]})
            assert wrong.status_code == 422
        until(lambda: client.post(LOOKUP, json=ASKED).json()["statuses"][0][0] == "PRESENT")
        counted = [line for line in client.get("/metrics").text.splitlines() if 'status="UNAVAILABLE"' in line]
        assert float(counted[0].split()[-1]) >= 3 * len(asked["rows"])
    audit = store.audit()
    assert (audit.skewed, audit.compared > 0) == (0, True)
    with pytest.raises(NotFoundError, match="answered with the defaults"):
        store.explain_request("silent")


def test_a_process_takes_defaults_by_the_call(opened: Callable[..., FeatureStore], redis: RedisServer) -> None:
    """In the time that it says; what was never looked up has none."""
    store = opened(query=PATIENT)
    words: dict[str, Any] = {"within_seconds": 0.2, "when_unavailable": "defaults"}
    rows = [{"thing": 1, "y": 1.0}]
    with redis.silent(), pytest.raises(OnlineUnavailableError):
        store.get_online_features(rows, "model", **words)
    assert store.get_online_features(rows, "model").to_dict()["together"] == [2.0]
    with redis.silent():
        with pytest.raises(OnlineUnavailableError):
            store.get_online_features(rows, "model", within_seconds=0.2)
        found = store.get_online_features(rows, "model", **words)
    assert (found.to_dict()["view__x"], found.as_of, found.statuses["together"]) == ([-1.0], {}, ["UNAVAILABLE"])
    assert "could not be reached" in str(found.report())


def test_ready_is_who_answers_lookups_of_every_service(opened: Callable[..., FeatureStore], redis: RedisServer) -> None:
    """And nobody else, whatever is applied, filled or away."""
    store = opened(fill=False)
    services: list[str] = []
    with serving(store) as client:

        def ready() -> bool:
            statuses = {
                client.post(LOOKUP, json={"service": name, "rows": [{"thing": 1, "y": 1.0}]}).status_code
                for name in services
            }
            found = client.get("/readyz").status_code == 200
            assert found is (statuses == {200})
            return found

        assert not ready()  # nothing is applied
        services.append("model")
        store.apply([service()])
        assert not ready()
        store.materialize(progress=False)
        assert ready()
        alone = FeatureView("alone", entity=THING, source=SOURCE, refresh="1h", features=["x"])
        store.apply([alone])
        assert ready()  # no service reads it
        store.apply([service(more=Latest("x"))])
        assert ready()  # the version before is served
        services.append("other")
        store.apply([FeatureService("other", features=[alone])])
        assert not ready()
        store.materialize(progress=False)
        assert ready()
        with redis.silent_for(store.online):
            assert not ready()
        until(lambda: client.get("/readyz").status_code == 200)
        assert ready()


def test_a_version_that_is_applied_is_taken_up_without_a_request_that_fails(
    opened: Callable[..., FeatureStore],
) -> None:
    """While clients ask without pause, a changed service is applied, filled and retired: each answer is of one version, and 200."""
    store = opened()
    ended, found = threading.Event(), [set[Any]() for _ in range(3)]
    with serving(store) as client:

        def ask(seen: set[Any]) -> None:
            with httpx.Client(base_url=client.base_url, timeout=600) as own:
                while not ended.is_set():
                    answer = own.post(LOOKUP, json=ASKED)
                    body = answer.json()
                    seen.add((answer.status_code, body.get("detail"), tuple(body.get("columns", ()))))

        threads = [threading.Thread(target=ask, args=(seen,)) for seen in found]
        for thread in threads:
            thread.start()
        try:
            before = ("view__x", "view__bare", "together")
            until(lambda: all((200, None, before) in seen for seen in found))
            store.apply([service(more=Latest("x"))])
            store.materialize(progress=False)
            after = ("view__x", "view__bare", "view__more", "together")
            until(lambda: all((200, None, after) in seen for seen in found))
        finally:
            ended.set()
            for thread in threads:
                thread.join()
    assert set.union(*found) == {(200, None, before), (200, None, after)}
