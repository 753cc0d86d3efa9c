"""A server that fails is left alone for a while, then asked by one call, and is back without anybody's help."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from typing import Any

import pytest

from featurestore.errors import OnlineUnavailableError
from featurestore.online import breaker as module
from featurestore.online import open_online
from featurestore.online.breaker import FAILURES, FIRST_SECONDS, LONGEST_SECONDS, Breaker
from featurestore.online.due import due_within
from tests.servers import RedisServer


class Hours:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def hours() -> Hours:
    return Hours()


@pytest.fixture
def breaker(hours: Hours) -> Breaker:
    return Breaker(hours)


def opened(breaker: Breaker, hours: Hours) -> None:
    for _ in range(FAILURES):
        assert breaker.admits(hours.now)
        breaker.failed(hours.now)
    hours.now += 1e-6


def test_it_opens_after_failures_in_a_row(breaker: Breaker, hours: Hours) -> None:
    """And not where one call between them was answered."""
    for _ in range(3):
        for _ in range(FAILURES - 1):
            breaker.failed(hours.now)
        breaker.answered()
    assert breaker.admits(hours.now)
    opened(breaker, hours)
    assert not breaker.admits(hours.now)
    assert FIRST_SECONDS / 2 <= breaker.left() + 1e-6 <= FIRST_SECONDS


def test_one_call_tries(breaker: Breaker, hours: Hours) -> None:
    """When its time is over, one call is let through and the others wait for what it finds; an answer closes it."""
    opened(breaker, hours)
    hours.now += FIRST_SECONDS
    assert [breaker.admits(hours.now) for _ in range(3)] == [True, False, False]
    breaker.answered()
    assert [breaker.admits(hours.now) for _ in range(3)] == [True] * 3


def test_each_try_that_fails_doubles_the_time(breaker: Breaker, hours: Hours) -> None:
    """Up to a bound, with at least half of it by chance."""
    opened(breaker, hours)
    most = FIRST_SECONDS
    for _ in range(6):
        hours.now += most
        assert breaker.admits(hours.now)
        breaker.failed(hours.now)
        hours.now += 1e-6
        most = min(2 * most, LONGEST_SECONDS)
        assert most / 2 <= breaker.left() + 1e-5 <= most + 1e-5
        assert not breaker.admits(hours.now)


def test_a_try_that_is_given_up_leaves_it_to_the_next(breaker: Breaker, hours: Hours) -> None:
    """As by an interruption."""
    opened(breaker, hours)
    hours.now += FIRST_SECONDS
    assert breaker.admits(hours.now)
    breaker.gave_up()
    assert breaker.admits(hours.now)


def test_a_call_that_began_before_goes_on(breaker: Breaker, hours: Hours) -> None:
    """Its attempts are its own, and what they find says nothing new."""
    begun = hours.now - 1
    opened(breaker, hours)
    left = breaker.left()
    assert breaker.admits(begun)
    breaker.failed(begun)
    assert breaker.left() == left


def test_a_silent_server_is_asked_no_more_until_it_may_be_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three calls wait; the next are refused at once, and say when to come again; the same handle is answered when the server goes on."""
    monkeypatch.setattr(module, "FIRST_SECONDS", 600.0)
    monkeypatch.setattr(module, "LONGEST_SECONDS", 600.0)
    with RedisServer() as server, closing(open_online(server.url_with(query="timeout=60&retries=0"))) as store:
        store.write({b"a": b"1"})
        with server.silent():
            for _ in range(FAILURES):
                with due_within(0.05), pytest.raises(OnlineUnavailableError, match="Timeout"):
                    store.get([b"a"])
            for use in (lambda: store.get([b"a"]), lambda: store.write({b"a": b"2"}), lambda: list(store.scan(b""))):
                with pytest.raises(OnlineUnavailableError, match="asked again in") as caught:
                    use()  # for its 60 s, if it were asked
                assert 0 < (caught.value.retry_after_seconds or 0) <= 600
        of_server: Any = store
        of_server._server._breaker._until = 0.0
        assert store.get([b"a"]).values == [b"1"]
        assert store.write({b"a": b"2"})


def test_many_threads_make_no_storm() -> None:
    """Of a server that is away, 20 threads make few connections, however often they ask; and all are answered when it is back."""
    with RedisServer() as server, closing(open_online(server.url_with(query="retries=0&timeout=60"))) as store:
        store.write({b"a": b"1"})
        tried: list[float] = []
        of_server: Any = store
        taken = of_server._server.taken
        of_server._server.taken = lambda deadline: (tried.append(time.monotonic()), taken(deadline))[1]
        server.stop()
        refused, ended = [0] * 20, threading.Event()

        def ask(number: int) -> None:
            while not ended.is_set():
                try:
                    store.get([b"a"])
                except OnlineUnavailableError:
                    refused[number] += 1
                else:
                    return

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        while min(refused) < 50:
            time.sleep(0.01)
        assert len(tried) < 20 + 10  # those that began before it opened, and one each time
        server.start()
        for thread in threads:
            thread.join()
        assert store.get([b"a"]).values == [None]
