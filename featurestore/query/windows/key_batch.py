"""Some keys, all their rows and the requests for them, folded with numpy: what one thread works on at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from featurestore.lazy import pa, pc
from featurestore.query.windows.filtered_rows import Bits, FilteredRows, Ints, picked_places
from featurestore.query.windows.fold_input import CountedColumn, FoldRows, column_name, rows_name
from featurestore.query.windows.ranges import MonotoneRun, Range, monotone_runs, range_of
from featurestore.query.windows.ties import Ties
from featurestore.query.windows.tile_protocol import TiledRows
from featurestore.query.windows.window_folds import FilteredColumn, WindowedRows
from featurestore.semantics.folds import FOLDS, FoldColumn, PartialSums
from featurestore.semantics.judge import ended, statuses_of
from featurestore.semantics.rows import RowTimes, visible_span
from featurestore.semantics.status import Status
from featurestore.semantics.time import BEGINNING
from featurestore.semantics.values import canonical
from featurestore.semantics.view import ResolvedFeature, algebra_of
from featurestore.semantics.windows import Span


class FoldedAnswer(NamedTuple):
    """What the folds of a view say for m requests."""

    request_no: Ints
    """The number of each request."""

    known: Bits
    """Whether its key is known."""

    newest: Ints
    """The event_time of its key's newest row, µs; 0 where it is not known."""

    values: dict[str, pa.Array]
    """Of each feature by name, a value a request."""

    statuses: dict[str, npt.NDArray[np.uint8]]
    """Of each feature by name, a Status a request."""

    conflicted: dict[str, Bits]
    """Of each feature that picks rows, by name, whether the bytes of tied rows decided."""


class _Requested:
    """Rows, or tiles of other rows, in runs, and the parts of them that count for each request."""

    def __init__(
        self,
        runs: Sequence[MonotoneRun],
        event_us: Ints,
        make: Callable[[CountedColumn], FilteredColumn],
        requests: tuple[Ints, Ints],
    ) -> None:
        self.runs, self._event_us, self._make, self._requests = runs, event_us, make, requests
        self._ranges: dict[Span, list[Range]] = {}
        self._columns: dict[CountedColumn, FilteredColumn] = {}
        self._windows: dict[tuple[CountedColumn, Span], WindowedRows] = {}

    def ranges(self, span: Span) -> list[Range]:
        """The part of each run that counts for each request within a window."""
        if span not in self._ranges:
            self._ranges[span] = [range_of(run, span, *self._requests) for run in self.runs]
        return self._ranges[span]

    def column(self, name: CountedColumn) -> FilteredColumn:
        """A column under its condition."""
        if name not in self._columns:
            self._columns[name] = self._make(name)
        return self._columns[name]

    def window(self, name: CountedColumn, span: Span) -> WindowedRows:
        """A column's rows within a window."""
        if (name, span) not in self._windows:
            self._windows[name, span] = WindowedRows(self.column(name), self.ranges(span))
        return self._windows[name, span]

    def newest(self) -> tuple[Bits, Ints]:
        """Whether each request has a row, and the event_time of its newest one."""
        every = [FilteredRows.of(run, None) for run in self.runs]
        place = picked_places(every, self.ranges(Span(None)), "newest", 1)[:, 0]
        return place >= 0, self._event_us[np.maximum(place, 0)]


class KeyBatch:
    """Some keys numbered from `first`, all their rows, and the requests for them. tiles: of what further rows add up to."""

    def __init__(
        self, plan: FoldRows, rows: pa.Table, *, keys: int, first: int, key: Ints, as_of: Ints,
        tiles: TiledRows | None = None,
    ) -> None:  # fmt: skip
        self._plan, self._table, self._as_of = plan, rows, as_of
        times = {name: rows[name].to_numpy() for name in ("event_us", "counts_from")}
        ends = rows["counts_until"].to_numpy() if plan.view.source.identity else None
        timeline = RowTimes(
            rows["key_no"].to_numpy().astype(np.int64) - first, times["event_us"], times["counts_from"], ends
        )
        runs = list(monotone_runs(timeline, keys))
        self._rows = _Requested(runs, timeline.event_us, lambda name: plan.column(rows, name, runs), (key, as_of))
        self._parts = [self._rows]
        if tiles is not None:
            self._parts.append(_Requested(tiles.runs, tiles.event_us, tiles.column, (key, as_of)))
        self._parts = [part for part in self._parts if part.runs]
        self._ties = Ties(timeline, *_hashes(rows)) if plan.ordered else None

    def answer(self, request_no: Ints) -> FoldedAnswer:
        """The folds of all features for the requests, numbered `request_no`."""
        known, times = self._newest(len(request_no))
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
        counted = np.zeros(self._table.num_rows, np.bool_)
        for some in self._rows.column(column_name(feature)).rows:
            counted[some.places] = True
        return self._ties.decided(folded.picked, counted, self._as_of)

    def _newest(self, requests: int) -> tuple[Bits, Ints]:
        """Whether each request's key is known, and its newest event_time."""
        known, times = np.zeros(requests, np.bool_), np.full(requests, BEGINNING, np.int64)
        for part in self._parts:
            some, newest = part.newest()
            known |= some
            times = np.where(some, np.maximum(times, newest), times)
        return known, np.where(known, times, 0)

    def _fold(self, feature: ResolvedFeature, known: Bits) -> tuple[FoldColumn, npt.NDArray[np.uint8]]:
        view, span, name = self._plan.view, visible_span(self._plan.view, feature), column_name(feature)
        folded = self._folded(feature, name, span)
        expired = np.zeros_like(known)
        if feature.span is None and view.ttl is not None:
            expired = ~self._rows.window(rows_name(feature), span).some if self._rows.runs else ~expired
        if self._plan.until and feature.fold.kind == "Latest" and self._rows.runs:
            place = self._rows.window(name, span).picked("newest", 1)[:, 0]
            over = ended(self._table["until"].to_numpy()[np.maximum(place, 0)], self._as_of)
            expired |= (place >= 0) & over
        status = statuses_of(known, expired=expired, overflow=False if folded.overflow is None else folded.overflow)
        present = status == Status.PRESENT
        values = canonical(folded.values, feature.type)
        if not present.all():
            values = pc.if_else(pa.array(present), values, pa.scalar(None, values.type))
        return folded._replace(values=values), status

    def _folded(self, feature: ResolvedFeature, name: CountedColumn, span: Span) -> FoldColumn:
        """The feature of the rows that count, and of the tiles."""
        algebra = algebra_of(feature)
        if not self._parts:  # the fold of no rows
            value, _ = algebra.finish(algebra.zero)
            return FoldColumn(pa.repeat(pa.scalar(value, feature.type.arrow), len(self._as_of)))
        if algebra.sum_fields is not None:
            windows = [part.window(name, span) for part in self._parts]
            return algebra.finish_sums(
                reduce(PartialSums.merged, [each.partial_sums(algebra.sum_fields) for each in windows])
            )
        window = self._rows.window(name, span)
        if algebra.picks is None:
            return window.merged(algebra, feature.type)
        places = window.picked(*algebra.picks)
        return FoldColumn(algebra.finish_rows(window.column.values, places), picked=places)


def _hashes(rows: pa.Table) -> tuple[Ints, Ints]:
    """What `Ties` compares, as integers."""
    before, whole = (rows[name].to_numpy().view(np.int64) for name in ("before", "whole"))
    return before, whole
