"""Apache Spark moves the rows, and every value has the bits of one machine: on executors in processes of their own, and on Connect."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal as Number
from pathlib import Path
from threading import Event, Thread
from typing import Any

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import featurestore
from featurestore import (
    ARRIVAL,
    Count,
    DataFrameSource,
    DeltaSource,
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Latest,
    ManualClock,
    Mean,
    ParquetSource,
    Sum,
)
from featurestore.engines.spark import SparkEngine
from featurestore.engines.tasks import TaskLimits, engine_of
from featurestore.errors import ConfigError, FilesChangedError, RequestError, SourceError, SpineError
from featurestore.training.manifest import load_manifest
from featurestore.types import Int64, String
from tests import golden_project
from tests.platforms.shop import BLOCK, PAGES, bits
from tests.sources import same_rows

NOON = same_rows.NOON
PANDAS = "ignore:PySpark does not yet fully support pandas:FutureWarning"
pytestmark = pytest.mark.filterwarnings(PANDAS)
"""Spark says it of pandas 3, which it does not use here."""

COUNTED = ("rows", "conflicts", "invalid_rows", "spine_rows_past_the_last_complete_instant")
USER, CITY = Entity("user", key={"user": Int64}), Entity("city", key={"city": String})
ROOT = Path(featurestore.__file__).parents[1]


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A session with two executors, each a process with Python workers of its own."""
    assert shutil.which("java"), "Spark needs Java: apt install openjdk-17-jre-headless"
    from pyspark.sql import SparkSession

    os.environ |= {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    place = tmp_path_factory.mktemp("spark")
    settings = {
        "spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false", "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1", "spark.executorEnv.PYTHONPATH": str(ROOT), "spark.executor.memory": "1g",
        "spark.sql.shuffle.partitions": "3", "spark.sql.warehouse.dir": str(place / "tables"),
        "spark.sql.session.timeZone": "Asia/Seoul", "spark.network.timeout": "600s",
    }  # fmt: skip
    builder = SparkSession.builder.master("local-cluster[2,1,1024]")
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("OFF")
    yield session
    session.stop()


def spine_of(rows: list[dict[str, Any]], **types: Any) -> pa.Table:
    """A spine whose rows are numbered by the caller, `id`, since they come back in no order."""
    spine = pa.Table.from_pylist([{"id": number, **row} for number, row in enumerate(rows)])
    for name, of in {"event_timestamp": pa.timestamp("us", "UTC"), **types}.items():
        spine = spine.set_column(spine.column_names.index(name), name, spine[name].cast(of))
    return spine


def same(
    spark: Any, store: FeatureStore, spine: pa.Table, features: Any, folder: Path, **words: Any
) -> tuple[pa.Table, int]:
    """That Spark's frame is that of one machine: its columns, each bit, and what is counted; the rows, and how many values there are."""
    asked = {word: words.pop(word) for word in ("with_status", "with_event_time", "timezone") if word in words}
    expected = store.get_historical_features(spine, features, **asked)
    frame = SparkEngine(store, spark, **words).get_historical_features(spark.createDataFrame(spine), features, **asked)
    out = folder / "out"
    manifest = frame.to_parquet(out, mode="overwrite")
    found, rows = pq.read_table(out).sort_by("id"), expected.to_arrow()
    assert found.column_names == rows.column_names
    for name in rows.column_names[spine.num_columns :]:
        assert bits(found[name].to_pylist()) == bits(rows[name].to_pylist()), name
    assert {name: manifest[name] for name in COUNTED} == {name: expected.manifest[name] for name in COUNTED}
    assert load_manifest(out).fingerprint == expected.manifest["fingerprint"]
    return found, found.num_rows * (found.num_columns - spine.num_columns)


def write(path: Path, **columns: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    times = {name for name, values in columns.items() if isinstance(values, list) and isinstance(values[0], datetime)}
    pq.write_table(
        pa.table({name: pa.array(v, pa.timestamp("us", "UTC")) if name in times else v for name, v in columns.items()}),
        path,
    )
    return str(path)


def ago(hours: float) -> datetime:
    return NOON - timedelta(hours=hours)


def test_every_type_with_statuses_and_times(spark: Any, tmp_path: Path, tell: Any) -> None:
    """NaN, -0.0, nulls, decimals, lists and derived columns; MISSING and EXPIRED, since no row is left out that says which."""
    source = same_rows.parquet(tmp_path, same_rows.ROWS, **same_rows.WORDS)
    rows = same_rows.asked().to_pylist()
    spine = spine_of([*rows, {"user": None, "event_timestamp": NOON}])
    with FeatureStore.local(clock=ManualClock(NOON + timedelta(hours=7))) as store:
        found, compared = same(
            spark, store, spine, same_rows.views(source), tmp_path, with_status=True, with_event_time=True
        )
    assert {*found["plain__wide__status"].to_pylist()} == {"PRESENT", "MISSING", "EXPIRED"}
    tell(
        "spark",
        version=f"Spark {spark.version}",
        ran="2 executors in processes of their own, and Spark Connect",
        compared=compared,
    )


def test_a_project_with_arrivals_pushes_and_functions(spark: Any, tmp_path: Path, tell: Any) -> None:
    """Rows of files that count from when the store saw them, a push log with corrections, and code of the repository, which no
    executor has."""
    expected = golden_project.copy("0.1.0", tmp_path / "golden")
    with FeatureStore(tmp_path / "golden", clock=ManualClock(datetime.fromisoformat(expected["at"]))) as store:
        spine = golden_project.spine()
        spine = spine.add_column(0, "id", pa.array(range(spine.num_rows)))
        _, compared = same(spark, store, spine, "ride_model", tmp_path, with_status=True, with_event_time=True)
        (frame,) = store.registry.frames()
        assert (frame.rows, frame.path) == (spine.num_rows, str(tmp_path / "out"))
    tell(
        "spark",
        version=f"Spark {spark.version}",
        ran="2 executors in processes of their own, and Spark Connect",
        compared=compared,
    )


def test_several_entities_and_functions_over_them(spark: Any, tmp_path: Path) -> None:
    """One shuffle for each key, the functions last; an entity without keys, whose rows go to every partition; a source by two keys."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "featurestore.toml").write_text('project = "p"\nonline = "lmdb://online"\n')
    (folder / "beside.py").write_text(
        "RATE = 3\n\n\ndef scaled(value):\n    return None if value is None else value * RATE\n"
    )
    write(
        folder / "trips.parquet",
        user=[1, 2, 1, 3],
        city=["a", "b", "b", None],
        at=[ago(3), ago(2), ago(1), ago(1)],
        x=[1.5, -0.0, 2.0, 4.0],
    )
    write(folder / "world.parquet", at=[ago(5), ago(1)], level=[1, 2])
    (folder / "definitions.py").write_text(
        "from featurestore import *\nfrom featurestore.types import Float64, Int64, String\nfrom beside import scaled\n"
        "trips = ParquetSource('trips', 'trips.parquet', event_time='at')\n"
        "world = ParquetSource('world', 'world.parquet', event_time='at')\n"
        "user, city, everything = Entity('user', key={'user': Int64}), Entity('city', key={'city': String}), Entity('everything', key={})\n"
        "users = FeatureView('users', entity=user, source=trips, refresh='1h', features={'x': Latest('x'), 'n': Count(window='1d')})\n"
        "cities = FeatureView('cities', entity=city, source=trips, refresh='1h', features={'x': Sum('x', window='1d'), 'last': Latest('user')})\n"
        "levels = FeatureView('levels', entity=everything, source=world, refresh='1h', features=['level'])\n"
        "@on_demand(inputs=[users['x'], cities['last'], Request('add', Float64), RequestTime()], output=Float64)\n"
        "def both(x, last, add, at):\n    return None if x is None or last is None else scaled(x) + last + add + at.hour\n"
        "model = FeatureService('model', features=[cities['x'], both, levels, users['n'], users.alias('friend', key={'user': 'friend'})])\n"
    )
    spine = spine_of(
        [{"user": user, "friend": 3 - number % 3, "city": city, "add": 0.5, "event_timestamp": ago(number % 4)}
         for number, (user, city) in enumerate([(1, "a"), (2, "b"), (3, None), (None, "b"), (9, "z"), (1, "b")] * 3)],
        friend=pa.int32(),
    )  # fmt: skip
    with FeatureStore(folder, clock=ManualClock(NOON)) as store:
        found, _ = same(spark, store, spine, "model", tmp_path, with_status=True, with_event_time=True)
        assert found["both"].null_count < len(found)
        with pytest.raises(
            SourceError, match=r"'world' goes to every task, since its entity has no keys.*send_bytes=10"
        ):
            SparkEngine(store, spark, send_bytes=10).get_historical_features(spark.createDataFrame(spine), "model")
        with pytest.raises(SpineError, match="no input column 'city'"):
            SparkEngine(store, spark).get_historical_features(
                spark.createDataFrame(spine.drop_columns("city")), "model"
            )


def test_a_correction_that_moves_a_row_to_another_key(spark: Any, tmp_path: Path) -> None:
    """Partitioned by key alone the old key would keep the row that was replaced."""
    number = 60
    rows = {
        "row": [*range(number), *range(number), 500, None],
        "user": [n % 9 for n in range(number)]
        + [None if n % 10 == 0 else (n + 1 + n % 3) % 9 for n in range(number)]
        + [3, 4],
        "at": [ago(9)] * number + [ago(8)] * number + [ago(7)] * 2,
        "seen": [ago(6)] * number + [ago(2)] * number + [ago(5)] * 2,
        "gone": [False] * number + [n % 7 == 0 for n in range(number)] + [False] * 2,
        "x": [float(n) for n in range(2 * number + 2)],
    }
    path = write(
        tmp_path / "rows.parquet",
        **{**rows, "row": pa.array(rows["row"], pa.int64()), "user": pa.array(rows["user"], pa.int64())},
    )
    source = ParquetSource("rows", path, event_time="at", known_at="seen", identity="row", deleted="gone")
    views = [
        FeatureView(
            "view",
            entity=USER,
            source=source,
            refresh="1h",
            features={"x": Latest("x"), "n": Count(window="2d"), "sum": Sum("x", window="2d")},
        )
    ]
    spine = spine_of([{"user": user, "event_timestamp": ago(at)} for user in [*range(10), None] for at in (0, 3, 7)])
    with FeatureStore.local(clock=ManualClock(NOON)) as store:
        found, _ = same(spark, store, spine, views, tmp_path, with_status=True, partitions=5)
    assert len({*found["view__n"].to_pylist()}) > 3


def test_null_keys_are_spread_and_a_hot_key_is_answered(spark: Any, tmp_path: Path) -> None:
    """Rows without a key meet nothing, and so need not be in one partition; those of one key are, within the memory of a task."""
    count = 20_000
    path = write(
        tmp_path / "rows.parquet",
        user=[7] * count,
        at=[NOON - timedelta(seconds=n) for n in range(count)],
        x=[float(n) for n in range(count)],
    )
    view = FeatureView(
        "view",
        entity=USER,
        source=ParquetSource("rows", path, event_time="at"),
        refresh="1h",
        features={"x": Latest("x"), "m": Mean("x", window="1h")},
    )
    spine = spine_of(
        [{"user": [7, None, 8][n % 3], "event_timestamp": NOON - timedelta(seconds=n)} for n in range(3_000)]
    )
    with FeatureStore.local(clock=ManualClock(NOON)) as store:
        same(spark, store, spine, [view], tmp_path, memory_limit="100MB", partitions=4)
        from pyspark.sql import functions as f

        frame = (
            SparkEngine(store, spark, partitions=4)
            .get_historical_features(spark.createDataFrame(spine), [view])
            .dataframe
        )
        places = frame.where("user IS NULL").select(f.spark_partition_id().alias("p")).distinct().collect()
        assert len(places) == 4


TYPES: dict[str, Any] = {
    "i8": pa.array([1, -128], pa.int8()), "u8": pa.array([200, None], pa.uint8()), "i16": pa.array([1, None], pa.int16()),
    "u16": pa.array([65_535, 0], pa.uint16()), "i32": pa.array([1, None], pa.int32()), "u32": pa.array([4_000_000_000, 1], pa.uint32()),
    "i64": pa.array([2**62, None]), "u64": pa.array([2**63 - 1, 1], pa.uint64()), "f32": pa.array([0.1, -0.0], pa.float32()),
    "f64": pa.array([-0.0, float("nan")]), "flag": pa.array([True, None]), "text": pa.array(["한", ""]), "large": pa.array(["x", None], pa.large_string()),
    "bytes": pa.array([b"x", b""]), "fixed": pa.array([b"abcd", None], pa.binary(4)), "day": pa.array([date(1500, 1, 1), date(2026, 1, 1)]),
    "zoned": pa.array([datetime(1500, 1, 1, 3, tzinfo=UTC), NOON], pa.timestamp("us", "UTC")), "naive": pa.array([datetime(2026, 1, 1, 3), None], pa.timestamp("us")),
    "millis": pa.array([NOON, None], pa.timestamp("ms", "UTC")), "few": pa.array([Number("1.23"), None], pa.decimal128(9, 2)),
    "many": pa.array([Number("1.23"), None], pa.decimal128(38, 2)), "list": pa.array([[1, None], []]), "floats": pa.array([[0.5], None], pa.list_(pa.float32())),
    "coded": pa.array(["x", "y"]).dictionary_encode(),
}  # fmt: skip
CHANGED: dict[str, tuple[Any, str]] = {
    "nanos": (pa.array([1, 2], pa.int64()).cast(pa.timestamp("ns", "UTC")), "Spark"),
    "half": (pa.array([1.5, 2.5]).cast(pa.float16()), "Spark cannot read"),
    "bytes_of_lists": (pa.array([[200], [1]], pa.list_(pa.uint8())), r"column 'v' comes as .*INTEGER\[\]|column 'v' comes as .*SMALLINT\[\].* and is .*UTINYINT\[\]"),
}  # fmt: skip


def test_types_that_spark_has(spark: Any, tmp_path: Path) -> None:
    """Whatever Spark reads as another type goes back to the file's own, where that is exact."""
    path = write(tmp_path / "rows.parquet", user=[1, 2], at=[ago(1)] * 2, **TYPES)
    view = FeatureView(
        "view", entity=USER, source=ParquetSource("rows", path, event_time="at"), refresh="1h", features=list(TYPES)
    )
    spine = spine_of([{"user": user, "event_timestamp": NOON} for user in (1, 2, 3)])
    with FeatureStore.local(clock=ManualClock(NOON)) as store:
        same(spark, store, spine, [view], tmp_path)


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
        same(spark, store, spine, [view], tmp_path)
    (file, *_) = (tmp_path / "out").glob("*.parquet")
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
        found, _ = same(spark, store, spine, [view], tmp_path, with_status=True)
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


def test_rows_of_a_delta_table_count_from_their_commits(spark: Any, tmp_path: Path) -> None:
    """As they do on one machine, also of a table that nobody has looked at before."""
    before = datetime.now(UTC) - timedelta(hours=1)
    rows = pa.table({"user": [1, 2], "at": pa.array([before] * 2, pa.timestamp("us", "UTC")), "x": [1.5, None]})
    deltalake.write_deltalake(tmp_path / "rows", rows)
    deltalake.write_deltalake(tmp_path / "rows", rows.slice(0, 1), mode="append")
    source = DeltaSource("rows", tmp_path / "rows", event_time="at", known_at=ARRIVAL)
    view = FeatureView(
        "view", entity=USER, source=source, refresh="continuous", features={"x": Latest("x"), "n": Count(window="2d")}
    )
    instants = [before + timedelta(minutes=30), before + timedelta(hours=2)]
    asked = [{"user": user, "event_timestamp": at} for user in (1, 2, 3) for at in instants]
    with FeatureStore.local(clock=ManualClock(before + timedelta(days=1))) as store:
        found, _ = same(spark, store, spine_of(asked), [view], tmp_path, with_status=True)
    assert found["view__n"].to_pylist() == [None, 2, None, 1, None, None]


def test_executors_with_other_versions_are_refused(spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "rows.parquet", user=[1], at=[ago(1)], x=[1.0])
    view = FeatureView(
        "view", entity=USER, source=ParquetSource("rows", path, event_time="at"), refresh="1h", features=["x"]
    )
    from featurestore.engines.spark import shuffle as module

    known = module.library_versions()
    monkeypatch.setattr(module, "library_versions", lambda: {**known, "duckdb": "1.0.0"})
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
        same(spark, store, spine_of([{"user": 1, "event_timestamp": NOON}]).slice(1), [view], tmp_path)


def test_the_page_runs(spark: Any, tmp_path: Path) -> None:
    (example,) = (text for kind, text in BLOCK.findall((PAGES / "spark.md").read_text()) if kind == "python")
    path = write(tmp_path / "rows.parquet", user=[1], at=[ago(1)], x=[1.0])
    view = FeatureView(
        "view", entity=USER, source=ParquetSource("rows", path, event_time="at"), refresh="1h", features=["x"]
    )
    spine = spark.createDataFrame(spine_of([{"user": user, "event_timestamp": NOON} for user in (1, 2)]))
    with FeatureStore.local(clock=ManualClock(NOON)) as store:
        store.apply([FeatureService("ranking", features=[view])])
        said = {"store": store, "spark": spark, "spine": spine, "folder": tmp_path}
        exec(compile(example, "spark.md", "exec"), said)
    assert said["manifest"]["rows"] == 2
    assert pq.read_table(tmp_path / "trained").sort_by("id")["view__x"].to_pylist() == [1.0, None]


def executors() -> list[int]:
    """The processes of this process's executors."""
    found, parents = [], {}
    for folder in (path.name for path in Path("/proc").iterdir() if path.name.isdigit()):
        try:
            parents[int(folder)] = int(Path(f"/proc/{folder}/stat").read_text().rpartition(")")[2].split()[1])
            command = Path(f"/proc/{folder}/cmdline").read_text()
        except OSError:
            continue
        if "CoarseGrainedExecutorBackend" in command and "java" in command.partition("\0")[0]:
            found.append(int(folder))
    return [one for one in found if parents.get(parents.get(one, 0)) == os.getpid()]


def test_an_executor_that_is_killed_changes_nothing(spark: Any, tmp_path: Path) -> None:
    """Its tasks and what it had shuffled are done again: the same bits, and each partition counted once."""
    count = 60_000
    path = write(
        tmp_path / "rows.parquet", user=[n % 500 for n in range(count)], row=list(range(count)), at=[NOON - timedelta(seconds=n) for n in range(count)],
        seen=[NOON - timedelta(seconds=n - 60) for n in range(count)], x=[n / 7 for n in range(count)],
    )  # fmt: skip
    source = ParquetSource("rows", path, event_time="at", known_at="seen", identity="row")
    view = FeatureView(
        "view", entity=USER, source=source, refresh="1h", features={"x": Latest("x"), "m": Mean("x", window="1d")}
    )
    spine = spine_of([{"user": n % 600, "event_timestamp": NOON - timedelta(seconds=n)} for n in range(5_000)])
    killed: list[int] = []
    done = Event()

    def kill() -> None:
        tracker = spark.sparkContext.statusTracker()
        while not done.wait(0.05) and not killed:
            if tracker.getActiveStageIds() and len(executors()) == 2:
                victim = executors()[0]
                os.kill(victim, signal.SIGKILL)
                killed.append(victim)

    with FeatureStore.local(clock=ManualClock(NOON)) as store:
        expected = store.get_historical_features(spine, [view])
        frame = SparkEngine(store, spark, partitions=6).get_historical_features(spark.createDataFrame(spine), [view])
        killer = Thread(target=kill)
        killer.start()
        try:
            manifest = frame.to_parquet(tmp_path / "out")
        finally:
            done.set()
            killer.join()
    assert killed
    found, rows = pq.read_table(tmp_path / "out").sort_by("id"), expected.to_arrow()
    for name in ("view__x", "view__m"):
        assert bits(found[name].to_pylist()) == bits(rows[name].to_pylist()), name
    assert {name: manifest[name] for name in COUNTED} == {name: expected.manifest[name] for name in COUNTED}


def test_a_task_takes_no_more_than_it_is_told(tmp_path: Path) -> None:
    limits = TaskLimits(threads=1, memory_limit="100MB", spill=str(tmp_path))
    with engine_of(limits, None) as offline, offline.session() as session:
        said = "SELECT current_setting('threads'), current_setting('memory_limit'), current_setting('temp_directory')"
        threads, memory, place = session.connection.execute(said).fetchall()[0]
    assert (threads, memory) == (1, "95.3 MiB")
    assert Path(place).is_relative_to(tmp_path)


CONNECT = """
import os, sys, warnings
warnings.filterwarnings("ignore")
from pathlib import Path
from pyspark.sql import SparkSession
from tests.platforms import test_spark as suite
session = SparkSession.builder.remote("local[2]").config("spark.ui.enabled", "false").config("spark.sql.shuffle.partitions", "3").getOrCreate()
assert "connect" in type(session).__module__
suite.test_a_correction_that_moves_a_row_to_another_key(session, Path(sys.argv[1]))
told = []
suite.test_every_type_with_statuses_and_times(session, Path(sys.argv[1]), lambda *a, **w: told.append(w["compared"]))
print("compared", told[0])
session.stop()
"""


def test_on_spark_connect(tmp_path: Path, tell: Any) -> None:
    """Which has no RDD and no context: what shared clusters and serverless ones give."""
    import pyspark

    environment = {
        **os.environ,
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
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
