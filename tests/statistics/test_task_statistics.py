"""What tasks of an engine gather, put together by the process that asked: all of it, or nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from featurestore.engines import task_statistics
from featurestore.engines.task_statistics import ERROR, Features, TaskStatistics, gathered_of
from featurestore.registry.kept_statistics import StatisticsKeeper
from featurestore.registry.store import Registry
from featurestore.settings import StatisticsConfig
from featurestore.types import Float64, Int64, String, Timestamp
from tests.statistics.test_gathered_statistics import same

FEATURES: Features = {"x": ("view:x", Float64), "word": ("view:word", String), "made": ("made", Int64)}
ROWS = pa.table(
    {
        "x": np.random.default_rng(3).normal(size=900),
        "word": [None if n % 7 == 0 else f"w{n % 50}" for n in range(900)],
        "made": range(900),
    }
)


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[StatisticsKeeper]:
    registry = Registry(tmp_path / "registry.db")
    yield StatisticsKeeper(registry, StatisticsConfig())
    registry.close()


def texts_of(keeper: StatisticsKeeper, columns: list[str]) -> list[str]:
    """Three tasks that have these columns, of which one has no row."""
    task = TaskStatistics.of(FEATURES, keeper, 3)
    assert task is not None
    parts = [ROWS.slice(0, 300), ROWS.slice(0, 0), ROWS.slice(300)]
    return [text for part in parts for text in task.gathered(part.select(columns))]


def test_tasks_of_several_steps_tell_what_one_machine_does(keeper: StatisticsKeeper) -> None:
    """Each step has columns of its own; the features come in their order."""
    told = gathered_of([*texts_of(keeper, ["made"]), *texts_of(keeper, ["word", "x"])], FEATURES, keeper, rows=900)
    gathering = keeper.gather(FEATURES)
    assert gathering is not None
    gathering.add({name: ROWS[name] for name in FEATURES}, 900)
    expected = gathering.gathered()
    assert told is not None
    assert expected is not None
    assert told[0] == 900
    assert [one.feature for one in told[1]] == ["view:x", "view:word", "made"]
    for one, other in zip(told[1], expected[1], strict=True):
        same(one.column, other.column)
    assert keeper.failures == 0


def test_a_table_without_features_tells_nothing(keeper: StatisticsKeeper) -> None:
    """As a step that has but what functions read."""
    task = TaskStatistics.of(FEATURES, keeper, 3)
    assert task is not None
    assert task.gathered(pa.table({"other": [1]})) == ()


def test_no_rows_are_told(keeper: StatisticsKeeper) -> None:
    """Though no task ran."""
    told = gathered_of([], FEATURES, keeper, rows=0)
    assert told is not None
    assert [(one.column.rows, one.column.missing) for one in told[1]] == [(0, 0)] * 3


def test_what_a_task_could_not_tell_is_a_failure(
    keeper: StatisticsKeeper, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is no column, one of another type, rows that are missing or there twice, a step that is missing, and too many bytes: a warning, a
    count, and nothing is kept."""
    task, good = TaskStatistics.of(FEATURES, keeper, 3), texts_of(keeper, [*FEATURES])
    assert task is not None
    (wrong,) = task.gathered(pa.table({"x": [{"a": 1.0}]}))
    assert wrong.startswith(ERROR)
    (text,) = task.gathered(pa.table({"x": ["1.0"] * 900}))
    monkeypatch.setattr(task_statistics, "MOST_BYTES", 100)
    (large,) = task.gathered(ROWS)
    monkeypatch.undo()
    with caplog.at_level(logging.WARNING, "featurestore"):
        few = texts_of(keeper, ["x"])
        for texts in ([*good, wrong], [text], [*good, large], good[:1], [*good, good[0]], few, ["!"]):
            assert gathered_of(texts, FEATURES, keeper, rows=900) is None
    assert keeper.failures == 7
    assert "bytes, more than 100" in caplog.text
    assert "tasks told of 300 rows of x, word, made, and counted 900" in caplog.text


def test_nothing_is_gathered_where_that_is_off(tmp_path: Path) -> None:
    """By the setting."""
    registry = Registry(tmp_path / "registry.db")
    off = StatisticsKeeper(registry, StatisticsConfig(enabled=False))
    assert TaskStatistics.of(FEATURES, off, 3) is None
    assert gathered_of([], FEATURES, off, rows=0) is None
    registry.close()


def test_the_more_tasks_the_less_each_sends(keeper: StatisticsKeeper) -> None:
    """Few send as much as is held in the end; very many still something."""
    values = [task.most_values for n in (1, 8, 200, 5_000) if (task := TaskStatistics.of(FEATURES, keeper, n))]
    assert values == [16_384, 8_192, 327, 256]


def test_an_instant_in_the_zone_of_an_engine_is_that_instant(keeper: StatisticsKeeper) -> None:
    """Spark gives timestamps in its session's zone."""
    features: Features = {"at": ("view:at", Timestamp)}
    task = TaskStatistics.of(features, keeper, 1)
    assert task is not None
    instants = pa.array([3_600_000_000, None, 0], pa.timestamp("us", "UTC"))
    zones = [pa.table({"at": instants.cast(pa.timestamp("us", zone))}) for zone in ("UTC", "Asia/Seoul")]
    utc, seoul = (gathered_of(task.gathered(rows), features, keeper, rows=3) for rows in zones)
    assert utc is not None
    assert seoul is not None
    same(utc[1][0].column, seoul[1][0].column)
    assert keeper.failures == 0
