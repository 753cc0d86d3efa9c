"""Expectations on a real server over a real Redis: rows are refused by name or kept aside, and the audit finds no skew."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prometheus_client.parser import text_string_to_metric_families as read_text

from featurestore import (
    Count,
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    InRange,
    Latest,
    ManualClock,
    Mean,
    NotNull,
    ParquetSource,
    PushSource,
    Sum,
)
from featurestore.client import Client
from featurestore.errors import RowRefusedError
from featurestore.semantics import rows as rule
from featurestore.types import Float64, Int64, Timestamp
from tests.server.test_http import JSON
from tests.servers import PATIENCE_SECONDS, FeatureServer, RedisServer

LIMIT = InRange("x", at_least=0, at_most=100, otherwise="quarantine")
HOUR = timedelta(hours=1)


def definitions() -> list[FeatureService]:
    """A view over files and one over pushed rows, of both of which something is expected."""
    thing = Entity("thing", key={"thing": Int64})
    files = ParquetSource("files", "rows.parquet", event_time="at", expectations=[LIMIT])
    pushed = PushSource(
        "pushed", schema={"thing": Int64, "id": Int64, "at": Timestamp, "x": Float64}, event_time="at", identity="id",
        expectations=[LIMIT, NotNull("thing"), NotNull("x", otherwise="warn")],
    )  # fmt: skip
    views = [
        FeatureView("read", entity=thing, source=files, refresh="1h", features={"x": Latest("x"), "mean": Mean("x", window="7d")}),
        FeatureView("sent", entity=thing, source=pushed, features={"sum": Sum("x", window="1d"), "rows": Count(window="1d")}),
    ]  # fmt: skip
    return [FeatureService("model", features=views)]


def write_rows(folder: Path, now: datetime, x: list[float]) -> None:
    """Rows of things 0, 1 and 2, an hour apart up to three hours ago."""
    at = [now - HOUR * (3 + n) for n in range(len(x))]
    pq.write_table(pa.table({"thing": [n % 3 for n in range(len(x))], "at": at, "x": x}), folder / "rows.parquet")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A repository over a real Redis that is applied and materialized, and logs all that is served."""
    with RedisServer() as redis:
        (tmp_path / "featurestore.toml").write_text(
            f'project = "p"\ndefinitions = []\nonline = "{redis.url}"\n[serving_log]\nrate = 1.0\n'
        )
        write_rows(tmp_path, datetime.now(UTC), [1.0, 500.0, 2.0, 3.0, 4.0, -1.0, 600.0])
        with FeatureStore(tmp_path) as store:
            store.apply(definitions())
            store.materialize(progress=False)
        yield tmp_path


def test_a_server_refuses_keeps_aside_and_serves_what_training_says(folder: Path) -> None:
    """A refused row is a 422 that names row, column and expectation; a quarantined one is in no answer; the audit finds no skew."""
    now = datetime.now(UTC)
    with FeatureServer(folder, "--no-authentication") as running:
        with running.client(headers=JSON, timeout=PATIENCE_SECONDS) as client:
            told = pushed(client, [row(1, 1.0, now), {**row(2, 2.0, now), "thing": None}])
            assert told.status_code == 422
            assert (
                "PushSource 'pushed': row 1, column 'thing': None does not meet NotNull('thing')"
                in told.json()["detail"]
            )
            told = pushed(client, [row(1, 1.0, now), row(2, 500.0, now), row(3, None, now)])
            assert told.status_code == 200, told.text
            counts = {"accepted": 2, "unchanged": 0, "late": 0, "quarantined": 1, "without_key": 0}
            assert {name: told.json()[name] for name in counts} == counts
            assert len(told.json()["notices"]) == 2
            asked = {"service": "model", "rows": [{"thing": n} for n in range(3)]}
            answer = client.post("/v1/online-features", json=asked)
            assert answer.json()["rows"] == [[1.0, 2.0, None, None], [4.0, 4.0, 1.0, 2], [2.0, 2.0, None, None]]
            client.post("/v1/online-features", json=asked)
            metrics = {
                (sample.name, sample.labels.get("source"), sample.labels.get("outcome"), sample.labels.get("expectation")): sample.value
                for family in read_text(client.get("/metrics").text)
                for sample in family.samples
            }  # fmt: skip
        with Client(running.url) as remote:
            with pytest.raises(RowRefusedError, match="does not meet NotNull"):
                remote.push("pushed", [{**row(4, 1.0, now), "thing": None}])
            assert remote.push("pushed", [row(5, 700.0, now)]).quarantined == 1
    assert metrics["featurestore_pushed_rows_total", "pushed", "quarantined", None] == 1
    assert metrics["featurestore_quarantined_rows", "pushed", None, None] == 1
    assert metrics["featurestore_view_unmet_rows", None, None, LIMIT.title] == 3
    with FeatureStore(folder) as store:
        assert [one.values["x"] for one in store.quarantined_rows("pushed")] == [500.0, 700.0]
        audit = store.audit()
        assert {
            feature.feature: (feature.exact, feature.skewed, feature.rewritten) for feature in audit.features
        } == dict.fromkeys(("read__x", "read__mean", "sent__sum", "sent__rows"), (6, 0, 0))


def row(number: int, x: float | None, at: datetime) -> dict[str, Any]:
    """A pushed row of thing 1, in its JSON form."""
    return {"thing": 1, "id": number, "at": at.isoformat(), "x": x}


def pushed(client: httpx.Client, rows: list[dict[str, Any]]) -> httpx.Response:
    """The answer to a push."""
    return client.post("/v1/push", json={"source": "pushed", "rows": rows})


def test_a_value_into_which_a_quarantined_row_went_is_skew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: a run that counts all rows. The audit names the cause."""
    clock = ManualClock(datetime.now(UTC) + 2 * HOUR)
    with monkeypatch.context() as patched:
        patched.setattr(rule, "removing", lambda expectations: [])
        with FeatureStore(folder, clock=clock) as store:
            store.materialize(["read"], full=True, progress=False)
            served = store.get_online_features([{"thing": n} for n in range(3)], "model")
    assert served.to_dict()["read__x"] == [1.0, 500.0, 2.0]
    clock.advance(HOUR)
    with FeatureStore(folder, clock=clock) as store:
        audit = store.audit()
        causes = {feature.feature: dict(feature.causes) for feature in audit.features if feature.skewed}
    assert causes == {"read__x": {"quarantined": 1}, "read__mean": {"quarantined": 3}}
