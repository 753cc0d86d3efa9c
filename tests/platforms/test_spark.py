"""Apache Spark moves the rows, and every value has the bits of one machine: on executors in processes of their own, and on Connect."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

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
    ParquetSource,
)
from featurestore.engines.spark import SparkEngine
from featurestore.engines.tasks import TaskLimits, engine_of
from featurestore.errors import ConfigError, FilesChangedError, RequestError, SourceError, SpineError
from featurestore.training.manifest import library_versions
from featurestore.types import Int64
from tests.platforms.clusters import PANDAS, ROOT, spark_session
from tests.platforms.engine_kinds import NOON, ago, of_spark, spine_of, write
from tests.platforms.shop import BLOCK, PAGES

pytestmark = pytest.mark.filterwarnings(PANDAS)
USER = Entity("user", key={"user": Int64})


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A session with two executors."""
    with spark_session(tmp_path_factory.mktemp("spark")) as session:
        yield session


CHANGED: dict[str, tuple[Any, str]] = {
    "nanos": (pa.array([1, 2], pa.int64()).cast(pa.timestamp("ns", "UTC")), "Spark"),
    "half": (pa.array([1.5, 2.5]).cast(pa.float16()), "Spark cannot read"),
    "bytes_of_lists": (pa.array([[200], [1]], pa.list_(pa.uint8())), r"column 'v' comes as .*INTEGER\[\]|column 'v' comes as .*SMALLINT\[\].* and is .*UTINYINT\[\]"),
}  # fmt: skip


@pytest.mark.parametrize("kind", CHANGED)
def test_types_that_spark_changes_are_refused(kind: str, spark: Any, tmp_path: Path) -> None:
    values, said = CHANGED[kind]
    path = write(tmp_path / "rows.parquet", user=[1, 2], at=[ago(1)] * 2, v=values)
    view = FeatureView(
        "view", entity=USER, source=ParquetSource("rows", path, event_time="at"), refresh="1h", features=["v"]
    )
    spine = spark.createDataFrame(spine_of([{"user": 1, "event_timestamp": NOON}]))
    with FeatureStore.local(clock=ManualClock(NOON)) as store, pytest.raises(SourceError, match=said):
        SparkEngine(store, spark).get_historical_features(spine, [view])


def test_instants_of_96_bits_are_refused_and_none_is_written(spark: Any, tmp_path: Path) -> None:
    """Files of old hold naive ns in them, which Spark reads as instants of µs."""
    rows = pa.table({"user": [1], "at": pa.array([ago(1)], pa.timestamp("us")), "x": [1.0]})
    pq.write_table(rows, tmp_path / "rows.parquet", use_deprecated_int96_timestamps=True)
    view = FeatureView(
        "view",
        entity=USER,
        source=ParquetSource("rows", tmp_path / "rows.parquet", event_time="at"),
        refresh="1h",
        features=["x"],
    )
    spine = spine_of([{"user": 1, "event_timestamp": NOON}])
    with FeatureStore.local(clock=ManualClock(NOON)) as store:
        with pytest.raises(
            SourceError,
            match=r"column 'at' comes as Timestamp \(TIMESTAMP WITH TIME ZONE\), and is Timestamp \(TIMESTAMP",
        ):
            SparkEngine(store, spark).get_historical_features(spark.createDataFrame(spine), [view])
        path = write(tmp_path / "rows.parquet", user=[1], at=[ago(1)], x=[1.0])
        view = FeatureView(
            "view", entity=USER, source=ParquetSource("rows", path, event_time="at"), refresh="1h", features=["x", "at"]
        )
        of_spark(spark).same(store, spine, [view], tmp_path)
    (file, *_) = (tmp_path / "out0").glob("*.parquet")
    assert "INT96" not in {pq.read_metadata(file).schema.column(n).physical_type for n in range(5)}
    assert spark.conf.get("spark.sql.parquet.outputTimestampType") == "INT96"


def test_files_are_those_that_were_listed(spark: Any, tmp_path: Path) -> None:
    """Files of a source differ in their columns, and lie in folders that are columns; one that lands is not read, and one that was
    changed is told of. Rows count from when their file came."""
    folder = tmp_path / "da[t]a *{x}"
    write(folder / "day=1" / "a b.parquet", user=[1], at=[ago(9)], x=pa.array([1], pa.int32()))
    write(folder / "day=2" / "b%20.parquet", user=[1], at=[ago(8)], x=pa.array([2**40]), y=["y"])
    source = ParquetSource("rows", folder, event_time="at", known_at=ARRIVAL, optional="y", partitions={"day": Int64})
    view = FeatureView(
        "view",
        entity=USER,
        source=source,
        refresh="continuous",
        features={"x": Latest("x", type=Int64), "y": Latest("y"), "day": Latest("day"), "n": Count(window="2d")},
    )
    clock = ManualClock(ago(5))
    spine = spine_of([{"user": user, "event_timestamp": ago(at)} for user in (1, 2) for at in (0, 4, 6)])
    with FeatureStore.local(clock=clock) as store:
        store.apply([view])
        store.materialize(progress=False)
        clock.set(ago(1))
        write(folder / "day=3" / "c.parquet", user=[2], at=[ago(8)], x=pa.array([3]), y=["z"])
        found, _ = of_spark(spark).same(store, spine, [view], tmp_path, with_status=True)
        assert found["view__n"].to_pylist()[:3] == [2, 2, None]
        frame = SparkEngine(store, spark).get_historical_features(spark.createDataFrame(spine), [view])
        write(folder / "day=4" / "d.parquet", user=[1, 2], at=[ago(2)] * 2, x=pa.array([3, 4]))
        assert frame.to_parquet(tmp_path / "before")["rows"] == 6
        counted = pq.read_table(tmp_path / "before").sort_by("id")["view__n"].to_pylist()
        assert counted == found["view__n"].to_pylist()
        write(
            folder / "day=1" / "a b.parquet",
            user=[1],
            at=[ago(7)],
            x=pa.array(
                [
                    5,
                ][:1],
                pa.int32(),
            ),
            z=[1],
        )
        with pytest.raises(FilesChangedError):
            frame.to_parquet(tmp_path / "after")


def test_executors_with_other_versions_are_refused(spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "rows.parquet", user=[1], at=[ago(1)], x=[1.0])
    view = FeatureView(
        "view", entity=USER, source=ParquetSource("rows", path, event_time="at"), refresh="1h", features=["x"]
    )
    known = library_versions()
    monkeypatch.setattr("featurestore.engines.spark.shuffle.library_versions", lambda: {**known, "duckdb": "1.0.0"})
    with FeatureStore.local(clock=ManualClock(NOON)) as store:
        frame = SparkEngine(store, spark).get_historical_features(
            spark.createDataFrame(spine_of([{"user": 1, "event_timestamp": NOON}])), [view]
        )
        with pytest.raises(Exception, match=rf"A node has duckdb {known['duckdb']}, and the driver has 1.0.0"):
            frame.dataframe.collect()


def test_what_cannot_be_asked_of_spark_is_refused(spark: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.parquet", user=[1], at=[ago(1)], x=[1.0])
    source = ParquetSource("rows", path, event_time="at", known_at="at", derived={"who": "user + 1"}, identity="who")
    spine = spark.createDataFrame(spine_of([{"user": 1, "event_timestamp": NOON}]))
    with FeatureStore.local(clock=ManualClock(NOON)) as store:
        by_derived = FeatureView("view", entity=USER, source=source, key={"user": "who"}, refresh="1h", features=["x"])
        with pytest.raises(SourceError, match="its key column 'who' is derived"):
            SparkEngine(store, spark).get_historical_features(spine, [by_derived])
        named_so = FeatureView("view", entity=USER, source=source, refresh="1h", features=["x"])
        with pytest.raises(SourceError, match="its identity column 'who' is derived"):
            SparkEngine(store, spark).get_historical_features(spine, [named_so])
        with pytest.raises(SpineError, match=r"Table is no spine of Spark's; pass a Spark DataFrame"):
            SparkEngine(store, spark).get_historical_features(pa.table({"user": [1]}), [named_so])
        with pytest.raises(ConfigError, match="session is a SparkSession"):
            SparkEngine(store, "spark")


def view_in(folder: Path) -> FeatureView:
    """A view over two rows of two users."""
    path = write(folder / "rows.parquet", user=[1, 2], at=[ago(1)] * 2, x=[1.0, 2.0])
    return FeatureView(
        "view", entity=USER, source=ParquetSource("rows", path, event_time="at"), refresh="1h", features=["x"]
    )


@pytest.mark.parametrize("key", ["user", "CAST(NULL AS BIGINT)"])
def test_columns_of_a_spine_come_back_whatever_their_type(spark: Any, tmp_path: Path, key: str) -> None:
    """Those that Spark has no hash of, and those that it says are never null, also in rows without a key."""
    columns = {
        "struct": "named_struct('a', 1, 'b', named_struct('c', 2))",
        "structs": "array(named_struct('a', id))",
        "map": "map('a', id)",
        "variant": "parse_json('[1]')",
        "void": "NULL",
        "a b`.c": "id",
        "__salt": "id",
    }
    selected = ", ".join(f"{sql} AS `{name.replace('`', '``')}`" for name, sql in columns.items())
    spine = spark.createDataFrame(spine_of([{"user": n, "event_timestamp": NOON} for n in (1, 2)]))
    spine.createOrReplaceTempView("spine_of_types")
    spine = spark.sql(f"SELECT id, {key} AS user, event_timestamp, {selected} FROM spine_of_types")
    with FeatureStore.local(clock=ManualClock(NOON)) as store:
        found = SparkEngine(store, spark).get_historical_features(spine, [view_in(tmp_path)]).dataframe
        assert found.columns == [*spine.columns, "view__x"]
        assert [found.schema[name].dataType for name in columns] == [spine.schema[name].dataType for name in columns]
        values = [row.view__x for row in found.orderBy("id").collect()]
        assert values == ([1.0, 2.0] if key == "user" else [None, None])
        kept = [name for name in columns if name != "variant"]
        shown = [repr([row[name] for name in kept]) for row in found.orderBy("id").collect()]
        assert shown == [repr([row[name] for name in kept]) for row in spine.orderBy("id").collect()]


def test_what_is_wrong_with_a_spine_shows_before_anything_runs(spark: Any, tmp_path: Path) -> None:
    """As SpineError of this process: an error of an executor comes as its stack, when the frame is written."""
    from pyspark.sql import functions as f

    spine = spark.createDataFrame(spine_of([{"user": 1, "event_timestamp": NOON}]))
    with FeatureStore.local(clock=ManualClock(NOON)) as store:
        engine, view = SparkEngine(store, spark), view_in(tmp_path)
        for odd, said in {
            "text": r"Spine column 'user' is String .*must be Int64; text is never taken",
            "list": r"Spine column 'user' is Array\(Int64\)",
            "fraction": r"Spine column 'user' is Float64 .*a number with a fraction is no key",
        }.items():
            column = {"text": f.lit("1"), "list": f.array(f.col("user")), "fraction": f.lit(1.0)}[odd]
            with pytest.raises(SpineError, match=said):
                engine.get_historical_features(spine.withColumn("user", column), [view])
        for name in ("__counts", "__COUNTS"):
            with pytest.raises(SpineError, match=f"a column '{name}', which is a name of the engine's own"):
                engine.get_historical_features(spine.withColumn(name, f.lit(1)), [view])
        twin = spine.withColumn("VIEW__X", f.lit(1))
        with pytest.raises(SpineError, match="columns 'VIEW__X' and 'view__x', which this Spark session takes for one"):
            engine.get_historical_features(twin, [view])
        spark.conf.set("spark.sql.caseSensitive", "true")
        try:
            (row,) = engine.get_historical_features(twin, [view]).dataframe.collect()
            assert (row["VIEW__X"], row["view__x"]) == (1, 1.0)
        finally:
            spark.conf.unset("spark.sql.caseSensitive")


def test_columns_of_a_source_that_differ_by_capitals(spark: Any, tmp_path: Path) -> None:
    """Nobody uses them, but Spark opens no such file: the error says what to set, and then it does."""
    path = write(tmp_path / "rows.parquet", user=[1], at=[ago(1)], x=[1.0], q=[1], Q=[2])
    source = ParquetSource("rows", path, event_time="at")
    view = FeatureView("view", entity=USER, source=source, refresh="1h", features=["x"])
    spine = spark.createDataFrame(spine_of([{"user": 1, "event_timestamp": NOON}]))
    with FeatureStore.local(clock=ManualClock(NOON)) as store:
        engine = SparkEngine(store, spark)
        with pytest.raises(SourceError, match=r"rows'.*set spark.sql.caseSensitive to true"):
            engine.get_historical_features(spine, [view])
        spark.conf.set("spark.sql.caseSensitive", "true")
        try:
            (row,) = engine.get_historical_features(spine, [view]).dataframe.collect()
            assert row["view__x"] == 1.0
        finally:
            spark.conf.unset("spark.sql.caseSensitive")


def test_a_frame_may_be_a_table(spark: Any, tmp_path: Path) -> None:
    """The spine as files, a source that is a frame, the result in the catalog."""
    frame = DataFrameSource(
        "rows",
        pa.table({"user": [1, 2], "at": pa.array([ago(1)] * 2, pa.timestamp("us", "UTC")), "x": [0.1, None]}),
        event_time="at",
    )
    view = FeatureView("view", entity=USER, source=frame, refresh="1h", features=["x"])
    pq.write_table(spine_of([{"user": n, "event_timestamp": NOON} for n in (1, 2, 3)]), tmp_path / "spine.parquet")
    with FeatureStore.local(clock=ManualClock(NOON)) as store:
        made = SparkEngine(store, spark).get_historical_features(tmp_path / "spine.parquet", [view])
        assert made.to_table("trained", mode="overwrite")["rows"] == 3
        assert [row.view__x for row in spark.table("trained").orderBy("id").collect()] == [0.1, None, None]
        with pytest.raises(RequestError, match="mode is 'errorifexists' or 'overwrite' or 'append', and not 'ignore'"):
            made.to_table("trained", mode="ignore")
        of_spark(spark).same(store, spine_of([{"user": 1, "event_timestamp": NOON}]).slice(1), [view], tmp_path)


def test_a_dataframe_is_no_spine_of_this_process_and_the_error_says_whose(spark: Any) -> None:
    """Its Arrow stream would bring all rows here; whoever wants that says so."""
    spine = spark.createDataFrame(spine_of([{"user": 1, "event_timestamp": NOON}]))
    frame = DataFrameSource("rows", pa.table({"user": [1], "x": [1.0]}), event_time=None)
    view = FeatureView("view", entity=USER, source=frame, refresh="1h", features=["x"])
    with FeatureStore.local(clock=ManualClock(NOON)) as store:
        with pytest.raises(
            SpineError, match=r"SparkEngine\(store, spine.sparkSession\)\.get_historical_features answers it"
        ):
            store.get_historical_features(spine, [view])
        assert store.get_historical_features(spine.toArrow(), [view]).to_arrow()["view__x"].to_pylist() == [1.0]


def test_the_page_runs(spark: Any, tmp_path: Path) -> None:
    frame, snapshot, _, audit, whole = (
        text for kind, text in BLOCK.findall((PAGES / "spark.md").read_text()) if kind == "python"
    )
    path = write(tmp_path / "rows.parquet", user=[1], at=[ago(1)], x=[1.0])
    view = FeatureView(
        "view", entity=USER, source=ParquetSource("rows", path, event_time="at"), refresh="1h", features=["x"]
    )
    spine = spark.createDataFrame(spine_of([{"user": user, "event_timestamp": NOON} for user in (1, 2)]))
    with FeatureStore.local(clock=ManualClock(NOON)) as store:
        store.apply([FeatureService("ranking", features=[view])])
        said = {"store": store, "spark": spark, "spine": spine, "folder": tmp_path, "instants": [NOON, ago(2)]}
        exec(compile(frame, "spark.md", "exec"), said)
        assert said["manifest"]["rows"] == 2
        exec(compile(snapshot + audit, "spark.md", "exec"), said)
        assert said["report"].compared == 0
    assert pq.read_table(tmp_path / "everyone").num_rows == said["manifest"]["rows"] == 2
    assert pq.read_table(tmp_path / "trained").sort_by("id")["view__x"].to_pylist() == [1.0, None]
    exec(compile(whole, "spark.md", "exec"), {})


def test_a_task_takes_no_more_than_it_is_told(tmp_path: Path) -> None:
    limits = TaskLimits(threads=1, memory_limit="100MB", spill=str(tmp_path))
    with engine_of(limits, None) as offline, offline.session() as session:
        said = "SELECT current_setting('threads'), current_setting('memory_limit'), current_setting('temp_directory')"
        threads, memory, place = session.connection.execute(said).fetchall()[0]
    assert (threads, memory) == (1, "95.3 MiB")
    assert Path(place).is_relative_to(tmp_path)


def test_rows_without_a_key_are_spread(spark: Any, tmp_path: Path) -> None:
    """They meet no other row, and so need not be in one partition."""
    path = write(tmp_path / "rows.parquet", user=[7], at=[ago(1)], x=[1.0])
    view = FeatureView(
        "view", entity=USER, source=ParquetSource("rows", path, event_time="at"), refresh="1h", features=["x"]
    )
    spine = spine_of([{"user": None, "event_timestamp": NOON}] * 1_000, user=pa.int64())
    with FeatureStore.local(clock=ManualClock(NOON)) as store:
        from pyspark.sql import functions as f

        engine = SparkEngine(store, spark, partitions=4)
        frame = engine.get_historical_features(spark.createDataFrame(spine), [view]).dataframe
        places = frame.select(f.spark_partition_id().alias("p")).distinct().collect()
    assert len(places) == 4


CONNECT = """
import os, sys, warnings
warnings.filterwarnings("ignore")
from pathlib import Path
from pyspark.sql import SparkSession
from tests.platforms import test_engines as suite
from tests.platforms.engine_kinds import of_spark
session = SparkSession.builder.remote("local[2]").config("spark.ui.enabled", "false").config("spark.sql.shuffle.partitions", "3").getOrCreate()
assert "connect" in type(session).__module__
suite.test_a_correction_that_moves_a_row_to_another_key(of_spark(session), Path(sys.argv[1]))
told = []
suite.test_every_type_with_statuses_and_times(of_spark(session), Path(sys.argv[1]), lambda *a, **w: told.append(w["compared"]))
suite.test_snapshots(of_spark(session), Path(sys.argv[1]), lambda *a, **w: told.append(w["compared"]))
Path(sys.argv[1], "audited").mkdir()
with suite.pytest.MonkeyPatch.context() as patch:
    suite.test_audit(of_spark(session), Path(sys.argv[1], "audited"), lambda *a, **w: told.append(w["compared"]), patch)
print("compared", sum(told))
session.stop()
"""


def test_on_spark_connect(tmp_path: Path, tell: Any) -> None:
    """Which has no RDD and no context: what shared clusters and serverless ones give."""
    import pyspark

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
        [sys.executable, script, tmp_path],
        check=False,
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    compared = int(done.stdout.rpartition("compared ")[2])
    tell(
        "spark",
        version=f"Spark {pyspark.__version__}",
        ran="2 executors in processes of their own, and Spark Connect",
        compared=compared,
    )
