"""How changed code reaches a running server: it serves what it has the code of, says so, and takes the new one when restarted."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from featurestore import FeatureStore
from featurestore.serving.served_versions import RELOAD_SECONDS
from tests.console import featurestore
from tests.servers import FeatureServer

ROOT = Path(__file__).parents[2]
ROW = {"customer": "ann", "amount": 1e9}
CHANGED = "return last is not None and amount is not None and amount > 2 * last"
APPLIED = "return last is not None and amount is not None and amount > last"


def run(shop: Path, *command: str) -> str:
    return featurestore("--repo", str(shop), *command)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The repository that `init` writes, applied and materialized."""
    featurestore("init", str(tmp_path / "shop"))
    run(tmp_path / "shop", "apply")
    run(tmp_path / "shop", "materialize")
    return tmp_path / "shop"


def edit(shop: Path, text: str = CHANGED) -> None:
    file = shop / "definitions.py"
    file.write_text(file.read_text().replace(APPLIED, text))


@contextmanager
def serving(shop: Path) -> Iterator[httpx.Client]:
    """A real server over the repository, that answers."""
    running = FeatureServer(shop, "--no-authentication", answers="/healthz", stderr=subprocess.DEVNULL)
    with running, running.client(timeout=600) as client:
        yield client


def asked(client: httpx.Client, **more: Any) -> httpx.Response:
    return client.post("/v1/online-features", json={"service": "order_model", "rows": [ROW], **more})


def fingerprint(shop: Path) -> str:
    with FeatureStore(shop) as store:
        return str(store.registry.current().document["services"]["order_model"]["fingerprint"])


def test_a_running_server_goes_on_with_the_code_that_it_has(shop: Path) -> None:
    """An applied change of a function takes nobody down: not before it notices, not after, and not until it restarts."""
    old = fingerprint(shop)
    with serving(shop) as client:
        assert asked(client).json()["fingerprint"] == old
        assert client.get("/readyz").json() == {"status": "ready"}
        edit(shop)
        run(shop, "apply")
        new = fingerprint(shop)
        assert new != old
        deadline = time.monotonic() + 600
        while "behind" not in client.get("/readyz").json():  # it looks at the registry anew
            assert time.monotonic() < deadline
        (behind,) = client.get("/readyz").json()["behind"]
        assert (behind["service"], behind["applied"], behind["served"]) == ("order_model", new, old)
        assert "Deploy the code that was applied and restart" in behind["why"]
        until = time.monotonic() + 1.5 * RELOAD_SECONDS
        while time.monotonic() < until:  # longer than a loaded version is trusted: in between it is loaded anew
            answer = asked(client)
            assert (answer.status_code, answer.json()["fingerprint"]) == (200, old)
        assert asked(client, fingerprint=old).status_code == 200
        refused = asked(client, fingerprint=new)
        assert refused.status_code == 409
        assert "materialize" not in refused.json()["detail"]
        (change,) = refused.json()["changes"]
        assert change["field"] == "on_demand.larger_than_last.code"
        assert ("2 * last" in change["before"], "2 * last" in change["after"]) == (True, False)
    with serving(shop) as client:
        assert asked(client).json()["fingerprint"] == new
        assert client.get("/readyz").json() == {"status": "ready"}


def test_a_server_with_code_that_was_never_applied_is_not_ready(shop: Path) -> None:
    """It has the code of no version; the message names both ways out, and one of them helps at once."""
    edit(shop)
    with serving(shop) as client:
        ready, answer = client.get("/readyz"), asked(client)
        assert (ready.status_code, answer.status_code) == (503, 409)
        for told in (ready.json()["detail"], answer.json()["detail"]):
            assert "Deploy the code that was applied and restart" in told
            assert "or apply the code that is here" in told
        assert answer.json()["changes"]
        assert client.post(
            "/v1/online-features", json={"service": "cart_model", "rows": [{"customer": "ann"}]}
        ).status_code in {200, 503}  # other services are not touched
        assert "order_model: applied as" in run(shop, "status")
        run(shop, "apply")
        deadline = time.monotonic() + 600
        while (answer := asked(client)).status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert answer.json()["fingerprint"] == fingerprint(shop)
        assert client.get("/readyz").status_code == 200
        assert json.loads(run(shop, "status", "--json"))["behind"] == []
