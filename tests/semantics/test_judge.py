"""Rule 4's judgements: of one value, of arrays of many and in SQL they are the same."""

from __future__ import annotations

from itertools import product
from typing import Any

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.semantics import judge
from featurestore.semantics.status import Status
from featurestore.semantics.time import BEGINNING, END

AS_OF, TTL = 60, 20
EDGES = [edge + step for edge in (AS_OF, AS_OF - TTL) for step in (-1, 0, 1)] + [BEGINNING, END]
INSTANT = st.one_of(st.sampled_from(EDGES), st.integers(0, 100))

CASES = list(product([False, True], repeat=3))
TOLD: dict[tuple[bool, ...], str] = {
    (False, False, False): "MISSING", (False, True, False): "MISSING", (False, False, True): "MISSING",
    (False, True, True): "MISSING", (True, False, False): "PRESENT", (True, True, False): "EXPIRED",
    (True, False, True): "OVERFLOW", (True, True, True): "EXPIRED",
}  # fmt: skip


def test_one_value_is_judged_as_many_are() -> None:
    """By whether its key is known, its row has expired, and its type cannot hold it."""
    known, expired, overflow = (np.array(column) for column in zip(*CASES, strict=True))
    many = judge.statuses_of(known, expired=expired, overflow=overflow)
    one = [judge.status_of(*case[:1], expired=case[1], overflow=case[2]) for case in CASES]
    assert [Status(status).name for status in many] == [status.name for status in one] == [TOLD[case] for case in CASES]
    assert many.dtype == np.uint8


@pytest.mark.parametrize("said", [{}, {"expired": True}, {"overflow": True}])
def test_a_value_of_which_nothing_is_said_is_there(said: dict[str, bool]) -> None:
    """Neither expired nor too great, where nobody says that it is; one and many alike."""
    status = Status.EXPIRED if "expired" in said else Status.OVERFLOW if said else Status.PRESENT
    assert [judge.status_of(known, **said) for known in (False, True)] == [Status.MISSING, status]
    assert judge.statuses_of(np.array([False, True]), **said).tolist() == [Status.MISSING, status]


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(st.tuples(st.one_of(st.none(), INSTANT), INSTANT), min_size=1, max_size=10),
    as_of=INSTANT.filter(lambda at: -END < at < END),
    ttl=st.sampled_from([None, 0, TTL]),
)
def test_a_newest_row_is_judged_as_many_are(rows: list[tuple[int | None, int]], as_of: int, ttl: int | None) -> None:
    """By when it happened and when its validity ends; and in so many words."""
    one = [judge.row_status(event, until, as_of, ttl) for event, until in rows]
    known = np.array([event is not None for event, _ in rows])
    events, untils = (np.array([value or 0 for value in column], np.int64) for column in zip(*rows, strict=True))
    assert judge.row_statuses(known, events, untils, as_of, ttl).tolist() == one
    for (event, until), status in zip(rows, one, strict=True):
        gone = event is not None and (until <= as_of or (ttl is not None and as_of - event > ttl))
        assert status == (Status.MISSING if event is None else Status.EXPIRED if gone else Status.PRESENT)


@pytest.mark.parametrize("until", EDGES)
def test_a_validity_ends_in_sql_as_in_python(until: int) -> None:
    ((said,),) = duckdb.sql(f"SELECT {judge.ended_sql(str(until), AS_OF)}").fetchall()
    assert said is judge.ended(until, AS_OF) is (until <= AS_OF)


def test_a_default_replaces_the_null_of_missing_and_expired_only() -> None:
    """In a column of any statuses; a column whose every value is PRESENT comes back as it is."""
    statuses = [list(Status), [Status.PRESENT] * len(Status)]
    columns: list[list[Any]] = [["value"] * len(Status), [None] * len(Status)]
    filled = judge.filled(statuses, columns, ["default", "default"])
    assert dict(zip(Status, filled[0], strict=True)) == {
        Status.MISSING: "default", Status.EXPIRED: "default", Status.PRESENT: "value", Status.OVERFLOW: None,
        Status.WITHHELD: None, Status.UNAVAILABLE: None,
    }  # fmt: skip
    assert filled[1] is columns[1]
    assert judge.filled([statuses[1]], [columns[1]], ["default"])[0] is columns[1]
    taken = judge.takes_default(np.array(list(Status), np.uint8))
    assert taken.tolist() == [bool(judge.takes_default(status)) for status in Status]


def test_a_row_has_expired_where_every_column_has() -> None:
    """And not where one of them has another status."""
    columns = [[Status.EXPIRED, Status.EXPIRED, Status.PRESENT], [Status.EXPIRED, Status.MISSING, Status.PRESENT]]
    arrays = [np.array(column, np.uint8) for column in columns]
    assert judge.are_expired(arrays).tolist() == [True, False, False]
    assert judge.are_expired(arrays[:1]).tolist() == [True, True, False]


def test_rows_of_keys_that_are_not_known_are_missing() -> None:
    """Known keys answer in the places of the requests; columns that share their statuses still do."""
    shared: list[Status] = [Status.PRESENT, Status.EXPIRED]
    columns: list[list[Any]] = [[1, 2], [3, 4]]
    statuses, values = judge.spread([1, None, 0, 1], [shared, shared], columns, [None, -1])
    assert statuses[0] is statuses[1]
    assert statuses[0] == [Status.EXPIRED, Status.MISSING, Status.PRESENT, Status.EXPIRED]
    assert values == [[2, None, 1, 2], [4, -1, 3, 4]]
