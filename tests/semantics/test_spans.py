"""Rule 1(c): which event times a window sees, beside the sentence that says so; and how long a continuous view's hops are."""

from __future__ import annotations

import numpy as np
import pytest

from featurestore.semantics.time import BEGINNING
from featurestore.semantics.windows import DAY, HOUR, MINUTE, Span, default_hop


def floored(instant: int, hop: int) -> int:
    return max(n * hop for n in range(-40, 40) if n * hop <= instant) if hop else instant


@pytest.mark.parametrize("hop", [0, 1, 3])
@pytest.mark.parametrize("offset", [0, 2, 3])
@pytest.mark.parametrize("length", [1, 3, 7])
def test_a_window_begins_in_hops_and_ends_at_the_instant(length: int, offset: int, hop: int) -> None:
    """With an offset its end moves in hops as well."""
    span = Span(length, offset, hop)
    for as_of in range(-9, 10):
        assert span.start(as_of) == floored(as_of - offset - length, hop)
        assert span.end(as_of) == (floored(as_of - offset, hop) if offset else as_of)
    times = np.arange(-9, 10)
    assert span.start(times).tolist() == [span.start(each) for each in range(-9, 10)]
    assert span.end(times).tolist() == [span.end(each) for each in range(-9, 10)]


def test_without_a_word_both_ends_are_exact() -> None:
    assert Span(3) == Span(3, offset=0, hop=0)


def test_a_lifetime_begins_before_rows_without_time() -> None:
    """Also where it ends some time ago."""
    assert Span(None).start(7) == Span(None, offset=3).start(7) == BEGINNING - 1
    assert Span(None).start(np.array([7, 8])).tolist() == [BEGINNING - 1] * 2
    assert (Span(None).end(7), Span(None, offset=3).end(7)) == (7, 4)


@pytest.mark.parametrize(
    ("length", "hop"),
    [
        (1, 1),
        (MINUTE - 1, MINUTE - 1),
        (MINUTE, MINUTE),
        (HOUR - 1, MINUTE),
        (HOUR, 5 * MINUTE),
        (12 * HOUR - 1, 5 * MINUTE),
        (12 * HOUR, HOUR),
        (12 * DAY - 1, HOUR),
        (12 * DAY, DAY),
        (400 * DAY, DAY),
    ],
)
def test_a_hop_is_a_small_part_of_its_window(length: int, hop: int) -> None:
    assert default_hop(length, few=False) == hop


@pytest.mark.parametrize(
    ("length", "hop"),
    [
        (7, 7),
        (32 * MINUTE, MINUTE),
        (32 * MINUTE + 1, 5 * MINUTE),
        (160 * MINUTE + 1, 15 * MINUTE),
        (8 * HOUR + 1, HOUR),
        (32 * HOUR + 1, 6 * HOUR),
        (8 * DAY + 1, DAY),
        (32 * DAY, DAY),
        (32 * DAY + 1, DAY + 1),
        (320 * DAY, 10 * DAY),
    ],
)
def test_sketches_and_sets_have_32_tiles_in_a_window_at_most(length: int, hop: int) -> None:
    assert default_hop(length, few=True) == hop


def test_units_are_microseconds() -> None:
    assert (MINUTE, HOUR, DAY) == (60_000_000, 3_600_000_000, 86_400_000_000)
