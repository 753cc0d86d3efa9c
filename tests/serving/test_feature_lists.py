"""Features are named the same way in training, lookup, on the command line and over HTTP, and answered alike, bit for bit."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from featurestore import (
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    ManualClock,
    ParquetSource,
    Request,
    Sum,
    on_demand,
)
from featurestore.cli import app
from featurestore.errors import FingerprintError, NotFoundError, RequestError, SpineError
from featurestore.server import create_app
from featurestore.serving.feature_list import FeatureList
from featurestore.serving.served_versions import LISTS_HELD
from featurestore.types import Float64, Int64, String

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ROWS = pa.table(
    {
        "user": pa.array(["ann", "bob", "ann"]),
        "at": pa.array([NOW - timedelta(hours=h) for h in (5, 4, 3)], pa.timestamp("us", "UTC")),
        "x": pa.array([0.1, math.inf, -0.0]),
        "n": pa.array([2**53 + 1, None, -7], pa.int64()),
    }
)
ASKED = [{"user": "ann", "add": 3}, {"user": "bob", "add": 4}, {"user": "zoe", "add": 5}]
SPINE = pd.DataFrame(ASKED).assign(event_timestamp=NOW)


class Defined:
    """Definitions over a file; another `ttl` makes another version of the first view."""

    def __init__(self, path: Path, ttl: str | None = None) -> None:
        rows, entity = ParquetSource("rows", str(path), event_time="at"), Entity("user", key={"user": String})
        self.facts = FeatureView("facts", entity=entity, source=rows, features=["x", "n"], refresh="1h", ttl=ttl)
        self.sums = FeatureView("sums", entity=entity, source=rows, features={"s": Sum("x", window="1d")}, refresh="1h")

        @on_demand(inputs=[self.facts["n"], Request("add", Int64)], output=Float64)
        def added(n, add):
            return None if n is None else n / 2 + add

        self.added = added
        self.model = FeatureService("model", features=[self.facts, added])
        self.other = FeatureService("other", features=[self.facts["n"], self.sums])

    def all(self) -> list[Any]:
        return [self.model, self.sums, self.other]


@pytest.fixture
def repo(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    pq.write_table(ROWS, tmp_path / "rows.parquet")
    redis = getattr(request, "param", "lmdb") == "redis"
    online = request.getfixturevalue("redis_url") if redis else "lmdb://online"
    (tmp_path / "featurestore.toml").write_text(
        f'project = "lists_{tmp_path.name}"\nonline = "{online}"\ndefinitions = []\n[serving_log]\nrate = 1.0\n'
    )
    return tmp_path


@pytest.fixture
def defined(repo: Path) -> Defined:
    return Defined(repo / "rows.parquet")


@pytest.fixture
def store(repo: Path, defined: Defined) -> Iterator[FeatureStore]:
    with FeatureStore(repo, clock=ManualClock(NOW)) as store:
        store.apply(defined.all())
        store.materialize(progress=False)
        yield store


def words(defined: Defined) -> list[Any]:
    return [
        "model", "facts", "facts:n", "added", ["facts:n"], ["sums", "facts:x", "added"], ["other", "facts:x"], ("sums:s",),
        defined.model, defined.facts, defined.facts["x"], defined.added, [defined.other, "added"],
        [defined.facts.alias("who", key={"user": "user"}), "sums:s"],
        FeatureService("never_applied", features=[defined.sums, defined.facts["n"]]),
    ]  # fmt: skip


@pytest.mark.parametrize("repo", ["lmdb", "redis"], indirect=True)
def test_lookups_take_the_words_of_training_and_answer_its_bits(store: FeatureStore, defined: Defined) -> None:
    for asked in words(defined):
        frame, online = store.get_historical_features(SPINE, asked), store.get_online_features(ASKED, asked)
        assert online.to_arrow().equals(frame.to_arrow().select(online.to_arrow().column_names)), asked
        assert online.service.fingerprint == frame.manifest["fingerprint"]
        pinned = store.get_online_features(ASKED, asked, fingerprint=frame.manifest["fingerprint"])
        assert pinned.to_arrow().equals(online.to_arrow())
        by_manifest = store.get_online_features(ASKED, frame.manifest)
        assert by_manifest.to_arrow().equals(online.to_arrow())
        with pytest.raises(FingerprintError, match="never applied with fingerprint 0000"):
            store.get_online_features(ASKED, asked, fingerprint="0" * 32)


def test_coroutines_and_the_http_service_take_them_too(store: FeatureStore) -> None:
    async def posted(bodies: list[dict[str, Any]]) -> list[httpx.Response]:
        transport = httpx.ASGITransport(create_app(store, authentication=False))
        async with httpx.AsyncClient(transport=transport, base_url="http://store") as client:
            return [await client.post("/v1/online-features", json={**body, "rows": ASKED}) for body in bodies]

    asked = ["model", "facts:n", ["sums", "facts:x", "added"]]
    for features, answer in zip(asked, asyncio.run(posted([{"features": one} for one in asked])), strict=True):
        assert answer.status_code == 200, answer.text
        online, body = store.get_online_features(ASKED, features), answer.json()
        assert body["columns"] == list(online.columns)
        assert body["fingerprint"] == online.service.fingerprint
    wrong: list[tuple[dict[str, Any], int, str]] = [
        ({"service": "model", "features": ["facts"]}, 400, "both given"),
        ({"service": ["facts"]}, 400, "features takes a list"),
        ({"features": []}, 400, "list of names"),
        ({"features": [1]}, 400, "list of names"),
        ({}, 400, "features takes a list"),
        ({"features": ["fact:n"]}, 404, "Did you mean 'facts'?"),
        ({"service": "facts"}, 400, "'facts' is no feature service; say features in place of service"),
        ({"service": "facts:n"}, 400, "'facts:n' is no feature service; say features in place of service"),
        ({"service": "fact"}, 404, "Did you mean 'facts'?"),
    ]
    for (_, status, says), refused in zip(wrong, asyncio.run(posted([body for body, *_ in wrong])), strict=True):
        assert refused.status_code == status
        assert says in refused.json()["detail"]


def test_a_service_is_logged_and_a_list_is_not(store: FeatureStore, defined: Defined) -> None:
    assert store.get_online_features(ASKED, "model").request is not None
    assert store.get_online_features(ASKED, defined.model).request is not None
    for asked in (["facts"], "facts", "facts:n", "added"):
        assert store.get_online_features(ASKED, asked).request is None, asked
    audit = store.audit()
    assert {told.service for told in audit.features} == {"model"}
    assert audit.exact == 2 * 3 * 3


def test_a_changed_definition_is_refused_where_the_applied_one_is_not_meant(store: FeatureStore, repo: Path) -> None:
    changed = Defined(repo / "rows.parquet", ttl="2h")
    with pytest.raises(FingerprintError, match=r"'facts' is not as it was applied.*(?s:.*)ttl") as caught:
        store.get_online_features(ASKED, changed.model)
    assert caught.value.changes
    with pytest.raises(FingerprintError, match="is not as it was applied"):
        store.get_online_features(ASKED, [changed.facts["n"], "sums"])
    assert len(store.get_online_features(ASKED, changed.sums)) == 3  # the same as the applied one
    before = store.get_online_features(ASKED, ["facts:n"]).to_dict()
    store.apply(changed.all())
    assert store.get_online_features(ASKED, ["facts:n"]).to_dict() == before  # until the new one is filled
    store.materialize(progress=False)
    store.reload()
    assert store.get_online_features(ASKED, changed.facts["n"]).statuses["facts__n"][0] == "EXPIRED"
    assert store.get_online_features(ASKED, ["facts:n"]).statuses["facts__n"][0] == "EXPIRED"


def test_what_is_not_there_is_told_alike(store: FeatureStore) -> None:
    wrong: list[tuple[Any, type[Exception], str]] = [
        ("mdoel", NotFoundError, "Did you mean 'model'"),
        (["fact"], NotFoundError, "Did you mean 'facts'"),
        ("facts:m", NotFoundError, "no feature 'm'"),
        ("fact:n", NotFoundError, "Did you mean 'facts'"),
        ("n", NotFoundError, "Did you mean 'facts:n'"),
        ("facts__n", NotFoundError, "Did you mean 'facts:n'"),
        ("fcats:n", NotFoundError, "Did you mean 'facts'"),
        (
            "modle",
            NotFoundError,
            "Feature services: model, other. Feature views: facts, sums. On-demand features: added.",
        ),
        ([], RequestError, "is empty"),
        (["facts", 3], RequestError, "int names no feature"),
    ]
    for asked, error, says in wrong:
        with pytest.raises(error, match=says):
            store.get_online_features(ASKED, asked)
        with pytest.raises(error, match=says):
            store.get_historical_features(SPINE, asked)


def test_arguments_that_changed_places_are_told(store: FeatureStore, defined: Defined) -> None:
    for features in ("model", ["facts:n"], defined.model):
        for rows in (ASKED, ASKED[0], SPINE):
            with pytest.raises(RequestError, match="The rows come first"):
                store.get_online_features(features, rows)
        for spine in (SPINE, "spine.parquet", Path("spine.parquet")):
            with pytest.raises(SpineError, match="The spine comes first"):
                store.get_historical_features(features, spine)


def test_a_name_of_two_things_is_the_service(store: FeatureStore, defined: Defined) -> None:
    """In training as in lookups; in a list, where both may be meant, it is refused."""
    store.apply([FeatureService("facts", features=[defined.facts["n"]])])
    assert [*store.get_historical_features(SPINE, "facts").features] == ["facts__n"]
    assert [*store.get_online_features(ASKED, "facts").columns] == ["facts__n"]
    with pytest.raises(RequestError, match="names more than one definition"):
        store.get_historical_features(SPINE, ["facts"])


def test_lists_that_anybody_may_think_of_are_not_all_kept(store: FeatureStore) -> None:
    serving = store._project.serving
    serving.lookup("model")
    first = FeatureList.of(["facts:n"])
    loaded = serving.lookup(first)
    held = serving._loaded[first, None]
    for n in range(LISTS_HELD + 5):
        serving._hold(FeatureList((n,), ["facts:n"]), None, held)
    assert len(serving._loaded) == LISTS_HELD + 1
    assert ("model", None) in serving._loaded
    assert serving.lookup(first) is not loaded


def test_a_selection_that_is_made_anew_is_not_loaded_anew(store: FeatureStore, defined: Defined) -> None:
    first = store.lookup([defined.facts["n"]])
    assert store.lookup([defined.facts["n"]]) is first
    assert store.lookup([defined.facts["x"]]) is not first


def test_the_command_line_takes_them(tmp_path: Path) -> None:
    runner, place = CliRunner(), ["--repo", str(tmp_path / "shop")]
    for command in (["init", str(tmp_path / "shop")], [*place, "apply", "--yes"], [*place, "materialize", "-q"]):
        assert runner.invoke(app, command).exit_code == 0
    asked = ["customer_orders:amount", "customer_orders:items"]
    online = runner.invoke(app, [*place, "online", *asked, "customer=ann", "--json"])
    assert online.exit_code == 0, online.output
    names = [word.replace(":", "__") for word in asked]
    assert list(orjson.loads(online.stdout)["rows"][0]) == ["customer", *names]
    out = tmp_path / "frame.parquet"
    made = runner.invoke(app, [*place, "historical", str(tmp_path / "shop/data/spine.parquet"), *asked, "-o", str(out)])
    assert made.exit_code == 0, made.output
    assert pq.read_schema(out).names[-2:] == names
    again = runner.invoke(app, [*place, "online", *asked, "customer=ann", "--manifest", str(out), "--json"])
    assert json.loads(again.stdout)["rows"] == json.loads(online.stdout)["rows"]
    assert "say what to look up" in runner.invoke(app, [*place, "online", "customer=ann"]).output
