"""The paths of other platforms beside our own: there where they are chosen, and counted and refused as all routes are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from featurestore import FeatureStore
from featurestore.errors import ConfigError
from featurestore.server import create_app
from featurestore.server.compatible.chosen import ROUTES
from featurestore.settings import Platform
from tests.cli.test_commands import run
from tests.platforms.shop import opened
from tests.server.test_http import serving

INVOCATIONS = "/serving-endpoints/users/invocations"
ASKED = {"dataframe_records": [{"user_id": "u1"}]}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeatureStore]:
    with opened(tmp_path_factory.mktemp("repo")) as store:
        yield store


def test_every_platform_of_the_settings_has_routes() -> None:
    assert set(ROUTES) == set(get_args(Platform))


def test_it_is_off_unless_it_is_chosen(store: FeatureStore) -> None:
    """The same path is nowhere, and says so as our own paths do."""
    with serving(store) as client:
        assert client.post(INVOCATIONS, json=ASKED).json()["type"] == "urn:featurestore:not-found"


def test_metrics_and_limits_are_those_of_the_server(store: FeatureStore) -> None:
    """The route is the path with its names in braces; what is refused is counted under its setting, in the platform's form."""
    with serving(store, compatible=["databricks"]) as client:
        assert client.post(INVOCATIONS, json=ASKED).status_code == 200
        many = client.post(INVOCATIONS, json={"dataframe_records": ASKED["dataframe_records"] * 10_001})
        assert (many.status_code, many.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
        assert many.headers["x-request-id"]
        assert many.headers["cache-control"] == "no-store"
        told = client.get("/metrics").text
        assert (
            'featurestore_request_seconds_count{route="/serving-endpoints/{name}/invocations",status="2xx"} 1.0' in told
        )
        assert 'featurestore_refusals_total{reason="lookup_rows"} 1.0' in told
        assert client.post("/serving-endpoints/users", json=ASKED).json()["type"] == "urn:featurestore:not-found"
        assert client.get(INVOCATIONS).status_code == 404


def test_a_web_page_may_not_ask_there_either(store: FeatureStore) -> None:
    with serving(store, compatible=["databricks"]) as client:
        plain = client.post(INVOCATIONS, content=b"{}", headers={"content-type": "text/plain"})
        assert (plain.status_code, plain.json()["error_code"]) == (415, "INVALID_PARAMETER_VALUE")
        foreign = client.post(INVOCATIONS, json=ASKED, headers={"origin": "https://example.com"})
        assert (foreign.status_code, foreign.json()["error_code"]) == (403, "PERMISSION_DENIED")


def test_a_large_body_is_answered_in_a_lane(store: FeatureStore) -> None:
    """More bytes than are read on the event loop: the same values."""
    rows = [{"user_id": f"u{number}"} for number in range(3_000)]
    with serving(store, compatible=["databricks"]) as client:
        found = client.post("/serving-endpoints/plain/invocations", json={"dataframe_records": rows}).json()["outputs"]
        assert len(found) == 3_000
        assert (
            found[1]
            == client.post("/serving-endpoints/plain/invocations", json={"inputs": [rows[1]]}).json()["outputs"][0]
        )


def test_the_file_and_the_command_line_choose(tmp_path: Path, store: FeatureStore) -> None:
    """A name that is no platform's is refused before anything is served."""
    with pytest.raises(ConfigError, match="Did you mean 'databricks'"):
        create_app(store, compatible=["databrick"])
    (tmp_path / "featurestore.toml").write_text(
        'project = "p"\ndefinitions = []\n[server]\ncompatible = ["databricks"]\n'
    )
    with FeatureStore(tmp_path) as own, serving(own) as client:
        assert client.post(INVOCATIONS, json=ASKED).json()["error_code"] == "RESOURCE_DOES_NOT_EXIST"
    assert "Did you mean 'databricks'" in run(tmp_path, "serve", "--compatible", "databrick", code=1).output
