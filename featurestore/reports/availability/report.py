"""What was measured of how late rows become known and servable, view by view. All instants and durations are in µs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from featurestore.declare.durations import rough_duration
from featurestore.report import Report, Reported, ReportTable, instant_json, plain

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
    """How long after its event_time: quantiles over some rows, in µs; None where there are no rows."""

    rows: int = 0
    p50: int | None = None
    p95: int | None = None
    p99: int | None = None
    greatest: int | None = None

    def __str__(self) -> str:
        return " / ".join(map(shown, (self.p50, self.p95, self.p99))) if self.rows else "-"


@dataclass(frozen=True)
class Settling:
    """Rows that were known only after the first instant I of the refresh at or after they happened.

    Where a source only promises known_after, a row is known when its file is there and the promised time has come.
    """

    caught: int
    """Known by I + settle."""
    missed: int
    """Certainly known later."""
    p99: int
    """From I until a row was known (0 where it was known before): a settle of p99 would have caught 99 % of all rows."""
    p99_least: int
    """The same, as far as is certain."""
    longest: int
    """The longest such time."""


@dataclass(frozen=True)
class Switches:
    """The instants that lookups should have been served by now, after the first complete one."""

    instants: int
    late: int
    """Those I of which neither their own run nor a later one was done at I + ready_after."""
    skipped: int
    """Those without a run."""
    delay: Lag
    """From I until a run of I or of a later instant was done, until now where none is."""


@dataclass(frozen=True)
class Advice:
    """One sentence about a declared word."""

    word: str
    declared: int
    measured: int
    """The 99th percentile; the maximum where the word is needlessly long."""
    share: float
    """Of rows or instants beyond the word."""
    broken: bool
    """Whether more than TOLERATED of rows or instants are beyond the word; else it is needlessly long."""
    text: str


@dataclass(frozen=True, kw_only=True)
class KnownLags:
    """How late rows became known."""

    known: Lag = Lag()
    """known_at − event_time."""
    known_least: Lag = Lag()
    """The same as far as is certain, which differs only where `how` is "sighting"."""
    untold: int = 0
    """Rows of which it is not known when they became known."""
    beyond: int = 0
    """Rows of `known` that certainly became known later than known_after says."""
    beyond_at_most: int = 0
    """Those that may have."""
    versions: int = 0
    """Later versions of rows, left out."""
    settling: Settling | None = None


@dataclass(frozen=True, kw_only=True)
class ServedLags:
    """How late rows could be served."""

    servable: Lag = Lag()
    """From event_time until a lookup could be served the row."""
    waiting: int = 0
    """Rows that no lookup can be served yet."""
    absent: int = 0
    """Rows that a run should have counted, whose file was not there yet when it began."""


@dataclass(frozen=True, kw_only=True)
class ViewAvailability(KnownLags, ServedLags):
    """One view version, measured over the rows of its source that have happened and have a key."""

    view: str
    fingerprint: str
    source: str
    how: str
    """How it was told when a row became known, see HOW."""
    late: int
    """Rows of a push source that came after its lateness, kept aside."""
    late_lag: Lag
    """By how long after they happened."""
    switches: Switches | None
    refresh: int | None
    """None for a continuous view."""
    known_after: int | None
    """None where it promises nothing."""
    settle: int | None
    """None where nobody said it."""
    ready_after: int
    lateness: int | None
    """None where nobody said it."""
    advice: tuple[Advice, ...] = ()

    @property
    def broken(self) -> tuple[Advice, ...]:
        """The advice about promises that are broken."""
        return tuple(advice for advice in self.advice if advice.broken)


@dataclass(frozen=True)
class Availability(Reported):
    """What was measured, by view, over the rows that happened up to `now`."""

    views: Mapping[str, ViewAvailability]
    since: int | None
    """Since when, in µs; None for all rows."""
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
        return Report("Availability, p50 / p95 / p99", (ReportTable(HEADER, list(self._rows())), *self._notes()))

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
