"""Errors as RFC 9457 problem details: one table from the error tree to HTTP."""

from __future__ import annotations

import orjson
from fastapi import Request, Response

from featurestore.errors import (
    FeatureStoreError,
    FingerprintError,
    NotFoundError,
    NotMaterializedError,
    OnDemandError,
    OnlineStoreError,
    OnlineUnavailableError,
    RequestError,
)

__all__ = ["BadRequest", "answer_error", "answer_unexpected", "problem"]

STATUS: tuple[tuple[type[Exception], int, str], ...] = (
    (RequestError, 422, "The request's values are wrong"),
    (NotFoundError, 404, "Not found"),
    (FingerprintError, 409, "Other definitions than the model's"),
    (NotMaterializedError, 503, "Not materialized"),
    (OnDemandError, 422, "An on-demand feature failed"),
    (OnlineUnavailableError, 503, "The online store cannot be reached"),
    (OnlineStoreError, 500, "The online store failed"),
    (FeatureStoreError, 500, "The feature store failed"),
)
"""The first row whose error fits decides."""


class BadRequest(Exception):  # noqa: N818 - a response, raised
    """A request that cannot be read at all."""

    def __init__(self, detail: str, status: int = 400) -> None:
        super().__init__(detail)
        self.status = status


def problem(status: int, title: str, detail: str, *, kind: str, path: str) -> Response:
    """A problem-details response."""
    body = {"type": f"urn:featurestore:{kind}", "title": title, "status": status, "detail": detail, "instance": path}
    return Response(orjson.dumps(body), status_code=status, media_type="application/problem+json")


async def answer_error(request: Request, error: Exception) -> Response:
    """The response to an error that this product raised."""
    if isinstance(error, BadRequest):
        return problem(
            error.status, "The request cannot be read", str(error), kind="bad-request", path=request.url.path
        )
    status, title = next((status, title) for kind, status, title in STATUS if isinstance(error, kind))
    name = type(error).__name__.removesuffix("Error")
    return problem(status, title, str(error), kind=name, path=request.url.path)


async def answer_unexpected(request: Request, error: Exception) -> Response:
    """The response to anything else: the log has the traceback, the client none."""
    return problem(
        500,
        "Unexpected error",
        f"{type(error).__name__}; see the server's log",
        kind="unexpected",
        path=request.url.path,
    )
