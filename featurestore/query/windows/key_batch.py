"""Some keys, all their rows and the requests for them, folded with numpy: what one thread works on at once."""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.query.windows.columnar_folds import FoldColumn, finish, fold
from featurestore.query.windows.filtered_rows import Bits, FilteredRows, FoldInput, Ints, newest
from featurestore.query.windows.fold_input import ColumnName, FoldRows, column_name, rows_name, span_of
from featurestore.query.windows.partial_sums import NEEDS, merged, partial_sums
from featurestore.query.windows.ranges import MonotoneRun, Range, Timeline, monotone_runs, range_of
from featurestore.query.windows.ties import Lifetimes, Ties
from featurestore.query.windows.tiled import TiledRows
from featurestore.semantics.folds import FOLDS
from featurestore.semantics.status import Status
from featurestore.semantics.time import BEGINNING
from featurestore.semantics.values import canonical
from featurestore.semantics.view import ResolvedFeature, algebra_of
from featurestore.semantics.windows import Span

__all__ = ["FoldedAnswer", "KeyBatch"]


class FoldedAnswer(NamedTuple):
    """What the folds of a view say for m requests: request_no, whether its key is known, the event_time of its
    newest row (µs), for each feature values and a Status a request, and for each that picks rows whether the bytes of tied
    ones decided."""

    request_no: Ints
    known: npt.NDArray[np.bool_]
    newest: Ints
    values: dict[str, pa.Array]
    statuses: dict[str, npt.NDArray[np.uint8]]
    conflicted: dict[str, Bits]


class KeyBatch:
    """Some keys numbered from `first`, all their rows, and the requests for them. tiles: of what further rows add up to."""

    def __init__(
        self, plan: FoldRows, rows: pa.Table, *, keys: int, first: int, key: Ints, as_of: Ints,
        tiles: TiledRows | None = None,
    ) -> None:  # fmt: skip
        self._plan, self._rows, self._key, self._as_of = plan, rows, key, as_of
        times = {name: rows[name].to_numpy() for name in ("event_us", "counts_from")}
        ends = rows["counts_until"].to_numpy() if plan.view.source.identity else None
        line = Timeline(
            rows["key_no"].to_numpy().astype(np.int64) - first, times["event_us"], times["counts_from"], ends
        )
        self._chains: list[MonotoneRun] = list(monotone_runs(line, keys))
        self._ranges: dict[Span, list[Range]] = {}
        self._columns: dict[ColumnName, FoldInput] = {}
        self._tiles = tiles
        self._tiled_ranges: dict[Span, list[Range]] = {}
        self._lifetimes = Lifetimes(times["counts_from"], ends)
        self._ties = Ties(line.key, line.event_us, *_hashes(rows)) if plan.ordered else None

    def answer(self, request_no: Ints) -> FoldedAnswer:
        """The folds of all features for the requests, numbered `request_no`."""
        known, times = self._newest()
        values, statuses, conflicted = {}, {}, {}
        for feature in self._plan.features:
            folded, status = self._fold(feature, known)
            values[feature.name], statuses[feature.name] = folded.values, status
            if FOLDS[feature.fold.kind].ordered:
                conflicted[feature.name] = self._conflicted(feature, folded) & (status == Status.PRESENT)
        return FoldedAnswer(request_no, known, times, values, statuses, conflicted)

    def _conflicted(self, feature: ResolvedFeature, folded: FoldColumn) -> Bits:
        """The requests for which the bytes of tied rows decided what was picked."""
        if self._ties is None or folded.picked is None:
            return np.zeros(len(self._as_of), np.bool_)
        counted = np.zeros(self._rows.num_rows, np.bool_)
        for strand in self._column(column_name(feature)).strands:
            counted[strand.places] = True
        return self._ties.decided(folded.picked, counted, self._lifetimes, self._as_of)

    def _newest(self) -> tuple[Bits, Ints]:
        """Whether each request's key is known, and its newest event_time."""
        found = [(self._chains, self._rows["event_us"].to_numpy(), self._spanned(Span(None)))]
        if self._tiles is not None:
            found.append((self._tiles.chains, self._tiles.event_us, self._tiled(Span(None))))
        times = np.full(len(self._key), BEGINNING, np.int64)
        known = np.zeros(len(self._key), np.bool_)
        for lines, event_us, ranges in found:
            if lines:
                place = newest([FilteredRows.of(chain, None) for chain in lines], ranges, 1)[:, 0]
                known |= place >= 0
                times = np.where(place >= 0, np.maximum(times, event_us[np.maximum(place, 0)]), times)
        return known, np.where(known, times, 0)

    def _spanned(self, span: Span) -> list[Range]:
        """The parts of the chains that count for each request; requests of one span share them."""
        if span not in self._ranges:
            self._ranges[span] = [range_of(chain, span, self._key, self._as_of) for chain in self._chains]
        return self._ranges[span]

    def _tiled(self, span: Span) -> list[Range]:
        """The same of the tiles."""
        assert self._tiles is not None
        if span not in self._tiled_ranges:
            self._tiled_ranges[span] = self._tiles.ranges(span, self._key, self._as_of)
        return self._tiled_ranges[span]

    def _fold(self, feature: ResolvedFeature, known: npt.NDArray[np.bool_]) -> tuple[FoldColumn, npt.NDArray[np.uint8]]:
        ttl, span = self._plan.view.ttl, span_of(self._plan.view, feature)
        column = self._column(column_name(feature))
        ranges = [strand.range(part) for strand, part in zip(column.strands, self._spanned(span), strict=True)]
        folded = self._folded(feature, column, ranges, span) or _of_nothing(feature, len(known))
        status = np.where(known, np.uint8(Status.PRESENT), np.uint8(Status.MISSING))
        if feature.span is None and ttl is not None:
            rows = self._column(rows_name(feature)).strands
            within = [strand.range(part) for strand, part in zip(rows, self._spanned(span), strict=True)]
            some = sum((part.high > part.low for part in within), np.zeros(len(known), np.bool_))
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

    def _folded(
        self, feature: ResolvedFeature, column: FoldInput, ranges: list[Range], span: Span
    ) -> FoldColumn | None:
        """The feature of the rows in these ranges and of the tiles; None where there are neither."""
        needs = NEEDS.get(feature.fold.kind)
        if needs is None:
            return fold(feature, column, ranges) if ranges else None
        parts = [partial_sums(column, ranges, needs, span)] if ranges else []
        if self._tiles is not None and (tiled := self._tiled(span)):
            parts.append(self._tiles.partial_sums(feature, tiled, span))
        return finish(feature, column, reduce(merged, parts)) if parts else None

    def _column(self, name: ColumnName) -> FoldInput:
        if name not in self._columns:
            self._columns[name] = self._plan.column(self._rows, name, self._chains)
        return self._columns[name]


def _hashes(rows: pa.Table) -> tuple[Ints, Ints]:
    """What `Ties` compares, as integers."""
    before, whole = (rows[name].to_numpy().view(np.int64) for name in ("before", "whole"))
    return before, whole


def _of_nothing(feature: ResolvedFeature, requests: int) -> FoldColumn:
    """The fold of no rows."""
    algebra = algebra_of(feature)
    value, _ = algebra.finish(algebra.zero)
    return FoldColumn(pa.repeat(pa.scalar(value, feature.type.arrow), requests))
