"""The pushers of a project: which source a view version takes its rows from, and what was ever over one."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from featurestore import FeatureService, FeatureStore, Max, PushSource, Sum
from featurestore.clock import instant_of
from featurestore.errors import NotFoundError, OnlineUnavailableError, PushError
from featurestore.online.source_state import LAG_US, state_key
from featurestore.online.view_codec import ViewCodec
from featurestore.semantics.view import ResolvedView
from featurestore.sources.push_logs import LATE
from tests.small import NOON, raised
from tests.test_push import SCHEMA, SWIPES, opened, row, view_over

CLICKS = PushSource("clicks", schema=SCHEMA, event_time="at", identity="id", deleted="gone")
FIRST = {"most": Max("x", window="1h")}


@pytest.fixture(scope="module")
def store() -> Iterator[FeatureStore]:
    """Two push sources: over one of them two views, one of which once was another version, which is freed; over the other a view
    of which that is so too."""
    before = [view_over(features=FIRST), view_over(CLICKS, name="other", features=FIRST)]
    with opened(*before, view_over(name="beside")) as (store, _):
        after = [view_over(), view_over(CLICKS, name="other", features={"sum": Sum("x", window="1h")})]
        store.materialize(progress=False)
        store.apply([*after, FeatureService("service", features=after)])
        store.materialize(progress=False)
        yield store


def first_of(store: FeatureStore, name: str) -> ResolvedView:
    return store._project.registry.version(1).view(name)


def test_of_the_versions_that_were_over_a_source_those_that_are_no_more(store: FeatureStore) -> None:
    """What is online of them is to go with all else of the source, and what is another source's is not."""
    gone = store._project.pushing._applied("swipes").gone()
    assert gone == [ViewCodec(store.config.project, first_of(store, "view")).watermark_key]


def test_pushes_wait_while_a_version_is_freed_that_takes_them(store: FeatureStore) -> None:
    """Those to the source that it is over, beside which other views stand; of a version that nobody knows none do."""
    log, pushing = store.offline.log(SWIPES), store._project.pushing
    now = store._project.registry.current().view("view")
    with pushing.alone(now.name, now.fingerprint), log.attempt("looking") as free:
        assert not free
    with pushing.alone("nobody", now.fingerprint), log.attempt("looking") as free:
        assert free


def test_only_a_push_source_can_be_compacted(store: FeatureStore) -> None:
    """By its name; of another name the nearest is told."""
    assert list(store.compact(["swipes"])) == ["swipes"]
    assert "Did you mean 'swipes'" in raised(NotFoundError, lambda: store.compact(["swipe"]))


def test_without_names_all_push_sources_are_compacted(store: FeatureStore) -> None:
    assert sorted(store.compact()) == ["clicks", "swipes"]


def test_what_are_no_rows_is_refused_by_coroutines_too(store: FeatureStore) -> None:
    for _ in range(2):  # by a pusher that is made for it, and by one that is there
        assert "int is neither rows nor a frame" in raised(PushError, lambda: asyncio.run(store.apush("swipes", 7)))


def test_a_view_is_filled_whole_once() -> None:
    """The run says so, and takes no longer than it took; what is complete is left alone, but where all of it is asked for."""
    with opened(view_over()) as (store, _):
        pushing, view = store._project.pushing, store._project.registry.current().view("view")
        assert pushing.push("swipes", row(1, at=NOON - timedelta(days=30))) == (0, 0, 1)
        store.push("swipes", row(2))
        beside = view_over(name="beside")
        store.apply([view_over(), beside, FeatureService("beside", features=[beside])])
        new, began = store._project.registry.current().view("beside"), time.perf_counter()
        assert pushing.fill(view, full=False) == []
        (run,) = pushing.fill(new, full=False)
        assert (run.full, run.keys, 0 <= run.seconds <= time.perf_counter() - began) == (True, 1, True)
        assert pushing.fill(new, full=False) == []
        assert [each.keys for each in pushing.fill(new, full=True)] == [1]


def test_a_clock_that_stands_still_is_looked_at_each_time_and_never_behind() -> None:
    with opened(view_over()) as (store, _):
        pushing = store._project.pushing
        assert pushing.lag == 0
        for number in range(2):
            store.push("swipes", row(number))
            now, (held,) = store.online.get([state_key(store.config.project, SWIPES)])
            assert pushing.witness(SWIPES)(held, now) == now
        assert pushing._heartbeat._thread is None


def test_of_a_server_every_source_is_confirmed_whose_log_is_here(tmp_path: Path) -> None:
    """Of others those that were pushed to; what was kept aside is at hand, too, once the server has repaired what there is."""
    (tmp_path / "featurestore.toml").write_text('project = "confirmed"\ndefinitions = []\n')
    with FeatureStore(tmp_path) as store:
        store.apply([view_over(), view_over(CLICKS, name="other")])
        assert store.push("swipes", row(1, at=datetime.now(UTC) - timedelta(days=30))).late == 1
    with FeatureStore(tmp_path) as store:
        pushing = store._project.pushing
        assert (pushing.lag, pushing._pushers_here(), pushing._heartbeat._thread) == (LAG_US, [], None)
        shutil.rmtree(store.offline.logs.folder_of("clicks"))  # as on a machine that never had it
        pushing.serve()
        assert pushing._heartbeat._thread is not None
        assert [pusher.source.name for pusher in pushing._pushers_here()] == ["swipes"]
        pushing.repair()
        assert store.offline.log(SWIPES, LATE) in store.offline.logs.opened("swipes")
        assert len(store.offline.logs.opened("swipes")) == 2


class Looks:
    """A clock of which each look is told beforehand; the last goes for all that follow."""

    def __init__(self, *instants: int) -> None:
        self.left = list(instants)

    def __call__(self) -> datetime:
        return NOON + timedelta(microseconds=self.left.pop(0) if len(self.left) > 1 else self.left[0])


def test_a_clock_is_waited_for_while_it_is_behind_by_ten_seconds_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most 10 ms at a time, and never longer than it is behind; what it is further behind is told at once."""
    clock = Looks(0)
    with FeatureStore.local(clock=clock) as store:
        slept: list[float] = []
        monkeypatch.setattr(time, "sleep", slept.append)
        for behind, sleeps in [((0, -1), []), ((-4_000, 0), [0.004]), ((-10_000_000, -20_000, 0), [0.01, 0.01])]:
            clock.left = list(behind)
            store._project.pushing._wait(instant_of(NOON))
            assert slept == sleeps
            slept.clear()
        clock.left = [-10_000_001, 0]
        with pytest.raises(OnlineUnavailableError, match="by a clock that was ahead of it"):
            store._project.pushing._wait(instant_of(NOON))
        assert slept == []


def test_what_a_push_does_not_wait_for_is_taken_back() -> None:
    """Rows that are ahead by more than ten seconds, to the µs."""
    with opened(view_over()) as (store, clock):
        clock.advance(timedelta(hours=1))
        store.push("swipes", row(1))
        (known,) = store.offline.log(SWIPES).read()["known_at"].to_pylist()
        clock.set(NOON + timedelta(microseconds=known - instant_of(NOON) - 10_000_000))
        assert store.take_back("swipes") == (0, None)
        clock.set(clock() - timedelta(microseconds=1))
        taken = store.take_back("swipes")
        assert (taken.rows, taken.file is not None and taken.file.exists()) == (1, True)
