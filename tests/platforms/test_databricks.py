"""Databricks' SDK and MLflow's deployments client ask our server for features."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from featurestore import FeatureStore
from featurestore.access.api_keys import create_key
from featurestore.types import from_json
from tests.platforms.conftest import Told
from tests.platforms.shop import KEYS, PAIRS, TYPES, bits, opened, run_page, serving

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import databricks.sdk.errors as refusals
    import mlflow.deployments
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.core import Config


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeatureStore]:
    with opened(tmp_path_factory.mktemp("repo")) as store:
        yield store


@pytest.fixture(scope="module")
def url(store: FeatureStore) -> Iterator[str]:
    with serving(store, "databricks") as url:
        yield url


@pytest.fixture(scope="module")
def client(url: str) -> WorkspaceClient:
    return WorkspaceClient(config=Config(host=url, token="unused", retry_timeout_seconds=2))


def compared(store: FeatureStore, name: str, outputs: list[dict[str, Any]], rows: list[dict[str, Any]]) -> int:
    """How many values were compared, all of which are those of `get_online_features`."""
    expected = store.get_online_features(rows, name)
    types = {column.name.removeprefix(f"{name}__"): column.type for column in expected.service.columns}
    count = 0
    for place, (output, row) in enumerate(zip(outputs, rows, strict=True)):
        given = {key: row[key] for key in expected.inputs}
        assert {key: output[key] for key in given} == given
        assert list(output) == [*expected.inputs, *types]
        for (column, values), (shown, of) in zip(expected.columns.items(), types.items(), strict=True):
            assert bits(from_json(of, output[shown])) == bits(values[place]), (row, column)
            count += 1
    return count


def test_every_type_by_random_keys(store: FeatureStore, client: WorkspaceClient, tell: Told) -> None:
    """A view of one key column, one of two, and a service with request values, through the SDK."""
    draw, count = random.Random(7), 0
    users = [{"user_id": draw.choice([*KEYS, "nobody"])} for _ in range(60)]
    count += compared(store, "users", client.serving_endpoints.query("users", dataframe_records=users).outputs, users)
    pairs = [dict(zip(("carrier", "flight"), draw.choice([*PAIRS, ("ZZ", 1)]), strict=True)) for _ in range(40)]
    count += compared(store, "pairs", client.serving_endpoints.query("pairs", dataframe_records=pairs).outputs, pairs)
    asked = [{**user, "add": draw.randrange(9)} for user in users]
    count += compared(store, "model", client.serving_endpoints.query("model", dataframe_records=asked).outputs, asked)
    assert len(TYPES) * 100 < count
    tell("databricks", version=f"databricks-sdk {version('databricks-sdk')}", ran=RAN, compared=count)


RAN = "its own client ran, the service is emulated"


def test_split_frames_and_columns(store: FeatureStore, client: WorkspaceClient) -> None:
    """The other ways in which a body says its rows."""
    from databricks.sdk.service.serving import DataframeSplitInput

    rows = [{"carrier": carrier, "flight": flight} for carrier, flight in PAIRS]
    split = DataframeSplitInput(columns=["carrier", "flight"], data=[list(pair) for pair in PAIRS])
    assert compared(store, "pairs", client.serving_endpoints.query("pairs", dataframe_split=split).outputs, rows)
    columns = {"carrier": [carrier for carrier, _ in PAIRS], "flight": [flight for _, flight in PAIRS]}
    assert compared(store, "pairs", client.serving_endpoints.query("pairs", inputs=columns).outputs, rows)
    assert compared(store, "pairs", client.serving_endpoints.query("pairs", inputs=rows).outputs, rows)


def test_mlflow_deployments(store: FeatureStore, url: str, monkeypatch: pytest.MonkeyPatch, tell: Told) -> None:
    """MLflow's client of Databricks' endpoints."""
    monkeypatch.setenv("DATABRICKS_HOST", url)
    monkeypatch.setenv("DATABRICKS_TOKEN", "unused")
    rows = [{"user_id": key} for key in KEYS]
    client = mlflow.deployments.get_deploy_client("databricks")
    answer = client.predict(endpoint="users", inputs={"dataframe_records": rows})
    count = compared(store, "users", answer["outputs"], rows)
    tell("databricks", version=f"mlflow-skinny {version('mlflow-skinny')}", ran=RAN, compared=count)


@pytest.mark.parametrize(
    ("endpoint", "words", "error", "says"),
    [
        ("user", {"dataframe_records": [{"user_id": "a"}]}, refusals.ResourceDoesNotExist, "Did you mean 'users'?"),
        ("users", {"dataframe_records": [{"user": "a"}]}, refusals.InvalidParameterValue, "has no 'user_id'"),
        ("users", {"dataframe_records": [{"user_id": 3}]}, refusals.InvalidParameterValue, "must be String"),
        ("users", {"inputs": [["a"]]}, refusals.InvalidParameterValue, "a list of objects"),
        ("users", {"inputs": []}, refusals.InvalidParameterValue, "one row at least"),
        ("users", {"inputs": {"user_id": ["a"], "x": [1, 2]}}, refusals.InvalidParameterValue, "1 and 2 values"),
        ("users", {"dataframe_records": [{"user_id": "a"}], "inputs": [{}]}, refusals.InvalidParameterValue, "one of dataframe_records"),
        ("users", {"dataframe_records": [{"user_id": "a"}], "stream": True}, refusals.InvalidParameterValue, "'stream'"),
        ("users", {"dataframe_records": [{"user_id": "a"}] * 10_001}, refusals.InvalidParameterValue, "more than 10000 rows"),
        ("users:wide", {"dataframe_records": [{"user_id": "u1"}]}, refusals.ResourceDoesNotExist, "No feature view or service 'users:wide'"),
        ("added", {"dataframe_records": [{"user_id": "u1", "add": 1}]}, refusals.ResourceDoesNotExist, "No feature view or service 'added'"),
    ],
)  # fmt: skip
def test_mistakes_are_the_platforms_errors(
    client: WorkspaceClient, endpoint: str, words: Any, error: type[Exception], says: str
) -> None:
    """Its client raises its own classes, with our words."""
    with pytest.raises(error, match=says):
        client.serving_endpoints.query(endpoint, **words)


def test_keys_and_scopes_hold(store: FeatureStore) -> None:
    """A token is a key of ours; without one, or without the scope, the client raises what it raises there."""
    secrets = {scope: create_key(store.registry, scope, [scope]).secret for scope in ("read", "push")}
    only = create_key(store.registry, "only", ["read"], only_on=["view:pairs"]).secret
    cases = [
        (secrets["read"], None),
        ("none", refusals.Unauthenticated),
        (secrets["push"], refusals.PermissionDenied),
        (only, refusals.PermissionDenied),
    ]
    with serving(store, "databricks", authentication=True) as url:
        for token, error in cases:
            client = WorkspaceClient(config=Config(host=url, token=token, retry_timeout_seconds=2))
            with pytest.raises(error) if error is not None else nullcontext():
                client.serving_endpoints.query("users", dataframe_records=[{"user_id": "u1"}])


def test_what_the_page_shows(tmp_path: Path) -> None:
    """docs/platforms/databricks.md, with its client."""
    assert "answer" in run_page("databricks", tmp_path)
