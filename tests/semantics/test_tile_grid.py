"""Tiles (start, start + hop]: one definition, which Python, numpy and SQL read alike."""

from __future__ import annotations

import duckdb
import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from featurestore.semantics.time import Timing
from featurestore.semantics.windows import Span, TileGrid

HOPS = st.integers(1, 10**12)
INSTANTS = st.integers(-(10**16), 10**16)


@given(hop=HOPS, offset=INSTANTS, steps=st.integers(-1000, 1000), nudge=st.sampled_from((-1, 0, 1)))
@example(hop=10, offset=0, steps=0, nudge=0)
def test_an_instant_lies_in_one_tile_in_every_form(hop: int, offset: int, steps: int, nudge: int) -> None:
    """At an edge, just before it and just after it, before 1970 too."""
    grid, instant = TileGrid(hop, offset), offset + steps * hop + nudge
    start = grid.start(instant)
    assert start < instant <= start + hop
    assert (start - offset) % hop == 0
    assert grid.start(np.array([instant])).tolist() == [start]
    assert duckdb.sql(f"SELECT {grid.start_sql(f'({instant})::BIGINT')}").fetchall() == [(start,)]
    assert grid.cuts(instant) == (nudge != 0 and hop > 1)


@given(hop=HOPS, instant=INSTANTS, length=st.integers(1, 10**13), offset=st.sampled_from((0, 1, 7, 10**9)))
def test_a_window_is_whole_tiles_but_its_head(hop: int, instant: int, length: int, offset: int) -> None:
    """Its edges are edges of tiles of the same hop, but for an end that is the as_of itself."""
    grid, span = TileGrid(hop), Span(length, offset, hop)
    assert not grid.cuts(span.start(instant))
    assert not offset or not grid.cuts(span.end(instant))


@given(refresh=HOPS, offset=INSTANTS, instant=INSTANTS)
def test_a_refreshed_view_steps_where_its_tiles_do(refresh: int, offset: int, instant: int) -> None:
    """The instants of a view are edges of tiles that start at its refresh offset, in Python and in SQL."""
    timing, grid = Timing(refresh, offset=offset, ready_after=3), TileGrid(refresh, offset)
    as_of, first = timing.as_of(instant), timing.first(instant)
    assert not grid.cuts(as_of)
    assert as_of <= instant - 3 < as_of + refresh
    assert first - refresh < instant <= first
    sql = f"SELECT {timing.as_of_sql(f'({instant})::BIGINT')}, {timing.first_sql(f'({instant})::BIGINT')}"
    assert duckdb.sql(sql).fetchall() == [(as_of, first)]


def test_without_a_hop_there_is_one_tile() -> None:
    """What has no window is kept in one tile for all time."""
    assert [TileGrid(0).start(instant) for instant in (-5, 0, 5)] == [0, 0, 0]
