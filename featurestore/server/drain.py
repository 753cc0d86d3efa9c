"""Draining: a server that is told to stop says so to its balancer, and answers on for a while, before it closes its port."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, MethodType

import uvicorn

_LOGGER = logging.getLogger("featurestore.server")


class Drain:
    """Whether this process drains: on the first SIGTERM it begins to, for so many seconds; the second ends that.

    begins: is called on the event loop when it does.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.is_on = False

    @contextmanager
    def on_sigterm(self, begins: Callable[[], None]) -> Iterator[None]:
        """While this lasts, uvicorn is told of SIGTERM when the time is over. Of a server that is not uvicorn in the first thread, nothing
        is known: it stops as it does."""
        stop = signal.getsignal(signal.SIGTERM) if _is_first_thread() else None
        if not isinstance(stop, MethodType) or not isinstance(stop.__self__, uvicorn.Server):
            yield
            return
        loop = asyncio.get_running_loop()
        end = stop  # of which the type is known

        def begin() -> None:
            _LOGGER.info("Draining: answering on for %g s, and then no more", self._seconds)
            begins()
            loop.call_later(self._seconds, end, signal.SIGTERM, None)

        def told(number: int, frame: FrameType | None) -> None:
            if self.is_on or not self._seconds:
                self.is_on = True
                end(number, frame)
            else:
                self.is_on = True
                loop.call_soon_threadsafe(begin)

        signal.signal(signal.SIGTERM, told)
        try:
            yield
        finally:
            with contextlib.suppress(ValueError):
                signal.signal(signal.SIGTERM, stop)


def _is_first_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
