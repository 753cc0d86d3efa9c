"""The last write of a pusher that was killed may show only after the next one has read the state."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import pytest

from featurestore import FeatureStore
from featurestore.errors import OnlineStoreError
from featurestore.online.source_state import SourceState
from featurestore.push.pusher import Pusher
from tests.test_push import opened, row, view_over


@dataclass
class LateWrites:
    """So many writes of others that come in just after the state was read, each with an instant that was applied."""

    pusher: Pusher
    left: int

    def __post_init__(self) -> None:
        self._read = self.pusher._state.read

    def __call__(self) -> tuple[SourceState, int]:
        state, now = self._read()
        if self.left:
            self.left -= 1
            late = SourceState(now - 1_000 * self.left - 1)
            self.pusher._store.write({self.pusher._state.key: late.pack()})
        return state, now


def late_writes(store: FeatureStore, count: int, monkeypatch: pytest.MonkeyPatch) -> LateWrites:
    pusher = store._project.pushing._pusher("swipes")
    writes = LateWrites(pusher, count)
    monkeypatch.setattr(pusher._state, "read", writes)
    return writes


@pytest.mark.parametrize("kind", ["lmdb", "redis"])
def test_a_write_that_shows_late_is_taken_in(kind: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The turn begins again with what it finds then: in a push, and in a repair that has something to apply."""
    with opened(view_over(), online="" if kind == "lmdb" else redis_url) as (store, clock):
        store.push("swipes", [row(1)])
        clock.advance(timedelta(seconds=10))
        writes = late_writes(store, 1, monkeypatch)
        assert store.push("swipes", [row(2, x=2.0)]).accepted == 1
        assert writes.left == 0
        assert store.get_online_features({"thing": 1}, "service").columns["view__total"] == [3.0]

        pusher = writes.pusher
        monkeypatch.undo()
        reserved = SourceState(pusher._state.read()[0].applied, pusher._state.read()[0].applied + 5)
        pusher._store.write({pusher._state.key: reserved.pack()})
        clock.advance(timedelta(seconds=10))
        writes = late_writes(store, 1, monkeypatch)
        store.repair()
        assert writes.left == 0
        assert writes.pusher._state.read()[0].reserved is None


def test_writes_that_go_on_are_another_pushers(monkeypatch: pytest.MonkeyPatch) -> None:
    """And an error, which keeps nothing."""
    with opened(view_over()) as (store, clock):
        store.push("swipes", [row(1)])
        clock.advance(timedelta(seconds=10))
        writes = late_writes(store, 2, monkeypatch)
        with pytest.raises(OnlineStoreError, match="one folder of logs"):
            store.push("swipes", [row(2)])
        assert writes.left == 0
        assert store.offline.log(store._project.pushing._pusher("swipes").source).read().num_rows == 1
        assert store.push("swipes", [row(2)]).accepted == 1
