"""Random values of every type, edges often, and random ways to merge states."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal as D
from typing import Any

from hypothesis import strategies as st

from featurestore.semantics.folds import Algebra, State
from featurestore.types import (
    Array,
    Bool,
    Bytes,
    Date,
    Decimal,
    FeatureType,
    Float32,
    Float64,
    Int32,
    Int64,
    String,
    Timestamp,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EDGES = {
    "Float64": [0.0, -0.0, math.nan, math.inf, -math.inf, 5e-324, -5e-324, 2.2250738585072014e-308, 0.1, 1e16, 1.0,
                1.7976931348623157e308, -1.7976931348623157e308, 2.0**970, 3.5],
    "Float32": [0.0, -0.0, math.nan, math.inf, -math.inf, 2.0**-149, -(2.0**-149), 2.0**-126, 1.0, 2.0**24,
                (2.0 - 2.0**-23) * 2.0**127, -(2.0 - 2.0**-23) * 2.0**127, 2.0**103],
}  # fmt: skip
NUMBERS = [Int32, Int64, Float32, Float64, Decimal(10, 2), Decimal(38, 0), Decimal(38, 20)]
SCALARS = [*NUMBERS, Bool, String, Bytes, Date, Timestamp]
TYPES = [*SCALARS, Array(Float64), Array(String), Array(Int64), Array(Float32, 3)]


def name(of: FeatureType) -> str:
    """The type as the oracle names it."""
    return str(of).replace(", ", ",")


def of_type(of: FeatureType) -> st.SearchStrategy[Any]:
    """Canonical scalars, never null."""
    if of.kind in EDGES:
        width: Any = int(of.kind[5:])
        small = st.integers(-3, 3).map(float)
        return st.one_of(st.sampled_from(EDGES[of.kind]), small, st.floats(width=width)).map(of.accept)
    if of.kind in {"Int32", "Int64"}:
        most = 1 << (int(of.kind[3:]) - 1)
        return st.one_of(st.integers(-3, 3), st.sampled_from([-most, most - 1]), st.integers(-most, most - 1))
    if of.kind == "Decimal":
        most = 10**of.precision - 1
        whole = st.one_of(st.integers(-3, 3), st.sampled_from([-most, most]), st.integers(-most, most))
        return whole.map(lambda n: of.accept(D(f"{n}E-{of.scale}")))
    if of.kind == "Embedding":
        return st.lists(of_type(Float32), min_size=of.length, max_size=of.length)
    if of.element is not None:
        return st.lists(st.one_of(st.none(), of_type(of.element)), max_size=4)
    return {
        "Bool": st.booleans(),
        "String": st.one_of(st.text("a\0\x01ß🦆", max_size=4), st.text(max_size=300)),
        "Bytes": st.one_of(st.binary(max_size=4), st.text("\0\x01a", max_size=4).map(str.encode), st.binary()),
        "Date": st.dates(date(1, 1, 1), date(9999, 12, 31)),
        "Timestamp": st.integers(-62135596800000000, 253402300799999999).map(
            lambda us: EPOCH + timedelta(microseconds=us)
        ),
    }[of.kind]


def rows_of(of: FeatureType, *, most: int = 12) -> st.SearchStrategy[list[tuple[int, Any]]]:
    """Rows as (place, value or null); places collide."""
    few = st.lists(of_type(of), min_size=1, max_size=3).flatmap(st.sampled_from)
    return st.lists(st.tuples(st.integers(-3, 1 << 40), st.one_of(st.none(), of_type(of), few)), max_size=most)


def lifted(algebra: Algebra, rows: Iterable[tuple[Any, Any]]) -> list[State]:
    """The state of each row that the fold takes."""
    return [algebra.lift(value, place) for place, value in rows if value is not None or algebra.takes_null]


def merged(algebra: Algebra, states: list[State], seed: int = 0) -> State:
    """One state of all, merged in a random order along a random tree."""
    rng = random.Random(seed)
    states = [algebra.zero, *states]
    while len(states) > 1:
        a, b = states.pop(rng.randrange(len(states))), states.pop(rng.randrange(len(states)))
        states.append(algebra.merge(a, b))
    return states[0]
