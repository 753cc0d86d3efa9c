"""Threads that read for event loops: the one that was busy last reads next, and as many as may be read at a time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from featurestore.online.reading_threads import ReadingThreads
from tests.serving.test_forked import forked

SECONDS = 120


def in_loop(threads: ReadingThreads, call: Callable[..., object], *given: object) -> asyncio.Future[object]:
    return threads.run(call, *given, loop=asyncio.get_running_loop())


def together(threads: ReadingThreads, count: int) -> list[asyncio.Future[object]]:
    """Calls that end when as many are under way."""
    met = threading.Barrier(count, timeout=SECONDS)

    def meet() -> int:
        met.wait()
        return threading.get_ident()

    return [in_loop(threads, meet) for _ in range(count)]


def test_the_thread_that_was_busy_last_reads_next() -> None:
    async def main() -> None:
        threads = ReadingThreads()
        assert len(set(await asyncio.gather(*together(threads, 4)))) == 4
        assert len({await in_loop(threads, threading.get_ident) for _ in range(50)}) == 1
        assert threads.count == 4

    asyncio.run(main())


def test_calls_beyond_the_most_wait_for_their_turn() -> None:
    async def main() -> None:
        threads, go = ReadingThreads(2), threading.Event()
        under_way = [in_loop(threads, go.wait, SECONDS) for _ in range(2)]
        behind = [in_loop(threads, lambda n=n: n) for n in range(5)]
        assert threads.count == 2
        assert not any(answer.done() for answer in behind)
        go.set()
        assert await asyncio.gather(*under_way, *behind) == [True, True, 0, 1, 2, 3, 4]
        assert threads.count == 2

    asyncio.run(main())


def test_an_error_is_whose_call_it_was() -> None:
    def fail() -> None:
        raise ValueError("of this call")

    async def main() -> None:
        threads = ReadingThreads(1)
        failing, after = in_loop(threads, fail), in_loop(threads, str, 7)
        with pytest.raises(ValueError, match="of this call"):
            await failing
        assert await after == "7"

    asyncio.run(main())


def test_whoever_is_cancelled_takes_nobody_along() -> None:
    async def main() -> None:
        threads, go = ReadingThreads(1), threading.Event()
        cancelled, after = in_loop(threads, go.wait, SECONDS), in_loop(threads, str, 7)
        cancelled.cancel()
        go.set()
        assert await after == "7"
        with pytest.raises(asyncio.CancelledError):
            await cancelled

    asyncio.run(main())


def test_a_loop_that_ended_is_told_nothing_and_the_thread_reads_on() -> None:
    threads, go = ReadingThreads(1), threading.Event()

    async def leave() -> None:
        in_loop(threads, go.wait, SECONDS)

    async def ask() -> object:
        return await in_loop(threads, str, 7)

    asyncio.run(leave())
    go.set()
    assert asyncio.run(ask()) == "7"
    assert threads.count == 1


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own() -> None:
    threads = ReadingThreads(1)

    async def ask() -> object:
        return await in_loop(threads, str, 7)

    def works() -> None:
        assert asyncio.run(ask()) == "7"

    works()
    with forked(works):
        works()
