"""How keys are cut into batches: each key in one of them, no batch with more than it may hold, and no more batches than that asks for."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from featurestore.query.windows import batching
from featurestore.query.windows.batching import key_batches, memory_batches


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    """One for all examples."""
    with duckdb.connect() as connection:
        yield connection


def holds(cut: list[tuple[int, int]], first: int, counts: list[int], limit: int) -> None:
    """What is said of batches, of keys numbered from `first` with so many rows each."""
    assert [number for low, high in cut for number in range(low, high)] == list(range(first, first + len(counts)))
    for low, high in cut:
        assert low < high
        rows = counts[low - first : high - first]
        assert sum(rows) <= limit or sum(rows[1:]) < limit  # one key may have more, and is then the first
    assert len(cut) <= 1 + sum(counts) // limit


@settings(max_examples=100, deadline=None)
@given(
    counts=st.lists(st.integers(0, 6), min_size=1, max_size=12), others=st.lists(st.integers(0, 3), min_size=12, max_size=12),
    cells=st.integers(1, 40), width=st.integers(1, 5),
)  # fmt: skip
@example(counts=[0, 0], others=[0, 1, *[0] * 10], cells=1, width=1).via("all fits, and the first key has no row")
def test_memory_holds_the_rows_of_a_batch(
    connection: duckdb.DuckDBPyConnection, counts: list[int], others: list[int], cells: int, width: int
) -> None:
    """Of all tables together."""
    both = [one + two for one, two in zip(counts, others, strict=False)]
    for name, each in (("some_rows", counts), ("other_rows", others[: len(counts)])):
        connection.register(name, pa.table({"key_no": np.repeat(np.arange(len(each)), each)}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batching, "MEMORY_BATCH_CELLS", cells)
        cut = list(memory_batches(connection, ["some_rows", "other_rows"], keys=len(counts), width=width))
    limit = max(1, cells // width)
    holds(cut, 0, both, limit)
    assert (len(cut) == 1) or sum(both) > limit


@settings(max_examples=100, deadline=None)
@given(
    counts=st.lists(st.integers(0, 6), min_size=3, max_size=12),
    others=st.lists(st.integers(0, 3), min_size=12, max_size=12),
    part=st.tuples(st.integers(0, 1), st.integers(2, 3)),
    limit=st.integers(1, 9),
)
def test_a_thread_gets_some_of_the_keys(
    counts: list[int], others: list[int], part: tuple[int, int], limit: int
) -> None:
    """Rows and requests count alike; those of keys outside of the range do not."""
    first, last = part
    given_keys = [np.repeat(np.arange(len(each)), each) for each in (counts, others[: len(counts)])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batching, "KEY_BATCH_ROWS", limit)
        cut = list(key_batches(first, last, given_keys))
    holds(cut, first, [one + two for one, two in zip(counts, others, strict=False)][first:last], limit)
