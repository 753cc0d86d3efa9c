"""simulate: replay a stretch of history through push, materialize and lookup, with faults, and audit what was served.

What happens is decided by the data, the definitions and a seed alone, so the same seed gives the same report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from featurestore.catalog import Catalog
from featurestore.clock import to_datetime
from featurestore.config import Config
from featurestore.declare.durations import parse_duration
from featurestore.declare.problems import shown
from featurestore.declare.services import FeatureService
from featurestore.errors import RequestError
from featurestore.reports.simulation.advice import advice_on, notes_on
from featurestore.reports.simulation.faults import Faults, Stretch
from featurestore.reports.simulation.feeds import Feeds
from featurestore.reports.simulation.replay import SimulatedReplay
from featurestore.reports.simulation.report import Simulation
from featurestore.reports.simulation.world import Open, World, check_alike, reading, settled
from featurestore.sources.offline import Offline

STRETCH_US = parse_duration("1d")
"""How much of the end of the data is replayed where nothing else is said."""


@dataclass(frozen=True)
class Simulated:
    """What is to be simulated."""

    start: int | None = None
    """In µs; by default a day before the end."""
    end: int | None = None
    """In µs; by default where the data ends."""
    services: Sequence[str] | None = None
    """Their names; None for all."""
    faults: Faults = field(default_factory=Faults)
    seed: int = 0
    lookups: float = 30
    """Requests of each service an hour."""
    rows: Mapping[str, Any] = field(default_factory=dict)
    """Frames in place of the logs of push sources, by name."""

    def __post_init__(self) -> None:
        if self.services is not None and not self.services:
            raise RequestError("services is an empty list; leave it out for all of them")
        if not isinstance(self.faults, Faults):
            raise RequestError(f"faults is Faults(…), and not {shown(self.faults)}")
        if not isinstance(self.rows, Mapping):
            raise RequestError(f"rows is a dict of push sources and frames, and not {shown(self.rows)}")


@dataclass(frozen=True)
class Real:
    """The real project, of which everything is read and nothing is written."""

    config: Config
    catalog: Catalog
    offline: Offline
    now: int
    """By its clock, in µs; no data after it is the end."""


def simulate(real: Real, asked: Simulated, open_store: Open) -> Simulation:
    """Simulate in a temporary folder; of the real project everything is read and nothing is written.

    Raises NotFoundError, RequestError, SourceError and PushError, and what the verbs refuse before the clock moves.
    """
    services = _services(real.catalog, asked.services)
    with ExitStack() as stack:
        world = World(real.config, open_store)
        stack.callback(world.close)
        session = stack.enter_context(real.offline.session())
        feeds = Feeds(services, real.offline, session, folder=world.sources, rows=asked.rows)
        span = _span(feeds, asked, real.now)
        world.clock.set(to_datetime(span.start))
        files = feeds.begin(span, asked.faults, asked.seed)
        simulated = reading(services, feeds.sources(span))
        world.open(simulated)
        for name, seen in files.items():
            world.see(feeds.landings[name].source, seen)
        for feed in feeds.pushes.values():
            feed.begin(span, world.store.offline.log(feed.source))
        resolved = settled(simulated, world.store.offline)
        check_alike(services, real.offline, [part.view for service in resolved for part in service.parts])
        world.store.apply(simulated)
        world.store.materialize(progress=False)
        replay = SimulatedReplay(world, feeds, resolved, span=span, faults=asked.faults, seed=asked.seed)
        audit = replay.whole(asked.lookups)
        refused = {what: (replay.counts[what], message) for what, message in replay.refused.items()}
        return Simulation(
            start=span.start, end=span.end, seed=asked.seed, services=tuple(service.name for service in services),
            faults=asked.faults, pause=replay.pause,
            landed={name: feed.done for name, feed in feeds.landings.items()},
            pushed={name: feed.done for name, feed in feeds.pushes.items()},
            runs=tuple(replay.runs.values()), counts=replay.counts, refused=replay.refused, audit=audit,
            notes=tuple(notes_on(feeds, span, asked.faults)),
            advice=tuple(advice_on(audit, resolved, feeds, runs=replay.runs, refused=refused)),
        )  # fmt: skip


def _services(catalog: Catalog, names: Sequence[str] | None) -> list[FeatureService]:
    """The services of these names, or all; where none is declared, one for each view."""
    if names is not None:
        return [catalog.service(name) for name in dict.fromkeys(names)]
    if catalog.services:
        return [catalog.services[name] for name in sorted(catalog.services)]
    if not catalog.views:
        raise RequestError("There is nothing to simulate: no service and no view is declared")
    return [FeatureService(name, features=[view]) for name, view in sorted(catalog.views.items())]


def _span(feeds: Feeds, asked: Simulated, now: int) -> Stretch:
    end = asked.end if asked.end is not None else feeds.newest(now)
    if end is None:
        raise RequestError(
            "Nothing says when any row was known, so the data has no end; say from when to when to simulate"
        )
    start = asked.start if asked.start is not None else end - STRETCH_US
    if start >= end:
        raise RequestError(
            f"The stretch from {to_datetime(start).isoformat()} to {to_datetime(end).isoformat()} is empty"
        )
    return Stretch((start, end))
