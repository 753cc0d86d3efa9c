"""Statistics in the registry: told as they were kept, no more than are to be kept, and never in the way."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from featurestore.clock import to_datetime
from featurestore.errors import RegistryError, RegistryUnavailableError
from featurestore.registry.frames import WrittenFrame
from featurestore.registry.kept_statistics import StatisticsKeeper
from featurestore.registry.store import Registry, RunRecord
from featurestore.settings import StatisticsConfig
from featurestore.statistics.column_statistics import statistics_of
from featurestore.statistics.feature_statistics import FeatureStatistics, KeptStatistics, Kind, Statistics
from featurestore.types import Float64, Int64
from tests.platforms.shop import TYPES, value
from tests.registry.places import by_hand

HOUR_US = 3_600_000_000
FAR_US = 4_000_000_000_000_000


@pytest.fixture
def registry(place: Path | str) -> Iterator[Registry]:
    made = Registry(place)
    yield made
    made.close()


def features_of(seed: int = 1, rows: int = 30) -> tuple[FeatureStatistics, ...]:
    """Of every type, with its edges."""
    draw = random.Random(seed)
    columns = {name: pa.array([value(draw, of) for _ in range(rows)], of.arrow) for name, of in TYPES.items()}
    return tuple(
        FeatureStatistics(f"view:{column.name}", column) for column in statistics_of(pa.table(columns), TYPES).columns
    )


def kept(at: int, *, kind: Kind = "hour", subject: str = "model", place: str = "", seed: int = 1) -> KeptStatistics:
    training_set, run = (place if kind == "training_set" else None), (int(place) if kind == "run" else None)
    return KeptStatistics(kind, subject, "f" * 32, to_datetime(at), 30, training_set, run, features_of(seed))


def test_what_is_kept_is_told_again(registry: Registry) -> None:
    """Of every type, infinities, NaN, bytes and numbers of 64 bits among them."""
    assert registry.statistics() == []
    assert registry.described_hours() == set()
    given = [
        kept(9 * HOUR_US),
        kept(8 * HOUR_US, kind="run", subject="view", place="17", seed=2),
        kept(7 * HOUR_US, kind="training_set", place="/data/a b.parquet", seed=3),
    ]
    for one in given:
        registry.keep_statistics(one, most=10)
    assert registry.statistics() == given
    assert registry.statistics(kind="run", place="17") == [given[1]]
    assert registry.statistics(subject="model", since=8 * HOUR_US) == [given[0]]
    assert registry.statistics(until=8 * HOUR_US, limit=1) == [given[2]]
    assert registry.described_hours() == {("model", "f" * 32, 9 * HOUR_US)}
    assert "Run 17 of view 'view'" in str(Statistics(tuple(given)))
    assert given[0].feature("view:wide").column.name == "wide"


def test_the_newest_are_kept(registry: Registry) -> None:
    """Of each subject and kind so many; what is kept again takes the place of what was."""
    for hour in (3, 1, 5, 2, 4):
        registry.keep_statistics(kept(hour * HOUR_US), most=3)
    registry.keep_statistics(kept(1 * HOUR_US, subject="other"), most=3)
    registry.keep_statistics(kept(5 * HOUR_US, seed=7), most=3)
    found = registry.statistics(subject="model")
    assert [one.at for one in found] == [to_datetime(hour * HOUR_US) for hour in (5, 4, 3)]
    assert found[0].features == features_of(7)
    assert len(registry.statistics(subject="other")) == 1
    registry.keep_statistics(kept(1, kind="training_set", place="/a.parquet"), most=3)
    registry.keep_statistics(kept(2, kind="training_set", place="/a.parquet"), most=3)
    (frame,) = registry.statistics(kind="training_set")
    assert frame.at == to_datetime(2)


def test_a_clock_that_was_ahead_hides_nothing(registry: Registry) -> None:
    """What is written after it was set back is kept, though as many as are to be kept are said to be newer."""
    for year in range(3):
        registry.keep_statistics(kept(FAR_US + year, kind="training_set", place=f"/{year}"), most=3)
    for number in range(4):
        registry.keep_statistics(kept(number, kind="training_set", place=f"/now/{number}"), most=3)
        assert f"/now/{number}" in {one.training_set for one in registry.statistics()}
    assert len(registry.statistics()) == 4


def test_a_changed_row_is_told(registry: Registry, place: Path | str) -> None:
    """And not shown."""
    registry.keep_statistics(kept(HOUR_US), most=3)
    by_hand(place, "UPDATE statistics SET rows = 31")
    with pytest.raises(RegistryError, match="statistics of hour 3600000000 of 'model' are not what was written"):
        registry.statistics()


def test_statistics_of_some_subjects_are_dropped(registry: Registry) -> None:
    """Those of others stay."""
    registry.drop_statistics(["model"])
    registry.keep_statistics(kept(HOUR_US), most=3)
    registry.keep_statistics(kept(HOUR_US, subject="other"), most=3)
    registry.drop_statistics(["model", "nobody"])
    assert [one.subject for one in registry.statistics()] == ["other"]


def test_what_goes_wrong_stops_nobody(registry: Registry, caplog: pytest.LogCaptureFixture) -> None:
    """Columns of another type than was said, and a registry that cannot be written: a warning, and a count."""
    keeper, failed = StatisticsKeeper(registry, StatisticsConfig()), []
    keeper.when_failed.append(lambda: failed.append(1))
    with caplog.at_level(logging.WARNING, "featurestore"):
        gathering = keeper.gather({"x": ("view:x", Float64)})
        assert gathering is not None
        gathering.add({"x": pa.array(["text"])}, 1)
        gathering.add({"x": pa.array([1.0])}, 1)
        assert gathering.gathered() is None
        keeper.keep(keeper.described("run", "view", "f", at=0, gathered=gathering.gathered()))
        assert (keeper.failures, len(failed)) == (1, 1)
        keeper.keep(keeper.described("run", "view", "f", at=1 << 62, gathered=(1, ())))  # no instant of the calendar
    assert keeper.failures == 2
    assert "Statistics are not kept" in caplog.text
    assert registry.statistics() == []


def test_entries_and_their_statistics_are_written_at_once(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's bear its number. An entry whose statistics cannot be written is there without them, once."""
    keeper, run = StatisticsKeeper(registry, StatisticsConfig()), RunRecord("view", "f", 1, 2, 3, 4, 5, "complete")
    before = kept(5).features
    described = keeper.described("run", "view", "f", at=1, gathered=(30, before))
    assert keeper.beside(partial(registry.record_run, run), described) == 1
    frame = WrittenFrame("/a.parquet", "model", "f", 1, 2, "m", ("x",))
    described = keeper.described("training_set", "model", "f", at=2, gathered=(30, before), training_set=frame.path)
    keeper.beside(partial(registry.record_frame, frame), described)
    assert [(one.run, one.training_set) for one in registry.statistics()] == [(None, "/a.parquet"), (1, None)]
    assert keeper.beside(partial(registry.record_run, run), None) == 2

    def refuse(*_: object, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("featurestore.registry.store.add_statistics", refuse)
    described = keeper.described("run", "view", "f", at=1, gathered=(30, before))
    assert keeper.beside(partial(registry.record_run, run), described) == 3
    keeper.beside(partial(registry.record_frame, frame), described)
    assert keeper.failures == 2
    assert len(registry.runs()) == 3
    assert len(registry.frames()) == 1
    assert [one.run for one in registry.statistics(kind="run")] == [1]


def test_a_registry_that_nobody_reaches_is_waited_for_once(registry: Registry) -> None:
    """The error is that of the entry, and the statistics are counted as lost."""
    keeper, calls = StatisticsKeeper(registry, StatisticsConfig()), []

    def write(described: object) -> None:
        calls.append(described)
        raise RegistryUnavailableError("others write")

    with pytest.raises(RegistryUnavailableError):
        keeper.beside(write, keeper.described("run", "view", "f", at=1, gathered=(0, ())))
    assert (len(calls), keeper.failures) == (1, 1)


def test_they_are_off_by_a_setting(registry: Registry) -> None:
    """Then nothing is gathered."""
    assert StatisticsKeeper(registry, StatisticsConfig(enabled=False)).gather({"x": ("x", Int64)}) is None


def test_what_is_shown_is_read_easily() -> None:
    """Days and instants as such, a share of nulls, and JSON without NaN."""
    told = KeptStatistics("hour", "model", "f" * 32, to_datetime(0), 30, None, None, features_of())
    lines = {line.split()[0]: line for line in str(told).splitlines() if line.startswith("  view:") or "view:" in line}
    assert "Date" in lines["view:day"]
    assert lines["view:moment"].count("Z") >= 3
    share = told.feature("view:wide").null_rate
    assert share is not None
    assert f"{100 * share:.4g} %" in lines["view:wide"]
    assert "norms of Array(Float32, 3)" in lines["view:embedding"]
    said = told.to_dict()
    assert said["features"][0]["null_rate"] == told.features[0].null_rate
    assert all(math.isfinite(one["null_rate"]) for one in said["features"])
