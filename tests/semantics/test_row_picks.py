"""The folds that pick rows, on their own: their states as bytes, the faster ways to read and merge them, and what they pick."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from featurestore.semantics.folds import FOLDS
from featurestore.semantics.folds.row_picks import LastRows, OneRow, rows_result
from featurestore.semantics.order import order_bytes
from featurestore.semantics.status import Status
from featurestore.types import Array, Float32, Float64, Int32, Int64

NEWEST, OLDEST = OneRow(Int64, Int64, "newest"), OneRow(Int64, Int64, "oldest")
LAST, DISTINCT = LastRows(Int64, Array(Int64), 2, distinct=False), LastRows(Int64, Array(Int64), 2, distinct=True)
SIZES = [0, 1, 2, 254, 255, 300]


def at(place: Any, value: int | None) -> tuple[Any, bytes]:
    return place, order_bytes(Int64, value)


@pytest.mark.parametrize("end", [b"", b"\0", b"\x01", b"\xfe", b"\xff"])
@pytest.mark.parametrize("value_bytes", SIZES)
def test_a_row_of_any_length_comes_back(value_bytes: int, end: bytes) -> None:
    """Its place may be bytes, or an integer of either sign."""
    value = b"v" * max(0, value_bytes - len(end)) + end[:value_bytes]
    for place in [
        *(b"p" * size for size in SIZES),
        b"\xff",
        b"p\0",
        0,
        1,
        -1,
        127,
        128,
        -128,
        -129,
        255,
        1 << 62,
        -(1 << 63),
    ]:
        assert NEWEST.unpack(NEWEST.pack((place, value))) == (place, value)
        rows = ((place, value), (place, b"w"))
        assert LAST.unpack(LAST.pack(rows)) == rows


def test_rows_are_packed_one_after_the_other_behind_what_their_places_are() -> None:
    assert NEWEST.pack(()) == LAST.pack(()) == b""
    assert NEWEST.unpack(b"") == LAST.unpack(b"") == ()
    assert NEWEST.pack((b"p", b"vv")) == b"\0\x01p\x02vv"
    assert [NEWEST.pack((place, b"v")) for place in (0, 127, 128, -1)] == [
        b"\x01\x01\0\x01v", b"\x01\x01\x7f\x01v", b"\x01\x02\x80\0\x01v", b"\x01\x01\xff\x01v",
    ]  # fmt: skip
    assert LAST.pack(((2, b"v"), (1, b"w"))) == b"\x01\x01\x02\x01v\x01\x01\x01w"


def test_of_two_rows_the_one_at_the_end_is_picked() -> None:
    """Of none and one, that one."""
    a, b = at(1, 7), at(2, None)
    for fold, picked in ((NEWEST, b), (OLDEST, a)):
        assert fold.merge(a, b) == fold.merge(b, a) == picked
        assert fold.merge(a, ()) == fold.merge((), a) == a
        assert fold.merge((), ()) == ()
        packed = [b"", *map(fold.pack, (a, b)), b""]
        assert fold.merge_packed(packed) == picked
        assert fold.merge_packed([b""]) == fold.merge_packed([]) == ()
        assert [fold.value(state) for state in (a, b, ())] == [7, None, None]
        assert fold.finish_many([a, (), b]) == ([7, None, None], [Status.PRESENT] * 3)
        assert (fold.picked(a), fold.picked(())) == ((1,), ())
    assert (NEWEST.picks, OLDEST.picks) == (("newest", 1), ("oldest", 1))
    values = pa.array([5, None, 6])
    assert NEWEST.finish_rows(values, np.array([[2], [-1], [0], [1]])).to_pylist() == [6, None, 5, None]


def test_the_last_rows_are_picked_newest_first() -> None:
    """As many as there are, of all states; of equal values the newest alone, where each is to be another."""
    rows = [at(1, 7), at(2, 8), at(3, 8), at(4, None)]
    single = [(row,) for row in rows]
    assert LAST.merge(single[0], single[2]) == LAST.merge(single[2], single[0]) == (rows[2], rows[0])
    assert LAST.merge(single[0], ()) == LAST.merge((), single[0]) == single[0]
    assert DISTINCT.merge((rows[1], rows[0]), single[2]) == (rows[2], rows[0])
    assert LAST.merge((rows[1], rows[0]), single[2]) == (rows[2], rows[1])
    packed = [b"", *map(LAST.pack, single), b""]
    assert LAST.merge_packed(packed) == (rows[3], rows[2])
    assert DISTINCT.merge_packed(packed[:-2]) == (rows[2], rows[0])
    assert LAST.merge_packed([b""]) == ()
    assert LAST.value((rows[3], rows[2])) == [None, 8]
    assert LAST.picked((rows[3], rows[2])) == [4, 3]
    assert (LAST.picks, DISTINCT.picks) == (("newest", 2), None)
    assert (LAST.takes_null, DISTINCT.takes_null, NEWEST.takes_null) == (True, False, True)
    found = LAST.finish_rows(pa.array([5, None, 6]), np.array([[2, 0], [-1, -1], [1, -1]]))
    assert found.to_pylist() == [[6, 5], [], [None]]


def test_equal_folds_are_equal() -> None:
    """How a value is read is no part of what a fold is, nor of how it is shown."""
    assert OneRow(Int64, Int64, "newest") == NEWEST != OLDEST
    assert LastRows(Int64, Array(Int64), 2, distinct=False) == LAST != DISTINCT
    assert "read" not in repr(NEWEST) + repr(LAST)


def test_columns_and_results_that_fit() -> None:
    """A wider type does; a narrower one, a list of a fixed length, no column and no rows do not."""
    for kind in ("Latest", "First"):
        assert FOLDS[kind].result(Array(Int32)) == Array(Int32)
        assert FOLDS[kind].algebra(Int32, Int64) == OneRow(Int32, Int64, "newest" if kind == "Latest" else "oldest")
        with pytest.raises(ValueError, match="does not fit Int32"):
            FOLDS[kind].algebra(Int64, Int32)
        with pytest.raises(ValueError, match="it needs a column"):
            FOLDS[kind].result(None)
    for kind in ("LastN", "LastDistinctN"):
        assert FOLDS[kind].algebra(Int32, Array(Float64), n=3) == LastRows(
            Int32, Array(Float64), 3, kind == "LastDistinctN"
        )
        for column, result in ((Int64, Array(Int32)), (Float32, Array(Float32, 2))):
            with pytest.raises(ValueError, match="does not fit"):
                FOLDS[kind].algebra(column, result, n=2)
    assert rows_result(Int64, 1) == Array(Int64)
    for column, n, said in (
        (None, 1, "needs a column"),
        (Int64, 0, "at least 1, not 0"),
        (Array(Int64), 1, "every type but arrays"),
    ):
        with pytest.raises(ValueError, match=said):
            rows_result(column, n)
    assert all(FOLDS[kind].ordered for kind in ("Latest", "First", "LastN", "LastDistinctN"))
