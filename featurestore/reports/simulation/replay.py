"""The replay itself: everything that happens in a simulation, in its order, on its clock."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial

from featurestore.clock import instant_of
from featurestore.declare.durations import parse_duration
from featurestore.errors import FeatureStoreError, MaterializeError, PushError
from featurestore.materialize.progress import Progress
from featurestore.reports.audit import Audit
from featurestore.reports.simulation.failing import Killed
from featurestore.reports.simulation.faults import Faults, Stretch, chance
from featurestore.reports.simulation.feeds import Feeds
from featurestore.reports.simulation.landing import RETRIED_WITHIN_US
from featurestore.reports.simulation.pushes import Batch, PushFeed
from featurestore.reports.simulation.questions import Questions
from featurestore.reports.simulation.report import ViewRuns
from featurestore.reports.simulation.schedule import (
    ASKED,
    FIRST,
    KEY_DRAWS,
    PUSHED,
    RUN,
    Schedule,
    lookups,
    pause_of,
    restarts,
    runs,
)  # fmt: skip
from featurestore.reports.simulation.world import World
from featurestore.semantics.service import ResolvedService
from featurestore.semantics.view import ResolvedView

FIRST_WRITES = 3
"""A run that dies does so before one of its first writes: of the lease, a batch, the watermark."""

REPAIRED_WITHIN_US = parse_duration("2m")
"""Within which a push that died is repaired, and pushed again where its source has an identity."""


class SimulatedReplay:
    """A replay over a world whose sources are laid down and whose services are applied and materialized."""

    def __init__(
        self,
        world: World,
        feeds: Feeds,
        services: Sequence[ResolvedService],
        *,
        span: Stretch,
        faults: Faults,
        seed: int,
    ) -> None:
        self.views = {part.view.name: part.view for service in services for part in service.parts}
        self.runs = {name: ViewRuns(name) for name in sorted(self.views)}
        self.refused: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        self.pause = pause_of(span, faults, seed)
        self._world, self._feeds, self._services = world, feeds, services
        self._span, self._faults, self._seed = span, faults, seed
        self._questions = Questions(services, chance(seed, "questions"))
        self._running = {name: chance(seed, f"runs of {name}") for name in self.views}
        self._dying, self._death = False, chance(seed, "deaths")
        self._schedule = Schedule()

    def whole(self, per_hour: float) -> Audit:
        """Let everything happen, and audit it. per_hour: requests of each service."""
        self._plan(per_hour)
        progress = Progress(shown=sys.stderr.isatty())
        progress.start("simulate", len(self._schedule))
        for event in self._schedule.upto(self._span.end):
            self._world.advance(event.at)
            event.act()
            progress.advance(1)
        progress.done("simulated; now the audit")
        # Training is done later, when all that was on its way has come.
        self._world.advance(self._span.end + (self._faults.late_by if self._faults.late else 0) + RETRIED_WITHIN_US)
        self._feeds.land(self._now())
        self._world.store.repair()
        return self._world.store.audit()

    def _plan(self, per_hour: float) -> None:
        span, faults, seed = self._span, self._faults, self._seed
        for n in range(KEY_DRAWS):
            self._schedule.add(span.start + n * span.length // KEY_DRAWS, FIRST, self._draw_keys)
        for number, at in enumerate(restarts(span, faults, seed)):
            self._schedule.add(at, FIRST, partial(self._restart, number))
        for feed in self._feeds.pushes.values():
            for batch in feed.batches(span, faults, seed):
                at = max(batch.at, self.pause[1]) if self._pauses(batch.at) else batch.at
                self._schedule.add(at, PUSHED, partial(self._push, feed, batch))
        for name in sorted(self.views):
            for at in runs(self.views[name], span):
                self._schedule.add(at, RUN, partial(self._run, self.views[name]))
        for service in self._services:
            for at in lookups(service.name, span, per_hour, seed):
                self._schedule.add(at, ASKED, partial(self._ask, service.name))

    def _now(self) -> int:
        return instant_of(self._world.clock())

    def _pauses(self, at: int) -> bool:
        return self.pause[0] <= at < self.pause[1]

    # --- what happens -----------------------------------------------------------------------

    def _draw_keys(self) -> None:
        self._questions.refresh(self._world.store.offline, [self.views[name] for name in sorted(self.views)])

    def _run(self, view: ResolvedView) -> None:
        """A run as a scheduler starts it; what has come by now has landed."""
        told, drawn = self.runs[view.name], self._running[view.name]
        skips, fails = drawn.random() < self._faults.skip, drawn.random() < self._faults.fail
        writes = drawn.randrange(FIRST_WRITES)
        if self._pauses(self._now()):
            told.paused += 1
            return
        if skips:
            told.skipped += 1
            return
        self._feeds.land(self._now(), [view.source.name])
        failing = self._world.failing
        assert failing is not None
        failing.die_after(writes if fails else None)
        try:
            if self._world.store.materialize([view.name], progress=False):
                told.completed += 1
        except Killed:
            told.failed += 1
        except MaterializeError:  # the lease of a run that died has not run out
            told.refused += 1
        finally:
            failing.die_after(None)

    def _push(self, feed: PushFeed, batch: Batch) -> None:
        failing, source, dying = self._world.failing, feed.source, self._dying
        assert failing is not None
        # Before known_at is reserved, or with the rows in the log, which is where no retry would count them twice.
        if dying:
            failing.die_after(self._death.randint(0, 1) if source.identity else 1)
        try:
            pushed = self._world.store.push(source.name, batch.rows)
        except Killed:
            feed.done.died += 1
            self._dying = False
            self._world.restart()
            self._schedule.add(
                self._now() + self._death.randint(1, REPAIRED_WITHIN_US), PUSHED, partial(self._repair, feed, batch)
            )
        except PushError as error:
            self._refuse(f"push to {source.name}", error)
        else:
            feed.done.pushes += 1
            feed.done.rows += batch.rows.num_rows
            feed.done.accepted += pushed.accepted
            feed.done.unchanged += pushed.unchanged
            feed.done.kept_aside += pushed.late
        finally:
            failing.die_after(None)

    def _repair(self, feed: PushFeed, batch: Batch) -> None:
        self._world.store.repair()
        if feed.source.identity:
            self._push(feed, batch)

    def _restart(self, number: int) -> None:
        self.counts["restarts"] += 1
        if number % 2 and self._feeds.pushes:
            self._dying = True
            return
        self._world.restart()
        self._world.store.repair()

    def _ask(self, service: str) -> None:
        rows = self._questions.rows(service, self._now())
        self.counts["lookups"] += 1
        try:
            self._world.store.get_online_features(rows, service)
        except FeatureStoreError as error:
            self._refuse(f"lookup of {service}", error)

    def _refuse(self, what: str, error: FeatureStoreError) -> None:
        kind = f"{what}: {type(error).__name__}"
        self.counts[kind] += 1
        self.refused.setdefault(kind, str(error))
