"""A batch that was corrected after its instant was served: a full run computes that instant again, in one switch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import (
    Count,
    DataFrameSource,
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Latest,
    ManualClock,
    ParquetSource,
    PushSource,
)
from featurestore.clock import instant_of
from featurestore.errors import MaterializeError
from featurestore.online import Guard
from featurestore.online.view_codec import ViewCodec, edition_of
from featurestore.types import Int64, Timestamp

START = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
THINGS = range(8)
THING = Entity("thing", key={"thing": Int64})

Answers = tuple[list[Any], ...]


class Killed(BaseException):
    """The process ended here."""


class World:
    """Six things with a row each hour, of a file that can be written anew: thing 6 is not in it, and comes by correction."""

    def __init__(self, folder: Path, online: str) -> None:
        self.folder = folder
        text = f'project = "{folder.name}"\nonline = "{online}"\ndefinitions = []\n[serving_log]\nrate = 1.0\n'
        (folder / "featurestore.toml").write_text(text)
        self.write(0.0, range(6))
        self.clock = ManualClock(START + HOUR * 5.5)
        self.store = FeatureStore(folder, clock=self.clock)
        source = ParquetSource("rows", "rows.parquet", event_time="happened", known_after="1m")
        features = {"x": Latest("x"), "n": Count(window="2h")}
        words: dict[str, Any] = {"refresh": "1h", "settle": "5m", "ready_after": "40m"}
        self.view = FeatureView("view", entity=THING, source=source, features=features, ttl="3h", **words)
        self.store.apply([FeatureService("service", features=[self.view])])

    def write(self, shift: float, things: range) -> None:
        times = [START + HOUR * n + timedelta(minutes=30) for n in range(24) for _ in things]
        values = [n + thing / 8 + shift for n in range(24) for thing in things]
        rows = pa.table({"thing": [*things] * 24, "happened": times, "x": values})
        pq.write_table(rows, self.folder / f"{shift}.parquet")
        (self.folder / f"{shift}.parquet").replace(self.folder / "rows.parquet")

    def correct(self) -> None:
        """Other values, without things 0 and 1, and with a new one."""
        self.write(1000.0, range(2, 7))

    def served(self) -> Answers:
        found = self.store.get_online_features([{"thing": thing} for thing in THINGS], "service")
        return (*found.to_dict().values(), *found.statuses.values(), [found.as_of["view"]])

    def trained(self) -> Answers:
        """The same, as training says it."""
        spine = pd.DataFrame({"thing": THINGS, "event_timestamp": [self.clock()] * len(THINGS)})
        frame = self.store.get_historical_features(spine, "service", with_status=True).to_arrow()
        columns = ("thing", "view__x", "view__n", "view__x__status", "view__n__status")
        timing = self.store._project.view("view").timing
        as_of = datetime.fromtimestamp(timing.as_of(instant_of(self.clock())) / 1e6, UTC)
        return (*[frame[name].to_pylist() for name in columns], [as_of])

    def run(self, *, full: bool = False) -> list[tuple[int, bool]]:
        runs = self.store.materialize(full=full, progress=False)
        return [((run.instant - instant_of(START)) // 3_600_000_000, run.again) for run in runs]

    @property
    def codec(self) -> ViewCodec:
        return ViewCodec(self.store.config.project, self.store._project.view("view"))


@pytest.fixture(params=["lmdb", "redis"])
def world(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Two keys a batch."""
    monkeypatch.setattr("featurestore.materialize.kernel.BATCH_KEYS", 2)
    monkeypatch.setattr("featurestore.materialize.kernel.EMBEDDED_BATCH_KEYS", 2)
    url = f"lmdb://{tmp_path}/online" if request.param == "lmdb" else request.getfixturevalue("redis_url")
    made = World(tmp_path, url)
    with made.store:
        yield made


def before_each_write(world: World, look: Callable[[int], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Call `look` with the number of writes so far before each write to the online store."""
    write, count = world.store.online.write, 0

    def watched(puts: Mapping[bytes, bytes | None], *, guard: Guard | None = None) -> bool:
        nonlocal count
        look(count)
        count += 1
        return write(puts, guard=guard)

    monkeypatch.setattr(world.store.online, "write", watched)


@pytest.mark.parametrize("full", [False, True])
def test_an_instant_that_another_run_completes_meanwhile_is_nothing_to_do(
    world: World, monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    """Between the moment in which it is found due and the one in which it would be begun. Who wants all keys computed is told."""
    offline, runs = world.store._project.offline, []
    with FeatureStore(world.folder, clock=world.clock) as other:
        see = offline.see

        def seen(*said: Any, **words: Any) -> Any:
            if not runs:
                runs.extend(other.materialize(progress=False))
            return see(*said, **words)

        monkeypatch.setattr(offline, "see", seen)
        if full:
            with pytest.raises(MaterializeError, match="another run changed what is complete meanwhile; run again"):
                world.store.materialize(full=True, progress=False)
        else:
            assert world.store.materialize(progress=False) == []
        assert runs
        world.clock.advance(HOUR)
        assert len(world.store.materialize(progress=False)) == 1


def test_a_full_run_that_was_killed_is_completed_whatever_runs_in_between(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by who has found before that one how much there is to do: that run completes its instant, and the next one what is left."""
    world.run()
    world.correct()
    world.clock.advance(HOUR)
    offline, killed = world.store._project.offline, list[BaseException]()
    with FeatureStore(world.folder, clock=world.clock) as other:
        see, write = offline.see, other.online.write

        def dies(puts: Mapping[bytes, bytes | None], *, guard: Guard | None = None) -> bool:
            if world.codec.state_key in puts:
                write(puts, guard=guard)
                raise Killed
            return write(puts, guard=guard)

        def seen(*said: Any, **words: Any) -> Any:
            monkeypatch.setattr(offline, "see", see)
            monkeypatch.setattr(other.online, "write", dies)
            with pytest.raises(Killed) as stopped:
                other.materialize(full=True, progress=False)
            killed.append(stopped.value)
            return see(*said, **words)

        monkeypatch.setattr(offline, "see", seen)
        assert [again for _, again in world.run()] == [False]
    assert killed
    assert {again for _, again in world.run()} == {True}
    assert world.served() == world.trained()
    assert world.run() == []


def test_a_full_run_that_was_killed_and_that_another_one_completes_meanwhile_is_nothing_to_do(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For who did not ask for it: another run took it up, and has completed a later instant as well."""
    world.run()
    before_each_write(world, _stop_after(3), monkeypatch)
    with pytest.raises(Killed):
        world.run(full=True)
    monkeypatch.undo()
    offline, runs = world.store._project.offline, []
    with FeatureStore(world.folder, clock=world.clock) as other:
        see = offline.see

        def seen(*said: Any, **words: Any) -> Any:
            if not runs:
                world.clock.advance(HOUR)
                runs.extend(other.materialize(progress=False))
            return see(*said, **words)

        monkeypatch.setattr(offline, "see", seen)
        assert world.run() == []
    assert {run.full for run in runs} == {True}
    assert world.run() == []
    assert world.served() == world.trained()


def _stop_after(writes: int) -> Callable[[int], None]:
    def look(count: int) -> None:
        if count == writes:
            raise Killed

    return look


def test_what_is_served_is_computed_again(world: World) -> None:
    """A corrected file changes nothing until a full run; then serving says what training says, and the audit that it was
    rewritten. The hours after it go on as always, and a second correction is like the first."""
    assert world.run() == [(4, False), (5, False)]
    before = world.served()
    assert before == world.trained()
    world.correct()
    corrected = world.trained()
    assert world.served() == before != corrected
    world.clock.advance(timedelta(seconds=1))
    assert world.run() == []
    assert world.run(full=True) == [(4, True), (5, True)]
    assert world.served() == corrected
    world.clock.advance(HOUR / 4)  # to the values that were computed early
    assert world.served() == world.trained()
    audit = world.store.audit()
    assert (audit.skewed, audit.causes) == (0, {"history rewritten": 2 * (7 + 3)})  # x of seven; n of two and the new
    for _ in range(2):
        world.clock.advance(HOUR)
        assert not any(again for _, again in world.run())
        assert world.served() == world.trained()
    world.clock.advance(timedelta(seconds=1))
    world.write(2000.0, range(8))
    assert {again for _, again in world.run(full=True)} == {True}
    assert world.served() == world.trained()
    assert edition_of(world.store.online.get([world.codec.watermark_key]).values[0]) == 2
    assert world.store.audit().skewed == 0


def test_nobody_sees_a_part_of_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between any two batches every key of the view has its old values; the last write switches them all."""
    world.run()
    before = world.served()
    world.correct()
    corrected = world.trained()
    seen = []
    before_each_write(world, lambda _: seen.append(world.served()), monkeypatch)
    world.run(full=True)
    assert len(seen) > 8
    assert all(answers == before for answers in seen)
    assert world.served() == corrected


@pytest.mark.parametrize("early", [False, True])
def test_a_run_that_is_killed_is_completed_by_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch, early: bool
) -> None:
    """Killed before any of its writes, it has changed nothing; the next run, full or not, does all keys. early: the
    instant after the served one comes to be computed before the next run."""
    if early:
        world.clock.set(START + HOUR * 5)  # 05:00 cannot be computed yet
    world.run()
    before, writes = world.served(), 0
    while True:
        world.write(float(writes + 1), range(writes % 3, 7))
        writes += 1
        killed_at, allowed = writes * 3, writes * 3

        def die(count: int, allowed: int = allowed) -> None:
            if count >= allowed:
                raise Killed

        with monkeypatch.context() as patch:
            before_each_write(world, die, patch)
            try:
                world.run(full=True)
                break
            except Killed:
                pass
        world.store.online.write({world.codec.lease_key: None})  # its process is gone
        assert world.served() == before, killed_at
        if early and writes == 2:
            world.clock.advance(timedelta(minutes=10))
        with monkeypatch.context() as patch:
            wholes = (before, world.trained())
            before_each_write(world, lambda _, wholes=wholes: _is_whole(world.served(), wholes), patch)  # type: ignore[misc]  # mypy infers no type of a lambda with defaults
            world.run()
        assert world.served() == world.trained(), killed_at
        assert world.run() == []
        before = world.served()
    assert writes > 3
    assert world.served() == world.trained()


def _is_whole(served: Answers, wholes: tuple[Answers, Answers]) -> None:
    assert served in wholes


def test_another_run_in_between_stops_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is to compute an instant again, while another has completed a later one, says so and writes nothing."""
    world.run()
    world.correct()
    mine, get = world.store.online, world.store.online.get

    def meanwhile(keys: Any) -> Any:
        reading = get(keys)
        if keys[:1] == [world.codec.lease_key]:  # the run has made its plan, and asks for the lease
            monkeypatch.setattr(mine, "get", get)
            world.clock.advance(HOUR)
            world.run()
        return reading

    monkeypatch.setattr(mine, "get", meanwhile)
    with pytest.raises(MaterializeError, match="meanwhile"):
        world.run(full=True)
    world.run(full=True)
    assert world.served() == world.trained()


def test_each_run_is_recorded_once() -> None:
    """Of files and of a log alike; what was recorded is what was answered."""
    source = PushSource("pushed", schema={"thing": Int64, "at": Timestamp}, event_time="at")
    pushed = FeatureView("of_pushes", entity=THING, source=source, features={"n": Count(window="2h")})
    rows = pa.table({"thing": [1], "happened": [START]})
    read = FeatureView(
        "of_files", entity=THING, source=DataFrameSource("rows", rows, event_time="happened"), refresh="1h",
        features={"n": Count(window="2h")},
    )  # fmt: skip
    with FeatureStore.local(clock=ManualClock(START + HOUR)) as store:
        store.apply([pushed, read])
        for _ in range(2):
            store.materialize(progress=False)
            store.materialize(full=True, progress=False)
        recorded = [(run.view, run.detail["again"]) for run in store.registry.runs()]
    assert sorted(recorded) == [
        ("of_files", False),
        ("of_files", True),
        ("of_files", True),
        *[("of_pushes", False)] * 3,
    ]
