"""Bodies are objects and never paths: whatever a request says, on whatever route, no file of the server is looked at."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore import Count, FeatureService, FeatureStore, FeatureView, PushSource
from featurestore.errors import ManifestError
from featurestore.server.bodies import may_have_long_texts
from featurestore.types import Int64, String, Timestamp
from tests.server.test_http import serving
from tests.small import NOON, THING, opened, raised, spine

CLICKS = PushSource("clicks", schema={"id": String, "thing": Int64, "at": Timestamp}, event_time="at", identity="id")
SERVICE = FeatureService(
    "service", features=[FeatureView("view", entity=THING, source=CLICKS, features={"n": Count(window="1h")})]
)


@pytest.fixture(scope="module")
def store() -> Iterator[FeatureStore]:
    with opened(SERVICE) as (store, _):
        store.materialize(progress=False)
        yield store


@pytest.fixture(scope="module")
def client(store: FeatureStore) -> Iterator[httpx.Client]:
    with serving(store) as client:
        yield client


def good_bodies(store: FeatureStore) -> dict[str, Any]:
    """A body for each route that takes one, which is answered with 200, or 202."""
    frame = store.get_historical_features(spine(NOON, thing=[1]), "service")
    return {
        "/v1/online-features": {"service": "service", "fingerprint": None, "rows": [{"thing": 1}]},
        "/v1/push": {"source": "clicks", "rows": [{"id": "a", "thing": 1, "at": "2024-05-01T12:00:00Z"}]},
        "/v1/manifests": json.loads(json.dumps(frame.manifest)),
        "/v1/materialize": {"views": ["view"], "full": False},
    }


def routes(client: httpx.Client) -> list[str]:
    """Every route that takes a body, as the API describes itself."""
    paths = client.get("/openapi.json").json()["paths"]
    found = [path for path, operations in paths.items() for method in operations if method in {"post", "put", "patch"}]
    assert all("requestBody" in paths[path][method] for path in found for method in paths[path] if method != "get")
    return found


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place within a body, itself included."""
    yield at
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*at, key))


def put(value: Any, at: tuple[Any, ...], what: Any) -> Any:
    if not at:
        return what
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[at[0]] = put(value[at[0]], at[1:], what)
    return copy


def test_a_body_that_is_no_object_is_refused(client: httpx.Client, store: FeatureStore, tmp_path: Path) -> None:
    """With 400 on every route, and without a word on whether there is a file of that name."""
    there = tmp_path / "there.json"
    there.write_text(json.dumps(good_bodies(store)["/v1/manifests"]))
    bodies = [
        str(there),
        str(tmp_path / "missing"),
        "",
        ".",
        "\0",
        "/etc/passwd",
        [],
        [str(there)],
        [{}],
        0,
        1.5,
        None,
        True,
    ]
    assert set(routes(client)) == set(good_bodies(store))
    for route in routes(client):
        answers = [client.post(route, content=json.dumps(body)) for body in bodies]
        assert {answer.status_code for answer in answers} == {400}, route
        texts = {answer.json()["detail"] for answer, body in zip(answers, bodies, strict=True) if isinstance(body, str)}
        assert len(texts) == 1
        assert client.post(route, content=b"no JSON").status_code == 400
        if route != "/v1/materialize":  # where no body says all that is due
            assert client.post(route, content=b"").status_code == 400


def test_nothing_within_a_body_is_a_path(client: httpx.Client, store: FeatureStore, tmp_path: Path) -> None:
    """A path put into every place of a body is answered alike whether its file exists, and whatever it holds."""
    files = {
        "frame.parquet": None,
        "made_one.json": good_bodies(store)["/v1/manifests"],
        "text_only.txt": "text",
    }  # as long, since what is long is not shown
    store.get_historical_features(spine(NOON, thing=[1]), "service").to_parquet(tmp_path / "frame.parquet")
    for name, content in files.items():
        if content is not None:
            (tmp_path / name).write_text(json.dumps(content))
    for route, body in good_bodies(store).items():
        assert client.post(route, json=body).status_code in {200, 202}, route
        for place in places(body):
            said = []
            for path in [*(str(tmp_path / name) for name in files), str(tmp_path / "missing.thing")]:
                answer = client.post(route, json=put(body, place, path))
                assert answer.status_code < 500, (route, place, answer.text)
                told = re.sub(r"[0-9a-f]{32}", "DIGEST", answer.text.replace(path, "PATH"))
                said.append((answer.status_code, told))
            assert len(set(said)) == 1, (route, place, said)


def test_a_path_without_a_name_is_no_manifest(store: FeatureStore) -> None:
    """In Python, where a manifest may be a file."""
    for path in ("", ".", "/"):
        assert "is no file" in raised(ManifestError, lambda path=path: store.load_manifest(path))


@pytest.mark.parametrize("features", [["view:nope"], ["view:n", "view:n"], ["view:n", "view"], "view:nope", ["nope"]])
def test_features_that_there_are_not_are_the_client_s_mistake(client: httpx.Client, features: Any) -> None:
    """And nothing is told of the server's files."""
    answer = client.post("/v1/online-features", json={"features": features, "rows": [{"id": 1}]})
    assert answer.status_code in {404, 422}
    assert ".py" not in answer.json()["detail"]


@given(st.text('ab"', max_size=60).map(str.encode), st.integers(1, 12))
def test_a_long_text_is_found_wherever_it_stands(body: bytes, most: int) -> None:
    """What is looked at in steps is what is looked at piece by piece."""
    assert may_have_long_texts(body, most) == (len(body) > most and max(map(len, body.split(b'"'))) > most)


def test_a_text_with_backslashes_may_be_long() -> None:
    """A quote after one does not end it."""
    assert may_have_long_texts(b'{"a":"%s"}' % (b'\\"' * 40), 20)
    assert not may_have_long_texts(b'{"a":"\\"b"}', 20)
