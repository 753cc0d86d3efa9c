"""known_at=ARRIVAL: a row counts from when the store first saw its file, along every path."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore import (
    ARRIVAL,
    Count,
    DataFrameSource,
    FeatureService,
    FeatureStore,
    FeatureView,
    Latest,
    ParquetSource,
    PushSource,
    TableSource,
)
from featurestore.clock import ManualClock, instant_of, to_datetime
from featurestore.errors import DeclarationError, MaterializeError, RegistryError
from featurestore.online import open_online
from featurestore.sources.arrivals import Arrivals, Sighting, Stay
from featurestore.sources.offline import Offline
from featurestore.testing import FeatureTest
from featurestore.training.historical import get_historical_features
from featurestore.types import Timestamp
from tests.draws import draws
from tests.histories import History, answers_of, histories, seen, to_arrow
from tests.oracle import ALWAYS
from tests.registry.places import by_hand
from tests.small import NOON, THING, both, hours, opened, raised, spine, table, trained, write
from tests.test_online import PROJECTS, World
from tests.test_training import FULL, as_seen
from tests.world import declare, resolved, source_words, spine_of

# --- against the oracle ---------------------------------------------------------------------------------------------


@dataclass
class Files:
    """The rows of a history in files that land and are written anew; when each was first seen, told without the product."""

    history: History
    folder: Path
    batches: list[list[dict[str, Any]]]
    arrived: dict[int, int | None] = field(default_factory=dict)
    counted: int = -(1 << 62)
    writes: int = 0

    def land(self, number: int) -> None:
        """Write the file, or write it anew with one row less."""
        rows = self.batches[number]
        if number in self.arrived:
            rows = self.batches[number] = rows[1:]
        types = {column: of for column, of in self.history.types.items() if column != "arrived"}
        path = self.folder / f"part={number % 2}" / f"{number}.parquet"
        path.parent.mkdir(exist_ok=True)
        pq.write_table(to_arrow([*rows, *self.history.rows], types).slice(0, len(rows)), path)  # an empty one alike
        self.writes += 1
        os.utime(path, ns=(0, 1_000 + self.writes))
        self.arrived[number] = None

    def see(self, now: int) -> None:
        """Somebody looks: what is new is known from now on, and never within what was counted already."""
        for number, at in self.arrived.items():
            self.arrived[number] = max(now, self.counted + 1) if at is None else at

    def known(self) -> History:
        """The history as it is known: with the rows of the files that were seen, and when."""
        rows = [
            {**row, "arrived": to_datetime(at)}
            for number, at in self.arrived.items() if at is not None for row in self.batches[number]
        ]  # fmt: skip
        return replace(self.history, rows=rows)


@st.composite
def landings(draw: st.DrawFn) -> tuple[History, list[int], list[tuple[int, str, int]]]:
    """A history whose rows lie in files, the file of each row, and (how far the clock moves, what is done, to which file)."""
    history = draw(histories(max_questions=4, timeless=False))
    until = draw(st.none() | st.integers(-2, 3).map(lambda n: history.origin + n * history.step))
    source = replace(history.source, known_at="arrived", history_until=until)
    history = replace(history, source=source, types={**history.types, "arrived": "Timestamp"})
    where = draw(st.lists(st.integers(0, 2), min_size=len(history.rows), max_size=len(history.rows)))
    step = max(1, history.step // 2)
    moves = st.builds(lambda n, by: max(0, n * step + by), st.integers(0, 3), st.sampled_from((-1, 0, 0, 1)))
    actions = st.sampled_from(("land", "land", "materialize", "materialize", "train", "look"))
    return history, where, draw(st.lists(st.tuples(moves, actions, st.integers(0, 2)), min_size=3, max_size=10))


@pytest.fixture(scope="module", params=["lmdb", "redis"])
def online_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The two stores; every example uses a project of its own in them."""
    if request.param == "redis":
        yield request.getfixturevalue("redis_url")
        return
    with tempfile.TemporaryDirectory() as folder:
        yield f"lmdb://{folder}/online"


def tell(world: World, files: Files, view: FeatureView, events: list[tuple[int, str, int]]) -> None:
    """Live through the events; after each, lookups and training are compared with the oracle."""
    complete: dict[int, History] = {}
    timing = world.service.parts[0].view.timing
    told_again = files.history.source.history_until is None
    for move, action, number in events:
        world.clock.set(to_datetime(world.now + move))
        if action == "land":
            told_again &= number not in files.arrived  # a file that is written anew changes the past
            files.land(number)
        if action in {"materialize", "train"}:
            files.see(world.now)
        if action == "materialize":
            before = world.complete
            world.materialize()
            due = timing.due(world.now, before)
            files.counted = max([files.counted, *map(timing.known_by, due)])
            complete.update(dict.fromkeys(due, files.known()))
        if action == "train":  # at the spine's instants, and at those that were served
            ready = [(key, instant + timing.ready_after) for key in world.keys() for instant in complete if told_again]
            history = replace(files.known(), spine=[*files.history.spine, *ready])
            frame = get_historical_features(
                spine_of(history), world.service, world.offline, now=world.now, options=FULL
            )
            expected = [
                (status, values, None if at == ALWAYS else at)
                for status, values, at, _ in seen(history, answers_of(history))
            ]
            assert as_seen(history, frame) == expected
        if complete:
            wanted = timing.as_of(world.now)
            base = max([instant for instant in complete if instant <= wanted], default=None)
            if base is not None:
                world.history = files.known() if told_again else complete[base]
                world.check_lookup()


@settings(max_examples=draws(50), deadline=None, suppress_health_check=list(HealthCheck))
@given(story=landings())
def test_files_that_land_at_any_time(online_url: str, story: tuple[History, list[int], list]) -> None:
    """Files land and are written anew between runs, training and lookups: all agree with the oracle, and where only files
    were added, what was served is what training says ever after."""
    history, where, events = story
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data").mkdir()
        clock = ManualClock(to_datetime(history.instants[0] - 2 * history.step))
        arrivals = Arrivals(folder / "arrivals.db", now=lambda: instant_of(clock()))
        offline, store = Offline(folder, arrivals=arrivals), open_online(online_url, clock=clock)
        batches = [[row for row, n in zip(history.rows, where, strict=True) if n == number] for number in range(3)]
        files = Files(history, folder / "data", batches)
        files.land(0)
        words = {**source_words(history), "known_at": ARRIVAL}
        source = ParquetSource("view_rows", "data/**/*.parquet", **words)
        view = declare(replace(history, rows=[])).model_copy(update={"source": source})
        try:
            world = World(history, resolved(view, offline), offline, store, clock, next(PROJECTS))
            tell(world, files, view, events)
        finally:
            store.close()
            offline.close()


# --- by hand --------------------------------------------------------------------------------------------------------


def rows_at(hour: float, x: int, *, thing: int = 1) -> Any:
    return table(thing=[thing], at=[hours(hour)], x=[x])


def over(folder: Path, **words: Any) -> FeatureView:
    source = ParquetSource("rows", folder / "*.parquet", event_time="at", known_at=ARRIVAL, **words)
    features = {"x": Latest("x"), "n": Count(window="10h")}
    return FeatureView("view", entity=THING, source=source, features=features, refresh="1h")


def test_a_file_that_lands_late_counts_from_its_arrival(tmp_path: Path) -> None:
    """Rows of 09:00 whose file is seen at 12:30 count from 13:00 on: trained, served, explained and in the manifest."""
    write(tmp_path / "a.parquet", rows_at(-5, 1))
    with opened(over(tmp_path), at=hours(-4)) as (store, clock):
        clock.set(NOON)
        assert both(store, thing=[1])["view__x"] == [1]
        write(tmp_path / "b.parquet", rows_at(-3, 2))
        clock.set(hours(0.5))
        assert both(store, thing=[1])["view__x"] == [1], "seen within the hour, and 12:00 does not change"
        clock.set(hours(1))
        answer = both(store, thing=[1])
        assert (answer["view__x"], answer["view__n"]) == ([2], [2])
        times = [hours(-6), hours(-4), NOON, hours(0.9), hours(1)]
        assert trained(store, times, thing=[1] * 5)["view__x"].to_pylist() == [None, 1, 1, 1, 2]
        frame = store.get_historical_features(spine(NOON, thing=[1]), "service")
        seen_at = [file["first_seen"] for file in frame.manifest["sources"]["rows"]]
        assert seen_at == [hours(-4).isoformat(), hours(0.5).isoformat()]
        early = store.explain("view", {"thing": 1}, at=NOON)
        assert {row.verdict: row.known_at for row in early.rows} == {
            "chosen": hours(-4), "not yet known": hours(0.5)
        }  # fmt: skip
        assert store.explain("view", {"thing": 1}, at=hours(1)).values == {"x": 2, "n": 2}
        assert store.snapshot(["view"], at=NOON).to_arrow()["view__x"].to_pylist() == [1]


def test_what_lies_there_at_the_first_apply_is_known_from_then_on(tmp_path: Path) -> None:
    """Without history_until training sees none of it before; with it, each row counts from when it would have been known."""
    write(tmp_path / "a.parquet", rows_at(-5, 1))
    times = [hours(-5), hours(-4), NOON]
    with opened(over(tmp_path)) as (store, _):
        assert trained(store, times, thing=[1] * 3)["view__x"].to_pylist() == [None, None, 1]
    with opened(over(tmp_path, history_until=NOON, known_after="1h")) as (store, clock):
        assert trained(store, times, thing=[1] * 3)["view__x"].to_pylist() == [None, 1, 1]
        assert both(store, thing=[1, 2])["view__x"] == [1, None]
        write(tmp_path / "b.parquet", rows_at(1, 2))
        write(tmp_path / "c.parquet", rows_at(-8, 5, thing=2))
        clock.set(hours(1))
        assert both(store, thing=[1, 2])["view__x"] == [2, 5]
        assert trained(store, [hours(0.9), NOON], thing=[1, 2])["view__x"].to_pylist() == [1, 5]


def test_a_run_counts_what_it_finds(tmp_path: Path) -> None:
    """While the clock runs, what a continuous view's run finds is served when it is done, and trained on as served."""
    write(tmp_path / "a.parquet", rows_at(-5, 1))
    view = over(tmp_path).model_copy(update={"refresh": "continuous"})
    ticks = iter(range(10**6))
    with FeatureStore.local(clock=lambda: NOON + timedelta(microseconds=next(ticks))) as store:
        store.apply([FeatureService("service", features=[view])])
        for n in range(2, 5):
            write(tmp_path / f"{n}.parquet", rows_at(-5 + n / 10, n))
            store.materialize(progress=False)
            online = store.get_online_features({"thing": 1}, "service")
            assert (online.to_dict()["view__x"], online.to_dict()["view__n"]) == ([n], [n])
            assert trained(store, online.as_of["view"], thing=[1])["view__n"].to_pylist() == [n]


def test_an_instant_that_was_served_keeps_its_rows(tmp_path: Path) -> None:
    """A file that is seen after a run, by whoever's clock is slow, is known after what the run counted."""
    write(tmp_path / "a.parquet", rows_at(-5, 1))
    with opened(over(tmp_path)) as (store, clock):
        assert both(store, thing=[1])["view__x"] == [1]
        write(tmp_path / "b.parquet", rows_at(-3, 2))
        clock.set(hours(-0.5))
        assert trained(store, hours(-0.5), thing=[1])["view__x"].to_pylist() == [None]
        clock.set(NOON)
        assert both(store, thing=[1])["view__x"] == [1]
        clock.set(hours(1))
        assert both(store, thing=[1])["view__x"] == [2]


DELIVERING = """
import sys, time
from datetime import UTC, datetime, timedelta
from pathlib import Path
import pyarrow as pa, pyarrow.parquet as pq
from featurestore import FeatureStore
folder = Path(sys.argv[1])
slow = lambda: datetime.now(UTC) - timedelta(seconds=5)
spine = pa.table({"thing": [1], "event_timestamp": [slow()]})
number = 0
with FeatureStore(folder, clock=slow) as store:
    while not (folder / "enough").exists():
        rows = pa.table({"thing": [1], "at": pa.array([datetime(2024, 5, 1, tzinfo=UTC)], pa.timestamp("us", "UTC"))})
        pq.write_table(rows, folder / "data" / "coming")
        (folder / "data" / "coming").rename(folder / "data" / f"{number}.parquet")
        len(store.get_historical_features(spine, ["view"]))
        number += 1
        time.sleep(0.2)
print(number)
"""


LANDING = """
import sys, time
from pathlib import Path
import pyarrow.parquet as pq
folder = Path(sys.argv[1])
rows = pq.read_table(folder / "first.parquet")
print("going", flush=True)
number = 0
while not (folder / "enough").exists():
    pq.write_table(rows, folder / f".{number}")
    (folder / f".{number}").rename(folder / f"{number}.parquet")
    number += 1
    time.sleep(0.002)
"""


def test_files_that_land_while_they_are_listed_do_no_harm(tmp_path: Path) -> None:
    """Names, sizes and times come from one listing; a session reads the files that it listed first."""
    write(tmp_path / "first.parquet", table(thing=[1], at=[NOON]))
    source = ParquetSource("rows", "*.parquet", event_time="at", known_at=ARRIVAL)
    offline = Offline(tmp_path)
    with subprocess.Popen([sys.executable, "-c", LANDING, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        other.stdout.readline()
        lengths: list[int] = []
        try:
            while len(set(lengths)) < 5:
                assert other.poll() is None
                lengths.append(len(offline.see(source)))
                with offline.session() as session:
                    listed = len(session.files(source))
                    relation = session.scan(source).relation
                    assert session.connection.sql(f"SELECT count(*) FROM {relation}").fetchall() == [(listed,)]
        finally:
            (tmp_path / "enough").touch()
    assert lengths == sorted(lengths)


def test_a_process_whose_clock_is_slow_changes_nothing_that_was_served(tmp_path: Path) -> None:
    """While one process delivers files and trains, five seconds behind, another materializes and looks up: in the end training
    gives for every instant what was served at it."""
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "first.parquet", table(thing=[1], at=[NOON]))
    (tmp_path / "featurestore.toml").write_text('project = "two"\ndefinitions = []\n')
    source = ParquetSource("rows", "data/*.parquet", event_time="at", known_at=ARRIVAL)
    view = FeatureView(
        "view", entity=THING, source=source, features={"n": Count(window="lifetime")}, refresh="continuous"
    )
    with FeatureStore(tmp_path) as store:
        store.apply([FeatureService("service", features=[view])])
        other = subprocess.Popen([sys.executable, "-c", DELIVERING, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        served: list[tuple[Any, int]] = []
        try:
            deadline = time.monotonic() + 600
            while len({n for _, n in served}) < 6 and time.monotonic() < deadline:
                with suppress(MaterializeError):  # a file landed while the run was reading
                    store.materialize(progress=False)
                online = store.get_online_features({"thing": 1}, "service")
                served.append((online.as_of["view"], online.to_dict()["view__n"][0]))
        finally:
            (tmp_path / "enough").touch()
            delivered = int(other.communicate(timeout=600)[0])
        assert 5 <= max(n for _, n in served) <= delivered + 1
        instants, counts = zip(*served, strict=True)
        assert trained(store, instants, thing=[1] * len(served))["view__n"].to_pylist() == list(counts)


def test_a_file_that_is_written_anew_is_another_file(tmp_path: Path) -> None:
    """Its rows count from when it was seen as it is now, and what it held before is gone."""
    path = write(tmp_path / "a.parquet", rows_at(-5, 1))
    with opened(over(tmp_path), at=hours(-4)) as (store, clock):
        assert both(store, thing=[1])["view__x"] == [1]
        clock.set(NOON)
        write(path, rows_at(-5, 3))
        os.utime(path, ns=(0, 1))
        assert both(store, thing=[1])["view__x"] == [3]
        assert trained(store, [hours(-1), NOON], thing=[1] * 2)["view__x"].to_pylist() == [None, 3]


def test_arrivals_outlive_the_place(tmp_path: Path) -> None:
    """Files that are moved as they are, with their times, stay what they were where the source is said to lie there."""
    folder = tmp_path / "repository"
    (folder / "data" / "day=1").mkdir(parents=True)
    write(folder / "data" / "day=1" / "a.parquet", rows_at(-5, 1))
    (folder / "featurestore.toml").write_text(
        'project = "moved"\ndefinitions = []\n[env.there.sources]\nrows = "../elsewhere"\n'
    )
    source = ParquetSource("rows", "data", event_time="at", known_at=ARRIVAL)
    view = FeatureView("view", entity=THING, source=source, features=["x"], refresh="1h")
    clock = ManualClock(hours(-4))
    with FeatureStore(folder, clock=clock) as store:
        store.apply([view])
    (folder / "data").rename(tmp_path / "elsewhere")
    clock.set(NOON)
    with FeatureStore(folder, env="there", clock=clock) as store:
        assert trained(store, hours(-4), features=[view], thing=[1])["view__x"].to_pylist() == [1]


@pytest.mark.parametrize("conditions", [True, False])
def test_derived_columns_and_conditions_go_with_it(tmp_path: Path, conditions: bool) -> None:
    """A derived column and a condition read rows that count from their arrival, in every path."""
    write(tmp_path / "a.parquet", table(thing=[1, 1], at=[hours(-5), hours(-5)], x=[1.0, 2.0]))
    source = ParquetSource("rows", tmp_path, event_time="at", known_at=ARRIVAL, derived={"double": "x * 2"})
    features = {
        "n": Count(window="1d", where="double > 2" if conditions else None),
        "m": Count("double", window="1d"),
    }
    view = FeatureView("view", entity=THING, source=source, features=features, refresh="1h")
    with opened(view, at=hours(-4)) as (store, clock):
        write(tmp_path / "b.parquet", table(thing=[1], at=[hours(-5)], x=[3.0]))
        clock.set(NOON)
        answer = both(store, thing=[1])
        assert (answer["view__n"], answer["view__m"]) == ([2 if conditions else 3], [3])
        early = trained(store, hours(-1), thing=[1])
        assert (early["view__n"].to_pylist(), early["view__m"].to_pylist()) == ([1 if conditions else 2], [2])
        assert store.explain("view", {"thing": 1}).values == {"n": 2 if conditions else 3, "m": 3}


def test_the_last_file_holds_the_version_that_counts(tmp_path: Path) -> None:
    """With an identity, a row of a later file replaces the same row of an earlier one from its arrival on."""
    write(tmp_path / "z.parquet", rows_at(-5, 1))
    source = ParquetSource("rows", tmp_path, event_time="at", known_at=ARRIVAL, identity="at")
    view = FeatureView("view", entity=THING, source=source, features=["x"], refresh="1h")
    with opened(view, at=hours(-4)) as (store, clock):
        clock.set(NOON)
        write(tmp_path / "a.parquet", rows_at(-5, 9))
        assert both(store, thing=[1])["view__x"] == [9]
        assert trained(store, [hours(-1), NOON], thing=[1, 1])["view__x"].to_pylist() == [1, 9]


def test_plan_says_what_it_costs(tmp_path: Path) -> None:
    """That history begins with the first apply, unless history_until is said, and how many files are new; it writes nothing."""
    for name in "ab":
        write(tmp_path / f"{name}.parquet", rows_at(-5, 1))
    with FeatureStore.local(clock=ManualClock(NOON)) as store:
        text = str(store.plan([over(tmp_path)]))
        assert "training sees none of them at earlier instants; say history_until=" in text
        assert "2 of 2 files were not seen before" in text
        assert not store.offline.arrivals.place.exists()
        said = str(store.plan([over(tmp_path, history_until=hours(-1))]))
        assert f"happened up to {hours(-1).isoformat()} count 0s after they happened" in said
        store.apply([over(tmp_path)])
        write(tmp_path / "c.parquet", rows_at(-4, 1))
        assert "1 of 3 files were not seen before" in str(store.plan([over(tmp_path)]))


def test_it_is_for_files() -> None:
    """A table, or pushed rows, say with a column or by themselves when a row was learned."""
    refused = raised(
        DeclarationError, lambda: TableSource("rows", "x.duckdb", table="t", event_time="at", known_at=ARRIVAL)
    )
    assert "known_at=ARRIVAL is for files" in refused
    words: dict[str, Any] = {"known_at": ARRIVAL}
    pushed = lambda: PushSource("rows", schema={"at": Timestamp}, event_time="at", **words)  # noqa: E731
    assert "has no argument 'known_at': the store says when it learned" in raised(DeclarationError, pushed)
    assert DataFrameSource("rows", table(at=[NOON]), event_time="at").known_at is None


def test_a_test_says_when_files_arrive(tmp_path: Path) -> None:
    """In a FeatureTest, a row says its arrival in a column of that name."""
    write(tmp_path / "a.parquet", rows_at(-5, 1))
    for folder in (tmp_path, tmp_path / "nothing"):
        test = FeatureTest(over(folder))
        test.rows("rows", [{"thing": 1, "at": "2024-05-01T09:00Z", "x": 7, ARRIVAL: "2024-05-01T12:30Z"}])
        assert test.served_at("2024-05-01T12:45Z", thing=1)["view__x"] is None
        assert test.served_at("2024-05-01T13:00Z", thing=1) == {"view__x": 7, "view__n": 1}
    assert FeatureTest(over(tmp_path)).value_at("2024-05-01T13:00Z", thing=1)["view__x"] is None


# --- the journal ----------------------------------------------------------------------------------------------------

A, B = Sighting("a.parquet", 10, 1), Sighting("b.parquet", 10, 1)


def test_a_sighting_is_journalled_once(place: Path | str) -> None:
    """The first time stays, for each source, name, size and time of modification."""
    journal = Arrivals(place, now=iter(range(100, 200)).__next__)
    journal.see("x", lambda: [A])
    journal.see("x", lambda: [A, B], now=50)
    journal.see("y", lambda: [A], now=70)
    assert journal.seen("x", [B, A, A._replace(modified=2), A._replace(size=9)]) == [50, 100, None, None]
    assert journal.seen("y", [A, B]) == [70, None]
    assert journal.instants("x", [A, B._replace(size=1)]) == [100, 101]


def test_what_is_not_there_any_more_stays_in_the_journal(place: Path | str) -> None:
    """With when it was first missed; a file that comes back as it was has never been away."""
    journal = Arrivals(place)
    anew = A._replace(modified=2)
    for now, there in ((10, [A, B]), (20, [anew, B]), (30, [anew]), (40, [anew])):
        journal.see("x", lambda there=there: there, now=now)
    assert journal.stays("x") == [Stay(A, 10, 20), Stay(anew, 20, None), Stay(B, 10, 30)]
    journal.see("x", lambda: [anew, B], now=50)
    assert journal.stays("x") == [Stay(A, 10, 20), Stay(anew, 20, None), Stay(B, 10, None)]


def test_a_row_that_was_changed_by_other_means_is_found(place: Path | str) -> None:
    """Rows would count from other instants."""
    journal = Arrivals(place)
    journal.see("x", lambda: [A], now=10)
    by_hand(place, "UPDATE arrivals SET seen = 9")
    assert "what it says of source 'x' is not what was written" in raised(RegistryError, lambda: journal.stays("x"))


def test_a_journal_of_an_earlier_version_is_read_and_goes_on(tmp_path: Path) -> None:
    """The first version knew nothing of files that are gone."""
    path = tmp_path / "arrivals.db"
    journal = Arrivals(path)
    journal.see("x", lambda: [A], now=10)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE gone")
        connection.execute("DROP TABLE checks")
        connection.execute("PRAGMA user_version = 1")
        connection.commit()
    assert journal.stays("x") == [Stay(A, 10, None)]
    journal.see("x", lambda: [B], now=20)
    assert journal.stays("x") == [Stay(A, 10, 20), Stay(B, 20, None)]


def test_files_of_every_source_are_journalled_when_they_are_materialized(tmp_path: Path) -> None:
    """On the online store's clock; rows of theirs count as their known_at says, whenever the file was seen."""
    write(tmp_path / "a.parquet", rows_at(-5, 1))
    source = ParquetSource("rows", tmp_path / "*.parquet", event_time="at")
    view = FeatureView("view", entity=THING, source=source, features=["x"], refresh="1h")
    with opened(view) as (store, clock):
        assert both(store, thing=[1])["view__x"] == [1]
        write(tmp_path / "b.parquet", rows_at(-3, 2))
        clock.set(hours(1))
        assert both(store, thing=[1])["view__x"] == [2]
        told = {stay.file.name: (to_datetime(stay.seen), stay.missed) for stay in store.offline.arrivals.stays("rows")}
        assert told == {"a.parquet": (NOON, None), "b.parquet": (hours(1), None)}


def test_what_was_counted_gains_nothing(place: Path | str) -> None:
    """After a run that counted up to an instant, whoever sees a file has seen it later, however slow the clock."""
    journal = Arrivals(place, now=lambda: 0)
    journal.see("x", lambda: [A], now=1_000, known_by=1_000)
    assert journal.instants("x", [A, B]) == [1_000, 1_001]
    journal.see("x", lambda: [A, B])
    journal.see("x", lambda: [A, B], known_by=900)
    assert journal.seen("x", [A, B]) == [1_000, 1_001]


def test_a_reader_that_cannot_write_does_not_fail(tmp_path: Path) -> None:
    """It takes what nobody journalled as known from now on; who must write says that it cannot."""
    (tmp_path / "file").write_text("")
    nowhere = Arrivals(tmp_path / "file" / "arrivals.db", now=lambda: 5)
    nowhere.see("x", lambda: [A], must=False)
    assert nowhere.instants("x", [A]) == [5]
    assert "cannot be used" in raised(RegistryError, lambda: nowhere.see("x", lambda: [A]))


def test_a_reader_does_not_wait_for_who_writes_and_does_not_end(place: Path | str) -> None:
    """The same of a journal that somebody else holds."""
    journal = Arrivals(place, now=lambda: 5, timeout=0.05)
    journal.see("x", lambda: [A])
    with journal._write():  # somebody else is writing, and does not come to an end
        journal.see("x", lambda: [A, B], must=False)
        assert journal.instants("x", [A, B]) == [5, 5]
        assert journal.seen("x", [A, B]) == [5, None]
        said = raised(RegistryError, lambda: journal.see("x", lambda: [A, B]))
        assert "other processes have been writing to it for 0.05 s; try again" in said


def test_another_file_is_not_taken_for_a_journal(tmp_path: Path) -> None:
    """An SQLite file of something else, and one of a later version, are refused."""
    path = tmp_path / "arrivals.db"
    journal = Arrivals(path)
    journal.see("x", lambda: [A])
    with journal._write() as connection:
        connection.execute("PRAGMA user_version = 99")
    assert "newer version" in raised(RegistryError, lambda: journal.seen("x", [A]))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA application_id = 7")
    assert "something else" in raised(RegistryError, lambda: journal.see("x", lambda: [A]))


SEEING = """
import sys
from pathlib import Path
from featurestore.sources.arrivals import Arrivals, Sighting
place = sys.argv[1] if "://" in sys.argv[1] else Path(sys.argv[1])
journal = Arrivals(place, now=lambda: int(sys.argv[2]))
for n in range(40):
    journal.see("x", lambda: [Sighting(f"{m}.parquet", m, m) for m in range(n + 1)])
    print(*journal.seen("x", [Sighting(f"{m}.parquet", m, m) for m in range(n + 1)]))
"""


def test_processes_agree_on_who_was_first(place: Path | str) -> None:
    """Three processes that see the same files at once journal each file once, and never read another instant for it."""
    command = [sys.executable, "-c", SEEING, str(place)]
    running = [subprocess.Popen([*command, str(1_000 + n)], stdout=subprocess.PIPE, text=True) for n in range(3)]
    told = [process.communicate(timeout=600)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    instants: dict[int, set[str]] = {}
    for text in told:
        for line in text.splitlines():
            for n, at in enumerate(line.split()):
                instants.setdefault(n, set()).add(at)
    assert len(instants) == 40
    assert all(len(at) == 1 for at in instants.values())
    assert set().union(*instants.values()) <= {"1000", "1001", "1002"}
