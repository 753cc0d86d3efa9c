"""The definitions of the flights on the real data: they apply, mean what a person finds by hand, and serve what they train."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from feature_repo.comparison import differing
from feature_repo.demo import HERE, INPUTS, SERVICE, flights_of
from feature_repo.prepare import prepare
from featurestore import Faults, FeatureStore, ManualClock

NOON = datetime(2013, 12, 3, 17, tzinfo=UTC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("flights")
    for file in ("featurestore.toml", "definitions.py"):
        shutil.copy(HERE / file, folder / file)
    prepare(folder / "data")
    return folder


@pytest.fixture(scope="module")
def clock() -> ManualClock:
    return ManualClock(NOON)


@pytest.fixture(scope="module")
def store(folder, clock):
    with FeatureStore(folder, clock=clock) as store:
        store.apply()
        yield store


def test_applying_twice_changes_nothing(store):
    """The first apply made version 1; the second finds nothing to do."""
    again = store.apply()
    assert (again.number, again.changed) == (1, False)


def test_one_row_by_hand(store, folder):
    """A flight at 12:45 on 3 December sees 12:00's landings and yesterday's means, each found with pandas alone."""
    flights = flights_of(folder / "data")
    flight = flights[(flights["sched_dep"] >= NOON + timedelta(minutes=15)) & flights["tailnum"].notna()].iloc[[0]]
    row = flight.iloc[0]
    frame = store.get_historical_features(flight[["sched_dep", *INPUTS]], SERVICE, timestamp="sched_dep")
    got = frame.to_arrow().to_pylist()[0]
    as_of = (row["sched_dep"] - pd.Timedelta(minutes=10)).floor("h")
    landings = pd.read_parquet(folder / "data" / "landings.parquet")
    known = landings[landings["landed_at"] + pd.Timedelta(minutes=2) <= as_of]
    last = known[known["carrier"] == row["carrier"]].sort_values(["landed_at", "flight_id"]).iloc[-1]
    assert got["carrier_last__arr_delay"] == last["arr_delay"]
    days = pd.read_parquet(folder / "data" / "carrier_days.parquet")
    day = days[(days["carrier"] == row["carrier"]) & (days["date"] == datetime(2013, 12, 2).date())]
    assert got["carrier_day__mean_arr_delay"] == day["mean_arr_delay"].item()
    weather = pd.read_parquet(folder / "data" / "weather.parquet")
    hour = weather[(weather["origin"] == row["origin"]) & (weather["observed_at"] == as_of)]
    assert got["weather__temp"] == hour["temp"].item()
    airports = pd.read_parquet(folder / "data" / "airports.parquet").set_index("airport")
    assert got["origin__lat"] == airports.loc[row["origin"], "lat"]
    assert got["flight_carrier"] == row["carrier"]


@pytest.mark.parametrize(("view", "keys"), [
    ("carrier_delays", ["carrier"]), ("aircraft_delays", ["tailnum"]), ("route_delays", ["origin", "dest"]),
])  # fmt: skip
def test_rolling_delays_by_hand(store, folder, view, keys):
    """What landed in the hour to 30 days before noon, counted, averaged and searched for the worst with pandas alone."""
    flights = flights_of(folder / "data")
    spine = flights[(flights["sched_dep"] >= NOON + timedelta(minutes=15)) & flights["tailnum"].notna()].iloc[[0, 5, 9]]
    frame = store.get_historical_features(spine[["sched_dep", *INPUTS]], [view], timestamp="sched_dep")
    landings = pd.read_parquet(folder / "data" / "landings.parquet")
    for (_, flight), got in zip(spine.iterrows(), frame.to_arrow().to_pylist(), strict=True):
        as_of = (flight["sched_dep"] - pd.Timedelta(minutes=10)).floor("h")
        known = landings[landings["landed_at"] + pd.Timedelta(minutes=2) <= as_of]
        mine = known[(known[keys] == flight[keys]).all(axis=1)]
        assert len(mine) > 10
        for window, length in {"1h": "1h", "1d": "1D", "7d": "7D", "30d": "30D"}.items():
            delays = mine[mine["landed_at"] > as_of - pd.Timedelta(length)]["arr_delay"].tolist()
            assert got[f"{view}__landings_{window}"] == len(delays)
            assert got[f"{view}__mean_delay_{window}"] == (sum(delays) / len(delays) if delays else None)
            assert got[f"{view}__max_delay_{window}"] == max(delays, default=None)
        assert got[f"{view}__landings_30d"] > 0


@pytest.mark.parametrize("service", [SERVICE, "rolling_model"])
def test_a_lookup_has_the_bits_of_training(store, clock, folder, service):
    """Twenty flights an hour, looked up at noon and as the clock moves on, and trained as of the same instants."""
    flights = flights_of(folder / "data")
    for hours in (0, 1, 2, 25):
        clock.set(max(clock(), NOON + timedelta(hours=hours)))
        store.materialize(progress=False)
        spine = flights[flights["sched_dep"] >= clock()].head(20)[INPUTS].reset_index(drop=True)
        rows = spine.astype(object).where(spine.notna(), None).to_dict("records")
        online = store.get_online_features(rows, service)
        trained = store.get_historical_features(spine.assign(event_timestamp=pd.Timestamp(clock())), service)
        assert not any(online.stale.values())
        assert differing(online.to_arrow(), trained.to_arrow().select(list(trained.types))) == {}


def test_a_simulated_night_has_the_bits_of_training(store, folder):
    """Two hours of the flights with runs that die, restarts and a pause, landings pushed too: nothing differs; with rows
    that come late, what training counts and serving had not is found."""
    columns = ["flight_id", "landed_at", "carrier", "origin", "dest", "arr_delay"]
    landings = pd.read_parquet(folder / "data" / "landings.parquet", columns=columns)
    recent = landings[(landings["landed_at"] > NOON - timedelta(days=2)) & (landings["landed_at"] < NOON)]
    words = {"start": NOON - timedelta(hours=2), "end": NOON, "lookups": 30}
    faults = Faults(fail=0.2, skip=0.1, restarts=3, pause="20m", duplicates=0.1)
    services = ["delay_model", "running_delays"]
    found = store.simulate(**words, services=services, faults=faults, rows={"pushed_landings": recent})
    assert found.compared > 10_000
    assert (found.skewed, found.refused) == (0, {})
    assert found.pushed["pushed_landings"].accepted > 80
    assert found.landed["landings"].rows > 80
    words["start"] = NOON - timedelta(hours=4)
    late = store.simulate(**words, services=["delay_model"], faults=Faults(late=0.7, late_by="2h"))
    assert late.differing > 0
    assert any("known_after=2m of ParquetSource 'landings' is broken by late rows" in text for text in late.advice)
