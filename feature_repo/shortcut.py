"""The usual shortcut, for comparison: the store's features as a notebook makes them, with pandas and no point in time.

Offline, each flight gets the averages of *its own date* and the flight *before it in the schedule*. That is one line each, runs
fast and looks right; but the averages contain flights that land after it departs, mostly itself among them, and the flight
before it may still be in the air. The model learns from answers that nobody has when it must answer.

Served, the same columns hold what is there at the scheduled departure: the newest rows of the daily tables, which are written when
a day is over and so are yesterday's; the last flight in the schedule among those that have landed; the weather of the last
full hour. No landing is kept back, and nothing waits for a job to run. Who computes today's average at the moment of each
departure instead (`running=True`) gets more out of the same model, and still not what it promised.
"""

from pathlib import Path

import pandas as pd

FEATURES = [
    "month",
    "hour",
    "weekday",
    "distance",
    "carrier",
    "origin",
    "carrier_mean",
    "dest_mean",
    "aircraft_last_delay",
    "carrier_last_delay",
    "temp",
    "wind_speed",
    "precip",
    "visib",
    "humid",
]
AVERAGES = {"carrier": "carrier_mean", "dest": "dest_mean"}
PREVIOUS = {"tailnum": "aircraft_last_delay", "carrier": "carrier_last_delay"}
WEATHER = ["temp", "wind_speed", "precip", "visib", "humid"]


def offline(data: Path) -> pd.DataFrame:
    """Return every flight that arrived, with the features that the notebook trains and tests on.

    `data` is the directory that `prepare` returned. The frame has `flight_id`, `sched_dep` (UTC), `FEATURES` and the label
    `late`, in the order of the schedule.
    """
    flights = _arrived(data)
    for key, average in AVERAGES.items():
        flights = flights.merge(_days(data, key, average), on=[key, "date"], how="left")
    for key, previous in PREVIOUS.items():
        flights[previous] = flights.groupby(key)["arr_delay"].shift(1)
    flights["hour_start"] = flights["sched_dep"].dt.floor("h")
    flights = flights.merge(_weather(data), on=["origin", "hour_start"], how="left")
    return flights[["flight_id", "sched_dep", *FEATURES, "late"]]


def served(data: Path, start: pd.Timestamp, end: pd.Timestamp, *, running: bool = False) -> pd.DataFrame:
    """Return the flights scheduled in `start <= sched_dep < end` with what those columns can hold at `sched_dep`.

    The columns are those of `offline`. Averages are those of the newest day in the table, yesterday's for all but small
    stations; with `running`, the mean of what has landed so far today, and the table's where nothing has.
    """
    arrived = _arrived(data)
    flights = arrived[(arrived["sched_dep"] >= start) & (arrived["sched_dep"] < end)]
    landings = _landed(data, arrived)
    for key, average in AVERAGES.items():
        flights = _newest_day(flights, _days(data, key, average), key)
        if running:
            flights[average] = _so_far(flights, landings, key).fillna(flights[average])
    for key, previous in PREVIOUS.items():
        flights = _last_landed(flights, landings, key, previous)
    weather = _weather(data)
    weather["hour_over"] = weather.pop("hour_start") + pd.Timedelta(hours=1)
    weather = weather.sort_values("hour_over", kind="stable")
    flights = pd.merge_asof(flights, weather, left_on="sched_dep", right_on="hour_over", by="origin")
    return flights[["flight_id", "sched_dep", *FEATURES, "late"]]


def _arrived(data: Path) -> pd.DataFrame:
    flights = pd.read_parquet(data / "flights.parquet").dropna(subset=["arr_delay"])
    flights["late"] = flights["late"].astype(bool)
    flights["date"] = pd.to_datetime(flights["date"])
    return flights.sort_values(["sched_dep", "flight_id"], ignore_index=True)


def _days(data: Path, key: str, average: str) -> pd.DataFrame:
    days = pd.read_parquet(data / f"{key}_days.parquet", columns=[key, "date", "mean_arr_delay"])
    days["date"] = pd.to_datetime(days["date"])
    return days.rename(columns={"mean_arr_delay": average})


def _weather(data: Path) -> pd.DataFrame:
    return pd.read_parquet(data / "weather.parquet", columns=["origin", "hour_start", *WEATHER])


def _landed(data: Path, arrived: pd.DataFrame) -> pd.DataFrame:
    """The flights in the order of their landings, with `position`, their place in the schedule."""
    landings = pd.read_parquet(data / "landings.parquet", columns=["flight_id", "landed_at"])
    landings = arrived.assign(position=arrived.index).merge(landings, on="flight_id")
    landings["landed_on"] = landings["landed_at"].dt.tz_convert("America/New_York").dt.date
    landings["landed_on"] = pd.to_datetime(landings["landed_on"])
    return landings.sort_values(["landed_at", "flight_id"], ignore_index=True)


def _newest_day(flights: pd.DataFrame, days: pd.DataFrame, key: str) -> pd.DataFrame:
    """A day's row is written when the day is over: the newest before the flight's date."""
    days = days.sort_values("date", kind="stable")
    return pd.merge_asof(flights, days, on="date", by=key, allow_exact_matches=False)


def _so_far(flights: pd.DataFrame, landings: pd.DataFrame, key: str) -> pd.Series:
    delays = landings.groupby([key, "landed_on"])["arr_delay"]
    so_far = (delays.cumsum() / (delays.cumcount() + 1)).rename("so_far")
    landings = pd.concat([landings[[key, "landed_on", "landed_at"]], so_far], axis=1)
    today = flights[[key, "sched_dep"]].assign(landed_on=flights["date"])
    return pd.merge_asof(today, landings, left_on="sched_dep", right_on="landed_at", by=[key, "landed_on"])["so_far"]


def _last_landed(flights: pd.DataFrame, landings: pd.DataFrame, key: str, previous: str) -> pd.DataFrame:
    """The delay of the flight latest in the schedule among those that have landed: the notebook's `shift(1)` on landed rows."""
    landings = landings.dropna(subset=[key])
    latest = landings["position"] == landings.groupby(key)["position"].cummax()
    landings = landings[latest].rename(columns={"arr_delay": previous})[[key, "landed_at", previous]]
    return pd.merge_asof(flights, landings, left_on="sched_dep", right_on="landed_at", by=key).drop(columns="landed_at")
