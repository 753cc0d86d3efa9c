"""The edge: what every request crosses, once, whichever route takes it."""

from __future__ import annotations

import hashlib
import logging
from base64 import b64encode
from collections.abc import Mapping
from time import perf_counter

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from featurestore.access.authentication import Authentication
from featurestore.durable.disk import came_of_full
from featurestore.errors import FeatureStoreError
from featurestore.server.admission import admit
from featurestore.server.limits import ServerLimits
from featurestore.server.metrics import CLOSED, Metrics
from featurestore.server.origins import BODIES, check_origin, check_type, has_body
from featurestore.server.page import STYLE
from featurestore.server.problems import ERROR, BadRequest, problem_of
from featurestore.server.received import counted

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
"""What is answered however many requests are under way: whoever watches the server must not take it for dead."""


class HttpEdge:
    """One way for all requests of an application: they are admitted, answered and told of.

    hot: by path, the routes that are answered here. rest: the application that answers all else.
    """

    def __init__(
        self,
        limits: ServerLimits,
        authentication: Authentication,
        metrics: Metrics,
        hot: Mapping[str, ASGIApp],
        rest: ASGIApp,
    ) -> None:
        self._limits, self._authentication, self._metrics, self._hot, self._rest = (
            limits,
            authentication,
            metrics,
            hot,
            rest,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        came, metrics = perf_counter(), self._metrics
        path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        counts = path not in ALWAYS
        begun = False
        is_head = scope["method"] == "HEAD"  # the same as GET, without a body

        async def told(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                metrics.answered(scope, path, message["status"], perf_counter() - came)
                message["headers"] = [*message.get("headers", ()), *SECURITY]
            elif is_head:
                message["body"] = b""
            await send(message)

        entered = False
        try:
            headers = dict(scope["headers"])
            if counts:
                self._limits.enter()
                entered = True
            hot = self._hot.get(path) if scope["method"] == "POST" else None
            self._check(scope, headers, typed=hot is not None)
            await admit(self._authentication, scope, path)
            if hot is not None:
                await hot(scope, receive, told)
            else:
                asked = {**scope, "method": "GET"} if is_head else scope
                await self._rest(asked, counted(headers, receive, self._limits), told)
        except ClientDisconnect:
            if not begun:
                metrics.answered(scope, path, CLOSED, perf_counter() - came)
        except (BadRequest, FeatureStoreError) as error:
            scope[ERROR] = error
            await problem_of(error, scope["path"])(told)
        except Exception as error:
            if begun:
                raise  # whoever runs this ends the connection, and logs why
            _log(error, scope["method"], path)
            await problem_of(error, scope["path"])(told)
        finally:
            if entered:
                self._limits.leave()

    def _check(self, scope: Scope, headers: Mapping[bytes, bytes], *, typed: bool) -> None:
        """Whether a request is taken at all, whoever asks."""
        check_origin(scope, headers, self._limits.config.hosts)
        if typed or (scope["method"] in BODIES and has_body(headers)):
            check_type(headers)


def _log(error: Exception, method: str, path: str) -> None:
    """What nobody foresaw; a full disk is told of where it is answered."""
    if not came_of_full(error):
        _LOGGER.error("%s %s", method, path, exc_info=error)
