"""Who is let in, over HTTP: keys and tokens, scopes of routes, limits, and what a refusal says."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from featurestore import Entity, FeatureService, FeatureStore, FeatureView, PushSource
from featurestore.access.api_keys import create_key, revoke_key
from featurestore.access.principal import SCOPES
from featurestore.server import problems
from featurestore.server.routes import FOREIGN
from featurestore.types import Float64, String, Timestamp
from tests.access.issuer import AUDIENCE, ISSUER, KeySetServer, SigningKey
from tests.cli.test_commands import run
from tests.console_pages.test_unreadable import without_registry
from tests.server.test_http import serving

LOOKUP, PUSH = "/v1/online-features", "/v1/push"
ROW = {"thing": "a", "at": "2025-01-05T00:00:00Z", "x": 1.0}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FeatureStore]:
    (tmp_path / "featurestore.toml").write_text('project = "p"\n')
    source = PushSource(
        "s", schema={"thing": String, "at": Timestamp, "x": Float64}, event_time="at", lateness="36500d"
    )
    thing = Entity("thing", key={"thing": String})
    views = [
        FeatureView(name, entity=thing, source=source, refresh="continuous", features=["x"]) for name in ("v", "w")
    ]
    with FeatureStore(tmp_path) as store:
        store.apply([FeatureService("m", features=[views[0]]), FeatureService("n", features=[views[1]])])
        store.materialize(progress=False)
        yield store


@pytest.fixture
def client(store: FeatureStore) -> Iterator[httpx.Client]:
    with serving(store, authentication=True) as client:
        yield client


def key(store: FeatureStore, name: str, *scopes: str, **more: Any) -> dict[str, str]:
    return {"authorization": f"Bearer {create_key(store.registry, name, scopes, **more).secret}"}


def lookup(**words: Any) -> dict[str, Any]:
    return {"rows": [{"thing": "a"}], **({"service": "m"} if not words else words)}


ROUTES = [
    ("read", "POST", LOOKUP, lookup()),
    ("read", "POST", "/v1/manifests", {"service": "m", "fingerprint": "0" * 32}),
    ("read", "GET", "/v1/services", None),
    ("read", "GET", "/v1/services/m", None),
    ("read", "GET", "/v1/views", None),
    ("read", "GET", "/v1/views/v", None),
    ("read", "GET", "/v1/nothing", None),
    ("push", "POST", PUSH, {"source": "s", "rows": [ROW]}),
    ("read", "GET", "/v1/status", None),
    ("materialize", "POST", "/v1/materialize", {"views": ["nothing"]}),
    ("admin", "GET", "/v1/serving-log", None),
    ("metrics", "GET", "/metrics", None),
]


def test_every_route_takes_its_scope_and_no_other(store: FeatureStore, client: httpx.Client) -> None:
    """Every route of the description is in the table above, or open to all."""
    headers = {scope: key(store, scope, scope) for scope in SCOPES}
    for scope, method, path, body in ROUTES:
        missing = client.request(method, path, json=body)
        assert (missing.status_code, missing.headers["www-authenticate"]) == (401, 'Bearer realm="featurestore"'), path
        assert missing.json()["type"] == "urn:featurestore:Unauthenticated"
        for other, header in headers.items():
            answer = client.request(method, path, json=body, headers=header)
            if other == scope or (other, scope) == ("admin", "metrics"):
                assert answer.status_code in {200, 400, 404}, (path, answer.text)
            else:
                assert answer.status_code == 403, (path, answer.text)
                assert f"takes the scope '{scope}'; key:{other} has: {other}" in answer.json()["detail"]
                assert f'scope="{scope}"' in answer.headers["www-authenticate"]
    for path in ("/healthz", "/readyz", "/docs", "/openapi.json"):
        assert client.get(path).status_code == 200
    described = client.get("/openapi.json").json()["paths"]
    known = {path.replace("/m", "/{name}") if path == "/v1/services/m" else path for _, _, path, _ in ROUTES}
    known |= {"/v1/views/{name}", "/healthz", "/readyz"}
    assert set(described) <= known
    ways = client.get("/openapi.json").json()["components"]["securitySchemes"]
    assert {name: (way["type"], way.get("scheme"), way.get("name")) for name, way in ways.items()} == {
        "bearer": ("http", "bearer", None),
        "key": ("apiKey", None, "X-API-Key"),
    }
    asks = {path: operation["security"] for path, of in described.items() for operation in of.values()}
    for scope, _, path, _ in ROUTES:
        if path in described:
            assert asks[path] == [{"bearer": [scope]}, {"key": [scope]}], path
    assert (asks["/healthz"], asks["/readyz"][0]) == ([], {})
    assert {"401", str(FOREIGN[0])} <= set(described[LOOKUP]["post"]["responses"])


@pytest.mark.parametrize(
    "headers",
    [{"authorization": "Bearer fsk_000000000000_" + "A" * 43}, {"x-api-key": "x"}, {"authorization": "Basic a"}],
)
def test_a_wrong_key_is_refused_before_the_body_is_read(client: httpx.Client, headers: dict[str, str]) -> None:
    """Whatever the body is."""
    answer = client.post(LOOKUP, content=b"{", headers=headers)
    assert answer.status_code == 401
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_limited_key_sees_what_it_is_limited_to(store: FeatureStore, client: httpx.Client) -> None:
    """In lookups of every spelling and size, in lists, and one by one."""
    limited = key(store, "m", "read", only_on=["service:m", "view:v"])
    pusher = key(store, "other", "push", only_on=["source:other"])
    many = [{"thing": f"{number:01000d}"} for number in range(100)]
    for body, allowed in (
        (lookup(), True),
        (lookup(features="m"), True),
        (lookup(features="v"), True),
        (lookup(features=["v:x"]), True),
        (lookup(service="m") | {"rows": many}, True),
        (lookup(service="n"), False),
        (lookup(service="v"), False),
        (lookup(features="n"), False),
        (lookup(features=["v:x", "w:x"]), False),
        (lookup(features=["w"]), False),
        (lookup(service="n") | {"rows": many}, False),
        (lookup(features=["w:x"]) | {"rows": many}, False),
    ):
        answer = client.post(LOOKUP, json=body, headers=limited)
        assert answer.status_code == (200 if allowed else 403), (body, answer.text)
    for kind, seen, unseen in (("services", "m", "n"), ("views", "v", "w")):
        listed = client.get(f"/v1/{kind}", headers=limited).json()[kind]
        assert [one["name"] for one in listed] == [seen]
        assert client.get(f"/v1/{kind}/{seen}", headers=limited).status_code == 200
        assert client.get(f"/v1/{kind}/{unseen}", headers=limited).status_code == 403
    for rows in ([ROW], [ROW] * 1000):
        answer = client.post(PUSH, json={"source": "s", "rows": rows}, headers=pusher)
        assert (answer.status_code, "for source 's'" in answer.json()["detail"]) == (403, True)
    assert store.activity(what="push") == []


def test_who_pushed_is_in_the_trail(store: FeatureStore, client: httpx.Client) -> None:
    """With the id of the request; of small and of large bodies."""
    pusher = key(store, "collector", "push")
    for number, count in enumerate((1, 1000)):
        rows = [{**ROW, "at": f"2025-01-0{number + 1}T00:00:00Z", "x": float(one)} for one in range(count)]
        sent = client.post(PUSH, json={"source": "s", "rows": rows}, headers={**pusher, "X-Request-ID": f"r{number}"})
        assert sent.status_code == 200, sent.text
    deadline = time.monotonic() + 600
    found: list[Any] = []
    while sum(one.detail["requests"] for one in found) < 2:  # the large one is told beside its answer
        assert time.monotonic() < deadline
        found = store.activity(what="push")
    assert {(one.who, one.subject) for one in found} == {("key:collector", "s")}
    assert [request for one in reversed(found) for request in one.detail["request_ids"]] == ["r0", "r1"]
    assert sum(one.detail["accepted"] for one in found) == 1001


def test_a_running_server_refuses_a_key_soon_after_it_was_revoked(store: FeatureStore, client: httpx.Client) -> None:
    reader = key(store, "web", "read")
    assert client.post(LOOKUP, json=lookup(), headers=reader).status_code == 200
    revoke_key(store.registry, "web")
    revoked = time.monotonic()
    while client.post(LOOKUP, json=lookup(), headers=reader).status_code == 200:
        assert time.monotonic() - revoked < 60
    answer = client.post(LOOKUP, json=lookup(), headers=reader)
    assert answer.status_code == 401
    assert "is revoked" in answer.json()["detail"]


def test_a_token_is_let_in(tmp_path: Path, store: FeatureStore) -> None:
    signing = SigningKey("k")
    with KeySetServer(signing) as issuer:
        (tmp_path / "featurestore.toml").write_text(
            f'project = "p"\njwt = {{jwks = "{issuer.url}", issuer = "{ISSUER}", audience = "{AUDIENCE}"}}\n'
        )
        with FeatureStore(tmp_path) as configured, serving(configured, authentication=True) as client:
            cases: list[tuple[dict[str, Any], int]] = [({}, 200), ({"scope": "push"}, 403), ({"aud": "x"}, 401)]
            for claims, status in cases:
                header = {"authorization": f"Bearer {signing.token(**claims)}"}
                assert client.post(LOOKUP, json=lookup(), headers=header).status_code == status
            issuer.status = 500


def test_authentication_is_on_unless_it_is_said(store: FeatureStore) -> None:
    """By the setting, or by whoever makes the application."""
    with serving(store, authentication=None) as client:
        assert client.post(LOOKUP, json=lookup()).status_code == 401
    with serving(store, authentication=False) as client:
        assert client.post(LOOKUP, json=lookup()).status_code == 200
        assert client.get("/v1/serving-log").status_code == 200


@pytest.mark.parametrize("how", ["option", "setting"])
def test_a_server_without_authentication_listens_on_this_machine_alone(
    tmp_path: Path, store: FeatureStore, how: str
) -> None:
    if how == "setting":
        (tmp_path / "featurestore.toml").write_text('project = "p"\nserver.authentication = "off"\n')
    words = ["--no-authentication"] if how == "option" else []
    done = run(tmp_path, "serve", "--host", "0.0.0.0", "--port", "0", *words, code=1)
    assert (
        "ConfigError: Authentication is off, and every client that reaches 0.0.0.0 could read and push" in done.stderr
    )


def test_whoever_is_not_let_in_is_told_nothing_of_what_is_away(
    store: FeatureStore, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where keys cannot be looked up: the kind and the request's id, on every route; the server's log has the rest."""
    monkeypatch.setattr(problems, "_access_log", problems.UntoldLog("Who asks cannot be looked up"))
    headers = key(store, "reader", "read")
    with without_registry(store, "text"), serving(store, authentication=True, console=True) as client:
        with caplog.at_level(logging.ERROR, "featurestore.server"):
            answers = [
                client.post(LOOKUP, json=lookup(), headers=headers),
                client.get("/v1/views", headers=headers),
                client.get("/ui/catalog", params={"format": "json"}, headers=headers),
                client.get("/metrics", headers=headers),
            ]
    for answer in answers:
        told = answer.json()
        assert (answer.status_code, told["type"]) == (503, "urn:featurestore:AccessUnavailable")
        assert told["request_id"] == answer.headers["x-request-id"]
        assert str(tmp_path) not in answer.text
    (line,) = [record for record in caplog.records if record.name == "featurestore.server"]
    assert str(tmp_path) in line.getMessage()
    assert vars(line)["request_id"] == answers[0].headers["x-request-id"]
