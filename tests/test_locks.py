"""A process that is stopped holds up nobody for ever: who waits is told who holds the lock, and loses nothing."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from featurestore import FeatureService, FeatureStore, Latest, ManualClock
from featurestore.durable.lock import BusyError, exclusive
from featurestore.durable.numbers_file import NumbersFile
from featurestore.errors import FeatureStoreError, LogBusyError, LogError, OnlineUnavailableError
from featurestore.server.problems import STATUS
from featurestore.sources.log import FileLog
from featurestore.sources.log.files import CONFIRMED_LAYOUT
from featurestore.sources.log.log import Confirmed
from tests.small import NOON, raised
from tests.test_push import SWIPES, row, view_over

STOPPED = """
import signal, sys, threading
from datetime import datetime, UTC
from featurestore import FeatureStore, ManualClock
from featurestore.sources.log import FileLog
from featurestore.online import lmdb

def stopping(call):
    def stop(*args, **words):
        if not stopped:
            stopped.append(True)
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)  # sent to the process, this thread might go on a while
        return call(*args, **words)
    return stop

stopped = []
where = {"log": (FileLog, "append"), "online": (lmdb, "_put_all")}[sys.argv[2]]
setattr(*where, stopping(getattr(*where)))
with FeatureStore(sys.argv[1], clock=ManualClock(datetime(2024, 5, 1, 12, tzinfo=UTC))) as store:
    store.push("swipes", {"id": 1, "thing": 1, "at": "2024-05-01T12:00:00Z", "x": 1.0}, json=True)
"""


@contextmanager
def stopped(folder: Path, where: str) -> Iterator[int]:
    """The id of a pusher that was stopped in the middle of a push, and goes on afterwards to its end."""
    command = [sys.executable, "-c", STOPPED, str(folder), where]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), process.communicate()[1]
        yield process.pid
        os.kill(process.pid, signal.SIGCONT)
        assert process.communicate(timeout=600)[1] == b""
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


@contextmanager
def project(folder: Path) -> Iterator[FeatureStore]:
    text = 'project = "locks"\nonline = "lmdb://online?lock_timeout=0.3"\ndefinitions = []\nlock_timeout = 0.3\n'
    (folder / "featurestore.toml").write_text(text)
    with FeatureStore(folder, clock=ManualClock(NOON)) as store:
        rolled = view_over(name="rolled", refresh="1h", features={"last": Latest("x")})
        store.apply([FeatureService("service", features=[view_over()]), FeatureService("rolled", features=[rolled])])
        store.materialize(progress=False)
        yield store


def train(store: FeatureStore) -> Any:
    spine = pd.DataFrame({"thing": [1], "event_timestamp": [NOON]})
    return store.get_historical_features(spine, "service")


def test_a_pusher_that_is_stopped_is_named_by_those_who_wait(tmp_path: Path) -> None:
    """Push, materialize, repair and training give up in their time, with nothing lost; lookups do not wait at all."""
    with project(tmp_path) as store:
        with stopped(tmp_path, "log") as pid:
            for call in (
                lambda: store.push("swipes", row(2)),
                lambda: store.materialize(progress=False),
                store.repair,
                lambda: train(store),
                store.compact,
            ):
                said = raised(LogBusyError, call)
                assert f"process {pid} on " in said
                assert "holds it since 20" in said
                assert "pushing rows" in said
            assert "Nothing of this push was kept" in raised(LogBusyError, lambda: store.push("swipes", row(2)))
            assert store.get_online_features({"thing": 1}, "service").statuses["view__last"] == ["MISSING"]
        assert LogBusyError.retry
        assert next(status for kind, status, _ in STATUS if issubclass(LogBusyError, kind)) == 503
        assert store.push("swipes", row(2)) == (1, 0, 0)
        assert store.offline.log(SWIPES).read()["id"].to_pylist() == [1, 2]
        train(store)


def test_a_writer_that_is_stopped_within_the_embedded_store_is_named(tmp_path: Path) -> None:
    """LMDB itself would wait for ever. Who only reads does not wait."""
    with project(tmp_path) as store:
        with stopped(tmp_path, "online") as pid:
            said = raised(OnlineUnavailableError, lambda: store.online.write({b"a": b"b"}))
            assert f"process {pid} on " in said
            assert "writing to the online store" in said
            assert store.get_online_features({"thing": 1}, "service").statuses["view__last"] == ["MISSING"]
        assert store.push("swipes", row(2)) == (1, 0, 0)


def test_a_process_that_keeps_itself_waiting_says_so(tmp_path: Path) -> None:
    """A fill that takes long in this very process, in another thread than who waits."""
    with project(tmp_path) as store, ThreadPoolExecutor(1) as other:
        pusher = store._project.pushing._pusher("swipes")
        with pusher.alone("filling a view"):
            assert "this process has been working on its log" in raised(LogBusyError, store.repair)
            assert f"process {os.getpid()} on " in raised(LogBusyError, other.submit(train, store).result)


def test_a_holder_that_said_nothing(tmp_path: Path) -> None:
    """A lock whose file says nothing, or something else, is told as it is; one that is free is taken at once."""
    with exclusive(tmp_path / "lock", doing="nothing in particular"):
        for text in ("", "{}", "[]"):
            (tmp_path / "lock").write_text(text)
            with (
                pytest.raises(BusyError, match="does not say who"),
                exclusive(tmp_path / "lock", doing="", wait_seconds=0.01),
            ):
                pass
    with exclusive(tmp_path / "lock", doing="", wait_seconds=0.01):
        pass


def test_logs_that_are_made_at_the_same_time_wait_no_longer_than_they_may(tmp_path: Path) -> None:
    """The first look at a log makes it, under its lock."""
    import pyarrow as pa

    schema = pa.schema([("known_at", pa.int64())])
    (tmp_path / "log").mkdir()
    with exclusive(tmp_path / "log" / "lock", doing="making the log"):
        assert "making the log" in raised(
            LogBusyError, lambda: FileLog(tmp_path / "log", lambda: schema, wait_seconds=0.1)
        )
    FileLog(tmp_path / "log", lambda: schema).close()
    assert issubclass(LogBusyError, LogError)
    assert issubclass(LogBusyError, FeatureStoreError)


def test_what_was_confirmed_is_read_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system that is read-only, a log of before too, which has no such file yet."""
    said = Confirmed(written=5, served=7)
    file = NumbersFile(tmp_path / "confirmed", CONFIRMED_LAYOUT)
    file.write(said)
    file.close()
    real = os.open

    def read_only(path: Any, flags: int, *more: Any) -> int:
        if flags & (os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real(path, flags, *more)

    monkeypatch.setattr(os, "open", read_only)
    for name, expected in (("confirmed", said), ("missing", None)):
        file = NumbersFile(tmp_path / name, CONFIRMED_LAYOUT)
        assert file.read() == expected
        file.close()
