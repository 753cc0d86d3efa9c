"""The as-of query's answer: for each request the chosen row's columns, as Arrow, and its status by rule 4."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.compile.asof import statements
from featurestore.compile.rows import Scan, cell, until_sql, words_sql
from featurestore.errors import SourceError
from featurestore.semantics.columns import read_sql
from featurestore.semantics.status import Status, expired
from featurestore.semantics.values import canonical, fill
from featurestore.semantics.view import ResolvedFeature, ResolvedView

__all__ = ["EVENT_TIME", "UNTIL", "Answer", "ask"]

FEW = 10_000
"""Requests for which a pool of threads costs more than it saves."""

Instants = npt.NDArray[np.int64]

EVENT_TIME, UNTIL = "event time", "until when"
"""Columns of an answer's rows beside the features; no feature can bear such a name."""


@dataclass(frozen=True)
class Answer:
    """What a view answers for n requests.

    rows: the chosen rows, one a request that has one, with EVENT_TIME and UNTIL (µs) and a column a feature. index: for each
    request its row in `rows`, -1 where its key has none. as_of: the instant of each request, µs. conflicted: the
    requests that only the canonical bytes decided.
    """

    view: ResolvedView
    rows: pa.Table
    index: Instants
    as_of: Instants
    conflicted: npt.NDArray[np.bool_]

    @property
    def statuses(self) -> npt.NDArray[np.uint8]:
        """The Status of each request; one for all features of the view, since all of them are read from one row."""
        found = self.index >= 0
        if not self.rows.num_rows:
            return np.full(len(self.index), Status.MISSING, np.uint8)
        place = np.maximum(self.index, 0)
        event_time = self.rows[EVENT_TIME].to_numpy()[place]
        until = self.rows[UNTIL].to_numpy()[place]
        judged = np.where(expired(event_time, until, self.as_of, self.view.ttl), Status.EXPIRED, Status.PRESENT)
        return np.where(found, judged, Status.MISSING).astype(np.uint8)

    def columns(self, features: Sequence[ResolvedFeature], statuses: npt.NDArray[np.uint8]) -> list[pa.Array]:
        """Each feature's value for each request, in the feature's Arrow type, its default filled in."""
        present = statuses == Status.PRESENT
        places = _places(np.where(present, self.index, -1))

        def column(feature: ResolvedFeature) -> pa.Array:
            taken = _take(self.rows[feature.name], places)
            return taken if feature.default is None else fill(taken, ~present, feature.type, feature.default)

        if len(self.index) < FEW:
            return [column(feature) for feature in features]
        with ThreadPoolExecutor() as pool:  # Arrow's take leaves the interpreter to others
            return list(pool.map(column, features))

    def event_times(self) -> pa.Array:
        """The event_time of each request's row (timestamp[us, UTC]), one whose validity has ended included; null where
        there is none, none within the ttl, or it has no time.
        """
        of = pa.timestamp("us", "UTC")
        if not self.rows.num_rows or (self.view.source.event_time is None and self.view.source.valid_from is None):
            return pa.nulls(len(self.index), of)
        index = self.index
        if self.view.ttl is not None:
            within = self.rows[EVENT_TIME].to_numpy()[np.maximum(index, 0)] >= self.as_of - self.view.ttl
            index = np.where(within, index, -1)
        return _take(self.rows[EVENT_TIME], _places(index)).cast(pa.int64()).cast(of)


def _places(index: Instants) -> pa.Array:
    return pa.array(index, mask=index < 0)


def _take(column: pa.ChunkedArray, places: pa.Array) -> pa.Array:
    taken = pc.take(column, places)
    return taken.combine_chunks() if isinstance(taken, pa.ChunkedArray) else taken


def ask(
    connection: duckdb.DuckDBPyConnection,
    view: ResolvedView,
    scan: Scan,
    *,
    requests: str,
    as_of: Instants,
    at: int | None = None,
    features: tuple[ResolvedFeature, ...] | None = None,
) -> Answer:
    """Run the as-of query over a table of requests `(n, k…, a)`, whose n count from 0 and whose keys are not null.

    as_of: the instant of every request by n, those that the table leaves out because of a null key included. at: the
    one instant of all of them, where there is only one. features: those to fetch, all by default.
    """
    for table, sql in statements(view, scan, requests, at=at):
        connection.execute(f"CREATE OR REPLACE TEMP TABLE {table} AS {sql}")
    wanted = view.features if features is None else features
    rows = _gather(connection, view, scan, wanted)
    index = np.full(len(as_of), -1, np.int64)
    conflicted = np.zeros(len(as_of), np.bool_)
    if rows.num_rows:
        index[rows["n"].to_numpy()] = np.arange(rows.num_rows)
        conflicted[rows["n"].to_numpy()] = rows["conflict"].to_numpy()
    columns = {EVENT_TIME: rows["e"], UNTIL: rows["until"]}
    for i, feature in enumerate(wanted):
        try:
            columns[feature.name] = canonical(rows[f"f{i}"], feature.type)
        except ValueError as error:
            raise SourceError(
                f"{view.declared.title}: feature '{feature.name}', column '{feature.fold.column}' of source "
                f"'{view.source.name}': {error} ({view.declared.origin})"
            ) from None
    return Answer(view, pa.table(columns), index, as_of, conflicted)


def _gather(
    connection: duckdb.DuckDBPyConnection, view: ResolvedView, scan: Scan, features: tuple[ResolvedFeature, ...]
) -> pa.Table:
    """The winning row of each request that has one: n, its times and its feature columns."""
    zone = view.source.timezone or "UTC"
    selected = ", ".join(
        f"{read_sql('s.' + cell(feature.fold.column), view.raw[feature.fold.column], feature.type, zone)} AS f{i}"
        for i, feature in enumerate(features)
    )
    return connection.sql(
        f"SELECT w.n, w.conflict, s.e, {until_sql(view)} AS until, {selected or 'NULL'} FROM ({words_sql(view, scan)}) s "
        "JOIN asof_winners w ON s.file = w.file AND s.row = w.row"
    ).to_arrow_table()
