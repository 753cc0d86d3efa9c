"""No web page may use the server: what a browser sends for a page, without asking first, is refused, and every answer is locked up."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import orjson
import pytest

from featurestore import Count, Entity, FeatureService, FeatureStore, FeatureView, ManualClock, PushSource
from featurestore.server import create_app
from featurestore.server.limits import SMALL_BYTES
from featurestore.types import Int64, String, Timestamp
from tests.server.test_http import JSON, PROBLEM, serving
from tests.server.test_limits import SECURITY
from tests.servers import PATIENCE_SECONDS
from tests.small import NOON

CLICKS = PushSource("clicks", schema={"id": String, "thing": Int64, "at": Timestamp}, event_time="at", identity="id")
VIEW = FeatureView(
    "view", entity=Entity("thing", key={"thing": Int64}), source=CLICKS, features={"n": Count(window="1h")}
)
SERVICE = FeatureService("service", features=[VIEW])
LOOKUP, PUSH = "/v1/online-features", "/v1/push"
PUSHED = {"source": "clicks", "rows": [{"id": "a", "thing": 1, "at": "2024-05-01T12:00:00Z"}]}
ASKED = {"service": "service", "rows": [{"thing": 1}]}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeatureStore]:
    folder = tmp_path_factory.mktemp("pages")
    (folder / "featurestore.toml").write_text(
        'project = "pages"\ndefinitions = []\n[server]\nhosts = ["features.example.com"]\n'
    )
    with FeatureStore(folder, clock=ManualClock(NOON)) as store:
        store.apply([SERVICE])
        store.materialize(progress=False)
        yield store


@pytest.fixture(scope="module")
def client(store: FeatureStore) -> Iterator[httpx.Client]:
    with serving(store) as client:
        yield client


@pytest.mark.parametrize(
    "kind",
    [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/json-seq",
     "text/plain; application/json", "application/json; charset=utf-16", "application/jsonx", "*/*"],
)  # fmt: skip
def test_a_body_that_a_page_may_send_unasked_is_refused(
    client: httpx.Client, store: FeatureStore, kind: str | None
) -> None:
    """415, and nothing of it is kept."""
    headers = {} if kind is None else {"content-type": kind}
    with httpx.Client(base_url=client.base_url, timeout=PATIENCE_SECONDS) as page:
        for path, body in ((PUSH, PUSHED), (LOOKUP, ASKED), ("/v1/manifests", {"service": "service"})):
            answer = page.post(path, content=json.dumps(body), headers=headers)
            assert (answer.status_code, answer.headers["content-type"]) == (415, PROBLEM)
    assert not store.offline.logs.has("clicks") or store.offline.log(CLICKS).read().num_rows == 0


@pytest.mark.parametrize(
    "kind", ["application/json", "Application/JSON", "application/json; charset=UTF-8", "application/json;"]
)
def test_json_is_taken(client: httpx.Client, kind: str) -> None:
    assert client.post(LOOKUP, content=json.dumps(ASKED), headers={"content-type": kind}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:1", "http://127.0.0.1.evil.example", ""]
)
def test_a_foreign_origin_is_refused(client: httpx.Client, origin: str) -> None:
    for method, path in (("POST", LOOKUP), ("POST", PUSH), ("GET", "/v1/services"), ("OPTIONS", PUSH)):
        answer = client.request(method, path, content=json.dumps(ASKED), headers={"origin": origin})
        assert (answer.status_code, answer.headers["content-type"]) == (403, PROBLEM)
        assert not [name for name in answer.headers if name.startswith("access-control")]
    own = client.post(LOOKUP, json=ASKED, headers={"origin": f"http://127.0.0.1:{client.base_url.port}"})
    assert own.status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [("evil.example", 421), ("evil.example:6570", 421), ("localhost.evil.example", 421), ("127.0.0.1.evil.example:80", 421),
     ("", 421), ("[::1", 400), ("localhost", 200), ("LOCALHOST:1", 200), ("localhost.", 200), ("127.1.2.3:6570", 200),
     ("[::1]:6570", 200), ("a.localhost", 200), ("features.example.com:443", 200), ("Features.Example.COM", 200)],
)  # fmt: skip
def test_a_foreign_name_that_leads_here_is_refused(client: httpx.Client, host: str, status: int) -> None:
    """Over a loopback address the server is asked by a name of this machine, or one that it was told of."""
    answer = client.post(LOOKUP, json=ASKED, headers={"host": host})
    assert answer.status_code == status, answer.text


def test_every_answer_is_locked_up(client: httpx.Client) -> None:
    """Right ones, wrong ones, and those of the framework."""
    answers = [client.post(LOOKUP, json=ASKED), client.post(LOOKUP, json=[]), client.get(LOOKUP)]
    answers += [
        client.get(path) for path in ("/docs", "/openapi.json", "/healthz", "/readyz", "/nowhere", "/v1/views/x")
    ]
    for answer in answers:
        assert SECURITY.items() <= answer.headers.items(), answer.url
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "server" not in answer.headers or answer.headers["server"] == "uvicorn"  # this one is uvicorn as it is


def test_the_page_of_the_description_loads_nothing(client: httpx.Client) -> None:
    """Neither scripts, nor anything by a URL; its style is the one that the answer allows."""
    answer = client.get("/docs")
    assert answer.headers["content-type"].startswith("text/html")
    text = answer.text
    assert not re.search(r"<script|<link|<img|<iframe|@import|url\(|javascript:|\son\w+=", text)
    assert re.findall(r'(?:src|href)="([^"]+)"', text) == ["openapi.json"]
    for path in client.get("/openapi.json").json()["paths"]:
        assert path in text


# --- the description and the behaviour ----------------------------------------------------------

HOSTILE: list[tuple[str, str, bytes, dict[str, str]]] = [
    *(("POST", path, body, JSON) for path in (LOOKUP, PUSH, "/v1/manifests") for body in (
        b"", b"{", b"[]", b"null", b'"/etc/passwd"', b'"."', b"NaN", b"1e400", b'{"rows":[]}', b'{"rows":[1]}', b'{"rows":{}}',
        b'{"service":"service","rows":[{"thing":' + b"[" * 1000 + b"]" * 1000 + b"}]}",
        b'{"service":"service","rows":[{"thing":' + b"[" * 20 + b"]" * 20 + b"}]}",
        b'{"service":"service","rows":[{"thing":1,"thing":2}]}', b'{"service":"service","service":"x","rows":[{"thing":1}]}',
        b'{"service":"service","rows":[{"thing":1e300}]}', b'{"service":"service","rows":[{"thing":' + b"9" * 300 + b"}]}",
        b'{"service":"service","rows":[{"thing":"1"}]}', b'{"service":"service","rows":[{}]}', b'{"service":"nope","rows":[{}]}',
        b'{"service":"service","fingerprint":"00000000000000000000000000000000","rows":[{"thing":1}]}',
        b'{"service":"service","fingerprint":1,"rows":[{"thing":1}]}', b'{"features":["view:n"],"rows":[{"thing":1}]}',
        b'{"service":"service","rows":[{"thing":1}]}', b'{"source":"clicks","rows":[{"id":"b","thing":2,"at":"2024-05-01T12:00:00Z"}]}',
        b'{"source":"clicks","rows":[{"id":"b","thing":[[]],"at":"2024-05-01T12:00:00Z"}]}', b'{"source":"x","rows":[{}]}',
        b'{"source":"clicks","rows":[{}]}', b'{"service":"service","fingerprint":"00000000000000000000000000000000"}',
        b'{"service":"","fingerprint":"x"}', b"\xff", b"\x00", b'{"a":"\\ud800"}',
    )),
    *(("GET", path, b"", {}) for path in (
        "/healthz", "/readyz", "/v1/services", "/v1/services/service", "/v1/services/nope", "/v1/views", "/v1/views/view",
        "/v1/views/%00", "/v1/views/..%2f..%2fetc", "/v1/serving-log",
    )),
    ("POST", LOOKUP, json.dumps(ASKED).encode(), {"content-type": "text/plain"}),
    ("POST", LOOKUP, json.dumps(ASKED).encode(), {**JSON, "origin": "http://evil.example"}),
    ("GET", "/v1/views", b"", {"host": "evil.example"}),
    ("POST", LOOKUP, json.dumps(ASKED).encode(), {**JSON, "x-request-id": "a" * 129}),
    ("POST", LOOKUP, json.dumps(ASKED | {"rows": [{"thing": 1}] * 10_001}).encode(), JSON),
]  # fmt: skip


def test_behaviour_is_as_it_is_described(client: httpx.Client) -> None:
    """Every answer has a status that OpenAPI lists for its route, and a body of the schema that it gives; none is a 5xx."""
    described = client.get("/openapi.json").json()
    seen = set()
    for method, path, body, headers in HOSTILE:
        answer = client.request(method, path, content=body, headers={"host": "localhost"} | headers)
        assert answer.status_code < 500, (path, body[:80], answer.text)
        known = described["paths"]
        template = path if path in known else path.rpartition("/")[0] + "/{name}"
        responses = known[template][method.lower()]["responses"]
        assert str(answer.status_code) in responses, (path, body[:80], answer.text)
        content = responses[str(answer.status_code)]["content"]
        schema = content[answer.headers["content-type"]].get("schema", {})
        jsonschema.validate(answer.json(), {**schema, "components": described["components"]})
        seen.add((template, answer.status_code))
    assert {(LOOKUP, status) for status in (200, 400, 403, 404, 409, 415, 422)} <= seen
    assert {(PUSH, status) for status in (200, 400, 404, 422)} <= seen


def test_the_described_requests_are_what_is_taken(client: httpx.Client) -> None:
    """What the schema of a body refuses, the route refuses; what it takes is never a 400."""
    paths = client.get("/openapi.json").json()["paths"]
    for method, path, body, headers in HOSTILE:
        if method == "POST" and headers == JSON:
            schema = paths[path]["post"]["requestBody"]["content"]["application/json"]["schema"]
            try:
                given = orjson.loads(body)
            except ValueError:
                continue
            valid = jsonschema.Draft202012Validator(schema).is_valid(given)
            status = client.post(path, content=body).status_code
            assert valid or status >= 400, body[:80]


# --- what is large ------------------------------------------------------------------------------


def test_what_is_large_is_not_done_on_the_event_loop(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bodies are read, rows looked up and answers written in a lane, where there are many; and where there are few, at once."""
    where: dict[str, set[str]] = {"read": set(), "looked up": set(), "written": set(), "pushed": set()}

    def noting(name: str, call: Any) -> Any:
        def noted(*args: Any, **words: Any) -> Any:
            where[name].add(threading.current_thread().name)
            return call(*args, **words)

        return noted

    from featurestore.server import hot_routes

    form = hot_routes.AS_JSON
    noted_form = form._replace(read=noting("read", form.read), write=noting("written", form.write))
    monkeypatch.setattr(hot_routes, "AS_JSON", noted_form)
    monkeypatch.setattr(hot_routes, "read_push", noting("read", hot_routes.read_push))  # type: ignore[attr-defined]  # a name that the module imports, to be replaced
    monkeypatch.setattr(store, "get_online_features", noting("looked up", store.get_online_features))
    monkeypatch.setattr(store, "submit_push", noting("pushed", store.submit_push))
    small = {"service": "service", "rows": [{"thing": n} for n in range(5)]}
    many = {"service": "service", "rows": [{"thing": n % 9} for n in range(2_000)]}
    large = {"service": "service", "rows": [{"thing": n, "note": "x" * 100} for n in range(SMALL_BYTES // 100)]}
    pushed = {
        "source": "clicks",
        "rows": [{"id": f"{n:050}", "thing": n, "at": "2024-05-01T11:00:00Z"} for n in range(500)],
    }

    async def ask() -> None:
        app = create_app(store, authentication=False)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=JSON) as client:

            async def took(path: str, body: Any) -> dict[str, set[str]]:
                for names in where.values():
                    names.clear()
                answer = await client.post(path, content=json.dumps(body))
                assert answer.status_code == 200, answer.text
                if path == LOOKUP:
                    assert len(answer.json()["rows"]) == len(body["rows"])
                return {name: {found.rpartition("_")[0] for found in names} for name, names in where.items()}

            lane = {"featurestore-lane"}
            one = {"service": "service", "rows": [{"thing": 1}]}
            assert (await took(LOOKUP, small))["looked up"] == lane, "nobody knows what its rows take"
            monkeypatch.setattr(hot_routes, "SMALL_SECONDS", 0.0)
            assert (await took(LOOKUP, one))["looked up"] == lane, "they take longer than is allowed"
            monkeypatch.setattr(hot_routes, "SMALL_SECONDS", 1e9)
            assert (await took(LOOKUP, one))["looked up"] == set()
            assert await took(LOOKUP, small) == {"read": {""}, "looked up": set(), "written": {""}, "pushed": set()}
            assert await took(LOOKUP, large) == {"read": lane, "looked up": lane, "written": lane, "pushed": set()}
            assert await took(PUSH, pushed) == {"read": lane, "looked up": set(), "written": set(), "pushed": lane}
            assert len(json.dumps(many)) < SMALL_BYTES
            assert (await took(LOOKUP, many))["looked up"] == set()
            monkeypatch.setattr(hot_routes, "SMALL_VALUES", len(many["rows"]) - 1)
            assert await took(LOOKUP, many) == {"read": {""}, "looked up": lane, "written": lane, "pushed": set()}

    asyncio.run(ask())
