"""Columns in less usual forms are the same keys and values on every path: a source, a spine, a push and a lookup."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from featurestore import Entity, FeatureService, FeatureView, PushSource
from featurestore.declare.frames import table_of
from featurestore.errors import PushError, RequestError, SpineError
from featurestore.types import Bytes, FeatureType, Int32, Int64, String, Timestamp
from tests.small import NOON, TIME, both, hours, opened, raised, table, view_of

AT = pa.array([hours(-1)] * 2, TIME)
IDS = [uuid.UUID(int=5), uuid.UUID(int=2**127)]


FORMS: dict[str, tuple[FeatureType, list[Any], Callable[[], Any]]] = {
    "uint64": (Int64, [1, 2], lambda: pa.array([1, 2], pa.uint64())),
    "wider": (Int32, [1, 2], lambda: pa.array([1, 2])),
    "long text": (String, ["a", "b"], lambda: pa.array(["a", "b"], pa.large_string())),
    "viewed text": (String, ["a", "b"], lambda: pa.array(["a", "b"], pa.string_view())),
    "text of pandas": (String, ["a", "b"], lambda: pd.Series(["a", "b"])),
    "category": (String, ["a", "b"], lambda: pd.Series(["a", "b"], dtype="category")),
    "sparse": (Int64, [0, 3], lambda: pd.Series(pd.arrays.SparseArray([0, 3]))),
    "UUID": (String, list(map(str, IDS)), lambda: pa.ExtensionArray.from_storage(pa.uuid(), pa.array([one.bytes for one in IDS], pa.binary(16)))),
    "UUID of pandas": (String, list(map(str, IDS)), lambda: pd.Series(IDS)),
    "bytes of one width": (Bytes, [b"ab", b"cd"], lambda: pa.array([b"ab", b"cd"], pa.binary(2))),
    "HUGEINT": (Int64, [1, 2], lambda: duckdb.sql("SELECT unnest([1, 2])::HUGEINT AS x").to_arrow_table()["x"]),
    "lazy": (Int64, [1, 2], lambda: pl.Series([1, 2])),
}  # fmt: skip


def framed(form: str, **beside: Any) -> Any:
    """A frame of key `k` in a form, in the library that has it."""
    made = FORMS[form][2]()
    if isinstance(made, pd.Series):
        return pd.DataFrame({"k": made, **{name: pd.Series(of.to_pylist()) for name, of in beside.items()}})
    frame = pa.table({"k": made, **beside})
    return pl.DataFrame(frame).lazy() if isinstance(made, pl.Series) else frame


@pytest.mark.parametrize("form", FORMS)
def test_a_key_is_one_key_in_every_form(form: str) -> None:
    """Pushed, asked for in training and looked up in the form; the values are those of plain keys."""
    of, plain, _ = FORMS[form]
    schema = {"k": of, "at": Timestamp, "x": Int64}
    pushed = PushSource("rows", schema=schema, event_time="at")
    view = FeatureView("view", entity=Entity("spot", key={"k": of}), source=pushed, features=["x"])
    with opened(view) as (store, clock):
        store.push("rows", framed(form, at=AT, x=pa.array([10, 20])))
        online = store.get_online_features(framed(form), "service").to_dict()
        assert online == {"k": plain, "view__x": [10, 20]}
        spine = framed(form, event_timestamp=pa.array([clock()] * 2, TIME))
        assert store.get_historical_features(spine, "service").to_arrow()["view__x"].to_pylist() == [10, 20]
        assert both(store, k=plain)["view__x"] == [10, 20]


@pytest.mark.parametrize(
    "form", ["long text", "viewed text", "text of pandas", "category", "sparse", "UUID", "UUID of pandas", "lazy"]
)
def test_a_source_takes_what_a_push_takes(form: str) -> None:
    of, plain, _ = FORMS[form]
    with opened(view_of(framed(form, at=AT, x=pa.array([10, 20])), ["x"], entity=Entity("spot", key={"k": of}))) as (
        store,
        _,
    ):
        assert both(store, k=plain)["view__x"] == [10, 20]


class Streamed:
    """A frame of a library that has nothing of Arrow's but the interface."""

    def __init__(self, frame: pa.Table) -> None:
        self.frame = frame

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.frame.__arrow_c_stream__(requested_schema)


class Batch:
    """Rows of such a library in one piece."""

    def __init__(self, frame: pa.Table) -> None:
        (self.batch,) = frame.to_batches()

    def __arrow_c_array__(self, requested_schema: object = None) -> object:
        return self.batch.__arrow_c_array__(requested_schema)


@pytest.mark.parametrize("made", [Streamed, Batch, duckdb.from_arrow, pa.Table.to_reader])
def test_frames_of_any_library_go_in_and_out(made: Callable[[pa.Table], Any]) -> None:
    """By the Arrow PyCapsule interface alone: a source's rows, pushed ones, a spine and the rows of a lookup, and the answers."""
    rows = pa.table({"thing": [1, 2], "at": AT, "x": [10, 20]})
    filed = view_of(made(rows), ["x"])
    pushed = PushSource("rows", schema={"thing": Int64, "at": Timestamp, "x": Int64}, event_time="at")
    told = FeatureView("told", entity=filed.entity, source=pushed, features=["x"])
    with opened(filed, FeatureService("service", features=[filed, told])) as (store, clock):
        store.push("rows", made(rows))
        store.materialize(progress=False)
        spine = made(pa.table({"thing": [1, 2, 3], "event_timestamp": pa.array([clock()] * 3, TIME)}))
        answers = [
            store.get_historical_features(spine, "service"),
            store.get_online_features(made(pa.table({"thing": [1, 2, 3]})), "service"),
        ]
        for answer in answers:
            given = Streamed(answer)  # type: ignore[arg-type]  # an answer of any library
            for found in (pl.DataFrame(given), pa.table(given), duckdb.from_arrow(pa.table(given)).pl()):
                assert pa.table(found)["view__x"].to_pylist() == [10, 20, None]
                assert pa.table(found)["told__x"].to_pylist() == [10, 20, None]


def test_one_column_of_another_library_is_no_frame() -> None:
    """Nor a column of Arrow's own; a batch in the form of one is."""
    for one in (pa.array([1]), pa.chunked_array([[1]]), Streamed(pa.chunked_array([[1]]))):
        with pytest.raises(TypeError, match="is no frame, but one column"):
            table_of(one)
    assert table_of(pa.record_batch({"a": [1]}).to_struct_array()).to_pydict() == {"a": [1]}


def test_what_does_not_fit_is_refused_by_its_row() -> None:
    great = pa.array([1, 2**63], pa.uint64())
    schema = {"k": Int64, "at": Timestamp, "x": Int64}
    pushed = PushSource("rows", schema=schema, event_time="at")
    view = FeatureView("view", entity=Entity("spot", key={"k": Int64}), source=pushed, features=["x"])
    with opened(view) as (store, _):
        store.push("rows", table(k=[1], at=[hours(-1)], x=[1]))
        says = "9223372036854775808 does not fit Int64"
        assert f"row 1, column 'k' must be Int64: {says}" in raised(
            PushError, lambda: store.push("rows", pa.table({"k": great, "at": AT}))
        )
        assert f"Row 1: 'k' must be Int64: {says}" in raised(
            RequestError, lambda: store.get_online_features(pa.table({"k": great}), "service")
        )
        for huge in (["1", "1" * 38], ["1", "-" + "1" * 38]):
            frame = pa.table({"k": pa.array(huge).cast(pa.decimal128(38, 0))})
            assert "Row 1: 'k' must be Int64" in raised(
                RequestError, lambda frame=frame: store.get_online_features(frame, "service")
            )
        spine = pa.table({"k": great, "event_timestamp": pa.array([NOON] * 2, TIME)})
        assert f"Row 1 of the spine: 'k' must be Int64: {says}" in raised(
            SpineError, lambda: store.get_historical_features(spine, "service")
        )


def test_a_key_column_without_a_value_is_missing_everywhere() -> None:
    with opened(view_of(table(thing=[1], at=[hours(-1)], x=[1]), ["x"])) as (store, clock):
        store.materialize(progress=False)
        for nothing in (pa.nulls(2), pa.nulls(2, pa.string()), pa.nulls(2, pa.float64())):
            frame = pa.table({"thing": nothing})
            assert store.get_online_features(frame, "service").statuses["view__x"] == ["MISSING"] * 2
            spine = frame.append_column("event_timestamp", pa.array([clock()] * 2, TIME))
            trained = store.get_historical_features(spine, "service", with_status=True).to_arrow()
            assert trained["view__x__status"].to_pylist() == ["MISSING"] * 2
        empty = pd.DataFrame({"thing": [np.nan], "event_timestamp": [clock()]})
        assert store.get_historical_features(empty, "service").to_arrow()["view__x"].to_pylist() == [None]
