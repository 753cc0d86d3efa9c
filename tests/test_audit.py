"""The audit says zero where there is no skew, and names what it is where there is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

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
    Mean,
    ParquetSource,
    PushSource,
    Request,
    RequestTime,
    on_demand,
)
from featurestore.errors import NotFoundError
from featurestore.online.view_codec import ViewCodec
from featurestore.registry.documents import resolved_view
from featurestore.serving.log.serving_log import losses
from featurestore.types import Float64, Int64, Timestamp

START = datetime(2024, 5, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
THINGS = 20


def rows(hours: int = 24) -> pa.Table:
    """A row a thing and hour, known a minute after it happened."""
    times = [START + HOUR * n + timedelta(minutes=thing) for n in range(hours) for thing in range(THINGS)]
    values = [float((n * 7 + thing * 3) % 11) / 3 for n in range(hours) for thing in range(THINGS)]
    return pa.table({"thing": list(range(THINGS)) * hours, "happened": times, "x": values})


class World:
    """A repository on disk, served on a clock to set."""

    def __init__(self, folder: Path, online: str, log: str = "rate = 1.0") -> None:
        self.folder = folder
        pq.write_table(rows(), folder / "rows.parquet")
        long_ago = START.timestamp()
        os.utime(folder / "rows.parquet", (long_ago, long_ago))
        text = f'project = "{folder.name}"\nonline = "{online}"\ndefinitions = []\n[serving_log]\n{log}\n'
        (folder / "featurestore.toml").write_text(text)
        self.clock = ManualClock(START + HOUR * 12)
        self.store = FeatureStore(folder, clock=self.clock)
        thing = Entity("thing", key={"thing": Int64})
        source = ParquetSource("rows", "rows.parquet", event_time="happened", known_after="1m")
        self.view = FeatureView(
            "view", entity=thing, source=source, refresh="1h", ready_after="10m", ttl="5h",
            features={"x": Latest("x", default=-1.0), "mean": Mean("x", window="6h"),
                      "count": Count(window="2h")},
        )  # fmt: skip
        pushed = PushSource(
            "pushed", schema={"thing": Int64, "happened": Timestamp, "x": Float64}, event_time="happened"
        )
        recent = FeatureView(
            "recent", entity=thing, source=pushed, features={"n": Count(window="1h"), "mean": Mean("x", window="1d")}
        )

        @on_demand(inputs=[self.view["mean"], Request("scale", Float64)], output=Float64)
        def scaled(mean, scale):
            return None if mean is None else mean * scale

        @on_demand(inputs=[RequestTime()], output=Int64)
        def hour(now):
            return now.hour

        self.store.apply([FeatureService("service", features=[self.view, recent, scaled, hour])])

    def serve(self, hours: int, *, materialize: bool = True) -> None:
        """Push, materialize and look every thing up, once an hour."""
        for _ in range(hours):
            now = self.clock()
            self.store.push("pushed", [{"thing": n, "happened": now, "x": n / 7} for n in range(0, THINGS, 3)])
            if materialize:
                self.store.materialize(progress=False)
            asked = [{"thing": n, "scale": 1.5} for n in [*range(THINGS), 99]]
            assert self.store.get_online_features(asked, "service").request is not None
            self.clock.advance(HOUR + timedelta(minutes=3))


@pytest.fixture(params=["lmdb", "redis"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    made = World(
        tmp_path, f"lmdb://{tmp_path}/online" if request.param == "lmdb" else request.getfixturevalue("redis_url")
    )
    with made.store:
        yield made


def test_where_there_is_no_skew_the_audit_says_zero(world: World) -> None:
    """Every value of every feature, slots, tiles and functions, has training's bits; nothing was lost or early."""
    world.serve(6)
    audit = world.store.audit()
    assert audit.compared == 6 * (THINGS + 1) * 7
    assert [(f.feature, f.exact, f.skewed, f.rewritten) for f in audit.features] == [
        (f.feature, f.compared, 0, 0) for f in audit.features
    ]
    assert audit.skewed == 0
    assert all(view.early == 0 and view.stale == 0 for view in audit.lateness)
    assert audit.losses.offered == audit.losses.written == 6
    assert not audit.not_audited


def test_a_value_that_was_changed_online_is_skew(world: World) -> None:
    """One record overwritten by something else: exactly its values are skewed, with both values told."""
    world.serve(1)
    document = world.store.registry.current().document
    codec = ViewCodec(world.store.config.project, resolved_view(document, "view"))
    one, other = codec.key([1]), codec.key([2])
    held = world.store.online.get([other]).values[0]
    world.store.online.write({one: held})
    world.serve(1, materialize=False)
    audit = world.store.audit()
    differing = {f.feature: f.skewed for f in audit.features if f.skewed}
    assert set(differing) <= {"view__x", "view__mean", "scaled"}
    assert differing["view__x"] == 1
    (example,) = next(f for f in audit.features if f.feature == "view__x").examples
    assert example.key == {"thing": 1}
    assert example.served != example.trained
    assert audit.skewed == sum(differing.values())


def test_history_that_changed_afterwards_is_no_skew(world: World) -> None:
    """A file written anew after values of it were served: they are rewritten, and none is skewed."""
    world.serve(2)
    table = rows()
    changed = table.set_column(2, "x", pa.array([value.as_py() + 1 for value in table["x"]]))
    pq.write_table(changed, world.folder / "rows.parquet")
    audit = world.store.audit()
    assert audit.skewed == 0
    told = {f.feature: f for f in audit.features}
    assert told["view__x"].rewritten > 0
    assert set(told["view__x"].causes) == {"history rewritten"}
    assert told["recent__n"].exact == told["recent__n"].compared


def test_values_that_were_late_are_stale_and_exact(world: World) -> None:
    """Runs that were skipped make what is served old, and reported as old; it is still what training says for its as_of."""
    world.serve(1)
    world.serve(3, materialize=False)
    audit = world.store.audit()
    assert audit.skewed == 0
    (late,) = [view for view in audit.lateness if view.view == "view"]
    assert late.stale == 2 * (THINGS + 1)  # the first run had computed the next instant early
    assert late.greatest == 2 * 3_600_000_000


def test_only_a_part_is_logged_and_only_a_part_audited(tmp_path: Path) -> None:
    """A rate of 0 logs nothing; since and until choose by the time of the lookup."""
    world = World(tmp_path, f"lmdb://{tmp_path}/online", log="rate = 0.0\nrates = { service = 1.0 }")
    with world.store:
        world.serve(3)
        middle = world.clock() - 2 * (HOUR + timedelta(minutes=3)) - timedelta(minutes=1)
        late = world.store.audit(since=middle)
        early = world.store.audit(until=middle)
        assert (late.compared, early.compared) == (2 * 21 * 7, 21 * 7)
        with pytest.raises(NotFoundError, match="No feature service 'other' was applied"):
            world.store.audit(service="other")


def test_a_killed_server_loses_its_tail_and_the_log_says_how_much(tmp_path: Path) -> None:
    """No segment is ever half a segment; what was offered and not written is counted as lost."""
    script = """
        import sys, time
        from pathlib import Path
        import pyarrow as pa
        from featurestore.serving.log.serving_log import ServingLog
        from tests.serving.requests import request_of
        log = ServingLog(Path(sys.argv[1]), flush=0.02)
        schema = pa.schema([("request", pa.string())])
        for n in range(10**9):
            log.offer(request_of(schema, [[str(n)]], n))
            if n == 500:
                print("going", flush=True)
            time.sleep(0.0002)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "going\n"
        while losses(tmp_path).written < 100:
            assert child.poll() is None
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
    files = sorted(tmp_path.glob("service/f/[0-9]*.parquet"), key=lambda path: int(path.name.split("-")[0]))
    written = [int(value) for path in files for value in pq.read_table(path)["request"].to_pylist()]
    assert written == list(range(len(written)))
    told = losses(tmp_path)
    assert told.offered - told.written == told.lost
    assert told.dropped == 0
    # All are counted, or all but the last segment, which was renamed and not yet counted.
    assert len(written) - told.written in {0, pq.read_metadata(files[-1]).num_rows}
    assert told.offered > 500
