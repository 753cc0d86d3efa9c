"""The serving log: what was served, in Parquet segments, written beside the lookups and never in their way.

    <folder>/<service>/<fingerprint>/<first>-<last>-<process>-<number>.<check>.parquet    one row a row served, typed
                                                                 columns; first and last time in it, µs; its checksum
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
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from featurestore.durable.forks import renewed_in_child
from featurestore.errors import ConfigError, LogError
from featurestore.lazy import pa
from featurestore.serving.log.process_counts import Losses, ProcessCounts, losses
from featurestore.serving.log.segments import appearing, is_sound, rows_served, segment_name, segments, write_quickly

__all__ = ["Losses", "SegmentForm", "ServedRequests", "ServingLog", "is_sound", "losses", "rows_served", "segments"]

FLUSH_SECONDS = 1.0
"""Seconds for which what was served may wait in memory."""

PENDING_ROWS = 400_000
"""Rows that may be in memory at most: those that wait, and those that are being written."""

PENDING_BYTES = 256 << 20
"""Bytes that they may take at most, about."""

GATHERED_REQUESTS = 256
"""Small requests that wait one by one; who brings the last of as many makes one of them. Measured with 18 features, a request:
119 µs by itself, 4.3 for 32, 1.03 for 256 and 0.79 for 512, for which one caller would wait 0.40 ms in place of 0.26."""

SEGMENT_ROWS = 50_000
"""Rows of one segment at most, give or take a batch; when as many wait, they are written at once."""

CLOSING_SECONDS = 10.0
"""Seconds for which closing waits for a disk that stalls."""

UPKEEP_SECONDS = 300.0
"""Seconds between two times that a process looks after what is written."""


def _failures() -> tuple[type[Exception], ...]:
    """What may keep rows from being written: the disk, or values that their column's type cannot hold."""
    return OSError, pa.ArrowException, ValueError, TypeError, ArithmeticError, MemoryError


@dataclass(frozen=True, eq=False)
class SegmentForm:
    """A service version, and how what it served becomes rows.

    gather: makes one of many small requests' `what`; batches: the rows of gathered ones and of others.
    """

    service: str
    fingerprint: str
    gather: Callable[[Sequence[Any]], Any]
    batches: Callable[[Sequence[Any]], list[pa.RecordBatch]]


class ServedRequests(NamedTuple):
    """Requests of one service version: whatever it makes their rows of, how many rows and requests that is, and when the
    first and the last was served (µs). size: bytes that they take in memory, about; None for one that is to be gathered."""

    form: SegmentForm
    what: Any
    rows: int
    first: int
    last: int
    size: int | None
    requests: int = 1


class ServingLog:
    """Writes what one process serves; safe to use from several threads, and in a forked child, which is a process of its own.
    See the module for the files.

    upkeep: looks after what is written, every few minutes, and calls what it is given now and then on the way. claim: called
    before anything is written; what it raises costs what was to be written.
    Nothing is touched on the disk, and no thread runs, before the first request.
    """

    def __init__(
        self, folder: Path, *, flush: float = FLUSH_SECONDS, pending: int = PENDING_ROWS, memory: int = PENDING_BYTES,
        upkeep: Callable[[Callable[[], None]], object] | None = None, claim: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self.folder = folder
        self._flush, self._limits = flush, (pending, memory)
        self._claim, self._upkeep, self._closed = claim, upkeep, False
        self.renew()
        renewed_in_child(self)

    def renew(self) -> None:
        """Begin with nothing served, under a name of its own: as a log is made, and in a child. What was served before the fork
        the parent writes and counts."""
        self.process = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._small: list[ServedRequests] = []
        self._waiting: list[ServedRequests] = []
        self._rows = self._bytes = self._segments = 0
        self._numbers = itertools.count(1)
        self._gate, self._gathering, self._turn = threading.Lock(), threading.Lock(), threading.Lock()
        self._wake = threading.Event()
        self._counts = ProcessCounts(self.folder, self.process)
        self._writer: threading.Thread | None = None
        self._kept_up, self._flushed = time.monotonic(), 0.0

    def next_request(self) -> str:
        """An id for a request: unique over all processes."""
        return f"{self.process}-{next(self._numbers)}"

    def offer(self, served: ServedRequests) -> bool:
        """Take a request in, without waiting for the disk; False where it was dropped."""
        with self._gate:
            rows, size = self._rows + served.rows, self._bytes + (served.size or 0)
            taken = not self._closed and rows <= self._limits[0] and size <= self._limits[1]
            self._counts.offered += 1
            if taken:
                (self._small if served.size is None else self._waiting).append(served)
                self._rows, self._bytes = rows, size
            else:
                self._counts.dropped += 1
            self._counts.save()
            if self._writer is None and taken:
                self._writer = threading.Thread(target=self._write_on, name="serving log", daemon=True)
                self._writer.start()
        if len(self._small) >= GATHERED_REQUESTS and self._gathering.acquire(blocking=False):
            try:
                self._gather()
            finally:
                self._gathering.release()
        if rows >= SEGMENT_ROWS and not self._wake.is_set():
            self._wake.set()
        return taken

    def _gather(self) -> None:
        """Make few of the small requests that wait; those of which nothing can be made are dropped. One caller at a time."""
        with self._gate:
            small, self._small = self._small, []
        for form, requests in _by_form(small):
            rows, count = sum(served.rows for served in requests), len(requests)
            times = [served.first for served in requests]
            try:
                made = form.gather([served.what for served in requests])
            except _failures() as error:
                self.failed(error)
                self._done(rows, 0, dropped=count)
                continue
            size = made.get_total_buffer_size()
            with self._gate:
                self._waiting.append(ServedRequests(form, made, rows, min(times), max(times), size, count))
                self._bytes += size

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
            with self._gathering:
                self._gather()
                with self._gate:
                    waiting, self._waiting = self._waiting, []
            batches = deque(batch for _, served in _by_form(waiting) for batch in _batches(served))
            waiting.clear()
            while batches:
                self._write(batches.popleft())

    def close(self) -> None:
        """Write the rest and stop; idempotent. What a stalled disk does not take within ten seconds is lost."""
        with self._gate:
            self._closed = True
        self._wake.set()
        if self._writer is not None and threading.current_thread() is not self._writer:
            self._writer.join(CLOSING_SECONDS)
        with self._gate:
            self._counts.ended()

    def _write_on(self) -> None:
        while not self._closed:
            self._wake.wait(self._flush)
            self._wake.clear()
            self.flush()
            if self._upkeep is not None and time.monotonic() - self._kept_up >= UPKEEP_SECONDS and not self._closed:
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
        except _failures() as error:
            self.failed(error)
        self._kept_up = time.monotonic()

    def _map_counts(self) -> None:
        try:
            self._claim()
            made = self._counts.map()
        except _failures() as error:
            self.failed(error)
            return
        if made is not None:
            with self._gate:
                self._counts.keep(made)

    def _write(self, batch: Sequence[ServedRequests]) -> None:
        """Write one segment, or count what was in it as dropped."""
        form = batch[0].form
        first, last = min(served.first for served in batch), max(served.last for served in batch)
        self._segments += 1
        path = self.folder / form.service / form.fingerprint
        path /= segment_name(first, last, f"{self.process}-{self._segments}")
        requests, written = sum(served.requests for served in batch), False
        try:
            buffer = pa.BufferOutputStream()
            self._claim()
            write_quickly(pa.Table.from_batches(form.batches([served.what for served in batch])), buffer)
            with appearing(path) as file:
                file.write(buffer.getvalue())
            written = True
        except _failures() as error:
            self.failed(error)
        rows, size = sum(served.rows for served in batch), sum(served.size or 0 for served in batch)
        self._done(rows, size, **{"written" if written else "dropped": requests})

    def _done(self, rows: int, size: int, *, written: int = 0, dropped: int = 0) -> None:
        """Rows are no longer in memory, and these requests were written or dropped."""
        with self._gate:
            self._rows -= rows
            self._bytes -= size
            self._counts.written += written
            self._counts.dropped += dropped
            self._counts.save()

    def failed(self, error: BaseException) -> None:
        """Keep what went wrong: of the system its own words, which name no file; of anything else its kind, for values
        may stand in its words."""
        number = error.errno if isinstance(error, OSError) else None
        text = (
            os.strerror(number)
            if number
            else str(error)
            if isinstance(error, (ConfigError, LogError))
            else type(error).__name__
        )
        with self._gate:
            self._counts.failed(text, at=time.time_ns() // 1000)


def _by_form(requests: Iterable[ServedRequests]) -> Iterable[tuple[SegmentForm, list[ServedRequests]]]:
    forms: dict[SegmentForm, list[ServedRequests]] = {}
    for served in requests:
        forms.setdefault(served.form, []).append(served)
    return forms.items()


def _batches(requests: Iterable[ServedRequests]) -> Iterator[list[ServedRequests]]:
    batch: list[ServedRequests] = []
    rows = 0
    for served in requests:
        batch.append(served)
        rows += served.rows
        if rows >= SEGMENT_ROWS:
            yield batch
            batch, rows = [], 0
    if batch:
        yield batch
