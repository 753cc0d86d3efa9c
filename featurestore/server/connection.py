"""What the server takes on a socket: uvicorn's protocol, with limits on heads, on time and on the number of connections.

A connection is idle, or receives a request, or is stalled: its client does not take what is sent. It may be so for a time.
Those who are so are kept in the order in which they came to be so: whose time is up is always the first.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from time import monotonic
from typing import Any, NamedTuple

import httptools
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from featurestore.online import Reading
from featurestore.plurals import plural
from featurestore.server.edge import PLAIN, PLAIN_HEAD, SECURITY, PlainHead
from featurestore.server.hot_routes import BegunAnswer
from featurestore.server.problems import BadRequest, HttpAnswer, LimitError, problem_of
from featurestore.server.received import CAME, HEAD, HEADERS
from featurestore.server.request_ids import REQUEST_ID, note_ids, request_id_of
from featurestore.server.sender import Sender
from featurestore.settings import ServerConfig

LOOK_SECONDS = 0.5
"""Seconds between two looks for connections whose time is up; a fifth of the least limit, where that is less."""

LEAVE_SECONDS, LEAVING = 2.0, 100
"""Seconds for which the bytes of those who were refused are thrown away, and of how many at a time."""

PIPELINED = 100
"""Requests that one connection may send before the first of them is answered."""

PIECE_BYTES = 16 << 10
"""Bytes that are parsed before the limits are looked at again; a socket gives 256 KiB at once."""

FIELDS = 100
"""Fields of a head."""

BESIDE = 2
"""Bytes that a message may have beside each byte of its body, such as the sizes of chunks, and twice `header_bytes` more."""

KNOWN_BYTES, KNOWN_TRIES = 4096, 4
"""Bytes of a head that is kept for the next request, and how many in a row may be kept for nothing."""

PLAIN_TRIES = 4
"""How many lookups in a row may be begun by plain functions for nothing."""

_EACH_ITS_OWN = {b"transfer-encoding", b"expect", b"upgrade", b"x-request-id", b"traceparent"}
"""Fields of a head whose request is not whole, or that the next one has not again."""

_LENGTH = b"content-length"
_LOGGER = logging.getLogger("featurestore.server")
_ABSOLUTE = re.compile(rb"[a-z][a-z0-9+.-]*://([^/?#]*)", re.IGNORECASE)


class Connections:
    """All connections of one event loop. refused: told of each refusal, which no application sees."""

    def __init__(self, config: ServerConfig, refused: Callable[[BadRequest], None]) -> None:
        self.config, self.refused = config, refused
        self.open: set[Connection] = set()
        self.idle: dict[Connection, float] = {}
        self.receiving: dict[Connection, float] = {}
        self.stalled: dict[Connection, float] = {}
        self.leaving: dict[Connection, float] = {}
        self.malformed = 0
        self.is_draining = False

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
        told = -1.0
        while True:
            await asyncio.sleep(every)
            now = loop.time()
            if self.malformed and now - told >= 1:
                _LOGGER.warning("Refused what is no HTTP: %d times since the last such line", self.malformed)
                self.malformed, told = 0, now
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

    def drain(self) -> None:
        """Let every connection end with its next answer, so that its client asks another server."""
        self.is_draining = True
        for connection in self.open:
            connection.end_with_answer()

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


class Flow(FlowControl):
    """Whether a connection is read: not while it is held, even where other code lets it be read meanwhile."""

    _is_held = False
    _is_wanted = True

    def hold(self) -> None:
        """Read no more for now."""
        self._is_wanted = not self.read_paused
        super().pause_reading()
        self._is_held = True

    def release(self) -> None:
        """Read again, unless somebody paused it."""
        self._is_held = False
        if self._is_wanted and not self._transport.is_closing():
            super().resume_reading()

    def pause_reading(self) -> None:
        """Read no more."""
        self._is_wanted = False
        super().pause_reading()

    def resume_reading(self) -> None:
        """Read again, once it is not held."""
        self._is_wanted = True
        if not self._is_held:
            super().resume_reading()


class _KnownHead(NamedTuple):
    """The head of a request as it was parsed. A client sends the same one again and again, but for the length of the body: `before` and
    `after` are what stands around that, and `place` is its number among the fields."""

    before: bytes
    after: bytes
    scope: dict[str, Any]
    headers: list[tuple[bytes, bytes]]
    place: int
    by_name: dict[bytes, bytes]

    def body_of(self, data: bytes) -> bytes | None:
        """The body of a whole request that begins with this head; None where some bytes are not that."""
        if not data.startswith(self.before):
            return None
        end = data.find(b"\r", len(self.before))
        if end < 0 or not data.startswith(self.after, end):
            return None
        body = data[end + len(self.after) :]
        return body if data[len(self.before) : end] == b"%d" % len(body) else None


def _known_head(data: bytes, scope: dict[str, Any], headers: list[tuple[bytes, bytes]]) -> _KnownHead | None:
    """The head of a request of which some bytes are the whole; None where it is not to be kept."""
    end = data.find(b"\r\n\r\n")
    names = [name for name, _ in headers]
    if end > KNOWN_BYTES or names.count(_LENGTH) != 1 or not _EACH_ITS_OWN.isdisjoint(names):
        return None
    place, at = names.index(_LENGTH), 0
    for line in data[:end].split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == _LENGTH:
            digits = value.strip(b" \t")
            begin = at + line.index(digits, len(name) + 1)
            after = data[begin + len(digits) : end + 4]
            found = _KnownHead(data[:begin], after, {**scope, HEAD: {}}, headers, place, dict(headers))
            return found if digits and found.body_of(data) is not None else None
        at += len(line) + 2
    return None


class _WholeCycle(RequestResponseCycle):
    """Of a request that was all there when it began."""

    def __init__(self, of: Connection) -> None:
        super().__init__(
            scope={},  # type: ignore[typeddict-item]  # begin() gives it
            transport=of.transport,
            flow=of.flow,
            logger=of.logger,
            access_logger=of.access_logger,
            access_log=of.access_log,
            default_headers=of.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=True,
            on_response=of.on_response_complete,
        )
        self.more_body = False
        self._whole: bytes | None = None

    def begin(self, scope: dict[str, Any], body: bytes) -> None:
        """Be of a request that the application is to answer."""
        self.scope, self._whole = scope, body  # type: ignore[assignment]
        self.response_started = self.response_complete = False

    async def receive(self) -> Any:
        """The body, and then that the client has gone, once that is so."""
        body, self._whole = self._whole, None
        if body is None or self.disconnected:
            return await super().receive()
        return {"type": "http.request", "body": body, "more_body": False}


class Connection(HttpToolsProtocol):
    """One connection of the server that `featurestore serve` runs."""

    _all: Connections
    _chunk = _fed = _body_fed = _trailer_bytes = _begun = _tries = _in_vain = 0
    _known: _KnownHead | None = None
    _spare: _WholeCycle | None = None
    """One whose request was answered without it."""
    _parsed: dict[str, Any]
    _in_message = _in_head = _refused = _is_behind = False
    _why: BadRequest | None = None
    _last: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection, or refuse it."""
        super().connection_made(transport)  # type: ignore[arg-type]  # uvicorn's type of a transport is narrower than asyncio's
        self.flow: Flow = Flow(self.transport)
        self._all = self.app_state["connections"]
        self._now = self.loop.time
        self._behind = bytearray()  # what has come and is not read yet
        self._cycles: deque[RequestResponseCycle] = deque()  # of requests that are not answered yet, the oldest first
        if not self._all.make_room():
            detail = (
                f"There are {len(self._all.open)} {plural(len(self._all.open), 'connection')}, and no more are taken"
            )
            self.refuse(LimitError("connections", detail, status=503))
            return
        self._all.open.add(self)
        self._all.idle[self] = self._now()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._refused = True
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
        """Read some bytes: a piece of them now, and the others in turn with all else that the event loop does."""
        if self._refused:
            return
        if self._behind or len(data) > PIECE_BYTES:
            self._behind += data
            if not self._is_behind:
                self._is_behind = True
                self.flow.hold()
                self._catch_up()
            return
        self._take(data)

    def _catch_up(self) -> None:
        """Read a piece of what has come."""
        if not self._refused and not self.transport.is_closing():
            piece = bytes(self._behind[:PIECE_BYTES])
            del self._behind[:PIECE_BYTES]
            self._take(piece)
        if self._refused or self.transport.is_closing():
            self._behind.clear()
        if self._behind:
            self.loop.call_soon(self._catch_up)
        else:
            self._is_behind = False
            self.flow.release()

    def _take(self, data: bytes) -> None:
        """Read a piece, unless there are too many bytes for a head, or beside a body."""
        is_first, begun = not self._in_message, self._begun
        if is_first and self._known is not None and self._takes_known(self._known, data):
            return
        self._chunk = len(data)
        self._fed += len(data)
        self._read(data)
        if not self._in_message:
            self._fed = 0
            if is_first and self._begun == begun + 1 and self._tries < KNOWN_TRIES:
                self._learn(data)
        elif not self._refused and not self.transport.is_closing():
            self._all.idle.pop(self, None)
            self._all.receiving.setdefault(self, self._now())
            limit = self._all.config.header_bytes
            if self._in_head and self._fed > limit:
                self.refuse(self._too_large())
            elif self._fed - self._body_fed > 2 * limit + BESIDE * self._body_fed:
                self.refuse(BadRequest("The body comes in chunks that are too small, or has too much beside it"))

    def _takes_known(self, known: _KnownHead, data: bytes) -> bool:
        """Begin the request that some bytes are, without parsing its head again; False where they are no whole one with that head, or
        something is to be done that is not usual."""
        if not self.cycle.response_complete or self._all.is_draining or self.transport.is_closing():
            return False
        body = known.body_of(data)
        if body is None:
            return False
        self._tries = 0
        self._all.idle.pop(self, None)
        plain: PlainHead | None = known.scope[HEAD].get(PLAIN)
        begun = None if plain is None or not self._is_plain(plain) else plain.edge.begin(plain, body)
        reading = None if begun is None else begun.lookup.reading
        if begun is not None and isinstance(reading, Reading) and self._answers(known, begun, reading):
            self.server_state.total_requests += 1
            self._rest()
            return True
        self.cycle = cycle = self._spare or _WholeCycle(self)
        self._spare = None
        self._cycles.append(cycle)
        if begun is None or reading is None or isinstance(reading, Reading):
            self._begin_whole(known, cycle, body)
        else:
            cycle.response_started = cycle.response_complete = False
            reading.add_done_callback(partial(self._go_on_plainly, known, begun, cycle, body, monotonic()))
        return True

    def _begin_whole(self, known: _KnownHead, cycle: _WholeCycle, body: bytes, came: float | None = None) -> None:
        """Have the application answer a request. came: when it did, by the monotonic clock, where that was before."""
        length, headers = b"%d" % len(body), known.headers.copy()
        headers[known.place] = _LENGTH, length
        scope: Any = {
            **known.scope, "headers": headers, "state": self.app_state.copy(), HEADERS: {**known.by_name, _LENGTH: length},
        }  # fmt: skip
        if came is not None:
            scope[CAME] = came
        if self.cycle is cycle:
            self.scope, self.headers = scope, headers
        cycle.begin(scope, body)
        self._start_asgi_task(cycle, self.app)

    def _is_plain(self, head: PlainHead) -> bool:
        """Whether requests may be answered without a task: nobody stands around the edge, and the client takes what is sent."""
        return getattr(self.app, "edge", None) is head.edge and not self.flow.write_paused

    def _go_on_plainly(
        self, known: _KnownHead, begun: BegunAnswer, cycle: _WholeCycle, body: bytes, came: float,
        done: asyncio.Future[Reading],
    ) -> None:  # fmt: skip
        """What was begun has its reading, or has none: then, and where the connection is not any more as it was, it is answered as any other
        request, and finds the same."""
        has_none = done.cancelled() or done.exception() is not None
        is_usual = cycle.keep_alive and not cycle.disconnected and not self.flow.write_paused
        if self._answers(known, begun, None if has_none or not is_usual else done.result()):
            cycle.response_started = cycle.response_complete = True
            self._spare = cycle  # nobody else knows it
            cycle.on_response()
        else:
            self._begin_whole(known, cycle, body, came)

    def _answers(self, known: _KnownHead, begun: BegunAnswer, reading: Reading | None) -> bool:
        """Send what a reading answers; where it answers nothing again and again, the next requests with this head are not begun so."""
        head = known.scope[HEAD]
        answer = head[PLAIN].edge.end(begun, reading)
        if answer is not None:
            self.transport.write(PLAIN_HEAD.whole(self.server_state.default_headers, *answer))
        self._in_vain = 0 if answer is not None else self._in_vain + 1
        if self._in_vain > PLAIN_TRIES:
            head[PLAIN] = None
        return answer is not None

    def _learn(self, data: bytes) -> None:
        """Keep the head of the request that some bytes were, where the next one may have the same."""
        self._known, self._tries = None, self._tries + 1
        if not self._refused and self.cycle.keep_alive and self.limit_concurrency is None:
            self._known = _known_head(data, self._parsed, self.headers)

    def _read(self, data: bytes) -> None:
        """Have some bytes parsed. An `Upgrade` is ignored, as RFC 9110 lets a server do: the parser, which would take the rest
        for another protocol, is given the head anew without it."""
        while data:
            try:
                self.parser.feed_data(data)
                data = b""
            except httptools.HttpParserUpgrade as upgrade:
                data = self._head_without_upgrade() + data[upgrade.args[0] :]
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            except httptools.HttpParserError:
                if self._why is None:
                    self._all.malformed += 1
                self.refuse(self._why or BadRequest("The request is no HTTP/1.1"))
                data = b""

    def _head_without_upgrade(self) -> bytes:
        first = f"{self.scope['method']} {self.url.decode('latin-1')} HTTP/{self.scope['http_version']}".encode(
            "latin-1"
        )
        lines = [first]
        for name, value in self.headers:
            kept = value
            if name == b"connection":
                kept = b", ".join(one for one in map(bytes.strip, value.split(b",")) if one.lower() != b"upgrade")
            if name != b"upgrade":
                lines.append(name + b": " + kept)
        return b"\r\n".join([*lines, b"", b""])

    def on_message_begin(self) -> None:
        """The first byte of a request; of the bytes that are being read, those before it belonged to others."""
        super().on_message_begin()
        self._begun += 1
        self._in_message = self._in_head = True
        self._fed, self._chunk, self._body_fed, self._trailer_bytes = max(self._chunk, 0), 0, 0, 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head. Those that follow a body in chunks are counted and dropped: who asks, and for what, stands in
        the head alone."""
        if not self._in_head:
            self._trailer_bytes += len(name) + len(value) + len(b": \r\n")
            if self._trailer_bytes > self._all.config.header_bytes:
                self._why = self._too_large()
        elif len(self.headers) >= FIELDS:
            self._why = LimitError("header_bytes", f"The head has more than {FIELDS} fields", status=431)
        else:
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            self.headers.append((name, value))
        if self._why is not None:
            raise self._why

    def on_headers_complete(self) -> None:
        """The whole head is there: the request begins."""
        limit = self._all.config.header_bytes
        if self._fed > limit and len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > limit:
            self._why = self._too_large()
        elif len(self.pipeline) >= PIPELINED:
            detail = f"More than {PIPELINED} requests came before the first was answered"
            self._why = LimitError("requests", detail, status=429)
        elif self.parser.get_method() == b"CONNECT":
            self._why = BadRequest("CONNECT is not taken: this is no proxy", 405)
        if self._why is not None:
            raise self._why  # the parser ends, and has the refusal sent
        if self.parser.should_upgrade():
            self.scope["method"] = self.parser.get_method().decode("ascii")
            self.scope["http_version"] = self.parser.get_http_version()
            return  # it comes again, without
        self._in_head = False
        self._all.idle.pop(self, None)
        self._take_host_of_target()
        super().on_headers_complete()
        self._parsed = {**self.scope}
        if self._all.is_draining:
            self.end_with_answer()
        self._cycles.append(self.cycle)

    def end_with_answer(self) -> None:
        """End with the answer to the last request that came, where it is not given yet, and say so in it."""
        if self.cycle is not None and not self.cycle.response_started:
            self.cycle.keep_alive = False

    def _take_host_of_target(self) -> None:
        """Where the target says a host, that is the one that is meant, whatever `Host` says (RFC 9112, 3.2.2)."""
        target = None if self.url.startswith(b"/") else _ABSOLUTE.match(self.url)
        if target is None:
            return
        places = [place for place, (name, _) in enumerate(self.headers) if name == b"host"]
        for place in places:
            self.headers[place] = (b"host", target[1])
        if not places:
            self.headers.append((b"host", target[1]))

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._body_fed += len(body)
        self._chunk -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The whole request is there."""
        if self._in_head:
            return  # it comes again, without `Upgrade`
        self._in_message = False
        self._all.receiving.pop(self, None)
        super().on_message_complete()
        self._rest()

    def on_response_complete(self) -> None:
        """The whole answer is given to the socket. What is left of the request that it answers is not read."""
        answered = self._cycles.popleft()
        self._go_on()
        if answered.more_body or answered is self._last:
            self.flow.resume_reading()
            self._leave()
        else:
            self._rest()

    def _go_on(self) -> None:
        """Begin the next request that came, as uvicorn does, but without a timer: `Connections` ends who is idle for too long."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        super()._start_asgi_task(cycle, partial(self._answer, cycle, app))

    def _rest(self) -> None:
        """Idle from now on, where nothing is under way."""
        if not self._in_message and self.cycle.response_complete and not self.transport.is_closing():
            self._all.idle[self] = self._now()

    async def _answer(self, cycle: RequestResponseCycle, app: Any, scope: Scope, receive: Receive, _: Send) -> None:
        await app(scope, receive, Sender(cycle, self._ends_with))

    def _ends_with(self, cycle: RequestResponseCycle) -> None:
        self._last = cycle

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
        return LimitError(
            "header_bytes",
            f"The head is larger than {self._all.config.header_bytes} {plural(self._all.config.header_bytes, 'byte')}",
            status=431,
        )

    def refuse(self, error: BadRequest) -> None:
        """HttpAnswer with a problem, where no other answer has begun, and end the connection.

        The client may still be sending, and would not see the answer if its bytes found nobody: they are thrown away until
        it has seen the end.
        """
        self._refused = True
        cycle = self.cycle
        self._all.refused(error)
        if cycle is None or cycle.response_complete:
            speaks = cycle is None or self._in_head  # else it is the rest of what was answered
        else:
            speaks = not cycle.response_started and not self.pipeline and not self._in_head
            self._end_cycles()
        if speaks:
            self.transport.write(self._problem(error))
            self._leave()
        else:
            self._forget()
            self.transport.close()

    def _problem(self, error: BadRequest) -> bytes:
        scope: dict[str, Any] = {**self.scope} if self._has_path() else {"path": "/"}
        note_ids(scope, dict(self.headers) if self._has_path() else {})
        request_id = request_id_of(scope)
        answer = problem_of(error, scope["path"], request_id)
        return _whole(answer._replace(headers={**answer.headers, REQUEST_ID: request_id}))

    def _leave(self) -> None:
        """Send no more, and throw away what still comes, unparsed, until the client has seen the end."""
        self._refused = True
        self._forget()
        if len(self._all.leaving) < LEAVING and not self.transport.is_closing():
            self._all.leaving[self] = self._now()
            if self.transport.can_write_eof():  # TLS cannot
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
