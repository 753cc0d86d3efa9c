"""A forked child of a process that serves is a process of its own: its requests have ids that nobody else gives, and their rows
are written, or counted."""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from featurestore.serving.log.serving_log import Losses, ServingLog, losses, segments
from featurestore.serving.log.upkeep import Limits, keep_up
from tests.servers import until
from tests.serving.test_serving_log_disk import logged, served
from tests.small import NOON, spine
from tests.test_serving_log import asked, opened, repository

CHILD_SECONDS = 600

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@contextmanager
def forked(work: Callable[[], object], *, code: int = 0) -> Iterator[int]:
    """A child that works; it has ended, with this code, after the block. It ends itself where it would wait for ever."""
    child = os.fork()
    if not child:
        ended = 1
        try:
            signal.alarm(CHILD_SECONDS)
            work()
            ended = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(ended)
    yield child
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == code


def offer(log: ServingLog, *numbers: int) -> None:
    for n in numbers:
        assert log.offer(served(n))


@pytest.mark.parametrize("before", [(), (1,)], ids=["that served nothing", "that serves"])
def test_what_children_serve_is_written_and_counted(tmp_path: Path, before: tuple[int, ...]) -> None:
    log = ServingLog(tmp_path, flush=0.01)
    offer(log, *before)
    if before:
        wait_until(lambda: logged(tmp_path) == [1])

    def works(numbers: range) -> Callable[[], None]:
        def work() -> None:
            offer(log, *numbers)
            wait_until(lambda: log.losses.written == len(numbers))  # its own thread writes, beside it
            offer(log, numbers[0] + 50)
            log.close()

        return work

    with forked(works(range(100, 110))), forked(works(range(200, 210))):
        offer(log, 2)
    log.close()
    expected = [*before, 2, *range(100, 110), 150, *range(200, 210), 250]
    assert sorted(logged(tmp_path)) == expected
    assert losses(tmp_path) == Losses(len(expected), len(expected), 0, 0)


def wait_until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 600
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_what_waits_at_the_fork_is_written_once(tmp_path: Path) -> None:
    log = ServingLog(tmp_path, flush=3600)
    offer(log, 1, 2)
    with forked(log.close):
        pass
    assert logged(tmp_path) == []
    log.close()
    assert logged(tmp_path) == [1, 2]
    assert losses(tmp_path) == Losses(2, 2, 0, 0)


def test_ids_do_not_repeat_among_children(tmp_path: Path) -> None:
    log = ServingLog(tmp_path)
    first = log.next_request()
    names = []
    for _ in range(3):
        read, write = os.pipe()
        with forked(lambda: os.write(write, " ".join(log.next_request() for _ in range(5)).encode())):  # noqa: B023
            pass
        names += os.read(read, 10_000).decode().split()
        os.close(read)
        os.close(write)
    assert len({first, log.next_request(), *names}) == 2 + 3 * 5


def test_a_child_that_is_killed_loses_rows_which_are_counted(tmp_path: Path) -> None:
    """Those of its parent, which lives, wait; and when the parent dies too, its child does not keep its counts alive."""
    log = ServingLog(tmp_path, flush=3600)
    offer(log, 1)
    log.flush()

    def work() -> None:
        offer(log, 10)
        log.flush()
        offer(log, 11, 12)
        os.kill(os.getpid(), signal.SIGKILL)

    with forked(work, code=-signal.SIGKILL):
        pass
    assert losses(tmp_path) == Losses(4, 2, 0, 2)

    read, write = os.pipe()

    def parent() -> None:
        offer(log, 20)
        log.flush()
        offer(log, 21)
        if not os.fork():  # which lives on after it
            os.close(write)
            os.read(read, 1)
            os._exit(0)
        os.kill(os.getpid(), signal.SIGKILL)

    with forked(parent, code=-signal.SIGKILL):
        pass
    until(lambda: losses(tmp_path) == Losses(6, 3, 0, 3))  # the child may just come to be
    os.write(write, b".")
    os.close(read)
    os.close(write)
    log.close()


def test_a_child_of_a_process_that_looks_after_the_log_does_not_keep_others_from_it(tmp_path: Path) -> None:
    """It would, as long as it lives, with the descriptor that it inherits."""
    log = ServingLog(tmp_path, flush=3600)
    offer(log, 0, 1)
    log.flush()
    offer(log, 2)
    log.close()
    read, write = os.pipe()

    def live() -> None:
        os.close(write)
        os.read(read, 1)

    children = []

    def between() -> None:
        if not children:
            child = os.fork()
            if not child:
                live()
                os._exit(0)
            children.append(child)

    done = keep_up(tmp_path, Limits(), now=10**12, between=between)
    assert done is not None
    assert done.into == 1
    assert len(children) == 1
    assert keep_up(tmp_path, Limits(), now=10**12) is not None
    os.write(write, b".")
    os.close(write)
    os.close(read)
    os.waitpid(children[0], 0)


def test_a_mutex_that_a_thread_of_the_parent_holds_is_free_in_a_child(tmp_path: Path) -> None:
    """The writer of the log holds them too, now and then."""
    log = ServingLog(tmp_path, flush=3600)
    taken, released = threading.Event(), threading.Event()

    def hold() -> None:
        with log._gate, log._gathering, log._turn:
            taken.set()
            released.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait()

    def work() -> None:
        offer(log, 7)
        log.flush()

    with forked(work):
        pass
    released.set()
    thread.join()
    assert logged(tmp_path) == [7]
    log.close()


# --- a whole store -------------------------------------------------------------------------------


def test_children_of_an_opened_store_serve_train_and_log(tmp_path: Path) -> None:
    """As under gunicorn --preload: opened and warm in the parent, used in the children, each at once."""
    store = opened(repository(tmp_path))
    assert store.get_online_features(asked(3), "model").to_dict()["view__x"] == [3 / 7]
    spill = store.offline._instances.spill_folder().path

    def work() -> None:
        for _ in range(5):
            assert store.get_online_features(asked(3, 4), "model").to_dict()["scaled"] == [6 / 7, 8 / 7]
        frame = store.get_historical_features(spine(NOON, thing=[3]), "view").to_arrow()
        assert frame["view__x"].to_pylist() == [3 / 7]
        assert store.offline._instances.spill_folder().path != spill
        store.status()
        store.close()

    def materialize() -> None:
        store.materialize(full=True, progress=False)
        work()

    with forked(materialize), forked(work):
        store.get_online_features(asked(5), "model")
    assert spill.exists()
    store.close()
    assert not spill.exists()
    files = [path for paths in segments(store.config.serving_log.folder).values() for path in paths]
    rows = [row for path in files for row in pq.read_table(path)["request"].to_pylist()]
    assert (len(rows), len(set(rows))) == (2 + 2 * 5 * 2, 2 + 2 * 5)
    assert store.serving_log_losses() == Losses(12, 12, 0, 0)
