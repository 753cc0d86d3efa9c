"""A shop whose customers are materialized from files and pushed, with a log of what was served."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from featurestore import (
    Count,
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    LastN,
    Latest,
    ManualClock,
    Max,
    ParquetSource,
    PushSource,
    Sum,
)
from featurestore.types import Bool, Float64, Int64, String, Timestamp

ANNA, BOB = "anna-7f3c@example.org", "bob"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
UTC_US = pa.timestamp("us", "UTC")

CUSTOMER = Entity("customer", key={"customer": String})
BRANCH = Entity("branch", key={"branch": String})
BASKET = Entity("basket", key={"customer": String, "number": Int64})
VISITS = ParquetSource("visits", "data", event_time="at", known_at="known", identity="id")
ORDERS = PushSource(
    "orders", event_time="at", identity="id", deleted="gone",
    schema={"id": Int64, "customer": String, "branch": String, "number": Int64, "amount": Float64, "at": Timestamp, "gone": Bool},
)  # fmt: skip
FACTS = FeatureView(
    "facts",
    entity=CUSTOMER,
    source=VISITS,
    refresh="1h",
    features={"x": Latest("x"), "n": Count(window="1d"), "most": Max("x", window="7d")},
)
TOTALS = FeatureView(
    "totals", entity=CUSTOMER, source=ORDERS, ttl="30d",
    features={"amount": Latest("amount"), "n": Count(window="1d"), "sum": Sum("amount", window="1d"), "last": LastN("amount", n=3, window="1d")},
)  # fmt: skip
BRANCHES = FeatureView("branches", entity=BRANCH, source=ORDERS, features={"n": Count(window="1d")})
BASKETS = FeatureView("baskets", entity=BASKET, source=ORDERS, features={"n": Count(window="1d")})
HOURLY = FeatureView("hourly", entity=CUSTOMER, source=ORDERS, refresh="1h", features={"n": Count(window="1d")})
SERVICES = (
    FeatureService("customers", features=[FACTS, TOTALS, HOURLY]),
    FeatureService("branches", features=[BRANCHES]),
)


def configured(folder: Path, *, online: str = "lmdb://online") -> Path:
    """The folder of a project with visits of Anna and of Bob."""
    text = f'project = "shop"\nonline = "{online}"\ndefinitions = []\n[serving_log]\nrate = 1\n'
    (folder / "featurestore.toml").write_text(text)
    (folder / "data").mkdir()
    visits(folder, "a", [(1, ANNA, NOON - 3 * HOUR, 1), (2, BOB, NOON - 3 * HOUR, 2), (3, ANNA, NOON - 2 * HOUR, 3)])
    return folder


def visits(
    folder: Path, name: str, rows: Iterable[tuple[int, str, datetime, int]], *, late: timedelta = timedelta()
) -> None:
    numbers, customers, times, values = zip(*rows, strict=True)
    at, known = (pa.array([time + by for time in times], UTC_US) for by in (timedelta(), late))
    columns = {"id": numbers, "customer": customers, "at": at, "known": known, "x": values}
    pq.write_table(pa.table(columns), folder / "data" / f"{name}.parquet")


def order(number: int, customer: str | None, at: datetime | None, **more: Any) -> dict[str, Any]:
    return {"id": number, "customer": customer, "branch": "north", "number": 1, "amount": number / 8, "at": at, **more}


def filled(store: FeatureStore, clock: ManualClock) -> None:
    """Apply all, push and materialize; each key is looked up once."""
    store.apply(SERVICES)
    store.push("orders", [order(1, ANNA, clock()), order(2, BOB, clock()), order(3, ANNA, clock())])
    clock.advance(MINUTE)
    store.push("orders", [order(4, BOB, clock()), order(5, ANNA, clock())])
    clock.advance(HOUR)
    store.materialize(progress=False)
    look(store)


def look(store: FeatureStore) -> dict[str, Any]:
    """What is served: of each customer, and of the branch."""
    found = store.get_online_features([{"customer": ANNA}, {"customer": BOB}], "customers").to_dict()
    return {**found, **store.get_online_features({"branch": "north"}, "branches").to_dict()}


def trained(store: FeatureStore, at: datetime) -> dict[str, Any]:
    """What training says of the same keys."""
    both = pa.table({"customer": [ANNA, BOB], "branch": ["north"] * 2, "event_timestamp": pa.array([at] * 2, UTC_US)})
    found = store.get_historical_features(both.select([0, 2]), "customers").to_arrow()
    branches = store.get_historical_features(both.select([1, 2]).slice(0, 1), "branches").to_arrow()
    return {**found.drop_columns("event_timestamp").to_pydict(), **branches.drop_columns("event_timestamp").to_pydict()}


def of_anna(values: dict[str, Any], of: tuple[str, ...] = ("facts", "totals", "hourly")) -> list[Any]:
    """What is told of Anna by some views beside her name, nulls left out."""
    found = [values[name][0] for name in values if "__" in name and name.startswith(of)]
    return [value for value in found if value is not None]


def files_with(folder: Path, key: str = ANNA) -> list[str]:
    """The files below a folder in whose bytes a key is."""
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and key.encode() in path.read_bytes()
    )
