"""Runs of materialize that use tiles: what they read, when tiles are made, joined and forgotten, and that values are training's."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import (
    ARRIVAL,
    Count,
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    ManualClock,
    Max,
    Mean,
    ParquetSource,
    StdDev,
    Sum,
)
from featurestore.tiles import file_tile_choice as tiling
from featurestore.tiles import file_tile_query as compiled
from featurestore.types import Int64
from tests.damage import flip, places

START = datetime(2026, 1, 1, tzinfo=UTC)
TIME = pa.timestamp("us", "UTC")
KEYS = 3
FOLDS = {
    "count": Count(window="1d"),
    "ever": Count(window="lifetime"),
    "total": Sum("amount", window="3d"),
    "mean": Mean("amount", window="2d", where="points > 10"),
    "spread": StdDev("amount", window="3d"),
    "most": Max("amount", window="1d", offset="1d"),
    "points": Sum("points", window="3d"),
}


def day_of_rows(day: int, *, seed: int = 0, late: int = 0) -> pa.Table:
    """Two hundred rows of a day (counted from START), learned within some minutes; `late`: so many of them a day later."""
    choice = random.Random(f"{seed} {day}")
    at = [START + timedelta(days=day, seconds=choice.randrange(86_400)) for _ in range(200)]
    known = [t + timedelta(minutes=choice.randrange(9), days=int(n < late)) for n, t in enumerate(at)]
    amounts = [choice.choice([choice.lognormvariate(0, 20), -choice.random(), None, float("inf")]) for _ in at]
    return pa.table(
        {
            "id": [choice.randrange(KEYS) for _ in at],
            "at": pa.array(at, TIME),
            "known": pa.array(known, TIME),
            "amount": pa.array(amounts, pa.float64()),
            "points": [choice.randrange(100) for _ in at],
        }
    )


class World:
    """A store over a folder with a file of rows a day, asked each hour; what runs tile is counted."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, *, features: Any = None, **source: Any) -> None:
        self.rows, self.clock = folder / "rows", ManualClock(START + timedelta(days=4))
        self.rows.mkdir(parents=True)
        for day in range(4):
            pq.write_table(day_of_rows(day, late=7), self.rows / f"{day}.parquet")
        (folder / "featurestore.toml").write_text('project = "tiles"\ndefinitions = []\n')
        self.folder, self.store = folder, FeatureStore(folder, clock=self.clock)
        words = {"known_at": "known", **source}
        self.view = FeatureView(
            "view", entity=Entity("thing", key={"id": Int64}), refresh="1h", settle="5m",
            features=FOLDS if features is None else features,
            source=ParquetSource("rows", "rows", event_time="at", **words),
        )  # fmt: skip
        self.store.apply([FeatureService("model", features=[self.view])])
        self.made: list[int] = []
        self.used: list[bool] = []
        make, use = tiling.count_rows, compiled.FileTiles.use  # type: ignore[attr-defined]  # a name that the module imports, to be replaced
        patch.setattr(compiled, "TILED_MIN_ROWS", 1)
        patch.setattr(tiling, "count_rows", lambda c, v, s: self._counted(make(c, v, s)))
        patch.setattr(compiled.FileTiles, "use", lambda *a: (self.used.append(True), use(*a))[1])

    def _counted(self, counted: Any) -> Any:
        self.made.append(len(counted[1]))
        return counted

    @property
    def tiles(self) -> list[Path]:
        """The folders of parts."""
        return sorted(path.parent for path in self.folder.glob(".featurestore/tiles/*/view/*/*/*/part.json"))

    def run(self, *, hours: float = 1, full: bool = False) -> tuple[list[int], bool]:
        """After so many hours a run, whose values are training's: how many files it made tiles of, and whether it used any."""
        self.clock.set(self.clock() + timedelta(hours=hours))
        self.made.clear(), self.used.clear()
        assert self.store.materialize(full=full, progress=False)
        result = self.store.get_online_features([{"id": key} for key in range(KEYS)], "model")
        as_of = result.as_of["view"]
        spine = pa.table({"id": range(KEYS), "event_timestamp": pa.array([as_of + timedelta(minutes=5)] * KEYS, TIME)})
        trained = self.store.get_historical_features(spine, "model", with_status=True).to_arrow().to_pydict()
        for name, values in result.to_dict().items():
            if name.startswith("view__"):
                assert repr(values) == repr(trained[name]), (name, as_of)
                assert list(result.statuses[name]) == trained[f"{name}__status"]
        return list(self.made), bool(self.used)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World(tmp_path, monkeypatch)
    yield made
    made.store.close()


def test_tiles_are_made_of_files_that_were_there_before(world: World) -> None:
    """A first run reads rows; the second makes tiles of what it finds unchanged; the next ones use them as they are."""
    assert world.run() == ([], False)
    assert world.run() == ([4], True)
    assert world.run() == ([], True)
    pq.write_table(day_of_rows(4), world.rows / "4.parquet")
    assert world.run() == ([], True)  # the new file is read as it is
    assert world.run() == ([1], True)
    assert [world.run(hours=hours) for hours in (1, 0.99, 23, 30)] == [([], True)] * 4


def test_a_changed_file_takes_its_tiles_with_it(world: World) -> None:
    """A part of which a file changed or vanished is gone; the files that are left are tiled anew."""
    world.run(), world.run()
    pq.write_table(day_of_rows(2, seed=1), world.rows / "2.parquet")
    assert world.run() == ([3], True)  # the three that are as they were
    assert world.run() == ([1], True)
    (world.rows / "1.parquet").unlink()
    assert world.run() == ([2], True)
    assert len(world.tiles) == 2


def test_a_file_that_is_written_anew_each_time_is_never_tiled(world: World) -> None:
    """What changes between two runs is read as it is: tiles of it would be of no use to anyone."""
    for day in range(1, 4):
        (world.rows / f"{day}.parquet").unlink()
    for number in range(4):
        pq.write_table(day_of_rows(0, seed=number), world.rows / "0.parquet")
        assert world.run() == ([], False)
    assert world.tiles == []


def test_many_parts_become_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a file comes each time, parts are joined, and hold the same."""
    monkeypatch.setattr(tiling, "SIDE_BY_SIDE_PARTS", 3)
    for day in range(4, 12):
        pq.write_table(day_of_rows(day), world.rows / f"{day}.parquet")
        world.run()
        assert len(world.tiles) <= 3
    paths = [file[0] for part in world.tiles for file in orjson.loads((part / "part.json").read_bytes())["files"]]
    assert len(paths) == len(set(paths)) == 11


def test_few_rows_are_not_worth_tiles(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor are rows of which hardly any share a tile; both are decided again when the files have doubled."""
    monkeypatch.setattr(compiled, "TILED_MIN_ROWS", 801)
    assert [world.run() for _ in range(3)] == [([], False)] * 3
    monkeypatch.setattr(compiled, "TILED_MIN_ROWS", 1)
    assert world.run() == ([], False)  # decided, and remembered
    for day in range(4, 9):
        pq.write_table(day_of_rows(day), world.rows / f"{day}.parquet")
    assert [world.run() for _ in range(3)] == [([], False), ([9], True), ([], True)]


def test_full_reads_rows(world: World) -> None:
    """A run of all keys that was asked for depends on nothing that an earlier one kept."""
    world.run(), world.run()
    assert world.run(full=True) == ([], False)


def test_rows_that_are_learned_late_are_read(world: World) -> None:
    """A row of a tiled file counts only once it is known, however old it is."""
    late = day_of_rows(3)
    known = pa.array([START + timedelta(days=4, hours=3 + n % 5) for n in range(len(late))], TIME)
    pq.write_table(late.set_column(2, "known", known), world.rows / "3.parquet")
    assert [world.run() for _ in range(7)][2:] == [([], True)] * 5


def test_a_tile_whose_first_row_counts_from_this_instant_is_read(world: World) -> None:
    """Not before, and from exactly then on: the row of the key 0 is alone in its tile."""
    at = world.clock() + timedelta(hours=4)
    alone = day_of_rows(9)[:1].set_column(0, "id", pa.array([0]))
    for name, field in (("at", 1), ("known", 2)):
        alone = alone.set_column(field, name, pa.array([at], TIME))
    pq.write_table(alone, world.rows / "9.parquet")
    assert [world.run() for _ in range(3)][2] == ([], True)
    assert world.run(hours=1 + 5 / 60) == ([], True)  # the instant `at` itself, which is ready five minutes after
    assert world.run() == ([], True)


def test_rows_count_from_the_arrival_of_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles hold when a file was first seen; one that is written anew has another arrival."""
    world = World(tmp_path, monkeypatch, known_at=ARRIVAL)
    try:
        assert [world.run() for _ in range(3)] == [([], False), ([4], True), ([], True)]
        pq.write_table(day_of_rows(1, seed=5), world.rows / "5.parquet")
        assert [world.run() for _ in range(3)] == [([], True), ([1], True), ([], True)]
    finally:
        world.store.close()


def test_what_a_killed_run_left_is_made_again(world: World) -> None:
    """A part is there as a whole or not at all."""
    world.run(), world.run()
    (part,) = world.tiles
    part.rename(part.with_name(f".{part.name}"))
    (part.with_name(f".{part.name}") / "0.parquet").write_bytes(b"half")
    part.with_name(".of_other_files").mkdir()
    assert world.run() == ([4], True)
    assert world.tiles == [part]
    assert not list(part.parent.glob(".*"))


def test_damaged_tiles_are_made_again(world: World) -> None:
    """A bit that changes anywhere in them changes no value: what is damaged goes, and is made anew."""
    world.run(), world.run()
    for file in ("0.parquet", "part.json", "../choice.json"):
        for number in range(4):
            (part,) = world.tiles
            path = (part / file).resolve()
            flip(path, places(path.stat().st_size, 12, seed=file)[number])
            made, used = world.run()
            assert used
            assert made == [4] or file == "../choice.json"  # of which the next choice may be the same
            assert world.run() == ([], True)
    (part,) = world.tiles
    (part / "0.parquet").unlink()
    assert world.run() == ([4], True)


@pytest.mark.parametrize("other", ["3-1.9.9", f"2-{duckdb.__version__}"], ids=["engine", "format"])
def test_tiles_of_another_engine_or_format_are_not_used(world: World, other: str) -> None:
    """Conditions are the engine's to judge: another version makes its own tiles, and the old ones go. So for another format."""
    world.run(), world.run()
    (part,) = world.tiles
    part.parent.rename(part.parent.with_name(other))
    assert world.run() == ([4], True)
    assert world.tiles == [part]


def test_tiles_that_cannot_be_kept_stop_no_run(world: World) -> None:
    """Values are there all the same, and a warning says what it cost."""
    world.run()
    (world.folder / ".featurestore/tiles").write_text("in the way")
    with pytest.warns(UserWarning, match="FeatureView 'view': every row is read, since tiles cannot be kept: .*tiles"):
        assert world.run() == ([], False)


def test_a_freed_version_keeps_no_tiles(world: World) -> None:
    """What was made for a view version goes with it, and switched off there is none."""
    world.run(), world.run()
    assert len(world.tiles) == 1
    other = world.view.model_copy(update={"features": {"count": Count(window="2d")}})
    world.store.apply([FeatureService("model", features=[other])])
    world.store.materialize(progress=False)
    assert world.tiles == []
