"""The demonstration, shortened: what is served has training's bits, and a person sees the comparison."""

import io
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from rich.console import Console

from feature_repo.comparison import differing
from feature_repo.demo import START, demonstrate, show


def test_a_shortened_replay_serves_the_bits_of_training(tmp_path):
    """Twelve hours, night to noon: every flight is looked up, nothing differs, and the table is printed."""
    text = io.StringIO()
    console = Console(file=text, width=140)
    outcome = demonstrate(console, data=tmp_path / "data", train_from=START - timedelta(days=7), hours=12)
    show(console, outcome)
    assert outcome.flights > 300
    assert outcome.values == outcome.flights * 23
    assert outcome.differing == {}
    assert outcome.store.promised == outcome.store.achieved
    assert outcome.pushes.landings > 150
    assert outcome.pushes.values > 200 * 24
    assert outcome.pushes.differing == {}
    printed = text.getvalue()
    total = f"{outcome.values + outcome.pushes.values:,}"
    pushed = f"{outcome.pushes.landings:,} landings pushed between lookups"
    for expected in ("pandas shortcut", "AUC promised", pushed, f"All {total} served values have training's bits"):
        assert expected in printed


@pytest.mark.parametrize(
    ("ours", "theirs", "count"),
    [
        ([0.0], [-0.0], 1),
        ([None], [0.0], 1),
        ([1.0], [1.0], 0),
        ([float("nan")], [float("nan")], 0),
        ([None], [None], 0),
    ],
)
def test_bits_are_compared(ours, theirs, count):
    """A zero's sign and a null are differences; a NaN is equal to itself."""
    tables = [pa.table({"x": pa.array(values, pa.float64())}) for values in (ours, theirs)]
    assert differing(*tables) == ({"x": count} if count else {})


def test_the_replay_starts_at_midnight_in_new_york():
    """1 December 2013, 05:00 in UTC: the hour at which the daily jobs start."""
    assert datetime(2013, 12, 1, 5, tzinfo=UTC) == START
