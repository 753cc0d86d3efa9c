"""The access log: a JSON line for each request, written beside the event loop."""

from __future__ import annotations

import asyncio
import os
import queue
import select
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal

from starlette.types import Scope

from featurestore.clock import to_datetime, wall_clock
from featurestore.log_lines import json_line
from featurestore.server.admission import principal_of
from featurestore.server.request_ids import TRACE, request_id_of

ASKED = "featurestore.asked"
"""Where the scope of a request has what was asked for, once it was answered: "service" or "source", its name, and the rows."""

FLUSH_SECONDS = 0.1
"""Seconds for which lines are gathered. A process that is killed loses those of its last ones."""

MOST_BYTES = 4 << 20
"""Bytes of lines that wait to be taken; what comes beyond them is dropped and counted."""

CLOSE_SECONDS = 5.0
"""Seconds for which the end of the server waits until the last lines are taken."""

WRITE_BYTES = 4096
"""Bytes that are written at once at most: so many reach a pipe whole, between the lines of other workers."""

NAME_LENGTH = 256
"""Characters of a name that are logged; an issuer of tokens may give longer ones."""

Stream = Literal["stdout", "stderr"]


class AccessLog:
    """Lines about requests, to stdout or stderr. It is told from one event loop.

    dropped: is told how many lines were not written, since nobody takes what is written, or since it cannot be.
    """

    def __init__(self, stream: Stream, dropped: Callable[[int], None]) -> None:
        self._file = sys.stdout if stream == "stdout" else sys.stderr
        self._dropped = dropped
        self._lines: list[bytes] = []
        self._bytes = 0  # of those, and of those that are being written
        self._flush_at: asyncio.TimerHandle | None = None
        self._given: queue.SimpleQueue[list[bytes] | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        self._is_torn = False  # whether a part of a line was written last

    def note(self, scope: Scope, *, route: str, status: int | None, seconds: float, size: int) -> None:
        """A request was answered. status: None where the client hung up before an answer began; size: bytes of the body."""
        line: dict[str, Any] = {"time": to_datetime(wall_clock()), "request_id": request_id_of(scope)}
        if (trace := scope.get(TRACE)) is not None:
            line["trace_id"] = trace
        line["principal"] = principal_of(scope).name[:NAME_LENGTH]
        line["method"], line["route"] = scope["method"][:NAME_LENGTH], route
        asked = scope.get(ASKED)
        if asked is not None:
            of, name, rows = asked
            line[of], line["rows"] = name, rows
        line["status"], line["milliseconds"], line["bytes"] = status, round(seconds * 1e3, 3), size
        written = json_line(line)
        if self._bytes + len(written) > MOST_BYTES:
            self._dropped(1)
            return
        self._lines.append(written)
        self._bytes += len(written)
        if self._flush_at is None:
            self._flush_at = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush)

    def _flush(self) -> None:
        self._flush_at = None
        if self._writer is None:
            loop = asyncio.get_running_loop()
            self._writer = threading.Thread(
                target=self._write_all, args=(loop,), name="featurestore access log", daemon=True
            )
            self._writer.start()
        lines, self._lines = self._lines, []
        self._given.put(lines)

    def _written(self, size: int, lost: int) -> None:
        self._bytes -= size
        if lost:
            self._dropped(lost)

    async def close(self) -> None:
        """Write the rest, unless nobody takes it."""
        if self._flush_at is not None:
            self._flush_at.cancel()
            self._flush()
        if self._writer is not None:
            self._given.put(None)
            await asyncio.to_thread(self._writer.join, CLOSE_SECONDS)

    # --- in the thread ------------------------------------------------------------------------

    def _write_all(self, loop: asyncio.AbstractEventLoop) -> None:
        while (lines := self._given.get()) is not None:
            lost = self._write(lines)
            with suppress(RuntimeError):  # the loop has ended, and nobody counts any more
                loop.call_soon_threadsafe(self._written, sum(map(len, lines)), lost)

    def _write(self, lines: list[bytes]) -> int:
        """Write lines whole; how many of them could not be."""
        lost = 0
        for piece in _pieces(lines):
            whole = (b"\n" if self._is_torn else b"") + b"".join(piece)
            written = _written(self._file, whole)
            if written:
                self._is_torn = not whole[:written].endswith(b"\n")
            lost += len(piece) if written < len(whole) else 0
        return lost


def _written(file: Any, whole: bytes) -> int:
    """How many bytes could be written."""
    rest = memoryview(whole)
    with suppress(OSError, ValueError):  # nobody reads it any more, the disk is full, it was closed
        while rest:
            try:
                rest = rest[os.write(file.fileno(), rest) :]
            except BlockingIOError:  # somebody who shares the pipe has made it so
                select.select([], [file], [])
    return len(whole) - len(rest)


def _pieces(lines: list[bytes]) -> list[list[bytes]]:
    """The lines by what is written at once."""
    pieces: list[list[bytes]] = []
    size = WRITE_BYTES
    for line in lines:
        if size + len(line) > WRITE_BYTES:
            pieces.append([])
            size = 0
        pieces[-1].append(line)
        size += len(line)
    return pieces
