"""What a process loads that only looks up: neither the engine nor pandas, until it is asked for a frame."""

from __future__ import annotations

import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from featurestore import FeatureStore

DEFINITIONS = """
from featurestore import Count, Entity, FeatureService, FeatureView, Latest, ParquetSource, PushSource, Request, on_demand
from featurestore.types import Float64, Int64, String, Timestamp

thing = Entity("thing", key={"thing": Int64})
rows = ParquetSource("rows", "rows.parquet", event_time="at")
clicks = PushSource(
    "clicks", schema={"id": String, "thing": Int64, "at": Timestamp, "x": Float64}, event_time="at", identity="id"
)
hourly = FeatureView("hourly", entity=thing, source=rows, refresh="1h", features={"x": Latest("x"), "n": Count(where="x > 1", window="7d")})
clicked = FeatureView("clicked", entity=thing, source=clicks, features={"n": Count(where="x > 1", window="7d")})


@on_demand(inputs=[hourly["x"], Request("amount", Float64)], output=Float64)
def share(x, amount):
    return None if x is None or amount is None else x / amount


model = FeatureService("model", features=[hourly, clicked, share])
"""
ASK = """
import sys
import uuid
from featurestore import FeatureStore

def loaded():
    return sorted({"duckdb", "pandas", "polars", "matplotlib", "rich"} & set(sys.modules))

store = FeatureStore(".")
"""
BY_HAND = """
result = store.get_online_features([{"thing": 1, "amount": 3.0}, {"thing": 2, "amount": None}], "model")
assert result.to_dict()["hourly__n"] == [1, 0], result.to_dict()
assert loaded() == [], loaded()
assert result.to_pandas()["share"].tolist()[0] == 0.5
assert loaded() == ["pandas"], loaded()
"""
OVER_HTTP = """
import asyncio, json
from featurestore.server import create_app

async def served():
    app = create_app(store)
    body = json.dumps({"service": "model", "rows": [{"thing": 1, "amount": 3.0}]}).encode()
    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": "/v1/online-features",
             "raw_path": b"/v1/online-features", "query_string": b"", "headers": [(b"content-type", b"application/json")],
             "scheme": "http", "server": ("here", 80), "client": ("here", 1), "root_path": ""}
    sent = []

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    async with app.router.lifespan_context(app):
        await app(scope, receive, send)
    assert sent[0]["status"] == 200, sent
    assert json.loads(sent[1]["body"])["rows"][0][0] == 1.5, sent

asyncio.run(served())
assert loaded() == [], loaded()
"""


def project(folder: Path, online: str) -> Path:
    """A project with what it declares applied, filled and pushed."""
    now = datetime.now(UTC)
    rows = pd.DataFrame({"thing": [1, 2], "at": [now - timedelta(days=2)] * 2, "x": [1.5, 0.5]})
    rows.to_parquet(folder / "rows.parquet")
    (folder / "definitions.py").write_text(DEFINITIONS)
    (folder / "featurestore.toml").write_text(f'project = "looks_{uuid.uuid4().hex[:8]}"\nonline = "{online}"\n')
    with FeatureStore(folder) as store:
        store.apply()
        store.materialize(progress=False)
        store.push("clicks", [{"id": "1", "thing": 1, "at": now - timedelta(seconds=1), "x": 2.0}])
    return folder


@pytest.mark.parametrize("ask", [BY_HAND, OVER_HTTP], ids=["Python", "HTTP"])
@pytest.mark.parametrize("kind", ["lmdb", "redis"])
def test_a_lookup_loads_neither_engine_nor_pandas(kind: str, ask: str, tmp_path: Path, redis_url: str) -> None:
    """Of views with conditions, windows, pushed rows and on-demand features."""
    folder = project(tmp_path, "lmdb://online" if kind == "lmdb" else redis_url)
    ended = subprocess.run(
        [sys.executable, "-c", ASK + ask], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr
