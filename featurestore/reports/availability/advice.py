"""What follows from what was measured: where a declared word promises more than was kept, or is needlessly long."""

from __future__ import annotations

from collections.abc import Iterator

from featurestore.declare.durations import show_duration
from featurestore.plurals import plural
from featurestore.reports.availability.report import SIGHTING, TOLERATED, Advice, ViewAvailability, shown

ENOUGH_ROWS, ENOUGH_INSTANTS = 10_000, 100
"""Rows, and instants, from which on the longest that was measured says that a word is needlessly long."""

WRITTEN_US = (
    *(n for unit in (1, 1_000) for n in (unit * m for m in (1, 2, 5, 10, 20, 50, 100, 200, 500))),
    *(1_000_000 * n for n in (1, 2, 5, 10, 15, 20, 30, 45)),
    *(60_000_000 * n for n in (1, 2, 3, 5, 10, 15, 20, 30, 45)),
    *(1_800_000_000 * n for n in (2, 3, 4, 5)),
    *(3_600_000_000 * n for n in (3, 4, 6, 8, 10, 12, 15, 18, 21)),
)
DAY_US = 86_400_000_000


def readable(us: int) -> int:
    """The shortest duration (µs) that is at least so long and that a person would write; 0 for what is negative."""
    if us <= 0:
        return 0
    return next((step for step in WRITTEN_US if step >= us), -(-us // DAY_US) * DAY_US)


def advice_on(view: ViewAvailability, *, longest_ready: int, pushed_p99: int | None = None) -> Iterator[Advice]:
    """A sentence for each word that was measured to be otherwise.

    longest_ready: the longest ready_after that the view may say (µs). pushed_p99: the 99th percentile of the lags of all
    rows that were pushed, those that came too late included.
    """
    yield from _known_after(view)
    yield from _settle(view)
    yield from _ready_after(view, longest_ready)
    if view.lateness is not None and pushed_p99 is not None and _too_many(view.late, view.late + view.known.rows):
        yield _lateness(view, view.lateness, pushed_p99)


def _too_many(part: int, whole: int) -> bool:
    return part > TOLERATED * whole


def _known_after(view: ViewAvailability) -> Iterator[Advice]:
    said, lag = view.known_after, view.known
    if said is None or lag.p99 is None or lag.greatest is None:
        return
    if _too_many(view.beyond, lag.rows):
        better, share = readable(max(lag.p99, said + 1)), view.beyond / lag.rows
        early = (
            "training sees them before lookups could" if view.how == SIGHTING else "history counts before it was known"
        )
        text = (
            f"known_after is {show_duration(said)}, and {share:.1%} of {lag.rows:,} {plural(lag.rows, 'row')} became known later, so {early}; 99 % were known within {shown(lag.p99)}: say known_after="
            f"'{show_duration(better)}'. Rows then count {shown(better - said)} later"
        )
        yield Advice("known_after", said, lag.p99, share, broken=True, text=text)
    elif lag.rows >= ENOUGH_ROWS and said > 2 * (better := readable(lag.greatest)):
        text = (
            f"known_after is {show_duration(said)}, and all of {lag.rows:,} {plural(lag.rows, 'row was', 'rows were')} known within {shown(lag.greatest)}: "
            f"with known_after='{show_duration(better)}' they count {shown(said - better)} earlier"
        )
        yield Advice("known_after", said, lag.greatest, 0.0, broken=False, text=text)


def _settle(view: ViewAvailability) -> Iterator[Advice]:
    said, found = view.settle, view.settling
    if said is None or found is None:
        return
    if _too_many(found.missed, view.known.rows):
        better, share = readable(max(found.p99, said + 1)), found.missed / view.known.rows
        ready = f", and ready_after, {show_duration(view.ready_after)}, must be as long" * (better > view.ready_after)
        text = (
            f"settle is {show_duration(said)}, and {share:.1%} of {view.known.rows:,} {plural(view.known.rows, 'row was', 'rows were')} known only after their "
            f"instant and that, so they count from a later instant on; settle='{show_duration(better)}' would have caught "
            f"99 % ({shown(found.p99)}). An instant can then be computed {shown(better - said)} later{ready}"
        )
        yield Advice("settle", said, found.p99, share, broken=True, text=text)
    elif view.known.rows >= ENOUGH_ROWS and said > 2 * (better := readable(found.longest)):
        text = (
            f"settle is {show_duration(said)}, and no row of {view.known.rows:,} was known later than "
            f"{shown(found.longest)} after its instant: with settle='{show_duration(better)}' an instant can be computed "
            f"{shown(said - better)} earlier"
        )
        yield Advice("settle", said, found.longest, 0.0, broken=False, text=text)


def _ready_after(view: ViewAvailability, longest: int) -> Iterator[Advice]:
    said, found = view.ready_after, view.switches
    if found is None or found.delay.p99 is None or found.delay.greatest is None:
        return
    if _too_many(found.late, found.instants):
        measured, share = max(found.delay.p99, said + 1), found.late / found.instants
        better = readable(measured) if measured > longest else min(readable(measured), longest)
        cure = f"say ready_after='{show_duration(better)}'. Values are then served {shown(better - said)} later"
        if better > longest:
            skipped = f"; {found.skipped:,} {plural(found.skipped, 'instant')} had no run" * bool(found.skipped)
            cure = f"no ready_after is that long (at most {show_duration(longest)}), so run materialize more often{skipped}"
        text = (
            f"ready_after is {show_duration(said)}, and {found.late:,} of {found.instants:,} {plural(found.instants, 'instant was', 'instants were')} not done by "
            f"then, so lookups were stale; 99 % were done within {shown(found.delay.p99)}: {cure}"
        )
        yield Advice("ready_after", said, found.delay.p99, share, broken=True, text=text)
    elif found.instants >= ENOUGH_INSTANTS and said > 2 * (
        better := max(readable(found.delay.greatest), view.settle or 0)
    ):
        text = (
            f"ready_after is {show_duration(said)}, and all of {found.instants:,} {plural(found.instants, 'instant was', 'instants were')} done within "
            f"{shown(found.delay.greatest)}: with ready_after='{show_duration(better)}' values are served "
            f"{shown(said - better)} earlier"
        )
        yield Advice("ready_after", said, found.delay.greatest, 0.0, broken=False, text=text)


def _lateness(view: ViewAvailability, said: int, p99: int) -> Advice:
    pushed = view.late + view.known.rows
    better = readable(max(p99, said + 1))
    text = (
        f"lateness is {show_duration(said)}, and {view.late:,} of {pushed:,} pushed {plural(pushed, 'row')} happened earlier than that and "
        f"were kept aside; 99 % came within {shown(p99)}: say lateness='{show_duration(better)}'. Identities are then "
        f"remembered {shown(better - said)} longer online"
    )
    return Advice("lateness", said, p99, view.late / pushed, broken=True, text=text)
