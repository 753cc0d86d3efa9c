"""What is kept in memory and read anew as time goes by, so that no request waits for that while the last reading is young.

One thread reads, however many wait: threads wait for its futures, and coroutines do so without a thread.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, wait
from typing import Generic, NamedTuple, TypeVar

from featurestore.durable.forks import mutex, renewed_in_child
from featurestore.errors import AccessUnavailableError

T = TypeVar("T")
LOGGER = logging.getLogger("featurestore")

Awaited = tuple["Future[None]", float | None]
"""A reading, and the seconds for which it is waited for at most; None: to its end."""

Steps = Generator[Awaited, None, T]
"""What comes to a result, and yields each reading that it must wait for."""


def waited(steps: Steps[T]) -> T:
    """The result of steps; the thread waits for their readings."""
    try:
        while True:
            reading, seconds = next(steps)
            wait([reading], seconds)
    except StopIteration as done:
        found: T = done.value
        return found


async def awaited(steps: Steps[T]) -> T:
    """The result of steps; the coroutine waits for their readings, and no thread does."""
    try:
        while True:
            reading, seconds = next(steps)
            await asyncio.wait([asyncio.wrap_future(reading)], timeout=seconds)
    except StopIteration as done:
        found: T = done.value
        return found


class Ages(NamedTuple):
    """How old a reading may be. After `renew_seconds` a caller has it read anew beside it. After `wait_seconds` he waits for
    that, `patience_seconds` at most while the last one counts. Where it cannot be read, the last one counts for `keep_seconds`,
    and `retry_seconds` lie between two attempts. `apart_seconds` lie between any two."""

    renew_seconds: float
    wait_seconds: float
    keep_seconds: float
    retry_seconds: float
    apart_seconds: float = 0.0
    patience_seconds: float = 1.0


class Reread(Generic[T]):
    """The last reading of something. what: its noun in messages. read: reads it; whatever it raises means that it could not.
    One reading is under way at a time, and one may be next."""

    def __init__(
        self, what: str, read: Callable[[], T], ages: Ages, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._what, self._read, self._ages, self._clock = what, read, ages, clock
        self._held: tuple[T, float] | None = None  # with when it began to be read
        self._tried = float("-inf")  # when an attempt began last
        self._failed: str | None = None  # why the last one failed
        self._lock = mutex()
        self.renew()
        renewed_in_child(self)

    def renew(self) -> None:
        """Forget the readings that no thread of this process makes."""
        self._reads = False  # whether a thread does
        self._under_way: Future[None] | None = None
        self._next: Future[None] | None = None

    def at_hand(self) -> T | None:
        """The last reading, without waiting; None where one has to be waited for. AccessUnavailableError where it cannot be
        read, and was not for too long."""
        held = self._held
        if held is not None and self._clock() - held[1] < self._ages.renew_seconds:
            return held[0]
        may_try = self._may_try()
        if self._is_younger(self._ages.wait_seconds):
            if may_try and not self._reads:
                self._begun(lambda: self._is_older(self._ages.renew_seconds))
            return self._at_hand()
        is_coming = self._under_way is not None and self._is_older(self._ages.keep_seconds)
        if is_coming or (may_try and not self._is_slow()):
            return None
        return self._at_hand()

    def value(self) -> Steps[T]:
        """The last reading, which is waited for where it must be; AccessUnavailableError where it is too old and there is none."""
        found = self.at_hand()
        if found is not None:
            return found
        oldest = self._clock() - self._ages.keep_seconds
        reading = self._begun(lambda: self._is_older(self._ages.wait_seconds) and self._may_try(oldest), since=oldest)
        if reading is not None:
            yield reading, self._ages.patience_seconds if self._is_younger(self._ages.keep_seconds) else None
        return self._at_hand()

    def value_since(self, at: float) -> Steps[T]:
        """A reading that began at an instant of the clock, or later. AccessUnavailableError where there can be none just now."""
        reading = self._begun(lambda: not self.is_since(at) and self._may_try(at), since=at)
        if reading is not None:
            yield reading, None
        if self._failed is not None:
            raise AccessUnavailableError(f"{self._what} cannot be read: {self._failed}")
        return self._at_hand()

    def value_apart(self, apart_seconds: float) -> Steps[T]:
        """The reading that is under way, or a new one where the last attempt began so many seconds ago, or the last one."""
        reading = self._begun(lambda: self.may_renew(apart_seconds=apart_seconds))
        if reading is not None:
            yield reading, None
        return self._at_hand()

    def is_since(self, at: float) -> bool:
        """Whether the last reading began at an instant of the clock, or later."""
        return self._held is not None and self._held[1] >= at

    def may_renew(self, *, apart_seconds: float) -> bool:
        """Whether a reading is under way, or the last attempt began so many seconds ago, or more."""
        return self._reads or self._clock() - self._tried >= apart_seconds

    def _may_try(self, since: float = float("inf")) -> bool:
        """Whether another attempt is due; one that began at an instant or later, and is under way, may be waited for at any time."""
        is_under_way = self._under_way is not None and self._tried >= since
        return self._failed is None or is_under_way or self._clock() - self._tried >= self._ages.retry_seconds

    def _is_slow(self) -> bool:
        """Whether the reading under way takes so long that nobody waits for it who can do without."""
        return (
            self._under_way is not None
            and self._is_younger(self._ages.keep_seconds)
            and self._clock() - self._tried >= self._ages.patience_seconds
        )

    def _is_younger(self, seconds: float) -> bool:
        return self._held is not None and self._clock() - self._held[1] < seconds

    def _is_older(self, seconds: float) -> bool:
        return not self._is_younger(seconds)

    def _at_hand(self) -> T:
        if self._held is None or not self._is_younger(self._ages.keep_seconds):
            raise AccessUnavailableError(f"{self._what} cannot be read: {self._failed or 'it does not answer'}")
        return self._held[0]

    def _begun(self, is_due: Callable[[], bool], *, since: float = float("-inf")) -> Future[None] | None:
        """The reading under way, where it began at an instant or later, or else the next; None where none is due."""
        with self._lock:
            if not is_due():
                return None
            if self._under_way is not None and self._tried >= since:
                return self._under_way
            if self._next is None:
                made: Future[None] = Future()
                made.set_running_or_notify_cancel()  # a caller that gives up waiting ends it for nobody else
                if not self._reads:
                    threading.Thread(target=self._run, name=f"featurestore {self._what}", daemon=True).start()
                    self._reads = True
                self._next = made
            return self._next

    def _run(self) -> None:
        """Read, until nobody asks for a reading any more."""
        while True:
            apart_seconds = self._ages.apart_seconds
            time.sleep(min(apart_seconds, max(0.0, self._tried + apart_seconds - self._clock())))
            with self._lock:
                assert self._next is not None
                reading = self._under_way = self._next
                self._next = None
                began = self._tried = self._clock()
            held, failed = self._held, None
            try:
                held = self._read(), began
            except Exception as error:  # noqa: BLE001 - of whatever reads: a thread has nobody who would catch it
                failed = str(error)
                if self._failed is None:
                    LOGGER.warning("%s cannot be read: %s", self._what, error)
            with self._lock:
                self._held, self._failed, self._under_way = held, failed, None
                self._reads = goes_on = self._next is not None
            reading.set_result(None)
            if not goes_on:
                return
