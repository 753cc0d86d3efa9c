"""What columns are like, gathered from batches of rows while an operation makes them.

It tells what `column_statistics` tells, and is made for another use: beside work that must not become noticeably slower, over rows that
are seen once and never held all. Up to EXACT_VALUES values of a column everything is of all of them, and exact but for `mean` and `deviation`, which
are summed in doubles. Beyond that, counts, extremes, mean and deviation are still of all values, and what needs them in order (`unique`,
`quantiles`, `histogram`, `frequent`) is of rows that are drawn by chance.

Rows that are held all are looked at once, when they are told of: what is told of all of them then comes from the same order as all else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from featurestore.lazy import pa, pc
from featurestore.statistics.column_counts import ColumnCounts
from featurestore.statistics.column_statistics import (
    ColumnStatistics,
    Lengths,
    TextStatistics,
    norms_of,
)
from featurestore.statistics.column_values import (
    NUMBER_KINDS,
    TEXT_KINDS,
    Numbers,
    as_numbers,
    as_texts,
    present_values,
    values_of,
)
from featurestore.statistics.held_rows import EXACT_VALUES, HoldingRows, RowDraws
from featurestore.statistics.ordered_numbers import OrderedNumbers
from featurestore.statistics.partial_statistics import PartialColumn, PartialStatistics
from featurestore.types import FeatureType

FEW_TOGETHER = 4_096
"""Rows up to which columns of one type are looked at together. Of 1,000 rows a call of numpy takes as long as what it does."""

FREQUENT_TEXTS = 20
"""How many of the most frequent texts are told."""

TEXT_CHARACTERS = 100
"""Characters (of bytes: bytes) of a text that are told; what is longer is cut."""

PART_ROWS_BITS = 40
"""A part has fewer than 2^40 rows: the number of a row says its part, too."""


class GatheredStatistics:
    """Statistics of columns that come in batches.

    types: by name the type of each column. most_values: how many values of a column are held at most. part: a number below 2^23 that
    other parts of the same rows do not have; which rows are drawn hangs on it.
    """

    def __init__(self, types: Mapping[str, FeatureType], *, most_values: int = EXACT_VALUES, part: int = 0) -> None:
        self._columns = {name: _GatheredColumn(name, of, most_values) for name, of in types.items()}
        self._first = part << PART_ROWS_BITS
        self._added = 0
        self.rows = 0

    def add(self, columns: Mapping[str, pa.Array | pa.ChunkedArray], rows: int) -> None:
        """Take the next rows: columns by name, in their types' own Arrow types, texts and bytes also as dictionaries of
        them; a column of the statistics that is not there is null."""
        draws = RowDraws(self._first + self._added, rows)
        for name, column in self._columns.items():
            found = columns.get(name)
            if isinstance(found, pa.ChunkedArray):
                found = found.chunk(0) if found.num_chunks == 1 else found.combine_chunks()  # which copies one, too
            column.add(pa.nulls(rows, column.of.arrow) if found is None else found, draws)
        self._added += rows
        self.rows += rows

    def join(self, other: PartialStatistics) -> None:
        """Take what was gathered of other rows. ValueError where it is of other columns."""
        if other.columns.keys() != self._columns.keys():
            raise ValueError(f"they are of {', '.join(other.columns)}, and not of {', '.join(self._columns)}")
        for name, column in self._columns.items():
            column.join(other.columns[name])
        self.rows += other.rows

    def partial(self) -> PartialStatistics:
        """What was gathered so far, to be joined with what others gather."""
        return PartialStatistics(self.rows, {name: column.partial() for name, column in self._columns.items()})

    def found(self) -> tuple[ColumnStatistics, ...]:
        """What all rows so far are like, in the order of the types."""
        together = self._ordered_together()
        return tuple(column.found(self.rows, together.get(name)) for name, column in self._columns.items())

    def _ordered_together(self) -> dict[str, OrderedNumbers]:
        """The numbers of columns of few rows, those of one type at once."""
        alike: dict[tuple[Any, int], dict[str, Numbers]] = {}
        for name, column in self._columns.items():
            numbers = column.few_numbers()
            if numbers is not None:
                alike.setdefault((numbers.dtype, len(numbers)), {})[name] = numbers
        found: dict[str, OrderedNumbers] = {}
        for columns in alike.values():
            found |= dict(zip(columns, OrderedNumbers.of_several(list(columns.values())), strict=True))
        return found


class _GatheredColumn:
    """One column. `_counts` are of all its rows; None while these are all held, and nothing was counted yet."""

    def __init__(self, name: str, of: FeatureType, most_values: int) -> None:
        self.name, self.of = name, of
        self._most = most_values
        self._held = HoldingRows(of, most_values)
        self._counts: ColumnCounts | None = None

    def add(self, rows: pa.Array, draws: RowDraws) -> None:
        values = values_of(rows)
        if self._counts is not None or self._held.values + values > self._most:
            self._counts = self._counted().plus(ColumnCounts.of(rows, self.of))
        self._held.add(rows, draws, values)

    def join(self, other: PartialColumn) -> None:
        held = other.held.rows
        if held.type != self.of.arrow:
            raise ValueError(f"column '{self.name}' is {held.type}, and not {self.of.arrow}")
        are_all_held = self._counts is None and other.counts is None
        if not are_all_held or self._held.values + values_of(held) > self._most:
            more = ColumnCounts.of(held, self.of) if other.counts is None else other.counts
            self._counts = self._counted().plus(more)
        self._held.join(other.held)

    def _counted(self) -> ColumnCounts:
        return ColumnCounts.of(self._held.rows(), self.of) if self._counts is None else self._counts

    def partial(self) -> PartialColumn:
        return PartialColumn(self._counts, self._held.held())

    def few_numbers(self) -> Numbers | None:
        """The numbers that are there, where all are at hand, and so few that they are looked at with those of other columns."""
        if self._counts is not None or self.of.kind not in NUMBER_KINDS or self.of.kind == "Bool":
            return None
        rows = self._held.rows()
        return as_numbers(present_values(rows, self.of), self.of) if len(rows) <= FEW_TOGETHER else None

    def found(self, rows: int, ordered: OrderedNumbers | None) -> ColumnStatistics:
        """What it is like. ordered: its numbers, where they were looked at."""
        held, of, inner, counts = self._held.rows(), self.of, self.of.element or self.of, self._counts
        values = present_values(held, of)
        if ordered is None and inner.kind in NUMBER_KINDS:
            ordered = OrderedNumbers.of(values, inner)
        if counts is None:
            counts = ColumnCounts.of(held, of, numbers=None if ordered is None else ordered.counts())
        numbers = None if ordered is None else ordered.told(counts.numbers)
        norms = texts = lengths = None
        if of.kind == "Embedding":
            norms = OrderedNumbers.of_numbers(norms_of(held.drop_null(), of)).told(counts.norms)
        if inner.kind in TEXT_KINDS:
            texts = _texts_told(values, inner, counts)
        if of.element is not None:
            sizes = counts.lengths
            lengths = Lengths(sizes.least or 0, sizes.most or 0, sizes.total, counts.nulls)
        sampled = self._held.count if self._held.is_sample else None
        return ColumnStatistics(self.name, str(of), rows, counts.missing, lengths, numbers, texts, norms, sampled)


def _texts_told(values: pa.Array, of: FeatureType, counts: ColumnCounts) -> TextStatistics:
    sizes = counts.sizes
    listed: list[tuple[Any, int]]
    if of.kind == "Bool":
        there = [pair for pair in (("false", values.false_count), ("true", values.true_count)) if pair[1]]
        unique, listed = len(there), sorted(there, key=lambda pair: -pair[1])
    else:
        counted = values.value_counts()
        table = pa.table({"word": as_texts(counted.field("values"), of), "count": counted.field("counts")})
        order = [("count", "descending"), ("word", "ascending")]
        # Arrow 18 cannot choose of no rows
        first = table.take(pc.select_k_unstable(table, FREQUENT_TEXTS, order)) if len(table) else table
        words, unique = first["word"].to_pylist(), len(table)
        listed = list(zip((_cut(word) for word in words), first["count"].to_pylist(), strict=True))
    return TextStatistics(sizes.values, unique, sizes.least, sizes.most, sizes.total, tuple(listed))


def _cut(text: str | bytes) -> str | bytes:
    if len(text) <= TEXT_CHARACTERS:
        return text
    return text[:TEXT_CHARACTERS] + ("…" if isinstance(text, str) else b"...")  # type: ignore[operator]  # text, or bytes, on both sides
