"""When things happen in a simulation: runs of materialize as a scheduler starts them, pushes, lookups, restarts.

A run for the instant I of a refreshed view starts at I + settle, when all that counts for I is known; a run of a
continuous view over a batch source every hour. A run that died or was skipped is made up for by the next.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from featurestore.declare.durations import parse_duration
from featurestore.reports.simulation.faults import Faults, Stretch, chance
from featurestore.semantics.time import Timing
from featurestore.semantics.view import ResolvedView

HOURLY_US = parse_duration("1h")
"""How often a continuous view over a batch source is materialized."""

KEY_DRAWS = 4
"""How often in a simulation the keys that are looked up are drawn from anew."""

FIRST, PUSHED, RUN, ASKED = range(4)
"""What comes first among things of one instant."""


class Event(NamedTuple):
    """Something that happens at an instant (µs); events of one instant in the order of `kind`, then of their numbers."""

    at: int
    kind: int
    number: int
    act: Callable[[], None]


class Schedule:
    """What is still to happen, which may add to it."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._events)

    def add(self, at: int, kind: int, act: Callable[[], None]) -> None:
        """Let it happen at an instant (µs)."""
        heapq.heappush(self._events, Event(at, kind, next(self._numbers), act))

    def upto(self, end: int) -> Iterator[Event]:
        """What happens up to an instant, in its order."""
        while self._events and self._events[0].at <= end:
            yield heapq.heappop(self._events)


def pause_of(span: Stretch, faults: Faults, seed: int) -> tuple[int, int]:
    """From when to when (µs) nothing is pushed and no run takes place."""
    length = min(faults.pause, span.length // 2)
    start = span.start + chance(seed, "pause").randint(0, span.length - length)
    return start, start + length


def runs(view: ResolvedView, span: Stretch) -> Iterable[int]:
    """When (µs) runs of a view start; none for one that pushes keep up to date."""
    if view.is_pushed:
        return ()
    timing = view.timing if view.timing.refresh else Timing(HOURLY_US)
    return range(
        timing.first(span.start - timing.settle + 1) + timing.settle, span.end + 1, timing.refresh or HOURLY_US
    )


def lookups(service: str, span: Stretch, per_hour: float, seed: int) -> Sequence[int]:
    """When (µs) a service is asked: at instants that are drawn evenly."""
    drawn = chance(seed, f"lookups of {service}")
    count = max(1, round(span.length / HOURLY_US * per_hour)) if per_hour else 0
    return sorted(drawn.randint(span.start + 1, span.end) for _ in range(count))


def restarts(span: Stretch, faults: Faults, seed: int) -> Sequence[int]:
    """When (µs) the serving process ends."""
    drawn = chance(seed, "restarts")
    return sorted(drawn.randint(span.start + 1, span.end) for _ in range(faults.restarts))
