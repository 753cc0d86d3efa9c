"""Exact sums of floats in SQL: the limbs of a DOUBLE column, summed group by group as integers.

A limb here is 62 bits wide, cut off the double from above: `trunc(x / 2^k)` and what is left of x are doubles exactly.
DuckDB sums BIGINT into HUGEINT, which is exact for 2^64 rows, so that neither threads nor the order of rows matter. Where
all values fit one limb of 86 bits, a HUGEINT each, there is one sum instead of two, exact for 2^40 rows and an error beyond.
The sums come out as `limbs` has them and are finished by `columnar`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from featurestore.semantics.folds.limbs import MASK, Ints, Limbs, limbs_of_decimals

__all__ = ["FloatSums", "range_terms"]

WIDTH, WIDE = 62, 86
MOST_LIMBS = 16
"""Of 62 bits: beyond, a number over the lowest limb would be no double."""


def range_terms(expression: str) -> list[str]:
    """SELECT terms for `FloatSums.over`: the least and greatest finite |x| but 0, and how many NaN and infinities."""
    size = f"abs({expression})"
    return [
        f"min({size}) FILTER (isfinite({expression}) AND {expression} <> 0)",
        f"max({size}) FILTER (isfinite({expression}) AND {expression} <> 0)",
        f"count(*) FILTER (NOT isfinite({expression}))",
    ]


SPECIALS = {"nan": "nan", "plus": "inf", "minus": "-inf"}


class FloatSums(NamedTuple):
    """How a DOUBLE expression is summed: its highest limb begins below 2^top, each is `width` bits wide."""

    expression: str
    top: int
    width: int
    limbs: int
    unbounded: bool

    @classmethod
    def over(cls, expression: str, least: float | None, most: float | None, unbounded: int) -> FloatSums:
        """From the answers of `range_terms`. ValueError where values span more than 992 bits: sum those by `limbs`."""
        top = math.frexp(most or 0.0)[1]
        bits = top - math.frexp(least or 0.0)[1] + 53
        width = WIDE if WIDTH < bits <= WIDE else WIDTH
        limbs = max(1, -(-bits // width))
        if limbs > MOST_LIMBS:
            raise ValueError(f"finite values from {least} to {most} span more than {WIDTH * MOST_LIMBS} bits")
        return cls(expression, top, width, limbs, unbounded > 0)

    def terms(self, prefix: str) -> list[str]:
        """SELECT terms, named: for each limb its sum as DECIMAL(38, 0); where there are any, counts of NaN, +inf and -inf."""
        # Arrow has no HUGEINT, but the same 16 bytes as a decimal.
        terms = [f"CAST(sum({self._limb(limb)}) AS DECIMAL(38, 0)) AS {prefix}limb{limb}" for limb in range(self.limbs)]
        for name, value in SPECIALS.items() if self.unbounded else ():
            terms.append(f"count(*) FILTER ({self.expression} = CAST('{value}' AS DOUBLE)) AS {prefix}{name}")
        return terms

    def sums(self, table: pa.Table, prefix: str) -> Limbs:
        """The sums of each row of a table that `terms` made: int64[L, rows], carried but for the last limb."""
        base = self.top - self.width * self.limbs
        digits = np.zeros((2 * self.limbs + 4, table.num_rows), np.int64)
        for limb in range(self.limbs):
            at, bits = divmod(self.width * (self.limbs - 1 - limb), 32)
            for place, part in enumerate(limbs_of_decimals(table[f"{prefix}limb{limb}"].combine_chunks()).digits, at):
                shifted = part << bits
                digits[place] += shifted & MASK
                digits[place + 1] += shifted >> 32
        return Limbs(base, digits)

    def specials(self, table: pa.Table, prefix: str) -> tuple[Ints, ...]:
        """The counts of NaN, +inf and -inf of each row of a table that `terms` made: int64[rows] each."""
        if not self.unbounded:
            return (np.zeros(table.num_rows, np.int64),) * len(SPECIALS)
        return tuple(table[f"{prefix}{name}"].to_numpy() for name in SPECIALS)

    def _limb(self, limb: int) -> str:
        x = self.expression
        if self.unbounded:
            x = f"CASE WHEN isfinite({x}) THEN {x} END"
        power = self.top - self.width * (limb + 1)
        if limb:
            above = power + self.width
            x = f"({x} - {_times(f'trunc({_times(x, -above)})', above)})"
        scaled = _times(x, -power)
        whole = scaled if limb == self.limbs - 1 else f"trunc({scaled})"
        return f"CAST({whole} AS {'HUGEINT' if self.width > WIDTH else 'BIGINT'})"


def _times(expression: str, power: int) -> str:
    """expression · 2^power, in two steps where no double holds 2^power."""
    powers = [power] if abs(power) <= 1022 else [power // 2, power - power // 2]
    return " * ".join([f"({expression})", *(f"CAST('{2.0**part!r}' AS DOUBLE)" for part in powers)])
