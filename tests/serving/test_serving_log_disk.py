"""What a disk does costs the log rows, which are counted, and a lookup nothing."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.serving.log.process_counts import ProcessCounts, fold_ended
from featurestore.serving.log.serving_log import Losses, ServedRequests, ServingLog, losses, segments
from tests.serving.requests import request_of

SCHEMA = pa.schema([("request", pa.string()), ("time", pa.int64())])


def served(n: int, *, text: str = "", size: int | None = 0) -> ServedRequests:
    """A request of one row at the instant n."""
    return request_of(SCHEMA, [[text or str(n)], [n]], n, size=size)


def logged(folder: Path) -> list[int]:
    """The instants that are in the log, by segment and row."""
    return [n for files in segments(folder).values() for path in files for n in pq.read_table(path)["time"].to_pylist()]


def test_a_disk_that_is_full_costs_rows_which_are_counted(tmp_path: Path) -> None:
    """A segment that the system refuses is dropped, and leaves nothing behind; the next smaller one is written."""
    script = """
        import os, resource, sys
        from pathlib import Path
        from tests.serving.test_serving_log_disk import served, ServingLog
        log = ServingLog(Path(sys.argv[1]), flush=3600)
        log.offer(served(0))
        log.flush()
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        assert log.offer(served(1, text=os.urandom(10_000).hex()))
        assert log.offer(served(2, text=os.urandom(10_000).hex()))
        log.flush()
        log.offer(served(3))
        log.close()
        print(log.losses)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)], check=True, capture_output=True, text=True
    )
    assert logged(tmp_path) == [0, 3]
    assert losses(tmp_path) == Losses(4, 2, 2, 0, os.strerror(errno.EFBIG))
    assert done.stdout.strip() == str(losses(tmp_path))
    assert not list(tmp_path.glob("service/f/.*"))


def test_a_folder_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    """From the start on: requests are taken, dropped and counted, and logged as soon as there is a place to do so."""
    (tmp_path / "served").write_text("a file, where the folder should be")
    log = ServingLog(tmp_path / "served", flush=3600)
    assert log.offer(served(1))
    log.flush()
    assert log.losses == Losses(1, 0, 1, 0, os.strerror(errno.ENOTDIR))
    (tmp_path / "served").unlink()
    assert log.offer(served(2))
    log.close()
    assert logged(tmp_path / "served") == [2]
    assert losses(tmp_path / "served") == Losses(2, 1, 1, 0, os.strerror(errno.ENOTDIR))


def test_counts_that_cannot_be_kept_are_told_from_memory(tmp_path: Path) -> None:
    """By the process itself: others do not see them, and rows are logged all the same."""
    (tmp_path / "processes").write_text("a file, where the folder should be")
    log = ServingLog(tmp_path, flush=3600)
    assert log.offer(served(1))
    log.flush()
    assert log.offer(served(2))
    told = os.strerror(errno.EEXIST)
    assert (log.all_losses(), losses(tmp_path)) == (Losses(2, 1, 0, 0, told), Losses(0, 0, 0, 0))
    (tmp_path / "processes").unlink()
    log.close()
    assert log.all_losses() == losses(tmp_path) == Losses(2, 2, 0, 0, told)
    assert logged(tmp_path) == [1, 2]


def test_a_value_that_its_column_cannot_hold_costs_its_segment(tmp_path: Path) -> None:
    """The writer goes on, and says what kind of error it was without the value."""
    log = ServingLog(tmp_path, flush=3600)
    log.offer(served(1)._replace(what=[["a"], ["secret"]]))
    log.flush()
    log.offer(served(2))
    log.offer(served(3, size=None)._replace(what=[["a"], ["secret"]]))
    log.flush()
    log.offer(served(4, size=None))
    log.close()
    assert logged(tmp_path) == [2, 4]
    assert log.losses == Losses(4, 2, 2, 0, "ArrowInvalid")
    assert log._rows == log._bytes == 0


class Stall:
    """A disk that stalls: the file that the first segment is written into is a pipe that nobody reads."""

    def __init__(self, log: ServingLog) -> None:
        folder = log.folder / "service" / "f"
        folder.mkdir(parents=True)
        self.pipe = folder / f".0-0-{log.process}-1.parquet"
        os.mkfifo(self.pipe)

    def end(self) -> None:
        """Read it, which lets the writer go on."""
        reader = os.open(self.pipe, os.O_RDONLY)
        while os.read(reader, 1 << 16):
            pass
        os.close(reader)


@pytest.mark.parametrize(("limit", "most"), [({"pending": 100}, 100), ({"memory": 5000}, 50)])
def test_while_the_disk_stalls_lookups_go_on(tmp_path: Path, limit: dict[str, Any], most: int) -> None:
    """None waits; memory is bounded with what is being written, all else is dropped and counted, and it ends with the stall."""
    log = ServingLog(tmp_path, flush=0.01, **limit)
    stall = Stall(log)
    assert log.offer(served(0, size=100))
    while log._waiting:  # the writer has taken it, and is in it
        time.sleep(0.001)
    offering = threading.Thread(target=lambda: [log.offer(served(n, size=100)) for n in range(1, 1000)])
    offering.start()
    offering.join(600)
    assert not offering.is_alive()
    assert len(log._waiting) == most - 1
    assert log.losses[:3] == losses(tmp_path)[:3] == (1000, 0, 1000 - most)
    stall.end()
    log.close()
    assert logged(tmp_path) == list(range(1, most))
    assert losses(tmp_path)[:4] == (
        1000,
        most - 1,
        1000 - most + 1,
        0,
    )  # a pipe is no file: what went into it was refused
    assert log._rows == log._bytes == 0


def test_closing_gives_a_stalled_disk_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while, and what was not written is lost, and counted as that."""
    monkeypatch.setattr("featurestore.serving.log.serving_log.CLOSING_SECONDS", 0.1)
    log = ServingLog(tmp_path, flush=0.01)
    stall = Stall(log)
    log.offer(served(0))
    while log._waiting:
        time.sleep(0.001)
    log.offer(served(1))
    log.close()
    assert losses(tmp_path) == Losses(2, 0, 0, 2)
    assert not log.offer(served(2))
    stall.end()
    assert log._writer is not None
    log._writer.join()


def test_processes_that_ended_are_counted_once(tmp_path: Path) -> None:
    """Their counts go into one file, and what a living one holds is not lost."""
    logs = [ServingLog(tmp_path, flush=3600) for _ in range(3)]
    for log in logs:
        log.offer(served(1))
        log.flush()
        log.offer(served(2))
    assert losses(tmp_path) == Losses(6, 3, 0, 0)
    for log in logs[:2]:
        log.close()
    before = losses(tmp_path)
    assert before == Losses(6, 5, 0, 0)
    assert fold_ended(tmp_path) == 2
    assert losses(tmp_path) == before
    assert fold_ended(tmp_path) == 0
    logs[2].close()
    assert fold_ended(tmp_path) == 1
    assert losses(tmp_path) == Losses(6, 6, 0, 0)
    assert [path.name for path in (tmp_path / "processes").iterdir()] == ["ended.json"]


def test_a_reader_that_was_stopped_keeps_no_process_from_its_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is stopped while it looks into a file of counts has locked it; nobody can do that before its process has."""
    flock, looked = fcntl.flock, []

    def after_a_reader(file: int, operation: int) -> None:
        for path in (tmp_path / "processes").glob("[0-9]*"):
            looked.append(os.open(path, os.O_RDONLY))
            flock(looked[-1], fcntl.LOCK_SH | fcntl.LOCK_NB)
        flock(file, operation | fcntl.LOCK_NB)  # to wait would be to wait for ever

    counts = ProcessCounts(tmp_path, f"{os.getpid()}-1")
    counts.offered = 1
    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", after_a_reader)
        made = counts.map()
    assert made is not None
    counts.keep(made)
    assert losses(tmp_path) == Losses(1, 0, 0, 0)
    counts.ended()
    assert losses(tmp_path) == Losses(1, 0, 0, 1)


def test_what_a_process_left_that_was_killed_before_it_counted_is_removed(tmp_path: Path) -> None:
    """It has no counts; one that lives has locked its own."""
    processes = tmp_path / "processes"
    processes.mkdir()
    for name in (".1-a", ".2-b"):
        (processes / name).touch()
    living = os.open(processes / ".2-b", os.O_RDWR)
    fcntl.flock(living, fcntl.LOCK_EX)
    assert fold_ended(tmp_path) == 0
    assert [path.name for path in processes.iterdir()] == [".2-b"]
    os.close(living)


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from featurestore.serving.log import process_counts
    steps = int(sys.argv[2])
    def hook(event, _):
        global steps
        if event in ("open", "os.rename", "os.remove") and armed:
            steps -= 1
            if steps < 0:
                os.kill(os.getpid(), signal.SIGKILL)
    armed = False
    sys.addaudithook(hook)
    armed = True
    process_counts.fold_ended(Path(sys.argv[1]))
"""


def test_killed_while_it_puts_counts_together_it_counts_none_twice(tmp_path: Path) -> None:
    """At each step."""
    for _ in range(2):
        log = ServingLog(tmp_path, flush=3600)
        log.offer(served(1))
        log.close()
    for step in range(50):
        killed = subprocess.run([sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path), str(step)], check=False)
        assert losses(tmp_path) == Losses(2, 2, 0, 0)
        if killed.returncode == 0:
            break
    assert killed.returncode == 0
    assert step > 4
    assert [path.name for path in (tmp_path / "processes").iterdir()] == ["ended.json"]
