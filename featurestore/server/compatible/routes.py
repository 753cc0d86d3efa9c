"""The routes of other platforms: how a request finds one, and what a platform says of all of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Mapping
from typing import NamedTuple

import orjson
from starlette.routing import compile_path
from starlette.types import ASGIApp, Scope

from featurestore.access.authentication import Headers
from featurestore.server.problems import HttpAnswer


def as_sent(headers: Headers) -> Headers:
    """The headers of a platform whose clients send a key as ours do."""
    return headers


class Platform(NamedTuple):
    """What holds for all routes of a platform."""

    problem: Callable[[HttpAnswer, Exception], HttpAnswer]
    """What the platform answers in place of a problem of ours."""
    credentials: Callable[[Headers], Headers] = as_sent
    """A request's headers, with a key where ours is."""
    types: Container[bytes] = ()
    """Names of JSON that its clients use, beside application/json."""


def worded(answer: HttpAnswer, codes: Mapping[int, str], otherwise: str) -> tuple[int, str, str]:
    """The status of a problem of ours, a platform's word for it, and what is wrong. codes: by status the platform's words, of which that
    of 400 is for all others below 500, and `otherwise` for those above."""
    status = 400 if answer.status == 422 else answer.status
    word = codes.get(answer.status, otherwise if status >= 500 else codes[400])
    return status, word, orjson.loads(answer.pieces[0])["detail"]


class CompatibleRoute(NamedTuple):
    """A route of another platform. path: with {names}, as metrics have it; needs: the scope, None: none."""

    platform: Platform
    method: str
    path: str
    needs: str | None
    answer: ASGIApp


class CompatibleRoutes:
    """The routes of several platforms."""

    def __init__(self, routes: Iterable[CompatibleRoute]) -> None:
        self._of_method: dict[str, list[tuple[re.Pattern[str], CompatibleRoute]]] = {}
        for route in routes:
            self._of_method.setdefault(route.method, []).append((compile_path(route.path)[0], route))

    @property
    def paths(self) -> frozenset[str]:
        """The paths, with {names}."""
        return frozenset(route.path for routes in self._of_method.values() for _, route in routes)

    def route_of(self, scope: Scope, path: str) -> CompatibleRoute | None:
        """The route of a request, which its scope has then, with what stands in the path; None where there is none."""
        for pattern, route in self._of_method.get(scope["method"], ()):
            if found := pattern.match(path):
                scope["route"], scope["path_params"] = route, found.groupdict()
                return route
        return None
