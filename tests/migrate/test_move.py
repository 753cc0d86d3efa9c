"""Feast's views, entities, sources and services as definitions of ours: what is written loads, and says what differs."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from featurestore import FeatureView
from featurestore.errors import ConfigError
from featurestore.migrate.feast_objects import feast_objects
from tests.migrate.feast_records import (
    TIMES,
    Repository,
    entity,
    formatter,
    matters,
    projection,
    reasons,
    rows,
    service,
    source,
    told,
    view,
)
from tests.small import hours

DRIVER = entity("driver")
LOADED = pa.array([hours(30)] * 6, pa.timestamp("us", "UTC"))


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def test_a_view_of_files_is_written_as_one_would_write_it(repository: Repository) -> None:
    """Types that the data has need not be said; a wider one that Feast declares is."""
    rows(repository.feast, created=LOADED)
    stats = view("stats", {"rate": "Float64", "trips": "Int64"}, "driver", batch=source(created="created"))
    moved = repository.move(
        entities=[DRIVER], views=[stats, view("trips", {"trips": "Int64"}, "driver", ttl_seconds=0.0)],
        services=[service("model", projection("stats", "trips", "rate"), projection("trips", "trips"), logged=0.5)],
    )  # fmt: skip
    assert repository.definitions == (
        '"""What Feast\'s project shop declared, written by featurestore import-feast; README.md tells what differs."""\n'
        "\n"
        "from featurestore import Entity, FeatureService, FeatureView, Latest, ParquetSource\n"
        "from featurestore.types import Float64, Int64\n"
        "\n"
        'driver = Entity("driver", key={"driver_id": Int64})\n'
        "\n"
        'rows = ParquetSource("rows", "../feast/data/rows.parquet", event_time="at", tiebreak="created")\n'
        'rows_2 = ParquetSource("rows_2", "../feast/data/rows.parquet", event_time="at")\n'
        "\n"
        "stats = FeatureView(\n"
        '    "stats",\n'
        "    entity=driver,\n"
        "    source=rows,\n"
        '    refresh="1h",\n'
        '    ttl="1d",\n'
        '    features={"rate": Latest("rate", type=Float64), "trips": Latest("trips")},\n'
        ")\n"
        'trips = FeatureView("trips", entity=driver, source=rows_2, refresh="1h", features=["trips"])\n'
        "\n"
        'model = FeatureService("model", features=[stats[["trips", "rate"]], trips])\n'
    )
    assert moved.refused == []
    with repository.opened() as store:
        assert store.config.serving_log.rates == {"model": 0.5}
        store.apply()
        assert [run.view for run in store.materialize(progress=False)] == ["stats", "trips"]
        found = store.get_online_features([{"driver_id": 1}], "model").to_dict()
    assert found == {"driver_id": [1], "stats__trips": [5], "stats__rate": [1.0], "trips__trips": [5]}


def test_what_is_written_is_formatted(repository: Repository) -> None:
    """As ruff would: long names, long lists, descriptions."""
    columns = {f"a_feature_with_a_rather_long_name_{n}": pa.array(range(6)) for n in range(9)}
    rows(repository.feast, words=pa.array([{"a": 1, "b": "x"}] * 6), **columns)
    of = {**dict.fromkeys(columns, "Int64"), "words": "Map", "rate": "Float32"}
    stats = view("stats", of, "driver", description='says "no" to nobody\'s', tags={"team": "drivers", "tier": "1"})
    moved = repository.move(
        entities=[DRIVER], views=[stats, view("few", {"rate": "Float32"}, "driver", stream={"name": "pushed", "kind": "PushSource"})],
        services=[service("whole", projection("stats", *of)), service("part", projection("stats", *list(columns)[:5]))],
    )  # fmt: skip
    assert moved.refused == []
    line = [*formatter(), "format", "--check", "--diff", "--line-length", "120", "definitions.py"]
    done = subprocess.run(line, cwd=repository.out, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    line = [
        *formatter(),
        "check",
        "--isolated",
        "--select",
        "E,F,I",
        "--ignore",
        "E501",
        "--line-length",
        "120",
        "definitions.py",
    ]
    done = subprocess.run(line, cwd=repository.out, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    with repository.opened() as store:
        assert list(store.catalog.views) == ["stats", "few"]


# --- times --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("created", "said", "why"),
    [
        ([hours(30)] * 6, {"tiebreak": ("created",), "known_at": None}, "one minute"),
        ([hours(30), hours(31), hours(32)] * 2, {"tiebreak": ("created",), "known_at": None}, "3 loads"),
        ([hours(n // 2 - 1 + n / 60) for n in range(6)], {"tiebreak": ("created",), "known_at": None}, "before they happened"),
        ([None, *(hours(n) for n in range(5))], {"tiebreak": ("created",), "known_at": None}, "1 of 6 rows have none"),
        ([hours(n // 2 + 0.05 + n / 30) for n in range(6)], {"tiebreak": (), "known_at": "created"}, "6 rows came in 6 minutes"),
    ],
)  # fmt: skip
def test_created_is_a_tiebreak_or_an_arrival_as_the_data_says(
    repository: Repository, created: list[Any], said: dict[str, Any], why: str
) -> None:
    rows(repository.feast, created=pa.array(created, pa.timestamp("us", "UTC")))
    moved = repository.move(
        entities=[DRIVER], views=[view("stats", {"trips": "Int64"}, "driver", batch=source(created="created"))]
    )
    (told_why,) = [one.why for one in moved.differences if one.matter == "created"]
    assert why in told_why
    with repository.opened() as store:
        declared = store.catalog.sources["rows"]
        assert {option: getattr(declared, option) for option in said} == said


def test_a_history_that_was_loaded_before_rows_came_is_told_apart(repository: Repository) -> None:
    """Rows of the load count when they would have been known."""
    at = pa.array([hours(-n) for n in range(20)] + [hours(n) for n in range(1, 21)], pa.timestamp("us", "UTC"))
    created = pa.array([hours(0.5)] * 20 + [hours(n + 0.1) for n in range(1, 21)], pa.timestamp("us", "UTC"))
    plain = {"driver_id": pa.array([1] * 40), "at": at, "created": created, "trips": pa.array(range(40)), "rate": None}
    rows(repository.feast, **plain)
    repository.move(
        entities=[DRIVER], views=[view("stats", {"trips": "Int64"}, "driver", batch=source(created="created"))]
    )
    with repository.opened() as store:
        declared = store.catalog.sources["rows"]
    assert (declared.known_at, declared.history_until, declared.known_after) == (
        "created",
        hours(0.5) + (hours(1 / 60) - hours(0)),
        360_000_000,
    )


@pytest.mark.parametrize(
    ("times", "refresh", "said"),
    [
        (TIMES, "1h", "all event times lie on steps of 1h"),
        ([datetime(2024, 5, day, tzinfo=UTC) for day in (1, 2, 3)], "1d", "steps of 1d"),
        ([hours(0), hours(0.25), hours(2)], "15m", "steps of 15m"),
        ([hours(0.001), hours(1), hours(2)], "1h", "a guess"),
    ],
)
def test_refresh_is_the_step_on_which_the_rows_lie(
    repository: Repository, times: list[datetime], refresh: str, said: str
) -> None:
    """Where all rows lie on a step, training sees each row when Feast's does."""
    rows(repository.feast, at=pa.array([time for time in times for _ in range(2)], pa.timestamp("ns", "UTC")))
    moved = repository.move(entities=[DRIVER], views=[view("stats", {"trips": "Int64"}, "driver")])
    (difference,) = [one for one in moved.differences if one.matter == "refresh"]
    assert f'refresh="{refresh}"' in difference.here
    assert said in difference.why


def test_refresh_and_cutover_are_taken_as_they_are_said(repository: Repository) -> None:
    rows(repository.feast)
    pushed = view("fresh", {"trips": "Int64"}, "driver", stream={"name": "pushed", "kind": "PushSource"})
    cutover = datetime(2024, 6, 1, tzinfo=UTC)
    repository.move(
        entities=[DRIVER],
        views=[view("stats", {"trips": "Int64"}, "driver"), pushed],
        refresh=60_000_000,
        cutover=cutover,
    )
    with repository.opened() as store:
        assert store.catalog.views["stats"].refresh == 60_000_000
        source: Any = store.catalog.sources["pushed"]
        assert source.cutover == cutover


@pytest.mark.parametrize(
    ("at", "event_time", "why"),
    [
        (
            pa.array(["2024-05-01"] * 6),
            "at",
            "source 'rows': its timestamp_field 'at' is VARCHAR, and must be a timestamp",
        ),
        (pa.array(range(6)), "at", "is BIGINT, and must be a timestamp"),
        (None, "at", "its files have no column 'at', its timestamp_field; columns: driver_id, rate, trips"),
        (None, "", "it names no timestamp_field, and none of its columns is a timestamp"),
    ],
)
def test_a_source_without_times_is_refused_by_name(repository: Repository, at: Any, event_time: str, why: str) -> None:
    rows(repository.feast, at=at)
    moved = repository.move(
        entities=[DRIVER], views=[view("stats", {"trips": "Int64"}, "driver", batch=source(event_time=event_time))]
    )
    assert why in reasons(moved, "feature view")["stats"]
    assert "FeatureView" not in repository.definitions


def test_the_one_timestamp_is_the_event_time_where_none_is_named(repository: Repository) -> None:
    rows(repository.feast)
    repository.move(entities=[DRIVER], views=[view("stats", {"trips": "Int64"}, "driver", batch=source(event_time=""))])
    assert 'event_time="at"' in repository.definitions


def test_a_date_stays_the_beginning_of_its_day_and_is_told(repository: Repository) -> None:
    rows(
        repository.feast,
        at=pa.array([datetime(2024, 5, n, tzinfo=UTC).date() for n in (1, 1, 2, 2, 3, 3)], pa.date32()),
    )
    moved = repository.move(entities=[DRIVER], views=[view("stats", {"trips": "Int64"}, "driver")])
    assert 'date="start"' in matters(moved, "rows")["date"]
    with repository.opened() as store:
        assert store.catalog.sources["rows"].date == "start"
        assert store.snapshot("stats", at=hours(1)).to_pandas()["stats__trips"].to_list() == [1, 2]


def test_naive_times_are_utc_and_said(repository: Repository) -> None:
    rows(
        repository.feast,
        at=pa.array([time.replace(tzinfo=None) for time in TIMES for _ in range(2)], pa.timestamp("ns")),
    )
    repository.move(entities=[DRIVER], views=[view("stats", {"trips": "Int64"}, "driver")])
    assert 'timezone="UTC"' in repository.definitions


# --- keys ---------------------------------------------------------------------------------------


def test_keys_have_the_types_of_the_data(repository: Repository) -> None:
    """Whatever Feast declares: a key is compared by its type, and the widest of several views holds them all."""
    rows(repository.feast, driver_id=pa.array([1, 2] * 3, pa.int32()))
    rows(repository.feast, "data/wide.parquet")
    wide = view("wide", {"trips": "Int64"}, "driver", batch=source("data/wide.parquet", "wide"))
    moved = repository.move(
        entities=[entity("driver", of="STRING")], views=[view("stats", {"trips": "Int64"}, "driver"), wide]
    )
    assert 'Entity("driver", key={"driver_id": Int64})' in repository.definitions
    assert matters(moved, "driver_id") == {"key type": "Int64"}
    with repository.opened() as store:
        assert store.snapshot(["stats", "wide"], at=hours(3)).to_pandas()["wide__trips"].to_list() == [5, 6]


@pytest.mark.parametrize("none", [(None, 2.5), (float("nan"), float("inf"))])
def test_a_key_of_numbers_with_a_point_is_made_whole(repository: Repository, none: tuple[Any, Any]) -> None:
    """As pandas writes integers beside a null; a row whose key is none belongs to nobody."""
    rows(repository.feast, driver_id=pa.array([1.0, 2.0, 1.0, none[0], 1.0, none[1]]))
    moved = repository.move(entities=[DRIVER], views=[view("stats", {"trips": "Int64"}, "driver")])
    assert moved.refused == []
    assert 'key={"driver_id": "driver_id_key"}' in repository.definitions
    with repository.opened() as store:
        found = store.snapshot("stats", at=hours(3)).to_pandas()
    assert dict(zip(found["driver_id"], found["stats__trips"], strict=True)) == {1: 5, 2: 2}


def test_keys_of_two_types_are_refused_by_name(repository: Repository) -> None:
    rows(repository.feast)
    rows(repository.feast, "data/text.parquet", driver_id=pa.array(["1", "2"] * 3))
    text = view("text", {"trips": "Int64"}, "driver", batch=source("data/text.parquet", "text"))
    moved = repository.move(entities=[DRIVER], views=[view("stats", {"trips": "Int64"}, "driver"), text])
    assert "its key 'driver_id' is String, and Int64 in other views" in reasons(moved)["text"]
    assert list(moved.views) == ["stats"]


def test_several_entities_are_one_and_none_is_the_world(repository: Repository) -> None:
    rows(repository.feast, shop=pa.array(["a", "b"] * 3))
    both, turned = (
        view("both", {"trips": "Int64"}, "driver", "store"),
        view("turned", {"rate": "Float32"}, "store", "driver"),
    )
    moved = repository.move(
        entities=[DRIVER, entity("store", "shop"), entity("unused")],
        views=[both, turned, view("all", {"trips": "Int64"})],
    )
    assert 'driver_store = Entity("driver_store", key={"driver_id": Int64, "shop": String})' in repository.definitions
    assert 'world = Entity("world", key={})' in repository.definitions
    assert matters(moved, "unused") == {"entity": "not written"}
    with repository.opened() as store:
        assert store.snapshot(["both", "turned"], at=hours(3)).to_pandas()["both__trips"].to_list() == [5, 6]
        assert len(store.snapshot("all", at=hours(3))) == 1


def test_a_key_that_the_files_do_not_have_is_refused(repository: Repository) -> None:
    rows(repository.feast)
    moved = repository.move(
        entities=[entity("rider")],
        views=[view("stats", {"trips": "Int64"}, "rider"), view("other", {"trips": "Int64"}, "nobody")],
    )
    assert reasons(moved, "feature view") == {
        "stats": "its files have no column 'rider_id', the join key of entity 'rider'",
        "other": "its entity 'nobody' is declared nowhere",
    }


# --- features -----------------------------------------------------------------------------------


def test_maps_and_structs_are_their_json_text(repository: Repository) -> None:
    """And JSON in a text stays as it is; the report says how a part of it becomes a column."""
    struct = pa.array([{"name": "ann", "age": 7}, None] * 3)
    maps = pa.array([[("a", 1)], []] * 3, pa.map_(pa.string(), pa.int64()))
    rows(
        repository.feast,
        profile=struct,
        words=maps,
        config=pa.array(['{"a": 1}'] * 6),
        profile_json=pa.array(["mine"] * 6),
    )
    moved = repository.move(
        entities=[DRIVER],
        views=[
            view("stats", {"profile": "Struct({name: String, age: Int64})", "words": "Map", "config": "Json"}, "driver")
        ],
    )
    assert moved.refused == []
    assert any('derived={"name": "profile.name"}' in one.why for one in moved.differences)
    with repository.opened() as store:
        found = store.snapshot("stats", at=hours(3)).to_arrow().to_pylist()[0]
    assert found["stats__profile"] == '{"name":"ann","age":7}'
    assert found["stats__words"] == '{"a":1}'
    assert found["stats__config"] == '{"a": 1}'


def test_a_feature_of_another_type_than_the_data_is_told(repository: Repository) -> None:
    rows(repository.feast)
    moved = repository.move(
        entities=[DRIVER], views=[view("stats", {"trips": "Float32", "rate": "String", "gone": "Int64"}, "driver")]
    )
    assert matters(moved, "stats:trips") == {"type": "Int64"}
    assert matters(moved, "stats:rate") == {"type": "Float32"}
    assert reasons(moved, "feature") == {"stats:gone": "its files have no column 'gone'"}
    assert 'features=["trips", "rate"]' in repository.definitions


def test_a_view_that_lists_no_features_has_all_columns(repository: Repository) -> None:
    rows(repository.feast, created=LOADED)
    moved = repository.move(
        entities=[DRIVER],
        views=[view("stats", {}, "driver", batch=source(created="created", renamed={"rate": "speed"}))],
    )
    assert moved.views["stats"].features == {"speed": "speed", "trips": "trips"}


def test_field_mapping_names_the_columns_of_features_and_times(repository: Repository) -> None:
    rows(repository.feast)
    mapped = source(event_time="happened", renamed={"at": "happened", "trips": "count", "driver_id": "driver"})
    repository.move(
        entities=[entity("driver", "driver")], views=[view("stats", {"count": "Int64"}, "driver", batch=mapped)]
    )
    with repository.opened() as store:
        assert store.snapshot("stats", at=hours(3)).to_pandas()["stats__count"].to_list() == [5, 6]


def test_vector_search_is_refused_and_the_vector_is_a_feature(repository: Repository) -> None:
    rows(repository.feast, vector=pa.array([[0.5, 1.0]] * 6, pa.list_(pa.float32())))
    stats = view("stats", {}, "driver", fields=[{"name": "vector", "type": "Array(Float32)", "vector": True}])
    moved = repository.move(entities=[DRIVER], views=[stats])
    assert reasons(moved, "vector search") == {"stats:vector": "there is no search by vectors"}
    assert moved.views["stats"].features == {"vector": "vector"}


def test_aggregations_are_folds(repository: Repository) -> None:
    stream = {"name": "rides", "kind": "KafkaSource", "event_time": "at"}
    sums = [
        {"column": "trips", "function": "sum", "window_seconds": 3600.0},
        {"column": "rate", "function": "mean", "window_seconds": None, "name": "average"},
        {"column": "trips", "function": "skew", "window_seconds": 60.0},
    ]
    rows(repository.feast)
    moved = repository.move(
        entities=[DRIVER],
        views=[
            view(
                "stats", {"sum_trips_3600s": "Int64", "average": "Float64"}, "driver", stream=stream, aggregations=sums
            )
        ],
    )
    assert reasons(moved, "feature") == {
        "stats:trips_skew": "there is no fold for 'skew'"
    } or "stats:skew_trips_60s" in reasons(moved)
    with repository.opened() as store:
        features = store.catalog.views["stats"].features
    assert [(name, fold.title) for name, fold in features.items()] == [
        ("sum_trips_3600s", "Sum('trips', window='1h')"), ("average", "Mean('rate', window='lifetime')"),
    ]  # fmt: skip


def test_each_aggregation_has_a_name_of_its_own(repository: Repository) -> None:
    """A column of several is none of their names; what the schema lists and none makes is refused."""
    stream = {"name": "rides", "kind": "KafkaSource", "event_time": "at"}
    sums = [
        {"column": "rate", "function": "sum", "window_seconds": 3600.0},
        {"column": "rate", "function": "max", "window_seconds": 86_400.0},
        {"column": "trips", "function": "count", "window_seconds": 60.0},
    ]
    rows(repository.feast)
    listed = view(
        "stats",
        {"rate": "Float64", "max_rate": "Float32", "trips": "Int64"},
        "driver",
        stream=stream,
        aggregations=sums,
    )
    moved = repository.move(entities=[DRIVER], views=[listed])
    with repository.opened() as store:
        features = store.catalog.views["stats"].features
    assert [(name, fold.title) for name, fold in features.items()] == [
        ("sum_rate_3600s", "Sum('rate', window='1h')"), ("max_rate", "Max('rate', window='1d')"),
        ("trips", "Count('trips', window='1m')"),
    ]  # fmt: skip
    assert reasons(moved, "feature") == {"stats:rate": "no aggregation of the view makes it"}


# --- pushes -------------------------------------------------------------------------------------


def test_a_push_source_has_its_batch_source_as_history_up_to_a_cutover(repository: Repository) -> None:
    """Every row of the files counts, a second after it happened; what is pushed then counts beside them."""
    rows(repository.feast, words=pa.array([{"a": 1}] * 6))
    fresh = view(
        "fresh",
        {"rate": "Float32", "trips": "Int64", "words": "Map"},
        "driver",
        stream={"name": "pushed", "kind": "PushSource"},
    )
    moved = repository.move(entities=[DRIVER], views=[fresh], sources=[{"name": "idle", "kind": "PushSource"}])
    assert reasons(moved, "push source") == {"idle": "no view reads it, so that nothing says its columns"}
    with repository.opened() as store:
        declared: Any = store.catalog.sources["pushed"]
        assert declared.cutover == hours(2) + (hours(1 / 3600) - hours(0))
        assert {name: str(of) for name, of in declared.columns.items()} == {
            "driver_id": "Int64", "at": "Timestamp", "rate": "Float64", "trips": "Int64", "words_json": "String",
        }  # fmt: skip
        store.apply()
        store.materialize(progress=False)
        pushed = {"driver_id": 1, "at": hours(3), "rate": 0.85, "trips": 9, "words_json": "{}"}
        assert store.get_online_features({"driver_id": 2}, "fresh").to_dict()["fresh__trips"] == [6]
        store.push("pushed", pushed)
        assert store.get_online_features({"driver_id": 1}, "fresh").to_dict()["fresh__rate"] == [0.85]


def test_a_push_source_without_rows_at_hand_has_no_history(repository: Repository) -> None:
    fresh = view(
        "fresh", {"rate": "Float32", "words": "Map"}, "driver", stream={"name": "pushed", "kind": "KinesisSource"}
    )
    moved = repository.move(entities=[entity("driver", of="INT64")], views=[fresh])
    assert matters(moved, "pushed")["history"] == "none"
    with repository.opened() as store:
        declared: Any = store.catalog.sources["pushed"]
    assert declared.history is None
    assert {name: str(of) for name, of in declared.columns.items()} == {
        "driver_id": "Int64", "at": "Timestamp", "rate": "Float64", "words": "String",
    }  # fmt: skip


@pytest.mark.parametrize(("version", "is_told"), [("0.67.9", False), ("0.68.0", True), ("1.0.0rc1", True)])
def test_a_feast_that_is_newer_than_any_that_was_tried_is_told(
    repository: Repository, version: str, is_told: bool
) -> None:
    moved = repository.move(feast=version)
    assert [one.matter for one in moved.differences if one.about == "every file"] == ["version"] * is_told


# --- what cannot be -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"transformed": True}, "a function makes its rows"),
        ({"source_views": ["other"]}, "it is made of other views: other"),
        ({"batch": None}, "it has no source"),
        ({"fields": []}, "it lists no features, and its rows are not at hand to tell them"),
        (
            {"fields": [], "batch": source("s3://bucket/rows.parquet")},
            "it lists no features, and its rows are not at hand to tell them",
        ),
    ],
)
def test_a_view_that_cannot_be_is_refused_by_name(repository: Repository, more: dict[str, Any], why: str) -> None:
    moved = repository.move(entities=[DRIVER], views=[view("stats", {"trips": "Int64"}, "driver", **more)])
    assert why in reasons(moved, "feature view")["stats"]


def test_a_name_that_is_declared_twice_is_refused_where_it_differs(repository: Repository) -> None:
    """The first counts. A module that is imported under two names declares the same twice, which is one."""
    rows(repository.feast)
    stats = view("stats", {"trips": "Int64"}, "driver", where="a.py", batch=source(where="a.py"))
    same = {**stats, "where": "b.py", "batch": source(where="b.py")}
    other = view("stats", {"rate": "Float32"}, "driver", where="c.py")
    moved = repository.move(entities=[entity("driver")], views=[stats, same, other])
    assert [(one.name, one.why) for one in moved.refused] == [("stats", "another of that name is declared in a.py")]
    assert 'features=["trips"]' in repository.definitions


def test_labels_and_files_that_do_not_load_are_refused_by_name(repository: Repository) -> None:
    moved = repository.move(
        labels=[{"name": "quality"}],
        files=[{"path": "a.py", "declared": 2, "error": "KeyError: 'x'", "line": 7}, {"path": "b.py"}],
    )
    assert reasons(moved, "label view") == {"quality": "there are none: labels are columns of the spine"}
    assert "KeyError: 'x'; 2 objects that it declared before are taken over" in reasons(moved, "file")["a.py:7"]


@pytest.mark.parametrize(
    ("kind", "places", "said"),
    [
        ("BigQuerySource", {"table": "shop.raw.rides"}, "EXPORT DATA OPTIONS (uri='gs://BUCKET/data/rows/*.parquet'"),
        ("BigQuerySource", {"query": "SELECT *\nFROM rides;"}, "AS SELECT * FROM rides"),
        ("BigQuerySource", {"query": "SELECT 1 AS x", "table": "t"}, "AS SELECT 1 AS x"),
        ("SnowflakeSource", {"query": "SELECT 1 AS x", "table": "T"}, "FROM (SELECT * FROM T) FILE_FORMAT"),
        ("PostgreSQLSource", {"query": "SELECT 1 AS x", "table": "t"}, "postgres_query('pg', 'SELECT * FROM t')"),
        ("SparkSource", {"query": "SELECT 1 AS x", "table": "d.t"}, "spark.table('d.t').write"),
        ("SnowflakeSource", {"database": "D", "schema": "S", "table": "T"}, "FROM (SELECT * FROM D.S.T) FILE_FORMAT"),
        ("RedshiftSource", {"query": "SELECT 'x'"}, "UNLOAD ('SELECT ''x''') TO 's3://BUCKET/data/rows/'"),
        ("AthenaSource", {"database": "d", "table": "t"}, "UNLOAD (SELECT * FROM d.t)"),
        ("TrinoSource", {"table": "hive.d.t"}, "AS SELECT * FROM hive.d.t"),
        ("SparkSource", {"table": "d.t"}, "spark.table('d.t').write.parquet('data/rows')"),
        ("SparkSource", {"path": "s3://b/x", "file_format": "csv"}, "spark.read.format('csv').load('s3://b/x')"),
        ("PostgreSQLSource", {"query": "SELECT * FROM t"}, "postgres_query('pg', 'SELECT * FROM t')"),
        ("ClickhouseSource", {"table": "t"}, "SELECT * FROM t INTO OUTFILE 'data/rows/rows.parquet' FORMAT Parquet"),
        ("MongoDBSource", {"collection_name": "t"}, "pull_all_from_table_or_query"),
        ("FileSource", {"path": "hdfs://there/rows"}, "# copy the files of hdfs://there/rows into data/rows/"),
    ],
)  # fmt: skip
def test_rows_elsewhere_are_to_be_exported_and_the_source_is_over_the_export(
    repository: Repository, kind: str, places: dict[str, str], said: str
) -> None:
    """What is written loads at once, and reads the rows as soon as they lie there."""
    elsewhere = {"name": "rows", "kind": kind, "places": places, "event_time": "at"}
    moved = repository.move(
        entities=[entity("driver", of="INT64")],
        views=[view("stats", {"trips": "Int64", "rate": "Float32"}, "driver", batch=elsewhere)],
    )
    assert moved.refused == []
    assert said in moved.exports[0].commands
    (told,) = [one for one in moved.differences if one.about == "rows" and one.matter == "source"]
    assert ("DatabaseSource" in told.why) is (
        kind in {"BigQuerySource", "SnowflakeSource", "RedshiftSource", "PostgreSQLSource"}
    )
    rows(repository.out, "data/rows/part.parquet")
    with repository.opened() as store:
        assert store.snapshot("stats", at=hours(3)).to_pandas()["stats__trips"].to_list() == [5, 6]


@pytest.mark.parametrize(
    ("kind", "places", "declared"),
    [
        ("FileSource", {"path": "s3://bucket/rows"}, 'ParquetSource("rows", "s3://bucket/rows"'),
        ("FileSource", {"path": "s3a://bucket/*/rows.parquet"}, 'ParquetSource("rows", "s3://bucket/*/rows.parquet"'),
        ("FileSource", {"path": "gcs://bucket/rows", "file_format": "ParquetFormat"}, 'ParquetSource("rows", "gs://bucket/rows"'),
        ("FileSource", {"path": "s3://b/t", "file_format": "DeltaFormat"}, 'DeltaSource("rows", "s3://b/t"'),
        ("SparkSource", {"path": "s3a://b/x", "file_format": "parquet"}, 'ParquetSource("rows", "s3://b/x"'),
        ("SparkSource", {"path": "gs://b/x", "file_format": "delta"}, 'DeltaSource("rows", "gs://b/x"'),
    ],
)  # fmt: skip
def test_files_in_an_object_store_are_read_where_they_lie(
    repository: Repository, kind: str, places: dict[str, str], declared: str
) -> None:
    """Nobody asks the store while they are moved; the endpoint that Feast was told is told."""
    stored = {"path": places["path"], **places, "s3_endpoint_override": "http://minio:9000"}
    far = {"name": "rows", "kind": kind, "places": stored, "event_time": "at"}
    moved = repository.move(
        entities=[entity("driver", of="INT64")], views=[view("stats", {"trips": "Int64"}, "driver", batch=far)]
    )
    assert (moved.refused, moved.exports) == ([], [])
    assert declared in repository.definitions
    (told,) = [one for one in moved.differences if one.about == "rows" and one.matter == "source"]
    assert "AWS_ENDPOINT_URL_S3=http://minio:9000" in told.why
    with repository.opened() as store:
        assert store.catalog.views["stats"].source.name == "rows"


@pytest.mark.parametrize("path", ["data/rows.parquet", "data", "data/*.parquet", "file://{feast}/data/rows.parquet"])
def test_a_path_is_a_file_a_folder_or_a_pattern(repository: Repository, path: str) -> None:
    rows(repository.feast)
    moved = repository.move(
        entities=[DRIVER],
        views=[view("stats", {"trips": "Int64"}, "driver", batch=source(path.format(feast=repository.feast)))],
    )
    assert moved.views["stats"].has_data
    with repository.opened() as store:
        assert store.snapshot("stats", at=hours(3)).to_pandas()["stats__trips"].to_list() == [5, 6]


def test_a_spark_source_over_parquet_files_of_this_machine_needs_no_export(repository: Repository) -> None:
    rows(repository.feast)
    spark = {
        "name": "rows",
        "kind": "SparkSource",
        "places": {"path": "data/rows.parquet", "file_format": "parquet"},
        "event_time": "at",
    }
    moved = repository.move(entities=[DRIVER], views=[view("stats", {"trips": "Int64"}, "driver", batch=spark)])
    assert (moved.exports, moved.views["stats"].has_data) == ([], True)


def test_files_that_are_not_there_are_told_and_the_view_is_written(repository: Repository) -> None:
    moved = repository.move(entities=[entity("driver")], views=[view("stats", {"trips": "Int64"}, "driver")])
    assert "no file" in next(one.why for one in moved.differences if one.matter == "no data")
    assert matters(moved, "driver_id") == {"key type": "String"}
    assert not moved.views["stats"].has_data
    assert 'features=["trips"]' in repository.definitions


def test_a_path_of_another_machine_stays_as_it_is_and_the_file_of_its_name_is_told(repository: Repository) -> None:
    rows(repository.feast, "data/rows.parquet")
    elsewhere = r"C:\Users\me\shop\data\rows.parquet"
    moved = repository.move(
        entities=[DRIVER], views=[view("stats", {"trips": "Int64"}, "driver", batch=source(elsewhere))]
    )
    (row,) = [one for one in moved.differences if one.matter == "no data"]
    assert row.here == elsewhere
    assert row.why.endswith(". The project has data/rows.parquet: say that path, and import again")
    with repository.opened() as store:
        assert store.catalog.sources["rows"].path == (elsewhere,)  # type: ignore[attr-defined]  # a source of files


# --- names --------------------------------------------------------------------------------------


def test_names_of_every_kind_become_names_here_and_are_told(repository: Repository) -> None:
    """Words of Python's, signs, other letters, and names that become the same; columns of files stay what they are."""
    rows(
        repository.feast,
        **{
            "Fahrer-Nr.": pa.array([1, 2] * 3),
            "größe": pa.array(range(6)),
            "1st": pa.array(range(6)),
            "driver_id": None,
        },
    )
    odd = [
        view("class", {"größe": "Int64", "1st": "Int64"}, "fahrer"),
        view("my-view", {"trips": "Int64"}, "fahrer"),
        view("my__view", {"trips": "Int64"}, "fahrer"),
        view("日本", {"trips": "Int64"}, "fahrer"),
        view("Entity", {"trips": "Int64"}, "fahrer"),
        view("fahrer", {"trips": "Int64"}, "fahrer"),
        view("class", {"trips": "Int64"}, "fahrer"),
    ]
    moved = repository.move(
        entities=[entity("fahrer", "Fahrer-Nr.")],
        views=odd,
        services=[service("class", projection("class", "größe"), projection("日本", "trips"))],
    )
    assert reasons(moved) == {"class": "another of that name is declared in "}
    assert [one.name for one in moved.views.values()] == ["class", "my_view", "my_view_2", "view", "Entity", "fahrer"]
    assert (
        moved.views["class"].features == {"größe": "groe", "1st": "f_1st"}
        or moved.views["class"].features["1st"] == "f_1st"
    )
    with repository.opened() as store:
        assert all(isinstance(one, FeatureView) for one in store.catalog.views.values())
        found = store.snapshot("class", at=hours(3)).to_pandas()
    assert "Fahrer_Nr" in found.columns
    assert matters(moved, "my_view")["name"] == "my_view"


# --- services -----------------------------------------------------------------------------------


def test_services_keep_their_order_aliases_and_keys(repository: Repository) -> None:
    rows(repository.feast)
    two = service(
        "two", projection("stats", "trips", alias="best", keys={"driver_id": "best_id"}), projection("stats", "rate", "trips"),
        references=["stats:rate", "nothing:x"],
    )  # fmt: skip
    moved = repository.move(
        entities=[DRIVER], views=[view("stats", {"trips": "Int64", "rate": "Float32"}, "driver")],
        services=[service("one", projection("stats", "trips"), projection("gone", "x", "y")), two, service("none", projection("gone"))],
    )  # fmt: skip
    assert matters(moved, "one") == {"features": "without them"}
    assert reasons(moved, "feature service")["none"] == "none of its features is taken over: gone"
    with repository.opened() as store:
        assert store.catalog.services["one"].columns == ("stats__trips",)
    assert "two" in reasons(moved, "feature service")  # a column twice, as it lists them
    assert "is listed twice" in reasons(moved, "feature service")["two"]


def test_lists_of_features_in_code_become_services(repository: Repository) -> None:
    rows(repository.feast)
    (repository.feast / "train.py").write_text(
        "FEATURES = ['stats:trips']\n"
        "frame = store.get_historical_features(entity_df=spine, features=FEATURES + ['stats:rate'])\n"
        "store.get_online_features(features=['stats:trips', 'stats:rate'], entity_rows=[])\n"
        "store.get_online_features(features=['stats:trips'], entity_rows=[])\n"
        "store.get_online_features(features=[name for name in names], entity_rows=[])\n"
        "store.get_online_features(features=store.get_feature_service('model'), entity_rows=[])\n"
    )
    moved = repository.move(
        entities=[DRIVER], views=[view("stats", {"trips": "Int64", "rate": "Float32"}, "driver")],
        services=[service("model", projection("stats", "trips"))],
    )  # fmt: skip
    assert moved.services == ["model", "train_features"]
    assert reasons(moved, "list of features") == {"train.py:5": "it is made while the program runs"}
    with repository.opened() as store:
        assert store.catalog.services["train_features"].columns == ("stats__trips", "stats__rate")


# --- the whole ----------------------------------------------------------------------------------


def test_the_same_objects_are_written_the_same_way(tmp_path: Path) -> None:
    texts = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        repository = Repository(tmp_path / name)
        rows(repository.feast, words=pa.array([{"b": 1, "a": 2}] * 6))
        repository.move(
            entities=[DRIVER],
            views=[view("stats", {"trips": "Int64", "words": "Map"}, "driver", tags={"b": "1", "a": "2"})],
        )
        texts.append([path.read_text() for path in sorted(repository.out.iterdir())])
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({**told(), "contract": 2}, "speaks contract 2, and 1 is read"),
        ({**told(), "views": [{"kind": "FeatureView"}]}, "views.0.name: Field required"),
    ],
)
def test_an_answer_of_another_form_is_refused(answer: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        feast_objects(answer)


def test_what_a_reader_says_besides_is_left_out() -> None:
    """So that a later reader may say more."""
    found = feast_objects(told(more=1, views=[{**view("stats", {"x": "Int64"}), "colour": "red"}]))
    assert found.views[0].name == "stats"


@pytest.mark.parametrize(
    ("store", "line"),
    [
        ({"type": "sqlite", "path": "x.db"}, None),
        ({"type": "redis", "connection_string": "host:6379"}, 'online = "redis://host:6379/0"'),
        ({"type": "redis", "connection_string": "host:6379,ssl=true,password=secret,db=3"}, 'online = "rediss://:${REDIS_PASSWORD:-}@host:6379/3"'),
        ({"type": "redis", "redis_type": "redis_cluster", "connection_string": "a:1,b:2"}, 'online = "redis+cluster://a:1,b:2"'),
        ({"type": "redis", "connection_string": "${REDIS}"}, 'online = "redis://${REDIS_HOST:-localhost:6379}/0"'),
    ],
)  # fmt: skip
def test_the_online_store_is_redis_or_lmdb_and_no_password_is_written(
    repository: Repository, store: dict[str, str], line: str | None
) -> None:
    rows(repository.feast)
    repository.move(
        entities=[DRIVER], views=[view("stats", {"trips": "Int64"}, "driver")], settings={"online_store": store}
    )
    text = (repository.out / "featurestore.toml").read_text()
    assert (line in text) if line is not None else ("online" not in text)
    assert "secret" not in text
    repository.opened().close()
