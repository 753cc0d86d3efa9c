"""The local log as a witness of what is online: for which instants it vouches, and how often it is asked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from featurestore import Count, Entity, FeatureService, FeatureStore, FeatureView, PushSource
from featurestore.online.source_state import NEVER, SourceState, state_key
from featurestore.push.witness import LogWitness
from featurestore.types import Int64, Timestamp

SOURCE = PushSource("clicks", schema={"user": Int64, "at": Timestamp}, event_time="at")
VIEW = FeatureView(
    "of_user", entity=Entity("user", key={"user": Int64}), source=SOURCE, features={"n": Count(window="1h")}
)
SOON = 10**12  # µs


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FeatureStore]:
    folder = tmp_path / "repo"
    folder.mkdir()
    (folder / "featurestore.toml").write_text('project = "clicks"\ndefinitions = []\n')
    with FeatureStore(folder) as store:
        store.apply([FeatureService("users", features=[VIEW])])
        yield store


def push(store: FeatureStore) -> tuple[bytes, int]:
    """The state online after a push, and an instant after it by the store's clock."""
    store.push("clicks", {"user": 1, "at": datetime.now(UTC) - timedelta(minutes=1)})
    now, (held,) = store.online.get([state_key("clicks", SOURCE)])
    assert held is not None
    return held, now


def test_it_vouches_for_whoever_has_all_of_the_log(store: FeatureStore) -> None:
    before, _ = push(store)
    held, now = push(store)
    witness = LogWitness(SOURCE, store.offline, every=0)
    assert witness(before, now) == NEVER, "a row is missing"
    assert witness(SourceState().pack(), now + 1) == NEVER
    assert witness(held, now + 2) == now + 2
    assert witness(held, now + 1) == now + 2, "what was vouched for stays so"
    assert witness(before, now + 3) == NEVER, "of another reading nothing is known"
    reserved = SourceState.unpack(held)._replace(reserved=now).pack()
    assert witness(reserved, now + 4) == NEVER, "a row is on its way"
    assert witness(held, now + SOON) == now + SOON, "it is asked again and again"


def test_what_is_vouched_for_is_remembered_beside_the_log(store: FeatureStore) -> None:
    held, now = push(store)
    assert LogWitness(SOURCE, store.offline, every=0)(held, now + SOON) == now + SOON
    log = store.offline.log(SOURCE)
    with log.lock("looking"):
        assert log.confirmed().served == now + SOON


def test_it_looks_no_more_often_than_it_is_told(store: FeatureStore) -> None:
    held, now = push(store)
    witness = LogWitness(SOURCE, store.offline, every=1_000)
    assert witness(held, now) == now
    assert witness(held, now + 999) == now
    assert witness(held, now + 1_000) == now + 1_000
    later, _ = push(store)
    assert witness(later, now + 1_001) == NEVER
    assert witness(later, now + SOON) == now + SOON
    assert witness(later, now + SOON - SOON // 2) == now + SOON, "a clock that goes back is behind what is known"


def test_one_looks_at_a_time(store: FeatureStore) -> None:
    """Whoever comes meanwhile answers with what was known."""
    held, now = push(store)
    witness = LogWitness(SOURCE, store.offline, every=0)
    log = store.offline.log(SOURCE)
    with log.lock("holding it"):
        told: list[int] = []
        other = threading.Thread(target=lambda: told.append(witness(held, now)))
        other.start()
        other.join()
        assert told == [NEVER], "the log is somebody's"
    assert witness(held, now) == now


def test_without_the_log_it_vouches_for_nothing(store: FeatureStore, tmp_path: Path) -> None:
    held, now = push(store)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "featurestore.toml").write_text('project = "clicks"\ndefinitions = []\n')
    with FeatureStore(elsewhere) as other:
        assert LogWitness(SOURCE, other.offline, every=0)(held, now) == NEVER
        assert not other.offline.logs.folder_of("clicks").exists()
