"""Plans of sources that have no rows, no file yet, or cannot be read: what is stated is planned, and one error tells all that is wrong."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import (
    CsvSource,
    DataFrameSource,
    FeatureStore,
    FeatureView,
    JsonLinesSource,
    ManualClock,
    ParquetSource,
    TableSource,
)
from featurestore.declare.sources import Source
from featurestore.errors import DeclarationError, SourceError
from featurestore.registry.warnings import NO_FILE
from featurestore.types import Int32, Int64, Timestamp
from tests.small import NOON, THING

SCHEMA = {"thing": Int64, "at": Timestamp, "n": Int64}
NO_ROWS = pa.table({name: pa.array([], of.arrow) for name, of in SCHEMA.items()})
SPINE = pa.table({"thing": [1], "event_timestamp": pa.array([NOON], pa.timestamp("us", "UTC"))})


def view_over(source: Source, *features: str, name: str = "view") -> FeatureView:
    return FeatureView(name, entity=THING, source=source, features=list(features or ("n",)), refresh="1h")


@pytest.mark.parametrize("kind", [CsvSource, JsonLinesSource])
@pytest.mark.parametrize("place", ["rows.txt", "folder", "day=*/rows.txt"])
def test_a_schema_is_planned_before_there_is_a_file(kind: Any, place: str, tmp_path: Path) -> None:
    """With its derived columns, and those of folders whose type is said; nothing is trained or served until one is there, and then
    the plan is as it was."""
    (tmp_path / "folder").mkdir()
    folders = {"day": Int32} if "day" in place else {}
    words = {"schema": SCHEMA, "event_time": "at", "derived": {"twice": "n * 2"}, "partitions": folders}
    view = view_over(kind("rows", tmp_path / place, **words), "n", "twice", *folders)
    with FeatureStore.local(clock=ManualClock(NOON)) as store:
        plan = store.plan([view])
        assert [notice.text for notice in plan.notices if notice.kind == "sources" and notice.act] == [NO_FILE]
        store.apply(plan)
        for ask in (
            lambda: store.materialize(progress=False),
            lambda: store.get_historical_features(SPINE, [view]).to_arrow(),
        ):
            with pytest.raises(SourceError, match="there is no file|no .* file matches"):
                ask()
        suffix = kind.SUFFIXES[0]
        named = {"rows.txt": "rows.txt", "folder": f"folder/rows{suffix}", "day=*/rows.txt": "day=7/rows.txt"}[place]
        (tmp_path / named).parent.mkdir(exist_ok=True)
        at = (NOON - timedelta(hours=2)).isoformat()
        rows = f"thing,at,n\n1,{at},5\n" if kind is CsvSource else f'{{"thing": 1, "at": "{at}", "n": 5}}\n'
        (tmp_path / named).write_text(rows)
        assert store.plan([view]).is_empty
        store.materialize(progress=False)
        assert store.get_online_features({"thing": 1}, [view]).to_dict()["view__twice"] == [10]


def parquet(folder: Path) -> Source:
    pq.write_table(NO_ROWS, folder / "rows.parquet")
    return ParquetSource("rows", folder / "rows.parquet", event_time="at")


def csv(folder: Path) -> Source:
    (folder / "rows.csv").write_text("thing,at,n\n")
    return CsvSource("rows", folder / "rows.csv", schema=SCHEMA, event_time="at")


def lines(folder: Path) -> Source:
    (folder / "rows.jsonl").write_text("")
    return JsonLinesSource("rows", folder / "rows.jsonl", schema=SCHEMA, event_time="at")


def database(folder: Path) -> Source:
    with duckdb.connect(str(folder / "rows.duckdb")) as connection:
        connection.register("nothing", NO_ROWS)
        connection.execute("CREATE TABLE rows AS FROM nothing")
    return TableSource("rows", folder / "rows.duckdb", table="rows", event_time="at")


def frame(_: Path) -> Source:
    return DataFrameSource("rows", NO_ROWS, event_time="at")


@pytest.mark.parametrize("made", [parquet, csv, lines, database, frame])
def test_a_source_without_rows_is_one(made: Callable[[Path], Source], tmp_path: Path) -> None:
    """It is planned, filled and asked as any other; every key is MISSING."""
    view = view_over(made(tmp_path))
    with FeatureStore.local(clock=ManualClock(NOON)) as store:
        store.apply([view])
        store.materialize(progress=False)
        assert store.get_online_features({"thing": 1}, [view]).statuses == {"view__n": ["MISSING"]}
        trained = store.get_historical_features(SPINE, [view], with_status=True).to_arrow()
        assert trained["view__n__status"].to_pylist() == ["MISSING"]


def test_one_error_tells_all_that_is_wrong(tmp_path: Path) -> None:
    """Of each source once, however many views are over it; and which views are as they should be."""
    good, gone = parquet(tmp_path), ParquetSource("gone", tmp_path / "gone.parquet", event_time="at")
    lost = ParquetSource("lost", tmp_path / "lost" / "*.parquet", event_time="at")
    views = [
        view_over(good, name="good"), view_over(gone, name="first"), view_over(gone, name="second"),
        view_over(lost, name="third"), view_over(good, "nope", name="fourth"),
    ]  # fmt: skip
    with FeatureStore.local(clock=ManualClock(NOON)) as store:
        with pytest.raises(SourceError) as raised:
            store.plan(views)
        first, *told, right = str(raised.value).splitlines()
        assert first == "3 things are wrong with sources or views:"
        assert [line.partition(":")[0] for line in told] == [
            "- ParquetSource 'gone'",
            "- ParquetSource 'lost'",
            "- FeatureView 'fourth'",
        ]
        assert "gone.parquet" in told[0]
        assert "has no column 'nope'" in told[2]
        assert right == "Nothing is wrong with good"
        with pytest.raises(DeclarationError, match=r"^FeatureView 'fourth'"):
            store.plan([views[0], views[4]])
