"""Each error of a push says truthfully whether the rows were kept."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from featurestore import Count, FeatureService, FeatureStore, ManualClock, PushSource
from featurestore.clock import instant_of
from featurestore.errors import (
    FeatureStoreError,
    LogError,
    OnlineStoreError,
    OnlineUnavailableError,
    PushError,
)
from featurestore.online.redis import RedisStore
from featurestore.online.source_state import SourceState, state_key
from featurestore.push.push_queue import PushQueue, QueuedPush
from featurestore.server.problems import STATUS
from featurestore.sources.log import FileLog
from tests.pushing import kept, put_back
from tests.servers import RedisServer
from tests.small import NOON, raised
from tests.test_online_returns import Meddled, pusher_over
from tests.test_push import SCHEMA, SWIPES, logged, row, served, view_over

GIVES_UP_SECONDS = 1.0
"""Far more than the rows need to come into the log."""

SECOND = timedelta(seconds=1)
REFUSED, LOGGED, SERVED = "Nothing of this push was kept", "The rows are kept: they are in the log", "kept and applied"
FAR = PushSource("swipes", schema=SCHEMA, event_time="at", identity="id", deleted="gone", tolerance="1m")


class Clock:
    """A clock that runs by as much as it is looked at, and can be set."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        self.now += timedelta(milliseconds=1)
        return self.now


@contextmanager
def opened(source: PushSource = SWIPES) -> Iterator[tuple[FeatureStore, Clock]]:
    clock = Clock()
    with FeatureStore.local(clock=clock) as store:
        view = view_over(source)
        store.apply([view, FeatureService("service", features=[view])])
        store.materialize(progress=False)
        store._project.pushing._heartbeat.close()
        yield store, clock


def failing(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def ids(store: FeatureStore) -> list[int]:
    return [each["id"] for each in logged(store)]


def test_a_clock_that_is_far_behind() -> None:
    """Before anything is kept: rows of the log are ahead of the clock by more than is waited for."""
    with opened() as (store, clock):
        store.push("swipes", row(1))
        clock.now -= timedelta(minutes=1)
        said = raised(OnlineUnavailableError, lambda: store.push("swipes", row(2)))
        assert "by a clock that was ahead of it" in said
        assert REFUSED in said
        assert ids(store) == [1]


def test_rows_that_wait_for_the_clock_to_come_to_their_time() -> None:
    """After they were logged: what happened ahead of the clock is applied when the clock is there."""
    with opened(FAR) as (store, clock):
        said = raised(OnlineUnavailableError, lambda: store.push("swipes", row(1, at=NOON + 30 * SECOND)))
        assert LOGGED in said
        assert ids(store) == [1]
        clock.now += 31 * SECOND
        store.repair()
        assert served(store, 1)["view__last"] == [1.0]


@pytest.mark.parametrize(("write", "fate", "kept", "there"), [(1, REFUSED, "no", []), (2, LOGGED, "yes", [1])])
def test_a_store_that_cannot_be_reached(write: int, fate: str, kept: str, there: list[int]) -> None:
    """Before the reservation, or when the records are to be written."""
    with opened() as (store, _):
        store.push("swipes", {"id": 0, "gone": True})
        meddled = Meddled(store.online, {write: failing(OnlineUnavailableError("The store cannot be reached."))})
        with pytest.raises(OnlineUnavailableError, match=r"^The store cannot be reached\. ") as caught:
            pusher_over(store, meddled).push("swipes", row(1))
        assert fate in str(caught.value)
        assert caught.value.kept == kept
        assert ids(store) == [0, *there]
        store.repair()
        assert served(store, 1)["view__count"] == [1 if there else None]


def test_a_log_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full: nothing of the append stays."""
    with opened() as (store, _):

        def full(*_: Any) -> None:
            raise LogError("The disk is full.")

        with monkeypatch.context() as patch:
            patch.setattr(FileLog, "append", full)
            assert REFUSED in raised(LogError, lambda: store.push("swipes", row(1)))
        assert ids(store) == []
        assert store.push("swipes", row(1)) == (1, 0, 0)


def test_late_rows_that_cannot_be_kept_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others of the push are applied."""
    with opened() as (store, _):
        lock = FileLog.lock

        def locked(log: FileLog, doing: str = "") -> Any:
            if log.folder.name == "late":
                raise LogError("It cannot be opened.")
            return lock(log, doing)

        monkeypatch.setattr(FileLog, "lock", locked)
        late = row(2, at=NOON - timedelta(days=8))
        assert SERVED in raised(LogError, lambda: store.push("swipes", [row(1), late]))
        assert served(store, 1)["view__count"] == [1]


def test_another_pusher_that_writes_the_state() -> None:
    """Twice before the reservation: an error, with nothing kept. When the records are written: the log decides."""
    with opened() as (store, clock):
        store.push("swipes", row(1))
        key = state_key(store.config.project, SWIPES)

        def other() -> None:
            state = SourceState.unpack(store.online.get([key]).values[0])
            store.online.write({key: state._replace(confirmed=state.complete + 1).pack()})

        clock.now += SECOND
        meddled = Meddled(store.online, {1: other, 2: other})
        said = raised(OnlineStoreError, lambda: pusher_over(store, meddled).push("swipes", row(2)))
        assert "another pusher changed its state" in said
        assert REFUSED in said
        assert ids(store) == [1]
        clock.now += SECOND
        assert pusher_over(store, Meddled(store.online, {2: other})).push("swipes", row(2)) == (1, 0, 0)
        assert served(store, 1)["view__total"] == [2.0]


@pytest.mark.parametrize(("writes", "fate", "there"), [("e-e", REFUSED, [1, 2]), ("-oe", LOGGED, [1, 2, 3])])
def test_a_store_that_is_lost_again_and_again(writes: str, fate: str, there: list[int]) -> None:
    """Before the reservation nothing is kept; afterwards the rows are in the log. It can be tried again, either way.

    writes: what happens before each, e: the store is emptied, o: it comes back older.
    """
    with opened() as (store, _):
        store.push("swipes", row(1))
        older = {"e": {}, "o": kept(store)}
        store.push("swipes", row(2))
        before = kept(store)
        losing = {n: (lambda to=to: put_back(store, older[to])) for n, to in enumerate(writes, 1) if to in older}
        with pytest.raises(OnlineUnavailableError, match="was emptied, or came back older") as caught:
            pusher_over(store, Meddled(store.online, losing)).push("swipes", row(3))
        assert caught.value.retry
        assert fate in str(caught.value)
        assert ids(store) == there
        put_back(store, before)
        store.push("swipes", row(3))
        assert served(store, 1)["view__total"] == [3.0]
        assert ids(store) == [1, 2, 3]


def pushed_or_503(store: FeatureStore, rows: Any) -> bool:
    try:
        return store.push("swipes", rows).accepted == 1
    except FeatureStoreError as error:
        return next(status for kind, status, _ in STATUS if isinstance(error, kind)) == 503


@pytest.mark.parametrize("write", [1, 2])
def test_a_redis_that_restarts_empty_during_a_push(write: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The push goes on with what is there, or can be tried again; it is never a fault of the server, and no row is lost."""
    with RedisServer() as server:
        text = f'project = "emptied"\nonline = "{server.url}"\ndefinitions = []\n'
        (tmp_path / "featurestore.toml").write_text(text)
        with FeatureStore(tmp_path) as store:
            view = view_over()
            store.apply([view, FeatureService("service", features=[view])])
            store.materialize(progress=False)
            now = store.online.get([]).now / 1e6
            at = datetime.fromtimestamp(now, NOON.tzinfo)
            store.push("swipes", row(1, at=at))
            store._project.pushing._heartbeat.close()
            written, writes = RedisStore.write, [0]

            def restarting(own: RedisStore, *args: Any, **words: Any) -> bool:
                writes[0] += 1
                if writes[0] == write:
                    server.stop()
                    server.start()
                return written(own, *args, **words)

            with monkeypatch.context() as patch:
                patch.setattr(RedisStore, "write", restarting)
                assert pushed_or_503(store, row(2, at=at))
            assert store.push("swipes", row(2, at=at)).late == 0
            store.materialize(progress=False)
            assert served(store, 1)["view__total"] == [2.0]
            assert ids(store) == [1, 2]


def test_rows_that_are_refused_for_what_they_are() -> None:
    """A PushError keeps nothing, by its kind, and says what is wrong with which row."""
    with opened() as (store, _):
        assert "row 1" in raised(PushError, lambda: store.push("swipes", [row(1), row(2, at=NOON + timedelta(days=1))]))
        assert ids(store) == []


def test_a_pusher_that_died_before_it_told_the_store_takes_no_refreshed_view_away() -> None:
    """Of what the next pusher finds, only versions of views are taken away that are served no more."""
    clock = ManualClock(NOON)
    hourly = view_over(SWIPES, features={"n": Count(window="1d")}, refresh="1h")
    with FeatureStore.local(clock=clock) as store:
        store.apply([hourly, FeatureService("service", features=[hourly])])
        store.push("swipes", row(1))
        clock.advance(timedelta(hours=1))
        store.materialize(progress=False)
        log = store.offline.log(SWIPES)
        with log.lock():
            log.confirm(written=instant_of(clock()))
        store.push("swipes", row(2))
        assert served(store, 1) == {"thing": [1], "view__n": [1]}


def test_whoever_gives_up_before_the_rows_are_in_the_log_has_kept_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a batch with another one, of which everything is kept; and before its batch begins."""
    began, goes_on, whole = threading.Event(), threading.Event(), PushQueue.begins_to_keep

    def begins(queue: PushQueue, requests: Sequence[QueuedPush]) -> list[QueuedPush]:
        began.set()
        goes_on.wait()
        return whole(queue, requests)

    monkeypatch.setattr(PushQueue, "begins_to_keep", begins)
    with opened() as (store, _):
        pusher = store._project.pushing._pusher("swipes")
        with pusher._batch_lock:
            first, second = (store.submit_push("swipes", [row(number)]) for number in (1, 2))
        began.wait()
        third = store.submit_push("swipes", [row(3)])
        for answer in (second, third):
            with pytest.raises(OnlineUnavailableError, match=REFUSED):
                answer.within(0.01)
        goes_on.set()
        assert first.result() == (1, 0, 0)
        assert ids(store) == [1]
        assert store.push("swipes", [row(2), row(3), row(1)]) == (2, 1, 0)
        assert served(store, 1)["view__count"] == [3]


@pytest.mark.parametrize("by", ["thread", "coroutine"])
def test_whoever_gives_up_afterwards_has_kept_them(by: str) -> None:
    """Rows that are in the log stay there, and the trail tells who pushed them."""
    goes_on = threading.Event()
    with opened() as (store, _):
        pusher = store._project.pushing._pusher("swipes")
        wait, pusher._state.wait = pusher._state.wait, lambda _: goes_on.wait() and None  # type: ignore[assignment]  # what it returns is not looked at
        asked: dict[str, Any] = {"source": "swipes", "rows": [row(1)], "within_seconds": GIVES_UP_SECONDS}
        push = {"thread": lambda: store.push(**asked), "coroutine": lambda: asyncio.run(store.apush(**asked))}[by]
        assert LOGGED in raised(OnlineUnavailableError, push)
        goes_on.set()
        pusher._state.wait = wait
        assert store.push("swipes", [row(1)]) == (0, 1, 0)
        assert ids(store) == [1]
        assert sum(one.detail["accepted"] for one in store.activity(what="push")) == 1
