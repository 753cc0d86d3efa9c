"""Rows of a column that are held to be looked at once more: all while they are few, beyond that those that a hash of their number draws.

A row is held where the highest `bits` bits of its draw are 0, and there are as few bits as the most values allow. So which rows are held hangs
neither on how they come, nor on how parts of them are put together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featurestore.lazy import pa
from featurestore.statistics.column_values import values_of
from featurestore.types import FeatureType

EXACT_VALUES = 1 << 14
"""Values of a column that are held; of more, those of rows that are drawn by chance are. Of 8,192 rows or more a quantile lies, two times
out of three, within 0.6 % of the rows from where it belongs. With 2^18 a training frame of 300,000 rows took 12 % more, with 2^14 some 6."""

PIECE_DRAWS = 1 << 13
"""Draws that are made at once, in the processor's cache."""

Draws = npt.NDArray[np.uint64]


class RowDraws:
    """The draws of consecutive rows: a number of 64 bits for each, equally likely to be any, and always the same for the same number of a row."""

    def __init__(self, first: int, rows: int) -> None:
        self._first, self._rows = first, rows
        self._all: Draws | None = None
        self._left: dict[int, int] = {}
        self._chosen: dict[int, tuple[pa.Array, Draws]] = {}

    def all(self) -> Draws:
        """Those of all rows."""
        if self._all is None:
            self._all = np.empty(self._rows, np.uint64)
            for begin in range(0, self._rows, PIECE_DRAWS):
                piece = self._all[begin : begin + PIECE_DRAWS]
                _draw_into(piece, self._first + begin)
        return self._all

    def left(self, bits: int) -> int:
        """How many rows are chosen."""
        if bits not in self._left:
            self._left[bits] = int(np.count_nonzero(self.all() < _bound(bits)))
        return self._left[bits]

    def chosen(self, bits: int) -> tuple[pa.Array, Draws]:
        """The places of the rows of whose draws the highest bits, 1 or more, are 0, and these draws."""
        if bits not in self._chosen:
            places = np.flatnonzero(self.all() < _bound(bits))
            self._chosen[bits] = pa.array(places), self.all()[places]
        return self._chosen[bits]


def _draw_into(draws: Draws, first: int) -> None:
    """By the finisher of S. Vigna's SplitMix64 (public domain), over the numbers of the rows."""
    draws[:] = np.arange(first + 1, first + 1 + len(draws), dtype=np.uint64)
    draws *= np.uint64(0x9E3779B97F4A7C15)
    draws ^= draws >> np.uint64(30)
    draws *= np.uint64(0xBF58476D1CE4E5B9)
    draws ^= draws >> np.uint64(27)
    draws *= np.uint64(0x94D049BB133111EB)
    draws ^= draws >> np.uint64(31)


def _bound(bits: int) -> np.uint64:
    """The least draw of which one of the highest bits is not 0."""
    return np.uint64((1 << 64) >> bits)


@dataclass(frozen=True, eq=False)
class HeldRows:
    """Rows that are held. draws: of each; bits: how many of the highest bits of these are 0. 0: all rows are held."""

    rows: pa.Array
    draws: Draws
    bits: int


class HoldingRows:
    """Holds rows of a type that come one after the other. most_values: how many values they have at most, of a single row more."""

    def __init__(self, of: FeatureType, most_values: int = EXACT_VALUES) -> None:
        self._of, self._most = of, most_values
        self._parts: list[tuple[pa.Array, RowDraws | Draws]] = []
        self._bits = 0
        self.values = 0
        """Those of the rows that are held, nulls among them."""

    @property
    def is_sample(self) -> bool:
        """Whether rows were left out."""
        return self._bits > 0

    @property
    def count(self) -> int:
        """How many rows are held."""
        return sum(len(rows) for rows, _ in self._parts)

    def add(self, rows: pa.Array, draws: RowDraws, values: int) -> None:
        """Take the next rows, which have so many values."""
        if self._bits:
            rows, drawn = _drawn(rows, draws, self._bits)
            self._parts.append((rows, drawn))
            self.values += values_of(rows)
        else:
            self._parts.append((rows, draws))
            self.values += values
        self._fit()

    def join(self, held: HeldRows) -> None:
        """Take the rows that are held of another part of the column."""
        self._draw(max(self._bits, held.bits))
        rows, draws = _drawn(held.rows, held.draws, self._bits)
        self._parts.append((rows, draws))
        self.values += values_of(rows)
        self._fit()

    def _fit(self) -> None:
        """Leave rows out until the others have no more values than are to be held."""
        if self.values <= self._most:
            return
        bits, values, rows, is_flat = self._bits, self.values, self.count, self._of.element is None
        while values > self._most and rows > 1:
            bits += 1
            rows = sum(_left(draws, bits) for _, draws in self._parts)
            values = rows if is_flat else sum(values_of(_drawn(*part, bits)[0]) for part in self._parts)
        self._draw(bits)

    def _draw(self, bits: int) -> None:
        if bits > self._bits:
            self._bits = bits
            self._parts = [_drawn(*part, bits) for part in self._parts]
            self.values = sum(values_of(rows) for rows, _ in self._parts)

    def rows(self) -> pa.Array:
        """The rows that are held, in their order."""
        arrays = [_plain(rows) for rows, _ in self._parts]
        return arrays[0] if len(arrays) == 1 else pa.concat_arrays(arrays or [pa.array([], self._of.arrow)])

    def held(self) -> HeldRows:
        """The rows that are held, with their draws."""
        draws = [_drawn(*part, self._bits)[1] for part in self._parts]
        return HeldRows(self.rows(), np.concatenate(draws) if draws else np.zeros(0, np.uint64), self._bits)


def _left(draws: RowDraws | Draws, bits: int) -> int:
    """How many rows are chosen."""
    return draws.left(bits) if isinstance(draws, RowDraws) else int(np.count_nonzero(draws < _bound(bits)))


def _drawn(rows: pa.Array, draws: RowDraws | Draws, bits: int) -> tuple[pa.Array, Draws]:
    """The rows that are chosen, and their draws."""
    if not bits:
        return rows, draws.all() if isinstance(draws, RowDraws) else draws
    if isinstance(draws, RowDraws):
        places, drawn = draws.chosen(bits)
        return _plain(rows.take(places)), drawn
    kept = draws < _bound(bits)
    return rows.filter(pa.array(kept)), draws[kept]


def _plain(rows: pa.Array) -> pa.Array:
    """Rows of texts as such, where they came as a dictionary."""
    return rows.dictionary_decode() if pa.types.is_dictionary(rows.type) else rows
