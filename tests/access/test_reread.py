"""What is read anew beside those who ask."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from featurestore.access.reread import Ages, Reread, awaited, waited
from featurestore.errors import AccessUnavailableError

AT_ONCE = Ages(renew_seconds=0, wait_seconds=0, keep_seconds=1e9, retry_seconds=0, patience_seconds=0.05)


class Slow:
    """Something that is read 1, 2, 3, … and after the first time only when it may be."""

    def __init__(self) -> None:
        self.may_go_on = threading.Event()
        self.count = 0

    def read(self) -> int:
        self.count += 1
        if self.count > 1:
            self.may_go_on.wait(600)
        return self.count


@pytest.fixture
def slow() -> Iterator[Slow]:
    made = Slow()
    yield made
    made.may_go_on.set()


def test_a_reading_that_does_not_end_is_waited_for_by_nobody_who_can_do_without(slow: Slow) -> None:
    """The last one counts, for threads and coroutines; and when it ends, the next asker is given what it read, or later."""
    reread = Reread("The list", slow.read, AT_ONCE)
    assert waited(reread.value()) == 1
    assert [waited(reread.value()) for _ in range(100)] == [1] * 100
    assert asyncio.run(awaited(reread.value())) == 1
    assert slow.count == 2
    slow.may_go_on.set()
    while waited(reread.value()) == 1:
        pass


def test_who_asks_for_what_is_newer_waits_for_it(slow: Slow) -> None:
    """As does whoever is the first of all."""
    ticks = iter(range(1_000_000))
    reread = Reread("The list", slow.read, AT_ONCE, clock=lambda: float(next(ticks)))
    assert waited(reread.value()) == 1
    threading.Timer(0.2, slow.may_go_on.set).start()
    assert waited(reread.value_since(float(next(ticks)))) >= 2


@pytest.mark.parametrize("since", [True, False])
def test_an_attempt_that_is_under_way_after_one_that_failed_is_waited_for(since: bool) -> None:
    """Whoever asks meanwhile is told what it reads, and not why the one before failed."""
    entered, may_go_on, seconds, count = threading.Event(), threading.Event(), [0.0], [0]

    def read() -> str:
        count[0] += 1
        if count[0] == 1:
            raise OSError("not there")
        entered.set()
        may_go_on.wait(600)
        return "there"

    reread = Reread("The list", read, Ages(1, 2, 3, retry_seconds=1), clock=lambda: seconds[0])

    def ask() -> str:
        return waited(reread.value_since(seconds[0]) if since else reread.value())

    with pytest.raises(AccessUnavailableError, match="not there"):
        ask()
    seconds[0] = 10.0
    with ThreadPoolExecutor() as threads:
        first = threads.submit(ask)
        assert entered.wait(600)
        asking = reread.value_since(seconds[0]) if since else reread.value()
        try:
            reading, _ = next(asking)  # the attempt, which it waits for
        finally:
            may_go_on.set()
        assert reading.result(600) is None
        assert first.result(600) == ask() == "there"
    assert count == [2]
