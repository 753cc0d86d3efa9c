"""Rule 4: statuses as they are written, and the two ways in which the newest row no longer counts."""

from __future__ import annotations

import numpy as np
import pytest

from featurestore.semantics.judge import expired
from featurestore.semantics.status import Status
from featurestore.semantics.time import END


def test_statuses_are_the_numbers_on_the_wire() -> None:
    assert {status.name: int(status) for status in Status} == {
        "MISSING": 0, "EXPIRED": 1, "PRESENT": 2, "OVERFLOW": 3, "WITHHELD": 4, "UNAVAILABLE": 5,
    }  # fmt: skip


CASES = [  # event_time, until, ttl, and whether the row is expired at 10
    (10, END, 0, False),
    (9, END, 0, True),
    (7, END, 3, False),
    (6, END, 3, True),
    (-99, END, None, False),
    (5, 11, None, False),
    (5, 10, None, True),
    (5, 9, None, True),
    (7, 11, 3, False),
    (7, 10, 3, True),
    (6, 11, 3, True),
    (6, 10, 3, True),
]


@pytest.mark.parametrize(("event_time", "until", "ttl", "ended"), CASES)
def test_the_ttl_is_inclusive_and_until_is_exclusive(event_time: int, until: int, ttl: int | None, ended: bool) -> None:
    assert expired(event_time, until, 10, ttl) is ended


@pytest.mark.parametrize("ttl", [None, 3])
def test_arrays_are_judged_each_row_for_itself(ttl: int | None) -> None:
    cases = [case for case in CASES if case[2] == ttl]
    event_times, untils = np.array([case[0] for case in cases]), np.array([case[1] for case in cases])
    assert expired(event_times, untils, 10, ttl).tolist() == [case[3] for case in cases]
