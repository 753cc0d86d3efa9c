"""The serving log: what was served, in Parquet segments, written beside the lookups and never in their way.

    <folder>/<service>/<fingerprint>/<first>-<last>-<process>-<number>.parquet    one row a row served, typed columns;
                                                                                 first and last time in it, µs
    <folder>/processes/<process>                                                  what became of its requests

A lookup puts a request into memory and goes on; a thread writes what has come together every second. Memory is
bounded: what does not fit, or cannot be written, is dropped and counted. A segment appears by one rename, so a process
that is killed loses what it had not written, and its counters say how much that is.
"""

from __future__ import annotations

import itertools
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from featurestore.stores.serving_counts import Counts, Losses, losses
from featurestore.stores.serving_segments import appearing, segment_name, segments, write_quickly

__all__ = ["Losses", "Served", "ServingLog", "losses", "segments"]

FLUSH = 1.0
"""Seconds for which what was served may wait in memory."""

PENDING = 400_000
"""Rows that may be in memory at most: those that wait, and those that are being written."""

MEMORY = 256 << 20
"""Bytes that they may take at most, about."""

SEGMENT = 50_000
"""Rows of one segment at most, give or take a request; when as many wait, they are written at once."""

CLOSING = 10.0
"""Seconds for which closing waits for a disk that stalls."""

UPKEEP = 300.0
"""Seconds between two times that a process looks after what is written."""

FAILURES = (OSError, pa.ArrowException, ValueError, TypeError, ArithmeticError, MemoryError)
"""What may keep rows from being written: the disk, or values that their column's type cannot hold."""


class Served(NamedTuple):
    """One request: where it belongs, its columns' types (one object a service version), and its rows.

    encode: makes the table of the segment out of several requests of one service version, whatever their `packed` is.
    size: bytes that it takes in memory, about.
    """

    service: str
    fingerprint: str
    schema: pa.Schema
    packed: Any
    rows: int
    time: int
    encode: Callable[[Sequence[Served]], pa.Table]
    size: int = 0

    @property
    def version(self) -> tuple[str, str]:
        """What its segment is of."""
        return self.service, self.fingerprint


class ServingLog:
    """Writes what one process serves; safe to use from several threads. See the module for the files.

    upkeep: looks after what is written, every few minutes, and calls what it is given now and then on the way.
    Nothing is touched on the disk, and no thread runs, before the first request.
    """

    def __init__(
        self, folder: Path, *, flush: float = FLUSH, pending: int = PENDING, memory: int = MEMORY,
        upkeep: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:  # fmt: skip
        self.folder = folder
        self.process = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._flush, self._limits = flush, (pending, memory)
        self._waiting: deque[Served] = deque()
        self._rows = self._bytes = self._segments = 0
        self._numbers = itertools.count(1)
        self._gate, self._turn = threading.Lock(), threading.Lock()
        self._wake, self._closed = threading.Event(), False
        self._counts = Counts(folder, self.process)
        self._writer: threading.Thread | None = None
        self._upkeep, self._kept_up, self._flushed = upkeep, time.monotonic(), 0.0

    def next_request(self) -> str:
        """An id for a request: unique over all processes."""
        return f"{self.process}-{next(self._numbers)}"

    def offer(self, served: Served) -> bool:
        """Take a request in, without waiting for the disk; False where it was dropped."""
        with self._gate:
            rows, size = self._rows + served.rows, self._bytes + served.size
            taken = not self._closed and rows <= self._limits[0] and size <= self._limits[1]
            self._counts.offered += 1
            if taken:
                self._waiting.append(served)
                self._rows, self._bytes = rows, size
            else:
                self._counts.dropped += 1
            self._counts.save()
            if self._writer is None and taken:
                self._writer = threading.Thread(target=self._write_on, name="serving log", daemon=True)
                self._writer.start()
        if rows >= SEGMENT and not self._wake.is_set():
            self._wake.set()
        return taken

    @property
    def dropped(self) -> int:
        """Requests that this process did not log."""
        return self._counts.dropped

    @property
    def losses(self) -> Losses:
        """What became of the requests of this process so far; those that wait are not lost."""
        return self._counts.losses()

    def all_losses(self) -> Losses:
        """Those of all processes; of this one too while its counters cannot be kept on the disk."""
        others, own = losses(self.folder), self._counts
        if own.is_kept:
            return others
        mine = own.losses()
        return Losses(
            others.offered + mine.offered, others.written + mine.written, others.dropped + mine.dropped, others.lost,
            mine.last_error or others.last_error,
        )  # fmt: skip

    def flush(self) -> None:
        """Write what has come together; a disk that refuses costs these rows, and nothing else."""
        with self._turn:
            self._flushed = time.monotonic()
            self._map_counts()
            groups: dict[tuple[str, str], list[Served]] = {}
            with self._gate:
                served, self._waiting = self._waiting, deque()
            for request in served:
                groups.setdefault(request.version, []).append(request)
            served.clear()
            parts = deque(part for requests in groups.values() for part in _parts(requests))
            groups.clear()
            while parts:
                self._write(parts.popleft())

    def close(self) -> None:
        """Write the rest and stop; idempotent. What a stalled disk does not take within ten seconds is lost."""
        with self._gate:
            self._closed = True
        self._wake.set()
        if self._writer is not None and threading.current_thread() is not self._writer:
            self._writer.join(CLOSING)
        with self._gate:
            self._counts.ended()

    def _write_on(self) -> None:
        while not self._closed:
            self._wake.wait(self._flush)
            self._wake.clear()
            self.flush()
            if self._upkeep is not None and time.monotonic() - self._kept_up >= UPKEEP and not self._closed:
                self._keep_up(self._upkeep)
        self.flush()

    def _keep_up(self, upkeep: Callable[[Callable[[], None]], object]) -> None:
        def between() -> None:
            if time.monotonic() - self._flushed >= self._flush:
                self.flush()
            if self._closed:
                raise InterruptedError

        try:
            upkeep(between)
        except InterruptedError:
            pass
        except FAILURES as error:
            self._failed(error)
        self._kept_up = time.monotonic()

    def _map_counts(self) -> None:
        try:
            made = self._counts.map()
        except OSError as error:
            self._failed(error)
            return
        if made is not None:
            with self._gate:
                self._counts.keep(made)

    def _write(self, requests: Sequence[Served]) -> None:
        """Write one segment, or count what was in it as dropped."""
        first = requests[0]
        folder = self.folder / first.service / first.fingerprint
        times = [request.time for request in requests]
        self._segments += 1
        name = segment_name(min(times), max(times), f"{self.process}-{self._segments}")
        written = False
        try:
            table = first.encode(requests)
            buffer = pa.BufferOutputStream()
            write_quickly(table, buffer)
            del table
            with appearing(folder / name) as file:
                file.write(buffer.getvalue())
            written = True
        except FAILURES as error:
            self._failed(error)
        with self._gate:
            self._rows -= sum(request.rows for request in requests)
            self._bytes -= sum(request.size for request in requests)
            if written:
                self._counts.written += len(requests)
            else:
                self._counts.dropped += len(requests)
            self._counts.save()

    def _failed(self, error: BaseException) -> None:
        """Keep what went wrong: of the system its own words, which name no file; of anything else its kind, for values
        may stand in its words."""
        number = error.errno if isinstance(error, OSError) else None
        text = os.strerror(number) if number else type(error).__name__
        with self._gate:
            self._counts.failed(text, at=time.time_ns() // 1000)


def _parts(requests: Sequence[Served]) -> Iterator[list[Served]]:
    part: list[Served] = []
    rows = 0
    for request in requests:
        part.append(request)
        rows += request.rows
        if rows >= SEGMENT:
            yield part
            part, rows = [], 0
    if part:
        yield part
