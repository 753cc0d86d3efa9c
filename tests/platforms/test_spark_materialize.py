"""Spark's executors write records straight into Redis: each key and each byte there is what one machine writes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import redis

import featurestore
from featurestore import (
    ARRIVAL,
    Count,
    DataFrameSource,
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Latest,
    ManualClock,
    Mean,
    ParquetSource,
)
from featurestore.durable.parquet import storable
from featurestore.engines.record_tasks import NEW_FILE, RecordTask, RunTask, StoredKeysTask, VanishedTask, total
from featurestore.engines.spark import SparkEngine
from featurestore.engines.spark import record_shuffle as shuffle_module
from featurestore.engines.steps import route_of
from featurestore.engines.tasks import COUNTS, IdentityTask, TaskLimits, key_column
from featurestore.errors import ConfigError, MaterializeError, RequestError, SourceError
from featurestore.materialize.kernel import Written
from featurestore.materialize.lease import Lease, LeaseLostError
from featurestore.materialize.records import existing
from featurestore.materialize.run_plan import PlannedRun
from featurestore.online.view_codec import ViewCodec
from featurestore.registry.kept_statistics import GatheredFeatures
from featurestore.types import Int64, String
from tests.platforms.clusters import PANDAS, ROOT, SPECULATING, spark_executors, spark_session
from tests.platforms.engine_kinds import NOON, ago, write
from tests.platforms.record_pairs import Pair, moved, of_moved
from tests.platforms.shop import BLOCK, PAGES
from tests.servers import RedisCluster, RedisServer
from tests.sources import same_rows

USER = Entity("user", key={"user": Int64})
HOUR = timedelta(hours=1)
pytestmark = pytest.mark.filterwarnings(PANDAS)


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A session with two executors, which run tasks twice at once wherever they can."""
    with spark_session(tmp_path_factory.mktemp("spark"), **SPECULATING) as session:
        yield session


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def pair_of(server: RedisServer, folder: Path, session: Any, **words: Any) -> Pair:
    """A project that is materialized by Spark's executors, and its twin."""
    return Pair(server, folder, lambda store: SparkEngine(store, session, **words))


def test_every_type_by_several_keys_with_changes_and_again(
    spark: Any, redis_server: RedisServer, tmp_path: Path, tell: Any
) -> None:
    """All keys, then those that may have changed, then all again with keys that vanished: records, watermarks and states."""
    folder, rows = tmp_path / "rows", same_rows.table(same_rows.ROWS)
    folder.mkdir()

    def put(name: str, table: pa.Table) -> None:
        pq.write_table(storable(table.rename_columns({"embedding": "list"})), folder / name)

    put("a.parquet", rows.slice(0, 35))
    source = ParquetSource("rows", folder, derived={"embedding": "CAST(list AS FLOAT[2])"}, **same_rows.WORDS)
    by_text = FeatureView(
        "by_text", entity=Entity("text", key={"text": String, "flag": featurestore.types.Bool}), source=source, features=["big", "wide"]
    )  # fmt: skip
    with pair_of(redis_server, tmp_path, spark) as pair:
        pair.apply(*same_rows.views(source), by_text)
        pair.clock.set(NOON + timedelta(hours=4, minutes=5))
        first = pair.run()
        assert [run.full for run in first] == [True] * 3
        before = pair.check()
        put("b.parquet", rows.slice(35))
        pair.clock.advance(HOUR)
        assert [run.full for run in pair.run()] == [False] * 3
        pair.clock.advance(HOUR * 3)
        pair.run()
        pair.run()
        put("a.parquet", rows.slice(0, 35).filter(pc.not_equal(rows["user"].slice(0, 35), "u1")))
        put("b.parquet", rows.slice(35).filter(pc.not_equal(rows["user"].slice(35), "u1")))
        again = pair.run(full=True)
        assert {run.again for run in again} == {True}
        asked = [
            {"user": f"u{n}", "text": text, "flag": flag}
            for n in range(6)
            for text, flag in (("a,b", False), ("", True), ("日本", None))
        ]
        assert pair.looked_up(asked)["folded__rows"][3] is None
        after = pair.check()
    tell(
        "spark",
        version=f"Spark {spark.version}",
        ran="2 executors in processes of their own, and Spark Connect",
        compared=before + after,
    )


def test_a_correction_that_moves_a_row_to_another_key(spark: Any, redis_server: RedisServer, tmp_path: Path) -> None:
    """Rows go by identity first; a partition writes the keys alone of which it has every row."""
    view = of_moved(write(tmp_path / "rows.parquet", **moved()))
    with pair_of(redis_server, tmp_path, spark, partitions=5) as pair:
        pair.apply(view)
        for hours in (-3, -2, -1, 0, 1):
            pair.clock.set(NOON + HOUR * hours)
            pair.run()
        assert len({*pair.looked_up([{"user": user} for user in range(10)])["view__sum"]}) > 5


def test_rows_of_files_that_count_from_when_they_came(spark: Any, redis_server: RedisServer, tmp_path: Path) -> None:
    """A file that lands late makes all of its keys change, whether its rows count from their own time or from its arrival."""
    folder = tmp_path / "data"
    write(folder / "day=1" / "a.parquet", user=[1, 2, 3], at=[ago(9)] * 3, x=[1.0, 2.0, None])
    by_time = ParquetSource("rows", folder, event_time="at", partitions={"day": Int64})
    arrived = ParquetSource("came", folder, event_time="at", known_at=ARRIVAL, partitions={"day": Int64})
    views = [
        FeatureView(
            name, entity=USER, source=source, refresh="1h", features={"x": Latest("x"), "n": Count(window="2d"), "day": Latest("day")}
        )
        for name, source in (("by_time", by_time), ("arrived", arrived))
    ]  # fmt: skip
    with pair_of(redis_server, tmp_path, spark) as pair:
        pair.apply(*views)
        assert [run.keys for run in pair.run()] == [3, 3]
        pair.clock.advance(timedelta(minutes=30))
        write(folder / "day=2" / "b.parquet", user=[2, 4], at=[ago(8)] * 2, x=[5.0, 6.0])
        pair.clock.advance(HOUR)
        assert [run.keys for run in pair.run()] == [2, 2]
        pair.clock.advance(HOUR)
        assert [run.keys for run in pair.run()] == [2, 0]  # what came after an instant counts for the next
        assert pair.looked_up([{"user": user} for user in (1, 2, 4, 5)])["by_time__n"] == [1, 2, 1, None]


def test_views_that_executors_cannot_read_are_written_here(
    spark: Any, redis_server: RedisServer, tmp_path: Path
) -> None:
    frame = pa.table({"user": [1, 2], "at": pa.array([ago(1)] * 2, pa.timestamp("us", "UTC")), "x": [0.1, None]})
    world = write(tmp_path / "world.parquet", at=[ago(5), ago(1)], level=[1, 2])
    views = [
        FeatureView("framed", entity=USER, source=DataFrameSource("rows", frame, event_time="at"), refresh="1h", features=["x"]),
        FeatureView(
            "level", entity=Entity("world", key={}), source=ParquetSource("world", world, event_time="at"), refresh="1h", features=["level"]
        ),
    ]  # fmt: skip
    with pair_of(redis_server, tmp_path, spark) as pair:
        pair.apply(*views)
        assert [run.keys for run in pair.run()] == [2, 1]


def test_an_embedded_store_is_refused(spark: Any, tmp_path: Path) -> None:
    view = of_moved(write(tmp_path / "rows.parquet", **moved(2)))
    with FeatureStore.local(clock=ManualClock(NOON)) as store:
        store.apply([FeatureService("service", features=[view])])
        with pytest.raises(
            ConfigError, match=r"lmdb://, which lies on this machine, .* Put the project online in Redis"
        ):
            SparkEngine(store, spark).materialize(progress=False)
        with pytest.raises(RequestError, match="full is"):
            SparkEngine(store, spark).materialize(full="yes")  # type: ignore[arg-type]  # the mistake
        assert store.status()[0].complete == ()


Given = tuple[RecordTask, list[pa.RecordBatch]]


class Repeated:
    """What an engine does with rows, on this machine, and each of its tasks many times: in any order, and two at once."""

    def __init__(self, store: FeatureStore, path: str) -> None:
        self._store, self._path = store, path
        self.tasks: list[Given] = []
        self.gathered: dict[int, GatheredFeatures] = {}

    def written(self, run: PlannedRun, lease: Lease) -> Iterator[Written]:
        project = self._store._project
        route = route_of(run.view, project.offline.raw_types(run.view.source))
        rows = pq.read_table(self._path, columns=list(route.columns))
        spread = pa.Table.from_batches(IdentityTask(route, TaskLimits(), None)(iter(rows.to_batches())))
        spread = spread.filter(pc.is_null(spread[COUNTS])).drop_columns([COUNTS])
        spread = spread.append_column(NEW_FILE, pa.array([False] * spread.num_rows))
        places = [key % 4 for key in spread[key_column(0)].to_pylist()]
        for marks in run.marks:
            shared = RunTask(run.view, "p", project.config.online, marks, lease.let_others(), run.changes)
            parts = [
                (RecordTask(shared, route, TaskLimits(), None), spread.filter(pa.array([at == part for at in places])).to_batches())
                for part in range(4)
            ]  # fmt: skip
            self.tasks += parts
            told = self._told(shared, parts)
            written, _ = total(told[COUNTS].drop_null().to_pylist())
            if run.changes is not None:
                written = written._replace(records=len(existing(project.online, run.codec)) - (run.present or 0))
            yield written

    def _told(self, shared: RunTask, parts: list[Given]) -> pa.Table:
        for task, given in [*parts[::-1], *parts[1:]]:
            list(task(iter(given)))
        with ThreadPoolExecutor(8) as pool:
            twice = list(pool.map(lambda one: pa.Table.from_batches(one[0](iter(one[1]))), [*parts, *parts]))
        told = pa.concat_tables(twice[: len(parts)])
        if shared.changes is not None:
            return told
        stored = pa.Table.from_batches(StoredKeysTask(shared)(iter([pa.RecordBatch.from_pylist([{"id": 0}])])))
        given = pa.concat_tables([told, stored]).to_batches()
        list(VanishedTask(shared)(iter(given)))
        return pa.Table.from_batches(VanishedTask(shared)(iter(given)))


def test_batches_that_come_twice_change_nothing(redis_server: RedisServer, tmp_path: Path) -> None:
    """And one that comes when its run is over is refused."""
    path = write(tmp_path / "rows.parquet", **moved())
    with pair_of(redis_server, tmp_path, FakeSession()) as pair:
        pair.apply(of_moved(path))
        repeated = Repeated(pair.other, path)
        for hours, full in ((-2, False), (-1, False), (0, False), (0, True)):
            pair.clock.set(NOON + HOUR * hours)
            pair.one.materialize(progress=False, full=full)
            pair.other._runs.materialize(None, full=full, progress=False, engine_of=lambda _: repeated)
            pair.check()
        late, given = repeated.tasks[0]
        with pytest.raises(LeaseLostError, match="View 'view': its run is over, or another one has taken over"):
            list(late(iter(given)))
        pair.check()


class FakeSession:
    """What an engine needs to be made, of which nothing is asked."""

    version = "4.0.0"


def test_an_executor_that_is_killed_changes_nothing(spark: Any, redis_server: RedisServer, tmp_path: Path) -> None:
    """Once records are being written: its tasks and what it had shuffled are done again, and write the same bytes."""
    count = 60_000
    path = write(
        tmp_path / "rows.parquet", user=[n % 20_000 for n in range(count)], row=list(range(count)),
        at=[NOON - timedelta(seconds=n) for n in range(count)], seen=[NOON - timedelta(seconds=n - 60) for n in range(count)],
        x=[n / 7 for n in range(count)],
    )  # fmt: skip
    source = ParquetSource("rows", path, event_time="at", known_at="seen", identity="row")
    features = {"x": Latest("x"), "m": Mean("x", window="1d")}
    view = FeatureView("view", entity=USER, source=source, refresh="1h", features=features)
    killed: list[int] = []
    done = Event()

    def kill() -> None:
        with redis.Redis(port=redis_server.port, db=2) as client:
            while not done.wait(0.02) and not killed:
                if client.dbsize() > 1_000 and len(spark_executors()) == 2:
                    victim = spark_executors()[0]
                    os.kill(victim, signal.SIGKILL)
                    killed.append(victim)

    with pair_of(redis_server, tmp_path, spark, partitions=6) as pair:
        pair.apply(view)
        killer = Thread(target=kill)
        killer.start()
        try:
            (run,) = pair.run()
        finally:
            done.set()
            killer.join()
        assert killed
        assert run.keys == 20_000


def test_a_run_that_lost_its_lease_writes_nothing_more(
    spark: Any, redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run takes it before the executors write: they are refused, nothing of the first is published, and the second is whole."""
    view = of_moved(write(tmp_path / "rows.parquet", **moved()))
    real = shuffle_module.RecordShuffle.recorded

    with pair_of(redis_server, tmp_path, spark) as pair:
        pair.apply(view)

        def overtaken(self: Any, *args: Any) -> Any:
            monkeypatch.undo()
            store = pair.other.online
            store.write(
                {ViewCodec("p", pair.other._project.applied()[0]).lease_key: None}
            )  # as if its time had run out
            pair.other.materialize(progress=False)
            return real(self, *args)

        monkeypatch.setattr(shuffle_module.RecordShuffle, "recorded", overtaken)
        pair.one.materialize(progress=False)
        with pytest.raises(MaterializeError, match="View 'view': another run has taken over"):
            pair.engine.materialize(progress=False)
        pair.check()
        assert pair.engine.materialize(progress=False) == []


def test_the_page_runs(spark: Any, redis_server: RedisServer, tmp_path: Path) -> None:
    _, _, example, *_ = (text for kind, text in BLOCK.findall((PAGES / "spark.md").read_text()) if kind == "python")
    view = of_moved(write(tmp_path / "rows.parquet", **moved()))
    with pair_of(redis_server, tmp_path, spark) as pair:
        pair.apply(view)
        said = {"store": pair.other, "spark": spark, "SparkEngine": SparkEngine}
        exec(compile(example, "spark.md", "exec"), said)
        assert [run.keys for run in said["runs"]] == [9]
        pair.one.materialize(progress=False)
        pair.check()


def test_what_fails_in_a_task_leaves_what_was_served(spark: Any, redis_server: RedisServer, tmp_path: Path) -> None:
    """Nobody waits for the lease of the run that failed, and the next one completes its work."""
    view = of_moved(write(tmp_path / "rows.parquet", **moved()))
    with pair_of(redis_server, tmp_path, spark) as pair:
        pair.apply(view)
        pair.clock.set(NOON - HOUR)
        pair.run()
        pair.clock.set(NOON)
        elsewhere = SparkEngine(pair.other, spark, memory_limit="no size")
        with pytest.raises(Exception, match="memory_limit"):
            elsewhere.materialize(progress=False)
        assert pair.other.status()[0].run is None
        pair.run()


def test_a_derived_key_is_refused(spark: Any, redis_server: RedisServer, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.parquet", user=[1], at=[ago(1)], x=[1.0])
    source = ParquetSource("rows", path, event_time="at", derived={"who": "user + 1"})
    view = FeatureView("view", entity=USER, source=source, key={"user": "who"}, refresh="1h", features=["x"])
    with pair_of(redis_server, tmp_path, spark) as pair:
        pair.apply(view)
        with pytest.raises(SourceError, match="its key column 'who' is derived"):
            pair.engine.materialize(progress=False)


def test_into_a_redis_cluster(spark: Any, tmp_path: Path) -> None:
    """The records of a view version, its lease and its run key lie in one slot."""
    view = of_moved(write(tmp_path / "rows.parquet", **moved()))
    with RedisCluster() as cluster:
        (tmp_path / "featurestore.toml").write_text(f'project = "p"\nonline = "{cluster.url}"\ndefinitions = []\n')
        clock = ManualClock(NOON)
        with FeatureStore(tmp_path, clock=clock) as store:
            store.apply([FeatureService("service", features=[view])])
            assert [run.keys for run in SparkEngine(store, spark).materialize(progress=False)] == [9]
            assert store.verify().ok


CONNECT = """
import sys, warnings
warnings.filterwarnings("ignore")
from pathlib import Path
from pyspark.sql import SparkSession
from tests.platforms import test_spark_materialize as suite
session = SparkSession.builder.remote("local[2]").config("spark.ui.enabled", "false").config("spark.sql.shuffle.partitions", "3").getOrCreate()
assert "connect" in type(session).__module__
with suite.RedisServer() as server:
    suite.test_a_correction_that_moves_a_row_to_another_key(session, server, Path(sys.argv[1]))
session.stop()
"""


def test_on_spark_connect(tmp_path: Path) -> None:
    """Which has no RDD and no context: what shared clusters and serverless ones give."""
    environment = {
        **os.environ,
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_TESTING": "1",  # its server takes a port that is free: another test may run one
        "PYTHONPATH": str(ROOT),
    }
    script = tmp_path / "connect.py"
    script.write_text(CONNECT)
    done = subprocess.run(
        [sys.executable, script, tmp_path], check=False, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=1800
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
