"""A stretch of time on a drawing: where each instant lies, and which instants are worth a label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from featurestore.clock import to_datetime
from featurestore.semantics.time import last_step

SECOND_US = 1_000_000
MINUTE_US, HOUR_US, DAY_US = 60 * SECOND_US, 3_600 * SECOND_US, 86_400 * SECOND_US

STEPS_US = (
    1, 10, 100, 1_000, 10_000, 100_000,
    *(n * SECOND_US for n in (1, 5, 15, 30)), *(n * MINUTE_US for n in (1, 5, 15, 30)), *(n * HOUR_US for n in (1, 2, 3, 6, 12)),
    *(n * DAY_US for n in (1, 2, 7, 14, 28, 91, 364, 1_820, 3_640, 36_400, 364_000, 728_000)),
)  # fmt: skip
"""How far labels may be from each other; the last for all years that have a date."""

MOST_TICKS = 8

FIRST_US, LAST_US = -62_135_596_800 * SECOND_US, 253_402_300_799 * SECOND_US
"""The instants that have a date: of the years 1 to 9999."""


class Tick(NamedTuple):
    """A place on an axis, and what stands there."""

    x: float
    label: str


@dataclass(frozen=True)
class TimeAxis:
    """The instants from `start` to `end` (µs) between two places of a drawing."""

    start: int
    end: int
    left: float
    right: float

    def x(self, instant: int) -> float:
        """Where an instant lies; one outside lies at the edge that it is beyond."""
        within = min(max(instant, self.start), self.end)
        return round(self.left + (within - self.start) / max(1, self.end - self.start) * (self.right - self.left), 1)

    def holds(self, instant: int) -> bool:
        """Whether an instant lies on the drawing."""
        return self.start <= instant <= self.end

    def ticks(self) -> tuple[Tick, ...]:
        """Whole seconds, minutes, hours or days, a few of them, and always one at least."""
        length = self.end - self.start
        step = next((step for step in STEPS_US if length <= step * MOST_TICKS), STEPS_US[-1])
        first = last_step(self.start + step - 1, step)
        at = [instant for instant in range(first, self.end + 1, step) if FIRST_US <= instant <= LAST_US]
        return tuple(
            Tick(self.x(instant), _label(instant, step, is_first=number == 0)) for number, instant in enumerate(at)
        )


def _label(instant: int, step: int, *, is_first: bool) -> str:
    """As short as the neighbours allow: the day where one begins, else the time of day."""
    moment = to_datetime(instant)
    day = f"{moment:%Y-%m-%d}" if is_first or (moment.month, moment.day) == (1, 1) else f"{moment:%m-%d}"
    if step >= DAY_US:
        return f"{moment:%Y-%m-%d}" if step >= 91 * DAY_US else day
    clock = f"{moment:%H:%M}" if step >= MINUTE_US else f"{moment:%H:%M:%S}" if step >= SECOND_US else f"{moment:%S.%f}"
    return f"{day} {clock}" if is_first or instant % DAY_US == 0 else clock
