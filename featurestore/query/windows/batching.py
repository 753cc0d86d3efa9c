"""How the rows of many keys are cut: into batches that memory holds, and these into batches for one thread. No key is split."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from featurestore.lazy import duckdb, pa
from featurestore.query.windows.filtered_rows import Ints

MEMORY_BATCH_CELLS = 20_000_000
"""Cells (rows × columns) that are folded at once: what bounds the memory beside DuckDB's."""

KEY_BATCH_ROWS = 1 << 17
"""Rows and requests that one thread folds at once: few enough for a processor's cache, many enough for numpy. Between 2^14 and 2^22
no difference was told from noise (2,000,000 rows of 50,000 keys, 300,000 requests, three folds)."""


def memory_batches(
    connection: duckdb.DuckDBPyConnection, tables: Sequence[str], *, keys: int, width: int
) -> Iterator[tuple[int, int]]:
    """Ranges of keys whose rows are few enough. tables: of rows `(key_no, …)`, from 0 on; width: cells a row, roughly."""
    every = " UNION ALL ".join(f"SELECT key_no FROM {table}" for table in tables)
    (total,) = connection.execute(f"SELECT count(*) FROM ({every})").fetchall()[0]
    limit = max(1, MEMORY_BATCH_CELLS // width)
    if total <= limit:
        yield 0, keys
        return
    counted: pa.Table = connection.sql(f"SELECT key_no, count(*) AS c FROM ({every}) GROUP BY key_no").to_arrow_table()
    counts = np.zeros(keys, np.int64)
    counts[counted["key_no"].to_numpy()] = counted["c"].to_numpy()
    yield from _cut(0, counts, limit)


def key_batches(first: int, last: int, sorted_keys: Sequence[Ints]) -> Iterator[tuple[int, int]]:
    """The keys [first, last) as ranges with about as much work each. sorted_keys: the key of each row and request."""
    counts = np.zeros(last - first, np.int64)
    for keys in sorted_keys:
        here = keys[slice(*np.searchsorted(keys, [first, last]))]
        counts += np.bincount(here - first, minlength=last - first)
    yield from _cut(first, counts, KEY_BATCH_ROWS)


def _cut(first: int, counts: Ints, limit: int) -> Iterator[tuple[int, int]]:
    """Ranges of keys, numbered from `first`, whose counts add up to about `limit`."""
    number = np.cumsum(counts) // limit
    edges = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), len(counts)]
    yield from ((first + low, first + high) for low, high in itertools.pairwise(edges))
