"""Chunks that worker processes write side by side leave the bytes of one process, and nothing where they or their driver die."""

from __future__ import annotations

import ctypes
import errno
import itertools
import logging
import os
import re
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import (
    ARRIVAL,
    DataFrameSource,
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Latest,
    Mean,
    ParquetSource,
    Sum,
)
from featurestore.clock import ManualClock, instant_of
from featurestore.declare.sources import Source
from featurestore.errors import MaterializeError, OnlineStoreError, SourceError
from featurestore.materialize import chunk_worker, worker_processes
from featurestore.materialize.done_chunks import noted
from featurestore.materialize.kernel import RecordWriting
from featurestore.materialize.lease import Lease
from featurestore.materialize.materialize import Run
from featurestore.online.view_codec import ViewCodec, project_prefix
from featurestore.settings import OfflineConfig
from featurestore.tiles import file_tile_choice
from featurestore.types import Int64, String
from tests.servers import until

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEYS = 400
CHUNKS = 4
THING = Entity("thing", key={"id": Int64, "part": String})


class Shop:
    """A project over a folder of files, whose first run has four chunks."""

    def __init__(self, folder: Path, online: str, *, processes: int, source: Source | None = None) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.clock = folder, ManualClock(NOON)
        self.online = online
        self.by(processes)
        (folder / "data").mkdir(exist_ok=True)
        self.write("a", NOON - timedelta(hours=2), range(KEYS))
        self.store = FeatureStore(folder, clock=self.clock)
        self.view = FeatureView(
            "facts", entity=THING, source=source or ParquetSource("rows", "data", event_time="at", known_at=ARRIVAL),
            features={"x": Latest("x"), "s": Latest("s"), "total": Sum("x", window="1d"), "mean": Mean("y", window="4h")},
            refresh="1h",
        )  # fmt: skip
        self.store.apply([FeatureService("service", features=[self.view])])

    def by(self, processes: int) -> None:
        """Whoever opens the project from now on has so many worker processes."""
        (self.folder / "featurestore.toml").write_text(
            f'project = "{self.folder.name}"\nonline = "{self.online}"\ndefinitions = []\n[materialize]\nchunk_keys = {KEYS // CHUNKS}\n'
            f"processes = {processes}\n"
        )

    def write(self, name: str, at: datetime, keys: range) -> None:
        pq.write_table(rows(at, keys), self.folder / "data" / f"{name}.parquet")

    @property
    def codec(self) -> ViewCodec:
        return ViewCodec(self.store.config.project, self.store._project.view("facts"))

    def bytes(self) -> dict[bytes, Any]:
        """All that is online, without the project's name; of the state, which names files, what it counts."""
        online, prefix = self.store.online, project_prefix(self.store.config.project)
        keys = {key for keys in online.scan(prefix) for key in keys}
        found: dict[bytes, Any] = dict(zip(keys, online.get(list(keys)).values, strict=True))
        state = orjson.loads(found[self.codec.state_key])
        found[self.codec.state_key] = [state[name] for name in ("keys", "rows", "records")]
        return {key.removeprefix(prefix): value for key, value in found.items()}

    def done(self) -> list[int]:
        """The numbers of the chunks that are noted as done."""
        note = noted(self.store.online.get([self.codec.chunks_key]).values[0])
        return [] if note is None else sorted(number for chunks in note.done.values() for number in chunks)

    def materialize(self, *, full: bool = False) -> list[Run]:
        """What the runs say, but how long they took and which files they read."""
        return [replace(run, seconds=0.0, files=()) for run in self.store.materialize(full=full, progress=False)]

    def statistics(self) -> list[Any]:
        """What the values of the last run are like, but what doubles are summed to, which the order of the rows decides."""
        told = self.store.statistics(view="facts", limit=1).found[0]
        return [told.rows, *(re.sub("(mean|deviation)=[^,)]*", "", repr(one.column)) for one in told.features)]


def rows(at: datetime, keys: range) -> pa.Table:
    return pa.table(
        {
            "id": keys,
            "part": [f"part {number % 7}" for number in keys],
            "at": pa.array([at - timedelta(minutes=number % 50) for number in keys], pa.timestamp("us", "UTC")),
            "x": [number % 11 for number in keys],
            "y": [None if number % 3 else number / 8 for number in keys],
            "s": [None if number % 5 == 0 else f"s{number}" for number in keys],
        }
    )


@pytest.fixture(params=["lmdb", "redis"])
def online(request: pytest.FixtureRequest) -> str:
    return "lmdb://online" if request.param == "lmdb" else request.getfixturevalue("redis_url")


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path / "shop", "lmdb://online", processes=2)
    with made.store:
        yield made


def test_the_bytes_are_those_of_one_process(online: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first run; one over what may have changed, from tiles of files; and a full one that computes again what is served, when keys
    vanished. So is what each run says of itself, and what its values are like."""
    monkeypatch.setattr(file_tile_choice, "hop_for", lambda *_, **__: 3_600_000_000)
    chosen: list[bool] = []
    tiles_for = file_tile_choice.tiles_for
    monkeypatch.setattr(
        "featurestore.materialize.materialize.tiles_for",
        lambda *said, **words: chosen.append((found := tiles_for(*said, **words)) is not None) or found,
    )
    started: list[int] = []
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *said, **words: started.append(1) or popen(*said, **words))
    alone, beside = (Shop(tmp_path / f"p{count}", online, processes=count) for count in (1, 2))
    told, counts = [], []
    for one in (alone, beside):
        with one.store:
            said: list[Any] = []
            for step in ("first", "changed", "full") if online == "lmdb://online" else ("first",):
                if step == "changed":
                    one.clock.advance(timedelta(minutes=65))
                    one.write("b", NOON + timedelta(minutes=40), range(KEYS // 4, KEYS + 50))
                elif step == "full":
                    (one.folder / "data" / "a.parquet").unlink()
                said += [one.materialize(full=step == "full"), one.statistics(), one.bytes()]
            assert one.store.verify().ok
            told.append(said)
            counts.append(len(started))
    assert told[0] == told[1]
    assert chosen.count(True) == (2 if online == "lmdb://online" else 0)
    assert counts == [0, 6 if online == "lmdb://online" else 2]


FORKS = threading.Lock()
"""Held while a process is started: one that is forked meanwhile has the pipe by which `Popen` waits, which then waits for its end."""


@contextmanager
def beside_each_start(monkeypatch: pytest.MonkeyPatch, act: Callable[[int], object]) -> Iterator[list[Any]]:
    """Whatever is done as soon as a worker process is started, of its number; the processes that were started, which are gone at the end."""
    popen, started = subprocess.Popen, list[Any]()

    def starting(*said: Any, **words: Any) -> Any:
        with FORKS:
            one = popen(*said, **words)
        started.append(one)
        act(one.pid)
        return one

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", starting)
        try:
            yield started
        finally:
            left = [one.pid for one in started if is_running(one.pid)]
            for one in started:
                one.kill()
            assert left == []


def hold_all(_: int = 0) -> int:
    """Start a process that has all that this one has open, of which Python knows nothing, as a library may; its number."""
    libc = ctypes.CDLL(None)
    with FORKS:
        if (pid := int(libc.fork())) == 0:
            while True:
                libc.pause()
    return pid


@pytest.mark.parametrize("held", [False, True])
def test_a_worker_that_is_killed_is_told_and_the_next_run_goes_on(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, held: bool
) -> None:
    """SIGKILL before it writes its second chunk; the chunks that were done stay done, also for a run by this process alone. held: another
    process has the worker's end of their connection, too."""
    begin, begun = worker_processes._Worker.begin, itertools.count()
    holding: list[int] = []

    def killed(worker: Any, *words: Any) -> None:
        if next(begun) == 2:
            worker.process.kill()
            worker.process.wait()
        begin(worker, *words)

    with ExitStack() as ends, monkeypatch.context() as patch:
        if held:
            ends.callback(lambda: [os.kill(pid, signal.SIGKILL) or os.waitpid(pid, 0) for pid in holding])
            ends.enter_context(beside_each_start(monkeypatch, lambda _: holding.append(hold_all())))
        patch.setattr(worker_processes._Worker, "begin", killed)
        with pytest.raises(MaterializeError, match=r"was ended by SIGKILL while it wrote chunk \d of 4.*`processes`"):
            shop.materialize()
    done = len(shop.done())
    assert 1 <= done < CHUNKS
    shop.by(1)
    written: list[int] = []
    write = RecordWriting.write
    monkeypatch.setattr(
        RecordWriting, "write", lambda *said, **words: written.append(words["chunk"]) or write(*said, **words)
    )
    with FeatureStore(shop.folder, clock=shop.clock) as alone:
        (run,) = alone.materialize(progress=False)
        assert run.keys == KEYS
        assert alone.verify().ok
    assert len(written) == CHUNKS - done


VICTIM = """
import os, signal, subprocess, sys, threading
from datetime import datetime
from featurestore import FeatureStore
from featurestore.materialize import worker_processes
from featurestore.materialize.done_chunks import DoneChunks
from tests.test_worker_processes import hold_all
begin, packed, popen, workers, holding = worker_processes._Worker.begin, DoneChunks.packed, subprocess.Popen, [], []
started, alone = [], threading.Lock()
def starting(*said, **words):
    with alone:
        one = popen(*said, **words)
        started.append(one.pid)
        holding.append(hold_all() if sys.argv[3:] else 0)
    return one
def stopped(worker, *words):
    workers.append(worker.process.pid)
    if len(workers) == 2:
        os.kill(worker.process.pid, signal.SIGSTOP)
    begin(worker, *words)
def dying(note):
    if note.done and len(workers) > 1:
        print(workers[1], *started, *holding, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    return packed(note)
worker_processes._Worker.begin, DoneChunks.packed = stopped, dying
subprocess.Popen = starting
FeatureStore(sys.argv[1], clock=lambda: datetime.fromisoformat(sys.argv[2])).materialize(progress=False)
"""


@pytest.mark.parametrize("held", [False, True])
def test_a_driver_that_is_killed_leaves_nobody_who_writes(tmp_path: Path, held: bool) -> None:
    """The others end at once. One stood still, with a chunk to write, when it was killed, and goes on when another run is over: it ends, and has
    written nothing. held: another process has the driver's end of their connection, too."""
    shop = Shop(tmp_path / "shop", "lmdb://online", processes=1)
    shop.by(2)
    said = tmp_path / "said"  # no pipe, which the worker would keep open
    with said.open("w") as out:
        died = subprocess.run(
            [sys.executable, "-c", VICTIM, str(shop.folder), shop.clock().isoformat(), *(["held"] if held else [])],
            cwd=Path(__file__).parent.parent, stdout=out, stderr=out, check=False,
        )  # fmt: skip
    assert died.returncode == -signal.SIGKILL, said.read_text()
    orphan, *numbers = map(int, said.read_text().split())
    started, holding = set(numbers[:2]), [pid for pid in numbers[2:] if pid]
    try:
        until(lambda: not any(is_running(pid) for pid in started - {orphan}))
        goes_on_after(shop, orphan)
    finally:
        for pid in (*started, *holding):
            if is_running(pid):
                os.kill(pid, signal.SIGKILL)
    shop.store.close()


def goes_on_after(shop: Shop, orphan: int) -> None:
    assert shop.store.online.get([shop.codec.run_key]).values != [None]
    shop.clock.advance(timedelta(hours=1))
    shop.write("b", NOON + timedelta(minutes=40), range(KEYS))
    (run,) = shop.materialize()
    assert (run.instant, run.keys) == (instant_of(NOON + timedelta(hours=1)), KEYS)
    before = shop.bytes()
    os.kill(orphan, signal.SIGCONT)
    try:
        until(lambda: not is_running(orphan))
    finally:
        if is_running(orphan):
            os.kill(orphan, signal.SIGKILL)
    assert shop.bytes() == before
    assert shop.store.verify().ok


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # gone before it is read, or while it is
        return False


def test_a_signal_while_a_worker_is_started_leaves_none_behind(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGINT as soon as there is a process, of which nobody knows yet, also of the second, while the first is ended; and then the run is
    done."""
    with ExitStack() as ends:
        # which a process that a shell has started in the background ignores
        ends.callback(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, signal.default_int_handler))
        interrupt = partial(os.kill, os.getpid(), signal.SIGINT)
        started = ends.enter_context(beside_each_start(monkeypatch, lambda _: interrupt()))
        with pytest.raises(KeyboardInterrupt) as raised:
            shop.materialize()
        until(lambda: not any(is_running(one.pid) for one in started))
        assert started
        del raised  # whose frames may hold what was being started, as a notebook's last error does
    (run,) = shop.materialize()
    assert run.keys == KEYS


def test_a_worker_that_stands_still_holds_up_no_other(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes nothing of what is sent to it, which is more than the system keeps for it: another writes all chunks, and it is gone when
    the run is over."""
    monkeypatch.setattr(sys, "path", [*sys.path, *("x" * 100_000 for _ in range(10))])
    still: list[int] = []

    def stop_first(pid: int) -> None:
        if not still:
            still.append(pid)
            os.kill(pid, signal.SIGSTOP)

    with beside_each_start(monkeypatch, stop_first) as started:
        (run,) = shop.materialize()
    assert (run.keys, len(started)) == (KEYS, 2)
    assert shop.store.verify().ok


def test_a_start_that_stands_still_holds_up_no_other(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """`Popen` does not come back though there is a process, as where another thread forks just then: another worker writes all chunks, and
    the process is ended when it does."""
    monkeypatch.setattr(worker_processes, "END_SECONDS", 1.0)
    first, goes_on = threading.Lock(), threading.Event()

    def wait_first(_: int) -> None:
        if first.acquire(blocking=False):
            goes_on.wait(600)

    with beside_each_start(monkeypatch, wait_first) as started:
        (run,) = shop.materialize()
        was_waiting = not goes_on.is_set()
        goes_on.set()
        until(lambda: not any(is_running(one.pid) for one in started))
    assert (run.keys, len(started), was_waiting) == (KEYS, 2, True)


def test_a_process_that_cannot_be_started_is_told(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", refused)
        with pytest.raises(
            MaterializeError, match="a worker process cannot be started: Resource temporarily unavailable"
        ):
            shop.materialize()
    (run,) = shop.materialize()
    assert run.keys == KEYS


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="the system has no limits of other processes")
def test_a_disk_that_is_full_for_a_worker_is_told(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """As its error; and the next run goes on when there is room."""

    def limit(pid: int) -> None:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (20_000, 20_000))

    with (
        beside_each_start(monkeypatch, limit),
        pytest.raises(OnlineStoreError, match="cannot be written: the disk.* is full"),
    ):
        shop.materialize()
    (run,) = shop.materialize()
    assert run.keys == KEYS
    assert shop.store.verify().ok


@pytest.mark.parametrize("module", ["__main__", "of_a_notebook", __name__])
def test_work_that_is_in_this_process_alone_is_written_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, module: str
) -> None:
    """A class of the program's own file, of a module that no other process can import, and one within a function: told by name."""

    class OwnSource(ParquetSource):
        pass

    OwnSource.__module__ = module
    monkeypatch.setattr(subprocess, "Popen", None)
    source = OwnSource("rows", path=("data",), event_time="at", known_at=ARRIVAL)
    shop = Shop(tmp_path / "own", "lmdb://online", processes=2, source=source)
    with shop.store, caplog.at_level(logging.WARNING, "featurestore"):
        (run,) = shop.materialize()
        assert run.keys == KEYS
    (line,) = [line for line in caplog.messages if "by this process alone: another one cannot be told" in line]
    assert "OwnSource" in line


def test_how_a_process_ended_is_told() -> None:
    """Also by a signal that has no name."""
    said = [worker_processes._ending(code) for code in (3, -signal.SIGSEGV, -(signal.SIGRTMIN + 5))]
    assert said == ["ended with exit code 3", "was ended by SIGSEGV", f"was ended by signal {signal.SIGRTMIN + 5}"]


def test_what_a_worker_cannot_do_is_raised_here(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one process raises it: a run key that is void, and a file that is no file any more."""
    let_others = Lease.let_others

    def void(lease: Any) -> Any:
        key = let_others(lease)
        return key._replace(guard=key.guard._replace(value=b"another"))

    with monkeypatch.context() as patch:
        patch.setattr(Lease, "let_others", void)
        with pytest.raises(MaterializeError, match="its run is over, or another one has taken over"):
            shop.materialize()
    assert shop.done() == []
    assert not any(key.startswith(shop.codec.record_prefix) for keys in shop.store.online.scan(b"") for key in keys)
    asked = worker_processes.Workers.work

    def of_damaged(*said: Any, **words: Any) -> Any:
        found = asked(*said, **words)
        path = shop.folder / "data" / "a.parquet"
        path.write_bytes(path.read_bytes()[:-100])
        return found

    with monkeypatch.context() as patch:
        patch.setattr(worker_processes.Workers, "work", of_damaged)
        with pytest.raises(SourceError, match="changed while they were read|cannot be read|a.parquet"):
            shop.materialize()


def test_rows_that_lie_in_no_files_are_written_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Which is told, where there is more than one chunk."""
    monkeypatch.setattr(subprocess, "Popen", None)
    frame = DataFrameSource("rows", rows(NOON - timedelta(hours=1), range(KEYS)), event_time="at")
    shop = Shop(tmp_path / "framed", "lmdb://online", processes=3, source=frame)
    with shop.store, caplog.at_level(logging.WARNING, "featurestore"):
        (run,) = shop.materialize()
        assert run.keys == KEYS
        assert shop.store.verify().ok
    assert [line for line in caplog.messages if "by this process alone: the rows of" in line]


def test_what_all_may_take_is_divided() -> None:
    """Memory as the engine writes it, and threads, of which each has one at least."""
    limits = [
        worker_processes.Workers(4, "p", "lmdb://x", OfflineConfig(threads=threads, memory_limit=memory, tiles=False, copies=Path()))
        .limits(4)[:2] for threads, memory in ((8, "6GB"), (2, "50 %"), (1, None), (3, "none"))
    ]  # fmt: skip
    assert limits == [(2, "1.5GB"), (1, "12.5 %"), (1, "20%"), (1, "none")]


def test_an_error_that_cannot_be_sent_is_told_in_words() -> None:
    class OwnError(Exception):
        pass

    said = chunk_worker._sendable(OwnError("what is wrong"))
    assert (type(said), str(said)) == (MaterializeError, "OwnError: what is wrong")
    kept = ValueError("x")
    assert chunk_worker._sendable(kept) is kept
    assert "In a worker process" in kept.__notes__[0]
