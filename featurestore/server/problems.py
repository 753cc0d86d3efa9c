"""Errors as RFC 9457 problem details: one table from the error tree to HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import Request, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from featurestore.errors import (
    FeatureStoreError,
    FingerprintError,
    LogBusyError,
    NotFoundError,
    NotMaterializedError,
    OnDemandError,
    OnlineStoreError,
    OnlineUnavailableError,
    PushError,
    RequestError,
)

PROBLEM = "application/problem+json"

STATUS: tuple[tuple[type[Exception], int, str], ...] = (
    (RequestError, 422, "The request's values are wrong"),
    (PushError, 422, "The rows are not as their source declares"),
    (NotFoundError, 404, "Not found"),
    (FingerprintError, 409, "Other definitions than the model's"),
    (NotMaterializedError, 503, "Not materialized"),
    (OnDemandError, 422, "An on-demand feature failed"),
    (OnlineUnavailableError, 503, "The online store cannot be reached"),
    (OnlineStoreError, 500, "The online store failed"),
    (LogBusyError, 503, "The push log is held by another process"),
    (FeatureStoreError, 500, "The feature store failed"),
)
"""The first row whose error fits decides."""


class BadRequest(Exception):  # noqa: N818 - a response, raised
    """A request that cannot be read at all."""

    def __init__(self, detail: str, status: int = 400) -> None:
        super().__init__(detail)
        self.status = status


class Problem(BaseModel):
    """What went wrong, as RFC 9457 has it."""

    type: str = Field(examples=["urn:featurestore:NotFound"])
    title: str = Field(examples=["Not found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["No feature view 'delays' was applied. Did you mean 'delay'?"])
    instance: str = Field(examples=["/v1/online-features"])
    changes: list[dict[str, str | None]] | None = Field(
        None,
        description="Where a fingerprint is refused: field, before (as the model knew it) and after (as it is applied)",
        examples=[[{"field": "parts.carrier_delays.view.ttl", "before": "2d", "after": "3d"}]],
    )


def described(status: int, text: str, *, kind: str, detail: str, path: str = "/v1/online-features") -> dict[str, Any]:
    """How OpenAPI tells of a problem, with an example of it."""
    title = next((title for of, _, title in STATUS if of.__name__ == f"{kind}Error"), text)
    example = _body(status, title, detail, kind=kind, path=path)
    schema = Problem.model_json_schema()
    return {"description": text, "content": {PROBLEM: {"schema": schema, "example": example}}}


def problem(
    status: int, title: str, detail: str, *, kind: str, path: str, headers: Mapping[str, str] | None = None,
    more: Mapping[str, Any] | None = None,
) -> Response:  # fmt: skip
    """A problem-details response; more: members beside those that every problem has."""
    body = _body(status, title, detail, kind=kind, path=path) | dict(more or {})
    return Response(orjson.dumps(body), status_code=status, headers=headers, media_type=PROBLEM)


def _body(status: int, title: str, detail: str, *, kind: str, path: str) -> dict[str, Any]:
    return {"type": f"urn:featurestore:{kind}", "title": title, "status": status, "detail": detail, "instance": path}


async def answer_error(request: Request, error: Exception) -> Response:
    """The response to an error that this product raised."""
    if isinstance(error, BadRequest):
        return problem(
            error.status, "The request cannot be read", str(error), kind="bad-request", path=request.url.path
        )
    status, title = next((status, title) for kind, status, title in STATUS if isinstance(error, kind))
    name = type(error).__name__.removesuffix("Error")
    more = {"changes": _changes(error)} if isinstance(error, FingerprintError) else None
    return problem(status, title, str(error), kind=name, path=request.url.path, more=more)


def _changes(error: FingerprintError) -> list[dict[str, str | None]]:
    return [{"field": field, "before": before, "after": after} for field, before, after in error.changes]


async def answer_http(request: Request, error: Exception) -> Response:
    """The response to a path or method that there is not; `Allow` and the like stay."""
    assert isinstance(error, HTTPException)
    path, status = request.url.path, HTTPStatus(error.status_code)
    details = {404: f"There is no {path}; /docs lists what there is", 405: f"{path} does not take {request.method}"}
    detail = details.get(status, str(error.detail))
    kind = status.name.lower().replace("_", "-")
    return problem(status, status.phrase, detail, kind=kind, path=path, headers=error.headers)


async def answer_unexpected(request: Request, error: Exception) -> Response:
    """The response to anything else: the log has the traceback, the client none."""
    return problem(
        500,
        "Unexpected error",
        f"{type(error).__name__}; see the server's log",
        kind="unexpected",
        path=request.url.path,
    )
