"""The folds, written down naively so that the product's can be judged by them.

Nothing here comes from the product, and nothing is merged: each function reads all rows at once. A row is its place
and its value, None being null; types are names such as `"Int64"` or `"Decimal(10,2)"`. Numbers are Fractions until the
end, and a Fraction is rounded by searching for the nearest float.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

from tests.oracle import decimal_scale, sort_key

Rows = list[tuple[int, Any]]
PRESENT, OVERFLOW = "PRESENT", "OVERFLOW"
LARGEST = {"Float32": Fraction(2) ** 128, "Float64": Fraction(2) ** 1024}


def fold(kind: str, column: str | None, result: str, rows: Rows, **parameters: Any) -> tuple[Any, str]:
    """The value of one fold of all rows, and PRESENT or OVERFLOW."""
    return ORACLES[kind](column, result, rows, **parameters)


def count(column: str | None, result: str, rows: Rows) -> tuple[Any, str]:
    return len(rows if column is None else present(rows)), PRESENT


def total(column: str, result: str, rows: Rows) -> tuple[Any, str]:
    values = present(rows)
    if not values:
        return None, PRESENT
    if column.startswith("Float"):
        return of_floats(values, result, 1), PRESENT
    whole = sum(map(Fraction, values), Fraction(0))
    if result.startswith("Decimal"):
        precision, scale = int(result[8:].split(",", maxsplit=1)[0]), decimal_scale(result)
        if abs(whole) >= Fraction(10) ** (precision - scale):
            return None, OVERFLOW
        digits = str(abs(whole * 10**scale)).zfill(scale + 1)
        text = f"{digits[:-scale]}.{digits[-scale:]}" if scale else digits
        return Decimal(("-" if whole < 0 else "") + text), PRESENT
    bits = int(result[3:])
    return (int(whole), PRESENT) if -(2 ** (bits - 1)) <= whole < 2 ** (bits - 1) else (None, OVERFLOW)


def mean(column: str, result: str, rows: Rows) -> tuple[Any, str]:
    values = present(rows)
    if not values:
        return None, PRESENT
    if column.startswith("Float"):
        return of_floats(values, result, len(values)), PRESENT
    return nearest(sum(map(Fraction, values), Fraction(0)) / len(values), result), PRESENT


def var(column: str, result: str, rows: Rows, ddof: int = 1, power: int = 1) -> tuple[Any, str]:
    values = present(rows)
    if len(values) <= ddof:
        return None, PRESENT
    if not all(map(math.isfinite, values)):
        return math.nan, PRESENT
    exact = [Fraction(value) for value in values]
    middle = sum(exact, Fraction(0)) / len(exact)
    return nearest(sum(((x - middle) ** 2 for x in exact), Fraction(0)) / (len(exact) - ddof), result, power), PRESENT


def stddev(column: str, result: str, rows: Rows, ddof: int = 1) -> tuple[Any, str]:
    return var(column, result, rows, ddof, power=2)


def least(column: str, result: str, rows: Rows) -> tuple[Any, str]:
    return min(present(rows), key=lambda value: sort_key(column, value), default=None), PRESENT


def greatest(column: str, result: str, rows: Rows) -> tuple[Any, str]:
    return max(present(rows), key=lambda value: sort_key(column, value), default=None), PRESENT


def latest(column: str, result: str, rows: Rows) -> tuple[Any, str]:
    return (newest_first(column, rows)[0][1] if rows else None), PRESENT


def first(column: str, result: str, rows: Rows) -> tuple[Any, str]:
    return (newest_first(column, rows)[-1][1] if rows else None), PRESENT


def last_n(column: str, result: str, rows: Rows, n: int) -> tuple[Any, str]:
    return [value for _, value in newest_first(column, rows)][:n], PRESENT


def last_distinct_n(column: str, result: str, rows: Rows, n: int) -> tuple[Any, str]:
    seen: list[Any] = []
    values: list[Any] = []
    for _, value in newest_first(column, rows):
        if value is not None and sort_key(column, value) not in seen:
            seen.append(sort_key(column, value))
            values.append(value)
    return values[:n], PRESENT


def count_distinct(column: str, result: str, rows: Rows, bound: int) -> tuple[Any, str]:
    different = len({sort_key(column, value) for value in present(rows)})
    return (different, PRESENT) if different <= bound else (None, OVERFLOW)


def approx_count_distinct(column: str, result: str, rows: Rows, precision: int) -> tuple[Any, str]:
    """The exact count: of values so few that no two share a register, the estimate is that."""
    return count_distinct(column, result, rows, bound=1 << precision)


def approx_quantile(column: str, result: str, rows: Rows, q: float, accuracy: float) -> tuple[Any, str]:
    """Of the value at the rank, the middle of its bucket: that whose relative distance from both ends is the same.

    Buckets divide each octave evenly into a power of two, the least for which the middle is accurate enough; values are
    so few that no buckets are merged.
    """
    value = quantile_at_rank(rows, repr(q))
    if value is None or math.isnan(value) or math.isinf(value) or value == 0:
        return 0.0 if value == 0 else value, PRESENT
    parts = 1
    while Fraction(1, 2 * parts + 1) > Fraction(repr(accuracy)):
        parts *= 2
    exact = abs(Fraction(value))
    octave = Fraction(2) ** (exact.numerator.bit_length() - exact.denominator.bit_length())
    while octave > exact:
        octave /= 2
    step = octave / parts
    low = exact // step * step
    high = low + step
    middle = nearest(2 * low * high / (low + high), result)
    return (middle if value > 0 else -middle), PRESENT


def quantile_at_rank(rows: Rows, q: str) -> Any:
    """The value of rank ⌊q·(n − 1)⌋ in the order of values; -0.0 is 0.0 here, and NaN is greatest."""
    values = sorted((float(value) for value in present(rows)), key=lambda x: (math.isnan(x), x))
    return values[math.floor(Fraction(q) * (len(values) - 1))] if values else None


# --- parts ----------------------------------------------------------------------------------------------------------


def present(rows: Rows) -> list[Any]:
    return [value for _, value in rows if value is not None]


def newest_first(column: str, rows: Rows) -> Rows:
    return sorted(rows, key=lambda row: (row[0], sort_key(column, row[1])), reverse=True)


def of_floats(values: list[float], result: str, divisor: int) -> float:
    nan = any(math.isnan(value) for value in values)
    if nan or (math.inf in values and -math.inf in values):
        return math.nan
    for end in (math.inf, -math.inf):
        if end in values:
            return end
    return nearest(sum(map(Fraction, values), Fraction(0)) / divisor, result)


def nearest(exact: Fraction, type_: str, power: int = 1) -> float:
    """The float nearest to the power-th root of a number, of two equally near the even one; 0 is +0.0."""
    if exact < 0:
        return -nearest(-exact, type_, power)
    low, high = 0, 0x7F800000 if type_ == "Float32" else 0x7FF0000000000000  # bit patterns; of infinity
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if number(middle, type_) ** power <= exact else (low, middle)
    halfway = ((number(low, type_) + number(high, type_)) / 2) ** power
    chosen = high if exact > halfway or (exact == halfway and low % 2) else low
    return float_of(chosen, type_)


def float_of(bits: int, type_: str) -> float:
    code, unsigned = ("<f", "<I") if type_ == "Float32" else ("<d", "<Q")
    return struct.unpack(code, struct.pack(unsigned, bits))[0]


def number(bits: int, type_: str) -> Fraction:
    """The number of a bit pattern; infinity is what it would be if exponents went on."""
    value = float_of(bits, type_)
    return LARGEST[type_] if math.isinf(value) else Fraction(value)


ORACLES: dict[str, Callable[..., tuple[Any, str]]] = {
    "Count": count,
    "Sum": total,
    "Mean": mean,
    "Var": var,
    "StdDev": stddev,
    "Min": least,
    "Max": greatest,
    "Latest": latest,
    "First": first,
    "LastN": last_n,
    "LastDistinctN": last_distinct_n,
    "CountDistinct": count_distinct,
    "ApproxCountDistinct": approx_count_distinct,
    "ApproxQuantile": approx_quantile,
}
