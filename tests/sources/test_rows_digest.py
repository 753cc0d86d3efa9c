"""Rows as multisets: what is read in place of some of a table's files has to have the same."""

from __future__ import annotations

import math
import struct
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from featurestore.sources.tables.table_files import RowsDigest

AT = datetime(2026, 3, 8, 1, 2, 3, 4, UTC)
OTHER_NAN = struct.unpack("<d", struct.pack("<Q", 0x7FF8000000000001))[0]
NESTED = pa.struct([("texts", pa.list_(pa.string())), ("map", pa.map_(pa.string(), pa.float64()))])


def digests(*sides: list[pa.Table]) -> list[tuple[int, int]]:
    """Of each side, whose tables are files, how many rows it has and the sum of their hashes."""
    types: dict[str, pa.DataType] = {}
    found = []
    for side in sides:
        digest = RowsDigest(types)
        for table in side:
            digest.add((table.schema, iter(table.to_batches(max_chunksize=2))))
        found.append((digest.count, digest.sum))
    return found


def test_neither_order_nor_files_nor_columns_order_matter() -> None:
    rows = pa.table({"a": [1, 2, 2, None], "b": ["x", None, "y", "z"]})
    here, there, none = digests([rows], [rows.slice(2), rows.slice(1, 1).select(["b", "a"]), rows.slice(0, 1)], [])
    assert here == there
    assert here[0] == 4
    assert none == (0, 0)


def test_how_often_a_row_is_there_matters() -> None:
    """Though each side has the same rows and as many of them, and each column the same values."""
    once, twice = digests([pa.table({"a": [2, 2, 3, 4]})], [pa.table({"a": [2, 3, 3, 4]})])
    assert once != twice
    paired, crossed = digests([pa.table({"a": [1, 2], "b": [3, 4]})], [pa.table({"a": [1, 2], "b": [4, 3]})])
    assert paired != crossed
    here, there = digests([pa.table({"a": [1], "b": [2]})], [pa.table({"a": [2], "b": [1]})])
    assert here != there


@pytest.mark.parametrize(
    ("of", "one", "other"),
    [
        (pa.float64(), 0.0, -0.0),
        (pa.float32(), 0.0, -0.0),
        (pa.float64(), math.nan, OTHER_NAN),
        (pa.float64(), 0.1, 0.1 + 2**-56),
        (pa.int64(), 2**62, 2**62 + 1),
        (pa.int64(), 0, None),
        (pa.string(), "", None),
        (pa.string(), "a", "a "),
        (pa.string(), "NULL", None),
        (pa.binary(), b"\x00\xff", b"\x00\xfe"),
        (pa.bool_(), False, None),
        (pa.decimal128(38, 2), Decimal("0.01"), Decimal("0.02")),
        (pa.decimal128(38, 2), Decimal("0.00"), Decimal("-0.01")),
        (pa.decimal128(19, 0), Decimal(0), Decimal(-1)),
        (pa.decimal128(38, 0), Decimal(2**64 + 2), Decimal(2**65 + 1)),
        (pa.timestamp("us", "UTC"), AT, AT.replace(microsecond=5)),
        (pa.list_(pa.int64()), [], None),
        (pa.list_(pa.int64()), [None], []),
        (pa.list_(pa.string()), ["NULL"], [None]),
        (pa.list_(pa.string()), ["a, b"], ["a", "b"]),
        (pa.list_(pa.float32(), 2), [0.0, 1.0], [-0.0, 1.0]),
        (NESTED, {"texts": ["a"], "map": [("k", 0.0)]}, {"texts": ["a"], "map": [("k", -0.0)]}),
        (NESTED, {"texts": None, "map": None}, None),
        (NESTED, {"texts": ["a"], "map": [("k", 1.0)]}, {"texts": ["a"], "map": [("l", 1.0)]}),
    ],
)
def test_values_that_differ(of: pa.DataType, one: Any, other: Any) -> None:
    here, again, there = digests(*[[pa.table({"a": pa.array([value], of)})] for value in (one, one, other)])
    assert here == again != there


def test_a_column_that_is_not_there_is_null() -> None:
    with_it, without = digests([pa.table({"a": [1], "b": pa.array([None], pa.string())})], [pa.table({"a": [1]})])
    assert with_it == without
    said, lacks = digests([pa.table({"a": [1], "b": ["x"]})], [pa.table({"a": [1]})])
    assert said != lacks


def test_values_are_compared_as_the_first_files_have_them() -> None:
    """Spark writes instants without a zone, as ns."""
    instants = pa.array([AT], pa.timestamp("us", "UTC"))
    spark = instants.cast(pa.timestamp("ns", "UTC")).cast(pa.timestamp("ns"))
    here, there = digests(
        [pa.table({"at": instants, "n": pa.array([1], pa.int64()), "x": pa.array([0.5], pa.float64())})],
        [pa.table({"at": spark, "n": pa.array([1], pa.int32()), "x": pa.array([0.5], pa.float32())})],
    )
    assert here == there
    with pytest.raises(pa.ArrowInvalid):
        digests([pa.table({"a": pa.array([1], pa.int32())})], [pa.table({"a": pa.array([2**40], pa.int64())})])
