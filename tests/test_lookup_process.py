"""What a process loads that only looks up: neither DuckDB, pandas nor Arrow, until it is asked for a frame."""

from __future__ import annotations

import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import FeatureStore

DEFINITIONS = """
from featurestore import (
    ApproxCountDistinct, ApproxQuantile, Count, CountDistinct, Entity, FeatureService, FeatureView, First, LastDistinctN, LastN,
    Latest, Max, Mean, Min, ParquetSource, PushSource, Request, RequestTime, StdDev, Sum, on_demand,
)
from featurestore.types import (
    Array, Bool, Bytes, Date, Decimal, Float32, Float64, Int32, Int64, String, Timestamp
)

TYPES = {
    "truth": Bool, "small": Int32, "whole": Int64, "narrow": Float32, "x": Float64, "text": String, "raw": Bytes, "day": Date,
    "when": Timestamp, "price": Decimal(10, 2), "list": Array(Int64), "words": Array(String), "vector": Array(Float32, 2),
}
FOLDS = {
    "n": Count(where="x > 1", window="7d"), "sum": Sum("x", window="7d"), "prices": Sum("price", window="7d"),
    "mean": Mean("x", window="7d"), "mean_price": Mean("price", window="7d"), "std": StdDev("x", window="7d"),
    "least": Min("when", window="7d"), "most": Max("text", window="7d"), "first": First("price", window="7d"),
    "last": LastN("text", 2, window="7d"), "kinds": LastDistinctN("price", 2, window="7d"),
    "distinct": CountDistinct("text", bound=10, window="7d"), "about": ApproxCountDistinct("text", window="7d"),
    "median": ApproxQuantile("x", 0.5, window="7d"),
}
thing = Entity("thing", key={"thing": Int64, "of": String})
rows = ParquetSource("rows", "rows.parquet", event_time="at")
clicks = PushSource(
    "clicks", schema={"id": String, "thing": Int64, "of": String, "at": Timestamp, **TYPES}, event_time="at", identity="id"
)
latest = {name: Latest(name, type=of) for name, of in TYPES.items()}
hourly = FeatureView("hourly", entity=thing, source=rows, refresh="1h", features={**latest, **FOLDS})
clicked = FeatureView("clicked", entity=thing, source=clicks, features={**latest, **FOLDS})


@on_demand(inputs=[hourly["x"], Request("amount", Float64)], output=Float64)
def share(x, amount):
    return None if x is None or amount is None else x / amount


@on_demand(inputs=[hourly["list"], clicked["price"], hourly["when"], RequestTime()], output=Decimal(10, 2))
def paid(given, price, when, now):
    return None if price is None or given is None or when > now else price * len(given)


model = FeatureService("model", features=[hourly, clicked, share, paid])
"""
ASK = """
import sys
import uuid
from featurestore import FeatureStore

def loaded():
    return sorted({"duckdb", "pandas", "pyarrow", "polars", "matplotlib", "rich"} & set(sys.modules))

store = FeatureStore(".")
assert not store.differences().changed
"""
BY_HAND = """
from decimal import Decimal
import featurestore.errors

asked = [{"thing": 1, "of": "a", "amount": 3.0}, {"thing": 2, "of": "a", "amount": None}, {"thing": 3, "of": "a", "amount": 1.0}]
result = store.get_online_features(asked, "model")
found = {name: values[0] for name, values in result.to_dict().items()}
for view in ("hourly", "clicked"):
    own = {name.removeprefix(f"{view}__"): value for name, value in found.items() if name.startswith(view)}
    assert (own["n"], own["x"], own["price"], own["list"]) == (1, 1.5, Decimal("2.50"), [1, None]), own
    assert (own["last"], own["kinds"], own["distinct"]) == (["words"], [Decimal("2.50")], 1), own
assert (found["share"], found["paid"]) == (0.5, Decimal("5.00")), found
assert result.to_dict()["hourly__n"][2] is None, result.to_dict()
try:
    store.get_online_features([{"thing": "no number", "of": "a", "amount": 3.0}], "model")
except featurestore.errors.RequestError:
    pass
else:
    raise AssertionError
assert loaded() == [], loaded()
frame = result.to_pandas()
assert frame["share"].tolist()[0] == 0.5
assert [type(value) for value in frame["hourly__price"]][0] is Decimal, frame.dtypes
assert loaded() == ["pandas", "pyarrow"], loaded()
assert store.get_online_features(frame[["thing", "of", "amount"]], "model").to_dict() == result.to_dict()
"""
OVER_HTTP = """
import asyncio, json
from featurestore.server import create_app

async def served():
    app = create_app(store, authentication=False)
    body = json.dumps({"service": "model", "rows": [{"thing": 1, "of": "a", "amount": 3.0}]}).encode()
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
    answer = json.loads(sent[1]["body"])
    row = dict(zip(answer["columns"], answer["rows"][0]))
    assert (row["clicked__raw"], row["hourly__price"], row["paid"]) == ("AAE=", "2.50", "5.00"), row

asyncio.run(served())
assert loaded() == [], loaded()
"""


ROWS = pa.schema(
    {
        "thing": pa.int64(), "of": pa.string(), "at": pa.timestamp("us", "UTC"), "truth": pa.bool_(), "small": pa.int32(),
        "whole": pa.int64(), "narrow": pa.float32(), "x": pa.float64(), "text": pa.string(), "raw": pa.binary(),
        "day": pa.date32(), "when": pa.timestamp("us", "UTC"), "price": pa.decimal128(10, 2), "list": pa.list_(pa.int64()),
        "words": pa.list_(pa.string()), "vector": pa.list_(pa.float32(), 2),
    }
)  # fmt: skip


def project(folder: Path, online: str) -> Path:
    """A project with what it declares applied, filled and pushed."""
    now = datetime.now(UTC)
    values = {
        "truth": True, "small": 1, "whole": 2, "narrow": 0.5, "x": 1.5, "text": "words", "raw": b"\0\1", "day": now.date(),
        "when": now, "price": Decimal("2.5"), "list": [1, None], "words": ["a"], "vector": [1.0, 2.0],
    }  # fmt: skip
    rows = [{"thing": thing, "of": "a", "at": now - timedelta(days=2), **values} for thing in (1, 2)]
    rows[0]["when"] = now - timedelta(days=3)
    pq.write_table(pa.Table.from_pylist(rows, ROWS), folder / "rows.parquet")
    (folder / "definitions.py").write_text(DEFINITIONS)
    (folder / "featurestore.toml").write_text(f'project = "looks_{uuid.uuid4().hex[:8]}"\nonline = "{online}"\n')
    with FeatureStore(folder) as store:
        store.apply()
        store.materialize(progress=False)
        store.push("clicks", [{"id": "1", "thing": 1, "of": "a", "at": now - timedelta(seconds=1), **values}])
    return folder


@pytest.mark.parametrize("ask", [BY_HAND, OVER_HTTP], ids=["Python", "HTTP"])
@pytest.mark.parametrize("kind", ["lmdb", "redis"])
def test_a_lookup_loads_no_library_of_frames(kind: str, ask: str, tmp_path: Path, redis_url: str) -> None:
    """Of values of every type, folds over windows, pushed rows and on-demand features; a frame asked for afterwards is made."""
    folder = project(tmp_path, "lmdb://online" if kind == "lmdb" else redis_url)
    ended = subprocess.run(
        [sys.executable, "-c", ASK + ask], cwd=folder, capture_output=True, text=True, timeout=600, check=False
    )
    assert ended.returncode == 0, ended.stderr
