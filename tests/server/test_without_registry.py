"""What is served while the registry is away: what was loaded, for as long as it takes, and the server says that it is ready."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from featurestore import DataFrameSource, Entity, FeatureService, FeatureStore, FeatureView
from featurestore.access.api_keys import create_key
from featurestore.access.authentication import WAIT_SECONDS
from featurestore.errors import NotMaterializedError, RegistryUnavailableError
from featurestore.lazy import pd
from featurestore.serving import newest_version
from featurestore.types import Int64
from tests.server.test_http import serving
from tests.servers import Front, PostgresServer

LOOKUP = "/v1/online-features"
THING = Entity("thing", key={"thing": Int64})
ROWS = {"thing": [1], "at": [datetime(2026, 3, 1, tzinfo=UTC)], "x": [1.0], "y": [2.0]}


def service(*features: str, name: str = "model") -> FeatureService:
    source = DataFrameSource("rows", pd.DataFrame(ROWS), event_time="at")
    view = FeatureView("view", entity=THING, source=source, refresh="1h", features=list(features))
    return FeatureService(name, features=[view])


@pytest.fixture
def front(postgres: PostgresServer) -> Iterator[Front]:
    with Front(postgres.socket) as front:
        yield front


@pytest.fixture
def store(front: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FeatureStore]:
    """One whose registry is behind a network, and which looks for a new version at each lookup."""
    monkeypatch.setattr("featurestore.serving.served_versions.RELOAD_SECONDS", 0.0)
    url = f"postgresql://postgres:secret@127.0.0.1:{front.port}/postgres?sslmode=disable"
    (tmp_path / "featurestore.toml").write_text(f'project = "shop"\nregistry = "{url}"\ndefinitions = []\n')
    with FeatureStore(tmp_path) as store:
        store.apply([service("x")])
        store.materialize(progress=False)
        yield store


def looked_up(store: FeatureStore, name: str = "model") -> dict[str, list[Any]]:
    found = store.get_online_features([{"thing": 1}], name).to_dict()
    return {name: values for name, values in found.items() if name != "thing"}


@contextmanager
def away(how: str, front: Front, postgres: PostgresServer) -> Iterator[None]:
    """The registry is gone, or the network to it carries nothing any more."""
    if how == "silent":
        with front.held():
            yield
        return
    postgres.stop()
    try:
        yield
    finally:
        postgres.start()


@pytest.mark.parametrize("how", ["stopped", "silent"])
def test_lookups_go_on_with_what_is_loaded(
    how: str, store: FeatureStore, front: Front, postgres: PostgresServer, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """At once, but for the one that finds it out; and a version that is applied when the registry is back is taken up."""
    monkeypatch.setattr(newest_version, "WAIT_SECONDS", 600.0)  # a registry that is only slow is not away
    values = looked_up(store)
    with serving(store) as client, caplog.at_level(logging.WARNING, "featurestore"):
        asked = {"service": "model", "rows": [{"thing": 1}]}
        answer = client.post(LOOKUP, json=asked)
        assert answer.status_code == 200
        with away(how, front, postgres):
            monkeypatch.setattr(newest_version, "WAIT_SECONDS", 0.5)
            began = time.monotonic()
            for _ in range(100):
                assert looked_up(store) == values
                assert client.post(LOOKUP, json=asked).json()["rows"] == answer.json()["rows"]
            assert time.monotonic() - began < 60  # each would wait for seconds
            ready = client.get("/readyz")
            assert (ready.status_code, ready.json()["status"]) == (200, "ready")
            assert "what is loaded is served on" in ready.json()["registry"]
            told = [one for one in caplog.messages if one.startswith("The registry cannot be read")]
            assert len(told) == 1
            assert "secret" not in caplog.text
        monkeypatch.setattr(newest_version, "WAIT_SECONDS", 600.0)
        store.apply([service("x", "y")])
        store.materialize(progress=False)
        deadline = time.monotonic() + 600
        while len(looked_up(store)) < 2 or client.get("/readyz").json() != {"status": "ready"}:
            assert time.monotonic() < deadline


def test_what_is_not_loaded_needs_the_registry(store: FeatureStore, postgres: PostgresServer) -> None:
    """The error says so, and that it may be tried again; over HTTP it is a 503."""
    postgres.stop()
    try:
        with pytest.raises(RegistryUnavailableError, match="cannot be reached"):
            looked_up(store)
        with serving(store) as client:
            answer = client.post(LOOKUP, json={"service": "model", "rows": [{"thing": 1}]})
            assert (answer.status_code, answer.json()["type"]) == (503, "urn:featurestore:RegistryUnavailable")
            assert "Retry-After" in answer.headers
            assert client.get("/readyz").status_code == 503
    finally:
        postgres.start()
    assert looked_up(store)


def test_keys_that_were_read_open_while_the_network_carries_nothing(store: FeatureStore, front: Front) -> None:
    """For longer than a reading may be old, and nobody waits for the registry but who cannot do without: whoever asks for a list by a
    key that is limited to views, since only the registry knows which names are services. That stops nobody else."""
    secret = create_key(store.registry, "web", ["read"]).secret
    limited = create_key(store.registry, "limited", ["read"], only_on=["view:view"]).secret
    by_name, listed = {"service": "model", "rows": [{"thing": 1}]}, {"features": ["view:x"], "rows": [{"thing": 1}]}

    def post(client: httpx.Client, key: str, asked: dict[str, Any]) -> int:
        return client.post(LOOKUP, json=asked, headers={"Authorization": f"Bearer {key}"}).status_code

    with serving(store, authentication=True) as client, ThreadPoolExecutor(1) as thread:
        assert post(client, secret, by_name) == post(client, limited, listed) == 200
        with front.held():
            waits = thread.submit(post, client, limited, listed)
            until = time.monotonic() + 2 * WAIT_SECONDS
            while time.monotonic() < until:
                assert post(client, secret, by_name) == 200
            assert not waits.done()
        assert waits.result() == 200


@pytest.mark.parametrize("how", ["get", "aget"])
def test_whoever_lost_his_version_waits_until_he_is_told_which_took_its_place(
    how: str, front: Front, postgres: PostgresServer, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is loaded cannot be served on where it was freed: a registry that is slow then is waited for."""
    monkeypatch.setattr(newest_version, "NEEDED_SECONDS", 600.0)
    registry = f"postgresql://postgres:secret@127.0.0.1:{front.port}/postgres?sslmode=disable"
    for name, place in (("here", registry), ("there", postgres.url)):
        (tmp_path / name).mkdir()
        text = f'project = "slow_{how}"\nregistry = "{place}"\nonline = "{redis_url}"\ndefinitions = []\n'
        (tmp_path / name / "featurestore.toml").write_text(text)
    with FeatureStore(tmp_path / "here") as store, FeatureStore(tmp_path / "there") as other:
        other.apply([service("x")])
        other.materialize(progress=False)
        one = {"thing": 1}

        def look() -> list[str]:
            asked = (one, "model")
            asynchronous = how == "aget"
            found = (
                asyncio.run(store.aget_online_features(*asked)) if asynchronous else store.get_online_features(*asked)
            )
            return list(found.columns)

        assert look() == ["view__x"]
        with ThreadPoolExecutor(1) as thread:
            with front.held():
                other.apply([service("x", "y")])
                other.materialize(progress=False)
                waits = thread.submit(look)
                wait([waits], 4 * newest_version.WAIT_SECONDS)
                assert not waits.done()
            assert waits.result() == ["view__x", "view__y"]


def test_a_registry_that_is_silent_for_too_long_is_not_what_was_never_filled(
    front: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can tell then whether another version is filled; the error may be tried again, and whoever comes later has it at once."""
    monkeypatch.setattr(newest_version, "NEEDED_SECONDS", 0.5)
    url = f"postgresql://postgres:secret@127.0.0.1:{front.port}/postgres?sslmode=disable"
    (tmp_path / "featurestore.toml").write_text(f'project = "empty"\nregistry = "{url}"\ndefinitions = []\n')
    with FeatureStore(tmp_path) as store:
        store.apply([service("x")])
        with pytest.raises(NotMaterializedError):
            looked_up(store)
        with front.held():
            began = time.monotonic()
            for _ in range(200):
                with pytest.raises(RegistryUnavailableError, match="does not answer"):
                    looked_up(store)
            assert time.monotonic() - began < 200 * newest_version.NEEDED_SECONDS
        monkeypatch.setattr(newest_version, "NEEDED_SECONDS", 600.0)
        with pytest.raises(NotMaterializedError):
            looked_up(store)


def test_nobody_waits_twice_for_a_registry_that_does_not_answer() -> None:
    """Until it has: then whoever asks waits for it again."""
    answers, asked = threading.Event(), []

    def read() -> int:
        asked.append(1)
        answers.wait(600)
        return 7

    newest = newest_version.NewestVersion(read)
    began = time.monotonic()
    assert [newest.number() for _ in range(200)] == [None] * 200
    assert time.monotonic() - began < 100 * newest_version.WAIT_SECONDS
    assert len(asked) == 1
    answers.set()
    deadline = time.monotonic() + 600
    while newest.number() != 7:
        assert time.monotonic() < deadline
    assert newest.number() == 7
