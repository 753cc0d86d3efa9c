"""A head that a client sends again on its connection is not parsed again, and means what it means where it is."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from featurestore.server.connection import Connection, Connections
from featurestore.server.received import headers_of
from featurestore.settings import ServerConfig

HEADS = ("Host: localhost", "Authorization: Bearer fsk_x", "Content-Type: application/json")


class Transport(asyncio.Transport):
    """Takes what is written, and counts the answers."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 5), "sockname": ("127.0.0.1", 8000)})
        self.written, self.closed = b"", False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


Seen = list[tuple[Any, ...]]


def connected(seen: Seen) -> Connection:
    """A connection to an application that notes what it is asked."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        shown = {
            name: scope[name] for name in ("method", "path", "raw_path", "query_string", "http_version", "headers")
        }
        seen.append((shown, dict(headers_of(scope)), body))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    config = uvicorn.Config(app, log_level="critical")
    config.load()
    state = {"connections": Connections(ServerConfig(), lambda _: None)}
    connection = Connection(config, ServerState(), state, asyncio.get_running_loop())
    connection.connection_made(Transport())
    return connection


async def taken(connection: Connection, pieces: Sequence[bytes]) -> None:
    """Give it pieces of bytes, each once it has done all that it does about those before."""
    for piece in pieces:
        if not connection.transport.is_closing():
            connection.data_received(piece)
        for _ in range(10):
            await asyncio.sleep(0)


def answers(connection: Connection) -> bytes:
    """All that was written, but for the ids of requests."""
    return re.sub(rb"[0-9a-f]{32}", b"", connection.transport.written)  # type: ignore[attr-defined]  # the transport of this test


def post(body: bytes, *more: str, length: str | None = None, line: str = "POST /v1/online-features HTTP/1.1") -> bytes:
    said = f"Content-Length: {len(body) if length is None else length}"
    return "\r\n".join((line, *HEADS, said, *more, "", "")).encode() + body


FIRST = post(b'{"a": 1}')
AGAIN: dict[str, Callable[[], list[bytes]]] = {
    "the same": lambda: [FIRST],
    "another body": lambda: [post(b'{"a": 2}')],
    "another length": lambda: [post(b'{"a": 12345}'), post(b""), post(b"x" * 10_000)],
    "another key": lambda: [FIRST.replace(b"fsk_x", b"fsk_y"), FIRST],
    "another path": lambda: [FIRST.replace(b"online-features", b"online-features?x=1")],
    "another method": lambda: [FIRST.replace(b"POST", b"PUT")],
    "another field": lambda: [post(b"{}", "X-Request-ID: mine"), post(b"{}", "X-Other: 1")],
    "another case": lambda: [FIRST.replace(b"Content-Length", b"content-LENGTH")],
    "zeros before": lambda: [post(b"{}", length="0002"), FIRST],
    "a sign before": lambda: [post(b"{}", length="+2")],
    "no digit": lambda: [post(b"{}", length="2²")],
    "two lengths": lambda: [post(b"{}", "Content-Length: 2")],
    "chunks": lambda: [post(b"2\r\n{}\r\n0\r\n\r\n", "Transfer-Encoding: chunked", length="2")],
    "in pieces": lambda: [FIRST[:60], FIRST[60:-3], FIRST[-3:], FIRST],
    "two at once": lambda: [FIRST + post(b'{"b": 3}'), FIRST],
    "one and a half": lambda: [FIRST + FIRST[:100], FIRST[100:], FIRST],
    "too long": lambda: [post(b"{}, and this is none", length="2")],
    "at the end": lambda: [post(b"{}", "Connection: close"), FIRST],
    "HTTP/1.0": lambda: [FIRST.replace(b"HTTP/1.1", b"HTTP/1.0"), FIRST],
}


@pytest.mark.parametrize("what", AGAIN)
def test_a_request_is_the_same_after_one_with_its_head(what: str) -> None:
    async def both() -> None:
        after, alone = Seen(), Seen()
        connection = connected(after)
        await taken(connection, [FIRST, *AGAIN[what]()])
        other = connected(alone)
        other._tries = 1_000  # it keeps no head
        await taken(other, [FIRST, *AGAIN[what]()])
        assert after == alone
        assert len(after) > 0
        assert answers(connection) == answers(other)

    asyncio.run(both())


def test_a_head_whose_other_field_speaks_of_a_length() -> None:
    async def asked() -> None:
        seen = Seen()
        connection = connected(seen)
        for body in (b"{}", b'{"a": 1}'):
            await taken(
                connection, [post(body, "X-Told: Content-Length: 2", line="POST /?Content-Length:2 HTTP/1.1")] * 2
            )
        assert [body for *_, body in seen] == [b"{}", b"{}", b'{"a": 1}', b'{"a": 1}']
        assert {headers[b"x-told"] for _, headers, _ in seen} == {b"Content-Length: 2"}

    asyncio.run(asked())


def test_a_head_is_parsed_once() -> None:
    async def asked() -> None:
        seen = Seen()
        connection = connected(seen)
        await taken(connection, [FIRST])
        connection.parser = None  # type: ignore[assignment]  # as if the parser had gone
        await taken(connection, [FIRST, post(b'{"a": 12345}')])
        assert [body for *_, body in seen] == [b'{"a": 1}', b'{"a": 1}', b'{"a": 12345}']
        assert connection in connection._all.idle

    asyncio.run(asked())


def test_heads_that_are_never_the_same_are_not_kept_for_ever() -> None:
    async def asked() -> None:
        seen = Seen()
        connection = connected(seen)
        await taken(connection, [post(b"{}", f"X-Number: {number}") for number in range(20)])
        assert connection._known is not None
        assert connection._known.headers[-1] == (b"x-number", b"3")
        other = connected(seen)
        await taken(other, [post(b"{}", "X-Request-ID: mine")] * 2)
        assert other._known is None
        assert len(seen) == 22

    asyncio.run(asked())


def test_a_server_that_drains_says_so_to_who_sends_his_head_again() -> None:
    async def asked() -> None:
        connection = connected(Seen())
        await taken(connection, [FIRST, FIRST])
        connection._all.drain()
        await taken(connection, [FIRST])
        assert answers(connection).count(b"connection: close") == 1
        assert connection.transport.is_closing()

    asyncio.run(asked())
