"""A repository in a folder: real Parquet files, a registry, and definitions of which each word changes one thing."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.catalog import Catalog
from featurestore.declare.entity import Entity
from featurestore.declare.folds import Latest
from featurestore.declare.on_demand import Request, on_demand
from featurestore.declare.services import FeatureService
from featurestore.declare.sources import ParquetSource
from featurestore.declare.views import FeatureView
from featurestore.registry.plan import make_plan
from featurestore.registry.store import Registry
from featurestore.sources.instances import Instances
from featurestore.sources.offline import Offline
from featurestore.types import Float64, Int64, String

START = dt.datetime(2013, 1, 1, tzinfo=dt.UTC)


def utc(values):
    return pa.array(values, pa.timestamp("us", "UTC"))


def naive(values):
    return pa.array([value.replace(tzinfo=None) for value in values], pa.timestamp("us"))


def landings(**columns):
    """100 landings, one every 10 minutes; each column can be replaced."""
    times = [START + dt.timedelta(minutes=10 * i) for i in range(100)]
    return pa.table(
        {
            "landed_at": utc(times),
            "carrier_code": ["UA", "AA"] * 50,
            "arr_delay": pa.array([float(i) for i in range(100)]),
            "gate": pa.array(range(100), pa.int32()),
        }
        | columns
    )


class Repository:
    """A folder, and what is declared in it."""

    def __init__(self, root: Path, *, new: bool = True) -> None:
        self.root = root
        self.registry = Registry(root / ".featurestore/registry.db")
        self.offline = Offline(root, instances=Instances(spill=root / "spill"))
        if not new:
            return
        self.write("landings.parquet", landings())
        self.write("carriers.parquet", pa.table({"carrier": ["UA"], "seats": pa.array([100], pa.int64())}))

    def write(self, name, table):
        pq.write_table(table, self.root / name)

    def definitions(self, *, minutes=60, **words):
        """A service over two views; `words` go to the view of landings, `source` to its source."""
        carrier = Entity("carrier", key={"carrier": String}, description=words.pop("entity_description", ""))
        said = {"event_time": "landed_at", "known_after": "2m", **words.pop("source", {})}
        source = ParquetSource("landings", words.pop("path", "landings.parquet"), **said)
        facts = ParquetSource("carriers", "carriers.parquet", event_time=None, refresh="1d", ready_after="1h")
        default = {
            "refresh": "1h", "ready_after": "10m", "ttl": "2d",
            "features": {"delay": Latest("arr_delay"), "gate": Latest("gate")},
        }  # fmt: skip
        delays = FeatureView(
            "delays", entity=carrier, source=source, key={"carrier": "carrier_code"}, **{**default, **words}
        )
        seats = FeatureView("seats", entity=carrier, source=facts, features=["seats"])

        @on_demand(inputs=[delays["delay"], Request("minutes", Int64)], output=Float64)
        def share(delay, minutes_flown):
            return None if delay is None else delay / minutes_flown * minutes

        self.carrier, self.source, self.delays, self.seats, self.share = carrier, source, delays, seats, share
        return [FeatureService("model", features=[delays, seats, share])]

    def plan(self, definitions, **words):
        return make_plan(Catalog.of(definitions), self.registry, offline=self.offline, **words)
