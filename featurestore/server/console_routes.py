"""The routes of the console: its files, a form to sign in, and pages, which are made in threads of their own."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import parse_qsl, quote, unquote

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from featurestore.access.api_keys import key_id
from featurestore.access.authentication import Authentication
from featurestore.access.principal import Principal
from featurestore.access.sessions import LASTS_SECONDS, Sessions
from featurestore.console import Console
from featurestore.console.addresses import ROOT, ServerAddresses
from featurestore.console.console import HTML
from featurestore.console.files import files
from featurestore.console.page import PageRequest
from featurestore.console.rendering import compile_templates
from featurestore.errors import (
    AccessError,
    AccessUnavailableError,
    FeatureStoreError,
    LogError,
    OnlineStoreError,
    RegistryError,
    UnauthenticatedError,
)
from featurestore.server.admission import admit_browser
from featurestore.server.limits import Room, ServerLimits
from featurestore.server.problems import (
    ERROR,
    NOBODY_KNOWN,
    BadRequest,
    ForeignError,
    HttpAnswer,
    LimitError,
    problem,
    problem_of,
)
from featurestore.server.received import received
from featurestore.server.request_ids import request_id_of
from featurestore.store import FeatureStore

FORM = b"application/x-www-form-urlencoded"
"""What a browser sends of a form."""

LOGIN, LOGOUT, FILES = f"{ROOT}/login", f"{ROOT}/logout", f"{ROOT}/files/"

SECURITY = (
    (b"x-content-type-options", b"nosniff"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"referrer-policy", b"same-origin"),  # without any, browsers say of a form that it comes from nowhere
)
"""The headers of the console's answers: scripts and styles are its own files, and nothing else is loaded or framed."""

THREADS = 2
"""Threads that make pages. What may take minutes, such as an audit, has one of its own, in which one comes after the other."""

WAITING = 20
"""Pages that are made or wait for that, and so many of those that take long; what is beyond is refused. So nobody who asks for many
audits keeps the others from their pages."""

LOGIN_BYTES = 4 << 10
"""Bytes of a form that signs in."""

T = TypeVar("T")


def is_console(path: str) -> bool:
    """Whether a path is one of the console's."""
    return path == ROOT or path.startswith(f"{ROOT}/")


class ConsoleRoutes:
    """An ASGI application that answers what `is_console`; who may see it is asked here, since a browser is shown a form."""

    def __init__(
        self, store: FeatureStore, limits: ServerLimits, authentication: Authentication, sessions: Sessions
    ) -> None:
        self._limits, self._authentication, self._sessions = limits, authentication, sessions
        self._console = Console(store)
        compile_templates()  # before anybody looks
        # Cookies of one host are those of all its ports.
        self._cookie = f"featurestore_{hashlib.sha256(store.config.project.encode()).hexdigest()[:8]}"
        self._threads = ThreadPoolExecutor(THREADS, "featurestore-console")
        self._long = ThreadPoolExecutor(1, "featurestore-console-long")
        self._waiting = {self._threads: 0, self._long: 0}

    def close(self) -> None:
        """End the threads, once the pages are made that they are at; of those that wait for that, nobody waits any more."""
        for threads in (self._threads, self._long):
            threads.shutdown(cancel_futures=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request that the edge has let through."""
        prefix = scope.get("root_path", "")
        path: str = scope["path"].removeprefix(prefix)
        method = scope["method"]
        if path in {LOGIN, LOGOUT} and method == "POST":
            _check_own(scope)
            answer = await (self._login(scope, receive, prefix) if path == LOGIN else self._logout(scope, prefix))
        elif method not in {"GET", "HEAD"}:
            raise BadRequest(f"{path[:100]} does not take {method[:20]}", 405)
        elif _is_embedded_elsewhere(scope):
            raise ForeignError("Pages of the console are no part of another site's page", 403)
        elif path.startswith(FILES):
            answer = _file(path.removeprefix(FILES), _query(scope).get("v"))
        else:
            answer = await self._page(scope, receive, path.removeprefix(ROOT).strip("/"), prefix)
        await answer(send)

    async def _page(self, scope: Scope, receive: Receive, path: str, prefix: str) -> HttpAnswer:
        query = _query(scope)
        session = self._session(scope)
        try:
            principal = await admit_browser(self._authentication, self._sessions, scope, session)
        except AccessUnavailableError as error:
            if _names_itself(scope) or query.get("format", "html") != "html":
                raise
            return self._unknown(scope, error, prefix, then=_address(scope, prefix))
        except UnauthenticatedError as error:
            if _names_itself(scope) or query.get("format", "html") != "html":
                raise
            scope[ERROR] = error
            return self._form(prefix, then=_address(scope, prefix), status=HTTPStatus.UNAUTHORIZED)
        has_session = self._authentication.is_on and not _names_itself(scope)
        answer = partial(
            self._console.answer, "" if path == "login" else path, query, principal=principal, prefix=prefix,
            has_session=has_session,
        )  # fmt: skip
        try:
            threads = self._long if self._console.takes_long(path, query) else self._threads
            made = await self._beside(answer, threads, receive)
        except (FeatureStoreError, OSError) as error:
            scope[ERROR] = error
            refused = _refused(error, scope)
            if query.get("format", "html") != "html":
                return refused._replace(headers={**NOT_KEPT, **refused.headers})
            frame = self._console.frame(addresses=ServerAddresses(prefix), principal=principal, has_session=has_session)
            body = frame.error(HTTPStatus(refused.status).phrase, str(error), request_id_of(scope))
            # What is asked for once a page is there is told in that page, too, where it fails; base.html says how else errors are taken.
            told = {"HX-Reswap": "outerHTML"} if PageRequest("", query).is_run else {}
            return HttpAnswer(refused.status, HTML, [body], {**NOT_KEPT, **refused.headers, **told})
        return HttpAnswer(200, made.media_type, [made.body], {**NOT_KEPT, **made.headers})

    async def _beside(self, call: Callable[[], T], threads: ThreadPoolExecutor, receive: Receive) -> T:
        """What is made in a thread of the console's, so that lookups wait neither for it nor behind it. Where the visitor leaves while
        it waits for its turn, it is never made; what is being made already is made to its end, and nobody waits for it.

        Raises ClientDisconnect then."""
        if self._waiting[threads] >= WAITING:
            raise LimitError("requests", f"{WAITING} pages are being made, and no more are taken", status=429)
        self._waiting[threads] += 1
        try:
            there = copy_context()
            made = asyncio.get_running_loop().run_in_executor(threads, partial(there.run, call))
            left = asyncio.ensure_future(_left(receive))
            try:
                either: list[asyncio.Future[Any]] = [made, left]
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if not made.done():
                    raise ClientDisconnect
                return made.result()
            finally:
                left.cancel()
                made.cancel()
        finally:
            self._waiting[threads] -= 1

    # --- signing in and out ------------------------------------------------------------------

    async def _login(self, scope: Scope, receive: Receive, prefix: str) -> HttpAnswer:
        headers = dict(scope["headers"])
        with Room(self._limits, "anonymous") as room:
            if int(headers.get(b"content-length", LOGIN_BYTES + 1)) > LOGIN_BYTES:
                raise BadRequest(f"A form that signs in has at most {LOGIN_BYTES} bytes", 413)
            body = await received(headers, receive, self._limits, room)
        form = dict(parse_qsl(body.decode("latin-1")))
        then, key = _own_address(form.get("then", ""), prefix), form.get("key", "").strip()
        try:
            principal = await self._holder(key)
        except AccessUnavailableError as error:
            return self._unknown(scope, error, prefix, then=then)
        except AccessError as error:
            scope[ERROR] = error
            status = problem_of(error, LOGIN).status
            return self._form(prefix, then=then, why=str(error), status=status)
        number = key_id(key)
        assert number is not None, principal
        cookie = (
            f"{self._cookie}={self._sessions.signed(number)}; Max-Age={LASTS_SECONDS}; {_attributes(scope, prefix)}"
        )
        return HttpAnswer(303, HTML, [b""], {**NOT_KEPT, "Location": then, "Set-Cookie": cookie})

    async def _holder(self, key: str) -> Principal:
        """The principal of a key, who may see the console."""
        if key_id(key) is None:
            raise UnauthenticatedError("This is no API key: it has not the shape of one", challenge="")
        principal = await self._authentication.aauthenticate([(b"x-api-key", key.encode())])
        principal.must("read")
        return principal

    async def _logout(self, scope: Scope, prefix: str) -> HttpAnswer:
        gone = f"{self._cookie}=; Max-Age=0; {_attributes(scope, prefix)}"
        return HttpAnswer(303, HTML, [b""], {**NOT_KEPT, "Location": f"{prefix}{ROOT}", "Set-Cookie": gone})

    def _form(self, prefix: str, *, then: str, status: int, why: str = "") -> HttpAnswer:
        frame = self._console.frame(addresses=ServerAddresses(prefix))
        body = frame.login(then=then, why=why, action=f"{prefix}{LOGIN}")
        return HttpAnswer(status, HTML, [body], NOT_KEPT)

    def _unknown(self, scope: Scope, error: AccessUnavailableError, prefix: str, *, then: str) -> HttpAnswer:
        """The form, where nobody can look up who asks. Nobody is let in, and so nobody is told what is away, or where."""
        scope[ERROR] = error
        again = problem_of(error, LOGIN, request_id_of(scope))
        form = self._form(prefix, then=then, status=again.status, why=NOBODY_KNOWN)
        return form._replace(headers={**form.headers, **again.headers})

    def _session(self, scope: Scope) -> str | None:
        """The session among the request's cookies. Programs at other ports of the host, and other hosts of its domain, may have put
        cookies of the same name beside it, which are none."""
        found = None
        for name, value in scope["headers"]:
            if name == b"cookie":
                for part in value.decode("latin-1").split(";"):
                    word, _, said = part.strip().partition("=")
                    if word == self._cookie:
                        found = str(said)
                        if self._sessions.key_of(found) is not None:
                            return found
        return found


NOT_KEPT: Mapping[str, str] = {"Cache-Control": "no-store"}

UNREADABLE = (RegistryError, OnlineStoreError, LogError, OSError)
"""Errors of what a page is made of: something that lies elsewhere is away, locked, damaged, or may not be read. The server goes on."""


def _refused(error: Exception, scope: Scope) -> HttpAnswer:
    """The answer to an error of a page. Of what cannot be read it says what and where with 503, and when to ask again where that
    passes by itself."""
    path, number = scope["path"], request_id_of(scope)
    found = problem_of(error, path, number)
    if found.status != HTTPStatus.INTERNAL_SERVER_ERROR or not isinstance(error, UNREADABLE):
        return found
    told = problem(503, "It cannot be read", str(error), kind="unreadable", path=path, more={"request_id": number})
    return told if getattr(error, "retry", False) else told._replace(headers={})


async def _left(receive: Receive) -> None:
    """Wait until nobody is there any more."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _names_itself(scope: Scope) -> bool:
    """Whether a request brings a key or a token in its headers, as programs do."""
    return any(name in {b"authorization", b"x-api-key"} for name, _ in scope["headers"])


def _is_embedded_elsewhere(scope: Scope) -> bool:
    """Whether another site's page asks for this beside itself, as for a picture: nobody would see it, and it might take minutes. A link
    that somebody follows is another thing."""
    headers = dict(scope["headers"])
    mode = headers.get(b"sec-fetch-mode", b"navigate")
    return headers.get(b"sec-fetch-site") in {b"cross-site", b"same-site"} and (
        mode != b"navigate" or headers.get(b"sec-fetch-dest", b"document") != b"document"
    )


def _check_own(scope: Scope) -> None:
    """ForeignError where a form may not have come from a page of ours. The edge has refused each `Origin` but our own; a browser
    that says none says at least from what kind of site a form comes."""
    headers = dict(scope["headers"])
    if b"origin" not in headers and headers.get(b"sec-fetch-site") != b"same-origin":
        raise ForeignError(
            "A form is taken from a page of the console alone; this request does not say where it is from", 403
        )


def _attributes(scope: Scope, prefix: str) -> str:
    """What a browser shall do with the cookie: show it to no script, and send it for nobody's page but ours."""
    is_secure = scope.get("scheme") == "https" or dict(scope["headers"]).get(b"origin", b"").startswith(b"https:")
    secure = (
        "; Secure" if is_secure else ""
    )  # the origin is the browser's own word, also where something before us ends TLS
    return f"Path={prefix}{ROOT}; HttpOnly; SameSite=Strict{secure}"


def _address(scope: Scope, prefix: str) -> str:
    """The address that was asked for, where it leads after signing in."""
    asked = scope.get("query_string", b"").decode("latin-1")
    return _own_address(quote(scope["path"], safe="/:@~") + (f"?{asked}" if asked else ""), prefix)


def _own_address(said: str, prefix: str) -> str:
    """An address of the console; that of its first page where it is none, or leads elsewhere."""
    path = said.partition("?")[0]
    is_plain = said.isascii() and said.isprintable() and "\\" not in said and " " not in said
    own = unquote(path.removeprefix(prefix))  # browsers take %2e for a dot
    is_own = path.startswith(prefix) and is_console(own) and own not in {LOGIN, LOGOUT} and "/../" not in f"{own}/"
    return said if is_plain and is_own else f"{prefix}{ROOT}"


def _file(name: str, version: str | None) -> HttpAnswer:
    """A file, which may be kept under the address of its own version alone: while servers are renewed, one is asked for what
    another has."""
    found = files().get(name)
    if found is None:
        raise BadRequest("The console has no such file", 404)
    keep = {"Cache-Control": "public, max-age=31536000, immutable"} if version == found.version else NOT_KEPT
    return HttpAnswer(200, found.media_type, [found.content], keep)


def _query(scope: Scope) -> dict[str, str]:
    """The words of an address; of two of a name, the last one."""
    return dict(parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True))
