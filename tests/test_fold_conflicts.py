"""Conflicts of folds that pick rows are counted in the manifest and named by an explanation."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from featurestore import First, LastDistinctN, LastN, Latest, Sum
from tests.small import NOON, hours, opened, table, trained, view_of

FOLDS = {
    "first": First("x", window="1h"), "last": Latest("x", window="1h"), "two": LastN("x", 2, window="1h"),
    "two_values": LastDistinctN("x", 2, window="1h"), "sum": Sum("x", window="1h"),
}  # fmt: skip
BEFORE, THEN = -0.5, -0.25


def asked(rows: pa.Table, features: Any = None, **words: Any) -> tuple[int, tuple[str, ...], str]:
    """How many conflicts the manifest counts of one spine row, and what an explanation says of them."""
    view = view_of(rows, features or FOLDS, **words)
    with opened(view) as (store, _):
        spine = table(thing=[1], event_timestamp=[NOON])
        frame = store.get_historical_features(spine, "service")
        told = store.explain("view", {"thing": 1}, at=NOON)
        assert told.to_dict()["conflicts"] == list(told.conflicts)
        return frame.manifest["conflicts"]["view"], told.conflicts, told.summary


def rows(*given: tuple[float, Any], **more: Any) -> pa.Table:
    """(hours after noon, x) of thing 1."""
    return table(thing=[1] * len(given), at=[hours(h) for h, _ in given], x=[x for _, x in given], **more)


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ([(BEFORE, 1.0), (THEN, 2.0)], ()),
        ([(BEFORE, 1.0), (THEN, 2.0), (THEN, 3.0)], ("last", "two", "two_values")),
        ([(BEFORE, 1.0), (BEFORE, 0.5), (THEN, 2.0)], ("first", "two", "two_values")),
        ([(BEFORE, 1.0), (BEFORE, 0.5), (THEN, 2.0), (THEN + 0.1, 2.0)], ("first", "two_values")),
        ([(THEN, 2.0), (THEN, 2.0)], ()),
        ([(THEN, -0.0), (THEN, 0.0)], ("first", "last", "two", "two_values")),
        ([(THEN, None), (THEN, 2.0)], ("first", "last", "two")),
        ([(-2, 1.0), (-2, 2.0), (THEN, 3.0)], ()),
    ],
)
def test_what_only_the_bytes_decided(given: list[Any], names: tuple[str, ...]) -> None:
    """A tie that a fold picked from, of rows that differ and count for it; once a spine row, by name in an explanation."""
    count, told, summary = asked(rows(*given))
    assert (count, told) == (int(bool(names)), names)
    assert (f"bytes decided for {', '.join(names)}" in summary) == bool(names)


def test_what_came_before_the_bytes_decided() -> None:
    """known_at and tiebreak settle a tie, and so does a condition that leaves one row of it."""
    tied = [(THEN, 2.0), (THEN, 3.0)]
    known = rows(*tied, known=[hours(-0.2), hours(-0.1)])
    assert asked(known, known_at="known")[0] == 0
    assert asked(rows(*tied, rank=[1, 2]), tiebreak=["rank"])[0] == 0
    assert asked(rows(*tied), {"last": Latest("x", window="1h", where="x < 3")})[0] == 0
    assert asked(known.set_column(3, "known", pa.array([hours(-0.1)] * 2)), known_at="known")[0] == 1


def test_a_row_that_does_not_count_is_no_conflict() -> None:
    """Of two that tie one is replaced, or is known later."""
    replaced = rows((THEN, 2.0), (THEN, 3.0), (THEN, 4.0), id=[1, 2, 2], known=[hours(n) for n in (-0.2, -0.2, 1)])
    assert asked(replaced, identity="id", known_at="known")[0] == 1
    sooner = replaced.set_column(4, "known", pa.array([hours(n) for n in (-0.2, -0.2, -0.1)]))
    assert asked(sooner, identity="id", known_at="known")[0] == 0


def test_wide_decimals_differ() -> None:
    """Though DuckDB hashes 0 and -1 of 128 bits alike; alone, in a list, and as what settles a tie."""
    wide = pa.decimal128(20, 2)
    values = [Decimal("0.00"), Decimal("-0.01")]
    tied = rows((THEN, 1.0), (THEN, 1.0))
    last = {"last": Latest("x", window="1h")}
    for column in (pa.array(values, wide), pa.array([[value] for value in values], pa.list_(wide))):
        assert asked(tied.set_column(2, "x", column), last)[1] == ("last",)
        assert asked(tied.set_column(2, "x", column.take([1, 1])), last)[0] == 0
    ranked = rows((THEN, 2.0), (THEN, 3.0)).append_column("rank", pa.array(values, wide))
    assert asked(ranked, last, tiebreak=["rank"])[0] == 0


def test_the_null_and_the_empty_list_differ() -> None:
    """Though DuckDB hashes them alike."""
    given = rows((THEN, None), (THEN, None))
    lists = given.set_column(2, "x", pa.array([None, []], pa.list_(pa.float64())))
    assert asked(lists, {"first": First("x", window="1h")})[:2] == (1, ("first",))


def test_conflicts_are_counted_by_spine_row() -> None:
    """Whatever the number of features with one, and of rows in the tie."""
    view = view_of(rows((THEN, 2.0), (THEN, 3.0), (THEN, 4.0)), {**FOLDS, "plain": Latest("x")})
    with opened(view) as (store, _):
        spine = table(thing=[1, 1, 1, 2], event_timestamp=[NOON, hours(-1), hours(1), NOON])
        frame = store.get_historical_features(spine, "service")
        assert frame.manifest["conflicts"] == {"view": 2}  # at noon, and an hour later of the plain column alone
        assert trained(store, NOON, thing=[1])["view__plain"].to_pylist() == [4.0]
