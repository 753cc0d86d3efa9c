"""The line of time of an explanation: every row lies where its times and its verdict say."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest

from featurestore import Count, Latest, Mean
from featurestore.console.time_axis import HOUR_US
from featurestore.console.time_line import MEANINGS, MOST_BANDS, TimeLine, time_line, windows
from featurestore.query.row_verdicts import VERDICTS
from featurestore.reports.explain.explanation import Explanation
from featurestore.testing import FeatureTest
from tests.small import NOON, hours, table, view_of

ROWS = table(
    flight=[1, 2, 2, 3, 4, 5], thing=[7, 7, 7, 7, 7, 8], at=[hours(h) for h in (-40, -2, -2, -0.5, 2, -1)],
    known=[hours(h) for h in (-40, -1.5, 3, -0.4, 2.5, -1)], x=[1.0, 2.0, 2.5, 3.0, 4.0, 5.0],
)  # fmt: skip


def explained(features: Any, rows: pa.Table = ROWS, *, thing: int = 7, **words: Any) -> Explanation:
    view = view_of(rows, features, known_at="known", identity="flight", **words)
    return FeatureTest(view).rows("view_rows", rows).explain_at(NOON, thing=thing)


def of(line: TimeLine, number: int) -> Any:
    (mark,) = [mark for mark in line.marks if mark.number == number]
    return mark


def test_each_row_lies_in_the_lane_of_its_verdict() -> None:
    """At its event_time, with a line to when it was known; only what is there has a lane."""
    explanation = explained(["x"], ttl="1d")
    line = time_line(explanation)
    verdicts = [row.verdict for row in explanation.rows]
    assert {lane.verdict for lane in line.lanes} == set(verdicts)
    assert {"chosen", "older", "not yet known", "too new", "expired"} & set(verdicts) >= {"chosen", "older", "expired"}
    lanes = {lane.verdict: lane.y for lane in line.lanes}
    for number, row in enumerate(explanation.rows, 1):
        mark = of(line, number)
        assert (mark.verdict, mark.y) == (row.verdict, lanes[row.verdict])
        assert line.left <= mark.x <= line.right
        assert row.reason in mark.told
    by_time = sorted(range(len(verdicts)), key=lambda n: explanation.rows[n].event_time or NOON)
    assert [of(line, n + 1).x for n in by_time] == sorted(of(line, n + 1).x for n in by_time)
    chosen = of(line, verdicts.index("chosen") + 1)
    assert chosen.counts
    assert chosen.known_x > chosen.x


def test_windows_end_where_the_rule_says() -> None:
    """A band from each window's start to its end; a row lies within the band of every feature that it counts for."""
    features = {"hour": Count(window="1h"), "day": Mean("x", window="1d"), "late": Count(window="1d", offset="1h")}
    explanation = explained(features)
    line = time_line(explanation)
    assert [(band.word, band.names) for band in line.bands] == [
        ("window 1h", "hour"),
        ("window 1d", "day"),
        ("window 1d, 1h ago", "late"),
    ]
    assert "2024-05-01 11:00:00Z and up to 2024-05-01 12:00:00Z" in line.bands[0].told
    (as_of,) = line.instants
    assert as_of.word == "as of, known by, asked at"
    hour, day, late = line.bands
    assert hour.right == day.right == as_of.x > late.right
    assert day.left < hour.left
    for row, mark in zip(explanation.rows, line.marks, strict=True):
        for band, name in zip(line.bands, features, strict=True):
            if name in row.counts_for:
                assert band.left <= mark.x <= band.right
                assert mark.counts


def test_what_happened_long_before_the_window_lies_at_the_edge() -> None:
    """It does not squeeze the rest of the drawing; the mark says that it is beyond."""
    line = time_line(explained({"hour": Count(window="1h")}))
    beyond = [mark for mark in line.marks if mark.beyond]
    assert {(mark.beyond, mark.x) for mark in beyond if mark.beyond == "before"} == {("before", line.left)}
    assert {mark.beyond for mark in beyond} == {"before", "after"}


def test_a_refreshed_view_has_three_instants() -> None:
    """As of, known by, and asked at, each where it is."""
    explanation = explained(["x"], refresh="1h", settle="5m", ready_after="10m")
    line = time_line(explanation)
    assert [instant.word for instant in line.instants] == ["as of", "known by", "asked at"]
    places = [instant.x for instant in line.instants]
    assert places == sorted(set(places))
    assert len({instant.y for instant in line.instants}) == 3  # their words stand one above the other
    assert not line.bands  # neither a ttl nor a window


def test_the_ttl_is_a_band_of_the_plain_columns() -> None:
    line = time_line(explained({"x": Latest("x"), "n": Count(window="2h")}, ttl="1d"))
    assert [band.told.partition(";")[0] for band in line.bands] == ["window 2h: n", "ttl 1d: x"]


def test_the_stretch_that_is_drawn_can_be_chosen() -> None:
    """Each window's length is offered; a window that begins before is cut there."""
    explanation = explained({"hour": Count(window="1h"), "day": Count(window="1d")})
    assert windows(explanation) == [HOUR_US, 24 * HOUR_US]
    assert {band.anchor for band in time_line(explanation).bands} == {
        "start",
        "end",
    }  # a narrow one has its names before it
    near, far = (time_line(explanation, back=back) for back in windows(explanation))
    assert near.bands[1].left == near.left
    assert near.bands[0].right - near.bands[0].left > 10 * (far.bands[0].right - far.bands[0].left)


def test_where_rows_are_hidden_those_shown_are_drawn() -> None:
    """And no empty stretch of the window beyond them, which would look as if there were none."""
    rows = table(
        flight=[*range(40)], thing=[7] * 40, at=[hours(-n / 2) for n in range(40)], known=[hours(-n / 2) for n in range(40)], x=[1.0] * 40
    )  # fmt: skip
    view = view_of(rows, {"month": Count(window="30d")}, known_at="known", identity="flight")
    some = FeatureTest(view).rows("view_rows", rows).explain_at(NOON, thing=7)
    cut = replace(some, rows=some.rows[:10])
    assert cut.hidden == 30
    line = time_line(cut)
    assert min(mark.x for mark in line.marks) < line.left + (line.right - line.left) / 3
    assert line.bands[0].left == line.left
    assert time_line(some).bands[0].left > line.left


def test_a_key_without_rows_has_a_line_too() -> None:
    """Empty lanes, with the instants that were asked for."""
    line = time_line(explained(["x"], thing=99))
    assert (line.marks, line.lanes) == ((), ())
    assert line.told.startswith("The rows of the key on a line of time: there are none")
    assert line.instants[0].x == pytest.approx((line.left + line.right) / 2)
    assert line.height > line.bottom > line.top


def test_rows_without_a_time_are_counted() -> None:
    """An invalid row lies nowhere, and is not lost."""
    rows = table(
        flight=[1, 2],
        thing=[7, 7],
        at=pa.array([hours(-1), None], ROWS["at"].type),
        known=[hours(-1)] * 2,
        x=[1.0, 2.0],
    )
    line = time_line(explained(["x"], rows))
    assert (len(line.marks), line.timeless) == (1, 1)
    assert "invalid" in {lane.verdict for lane in line.lanes}


def test_a_view_of_many_windows_shows_the_shortest_ones() -> None:
    features = {f"n{n}": Count(window=timedelta(hours=n)) for n in range(1, MOST_BANDS + 4)}
    line = time_line(explained(features))
    assert (len(line.bands), line.left_out) == (MOST_BANDS, 3)
    assert (line.bands[0].word, line.bands[0].names) == ("window 1h", "n1")


def test_a_window_longer_than_the_calendar_is_drawn() -> None:
    """Its start has no date."""
    line = time_line(explained({"n": Count(window="900000d")}))
    assert "rows after the beginning of time" in line.bands[0].told


def test_every_verdict_has_a_meaning() -> None:
    assert list(MEANINGS) == list(VERDICTS)
