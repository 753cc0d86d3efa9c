"""The golden projects: `python -m tests.golden_project VERSION` writes one by the code as it is, into `tests/golden/VERSION`.

Each version leaves one when it is tagged, and none is ever written anew: later versions must read it. What was served, trained and
logged by then is in its `expected.json`. An injected clock makes its instants; ids and secrets in it are drawn anew each time.
"""

from __future__ import annotations

import os
import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from featurestore import FeatureStore, ManualClock
from featurestore.access.api_keys import create_key
from featurestore.report import plain
from featurestore.sources.log import Log
from tests.golden_wire import GOLDEN

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
PROJECTS = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())
SERVICES = {"ride_model": [{"city": "Bern", "fee": 1.25}, {"city": "Genève", "fee": -0.0}, {"city": "?", "fee": 3.0}]}
SPINE_HOURS = (-2, -1, 0, 1)

TOML = """project = "golden"
registry = "state/registry.db"
online = "lmdb://state/online"
logs = "state/logs"
definitions = ["features.py"]

[offline]
tiles = false

[serving_log]
folder = "state/served"
rate = 1.0
"""

FEATURES = '''"""Views over files, over files that count from when they arrive, and over pushes; functions; two services."""

from featurestore import (
    ApproxCountDistinct, ApproxQuantile, ARRIVAL, Count, CountDistinct, Entity, FeatureService, FeatureView, LastN, Latest, Max,
    Mean, Min, ParquetSource, PushSource, Request, StdDev, Sum, on_demand,
)
from featurestore.types import Array, Bool, Bytes, Date, Decimal, Float32, Float64, Int32, Int64, String, Timestamp

city = Entity("city", key={"city": String})

rides = ParquetSource("rides", "rides.parquet", event_time="at", known_at="known", tiebreak=["ride"])
fares = ParquetSource("fares", "fares", event_time="at", known_at=ARRIVAL)
calls = PushSource(
    "calls",
    schema={"call": String, "city": String, "at": Timestamp, "price": Float64, "note": String},
    event_time="at",
    identity="call",
    lateness="1d",
)

last_ride = FeatureView(
    "last_ride",
    entity=city,
    source=rides,
    refresh="1h",
    ready_after="10m",
    ttl="2d",
    features=["ride", "seats", "price", "exact", "shared", "day", "raw", "tags"],
)
ride_windows = FeatureView(
    "ride_windows",
    entity=city,
    source=rides,
    refresh="1h",
    features={
        "rides": Count(windows=["1h", "1d"]),
        "price_sum": Sum("price", window="1d"),
        "price_mean": Mean("price", window="1d"),
        "price_spread": StdDev("price", window="1d"),
        "least": Min("price", window="1d"),
        "most": Max("price", window="1d"),
        "kinds": CountDistinct("seats", window="1d"),
        "about": ApproxCountDistinct("ride", window="1d"),
        "median": ApproxQuantile("price", window="1d", q=0.5),
        "last_two": LastN("ride", n=2, window="1d"),
    },
)
fare = FeatureView("fare", entity=city, source=fares, refresh="1h", features=["fare"])
call_windows = FeatureView(
    "call_windows",
    entity=city,
    source=calls,
    features={
        "calls": Count(window="1h", hop="5m"),
        "price": Sum("price", window="1d", hop="1h"),
        "note": Latest("note"),
        "dearest": Max("price", window="1d", hop="1h"),
    },
)


@on_demand(inputs=[last_ride["price"], Request("fee", Float64)], output=Float64)
def with_fee(price, fee):
    """The last price and a fee."""
    return None if price is None else price + fee


ride_model = FeatureService("ride_model", features=[last_ride, ride_windows, fare, call_windows, with_fee])
fare_model = FeatureService("fare_model", features=[fare])
'''


def told(value: Any) -> Any:
    """Values as JSON has them, each bit of a number in it."""
    return orjson.loads(orjson.dumps(plain(value)))


def spine() -> pa.Table:
    """Each city of the requests at some hours around noon."""
    rows = [(row, NOON + timedelta(hours=hours)) for row in SERVICES["ride_model"] for hours in SPINE_HOURS]
    return pa.table(
        {
            "city": [row["city"] for row, _ in rows],
            "fee": [row["fee"] for row, _ in rows],
            "event_timestamp": pa.array([at for _, at in rows], pa.timestamp("us", "UTC")),
        }
    )


def served(store: FeatureStore) -> Any:
    """What is looked up now, with statuses and instants."""
    result = store.get_online_features(SERVICES["ride_model"], "ride_model")
    return told({"values": result.to_dict(), "statuses": result.statuses, "as_of": result.as_of})


def trained(store: FeatureStore) -> Any:
    """The training frame of the spine."""
    frame = store.get_historical_features(spine(), "ride_model", with_status=True)
    return told({name: frame.to_arrow()[name].to_pylist() for name in frame.to_arrow().column_names})


def write_rides(path: Path) -> None:
    hours = [-30.0, -5.0, -1.5, -1.5, -0.2, -0.1]
    at = [NOON + timedelta(hours=hour) for hour in hours]
    table = pa.table(
        {
            "ride": pa.array([1, 2, 3, 4, 5, 6], pa.int64()),
            "city": ["Bern", "Genève", "Bern", "Bern", "Genève", "Bern"],
            "at": pa.array(at, pa.timestamp("us", "UTC")),
            "known": pa.array([one + timedelta(minutes=3) for one in at], pa.timestamp("us", "UTC")),
            "seats": pa.array([1, 2, 3, None, 5, 2**31 - 1], pa.int32()),
            "price": pa.array([1.5, -0.0, 0.1, float("nan"), float("inf"), 1e-300], pa.float64()),
            "exact": pa.array([None, "1.10", "2.20", "3.30", "4.40", "5.50"]).cast(pa.decimal128(9, 2)),
            "shared": [True, False, None, True, False, True],
            "day": pa.array([one.date() for one in at], pa.date32()),
            "raw": pa.array([b"\0", b"", b"\xff", None, b"x", b"y"], pa.binary()),
            "tags": pa.array([["a", None], [], None, ["é"], ["b"], ["c", "d"]], pa.list_(pa.string())),
        }
    )
    pq.write_table(table, path)


def write_fares(path: Path, fare: float) -> None:
    at = pa.array([NOON - timedelta(days=1)] * 2, pa.timestamp("us", "UTC"))
    pq.write_table(pa.table({"city": ["Bern", "Genève"], "at": at, "fare": [fare, fare + 0.1]}), path)


def call(number: int, city: str, minutes: float, price: float | None, note: str = "") -> dict[str, Any]:
    at = NOON + timedelta(minutes=minutes)
    return {"call": f"c{number}", "city": city, "at": at, "price": price, "note": f"{note}{number}"}


def write(folder: Path) -> None:
    """A project that has lived through two hours."""
    folder.mkdir(parents=True)
    (folder / "featurestore.toml").write_text(TOML)
    (folder / "features.py").write_text(FEATURES)
    write_rides(folder / "rides.parquet")
    (folder / "fares").mkdir()
    write_fares(folder / "fares" / "a.parquet", 2.5)
    clock = ManualClock(NOON)
    expected: dict[str, Any] = {}
    with FeatureStore(folder, clock=clock) as store:
        store.apply(note="the first")
        store.materialize(progress=False)
        store.push("calls", [call(1, "Bern", -70, 1.0), call(2, "Bern", -20, 0.1), call(3, "Genève", -10, None)])
        store.push("calls", [call(9, "Bern", -60 * 30, 5.0)])  # too late
        expected["first"] = served(store)
        clock.advance(timedelta(minutes=5))
        store.push("calls", [call(2, "Genève", -20, 0.2, "corrected ")])
        store.offline.log(store.catalog.sources["calls"]).compact(everything=True)  # type: ignore[arg-type]  # a push source, by its name
        store.push("calls", [call(4, "Bern", 4, -0.0)])
        clock.advance(timedelta(minutes=66))
        write_fares(folder / "fares" / "b.parquet", 3.5)
        store.materialize(progress=False)
        expected["key"] = create_key(store.registry, "web", ["read"]).secret
        for _ in range(2):
            store.get_online_features(SERVICES["ride_model"], "ride_model")
        expected["now"] = served(store)
        expected["at"] = clock().isoformat()
        expected["trained"] = trained(store)
        audit = store.audit()
        assert (audit.skewed, audit.damaged) == (0, {})
        expected["compared"] = audit.compared
        expected["digests"] = [version.digest for version in store.history()]
        expected["runs"] = [[run.view, run.instant, run.rows, run.keys] for run in store.registry.runs()]
        expected["activity"] = [one.what for one in store.activity()]
        expected["log"] = told(log_of(store).read().to_pylist())
    files = sorted(path for path in folder.rglob("*.parquet") if "state" not in path.parts)
    expected["modified"] = {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in files}
    for name in ("lock", "lock.turn", "compaction", "compaction.turn", "lock.mdb", "writer", "writer.turn", ".upkeep"):
        for path in folder.rglob(name):
            path.unlink()
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)
    (folder / "expected.json").write_bytes(orjson.dumps(expected, option=orjson.OPT_INDENT_2) + b"\n")


def log_of(store: FeatureStore) -> Log:
    """The log of the calls."""
    return store.offline.log(store.catalog.sources["calls"])  # type: ignore[arg-type]  # a push source, by its name


def copy(version: str, to: Path) -> dict[str, Any]:
    """A golden project in another folder, its files of the age that they had; what it must give."""
    shutil.copytree(GOLDEN / version, to)
    expected: dict[str, Any] = orjson.loads((to / "expected.json").read_bytes())
    for name, modified in expected["modified"].items():
        os.utime(to / name, ns=(modified, modified))
    return expected


if __name__ == "__main__":
    write(GOLDEN / sys.argv[1])
