"""Every fold, over every type that it takes: an exact commutative monoid whose answer is the oracle's."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.semantics.folds import FOLDS, Algebra
from featurestore.types import Array, Decimal, FeatureType, Float32, Float64, Int32, Int64
from tests import fold_oracle
from tests.draws import draws
from tests.oracle import sort_key
from tests.semantics.values import NUMBERS, SCALARS, TYPES, lifted, merged, name, rows_of


class Case(NamedTuple):
    kind: str
    column: FeatureType | None
    result: FeatureType
    parameters: dict[str, Any]

    @property
    def algebra(self) -> Algebra:
        return FOLDS[self.kind].algebra(self.column, self.result, **self.parameters)

    @property
    def values(self) -> FeatureType:
        """What is drawn where no column is named."""
        return self.column or Int64

    def __str__(self) -> str:
        return f"{self.kind}({self.column}, {self.parameters}) -> {self.result}"


def case(kind: str, column: FeatureType | None, result: FeatureType | None = None, **parameters: Any) -> Case:
    return Case(kind, column, result or FOLDS[kind].result(column, **parameters), parameters)


EXACT = [
    case("Count", None),
    *(case("Count", of) for of in (Int64, Float64, Array(Float64))),
    *(case(kind, of) for kind in ("Sum", "Mean", "Var", "StdDev") for of in NUMBERS),
    *(case(kind, of, Float32) for kind in ("Sum", "Mean", "Var", "StdDev") for of in (Float32, Float64)),
    *(case("Mean", of, Float32) for of in (Int64, Decimal(38, 20))),
    case("Sum", Int64, Decimal(38, 0)),
    case("Sum", Int64, Decimal(22, 3)),
    case("Sum", Int32, Int32),
    case("Sum", Decimal(10, 2), Decimal(12, 4)),
    *(case(kind, of, ddof=0) for kind in ("Var", "StdDev") for of in (Int64, Float64)),
    case("Var", Float64, ddof=3),
    *(case(kind, of) for kind in ("Min", "Max") for of in SCALARS),
    case("Min", Int32, Float64),
    case("Max", Int64, Decimal(38, 4)),
    *(case(kind, of) for kind in ("Latest", "First") for of in TYPES),
    case("Latest", Int32, Int64),
    case("First", Array(Int64), Array(Decimal(20, 1))),
    *(case(kind, of, n=n) for kind in ("LastN", "LastDistinctN") for of, n in zip(SCALARS, [1, 2, 3, 5] * 3)),
    case("LastN", Int32, Array(Float64), n=3),
    *(case("CountDistinct", of, bound=bound) for of, bound in zip(TYPES, [1, 2, 4, 100] * 4)),
]
APPROXIMATE = [
    *(case("ApproxCountDistinct", of, precision=4) for of in TYPES),
    case("ApproxCountDistinct", Int64),
    *(case("ApproxQuantile", of, q=q) for of, q in zip(NUMBERS, [0.0, 0.5, 0.9, 1.0, 0.25, 0.5, 0.75])),
    case("ApproxQuantile", Float64, q=0.5, accuracy=0.3),
]
every_fold = pytest.mark.parametrize("case", EXACT + APPROXIMATE, ids=str)
exact_folds = pytest.mark.parametrize("case", EXACT, ids=str)
few = settings(max_examples=draws(25), deadline=None)


def test_every_fold_is_tried() -> None:
    """A row of the table without a case here would be a fold that nothing holds to its meaning."""
    assert {case.kind for case in EXACT + APPROXIMATE} == set(FOLDS)


@exact_folds
@few
@given(data=st.data())
def test_a_fold_is_what_the_oracle_says(case: Case, data: st.DataObject) -> None:
    """Whatever the tree along which rows were merged, to the bit, status included."""
    rows = data.draw(rows_of(case.values))
    algebra = case.algebra
    value, status = algebra.finish(merged(algebra, lifted(algebra, rows), data.draw(st.integers(0, 99))))
    column = None if case.column is None else name(case.column)
    expected, expected_status = fold_oracle.fold(case.kind, column, name(case.result), rows, **case.parameters)
    assert status.name == expected_status
    if expected is not None:
        expected = case.result.accept(expected)
    assert sort_key(name(case.result), value) == sort_key(name(case.result), expected), (value, expected)
    assert value is None or type(value) is type(expected)


@every_fold
@few
@given(data=st.data())
def test_states_of_the_same_rows_are_the_same_bytes(case: Case, data: st.DataObject) -> None:
    """merge is associative and commutative to the bit, zero changes nothing, and bytes read back as the state."""
    rows = data.draw(rows_of(case.values))
    algebra = case.algebra
    states = lifted(algebra, rows)
    one, other = (merged(algebra, states, seed) for seed in data.draw(st.tuples(st.integers(), st.integers())))
    packed = algebra.pack(one)
    assert one == other
    assert algebra.pack(other) == packed
    assert algebra.pack(algebra.merge(algebra.zero, one)) == packed == algebra.pack(algebra.merge(one, algebra.zero))
    assert algebra.unpack(packed) == one
    assert algebra.pack(algebra.unpack(packed)) == packed
    unpacked = [algebra.unpack(algebra.pack(state)) for state in states]
    assert algebra.pack(merged(algebra, unpacked)) == packed


@every_fold
@few
@given(data=st.data())
def test_different_states_are_different_bytes(case: Case, data: st.DataObject) -> None:
    """pack is one to one."""
    algebra = case.algebra
    one, other = (merged(algebra, lifted(algebra, data.draw(rows_of(case.values, most=3)))) for _ in "ab")
    assert (algebra.pack(one) == algebra.pack(other)) == (one == other)


@pytest.mark.parametrize("kind", ["Var", "StdDev"])
@pytest.mark.parametrize(
    ("values", "ddof", "is_null"),
    [
        ([math.nan], 0, False), ([math.inf], 1, True), ([math.nan, 1.0], 1, False), ([1.0, -math.inf], 1, False),
        ([math.inf, math.inf], 2, True), ([math.nan, math.inf, 0.5], 2, False),
    ],
)  # fmt: skip
def test_a_spread_counts_what_is_no_number(kind: str, values: list[float], ddof: int, is_null: bool) -> None:
    """It is NaN from as many values on as any other spread, and null before."""
    algebra = case(kind, Float64, ddof=ddof).algebra
    value, _ = algebra.finish(merged(algebra, lifted(algebra, list(enumerate(values)))))
    assert value is None if is_null else math.isnan(value)


def test_which_folds_are_numbers() -> None:
    """Count, Sum, Mean, Var and StdDev, and no others: rows can be taken out of their tiles again."""
    assert {case.kind for case in EXACT + APPROXIMATE if case.algebra.numbers} == {
        "Count",
        "Sum",
        "Mean",
        "Var",
        "StdDev",
    }


def test_which_folds_ask_for_an_order_and_which_are_large() -> None:
    """Those that pick rows; those whose states grow with the values, of which a continuous view keeps few in a window."""
    assert {kind for kind, row in FOLDS.items() if row.ordered} == {"Latest", "First", "LastN", "LastDistinctN"}
    large = {kind for kind, row in FOLDS.items() if row.large}
    assert large == {"CountDistinct", "ApproxCountDistinct", "ApproxQuantile"}


@pytest.mark.parametrize("case", [case for case in EXACT if case.algebra.numbers], ids=str)
@few
@given(data=st.data())
def test_numbers_of_states_add_up_one_by_one(case: Case, data: st.DataObject) -> None:
    """So that tiles keep them as columns: the merge of two states has the sums of their integers."""
    algebra = case.algebra
    a, b = (merged(algebra, lifted(algebra, data.draw(rows_of(case.values)))) for _ in "ab")
    one, two, both = (state if isinstance(state, tuple) else (state,) for state in (a, b, algebra.merge(a, b)))
    assert both == tuple(x + y for x, y in zip(one, two, strict=True))
    assert len(both) == len(algebra.numbers)


@every_fold
@few
@given(data=st.data())
def test_many_states_at_once_are_each_alone(case: Case, data: st.DataObject) -> None:
    """finish_many is finish of each, and merge_packed the merge of states that follow each other in time."""
    algebra = case.algebra
    rows = [(number, value) for number, (_, value) in enumerate(data.draw(rows_of(case.values)))]
    states = [algebra.zero, *(merged(algebra, some) for some in (lifted(algebra, rows[:3]), lifted(algebra, rows[3:])))]
    values, statuses = algebra.finish_many(states * 20)
    alone = [algebra.finish(state) for state in states * 20]
    assert statuses == [status for _, status in alone]
    of = name(case.result)
    assert [sort_key(of, value) for value in values] == [sort_key(of, value) for value, _ in alone]
    packed = [algebra.pack(state) if state != algebra.zero else b"" for state in states]
    assert algebra.merge_packed(packed) == merged(algebra, states)


@pytest.mark.parametrize("case", [case for case in EXACT if case.kind in {"Latest", "First", "LastN"}], ids=str)
@few
@given(data=st.data())
def test_places_may_be_bytes(case: Case, data: st.DataObject) -> None:
    """A fold by bytes that order as ints do gives what the ints give."""
    rows = data.draw(rows_of(case.values))
    algebra = case.algebra
    placed = [((place + 4).to_bytes(8, "big"), value) for place, value in rows]
    by_bytes = merged(algebra, lifted(algebra, placed))
    found = algebra.finish(algebra.unpack(algebra.pack(by_bytes)))[0]
    expected = algebra.finish(merged(algebra, lifted(algebra, rows)))[0]
    assert sort_key(name(case.result), found) == sort_key(name(case.result), expected)


REFUSED = [
    ("Sum", None, {}), ("Sum", "String", {}), ("Mean", "Bool", {}), ("Var", "Date", {}), ("StdDev", "Int64", {"ddof": -1}),
    ("Min", "Array(Int64)", {}), ("Max", None, {}), ("Latest", None, {}), ("LastN", "Int64", {"n": 0}),
    ("LastN", "Array(Int64)", {"n": 1}), ("CountDistinct", "Int64", {"bound": 0}), ("CountDistinct", None, {"bound": 1}),
    ("ApproxCountDistinct", "Int64", {"precision": 3}), ("ApproxQuantile", "String", {"q": 0.5}),
    ("ApproxQuantile", "Int64", {"q": 1.5}), ("ApproxQuantile", "Int64", {"q": 0.5, "accuracy": 0.0}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "column", "parameters"), REFUSED, ids=str)
def test_columns_and_parameters_that_a_fold_does_not_take(kind: str, column: str | None, parameters: dict) -> None:
    """A ValueError says so before anything is computed."""
    from featurestore.types import parse_type

    with pytest.raises(ValueError, match=r"it needs|it takes|is at least|is 0|is 4"):
        FOLDS[kind].result(None if column is None else parse_type(column), **parameters)


WRONG_RESULTS = [
    ("Count", Int64, Int32, {}), ("Sum", Int64, Float64, {}), ("Sum", Float64, Int64, {}),
    ("Sum", Decimal(10, 2), Decimal(38, 1), {}), ("Sum", Decimal(10, 0), Int64, {}), ("Mean", Int64, Int64, {}),
    ("Var", Int64, Int64, {}), ("Min", Int64, Int32, {}), ("Latest", Float64, Float32, {}),
    ("LastN", Int64, Array(Int32), {"n": 1}), ("LastN", Float32, Array(Float32, 2), {"n": 2}),
    ("LastN", Int64, Int64, {"n": 1}), ("CountDistinct", Int64, Int32, {"bound": 1}),
    ("ApproxCountDistinct", Int64, Float64, {}), ("ApproxQuantile", Int64, Int64, {"q": 0.5}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "column", "result", "parameters"), WRONG_RESULTS, ids=str)
def test_results_that_a_fold_cannot_have(kind: str, column: FeatureType, result: FeatureType, parameters: dict) -> None:
    """A ValueError names the type."""
    with pytest.raises(ValueError, match=str(result).replace("(", r"\(").replace(")", r"\)")):
        FOLDS[kind].algebra(column, result, **parameters)
