"""Worker processes of this machine, which write the chunks of a run side by side; this one drives them.

Each is an interpreter of its own, and runs nothing of the caller's program. It takes a chunk after the other and writes by a run key; lease, notes
and all that is told of the run are the driver's. One that dies ends the run: what is noted as done stays done.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.spawn import get_executable
from queue import Empty, Full, Queue, SimpleQueue
from types import TracebackType
from typing import NamedTuple, Self
from weakref import finalize

from featurestore import arrow_ipc
from featurestore.declare.sources import FileSource
from featurestore.durable.disk import told
from featurestore.errors import MaterializeError, OnlineUnavailableError
from featurestore.lazy import pa
from featurestore.materialize import worker_start
from featurestore.materialize.chunk_worker import (
    Advanced,
    ChunkOrder,
    ChunkWork,
    Failed,
    Values,
    Word,
    WorkerLimits,
    WorkerReady,
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

LOOK_SECONDS = 2.0
"""Seconds between two looks at the workers; and between two renewals of the lease, which say how far the run is."""

END_SECONDS = 60.0
"""Seconds that a process which has nothing to do gets to end."""

MEMORY_PERCENT = 80
"""What the engine takes of the machine's memory where nothing else is said."""


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
            run.view, self.project, self.online, run.changes is None, run.files, offline.facts_of(session.connection, source, run.files),
            session.forgotten, tiles, tells, self.limits(count),
        )  # fmt: skip


def _share(memory_limit: str, count: int) -> str:
    """A part of an amount of memory as the engine writes it."""
    said = re.fullmatch(r"\s*([0-9.]+)(\s*[A-Za-z%]+\s*)", memory_limit)
    return memory_limit if said is None else f"{float(said[1]) / count:.6g}{said[2]}"


class WriterInProcesses:
    """Writes chunks in so many worker processes at most, which end with it: a `ChunkWriter`, and a context. work: a `ChunkWork`, packed."""

    def __init__(
        self, run: PlannedRun, lease: Lease, chunks: KeyChunks, work: bytes, *, count: int, progress: Progress
    ) -> None:
        self._title, self._lease, self._chunks = run.view.declared.title, lease, chunks
        self._pool, self._count, self._progress = _WorkerPool(self._title, work, count), count, progress
        self._renewed = time.monotonic()
        finalize(self, self._pool.is_over.set)  # a signal may come between the `with` and the end of it

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self._pool.end(at_once=kind is not None)

    def written(
        self, marks: RunInstants, chunks: Sequence[KeyChunk], stored: StoredKeys | None, gathering: ValueTaker | None
    ) -> Iterator[tuple[KeyChunk, Written]]:
        """See `ChunkWriter`."""
        if not chunks:
            return
        key, waiting = self._lease.let_others(), deque(chunks)
        workers = self._pool.started(min(self._count, len(chunks)))
        while waiting or any(worker.chunk is not None for worker in workers):
            for worker in workers:
                if waiting and worker.is_ready and worker.chunk is None:
                    chunk = waiting.popleft()
                    worker.begin(chunk, self._order(marks, key, chunk, stored))
            with suppress(Empty):
                worker, said = self._pool.said.get(timeout=LOOK_SECONDS)
                if (done := self._taken(worker, said, gathering)) is not None:
                    yield done
            self._renew()

    def _order(self, marks: RunInstants, key: RunKey, chunk: KeyChunk, stored: StoredKeys | None) -> ChunkOrder:
        held = None if stored is None else arrow_ipc.to_bytes(stored.of(chunk.number))
        return ChunkOrder(marks, key, arrow_ipc.to_bytes(self._chunks.asked(chunk)), held)

    def _taken(self, worker: _Worker, said: _Said, gathering: ValueTaker | None) -> tuple[KeyChunk, Written] | None:
        """Take a word of a worker's; what was written of its chunk, where that is done."""
        if isinstance(said, Failed):
            raise said.error
        if isinstance(said, _Gone):
            raise MaterializeError(self._died(worker, said))
        if isinstance(said, WorkerReady):
            worker.is_ready = True
        elif isinstance(said, Values):
            if gathering is not None:
                gathering.add(partial(_columns, said), said.rows)
        elif isinstance(said, Advanced):
            if self._lease.progress is not None:
                self._lease.progress = self._lease.progress.plus(said.keys)
            self._progress.advance(said.keys)
        else:
            chunk, worker.chunk = worker.chunk, None
            assert chunk is not None, "it was told to write one"
            return chunk, said
        return None

    def _died(self, worker: _Worker, gone: _Gone) -> str:
        doing = "began" if worker.chunk is None else f"wrote chunk {worker.chunk.number + 1} of {len(self._chunks.all)}"
        said = f"{self._title}: worker process {gone.process} {_ending(gone.code)} while it {doing}. "
        said += "The chunks that are done are noted, and the next run goes on with the others"
        if gone.code != -signal.SIGKILL:
            return said
        return (
            f"{said}. Where a machine has no memory left, its system ends processes so: then take fewer `processes`, or a smaller `chunk_keys`, of "
            "[materialize] in featurestore.toml"
        )

    def _renew(self) -> None:
        """Renew the lease where that was long ago; where the store cannot be reached, the next time."""
        if time.monotonic() - self._renewed >= LOOK_SECONDS:
            with suppress(OnlineUnavailableError):
                self._lease.renew()
            self._renewed = time.monotonic()


def _columns(word: Values) -> Mapping[str, pa.Array]:
    """The values that a worker sent; raises why it has none."""
    if isinstance(word.columns, Exception):
        raise word.columns
    table = arrow_ipc.from_bytes(word.columns)
    return dict(zip(table.column_names, table.columns, strict=True))


def _ending(code: int) -> str:
    """How a process ended, by what `Popen.returncode` says of it."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:  # of the signals of real time only two have names
        return f"was ended by signal {-code}"


class _Gone(NamedTuple):
    """What is said for a worker process that ended before its work did. code: as `Popen.returncode`."""

    process: int
    code: int


_Said = Word | _Gone


class _WorkerPool:
    """The worker processes of a run, so many at most. said: what they say. is_over: whether they are to end.

    All that must not be broken off half way is done by threads, since handlers of signals, which may raise anything, run in the first one: none
    comes between the start of a process and the note of it, nor between the ends of two.
    """

    def __init__(self, title: str, work: bytes, count: int) -> None:
        self._title, self._work = title, work
        self._workers: list[_Worker] = []
        self.said: Queue[tuple[_Worker, _Said]] = Queue(maxsize=count)  # so that nothing piles up here
        self.is_over = threading.Event()
        self._at_once = True
        self._thread = threading.Thread(target=self._watch, name="featurestore-worker-watch", daemon=True)

    def started(self, count: int) -> Sequence[_Worker]:
        """The workers, of which there are so many at least; all at once, since most of a start is imports."""
        if not self._workers:
            self._thread.start()
        while len(self._workers) < count:
            self._workers.append(_Worker(self._title, self._work, self.said, self.is_over))
            self._workers[-1].start()
        return self._workers

    def end(self, *, at_once: bool) -> None:
        """End all, where that need not be at once when they have done what they do; until then this waits, unless a signal breaks that off."""
        self._at_once = at_once
        self.is_over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        """Look after the workers until the run is over, then end them."""
        while not self.is_over.wait(LOOK_SECONDS):
            for worker in self._workers:
                worker.look()
        for worker in self._workers:
            worker.end(at_once=self._at_once or not worker.is_ready)
        for worker in self._workers:
            worker.join()


class _Worker:
    """A worker process, and the thread that starts it, talks with it and ends it. chunk: what it writes; None where it has nothing to do.

    A thread of its own, since a process that stands still takes nothing that is sent to it, and says no word to its end.
    """

    def __init__(self, title: str, work: bytes, said: Queue[tuple[_Worker, _Said]], is_over: threading.Event) -> None:
        self.chunk: KeyChunk | None = None
        self.is_ready = False
        self._title, self._work, self._all_said, self._is_over = title, work, said, is_over
        self._orders: SimpleQueue[ChunkOrder | None] = SimpleQueue()
        self._changing = threading.Lock()
        self._socket: socket.socket | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._drive, name="featurestore-worker-process", daemon=True)

    def start(self) -> None:
        """Start it, beside what the caller does."""
        self._thread.start()

    def begin(self, chunk: KeyChunk, order: ChunkOrder) -> None:
        """Let it write a chunk."""
        self.chunk = chunk
        self._orders.put(order)

    def end(self, *, at_once: bool) -> None:
        """Let it end by its own, where that need not be at once."""
        self._orders.put(None)
        if at_once and self.process is not None:
            self.process.kill()

    def join(self) -> None:
        """Wait until its process is gone. A thread whose start was broken off starts no process; one that is not through with the start, as where
        another process was forked meanwhile and has the pipe by which `Popen` waits, ends it by itself when it is."""
        began = time.monotonic()
        while self._thread.is_alive() and (self.process is not None or time.monotonic() - began < END_SECONDS):
            self._thread.join(LOOK_SECONDS)
            self.look()

    def look(self) -> None:
        """Break off what it is told, and what it says, where its process is gone. That does so by itself, unless another process has its end
        of the connection, too: by a fork just as it was started."""
        with self._changing:
            if self._socket is not None and self.process is not None and self.process.poll() is not None:
                self._socket.shutdown(socket.SHUT_RDWR)

    def _drive(self) -> None:
        try:
            ours, its = socket.socketpair()
            with ours, Connection(os.dup(ours.fileno())) as connection:
                with its:
                    process = self._begun(its.fileno(), ours)
                if process is not None:
                    self._talk(connection, process)
                with self._changing:
                    self._socket = None
        except Exception as error:  # noqa: BLE001 - the caller that waits for this worker raises it
            self._say(Failed(error))
        if self.process is not None:
            _end(self.process)

    def _begun(self, descriptor: int, ours: socket.socket) -> subprocess.Popen[bytes] | None:
        """The process, which talks by a descriptor; None where it is not wanted any more."""
        command = [get_executable(), "-P", worker_start.__file__, str(descriptor), str(os.getpid())]
        if self._is_over.is_set():
            return None
        try:
            process = subprocess.Popen(
                command, pass_fds=[descriptor], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )
        except OSError as error:
            raise MaterializeError(
                f"{self._title}: a worker process cannot be started: {told(error)}. Take fewer `processes` of [materialize] in featurestore.toml"
            ) from error
        with self._changing:
            self._socket, self.process = ours, process
        if (
            self._is_over.is_set()
        ):  # after the note of it, and `end` looks at the note after that was set: one of the two kills it
            process.kill()
        return process

    def _talk(self, connection: Connection, process: subprocess.Popen[bytes]) -> None:
        """Send it its work and orders, and say all that it says."""
        try:
            with suppress(OSError):  # where it died: what it said last is still to be read
                connection.send(sys.path)
                connection.send_bytes(self._work)
            self._listen(connection, until=WorkerReady)
            for order in iter(self._orders.get, None):
                with suppress(OSError):
                    connection.send(order)
                self._listen(connection, until=Written)
            with suppress(OSError):
                connection.send(None)
        except (EOFError, ConnectionError):
            _end(process)
            self._say(_Gone(process.pid, process.returncode))

    def _listen(self, connection: Connection, *, until: type[Word]) -> None:
        """Say what it says, to a word of a kind; EOFError or ConnectionError where it died before."""
        while True:
            word: Word = connection.recv()
            self._say(word)
            if isinstance(word, (until, Failed)):
                return

    def _say(self, said: _Said) -> None:
        """Tell the caller that waits; none does where the run is over."""
        while not self._is_over.is_set():
            with suppress(Full):
                self._all_said.put((self, said), timeout=LOOK_SECONDS)
                return


def _end(process: subprocess.Popen[bytes]) -> None:
    """Wait until a process that is to end has ended, and not for long."""
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
