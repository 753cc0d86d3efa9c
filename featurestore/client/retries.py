"""How long a call may take in all, and when it is tried again."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping

from featurestore.declare.problems import shown
from featurestore.errors import RequestError, ServerUnavailableError

AGAIN = {429, 503, 507}
"""Statuses of requests that may do better a little later."""

FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.05, 2.0
"""The longest first wait, which doubles with each attempt, and the longest of all; each is drawn between none and that, so that
clients that failed at the same time do not come back at the same time."""

MOST_DIGITS = 9
"""Digits of a `Retry-After` that somebody may live to see."""


class CallTime:
    """The time and the attempts that are left to one call. seconds: for all attempts together; attempts: at most so many."""

    def __init__(self, seconds: float, attempts: int) -> None:
        self._seconds, self._end = seconds, time.monotonic() + seconds
        self._left, self._waited = attempts - 1, FIRST_WAIT_SECONDS

    def remaining(self, where: str) -> float:
        """Seconds that are left, more than none; ServerUnavailableError where there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise self.passed(where)
        return left

    def passed(self, where: str) -> ServerUnavailableError:
        """The error of a call that took too long."""
        return ServerUnavailableError(f"{where} did not answer within {self._seconds:g} s")

    def wait(self, headers: Mapping[str, str] | None = None) -> float | None:
        """Seconds after which to try again; None where that is too late, or there were attempts enough. headers: of the
        answer, whose `Retry-After` is kept."""
        if not self._left:
            return None
        seconds = random.uniform(0, self._waited)  # noqa: S311 - no secret
        self._left, self._waited = self._left - 1, min(self._waited * 2, LONGEST_WAIT_SECONDS)
        told = (headers or {}).get("Retry-After", "")
        if told.isascii() and told.isdecimal():
            seconds += int(told) if len(told) <= MOST_DIGITS else math.inf
        return seconds if time.monotonic() + seconds < self._end else None


def checked_settings(timeout_seconds: float, attempts: int, connections: int) -> None:
    """RequestError where one of them is no number of what it counts."""
    if isinstance(timeout_seconds, bool) or not isinstance(timeout_seconds, (int, float)) or not timeout_seconds > 0:
        raise RequestError(f"timeout_seconds must be a number above 0, and not {shown(timeout_seconds)}")
    for name, value in (("attempts", attempts), ("connections", connections)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise RequestError(f"{name} must be a whole number of at least 1, and not {shown(value)}")
