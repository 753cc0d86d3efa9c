"""An online store that comes back older than it was: what it answers is still true of its as_of, and it is repaired."""

from __future__ import annotations

import shutil
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from featurestore import FeatureService, FeatureStore, FeatureView, Latest, ManualClock, Max
from featurestore.clock import instant_of, to_datetime
from featurestore.errors import FeatureStoreError, NotMaterializedError, OnlineStoreError
from featurestore.online import Guard, OnlineStore, Reading
from featurestore.online.source_state import NEVER, SourceState, state_key
from featurestore.push.push_sources import Pushing
from featurestore.serving import view_readers as parts
from tests.pushing import DyingStore, Killed, kept, put_back
from tests.servers import RedisServer, until
from tests.small import NOON, raised, trained
from tests.test_push import FOLDS, SWIPES, logged, row, served, view_over

SECOND = timedelta(seconds=1)


@contextmanager
def project(
    folder: Path, online: str, *, logs: str = "logs", clock: Any = None, rate: float = 0.0
) -> Iterator[FeatureStore]:
    """A project in a folder; with other `logs`, as on a machine that has none."""
    text = (
        f'project = "returns"\nonline = "{online}"\nlogs = "{logs}"\ndefinitions = []\n[serving_log]\nrate = {rate}\n'
    )
    (folder / "featurestore.toml").write_text(text)
    with FeatureStore(folder, clock=clock) as store:
        yield store


def apply(store: FeatureStore, view: FeatureView | None = None) -> None:
    over = view or view_over(features={**FOLDS, "most": Max("x", window="lifetime")})
    store.apply([over, FeatureService("service", features=[over])])
    store.materialize(progress=False)


def as_of(store: FeatureStore) -> datetime:
    return store.get_online_features({"thing": 1}, "service").as_of["view"]


def known(store: FeatureStore) -> list[int]:
    return [each["known_at"] for each in logged(store)]


def last(store: FeatureStore) -> Any:
    """What is served, which is what training says at the as_of served."""
    return served(store, 1)["view__last"][0]


def read(reader: FeatureStore, holder: FeatureStore) -> Any:
    """What a process without the log is served, which is what training says at the as_of served."""
    online = reader.get_online_features({"thing": 1}, "service")
    offline = trained(holder, online.as_of["view"], "service", thing=[1])
    for column, values in online.to_dict().items():
        if column != "thing":
            assert values == offline[column].to_pylist(), column
    return online.to_dict()["view__last"][0]


# --- the two stores, as they really come back -----------------------------------------------------------------------


def test_an_embedded_folder_that_is_copied_back_serves_what_it_confirmed(tmp_path: Path) -> None:
    """Until the next run, it answers for the instant of the copy and says so; then for now. Nothing served was skewed."""
    clock, online = ManualClock(NOON), tmp_path / "online"
    with project(tmp_path, "lmdb://online", clock=clock, rate=1.0) as store:
        apply(store)
        store.push("swipes", row(1, x=5.0))
        assert last(store) == 5.0
    shutil.copytree(online, tmp_path / "copy")
    with project(tmp_path, "lmdb://online", clock=clock, rate=1.0) as store:
        clock.advance(10 * SECOND)
        store.push("swipes", [row(2, x=12.0), row(3, x=13.0, thing=2), {"id": 3, "gone": True}])
        assert last(store) == 12.0
    shutil.rmtree(online)
    (tmp_path / "copy").rename(online)
    with project(tmp_path, "lmdb://online", clock=clock, rate=1.0) as store:
        clock.advance(10 * SECOND)
        assert last(store) == 5.0
        assert instant_of(as_of(store)) < known(store)[1]
        assert store.get_online_features({"thing": 1}, "service").stale == {"view": True}
        store.materialize(progress=False)
        assert last(store) == 12.0
        assert as_of(store) == clock()
        assert store.push("swipes", [row(2, x=12.0), row(4, x=1.0)]) == (1, 1, 0)  # identities came back, too
        assert served(store, 1, 2)["view__total"] == [18.0, None]
        audit = store.audit()
        assert audit.skewed == 0
        assert audit.compared > 20


@pytest.mark.parametrize("holder", ["push", "server"])
def test_a_redis_that_restarts_from_an_older_snapshot(holder: str, tmp_path: Path) -> None:
    """SAVE, more pushes, kill -9, restart: a reader without the log never answers for an instant of which it lacks rows,
    and whoever has the log repairs it, by the next push or on its own."""
    with RedisServer() as server, project(tmp_path, server.url, rate=1.0) as store:
        apply(store)
        with project(tmp_path, server.url, logs="elsewhere", rate=1.0) as reader:
            store.push("swipes", row(1, x=5.0, at=datetime_now()))
            assert read(reader, store) == 5.0
            server.client().save()
            store.push("swipes", row(2, x=12.0, at=datetime_now()))
            assert read(reader, store) == 12.0
            until(lambda: not reader.get_online_features({"thing": 1}, "service").stale["view"])
            store._project.pushing._heartbeat.close()
            server.stop()
            server.start()
            assert read(reader, store) == 5.0
            assert instant_of(as_of(reader)) < known(store)[1]
            assert last(store) == 5.0
            if holder == "push":
                store.push("swipes", row(3, thing=2, at=datetime_now()))
            else:
                with project(tmp_path, server.url) as other:
                    other.confirm_pushes()
                    until(lambda: as_of(reader) > to_datetime(known(store)[1]))
            assert read(reader, store) == 12.0
            assert not (tmp_path / "elsewhere").exists()
        audit = store.audit()
        assert (audit.skewed, audit.compared > 10) == (0, True)


def datetime_now() -> datetime:
    return to_datetime(time.time_ns() // 1000)


def test_a_source_at_rest_stays_fresh_for_readers_without_the_log(tmp_path: Path, redis_url: str) -> None:
    """For as long as a process lives that pushed; after that they answer for the last instant that it confirmed."""
    with project(tmp_path, redis_url) as store:
        apply(store)
        with project(tmp_path, redis_url, logs="elsewhere") as reader:
            store.push("swipes", row(1, at=datetime_now()))
            first = as_of(reader)
            until(lambda: as_of(reader) > first)
            pusher = store._project.pushing._pusher("swipes")
            store._project.pushing._heartbeat.close()
            left = as_of(reader)
            pusher.confirm(older=3_600_000_000)  # said less than an hour ago: nothing to do
            assert as_of(reader) == left
            pusher.confirm(older=0)
            assert as_of(reader) > left
            store.teardown()


# --- between any two steps -----------------------------------------------------------------------------------------


class Meddled:
    """A store to which something happens before a write that is chosen."""

    def __init__(self, store: OnlineStore, before: Mapping[int, Any]) -> None:
        self._store, self._before, self.writes = store, before, 0
        self.blocking, self.tagged = store.blocking, store.tagged

    def get(self, keys: Any) -> Reading:
        return self._store.get(keys)

    def scan(self, prefix: bytes) -> Iterator[list[bytes]]:
        return self._store.scan(prefix)

    def write(self, puts: Mapping[bytes, bytes | None], *, guard: Guard | None = None) -> bool:
        self.writes += 1
        if self.writes in self._before:
            self._before[self.writes]()
        return self._store.write(puts, guard=guard)

    def close(self) -> None:
        self._store.close()


def pusher_over(store: FeatureStore, online: OnlineStore) -> Pushing:
    """Another process that pushes, as it were, through a store of its own; nothing of it goes on in the background."""
    config = store.config
    pushing = Pushing(store.registry, store.offline, online, project=config.project, clock=store._project.clock)
    pushing._heartbeat.close()
    return pushing


@pytest.mark.parametrize("emptied", [False, True])
@pytest.mark.parametrize("write", [1, 2])
def test_a_store_that_goes_back_while_rows_are_pushed(write: int, emptied: bool, tmp_path: Path) -> None:
    """Before the reservation, or before the records: the push goes on with what it finds, and its rows count once."""
    clock = ManualClock(NOON)
    with project(tmp_path, "lmdb://online", clock=clock) as store:
        apply(store)
        store.push("swipes", row(1, x=5.0))
        old = {} if emptied else kept(store)
        clock.advance(SECOND)
        store.push("swipes", row(2, x=12.0))
        meddled = Meddled(store.online, {write: lambda: put_back(store, old)})
        assert pusher_over(store, meddled).push("swipes", row(3, x=1.0)) == (1, 0, 0)
        assert [each["id"] for each in logged(store)] == [1, 2, 3]
        if emptied:
            with pytest.raises(NotMaterializedError):
                last(store)
            store.materialize(progress=False)
        assert served(store, 1)["view__total"] == [18.0]
        assert store.push("swipes", [row(number, x=x) for number, x in ((1, 5.0), (2, 12.0), (3, 1.0))]) == (0, 3, 0)


def test_a_heartbeat_that_lands_after_the_store_went_back_changes_nothing(tmp_path: Path) -> None:
    """Its guard is the state that it saw."""
    clock = ManualClock(NOON)
    with project(tmp_path, "lmdb://online", clock=clock) as store:
        apply(store)
        store.push("swipes", row(1, x=5.0))
        old = kept(store)
        store.push("swipes", row(2, x=12.0))
        clock.advance(SECOND)

        def back() -> None:
            put_back(store, old)
            raise Killed  # its write is still on the way, and comes below

        late: list[Any] = []
        online = Meddled(store.online, {1: back})
        write = online.write
        online.write = lambda puts, guard=None: late.append((puts, guard)) or write(puts, guard=guard)  # type: ignore[method-assign]  # replaced for this store alone
        with pytest.raises(Killed):
            pusher_over(store, online)._pusher("swipes").confirm(older=0)
        assert not store.online.write(late[0][0], guard=late[0][1])
        assert last(store) == 5.0
        store.repair()
        assert last(store) == 12.0


@pytest.mark.parametrize("writes", range(4))
def test_the_holder_that_repairs_may_die_anywhere(writes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two pieces of the log, and before the last word; the next one goes on from there."""
    monkeypatch.setattr("featurestore.push.apply_log.missing_rows.__kwdefaults__", {"least": 1})
    clock = ManualClock(NOON)
    with project(tmp_path, "lmdb://online", clock=clock) as store:
        apply(store)
        store.push("swipes", row(0, x=1.0))
        old = kept(store)
        for number in range(1, 4):
            clock.advance(SECOND)
            store.push("swipes", [row(number, x=2.0**number), row(0, x=1.0 - number)])
        put_back(store, old)
        with pytest.raises(Killed):
            pusher_over(store, DyingStore(store.online, writes)).repair()
        assert instant_of(as_of(store)) == known(store)[writes]
        last(store)
        store.repair()
        assert served(store, 1)["view__total"] == [12.0]
        assert as_of(store) == clock()


def test_versions_that_a_snapshot_brings_back_are_not_served(tmp_path: Path) -> None:
    """Of a view that was replaced and freed no push changes the records, so nothing may be said of them."""
    clock = ManualClock(NOON)
    with project(tmp_path, "lmdb://online", clock=clock) as store:
        first = view_over(features={"last": Latest("x")})
        apply(store, first)
        fingerprint = store.lookup("service").service.fingerprint
        store.push("swipes", row(1, x=5.0))
        old = kept(store)
        apply(store)
        store.push("swipes", row(2, x=12.0))
        put_back(store, old)
        store.reload()
        assert last(store) == 5.0  # by the version before, for the instant before
        store.push("swipes", row(3, x=13.0))
        store.reload()
        for service in (None, fingerprint):
            with pytest.raises(FeatureStoreError):
                store.get_online_features({"thing": 1}, "service", fingerprint=service)
        store.materialize(progress=False)
        store.reload()
        assert last(store) == 13.0


def test_a_clock_that_comes_back_behind_gives_no_instant_twice(tmp_path: Path) -> None:
    """A replica may be behind in its clock, too: rows are known after all that was ever answered for."""
    clock = ManualClock(NOON)
    with project(tmp_path, "lmdb://online", clock=clock) as store:
        apply(store)
        store.push("swipes", row(1, x=5.0))
        old = kept(store)
        clock.advance(5 * SECOND)
        answered = as_of(store)
        assert answered == clock()
        put_back(store, old)
        clock.set(NOON + SECOND)
        store.push("swipes", row(2, x=12.0))
        assert to_datetime(known(store)[1]) > answered
        assert last(store) == 12.0


def test_another_folder_of_logs_is_refused_when_it_is_met(tmp_path: Path) -> None:
    """A pusher whose log lacks rows that are online says so, and keeps nothing; as does materialize."""
    clock = ManualClock(NOON)
    with project(tmp_path, "lmdb://online", clock=clock) as store:
        apply(store)
        store.push("swipes", row(1, x=5.0))
    with project(tmp_path, "lmdb://online", logs="elsewhere", clock=clock) as other:
        for call in (lambda: other.push("swipes", row(2)), lambda: other.materialize(progress=False)):
            said = raised(OnlineStoreError, call)
            assert "filled from another log" in said
            assert str(tmp_path / "elsewhere") in said
        assert logged(other) == []


def test_a_state_of_the_format_before_is_read(tmp_path: Path) -> None:
    """It is true up to its last row; whoever has the log writes it anew."""
    clock = ManualClock(NOON)
    with project(tmp_path, "lmdb://online", clock=clock) as store:
        apply(store)
        store.push("swipes", row(1, x=5.0))
        applied = known(store)[0]
        key = state_key("returns", SWIPES)
        store.online.write({key: struct.pack("<Bqq", 1, applied, NEVER)})
        clock.advance(SECOND)
        assert instant_of(as_of(store)) == applied
        store.repair()
        assert as_of(store) == clock()
        held = SourceState.unpack(store.online.get([key]).values[0])
        assert (held.applied, held.last) == (applied, applied)
        assert "in format 9" in raised(OnlineStoreError, lambda: SourceState.unpack(b"\x09abc"))


# --- the audit ------------------------------------------------------------------------------------------------------


def test_the_audit_names_a_store_that_went_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where answers claimed the clock's instant, as they did before anything was confirmed."""
    clock = ManualClock(NOON)
    with project(tmp_path, "lmdb://online", clock=clock, rate=1.0) as store:
        apply(store)
        store.push("swipes", row(1, x=5.0))
        old = kept(store)
        for number in range(2, 9):
            clock.advance(SECOND)
            store.push("swipes", row(number, x=12.0))
        put_back(store, old)
        clock.advance(SECOND)
        with monkeypatch.context() as patch:
            patch.setattr(parts, "served_as_of", lambda state, now, **_: now)
            assert store.get_online_features({"thing": 1}, "service").to_dict()["view__last"] == [5.0]
        store.repair()
        assert last(store) == 12.0
        audit = store.audit()
        assert set(audit.causes) == {"online store went back"}
        details = {example.detail for feature in audit.features for example in feature.examples}
        assert len(details) == 1
        assert "it went back to 2024-05-01 12:00:00" in details.pop()


def test_a_killed_holder_is_no_return(tmp_path: Path) -> None:
    """What a pusher left in the log is applied, and nothing is said of the store."""
    clock = ManualClock(NOON)
    with project(tmp_path, "lmdb://online", clock=clock) as store:
        apply(store)
        store.push("swipes", row(1, x=5.0))
        with pytest.raises(Killed):
            pusher_over(store, DyingStore(store.online, 1)).push("swipes", row(2, x=12.0))
        store.repair()
        assert last(store) == 12.0
        assert store.offline.log(SWIPES).returns() == []
