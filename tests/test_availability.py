"""Availability: what is measured from the journals is what a naive count over the same story gives, and advice is given
exactly where a promise is broken."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from typer.testing import CliRunner

from featurestore import (
    ARRIVAL,
    Count,
    FeatureService,
    FeatureStore,
    FeatureView,
    Latest,
    ManualClock,
    ParquetSource,
    PushSource,
    TableSource,
)
from featurestore.cli import app
from featurestore.clock import instant_of, to_datetime
from featurestore.declare.durations import parse_duration, show_duration
from featurestore.errors import NotFoundError
from featurestore.reports.availability import Lag, ViewAvailability
from featurestore.reports.journals import Completions
from featurestore.semantics.time import END, Timing
from featurestore.types import Int64, Timestamp
from tests.small import NOON, THING, hours, table, view_of, write
from tests.small import opened as small_store

MINUTE, HOUR = 60_000_000, 3_600_000_000
NEVER = 1 << 62


def lag(values: list[int]) -> Lag:
    """Quantiles as they are defined: the least value that so large a share of all does not exceed."""
    ranked = sorted(values)
    if not ranked:
        return Lag()
    p50, p95, p99 = (next(v for n, v in enumerate(ranked, 1) if n * 100 >= q * len(ranked)) for q in (50, 95, 99))
    return Lag(len(ranked), p50, p95, p99, ranked[-1])


@dataclass
class Row:
    """A row of the story, in µs: it happened, its column says that it was known, its file came to be seen."""

    happened: int
    known: int
    file: int
    seen: int = NEVER
    before: int = -NEVER


class Story:
    """A store over files that land while the clock goes on, and what a bystander writes down: rows, looks and runs."""

    def __init__(self, folder: Path, words: dict[str, Any], **said: Any) -> None:
        self.folder, self.clock = folder, ManualClock(NOON)
        self.rows: list[Row] = []
        self.looks: list[int] = []
        self.runs: list[tuple[int, int]] = []  # instant, when it was started and done
        (folder / "data").mkdir()
        (folder / "featurestore.toml").write_text('project = "late"\ndefinitions = []\n')
        self.store = FeatureStore(folder, clock=self.clock)
        self.source = ParquetSource("rows", folder / "data" / "*.parquet", event_time="at", **words)
        features = {"n": Count(window="1d")}
        self.view = FeatureView(
            "view", entity=THING, source=self.source, features=features, **{"refresh": "1h", **said}
        )
        self.land([self.now - HOUR])
        self.store.apply([FeatureService("service", features=[self.view])])
        if self.source.arrives:
            self.look()
        self.run()

    @property
    def now(self) -> int:
        return instant_of(self.clock())

    def pass_by(self, minutes: float) -> None:
        self.clock.advance(timedelta(minutes=minutes))

    def land(self, happened: list[int], known: list[int] | None = None, *, name: str = "") -> None:
        """A file of rows."""
        number = self.rows[-1].file + 1 if self.rows else 0
        known = known or happened
        times = {"at": [to_datetime(at) for at in happened], "known": [to_datetime(at) for at in known]}
        rows = table(thing=[1] * len(happened), **times)
        write(self.folder / "data" / f"{name or number}.parquet", rows)
        self.rows += [Row(e, k, number) for e, k in zip(happened, known, strict=True)]

    def look(self) -> None:
        """What was not seen before is seen now."""
        for row in self.rows:
            if row.seen == NEVER:
                row.seen, row.before = self.now, max(self.looks, default=-NEVER)
        self.looks.append(self.now)

    def run(self) -> None:
        """Materialize; every run looks, and for ARRIVAL materialize looks even where nothing is due."""
        done = self.store.materialize(progress=False)
        if done or self.source.arrives:
            self.look()
        self.runs += [(run.instant, self.now) for run in done]

    def measured(self, since: Any = None) -> ViewAvailability:
        return self.store.availability(since=since).views["view"]

    def words(self) -> list[str]:
        """The words whose promises are broken."""
        return [advice.word for advice in self.measured().broken]


Tell = Callable[..., Story]


@pytest.fixture
def tell(tmp_path: Path) -> Iterator[Tell]:
    """Begins a story: the words of its source, and those of its view."""
    with ExitStack() as stack:

        def begin(words: dict[str, Any], **said: Any) -> Story:
            story = Story(tmp_path, words, **said)
            stack.enter_context(story.store)
            return story

        yield begin


def go_on(story: Story, seed: int) -> None:
    """Files land with rows of the last hours, and runs come in time, late or not at all."""
    dice = random.Random(seed)
    for _ in range(9):
        for _ in range(dice.randrange(3)):
            story.pass_by(dice.choice([1, 20, 45]))
            happened = [story.now - dice.randrange(3 * HOUR) for _ in range(dice.randrange(1, 40))]
            story.land(happened, [e + dice.randrange(2 * HOUR) for e in happened])
        story.pass_by(dice.choice([0, 10, 25, 50]))
        if dice.random() < 0.8:
            story.run()


def grid(happened: int, refresh: int) -> int:
    """The first instant of the refresh at or after a row happened."""
    return -(-happened // refresh) * refresh


def naive_served(story: Story, row: Row, known: int, *, settle: int, ready: int) -> int:
    """The first run that found a row, tried one after the other; served when it was done, and not before ready_after."""
    for instant, at in sorted(story.runs):
        if row.happened <= instant and known <= instant + settle and (row.file == 0 or row.seen <= at):
            return min(max(i + ready, done) for i, done in story.runs if i >= instant)
    return NEVER


KINDS = {
    "sighting": {"known_after": "1h"},
    "arrival": {"known_at": ARRIVAL},
    "column": {"known_at": "known"},
}
SETTLED, LONG = {"settle": "5m", "ready_after": "20m"}, {"settle": "1h30m", "ready_after": "2h"}
STORIES = [("sighting", SETTLED), ("sighting", {"refresh": "continuous"}), ("arrival", LONG), ("column", SETTLED)]


@pytest.mark.parametrize(("kind", "times"), STORIES)
def test_measured_is_what_a_naive_count_gives(tell: Tell, kind: str, times: dict[str, str]) -> None:
    """Over files that land late and runs that come late or never: every figure, for each way of telling when a row came."""
    story = tell(KINDS[kind], **times)
    go_on(story, seed=len(kind))
    found = story.measured()
    refreshed = "refresh" not in times
    settle = parse_duration(times.get("settle", "0s"))
    ready = parse_duration(times.get("ready_after", "0s"))
    promise, first = HOUR, story.looks[0]
    rows = [row for row in story.rows if row.happened <= story.now]
    told = rows if kind == "column" else [r for r in rows if first < r.seen < NEVER and r.happened > first]
    came = {id(r): r.known if kind == "column" else r.seen for r in rows}
    after = {id(r): r.before if kind == "sighting" else came[id(r)] - 1 for r in rows}
    counts = {id(r): r.happened + promise if kind == "sighting" else came[id(r)] for r in rows}

    assert found.how == kind
    assert found.known == lag([came[id(r)] - r.happened for r in told])
    assert found.known_least == lag([after[id(r)] + 1 - r.happened for r in told])
    assert found.untold == len(rows) - len(told)
    if kind == "sighting":
        assert found.beyond == sum(after[id(r)] + 1 - r.happened > promise for r in told)
        assert found.beyond_at_most == sum(r.seen - r.happened > promise for r in told)
    else:
        assert found.known_after is None

    assert min(found.known.rows, found.servable.rows) > 50  # or little is tested

    begin = story.runs[0][0]
    since = [r for r in rows if r.happened > begin]
    at = {id(r): naive_served(story, r, counts[id(r)], settle=settle, ready=ready) for r in since}
    assert found.servable == lag([at[id(r)] - r.happened for r in since if at[id(r)] <= story.now])
    assert found.waiting == sum(at[id(r)] > story.now for r in since)
    assert found.absent == sum(
        any(r.happened <= i and counts[id(r)] <= i + settle and done < r.seen for i, done in story.runs) for r in since
    )
    if not refreshed:
        assert found.settling is None
        assert found.switches is None
        return
    beyond = {id(r): max(came[id(r)], counts[id(r)]) - grid(r.happened, HOUR) for r in told}
    least = {id(r): max(after[id(r)] + 1, counts[id(r)]) - grid(r.happened, HOUR) for r in told}
    assert found.settling is not None
    assert found.settling.missed == sum(value > settle for value in least.values())
    assert found.settling.caught == sum(beyond[r] > 0 and least[r] <= settle for r in beyond)
    assert found.settling.p99 == lag([max(0, value) for value in beyond.values()]).p99
    assert found.settling.longest == max(0, *beyond.values())

    delays, skipped, instant = [], 0, begin + HOUR
    while instant + ready <= story.now:
        delays.append(min((done for i, done in story.runs if i >= instant), default=story.now) - instant)
        skipped += instant not in {i for i, _ in story.runs}
        instant += HOUR
    assert found.switches is not None
    assert found.switches.delay == lag(delays)
    assert (found.switches.late, found.switches.skipped) == (sum(d > ready for d in delays), skipped)
    assert found.switches.instants == len(delays) > 3


def test_rows_of_a_file_that_is_written_anew_are_told_from_what_lay_there_before(tell: Tell, tmp_path: Path) -> None:
    """Only those that happened after the earlier one was seen came with it; a file that takes the place of others likewise."""
    story = tell({"known_after": "2m"}, ready_after="20m")
    story.pass_by(60)
    old = [story.now - n * MINUTE for n in range(1, 50)]
    story.land(old, name="day")
    story.pass_by(10)
    story.run()
    assert story.measured().known == lag([story.now - at for at in old])
    seen = story.now
    story.pass_by(60)
    new = [story.now - n * MINUTE for n in range(1, 100)]
    story.land([*old, *new], name="day")
    story.run()
    came = [at for at in new if at > seen]
    found = story.measured()
    assert 0 < len(came) < len(new)
    assert found.known == lag([story.now - at for at in came])
    assert found.untold == 1 + len(old) + len(new) - len(came)
    seen = story.now
    story.pass_by(60)
    (tmp_path / "data" / "day.parquet").unlink()
    story.land([*old, *new, story.now - MINUTE], name="week")
    story.run()
    assert story.measured().known == lag([MINUTE])
    assert story.measured().absent == 0


SWIPES: dict[str, Any] = {
    "schema": {"thing": Int64, "swipe": Int64, "at": Timestamp},
    "event_time": "at",
    "identity": "swipe",
}


def swipes(first: int, *happened: datetime) -> list[dict[str, Any]]:
    return [{"thing": 1, "swipe": first + n, "at": at} for n, at in enumerate(happened)]


def test_pushed_rows_are_told_by_the_log() -> None:
    """Known and servable when the store says, corrections left out; what came too late is counted, and lateness judged."""
    clock = ManualClock(NOON)
    source = PushSource("swipes", **SWIPES, lateness="1h")
    live = FeatureView("live", entity=THING, source=source, features={"n": Count(window="1d")})
    hourly = FeatureView(
        "hourly", entity=THING, source=source, features={"n": Count(window="1d")}, refresh="1h", settle="10m",
        ready_after="20m",
    )  # fmt: skip
    with FeatureStore.local(clock=clock) as store:
        store.apply([FeatureService("service", features=[live, hourly])])
        store.materialize(["hourly"], progress=False)
        late, known = [], []
        for n in range(100):
            clock.advance(timedelta(minutes=5))
            happened = clock() - timedelta(minutes=n % 30)
            store.push("swipes", swipes(n, happened))
            known.append((instant_of(happened), store.offline.log(source).last_known_at()))
            if n == 50:
                assert store.push("swipes", swipes(1000, clock() - timedelta(hours=3))).late == 1
                late.append(3 * HOUR)
        found = store.availability().views["live"]
        lags = [at - e for e, at in known]
        assert found.known == found.known_least == lag(lags)
        assert found.servable == lag(lags)
        assert found.late_lag == lag(late)
        assert [advice.word for advice in found.advice] == []  # 1 of 101 is less than the share that is tolerated
        store.push("swipes", [{"thing": 2, "swipe": 99, "at": to_datetime(known[99][0])}])
        assert store.availability().views["live"].versions == 1
        assert store.push("swipes", swipes(2000, clock() - timedelta(hours=5))).late == 1
        (advice,) = store.availability().views["live"].broken
        assert (advice.word, advice.declared, advice.measured) == ("lateness", HOUR, 3 * HOUR)
        assert "lateness='3h'" in advice.text
        hourly_found = store.availability(["hourly"]).views["hourly"]
        beyond = [at - grid(e, HOUR) for e, at in known]
        assert hourly_found.settling is not None
        assert hourly_found.settling.missed == sum(value > 10 * MINUTE for value in beyond) > 0
        assert hourly_found.settling.caught == sum(0 < value <= 10 * MINUTE for value in beyond) > 0
        assert hourly_found.settling.p99 == lag([max(0, value) for value in beyond]).p99


def some_hours(story: Story, *, delay: float = 1, known: float = 1, run: float = 15, skip: int = 1) -> None:
    """Four hours in which a file lands every half hour, `delay` minutes after its row, which says that it was known
    `known` minutes after it happened; a run comes `run` minutes after every `skip`th hour."""
    events = [(30 * n + delay, "land", 30 * n) for n in range(1, 9)]
    events += [(60 * n + run, "run", n) for n in range(5) if n % skip == 0]
    for at, what, n in sorted(event for event in events if event[0] <= 240 + run):
        story.clock.set(NOON + timedelta(minutes=at))
        if what == "run":
            story.run()
        else:
            happened = instant_of(NOON) + n * MINUTE
            story.land([happened], [happened + round(known * MINUTE)])


BY_FILE, BY_COLUMN = {"known_after": "2m"}, {"known_at": "known"}
BROKEN: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], list[str]]] = {
    "nothing": (BY_FILE, {}, {}, []),
    "known_after by files": (BY_FILE, {}, {"delay": 50}, ["known_after", "settle"]),
    "a settle shorter than known_after": ({"known_after": "2h"}, {}, {}, ["settle"]),
    "settle by a column": (BY_COLUMN, {}, {"known": 12}, ["settle"]),
    "a settle that nobody said": (BY_COLUMN, {"settle": None}, {"known": 12}, []),
    "a history's known_after": ({**BY_COLUMN, "history_until": NOON, "known_after": "10m"}, {"settle": None}, {"known": 12}, ["known_after"]),
    "ready_after by late runs": (BY_FILE, {"ready_after": "14m"}, {}, ["ready_after"]),
    "ready_after by skipped runs": (BY_FILE, {}, {"skip": 4}, ["ready_after"]),
    "files that settle misses": ({"known_at": ARRIVAL}, {}, {"delay": 50}, ["settle"]),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_advice_is_given_exactly_where_a_promise_is_broken(tell: Tell, name: str) -> None:
    """Each word by itself, from real files, runs and journals; what is advised would have been kept."""
    words, said, how, broken = BROKEN[name]
    story = tell(words, **{"settle": "5m", "ready_after": "15m", **said})
    some_hours(story, **how)
    found = story.measured()
    assert [advice.word for advice in found.advice] == broken
    assert all(advice.broken for advice in found.advice)
    for advice in found.advice:
        assert advice.measured > advice.declared
        assert advice.share > 0.01
        assert f"{advice.word} is {show_duration(advice.declared)}" in advice.text
        if advice.word != "ready_after" and (said_instead := re.search(rf"{advice.word}='(\w+)'", advice.text)):
            assert parse_duration(said_instead[1]) >= advice.measured
    if name == "known_after by files":
        assert found.absent == found.beyond == found.known.rows == 6  # the files of two more are to come
    if name == "a settle shorter than known_after":
        assert found.settling is not None
        assert found.settling.p99 == 2 * HOUR  # of the row that happened at an instant
    if name == "ready_after by skipped runs":
        assert found.switches is not None
        assert (found.switches.instants, found.switches.late, found.switches.skipped) == (5, 3, 3)
        assert "3 instants had no run" in found.advice[0].text


def test_only_rows_since_then_and_only_views_named(tell: Tell) -> None:
    """since is an instant or how long ago; a view that was not applied is refused; nothing is written by asking."""
    story = tell(BY_COLUMN, ready_after="20m")
    some_hours(story)
    whole, part = story.measured(), story.measured(since="2h")
    began = story.now - 2 * HOUR
    assert part.known.rows == sum(row.happened >= began for row in story.rows) < whole.known.rows
    assert part == story.measured(since=to_datetime(began))
    assert part.switches is not None
    assert part.switches.instants == 1  # that of three o'clock; the next is not due yet
    assert list(story.store.availability(["view"]).views) == ["view"]
    with pytest.raises(NotFoundError, match="No feature view 'vew' was applied. Did you mean 'view'"):
        story.store.availability(["vew"])
    assert story.measured() == whole


def test_corrections_are_no_late_rows(tmp_path: Path) -> None:
    """Of an identity's versions the first one to be known is measured, whatever order the files bring them in."""
    clock = ManualClock(NOON + timedelta(days=1))
    happened = [hours(n) for n in range(10)]
    late = [at + timedelta(minutes=n) for n, at in enumerate(happened)]
    corrected = [at + timedelta(hours=6) for at in happened]
    rows = {"at": [*happened, *happened], "known": [*corrected, *late], "thing": [1] * 20, "id": [*range(10)] * 2}
    write(tmp_path / "rows.parquet", table(**rows))
    source = ParquetSource("rows", tmp_path / "rows.parquet", event_time="at", known_at="known", identity="id")
    view = FeatureView("view", entity=THING, source=source, features={"n": Count(window="1d")}, refresh="1h")
    with FeatureStore.local(clock=clock) as store:
        store.apply([FeatureService("service", features=[view])])
        found = store.availability().views["view"]
    assert found.known == lag([n * MINUTE for n in range(10)])
    assert found.versions == 10
    assert found.servable == Lag()  # it was never materialized


def test_runs_that_are_recorded_out_of_order_count_by_the_first_that_was_done() -> None:
    """A later instant that was done first serves for an earlier one; an instant that was computed twice counts once."""
    runs = [(10, 11, 15), (20, 21, 40), (30, 31, 35), (10, 50, 55)]
    done = Completions(runs, Timing(10, ready_after=2))
    assert done.instants == [10, 20, 30]
    assert done.finishes == [15, 35, 35]
    assert done.served == [15, 35, 35]
    assert [done.found(seen) for seen in (0, 11, 12, 31, 32)] == [(10, 15), (10, 15), (20, 35), (30, 35), (END, END)]
    assert Completions(runs, Timing(10, ready_after=30)).served == [40, 50, 60]


def test_a_table_in_a_database_file_is_told_by_the_file(tmp_path: Path) -> None:
    """Written anew, it tells of the rows that happened since it was seen before; derived columns and identities beside."""

    def fill(*rows: tuple[int, datetime]) -> None:
        with duckdb.connect(str(tmp_path / "rows.db")) as connection:
            connection.execute('CREATE TABLE IF NOT EXISTS rows (thing BIGINT, "at" TIMESTAMPTZ, version BIGINT)')
            connection.executemany("INSERT INTO rows VALUES (?, ?, 1), (?, ?, 2)", [[*row, *row] for row in rows])

    fill((1, hours(-2)))
    source = TableSource(
        "rows", tmp_path / "rows.db", table="rows", event_time="at", known_after="1m", identity="thing", version="version",
        derived={"twice": "thing * 2"},
    )  # fmt: skip
    view = FeatureView("view", entity=THING, source=source, features={"x": Latest("twice")}, refresh="1h")
    with small_store(view) as (store, clock):
        store.materialize(progress=False)
        clock.advance(timedelta(hours=1))
        fill((2, hours(0.5)), (3, hours(-0.5)))
        store.materialize(progress=False)
        found = store.availability().views["view"]
    assert (found.how, found.known, found.untold, found.versions) == ("sighting", lag([HOUR // 2]), 2, 3)
    assert found.servable == lag([HOUR // 2])


def test_a_view_that_was_filled_later_is_measured_from_then_on() -> None:
    """What was pushed before it was filled is history to it; before it is filled it serves nothing."""
    source = PushSource("swipes", **SWIPES)
    one, two = (
        FeatureView(name, entity=THING, source=source, features={"n": Count(window=window)})
        for name, window in (("one", "1d"), ("two", "2d"))
    )
    with small_store(one) as (store, clock):
        store.push("swipes", swipes(1, hours(-1)))
        store.apply([FeatureService("service", features=[one, two])])
        clock.advance(timedelta(hours=1))
        before = store.availability().views
        assert (before["one"].servable.rows, before["two"].servable.rows, before["two"].known.rows) == (1, 0, 1)
        store.materialize(progress=False)
        clock.advance(timedelta(hours=1))
        store.push("swipes", swipes(2, hours(1.5)))
        views = store.availability().views
        assert (views["one"].servable.rows, views["two"].servable.rows, views["two"].known.rows) == (2, 1, 2)


def test_what_cannot_be_measured_is_said_so() -> None:
    """Frames that promise and tables without time say nothing of when rows came, but their runs are judged."""
    facts = view_of(table(thing=[1], at=[NOON], x=[1]), {"x": Latest("x")}, known_after="1m", refresh="1h")
    bare = view_of(
        table(thing=[1], x=[1]), {"x": Latest("x")}, name="bare", event_time=None, refresh="1h", ready_after="10m"
    )
    with small_store(facts, bare) as (store, clock):
        store.materialize(progress=False)
        clock.advance(timedelta(hours=2, minutes=30))
        store.materialize(progress=False)
        found = store.availability()
        told = found.views
        assert [told[name].how for name in ("view", "bare")] == ["nothing", "nothing"]
        assert (told["view"].known, told["view"].untold) == (Lag(), 1)
        assert [advice.word for advice in told["view"].advice] == ["ready_after"]
        assert told["bare"].switches is not None
        assert (told["bare"].switches.late, told["bare"].switches.instants, told["bare"].switches.skipped) == (2, 3, 1)
        assert "not measured" in str(found)
        assert "<table>" in found._repr_html_()
        assert found.to_dict()["views"]["bare"]["switches"]["late"] == told["bare"].switches.late
        assert found.to_dict()["broken"] == len(found.broken) == 2


def test_the_command_fails_where_a_promise_is_broken(tell: Tell, tmp_path: Path) -> None:
    """With --fail-on-broken alone, by exit code 3; text and JSON tell what the report tells."""
    story = tell(BY_FILE, ready_after="1h")
    (tmp_path / "definitions.py").write_text("")
    runner, place = CliRunner(), ["--repo", str(tmp_path)]
    some_hours(story, delay=50)
    story.store.close()
    done = runner.invoke(app, ["availability", *place, "--fail-on-broken", "--since", "2020-01-01"])
    assert done.exit_code == 3, done.output
    assert "known_after is 2m, and " in done.output
    done = runner.invoke(app, ["availability", "view", *place, "--json"])
    assert done.exit_code == 0
    assert json.loads(done.output)["views"]["view"]["advice"][0]["word"] == "known_after"
    assert runner.invoke(app, ["availability", *place, "--fail-on-broken", "--since", "1s"]).exit_code == 0
