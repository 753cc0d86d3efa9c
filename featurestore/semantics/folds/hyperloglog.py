"""ApproxCountDistinct: HyperLogLog over a named hash, with one form for each set of values.

A value is hashed by BLAKE2b to 64 bits (big-endian), from its type's kind, a zero byte and its `order_bytes`. Of those
the first `precision` bits choose one of m registers, which keeps the greatest number of leading zeros of the rest, plus
one. The count comes from the histogram of the registers by the improved estimator of O. Ertl, "New cardinality
estimation algorithms for HyperLogLog sketches" (2017), section 4, whose operations are all exact or rounded once by
IEEE 754, in a fixed order; the relative standard error is about 1.04 / √m.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

from featurestore.declare.folds import PRECISIONS
from featurestore.semantics.folds.algebra import Algebra, CertainAlgebra, Place
from featurestore.semantics.folds.table import FoldKind, add_fold
from featurestore.semantics.order import order_bytes
from featurestore.types import FeatureType, Int64, Scalar

Registers = tuple[int, ...] | bytes
RANK_BITS = 6
ENTRY_BYTES = 3
ALPHA = 0.7213475204444817
"""1 / (2 ln 2)."""


@dataclass(frozen=True, slots=True)
class HyperLogLog(CertainAlgebra):
    """The state: register << 6 | rank of each register in use, ascending; every register, as bytes, beyond m / 4 in use."""

    column: FeatureType
    precision: int
    takes_null: bool = False
    zero: Registers = ()

    def lift(self, value: Scalar, place: Place) -> Registers:  # noqa: ARG002 - one form for every fold
        """One value."""
        data = self.column.kind.encode() + b"\x00" + order_bytes(self.column, value)
        bits = int.from_bytes(blake2b(data, digest_size=8).digest(), "big")
        rest = 64 - self.precision
        rank = rest - (bits & ((1 << rest) - 1)).bit_length() + 1
        return ((bits >> rest) << RANK_BITS | rank,)

    def merge(self, a: Registers, b: Registers) -> Registers:
        """The greater rank of each register."""
        if isinstance(a, bytes) and isinstance(b, bytes):
            return bytes(map(max, a, b))
        if isinstance(a, bytes) or isinstance(b, bytes):
            dense, sparse = (a, b) if isinstance(a, bytes) else (b, a)
            return _raised(bytearray(dense), sparse)
        ranks: dict[int, int] = {entry >> RANK_BITS: entry for entry in a}
        for entry in b:
            if entry > ranks.get(entry >> RANK_BITS, 0):
                ranks[entry >> RANK_BITS] = entry
        if len(ranks) > (1 << self.precision) // 4:
            return _raised(bytearray(1 << self.precision), ranks.values())
        return tuple(sorted(ranks.values()))

    def value(self, state: Registers) -> int:
        """About how many different values there are; 0 of none."""
        registers = 1 << self.precision
        counts = [0] * (66 - self.precision)
        for rank in state if isinstance(state, bytes) else (entry & 63 for entry in state):
            counts[rank] += 1
        if not isinstance(state, bytes):
            counts[0] = registers - len(state)
        z = registers * _tau(1 - counts[-1] / registers)
        for count in reversed(counts[1:-1]):
            z = 0.5 * (z + count)
        z += registers * _sigma(counts[0] / registers)
        return round(ALPHA * registers * registers / z)

    def pack(self, state: Registers) -> bytes:
        """Three bytes for each register in use, or one for each register; a first byte says which."""
        if isinstance(state, bytes):
            return b"\x01" + state
        return b"\x00" + b"".join([entry.to_bytes(ENTRY_BYTES, "big") for entry in state]) if state else b""

    def unpack(self, data: bytes) -> Registers:
        """The state that `pack` wrote."""
        if data[:1] == b"\x01":
            return data[1:]
        return tuple(int.from_bytes(data[at : at + ENTRY_BYTES], "big") for at in range(1, len(data), ENTRY_BYTES))


def _raised(dense: bytearray, entries: Iterable[int]) -> bytes:
    for entry in entries:
        register = entry >> RANK_BITS
        dense[register] = max(dense[register], entry & 63)
    return bytes(dense)


def _sigma(x: float) -> float:
    """Σ x^(2^k)·2^(k−1) + x, the correction for empty registers."""
    if x == 1:
        return math.inf
    y, z, before = 1.0, x, -1.0
    while z != before:
        x *= x
        before = z
        z += x * y
        y += y
    return z


def _tau(x: float) -> float:
    """The correction for registers that are as high as they can be."""
    if x in {0.0, 1.0}:
        return 0.0
    y, z, before = 1.0, 1 - x, -1.0
    while z != before:
        x = math.sqrt(x)
        before = z
        y *= 0.5
        z -= (1 - x) * (1 - x) * y
    return z / 3


def approx_count_result(column: FeatureType | None, precision: int = 12) -> FeatureType:
    """Int64; ValueError for a precision that no declaration has."""
    if column is None:
        raise ValueError("it needs a column")
    least, most = PRECISIONS
    if not least <= precision <= most:
        raise ValueError(f"precision is {least} to {most}, not {precision}")
    return Int64


def approx_count_distinct(column: FeatureType | None, result: FeatureType, precision: int = 12) -> Algebra:
    """About how many different values a column has, from 2^precision registers."""
    approx_count_result(column, precision)
    assert column is not None
    if result != Int64:
        raise ValueError(f"a count is Int64, not {result}")
    return HyperLogLog(column, precision)


DOCS = (
    "| `ApproxCountDistinct(c, precision=12)` | any column | Int64, relative error about 1.04 / 2^(precision/2): 1.6 % | 0 | |",
)

add_fold(FoldKind("ApproxCountDistinct", approx_count_result, approx_count_distinct, DOCS, large=True))
