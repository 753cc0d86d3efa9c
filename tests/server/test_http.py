"""The HTTP service answers what the Python API answers, over a real server."""

from __future__ import annotations

import asyncio
import json
import math
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest
import uvicorn

from featurestore import (
    DataFrameSource,
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    ManualClock,
    Request,
    on_demand,
)
from featurestore.server import create_app
from featurestore.server.bodies import LookupResponse, read_request
from featurestore.server.problems import LONGEST_DETAIL, LONGEST_WORD
from featurestore.settings import ServerConfig
from featurestore.types import Float64, Int64, String, from_json
from tests.servers import RedisServer

PROBLEM = "application/problem+json"
JSON = {"content-type": "application/json"}
PROBLEM_FIELDS = {"type", "title", "status", "detail", "instance", "request_id"}
BODY_BYTES = ServerConfig().body_bytes
UNUSED = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""What a client takes for HTTPS, which nothing here speaks: else each would read all authorities, which takes longer than most tests."""

NOON = datetime(2013, 1, 1, 12, tzinfo=UTC)
BIG = 2**53 + 1
ROWS = pa.table(
    {
        "id": pa.array(["a", "b", "c"]),
        "at": pa.array([NOON - timedelta(hours=2)] * 3, pa.timestamp("us", "UTC")),
        "f": pa.array([math.nan, math.inf, -0.0]),
        "i": pa.array([BIG, None, -BIG], pa.int64()),
        "b": pa.array([b"\x00\xff", b"", None]),
        "t": pa.array([NOON, None, NOON], pa.timestamp("us", "UTC")),
    }
)


def definitions() -> list:
    rows = DataFrameSource("rows", ROWS, event_time="at")
    view = FeatureView(
        "facts", entity=Entity("thing", key={"id": String}), source=rows, features=["f", "i", "b", "t"], refresh="1h"
    )

    @on_demand(inputs=[view["i"], Request("add", Int64)], output=Float64)
    def sum_of(i, add):
        return None if i is None else float(i % 10 + add)

    return [FeatureService("service", features=[view, sum_of])]


@pytest.fixture(scope="module", params=["lmdb", "redis"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeatureStore]:
    folder: Path = tmp_path_factory.mktemp("repo")
    online = "lmdb://online" if request.param == "lmdb" else request.getfixturevalue("redis_url")
    (folder / "featurestore.toml").write_text(f'project = "http"\nonline = "{online}"\ndefinitions = []\n')
    with FeatureStore(folder, clock=ManualClock(NOON)) as store:
        yield store


@contextmanager
def serving(store: FeatureStore, **words: Any) -> Iterator[httpx.Client]:
    """A server of the store on a free port, and its client; words: of `create_app`."""
    server = uvicorn.Server(
        uvicorn.Config(create_app(store, **{"authentication": False, **words}), port=0, log_level="warning")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        thread.join(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=JSON, timeout=600, verify=UNUSED) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def client(store: FeatureStore) -> Iterator[httpx.Client]:
    with serving(store) as client:
        nothing = client.get("/readyz")
        assert (nothing.status_code, nothing.json()["type"]) == (503, "urn:featurestore:NotApplied")
        store.apply(definitions())
        ready = client.get("/readyz")
        assert ready.headers["content-type"] == PROBLEM
        assert (ready.status_code, ready.json()["type"]) == (503, "urn:featurestore:NotMaterialized")
        unfilled = client.post("/v1/online-features", json={"service": "service", "rows": [{"id": "a", "add": 1}]})
        assert unfilled.status_code == 503
        store.materialize(progress=False)
        yield client


ASKED = [
    {"id": "a", "add": 1},
    {"id": "b", "add": 2},
    {"id": "c", "add": 3},
    {"id": "z", "add": 4},
    {"id": None, "add": 5},
]


def test_json_values_are_the_python_ones(client: httpx.Client, store: FeatureStore) -> None:
    """Every value read back from its JSON form is what the Python API gives, to the bit."""
    body = client.post("/v1/online-features", json={"service": "service", "rows": ASKED}).json()
    result = store.get_online_features(ASKED, "service")
    assert body["columns"] == list(result.columns)
    assert body["fingerprint"] == result.service.fingerprint
    for number, column in enumerate(result.service.columns):
        served = [from_json(column.type, row[number]) for row in body["rows"]]
        assert repr(served) == repr(list(result.columns[column.name]))
        assert [row[number] for row in body["statuses"]] == result.statuses[column.name]
    assert body["rows"][0][0] == "NaN"
    assert body["rows"][1][0] == "Infinity"
    assert body["rows"][0][1] == BIG
    assert body["as_of"] == {"facts": "2013-01-01T12:00:00.000000Z"}
    assert body["stale"] == {"facts": False}


def test_arrow_by_accept(client: httpx.Client, store: FeatureStore) -> None:
    """The same values as an Arrow IPC stream."""
    headers = {"accept": "application/vnd.apache.arrow.stream"}
    response = client.post("/v1/online-features", json={"service": "service", "rows": ASKED}, headers=headers)
    table = pa.ipc.open_stream(response.content).read_all()
    expected = store.get_online_features(ASKED, "service").to_arrow()
    assert repr(table.to_pydict()) == repr(expected.to_pydict())
    assert response.headers["content-type"] == headers["accept"]
    assert table.schema.equals(expected.schema)
    beside = json.loads(table.schema.metadata[b"featurestore.lookup"])
    told = client.post("/v1/online-features", json={"service": "service", "rows": ASKED}).json()
    assert {name: told[name] for name in ("service", "fingerprint", "as_of", "stale")} == {
        name: beside[name] for name in ("service", "fingerprint", "as_of", "stale")
    }
    assert list(beside["statuses"].values()) == [list(column) for column in zip(*told["statuses"], strict=True)]
    mistake = client.post("/v1/online-features", json={"service": "service", "rows": []}, headers=headers)
    assert (mistake.status_code, mistake.headers["content-type"]) == (400, PROBLEM)


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"service": "servcie", "rows": ASKED}, 404, "Did you mean 'service'?"),
        ({"service": "service", "rows": [{"id": 1, "add": 1}]}, 422, "'id' must be String"),
        ({"service": "service", "rows": [{"id": "a"}]}, 422, "has no 'add'"),
        ({"service": "service", "rows": [3]}, 422, "must map names to values"),
        ({"service": "service", "rows": ASKED, "fingerprint": "0" * 32}, 409, "never applied with fingerprint"),
        ({"service": "service", "row": ASKED}, 400, "Did you mean 'rows'?"),
        ({"service": "service", "rows": []}, 400, "at least one"),
        ({"rows": ASKED}, 400, "name of a feature service"),
        ([], 400, "must be an object"),
    ],
)
def test_a_client_mistake_is_a_problem(client: httpx.Client, body: object, status: int, says: str) -> None:
    """A mistake is a 4xx with problem details that say what is wrong."""
    response = client.post("/v1/online-features", json=body)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert problem["instance"] == "/v1/online-features"
    assert says in problem["detail"]


def test_what_is_no_json_and_what_is_too_large(client: httpx.Client) -> None:
    """A body that cannot be read is refused, a huge one before it is read."""
    assert client.post("/v1/online-features", content=b"{").status_code == 400
    chunked = (b" " * (1 << 20) for _ in range((BODY_BYTES >> 20) + 1))
    assert client.post("/v1/online-features", content=chunked).status_code == 413


@pytest.mark.parametrize(
    ("method", "path", "status", "title"),
    [
        ("GET", "/v1/online-feature", 404, "Not Found"),
        ("GET", "/", 404, "Not Found"),
        ("GET", "/v1/services/serice", 404, "Not found"),
        ("GET", "/v1/services/a/b", 404, "Not Found"),
        ("GET", "/v1/online-features", 405, "Method Not Allowed"),
        ("DELETE", "/v1/services/service", 405, "Method Not Allowed"),
        ("POST", "/readyz", 405, "Method Not Allowed"),
    ],
)
def test_an_unknown_route_or_method_is_a_problem(
    client: httpx.Client, method: str, path: str, status: int, title: str
) -> None:
    """The framework's own refusals are problem details too, and keep their headers."""
    response = client.request(method, path)
    assert (response.status_code, response.headers["content-type"]) == (status, PROBLEM)
    problem = response.json()
    assert set(problem) == PROBLEM_FIELDS
    assert (problem["status"], problem["title"], problem["instance"]) == (status, title, path)
    assert problem["detail"]
    assert ("allow" in response.headers) == (status == 405)


def test_what_nobody_foresaw_is_a_problem_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client of a defect learns that it is one; what it is stays in the server's log."""
    with FeatureStore.local() as store:
        monkeypatch.setattr(store, "behind", lambda: 1 / 0)
        store.apply(definitions())
        transport = httpx.ASGITransport(create_app(store, authentication=False), raise_app_exceptions=False)

        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.get("/readyz")

        response = asyncio.run(ask())
    assert (response.status_code, response.headers["content-type"]) == (500, PROBLEM)
    assert response.json()["detail"] == "ZeroDivisionError; see the server's log"


def test_a_store_that_is_away_is_a_problem_until_it_is_back(tmp_path: Path) -> None:
    """503 for lookups and readiness while Redis is away, health stays; then all is as before."""
    with RedisServer() as redis:
        text = f'project = "away"\nonline = "{redis.url_with(query="timeout=60&retries=0")}"\ndefinitions = []\n'
        (tmp_path / "featurestore.toml").write_text(text)
        with FeatureStore(tmp_path, clock=ManualClock(NOON)) as store, serving(store) as client:
            store.apply(definitions())
            store.materialize(progress=False)
            body = {"service": "service", "rows": ASKED}
            assert client.post("/v1/online-features", json=body).status_code == 200
            redis.stop()
            for response in (client.post("/v1/online-features", json=body), client.get("/readyz")):
                assert (response.status_code, response.headers["content-type"]) == (503, PROBLEM)
                assert response.json()["type"] == "urn:featurestore:OnlineUnavailable"
            assert client.get("/healthz").status_code == 200
            redis.start()  # empty
            assert client.get("/readyz").json()["type"] == "urn:featurestore:NotMaterialized"
            store.materialize(progress=False)
            assert client.get("/readyz").status_code == 200
            assert client.post("/v1/online-features", json=body).status_code == 200


def test_the_description_shows_an_example_of_everything(client: httpx.Client) -> None:
    """OpenAPI has an example of the request, of each answer and of each problem, and knows no other errors."""
    described = client.get("/openapi.json").json()
    for path, operations in described["paths"].items():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                is_good = status in {"200", "202"}
                kind = PROBLEM if not is_good else "text/plain" if path == "/metrics" else "application/json"
                example = response["content"][kind]["example"]
                assert is_good or (set(example) == PROBLEM_FIELDS and example["status"] == int(status)), path
    operation = described["paths"]["/v1/online-features"]["post"]
    example = operation["requestBody"]["content"]["application/json"]["example"]
    assert read_request(json.dumps(example).encode())[0] == "delay_model"
    answer = operation["responses"]["200"]["content"]["application/json"]["example"]
    assert set(answer) == set(LookupResponse.model_fields)
    assert len(answer["rows"]) == len(answer["statuses"]) == len(example["rows"])
    expected = {"200", "400", "401", "403", "404", "408", "409", "413", "415", "421", "422", "429", "431", "500", "503"}
    assert set(operation["responses"]) == expected
    assert "HTTPValidationError" not in str(described["paths"])


def test_definitions_and_health(client: httpx.Client) -> None:
    """What is applied can be read, and the service says that it is ready."""
    assert [item["name"] for item in client.get("/v1/services").json()["services"]] == ["service"]
    assert client.get("/v1/services/service").json()["definition"]["columns"][0] == ["facts__f", "Float64"]
    assert client.get("/v1/views/facts").json()["name"] == "facts"
    assert client.get("/v1/views/fact").status_code == 404
    assert client.get("/healthz").json() == {"status": "up"}
    assert client.get("/readyz").json() == {"status": "ready"}
    paths = client.get("/openapi.json").json()["paths"]
    assert "/v1/online-features" in paths


def test_concurrent_requests_each_get_their_own_answer(client: httpx.Client) -> None:
    """Requests that share a round trip are not mixed up."""

    async def ask() -> list[dict]:
        async with httpx.AsyncClient(base_url=client.base_url, timeout=600) as many:
            asked = [{"service": "service", "rows": [{"id": "abc"[n % 3], "add": n}]} for n in range(60)]
            return [r.json() for r in await asyncio.gather(*(many.post("/v1/online-features", json=a) for a in asked))]

    for n, body in enumerate(asyncio.run(ask())):
        expected = {"a": float(BIG % 10 + n), "b": None, "c": float(-BIG % 10 + n)}["abc"[n % 3]]
        assert body["rows"][0][-1] == expected


def test_every_route_is_documented(client: httpx.Client) -> None:
    """docs/http.md names every route."""
    page = (Path(__file__).parents[2] / "docs" / "http.md").read_text()
    for path in client.get("/openapi.json").json()["paths"]:
        assert f"`{path}`" in page or f" {path}`" in page


@pytest.mark.parametrize("name", ["x" * 11_000, "x " * 5_500], ids=["one word", "many"])
def test_a_problem_is_not_longer_for_a_name_that_is(client: httpx.Client, name: str) -> None:
    """Wherever the name stands: in the body, in a list, in the path."""
    row = [{"id": "a"}]
    answers = [
        client.post("/v1/online-features", json={"service": name, "rows": row}),
        client.post("/v1/online-features", json={"features": [f"{name}:x"], "rows": row}),
        client.post("/v1/push", json={"source": name, "rows": row}),
        client.get(f"/v1/views/{name}"),
        client.get(f"/{name}"),
    ]
    assert {answer.status_code for answer in answers} == {404}
    for answer in answers:
        assert len(answer.content) < 2 * LONGEST_DETAIL + 1_000
        assert name[: LONGEST_WORD // 2] in answer.json()["detail"]
        if " " not in name:
            assert len(answer.content) < 5 * LONGEST_WORD + 1_000
