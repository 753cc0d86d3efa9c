"""Runs on a line of time: each in the lane of its view, as long as it took."""

from __future__ import annotations

from featurestore.clock import instant_of
from featurestore.console.run_lanes import LEAST_WIDTH, MOST_LANES, run_lanes
from featurestore.registry.activity import Activity
from featurestore.registry.records import RunRecord
from tests.small import hours


def run(view: str, start: float, took: float, status: str = "complete") -> RunRecord:
    begin, end = instant_of(hours(start)), instant_of(hours(start + took))
    return RunRecord(view, "f" * 32, begin, begin, end, 1000, 20, status)


def test_runs_lie_in_the_lane_of_their_view() -> None:
    """The view that ran last has the first one; a run that took no time is seen."""
    drawn = run_lanes([run("b", 3, 1), run("a", 1, 0, "failed"), run("b", 0, 0.5)])
    assert drawn is not None
    lanes = dict(drawn.lanes)
    assert list(lanes) == ["b", "a"]
    old, failed, last = drawn.bars
    assert (old.run.view, failed.run.view, last.run.view) == ("b", "a", "b")
    assert (old.y, failed.y) == (lanes["b"], lanes["a"])
    assert old.x < failed.x < last.x
    assert old.x + old.width < failed.x
    assert (failed.width, failed.is_complete) == (LEAST_WIDTH, False)
    assert last.width > 1.9 * old.width
    assert drawn.left <= old.x < last.x + last.width <= drawn.right
    assert (
        "b as of 2024-05-01 15:00:00Z: complete, began 2024-05-01 15:00:00Z, took 1h, 1,000 rows read, 20 keys written"
        in last.told
    )


def test_failures_are_marks() -> None:
    """Of a view that has no run as well; what the trail says of them is said."""
    failed = Activity("fail to materialize", "c", {"error": "<script>"}, "os:root@here", instant_of(hours(2)))
    drawn = run_lanes([run("a", 1, 2)], [failed])
    assert drawn is not None
    (mark,) = drawn.failures
    assert dict(drawn.lanes)["c"] == mark.y
    assert drawn.bars[0].x < mark.x < drawn.bars[0].x + drawn.bars[0].width
    assert mark.told == "c failed at 2024-05-01 14:00:00Z: error <script>"
    alone = run_lanes([], [failed])
    assert alone is not None
    assert alone.left < alone.failures[0].x < alone.right


def test_many_views_do_not_fill_the_page() -> None:
    drawn = run_lanes([run(f"v{n}", -n, 0.5) for n in range(MOST_LANES + 5)])
    assert drawn is not None
    assert (len(drawn.lanes), len(drawn.bars), drawn.left_out) == (MOST_LANES, MOST_LANES, 5)


def test_no_runs_are_no_drawing() -> None:
    assert run_lanes([]) is None
