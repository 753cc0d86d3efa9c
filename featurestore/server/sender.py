"""How an answer goes onto a socket: its head with the first of its bytes, in lines that are written once for all answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from starlette.types import Message
from uvicorn.protocols.http.httptools_impl import HEADER_RE, HEADER_VALUE_RE, STATUS_LINE, RequestResponseCycle

from featurestore.server.request_ids import HEADER

LINES_HELD = 1_000
"""Lines of heads that are kept."""

Headers = Sequence[tuple[bytes, bytes]]
_LENGTH, _FRAMING = b"content-length", {b"connection", b"transfer-encoding"}
_lines: dict[tuple[bytes, bytes], bytes] = {}


class Sender:
    """`send` of one request. uvicorn's own takes ten times as long for a head, and is left what is not usual: an answer that
    does not say its length, or says how it is framed, one to HEAD, and one that begins before the request was read.

    is_last: tells the connection that it ends with this answer, which is of the latter kind.
    """

    __slots__ = ("_by_uvicorn", "_cycle", "_head", "_is_last", "_left")

    def __init__(self, cycle: RequestResponseCycle, is_last: Callable[[RequestResponseCycle], None]) -> None:
        self._cycle, self._is_last = cycle, is_last
        self._by_uvicorn = cycle.scope["method"] == "HEAD"
        self._head, self._left = b"", 0

    async def __call__(self, message: Message) -> None:
        """Send a part of the answer, once the client has taken enough of what was sent before."""
        cycle = self._cycle
        if message["type"] == "http.response.start" and not cycle.response_started:
            if cycle.more_body:
                await self._begin_early(message)
                return
            if not self._by_uvicorn and self._begins(message):
                return
            self._by_uvicorn = True
        if self._by_uvicorn:
            await cycle.send(message)  # type: ignore[arg-type]  # a dict with the keys of ASGI
            return
        if cycle.flow.write_paused and not cycle.disconnected:
            await cycle.flow.drain()
        if not cycle.disconnected:
            self._write(message)

    async def _begin_early(self, message: Message) -> None:
        """Begin an answer before the request was read."""
        self._by_uvicorn = True
        self._is_last(self._cycle)
        message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
        await self._cycle.send(message)  # type: ignore[arg-type]  # a dict with the keys of ASGI
        self._cycle.keep_alive = True  # uvicorn would end the connection before the client has seen the answer

    def _begins(self, message: Message) -> bool:
        """Make the head of an answer; False where it is not usual."""
        cycle, length = self._cycle, None
        pairs = [*cycle.default_headers, *message.get("headers", ())]
        lines: list[Any] = list(map(_lines.get, pairs))
        while None in lines:
            place = lines.index(None)
            name, value = pairs[place]
            name = name.lower()
            if name in _FRAMING:
                return False
            if name == _LENGTH:
                length = int(value)
                lines[place] = b"content-length: %d\r\n" % length
            else:
                lines[place] = _line(name, value)
                if name != HEADER:  # which is another one in each answer
                    _keep(pairs[place], lines[place])
        if length is None:
            return False
        end = b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n"
        self._head, self._left = b"".join((STATUS_LINE[message["status"]], *lines, end)), length
        cycle.response_started = True
        cycle.waiting_for_100_continue = False
        return True

    def _write(self, message: Message) -> None:
        cycle, body, more = self._cycle, message.get("body", b""), message.get("more_body", False)
        if cycle.response_complete or message["type"] != "http.response.body":
            raise RuntimeError(f"An answer has no {message['type']} here")
        self._left -= len(body)
        if self._left < 0 or (self._left and not more):
            raise RuntimeError("The answer has another length than it said")
        cycle.transport.write(self._head + body if self._head else body)
        self._head = b""
        if not more:
            cycle.response_complete = True
            cycle.message_event.set()
            if not cycle.keep_alive:
                cycle.transport.close()
            cycle.on_response()


class UsualHead:
    """The head of answers that are all there, on connections that stay, and have the same headers but for their length and id."""

    def __init__(self, status: int, before: Headers, after: Headers) -> None:
        self._status, self._before, self._after = status, before, after
        self._of: Headers | None = None
        self._first = self._last = b""

    def whole(self, default_headers: Headers, request_id: str, body: bytes) -> bytes:
        """An answer as it goes onto a socket. default_headers: a new object where they have changed."""
        if self._of is not default_headers:
            first = [_line(*pair) for pair in (*default_headers, *self._before)]
            self._first = b"".join((STATUS_LINE[self._status], *first, _LENGTH, b": "))
            self._last = b"".join((*[_line(*pair) for pair in self._after], b"\r\n"))
            self._of = default_headers
        own = _line(HEADER, request_id.encode("ascii"))
        return b"".join((self._first, b"%d\r\n" % len(body), own, self._last, body))


def _line(name: bytes, value: bytes) -> bytes:
    """A line of a head; RuntimeError where it would be none, or more than one."""
    if HEADER_RE.search(name) or HEADER_VALUE_RE.search(value):
        raise RuntimeError("A header of the answer has bytes that no header has")
    return name + b": " + value + b"\r\n"


def _keep(pair: tuple[bytes, bytes], line: bytes) -> None:
    if len(_lines) >= LINES_HELD:
        _lines.clear()
    _lines[pair] = line
