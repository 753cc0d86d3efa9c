"""A lookup that plain functions answer, after one with its head on its connection, is answered and told of as any other is."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from featurestore import FeatureService, FeatureStore, ManualClock
from featurestore.access.api_keys import create_key, revoke_key
from featurestore.server import create_app
from featurestore.server.app import Application
from featurestore.server.connection import PLAIN_TRIES, Connection
from featurestore.server.edge import PLAIN
from featurestore.server.received import HEAD
from tests.server.test_known_heads import Transport
from tests.servers import PATIENCE_SECONDS
from tests.small import NOON, apply, hours, table, view_of, write

DATE = [(b"date", b"Wed, 01 May 2024 12:00:00 GMT")]
LONG = "ä" * 5_000


@pytest.fixture(scope="module", params=["lmdb", "redis"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeatureStore]:
    """A store that logs all that it serves, of one service of a view and another of long texts."""
    folder = tmp_path_factory.mktemp("plain")
    online = "lmdb://online" if request.param == "lmdb" else request.getfixturevalue("redis_url")
    said = f'project = "plain{request.param}"\nonline = "{online}"\ndefinitions = []\n[serving_log]\nrate = 1.0\n'
    (folder / "featurestore.toml").write_text(said)
    with FeatureStore(folder, clock=ManualClock(NOON)) as store:
        fill(store, folder)
        yield store


@pytest.fixture(autouse=True)
def however_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is: else a lookup waits for the registry now and then, and goes to a lane where it took long twice."""
    monkeypatch.setattr("featurestore.serving.served_versions.RELOAD_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr("featurestore.server.hot_routes.SMALL_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr("featurestore.access.authentication.WAIT_SECONDS", PATIENCE_SECONDS)


def fill(store: FeatureStore, folder: Path) -> None:
    things = list(range(20))
    rows = table(thing=things, at=[hours(-2)] * 20, x=[n / 7 for n in things], s=["ä", None] * 10, long=[LONG] * 20)
    path = str(write(folder / "rows.parquet", rows))
    short = view_of(path, ["x", "s"], name="short", refresh="1h")
    long = view_of(path, ["long"], name="long", refresh="1h")
    apply(store, short, long, FeatureService("texts", features=[short]), FeatureService("longs", features=[long]))
    store.materialize(progress=False)


@asynccontextmanager
async def running(store: FeatureStore, **words: Any) -> AsyncIterator[tuple[Application, dict[str, Any]]]:
    app = create_app(store, **{"authentication": False, **words})
    async with app.router.lifespan_context(app) as state:
        yield app, dict(state)


def connected(app: Any, state: dict[str, Any]) -> Connection:
    config = uvicorn.Config(app, log_level="critical", proxy_headers=False)
    config.load()
    server = ServerState()
    server.default_headers = DATE
    connection = Connection(config, server, state, asyncio.get_running_loop())
    connection.connection_made(Transport())
    return connection


def post(asked: Any, key: str = "fsk_x") -> bytes:
    body = asked if isinstance(asked, bytes) else json.dumps(asked).encode()
    head = (
        "POST /v1/online-features HTTP/1.1", "Host: localhost", f"Authorization: Bearer {key}",
        "Content-Type: application/json", f"Content-Length: {len(body)}",
    )  # fmt: skip
    return "\r\n".join((*head, "", "")).encode() + body


def of(service: str, *things: Any) -> dict[str, Any]:
    return {"service": service, "rows": [{"thing": thing} for thing in things]}


def written(connection: Connection) -> bytes:
    """All that was written, but for the ids of requests."""
    text: bytes = connection.transport.written  # type: ignore[attr-defined]
    return re.sub(rb"x-request-id: [^\r]+|\"request_id\":\"[^\"]+\"", b"", text)


def statuses(connection: Connection) -> list[int]:
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d+)", written(connection))]


async def until(so: Any) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not so():
        assert time.monotonic() < end
        await asyncio.sleep(0.001)


async def taken(connection: Connection, *requests: bytes) -> None:
    """Give it requests, each once the one before is answered."""
    for request in requests:
        there = len(statuses(connection))
        connection.data_received(request)
        await until(lambda there=there: len(statuses(connection)) > there and connection.cycle.response_complete)


async def primed(app: Any, state: dict[str, Any], key: str = "fsk_x") -> Connection:
    """A connection whose next lookups plain functions answer."""
    connection = connected(app, state)
    await taken(connection, *[post(of("texts", 1), key)] * 2)
    assert connection._known is not None
    assert connection._known.scope[HEAD][PLAIN] is not None
    return connection


def tasks_of(connection: Connection) -> list[Any]:
    """Whoever is answered by a task from now on."""
    begun: list[Any] = []
    start = connection._start_asgi_task
    connection._start_asgi_task = lambda cycle, app: (begun.append(cycle), start(cycle, app))[1]  # type: ignore[method-assign]
    return begun


PLAINLY: dict[str, Any] = {
    "a key": of("texts", 3),
    "a key that is not known": of("texts", 300),
    "null": of("texts", None),
    "several": of("texts", *range(15), 300, None, 3),
    "features": {"features": ["short:x"], "rows": [{"thing": 5}]},
    "a long answer": of("longs", 3, 4),
}
OTHERWISE: dict[str, Any] = {
    "no such type": of("texts", "one"),
    "no such input": {"service": "texts", "rows": [{"think": 1}]},
    "no rows": {"service": "texts", "rows": []},
    "no such service": of("others", 1),
    "a view that is called a service": of("short", 1),
    "no such version": {**of("texts", 1), "fingerprint": "x"},
    "no JSON": b"{",
    "a name twice": b'{"service": "texts", "service": "texts", "rows": [{"thing": 1}]}',
    "too long to be sent at once": of("longs", *range(20), *range(20), *range(20)),
    "many": of("texts", *range(6_000)),
}


@pytest.mark.parametrize("what", [*PLAINLY, *OTHERWISE])
def test_it_is_answered_as_any_other(store: FeatureStore, what: str) -> None:
    asked = post({**PLAINLY, **OTHERWISE}[what])

    async def both() -> None:
        async with running(store) as (app, state):
            plain = await primed(app, state)
            await taken(plain, asked)  # what is asked for the first time must be loaded, or costs nobody knows what
            begun = tasks_of(plain)
            await taken(plain, asked, asked)
            assert bool(begun) == (what in OTHERWISE)
            other = connected(app, state)
            other._tries = 1_000  # it keeps no head
            first = post(of("texts", 1))
            await taken(other, first, first, asked, asked, asked)
            assert written(plain) == written(other)
            assert plain in state["connections"].idle
            assert app.edge._limits.requests == 0  # type: ignore[attr-defined]

    asyncio.run(both())


def test_it_is_counted_and_logged_once(store: FeatureStore, capfd: pytest.CaptureFixture[str]) -> None:
    async def asked() -> None:
        async with running(store) as (app, state):
            connection = await primed(app, state)
            before, offered = counts(app), store.serving_log_losses().offered
            begun = tasks_of(connection)
            await taken(connection, *[post(of("texts", 3, 4))] * 5)
            assert not begun
            after = counts(app)
            assert {name: after[name] - before[name] for name in after} == {
                "asked": 5,
                "rows": 10,
                "present": 20,
                "seconds": 5,
            }
            assert store.serving_log_losses().offered - offered == 5
            await taken(connection, post(of("longs", 1)), post(of("longs", *range(20), *range(20), *range(20))))
            offered = store.serving_log_losses().offered
            await taken(connection, post(of("longs", *range(20), *range(20), *range(20))))
            assert store.serving_log_losses().offered - offered == 1  # begun in vain, and told of once
            ids = re.findall(rb"x-request-id: (\S+)", connection.transport.written)  # type: ignore[attr-defined]
            assert len({*ids}) == len(ids) == 10
            store.explain_request(ids[3].decode())  # which is in the log

    def counts(app: Application) -> dict[str, float]:
        text = app.edge._metrics.exposition("")[0].decode()  # type: ignore[attr-defined]

        def of_line(line: str) -> float:
            found = re.search(rf"^featurestore_{re.escape(line)} (\S+)$", text, re.MULTILINE)
            return 0.0 if found is None else float(found[1])

        return {
            "asked": of_line('service_requests_total{principal="anonymous",service="texts"}'),
            "rows": of_line('lookup_rows_total{service="texts"}'),
            "present": of_line('values_total{service="texts",status="PRESENT"}'),
            "seconds": of_line('request_seconds_count{route="/v1/online-features",status="2xx"}'),
        }

    asyncio.run(asked())


def test_a_key_that_is_revoked_is_refused(store: FeatureStore) -> None:
    name = f"one{time.monotonic_ns()}"
    secret = create_key(store.registry, name, ["read"]).secret
    limited = create_key(store.registry, f"{name}.l", ["read"], only_on=["service:longs", "service:texts"]).secret

    async def asked() -> None:
        async with running(store, authentication=True) as (app, state):
            of_limited = await primed(app, state, limited)
            begun = tasks_of(of_limited)
            await taken(of_limited, post(of("texts", 3), limited))
            assert not begun
            await taken(of_limited, post({"features": ["short:x"], "rows": [{"thing": 5}]}, limited))
            assert statuses(of_limited) == [200, 200, 200, 403]
            connection = await primed(app, state, secret)
            revoke_key(store.registry, name)

            async def refused() -> bool:
                await taken(connection, post(of("texts", 3), secret))
                return statuses(connection)[-1] == 401

            end = time.monotonic() + PATIENCE_SECONDS
            while not await refused():
                assert time.monotonic() < end
                await asyncio.sleep(0.05)

    asyncio.run(asked())


def test_what_stands_around_the_edge_sees_every_request(store: FeatureStore) -> None:
    async def asked() -> None:
        async with running(store) as (app, state):
            seen: list[str] = []

            async def around(scope: Scope, receive: Receive, send: Send) -> None:
                seen.append(scope["path"])
                await app(scope, receive, send)

            connection = connected(around, state)
            await taken(connection, *[post(of("texts", 1))] * 5)
            assert len(seen) == 5

    asyncio.run(asked())


def test_no_more_are_begun_where_it_is_in_vain(store: FeatureStore) -> None:
    async def asked() -> None:
        async with running(store) as (app, state):
            connection = await primed(app, state)
            long = post(of("longs", *range(20), *range(20), *range(20)))
            await taken(connection, post(of("longs", 1)), *[long] * (PLAIN_TRIES + 2))
            assert connection._known is not None
            assert connection._known.scope[HEAD][PLAIN] is None
            await taken(connection, post(of("texts", 1)))
            assert {*statuses(connection)} == {200}

    asyncio.run(asked())


def test_the_limits_hold(store: FeatureStore) -> None:
    async def asked() -> None:
        async with running(store) as (app, state):
            connection = await primed(app, state)
            limits = app.edge._limits  # type: ignore[attr-defined]
            limits.requests = limits.config.requests
            await taken(connection, post(of("texts", 1)))
            limits.requests = 0
            begun = tasks_of(connection)
            connection.pause_writing()
            connection.data_received(post(of("texts", 1)))
            await until(lambda: len(begun) == 1)
            assert statuses(connection) == [200, 200, 429]  # nothing is sent to who does not take it
            connection.resume_writing()
            await until(lambda: statuses(connection) == [200, 200, 429, 200])

    asyncio.run(asked())


def test_a_body_is_not_larger_than_any_may_be(store: FeatureStore) -> None:
    async def asked() -> None:
        async with running(store) as (app, state):
            connection = await primed(app, state)
            small, large = post(of("texts", 1)), post(of("texts", 1, 2, 3))
            limits = app.edge._limits  # type: ignore[attr-defined]
            limits.config = limits.config.model_copy(update={"body_bytes": len(small.partition(b"\r\n\r\n")[2])})
            await taken(connection, small, large, small)
            assert statuses(connection) == [200, 200, 200, 413, 200]

    asyncio.run(asked())


def test_what_is_refused_for_its_head_and_its_body_is_refused_alike_again(store: FeatureStore) -> None:
    async def asked() -> None:
        async with running(store) as (app, state):
            limits = app.edge._limits  # type: ignore[attr-defined]
            limits.config = limits.config.model_copy(update={"body_bytes": 60})
            small, large = [
                post(of("texts", *things)).replace(b"Host:", b"X-Request-Timeout: never\r\nHost:")
                for things in ([1], [1, 2, 3, 4])
            ]
            connection = connected(app, state)
            await taken(connection, large, large, large, small, small)
            assert statuses(connection) == [413, 413, 413, 400, 400]

    asyncio.run(asked())


HANGS_UP = "hangs up"


@pytest.mark.parametrize("then", ["another", "drain", HANGS_UP])
def test_what_happens_while_the_store_is_asked(redis_url: str, tmp_path: Path, then: str) -> None:
    """The answers come in their order, a connection that is to end does so, and who has gone is told nothing and holds nothing."""
    (tmp_path / "featurestore.toml").write_text(f'project = "meanwhile"\nonline = "{redis_url}"\ndefinitions = []\n')

    async def asked(store: FeatureStore) -> None:
        async with running(store) as (app, state):
            connection = await primed(app, state)
            begun = tasks_of(connection)
            connection.data_received(post(of("texts", 3)))
            assert not begun
            assert app.edge._limits.requests == 1  # type: ignore[attr-defined]
            if then == "another":
                connection.data_received(post(of("texts", 300)))
                await until(lambda: len(statuses(connection)) == 4)
                told = [json.loads(line)["statuses"][0][0] for line in re.findall(rb"\{.*\}", written(connection))]
                assert told == ["PRESENT", "PRESENT", "PRESENT", "MISSING"]
            elif then == "drain":
                state["connections"].drain()
                await until(lambda: len(statuses(connection)) == 3)
                assert written(connection).count(b"connection: close") == 1
                assert connection.transport.is_closing()
            else:
                connection.transport.close()
                connection.connection_lost(None)
                await until(lambda: begun and not connection.tasks)
                assert statuses(connection) == [200, 200]
            await until(lambda: app.edge._limits.requests == 0)  # type: ignore[attr-defined]

    with FeatureStore(tmp_path, clock=ManualClock(NOON)) as store:
        fill(store, tmp_path)
        asyncio.run(asked(store))
