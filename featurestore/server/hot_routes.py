"""The routes of models and of those who push, in plain ASGI: they take what is small on the event loop, what is large in a lane."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from functools import partial
from time import monotonic
from typing import Any, NamedTuple, Self

import orjson
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from featurestore.access.principal import Principal
from featurestore.errors import OnlineUnavailableError
from featurestore.online import Reading
from featurestore.plurals import plural
from featurestore.push.current_rows import CurrentRows
from featurestore.push.push_queue import PushAnswer
from featurestore.push.pushed import Pushed
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
from featurestore.server.received import CAME, headers_of, received
from featurestore.serving.lookup import BegunLookup
from featurestore.serving.online_result import OnlineResult
from featurestore.settings import ServerConfig
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


class LookupCost(NamedTuple):
    """What one row of a lookup takes: what it took twice of late. Once may be the machine's doing, which gave the processor to another
    process meanwhile: on a busy one, a lookup of one row in 35 went to a lane for that."""

    columns: int
    seconds: float

    once: float
    """The most that it took of late."""

    @classmethod
    def first(cls, columns: int, seconds: float) -> Self:
        """That of a lookup of which nothing else is known."""
        return cls(columns, seconds, seconds)

    def after(self, columns: int, seconds: float) -> LookupCost:
        """After one that took so long."""
        once, twice = self.once * FORGETS, self.seconds * FORGETS
        return LookupCost(columns, max(twice, min(once, seconds)), max(once, seconds))


class LookupForm(NamedTuple):
    """How a lookup is read from a body, and how its answer is written, in not more than so many bytes."""

    read: Callable[[bytes, ServerConfig], AskedLookup]
    write: Callable[[OnlineResult, int], list[bytes]]
    media_type: str


AS_JSON, AS_ARROW = LookupForm(read_request, json_body, JSON), LookupForm(read_request, arrow_body, ARROW)
ARROW_ASKED = ARROW.encode()


class HotCall(NamedTuple):
    """A request under way: who asks, what the client calls it, when it came by the monotonic clock, and the bytes that it has taken."""

    scope: Scope
    headers: Mapping[bytes, bytes]
    principal: Principal
    given: str | None
    came: float
    room: Room


class BegunAnswer(NamedTuple):
    """The answer to a lookup that waits for what the online store says, and for nothing else. scope: who asks; came: when, by
    `perf_counter`."""

    asked: AskedLookup
    lookup: BegunLookup
    scope: Scope
    came: float


class HotRoutes:
    """Lookups and pushes over one store. pinned: the manifests by service, whose versions are served to clients that name none."""

    def __init__(
        self, store: FeatureStore, pinned: Mapping[str, Manifest], limits: ServerLimits, metrics: Metrics
    ) -> None:
        self.store, self._pinned, self._limits, self.config = store, pinned, limits, limits.config
        self._metrics = metrics
        self._costs: dict[str | tuple[str, ...], LookupCost] = {}
        self._as_json, self._as_arrow = partial(self.looked_up, AS_JSON), partial(self.looked_up, AS_ARROW)

    async def take(
        self, answers: Callable[[HotCall, bytes], Awaitable[HttpAnswer]], scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Read a request's body, and send what is answered to it."""
        headers, principal, came = headers_of(scope), principal_of(scope), scope.get(CAME) or monotonic()
        given = request_id(headers.get(b"x-request-id"))
        with Room(self._limits, principal.name) as room:
            body = await received(headers, receive, self._limits, room)
            answer = await answers(HotCall(scope, headers, principal, given, came, room), body)
            del body
            await self._send(answer, room, send)

    def _due(self, call: HotCall, most: float) -> float:
        """When a request must be answered, by the monotonic clock: in so many seconds, or in fewer that the client says."""
        return call.came + patience_of(call.headers, most)

    # --- lookups ------------------------------------------------------------------------------

    async def lookup(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The features of each row, as of now; JSON, or an Arrow IPC stream by `Accept`."""
        answers = self._as_arrow if wants_arrow(headers_of(scope)) else self._as_json
        await self.take(answers, scope, receive, send)

    async def looked_up(self, form: LookupForm, call: HotCall, body: bytes) -> HttpAnswer:
        """The answer to a lookup in one of its forms."""
        due = self._due(call, self.config.lookup_seconds)
        asked = form.read(body, self.config) if len(body) <= SMALL_BYTES else None
        if asked is None or not self._is_for_here(asked, body, call.principal):
            return await self._beside(call.room, partial(self._looked_up, form, call, asked or body, due), due)
        self._check_access(asked, call.principal)
        result = asked.checked(
            await self.store.aget_online_features(
                asked.rows, asked.features, fingerprint=self._version(asked), json=True, request_id=call.given,
                within_seconds=_left(due), when_unavailable=self.config.when_unavailable,
            )
        )  # fmt: skip
        return self._answer(form, call, asked, result)

    def begin(self, scope: Scope, seconds: float, body: bytes, came: float) -> BegunAnswer | None:
        """`looked_up` as JSON without a coroutine, up to the reading; None where it waits for anything else. Raises what that does.
        seconds: for how long the client waits."""
        if len(body) > SMALL_BYTES:
            return None
        self._limits.check_body(len(body))
        asked, principal = read_request(body, self.config), principal_of(scope)
        if not self._is_for_here(asked, body, principal):
            return None
        self._check_access(asked, principal)
        lookup = self.store._begin_lookup(
            asked.rows, asked.features, fingerprint=self._version(asked), within_seconds=seconds
        )
        return None if lookup is None else BegunAnswer(asked, lookup, scope, came)

    def end(self, begun: BegunAnswer, reading: Reading) -> HttpAnswer | None:
        """The answer; None where it needs another reading, or its bytes must wait. Until then nothing was told of it. Raises what
        `looked_up` does."""
        result = begun.lookup.result(reading)
        if result is None:
            return None
        answer = self._written(AS_JSON, begun.asked, begun.asked.checked(result))
        if len(answer.pieces) > 1 or answer.size > SENT_BYTES:
            return None
        self._tell(begun.scope, begun.asked, self.store._recorded_lookup(begun.lookup, result))
        return answer

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
        """ForbiddenError where the principal is limited to other services and views than those."""
        if principal.only_on is None:
            return
        names = [asked.features] if isinstance(asked.features, str) else asked.features
        services = (
            {*names} if asked.is_service else self.store.registry.current().document["services"]
        )  # a name that a service and a view share is the service's
        principal.must(
            "read", *(f"service:{name}" if name in services else f"view:{name.partition(':')[0]}" for name in names)
        )

    def _version(self, asked: AskedLookup) -> str | None:
        """The fingerprint to serve, where the request or a manifest says one."""
        if asked.fingerprint is None and isinstance(asked.features, str) and asked.features in self._pinned:
            return self._pinned[asked.features].fingerprint
        return asked.fingerprint

    def _is_for_here(self, asked: AskedLookup, body: bytes, principal: Principal) -> bool:
        """Whether a lookup is answered on the event loop."""
        may_read_registry = not asked.is_service and principal.only_on is not None
        return not may_read_registry and self._is_small(asked, body)

    def _is_small(self, asked: AskedLookup, body: bytes) -> bool:
        """Whether it takes the event loop so little time that a thread is not worth its while."""
        rows, cost = len(asked.rows), self._costs.get(_name(asked))
        if cost is None:
            return rows == 1 and len(body) <= self.config.key_bytes
        if rows * cost.columns > SMALL_VALUES or rows * cost.seconds > SMALL_SECONDS:
            return False
        if len(body) <= self.config.key_bytes:
            return True
        return not may_have_long_texts(body, self.config.key_bytes) or not long_texts(asked.rows, self.config.key_bytes)

    def _remember(self, asked: AskedLookup, result: OnlineResult) -> None:
        """What it took, so that it is known of the next request."""
        if result.is_unavailable:  # which took next to nothing
            return
        name, seconds = _name(asked), result.work_seconds / len(result)
        before = self._costs.get(name)
        if before is None and len(self._costs) >= COSTS_HELD:
            self._costs.clear()
        columns = len(result.columns)
        self._costs[name] = LookupCost.first(columns, seconds) if before is None else before.after(columns, seconds)

    def _looked_up(self, form: LookupForm, call: HotCall, given: AskedLookup | bytes, due: float) -> HttpAnswer:
        asked = form.read(given, self.config) if isinstance(given, bytes) else given
        self._check_access(asked, call.principal)
        version = self._version(asked)

        def keys() -> Container[str]:
            service = self.store.lookup(asked.features, version).service
            return {name for part in service.parts for name in part.inputs}

        self._check_keys(asked.rows, keys)
        result = asked.checked(
            self.store.get_online_features(
                asked.rows, asked.features, fingerprint=version, json=True, request_id=call.given,
                within_seconds=STORE_SHARE * _left(due), when_unavailable=self.config.when_unavailable,
            )
        )  # fmt: skip
        return self._answer(form, call, asked, result)

    def _answer(self, form: LookupForm, call: HotCall, asked: AskedLookup, result: OnlineResult) -> HttpAnswer:
        answer = self._written(form, asked, result)
        self._tell(call.scope, asked, result)
        return answer

    def _written(self, form: LookupForm, asked: AskedLookup, result: OnlineResult) -> HttpAnswer:
        self._remember(asked, result)
        return HttpAnswer(200, form.media_type, form.write(result, self.config.answer_bytes))

    def _tell(self, scope: Scope, asked: AskedLookup, result: OnlineResult) -> None:
        self._metrics.looked_up(scope, result, is_service=result.service.name == asked.features)

    # --- pushes -------------------------------------------------------------------------------

    async def push(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Keep rows of a push source: on the disk, and seen by the next lookup, when it answers."""

        async def answer(call: HotCall, body: bytes) -> HttpAnswer:
            pushed = await self.pushed(read_push, call, body)
            return HttpAnswer(200, JSON, [orjson.dumps(pushed.to_dict())])

        await self.take(answer, scope, receive, send)

    async def pushed(
        self, read: Callable[[bytes, ServerConfig], tuple[str, list[Any]]], call: HotCall, body: bytes, *,
        overwrite: bool | CurrentRows = False,
    ) -> Pushed:  # fmt: skip
        """What became of the rows that are read from a body, with the name of their source. overwrite: see `submit_push`."""
        due = self._due(call, self.config.push_seconds)
        if len(body) <= SMALL_BYTES and not overwrite:
            source, rows = read(body, self.config)
            call.principal.must("push", f"source:{source}")
            most = self.config.key_bytes
            if may_have_long_texts(body, most) and long_texts(rows, most):
                await call.room.beside(partial(self._check_pushed_keys, source, rows))
            pushed = await self.store.apush(
                source, rows, json=True, who=call.principal.name, request_id=call.given, within_seconds=_left(due)
            )
        else:
            source, kept = await call.room.beside(partial(self._submitted, read, call, body, overwrite))
            pushed = await kept.awaited(_left(due))
        self._metrics.pushed(call.scope, source, pushed)
        return pushed

    def _submitted(
        self, read: Callable[[bytes, ServerConfig], tuple[str, list[Any]]], call: HotCall, body: bytes,
        overwrite: bool | CurrentRows,
    ) -> tuple[str, PushAnswer]:  # fmt: skip
        source, rows = read(body, self.config)
        call.principal.must("push", f"source:{source}")
        self._check_pushed_keys(source, rows)
        return source, self.store.submit_push(
            source, rows, json=True, who=call.principal.name, request_id=call.given, overwrite=overwrite
        )

    def _check_pushed_keys(self, source: str, rows: Sequence[Any]) -> None:
        self._check_keys(rows, lambda: self.store.key_columns(source))

    def _check_keys(self, rows: Sequence[Any], keys: Callable[[], Container[str]]) -> None:
        """LimitError where a text is too long for a key and is one; keys: the names of those that are."""
        found = long_texts(rows, self.config.key_bytes)
        names = keys() if found else ()
        for name, (row, size) in found.items():
            if name in names:
                detail = f"Row {row}: '{name}' has {size} {plural(size, 'byte')}; at most {self.config.key_bytes} are taken in a key"
                raise LimitError("key_bytes", detail)

    # --- answers ------------------------------------------------------------------------------

    async def _send(self, answer: HttpAnswer, room: Room, send: Send) -> None:
        """Send an answer; what is long counts until the client took it, and is given up where that takes too long."""
        size = answer.size
        if size <= SENT_BYTES:  # the server keeps all of it, whether the client takes it or not
            await answer(send)
            return
        room.add(size)
        try:
            async with asyncio.timeout(self.config.answer_seconds):
                await answer(send)
        except TimeoutError:
            raise ClientDisconnect from None


def patience_of(headers: Mapping[bytes, bytes], most: float) -> float:
    """For how many seconds a client waits, and so many at most; BadRequest where it says no number above 0."""
    return patience_seconds(headers.get(b"x-request-timeout"), most)


def wants_arrow(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a lookup is to be answered as an Arrow IPC stream, and not as JSON."""
    return ARROW_ASKED in headers.get(b"accept", b"")


def _left(due: float) -> float:
    """Seconds until an instant of the monotonic clock."""
    return max(LEAST_SECONDS, due - monotonic())


def _name(asked: AskedLookup) -> str | tuple[str, ...]:
    return asked.features if isinstance(asked.features, str) else tuple(asked.features)
