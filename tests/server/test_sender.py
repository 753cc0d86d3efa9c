"""How heads of answers are written: lines that come again are kept, and none is more than a line."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from featurestore.server.sender import Sender, _lines

Headers = list[tuple[bytes, bytes]]


class Socket:
    """What was written."""

    def __init__(self) -> None:
        self.sent = b""

    def write(self, data: bytes) -> None:
        self.sent += data


def answered(headers: Headers, body: bytes = b"{}") -> bytes:
    """The bytes of an answer with these headers."""
    socket, ended = Socket(), []
    cycle: Any = SimpleNamespace(
        scope={"method": "POST"}, response_started=False, response_complete=False, more_body=False, disconnected=False,
        keep_alive=True, default_headers=[], flow=SimpleNamespace(write_paused=False), transport=socket,
        message_event=asyncio.Event(), on_response=lambda: ended.append(True), waiting_for_100_continue=False,
    )  # fmt: skip

    async def main() -> None:
        send = Sender(cycle, lambda _: None)
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    asyncio.run(main())
    assert ended == [True]
    return socket.sent


def test_an_answer_has_its_head_and_its_body() -> None:
    headers = [(b"Content-Type", b"application/json"), (b"Content-Length", b"2"), (b"x-request-id", b"a b")]
    for _ in range(2):  # the second by lines that were kept
        assert answered(headers) == (
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\nx-request-id: a b\r\n\r\n{}"
        )


def test_a_line_that_comes_in_one_answer_alone_is_not_kept() -> None:
    before = len(_lines)
    for n in range(50):
        answered([(b"content-length", b"%d" % n), (b"x-request-id", b"%d" % n)], b" " * n)
    assert len(_lines) == before


@pytest.mark.parametrize("name", [b"x-request-id", b"x-other", b"x:other"])
def test_no_header_is_more_than_a_line(name: bytes) -> None:
    value = b"a" if b":" in name else b"a\r\nset-cookie: b"
    with pytest.raises(RuntimeError, match="no header has"):
        answered([(b"content-length", b"2"), (name, value)])
