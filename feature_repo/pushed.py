"""A day of landings, pushed one by one in the order of their landing, while flights are looked up between them.

The days before are pushed first, each as one batch. Then the clock moves from event to event: a
landing is pushed when its message arrives, and a flight looks up its carrier and its route at its scheduled departure. Training
reads the log of what was pushed, as of the very instant that each lookup was served for.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from feature_repo.comparison import differing
from featurestore import FeatureStore, ManualClock

SERVICE = "running_delays"
SOURCE = "pushed_landings"
MESSAGE = timedelta(minutes=2)
DAY = timedelta(days=1)
KEYS = ["carrier", "origin", "dest"]


@dataclass(frozen=True)
class Pushes:
    """What was pushed and served: landings of the days `before`, `landings` pushed one by one, and the lookups between.

    asked: a row for each one of a lookup: its flight, KEYS, when it asked, and for each view the `as_of` it was served.
    served: the values, row by row. differing: how many are not training's, to the bit, by column.
    """

    before: int
    landings: int
    lookups: int
    asked: pd.DataFrame
    served: pa.Table
    differing: dict[str, int]

    @property
    def values(self) -> int:
        """How many values were compared."""
        return self.served.num_rows * self.served.num_columns


def replay(
    store: FeatureStore, clock: ManualClock, data: Path, *, start: datetime, hours: int = 24, days: int = 7
) -> Pushes:
    """Push what landed in the `days` before `start` and in the `hours` after it, look flights up, and compare.

    store: the definitions beside this file, with nothing pushed yet; it must have `clock`. data: the folder that `prepare`
    returned.
    """
    start = start.astimezone(UTC)  # in New York, a day of the month before has 25 hours
    clock.set(start - days * DAY)
    store.apply()
    views = [item.view.name for item in store.catalog.service_of(SERVICE).selections()]
    store.materialize(views, progress=False)
    landings, end = _landings(data), start + timedelta(hours=hours)
    before = 0
    for day in range(-days, 0):
        clock.set(start + (day + 1) * DAY)
        before += store.push(SOURCE, _between(landings, "landed_at", clock() - DAY, clock())).accepted
    today = _between(landings, "landed_at", start, end)
    flights = _between(_flights(data), "sched_dep", start, end)
    asked, served, lookups = _live(store, clock, today.to_dict("records"), flights)
    trained = [store.get_historical_features(asked[[*KEYS, view]], [view], timestamp=view).to_arrow() for view in views]
    truth = pa.table({name: table[name] for table in trained for name in table.column_names if "__" in name})
    return Pushes(before, len(today), lookups, asked, served, differing(served, truth.select(served.column_names)))


def _live(
    store: FeatureStore, clock: ManualClock, landings: list[dict[Any, Any]], flights: pd.DataFrame
) -> tuple[pd.DataFrame, pa.Table, int]:
    """Push each landing and look each flight up, when it is time; a landing and a departure of one minute in this order."""
    events: list[tuple[datetime, int, Any]] = [(row["landed_at"] + MESSAGE, 0, row) for row in landings]
    events += [(at, 1, rows) for at, rows in flights.groupby("sched_dep")]
    asked, served = [], []
    for at, kind, rows in sorted(events, key=lambda event: event[:2]):
        clock.set(max(clock(), pd.Timestamp(at).to_pydatetime()))  # a push moves it by a microsecond
        if kind == 0:
            store.push(SOURCE, [rows])
            continue
        online = store.get_online_features(rows[KEYS].to_dict("records"), SERVICE)
        asked.append(rows.assign(**{view: pd.Timestamp(as_of) for view, as_of in online.as_of.items()}))
        served.append(online.to_arrow())
    return pd.concat(asked, ignore_index=True), pa.concat_tables(served).combine_chunks(), len(served)


def _landings(data: Path) -> pd.DataFrame:
    columns = ["flight_id", "landed_at", *KEYS, "arr_delay"]
    landings = pd.read_parquet(data / "landings.parquet", columns=columns)
    return landings.sort_values(["landed_at", "flight_id"], ignore_index=True)


def _flights(data: Path) -> pd.DataFrame:
    return pd.read_parquet(data / "flights.parquet", columns=["flight_id", "sched_dep", *KEYS])


def _between(rows: pd.DataFrame, column: str, start: datetime, end: datetime) -> pd.DataFrame:
    return rows[(rows[column] >= start) & (rows[column] < end)]
