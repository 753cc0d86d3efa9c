"""What a lookup is expected to take, by what it took: not by one that the machine held up."""

from __future__ import annotations

from functools import reduce

import pytest

from featurestore.server.hot_routes import FORGETS, LookupCost

QUICK, SLOW = 0.0001, 0.05


def expected(*seconds: float) -> float:
    """What is expected after lookups that took so long."""
    first, *others = seconds
    return reduce(lambda cost, each: cost.after(18, each), others, LookupCost.first(18, first)).seconds


def test_nothing_is_expected_of_what_happened_once() -> None:
    assert expected(QUICK, SLOW) <= QUICK
    assert expected(QUICK, SLOW, *[QUICK] * 100) <= QUICK


@pytest.mark.parametrize("between", [0, 1, 5])
def test_what_is_slow_again_is_expected_to_be(between: int) -> None:
    """Also where others that are quick come between, as of keys that are not known."""
    assert expected(QUICK, SLOW, *[QUICK] * between, SLOW) >= SLOW * FORGETS ** (between + 1)
    assert expected(QUICK, *[SLOW, *[QUICK] * between] * 20, SLOW) >= SLOW * FORGETS ** (between + 1)


def test_the_first_is_believed_until_others_are_quicker() -> None:
    assert expected(SLOW) == SLOW
    assert expected(SLOW, *[QUICK] * 200) <= QUICK
