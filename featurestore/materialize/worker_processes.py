"""Worker processes of this machine, which write the chunks of a run side by side; this one drives them.

Each is an interpreter of its own, and runs nothing of the caller's program. It takes a chunk after the other and writes by a run key; lease, notes
and all that is told of the run are the driver's. One that dies ends the run: what is noted as done stays done.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import wait
from types import TracebackType
from typing import Self

from featurestore import arrow_ipc
from featurestore.declare.sources import FileSource
from featurestore.durable.forks import closed_in_child, take_back
from featurestore.errors import MaterializeError, OnlineUnavailableError
from featurestore.lazy import pa
from featurestore.materialize.chunk_worker import (
    Advanced,
    ChunkOrder,
    ChunkWork,
    Failed,
    Values,
    WorkerLimits,
)
from featurestore.materialize.kernel import RunInstants, Written
from featurestore.materialize.key_chunks import KeyChunk, KeyChunks
from featurestore.materialize.lease import Lease, RunKey
from featurestore.materialize.progress import Progress
from featurestore.materialize.records import ValueTaker
from featurestore.materialize.run_plan import PlannedRun
from featurestore.materialize.stored_keys import StoredKeys
from featurestore.settings import OfflineConfig
from featurestore.sources.offline import Offline
from featurestore.sources.session import Session
from featurestore.tiles.file_tile_choice import ChosenTiles

PROGRESS_SECONDS = 2.0
"""Seconds between two renewals of the lease, which say how far the run is."""

END_SECONDS = 60.0
"""Seconds that a process which has nothing to do gets to end."""

MEMORY_PERCENT = 80
"""What the engine takes of the machine's memory where nothing else is said."""

START = (
    "import sys; from multiprocessing.connection import Connection; driver = Connection(int(sys.argv[1])); sys.path[:] = driver.recv(); "
    "from featurestore.materialize.chunk_worker import work; work(driver)"
)


@dataclass(frozen=True)
class Workers:
    """The worker processes that a project's runs may have. count: how many; online: the URL of the store; settings: what all of them take
    together."""

    count: int
    project: str
    online: str
    settings: OfflineConfig

    def limits(self, count: int) -> WorkerLimits:
        """What each of so many processes may take."""
        said = self.settings
        threads = said.threads or os.cpu_count() or 1
        memory = _share(said.memory_limit or f"{MEMORY_PERCENT}%", count)
        return WorkerLimits(max(1, threads // count), memory, said.spill, said.copies)

    def work(
        self, run: PlannedRun, session: Session, offline: Offline, *, count: int, tiles: ChosenTiles | None, tells: bool
    ) -> ChunkWork:
        """What each of so many processes is told of a run, whose session this is."""
        source = run.view.source
        assert isinstance(source, FileSource), "its rows lie in files"
        return ChunkWork(
            run.view, self.project, self.online, run.changes is None, run.files, offline.told_of(session.connection, source, run.files),
            session.forgotten, tiles, tells, self.limits(count),
        )  # fmt: skip


def _share(memory_limit: str, count: int) -> str:
    """A part of an amount of memory as the engine writes it."""
    said = re.fullmatch(r"\s*([0-9.]+)(\s*[A-Za-z%]+\s*)", memory_limit)
    return memory_limit if said is None else f"{float(said[1]) / count:.6g}{said[2]}"


class WriterInProcesses:
    """Writes chunks in so many worker processes at most, which end with it: a `ChunkWriter`, and a context."""

    def __init__(
        self, run: PlannedRun, lease: Lease, chunks: KeyChunks, work: ChunkWork, *, count: int, progress: Progress
    ) -> None:
        self._title, self._lease, self._chunks = run.view.declared.title, lease, chunks
        self._work, self._count, self._progress = work, count, progress
        self._workers: list[_Worker] = []
        self._renewed = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        for worker in self._workers:
            worker.end(at_once=kind is not None)

    def written(
        self, marks: RunInstants, chunks: Sequence[KeyChunk], stored: StoredKeys | None, gathering: ValueTaker | None
    ) -> Iterator[tuple[KeyChunk, Written]]:
        """See `ChunkWriter`."""
        key, waiting = self._lease.let_others(), deque(chunks)
        while True:
            while waiting and (free := self._free()) is not None:
                chunk = waiting.popleft()
                free.begin(chunk, self._order(marks, key, chunk, stored))
            busy: dict[object, _Worker] = {one.connection: one for one in self._workers if one.chunk is not None}
            if not busy:
                return
            for ready in wait([one.connection for one in busy.values()], PROGRESS_SECONDS):
                worker = busy[ready]
                at_work, said = worker.chunk, self._said(worker, gathering)
                if said is not None and at_work is not None:
                    yield at_work, said
            self._renew()

    def _free(self) -> _Worker | None:
        """A worker that has nothing to do, which may be a new one."""
        for worker in self._workers:
            if worker.chunk is None:
                return worker
        if len(self._workers) == self._count:
            return None
        self._workers.append(_Worker(self._work))
        return self._workers[-1]

    def _order(self, marks: RunInstants, key: RunKey, chunk: KeyChunk, stored: StoredKeys | None) -> ChunkOrder:
        held = None if stored is None else arrow_ipc.to_bytes(stored.of(chunk.number))
        return ChunkOrder(marks, key, arrow_ipc.to_bytes(self._chunks.asked(chunk)), held)

    def _said(self, worker: _Worker, gathering: ValueTaker | None) -> Written | None:
        """Take a word of a worker's; what was written of its chunk, where that is done."""
        try:
            word = worker.connection.recv()
        except (EOFError, OSError):
            raise MaterializeError(self._died(worker)) from None
        if isinstance(word, Failed):
            raise word.error
        if isinstance(word, Written):
            worker.chunk = None
            return word
        if isinstance(word, Values) and gathering is not None:
            gathering.add(partial(_columns, word), word.rows)
        elif isinstance(word, Advanced):
            if self._lease.progress is not None:
                self._lease.progress = self._lease.progress.plus(word.keys)
            self._progress.advance(word.keys)
        return None

    def _died(self, worker: _Worker) -> str:
        code = worker.process.wait()
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        number = 0 if worker.chunk is None else worker.chunk.number
        return (
            f"{self._title}: worker process {worker.process.pid} {how} while it wrote chunk {number + 1} of {len(self._chunks.all)}. The chunks "
            "that are done are noted, and the next run goes on with the others. If the system ended it for its memory, take fewer `processes`, or "
            "a smaller `chunk_keys`, of [materialize] in featurestore.toml"
        )

    def _renew(self) -> None:
        """Renew the lease where that was long ago; where the store cannot be reached, the next time."""
        if time.monotonic() - self._renewed >= PROGRESS_SECONDS:
            with suppress(OnlineUnavailableError):
                self._lease.renew()
            self._renewed = time.monotonic()


def _columns(word: Values) -> Mapping[str, pa.Array]:
    """The values that a worker sent; raises why it has none."""
    if isinstance(word.columns, Exception):
        raise word.columns
    table = arrow_ipc.from_bytes(word.columns)
    return dict(zip(table.column_names, table.columns, strict=True))


class _Worker:
    """A worker process. chunk: what it writes; None where it has nothing to do."""

    def __init__(self, work: ChunkWork) -> None:
        self.connection, its_end = Pipe()
        closed_in_child(self.connection.fileno())  # which would keep it open when this process dies
        descriptor = its_end.fileno()
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", START, str(descriptor)], pass_fds=[descriptor],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        its_end.close()
        self.chunk: KeyChunk | None = None
        self._send(sys.path)
        self._send(work)

    def begin(self, chunk: KeyChunk, order: ChunkOrder) -> None:
        """Let it write a chunk."""
        self.chunk = chunk
        self._send(order)

    def _send(self, what: object) -> None:
        with suppress(
            BrokenPipeError, ConnectionResetError
        ):  # it died: what it says last, or does not, is asked for later
            self.connection.send(what)

    def end(self, *, at_once: bool) -> None:
        """End it, where that need not be at once by its own."""
        if at_once:
            self.process.kill()
        else:
            self._send(None)
        try:
            self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        take_back(self.connection.fileno())
        self.connection.close()
