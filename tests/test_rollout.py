"""Two models of one service, each on the definitions that it was trained on, over HTTP, while values go on coming in."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import (
    Count,
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Latest,
    ManualClock,
    Max,
    Mean,
    ParquetSource,
    PushSource,
    Sum,
)
from featurestore.online.view_codec import key_prefix
from featurestore.registry.documents import view_fingerprints
from featurestore.registry.steps import KeepVersion
from featurestore.types import Float64, String, Timestamp, from_json
from tests.server.test_http import serving

NOON = datetime(2013, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
CARDS = ["a", "b", "c", "nobody"]


def model(*, window: str, default: float | None) -> FeatureService:
    """Plain, windowed and pushed features, all of which the words change."""
    card = Entity("card", key={"card": String})
    facts = ParquetSource("facts", "data", event_time="at")
    swipes = PushSource(
        "swipes", schema={"swipe": String, "card": String, "at": Timestamp, "amount": Float64}, event_time="at",
        identity=["swipe"],
    )  # fmt: skip
    said: dict[str, Any] = {"entity": card, "source": facts, "refresh": "1h", "ready_after": "10m"}
    folds = {"mean": Mean("x", window=window), "sum": Sum("x", window=window), "count": Count(window=window)}
    pushed = {"spent": Sum("amount", window=window), "most": Max("amount", window=window), "last": Latest("amount")}
    views = [
        FeatureView("plain", features={"x": Latest("x", default=default)}, **said),
        FeatureView("windowed", features=folds, **said),
        FeatureView("pushed", entity=card, source=swipes, features=pushed),
    ]
    return FeatureService("model", features=views)


OLD, NEW = model(window="3h", default=None), model(window="5h", default=-1.0)


@pytest.fixture(params=["lmdb", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FeatureStore]:
    online = "lmdb://online" if request.param == "lmdb" else request.getfixturevalue("redis_url")
    (tmp_path / "data").mkdir()
    first = {"card": ["a"], "at": pa.array([NOON - timedelta(hours=4)], pa.timestamp("us", "UTC")), "x": [0.5]}
    pq.write_table(pa.table(first), tmp_path / "data" / "first.parquet")
    text = f'project = "rollout"\nonline = "{online}"\ndefinitions = []\n[serving_log]\nrate = 1.0\n'
    (tmp_path / "featurestore.toml").write_text(text)
    with FeatureStore(tmp_path, clock=ManualClock(NOON)) as store:
        yield store
        store.teardown()


class World:
    """Rows that come in, and what is served meanwhile, compared with training under the definitions asked for."""

    def __init__(self, store: FeatureStore, client: httpx.Client, folder: Path) -> None:
        self.store, self.client, self.folder = store, client, folder
        self.clock: ManualClock = store._project.clock  # type: ignore[assignment]  # the clock of these tests
        self.steps = 0

    def go_on(self) -> None:
        """35 minutes later: a file lands, rows are pushed, one of them a correction, and what is due is materialized."""
        self.clock.advance(35 * MINUTE)
        now, n = self.clock(), self.steps
        self.steps += 1
        times = [now - timedelta(minutes=3 * i + 1) for i in range(9)]
        values = [0.1 * n + 1e16 * (i % 2) - 7 * i for i in range(9)]
        table = {
            "card": [CARDS[i % 3] for i in range(9)],
            "at": pa.array(times, pa.timestamp("us", "UTC")),
            "x": values,
        }
        pq.write_table(pa.table(table), self.folder / f"{n}.parquet")
        rows = [
            {"swipe": f"{n}-{i}", "card": CARDS[i % 3], "at": now - i * MINUTE, "amount": 0.1 * i + n} for i in range(5)
        ]
        self.store.push("swipes", rows)
        if n:
            self.store.push("swipes", {**rows[0], "swipe": f"{n - 1}-1", "amount": 1e9 * n})
        self.store.materialize(progress=False)

    def ask(self, **words: str) -> httpx.Response:
        body = {"service": "model", "rows": [{"card": card} for card in CARDS], **words}
        return self.client.post("/v1/online-features", json=body)

    def check(self, service: FeatureService, **words: str) -> None:
        """What is served is what training says of this instant, to the bit, values and statuses; nothing is stale."""
        answer = self.ask(**words)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert not any(body["stale"].values())
        now = self.clock()
        spine = pa.table({"card": CARDS, "event_timestamp": pa.array([now] * len(CARDS), pa.timestamp("us", "UTC"))})
        training = self.store.get_historical_features(spine, service, with_status=True)
        assert body["fingerprint"] == training.manifest["fingerprint"]
        table = training.to_arrow()
        for number, name in enumerate(body["columns"]):
            served = [from_json(training.types[name], row[number]) for row in body["rows"]]
            assert repr(served) == repr(table[name].to_pylist()), name
            assert [row[number] for row in body["statuses"]] == table[f"{name}__status"].to_pylist(), name
        hour = (now - 10 * MINUTE).replace(minute=0, second=0, microsecond=0)
        assert {name: datetime.fromisoformat(at) for name, at in body["as_of"].items()} == {
            "plain": hour, "windowed": hour, "pushed": now,
        }  # fmt: skip


def keys(store: FeatureStore, version: int) -> list[int]:
    """How many online keys each view version has that a version of the registry applied."""
    views = view_fingerprints(store.registry.version(version).document)
    prefixes = [key_prefix("rollout", *view) for view in views.items()]
    return [sum(map(len, store.online.scan(prefix))) for prefix in prefixes]


def test_two_models_are_each_served_their_own_definitions_until_one_is_retired(
    store: FeatureStore, tmp_path: Path
) -> None:
    """Every answer of both is what training says under their own definitions; a retired one is refused, and freed."""
    store.apply([OLD])
    with serving(store) as client:
        world = World(store, client, tmp_path / "data")
        for _ in range(3):
            world.go_on()
        first = store.load_manifest(store.snapshot("model", at=world.clock()).to_parquet(tmp_path / "old.parquet"))
        world.check(OLD, fingerprint=first.fingerprint)

        plan = store.plan([NEW], keep=True)
        assert f"keep model {first.fingerprint[:8]}: served on to clients that name its fingerprint" in str(plan)
        assert "  free " not in str(plan)
        applied = store.apply([NEW], keep=True)
        assert applied.kept == tuple(step for step in plan.steps if isinstance(step, KeepVersion))
        assert [step.fingerprint for step in applied.kept] == [first.fingerprint]
        second = store.load_manifest(store.snapshot("model", at=world.clock()).to_parquet(tmp_path / "new.parquet"))
        assert second.fingerprint != first.fingerprint
        assert world.ask(fingerprint=second.fingerprint).status_code == 503  # which has no values yet
        world.check(OLD)

        for _ in range(4):
            world.go_on()
            world.check(OLD, fingerprint=first.fingerprint)
            world.check(NEW, fingerprint=second.fingerprint)
            store.reload()
            world.check(NEW)
        assert store.apply().changed is False  # a later apply keeps what is kept
        assert f"kept model {first.fingerprint[:8]}: since version 2" in str(store.plan())
        listed = client.get("/v1/services").json()["services"]
        assert [(one["fingerprint"], one["kept"]) for one in listed] == [(second.fingerprint, [first.fingerprint])]
        kept = {status.view: status.kept_for for status in store.status() if status.kept_for}
        assert kept == dict.fromkeys(("plain", "windowed", "pushed"), (f"model@{first.fingerprint[:12]}",))

        audit = store.audit()
        assert (audit.skewed, audit.not_audited) == (0, {})
        assert audit.compared == sum(one.exact for one in audit.features) > 0
        retire = store.plan(retire=[f"model@{first.fingerprint[:6]}"])
        assert [type(step).__name__ for step in retire.steps] == ["RetireVersion"] + ["FreeOnline"] * 3
        assert (
            f"retire model {first.fingerprint[:8]}: freed once its successor {second.fingerprint[:8]} is served"
            in str(retire)
        )
        assert "24 rows of it were logged in the last day" in str(retire)
        assert min(keys(store, 1)) > 0
        done = store.apply(retire)
        assert (len(done.freed), done.waiting, store.registry.kept()) == (3, (), ())
        assert keys(store, 1) == [0, 0, 0]

        refused = world.ask(fingerprint=first.fingerprint)
        assert (refused.status_code, refused.json()["type"]) == (409, "urn:featurestore:Fingerprint")
        changes = {change["field"]: (change["before"], change["after"]) for change in refused.json()["changes"]}
        assert changes["parts.plain.view.features.x.default"] == ("none", "-1.0")
        assert changes["parts.windowed.view.features.sum.window"] == ("3h", "5h")
        assert "~ parts.windowed.view.features.sum.window: 3h → 5h" in refused.json()["detail"]
        for _ in range(3):
            world.go_on()
            world.check(NEW, fingerprint=second.fingerprint)
            assert world.ask(fingerprint=first.fingerprint).status_code == 409
        assert keys(store, 1) == [0, 0, 0]
