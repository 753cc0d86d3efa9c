"""What the server takes on a socket: uvicorn's protocol, with limits on heads, on time and on the number of connections.

A connection is idle, or receives a request, or is stalled: its client does not take what is sent. It may be so for a time.
Those who are so are kept in the order in which they came to be so: whose time is up is always the first.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from featurestore.config import ServerConfig
from featurestore.server.edge import SECURITY
from featurestore.server.problems import BadRequest, HttpAnswer, LimitError, problem_of

LOOK_SECONDS = 0.5
"""Seconds between two looks for connections whose time is up; a fifth of the least limit, where that is less."""

LEAVE_SECONDS, LEAVING = 2.0, 100
"""Seconds for which the bytes of those who were refused are thrown away, and of how many at a time."""

PIPELINED = 100
"""Requests that one connection may send before the first of them is answered."""


class Connections:
    """All connections of one event loop. refused: told of each refusal, which no application sees."""

    def __init__(self, config: ServerConfig, refused: Callable[[BadRequest], None]) -> None:
        self.config, self.refused = config, refused
        self.open: set[Connection] = set()
        self.idle: dict[Connection, float] = {}
        self.receiving: dict[Connection, float] = {}
        self.stalled: dict[Connection, float] = {}
        self.leaving: dict[Connection, float] = {}

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """While this lasts, connections end when their time is up."""
        watch = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watch

    async def _watch(self) -> None:
        config, loop = self.config, asyncio.get_running_loop()
        every = min(
            LOOK_SECONDS, *(s / 5 for s in (config.idle_seconds, config.request_seconds, config.answer_seconds))
        )
        while True:
            await asyncio.sleep(every)
            now = loop.time()
            for connection in _over(self.idle, now - config.idle_seconds):
                connection.abort()
            for connection in _over(self.stalled, now - config.answer_seconds):
                connection.abort()
            for connection in _over(self.leaving, now - LEAVE_SECONDS):
                connection.abort()
            for connection in _over(self.receiving, now - config.request_seconds):
                seconds = f"{config.request_seconds:g} s"
                connection.refuse(
                    LimitError("request_seconds", f"The request was not sent within {seconds}", status=408)
                )

    def make_room(self) -> bool:
        """Whether there may be one connection more; where there are enough, the one that was idle for longest ends."""
        if len(self.open) < self.config.connections:
            return True
        if self.idle:
            next(iter(self.idle)).abort()
        return len(self.open) < self.config.connections


def _over(since: dict[Connection, float], before: float) -> list[Connection]:
    """Those who came before an instant; they are first."""
    found = []
    for connection, began in since.items():
        if began > before:
            break
        found.append(connection)
    return found


class Connection(HttpToolsProtocol):
    """One connection of the server that `featurestore serve` runs."""

    _all: Connections
    _chunk = _fed = _body_fed = 0
    _in_message = _in_head = _refused = False
    _why: LimitError | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection, or refuse it."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._all = self.app_state["connections"]
        self._now = self.loop.time
        self._cycles: deque[RequestResponseCycle] = deque()  # of requests that are not answered yet, the oldest first
        if not self._all.make_room():
            detail = f"There are {len(self._all.open)} connections, and no more are taken"
            self.refuse(LimitError("connections", detail, status=503))
            return
        self._all.open.add(self)
        self._all.idle[self] = self._now()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._forget()
        self._end_cycles()
        super().connection_lost(exc)

    def _forget(self) -> None:
        everybody = self._all
        for those in (everybody.idle, everybody.receiving, everybody.stalled, everybody.leaving):
            those.pop(self, None)
        everybody.open.discard(self)

    def _end_cycles(self) -> None:
        """Tell all who answer that nobody is there any more; uvicorn tells the last of them."""
        self.pipeline.clear()
        for cycle in self._cycles:
            cycle.disconnected = True
            cycle.message_event.set()

    def abort(self) -> None:
        """End it at once, whatever was not taken yet."""
        self._forget()
        self._end_cycles()
        self.transport.abort()

    # --- what arrives -------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Read some bytes, unless they are too many for a head, or for a message."""
        if self._refused:
            return
        self._chunk = len(data)
        self._fed += len(data)
        super().data_received(data)
        if not self._in_message:
            self._fed = 0
        elif not self._refused and not self.transport.is_closing():
            self._all.idle.pop(self, None)
            self._all.receiving.setdefault(self, self._now())
            config = self._all.config
            if self._in_head and self._fed > config.header_bytes:
                self.refuse(self._too_large())
            elif self._fed - self._body_fed > config.header_bytes + config.body_bytes:
                self.refuse(self._too_large())  # the sizes of chunks, and what comes after them

    def on_message_begin(self) -> None:
        """The first byte of a request; of the bytes that are being read, those before it belonged to others."""
        super().on_message_begin()
        self._in_message = self._in_head = True
        self._fed, self._chunk, self._body_fed = self._chunk, 0, 0

    def on_headers_complete(self) -> None:
        """The whole head is there: the request begins."""
        self._in_head = False
        limit = self._all.config.header_bytes
        if self._fed > limit and len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > limit:
            self._why = self._too_large()
        elif len(self.pipeline) >= PIPELINED:
            detail = f"More than {PIPELINED} requests came before the first was answered"
            self._why = LimitError("requests", detail, status=429)
        if self._why is not None:
            raise self._why  # the parser ends, and has the refusal sent
        self._all.idle.pop(self, None)
        super().on_headers_complete()
        self._cycles.append(self.cycle)

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._body_fed += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The whole request is there."""
        self._in_message = False
        self._all.receiving.pop(self, None)
        super().on_message_complete()
        self._rest()

    def on_response_complete(self) -> None:
        """The whole answer is given to the socket."""
        self._cycles.popleft()
        super().on_response_complete()
        self._rest()

    def _rest(self) -> None:
        """Idle from now on, where nothing is under way."""
        if not self._in_message and self.cycle.response_complete and not self.transport.is_closing():
            self._all.idle[self] = self._now()

    # --- what is sent -------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """The client does not take what is sent."""
        super().pause_writing()
        self._all.stalled[self] = self._now()

    def resume_writing(self) -> None:
        """It takes it again."""
        super().resume_writing()
        self._all.stalled.pop(self, None)

    def _too_large(self) -> LimitError:
        return LimitError("header_bytes", f"The head is larger than {self._all.config.header_bytes} bytes", status=431)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, or what was refused while it was read."""
        self.refuse(self._why or BadRequest(msg))

    def refuse(self, error: BadRequest) -> None:
        """HttpAnswer with a problem, where no other answer has begun, and end the connection.

        The client may still be sending, and would not see the answer if its bytes found nobody: they are thrown away until
        it has seen the end.
        """
        self._refused = True
        everybody, cycle = self._all, self.cycle
        everybody.refused(error)
        self._forget()
        if cycle is None or cycle.response_complete:
            speaks = cycle is None or self._in_head  # else it is the rest of what was answered
        else:
            speaks = not cycle.response_started and not self.pipeline and not self._in_head
            self._end_cycles()
        if speaks:
            self.transport.write(_whole(problem_of(error, self.scope["path"] if self._has_path() else "/")))
        if speaks and len(everybody.leaving) < LEAVING:
            everybody.leaving[self] = self._now()
            self.transport.write_eof()
        else:
            self.transport.close()

    def _has_path(self) -> bool:
        return bool(self.scope) and "path" in self.scope


def _whole(answer: HttpAnswer) -> bytes:
    """An answer as HTTP/1.1, for what is refused before the application sees it."""
    status = HTTPStatus(answer.status)
    headers = [*answer.start()["headers"], *SECURITY, (b"connection", b"close")]
    lines = [f"HTTP/1.1 {status.value} {status.phrase}".encode(), *(name + b": " + value for name, value in headers)]
    return b"\r\n".join([*lines, b"", *answer.pieces])
