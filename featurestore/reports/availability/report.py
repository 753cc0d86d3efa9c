"""What was measured of how late rows become known and servable, view by view. All instants and durations are in µs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from featurestore.declare.durations import rough_duration
from featurestore.report import Report, Reported, Table, instant_json, plain

__all__ = [
    "HOW",
    "SIGHTING",
    "TOLERATED",
    "Advice",
    "Availability",
    "Lag",
    "Settling",
    "Switches",
    "ViewAvailability",
    "shown",
]

TOLERATED = 0.01
"""The share of rows, or of instants, that may break a promise before it counts as broken."""

SIGHTING = "sighting"

HOW = {
    "column": "as the column of known_at says",
    "arrival": "when the row's file was first seen, which is its known_at",
    SIGHTING: "when the row's file was first seen: at the latest then, since files are seen when somebody looks",
    "log": "as the push log says",
    "nothing": "not measured: its rows do not say when they came",
}
"""How it was told when a row became known."""


@dataclass(frozen=True)
class Lag:
    """How long after its event_time: so many rows, and quantiles of them; None where there are no rows."""

    rows: int = 0
    p50: int | None = None
    p95: int | None = None
    p99: int | None = None
    greatest: int | None = None

    def __str__(self) -> str:
        return " / ".join(map(shown, (self.p50, self.p95, self.p99))) if self.rows else "-"


@dataclass(frozen=True)
class Settling:
    """Of the rows of `known`, those that were known only after the first instant I of the refresh at or after they happened.

    Where a source only promises known_after, a row is known when its file is there and the promised time has come.
    caught: known by I + settle; missed: certainly later. p99, longest: of the time from I until a row was known, 0 where
    it was known before: a settle of p99 would have caught 99 % of all rows. p99_least: the same, as far as is certain.
    """

    caught: int
    missed: int
    p99: int
    p99_least: int
    longest: int


@dataclass(frozen=True)
class Switches:
    """The instants that lookups should have been served by now, after the first complete one.

    late: those of which neither their own run nor a later one was done at I + ready_after; skipped: those without a run.
    delay: from I until a run of I or of a later instant was done, until now where none is.
    """

    instants: int
    late: int
    skipped: int
    delay: Lag


@dataclass(frozen=True)
class Advice:
    """One sentence about a declared word. broken: what was measured is longer than declared, for more than TOLERATED of
    rows or instants; else the declared is needlessly long. measured: the 99th percentile, or the maximum of the latter."""

    word: str
    declared: int
    measured: int
    share: float
    broken: bool
    text: str


@dataclass(frozen=True)
class ViewAvailability:
    """One view version, over the rows of its source that have happened and have a key.

    how: how it was told when a row became known, see HOW. known: known_at − event_time; known_least: the same as far as is
    certain, which differs only where `how` is "sighting". untold: rows of which that is not known. beyond: rows
    of `known` that certainly became known later than known_after says; beyond_at_most: those that may have. versions: later versions of rows, left out.
    servable: from event_time until a lookup could be served the row; waiting: rows that are not yet. absent: rows of those
    two that a run should have counted, whose file was not there yet when it began.
    late: rows of a push source that came after its lateness, kept aside; late_lag: by how long after they happened.
    known_after is None where it promises nothing, settle and lateness where nobody said them, refresh for continuous views.
    """

    view: str
    fingerprint: str
    source: str
    how: str
    known: Lag
    known_least: Lag
    untold: int
    beyond: int
    beyond_at_most: int
    versions: int
    servable: Lag
    waiting: int
    absent: int
    late: int
    late_lag: Lag
    settling: Settling | None
    switches: Switches | None
    refresh: int | None
    known_after: int | None
    settle: int | None
    ready_after: int
    lateness: int | None
    advice: tuple[Advice, ...] = ()

    @property
    def broken(self) -> tuple[Advice, ...]:
        """The advice about promises that are broken."""
        return tuple(advice for advice in self.advice if advice.broken)


@dataclass(frozen=True)
class Availability(Reported):
    """What was measured, by view: over the rows that happened from `since` (all where it is None) to `now`."""

    views: Mapping[str, ViewAvailability]
    since: int | None
    now: int

    @property
    def broken(self) -> tuple[Advice, ...]:
        """The advice about promises that are broken, of all views."""
        return tuple(advice for view in self.views.values() for advice in view.broken)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; durations in µs, instants as ISO text."""
        return {
            "since": instant_json(self.since),
            "now": instant_json(self.now),
            "broken": len(self.broken),
            "views": plain(self.views),
        }

    def report(self) -> Report:
        """A line of a table for each view, and what is to be said of it."""
        if not self.views:
            return Report("Nothing is applied.")
        return Report("Availability, p50 / p95 / p99", (Table(HEADER, list(self._rows())), *self._notes()))

    def _rows(self) -> Iterator[tuple[str, ...]]:
        for view in self.views.values():
            switches, settling = view.switches, view.settling
            yield (
                view.view,
                f"{view.known.rows:,}",
                str(view.known),
                str(view.servable),
                "-" if view.known_after is None else _between(view.beyond, view.beyond_at_most, view.known.rows),
                "-" if settling is None else _share(settling.missed, view.known.rows),
                "-" if switches is None else f"{switches.late:,} of {switches.instants:,}",
            )

    def _notes(self) -> Iterator[str]:
        """How each view was measured, what was left out, and advice."""
        for view in self.views.values():
            left = [
                (view.untold, "rows of which it is not known when they came"),
                (view.versions, "later versions of rows"),
                (view.waiting, "rows not servable yet"),
                (view.absent, "rows that were not there when the run that should have counted them began"),
                (view.late, "rows that came too late and were kept aside"),
            ]
            counted = "".join(f"; {count:,} {what}" for count, what in left if count)
            yield f"{view.view}: known {HOW[view.how]}{counted}"
            for advice in view.advice:
                yield f"{view.view}: {advice.text}"


HEADER = ("view", "rows", "known after", "servable after", "beyond known_after", "missed by settle", "late instants")


def _share(part: int, rows: int) -> str:
    return f"{part / rows:.1%}" if rows else "-"


def _between(least: int, most: int, rows: int) -> str:
    return _share(least, rows) if least == most else f"{_share(least, rows)} to {_share(most, rows)}"


def shown(us: int | None) -> str:
    """A duration to the precision that a person reads; "-" where there is none."""
    return "-" if us is None else rough_duration(us)
