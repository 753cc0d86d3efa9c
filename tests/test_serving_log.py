"""The serving log keeps what was served, in no lookup's way."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import (
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    ManualClock,
    ParquetSource,
    Request,
    on_demand,
)
from featurestore.operations.served_rows import find_request
from featurestore.types import Float64, Int64

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
THINGS = 40


def repository(folder: Path, log: str = "rate = 1.0") -> Path:
    """A project with one hourly view of things, and the service `model` over it."""
    happened = [NOON - timedelta(hours=3)] * THINGS
    values = [n / 7 for n in range(THINGS)]
    pq.write_table(pa.table({"thing": range(THINGS), "happened": happened, "x": values}), folder / "rows.parquet")
    text = f'project = "served"\nonline = "lmdb://online"\ndefinitions = []\n[serving_log]\n{log}\n'
    (folder / "featurestore.toml").write_text(text)
    return folder


def opened(folder: Path) -> FeatureStore:
    """The store of a repository, filled."""
    store = FeatureStore(folder, clock=ManualClock(NOON))
    source = ParquetSource("rows", "rows.parquet", event_time="happened", known_after="1m")
    view = FeatureView(
        "view", entity=Entity("thing", key={"thing": Int64}), source=source, features=["x"], refresh="1h"
    )

    @on_demand(inputs=[view["x"], Request("scale", Float64)], output=Float64)
    def scaled(x, scale):
        return None if x is None else x * scale

    store.apply([FeatureService("model", features=[view, scaled])])
    store.materialize(progress=False)
    return store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FeatureStore]:
    with opened(repository(tmp_path)) as made:
        yield made


def asked(*things: int) -> list[dict[str, float]]:
    return [{"thing": thing, "scale": 2.0} for thing in things]


def flushed(store: FeatureStore) -> Path:
    """The folder of the log, once what was served is in it."""
    assert store._project.serving_log is not None
    store._project.serving_log.flush()
    return store.config.serving_log.folder


def test_a_request_is_found_by_its_id(store: FeatureStore) -> None:
    """All its rows, with what was asked and what was answered; an id that nobody had finds nothing."""
    store.get_online_features(asked(1, 2), "model")
    result = store.get_online_features(asked(3, 99), "model")
    store.get_online_features(asked(4), "model")
    assert result.request is not None
    logged = find_request(flushed(store), result.request)
    assert logged is not None
    assert (logged.service, logged.fingerprint) == ("model", result.service.fingerprint)
    assert logged.rows.select(["row", "input:thing", "view__x", "scaled", "status:view"]).to_pylist() == [
        {"row": 0, "input:thing": 3, "view__x": 3 / 7, "scaled": 6 / 7, "status:view": "PRESENT"},
        {"row": 1, "input:thing": 99, "view__x": None, "scaled": None, "status:view": "MISSING"},
    ]
    assert find_request(flushed(store), "nobody") is None
