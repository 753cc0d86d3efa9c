"""Which version of the registry is the newest, asked beside the lookups: they go on when the registry does not answer."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future

from featurestore.durable.forks import mutex, renewed_in_child
from featurestore.errors import RegistryError

WAIT_SECONDS = 0.5
"""Seconds for which the registry is waited for by somebody who can go on without it; nobody waits for it again before it has answered."""

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
        self._is_silent = False

    def number(self) -> int | None:
        """The number that the registry tells; None where it cannot be read, or does not answer in time, which is told once."""
        with self._lock:
            waits = not self._is_silent
            if self._asked is None or self._asked.done():
                self._asked = Future()
                threading.Thread(
                    target=self._ask, args=(self._asked,), name="featurestore registry", daemon=True
                ).start()
            asked = self._asked
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

    def _ask(self, asked: Future[int]) -> None:
        try:
            found = self._read()
        except BaseException as error:  # noqa: BLE001 - whoever waits is given it
            asked.set_exception(error)
        else:
            self._is_silent = False
            asked.set_result(found)

    def _tell(self, why: str) -> None:
        if not self._is_silent:
            self._is_silent = True
            _LOGGER.warning("The registry cannot be read, and what is loaded is served on: %s", why)
