"""Frames that Arrow would take and no value can be made of: one clear sentence on every path, and nothing of it kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import DataFrameSource, Entity, FeatureView, PushSource
from featurestore.declare.frames import table_of
from featurestore.errors import DeclarationError, PushError, RequestError, SpineError
from featurestore.types import Int64, String, Timestamp
from tests.small import NOON, TIME, both, hours, opened, table, trained, view_of

AT = pa.array([hours(-1)], TIME)
BROKEN = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(np.array([0, 2], "i4").tobytes()), pa.py_buffer(b"\xff\xfe")])  # fmt: skip
TIMED = pl.DataFrame({"at": [hours(-1)], "event_timestamp": [NOON]})


def framed(made: pa.Array) -> Callable[[], Any]:
    return lambda: pa.table({"k": made, "at": AT, "event_timestamp": pa.array([NOON], TIME)})


FRAMES: dict[str, tuple[Callable[[], Any], str]] = {
    "text": (framed(BROKEN), "'k' holds text that is not UTF-8"),
    "long text": (framed(pa.Array.from_buffers(pa.large_string(), 1, [None, pa.py_buffer(np.array([0, 2]).tobytes()), pa.py_buffer(b"\xff\xfe")])), "UTF-?8"),
    "text in lists": (framed(pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), BROKEN)), "'k' holds text that is not UTF-8"),
    "text of categories": (framed(pa.DictionaryArray.from_arrays(pa.array([0], pa.int8()), BROKEN)), "'k' holds text that is not UTF-8"),
    "objects": (lambda: TIMED.with_columns(pl.Series("k", [object()], dtype=pl.Object)), "'k' is Object"),
    "128 bits": (lambda: TIMED.with_columns(k=pl.lit(2**100, dtype=pl.Int128)), "row 0, column 'k': 1267650600228229401496703205376 is beyond Int64"),
    "lists of 128 bits": (lambda: TIMED.with_columns(k=pl.lit(5).cast(pl.Int128).implode()), r"'k' is List\(Int128\)"),
    "lazy": (lambda: pl.scan_parquet("there/is/none.parquet"), "the lazy frame cannot be collected"),
    "one text beside lists": (lambda: {"k": "a", "at": [hours(-1)], "event_timestamp": [NOON]}, "column 'k' is one str, and must be a list with a value for each row"),
    "one number beside lists": (lambda: {"k": 1, "at": [hours(-1)], "event_timestamp": [NOON]}, "column 'k' is one int, and must be a list with a value for each row"),
    "values in no order": (lambda: {"k": {"a"}, "at": [hours(-1)], "event_timestamp": [NOON]}, "column 'k' is one set, and must be a list with a value for each row"),
    "lazily wrong": (lambda: TIMED.lazy().select(k=pl.col("none")), "the lazy frame cannot be collected"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FRAMES)
def test_a_frame_that_holds_no_values_is_refused_everywhere(kind: str) -> None:
    made, why = FRAMES[kind]
    with pytest.raises(ValueError, match=why):
        table_of(made())
    with pytest.raises(DeclarationError, match=why):
        DataFrameSource("rows", made(), event_time="at")
    schema = {"k": String, "at": Timestamp, "event_timestamp": Timestamp}
    pushed = PushSource("rows", schema=schema, event_time="at")
    view = FeatureView("view", entity=Entity("spot", key={"k": String}), source=pushed, features=["event_timestamp"])
    with opened(view) as (store, _):
        with pytest.raises(PushError, match=why):
            store.push("rows", made())
        with pytest.raises(RequestError, match=why):
            store.get_online_features(made(), "service")
        with pytest.raises(SpineError, match=why):
            store.get_historical_features(made(), "service").to_arrow()
        with pytest.raises(SpineError, match=why):
            store.audit(spine=made())
        assert store.push("rows", {"k": "a", "at": hours(-1), "event_timestamp": NOON}).accepted == 1


def test_a_spine_in_a_file_with_text_that_is_none_is_refused(tmp_path: Any) -> None:
    spine = pa.table({"thing": [1], "label": BROKEN, "event_timestamp": pa.array([NOON], TIME)})
    pq.write_table(spine, tmp_path / "spine.parquet")
    rows = table(thing=[1], at=[hours(-1)], x=[1.0])
    with (
        opened(view_of(rows, ["x"])) as (store, _),
        pytest.raises(SpineError, match="from row 0 on: column 'label' holds text that is not UTF-8"),
    ):
        store.get_historical_features(tmp_path / "spine.parquet", "service").to_arrow()


@pytest.mark.parametrize("of", [pl.Int128, pl.UInt128])
def test_integers_of_128_bits_that_fit_are_keys_values_and_labels(of: Any) -> None:
    wide = pl.DataFrame(
        {"thing": pl.Series([1, 2], dtype=of), "at": [hours(-1)] * 2, "x": pl.Series([5, None], dtype=of)}
    )
    with opened(view_of(wide, ["x"])) as (store, _):
        assert both(store, thing=[1, 2])["view__x"] == [5, None]
        spine = pl.DataFrame({"thing": wide["thing"], "event_timestamp": [NOON] * 2, "label": wide["x"]})
        found = store.get_historical_features(spine, "service").to_arrow()
        assert found["view__x"].to_pylist() == found["label"].to_pylist() == [5, None]
        assert store.get_online_features(wide.select("thing"), "service").to_dict()["view__x"] == [5, None]
        assert trained(store, NOON, thing=[1])["view__x"].to_pylist() == [5]


@pytest.mark.parametrize("one", [pd.Series([1]), pl.Series([1])], ids=["pandas", "polars"])
def test_one_column_is_no_frame(one: Any) -> None:
    with pytest.raises(TypeError, match="Series is no frame"):
        table_of(one)
    schema = {"thing": Int64, "at": Timestamp}
    with pytest.raises(DeclarationError, match="Series is no frame"):
        DataFrameSource("rows", one, event_time="at")
    view = FeatureView(
        "view", entity=Entity("spot", key={"thing": Int64}), features=["at"],
        source=PushSource("rows", schema=schema, event_time="at"),
    )  # fmt: skip
    with opened(view) as (store, _), pytest.raises(PushError, match="Series is neither rows nor a frame"):
        store.push("rows", one)
