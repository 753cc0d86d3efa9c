"""google-cloud-aiplatform, over REST, fetches values of our views as those of Vertex AI's feature views."""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Iterator
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import pytest

from featurestore import FeatureStore
from featurestore.access.api_keys import create_key
from featurestore.types import FeatureType, from_json, to_json
from tests.platforms.conftest import Told
from tests.platforms.shop import KEYS, NOON, PAIRS, TYPES, bits, opened, run_page, serving
from tests.servers import PATIENCE_SECONDS

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from google.api_core import exceptions
    from google.auth import exceptions as auth_exceptions
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import aiplatform, aiplatform_v1
    from google.oauth2.credentials import Credentials
    from vertexai.resources.preview.feature_store import FeatureView

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
RAN = "its own client ran over REST, the service is emulated"
STORE = "projects/123456/locations/us-central1/featureOnlineStores/any"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeatureStore]:
    with opened(tmp_path_factory.mktemp("repo")) as store:
        yield store


@pytest.fixture(scope="module")
def url(store: FeatureStore) -> Iterator[str]:
    with serving(store, "vertex") as url:
        yield url


def client_of(url: str, credentials: Any = None) -> aiplatform_v1.FeatureOnlineStoreServiceClient:
    return aiplatform_v1.FeatureOnlineStoreServiceClient(
        credentials=credentials or AnonymousCredentials(), transport="rest", client_options={"api_endpoint": url}
    )


@pytest.fixture(scope="module")
def client(url: str) -> aiplatform_v1.FeatureOnlineStoreServiceClient:
    return client_of(url)


def fetch(client: Any, view: str, *parts: str, **words: Any) -> Any:
    key = {"key": parts[0]} if len(parts) == 1 else {"composite_key": {"parts": list(parts)}}
    return client.fetch_feature_values(
        request={"feature_view": f"{STORE}/featureViews/{view}", "data_key": key, **words}, retry=None
    )


FIELDS = {
    "Bool": "bool_value",
    "Int32": "int64_value",
    "Int64": "int64_value",
    "Float32": "double_value",
    "Float64": "double_value",
    "Bytes": "bytes_value",
}


def same(of: FeatureType, given: Any, feature: Any) -> bool:
    """Whether the client has a value, under the type that the platform has for it."""
    message = feature._pb if hasattr(feature, "_pb") else feature
    kind = message.value.WhichOneof("value")
    if given is None:
        return kind is None
    if of.element is not None and None in given:
        return kind == "string_value" and bits(from_json(of, json.loads(message.value.string_value))) == bits(given)
    if of.element is not None:
        expected = FIELDS.get(of.element.kind, "string_value").replace("_value", "_array_value")
        return kind == expected and bits(list(getattr(message.value, kind).values)) == bits(given)
    found = getattr(message.value, kind)
    plain = given if FIELDS.get(of.kind) else to_json(of, given)
    return kind == FIELDS.get(of.kind, "string_value") and bits(found) == bits(plain)


def compared(store: FeatureStore, client: Any, view: str, row: dict[str, Any], parts: list[str]) -> int:
    """How many values were compared, all of which are those of `get_online_features`; none of a key without values."""
    expected = store.get_online_features([row], view)
    if {status for statuses in expected.statuses.values() for status in statuses} == {"MISSING"}:
        with pytest.raises(exceptions.NotFound):
            fetch(client, view, *parts)
        return 0
    features = fetch(client, view, *parts).key_values.features
    for feature, (column, values), of in zip(features, expected.columns.items(), expected.service.columns, strict=True):
        assert feature.name in {column, column.removeprefix(f"{view}__")}
        assert same(of.type, values[0], feature), (row, column, values[0], feature)
    return len(features)


def test_every_type_by_random_keys(store: FeatureStore, client: Any, tell: Told) -> None:
    """Simple and composite keys, a service with a request value, and keys that are not there."""
    draw, count = random.Random(13), 0
    for _ in range(40):
        user = draw.choice([*KEYS, "nobody"])
        count += compared(store, client, "users", {"user_id": user}, [user])
        count += compared(store, client, "cards", {"user_id": user}, [user])
        count += compared(store, client, "model", {"user_id": "u1", "add": 3}, ["u1", "3"])
        carrier, flight = draw.choice([*PAIRS, ("ZZ", 1)])
        count += compared(store, client, "pairs", {"carrier": carrier, "flight": flight}, [carrier, str(flight)])
    tell("vertex", version=f"google-cloud-aiplatform {version('google-cloud-aiplatform')}", ran=RAN, compared=count)


def test_plain_values(store: FeatureStore, client: Any) -> None:
    """The other format: all numbers are doubles there."""
    plain = aiplatform_v1.FeatureViewDataFormat.PROTO_STRUCT
    for key in KEYS[:10]:
        expected = store.get_online_features([{"user_id": key}], "users").to_dict()
        found = dict(fetch(client, "users", key, data_format=plain).proto_struct)
        assert set(found) == set(TYPES)
        assert (found["small"], found["text"], found["flag"]) == tuple(
            expected[f"users__{name}"][0] for name in ("small", "text", "flag")
        )


def test_the_higher_client_reads(store: FeatureStore, url: str, tell: Told) -> None:
    """`FeatureView.read`, which asks for the view and its store first."""
    aiplatform.init(
        project="123456",
        location="us-central1",
        api_endpoint=url,
        api_transport="rest",
        credentials=AnonymousCredentials(),
    )
    view = FeatureView(
        "users",
        feature_online_store_id="any",
        project="123456",
        location="us-central1",
        credentials=AnonymousCredentials(),
    )
    expected = store.get_online_features([{"user_id": "u1"}], "users").to_dict()
    found = {each["name"]: each.get("value", {}) for each in view.read(key=["u1"]).to_dict()["features"]}
    assert set(found) == set(TYPES)
    assert found["text"].get("string_value") == expected["users__text"][0]
    tell(
        "vertex", version=f"google-cloud-aiplatform {version('google-cloud-aiplatform')}", ran=RAN, compared=len(found)
    )


@pytest.mark.parametrize(
    ("view", "parts", "error", "says"),
    [
        ("user", ["a"], exceptions.NotFound, "Did you mean 'users'"),
        ("users:wide", ["u1"], exceptions.NotFound, "No feature view or service 'users:wide'"),
        ("users", ["nobody"], exceptions.NotFound, "no values for this key"),
        ("pairs", ["UA"], exceptions.BadRequest, "carrier, flight"),
        ("pairs", ["UA", "x"], exceptions.BadRequest, "'flight' must be Int64"),
        ("users", ["a" * 1025], exceptions.BadRequest, "1024 bytes"),
    ],
)
def test_mistakes_are_the_platforms_errors(
    client: Any, view: str, parts: list[str], error: type[Exception], says: str
) -> None:
    """Its client raises its own classes, with our words."""
    with pytest.raises(error, match=says):
        fetch(client, view, *parts)


def test_a_token_is_a_key(store: FeatureStore) -> None:
    secrets = {scope: create_key(store.registry, f"vertex-{scope}", [scope]).secret for scope in ("read", "push")}
    with serving(store, "vertex", authentication=True) as url:
        assert fetch(client_of(url, Credentials(secrets["read"])), "users", "u1").key_values.features
        with pytest.raises(exceptions.Forbidden):
            fetch(client_of(url, Credentials(secrets["push"])), "users", "u1")
        with pytest.raises(auth_exceptions.GoogleAuthError):  # it wants another token, and has none
            fetch(client_of(url), "users", "u1")


def test_a_direct_write_is_a_push(store: FeatureStore, url: str) -> None:
    """The client has it over gRPC alone, so the message goes by hand, in the JSON form of its own class."""
    values = {"at": {"string_value": (NOON - timedelta(hours=1)).isoformat()}, "big": {"int64_value": 2**53 + 1}, "wide": {"double_value": 0.1},
              "raw": {"bytes_value": b"\x00\xff"}, "embedding": {"double_array_value": {"values": [0.5, 1.0, -2.0]}}, "flag": {"bool_value": False}}  # fmt: skip
    view = f"{STORE}/featureViews/cards"
    entry = {
        "data_key": {"key": "written"},
        "features": [{"name": name, "value": each} for name, each in values.items()],
    }
    message = aiplatform_v1.FeatureViewDirectWriteRequest(
        {"feature_view": view, "data_key_and_feature_values": [entry]}
    )
    body = aiplatform_v1.FeatureViewDirectWriteRequest.to_json(message)
    answer = httpx.post(
        f"{url}/v1/{view}:directWrite",
        content=body,
        headers={"content-type": "application/json"},
        timeout=PATIENCE_SECONDS,
    )
    assert answer.status_code == 200, answer.text
    assert (
        aiplatform_v1.FeatureViewDirectWriteResponse.from_json(answer.text).write_responses[0].data_key.key == "written"
    )
    found = store.get_online_features([{"user_id": "written"}], "cards").to_dict()
    assert (found["cards__big"], found["cards__wide"], found["cards__raw"]) == ([2**53 + 1], [0.1], [b"\x00\xff"])
    assert (found["cards__embedding"], found["cards__flag"]) == ([[0.5, 1.0, -2.0]], [False])
    refused = httpx.post(
        f"{url}/v1/{STORE}/featureViews/users:directWrite",
        content=body,
        headers={"content-type": "application/json"},
        timeout=PATIENCE_SECONDS,
    )
    assert (refused.status_code, refused.json()["error"]["status"]) == (400, "INVALID_ARGUMENT")


def test_what_the_page_shows(tmp_path: Path) -> None:
    """docs/platforms/vertex.md, with its client."""
    assert "client" in run_page("vertex", tmp_path)
