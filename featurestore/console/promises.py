"""What a view promises of its rows beside what was measured: each word as a bar of measured times with a line where the promise is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from featurestore.plurals import plural
from featurestore.reports.availability.report import Advice, Lag, ViewAvailability, shown

WIDTH = 320.0
BESIDE = 1.08
"""How much longer than the longest time the scale is."""

MEANINGS = {
    "known_after": "from when a row happened until it was known",
    "settle": "from an instant of the refresh until rows that happened before it were known",
    "ready_after": "from an instant of the refresh until its values were served",
    "lateness": "from when a row happened until it was pushed, of rows that came too late",
    "servable": "from when a row happened until a lookup could be served it",
}
"""Word → which time it is about."""


@dataclass(frozen=True)
class Promise:
    """One word of one view. measured: quantiles in µs, of which settle has only the 99th percentile and the greatest."""

    view: str
    word: str
    meaning: str
    declared: int | None
    """µs; None where nobody said it, or nothing is promised."""
    measured: Lag
    beyond: str
    """What breaks it, counted: "12 of 400 rows"."""
    advice: Advice | None

    @property
    def state(self) -> str:
        """ "broken", "needlessly long", "kept", "not measured", or "no promise"."""
        if self.declared is None:
            return "no promise"
        if self.advice is None:
            return "kept" if self.measured.rows or self.word == "lateness" else "not measured"
        return "broken" if self.advice.broken else "needlessly long"

    @property
    def scale(self) -> float:
        """How wide the bar is."""
        return WIDTH

    @property
    def declared_text(self) -> str:
        """The promise as a person reads it."""
        return shown(self.declared)

    @property
    def p99_text(self) -> str:
        """The time within which 99 of 100 lay."""
        return shown(self.measured.p99)

    @property
    def told(self) -> str:
        """All of it in a line."""
        declared = "nothing declared" if self.declared is None else f"declared {shown(self.declared)}"
        words = [
            f"{name} {shown(us)}"
            for name, us in zip(("p50", "p95", "p99", "longest"), self._measures, strict=True)
            if us is not None
        ]
        return f"{self.word} of {self.view}: {declared}, measured {', '.join(words) or 'nothing'}"

    @property
    def _measures(self) -> tuple[int | None, ...]:
        return self.measured.p50, self.measured.p95, self.measured.p99, self.measured.greatest

    def x(self, us: int | None) -> float:
        """Where a time lies on the bar, which is WIDTH wide and goes up to the longest time that matters."""
        known = [max(0, one) for one in (*self._measures, self.declared) if one is not None]
        most = max(known, default=0) * BESIDE
        return round(WIDTH * max(0, us or 0) / most, 1) if most else 0.0


def promises_of(found: ViewAvailability) -> list[Promise]:
    """The words of a view, as far as there is something to say of them."""
    return list(_promises(found))


def _promises(found: ViewAvailability) -> Iterator[Promise]:
    advice = {one.word: one for one in found.advice}

    def promise(word: str, declared: int | None, measured: Lag, beyond: str) -> Promise:
        return Promise(found.view, word, MEANINGS[word], declared, measured, beyond, advice.get(word))

    rows = found.known.rows
    if found.known_after is not None or rows:
        least, most = found.beyond, found.beyond_at_most
        beyond = "" if found.known_after is None else f"{_between(least, most)} of {rows:,} {plural(rows, 'row')}"
        yield promise("known_after", found.known_after, found.known, beyond)
    if found.settling is not None:
        settling = found.settling
        measured = Lag(rows, p99=settling.p99, greatest=settling.longest)
        yield promise("settle", found.settle, measured, f"{settling.missed:,} of {rows:,} {plural(rows, 'row')}")
    if found.switches is not None:
        switches = found.switches
        beyond = f"{switches.late:,} of {switches.instants:,} {plural(switches.instants, 'instant')}, {switches.skipped:,} without a run"
        yield promise("ready_after", found.ready_after, switches.delay, beyond)
    if found.lateness is not None:
        yield promise(
            "lateness", found.lateness, found.late_lag, f"{found.late:,} {plural(found.late, 'row')} kept aside"
        )
    if found.servable.rows:
        yield promise(
            "servable", None, found.servable, f"{found.waiting:,} {plural(found.waiting, 'row')} not servable yet"
        )


def _between(least: int, most: int) -> str:
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"
