"""Pushes over HTTP: rows are kept when the answer comes, mistakes are problems, and those that wait share a turn."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest

from featurestore import (
    Count,
    DataFrameSource,
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    ManualClock,
    PushSource,
    Sum,
)
from featurestore.server.bodies import PushResponse, read_push
from featurestore.sources.log import FileLog
from featurestore.types import Decimal, Float64, String, Timestamp
from tests.server.test_http import BODY_BYTES, PROBLEM, PROBLEM_FIELDS, serving

NOON = datetime(2013, 1, 1, 12, tzinfo=UTC)
SWIPES = PushSource(
    "swipes",
    schema={"swipe": String, "card": String, "at": Timestamp, "amount": Float64, "fee": Decimal(6, 2)},
    event_time="at", identity="swipe",
)  # fmt: skip


def definitions() -> list[Any]:
    card = Entity("card", key={"card": String})
    view = FeatureView(
        "cards", entity=card, source=SWIPES,
        features={"swipes": Count(window="1h"), "amount": Sum("amount", window="1h"), "fees": Sum("fee", window="1h")},
    )  # fmt: skip
    rows = pa.table({"card": ["a"], "at": pa.array([NOON], pa.timestamp("us", "UTC")), "limit": [1.0]})
    limits = DataFrameSource("limits", rows, event_time="at")
    beside = FeatureView("limits", entity=card, source=limits, features=["limit"], refresh="1h")
    return [FeatureService("cards", features=[view]), beside]


@pytest.fixture(params=["lmdb", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FeatureStore]:
    online = "lmdb://online" if request.param == "lmdb" else request.getfixturevalue("redis_url")
    name = f"push_{tmp_path.name}".replace("-", "_")
    (tmp_path / "featurestore.toml").write_text(f'project = "{name}"\nonline = "{online}"\ndefinitions = []\n')
    with FeatureStore(tmp_path, clock=ManualClock(NOON)) as store:
        store.apply(definitions())
        yield store


@pytest.fixture
def client(store: FeatureStore) -> Iterator[httpx.Client]:
    with serving(store) as client:
        yield client


def swipe(name: str, amount: Any = 1.5, **more: Any) -> dict[str, Any]:
    return {"swipe": name, "card": "a", "at": "2013-01-01T12:00:00.000000Z", "amount": amount, "fee": "0.10", **more}


def test_what_is_pushed_is_served_when_the_answer_comes(client: httpx.Client, store: FeatureStore) -> None:
    """Values in their JSON forms; a retry changes nothing, a late row is counted and kept aside."""
    old = swipe("c", at=(NOON - timedelta(days=8)).isoformat())
    first = client.post("/v1/push", json={"source": "swipes", "rows": [swipe("a"), swipe("b", "NaN"), old]})
    assert first.status_code == 200
    (notice,) = first.json()["notices"]
    assert notice.startswith("1 row came too late, and is never served nor trained on")
    assert {**first.json(), "notices": []} == {
        "accepted": 2,
        "unchanged": 0,
        "late": 1,
        "quarantined": 0,
        "without_key": 0,
        "notices": [],
    }
    again = client.post("/v1/push", json={"source": "swipes", "rows": [swipe("a")]})
    assert again.json() == {"accepted": 0, "unchanged": 1, "late": 0, "quarantined": 0, "without_key": 0, "notices": []}
    answer = client.post("/v1/online-features", json={"service": "cards", "rows": [{"card": "a"}]}).json()
    assert dict(zip(answer["columns"], answer["rows"][0], strict=True)) == {
        "cards__swipes": 2, "cards__amount": "NaN", "cards__fees": "0.20",
    }  # fmt: skip
    assert store.offline.log(SWIPES).read().num_rows == 2
    assert store.offline.log(SWIPES, "late").read().num_rows == 1


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"source": "swipe", "rows": [swipe("a")]}, 404, "Did you mean 'swipes'?"),
        ({"source": "limits", "rows": [{}]}, 422, "only a PushSource takes rows"),
        ({"source": "swipes", "rows": [swipe("a"), swipe("b", "much")]}, 422, "row 1, column 'amount' must be Float64"),
        ({"source": "swipes", "rows": [swipe("a", ammount=1)]}, 422, "Did you mean 'amount'?"),
        ({"source": "swipes", "rows": [swipe("a", at=None)]}, 422, "row 0 has no 'at', which is its event_time"),
        ({"source": "swipes", "rows": [swipe("a", at="2013-01-01T12:01:00Z")]}, 422, "at most 1s ahead"),
        ({"source": "swipes", "rows": [3]}, 422, "must map columns to values"),
        ({"source": "swipes", "rows": []}, 400, "at least one"),
        ({"source": "swipes", "row": []}, 400, "Did you mean 'rows'?"),
        ({"rows": [swipe("a")]}, 400, "name of a push source"),
        ([], 400, "an object with source and rows"),
    ],
)
def test_a_mistake_is_a_problem_and_nothing_is_kept(
    client: httpx.Client, store: FeatureStore, body: Any, status: int, says: str
) -> None:
    """Problem details say what is wrong; no row of the push is in the log."""
    response = client.post("/v1/push", json=body)
    problem = response.json()
    assert (response.status_code, response.headers["content-type"]) == (status, PROBLEM), problem
    assert set(problem) == PROBLEM_FIELDS
    assert (problem["status"], problem["instance"]) == (status, "/v1/push")
    assert says in problem["detail"]
    assert store.offline.log(SWIPES).read().num_rows == 0


def test_a_body_that_is_no_json_or_too_large_is_refused(client: httpx.Client) -> None:
    """400 and 413, the latter before all of it was read."""
    assert client.post("/v1/push", content=b"{").status_code == 400
    chunked = (b" " * (1 << 20) for _ in range((BODY_BYTES >> 20) + 1))
    assert client.post("/v1/push", content=chunked).status_code == 413


def test_pushes_that_wait_at_the_same_time_share_a_turn(
    client: httpx.Client, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve single rows that come while the log is held are written by two appends at most."""
    client.post("/v1/push", json={"source": "swipes", "rows": [swipe("first")]})
    written, append = [], FileLog.append

    def counted(log: FileLog, batches: Any, *moves: Any) -> None:
        listed = list(batches)
        written.append(sum(batch.num_rows for batch in listed))
        append(log, listed, *moves)

    monkeypatch.setattr(FileLog, "append", counted)
    statuses = []

    def post(n: int) -> None:
        with httpx.Client(base_url=client.base_url, timeout=600) as own:
            body = {"source": "swipes", "rows": [swipe(f"row {n}")]}
            statuses.append(own.post("/v1/push", json=body).json()["accepted"])

    threads = [threading.Thread(target=post, args=(n,)) for n in range(12)]
    line = store._project.pushing._pushers["swipes"]._queue
    joined, join = [], line.join

    def counted_join(*rows: Any, **words: Any) -> Any:
        answer = join(*rows, **words)
        joined.append(answer)
        return answer

    monkeypatch.setattr(line, "join", counted_join)
    store._project.pushing._heartbeat.close()  # which may hold the first up, so that it does not begin alone
    with store.offline.log(SWIPES).lock():
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 600
        while len(joined) < 12 and time.monotonic() < deadline:  # the first of them may have begun their turn
            time.sleep(0.01)
    for thread in threads:
        thread.join()
    assert statuses == [1] * 12
    assert sum(written) == 12
    assert len(written) <= 2


def test_the_description_shows_an_example_of_a_push(client: httpx.Client) -> None:
    """OpenAPI has an example of the request, of the answer and of each problem."""
    operation = client.get("/openapi.json").json()["paths"]["/v1/push"]["post"]
    example = operation["requestBody"]["content"]["application/json"]["example"]
    assert read_push(json.dumps(example).encode())[0] == "swipes"
    answer = operation["responses"]["200"]["content"]["application/json"]["example"]
    assert set(answer) == set(PushResponse.model_fields)
    expected = {"200", "400", "401", "403", "404", "408", "413", "415", "421", "422", "429", "431", "500", "503", "507"}
    assert set(operation["responses"]) == expected
    example = operation["responses"]["404"]["content"][PROBLEM]["example"]
    assert example["instance"] == "/v1/push"
