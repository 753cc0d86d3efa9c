"""Logs are compacted by command, and in the background of whoever pushes, beside pushes and readers."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from featurestore import Count, Entity, FeatureService, FeatureStore, FeatureView, PushSource
from featurestore.errors import LogError
from featurestore.push import compactor
from featurestore.sources.log import FileLog
from featurestore.sources.push_logs import LATE
from featurestore.types import Int64, Timestamp
from tests.compact_worker import SEGMENT
from tests.test_push import start_and_stop

ROOT = Path(__file__).parents[1]
SWIPES = PushSource(
    "swipes", schema={"swipe": Int64, "card": Int64, "at": Timestamp}, event_time="at", identity="swipe"
)  # fmt: skip
CARDS = FeatureView(
    "cards", entity=Entity("card", key={"card": Int64}), source=SWIPES, features={"swipes": Count(window="1d")}
)  # fmt: skip


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FileLog.__init__.__kwdefaults__, "segment_bytes", SEGMENT)  # type: ignore[arg-type]  # it has keyword defaults


def project(folder: Path, *, after: int) -> FeatureStore:
    text = f'project = "compacted"\ndefinitions = []\ncompact_after = {after}\n'
    (folder / "featurestore.toml").write_text(text)
    return FeatureStore(folder)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FeatureStore]:
    """One that seals segments once two are full."""
    with project(tmp_path, after=2) as store:
        store.apply([CARDS, FeatureService("cards", features=[CARDS])])
        yield store


def swipe(number: int, at: datetime) -> dict[str, Any]:
    return {"swipe": number, "card": number % 3, "at": at}


PUSHES: dict[str, Callable[[FeatureStore, str, Any], Any]] = {
    "push": FeatureStore.push,
    "apush": lambda store, source, rows: asyncio.run(store.apush(source, rows)),  # as a server does
    "submit_push": lambda store, source, rows: store.submit_push(source, rows).result(),
}


def push_until(store: FeatureStore, segments: int, by: str = "push") -> int:
    """Push one row at a time until the log has so many segments; how many there are."""
    log, number = store.offline.log(SWIPES), 0
    while len(log.segments()) < segments:
        PUSHES[by](store, "swipes", swipe(number, datetime.now(UTC)))
        number += 1
    return number


def settled(log: Any, below: int) -> None:
    """Wait until fewer segments than that are full and not sealed."""
    deadline = time.monotonic() + 600
    while log.unsealed() >= below:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def served(store: FeatureStore) -> int:
    answer = store.get_online_features([{"card": card} for card in range(3)], "cards")
    return sum(count or 0 for count in answer.to_dict()["cards__swipes"])


@pytest.mark.parametrize("by", PUSHES)
def test_who_pushes_compacts_in_the_background(store: FeatureStore, by: str) -> None:
    """Once two segments are full they are sealed, with their rows in their order; what is served stays what it was."""
    pushed = push_until(store, 5, by)
    log = store.offline.log(SWIPES)
    settled(log, 2)
    assert sum(segment.sealed for segment in log.segments()) >= 2
    assert log.read()["swipe"].to_pylist() == list(range(pushed))
    assert served(store) == pushed
    with store.offline.session() as session:
        assert session.connection.execute(f"SELECT count(*) FROM {session.scan(SWIPES).relation}").fetchall() == [
            (pushed,)
        ]


def test_it_can_be_switched_off(tmp_path: Path) -> None:
    """`compact_after = 0` leaves every log as it is, until somebody calls compact."""
    with project(tmp_path, after=0) as store:
        store.apply([CARDS])
        push_until(store, 5)
        store.repair()
        assert store.offline.log(SWIPES).unsealed() == 4
        assert store.compact()["swipes"].segments == 4


def test_late_rows_are_compacted_too(store: FeatureStore) -> None:
    """By command, and in the background."""
    old = datetime.now(UTC) - timedelta(days=30)
    store.push("swipes", [swipe(0, old)])
    late = store.offline.log(SWIPES, LATE)
    number = 1
    while len(late.segments()) < 2:
        assert store.push("swipes", [swipe(number, old)]).late == 1
        number += 1
    done = store.compact()["swipes"]
    assert (done.segments, done.rows) == (1, late.segments()[0].rows)
    while len(late.segments()) < 4:
        store.push("swipes", [swipe(number, old)])
        number += 1
    settled(late, 2)
    assert late.read()["swipe"].to_pylist() == list(range(number))


def test_a_server_that_starts_compacts_what_was_left(tmp_path: Path) -> None:
    """Full segments of a process that died before it sealed them are sealed when a server comes up."""
    with project(tmp_path, after=0) as store:
        store.apply([CARDS])
        pushed = push_until(store, 4)
    with project(tmp_path, after=2) as store:
        asyncio.run(start_and_stop(store))
        log = store.offline.log(SWIPES)
        settled(log, 1)
        assert log.read().num_rows == pushed


def test_a_failure_in_the_background_is_told_and_pushes_go_on(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A compaction that cannot write warns, leaves the log alone for a while, and is made up for later."""

    def full(*_: object, **__: Any) -> None:
        raise LogError("The push log cannot write: the disk is full")

    monkeypatch.setattr(compactor, "RETRY_SECONDS", 6_000.0)
    with monkeypatch.context() as patch:
        patch.setattr(FileLog, "compact_beside", full)
        pushed = push_until(store, 5)
        deadline = time.monotonic() + 600
        while "the disk is full" not in caplog.text:  # a thread of its own says so
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert caplog.text.count("could not be compacted") == 1
    assert served(store) == pushed
    monkeypatch.setattr(compactor.time, "monotonic", lambda own=time.monotonic: own() + compactor.RETRY_SECONDS)  # type: ignore[attr-defined]  # a name that the module imports, to be replaced
    log = store.offline.log(SWIPES)
    while not any(segment.sealed for segment in log.segments()):
        store.push("swipes", swipe(pushed, datetime.now(UTC)))
        pushed += 1


@pytest.mark.parametrize(("seed", "crash"), [(1, 4), (2, 11), (4, 27)])
def test_killed_in_the_middle_nothing_is_lost(store: FeatureStore, tmp_path: Path, seed: int, crash: int) -> None:
    """A process that pushes is killed at a step of its background compaction: each row that was acknowledged is there
    once, served, and the next process completes what was begun."""
    command = [sys.executable, "-m", "tests.compact_worker", str(tmp_path), str(seed), str(crash)]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == -9, done.stderr
    acknowledged = [int(line) for line in done.stdout.split()]
    store.repair()
    log = store.offline.log(SWIPES)
    settled(log, 2)
    store.compact()
    there = log.read()["swipe"].to_pylist()
    assert there == list(range(len(there)))
    assert len(acknowledged) <= len(there) <= len(acknowledged) + 1
    assert served(store) == len(there)
    named = {segment.file for segment in log.segments()}
    assert {path.name for path in log.folder.glob("*.parquet*")} <= named
