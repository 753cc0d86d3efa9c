"""An audit as a map: features down, hours across, and in each cell how many of the values served then are not training's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from featurestore.report import shown_instant
from featurestore.reports.audit.report import Audit, FeatureAudit, HourAudit

MOST_COLUMNS = 48
"""Columns that fit a page; of more hours, several are one column."""

MOST_ROWS = 60
"""Features that are shown, those that differ most first."""

HOUR = timedelta(hours=1)


class HeatColumn(NamedTuple):
    """Some hours that lie together: from `start` to before `end`."""

    start: datetime
    end: datetime
    label: str


@dataclass(frozen=True)
class HeatCell:
    """The values of one feature that were served within the hours of a column."""

    compared: int
    rewritten: int
    skewed: int
    told: str

    @property
    def outcome(self) -> str:
        """The worst that was found: "skewed", "rewritten" or "exact"; "nothing" where nothing was served."""
        if not self.compared:
            return "nothing"
        return "skewed" if self.skewed else "rewritten" if self.rewritten else "exact"

    @property
    def differing(self) -> int:
        """Values that are not training's."""
        return self.rewritten + self.skewed


@dataclass(frozen=True)
class HeatRow:
    """One feature of one service version, with all of its sums."""

    audit: FeatureAudit
    title: str
    """The service, with the version's fingerprint where it is one of several."""
    cells: tuple[HeatCell, ...]


@dataclass(frozen=True)
class HeatMap:
    """The map; left_out: features that are not shown, none of which differs more than those that are."""

    columns: tuple[HeatColumn, ...]
    rows: tuple[HeatRow, ...]
    left_out: int


def heat_map(audit: Audit) -> HeatMap:
    """The map of an audit."""
    hours = sorted({hour.hour for feature in audit.features for hour in feature.hours})
    columns = _columns(hours)
    ordered = sorted(audit.features, key=lambda feature: (-feature.skewed, -feature.rewritten))
    rows = tuple(HeatRow(feature, audit.title(feature), _cells(feature, columns)) for feature in ordered[:MOST_ROWS])
    return HeatMap(columns, rows, len(ordered) - len(rows))


def _columns(hours: Sequence[datetime]) -> tuple[HeatColumn, ...]:
    """All hours from the first to the last, so that a gap is seen; several a column where they are many."""
    if not hours:
        return ()
    count = (hours[-1] - hours[0]) // HOUR + 1
    step = -(-count // MOST_COLUMNS) * HOUR
    starts = [hours[0] + step * number for number in range(-(-count * HOUR // step))]
    labelled = max(1, len(starts) // 8)
    return tuple(
        HeatColumn(start, start + step, _label(start, is_first=number == 0) if number % labelled == 0 else "")
        for number, start in enumerate(starts)
    )


def _label(start: datetime, *, is_first: bool) -> str:
    return f"{start:%m-%d %H:%M}" if is_first or start.hour == 0 else f"{start:%H:%M}"


def _cells(feature: FeatureAudit, columns: Sequence[HeatColumn]) -> tuple[HeatCell, ...]:
    found: dict[int, list[HourAudit]] = {}
    for hour in feature.hours:
        first = columns[0]
        found.setdefault((hour.hour - first.start) // (first.end - first.start), []).append(hour)
    return tuple(_cell(feature.feature, column, found.get(number, ())) for number, column in enumerate(columns))


def _cell(feature: str, column: HeatColumn, hours: Iterable[HourAudit]) -> HeatCell:
    compared, rewritten, skewed = (
        sum(getattr(hour, name) for hour in hours) for name in ("compared", "rewritten", "skewed")
    )
    when = f"{feature}, from {shown_instant(column.start)} to {shown_instant(column.end)}"
    what = f"{compared:,} compared, {skewed:,} skewed, {rewritten:,} rewritten" if compared else "nothing was compared"
    return HeatCell(compared, rewritten, skewed, f"{when}: {what}")
