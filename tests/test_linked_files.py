"""Links in folders of files: what they lead to is read, once; and what is no file is not waited for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from featurestore import Count, Latest
from featurestore.errors import SourceError, SpineError
from featurestore.sources.source_files import files_below
from tests.small import both, hours, opened, table, view_of, write

HOW = {"n": Count(window="lifetime"), "x": Latest("x")}


def rows(path: Path, x: int, at: float = -1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write(path, table(thing=[1], at=[hours(at)], x=[x]))


def counted(path: Path, **words: Any) -> tuple[int, int]:
    """How many rows there are of the key, and the newest one's value; the same in training and serving."""
    with opened(view_of(path, HOW, **words)) as (store, _):
        found = both(store, thing=[1])
    return found["view__n"][0], found["view__x"][0]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with a file of its own, and one that lies elsewhere."""
    rows(tmp_path / "data" / "day1" / "a.parquet", 1, -3)
    rows(tmp_path / "elsewhere" / "b.parquet", 2, -2)
    return tmp_path / "data"


PATTERNS = [".", "*", "**", "*/*.parquet", "**/*.parquet", "*/?.parquet"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_linked_folder_is_read(data: Path, pattern: str) -> None:
    (data / "day2").symlink_to(data.parent / "elsewhere")
    assert counted(data / pattern) == (2, 2)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_file_counts_once_however_many_links_lead_to_it(data: Path, pattern: str) -> None:
    (data / "day2").symlink_to(data.parent / "elsewhere")
    (data / "day3").symlink_to(data / "day1")
    (data / "latest").symlink_to(data / "day2")
    (data / "day1" / "c.parquet").symlink_to(data / "day1" / "a.parquet")
    assert counted(data / pattern) == (2, 2)


def test_a_file_that_is_counted_once_has_its_own_name(data: Path) -> None:
    (data / "a_link").symlink_to(data / "day1")
    assert files_below(data) == [str(data / "day1" / "a.parquet")]


@pytest.mark.parametrize("pattern", [*PATTERNS, "*/*/*.parquet", "day1/**/*.parquet"])
def test_links_that_lead_round_end(data: Path, pattern: str) -> None:
    (data / "day1" / "up").symlink_to(data)
    (data / "day1" / "here").symlink_to(".")
    rows(data / "other" / "a.parquet", 2, -2)
    (data / "day1" / "across").symlink_to(data / "other")
    (data / "other" / "back").symlink_to(data / "day1")
    assert counted(data / pattern) == (2, 2)


def test_what_is_published_by_a_link_is_read(tmp_path: Path) -> None:
    """The folder itself has a name that says that it is not finished."""
    rows(tmp_path / "data" / ".v3" / "a.parquet", 3)
    (tmp_path / "data" / "current").symlink_to(".v3")
    assert counted(tmp_path / "data") == (1, 3)
    assert counted(tmp_path / "data" / "current") == (1, 3)


def test_a_link_into_another_partition_is_refused(tmp_path: Path) -> None:
    rows(tmp_path / "data" / "m=1" / "a.parquet", 1)
    (tmp_path / "data" / "m=2").symlink_to("m=1")
    with pytest.raises(
        SourceError, match=r"m=2/a.parquet leads to .*m=1/a.parquet, which is read already, in a folder of"
    ):
        counted(tmp_path / "data")


def test_a_partition_may_be_a_link(data: Path, tmp_path: Path) -> None:
    rows(tmp_path / "parts" / "m=1" / "a.parquet", 1, -3)
    (tmp_path / "parts" / "m=2").symlink_to(tmp_path / "elsewhere")
    with opened(view_of(tmp_path / "parts", {"m": Latest("m"), **HOW})) as (store, _):
        found = both(store, thing=[1])
    assert (found["view__m"], found["view__n"]) == (["2"], [2])


def test_a_link_to_nothing_is_named(data: Path) -> None:
    (data / "gone.parquet").symlink_to(data / "nowhere.parquet")
    with pytest.raises(SourceError, match=r"there is no file .*gone\.parquet"):
        counted(data)


def test_a_pipe_is_not_waited_for(data: Path) -> None:
    os.mkfifo(data / "pipe.parquet")
    with pytest.raises(SourceError, match=r"pipe\.parquet cannot be read: it is no file"):
        counted(data)
    with (
        opened(view_of(data / "day1", HOW)) as (store, _),
        pytest.raises(SpineError, match=r"pipe\.parquet cannot be read: it is no file"),
    ):
        store.get_historical_features(data / "pipe.parquet", "service").to_arrow()


def test_a_path_that_the_engine_cannot_be_told_is_refused_by_its_name(tmp_path: Path) -> None:
    """A backslash alone is a sign like any other; beside a sign of patterns the engine has no way to write it."""
    assert counted(rows(tmp_path / "a\\b" / "c.parquet", 1)) == (1, 1)
    rows(tmp_path / "a\\b" / "c[1].parquet", 1)
    with pytest.raises(SourceError, match=r"c\[1\]\.parquet cannot be read: the engine finds no file with a backslash"):
        counted(tmp_path / "a\\b")
