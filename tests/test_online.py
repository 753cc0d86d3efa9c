"""What a lookup serves is what training says, at an as_of that is true and never too late."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore.clock import ManualClock, instant_of, to_datetime
from featurestore.errors import NotMaterializedError
from featurestore.materialize.materialize import materialize_view
from featurestore.materialize.progress import Progress
from featurestore.online import Guard, OnlineStore, Reading, open_online
from featurestore.online.view_codec import ViewCodec, unpack_watermark
from featurestore.semantics.service import ResolvedService
from featurestore.serving.lookup import Lookup
from featurestore.sources.offline import Offline
from tests import oracle
from tests.draws import draws
from tests.histories import History, clocks, histories, keys_of
from tests.world import bits, declare, resolved

QUIET = Progress(shown=False)
PROJECTS = (f"p{n}" for n in itertools.count())


class Killed(BaseException):
    """The process ended here."""


class Dying:
    """A store whose process dies before its nth write."""

    blocking = tagged = False

    def __init__(self, store: OnlineStore, writes: int) -> None:
        self._store, self._left = store, writes

    def get(self, keys: Any) -> Reading:
        return self._store.get(keys)

    def scan(self, prefix: bytes) -> Iterator[list[bytes]]:
        return self._store.scan(prefix)

    def write(self, puts: Mapping[bytes, bytes | None], *, guard: Guard | None = None) -> bool:
        if self._left == 0:
            raise Killed
        self._left -= 1
        return self._store.write(puts, guard=guard)

    def close(self) -> None:
        self._store.close()


@pytest.fixture(autouse=True, scope="module")
def small_batches() -> Iterator[None]:
    """Two keys a batch, so that a run can die between any two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("featurestore.materialize.kernel.BATCH_KEYS", 2)
        patch.setattr("featurestore.materialize.kernel.EMBEDDED_BATCH_KEYS", 2)
        yield


@pytest.fixture(scope="module", params=["lmdb", "redis"])
def online_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The two stores; every example uses a project of its own in them."""
    if request.param == "redis":
        yield request.getfixturevalue("redis_url")
        return
    with tempfile.TemporaryDirectory() as folder:
        yield f"lmdb://{folder}/online"


@dataclass
class World:
    """One project: its view over a history, the store with a clock to set, and what has been completed."""

    history: History
    service: ResolvedService
    offline: Offline
    store: OnlineStore
    clock: ManualClock
    project: str
    complete: int | None = None

    @property
    def now(self) -> int:
        return instant_of(self.clock())

    def materialize(self, *, dies_after: int | None = None) -> None:
        view = self.service.parts[0].view
        store: Any = self.store if dies_after is None else Dying(self.store, dies_after)
        due = view.timing.due(self.now, self.complete)
        try:
            runs = materialize_view(view, self.offline, store, project=self.project, progress=QUIET)
            assert [run.instant for run in runs] == due
            self.complete = due[-1] if due else self.complete
        except Killed:
            codec = ViewCodec(self.project, view)
            self.store.write({codec.lease_key: None})  # its process is gone
            published = self.store.get([codec.watermark_key]).values[0]
            if published is not None:
                self.complete = max(i for i in [self.complete, *unpack_watermark(published)] if i is not None)

    def keys(self) -> list[tuple[Any, ...]]:
        """Those that are asked for, and every key that was written: what left one of them is seen there."""
        return keys_of(self.history)

    def check_lookup(self) -> None:
        history, view = self.history, self.service.parts[0].view
        wanted = view.timing.as_of(self.now)
        names = list(history.view.key)
        rows = [dict(zip(names, key, strict=True)) for key in self.keys()]
        lookup = Lookup(self.service, self.store, project=self.project)
        try:
            result = lookup.get(rows)
        except NotMaterializedError:
            assert self.complete is None or self.complete > wanted
            return
        base = instant_of(result.as_of["view"])
        assert base <= wanted, "early"
        assert self.complete is not None
        assert base == wanted or self.complete == base, "older than it need be"
        assert result.stale["view"] == (base < wanted)
        served = result.to_dict()
        for number, key in enumerate(self.keys()):
            answer = oracle.value_at(
                history.source, history.view, history.rows, history.types, key, base, base + view.timing.settle
            )
            for name in history.view.features:
                where = (key, name, base, self.now)
                assert result.statuses[f"view__{name}"][number] == answer.status, where
                assert bits(history, name, served[f"view__{name}"][number]) == bits(
                    history, name, answer.values[name]
                ), where


@st.composite
def stories(draw: st.DrawFn) -> tuple[History, list[tuple[int, str, int]]]:
    """A history, and what happens to it: (when, what is done, after how many writes it dies)."""
    history = draw(histories(max_questions=4, bare=draw(st.booleans())))
    actions = st.sampled_from((*["materialize"] * 4, "look", "die"))
    return history, [(at, draw(actions), draw(st.integers(0, 4))) for at in draw(clocks(history, most=8))]


@settings(max_examples=draws(95), deadline=None, suppress_health_check=list(HealthCheck))
@given(story=stories())
def test_lookup_is_training_at_the_as_of_served(online_url: str, story: tuple[History, list]) -> None:
    """Skipped, late and killed runs, lookups anywhere: every value is the oracle's at the as_of served, never early."""
    history, events = story
    offline = Offline(Path())
    clock = ManualClock(to_datetime(events[0][0]))
    store = open_online(online_url, clock=clock)
    try:
        world = World(history, resolved(declare(history), offline), offline, store, clock, next(PROJECTS))
        for at, action, writes in events:
            clock.set(to_datetime(at))
            if action == "look":
                world.check_lookup()
            else:
                world.materialize(dies_after=writes if action == "die" else None)
                world.check_lookup()
    finally:
        store.close()
        offline.close()
