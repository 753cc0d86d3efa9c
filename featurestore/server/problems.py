"""Errors as RFC 9457 problem details: one table from the error tree to HTTP."""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Mapping, Sequence
from functools import cache
from http import HTTPStatus
from typing import Any, Literal, NamedTuple

import orjson
from fastapi import Request, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.types import Message, Send

from featurestore.durable.disk import came_of_full
from featurestore.elsewhere import elsewhere
from featurestore.errors import (
    AccessUnavailableError,
    FeatureStoreError,
    FingerprintError,
    ForbiddenError,
    LogBusyError,
    LogUnavailableError,
    MaterializeError,
    NotFoundError,
    NotMaterializedError,
    OnDemandError,
    OnlineStoreError,
    OnlineUnavailableError,
    PushError,
    RegistryUnavailableError,
    RequestError,
    RowsChangedError,
    UnauthenticatedError,
)
from featurestore.server.request_ids import request_id_of

PROBLEM = "application/problem+json"

STATUS: tuple[tuple[type[Exception], int, str], ...] = (
    (UnauthenticatedError, 401, "No key, or a wrong one"),
    (ForbiddenError, 403, "Not allowed"),
    (AccessUnavailableError, 503, "Who asks cannot be looked up"),
    (RequestError, 422, "The request's values are wrong"),
    (RowsChangedError, 409, "The rows were changed meanwhile"),
    (PushError, 422, "The rows are not as their source declares"),
    (NotFoundError, 404, "Not found"),
    (FingerprintError, 409, "Other definitions than the model's"),
    (NotMaterializedError, 503, "Not materialized"),
    (OnDemandError, 422, "An on-demand feature failed"),
    (OnlineUnavailableError, 503, "The online store cannot be reached"),
    (OnlineStoreError, 500, "The online store failed"),
    (RegistryUnavailableError, 503, "The registry cannot be reached"),
    (MaterializeError, 409, "Another run goes on"),
    (LogBusyError, 503, "The push log is held by another process"),
    (LogUnavailableError, 503, "The push log cannot be reached"),
    (FeatureStoreError, 500, "The feature store failed"),
)
"""The first row whose error fits decides."""


class BadRequest(Exception):  # noqa: N818 - a response, raised
    """A request that is refused for what it is, and not for what it asks."""

    kind = "bad-request"
    title = "The request cannot be read"

    def __init__(self, detail: str, status: int = 400) -> None:
        super().__init__(detail)
        self.status = status


class ForeignError(BadRequest):
    """A request that a foreign web page may have sent."""

    kind = "foreign"
    title = "Not from here"


class LimitError(BadRequest):
    """A request beyond a limit; setting: the key of `[server]` that sets it."""

    kind = "limit"
    title = "Beyond a limit"

    def __init__(self, setting: str, detail: str, *, status: int = 422) -> None:
        super().__init__(detail, status)
        self.setting = setting


RETRY_AFTER_SECONDS = 1
"""Seconds after which a client that was refused with 429 or 503 may ask again."""


ERROR = "featurestore.error"
"""Where the scope of a request has the error that it is answered with."""

REFUSALS = {UnauthenticatedError: "unauthenticated", ForbiddenError: "forbidden", ForeignError: "origin"}


def refusal_reason(error: Exception) -> str | None:
    """Why a request was refused: the setting whose limit it passes, or what is wrong with its principal; None where it was taken."""
    if isinstance(error, LimitError):
        return error.setting
    return next((reason for kind, reason in REFUSALS.items() if isinstance(error, kind)), None)


FULL_RETRY_SECONDS = 60
"""Seconds after which a client that was refused since the disk is full may ask again."""

UNTOLD_LOG_SECONDS = 60.0
"""Seconds between two lines in the log that say the same of what clients are not told."""

FULL_TITLE = "The server's disk is full"
FULL_DETAIL = "The server has no room to write. Send the same request again later"

_LOGGER = logging.getLogger("featurestore.server")


class UntoldLog:
    """Tells the operator what its clients are not told, such as a path; not each time. what: why requests are refused."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._told: float | None = None

    def tell(self, error: Exception, request_id: str | None) -> None:
        """A line in the log, unless there was one just now."""
        now = time.monotonic()
        if self._told is None or now - self._told >= UNTOLD_LOG_SECONDS:
            self._told = now
            said = "%s, and requests are refused for it: %s"
            _LOGGER.error(said, self._what, error, extra={"request_id": request_id})


_full_log = UntoldLog("The disk is full")
_access_log = UntoldLog("Who asks cannot be looked up")

NOBODY_KNOWN = "Who has which key cannot be looked up just now. Try again in a moment"
"""What a client that was not let in is told then: not what is away, nor where. The server's log has that."""


EXAMPLE_ID = "6f0c6a6f0b9d4cf1a3c4b8a1d6f0e9b2"


class Problem(BaseModel):
    """What went wrong, as RFC 9457 has it."""

    type: str = Field(examples=["urn:featurestore:NotFound"])
    title: str = Field(examples=["Not found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["No feature view 'delays' was applied. Did you mean 'delay'?"])
    instance: str = Field(examples=["/v1/online-features"])
    request_id: str | None = Field(None, description="What the request is called in the logs", examples=[EXAMPLE_ID])
    limit: str | None = Field(
        None, description="Where a limit is passed: the setting of [server] that sets it", examples=["lookup_rows"]
    )
    kept: Literal["yes", "no", "unknown"] | None = Field(
        None, description="Where a push failed: whether its rows are kept all the same", examples=["no"]
    )
    changes: list[dict[str, str | None]] | None = Field(
        None,
        description="Where a fingerprint is refused: field, before (as the model knew it) and after (as it is applied)",
        examples=[[{"field": "parts.carrier_delays.view.ttl", "before": "2d", "after": "3d"}]],
    )


def described(status: int, text: str, *, kind: str, detail: str, path: str = "/v1/online-features") -> dict[str, Any]:
    """How OpenAPI tells of a problem, with an example of it."""
    title = next((title for of, _, title in STATUS if of.__name__ == f"{kind}Error"), text)
    example = _body(status, title, detail, kind=kind, path=path) | {"request_id": EXAMPLE_ID}
    return {"description": text, "content": {PROBLEM: {"schema": _schema(), "example": example}}}


@cache
def _schema() -> dict[str, Any]:
    """What `Problem` is, as JSON Schema: a server tells of some twenty problems, and each time it would be made anew."""
    return Problem.model_json_schema()


SENT_BYTES = 256 << 10
"""Bytes of an answer that are given to the server at once, which keeps them until the client took them."""


class HttpAnswer(NamedTuple):
    """An answer whose bytes are all there: a piece, or several for one that is long."""

    status: int
    media_type: str
    pieces: Sequence[bytes]
    headers: Mapping[str, str] = {}

    @property
    def size(self) -> int:
        """Its bytes."""
        return len(self.pieces[0]) if len(self.pieces) == 1 else sum(map(len, self.pieces))

    def start(self) -> Message:
        """The ASGI message with which it begins."""
        headers = [(b"content-type", self.media_type.encode()), (b"content-length", b"%d" % self.size)]
        if self.headers:
            headers += [(name.lower().encode(), value.encode("latin-1")) for name, value in self.headers.items()]
        return {"type": "http.response.start", "status": self.status, "headers": headers}

    async def __call__(self, send: Send) -> None:
        """Send it over ASGI, not more at once than the server shall keep until the client takes it."""
        await send(self.start())
        if len(self.pieces) == 1 and len(self.pieces[0]) <= SENT_BYTES:
            await send({"type": "http.response.body", "body": self.pieces[0]})
            return
        last = len(self.pieces) - 1
        for number, piece in enumerate(self.pieces):
            for at in range(0, len(piece) or 1, SENT_BYTES):
                more = number < last or at + SENT_BYTES < len(piece)
                part = piece if len(piece) <= SENT_BYTES else piece[at : at + SENT_BYTES]
                await send({"type": "http.response.body", "body": part, "more_body": more})

    def of_request(self, request_id: str) -> HttpAnswer:
        """A problem that was found for several requests, with the id of one of them."""
        body = orjson.loads(b"".join(self.pieces)) | {"request_id": request_id}
        return self._replace(pieces=[orjson.dumps(body)])

    def response(self) -> Response:
        """The same for a route of FastAPI."""
        return Response(b"".join(self.pieces), self.status, self.headers, self.media_type)


def problem(
    status: int, title: str, detail: str, *, kind: str, path: str, headers: Mapping[str, str] | None = None,
    more: Mapping[str, Any] | None = None,
) -> HttpAnswer:  # fmt: skip
    """A problem-details answer; more: members beside those that every problem has."""
    body = _body(status, title, detail, kind=kind, path=path) | dict(more or {})
    again = {"Retry-After": str(RETRY_AFTER_SECONDS)} if status in {429, 503} else {}
    return HttpAnswer(status, PROBLEM, [orjson.dumps(body)], {**again, **(headers or {})})


LONGEST_WORD, LONGEST_DETAIL = 200, 4_000
"""Characters that are told of one word, such as a name that a request asks for, and of a whole detail; what is longer was chosen by
the client."""

_LONG_WORD = re.compile(rf"(\S{{{LONGEST_WORD}}})\S+")


def _body(status: int, title: str, detail: str, *, kind: str, path: str) -> dict[str, Any]:
    told, at = _cut(detail), _cut(path)
    return {"type": f"urn:featurestore:{kind}", "title": title, "status": status, "detail": told, "instance": at}


def _cut(text: str) -> str:
    """A text that is not longer for a name in it that is."""
    if len(text) <= LONGEST_WORD:
        return text
    shorter = _LONG_WORD.sub(r"\1…", text)
    return shorter if len(shorter) <= LONGEST_DETAIL else f"{shorter[:LONGEST_DETAIL]}…"


def problem_of(error: Exception, path: str, request_id: str | None = None) -> HttpAnswer:
    """The answer to an error that this product raised; to any other one that tells the client nothing."""
    more: dict[str, Any] = {} if request_id is None else {"request_id": request_id}
    if isinstance(error, BadRequest):
        more |= {"limit": error.setting} if isinstance(error, LimitError) else {}
        return problem(error.status, error.title, str(error), kind=error.kind, path=path, more=more)
    more |= {"kept": error.kept} if isinstance(error, FeatureStoreError) and error.kept is not None else {}
    if came_of_full(error):
        _full_log.tell(error, request_id)
        again = {"Retry-After": str(FULL_RETRY_SECONDS)}
        return problem(507, FULL_TITLE, FULL_DETAIL, kind="disk-full", path=path, headers=again, more=more)
    detail = str(error)
    if isinstance(error, AccessUnavailableError):
        _access_log.tell(error, request_id)
        detail = NOBODY_KNOWN
    for kind, status, title in STATUS:
        if isinstance(error, kind):
            name = type(error).__name__.removesuffix("Error")
            more |= {"changes": _changes(error)} if isinstance(error, FingerprintError) else {}
            return problem(status, title, detail, kind=name, path=path, headers=_told(error), more=more)
    detail = f"{type(error).__name__}; see the server's log"
    return problem(500, "Unexpected error", detail, kind="unexpected", path=path, more=more)


def _told(error: Exception) -> dict[str, str]:
    """What headers tell: to a client that is not let in what RFC 6750 has told, and when a store is asked again that is away."""
    if isinstance(error, OnlineUnavailableError) and error.retry_after_seconds is not None:
        return {"Retry-After": str(max(RETRY_AFTER_SECONDS, math.ceil(error.retry_after_seconds)))}
    if isinstance(error, UnauthenticatedError):
        return {"WWW-Authenticate": error.challenge}
    if isinstance(error, ForbiddenError):
        return {"WWW-Authenticate": f'Bearer realm="featurestore", error="insufficient_scope", scope="{error.scope}"'}
    return {}


def _changes(error: FingerprintError) -> list[dict[str, str | None]]:
    return [{"field": field, "before": before, "after": after} for field, before, after in error.changes]


async def answer_error(request: Request, error: Exception) -> Response:
    """The response of a route of FastAPI to an error."""
    request.scope[ERROR] = error
    return problem_of(error, request.url.path, request_id_of(request.scope)).response()


async def answer_http(request: Request, error: Exception) -> Response:
    """The response to a path or method that there is not; `Allow` and the like stay."""
    assert isinstance(error, HTTPException)
    path, status = request.url.path, HTTPStatus(error.status_code)
    instead = elsewhere("HTTP", path) or "/docs lists what there is"
    details = {404: f"There is no {path}; {instead}", 405: f"{path} does not take {request.method}"}
    detail = details.get(status, str(error.detail))
    kind = status.name.lower().replace("_", "-")
    more = {"request_id": request_id_of(request.scope)}
    return problem(status, status.phrase, detail, kind=kind, path=path, headers=error.headers, more=more).response()
