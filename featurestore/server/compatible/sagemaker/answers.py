"""What is answered: an operation's members, or an error under the platform's name of it."""

from __future__ import annotations

from typing import Any

import orjson

from featurestore.server.hot_routes import JSON
from featurestore.server.json_answers import within
from featurestore.server.problems import BadRequest, HttpAnswer, problem_of

CONTROL = "application/x-amz-json-1.1"
"""The media type of the operations on feature groups."""

NAMES = {403: "AccessForbidden", 404: "ResourceNotFound", 409: "ConflictException", 503: "ServiceUnavailable"}
STATUSES = {401: 403, 421: 403, 429: 503, 507: 503}
"""By the status of a problem the one that the platform has for it; of others below 500 it is 400, above 500."""

MESSAGE_LENGTH = 2048


class ConflictError(BadRequest):
    """A record that is older than the one it would change."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, 409)


def answer(told: Any, most: int = 1 << 30) -> HttpAnswer:
    """The members of an answer, None for no body; LimitError where they have more bytes than that."""
    return HttpAnswer(200, JSON, within([b"" if told is None else orjson.dumps(told)], most))


def problem(answer: HttpAnswer, _: Exception) -> HttpAnswer:
    """A problem of ours as the platform's error."""
    name, status = _named(answer.status)
    refused = refusal(name, orjson.loads(answer.pieces[0])["detail"], status)
    return refused._replace(headers={**answer.headers, **refused.headers})


def refusal(name: str, detail: str, status: int) -> HttpAnswer:
    """An error by the platform's name."""
    body = {"Message": detail[:MESSAGE_LENGTH], "__type": name}
    return HttpAnswer(status, JSON, [orjson.dumps(body)], {"x-amzn-ErrorType": name})


def named_error(error: Exception) -> tuple[str, str]:
    """The platform's name of an error, and our words."""
    answer = problem_of(error, "")
    return _named(answer.status)[0], orjson.loads(answer.pieces[0])["detail"]


def _named(status: int) -> tuple[str, int]:
    """The platform's name and status of a problem of ours."""
    status = STATUSES.get(status, status if status in NAMES else 500 if status >= 500 else 400)
    return NAMES.get(status, "InternalFailure" if status >= 500 else "ValidationError"), status
