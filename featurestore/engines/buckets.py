"""Buckets: which of so many partitions a row goes to, for engines whose tasks bring equal keys together themselves.

Keys are read as the kernel reads them, and equal ones are in one bucket. A row without a key meets no other, so its number says
where it goes: a task that is run again must give each bucket the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from featurestore.engines.record_tasks import STORED
from featurestore.engines.steps import Route
from featurestore.engines.tasks import AnswerTask, key_column
from featurestore.lazy import duckdb, pa
from featurestore.semantics.rows import named_terms, words_sql
from featurestore.semantics.source_columns import identity_terms
from featurestore.semantics.sql import quote
from featurestore.sources.offline import Offline
from featurestore.training.spine import SpineChunk
from featurestore.training.spine_table import load_chunk


def buckets_of_spine(spine: pa.Table, task: AnswerTask, count: int, offline: Offline) -> list[pa.Table]:
    """Rows of a spine, by the key of a task's step."""
    inputs = task.step.inputs
    with offline.session() as session:
        loaded = load_chunk(
            session.connection, SpineChunk(spine, 0), timestamp=None, timezone=task.options.zone, inputs=inputs, from_pandas=False
        )  # fmt: skip
        keys = [f"CAST({loaded.columns[name]} AS {of.duckdb})" for name, of in inputs.items()]
        return _apart(spine, session.connection, f"SELECT n AS row, {_bucket(keys, 'n', count)} FROM spine", count)


def buckets_of_source(rows: pa.Table, route: Route, count: int, offline: Offline) -> list[pa.Table]:
    """Rows of a source, by key; of one whose rows go by identity first by that."""
    view = route.view
    with offline.session(rows={route.source.name: rows}) as session:
        if route.by_identity:
            values, known = [f"row({identity_terms(view)})"], " AND ".join(named_terms(view))
        else:
            places = {key.column: f"k{number}" for number, key in enumerate(view.keys)}
            values = [f"CAST({places[column]} AS {of.duckdb})" for column, of in route.keys]
            known = "true"
        sql = f"SELECT row, {_bucket(values, 'row', count, known)} FROM ({words_sql(view, session.scan(route.source))})"
        return _apart(rows, session.connection, sql, count)


def buckets_of_spread(
    rows: pa.Table, route: Route, count: int, offline: Offline, *, keep_keys: bool = False
) -> list[pa.Table]:
    """Rows that `IdentityTask` has spread, by the key that it says. keep_keys: whether they keep it."""
    names = [key_column(number) for number in range(len(route.keys))]
    given = rows.select(names).append_column("row", pa.array(np.arange(rows.num_rows)))
    values = [f"CAST({quote(name)} AS {of.duckdb})" for name, (_, of) in zip(names, route.keys, strict=True)]
    with offline.session() as session:
        session.connection.register("spread", given)
        sql = f"SELECT row, {_bucket(values, 'row', count)} FROM spread"
        return _apart(rows if keep_keys else rows.drop_columns(names), session.connection, sql, count)


def buckets_of_keys(keys: pa.Table, count: int, offline: Offline) -> list[pa.Table]:
    """The keys of a snapshot, of which none is null."""
    with offline.session() as session:
        session.connection.register("found", keys.append_column("row", pa.array(np.arange(keys.num_rows))))
        sql = f"SELECT row, {_bucket([quote(name) for name in keys.column_names], 'row', count)} FROM found"
        return _apart(keys, session.connection, sql, count)


def buckets_of_stored(told: pa.Table, count: int, offline: Offline) -> list[pa.Table]:
    """What tasks that write records give back, by the store key."""
    with offline.session() as session:
        given = told.select([STORED]).append_column("row", pa.array(np.arange(told.num_rows)))
        session.connection.register("stored", given)
        return _apart(told, session.connection, f"SELECT row, {_bucket([STORED], 'row', count)} FROM stored", count)


def _bucket(values: Sequence[str], row: str, count: int, known: str = "true") -> str:
    """SQL of a row's bucket. known: whether its values say it."""
    there = " AND ".join([known, *(f"({value}) IS NOT NULL" for value in values)])
    return (
        f"CAST((CASE WHEN {there} THEN hash({', '.join(values)}) ELSE hash({row}) END) % {count} AS INTEGER) AS bucket"
    )


def _apart(rows: pa.Table, connection: duckdb.DuckDBPyConnection, sql: str, count: int) -> list[pa.Table]:
    found: pa.Table = connection.sql(sql).to_arrow_table()
    numbers, buckets = found["row"].to_numpy(), found["bucket"].to_numpy()
    order = np.lexsort((numbers, buckets))
    ends = np.searchsorted(buckets[order], np.arange(count + 1))
    chosen = [order[ends[bucket] : ends[bucket + 1]] for bucket in range(count)]
    return [rows.take(pa.array(numbers[places])) for places in chosen]
