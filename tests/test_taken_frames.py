"""What was taken stays as it was: nothing that a caller still holds changes it, and no answer changes another one."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from featurestore import (
    DataFrameSource,
    FeatureService,
    FeatureStore,
    LastN,
    Latest,
    ManualClock,
    PushSource,
    on_demand,
)
from featurestore.declare.frames import content_digest
from featurestore.push.rows import table_of_rows
from featurestore.types import Array, Float64, Int64, Timestamp
from tests.small import NOON, TIME, apply, both, hours, opened, table, view_of

AT = [hours(-2), hours(-1)]
MOMENTS = pa.array(AT, TIME)


def pandas_frame(values: npt.NDArray[np.int64]) -> Any:
    """A frame that numpy's memory is in, and stays in."""
    return pd.DataFrame({"thing": [1, 2], "at": AT, "x": pd.Series(values, copy=False)}, copy=False)


def changed_in_place(values: npt.NDArray[np.int64]) -> Any:
    """A frame whose own memory is changed by `loc`, which writes where it is the only one that it knows of."""
    return pd.DataFrame({"thing": [1, 2], "at": AT, "x": values.tolist()})


def arrow_of_numpy(values: npt.NDArray[np.int64]) -> Any:
    return pa.table({"thing": [1, 2], "at": MOMENTS, "x": pa.array(values)})


def arrow_of_foreign(values: npt.NDArray[np.int64]) -> Any:
    """Memory that says that it cannot be written, and is."""
    buffer = pa.foreign_buffer(values.ctypes.data, values.nbytes, values)
    return pa.table({"thing": [1, 2], "at": MOMENTS, "x": pa.Array.from_buffers(pa.int64(), 2, [None, buffer])})


def sliced(values: npt.NDArray[np.int64]) -> Any:
    whole = pa.concat_tables([arrow_of_foreign(values)] * 20)
    return whole.slice(2, 2)


def batch(values: npt.NDArray[np.int64]) -> Any:
    return arrow_of_numpy(values).to_batches()[0]


def reader(values: npt.NDArray[np.int64]) -> Any:
    return arrow_of_numpy(values).to_reader()


def polars_of_numpy(values: npt.NDArray[np.int64]) -> Any:
    return pl.DataFrame({"thing": [1, 2], "at": pl.Series(MOMENTS), "x": pl.Series(values)})


FRAMES = [
    pandas_frame, changed_in_place, arrow_of_numpy, arrow_of_foreign, sliced, batch, reader, polars_of_numpy,
]  # fmt: skip


def overwrite(frame: Any, values: npt.NDArray[np.int64]) -> None:
    values[:] = 99
    if isinstance(frame, pd.DataFrame):
        frame.loc[0, "x"] = 99


@pytest.mark.parametrize("made", FRAMES)
def test_a_source_keeps_the_frame_that_it_was_declared_with(
    made: Callable[[npt.NDArray[np.int64]], Any],
) -> None:
    values = np.array([1, 2])
    frame = made(values)
    view = view_of(frame, ["x"])
    with opened(view) as (store, _):
        store.materialize(progress=False)
        overwrite(frame, values)
        assert both(store, thing=[1, 2])["view__x"] == [1, 2]
    same = DataFrameSource("view_rows", made(np.array([1, 2])), event_time="at")
    assert isinstance(view.source, DataFrameSource)
    assert view.source.content == same.content


EQUAL: list[tuple[str, pa.DataType, list[Any]]] = [
    ("numbers", pa.int64(), [1, None, 3, None]),
    ("floats", pa.float64(), [None, math.nan, -0.0, 0.5]),
    ("flags", pa.bool_(), [True, None, False, True]),
    ("texts", pa.string(), ["a", None, "", "é"]),
    ("times", pa.timestamp("us", "UTC"), [None, 0, 1, 2]),
    ("prices", pa.decimal128(5, 2), [None, Decimal("1.50"), None, Decimal(0)]),
    ("nothing", pa.null(), [None] * 4),
    ("lists", pa.list_(pa.int32()), [[1, None], None, [], [2, 3]]),
    ("vectors", pa.list_(pa.float32(), 2), [[1, None], None, [0.0, 2.0], [3.0, 4.0]]),
    (
        "records",
        pa.struct({"a": pa.int8(), "b": pa.string()}),
        [{"a": 1, "b": None}, None, {"a": None, "b": "x"}, None],
    ),
    ("kinds", pa.dictionary(pa.int8(), pa.string()), ["a", None, "b", "a"]),
]


def with_rubbish(of: pa.DataType, values: list[Any]) -> pa.Array:
    """An array of these values whose memory holds others below its nulls, and around it."""
    other = next((value for value in values if value is not None), None)
    full = pa.array([other, *(other if value is None else value for value in values), other, other], of)
    masked = pc.if_else(
        pa.array([True, *(value is not None for value in values), True, True]), full, pa.scalar(None, of)
    )
    return masked.slice(1, len(values))


@pytest.mark.parametrize(("of", "values"), [pytest.param(of, values, id=name) for name, of, values in EQUAL])
def test_a_digest_is_of_the_values_alone(of: pa.DataType, values: list[Any]) -> None:
    """Neither of what lies below a null or beyond the rows, nor of how they lie in chunks; and it is of each of them."""
    plain = pa.table({"x": pa.array(values, of)})
    same = content_digest(plain)
    array = pa.array(values, of) if pa.types.is_null(of) else with_rubbish(of, values)
    assert content_digest(pa.table({"x": array})) == same
    chunks = pa.chunked_array([array.slice(0, 1), array.slice(1, 0), array.slice(1)])
    assert content_digest(pa.table({"x": chunks})) == same
    assert content_digest(pa.table({"x": pa.array([*values[:-1], *values[:1]], of)})) != same or values[-1] == values[0]
    assert content_digest(pa.table({"x": pa.array(values[:-1], of)})) != same
    assert content_digest(plain.rename_columns(["y"])) != same
    assert content_digest(plain.replace_schema_metadata({"a": "b"})) == same


def test_what_arrow_calls_the_elements_of_lists_is_no_part_of_a_digest() -> None:
    """DuckDB, Parquet and Arrow have different names for them; their number and their type are a part."""
    kinds = [pa.list_(pa.field(name, pa.float32())) for name in ("item", "element", "l")]
    digests = [content_digest(pa.table({"x": pa.array([[1.0, 2.0]], of)})) for of in kinds]
    assert len(set(digests)) == 1
    others = [pa.list_(pa.float64()), pa.list_(pa.float32(), 2), pa.large_list(pa.float32())]
    assert len({digests[0], *(content_digest(pa.table({"x": pa.array([[1.0, 2.0]], of)})) for of in others)}) == 4


def test_what_differs_has_another_digest() -> None:
    """Also where the parts of two columns are the same."""
    tables = [
        [[1], [2]],
        [[1, 2], []],
        [[], [1, 2]],
        [None, [1, 2]],
        [[1, 2], None],
        [[1, None], [2]],
        [[None, 1], [2]],
    ]
    of = pa.list_(pa.int64())
    assert len({content_digest(pa.table({"x": pa.array(values, of)})) for values in tables}) == len(tables)
    pair = pa.table({"x": [1, None], "y": [None, 1]})
    assert content_digest(pair) != content_digest(pa.table({"x": [None, 1], "y": [1, None]}))
    zeros = [pa.table({"x": pa.array([value], pa.float64())}) for value in (0.0, -0.0, None, math.nan)]
    assert len({content_digest(table) for table in zeros}) == 4


@pytest.mark.parametrize("made", FRAMES)
def test_a_training_frame_keeps_the_spine_that_it_was_asked_with(
    made: Callable[[npt.NDArray[np.int64]], Any],
) -> None:
    with opened(view_of(table(thing=[1, 2], at=AT, y=[5, 6]), ["y"])) as (store, _):
        values = np.array([1, 2])
        frame = made(values)
        training = store.get_historical_features(frame, "service", timestamp="at")
        overwrite(frame, values)
        assert training.to_pandas()["x"].tolist() == [1, 2]
        assert training.to_arrow()["x"].to_pylist() == [1, 2]
        assert training.to_arrow()["view__y"].to_pylist() == [5, 6]


@pytest.mark.parametrize("made", FRAMES)
def test_pushed_rows_are_those_that_were_pushed(made: Callable[[npt.NDArray[np.int64]], Any]) -> None:
    """A push waits for its turn while its caller may go on."""
    source = PushSource("rows", schema={"thing": Int64, "at": Timestamp, "x": Int64}, event_time="at")
    values = np.array([1, 2])
    frame = made(values)
    rows = table_of_rows(source, frame)
    overwrite(frame, values)
    assert rows["x"].to_pylist() == [1, 2]


def test_a_spine_in_pandas_keeps_its_cells_and_its_index() -> None:
    numbers = np.array([7, 8])
    frame = pd.DataFrame({"thing": [1, 2], "at": AT, "tags": [["a"], ["b"]]}, index=numbers)
    with opened(view_of(table(thing=[1, 2], at=AT, y=[5, 6]), ["y"])) as (store, _):
        training = store.get_historical_features(frame, "service", timestamp="at")
        numbers[0] = 99
        frame.loc[8, "tags"].append("later")
        frame.index.name = "later"
        assert training.to_pandas()["tags"].tolist() == [["a"], ["b"]]
        assert training.to_pandas().index.tolist() == training.features.index.tolist() == [7, 8]
        assert training.features.index.name is None


def test_training_frames_handed_out_are_nobody_elses() -> None:
    asked = pd.DataFrame({"thing": [1, 2], "at": AT, "label": [0, 1], "tags": [["a"], ["b"]]})
    with opened(view_of(table(thing=[1, 2], at=AT, y=[5.0, 6.0]), ["y"])) as (store, _):
        training = store.get_historical_features(asked, "service", timestamp="at")
        for _ in range(2):
            for dtypes in ("arrow", "numpy"):
                given = training.to_pandas(dtypes=dtypes)
                assert given["label"].tolist() == [0, 1]
                assert given["view__y"].tolist() == [5.0, 6.0]
                assert given["tags"].tolist() == [["a"], ["b"]]
                given.loc[0, ["label", "view__y"]] = 99
                given.loc[0, "tags"].append("later")
                given.index.name = "later"
            features = training.features
            assert features["view__y"].tolist() == [5.0, 6.0]
            assert features.index.name is None
            features.loc[0, "view__y"] = 99
            features.index.name = "later"
            matrix = training.to_numpy()
            assert matrix.tolist() == [[5.0], [6.0]]
            matrix[:] = 99
        assert training.to_arrow()["label"].to_pylist() == asked["label"].tolist() == [0, 1]
        assert asked["tags"].tolist() == [["a"], ["b"]]
        before, after = training.split_by_time(AT[1])
        before.to_pandas().loc[0, "tags"].append("later")
        assert before.to_pandas()["tags"].tolist() == [["a"]]
        assert after.to_pandas()["label"].tolist() == [1]


def test_a_list_that_was_served_is_nobody_elses() -> None:
    """Neither the default that the next lookup gives, nor what is logged, nor the other forms of the same result."""
    said = [1.0]
    rows = table(thing=[1, 1], at=AT, x=[1.0, 2.0])
    rows = rows.append_column("xs", pa.array([[3.0], [4.0]]))
    view = view_of(rows, {"last": LastN("x", n=2), "held": Latest("xs", default=said)})
    said.append(9.0)
    with opened(view) as (store, _):
        store.materialize(progress=False)
        for _ in range(2):
            for thing, last, held in ((1, [2.0, 1.0], [4.0]), (7, None, [1.0])):
                online = store.get_online_features([{"thing": thing}], "service")
                for given in (online.to_dict()["view__held"][0], online.to_numpy(object)[0][1]):
                    assert given == held
                    given.append(9.0)
                if last is not None:
                    online.to_dict()["view__last"][0].sort()
                assert online.to_dict()["view__last"] == [last]
        assert both(store, thing=[1, 7])["view__held"] == [[4.0], [1.0]]


def test_what_is_logged_is_what_was_served(tmp_path: Path) -> None:
    """Lists of one row wait for the log's thread as they are, while the caller has the result."""
    (tmp_path / "featurestore.toml").write_text('project = "p"\ndefinitions = []\n[serving_log]\nrate = 1.0\n')
    view = view_of(table(thing=[1, 1], at=AT, x=[1.0, 2.0]), {"last": LastN("x", n=2)})
    with FeatureStore(tmp_path, clock=ManualClock(NOON)) as store:
        apply(store, view)
        store.materialize(progress=False)
        online = store.get_online_features([{"thing": 1}], "service")
        online.to_dict()["view__last"][0].sort()
        online.to_numpy(object)[0][0].append(9.0)
        audit = store.audit()
        assert audit.compared == audit.exact > 0


def test_a_function_that_changes_its_list_changes_no_feature() -> None:
    view = view_of(table(thing=[1, 1], at=AT, x=[2.0, 1.0]), {"last": LastN("x", n=2)})

    @on_demand(inputs=[view["last"]], output=Float64)
    def least(last):  # type: ignore[no-untyped-def]  # a user's function without types
        last.sort(reverse=True)
        return last.pop()

    @on_demand(inputs=[view["last"]], output=Array(Float64))
    def twice(last):  # type: ignore[no-untyped-def]  # a user's function without types
        last.extend(last)
        return last

    with opened(view, FeatureService("service", features=[view, least, twice])) as (store, _):
        found = both(store, thing=[1])
        assert found["view__last"] == [[1.0, 2.0]]
        assert found["least"] == [1.0]
        assert found["twice"] == [[1.0, 2.0, 1.0, 2.0]]


def test_a_lookup_keeps_what_it_was_asked_with() -> None:
    view = view_of(table(thing=[1], at=AT[:1], x=[1.0]), ["x"])
    with opened(view) as (store, _):
        store.materialize(progress=False)
        rows: list[dict[str, Any]] = [{"thing": 1}]
        online = store.get_online_features(rows, "service")
        rows[0]["thing"] = 2
        online.to_dict()["thing"].append(3)
        assert online.to_dict() == {"thing": [1], "view__x": [1.0]}


def test_a_spine_is_answered_as_of_its_own_times() -> None:
    times = np.array([hours(-2).replace(tzinfo=None), NOON.replace(tzinfo=None)], "datetime64[us]")
    asked = pa.table({"thing": [1, 1], "event_timestamp": pa.array(times)})
    with opened(view_of(table(thing=[1, 1], at=AT, x=[1.0, 2.0]), ["x"])) as (store, _):
        training = store.get_historical_features(asked, "service")
        times[:] = np.datetime64("1999-01-01")
        assert training.to_arrow()["view__x"].to_pylist() == [1.0, 2.0]
        assert training.to_arrow()["event_timestamp"].to_pylist() == [
            moment.replace(tzinfo=None) for moment in (hours(-2), NOON)
        ]
        before, after = training.split_by_time(hours(-1))
        assert (len(before), len(after)) == (1, 1)
