"""The edge: what every request crosses, once, whichever route takes it."""

from __future__ import annotations

import hashlib
import logging
from base64 import b64encode
from collections.abc import Container, Mapping
from contextlib import suppress
from time import monotonic, perf_counter
from typing import NamedTuple

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from featurestore.access.authentication import Authentication, Credential
from featurestore.console.addresses import ROOT
from featurestore.durable.disk import came_of_full
from featurestore.errors import FeatureStoreError
from featurestore.online import Reading
from featurestore.server.access_log import AccessLog
from featurestore.server.admission import admit, admit_at_once
from featurestore.server.compatible.routes import CompatibleRoute, CompatibleRoutes
from featurestore.server.console_routes import FORM, ConsoleRoutes, is_console
from featurestore.server.console_routes import SECURITY as CONSOLE_SECURITY
from featurestore.server.hot_routes import JSON, BegunAnswer, HotRoutes, patience_of, wants_arrow
from featurestore.server.limits import ServerLimits
from featurestore.server.metrics import CLOSED, Metrics
from featurestore.server.origins import BODIES, check_origin, check_type, has_body
from featurestore.server.page import STYLE
from featurestore.server.problems import ERROR, BadRequest, LimitError, problem_of
from featurestore.server.received import CAME, HEAD, counted, headers_of
from featurestore.server.request_ids import HEADER, note_ids, request_id_of
from featurestore.server.sender import UsualHead

_LOGGER = logging.getLogger("featurestore.server")

_STYLE = b64encode(hashlib.sha256(STYLE.encode()).digest())
SECURITY = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; style-src 'sha256-%s'; frame-ancestors 'none'" % _STYLE),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)
"""The headers of every answer: nothing of it is run, framed, embedded, kept or told elsewhere."""

ALWAYS = {"/healthz", "/readyz", "/metrics"}
"""What is answered however many requests are under way: a probe must not take the server for dead."""


LOOKUPS, PUSHES = "/v1/online-features", "/v1/push"
"""The paths of the hot routes."""

FORMS = frozenset({FORM})

CHECKED = "checked"
"""What is kept of a head by which a request was taken."""

PLAIN = "plain"
"""What is kept of a head of lookups: a PlainHead, where plain functions may answer the next requests that have it; None where not."""


class _Passing:
    """One request on its way through the edge, and what has become of it. status: CLOSED until an answer begins; size: bytes of
    its body that were sent; route: that of another platform, where it is one; security: headers that its answer gets."""

    __slots__ = ("_came", "_metrics", "_path", "_scope", "_send", "is_head", "route", "security", "size", "status")

    def __init__(self, scope: Scope, path: str, send: Send, metrics: Metrics) -> None:
        self._came = perf_counter() - (monotonic() - scope[CAME] if CAME in scope else 0.0)
        self._scope, self._path, self._send, self._metrics = scope, path, send, metrics
        self.is_head = scope["method"] == "HEAD"  # the same as GET, without a body
        self.status, self.size = CLOSED, 0
        self.route: CompatibleRoute | None = None
        self.security = SECURITY

    async def answer(self, message: Message) -> None:
        """Send a part of the answer, with what every answer has."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self._metrics.answered(self._scope, self._path, self.status, perf_counter() - self._came)
            own = (HEADER, request_id_of(self._scope).encode("ascii"))
            message["headers"] = [*message.get("headers", ()), own, *self.security]
        elif self.is_head:
            message["body"] = b""
        else:
            self.size += len(message.get("body", b""))
        await self._send(message)

    async def refuse(self, error: Exception) -> None:
        """Answer with a problem."""
        self.security = SECURITY
        answer = problem_of(error, self._scope["path"], request_id_of(self._scope))
        if self.route is not None:
            answer = self.route.platform.problem(answer, error)
        await answer(self.answer)

    def left(self) -> None:
        """The client hung up."""
        if self.status == CLOSED:
            self._metrics.answered(self._scope, self._path, CLOSED, perf_counter() - self._came)

    def note(self, log: AccessLog) -> None:
        """It is over."""
        route = self._metrics.route(self._scope, self._path)
        log.note(
            self._scope, route=route, status=self.status or None, seconds=perf_counter() - self._came, size=self.size
        )


class PlainHead(NamedTuple):
    """What plain functions need to know of a head: the edge that has them, who asks, and for how many seconds he waits."""

    edge: HttpEdge
    brought: Credential | None
    seconds: float


PLAIN_HEAD = UsualHead(200, [(b"content-type", JSON.encode())], SECURITY)
"""Of the answers that plain functions give."""


class HttpEdge:
    """One way for all requests of an application: they are admitted, answered and told of.

    hot: by path, the routes that are answered here, but for lookups, which `lookups` answers. compatible: those of other platforms. console: the pages for browsers. rest: the
    application that answers all else.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - each is a way that a request may take, or what all of them pass
        self,
        limits: ServerLimits,
        authentication: Authentication,
        metrics: Metrics,
        lookups: HotRoutes,
        rest: ASGIApp,
        access_log: AccessLog | None = None,
        compatible: CompatibleRoutes | None = None,
        console: ConsoleRoutes | None = None,
    ) -> None:
        self._limits, self._authentication, self._metrics = limits, authentication, metrics
        self._lookups, self._rest, self._access_log, self._compatible = lookups, rest, access_log, compatible
        self._hot = {LOOKUPS: lookups.lookup, PUSHES: lookups.push}
        self._console = console

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: PLR0912 - one for each way of a request
        """Answer one request."""
        path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        console = self._console if is_console(path) else None
        passing = _Passing(scope, path if console is None else ROOT, send, self._metrics)
        entered = False
        if self._compatible is not None:
            passing.route = self._compatible.route_of(scope, path)
        try:
            headers = _headers(scope)
            if path not in ALWAYS:
                self._limits.enter()
                entered = True
            hot = self._hot.get(path) if scope["method"] == "POST" else None
            also: Container[bytes] = () if passing.route is None else passing.route.platform.types
            self._check(scope, headers, typed=hot is not None, also=also if console is None else FORMS)
            if console is not None:
                passing.security = CONSOLE_SECURITY
                await console(scope, receive, passing.answer)
                return
            await admit(self._authentication, scope, path, passing.route)
            if hot is not None:
                self._keep(scope, path, headers, passing.route)
                await hot(scope, receive, passing.answer)
            elif passing.route is not None:
                await passing.route.answer(scope, receive, passing.answer)
            else:
                asked = {**scope, "method": "GET"} if passing.is_head else scope
                await self._rest(asked, counted(headers, receive, self._limits), passing.answer)
        except ClientDisconnect:
            passing.left()
        except (BadRequest, FeatureStoreError) as error:
            scope[ERROR] = error
            await passing.refuse(error)
        except Exception as error:
            if passing.status != CLOSED:
                raise  # the HTTP server ends the connection, and logs why
            _log(error, scope, path)
            await passing.refuse(error)
        finally:
            if entered:
                self._limits.leave()
            if self._access_log is not None:
                passing.note(self._access_log)
            scope.pop(ERROR, None)  # whose traceback holds the request, which would stay until cycles are looked for

    def _keep(self, scope: Scope, path: str, headers: Mapping[bytes, bytes], route: CompatibleRoute | None) -> None:
        """Keep of the head of a lookup that the next ones may be begun by plain functions; nothing of one that is refused, which
        whoever reads its body does, in its turn."""
        if HEAD in scope and path == LOOKUPS and route is None and not wants_arrow(headers):
            config = self._limits.config
            with suppress(BadRequest):
                seconds = patience_of(headers, config.lookup_seconds)
                head = PlainHead(self, self._authentication.credential(scope["headers"]), seconds)
                scope[HEAD].setdefault(PLAIN, head)

    def begin(self, head: PlainHead, body: bytes) -> BegunAnswer | None:
        """Begin to answer a request by plain functions: without a task and a chain of coroutines, which take as long as all that a lookup
        of one row does (`python -m benchmarks fast-paths`). None: it is to be answered as any
        other is, as if it had just come; so is what is refused, or is not usual in any other way."""
        came = perf_counter()
        scope: Scope = {"method": "POST"}
        begun = None
        try:
            self._limits.enter()
        except LimitError:
            return None
        try:
            if admit_at_once(self._authentication, scope, head.brought, LOOKUPS):
                begun = self._lookups.begin(scope, head.seconds, body, came)
        except Exception:  # noqa: BLE001 - whatever it is, the usual way meets it again, and answers
            begun = None
        if begun is None:
            self._limits.leave()
        return begun

    def end(self, begun: BegunAnswer, reading: Reading | None) -> tuple[str, bytes] | None:
        """The id and the body of the answer to what was begun, whose head is PLAIN_HEAD. None: it is to be answered as any other is, and so
        where there is no reading."""
        self._limits.leave()
        if reading is None:
            return None
        try:
            answer = self._lookups.end(begun, reading)
        except Exception:  # noqa: BLE001 - see `begin`
            return None
        if answer is None:
            return None
        scope, seconds = begun.scope, perf_counter() - begun.came
        self._metrics.answered(scope, LOOKUPS, answer.status, seconds)
        if self._access_log is not None:
            self._access_log.note(scope, route=LOOKUPS, status=answer.status, seconds=seconds, size=answer.size)
        return request_id_of(scope), answer.pieces[0]

    def _check(self, scope: Scope, headers: Mapping[bytes, bytes], *, typed: bool, also: Container[bytes]) -> None:
        """Whether a request is taken at all, whatever its principal."""
        head = scope.get(HEAD)
        if head is not None and CHECKED in head:
            return
        check_origin(scope, headers, self._limits.config.hosts)
        if typed or (scope["method"] in BODIES and has_body(headers)):
            check_type(headers, also=also)
            if head is not None:
                head[CHECKED] = True


def _headers(scope: Scope) -> Mapping[bytes, bytes]:
    """The headers of a request, by whose ids it is known from now on; a head that came before has none."""
    headers = headers_of(scope)
    if HEAD not in scope:
        note_ids(scope, headers)
    return headers


def _log(error: Exception, scope: Scope, path: str) -> None:
    """What nobody foresaw; a full disk is told of where it is answered."""
    if not came_of_full(error):
        _LOGGER.error("%s %s", scope["method"], path, exc_info=error, extra={"request_id": request_id_of(scope)})
