"""Materialize over HTTP: begun by a request, told of by /v1/status and the trail, one at a time in a process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from featurestore import FeatureService, FeatureStore
from featurestore.access.api_keys import create_key
from featurestore.client import AsyncClient, Client
from featurestore.errors import ForbiddenError, MaterializeError, NotFoundError
from featurestore.materialize.materializer import Materializer
from featurestore.server.materializing import Materializing
from tests.server.test_http import PROBLEM, serving
from tests.servers import until
from tests.small import hours, table, view_of, write

PATH, STATUS = "/v1/materialize", "/v1/status"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FeatureStore]:
    """Two views over files, of which nothing is online."""
    (tmp_path / "featurestore.toml").write_text('project = "p"\ndefinitions = []\n')
    with FeatureStore(tmp_path) as store:
        views = []
        for name in ("first", "second"):
            file = write(tmp_path / f"{name}.parquet", table(thing=[1, 2], at=[hours(0)] * 2, v=[1.0, 2.0]))
            views.append(view_of(file, ["v"], name=name, refresh="1h"))
        store.apply([FeatureService("service", features=views)])
        yield store


def key(store: FeatureStore, name: str, *scopes: str, **more: Any) -> str:
    return create_key(store.registry, name, scopes, **more).secret


def states(client: Client) -> dict[str, str]:
    return {one["view"]: one["state"] for one in client.status()}


def test_what_is_due_is_filled_for_whoever_may(store: FeatureStore) -> None:
    """All views, or those that are named; the trail has the key that asked, and looks up what it filled."""
    with serving(store, authentication=True) as http:
        url = str(http.base_url).rstrip("/")
        with Client(url, key=key(store, "job", "materialize", "read")) as job:
            assert states(job) == {"first": "not materialized", "second": "not materialized"}
            assert job.materialize(["first"]) == ["first"]
            until(lambda: states(job) == {"first": "fresh", "second": "not materialized"})
            until(lambda: bool(store.activity(what="materialize")))
            assert {one.who for one in store.activity(what="materialize")} == {"key:job"}

            async def all_of_them() -> list[str]:
                async with AsyncClient(url, key=key(store, "other", "materialize", "read")) as other:
                    while True:
                        try:
                            return await other.materialize()
                        except MaterializeError:  # the first goes on
                            await asyncio.sleep(0.02)

            assert asyncio.run(all_of_them()) == ["first", "second"]
            until(lambda: states(job) == {"first": "fresh", "second": "fresh"})
            assert job.get_online_features([{"thing": 1}], "service").to_dict()["first__v"] == [1.0]
            with pytest.raises(NotFoundError, match="Did you mean 'first'"):
                job.materialize(["frist"])
        with (
            Client(url, key=key(store, "reader", "read")) as reader,
            pytest.raises(ForbiddenError, match="materialize"),
        ):
            reader.materialize()
        with Client(url, key=key(store, "limited", "read", only_on=["view:first"])) as one:
            assert set(states(one)) == {"first"}


def test_one_at_a_time_and_a_view_that_fails_stops_no_other(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks meanwhile is told so; what fails is in the trail, by the kind of its error."""
    goes_on, whole = threading.Event(), Materializer.materialize

    def waits(*args: Any, **words: Any) -> Any:
        goes_on.wait()
        return whole(*args, **words)

    monkeypatch.setattr(Materializer, "materialize", waits)
    (store.config.root / "first.parquet").unlink()
    with serving(store) as client:
        begun = client.post(PATH, json={"full": True})
        assert (begun.status_code, begun.headers["location"]) == (202, STATUS)
        again = client.post(PATH)
        assert (again.status_code, again.headers["content-type"]) == (409, PROBLEM)
        assert again.json()["type"] == "urn:featurestore:Materialize"
        goes_on.set()
        until(lambda: {one["view"]: one["state"] for one in client.get(STATUS).json()["views"]}["second"] == "fresh")
        (failed,) = store.activity(what="fail to materialize")
        assert (failed.subject, failed.who) == ("first", "anonymous")
        assert failed.detail["error"].endswith("Error")


@pytest.mark.parametrize(
    "body", [{"views": []}, {"views": "first"}, {"views": [1]}, {"full": 1}, {"view": ["first"]}, [], "first"]
)
def test_a_body_that_is_none_is_refused(store: FeatureStore, body: Any) -> None:
    with serving(store) as client:
        answer = client.post(PATH, json=body)
        assert (answer.status_code, answer.headers["content-type"]) == (400, PROBLEM)
    assert store.activity(what="materialize") == []


def test_a_server_that_stops_ends_a_run_after_its_batch(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is served is what was complete before, and the next run completes the work."""
    monkeypatch.setattr("featurestore.materialize.kernel.EMBEDDED_BATCH_KEYS", 1)
    begun, whole, begin, made = threading.Event(), Materializer.materialize, Materializing.begin, list[Materializing]()

    def begins(materializing: Materializing, *args: Any, **words: Any) -> None:
        made.append(materializing)
        begin(materializing, *args, **words)

    def waits(*args: Any, **words: Any) -> Any:
        begun.set()
        assert made[0]._stop.wait(600)
        return whole(*args, **words)

    monkeypatch.setattr(Materializing, "begin", begins)
    monkeypatch.setattr(Materializer, "materialize", waits)
    with serving(store) as client:
        assert client.post(PATH).status_code == 202
        assert begun.wait(600)
    monkeypatch.undo()
    assert {one.state for one in store.status()} == {"not materialized"}
    store.materialize(progress=False)
    assert {one.state for one in store.status()} == {"fresh"}


def test_those_who_ask_for_the_status_at_once_share_one_look(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may read a source, and must not be done for each of them."""
    goes_on, whole, looks = threading.Event(), FeatureStore.status, list[int]()

    def looked(asked: FeatureStore) -> Any:
        looks.append(1)
        goes_on.wait()
        return whole(asked)

    monkeypatch.setattr(FeatureStore, "status", looked)

    async def crowd() -> list[Any]:
        materializing = Materializing(store)
        asked = [asyncio.ensure_future(materializing.status()) for _ in range(8)]
        await asyncio.sleep(0)  # all of them have begun
        goes_on.set()
        found = await asyncio.gather(*asked)
        assert len(looks) == 1
        return [*found, await materializing.status()]

    assert [[one.view for one in found] for found in asyncio.run(crowd())] == [["first", "second"]] * 9
    assert len(looks) == 2
