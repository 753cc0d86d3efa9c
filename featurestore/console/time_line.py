"""The rows of one key on a line of time: which were visible, superseded, expired or not yet known, and the windows over them.

All that is drawn is what an explanation says: each row lies in the lane of its verdict, at its event_time, and its known_at is the end of
the line that leads from it. Where a window begins and ends says `visible_span`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from featurestore.clock import instant_of, to_datetime
from featurestore.console.time_axis import FIRST_US, LAST_US, Tick, TimeAxis
from featurestore.declare.durations import show_duration
from featurestore.query.row_verdicts import VERDICTS
from featurestore.report import shown_instant
from featurestore.reports.explain.explanation import ExplainedRow, Explanation
from featurestore.semantics.rows import visible_span
from featurestore.semantics.windows import Span

MEANINGS = {
    "chosen": "holds the value",
    "ended": "comes last, but its validity has ended",
    "older": "visible, before the chosen row",
    "expired": "beyond the ttl",
    "too new": "happened after the as_of",
    "not yet known": "learned later",
    "superseded": "replaced by a later version",
    "deleted": "says that its row is deleted",
    "invalid": "lacks a key, a time or an identity",
    "other key": "belongs to another key by now",
    "quarantined": "does not meet what is expected of it",
}
"""Verdict → what it says of a row, in few words."""

WIDTH, LEFT, RIGHT = 960.0, 190.0, 940.0
BAND_HEIGHT, LANE_HEIGHT, WORD_HEIGHT, FOOT_HEIGHT = 22.0, 34.0, 15.0, 30.0

CHARACTER_WIDTH = 7.0
"""A character of a name, roughly."""

WORD_WIDTH = 90.0
"""How near to the right edge a word no longer fits around its line."""

MOST_CHARACTERS = 60
"""Characters of the names beside a band; all are in what is told of it."""

MOST_BANDS = 6
"""Windows that are drawn; a view may have hundreds."""

NEAREST_SHARE = 0.8
"""Of the rows where no window says how much of the time is worth drawing, the share that lies on the drawing at least."""

UNITS_BESIDE = 0.08
"""How much more than what must be seen is drawn at either end."""


@dataclass(frozen=True)
class Band:
    """A window: the instants whose rows count for some features."""

    word: str
    """How long it is: "window 1d"."""
    names: str
    """The features whose window it is."""
    names_x: float
    """Where these stand: in the window, or before it where they have no room there."""
    anchor: str
    left: float
    right: float
    y: float
    told: str


@dataclass(frozen=True)
class Mark:
    """A row: a point at its event_time, and how far it is to its known_at."""

    number: int
    """Its number in the explanation, from 1."""
    verdict: str
    x: float
    y: float
    known_x: float | None
    """None where it was known at once, or never."""
    counts: bool
    """Whether it makes a value: the chosen one does, and all that a window counts."""
    told: str
    beyond: str
    """"before" or "after" where it lies outside of what is drawn, else ""."""


@dataclass(frozen=True)
class Lane:
    """The rows of one verdict."""

    verdict: str
    meaning: str
    y: float
    rows: int
    """All of them, those that are not shown included."""


class Instant(NamedTuple):
    """A line from top to bottom."""

    word: str
    x: float
    y: float
    """Where its word stands: words that are near each other stand one above the other."""
    anchor: str
    told: str


@dataclass(frozen=True)
class TimeLine:
    """What is drawn; coordinates are those of a drawing that is `width` wide and `height` high."""

    bands: tuple[Band, ...]
    lanes: tuple[Lane, ...]
    marks: tuple[Mark, ...]
    instants: tuple[Instant, ...]
    ticks: tuple[Tick, ...]
    head: float
    """Where the words of the instants end, and the windows begin."""
    top: float
    """Where the lanes begin."""
    bottom: float
    """Where they end."""
    height: float
    timeless: int
    """Rows without event_time, which lie nowhere."""
    left_out: int
    """Windows that are not drawn."""
    told: str
    """What the drawing shows, in a sentence, for who does not see it."""
    width: float = WIDTH
    left: float = LEFT
    right: float = RIGHT


def windows(explanation: Explanation) -> list[int]:
    """How long the windows of an explanation go back (µs), the shortest first."""
    as_of = instant_of(explanation.as_of)
    return sorted({as_of - span.start(as_of) for span, _ in _spans(explanation)})


def time_line(explanation: Explanation, *, back: int | None = None) -> TimeLine:
    """The drawing of an explanation. back: how long before the as_of it begins (µs); by default so that the longest window is seen
    of which the rows are, or else the rows that are shown."""
    spans = _spans(explanation)
    axis = _axis(explanation, spans, back)
    instants = tuple(_instants(explanation, axis))
    head = WORD_HEIGHT * len(instants) + 10
    bands = tuple(
        _band(head + BAND_HEIGHT * number, span, names, axis, explanation)
        for number, (span, names) in enumerate(spans[:MOST_BANDS])
    )
    top = head + BAND_HEIGHT * len(bands)
    verdicts = [verdict for verdict in VERDICTS if verdict in explanation.counts]
    lanes = tuple(
        Lane(verdict, MEANINGS[verdict], top + LANE_HEIGHT * (number + 0.5), explanation.counts[verdict])
        for number, verdict in enumerate(verdicts)
    )
    heights = {lane.verdict: lane.y for lane in lanes}
    timed = [(number, row) for number, row in enumerate(explanation.rows, 1) if row.event_time is not None]
    bottom = top + LANE_HEIGHT * max(1, len(lanes))
    return TimeLine(
        bands=bands, lanes=lanes, marks=tuple(_mark(number, row, heights[row.verdict], axis) for number, row in timed),
        instants=instants, ticks=axis.ticks(), head=head, top=top, bottom=bottom, height=bottom + FOOT_HEIGHT,
        timeless=len(explanation.rows) - len(timed), left_out=max(0, len(spans) - MOST_BANDS), told=_told(explanation),
    )  # fmt: skip


def _spans(explanation: Explanation) -> list[tuple[Span, list[str]]]:
    """The windows of what was explained, the shortest first, each with its features; one that goes back for ever is no window."""
    view, found = explanation.resolved, dict[Span, list[str]]()
    for feature in view.features:
        if feature.name in explanation.values:
            found.setdefault(visible_span(view, feature), []).append(feature.name)
    bounded = [(span, names) for span, names in found.items() if span.length is not None]
    return sorted(bounded, key=lambda pair: (pair[0].length or 0, pair[0].offset))


def _axis(explanation: Explanation, spans: Sequence[tuple[Span, list[str]]], back: int | None) -> TimeAxis:
    """Time enough for the windows, as far as their rows are shown, and for what was asked; without windows, for the nearest rows."""
    as_of = instant_of(explanation.as_of)
    asked = [as_of, instant_of(explanation.known_by), *([] if explanation.at is None else [instant_of(explanation.at)])]
    times = [instant_of(row.event_time) for row in explanation.rows if row.event_time is not None]
    if back is not None:
        wanted = [*asked, as_of - back]
    elif spans:
        starts = [span.start(as_of) for span, _ in spans[:MOST_BANDS]]
        low = min(starts)
        if explanation.hidden:  # no empty stretch of a window beyond the rows that are shown
            low = max(low - (as_of - low) // 3, min([time for time in times if time <= as_of], default=low))
        later = max(asked) + (as_of - low) // 4
        wanted = [*asked, low, *(time for time in times if low <= time <= later)]
    else:
        nearest = sorted(times, key=lambda time: abs(time - as_of))
        wanted = [*asked, *nearest[: max(1, round(len(nearest) * NEAREST_SHARE))]]
    low, high = min(wanted), max(wanted)
    beside = max(1_000_000, round((high - low) * UNITS_BESIDE))
    return TimeAxis(low - beside, high + beside, LEFT, RIGHT)


def _band(y: float, span: Span, names: list[str], axis: TimeAxis, explanation: Explanation) -> Band:
    as_of = instant_of(explanation.as_of)
    start, end = span.start(as_of), span.end(as_of)
    view = explanation.resolved
    of_ttl = any(feature.span is None for feature in view.features if feature.name in names)
    length = show_duration(view.ttl or 0) if of_ttl else show_duration(span.length or 0)
    word = f"{'ttl' if of_ttl else 'window'} {length}" + (f", {show_duration(span.offset)} ago" if span.offset else "")
    told = f"{word}: {', '.join(names)}; rows after {_shown(start)} and up to {_shown(end)} count"
    left, right, shown = axis.x(start), axis.x(end), _few(names)
    needed = len(shown) * CHARACTER_WIDTH + 10
    is_before = right - left < needed < left - LEFT
    names_x, anchor = (left - 5, "end") if is_before else (left + 5, "start")
    return Band(word, shown, names_x, anchor, left, right, y, told)


def _few(names: Sequence[str]) -> str:
    """Some names, as far as a band has room."""
    shown = ", ".join(names)
    return shown if len(shown) <= MOST_CHARACTERS else f"{shown[: MOST_CHARACTERS - 1]}…"


def _mark(number: int, row: ExplainedRow, y: float, axis: TimeAxis) -> Mark:
    assert row.event_time is not None
    event = instant_of(row.event_time)
    known = None if row.known_at is None else instant_of(row.known_at)
    counts = row.verdict == "chosen" or bool(row.counts_for)
    of = f"; counts for {', '.join(row.counts_for)}" if row.counts_for else ""
    told = (
        f"Row {number}, {row.verdict}: {row.reason}{of}; event_time {shown_instant(row.event_time)}, "
        f"known_at {shown_instant(row.known_at)}"
    )
    beyond = "" if axis.holds(event) else "before" if event < axis.start else "after"
    return Mark(
        number,
        row.verdict,
        axis.x(event),
        y,
        None if known in {None, event} else axis.x(known or 0),
        counts,
        told,
        beyond,
    )


def _instants(explanation: Explanation, axis: TimeAxis) -> Iterable[Instant]:
    """The as_of, and the other two where they are others."""
    said = (("as of", explanation.as_of), ("known by", explanation.known_by), ("asked at", explanation.at))
    words: dict[int, list[str]] = {}
    for word, moment in said:
        if moment is not None:
            words.setdefault(instant_of(moment), []).append(word)
    for number, (instant, of) in enumerate(words.items()):
        x, word = axis.x(instant), ", ".join(of)
        anchor = "end" if x > RIGHT - WORD_WIDTH else "middle"
        yield Instant(word, x, WORD_HEIGHT * (number + 1) - 3, anchor, f"{word}: {_shown(instant)}")


def _told(explanation: Explanation) -> str:
    counts = ", ".join(f"{count:,} {verdict}" for verdict, count in explanation.counts.items())
    return f"The rows of the key on a line of time: {counts or 'there are none'}. The table below has each of them"


def _shown(instant: int) -> str:
    return shown_instant(to_datetime(instant)) if FIRST_US <= instant <= LAST_US else "the beginning of time"
