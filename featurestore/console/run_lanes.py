"""Runs of materialize on a line of time: a lane for each view, and in it when each run began and ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from featurestore.clock import to_datetime
from featurestore.console.time_axis import Tick, TimeAxis
from featurestore.declare.durations import rough_duration
from featurestore.plurals import plural
from featurestore.registry.activity import Activity
from featurestore.registry.records import RunRecord
from featurestore.report import shown_instant

WIDTH, LEFT, RIGHT = 960.0, 190.0, 940.0
TOP, LANE_HEIGHT, FOOT_HEIGHT = 8.0, 26.0, 30.0

LEAST_WIDTH = 3.0
"""A run that took no time is seen too."""

MOST_LANES = 40
"""Views that are drawn, those that ran last first."""

COMPLETE = "complete"


@dataclass(frozen=True)
class RunBar:
    """A run: where it began, and how wide it is."""

    run: RunRecord
    x: float
    width: float
    y: float
    told: str

    @property
    def is_complete(self) -> bool:
        """Whether it published what it computed."""
        return self.run.status == COMPLETE


@dataclass(frozen=True)
class FailureMark:
    """A run that failed and left no record but in the trail of activity."""

    x: float
    y: float
    told: str


@dataclass(frozen=True)
class RunLanes:
    """What is drawn; coordinates are those of a drawing that is `width` wide and `height` high."""

    lanes: tuple[tuple[str, float], ...]
    """Each view, and where its lane is."""
    bars: tuple[RunBar, ...]
    failures: tuple[FailureMark, ...]
    ticks: tuple[Tick, ...]
    bottom: float
    height: float
    left_out: int
    """Views that are not drawn."""
    width: float = WIDTH
    left: float = LEFT
    right: float = RIGHT


def run_lanes(runs: Sequence[RunRecord], failures: Sequence[Activity] = ()) -> RunLanes | None:
    """The drawing of some runs, the newest first, and of failures; None where there is neither."""
    views = list(dict.fromkeys([*(run.view for run in runs), *(failure.subject for failure in failures)]))
    times = [*(run.started for run in runs), *(run.finished for run in runs), *(failure.at for failure in failures)]
    if not times:
        return None
    beside = max(1_000_000, (max(times) - min(times)) // 50)
    axis = TimeAxis(min(times) - beside, max(times) + beside, LEFT, RIGHT)
    heights = {view: TOP + LANE_HEIGHT * (number + 0.5) for number, view in enumerate(views[:MOST_LANES])}
    bottom = TOP + LANE_HEIGHT * len(heights)
    return RunLanes(
        lanes=tuple(heights.items()),
        bars=tuple(_bar(run, axis, heights[run.view]) for run in reversed(runs) if run.view in heights),
        failures=tuple(
            FailureMark(axis.x(one.at), heights[one.subject], f"{one.subject} failed at {_shown(one.at)}: {why(one)}")
            for one in failures
            if one.subject in heights
        ),
        ticks=axis.ticks(), bottom=bottom, height=bottom + FOOT_HEIGHT, left_out=len(views) - len(heights),
    )  # fmt: skip


def why(failure: Activity) -> str:
    """Why a run failed, as the trail says it."""
    return ", ".join(f"{word} {value}" for word, value in failure.detail.items()) or "the trail does not say why"


def _bar(run: RunRecord, axis: TimeAxis, y: float) -> RunBar:
    x = axis.x(run.started)
    told = (
        f"{run.view} as of {_shown(run.instant)}: {run.status}, began {_shown(run.started)}, took "
        f"{rough_duration(run.finished - run.started)}, {run.rows:,} {plural(run.rows, 'row')} read, {run.keys:,} {plural(run.keys, 'key')} written"
    )
    return RunBar(run, x, max(LEAST_WIDTH, round(axis.x(run.finished) - x, 1)), y, told)


def _shown(instant_us: int) -> str:
    return shown_instant(to_datetime(instant_us))
