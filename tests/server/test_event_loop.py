"""The event loop is held up by no client: what one has sent at once is read in turn with what others have sent."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import uvicorn

from featurestore import FeatureStore
from featurestore.server import connection, create_app
from featurestore.server.limits import Room, ServerLimits
from featurestore.server.problems import LimitError
from featurestore.server.run import options
from featurestore.settings import ServerConfig
from tests.small import NOON, opened, table, view_of

ROUTE = "/v1/online-features"


@contextmanager
def running(store: FeatureStore) -> Iterator[int]:
    """The port of a server with the connections of `featurestore serve`, in a thread of this process."""
    app = create_app(store, authentication=False)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", **options(store.config.server)))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        thread.join(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with opened(view_of(table(thing=[1], at=[NOON], x=[0.5]), ["x"])) as (store, _):
        store.materialize(progress=False)
        with running(store) as port:
            yield port


def sent(port: int, body: bytes, *, framing: str) -> httpx.Response:
    head = f"POST {ROUTE} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n{framing}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=600) as sock:
        sock.sendall(head.encode() + body)
        answer = b""
        while piece := sock.recv(1 << 16):
            answer += piece
    top, _, content = answer.partition(b"\r\n\r\n")
    return httpx.Response(int(top.split()[1]), content=content)


def test_what_comes_at_once_is_read_in_turns(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much a socket gives, a piece of it is read, and then all else has its turn; the answer is the same."""
    turns: list[int] = []
    sizes: list[int] = []
    take = connection.Connection._take

    def noted(self: connection.Connection, data: bytes) -> None:
        sizes.append(len(data))
        turns.append(turn[0])
        self.loop.call_soon(
            turn.__setitem__, 0, turn[0] + 1
        )  # it has its turn before the next piece, or there is no turn
        take(self, data)

    turn = [0]
    monkeypatch.setattr(connection.Connection, "_take", noted)
    rows = [{"thing": 1, "note": "x" * 50}] * 9_000
    body = json.dumps({"service": "service", "rows": rows}).encode()
    whole = sent(port, body, framing=f"Content-Length: {len(body)}")
    parts = b"".join(
        b"%x\r\n%s\r\n" % (len(part), part) for part in (body[at : at + 100] for at in range(0, len(body), 100))
    )
    chunked = sent(port, parts + b"0\r\n\r\n", framing="Transfer-Encoding: chunked")
    assert (whole.status_code, chunked.status_code) == (200, 200)
    assert whole.json()["rows"] == chunked.json()["rows"] == [[0.5]] * 9_000
    assert max(sizes) <= connection.PIECE_BYTES
    assert sum(sizes) > len(body) * 2
    assert max(Counter(turns).values()) <= 2, "the last piece of what came before, and the first of the next"


def test_a_body_that_is_refused_in_the_middle_is_not_read_on(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has come and was not read is dropped, and the client sees why."""
    sizes: list[int] = []
    take = connection.Connection._take
    monkeypatch.setattr(
        connection.Connection, "_take", lambda self, data: (sizes.append(len(data)), take(self, data))[1]
    )
    for body in (b"z\r\n" + b"x" * 200_000, b"1\r\nx\r\n" * 40_000):
        sizes.clear()
        assert sent(port, body, framing="Transfer-Encoding: chunked").status_code == 400
        assert sum(sizes) < len(body)


# --- whose bytes ----------------------------------------------------------------------------------


@pytest.fixture
def limits() -> Iterator[ServerLimits]:
    limits = ServerLimits(ServerConfig(body_bytes=100, bytes_in_flight=400))
    yield limits
    limits.close()


def test_half_of_the_room_is_left_to_others(limits: ServerLimits, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients of one principal, who announce large bodies and never send them, keep nobody else from sending his."""
    monkeypatch.setattr("featurestore.server.limits.PATIENCE_SECONDS", 0.01)

    async def main() -> None:
        one, two = (Room(limits, "key:slow") for _ in range(2))
        with one, two:
            await one.take(100)
            await two.take(100)
            with (
                pytest.raises(LimitError, match="200 bytes of your large requests") as refused,
                Room(limits, "key:slow") as room,
            ):
                await room.take(1)
            assert refused.value.setting == "bytes_in_flight"
            with Room(limits, "key:other") as room:
                await room.take(100)
                assert await room.beside(lambda: threading.current_thread() is threading.main_thread()) is False
                with pytest.raises(LimitError, match="300 bytes of large requests"), Room(limits, "key:third") as third:
                    await third.take(101)
        with Room(limits, "key:slow") as room:
            await room.take(200)
        assert (limits.bytes, limits._shares) == (0, {})

    asyncio.run(main())


def test_who_waits_for_his_own_bytes_holds_up_nobody_else(limits: ServerLimits) -> None:
    """And goes on once they are given back, the first first."""

    async def main() -> None:
        order: list[Any] = []
        held = Room(limits, "key:slow")
        held.__enter__()
        await held.take(200)

        async def waits(number: int) -> None:
            with Room(limits, "key:slow") as room:
                await room.take(100)
                order.append(number)

        waiting = [asyncio.create_task(waits(number)) for number in range(3)]
        await asyncio.sleep(0)
        with Room(limits, "key:other") as room:
            await room.take(100)
            assert order == []
        held.__exit__()
        await asyncio.gather(*waiting)
        assert order == [0, 1, 2]

    asyncio.run(main())
