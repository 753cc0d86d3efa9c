"""The as-of query's other half: folds of many rows. Rows come from DuckDB once, sorted; ranges of them are folded.

It asks the same rows as every other path (`compile.rows`), for the keys and requests that `compile.asof` has numbered. So
many keys are taken at once as memory allows; the rest waits in DuckDB, which spills. What was taken is folded a share of the
keys at a time, on as many threads as DuckDB has: a share is so small that a processor's cache holds most of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.compile.asof import same_key
from featurestore.compile.folded import Folded, fold
from featurestore.compile.ranges import Chain, Range, Timeline, chains, range_of
from featurestore.compile.rows import Scan, cell, order_terms, rows_sql, tiebreak_terms, until_sql
from featurestore.compile.strands import Bits, Column, Ints, Strand, newest
from featurestore.compile.ties import Lifetimes, Ties
from featurestore.semantics.columns import read_sql
from featurestore.semantics.folds import FOLDS
from featurestore.semantics.status import Status
from featurestore.semantics.time import BEGINNING, END
from featurestore.semantics.values import canonical
from featurestore.semantics.view import ResolvedFeature, ResolvedView, algebra_of
from featurestore.semantics.windows import Span
from featurestore.types import FeatureType

__all__ = ["FoldedAnswer", "ask_folds", "earliest"]

PASS = 20_000_000
"""Cells (rows × columns) that are folded at once: what bounds the memory beside DuckDB's."""

SHARE = 1 << 17
"""Rows and requests that one thread folds at once."""

COUNTED = "asof_counted"


class FoldedAnswer(NamedTuple):
    """What the folds of a view say for m requests: n (the request's number), whether its key is known, the event_time of its
    newest row (µs), for each feature values and a Status a request, and for each that picks rows whether the bytes of tied
    ones decided."""

    n: Ints
    known: npt.NDArray[np.bool_]
    newest: Ints
    values: dict[str, pa.Array]
    statuses: dict[str, npt.NDArray[np.uint8]]
    conflicted: dict[str, Bits]


@dataclass(frozen=True)
class _Plan:
    """What is read of each row: the columns, each with the type it is read as, and the conditions.

    at: the one instant of all requests, where there is only one. Then no row is read that does not count for it.
    """

    view: ResolvedView
    features: tuple[ResolvedFeature, ...]
    columns: list[tuple[str, FeatureType]]
    conditions: list[str]
    ordered: bool
    until: bool
    at: int | None = None

    @classmethod
    def of(cls, view: ResolvedView, features: tuple[ResolvedFeature, ...], at: int | None = None) -> _Plan:
        columns: dict[tuple[str, FeatureType], None] = {}
        for feature in features:
            if feature.fold.column is not None and feature.reads is not None:
                columns[feature.fold.column, feature.reads] = None
        conditions = dict.fromkeys(feature.where for feature in features if feature.where is not None)
        ordered = any(FOLDS[feature.fold.kind].ordered for feature in features)
        until = view.source.until is not None and any(feature.fold.kind == "Latest" for feature in features)
        return cls(view, features, list(columns), list(conditions), ordered, until, at)

    @property
    def width(self) -> int:
        """Cells a row, roughly."""
        return 3 + 2 * self.ordered + len(self.columns) + len(self.conditions)

    def statement(self, scan: Scan) -> str:
        """The rows of the numbered keys: `(k, e, v, g, x…, w…, until)` and what rule 2 orders by, where a fold asks."""
        view, zone = self.view, self.view.source.timezone or "UTC"
        carried = [
            f"{read_sql(cell(column), view.raw[column], of, zone)} AS x{i}"
            for i, (column, of) in enumerate(self.columns)
        ]
        carried += [f"w{i}" for i in range(len(self.conditions))]
        carried += [f"{until_sql(view)} AS until"] if self.until else []
        carried += ["o", *(cell(column) for column in sorted(view.columns))] if self.ordered else []
        rows = rows_sql(view, scan, carried=carried or ["0 AS nothing"], conditions=self.conditions)
        if self.at is not None:
            rows = self._counting(rows, self.at)
        return (
            f"SELECT x.k - 1 AS k, r.* EXCLUDE ({self._keys}) FROM ({rows}) r JOIN asof_keys x ON {same_key(view, 'r')}"
        )

    def _counting(self, rows: str, at: int) -> str:
        """The rows that count at an instant, as if they always had and would: then one chain holds them all."""
        times, counts = f"CAST({BEGINNING} AS BIGINT) AS v", f"v <= {at}"
        if self.view.source.identity:
            times, counts = f"{times}, CAST({END} AS BIGINT) AS g", f"{counts} AND g > {at}"
        return f"SELECT * REPLACE ({times}) FROM ({rows}) WHERE {counts}"

    def _within(self, keys: str) -> str:
        """Of the rows of some keys those that may count: at one instant, only those of the longest window, and of each key
        that has none there the newest, which says that it is known."""
        rows = f"FROM {COUNTED} WHERE {keys}"
        start = None if self.at is None else earliest(self.view, self.features, self.at)
        if start is None:
            return f"({rows})"
        older = f"SELECT k, max(e) AS e {rows} GROUP BY k HAVING max(e) <= {start}"
        return f"({rows} AND e > {start} UNION ALL SELECT * FROM (FROM {COUNTED} WHERE {keys}) SEMI JOIN ({older}) USING (k, e))"

    @property
    def _keys(self) -> str:
        return ", ".join(f"k{i}" for i in range(max(1, len(self.view.keys))))

    def rows(self, first: int, last: int) -> str:
        """The rows of the keys [first, last), in their order: by event_time, or by all of rule 2."""
        terms = ["k", "e"]
        if self.ordered:
            columns = order_terms(self.view, first=())
            own = len(columns)
            terms += [*order_terms(self.view, first=("o",))[:1], *tiebreak_terms(self.view), *columns]
        names = ["k", "e", "v", *(["g"] if self.view.source.identity else []), *(["until"] if self.until else [])]
        names += [f"x{i}" for i in range(len(self.columns))] + [f"w{i}" for i in range(len(self.conditions))]
        names += [f"{_hashed(terms[2:-own])} AS before", f"{_hashed(terms[-own:])} AS whole"] if self.ordered else []
        return (
            f"SELECT {', '.join(names)} FROM {self._within(f'k >= {first} AND k < {last}')} ORDER BY {', '.join(terms)}"
        )


def _hashed(terms: Sequence[str]) -> str:
    """A hash of what terms order by; equal where they are. DuckDB gives the null and the empty list one hash."""
    values = [term.removesuffix(" ASC NULLS FIRST") for term in terms]
    return f"hash({', '.join([*values, *(f'{value} IS NULL' for value in values)])})"


def ask_folds(
    connection: duckdb.DuckDBPyConnection,
    view: ResolvedView,
    scan: Scan,
    features: tuple[ResolvedFeature, ...],
    *,
    at: int | None = None,
) -> FoldedAnswer:
    """Fold the features for every request of `asof_requests`, whose keys `asof_keys` numbers; `at`: all are for that
    instant."""
    plan = _Plan.of(view, features, at)
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {COUNTED} AS {plan.statement(scan)}")
    asked: pa.Table = connection.sql("SELECT n, k - 1 AS k, a FROM asof_requests ORDER BY k, a").to_arrow_table()
    n, key, as_of = (asked[name].to_numpy().astype(np.int64) for name in ("n", "k", "a"))
    if not len(n):
        return _no_requests(features)
    (threads,) = connection.execute("SELECT current_setting('threads')").fetchall()[0]
    answers: list[FoldedAnswer] = []
    with ThreadPoolExecutor(threads) as pool:  # numpy and Arrow leave the interpreter to others
        for first, last in _passes(connection, int(key[-1]) + 1, plan.width):
            rows: pa.Table = connection.sql(plan.rows(first, last)).to_arrow_table().combine_chunks()
            row_key = rows["k"].to_numpy()

            def answer(keys: tuple[int, int], rows: pa.Table = rows, row_key: Ints = row_key) -> FoldedAnswer:
                (low, high), (begin, end) = np.searchsorted(key, keys), np.searchsorted(row_key, keys)
                part = slice(int(low), int(high))
                share = rows.slice(int(begin), int(end - begin))
                return _Share(plan, share, keys[1] - keys[0], key[part] - keys[0], as_of[part], keys[0]).answer(n[part])

            answers += pool.map(answer, _shares(first, last, key, row_key))
    connection.execute(f"DROP TABLE {COUNTED}")
    return _joined(answers, features)


def _shares(first: int, last: int, key: Ints, row_key: Ints) -> Iterator[tuple[int, int]]:
    """The keys [first, last) as ranges with about as many rows and requests each; a key is never split."""
    requested = key[slice(*np.searchsorted(key, [first, last]))]
    counts = np.bincount(requested - first, minlength=last - first) + np.bincount(
        row_key - first, minlength=last - first
    )
    yield from _cut(first, counts, SHARE)


def _cut(first: int, counts: Ints, limit: int) -> Iterator[tuple[int, int]]:
    """Ranges of keys, numbered from `first`, whose counts add up to about `limit`."""
    number = np.cumsum(counts) // limit
    edges = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), len(counts)]
    yield from ((first + low, first + high) for low, high in itertools.pairwise(edges) if low < high)


def _passes(connection: duckdb.DuckDBPyConnection, keys: int, width: int) -> Iterator[tuple[int, int]]:
    """Ranges of keys whose rows are few enough; a key's rows are never split."""
    (total,) = connection.execute(f"SELECT count(*) FROM {COUNTED}").fetchall()[0]
    limit = max(1, PASS // width)
    if total <= limit:
        yield 0, keys
        return
    counted: pa.Table = connection.sql(f"SELECT k, count(*) AS c FROM {COUNTED} GROUP BY k").to_arrow_table()
    counts = np.zeros(keys, np.int64)
    counts[counted["k"].to_numpy()] = counted["c"].to_numpy()
    yield from _cut(0, counts, limit)


def _no_requests(features: Sequence[ResolvedFeature]) -> FoldedAnswer:
    nothing = np.empty(0, np.int64)
    values = {feature.name: pa.array([], feature.type.arrow) for feature in features}
    statuses = {feature.name: np.empty(0, np.uint8) for feature in features}
    conflicted = {feature.name: np.empty(0, np.bool_) for feature in features if FOLDS[feature.fold.kind].ordered}
    return FoldedAnswer(nothing, np.empty(0, np.bool_), nothing, values, statuses, conflicted)


def _joined(answers: Sequence[FoldedAnswer], features: Sequence[ResolvedFeature]) -> FoldedAnswer:
    if len(answers) == 1:
        return answers[0]
    n = np.concatenate([answer.n for answer in answers])
    known = np.concatenate([answer.known for answer in answers])
    times = np.concatenate([answer.newest for answer in answers])
    names = [feature.name for feature in features]
    values = {name: pa.concat_arrays([answer.values[name] for answer in answers]) for name in names}
    statuses = {name: np.concatenate([answer.statuses[name] for answer in answers]) for name in names}
    picking = answers[0].conflicted
    conflicted = {name: np.concatenate([answer.conflicted[name] for answer in answers]) for name in picking}
    return FoldedAnswer(n, known, times, values, statuses, conflicted)


def _span(view: ResolvedView, feature: ResolvedFeature) -> Span:
    """How far back a feature sees: its window, else the view's ttl, which is inclusive, as a window is not."""
    return feature.span or Span(None if view.ttl is None else view.ttl + 1)


def earliest(view: ResolvedView, features: Sequence[ResolvedFeature], at: int) -> int | None:
    """The instant after which rows may count for a feature at `at`; None where one counts them however old they are."""
    spans = [_span(view, feature) for feature in features]
    return None if any(span.length is None for span in spans) else min(span.start(at) for span in spans)


class _Share:
    """Some keys, all their rows, and the requests for them."""

    def __init__(self, plan: _Plan, rows: pa.Table, keys: int, key: Ints, as_of: Ints, first: int) -> None:
        self._plan, self._rows, self._key, self._as_of = plan, rows, key, as_of
        times = {name: rows[name].to_numpy() for name in ("e", "v")}
        ends = rows["g"].to_numpy() if plan.view.source.identity else None
        line = Timeline(rows["k"].to_numpy().astype(np.int64) - first, times["e"], times["v"], ends)
        self._chains: list[Chain] = list(chains(line, keys))
        self._ranges: dict[Span, list[Range]] = {}
        self._columns: dict[tuple[str | None, FeatureType | None, str | None, bool], Column] = {}
        self._lifetimes = Lifetimes(times["v"], ends)
        self._ties = Ties(line.key, line.e, *_hashes(rows)) if plan.ordered else None

    def answer(self, n: Ints) -> FoldedAnswer:
        """The folds of all features for the requests, numbered `n`."""
        places = self._newest()
        known = places >= 0
        e = self._rows["e"].to_numpy()
        times = e[np.maximum(places, 0)] if len(e) else np.zeros(len(n), np.int64)
        values, statuses, conflicted = {}, {}, {}
        for feature in self._plan.features:
            folded, status = self._fold(feature, known)
            values[feature.name], statuses[feature.name] = folded.values, status
            if FOLDS[feature.fold.kind].ordered:
                conflicted[feature.name] = self._conflicted(feature, folded) & (status == Status.PRESENT)
        return FoldedAnswer(n, known, times, values, statuses, conflicted)

    def _conflicted(self, feature: ResolvedFeature, folded: Folded) -> Bits:
        """The requests for which the bytes of tied rows decided what was picked."""
        if self._ties is None or folded.picked is None:
            return np.zeros(len(self._as_of), np.bool_)
        counted = np.zeros(self._rows.num_rows, np.bool_)
        for strand in self._column(feature).strands:
            counted[strand.places] = True
        return self._ties.decided(folded.picked, counted, self._lifetimes, self._as_of)

    def _newest(self) -> Ints:
        if not self._chains:
            return np.full(len(self._key), -1, np.int64)
        whole = [Strand.of(chain, None) for chain in self._chains]
        return newest(whole, self._spanned(Span(None)), 1)[:, 0]

    def _spanned(self, span: Span) -> list[Range]:
        """The parts of the chains that count for each request; requests of one span share them."""
        if span not in self._ranges:
            self._ranges[span] = [range_of(chain, span, self._key, self._as_of) for chain in self._chains]
        return self._ranges[span]

    def _fold(self, feature: ResolvedFeature, known: npt.NDArray[np.bool_]) -> tuple[Folded, npt.NDArray[np.uint8]]:
        ttl, span = self._plan.view.ttl, _span(self._plan.view, feature)
        column = self._column(feature)
        ranges = [strand.range(part) for strand, part in zip(column.strands, self._spanned(span), strict=True)]
        folded = fold(feature, column, ranges) if ranges else _of_nothing(feature, len(known))
        status = np.where(known, np.uint8(Status.PRESENT), np.uint8(Status.MISSING))
        if feature.span is None and ttl is not None:
            some = sum((part.high > part.low for part in ranges), np.zeros(len(known), np.bool_))
            status[known & ~some] = Status.EXPIRED
        if self._plan.until and feature.fold.kind == "Latest" and ranges:
            place = newest(column.strands, ranges, 1)[:, 0]
            ended = self._rows["until"].to_numpy()[np.maximum(place, 0)] <= self._as_of
            status[(place >= 0) & ended & known] = Status.EXPIRED
        if folded.overflow is not None:
            status[folded.overflow & known] = Status.OVERFLOW
        present = status == Status.PRESENT
        values = canonical(folded.values, feature.type)
        if not present.all():
            values = pc.if_else(pa.array(present), values, pa.scalar(None, values.type))
        return folded._replace(values=values), status

    def _column(self, feature: ResolvedFeature) -> Column:
        plan, fold = self._plan, feature.fold
        skips = not algebra_of(feature).takes_null
        named = (fold.column, feature.reads, feature.where, skips)
        if named not in self._columns:
            counted = None
            values = pa.nulls(self._rows.num_rows, pa.int64())
            if fold.column is not None:
                assert feature.reads is not None
                place = plan.columns.index((fold.column, feature.reads))
                values = canonical(self._rows[f"x{place}"], feature.reads)
            if feature.where is not None:
                counted = self._rows[f"w{plan.conditions.index(feature.where)}"].to_numpy(zero_copy_only=False)
            if skips and values.null_count:
                valid = values.is_valid().to_numpy(zero_copy_only=False)
                counted = valid if counted is None else counted & valid
            strands = [Strand.of(chain, counted) for chain in self._chains]
            self._columns[named] = Column(values, feature.reads or feature.type, strands)
        return self._columns[named]


def _hashes(rows: pa.Table) -> tuple[Ints, Ints]:
    """What `Ties` compares, as integers."""
    before, whole = (rows[name].to_numpy().view(np.int64) for name in ("before", "whole"))
    return before, whole


def _of_nothing(feature: ResolvedFeature, requests: int) -> Folded:
    """The fold of no rows."""
    algebra = algebra_of(feature)
    value, _ = algebra.finish(algebra.zero)
    return Folded(pa.repeat(pa.scalar(value, feature.type.arrow), requests))
