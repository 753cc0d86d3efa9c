"""Wherever rows lie, they are the same rows, along both paths."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pytest

from featurestore import DataFrameSource, FeatureView, ParquetSource, TableSource
from featurestore.errors import SourceError
from featurestore.types import Int64
from tests.small import NOON, THING, both, hours, opened, raised, table, trained, write

ROWS = table(
    thing=[1, 1, 2, 3], at=[hours(-3), hours(-1), hours(-2), hours(1)], x=pa.array([1, None, 3, 4]), s=["a", "b", "", "d"]
)  # fmt: skip
WORDS: dict[str, Any] = {"event_time": "at", "refresh": "continuous"}


def file(folder: Path) -> ParquetSource:
    return ParquetSource("rows", write(folder / "rows.parquet", ROWS), **WORDS)


def parts(folder: Path) -> Path:
    for n in range(4):
        (folder / f"y{n % 2}").mkdir(exist_ok=True)
        write(folder / f"y{n % 2}" / f"part{n}.parquet", ROWS.slice(n, 1))
    return folder


def database(folder: Path, made: str) -> Path:
    path = folder / "warehouse.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.register("given", ROWS)
        connection.execute("CREATE SCHEMA sales")
        connection.execute("CREATE TABLE sales.kept AS SELECT * FROM given")
        connection.execute(made)
    return path


def in_database(folder: Path, made: str, name: str) -> TableSource:
    return TableSource("rows", database(folder, made), table=name, **WORDS)


SOURCES: dict[str, Callable[[Path], Any]] = {
    "file": file,
    "glob": lambda folder: ParquetSource("rows", parts(folder) / "y*" / "*.parquet", **WORDS),
    "deep glob": lambda folder: ParquetSource("rows", str(parts(folder) / "**" / "*.parquet"), **WORDS),
    "directory": lambda folder: ParquetSource("rows", parts(folder), **WORDS),
    "list": lambda folder: ParquetSource("rows", [str(p) for p in sorted(parts(folder).rglob("*.parquet"))], **WORDS),
    "table": lambda folder: in_database(folder, "SELECT 1", "sales.kept"),
    "view": lambda folder: in_database(folder, "CREATE VIEW seen AS SELECT * FROM sales.kept", "seen"),
    "arrow": lambda _: DataFrameSource("rows", ROWS, **WORDS),
    "pandas": lambda _: DataFrameSource("rows", ROWS.to_pandas(), **WORDS),
    "polars": lambda _: DataFrameSource("rows", pl.DataFrame(ROWS), **WORDS),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_rows_are_the_same_wherever_they_lie(tmp_path: Path, kind: str) -> None:
    """Files, globs, folders, tables, views and frames: training and lookups answer as from one file."""
    features = (
        ["s"] if kind == "pandas" else ["x", "s"]
    )  # in pandas the column of integers with a null is one of floats
    view = FeatureView("view", entity=THING, source=SOURCES[kind](tmp_path), features=features)
    with opened(view) as (store, clock):
        answer = both(store, thing=[1, 2, 3])
        assert answer["view__s"] == ["b", "", None]
        assert answer.get("view__x", [None, 3, None]) == [None, 3, None]
        assert trained(store, hours(-2), thing=[1])["view__s"].to_pylist() == ["a"]
        clock.set(hours(1))
        assert both(store, thing=[1, 2, 3])["view__s"] == ["b", "", "d"]


def test_the_names_of_hive_partitions_are_columns(tmp_path: Path) -> None:
    """A feature, a key and a time may lie in the folders' names; a partition that arrives is read by the next run.

    A key's type is stated in `partitions`, since what is not stated is text, whatever the folders are called today.
    """
    for day, x in (("2024-04-29", 1), ("2024-04-30", 2)):
        folder = tmp_path / f"day={day}" / "region=7"
        folder.mkdir(parents=True)
        write(folder / "rows.parquet", pa.table({"x": [x]}))
    source = ParquetSource("rows", tmp_path, event_time="day", refresh="1d", partitions={"region": Int64})
    view = FeatureView("view", entity=THING, source=source, key={"thing": "region"}, features=["x", "day"])
    with opened(view) as (store, clock):
        answer = both(store, thing=[7, 8])
        assert answer["view__x"] == [2, None]
        assert str(answer["view__day"][0]) == "2024-04-30"
        assert trained(store, datetime(2024, 4, 30, 23, tzinfo=NOON.tzinfo), thing=[7])["view__x"].to_pylist() == [1]
        arrived = tmp_path / "day=2024-05-01" / "region=7"
        arrived.mkdir(parents=True)
        write(arrived / "rows.parquet", pa.table({"x": [3]}))
        clock.set(hours(24))
        assert both(store, thing=[7])["view__x"] == [3]


def test_a_table_that_changed_is_read_again(tmp_path: Path) -> None:
    """A DuckDB file that is written between runs: the next run asks for all keys, and rows that vanished are gone."""
    source = in_database(tmp_path, "SELECT 1", "sales.kept")
    view = FeatureView("view", entity=THING, source=source, features=["s"])
    with opened(view) as (store, clock):
        assert both(store, thing=[1, 2])["view__s"] == ["b", ""]
        with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as connection:
            connection.execute("DELETE FROM sales.kept WHERE s = 'b'; UPDATE sales.kept SET s = 'new' WHERE thing = 2")
        clock.set(hours(0.5))
        assert both(store, thing=[1, 2])["view__s"] == ["a", "new"]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda folder: ParquetSource("rows", folder / "no.parquet", **WORDS), "no.parquet"),
        (lambda folder: ParquetSource("rows", folder / "*.parquet", **WORDS), "no Parquet file matches"),
        (lambda folder: TableSource("rows", folder / "no.duckdb", table="t", **WORDS), "no.duckdb"),
        (lambda folder: in_database(folder, "SELECT 1", "sales.kep"), "kept"),
    ],
)
def test_a_source_that_is_not_there_is_named(tmp_path: Path, make: Callable[[Path], Any], says: str) -> None:
    """The message says which source, which path or table, and where it was declared."""
    view = FeatureView("view", entity=THING, source=make(tmp_path), features=["x"])
    with opened() as (store, _):
        message = raised(SourceError, lambda: store.plan([view]))
    assert says in message
    assert "'rows'" in message
    assert "test_sources.py:" in message


def test_tables_of_one_file_are_read_together(tmp_path: Path) -> None:
    """By views that are asked at once, however its path is written."""
    path = database(tmp_path, "CREATE VIEW seen AS SELECT * FROM sales.kept")
    (tmp_path / "beside").mkdir()
    (tmp_path / "link.duckdb").symlink_to(path)
    places = [
        (path, "sales.kept"),
        (tmp_path / "beside" / ".." / path.name, "seen"),
        (tmp_path / "link.duckdb", "sales.kept"),
    ]
    views = [
        FeatureView(f"v{n}", entity=THING, source=TableSource(f"rows{n}", at, table=name, **WORDS), features=["x"])
        for n, (at, name) in enumerate(places * 2)
    ]
    with opened(*views) as (store, _):
        found = trained(store, NOON, thing=[1, 2, 3])
        assert [found[f"v{n}__x"].to_pylist() for n in range(6)] == [[None, 3, None]] * 6
        assert both(store, thing=[1, 2, 3])["v5__x"] == [None, 3, None]


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    """A file that is no Parquet says so by its source."""
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 and nothing else")
    view = FeatureView("view", entity=THING, source=ParquetSource("rows", tmp_path, **WORDS), features=["x"])
    with opened() as (store, _):
        assert "rows.parquet begins as a Parquet file and does not end as one" in raised(
            SourceError, lambda: store.plan([view])
        )
