"""Rule 0 beside loops over instants, and its form in SQL beside its form in Python."""

from __future__ import annotations

from itertools import product

import duckdb
import numpy as np
import pytest

from featurestore.semantics.time import BEGINNING, END, Timing, last_step, last_step_sql

TIMINGS = [
    Timing(4),
    Timing(4, offset=1),
    Timing(4, ready_after=3),
    Timing(4, offset=3, settle=6, ready_after=2),
    Timing(1),
]
TIMES = range(-13, 14)


def instants(timing: Timing) -> list[int]:
    """Every instant of a refreshed view around the times, in order."""
    assert timing.refresh is not None
    return [n * timing.refresh + timing.offset for n in range(-30, 30)]


@pytest.mark.parametrize("timing", TIMINGS)
def test_an_instant_is_the_last_at_or_before_a_time_and_the_first_at_or_after_it(timing: Timing) -> None:
    for t in TIMES:
        assert timing.instant(t) == max(each for each in instants(timing) if each <= t)
        assert timing.first(t) == min(each for each in instants(timing) if each >= t)
        assert timing.as_of(t) == max(each for each in instants(timing) if each <= t - timing.ready_after)
        assert timing.known_by(t) == t + timing.settle


@pytest.mark.parametrize("timing", TIMINGS)
def test_of_arrays_and_in_sql_it_is_the_same(timing: Timing) -> None:
    times = np.array(TIMES)
    for one, sql in [(timing.as_of, timing.as_of_sql), (timing.first, timing.first_sql)]:
        found = duckdb.sql(f"SELECT {sql('CAST(t AS BIGINT)')} FROM range(-13, 14) AS r(t) ORDER BY t").fetchall()
        assert [one(t) for t in TIMES] == one(times).tolist() == [value for (value,) in found]


def test_without_a_word_nothing_settles_and_everything_is_ready_at_once() -> None:
    assert Timing(4) == Timing(4, offset=0, settle=0, ready_after=0)


def test_without_an_offset_steps_count_from_0() -> None:
    sql = ", ".join(last_step_sql(f"CAST({t} AS BIGINT)", 4) for t in TIMES)
    naive = [t - t % 4 for t in TIMES]
    assert [last_step(t, 4) for t in TIMES] == naive == list(duckdb.sql(f"SELECT {sql}").fetchall()[0])


@pytest.mark.parametrize("timing", TIMINGS)
def test_an_instant_is_asked_for_from_when_it_is_served(timing: Timing) -> None:
    """Not a µs before; in SQL too."""
    for instant in instants(timing):
        begin = timing.served_from(instant)
        assert timing.as_of(begin - 1) < instant
        assert timing.as_of(begin) == instant
    first = instants(timing)[0]
    sql = timing.served_from_sql(f"CAST({first} AS BIGINT)")
    assert duckdb.sql(f"SELECT {sql}").fetchall() == [(timing.served_from(first),)]


@pytest.mark.parametrize("timing", [*TIMINGS, Timing(None)])
def test_late_is_what_is_older_than_promised_by_more_than_its_lag(timing: Timing) -> None:
    for now in TIMES:
        promised = timing.as_of(now)
        assert [timing.is_late(promised + step, now) for step in (-1, 0, 1)] == [True, False, False]
        assert [timing.is_late(promised + step, now, lag=3) for step in (-4, -3, 0)] == [True, False, False]


def test_a_continuous_view_is_asked_for_now() -> None:
    assert Timing(None).as_of(7) == Timing(None, ready_after=3).as_of(7) == 7
    assert Timing(None, ready_after=3).as_of_sql("t") == "t"


def test_served_is_the_newest_complete_instant_that_is_not_too_new() -> None:
    timing = Timing(4, ready_after=1)
    assert [timing.served([12, 8, 4], now) for now in (4, 5, 8, 9, 12, 13, 99)] == [None, 4, 4, 8, 8, 12, 12]
    assert timing.served([], 99) is None


DUE: list[tuple[Timing, int, int | None, list[int]]] = [
    (Timing(None), 7, None, [7]),
    (Timing(None), 7, 6, [7]),
    (Timing(None), 7, 7, []),
    (Timing(4), 9, None, [8]),
    (Timing(4), 9, 8, []),
    (Timing(4, ready_after=4), 9, None, [4, 8]),
    (Timing(4, ready_after=4), 9, 4, [8]),
    (Timing(4, ready_after=4), 9, 8, []),
    (Timing(4, settle=2, ready_after=4), 9, None, [4]),
    (Timing(4, settle=1, ready_after=4), 9, None, [4, 8]),
]


@pytest.mark.parametrize(("timing", "now", "complete", "due"), DUE)
def test_due_are_what_is_asked_for_and_what_can_be_had_early(
    timing: Timing, now: int, complete: int | None, due: list[int]
) -> None:
    assert timing.due(now, complete) == due


def test_the_ends_of_time_are_what_records_say() -> None:
    """They are written, so they never change; between them lies every µs, and durations can be added to both."""
    assert (BEGINNING, END) == (-4611686018427387904, 4611686018427387904)


def test_every_pair_of_times_keeps_its_order() -> None:
    """What is asked for later is never answered for an earlier instant."""
    for timing, (a, b) in product(TIMINGS, product(TIMES, repeat=2)):
        assert a > b or timing.as_of(a) <= timing.as_of(b)
