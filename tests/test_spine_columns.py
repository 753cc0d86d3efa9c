"""A spine's columns are read by their exact names, and as the types that they are; what fits an input's type is taken."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import DataFrameSource, Entity, FeatureService, FeatureStore, Latest, Request, on_demand
from featurestore.errors import DeclarationError, RequestError, SpineError
from featurestore.types import Array, FeatureType, Float32, Float64, Int32, Int64, String
from featurestore.types import Decimal as DecimalType
from tests.small import NOON, hours, opened, raised, spine, table, view_of

PAIR = Entity("pair", key={"k": Int64, "K": Int64})
KINDS = ["pandas", "polars", "Arrow", "Parquet", "folder"]


def as_kind(kind: str, rows: pa.Table, folder: Path) -> Any:
    """The rows as a spine of some kind."""
    if kind == "pandas":
        return rows.to_pandas()
    if kind == "polars":
        return pl.DataFrame(rows)
    if kind in {"Parquet", "folder"}:
        place = folder / "a[1]" / "k=7"
        place.mkdir(parents=True)
        pq.write_table(rows.slice(0, 1), place / "0.parquet")
        pq.write_table(rows.slice(1), place / "1.parquet")
        pq.write_table(rows, folder / "spine.parquet")
        return folder / "spine.parquet" if kind == "Parquet" else folder / "a[1]"
    return rows


@pytest.mark.parametrize("kind", KINDS)
def test_names_that_differ_in_case_alone_are_two_columns(kind: str, tmp_path: Path) -> None:
    """Keys, labels and the timestamp, in spines of every kind; they come back with the names that they came with."""
    view = view_of(
        table(a=[1, 2], b=[3, 4], at=[hours(-1)] * 2, x=[10, 20]), ["x"], entity=PAIR, key={"k": "a", "K": "b"}
    )
    rows = spine(NOON, K=[3, 4, 3], k=[1, 2, 2], label=[0, 1, 0], LABEL=[5, 6, 7], Event_Timestamp=["u", "v", "w"])
    with opened(view) as (store, _):
        answer = store.get_historical_features(as_kind(kind, rows, tmp_path), "service").to_arrow()
        store.materialize(progress=False)
        online = store.get_online_features(rows.select(["K", "k"]), "service").to_dict()
    assert answer.column_names == [*rows.column_names, "view__x"]
    for name in rows.column_names[:-1]:
        assert answer[name].to_pylist() == rows[name].to_pylist()
    assert answer["view__x"].to_pylist() == online["view__x"] == [10, 20, None]


def test_a_relation_has_the_names_that_its_engine_gives_it() -> None:
    """DuckDB renames a column of a frame whose name it cannot tell from another's; of its own queries it does not."""
    view = view_of(
        table(a=[1, 2], b=[3, 4], at=[hours(-1)] * 2, x=[10, 20]), ["x"], entity=PAIR, key={"k": "a", "K": "b"}
    )
    rows = spine(NOON, K=[3, 4, 3], k=[1, 2, 2])
    with opened(view) as (store, _):
        own = duckdb.sql("""SELECT 4 AS "K", 2 AS k, TIMESTAMPTZ '2024-05-01 12:00:00+00' AS event_timestamp""")
        answer = store.get_historical_features(own, "service").to_arrow()
        assert (answer.column_names, answer["view__x"].to_pylist()) == (["K", "k", "event_timestamp", "view__x"], [20])
        renamed = duckdb.from_arrow(rows)
        message = raised(SpineError, lambda: len(store.get_historical_features(renamed, "service")))
    assert message.startswith("The spine has no input column 'k'. Its columns: K, event_timestamp, k_1.")


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_in_another_case_is_another_name(kind: str, tmp_path: Path) -> None:
    view = view_of(table(thing=[1], at=[hours(-1)], x=[10]), ["x"])
    rows = spine(NOON, Thing=[1, 1])
    with opened(view) as (store, _):
        message = raised(
            SpineError, lambda: len(store.get_historical_features(as_kind(kind, rows, tmp_path), "service"))
        )
    assert message.startswith("The spine has no input column 'thing'. Did you mean 'Thing'?")


def test_a_column_that_is_there_twice_is_refused_in_every_kind(tmp_path: Path) -> None:
    view = view_of(table(thing=[1], at=[hours(-1)], x=[10]), ["x"])
    rows = spine(NOON, thing=[1, 2])
    twice = pa.Table.from_arrays([*rows.columns, rows["thing"]], names=[*rows.column_names, "thing"])
    pq.write_table(twice, tmp_path / "twice.parquet")
    frame = pd.concat([rows.to_pandas(), rows.to_pandas()[["thing"]]], axis=1)
    with opened(view) as (store, _):
        for asked in (twice, frame, tmp_path / "twice.parquet", twice.to_reader()):
            message = raised(SpineError, lambda: len(store.get_historical_features(asked, "service")))  # noqa: B023
            assert "has a column 'thing' twice; rename or drop one of the two" in message


def test_files_of_a_spine_agree_in_their_columns_and_types(tmp_path: Path) -> None:
    """Nothing is cut to what the first file has; a column that is all null in a file has no type there."""
    view = view_of(table(thing=[1, 2], at=[hours(-1)] * 2, x=[10, 20]), ["x"])
    first, second = tmp_path / "0.parquet", tmp_path / "1.parquet"
    rows = spine(NOON, thing=[1], label=[None])
    pq.write_table(rows, first)

    def asked(other: pa.Table) -> pa.Table:
        pq.write_table(other, second)
        return store.get_historical_features(tmp_path, "service").to_arrow()

    with opened(view) as (store, _):
        answer = asked(spine(NOON, label=[0.1], thing=[2]))
        assert (answer["label"].to_pylist(), answer["view__x"].to_pylist()) == ([None, 0.1], [10, 20])
        pq.write_table(spine(NOON, thing=[1], label=pa.array([0.5], pa.float32())), first)
        message = raised(SpineError, lambda: asked(spine(NOON, thing=[2], label=[0.1])))
        assert message == f"The spine's files differ: column 'label' is float in {first} and double in {second}"
        message = raised(SpineError, lambda: asked(spine(NOON, thing=[2])))
        assert message == f"The spine's files differ: of {first} and {second}, only {first} has a column 'label'"


def test_a_parquet_spine_comes_back_with_its_own_types(tmp_path: Path) -> None:
    """Not with those that an engine has for them."""
    view = view_of(table(thing=[1], at=[hours(-1)], x=[10]), ["x"])
    rows = spine(
        NOON, thing=[1], great=pa.array([Decimal(10**40)], pa.decimal256(50)), small=pa.array([1.5], pa.float16())
    )
    rows = rows.append_column("when", pa.array([timedelta(days=1)], pa.duration("ms")))
    pq.write_table(rows, tmp_path / "spine.parquet")
    with opened(view) as (store, _):
        answer = store.get_historical_features(tmp_path / "spine.parquet", "service").to_arrow()
    assert answer.select(rows.column_names).equals(rows)


# --- expressions ------------------------------------------------------------------------------


def test_a_quoted_name_in_an_expression_is_exact() -> None:
    rows = table(thing=[1, 1], at=[hours(-1), hours(-2)], Amount=[9, 8])
    for words in ({"where": '"amount" = 9'}, {"derived": {"double": '2 * "amount"'}}):
        message = raised(DeclarationError, lambda: _opened(rows, words))  # noqa: B023
        assert "there is no column 'amount'; there is 'Amount', and a quoted name is exact" in message
    for where in ('"Amount" = 9', "Amount = 9", "amount = 9", """list_max([x + 1 for x in ["Amount"]]) = 10"""):
        assert _opened(rows, {"where": where}) == [9]


def _opened(rows: pa.Table, words: dict[str, Any]) -> list[Any]:
    derived = words.pop("derived", None)
    view = view_of(rows, {"x": Latest("double" if derived else "Amount")}, **words)
    if derived:
        source = view.source.model_copy(update={"derived": derived})
        view = view.model_copy(update={"source": source})
    with opened(view) as (store, _):
        store.materialize(progress=False)
        online: list[Any] = store.get_online_features([{"thing": 1}], "service").to_dict()["view__x"]
        assert (
            store.get_historical_features(spine(NOON, thing=[1]), "service").to_arrow()["view__x"].to_pylist() == online
        )
        return online


def test_derived_columns_that_differ_in_case_alone_are_refused() -> None:
    rows = table(thing=[1], at=[hours(-1)], x=[1])
    with pytest.raises(DeclarationError, match="derived columns 'late' and 'Late' differ in case alone"):
        DataFrameSource("rows", rows, event_time="at", derived={"late": "x > 1", "Late": "x > 2"})


# --- wider types ------------------------------------------------------------------------------

FITS: list[tuple[FeatureType, pa.Array, list[Any]]] = [
    (Int32, pa.array([1, -(2**31), 2**31 - 1, None], pa.int64()), [1, -(2**31), 2**31 - 1, None]),
    (Int32, pa.array([7, 2**31 - 1], pa.uint64()), [7, 2**31 - 1]),
    (Int64, pa.array([7, 2**63 - 1], pa.uint64()), [7, 2**63 - 1]),
    (
        DecimalType(10, 2),
        pa.array([Decimal("1.250"), Decimal("-99999999.990"), None], pa.decimal128(12, 3)),
        [Decimal("1.25"), Decimal("-99999999.99"), None],
    ),
    (DecimalType(10, 2), pa.array([Decimal("1.250")], pa.decimal256(60, 3)), [Decimal("1.25")]),
    (DecimalType(4, 1), pa.array([999, -5], pa.int64()), [Decimal("999.0"), Decimal("-5.0")]),
]
REQUESTS: list[tuple[FeatureType, pa.Array, list[Any]]] = [
    *FITS,
    (Float64, pa.array([2**53, -5], pa.int64()), [2.0**53, -5.0]),
    (Float32, pa.array([0.5, -0.0, float("inf")], pa.float64()), [0.5, -0.0, float("inf")]),
    (Array(Int32), pa.array([[1, None], [], None], pa.list_(pa.int64())), [[1, None], [], None]),
    (Array(Float32, 2), pa.array([[0.5, 1.0], None], pa.list_(pa.float64())), [[0.5, 1.0], None]),
]
UNFIT: list[tuple[FeatureType, pa.Array, str]] = [
    (Int32, pa.array([1, 2**31], pa.int64()), "2147483648 does not fit Int32"),
    (Int64, pa.array([1, 2**63], pa.uint64()), "9223372036854775808 does not fit Int64"),
    (
        DecimalType(10, 2),
        pa.array([Decimal("1.25"), Decimal("1.255")], pa.decimal128(12, 3)),
        "Decimal('1.255') has more than 2 decimal places",
    ),
    (DecimalType(4, 1), pa.array([999, 1000], pa.int64()), "1000 does not fit Decimal(4, 1)"),
    (Float64, pa.array([1, 2**53 + 1], pa.int64()), "9007199254740993 is not exactly a Float64; declare a wider type"),
    (Float32, pa.array([0.5, 0.1], pa.float64()), "0.1 is not exactly a Float32; declare a wider type"),
    (Array(Int32), pa.array([[1], [1, 2**31]], pa.list_(pa.int64())), "2147483648 does not fit Int32"),
]


def _store(of: FeatureType, values: pa.Array | None = None) -> Any:
    """A view by a key of a type where there are values of keys, and a function that gives back a request value."""
    key = Entity("thing", key={"key": of if values is not None else String})
    keys = pa.array(["a"]) if values is None else pa.array([v for v in values if v is not None], of.arrow)
    rows = table(key=keys, at=[hours(-1)] * len(keys), x=list(range(len(keys))))
    view = view_of(rows, ["x"], entity=key)

    @on_demand(inputs=[Request("asked", of)], output=of)
    def same(asked):
        return asked

    return opened(view), view, same


@pytest.mark.parametrize(("of", "given", "values"), FITS)
def test_keys_of_a_wider_type_are_taken_where_they_fit(of: FeatureType, given: pa.Array, values: list[Any]) -> None:
    world, _, _ = _store(of, values)
    with world as (store, _):
        store.materialize(progress=False)
        online = store.get_online_features([{"key": value} for value in given.to_pylist()], "service")
        answer = store.get_historical_features(spine(NOON, key=given), "service").to_arrow()
        there = [place for place, value in enumerate(values) if value is not None]
        assert (
            online.to_dict()["view__x"]
            == answer["view__x"].to_pylist()
            == [None if value is None else there.index(place) for place, value in enumerate(values)]
        )
        assert answer["key"].type == given.type


@pytest.mark.parametrize(("of", "given", "values"), REQUESTS)
def test_request_values_of_a_wider_type_are_taken_where_they_fit(
    of: FeatureType, given: pa.Array, values: list[Any]
) -> None:
    world, view, same = _store(of)
    with world as (store, _):
        rows = spine(NOON, asked=given, key=["a"] * len(given))
        answer = store.get_historical_features(rows, [view, same]).to_arrow()["same"]
        assert answer.type == of.arrow
        assert repr(answer.to_pylist()) == repr(values)
        online = _looked_up(store, view, same, given)
        assert repr(online) == repr(values)


@pytest.mark.parametrize(("of", "given", "problem"), UNFIT)
def test_a_value_that_does_not_fit_is_named(of: FeatureType, given: pa.Array, problem: str) -> None:
    """By row and column, in training as in a lookup."""
    world, view, same = _store(of)
    with world as (store, _):
        rows = spine(NOON, asked=given, key=["a", "a"])
        message = raised(SpineError, lambda: store.get_historical_features(rows, [view, same]))
        assert message.startswith(f"Row 1 of the spine: 'asked' must be {of}: {problem}")
        assert (
            raised(RequestError, lambda: _looked_up(store, view, same, given))
            == f"Row 1: 'asked' must be {of}: {problem}"
        )


def _looked_up(store: FeatureStore, view: Any, same: Any, given: pa.Array) -> list[Any]:
    store.apply([FeatureService("asking", features=[view, same])])
    store.materialize(progress=False)
    found: list[Any] = store.get_online_features(
        [{"key": "a", "asked": v} for v in given.to_pylist()], "asking"
    ).to_dict()["same"]
    return found
