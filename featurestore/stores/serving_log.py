"""The serving log: what was served, in Parquet segments, written beside the lookups and never in their way.

    <folder>/<service>/<fingerprint>/<first time>-<process>-<number>.parquet    one row a row served, typed columns
    <folder>/processes/<process>                                               three counters (u64 each): requests
                                                                               offered, written, dropped

A lookup puts a request into memory and goes on; a thread writes what has come together every second. Memory is
bounded: what does not fit, or cannot be written, is dropped and counted. A segment appears by one rename, so a process
that is killed loses what it had not written, and its counters say how much that is.
"""

from __future__ import annotations

import mmap
import os
import secrets
import struct
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.stores.processes import is_alive

__all__ = ["Losses", "Served", "ServingLog", "losses", "segments"]

COUNTERS = struct.Struct("<QQQ")
PROCESSES = "processes"
FLUSH = 1.0
"""Seconds for which what was served may wait in memory."""

PENDING = 100_000
"""Rows that may wait in memory at most."""

SEGMENT = 50_000
"""Rows of one segment at most."""


class Served(NamedTuple):
    """One request: where it belongs, its columns' types (one object a service version), and its columns by the row."""

    service: str
    fingerprint: str
    schema: pa.Schema
    columns: Sequence[Sequence[Any]]
    rows: int
    time: int


class Losses(NamedTuple):
    """Requests over all processes that ever wrote: offered, written, dropped (memory or disk was full), and lost by a
    process that ended without writing them."""

    offered: int
    written: int
    dropped: int
    lost: int


class ServingLog:
    """Writes what one process serves; safe to use from several threads. See the module for the files."""

    def __init__(self, folder: Path, *, flush: float = FLUSH, pending: int = PENDING) -> None:
        self.folder = folder
        self.process = f"{os.getpid()}-{secrets.token_hex(4)}"
        self.last_error: OSError | None = None
        self._flush, self._limit = flush, pending
        self._waiting: deque[Served] = deque()
        self._rows = self._segments = self._numbered = 0
        self._gate, self._turn = threading.Lock(), threading.Lock()
        self._wake, self._closed = threading.Event(), False
        self._counts = [0, 0, 0]
        self._counters = _counters(folder / PROCESSES / self.process)
        self._writer = threading.Thread(target=self._write_on, name="serving log", daemon=True)
        self._writer.start()

    def next_request(self) -> str:
        """An id for a request: unique over all processes."""
        with self._gate:
            self._numbered += 1
            return f"{self.process}-{self._numbered}"

    def offer(self, served: Served) -> bool:
        """Take a request in, without waiting for the disk; False where it was dropped."""
        with self._gate:
            taken = not self._closed and self._rows + served.rows <= self._limit
            self._count(0, 1)
            if taken:
                self._waiting.append(served)
                self._rows += served.rows
            else:
                self._count(2, 1)
        return taken

    @property
    def dropped(self) -> int:
        """Requests that this process did not log."""
        return self._counts[2]

    def flush(self) -> None:
        """Write what has come together; a disk that refuses costs these rows, and nothing else."""
        with self._turn:
            with self._gate:
                served, self._waiting, self._rows = self._waiting, deque(), 0
            groups: dict[tuple[str, str], list[Served]] = {}
            for request in served:
                groups.setdefault((request.service, request.fingerprint), []).append(request)
            for requests in groups.values():
                for part in _parts(requests):
                    self._write(part)

    def close(self) -> None:
        """Write the rest and stop; idempotent."""
        with self._gate:
            self._closed = True
        self._wake.set()
        if self._writer.is_alive() and threading.current_thread() is not self._writer:
            self._writer.join()
        self.flush()

    def _write_on(self) -> None:
        while not self._wake.wait(self._flush):
            self.flush()

    def _write(self, requests: Sequence[Served]) -> None:
        first = requests[0]
        arrays = [
            pa.array([value for request in requests for value in request.columns[i]], field.type)
            for i, field in enumerate(first.schema)
        ]
        folder = self.folder / first.service / first.fingerprint
        self._segments += 1
        name = f"{first.time}-{self.process}-{self._segments}.parquet"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_arrays(arrays, schema=first.schema), folder / f".{name}", compression="zstd")
            os.replace(folder / f".{name}", folder / name)  # noqa: PTH105 - atomic, and said so by its name
        except OSError as error:
            self.last_error = error
            (folder / f".{name}").unlink(missing_ok=True)
            with self._gate:
                self._count(2, len(requests))
            return
        with self._gate:
            self._count(1, len(requests))

    def _count(self, which: int, by: int) -> None:
        self._counts[which] += by
        COUNTERS.pack_into(self._counters, 0, *self._counts)


def _counters(path: Path) -> mmap.mmap:
    """Counters that outlive the process, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(COUNTERS.size))
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), COUNTERS.size)


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


def segments(folder: Path, *, service: str | None = None) -> dict[tuple[str, str], list[Path]]:
    """The segments of each service version, by (service, fingerprint), oldest first."""
    found: dict[tuple[str, str], list[Path]] = {}
    for path in sorted(
        folder.glob(f"{service or '*'}/*/[0-9]*.parquet"), key=lambda path: int(path.name.split("-")[0])
    ):
        found.setdefault((path.parent.parent.name, path.parent.name), []).append(path)
    return found


def losses(folder: Path) -> Losses:
    """What became of the requests of all processes; those of a living one that still wait are not lost."""
    totals = [0, 0, 0, 0]
    for path in (folder / PROCESSES).glob("*"):
        offered, written, dropped = COUNTERS.unpack(path.read_bytes())
        lost = 0 if is_alive(int(path.name.split("-")[0])) else offered - written - dropped
        for i, count in enumerate((offered, written, dropped, lost)):
            totals[i] += count
    return Losses(*totals)
