"""Verify: what is online against what offline data say, for views that are materialized and for views that are pushed to."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from featurestore import (
    Count,
    CountDistinct,
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
)
from featurestore.cli import app
from featurestore.errors import OnlineStoreError
from featurestore.online.view_codec import ViewCodec, edition_of, unpack_watermark
from featurestore.push.merge_rows import PushedView
from featurestore.reports.verify import Verified
from featurestore.types import Bool, Float64, Int64, String, Timestamp
from tests.servers import RedisServer

START = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
THINGS = 60
THING = Entity("thing", key={"thing": Int64, "kind": String})


class World:
    """A view of files and one of pushes over sixty things, some of which have rows in some hours alone, as time goes by."""

    def __init__(self, folder: Path, online: str) -> None:
        self.folder = folder
        text = f'project = "{folder.name}"\nonline = "{online}"\ndefinitions = []\n'
        (folder / "featurestore.toml").write_text(text)
        times = [START + HOUR * hour + timedelta(minutes=thing % 50) for hour in range(12) for thing in range(THINGS)]
        rows = pa.table(
            {
                "thing": [*range(THINGS)] * 12,
                "kind": [f"kind-{thing % 3}" for thing in range(THINGS)] * 12,
                "happened": times,
                "x": [float(hour * thing) / 7 for hour in range(12) for thing in range(THINGS)],
            }
        )
        kept = [(hour + thing) % (1 + thing % 5) == 0 for hour in range(12) for thing in range(THINGS)]
        (folder / "rows").mkdir()
        pq.write_table(rows.filter(pa.array(kept)), folder / "rows" / "first.parquet")
        self.clock = ManualClock(START + HOUR * 4 + timedelta(minutes=10))
        self.store = FeatureStore(folder, clock=self.clock)
        files = ParquetSource("rows", "rows/*.parquet", event_time="happened", known_after="1m")
        pushed = PushSource(
            "pushed",
            schema={"thing": Int64, "kind": String, "id": Int64, "happened": Timestamp, "x": Float64, "gone": Bool},
            event_time="happened", identity="id", deleted="gone", lateness="1d",
        )  # fmt: skip
        some: dict[str, Any] = {"x": Latest("x"), "n": Count(window="2h"), "mean": Mean("x", window="3h")}
        many = some | {"most": Max("x", window="3h"), "different": CountDistinct("x", window="1h", bound=20)}
        timed: dict[str, Any] = {"refresh": "1h", "settle": "5m", "ready_after": "40m"}
        views = [
            FeatureView("filed", entity=THING, source=files, features=some, ttl="3h", **timed),
            FeatureView("sums", entity=THING, source=pushed, features=some, ttl="5h"),
            FeatureView("sets", entity=THING, source=pushed, features=many),
        ]
        self.store.apply([FeatureService("service", features=views)])

    def live(self, hours: int) -> None:
        """Push, correct and delete, and materialize what is due."""
        for _ in range(hours):
            now = self.clock()
            hour = (now - START) // HOUR
            rows: list[dict[str, Any]] = [
                {"thing": n, "kind": f"kind-{n % 3}", "id": n * 100 + hour, "happened": now - timedelta(minutes=n),
                 "x": n / 3, "gone": False}
                for n in range(hour % 4, THINGS, 3)
            ]  # fmt: skip
            self.store.push("pushed", rows)
            anew = [row | {"x": 0.5, "gone": row["thing"] % 6 == 0} for row in rows[:5]]
            self.store.push("pushed", anew)
            self.store.materialize(progress=False)
            self.clock.advance(HOUR)
        self.store.materialize(progress=False)

    def keys(self, view: str) -> dict[tuple[int, str], bytes]:
        """The keys of a view's records that hold rows by what they stand for."""
        codec, (applied,) = self.codec(view), self.store._project.applied([view])
        found = [key for some in self.store.online.scan(codec.record_prefix) for key in some]
        if applied.is_pushed:
            records = PushedView(self.store.config.project, applied, tagged=False).records
            held = dict(zip(found, self.store.online.get(found).values, strict=True))
            found = [key for key, record in held.items() if record is not None and not records.is_empty(record)]
        return {tuple(codec.values_of(key)): key for key in found}

    def codec(self, view: str) -> ViewCodec:
        (found,) = self.store._project.applied([view])
        return ViewCodec(self.store.config.project, found)

    def same(self) -> bool:
        """Whether everything is served as it is trained."""
        keys = {"thing": range(THINGS + 5), "kind": [f"kind-{n % 3}" for n in range(THINGS + 5)]}
        spine = pd.DataFrame({**keys, "event_timestamp": [self.clock()] * (THINGS + 5)})
        trained = self.store.get_historical_features(spine, "service", with_status=True).to_arrow()
        served = self.store.get_online_features(spine.drop(columns="event_timestamp"), "service")
        values = all(trained[name].to_pylist() == column for name, column in served.to_dict().items())
        return values and all(
            trained[f"{name}__status"].to_pylist() == status for name, status in served.statuses.items()
        )


@pytest.fixture(params=["lmdb", "redis"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    url = f"lmdb://{tmp_path}/online" if request.param == "lmdb" else request.getfixturevalue("redis_url")
    made = World(tmp_path, url)
    with made.store:
        yield made


def counts(found: Verified) -> tuple[int, int, int]:
    return found.missing, found.extra, found.different


def test_where_nothing_is_wrong_nothing_is_found(world: World) -> None:
    """Records of runs over changed keys alone, and tiles that were merged, corrected and deleted from, are what a fresh
    computation gives; and before there is anything online, that is told."""
    assert {view.view for view in world.store.verify().views if not view.instants} == {"filed", "sums", "sets"}
    world.live(5)
    found = world.store.verify()
    assert found.ok
    assert {view.view: counts(view) for view in found.views} == dict.fromkeys(("filed", "sums", "sets"), (0, 0, 0))
    assert all(view.records > 40 for view in found.views)
    assert [len(view.instants) for view in found.views if view.view == "filed"] == [2]  # the next one is early
    assert world.same()


@pytest.mark.parametrize("view", ["filed", "sums", "sets"])
def test_what_is_missing_extra_or_different_is_found_and_repaired(world: World, view: str) -> None:
    """Each is counted, and named by its key; repair makes served values training's again."""
    world.live(4)
    keys = world.keys(view)
    gone, changed, other = [key for key in keys if key[0] < 40][:9:4]
    strange = (THINGS + 2, f"kind-{(THINGS + 2) % 3}")
    values = dict(zip(keys, world.store.online.get(list(keys.values())).values, strict=True))
    world.store.online.write(
        {
            keys[gone]: None,
            keys[changed]: values[other],
            world.codec(view).key(strange): values[other],
        }
    )
    assert not world.same()
    found = world.store.verify([view])
    assert not found.ok
    (told,) = found.views
    named = {(one.kind, tuple(one.key.values())) for one in told.examples}
    assert named == {("missing", gone), ("different", changed), ("extra", strange)}
    assert set(counts(told)) <= {1, 2}  # at one instant, or at two
    assert f"missing: thing={gone[0]}, kind='{gone[1]}'" in str(found)
    repaired = world.store.verify([view], repair=True)
    assert repaired.ok
    assert repaired.views[0].repaired
    assert counts(repaired.views[0]) == counts(told)
    assert world.store.verify().ok
    assert world.same()


def test_the_command_says_it_by_its_exit_code(world: World) -> None:
    """3 where something is wrong, 0 where it was repaired; JSON has the counts and the keys."""
    world.live(2)
    (gone, key), *_ = world.keys("sums").items()
    world.store.online.write({key: None})
    world.store.close()
    run = CliRunner().invoke(app, ["--repo", str(world.folder), "verify", "sums", "--json"])
    assert run.exit_code == 3, run.output
    told = json.loads(run.stdout)
    (view,) = told["views"]
    assert (told["ok"], view["view"], view["missing"], view["ok"]) == (False, "sums", 1, False)
    assert view["examples"][0]["key"] == {"thing": gone[0], "kind": gone[1]}
    run = CliRunner().invoke(app, ["--repo", str(world.folder), "verify", "sums", "--repair"])
    assert (run.exit_code, "repaired" in run.stdout) == (0, True), run.output
    run = CliRunner().invoke(app, ["--repo", str(world.folder), "verify", "sums"])
    assert (run.exit_code, "0 missing, 0 extra, 0 different" in run.stdout) == (0, True), run.output


def test_a_run_notices_that_records_are_gone(world: World) -> None:
    """It says how many, and writes all keys again, those of the instant that is served at once."""
    world.live(3)
    gone = list(world.keys("filed").values())[:7]
    world.store.online.write(dict.fromkeys(gone))
    assert not world.same()
    world.clock.advance(HOUR)
    with pytest.warns(UserWarning, match=r"has \d+ of the \d+ records that were written"):
        runs = world.store.materialize(["filed"], progress=False)
    assert all(run.full for run in runs)
    assert world.same()
    world.clock.advance(HOUR)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not any(run.full for run in world.store.materialize(["filed"], progress=False))
    assert world.store.verify().ok


def test_eviction_switched_on_later_is_refused_and_what_it_took_is_brought_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that may throw keys away is no longer read from or written to, by processes that found it right before;
    once it may not, verify finds what is gone and brings it back."""
    monkeypatch.setattr("featurestore.online.redis_server.POLICY_SECONDS", 0.0)
    with RedisServer() as server, server.client() as client:
        world = World(tmp_path, server.url)
        with world.store:
            world.live(3)
            codec = world.codec("filed")
            before = world.store.online.get([codec.watermark_key]).values[0]
            client.config_set("maxmemory-policy", "allkeys-lru")
            for ask in (world.same, lambda: world.store.materialize(progress=False), lambda: world.live(1)):
                with pytest.raises(OnlineStoreError, match="maxmemory-policy allkeys-lru"):
                    ask()
            keys = [key for key in client.scan_iter() if key.startswith(codec.record_prefix)]
            client.delete(*keys[: len(keys) // 2])  # what an eviction does, of keys that we can count
            client.config_set("maxmemory-policy", "noeviction")
            assert world.store.online.get([codec.watermark_key]).values[0] == before
            found = world.store.verify(["filed"], repair=True)
            assert found.views[0].missing >= len(keys) // 2
            assert found.ok
            after = world.store.online.get([codec.watermark_key]).values[0]
            assert unpack_watermark(after) == unpack_watermark(before)
            assert edition_of(after) == 1
            assert world.same()
