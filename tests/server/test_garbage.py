"""A request that is over leaves nothing in memory for the garbage collector to find, which looks rarely and may find it late:
neither rows nor a body, however large they were."""

from __future__ import annotations

import asyncio
import gc
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi import FastAPI

from featurestore import (
    Count,
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Latest,
    ManualClock,
    Max,
    Mean,
    PushSource,
)
from featurestore.server import create_app
from featurestore.types import Float64, Int64, String, Timestamp
from tests.small import NOON

KEYS = 1_500
"""Keys that are more than the event loop looks up by itself."""

PAID = PushSource(
    "paid", schema={"id": String, "thing": Int64, "at": Timestamp, "x": Float64}, event_time="at", identity="id"
)
PAYMENTS = FeatureView(
    "payments", entity=Entity("thing", key={"thing": Int64}), source=PAID,
    features={"n": Count(window="10m"), "mean": Mean("x", window="1h"), "last": Latest("x", window="1h"), "most": Max("x", window="1h")},
)  # fmt: skip


@pytest.fixture(scope="module")
def store(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeatureStore]:
    folder = tmp_path_factory.mktemp("garbage")
    (folder / "featurestore.toml").write_text(f'project = "garbage"\nonline = "{redis_url}"\ndefinitions = []\n')
    with FeatureStore(folder, clock=ManualClock(NOON)) as store:
        store.apply([FeatureService("paying", features=[PAYMENTS])])
        store.push("paid", [{"id": f"{n}", "thing": n % KEYS, "at": NOON, "x": n / 7} for n in range(2 * KEYS)])
        yield store


async def asked(app: FastAPI, path: str, body: bytes) -> int:
    """The status of the answer."""
    head = {"host": "localhost", "content-type": "application/json", "content-length": str(len(body))}
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http", "path": path,
        "raw_path": path.encode(), "query_string": b"", "root_path": "", "client": ("127.0.0.1", 1), "server": ("localhost", 80),
        "headers": [(name.encode(), value.encode()) for name, value in head.items()],
    }  # fmt: skip
    status = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        status.append(message.get("status"))

    await app(scope, receive, send)
    return int(status[0])


@contextmanager
def collected() -> Iterator[Counter[str]]:
    """The objects of this project that only the garbage collector frees, by their class, or by the function of a frame."""
    found: Counter[str] = Counter()
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        for one in gc.garbage:
            code = getattr(one, "f_code", None)
            if code is not None and "/featurestore/" in code.co_filename:
                found[f"{code.co_filename}:{code.co_name}"] += 1
            elif type(one).__module__.startswith("featurestore."):
                found[type(one).__name__] += 1
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def rows(count: int) -> list[dict[str, Any]]:
    return [{"thing": n} for n in range(count)]


def pushed(*names: str) -> list[dict[str, Any]]:
    return [{"id": name, "thing": 3, "at": NOON.isoformat(), "x": 0.5} for name in names]


LOOKUP, PUSH = "/v1/online-features", "/v1/push"
REQUESTS: dict[str, tuple[str, Any, int]] = {
    "a key": (LOOKUP, {"service": "paying", "rows": rows(1)}, 200),
    "some keys": (LOOKUP, {"service": "paying", "rows": rows(100)}, 200),
    "many keys": (LOOKUP, {"service": "paying", "rows": rows(KEYS)}, 200),
    "a row": (PUSH, {"source": "paid", "rows": pushed("one")}, 200),
    "many rows": (PUSH, {"source": "paid", "rows": pushed(*map(str, range(KEYS)))}, 200),
    "no such service": (LOOKUP, {"service": "playing", "rows": rows(KEYS)}, 404),
    "no such column": (LOOKUP, {"service": "paying", "rows": [{"think": 1}]}, 422),
    "no such type": (PUSH, {"source": "paid", "rows": [{"id": 1}]}, 422),
    "no JSON": (LOOKUP, b"{" * 100, 400),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_that_is_over_leaves_nothing_behind(store: FeatureStore, name: str) -> None:
    path, asks, status = REQUESTS[name]
    body = asks if isinstance(asks, bytes) else json.dumps(asks).encode()

    async def ask() -> Counter[str]:
        app = create_app(store, authentication=False)
        async with app.router.lifespan_context(app):
            for _ in range(2):  # what is made once, such as the caches of a version
                assert await asked(app, path, body) == status
            with collected() as found:
                for _ in range(3):
                    assert await asked(app, path, body) == status
            return found

    assert asyncio.run(ask()) == {}
