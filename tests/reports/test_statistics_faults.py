"""Statistics of served hours where things go wrong: hours that end while somebody asks, several who describe, a death, a clock set back."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

from featurestore import FeatureStore
from featurestore.statistics.feature_statistics import KeptStatistics
from tests.reports.test_statistics import KEYS, Shop
from tests.small import NOON, hours


def hours_of(store: FeatureStore) -> list[KeptStatistics]:
    return [one for one in store.statistics(service="model").found if one.kind == "hour"]


def test_an_hour_that_ends_while_it_is_served(tmp_path: Path) -> None:
    """Each row is in the hour in which it was answered, and in no other, though one file has rows of both."""
    shop = Shop(tmp_path)
    with shop.store as store:
        store.materialize(progress=False)
        for minute in range(50, 71):
            shop.clock.set(hours(minute / 60))
            store.get_online_features([{"thing": k} for k in range(minute % 7 + 1)], "model")
        shop.written()
        shop.clock.set(hours(3))
        store.compact_serving_log()
        asked = {hour: sum(m % 7 + 1 for m in range(50, 71) if m // 60 == hour) for hour in (0, 1)}
        assert {one.at: one.rows for one in hours_of(store)} == {NOON: asked[0], hours(1): asked[1]}


def test_several_describe_an_hour_at_once(tmp_path: Path) -> None:
    """It is kept once, as one alone would tell it, and nobody fails."""
    shop = Shop(tmp_path)
    with shop.store as store:
        store.materialize(progress=False)
        store.get_online_features([{"thing": k} for k in range(KEYS)], "model")
        shop.written()
        shop.clock.set(hours(2))
        stores = [FeatureStore(tmp_path, clock=shop.clock) for _ in range(4)]
        begun, failures = threading.Barrier(len(stores)), list[BaseException]()

        def describe(one: FeatureStore) -> None:
            try:
                begun.wait(60)
                one._project.serving_log.described()  # type: ignore[call-arg]  # a function that it was given
            except BaseException as error:  # noqa: BLE001 - whatever it is
                failures.append(error)

        threads = [threading.Thread(target=describe, args=(one,)) for one in stores]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert not failures
        assert not any(thread.is_alive() for thread in threads)
        assert [one._project.statistics.failures for one in stores] == [0] * len(stores)
        (hour,) = hours_of(store)
        assert hour.rows == KEYS
        for one in stores:
            one.close()


DIES = """
import os, signal, sys
from featurestore.registry import store as registry
add = registry.add_statistics
def die(connection, kept, *, most):
    add(connection, kept, most=most)
    os.kill(os.getpid(), signal.SIGKILL)
registry.add_statistics = die
from featurestore import FeatureStore
with FeatureStore(sys.argv[1]) as store:
    store.materialize(progress=False)
"""


def test_killed_while_the_statistics_are_written(tmp_path: Path) -> None:
    """The records that were published stay; neither the run nor its statistics are half there; the next run and its statistics are whole."""
    shop = Shop(tmp_path)
    with shop.store:
        pass
    ended = subprocess.run([sys.executable, "-c", DIES, str(tmp_path)], timeout=300, check=False)
    assert ended.returncode == -signal.SIGKILL
    with FeatureStore(tmp_path) as store:
        assert store.registry.runs() == ()
        assert store.statistics().found == ()
        assert store.get_online_features([{"thing": 3}], ["view:x"]).columns["view__x"] == [23.0]
        (run,) = store.materialize(full=True, progress=False)[-1:]
        (kept,) = store.statistics(view="view", limit=1).found
        assert (kept.rows, kept.run) == (run.keys, store.registry.runs(limit=1)[0].id)


def test_a_clock_that_is_set_back(tmp_path: Path) -> None:
    """Hours that are over for one clock and not for the other are neither lost nor told twice."""
    shop = Shop(tmp_path)
    with shop.store as store:
        store.materialize(progress=False)
        store.get_online_features([{"thing": 1}], "model")
        shop.written()
        shop.clock.set(hours(2))
        store.compact_serving_log()
        shop.clock.set(hours(0.5))
        store.compact_serving_log()
        store.get_online_features([{"thing": k} for k in range(3)], "model")
        shop.written()
        for later in (0.9, 2, 5):
            shop.clock.set(hours(later))
            store.compact_serving_log()
        (hour,) = hours_of(store)
        assert (hour.at, hour.rows) == (NOON, 1)
