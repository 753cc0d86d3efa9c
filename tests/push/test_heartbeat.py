"""The thread that confirms what was pushed: how often, what it does where that fails, and how it begins and ends."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from featurestore.errors import OnlineStoreError, OnlineUnavailableError
from featurestore.push import heartbeat as module
from featurestore.push.heartbeat import BEAT_SECONDS, Heartbeat

HANGS_SECONDS = 600


class Beats:
    """Sources to be confirmed, which tell how often they were asked to be, and may fail."""

    def __init__(self, *failures: Exception | None) -> None:
        self._failures, self._asked = list(failures), threading.Condition()
        self.older: list[int] = []
        self.threads: set[threading.Thread] = set()

    def confirm(self, *, older: int) -> None:
        with self._asked:
            self.older.append(older)
            self.threads.add(threading.current_thread())
            self._asked.notify_all()
            failure = self._failures.pop(0) if self._failures else None
        if failure is not None:
            raise failure

    def wait_for(self, count: int) -> None:
        with self._asked:
            assert self._asked.wait_for(lambda: len(self.older) >= count, HANGS_SECONDS)

    def pushers(self) -> list[Any]:
        return [self]


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.001)


def test_it_beats_several_times_a_second() -> None:
    assert 0.1 <= BEAT_SECONDS <= 0.5


def test_it_confirms_what_was_said_longer_ago_than_half_a_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    """Again and again, from one thread, which a process does not wait for at its end; until it is closed."""
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.01)
    beats = Beats()
    heart = Heartbeat(beats.pushers)
    heart.start()
    heart.start()
    beats.wait_for(3)
    heart.start()
    heart.close()
    (thread,) = beats.threads
    assert (thread.daemon, thread.is_alive()) == (True, False)
    count = len(beats.older)
    assert set(beats.older) == {5_000}
    heart.close()
    heart.start()
    assert (len(beats.older), [each for each in threading.enumerate() if each.name == thread.name]) == (count, [])


def test_one_that_never_began_ends_at_once() -> None:
    heart = Heartbeat(Beats().pushers)
    heart.close()
    heart.start()
    assert heart._thread is None


def test_those_who_begin_it_together_begin_one() -> None:
    """Whoever comes to the lock second finds the thread there."""
    beats = Beats()
    heart = Heartbeat(beats.pushers)
    with heart._lock:
        starts = [threading.Thread(target=heart.start) for _ in range(2)]
        for start in starts:
            start.start()
    for start in starts:
        start.join(HANGS_SECONDS)
    beats.wait_for(5)
    heart.close()
    assert len(beats.threads) == 1


def test_who_closes_it_while_another_begins_it_waits_for_its_end() -> None:
    """A thread that is not started yet cannot be waited for."""
    heart = Heartbeat(Beats().pushers)
    with heart._lock:
        thread = heart._thread = threading.Thread(target=heart._work)
        closing = threading.Thread(target=heart.close)
        closing.start()
        closing.join(0.1)
        assert closing.is_alive()
        thread.start()
    closing.join(HANGS_SECONDS)
    assert (closing.is_alive(), thread.is_alive()) == (False, False)


def test_a_failure_is_told_once_until_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    """Another kind is told, and the same once more after a beat that went well; it goes on beating."""
    lost, other = OnlineUnavailableError("It is away."), OnlineStoreError("It is odd.")
    beats = Beats(lost, lost, other, lost, None, lost)
    heart = Heartbeat(beats.pushers)
    with caplog.at_level(logging.WARNING, logger="featurestore"):
        heart.start()
        beats.wait_for(7)
        heart.close()
    said = [record.getMessage().rpartition(": ")[2] for record in caplog.records]
    assert said == ["It is away.", "It is odd.", "It is away.", "It is away."]
