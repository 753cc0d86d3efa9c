"""Answers over HTTP that come in time as a whole, and not only piece by piece."""

from __future__ import annotations

import io
import socket
import time
from http.client import HTTPResponse
from typing import Any


class _TimedReader(io.RawIOBase):
    """Reads a socket until the timeout that it has now is over in all; by itself a socket gives each piece that time."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket, self._end = sock, time.monotonic() + (sock.gettimeout() or 0.0)
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._socket.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _AnswerSocket:
    """A socket, as far as http.client reads an answer of it."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def makefile(self, _: str) -> io.BufferedReader:
        return io.BufferedReader(_TimedReader(self._socket))


class TimedResponse(HTTPResponse):
    """An answer that comes in time as a whole, its head and the sizes of its pieces too."""

    def __init__(self, sock: Any, *of_http: Any, **more: Any) -> None:
        super().__init__(_AnswerSocket(sock), *of_http, **more)  # type: ignore[arg-type]  # it reads as a socket does
