"""What is served of pushed rows is what training says at the as_of served, and what the rows of the log are worth."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore import FeatureStore, ManualClock
from featurestore.clock import instant_of, to_datetime
from featurestore.errors import NotMaterializedError, PushError
from featurestore.online.view_codec import ViewCodec
from featurestore.push.push_sources import Pushing
from featurestore.semantics.view import ResolvedView
from featurestore.serving.lookup import Lookup
from featurestore.serving.online_result import OnlineResult
from featurestore.types import parse_type
from tests.draws import draws
from tests.histories import EPOCH, KEY_POOLS, MICROSECOND, NUDGE, pick, rarely
from tests.oracle import sort_key
from tests.pushing import (
    DyingStore,
    InterleavedStore,
    Killed,
    PushWorld,
    Row,
    a_row,
    configure,
    kept,
    push_worlds,
    put_back,
    with_hop,
)


@pytest.fixture(scope="module", params=["lmdb", "redis"])
def online_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The two stores; every example uses a project of its own in them."""
    if request.param == "redis":
        yield request.getfixturevalue("redis_url")
        return
    with tempfile.TemporaryDirectory() as folder:
        yield f"lmdb://{folder}/online"


class Story:
    """One project, acted upon; what was served last, and what the log must hold."""

    def __init__(self, world: PushWorld, folder: Path) -> None:
        self.world, self.folder = world, folder
        self.clock = ManualClock(to_datetime(world.history.origin + 10 * world.history.step))
        self.store = FeatureStore(folder, clock=self.clock)
        self.store.apply(world.declare())
        self.pushed: list[Row] = []
        self.pending = False
        self.unfilled = False  # whether the store came back from before the view was filled
        self.old: dict[bytes, bytes] | None = None  # what was online at some time before
        views = {name: self.view(name) for name in ("view", "rolled") if name == "view" or world.refresh is not None}
        self.types = {feature.name: str(feature.type).replace(", ", ",") for feature in views["view"].features}
        self.source = views["view"].source
        self.served = dict.fromkeys(views, -(1 << 63))

    def view(self, service: str) -> ResolvedView:
        return self.store.lookup(service).service.parts[0].view

    @property
    def now(self) -> int:
        return instant_of(self.clock())

    def logged(self) -> list[Row]:
        """The rows of the log, as they are."""
        return self.store.offline.log(self.source).read().to_pylist()  # type: ignore[arg-type]  # a push source, by its name

    def sort_keys(self, row: Row) -> tuple[Any, ...]:
        """A row's own columns, comparable to the bit."""
        return tuple(sort_key(of, row.get(name)) for name, of in self.world.columns.items())

    def marks(self, logged: list[Row]) -> list[tuple[Any, ...]]:
        """Logged rows, comparable to the bit."""
        return [(row["known_at"], row["__replaces"], self.sort_keys(row)) for row in logged]

    def named(self, row: Row) -> tuple[Any, ...]:
        return tuple(row[name] for name in self.world.identity)

    # --- what happens -----------------------------------------------------------------------

    def push(self, rows: list[Row]) -> None:
        """Push rows: what is logged of them, and what each replaces, is what rule 7 says."""
        before = self.logged()
        left = [n for row in before for n in (row["known_at"], self.at(row)) if n is not None]
        now = max([self.now, *left])  # when what a dead pusher left has been applied
        ahead = [at for at in map(self.at, rows) if at is not None and at > now + self.world.tolerance]
        if ahead:
            with pytest.raises(PushError, match="row"):
                self.store.push("rows", rows)
            assert self.marks(self.logged()) == self.marks(before)
            self.pending = False  # the turn has applied what was left
            return
        answer = self.store.push("rows", rows)
        self.pending = False
        self.pushed += rows
        logged = self.logged()
        fresh, unchanged, late = self.judged(before, rows, now)
        assert (answer.accepted, answer.unchanged, answer.late) == (len(fresh), unchanged, late)
        assert self.marks(logged[: len(before)]) == self.marks(before)
        added = logged[len(before) :]
        assert [self.sort_keys(row) for row in added] == [self.sort_keys(row) for row in fresh]
        assert [row["__replaces"] for row in added] == self.replaced(before, added, now)
        learned = [row["known_at"] for row in logged]
        assert learned == sorted(set(learned))
        assert all(now < n <= self.now for n in learned[len(before) :])

    def at(self, row: Row) -> int | None:
        """When a row happened (µs)."""
        return None if row["event_time"] is None else (row["event_time"] - EPOCH) // MICROSECOND

    def last_time(self, versions: list[Row]) -> int | None:
        """When the row happened that these are versions of, by the last of them that says so."""
        return next((at for at in map(self.at, reversed(versions)) if at is not None), None)

    def judged(self, before: list[Row], rows: list[Row], now: int) -> tuple[list[Row], int, int]:
        """The rows that are new, how many are retries, and how many too late."""
        seen, fresh, unchanged, late = list(before), [], 0, 0
        earliest = now - self.world.lateness
        for row in rows:
            versions = [old for old in seen if self.world.identity and self.named(old) == self.named(row)]
            happened = self.last_time(versions) if row["event_time"] is None else self.at(row)
            if self.sort_keys(row) in map(self.sort_keys, versions):
                unchanged += 1
            elif happened is not None and happened < earliest:
                late += 1
            else:
                fresh.append(row)
                seen.append(row)
        return fresh, unchanged, late

    def replaced(self, before: list[Row], added: list[Row], now: int) -> list[int | None]:
        """The known_at of the version that each added row replaces: the last of its identity, where it is not forgotten."""
        seen, found = list(before), []
        for row in added:
            versions = [old for old in seen if self.world.identity and self.named(old) == self.named(row)]
            time = self.last_time(versions)
            forgotten = time is not None and time < now - self.world.lateness
            found.append(versions[-1]["known_at"] if versions and not forgotten else None)
            seen.append(row)
        return found

    def die(self, rows: list[Row], where: str, writes: int) -> None:
        """Push, or materialize, as a process that dies on the way."""
        store = DyingStore(self.store.online, writes if where != "append" else 99)
        pushing = Pushing(
            self.store.registry, self.store.offline, store, project=self.store.config.project, clock=self.clock
        )  # fmt: skip
        log = self.store.offline.log(self.source)  # type: ignore[arg-type]  # a push source, by its name
        append = type(log).append
        with pytest.MonkeyPatch.context() as patch:
            if where == "append":

                def dying(own: Any, batches: Any, *moves: Any) -> None:
                    append(own, batches, *moves)
                    raise Killed

                patch.setattr(type(log), "append", dying)
            try:
                if where == "fill":
                    pushing.fill(self.view("view"), full=True)
                else:
                    pushing.push("rows", rows)
            except (Killed, PushError):
                pass
        self.pending = True
        self.pushed += rows

    def restart(self) -> None:
        """Another process, over the same folders."""
        self.store.close()
        self.store = FeatureStore(self.folder, clock=self.clock)

    def go_back(self) -> None:
        """The online store comes back as it was when it was kept last."""
        if self.old is not None:
            put_back(self.store, self.old)
            self.pending = True
            self.unfilled = ViewCodec(self.store.config.project, self.view("view")).watermark_key not in self.old
            self.served = dict.fromkeys(self.served, -(1 << 63))

    def materialize(self, *, full: bool) -> None:
        self.store.materialize(full=full, progress=False)
        self.pending = self.unfilled = False

    def torn(self, rows: list[Row]) -> None:
        """Look up, with a push between the marks and the records that are read: an answer that is of neither is not given."""
        if not self.logged() or self.pending or self.unfilled:
            return
        store: Any = InterleavedStore(self.store.online, 2, lambda: self.push(rows))
        names = list(self.world.history.view.key)
        asked = [dict(zip(names, key, strict=True)) for key in self.keys()]
        service = self.store.lookup("view").service
        online = Lookup(service, store, project=self.store.config.project).get(asked)
        self.compare("view", online, instant_of(online.as_of["view"]), settle=0)

    # --- what is served ---------------------------------------------------------------------

    def keys(self) -> list[tuple[Any, ...]]:
        """Every key that a row may have, and some with a null."""
        keys: list[tuple[Any, ...]] = [()]
        for column in self.world.history.view.key.values():
            keys = [(*key, part) for key in keys for part in (*KEY_POOLS[self.world.history.types[column]][:2], None)]
        return keys

    def look(self) -> None:
        """Lookup = training = oracle at an as_of that never goes back: now unless something is pending, or by rule 0."""
        names = list(self.world.history.view.key)
        rows = [dict(zip(names, key, strict=True)) for key in self.keys()]
        for name, before in self.served.items():
            try:
                online = self.store.get_online_features(rows, name)
            except NotMaterializedError:
                assert name == "rolled" or not self.logged() or self.pending or self.unfilled
                continue
            as_of = instant_of(online.as_of[name])
            wanted = self.view(name).timing.as_of(self.now)
            assert before <= as_of <= wanted
            assert as_of == wanted or self.pending or name == "rolled"
            assert online.stale[name] == (as_of < wanted)
            self.served[name] = as_of
            settle = self.world.settle if name == "rolled" else 0
            self.compare(name, online, as_of, settle=settle)

    def compare(self, name: str, online: OnlineResult, as_of: int, *, settle: int) -> None:
        types, keys = self.world.history.types, self.keys()
        columns = {
            entity: pa.array([key[n] for key in keys], parse_type(types[column]).arrow)
            for n, (entity, column) in enumerate(self.world.history.view.key.items())
        }
        times = pa.array([as_of + settle] * len(keys), pa.int64()).cast(pa.timestamp("us", "UTC"))
        spine = pa.table({**columns, "event_timestamp": times})
        trained = self.store.get_historical_features(spine, name, with_status=True).to_arrow()
        logged, served = self.logged(), online.to_dict()
        for i, declared in enumerate(self.world.specs):
            column, of = f"{name}__fold_{i}", self.types[f"fold_{i}"]
            spec = replace(declared, hop=None) if name == "rolled" else with_hop(declared)
            shown = of.replace(",", ", ") if of.startswith("Array(Float32,") else of
            for n, key in enumerate(keys):
                got = online.statuses[column][n], sort_key(shown, served[column][n])
                said = trained[f"{column}__status"][n].as_py(), sort_key(shown, trained[column][n].as_py())
                status, value = self.world.expected(logged, spec, of, key=key, as_of=as_of, settle=settle)
                assert got == said, (key, as_of, spec, logged)
                assert got == (status, sort_key(shown, value)), (key, as_of, spec, logged)


ACTIONS = (
    ("push",) * 8 + ("again", "again", "die", "die", "restart", "compact", "fill", "full", "torn", "torn")
    + ("move",) * 5 + ("keep", "keep", "back", "back")
)  # fmt: skip


def moved(story: Story, draw: st.DrawFn) -> int:
    """How far the clock moves: half of the time to an edge, of a row that was pushed or of the grid, or a µs beside it."""
    world = story.world
    step = max(1, world.history.step // 2)
    by = draw(st.integers(0, 3)) * step
    later = [edge for edge in world.edges(story.pushed) if edge > story.now]
    edge = -(-story.now // step) * step
    found = pick(draw, story.now + by, edge, *([] if not later else [draw(st.sampled_from(later[:4]))] * 2))
    return max(0, found + draw(NUDGE) - story.now)


def act(story: Story, draw: st.DrawFn, action: str, number: int) -> None:
    world = story.world
    if action in {"push", "die", "torn"}:
        rows = [a_row(draw, world, story.now, 10 * number + i) for i in range(draw(st.integers(1, 3)))]
        if action == "push":
            story.push(rows)
        elif action == "torn":
            story.torn(rows)
        else:
            story.die(rows, pick(draw, "write", "append", "fill"), draw(st.integers(0, 3)))
    elif action == "again" and story.pushed:
        story.push(draw(st.lists(st.sampled_from(story.pushed), min_size=1, max_size=3)))
    elif action == "move":
        story.clock.advance(timedelta(microseconds=moved(story, draw)))
    elif action == "restart":
        story.restart()
    elif action == "compact":
        story.store.offline.log(story.source).compact(everything=True, grace=0 if rarely(draw, 2) else 3600)  # type: ignore[arg-type]  # a push source, by its name
    elif action == "keep":
        story.old = kept(story.store)
    elif action == "back":
        story.go_back()
    elif action in {"fill", "full"}:
        story.materialize(full=action == "full")


@settings(max_examples=draws(19), deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_what_is_served_is_training_and_the_oracle(online_url: str, data: st.DataObject) -> None:
    """Pushes that are late, early, tied, corrected, deleted and repeated, among crashes, restarts, compactions, fills and
    online stores that come back older."""
    world = data.draw(push_worlds())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        configure(folder, online_url)
        story = Story(world, folder)
        try:
            for number, action in enumerate(data.draw(st.lists(st.sampled_from(ACTIONS), min_size=2, max_size=9))):
                data.draw(st.composite(lambda draw, a=action, n=number: act(story, draw, a, n))())
                story.look()
            story.materialize(full=False)
            story.look()
        finally:
            story.store.close()
