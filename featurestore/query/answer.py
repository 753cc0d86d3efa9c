"""The as-of query's answer: for each request the chosen row's columns, as Arrow, and its status by rule 4."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from featurestore.errors import SourceError
from featurestore.lazy import duckdb, pa
from featurestore.query.asof import keys_statements
from featurestore.query.row_choice import CHOSEN, RowChoice, choose, same_row_sql
from featurestore.query.windows.fold_query import ask_folds
from featurestore.query.windows.key_batch import FoldedAnswer
from featurestore.query.windows.tile_protocol import Tiling
from featurestore.semantics.judge import row_statuses, statuses_of, takes_default
from featurestore.semantics.rows import before_ttl, words_sql
from featurestore.semantics.source_columns import Scan, read_cell, until_sql
from featurestore.semantics.status import Status
from featurestore.semantics.time import END
from featurestore.semantics.values import canonical_chunks, fill, take
from featurestore.semantics.view import EVENT_TIME, UNTIL, ResolvedFeature, ResolvedView, status_column

POOLED_MIN_REQUESTS = 50_000
"""Requests from which on columns are taken by a pool of threads; for fewer it costs more than it saves. Measured with 20 columns on
two cores: 0.7 ms by one thread and 1.8 by the pool for 10,000 requests, 1.7 and 1.9 for 30,000, 11.2 and 9.0 for 100,000."""

Instants = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Answer:
    """What a view answers for n requests."""

    view: ResolvedView
    rows: pa.Table
    """For requests whose key is known: EVENT_TIME and UNTIL (µs) of the newest row, a column a feature, and of folded ones the
    Status under `status_column`. Without folded features, requests may share a row."""

    index: Instants
    """Of each request its row in `rows`, -1 where its key is not known."""

    as_of: Instants
    """The instant of each request, µs."""

    conflicted: npt.NDArray[np.bool_]
    """The requests whose newest row only the canonical bytes decided."""

    folds_conflicted: dict[str, npt.NDArray[np.bool_]]
    """Of each fold that picks rows the same, where it is PRESENT."""

    @property
    def conflicts(self) -> npt.NDArray[np.bool_]:
        """The requests in which the canonical bytes decided any value that is PRESENT."""
        found: npt.NDArray[np.bool_] = self.conflicted & (self.statuses == Status.PRESENT)
        for decided in self.folds_conflicted.values():
            found = found | decided
        return found

    @cached_property
    def statuses(self) -> npt.NDArray[np.uint8]:
        """The Status of each request for the plain features; one for all of them, since they are read from one row."""
        known = self.index >= 0
        if not self.rows.num_rows:
            return statuses_of(known)
        event_time, until = (self.rows[name].to_numpy()[np.maximum(self.index, 0)] for name in (EVENT_TIME, UNTIL))
        return row_statuses(known, event_time, until, self.as_of, self.view.ttl)

    def statuses_of(self, features: Sequence[ResolvedFeature]) -> dict[str, npt.NDArray[np.uint8]]:
        """The Status of each request for each feature, by name."""
        plain = self.statuses if any(feature.plain for feature in features) else None
        return {feature.name: self._folded_status(feature) if plain is None or not feature.plain else plain
                for feature in features}  # fmt: skip

    def _folded_status(self, feature: ResolvedFeature) -> npt.NDArray[np.uint8]:
        statuses = statuses_of(known := self.index >= 0)
        if self.rows.num_rows:
            statuses[known] = self.rows[status_column(feature.name)].to_numpy()[self.index[known]]
        return statuses

    def columns(
        self, features: Sequence[ResolvedFeature], statuses: Mapping[str, npt.NDArray[np.uint8]]
    ) -> list[pa.Array]:
        """Each feature's value for each request, in the feature's Arrow type, its default filled in."""
        places = {id(status): np.where(status == Status.PRESENT, self.index, -1) for status in statuses.values()}

        def column(feature: ResolvedFeature) -> pa.Array:
            status = statuses[feature.name]
            taken = take(self.rows[feature.name], places[id(status)])
            if feature.default is None:
                return taken
            return fill(taken, takes_default(status), feature.type, feature.default)

        if len(self.index) < POOLED_MIN_REQUESTS:
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
            event_time = self.rows[EVENT_TIME].to_numpy()[np.maximum(index, 0)]
            index = np.where(before_ttl(event_time, self.as_of, self.view.ttl), -1, index)
        return take(self.rows[EVENT_TIME], index).cast(pa.int64()).cast(of)


def ask(
    connection: duckdb.DuckDBPyConnection,
    view: ResolvedView,
    scan: Scan,
    *,
    requests: str,
    as_of: Instants,
    features: tuple[ResolvedFeature, ...] | None = None,
    tiling: Tiling | None = None,
) -> Answer:
    """Run the as-of query over a table of requests `(request_no, k…, as_of)`, whose numbers count from 0 and whose keys are not null. It
    may have a `newest_column` beside.

    as_of: the instant of every request by its number, those that the table leaves out because of a null key included. features:
    those to fetch, all by default. tiling: tiles for the folds where all instants are one, which change nothing but the
    time that it takes.
    """
    wanted = view.features if features is None else features
    plain = tuple(feature for feature in wanted if feature.plain)
    folded = tuple(feature for feature in wanted if not feature.plain)
    by_rows = bool(plain or not folded)
    at = int(as_of[0]) if len(as_of) and (as_of == as_of[0]).all() else None
    if by_rows:
        choice = choose(connection, view, scan, requests, at=at)
    else:
        for table, sql in keys_statements(view, requests):
            connection.execute(f"CREATE OR REPLACE TEMP TABLE {table} AS {sql}")
    folds = ask_folds(connection, view, scan, folded, at=at, tiling=tiling) if folded else None
    conflicted = np.zeros(len(as_of), np.bool_)
    if by_rows:
        conflicted[choice.conflicted] = True
        numbers, places, rows = choice.request_no, *_gather(connection, view, scan, choice, plain)
        if folds is not None:  # whose values are each request's own
            rows = pa.table({name: take(rows[name], places) for name in rows.column_names})
            places = np.arange(len(numbers))
        columns = _plain_columns(view, plain, rows)
    else:
        assert folds is not None
        numbers = folds.request_no[folds.known]
        places = np.arange(len(numbers))
        columns = {EVENT_TIME: pa.array(folds.newest[folds.known]), UNTIL: pa.array(np.full(len(numbers), END))}
    if folds is not None:
        columns |= _folded_columns(folds, numbers, len(as_of))
    index = np.full(len(as_of), -1, np.int64)
    index[numbers] = places
    return Answer(view, pa.table(columns), index, as_of, conflicted, _conflicts(folds, len(as_of)))


def _conflicts(folds: FoldedAnswer | None, requests: int) -> dict[str, npt.NDArray[np.bool_]]:
    """Of each fold that picks rows, the requests that the canonical bytes decided, by number."""
    found = {}
    if folds is not None:
        for name, decided in folds.conflicted.items():
            found[name] = np.zeros(requests, np.bool_)
            found[name][folds.request_no] = decided
    return found


def _plain_columns(view: ResolvedView, plain: tuple[ResolvedFeature, ...], rows: pa.Table) -> dict[str, Any]:
    columns: dict[str, Any] = {EVENT_TIME: rows["event_us"], UNTIL: rows["until"]}
    for i, feature in enumerate(plain):
        try:
            columns[feature.name] = canonical_chunks(rows[f"f{i}"], feature.type)
        except ValueError as error:
            raise SourceError(
                f"{view.declared.title}: feature '{feature.name}', column '{feature.fold.column}' of source "
                f"'{view.source.name}': {error} ({view.declared.origin})"
            ) from None
    return columns


def _folded_columns(folds: FoldedAnswer, numbers: Instants, requests: int) -> dict[str, Any]:
    """The folds' values and statuses in the order of `numbers`, the requests whose keys are known."""
    place = np.full(requests, -1, np.int64)
    place[folds.request_no] = np.arange(len(folds.request_no))
    places = place[numbers]
    columns: dict[str, Any] = {name: values.take(pa.array(places)) for name, values in folds.values.items()}
    columns |= {status_column(name): pa.array(status[places]) for name, status in folds.statuses.items()}
    return columns


def _gather(
    connection: duckdb.DuckDBPyConnection,
    view: ResolvedView,
    scan: Scan,
    choice: RowChoice,
    features: tuple[ResolvedFeature, ...],
) -> tuple[Instants, pa.Table]:
    """The chosen rows, once each, with their times and feature columns, and for each request of the choice its row's place."""
    selected = ", ".join(
        f"{read_cell(view, column, feature.type, table='s.')} AS f{i}"
        for i, feature in enumerate(features)
        if (column := feature.fold.column) is not None
    )
    rows: pa.Table = connection.sql(
        f"SELECT w.choice_no, w.event_us, {until_sql(view)} AS until, {selected or 'NULL'} FROM ({words_sql(view, scan)}) s "
        f"JOIN {CHOSEN} w ON {same_row_sql(connection, 's', 'w')}"
    ).to_arrow_table()
    place = np.empty(rows.num_rows, np.int64)
    place[rows["choice_no"].to_numpy()] = np.arange(rows.num_rows)
    return place[choice.place], rows
