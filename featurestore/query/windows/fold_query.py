"""Folds over windows for many pairs of key and instant: the other half of the as-of query.

It asks the same rows as every other path (`semantics.rows`), for the keys and requests that `query.asof` has numbered. So
many keys are taken at once as memory allows; the rest waits in DuckDB, which spills. What was taken is folded in batches of
keys, on as many threads as DuckDB has: a batch is so small that a processor's cache holds most of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from featurestore.lazy import duckdb, pa
from featurestore.query.windows.batching import key_batches, memory_batches
from featurestore.query.windows.filtered_rows import Ints
from featurestore.query.windows.fold_input import COUNTED, FoldRows
from featurestore.query.windows.key_batch import FoldedAnswer, KeyBatch
from featurestore.query.windows.tile_protocol import TILES, Tiling
from featurestore.semantics.folds import FOLDS
from featurestore.semantics.source_columns import Scan
from featurestore.semantics.view import ResolvedFeature, ResolvedView


def ask_folds(
    connection: duckdb.DuckDBPyConnection,
    view: ResolvedView,
    scan: Scan,
    features: tuple[ResolvedFeature, ...],
    *,
    at: int | None = None,
    tiling: Tiling | None = None,
) -> FoldedAnswer:
    """Fold the features for every request of `asof_requests`, whose keys `asof_keys` numbers.

    at: all requests are for that instant. tiling: tiles, which then stand for most rows of the files that they are of.
    """
    plan, only, tables = FoldRows.of(view, features, at), None, [COUNTED]
    if tiling is not None:
        scan, only = tiling.use(connection, plan)
        tables.append(TILES)
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {COUNTED} AS {plan.statement(scan, only=only)}")
    asked: pa.Table = connection.sql(
        "SELECT request_no, key_no - 1 AS key_no, as_of FROM asof_requests ORDER BY key_no, as_of"
    ).to_arrow_table()
    request_no, key, as_of = (asked[name].to_numpy().astype(np.int64) for name in ("request_no", "key_no", "as_of"))
    if not len(request_no):
        return _no_requests(features)
    (threads,) = connection.execute("SELECT current_setting('threads')").fetchall()[0]
    answers: list[FoldedAnswer] = []
    with ThreadPoolExecutor(threads) as pool:  # numpy and Arrow leave the interpreter to others
        for first, last in memory_batches(connection, tables, keys=int(key[-1]) + 1, width=plan.width):
            rows = _Sorted.of(connection, plan.rows(first, last))
            tiles = None
            if tiling is not None:
                where = f"key_no >= {first} AND key_no < {last}"
                tiles = _Sorted.of(connection, f"FROM {TILES} WHERE {where} ORDER BY key_no, tile_start, event_us")

            def answer(keys: tuple[int, int], rows: _Sorted = rows, tiles: _Sorted | None = tiles) -> FoldedAnswer:
                first, count = keys[0], keys[1] - keys[0]
                part = slice(*np.searchsorted(key, keys).tolist())
                beside = None
                if tiles is not None and tiling is not None:
                    beside = tiling.rows(plan, tiles.of_keys(keys), keys=count, first=first)
                batch = KeyBatch(
                    plan, rows.of_keys(keys), keys=count, first=first, key=key[part] - first, as_of=as_of[part],
                    tiles=beside,
                )  # fmt: skip
                return batch.answer(request_no[part])

            work = [key, rows.key, *([tiles.key] if tiles is not None else [])]
            answers += pool.map(answer, key_batches(first, last, work))
    connection.execute(f"DROP TABLE {COUNTED}")
    return _joined(answers, features)


class _Sorted(NamedTuple):
    """Rows in the order of their keys."""

    rows: pa.Table
    key: Ints

    @classmethod
    def of(cls, connection: duckdb.DuckDBPyConnection, sql: str) -> _Sorted:
        """What a query in that order gives."""
        rows = connection.sql(sql).to_arrow_table().combine_chunks()
        return cls(rows, rows["key_no"].to_numpy())

    def of_keys(self, keys: tuple[int, int]) -> pa.Table:
        """The rows of a range of keys."""
        begin, end = np.searchsorted(self.key, keys).tolist()
        return self.rows.slice(begin, end - begin)


def _no_requests(features: Sequence[ResolvedFeature]) -> FoldedAnswer:
    nothing = np.empty(0, np.int64)
    values = {feature.name: pa.array([], feature.type.arrow) for feature in features}
    statuses = {feature.name: np.empty(0, np.uint8) for feature in features}
    conflicted = {feature.name: np.empty(0, np.bool_) for feature in features if FOLDS[feature.fold.kind].ordered}
    return FoldedAnswer(nothing, np.empty(0, np.bool_), nothing, values, statuses, conflicted)


def _joined(answers: Sequence[FoldedAnswer], features: Sequence[ResolvedFeature]) -> FoldedAnswer:
    if len(answers) == 1:
        return answers[0]
    request_no = np.concatenate([answer.request_no for answer in answers])
    known = np.concatenate([answer.known for answer in answers])
    times = np.concatenate([answer.newest for answer in answers])
    names = [feature.name for feature in features]
    values = {name: pa.concat_arrays([answer.values[name] for answer in answers]) for name in names}
    statuses = {name: np.concatenate([answer.statuses[name] for answer in answers]) for name in names}
    picking = answers[0].conflicted
    conflicted = {name: np.concatenate([answer.conflicted[name] for answer in answers]) for name in picking}
    return FoldedAnswer(request_no, known, times, values, statuses, conflicted)
