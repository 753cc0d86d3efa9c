"""A push by a clock that was ahead: others are told at once, and how to go on before the clock has come there."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from featurestore import FeatureStore, ManualClock
from featurestore.clock import instant_of
from featurestore.errors import LogError, NotMaterializedError, OnlineUnavailableError
from tests.pushing import Killed
from tests.small import NOON, raised
from tests.test_online_returns import Meddled, apply, known, pusher_over
from tests.test_push import SWIPES, row, served
from tests.test_push_fates import REFUSED, Clock

HOURS = timedelta(hours=5)


def project(folder: Path, clock: Any) -> FeatureStore:
    text = 'project = "ahead"\nonline = "lmdb://online"\ndefinitions = []\n'
    (folder / "featurestore.toml").write_text(text)
    store = FeatureStore(folder, clock=clock)
    store._project.pushing._heartbeat.close()
    return store


def pushed_ahead(folder: Path) -> FeatureStore:
    """Two rows are pushed by the right clock, then two by one that is five hours ahead; the right one again."""
    with project(folder, ManualClock(NOON)) as store:
        apply(store)
        store.push("swipes", [row(1), row(2, thing=2)])
    with project(folder, ManualClock(NOON + HOURS)) as store:
        store.push("swipes", [row(1, x=2.0), row(3, x=4.0)])
        assert served(store, 1)["view__total"] == [6.0]
    return project(folder, Clock())


def test_a_push_after_one_that_was_ahead_says_how_to_go_on(tmp_path: Path) -> None:
    """Nothing is kept, nobody waits for hours, and nothing that was pushed by the right clock is touched."""
    with pushed_ahead(tmp_path) as store:
        said = raised(OnlineUnavailableError, lambda: store.push("swipes", row(4)))
        assert "by a clock that was ahead of it" in said
        assert "featurestore take-back swipes" in said
        assert REFUSED in said
        taken = store.take_back("swipes")
        assert taken.rows == 2
        assert store.offline.log(SWIPES).read()["id"].to_pylist() == [1, 2]
        with pytest.raises(NotMaterializedError):
            served(store, 1)
        store.materialize(progress=False)
        assert served(store, 1, 2)["view__total"] == [1.0, 1.0]
        assert taken.file is not None
        assert store.push("swipes", pq.read_table(taken.file)) == (2, 0, 0)
        assert store.push("swipes", [row(1, x=2.0), row(4, thing=2)]) == (1, 1, 0)
        assert served(store, 1, 2)["view__total"] == [6.0, 2.0]
        assert max(known(store)) < instant_of(NOON + timedelta(hours=1))
        assert store.take_back("swipes") == (0, None)


@pytest.mark.parametrize("writes", range(3))
def test_taking_back_may_be_killed_anywhere(writes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not done is done by the next call; no row is in neither the log nor a file."""
    with pushed_ahead(tmp_path) as store:

        def die(*_: Any, **__: Any) -> None:
            raise Killed

        with monkeypatch.context() as patch:
            online = Meddled(store.online, {writes + 1: die})
            if writes == 2:
                patch.setattr("featurestore.sources.log.file_log.FileLog.take_back", die)
            with pytest.raises(Killed):
                pusher_over(store, online).take_back("swipes")
        assert store.offline.log(SWIPES).read()["id"].to_pylist() == [1, 2, 1, 3]
        assert REFUSED in raised(OnlineUnavailableError, lambda: store.push("swipes", row(4)))
        assert store.take_back("swipes").rows == 2
        store.materialize(progress=False)
        assert store.push("swipes", [row(1, x=2.0), row(3, x=4.0)]) == (2, 0, 0)
        assert served(store, 1)["view__total"] == [6.0]


def test_an_answer_for_an_instant_that_was_ahead(tmp_path: Path) -> None:
    """A lookup by that clock is enough: rows have to be known after what was answered for. Taking back forgets it."""
    with project(tmp_path, ManualClock(NOON)) as store:
        apply(store)
        store.push("swipes", row(1))
    with project(tmp_path, ManualClock(NOON + HOURS)) as store:
        assert store.get_online_features({"thing": 1}, "service").as_of["view"] == NOON + HOURS
    with project(tmp_path, Clock()) as store:
        assert REFUSED in raised(OnlineUnavailableError, lambda: store.push("swipes", row(2)))
        assert store.take_back("swipes") == (0, None)
        store.materialize(progress=False)
        store.push("swipes", row(2))
        assert served(store, 1)["view__total"] == [2.0]


def test_rows_of_a_full_segment_stay(tmp_path: Path) -> None:
    """What is full is never changed: the error says so, and nothing is given up."""
    with pushed_ahead(tmp_path) as store:
        store.offline.log(SWIPES).compact(everything=True, grace=0)
        assert "in a full segment" in raised(LogError, lambda: store.take_back("swipes"))
        assert store.get_online_features({"thing": 1}, "service").to_dict()["view__total"] == [6.0]
