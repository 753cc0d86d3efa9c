"""Readiness beside a store that stands still, and what it tells to whom."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from featurestore import Entity, FeatureService, FeatureStore, FeatureView, PushSource
from featurestore.server import routes
from featurestore.types import Float64, String, Timestamp
from tests.server.test_access import key
from tests.server.test_http import serving
from tests.servers import RedisServer


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def store(tmp_path: Path, redis: RedisServer) -> Iterator[FeatureStore]:
    online = redis.url_with(query="timeout=60&retries=0")
    (tmp_path / "featurestore.toml").write_text(f'project = "p"\nonline = "{online}"\ndefinitions = []\n')
    schema = {"thing": String, "at": Timestamp, "x": Float64}
    source = PushSource("s", schema=schema, event_time="at", lateness="36500d")
    view = FeatureView(
        "secret_view",
        entity=Entity("thing", key={"thing": String}),
        source=source,
        refresh="continuous",
        features=["x"],
    )
    with FeatureStore(tmp_path) as store:
        store.apply([FeatureService("m", features=[view])])
        yield store


def test_who_has_no_key_learns_no_names(store: FeatureStore, redis: RedisServer) -> None:
    reader, pusher = key(store, "reader", "read"), key(store, "pusher", "push")
    limited = key(store, "limited", "read", only_on=["service:other"])
    with serving(store, authentication=True) as client:
        assert "secret_view" in client.get("/readyz", headers=reader).json()["detail"]
        for headers in ({}, pusher, limited, {"authorization": "Bearer fs_wrong"}):
            told = client.get("/readyz", headers=headers)
            assert (told.status_code, told.json()["type"]) == (503, "urn:featurestore:NotMaterialized")
            assert "secret_view" not in told.text
        store.materialize(progress=False)
        assert client.get("/readyz", headers=reader).json() == {"status": "ready"}
        redis.stop()
        away = client.get("/readyz", headers=reader)
        assert (away.status_code, f":{redis.port}" in away.json()["detail"]) == (503, True)
    with serving(store, authentication=True) as client:
        told = client.get("/readyz")
        assert (told.status_code, told.json()["type"]) == (503, "urn:featurestore:OnlineUnavailable")
        assert f":{redis.port}" not in told.text
    with serving(store) as client:
        assert f":{redis.port}" in client.get("/readyz").json()["detail"]


def test_looking_holds_up_nobody_else(store: FeatureStore, redis: RedisServer) -> None:
    """While the online store stands still, any number may ask whether the server is ready; other routes are answered."""
    store.materialize(progress=False)
    reader = key(store, "reader", "read")

    async def ask(base: httpx.URL, silence: ExitStack) -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=base, timeout=600, limits=limits) as many:
            waiting = [asyncio.create_task(many.get("/readyz")) for _ in range(100)]
            await asyncio.sleep(1)  # so that they come first
            assert not any(one.done() for one in waiting)
            assert (await many.get("/v1/services", headers=reader)).status_code == 200
            silence.close()
            assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {200}

    with serving(store, authentication=True) as client:
        assert client.get("/v1/services", headers=reader).status_code == 200
        with ExitStack() as silence:
            silence.enter_context(redis.silent())
            asyncio.run(ask(client.base_url, silence))


def test_the_description_is_made_once(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    make = routes.page  # type: ignore[attr-defined]  # a name that the module imports, to be replaced
    monkeypatch.setattr(routes, "page", lambda described: made.append(1) or make(described))
    with serving(store) as client:
        first, second = client.get("/docs"), client.get("/docs")
        assert first.content == second.content
        assert client.get("/openapi.json").json()["info"]["title"] == "featurestore"
    assert len(made) == 1
