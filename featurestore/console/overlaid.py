"""Distributions of two sides drawn over each other: the baseline as an outline, what was served as bars, and period by period below."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from featurestore.plurals import plural
from featurestore.report import shown_instant
from featurestore.reports.drift.report import Drift, FeatureDrift, PeriodDrift

WIDTH, HEIGHT = 360.0, 120.0
STRIP_HEIGHT = 12.0

MOST_FEATURES = 40
"""Drawings on one page, of the features that drifted most."""

MOST_STRIPS = 48
"""Periods that are drawn below one distribution, the last ones."""

RANKED = ("psi", "jensen_shannon", "kolmogorov_smirnov", "l_infinity", "missing")
"""By the first of these that a feature has, features are ranked."""


@dataclass(frozen=True)
class PartBar:
    """One part of the values: how high each side is there."""

    x: float
    width: float
    served_y: float
    served_height: float
    label: str
    told: str


@dataclass(frozen=True)
class Strip:
    """One period: how full each part is of its values, from 0 to 1, as (x, width, share of the fullest)."""

    y: float
    told: str
    cells: tuple[tuple[float, float, float], ...]
    is_beyond: bool
    """Whether a distance of it is beyond a limit."""
    height: float = STRIP_HEIGHT


@dataclass(frozen=True)
class Overlaid:
    """The drawing of one feature; coordinates are those of a drawing that is `width` wide and `height` high."""

    drift: FeatureDrift
    bars: tuple[PartBar, ...]
    outline: str
    """The baseline, as the points of a line."""
    strips: tuple[Strip, ...]
    height: float
    told: str
    distances_text: str
    """How far the sides are apart, in few words."""
    width: float = WIDTH
    bars_height: float = HEIGHT


def overlaid(drift: Drift) -> list[Overlaid]:
    """The drawings of the features that drifted most, those beyond a limit first."""
    ordered = sorted(drift.features, key=lambda feature: (not feature.exceeded, -_rank(feature)))
    return [drawn(feature) for feature in ordered[:MOST_FEATURES]]


def _rank(feature: FeatureDrift) -> float:
    return next((value for name in RANKED if (value := feature.distances.get(name)) is not None), 0.0)


def drawn(feature: FeatureDrift) -> Overlaid:
    """The drawing of one feature."""
    shape = feature.shape
    most = max([*shape.baseline, *shape.served, 0.0]) or 1.0
    step = WIDTH / max(1, len(shape.labels))
    bars, points = [], [f"0,{HEIGHT:g}"]
    for number, (label, before, served) in enumerate(zip(shape.labels, shape.baseline, shape.served, strict=True)):
        left, high = round(number * step, 1), round(HEIGHT * served / most, 1)
        told = f"{label}: {before:.1%} of the baseline, {served:.1%} of what was served"
        bars.append(PartBar(left, round(step, 1), round(HEIGHT - high, 1), high, label, told))
        y = round(HEIGHT * (1 - before / most), 1)
        points += [f"{left:g},{y:g}", f"{round(left + step, 1):g},{y:g}"]
    strips = tuple(_strips(feature, step))
    height = HEIGHT + (6 + STRIP_HEIGHT * len(strips) if strips else 0)
    told = f"{feature.feature}: which share of the values lies in each of {len(shape.labels):,} {plural(len(shape.labels), 'part')}, of the baseline and of what was served"
    return Overlaid(
        feature, tuple(bars), " ".join([*points, f"{WIDTH:g},{HEIGHT:g}"]), strips, height, told, _apart(feature)
    )


def _apart(feature: FeatureDrift) -> str:
    found = ((name, feature.distances.get(name)) for name in RANKED)
    return " · ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in found if value is not None)


def _strips(feature: FeatureDrift, step: float) -> Iterator[Strip]:
    for number, period in enumerate(feature.periods[-MOST_STRIPS:]):
        most = max(period.shares, default=0.0) or 1.0
        cells = tuple(
            (round(n * step, 1), round(step, 1), round(share / most, 3)) for n, share in enumerate(period.shares)
        )
        yield Strip(HEIGHT + 6 + STRIP_HEIGHT * number, _told(period), cells, _is_beyond(feature, period))


def _is_beyond(feature: FeatureDrift, period: PeriodDrift) -> bool:
    found = ((period.distances.get(measure), limit) for measure, limit in feature.limits.items())
    return any(value is not None and value > limit for value, limit in found)


def _told(period: PeriodDrift) -> str:
    far = ", ".join(
        f"{name.replace('_', ' ')} {value:.3g}" for name, value in period.distances.items() if value is not None
    )
    return f"from {shown_instant(period.start)}: {period.rows:,} {plural(period.rows, 'row')}, {period.missing:.1%} missing; {far}"
