"""The flights of the demonstration, lived through for some hours: applied, trained, materialized, served, pushed, and rewritten once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.demo import HERE, HOUR, INPUTS, SERVICE, START, between, flights_of
from feature_repo.prepare import prepare
from featurestore import FeatureStore, ManualClock

HOURS = range(8, 15)
"""Those of the day after START that are lived through: from the first flights on."""

CARRIER = "UA"


@dataclass(frozen=True)
class Flights:
    """A store over the flights, and what there is to look for in it."""

    store: FeatureStore
    request: str
    """The id of a request that was served."""
    frame: Path
    """A training frame."""


@contextmanager
def flights(folder: Path) -> Iterator[Flights]:
    """The store, as it is after the last of the hours; landings of one carrier were corrected when they had been served."""
    for file in ("featurestore.toml", "definitions.py"):
        shutil.copy(HERE / file, folder / file)
    data = prepare(folder / "data")
    table = flights_of(data)
    clock = ManualClock(START + HOURS[0] * HOUR)
    with FeatureStore(folder, clock=clock) as store:
        store.apply(note="flights")
        trained = between(table, START - timedelta(days=1), START)
        frame = store.get_historical_features(trained[["sched_dep", *INPUTS]], SERVICE, timestamp="sched_dep")
        frame.to_parquet(folder / "training.parquet")
        views = [item.view.name for item in store.catalog.service_of(SERVICE).selections()]
        request = ""
        for number in HOURS:
            clock.set(START + number * HOUR)
            store.materialize(views, progress=False)
            clock.advance(timedelta(minutes=20))
            leaving = between(table, clock(), START + (number + 1) * HOUR)[INPUTS].astype(object)
            rows = leaving.where(leaving.notna(), None).to_dict("records")
            answer = store.get_online_features(rows, SERVICE)
            request = answer.request or request
        _correct(data / "landings.parquet")
        yield Flights(store, request, folder / "training.parquet")


def _correct(landings: Path) -> None:
    """Write the landings anew, those of one carrier five minutes later: history, which training sees and serving had not."""
    table = pq.read_table(landings)
    delay = table["arr_delay"]
    later = pc.if_else(pc.equal(table["carrier"], CARRIER), pc.add(delay, pa.scalar(5, delay.type)), delay)
    place = table.schema.get_field_index("arr_delay")
    pq.write_table(table.set_column(place, table.schema.field(place), later), landings)
