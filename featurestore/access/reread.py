"""What is kept in memory and read anew as time goes by, so that no request waits for that while the last reading is young."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

from featurestore.durable.forks import mutex
from featurestore.errors import AccessUnavailableError

T = TypeVar("T")
LOGGER = logging.getLogger("featurestore")


class Reread(Generic[T]):
    """The last reading of something. what: its noun in messages. read: reads it; whatever it raises means that it could not.

    After `renew_seconds` whoever asks has it read anew beside him. After `wait_seconds` he waits for that. Where it cannot be
    read, the last reading counts for `keep_seconds`, and `retry_seconds` lie between two attempts.
    """

    def __init__(
        self, what: str, read: Callable[[], T], *, renew_seconds: float, wait_seconds: float, keep_seconds: float,
        retry_seconds: float, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._what, self._read, self._clock = what, read, clock
        self._renew_seconds, self._wait_seconds = renew_seconds, wait_seconds
        self._keep_seconds, self._retry_seconds = keep_seconds, retry_seconds
        self._held: tuple[T, float] | None = None  # with when it began to be read
        self._tried = float("-inf")  # when an attempt began last
        self._failed: str | None = None  # why the last one failed
        self._reading = mutex()

    def at_hand(self) -> T | None:
        """The last reading, without waiting; None where one has to be waited for. AccessUnavailableError where it cannot be
        read, and was not for too long."""
        if self._is_younger(self._renew_seconds):
            return self._at_hand()
        may_try = self._may_try()
        if self._is_younger(self._wait_seconds):
            if may_try and not self._reading.locked():
                due = partial(self._is_older, self._renew_seconds)
                threading.Thread(
                    target=self._renew, args=(due,), name=f"featurestore {self._what}", daemon=True
                ).start()
            return self._at_hand()
        return None if may_try else self._at_hand()

    def value(self) -> T:
        """The last reading, which is waited for where it must be; AccessUnavailableError where it is too old and there is none."""
        found = self.at_hand()
        if found is not None:
            return found
        self._renew(lambda: self._is_older(self._wait_seconds) and self._may_try())
        return self._at_hand()

    def renew(self, *, apart_seconds: float) -> None:
        """Read it now, unless an attempt began less than so many seconds ago."""
        self._renew(partial(self.may_renew, apart_seconds=apart_seconds))

    def may_renew(self, *, apart_seconds: float) -> bool:
        """Whether the last attempt began so many seconds ago, or more."""
        return self._clock() - self._tried >= apart_seconds

    def _may_try(self) -> bool:
        return self._failed is None or self.may_renew(apart_seconds=self._retry_seconds)

    def _is_younger(self, seconds: float) -> bool:
        return self._held is not None and self._clock() - self._held[1] < seconds

    def _is_older(self, seconds: float) -> bool:
        return not self._is_younger(seconds)

    def _at_hand(self) -> T:
        if self._held is None or not self._is_younger(self._keep_seconds):
            raise AccessUnavailableError(f"{self._what} cannot be read: {self._failed or 'not yet'}")
        return self._held[0]

    def _renew(self, is_due: Callable[[], bool]) -> None:
        """Read; nothing where somebody else did while this one waited for him."""
        with self._reading:
            if not is_due():
                return
            began = self._tried = self._clock()
            try:
                self._held = self._read(), began
            except Exception as error:  # noqa: BLE001 - of whatever reads: a thread has nobody who would catch it
                if self._failed is None:
                    LOGGER.warning("%s cannot be read: %s", self._what, error)
                self._failed = str(error)
            else:
                self._failed = None
