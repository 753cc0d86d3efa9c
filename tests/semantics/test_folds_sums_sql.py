"""Exact sums in SQL are the scalar algebra's, group by group, however many threads there are."""

from __future__ import annotations

import math
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.semantics.folds import FOLDS
from featurestore.semantics.folds.columnar import round_sums, with_specials
from featurestore.semantics.folds.sums_sql import FloatSums, range_terms
from featurestore.types import Float32, Float64
from tests.semantics.values import merged


@pytest.fixture(scope="module", params=[1, 4])
def db(request: pytest.FixtureRequest) -> duckdb.DuckDBPyConnection:
    return duckdb.connect(config={"threads": request.param})


def grouped(db: duckdb.DuckDBPyConnection, rows: pa.Table) -> tuple[FloatSums, pa.Table]:
    """The sums of x by g, in the order of g."""
    db.register("rows", rows)
    found = db.sql(f"SELECT {', '.join(range_terms('x'))} FROM rows").fetchall()[0]
    sums = FloatSums.over("x", *found)
    by_group = db.sql(f"SELECT g, {', '.join(sums.terms('x_'))} FROM rows GROUP BY g ORDER BY g").to_arrow_table()
    db.unregister("rows")
    return sums, by_group


def finished(sums: FloatSums, by_group: pa.Table, of: Any) -> list[str]:
    limbs = sums.sums(by_group, "x_")
    return [
        float(x).hex() for x in with_specials(round_sums(limbs.base, limbs.digits, of), *sums.specials(by_group, "x_"))
    ]


wide = st.tuples(st.integers(-(1 << 53), 1 << 53), st.integers(0, 880))


@settings(max_examples=60, deadline=None)
@given(
    lowest=st.sampled_from([-1074, -1000, -500, 0, 90]) | st.integers(-1074, 90),
    spread=st.sampled_from([0, 10, 33, 40, 880]),
    drawn=st.lists(
        st.tuples(st.integers(0, 3), wide | st.sampled_from([None, "nan", "inf", "-inf", "-0.0"])), max_size=30
    ),
)
def test_groups_sum_to_the_nearest_float(
    db: duckdb.DuckDBPyConnection, lowest: int, spread: int, drawn: list[tuple[int, Any]]
) -> None:
    """NaN, infinities, nulls, -0.0, subnormals and sums beyond every double included."""
    values = [
        math.ldexp(of[0], lowest + of[1] * spread // 880)
        if isinstance(of, tuple)
        else None
        if of is None
        else float(of)
        for _, of in drawn
    ]
    rows = pa.table({"g": pa.array([g for g, _ in drawn], pa.int64()), "x": pa.array(values, pa.float64())})
    sums, by_group = grouped(db, rows)
    for result in (Float64, Float32):
        algebra = FOLDS["Sum"].algebra(Float64, result)
        expected = [
            algebra.finish(
                merged(algebra, [algebra.lift(x, 0) for (h, _), x in zip(drawn, values) if h == g and x is not None])
            )
            for g in by_group["g"].to_pylist()
        ]
        assert finished(sums, by_group, result) == [float(0.0 if x is None else x).hex() for x, _ in expected]


def test_many_rows_on_many_threads(db: duckdb.DuckDBPyConnection) -> None:
    """Half a million rows over 13 orders of magnitude, whose plain sums depend on the order in which they are added."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=500_000) * 10.0 ** rng.uniform(-6, 7, size=500_000)
    g = rng.integers(0, 300, size=500_000)
    sums, by_group = grouped(db, pa.table({"g": g, "x": x}))
    assert finished(sums, by_group, Float64) == [math.fsum(x[g == group]).hex() for group in range(300)]


def test_whole_numbers_need_one_limb() -> None:
    """And no values at all need one too; too wide a range is refused."""
    assert FloatSums.over("x", 1.0, 500.0, 0).limbs == 1
    assert FloatSums.over("x", None, None, 0).limbs == 1
    with pytest.raises(ValueError, match="span more than 992 bits"):
        FloatSums.over("x", 5e-324, 1e300, 0)


def test_values_of_86_bits_need_one_wide_limb(db: duckdb.DuckDBPyConnection) -> None:
    """Whole numbers up to the greatest that such a limb holds, of both signs, with every bit of a double in use."""
    rng = np.random.default_rng(4)
    x = rng.integers(1 << 52, 1 << 53, size=200_000) * 2.0 ** rng.integers(0, 34, size=200_000)
    x *= rng.choice([-1.0, 1.0], size=len(x))
    x[:2] = ((1 << 53) - 1) * 2.0**33, (1 << 52) + 1
    g = rng.integers(0, 50, size=len(x))
    sums, by_group = grouped(db, pa.table({"g": g, "x": x}))
    assert (sums.width, sums.limbs) == (86, 1)
    assert sums.sums(by_group, "x_").base == 0
    of_groups = [sum(map(int, x[g == group])) for group in range(50)]
    assert [int(total) for total in by_group["x_limb0"].to_pylist()] == of_groups
    assert finished(sums, by_group, Float64) == [float(total).hex() for total in of_groups]
