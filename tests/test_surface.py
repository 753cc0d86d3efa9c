"""The names and signatures that others rely on, used as the documentation of the whole shows them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import featurestore
from featurestore import (
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Latest,
    ManualClock,
    ParquetSource,
    Request,
    RequestTime,
    on_demand,
)
from featurestore.server import create_app
from featurestore.types import Float64, Int64, String

NOON = datetime(2013, 12, 2, 12, tzinfo=UTC)

carrier = Entity("carrier", key={"carrier": String})
airport = Entity("airport", key={"airport": String})

landings = ParquetSource(
    "landings", "data/landings.parquet", event_time="landed_at", known_after="2m", tiebreak=["flight_id"]
)
facts = ParquetSource("facts", "data/facts.parquet", event_time=None)

carrier_delays = FeatureView(
    "carrier_delays", entity=carrier, source=landings, key={"carrier": "carrier_code"},
    refresh="1h", settle="5m", ready_after="10m", ttl="2d",
    features={"arr_delay": Latest("arr_delay")},
    owner="ops@example.com", description="How late a carrier has been running.",
)  # fmt: skip
airport_facts = FeatureView("airport_facts", entity=airport, source=facts, features=["alt"], refresh="1d")


@on_demand(inputs=[carrier_delays["arr_delay"], Request("sched_minutes", Int64)], output=Float64)
def relative_delay(arr_delay: float | None, sched_minutes: int) -> float | None:
    return None if arr_delay is None else arr_delay / sched_minutes


@on_demand(inputs=[RequestTime()], output=Int64)
def asked_hour(now: datetime) -> int:
    return now.hour


delay_model = FeatureService("delay_model", features=[
    carrier_delays, relative_delay, asked_hour,
    airport_facts.alias("origin", key={"airport": "origin"}), airport_facts.alias("dest", key={"airport": "dest"}),
])  # fmt: skip

COLUMNS = ["carrier_delays__arr_delay", "relative_delay", "asked_hour", "origin__alt", "dest__alt"]
ASKED = {"carrier": "UA", "sched_minutes": 180, "origin": "JFK", "dest": "DEN"}
SERVED = [18.0, 0.1, 12, 13, 5431]


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("surface")
    (folder / "data").mkdir()
    (folder / "featurestore.toml").write_text(
        'project = "surface"\ndefinitions = []\n[env.prod]\nregistry = "prod.db"\n'
    )
    times = pa.array([NOON - timedelta(days=3), NOON - timedelta(hours=2)], pa.timestamp("us", "UTC"))
    rows = {"flight_id": [1, 2], "carrier_code": ["UA", "UA"], "landed_at": times, "arr_delay": [9.0, 18.0]}
    pq.write_table(pa.table(rows), folder / "data" / "landings.parquet")
    pq.write_table(pa.table({"airport": ["JFK", "DEN"], "alt": [13, 5431]}), folder / "data" / "facts.parquet")
    return folder


@pytest.fixture(scope="module")
def store(repo: Path) -> Iterator[FeatureStore]:
    with FeatureStore(repo, clock=ManualClock(NOON)) as store:
        store.apply([delay_model, relative_delay])
        store.materialize()
        yield store


SPINE = pd.DataFrame(
    {
        **{name: [value] * 3 for name, value in ASKED.items()},
        "event_timestamp": pd.to_datetime(["2013-11-29T13:00Z", "2013-12-01T14:00Z", "2013-12-02T12:00Z"]),
        "late": [0, 1, 0],
    }
)


CONNECTION = duckdb.connect()


def as_relation(_: Path) -> Any:
    return CONNECTION.from_arrow(pa.Table.from_pandas(SPINE))


def as_file(folder: Path) -> Path:
    SPINE.to_parquet(folder / "spine.parquet")
    return folder / "spine.parquet"


SPINES = {
    "pandas": lambda _: SPINE,
    "polars": lambda _: pl.from_pandas(SPINE),
    "arrow": lambda _: pa.Table.from_pandas(SPINE),
    "path": as_file,
    "text": lambda folder: str(as_file(folder)),
    "relation": as_relation,
}


@pytest.mark.parametrize("kind", SPINES)
def test_training_as_it_is_written(store: FeatureStore, tmp_path: Path, kind: str) -> None:
    """Any spine; the frame in each of its forms; a split with a gap; the manifest."""
    spine = SPINES[kind](tmp_path)
    training = store.get_historical_features(
        spine, "delay_model", timestamp="event_timestamp", with_status=False, with_event_time=False
    )
    assert list(training.to_pandas()) == training.to_arrow().column_names == [*SPINE, *COLUMNS]
    assert list(training.features) == COLUMNS
    assert training.to_pandas()["late"].tolist() == [0, 1, 0]
    np.testing.assert_array_equal(training.to_numpy()[:, 0], [9.0, np.nan, 18.0])
    assert training.to_numpy("float32").dtype == np.float32
    assert training.to_numpy("float32").shape == (3, len(COLUMNS))
    path = training.to_parquet(tmp_path / "training.parquet")
    assert pl.read_parquet(path).equals(pl.DataFrame(training))
    assert training.manifest["service"] == "delay_model"
    train, test = training.split_by_time("2013-12-01", gap="1d")
    assert (len(train), len(test)) == (1, 1)
    assert test.to_pandas()["late"].tolist() == [0]
    asked = store.get_historical_features(spine, "delay_model", with_status=True, with_event_time=True).to_arrow()
    assert asked["carrier_delays__arr_delay__status"].to_pylist() == ["PRESENT", "EXPIRED", "PRESENT"]
    assert {"carrier_delays__event_time", "origin__event_time"} <= set(asked.column_names)


def test_features_never_applied_may_be_asked_for(repo: Path) -> None:
    """A list of definitions, their names once applied, or a service itself."""
    with FeatureStore(repo, env="prod", clock=ManualClock(NOON)) as store:
        frame = store.get_historical_features(SPINE, [carrier_delays, relative_delay])
        assert list(frame.features) == COLUMNS[:2]
        assert list(store.get_historical_features(SPINE, delay_model).features) == COLUMNS
        snapshot = store.snapshot([carrier_delays], at=NOON)
        assert snapshot.to_arrow()["carrier_delays__arr_delay"].to_pylist() == [18.0]
        assert store.history() == ()


def test_lookup_as_it_is_written(store: FeatureStore) -> None:
    """Rows or a frame; each form of the answer; the fingerprint of a training frame."""
    fingerprint = store.get_historical_features(SPINE, "delay_model").manifest["fingerprint"]
    online = store.get_online_features([ASKED], "delay_model", fingerprint=None)
    assert online.to_dict() == {**{name: [value] for name, value in ASKED.items()}} | {
        name: [value] for name, value in zip(COLUMNS, SERVED, strict=True)
    }
    assert list(online.to_pandas()) == [*online.service.inputs, *COLUMNS]
    assert online.to_numpy().tolist() == [SERVED]
    assert online.to_numpy(np.float32).dtype == np.float32
    assert list(online.features) == list(online.statuses) == COLUMNS
    assert set(online.as_of) == set(online.stale) == {"carrier_delays", "origin", "dest"}
    assert pl.DataFrame(online).columns == pa.table(online).column_names == COLUMNS
    for rows in (ASKED, pd.DataFrame([ASKED]), pl.DataFrame([ASKED]), pa.Table.from_pylist([ASKED])):
        again = store.get_online_features(rows, "delay_model", fingerprint=fingerprint)
        assert again.to_numpy().tolist() == [SERVED]
    pd.testing.assert_frame_equal(
        online.features, store.get_historical_features(SPINE[2:], "delay_model").features.reset_index(drop=True)
    )


def test_explain_and_snapshot_as_they_are_written(store: FeatureStore) -> None:
    """By the view's name and a key, at an instant or now."""
    assert store.explain("carrier_delays", {"carrier": "UA"}, at=NOON).values == {"arr_delay": 18.0}
    assert store.explain(carrier_delays, {"carrier": "UA"}).status == "PRESENT"
    assert len(store.snapshot("carrier_delays", at=NOON)) == 1
    assert create_app(store, authentication=False).title == "featurestore"


def test_what_notebooks_show_is_html(store: FeatureStore) -> None:
    """Views, plans, frames, lookups and explanations have a table of their own, with values escaped."""
    shown: dict[str, Any] = {
        "carrier_delays": carrier_delays,
        "Nothing to change": store.plan([delay_model]),
        "Training frame": store.get_historical_features(SPINE, "delay_model"),
        "Service delay_model": store.get_online_features(ASKED, "delay_model"),
        "happened more than 2d before": store.explain("carrier_delays", {"carrier": "UA"}),
    }
    for says, item in shown.items():
        html = item._repr_html_()
        assert html.startswith("<")
        assert "<script" not in html
        assert says.lower() in html.lower(), (says, html)
    hostile = FeatureView(
        "hostile", entity=carrier, source=landings, key={"carrier": "carrier_code"}, features=["arr_delay"],
        refresh="1h", description="<script>",
    )  # fmt: skip
    assert "<script>" not in hostile._repr_html_()


def test_names_and_keywords_are_what_they_were() -> None:
    """The parameters of the verbs, in their order, and what the package offers."""
    verbs = {
        "plan": ["definitions"],
        "apply": ["definitions"],
        "get_historical_features": ["spine", "features", "timestamp", "with_status", "with_event_time"],
        "snapshot": ["features", "at"],
        "materialize": [],
        "push": ["source", "rows"],
        "compact": ["sources"],
        "get_online_features": ["rows", "features", "fingerprint"],
        "aget_online_features": ["rows", "features", "fingerprint"],
        "explain": ["view", "key", "at"],
        "reload": [],
    }
    for verb, wanted in verbs.items():
        parameters = list(inspect.signature(getattr(FeatureStore, verb)).parameters)
        assert [name for name in parameters if name in wanted] == wanted, verb
    for name in featurestore.__all__:
        assert getattr(featurestore, name)
