"""Landings pushed one by one while flights are looked up: what is served is what training says, and what a person counts."""

from datetime import UTC, timedelta
from pathlib import Path

import pandas as pd
import pytest

from feature_repo import pushed
from feature_repo.comparison import differing
from feature_repo.demo import START, repository
from feature_repo.prepare import prepare
from feature_repo.pushed import MESSAGE, SERVICE, SOURCE, Pushes
from featurestore import ManualClock

DAYS = 31
WINDOWS = {"1h": ("1h", "5min"), "1d": ("1D", "1h"), "7d": ("7D", "1h"), "30d": ("30D", "1D")}
"""Window → its length, and the hop of its tail."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("flights"))


@pytest.fixture(scope="module")
def replayed(data: Path) -> Pushes:
    clock = ManualClock(START)
    with repository(data, clock) as store:
        return pushed.replay(store, clock, data, start=START, hours=14, days=DAYS)


def test_every_served_value_has_the_bits_of_training(replayed: Pushes) -> None:
    """Fourteen hours of landings and departures after a month: training from the log agrees with what was served."""
    assert replayed.differing == {}
    assert replayed.before > 27_000
    assert replayed.landings > 300
    assert replayed.lookups > 150
    assert replayed.values == len(replayed.asked) * 2 * 12
    assert len(replayed.asked) > 300
    assert replayed.served["carrier_now__landings_1h"].null_count < replayed.served.num_rows / 2


def test_what_is_served_is_what_a_person_counts(replayed: Pushes, data: Path) -> None:
    """Counts, means and maxima of the landings that had been pushed by the departure, found with pandas alone."""
    landings = pd.read_parquet(data / "landings.parquet")
    landings = landings[landings["landed_at"] >= START.astimezone(UTC) - timedelta(days=DAYS)]
    served = replayed.served.to_pylist()
    filled = 0
    for place in range(0, len(served), 15):
        flight, found = replayed.asked.iloc[place], served[place]
        for view, keys in {"carrier_now": ["carrier"], "route_now": ["origin", "dest"]}.items():
            same = (landings[keys] == flight[keys]).all(axis=1) & (
                landings["landed_at"] + MESSAGE <= flight["sched_dep"]
            )
            for window, (length, hop) in WINDOWS.items():
                start = (flight[view] - pd.Timedelta(length)).floor(hop)
                delays = landings[same & (landings["landed_at"] > start)]["arr_delay"].tolist()
                got = [found[f"{view}__{name}_{window}"] for name in ("landings", "mean_delay", "max_delay")]
                if same.any():
                    assert got[0] == len(delays)
                assert got[1:] == ([sum(delays) / len(delays), max(delays)] if delays else [None, None])
                filled += bool(delays)
    assert filled > 70


def test_lookups_are_answered_for_their_own_moment(replayed: Pushes) -> None:
    """Nothing is pending when a lookup comes: the as_of is its minute, and the microseconds of the pushes in it."""
    for view in ("carrier_now", "route_now"):
        late = replayed.asked["sched_dep"] - replayed.asked[view]
        assert (late <= pd.Timedelta(0)).all()
        assert (late > pd.Timedelta("-1ms")).all()


def test_sending_a_landing_again_changes_nothing(data: Path) -> None:
    """A message that is sent twice is counted once; one that corrects the delay replaces it."""
    rows = pd.read_parquet(data / "landings.parquet").head(40)
    rows = rows[["flight_id", "landed_at", "carrier", "origin", "dest", "arr_delay"]]
    clock = ManualClock(rows["landed_at"].iloc[-1].to_pydatetime() + MESSAGE)
    with repository(data, clock) as store:
        store.apply()
        store.materialize(["carrier_now", "route_now"], progress=False)
        assert store.push(SOURCE, rows).accepted == 40
        keys = rows[["carrier", "origin", "dest"]]
        before = store.get_online_features(keys.to_dict("records"), SERVICE).to_arrow()
        again = store.push(SOURCE, rows)
        assert (again.accepted, again.unchanged) == (0, 40)
        assert differing(store.get_online_features(keys.to_dict("records"), SERVICE).to_arrow(), before) == {}
        corrected = rows.head(1).assign(arr_delay=500)
        assert store.push(SOURCE, corrected).accepted == 1
        online = store.get_online_features(keys.head(1).to_dict("records"), SERVICE)
        assert online.to_dict()["carrier_now__max_delay_30d"] == [500]
        spine = keys.head(1).assign(event_timestamp=online.as_of["carrier_now"])
        trained = store.get_historical_features(spine, SERVICE)
        assert differing(online.to_arrow(), trained.to_arrow().select(list(trained.types))) == {}
