"""A store whose views have a feature of every type, read from files and pushed, and a server of it."""

from __future__ import annotations

import json
import math
import random
import re
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal as Number
from pathlib import Path
from typing import Any

import pyarrow as pa
import uvicorn

from featurestore import (
    Count,
    DataFrameSource,
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Latest,
    ManualClock,
    PushSource,
    Request,
    Sum,
    on_demand,
)
from featurestore.server import create_app
from featurestore.server.run import options
from featurestore.types import (
    Array,
    Bool,
    Bytes,
    Date,
    Decimal,
    FeatureType,
    Float32,
    Float64,
    Int32,
    Int64,
    String,
    Timestamp,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TYPES: dict[str, FeatureType] = {
    "flag": Bool,
    "small": Int32,
    "big": Int64,
    "narrow": Float32,
    "wide": Float64,
    "text": String,
    "raw": Bytes,
    "day": Date,
    "moment": Timestamp,
    "price": Decimal(12, 3),
    "embedding": Array(Float32, 3),
    "names": Array(String),
    "counts": Array(Int64),
    "flags": Array(Bool),
    "levels": Array(Float64),
}
KEYS = [f"u{number}" for number in range(40)] + ["", "a b/ü&", '"quoted"', "日本"]
PAIRS = [(carrier, number) for carrier in ("UA", "AA", 'x"y') for number in (-1, 0, 2**53 + 1)]

USER, PAIR = Entity("user", key={"user_id": String}), Entity("pair", key={"carrier": String, "flight": Int64})
PUSHED = PushSource(
    "cards",
    schema={"user_id": String, "at": Timestamp, "ends": Timestamp, "gone": Bool, **TYPES},
    event_time="at", identity=["user_id", "at"], until="ends", deleted="gone", lateness="30d",
)  # fmt: skip


def value(draw: random.Random, of: FeatureType) -> Any:
    """A value of a type, often one at an edge."""
    if of.element is not None:
        inner = [value(draw, of.element) for _ in range(of.length or draw.randrange(4))]
        return inner if of.length is None else [0.5 if item is None else item for item in inner]
    if draw.random() < 0.1:
        return None
    choices: dict[str, Any] = {
        "Bool": lambda: draw.random() < 0.5,
        "Int32": lambda: draw.choice([0, -(2**31), 2**31 - 1, draw.randrange(100)]),
        "Int64": lambda: draw.choice([0, -(2**63), 2**63 - 1, 2**53 + 1, draw.randrange(100)]),
        "Float32": lambda: draw.choice([math.nan, math.inf, -0.0, 14.0, struct.unpack("<f", struct.pack("<f", draw.random()))[0]]),
        "Float64": lambda: draw.choice([math.nan, math.inf, -math.inf, -0.0, 14.0, 5e-324, 0.1, draw.random() * 1e300]),
        "String": lambda: draw.choice(["", "é", "日本\n", '"', "a" * draw.randrange(30), "14", "null", "true"]),
        "Bytes": lambda: draw.choice([b"", b"\x00\xff", draw.randbytes(5)]),
        "Date": lambda: date(1970, 1, 1) + timedelta(days=draw.randrange(-10_000, 30_000)),
        "Timestamp": lambda: NOON + timedelta(microseconds=draw.randrange(-(10**15), 10**15)),
        "Decimal": lambda: Number(draw.randrange(-(10**11), 10**11)).scaleb(-3),
    }  # fmt: skip
    return choices[of.kind]()


def pushed_rows(draw: random.Random) -> list[dict[str, Any]]:
    """A row for most users, by pushes."""
    return [
        {"user_id": key, "at": NOON - timedelta(minutes=draw.randrange(1, 1000)), **{name: value(draw, of) for name, of in TYPES.items()}}
        for key in KEYS if draw.random() < 0.9
    ]  # fmt: skip


def definitions(draw: random.Random) -> list[Any]:
    hour = NOON - timedelta(hours=2)
    filed = {name: pa.array([value(draw, of) for _ in KEYS], of.arrow) for name, of in TYPES.items()}
    times = pa.array([hour] * len(KEYS), pa.timestamp("us", "UTC"))
    files = DataFrameSource("files", pa.table({"user_id": KEYS, "at": times, **filed}), event_time="at")
    users = FeatureView("users", entity=USER, source=files, refresh="1h", features=list(TYPES))
    columns = {name: pa.array([value(draw, of) for _ in PAIRS], of.arrow) for name, of in TYPES.items()}
    pairs = {
        "carrier": [carrier for carrier, _ in PAIRS],
        "flight": pa.array([flight for _, flight in PAIRS], pa.int64()),
    }
    times = pa.array([hour] * len(PAIRS), pa.timestamp("us", "UTC"))
    flights = DataFrameSource("flights", pa.table({**pairs, "at": times, **columns}), event_time="at")
    by_pair = FeatureView("pairs", entity=PAIR, source=flights, refresh="1h", ttl="1d", features=list(TYPES))
    cards = FeatureView("cards", entity=USER, source=PUSHED, features=["at", "ends", *TYPES], ttl="20d")
    sums = FeatureView(
        "sums", entity=USER, source=PUSHED, features={"total": Sum("small", window="1d"), "rows": Count(window="1d"), "last": Latest("text")},
    )  # fmt: skip

    told = PushSource("told", schema={"user_id": String, "at": Timestamp, "x": Float64}, event_time="at")
    events = FeatureView("events", entity=USER, source=told, features=["x"])

    @on_demand(inputs=[users["wide"], Request("add", Int64)], output=Float64)
    def added(wide, add):
        return None if wide is None else wide + add

    return [
        FeatureService("model", features=[users, sums, added]),
        FeatureService("plain", features=[users, sums]),
        by_pair,
        cards,
        events,
    ]


@contextmanager
def opened(folder: Path, seed: int = 0) -> Iterator[FeatureStore]:
    """A store with everything online."""
    draw = random.Random(seed)
    (folder / "featurestore.toml").write_text('project = "platforms"\nonline = "lmdb://online"\ndefinitions = []\n')
    with FeatureStore(folder, clock=ManualClock(NOON)) as store:
        store.apply(definitions(draw))
        store.push("cards", pushed_rows(draw))
        store.materialize(progress=False)
        yield store


@contextmanager
def serving(store: FeatureStore, *platforms: str, **words: Any) -> Iterator[str]:
    """The URL of a server that answers the clients of these platforms; words: of `create_app`."""
    app = create_app(store, **{"authentication": False, "compatible": platforms, **words})
    server = uvicorn.Server(uvicorn.Config(app, port=0, **{**options(store.config.server), "log_level": "warning"}))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        thread.join(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


PAGES = Path(__file__).parents[2] / "docs/platforms"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def run_page(platform: str, folder: Path, show: Callable[[FeatureStore, str], Any] | None = None) -> dict[str, Any]:
    """Run what a platform's page shows, over the project that the first page shows. show: what is done in place of that, with
    the store and the server's URL."""
    (folder / "featurestore.toml").write_text('project = "shown"\nonline = "lmdb://online"\n')
    shown = BLOCK.findall((PAGES / "index.md").read_text())
    (folder / "definitions.py").write_text(next(text for kind, text in shown if kind == "python"))
    commands = next(text for kind, text in shown if kind == "text")
    (rows,) = re.findall(r"echo '(.+)' \| featurestore push reports", commands)
    namespace: dict[str, Any] = {"__name__": "page"}
    with FeatureStore(folder) as store:
        store.apply()
        store.push("reports", [json.loads(rows)], json=True)
        with serving(store, platform) as url:
            if show is not None:
                show(store, url)
                return namespace
            for kind, text in BLOCK.findall((PAGES / f"{platform}.md").read_text()):
                if kind == "python":
                    exec(compile(text.replace("http://127.0.0.1:6570", url), f"{platform}.md", "exec"), namespace)
            return namespace


def bits(value: Any) -> Any:
    """What is equal exactly for the same value of the same type: NaN is NaN, -0.0 is not 0.0, and 1 is not 1.0."""
    if isinstance(value, list):
        return [bits(item) for item in value]
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else struct.pack("<d", value)
    return type(value).__name__, value
