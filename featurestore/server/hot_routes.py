"""The routes of models and of those who push, in plain ASGI: they take what is small on the event loop, what is large in a lane."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Mapping, Sequence
from functools import partial
from time import monotonic
from typing import Any, NamedTuple

import orjson
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from featurestore.access.principal import Principal
from featurestore.errors import OnlineUnavailableError
from featurestore.push.push_queue import PushAnswer
from featurestore.server.admission import principal_of
from featurestore.server.bodies import (
    ARROW,
    AskedLookup,
    arrow_body,
    long_texts,
    may_have_long_texts,
    patience_seconds,
    read_push,
    read_request,
    request_id,
)
from featurestore.server.json_answers import json_body
from featurestore.server.limits import SMALL_BYTES, SMALL_SECONDS, SMALL_VALUES, Room, ServerLimits
from featurestore.server.metrics import Metrics
from featurestore.server.problems import SENT_BYTES, HttpAnswer, LimitError
from featurestore.server.received import received
from featurestore.serving.online_result import OnlineResult
from featurestore.store import FeatureStore
from featurestore.training.manifest import Manifest

JSON = "application/json"
STORE_SHARE = 0.9
"""How much of the time of a large lookup the online store may take; what is left is for the answer."""

LEAST_SECONDS = 0.001
"""Seconds that are left at least, so that what took too long ends as what takes too long."""

COSTS_HELD = 1_000
"""Services and lists of features whose cost is remembered."""

FORGETS = 0.9
"""How much of what a row once took is still expected after one that took less: keys that are not known take next to nothing, and a
thread that had to wait for others takes more than its work."""


class _Cost(NamedTuple):
    """What one row of a lookup takes."""

    columns: int
    seconds: float


class HotRoutes:
    """Lookups and pushes over one store. pinned: the manifests by service, whose versions are served to whoever names none."""

    def __init__(
        self, store: FeatureStore, pinned: Mapping[str, Manifest], limits: ServerLimits, metrics: Metrics
    ) -> None:
        self._store, self._pinned, self._limits, self._config = store, pinned, limits, limits.config
        self._metrics = metrics
        self._costs: dict[str | tuple[str, ...], _Cost] = {}

    # --- lookups ------------------------------------------------------------------------------

    async def lookup(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The features of each row, as of now; JSON, or an Arrow IPC stream by `Accept`."""
        headers, principal = dict(scope["headers"]), principal_of(scope)
        given = request_id(headers.get(b"x-request-id"))
        due = monotonic() + patience_seconds(headers.get(b"x-request-timeout"), self._config.lookup_seconds)
        as_arrow = ARROW.encode() in headers.get(b"accept", b"")
        with Room(self._limits, principal.name) as room:
            body = await received(headers, receive, self._limits, room)
            asked = read_request(body, self._config) if len(body) <= SMALL_BYTES else None
            may_read_registry = asked is not None and not asked.is_service and principal.only_on is not None
            if asked is not None and self._is_small(asked, body) and not may_read_registry:
                self._check_access(asked, principal)
                result = asked.checked(
                    await self._store.aget_online_features(
                        asked.rows, asked.features, fingerprint=self._version(asked), json=True, request_id=given,
                        within_seconds=_left(due), when_unavailable=self._config.when_unavailable,
                    )
                )  # fmt: skip
                answer = self._answer(scope, asked, result, as_arrow=as_arrow)
            else:
                work = partial(self._looked_up, scope, asked or body, given, due, as_arrow=as_arrow)
                answer = await self._beside(room, work, due)
            del body
            await self._send(answer, room, send)

    async def _beside(self, room: Room, work: Callable[[], HttpAnswer], due: float) -> HttpAnswer:
        """The answer of a lane; OnlineUnavailableError where there is none in time, whatever the lanes wait for."""
        try:
            async with asyncio.timeout(_left(due)):
                return await room.beside(work)
        except TimeoutError:
            raise OnlineUnavailableError(
                "The lookup was not answered in the time that it was given; ask for fewer rows, or later"
            ) from None

    def _check_access(self, asked: AskedLookup, principal: Principal) -> None:
        """ForbiddenError where whoever asks is limited to other services and views than those."""
        if principal.only_on is None:
            return
        names = [asked.features] if isinstance(asked.features, str) else asked.features
        services = (
            {*names} if asked.is_service else self._store.registry.current().document["services"]
        )  # a name that a service and a view share is the service's
        principal.must(
            "read", *(f"service:{name}" if name in services else f"view:{name.partition(':')[0]}" for name in names)
        )

    def _version(self, asked: AskedLookup) -> str | None:
        """The fingerprint to serve, where the request or a manifest says one."""
        if asked.fingerprint is None and isinstance(asked.features, str) and asked.features in self._pinned:
            return self._pinned[asked.features].fingerprint
        return asked.fingerprint

    def _is_small(self, asked: AskedLookup, body: bytes) -> bool:
        """Whether it takes the event loop so little time that a thread is not worth its while."""
        rows, cost = len(asked.rows), self._costs.get(_name(asked))
        if cost is None:
            return rows == 1 and len(body) <= self._config.key_bytes
        if rows * cost.columns > SMALL_VALUES or rows * cost.seconds > SMALL_SECONDS:
            return False
        if len(body) <= self._config.key_bytes:
            return True
        return not may_have_long_texts(body, self._config.key_bytes) or not long_texts(
            asked.rows, self._config.key_bytes
        )

    def _remember(self, asked: AskedLookup, result: OnlineResult) -> None:
        """What it took, so that it is known of the next request."""
        if result.is_unavailable:  # which took next to nothing
            return
        name, seconds = _name(asked), result.work_seconds / len(result)
        before = self._costs.get(name)
        if before is None and len(self._costs) >= COSTS_HELD:
            self._costs.clear()
        expected = seconds if before is None else max(seconds, before.seconds * FORGETS)
        self._costs[name] = _Cost(len(result.columns), expected)

    def _looked_up(
        self, scope: Scope, given: AskedLookup | bytes, request: str | None, due: float, *, as_arrow: bool
    ) -> HttpAnswer:
        asked = read_request(given, self._config) if isinstance(given, bytes) else given
        self._check_access(asked, principal_of(scope))
        version = self._version(asked)

        def keys() -> Container[str]:
            service = self._store.lookup(asked.features, version).service
            return {name for part in service.parts for name in part.inputs}

        self._check_keys(asked.rows, keys)
        result = asked.checked(
            self._store.get_online_features(
                asked.rows, asked.features, fingerprint=version, json=True, request_id=request,
                within_seconds=STORE_SHARE * _left(due), when_unavailable=self._config.when_unavailable,
            )
        )  # fmt: skip
        return self._answer(scope, asked, result, as_arrow=as_arrow)

    def _answer(self, scope: Scope, asked: AskedLookup, result: OnlineResult, *, as_arrow: bool) -> HttpAnswer:
        self._remember(asked, result)
        write, media_type = (arrow_body, ARROW) if as_arrow else (json_body, JSON)
        answer = HttpAnswer(200, media_type, write(result, self._config.answer_bytes))
        self._metrics.looked_up(scope, result, is_service=asked.is_service)
        return answer

    # --- pushes -------------------------------------------------------------------------------

    async def push(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Keep rows of a push source: on the disk, and seen by the next lookup, when it answers."""
        headers, principal = dict(scope["headers"]), principal_of(scope)
        given = request_id(headers.get(b"x-request-id"))
        due = monotonic() + patience_seconds(headers.get(b"x-request-timeout"), self._config.push_seconds)
        with Room(self._limits, principal.name) as room:
            body = await received(headers, receive, self._limits, room)
            if len(body) <= SMALL_BYTES:
                source, rows = read_push(body, self._config)
                principal.must("push", f"source:{source}")
                most = self._config.key_bytes
                if may_have_long_texts(body, most) and long_texts(rows, most):
                    await room.beside(partial(self._check_pushed_keys, source, rows))
                pushed = await self._store.apush(
                    source, rows, json=True, who=principal.name, request_id=given, within_seconds=_left(due)
                )
            else:
                source, kept = await room.beside(partial(self._submitted, body, principal, given))
                pushed = await kept.awaited(_left(due))
            self._metrics.pushed(scope, source, pushed)
            await self._send(HttpAnswer(200, JSON, [orjson.dumps(pushed.to_dict())]), room, send)

    def _submitted(self, body: bytes, principal: Principal, request: str | None) -> tuple[str, PushAnswer]:
        source, rows = read_push(body, self._config)
        principal.must("push", f"source:{source}")
        self._check_pushed_keys(source, rows)
        return source, self._store.submit_push(source, rows, json=True, who=principal.name, request_id=request)

    def _check_pushed_keys(self, source: str, rows: Sequence[Any]) -> None:
        self._check_keys(rows, lambda: self._store.key_columns(source))

    def _check_keys(self, rows: Sequence[Any], keys: Callable[[], Container[str]]) -> None:
        """LimitError where a text is too long for a key and is one; keys: the names of those that are."""
        found = long_texts(rows, self._config.key_bytes)
        names = keys() if found else ()
        for name, (row, size) in found.items():
            if name in names:
                detail = f"Row {row}: '{name}' has {size} bytes; at most {self._config.key_bytes} are taken in a key"
                raise LimitError("key_bytes", detail)

    # --- answers ------------------------------------------------------------------------------

    async def _send(self, answer: HttpAnswer, room: Room, send: Send) -> None:
        """Send an answer; what is long counts until the client took it, and is given up where that takes too long."""
        size = sum(map(len, answer.pieces))
        if size <= SENT_BYTES:  # the server keeps all of it, whether the client takes it or not
            await answer(send)
            return
        room.add(size)
        try:
            async with asyncio.timeout(self._config.answer_seconds):
                await answer(send)
        except TimeoutError:
            raise ClientDisconnect from None


def _left(due: float) -> float:
    """Seconds until an instant of the monotonic clock."""
    return max(LEAST_SECONDS, due - monotonic())


def _name(asked: AskedLookup) -> str | tuple[str, ...]:
    return asked.features if isinstance(asked.features, str) else tuple(asked.features)
