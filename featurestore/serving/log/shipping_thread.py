"""The thread that ships the serving log: beside the one that writes it, which never waits for a store."""

from __future__ import annotations

import threading
from collections.abc import Callable

from featurestore.durable.forks import event, renewed_in_child

CLOSING_SECONDS = 10.0
"""Seconds for which closing waits for a file that is on its way."""


class ShippingThread:
    """Calls `ship` whenever it is woken, until it is closed; `failed` is told what went wrong. Nothing runs before the first time."""

    def __init__(self, ship: Callable[[Callable[[], None]], object], failed: Callable[[BaseException], None]) -> None:
        self._ship, self._failed = ship, failed
        self._due, self._closed = event(), False
        self.renew()
        renewed_in_child(self)

    def renew(self) -> None:
        """No thread runs: as it is made, and in a child."""
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Ship what is due, and return at once. Called by one thread."""
        self._due.set()
        if not self._closed and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="serving log shipping", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop after the file that is on its way; idempotent."""
        self._closed = True
        self._due.set()
        if self._thread is not None:
            self._thread.join(CLOSING_SECONDS)

    def _run(self) -> None:
        while True:
            self._due.wait()
            self._due.clear()
            if self._closed:
                return
            try:
                self._ship(self._between)
            except InterruptedError:  # it is closed
                return
            except Exception as error:  # noqa: BLE001 - a store may fail in any way, and is tried again the next time
                self._failed(error)

    def _between(self) -> None:
        if self._closed:
            raise InterruptedError
