"""A server that is given manifests serves exactly these versions, or does not start."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import Entity, FeatureService, FeatureStore, FeatureView, Latest, ManualClock, ParquetSource
from featurestore.errors import FingerprintError, ManifestError
from featurestore.server import create_app
from featurestore.training.manifest import Manifest
from featurestore.types import String
from tests.server.test_http import serving

NOON = datetime(2013, 1, 1, 12, tzinfo=UTC)


def model(default: int | None, name: str = "model") -> FeatureService:
    view = FeatureView(
        "facts", entity=Entity("thing", key={"id": String}), source=ParquetSource("rows", "rows.parquet", event_time="at"),
        features={"x": Latest("x", default=default)}, refresh="1h",
    )  # fmt: skip
    return FeatureService(name, features=[view])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FeatureStore]:
    times = pa.array([NOON - timedelta(hours=2)], pa.timestamp("us", "UTC"))
    pq.write_table(pa.table({"id": ["a"], "at": times, "x": [1]}), tmp_path / "rows.parquet")
    (tmp_path / "featurestore.toml").write_text('project = "manifests"\ndefinitions = []\n')
    with FeatureStore(tmp_path, clock=ManualClock(NOON)) as store:
        yield store


def manifest(store: FeatureStore, service: FeatureService) -> Manifest:
    return store.load_manifest(store.snapshot(service, at=NOON))


def test_who_names_no_version_is_served_that_of_the_manifest(store: FeatureStore) -> None:
    """Whoever names another is served that; readiness and the list of services say which is which, and follow it."""
    store.apply([model(None), model(None, "second")])
    old = manifest(store, model(None))
    body = {"service": "model", "rows": [{"id": "z"}]}
    with serving(store, manifests=[old]) as client:
        assert "have no values online: facts" in client.get("/readyz").json()["detail"]
        store.materialize(progress=False)
        assert client.get("/readyz").json() == {"status": "ready", "manifests": {"model": old.fingerprint}}
        store.apply([model(-1), model(-1, "second")], keep=True)
        new = manifest(store, model(-1))
        assert client.get("/readyz").status_code == 200  # what is not filled yet is not what it serves
        store.materialize(progress=False)
        asked = client.post("/v1/online-features", json=body).json()
        assert (asked["fingerprint"], asked["rows"]) == (old.fingerprint, [[None]])
        asked = client.post("/v1/online-features", json={**body, "fingerprint": new.fingerprint}).json()
        assert (asked["fingerprint"], asked["rows"]) == (new.fingerprint, [[-1]])
        asked = client.post("/v1/online-features", json={**body, "service": "second"}).json()
        assert asked["rows"] == [[-1]]
        first, second = client.get("/v1/services").json()["services"]
        assert first == {
            "name": "model", "fingerprint": new.fingerprint, "kept": [old.fingerprint], "manifest": old.fingerprint,
        }  # fmt: skip
        assert second["manifest"] is None
        store.apply(retire="all")
        refused = client.post("/v1/online-features", json=body)
        assert (refused.status_code, len(refused.json()["changes"])) == (409, 1)
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["type"]) == (503, "urn:featurestore:NotServed")
        assert "default: none → -1" in ready.json()["detail"]


def test_a_client_that_presents_its_manifest_is_told_what_differs(store: FeatureStore) -> None:
    """Also of definitions that were never applied; from then on the refusal of the bare fingerprint says so, too."""
    store.apply([model(None)])
    store.materialize(progress=False)
    other = manifest(store, model(7))
    body = {"service": "model", "fingerprint": other.fingerprint, "rows": [{"id": "z"}]}
    field = "parts.facts.view.features.x.default"
    with serving(store) as client:
        refused = client.post("/v1/online-features", json=body).json()
        assert (refused["status"], refused["changes"]) == (409, [])
        assert "Present the manifest itself" in refused["detail"]
        check = client.post("/v1/manifests", json=other.raw).json()
        assert (check["state"], check["served"]) == ("never applied", False)
        assert check["applied"] == [{"field": field, "before": "7", "after": "none"}]
        refused = client.post("/v1/online-features", json=body).json()
        assert refused["changes"] == check["applied"]
        assert f"~ {field}: 7 → none" in refused["detail"]
        same = client.post("/v1/manifests", json=manifest(store, model(None)).raw).json()
        assert (same["state"], same["served"], same["applied"]) == ("applied", True, [])
        described = client.get("/openapi.json").json()["paths"]["/v1/manifests"]["post"]["responses"]["200"]
        assert set(described["content"]["application/json"]["example"]) == set(check)
        for wrong, says in (
            (b"{", "no manifest"),
            (b'{"service": "model"}', "fingerprint: must be given"),
            (b"[]", "list is no manifest"),
        ):
            answer = client.post("/v1/manifests", content=wrong)
            assert answer.status_code == 400
            assert says in answer.json()["detail"]


def test_a_server_does_not_start_with_what_it_cannot_serve(store: FeatureStore) -> None:
    """What was never applied, with the difference, and two versions of one service."""
    store.apply([model(None)])
    old, other = manifest(store, model(None)), manifest(store, model(7))
    with pytest.raises(FingerprintError, match="default: 7 → none"):
        create_app(store, authentication=False, manifests=[other])
    with pytest.raises(ManifestError, match="two versions of service 'model'"):
        create_app(store, authentication=False, manifests=[old, other])
    create_app(store, authentication=False, manifests=[old, old.raw])


def test_the_program_ends_with_the_difference(store: FeatureStore, tmp_path: Path) -> None:
    """Exit code 1 and the diff on stderr, before anything is listened to."""
    store.apply([model(None)])
    path = store.snapshot(model(7), at=NOON).to_parquet(tmp_path / "other.parquet")
    store.close()
    done = subprocess.run(
        [sys.executable, "-m", "featurestore", "serve", "--no-authentication", "--port", "0", "--manifest", str(path)], cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}, capture_output=True, text=True, check=False,
        timeout=600,
    )  # fmt: skip
    assert done.returncode == 1
    assert "FingerprintError: Service 'model' was never applied" in done.stderr
    assert "~ parts.facts.view.features.x.default: 7 → none" in done.stderr
    assert "Traceback" not in done.stderr
