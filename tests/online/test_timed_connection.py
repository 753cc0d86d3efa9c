"""A Redis whose replies come in pieces, or end in the middle: no call takes longer than it may, and none gets what is another's."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from featurestore.clock import ManualClock
from featurestore.errors import OnlineUnavailableError
from featurestore.online import Guard, open_online
from tests.servers import Front, RedisCluster, RedisSentinel, RedisServer, certificate, patient

KEY, OTHER, GUARD = b"{k}" + b"y" * 300, b"{k}other", b"{k}guard"
LONG = b"v" * 300
CLOCK = ManualClock(datetime(2026, 3, 1, tzinfo=UTC))
"""So that what a store reads is one reply, which is long."""

SHORT = b"{k}key"
SECONDS = 1.0
"""What a call may take."""

READ_PAUSE, WRITE_PAUSE = 0.03, 0.3
"""Seconds between two bytes, so that no piece is late, and a reply takes many times what the call may: those to a batch are short."""


class Trickling(NamedTuple):
    """A store and the fronts through which all of its servers, and those that say where they are, can be made to trickle."""

    url: str
    fronts: list[Front]


def _server(stack: ExitStack, folder: Path, *, tls: bool) -> Trickling:
    server = stack.enter_context(RedisServer(password="hush"))
    if not tls:
        front = stack.enter_context(Front(server.port))
        return Trickling(server.url_with(port=front.port), [front])
    pem = certificate(folder)
    inner = stack.enter_context(Front(server.port, certificate=pem))
    outer = stack.enter_context(Front(inner.port))  # so that records come in pieces, those of the handshake too
    return Trickling(server.url_with(scheme="rediss", port=outer.port, query=f"ca_file={pem}"), [outer])


def _several(stack: ExitStack, folder: Path, kind: type[RedisCluster | RedisSentinel], *, tls: bool) -> Trickling:
    servers = kind(password="hush", certificate=certificate(folder) if tls else None, fronts=True)
    stack.enter_context(servers)
    return Trickling(servers.url, servers.fronts)


KINDS: dict[str, Callable[[ExitStack, Path], Trickling]] = {
    f"{name}{'-tls' if tls else ''}": (lambda stack, folder, make=make, tls=tls: make(stack, folder, tls=tls))
    for name, make in (
        ("server", _server),
        ("cluster", lambda stack, folder, tls: _several(stack, folder, RedisCluster, tls=tls)),
        ("sentinel", lambda stack, folder, tls: _several(stack, folder, RedisSentinel, tls=tls)),
    )
    for tls in (False, True)
}


@pytest.fixture(scope="module", params=KINDS)
def trickling(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trickling]:
    with ExitStack() as stack:
        yield KINDS[request.param](stack, tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("connected", [False, True])
@pytest.mark.parametrize(
    ("call", "pause"),
    [
        (lambda store: store.get([KEY]), READ_PAUSE),
        (lambda store: store.write({KEY: LONG}), WRITE_PAUSE),
        (lambda store: store.write({GUARD: b"1", KEY: LONG}, guard=Guard(GUARD, b"0")), WRITE_PAUSE),
        (lambda store: list(store.scan(b"{k}")), READ_PAUSE),
    ],
    ids=["get", "write", "guarded", "scan"],
)
def test_a_reply_that_comes_byte_by_byte_holds_nobody(
    trickling: Trickling, call: Callable[[Any], Any], pause: float, connected: bool
) -> None:
    """Each byte comes in time, and the last of them long after the call was to end: it has ended, and the same handle goes on with its own
    replies when the server does. Whether it was connected before, or its connection comes byte by byte too."""
    with closing(open_online(patient(trickling.url))) as filling:
        filling.write({GUARD: b"0", KEY: LONG, OTHER: b"other"})
    few = "&retries=1"  # attempts, so that the server is not left alone afterwards
    with closing(open_online(patient(trickling.url) + few, clock=CLOCK)) as store:
        of_redis: Any = getattr(store, "_store", store)
        if connected:
            store.get([OTHER])
        with ExitStack() as stack:
            for front in trickling.fronts:
                stack.enter_context(front.trickling(pause))
            of_redis._timeout, patience = SECONDS, of_redis._timeout
            with pytest.raises(OnlineUnavailableError):
                call(store)
            of_redis._timeout = patience
        assert store.get([OTHER, KEY]).values == [b"other", LONG]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer(password="hush") as running:
        yield running


@pytest.fixture(params=["plain", "tls"])
def front(request: pytest.FixtureRequest, server: RedisServer, tmp_path: Path) -> Iterator[tuple[Front, str]]:
    """A front of it, and the URL of the store behind it."""
    pem = certificate(tmp_path) if request.param == "tls" else None
    with Front(server.port, certificate=pem) as made:
        if pem is None:
            yield made, server.url_with(port=made.port)
        else:
            yield made, server.url_with(scheme="rediss", port=made.port, query=f"ca_file={pem}")


def _bytes_said(front: Front, url: str, call: Callable[[Any], Any]) -> int:
    """How many bytes a server says to whoever connects and makes a call."""
    front.said = 0
    with closing(open_online(patient(url))) as store:
        call(store)
    return front.said


@pytest.mark.parametrize("manner", [socket.SHUT_WR, socket.SHUT_RDWR], ids=["half", "whole"])
def test_a_connection_that_ends_within_a_reply_changes_no_answer(front: tuple[Front, str], manner: int) -> None:
    """At whichever byte it ends: what is read is read again, and of what was written the caller learns what is known."""
    place, url = front
    step = 9 if url.startswith("rediss") else 1  # bytes: to connect over TLS takes the processor ten times as long
    reads: Callable[[Any], Any] = lambda store: store.get([SHORT, OTHER]).values  # noqa: E731
    writes: Callable[[Any], Any] = lambda store: store.write({SHORT: b"1"}, guard=Guard(OTHER, b"other"))  # noqa: E731
    with closing(open_online(patient(url))) as aside:
        aside.write({SHORT: b"key", OTHER: b"other"})
        for cut in range(0, _bytes_said(place, url, reads) + 1, step):
            with closing(open_online(patient(url))) as store:
                place.ends = (cut, manner)
                assert reads(store) == [b"key", b"other"], cut
                assert store.get([OTHER]).values == [b"other"], cut
        for cut in range(0, _bytes_said(place, url, writes) + 1, step):
            aside.write({SHORT: b"0"})
            with closing(open_online(patient(url) + "&retries=0")) as store:
                place.ends = (cut, manner)
                known: bool | None = True
                try:
                    assert writes(store)
                except OnlineUnavailableError as error:
                    known = None if "may or may not" in str(error) else False
            written = aside.get([SHORT]).values == [b"1"]
            assert known in {None, written}, cut


def test_a_server_that_falls_silent_within_a_reply_is_given_up(front: tuple[Front, str]) -> None:
    """At whichever byte: the call ends, and the next one gets its own reply, over another connection."""
    place, url = front
    with closing(open_online(patient(url))) as filling:
        filling.write({SHORT: b"key", OTHER: b"other"})
    for cut in range(0, _bytes_said(place, url, lambda store: store.get([SHORT])), 7):
        with closing(open_online(patient(url))) as store:
            of_redis: Any = getattr(store, "_store", store)
            place.ends = (cut, None)
            of_redis._timeout, patience = 0.1, of_redis._timeout
            with pytest.raises(OnlineUnavailableError):
                store.get([SHORT])
            of_redis._timeout = patience
            place.ends = None  # where it did not come so far as to connect
            assert store.get([OTHER]).values == [b"other"], cut
