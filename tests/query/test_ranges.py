"""Monotone runs: what they promise of their rows, and that there are as few of them as rows overtake each other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.query.windows.ranges import MonotoneRun, _least_from_here, monotone_runs
from featurestore.semantics.rows import RowTimes
from featurestore.semantics.time import BEGINNING, END

SMALL = st.integers(0, 6)
FAR = st.sampled_from([BEGINNING, BEGINNING + 1, -1, 0, 1, END - 1, END])
LATE = st.sampled_from([0, 1, 2, END - 1, END])
"""A second key of them is already more than an integer holds."""


@pytest.mark.parametrize("values", [SMALL, FAR, LATE], ids=["small", "far", "late"])
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_a_value_is_the_least_of_its_key_from_its_place_on(values: st.SearchStrategy[int], data: st.DataObject) -> None:
    """The naive reading says the same, of keys that lie far apart too."""
    rows = sorted(
        data.draw(st.lists(st.tuples(st.sampled_from([0, 1, 2, 9]), values), max_size=12)), key=lambda row: row[0]
    )
    key, value = (np.array([row[part] for row in rows], np.int64) for part in (0, 1))
    naive = [all(v <= w for of, w in rows[place:] if of == k) for place, (k, v) in enumerate(rows)]
    assert _least_from_here(key, value).tolist() == naive


def test_the_greatest_instants_of_a_second_key_are_ranked() -> None:
    """Just as much as an integer no longer holds."""
    key, value = np.array([0, 0, 1, 1]), np.array([1, 0, END, 0])
    assert _least_from_here(key, value).tolist() == [False, True, False, True]


def overtakings(rows: list[tuple[int, int]]) -> int:
    """The most rows of one key each of which the next one overtakes: so many runs they need."""
    longest: list[int] = []
    for place, (key, known) in enumerate(rows):
        before = [longest[i] for i, (of, earlier) in enumerate(rows[:place]) if of == key and earlier > known]
        longest.append(1 + max(before, default=0))
    return max(longest, default=0)


def held(run: MonotoneRun, rows: RowTimes, keys: int) -> None:
    """What a run says of itself, and of the rows at its places."""
    assert (np.diff(run.places) > 0).all()
    assert run.event_us.tolist() == rows.event_us[run.places].tolist()
    assert run.counts_from.tolist() == rows.counts_from[run.places].tolist()
    key = rows.key[run.places]
    assert run.first.tolist() == [int((key < number).sum()) for number in range(keys + 1)]
    until = run.counts_until
    if until is not None and rows.counts_until is not None:
        assert until.tolist() == rows.counts_until[run.places].tolist()
    elif rows.counts_until is not None:
        assert (rows.counts_until[run.places] == END).all()
    for low, high in zip(run.first[:-1].tolist(), run.first[1:].tolist(), strict=True):
        assert (np.diff(run.counts_from[low:high]) >= 0).all()
        assert until is None or (np.diff(until[low:high]) >= 0).all()


@settings(max_examples=150, deadline=None)
@given(
    drawn=st.lists(st.tuples(st.integers(0, 2), SMALL, SMALL, st.one_of(SMALL, st.just(END))), max_size=12),
    replaced=st.booleans(),
)
def test_runs_hold_each_row_once_and_never_go_back(drawn: list[tuple[int, int, int, int]], *, replaced: bool) -> None:
    """Of rows that no version replaces there are as many runs as overtake each other; so there are of those that lie
    beside replaced ones."""
    key, event_us, begun, until = (np.array([row[n] for row in sorted(drawn)], np.int64) for n in range(4))
    rows = RowTimes(key, event_us, begun, until if replaced else None)
    runs = list(monotone_runs(rows, 3))
    assert sorted(place for run in runs for place in run.places.tolist()) == list(range(len(drawn)))
    for run in runs:
        held(run, rows, 3)
    for_ever = [(row[0], row[2]) for row in sorted(drawn) if not replaced or row[3] == END]
    assert sum(run.counts_until is None for run in runs) == overtakings(for_ever)
