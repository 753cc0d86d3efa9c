"""A ranking, as jobs (see `pairs`): one user and 500 items a request, beside the same items without the user.

Services: "items", 18 materialized columns of each item; "few" and "many", the same and 8 or 30 aggregates of what the user paid,
kept by pushes; "materialized", the same and 18 materialized columns of the user; "on_demand", the items and a function of two
of these.
"""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.data import TIMESTAMP, View, values_of
from benchmarks.latency import Figures
from benchmarks.tiles import KEYS, payment, payments, with_cpu
from featurestore import Entity, FeatureService, FeatureStore, FeatureView, ParquetSource, on_demand
from featurestore.types import Float64, Int64

ASKED = 500
ITEM, USER = View("item", "item", 2_000, 2_000, 18, 7), View("user", "account", KEYS, KEYS, 18, 8)
"""Columns as those of the view that the other lookups read."""

ROWS = 200
"""Payments of a user."""


def _materialized(project: str, view: View) -> FeatureView:
    source = ParquetSource(f"{view.name}_rows", str(Path(project, f"{view.name}.parquet")), event_time="at")
    entity = Entity(view.key, key={view.key: Int64})
    return FeatureView(view.name, entity=entity, source=source, features=view.feature_names(), refresh="1h")


def _store(project: str, online: str) -> FeatureStore:
    lines = ['project = "benchmark"', 'registry = "registry.db"', f'online = "{online}"', "definitions = []"]
    Path(project, "featurestore.toml").write_text("\n".join([*lines, ""]))
    item, user = _materialized(project, ITEM), _materialized(project, USER)
    few, many = (payments(of, f"paid_{of}") for of in ("few", "many"))

    @on_demand(inputs=[user["user_f0"], user["user_f1"]], output=Float64)
    def taste(one: float | None, other: float | None) -> float | None:
        return None if one is None or other is None else one * one + other * other

    chosen = {"items": [item], "few": [item, few], "many": [item, many], "materialized": [item, user]}
    services = [FeatureService(name, features=views) for name, views in chosen.items()]
    services.append(FeatureService("on_demand", features=[item, taste]))
    store = FeatureStore(project)
    store.apply([item, user, few, many, *services])
    return store


def fill(redis_url: str, project: str) -> Callable[[], None]:
    """Materialize and push what the rankings read."""
    choice, now = random.Random(3), datetime.now(UTC)
    words = pa.array([f"word-{i:03d}" for i in range(200)])
    for view in (ITEM, USER):
        rng = np.random.default_rng(view.seed)
        columns = {field.name: values_of(rng, field.type, view.rows, words) for field in view.columns()}
        at = pa.array([now - timedelta(days=2)] * view.rows, TIMESTAMP)
        rows = pa.table({view.key: np.arange(view.rows), "at": at, **columns})
        pq.write_table(rows, Path(project, f"{view.name}.parquet"))
    store = _store(project, redis_url)

    def call() -> None:
        store.materialize()
        rows = [payment(choice, account, now) for account in range(KEYS) for _ in range(ROWS)]
        for start in range(0, len(rows), 5_000):
            store.push("payments", rows[start : start + 5_000])
        store.close()

    return call


def rank(redis_url: str, project: str, service: str, rounds: int, asked: int = ASKED) -> Callable[[], Figures]:
    """get_online_features(…).to_dict() of a user and so many items, and its time on the processor."""
    store = _store(project, redis_url)
    choice = random.Random(2)
    users = choice.choices(range(KEYS), k=rounds)
    items = [choice.sample(range(ITEM.keys), asked) for _ in users]
    rows = [[{"account": user, "item": item} for item in each] for user, each in zip(users, items, strict=True)]

    def call(request: list[dict[str, int]]) -> object:
        return store.get_online_features(request, service).to_dict()

    return partial(with_cpu, call, rows)
