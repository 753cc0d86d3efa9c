"""What a lookup makes of the rows that it is given: each value as its input's type, or an error that says which row has what."""

from __future__ import annotations

import math
from datetime import date
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore import Entity, FeatureService, FeatureStore, Latest
from featurestore.errors import RequestError
from featurestore.serving.lookup import rows_of
from featurestore.types import Bool, Date, FeatureType, Int32, Int64, String, column_of, from_json
from tests.small import NOON, opened, raised, table, view_of

TYPES: dict[str, FeatureType] = {"n": Int64, "s": String}


def served(store: FeatureStore, rows: Any, *, json: bool = False) -> list[Any]:
    return store.lookup("service").get(rows, json=json).to_dict()["view__x"]


@pytest.mark.parametrize(
    ("given", "rows"),
    [
        ({"n": 1}, [{"n": 1}]),
        ([{"n": 1}, {"n": 2, "more": 3}], [{"n": 1}, {"n": 2, "more": 3}]),
        ({"n": [1, 2], "s": np.array(["a", "b"])}, [{"n": 1, "s": "a"}, {"n": 2, "s": "b"}]),
        ({"n": [1, 2], "s": ["a", "b"], "more": [0, 0]}, [{"n": 1, "s": "a"}, {"n": 2, "s": "b"}]),
        (pa.table({"n": [1, None]}), [{"n": 1}, {"n": None}]),
        (pa.table({"more": [1, 2]}), [{}, {}]),
        (pd.DataFrame({"n": [1.0, None, 2.0]}), [{"n": 1}, {"n": None}, {"n": 2}]),
        (pa.table({"n": pa.array([Decimal("2.0"), None], pa.decimal128(4, 1))}), [{"n": 2}, {"n": None}]),
    ],
)
def test_rows_come_in_any_form(given: Any, rows: list[dict[str, Any]]) -> None:
    found = list(rows_of(given, {name: of for name, of in TYPES.items() if name in rows[0]}))
    assert found == rows
    assert [type(row.get("n")) for row in found] == [type(row.get("n")) for row in rows]


@pytest.mark.parametrize(
    ("given", "value"),
    [
        (pd.DataFrame({"n": [2.0**53]}), 2**53),
        (pa.table({"n": [1.0]}), 1.0),  # a float that was meant as one
        (pa.table({"n": [Decimal("1.5")]}), Decimal("1.5")),
    ],
)
def test_a_number_is_an_integer_only_where_it_surely_is_one(given: Any, value: Any) -> None:
    (row,) = rows_of(given, {"n": Int64})
    assert (row["n"], type(row["n"])) == (value, type(value))


@pytest.mark.parametrize("value", [1.5, 2.0**60, math.inf])
def test_a_float_of_pandas_that_is_no_integer_is_named_with_its_row(value: float) -> None:
    with pytest.raises(RequestError, match="^Row 1: 'n' must be Int64"):
        rows_of(pd.DataFrame({"n": [1.0, value]}), {"n": Int64})


@pytest.mark.parametrize(
    ("given", "column"),
    [
        ({"n": 1, "s": ["a"]}, "'n' is one int"),
        ({"n": [1], "s": "a"}, "'s' is one str"),
        ({"n": [1, 2], "s": "ab"}, "'s' is one str"),
        ({"n": (1,), "s": None}, "'s' is one NoneType"),
    ],
)
def test_one_value_beside_lists_is_neither_a_row_nor_a_column(given: Any, column: str) -> None:
    """A text is no list of its letters."""
    with pytest.raises(RequestError, match=f"^The frame cannot be read: column {column}, and must be a list"):
        rows_of(given, {"n": Int64})


@pytest.mark.parametrize("given", ["text", b"bytes", 7])
def test_what_is_no_rows_is_refused(given: Any) -> None:
    with pytest.raises(RequestError, match=f"^{type(given).__name__} is neither rows nor a frame"):
        rows_of(given, {"n": Int64})


EDGES: list[tuple[FeatureType, list[Any], list[Any]]] = [
    (Int32, [2**31 - 1, -(2**31)], [2**31, -(2**31) - 1, True, 1.0, "1"]),
    (Int64, [2**63 - 1, -(2**63)], [2**63, -(2**63) - 1, True]),
    (String, ["", "a"], [1, b"a"]),
    (Bool, [True, False], [1, 0]),
]


@pytest.mark.parametrize(("of", "good", "bad"), EDGES, ids=str)
@pytest.mark.parametrize("beside", [0, 1])
def test_values_at_the_edge_of_a_type(of: FeatureType, good: list[Any], bad: list[Any], beside: int) -> None:
    """Alone and beside others, all equal or not."""
    entity = Entity("one", key={"k": of})
    rows = table(k=pa.array(good, of.arrow), at=[NOON] * len(good), x=list(range(len(good))))
    with opened(view_of(rows, {"x": Latest("x")}, entity=entity)) as (store, _):
        store.materialize(progress=False)
        for number, value in enumerate(good):
            asked = [{"k": value}] * (1 + beside)
            assert served(store, asked) == [number] * (1 + beside)
        assert served(store, [{"k": value} for value in good]) == list(range(len(good)))
        for value in bad:
            for asked in ([{"k": good[0]}] * beside + [{"k": value}], [{"k": value}] * (1 + beside)):
                with pytest.raises(RequestError, match=r"^Row \d: 'k' must be"):
                    served(store, asked)


def test_an_error_names_the_first_row_that_is_wrong_and_what_it_brings() -> None:
    view = view_of(table(thing=[1], at=[NOON], x=[5]), {"x": Latest("x")})
    with opened(view, FeatureService("service", features=[view])) as (store, _):
        store.materialize(progress=False)
        assert served(store, []) == served(store, pd.DataFrame([])) == []
        for rows, said in [
            ([{"thing": 1}, 7], "Row 1 is int, and must map names to values"),
            ([{"thing": 1}, {"a": 1, "b": 2}], "Row 1 has no 'thing' (Int64); it brings a, b"),
            ([{}], "Row 0 has no 'thing' (Int64); it brings nothing"),
            (
                pa.table({"a": [1], "think": [2]}),
                "The frame has no input column 'thing'. Did you mean 'think'? Its columns: a, think.",
            ),
            ({"a": [1]}, "The frame has no input column 'thing'. Its columns: a."),
            ([{"thing": 1}, {"thing": "x"}, {"thing": "y"}], "Row 1: 'thing' must be Int64: "),
        ]:
            assert str(raised(RequestError, lambda rows=rows: served(store, rows))).startswith(said)


def test_json_forms_are_read_as_what_they_say() -> None:
    """Whether rows share a value or not, each is read as its type, and a wrong one is named."""
    entity = Entity("one", key={"k": Date})
    rows = table(k=[date(2024, 5, 1), date(2024, 5, 2)], at=[NOON] * 2, x=[1, 2])
    with opened(view_of(rows, {"x": Latest("x")}, entity=entity)) as (store, _):
        store.materialize(progress=False)
        assert served(store, [{"k": "2024-05-01"}, {"k": "2024-05-02"}], json=True) == [1, 2]
        assert served(store, [{"k": "2024-05-02"}] * 2, json=True) == [2, 2]
        for asked in ([{"k": "2024-05-01"}, {"k": "May"}], [{"k": "2024-05-01"}, {"k": 7}]):
            with pytest.raises(RequestError, match="^Row 1: 'k' must be Date"):
                served(store, asked, json=True)
        with pytest.raises(RequestError, match="^Row 0: 'k' must be Date"):
            served(store, [{"k": "2024-05-01"}])


MIXED = st.lists(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**31) - 2, 2**31 + 1),
        st.sampled_from([2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 1.0, math.nan, "", "a", "ä", "\ud800"]),
    ),
    min_size=1,
    max_size=4,
)


@pytest.mark.parametrize("of", [Bool, Int32, Int64, String], ids=str)
@given(values=MIXED | st.lists(st.integers(-3, 3), min_size=1) | st.lists(st.sampled_from(["a", "ä"]), min_size=1))
def test_a_column_of_values_is_taken_as_each_of_them_is(of: FeatureType, values: list[Any]) -> None:
    """Also where that all of them are plain is seen at once."""

    def taken(read: Any) -> Any:
        try:
            return [(type(value), value) for value in read()]
        except ValueError:
            return ValueError

    assert taken(lambda: column_of(of, values, json=True)) == taken(lambda: [from_json(of, value) for value in values])
    assert taken(lambda: column_of(of, values, json=False)) == taken(lambda: [of.accept(value) for value in values])
