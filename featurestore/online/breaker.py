"""Whether a server that has failed several times in a row is asked again: not at once, and then by one call alone."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from featurestore.durable.forks import mutex

FAILURES = 3
"""Failures in a row after which a server is left alone."""

FIRST_SECONDS, LONGEST_SECONDS = 1.0, 5.0
"""Seconds for which it is left alone, at most: doubled with each try that fails; at least half of it, by chance, so that not all
processes come back at once."""


class Breaker:
    """Counts what one server did to the calls of this process; safe to use from several threads.

        closed ── FAILURES in a row ──► open ── its time is over ──► one call is let through
           ▲                             ▲                              │
           └────────── it is answered ───┼──────────────────────────────┤
                                         └────────── it fails ──────────┘

    A call that began before it opened goes on, with the attempts that it has left.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = mutex()
        self._failures = 0
        self._opened = self._until = 0.0
        self._seconds = 0.0  # for which it was opened last; 0: it is closed
        self._trying = False

    def admits(self, begun: float) -> bool:
        """Whether a call that began at an instant of the monotonic clock may ask the server. A caller that is admitted says what came of it."""
        if not self._seconds or begun < self._opened:
            return True
        with self._lock:
            if self._seconds and (self._trying or self._clock() < self._until):
                return False
            self._trying = bool(self._seconds)
            return True

    def left(self) -> float:
        """Seconds until it is asked again, where nobody asks it now."""
        return max(0.0, self._until - self._clock()) if self._seconds else 0.0

    def answered(self) -> None:
        """The server has answered, whatever it said."""
        if self._failures or self._seconds:
            with self._lock:
                self._failures, self._seconds, self._trying = 0, 0.0, False

    def failed(self, begun: float) -> None:
        """The server was not reached, or fell silent, by a call that began at an instant."""
        with self._lock:
            self._failures += 1
            if self._seconds and begun < self._opened:  # which says nothing new
                return
            if self._failures >= FAILURES:
                self._trying = False
                self._seconds = min(LONGEST_SECONDS, max(FIRST_SECONDS, 2 * self._seconds))
                self._opened = self._clock()
                self._until = self._opened + self._seconds * random.uniform(0.5, 1.0)  # noqa: S311 - no secret

    def gave_up(self) -> None:
        """A call ended without a word of whether the server answers: the next one may try."""
        self._trying = False
