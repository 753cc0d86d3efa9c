"""Which version of the registry is the newest, asked beside the lookups: they go on when the registry does not answer.

A lookup that cannot go on, since the version that it has is gone, waits for it longer.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

from featurestore.durable.forks import mutex, renewed_in_child
from featurestore.errors import RegistryError, RegistryUnavailableError
from featurestore.online.due import due

WAIT_SECONDS = 0.5
"""Seconds for which the registry is waited for by somebody who can go on without it; nobody waits for it again before it has answered."""

NEEDED_SECONDS = 30.0
"""Seconds that a question may be open while somebody waits for it who cannot go on without it; as long as for a lock of the registry."""

_LOGGER = logging.getLogger("featurestore")


class NewestVersion:
    """The number of the newest version; `read` asks the registry, in a thread that is waited for so long and no longer."""

    def __init__(self, read: Callable[[], int]) -> None:
        self._read = read
        self._lock = mutex()
        self.renew()
        renewed_in_child(self)

    def renew(self) -> None:
        """Forget what a thread of the parent asks."""
        self._asked: Future[int] | None = None
        self._since = 0.0
        self._is_silent = False

    def number(self) -> int | None:
        """The number that the registry tells; None where it cannot be read, or does not answer in time, which is told once."""
        waits = not self._is_silent
        asked, _ = self._question()
        try:
            found = asked.result(WAIT_SECONDS if waits else 0)
        except TimeoutError:
            if waits:
                self._tell("it does not answer")
            return None
        except RegistryError as error:
            self._tell(str(error))
            return None
        self._is_silent = False
        return found

    def needed(self) -> int:
        """The number, for a lookup that cannot go on without it; RegistryError, where it cannot be read or is not told for too long."""
        asked, since = self._question()
        try:
            return asked.result(max(0.0, min(since + NEEDED_SECONDS, due()) - time.monotonic()))
        except TimeoutError:
            raise RegistryUnavailableError(
                "What was loaded is not online any more, and the registry, which knows what took its place, does not answer; try again"
            ) from None

    def _question(self) -> tuple[Future[int], float]:
        """What will be answered, and since when it is asked, by the monotonic clock; one question at a time."""
        with self._lock:
            if self._asked is None or self._asked.done():
                self._asked, self._since = Future(), time.monotonic()
                threading.Thread(
                    target=self._ask, args=(self._asked,), name="featurestore registry", daemon=True
                ).start()
            return self._asked, self._since

    def _ask(self, asked: Future[int]) -> None:
        try:
            found = self._read()
        except BaseException as error:  # noqa: BLE001 - the lookups that wait are given it
            asked.set_exception(error)
        else:
            self._is_silent = False
            asked.set_result(found)

    def _tell(self, why: str) -> None:
        if not self._is_silent:
            self._is_silent = True
            _LOGGER.warning("The registry cannot be read, and what is loaded is served on: %s", why)
