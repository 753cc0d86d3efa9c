"""Which picked rows tied with others, and which rows of a part are the outermost: beside the naive reading."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.query.windows.filtered_rows import FilteredRows, picked_places
from featurestore.query.windows.ranges import Range
from featurestore.query.windows.ties import Ties
from featurestore.semantics.rows import RowTimes

FEW = st.integers(0, 2)
OFTEN_0 = st.sampled_from([0, 0, 0, 1])


@settings(max_examples=200, deadline=None)
@given(
    drawn=st.lists(
        st.tuples(OFTEN_0, OFTEN_0, OFTEN_0, FEW, FEW, st.integers(2, 4), st.integers(0, 3).map(bool)),
        min_size=2,
        max_size=10,
    ),
    asked=st.lists(st.tuples(st.lists(st.integers(-1, 9), min_size=2, max_size=2), FEW), min_size=1, max_size=4),
    replaced=st.booleans(),
)
def test_a_row_is_decided_by_its_bytes_where_one_that_differs_counts_beside_it(
    drawn: list[tuple[int, int, int, int, int, int, bool]], asked: list[tuple[list[int], int]], *, replaced: bool
) -> None:
    """Equal in key, event_time and what comes before the bytes; counted by the fold, and at the instant."""
    rows = sorted(drawn)
    key, event_us, before, whole, begun, until, _ = (np.array([row[n] for row in rows], np.int64) for n in range(7))
    counted = np.array([row[6] for row in rows], np.bool_)
    ties = Ties(RowTimes(key, event_us, begun, until if replaced else None), before, whole)
    picked = [[place if place < len(rows) else -1 for place in places] for places, _ in asked]
    naive = [
        any(
            rows[place][:3] == rows[other][:3] and rows[place][3] != rows[other][3] and rows[other][6]
            and rows[other][4] <= at and (not replaced or at < rows[other][5])
            for place in places if place >= 0 for other in range(len(rows))
        )
        for places, (_, at) in zip(picked, asked, strict=True)
    ]  # fmt: skip
    as_of = np.array([at for _, at in asked])
    assert ties.decided(np.array(picked, np.int64), counted, as_of).tolist() == naive


@pytest.mark.parametrize("end", ["newest", "oldest"])
@settings(max_examples=100, deadline=None)
@given(
    of_runs=st.lists(st.integers(0, 2), min_size=5, max_size=12),
    edges=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), min_size=1, max_size=3),
    counted=st.lists(st.integers(0, 3).map(bool), min_size=12, max_size=12),
    count=st.integers(1, 3),
)
def test_picked_are_the_outermost_rows_of_all_parts(
    end: Literal["newest", "oldest"], of_runs: list[int], edges: list[tuple[int, int]], counted: list[bool], count: int
) -> None:
    """Rows lie in up to three runs; of each a part is asked for, of which some rows count."""
    runs = [np.flatnonzero(np.array(of_runs, np.int64) % len(edges) == run) for run in range(len(edges))]
    filtered, ranges, inside = [], [], []
    for places, edge in zip(runs, edges, strict=True):
        low, high = sorted(min(one, len(places)) for one in edge)
        here = np.array(counted)[places]
        some = FilteredRows(places[here], np.concatenate([[0], np.cumsum(here)]))
        filtered.append(some)
        ranges.append(some.range(Range(np.array([low]), np.array([high]))))
        inside += [int(place) for place in places[low:high] if counted[place]]
    wanted = sorted(inside, reverse=end == "newest")[:count]
    assert picked_places(filtered, ranges, end, count).tolist() == [wanted + [-1] * (count - len(wanted))]
