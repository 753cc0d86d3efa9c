"""One test for each trap that point-in-time features fall into elsewhere."""

from __future__ import annotations

import asyncio
import gc
import math
import struct
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import httpx
import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import featurestore.lazy
from featurestore import Entity, FeatureService, FeatureStore, FeatureView, Latest, Request, on_demand
from featurestore.errors import ConfigError, DeclarationError, OnDemandError, RequestError, SourceError, SpineError
from featurestore.server import create_app
from featurestore.server.json_answers import json_body
from featurestore.types import Float64, Int32, Int64, String
from tests.small import NOON, THING, TIME, apply, both, hours, opened, raised, spine, table, trained, view_of, write

PAIR = Entity("pair", key={"left": Int64, "right": Int64})
US = timedelta(microseconds=1)


# --- rows of the spine ------------------------------------------------------------------------


def test_a_spine_row_whose_key_has_no_valid_row_comes_back_in_its_place() -> None:
    """Unknown, expired and not yet known keys keep their rows, in the spine's order."""
    rows = table(thing=[1, 2, 3], at=[hours(-1), hours(-50), hours(1)], x=[10, 20, 30])
    with opened(view_of(rows, ["x"], ttl="1d")) as (store, _):
        answer = trained(store, NOON, thing=[3, 9, 1, 2, None, 1])
    assert answer["thing"].to_pylist() == [3, 9, 1, 2, None, 1]
    assert answer["view__x"].to_pylist() == [None, None, 10, None, None, 10]
    assert answer["view__x__status"].to_pylist() == ["MISSING", "MISSING", "PRESENT", "EXPIRED", "MISSING", "PRESENT"]


def test_equal_key_and_time_with_different_labels_are_all_kept() -> None:
    """Two rows that differ only in their label are two rows."""
    with opened(view_of(table(thing=[1], at=[NOON], x=[10]), ["x"])) as (store, _):
        asked = spine(NOON, thing=[1, 1, 1]).append_column("label", pa.array(["a", "b", "a"]))
        answer = store.get_historical_features(asked, "service").to_arrow()
    assert answer["label"].to_pylist() == ["a", "b", "a"]
    assert answer["view__x"].to_pylist() == [10, 10, 10]


def test_spines_of_two_keys() -> None:
    """Rows that share one of two keys are not taken for each other."""
    rows = table(left=[1, 1, 2], right=[1, 2, 1], at=[NOON] * 3, x=[11, 12, 21])
    with opened(view_of(rows, ["x"], entity=PAIR)) as (store, _):
        answer = both(store, left=[2, 1, 1, 2], right=[1, 2, 1, 2])
    assert answer["view__x"] == [21, 12, 11, None]


def test_keys_1_23_and_12_3_are_two_keys() -> None:
    """Composite keys are typed and measured, never joined as text; text may hold any separator."""
    words = Entity("words", key={"a": String, "b": String})
    rows = table(left=[1, 12], right=[23, 3], at=[NOON] * 2, x=[1, 2])
    text = table(a=["1", "12", "1|", "1"], b=["23", "3", "2", "|2"], at=[NOON] * 4, x=[1, 2, 3, 4])
    numbers, texts = view_of(rows, ["x"], entity=PAIR), view_of(text, ["x"], entity=words, name="texts")
    services = [FeatureService("numbers", features=[numbers]), FeatureService("texts", features=[texts])]
    with opened(numbers, texts, *services) as (store, _):
        assert both(store, "numbers", left=[1, 12, 1], right=[23, 3, 3])["view__x"] == [1, 2, None]
        answer = both(store, "texts", a=["1", "12", "1|", "1", "1|2"], b=["23", "3", "2", "|2", ""])
        assert answer["texts__x"] == [1, 2, 3, 4, None]


def test_a_spine_column_named_like_a_feature_is_refused_by_name() -> None:
    """Neither is overwritten silently."""
    with opened(view_of(table(thing=[1], at=[NOON], x=[10]), ["x"])) as (store, _):
        asked = spine(NOON, thing=[1]).append_column("view__x", pa.array([0]))
        with pytest.raises(SpineError, match="'view__x'.*also the name of a feature"):
            store.get_historical_features(asked, "service")
        other = spine(NOON, thing=[1]).append_column("x", pa.array([0]))
        assert store.get_historical_features(other, "service").to_arrow()["view__x"].to_pylist() == [10]


def test_a_feature_named_x_y_beside_x_is_no_clash() -> None:
    """No suffix is ever put onto a name, so names that look like suffixes are free."""
    rows = table(thing=[1], at=[NOON], x=[1], x_y=[2], x_x=[3], event_timestamp=[4])
    with opened(view_of(rows, ["x", "x_y", "x_x", "event_timestamp"])) as (store, _):
        answer = both(store, thing=[1])
    assert [answer[f"view__{name}"] for name in ("x", "x_y", "x_x", "event_timestamp")] == [[1], [2], [3], [4]]


def test_each_spine_row_comes_back_once_however_many_rows_happened_before() -> None:
    """One answer, the newest: not every earlier row, and not each of those that tie."""
    times = [hours(-n) for n in range(50)] + [NOON] * 5
    rows = table(thing=[1] * 55, at=times, x=list(range(55)))
    with opened(view_of(rows, ["x"])) as (store, _):
        assert trained(store, [NOON, hours(-10), hours(-99)], thing=[1] * 3)["view__x"].to_pylist() == [54, 10, None]
        assert both(store, thing=[1])["view__x"] == [54]


def test_a_table_without_time_beside_one_with_takes_no_history_from_it() -> None:
    """The view over the table with time is still asked for each row's own instant."""
    timed = view_of(table(thing=[1, 1], at=[hours(-2), NOON], x=[1, 2]), ["x"])
    facts = view_of(table(thing=[1], y=[7]), ["y"], name="facts", event_time=None)
    with opened(facts, timed) as (store, _):
        answer = trained(store, [hours(-1), NOON], thing=[1, 1])
        assert answer["view__x"].to_pylist() == [1, 2]
        assert answer["facts__y"].to_pylist() == [7, 7]


def test_a_spine_of_a_duckdb_relation_is_read_as_often_as_it_is_asked() -> None:
    """A relation keeps no result between calls, and its instants with zone come through Arrow."""
    with opened(view_of(table(thing=[1], at=[NOON], x=[10]), ["x"])) as (store, _), duckdb.connect() as connection:
        asked = connection.sql(
            "SELECT n % 2 AS thing, TIMESTAMPTZ '2024-05-01 12:00Z' AS event_timestamp FROM range(4) AS r(n)"
        )
        frame = store.get_historical_features(asked, "service")
        for _ in range(2):
            assert sorted(map(str, frame.to_arrow()["view__x"].to_pylist())) == ["10", "10", "None", "None"]
            assert frame.to_pandas()["event_timestamp"].tolist() == [pd.Timestamp(NOON)] * 4


# --- which row ----------------------------------------------------------------------------


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_of_equal_event_times_the_one_known_last_counts(order: list[int]) -> None:
    """Among those known at the instant asked for; the order of the rows in the file says nothing."""
    rows = table(thing=[1] * 3, at=[NOON] * 3, known=[hours(1), hours(2), hours(3)], x=[1, 2, 3]).take(order)
    with opened(view_of(rows, ["x"], known_at="known")) as (store, _):
        times = [hours(n) for n in (0.5, 1, 2, 2.5, 3, 9)]
        assert trained(store, times, thing=[1] * 6)["view__x"].to_pylist() == [None, 1, 2, 2, 3, 3]


def test_a_correction_counts_from_when_it_is_known() -> None:
    """A later version of a row replaces it, along both paths, and not before."""
    rows = table(
        id=["a", "a"], thing=[1, 1], at=[hours(-2), hours(-2)], known=[hours(-2), hours(1)], x=[10, 11]
    )  # fmt: skip
    with opened(view_of(rows, ["x"], known_at="known", identity="id")) as (store, clock):
        assert both(store, thing=[1])["view__x"] == [10]
        clock.set(hours(1) - US)
        assert both(store, thing=[1])["view__x"] == [10]
        clock.set(hours(1))
        assert both(store, thing=[1])["view__x"] == [11]
        assert trained(store, [hours(-3), NOON, hours(1)], thing=[1] * 3)["view__x"].to_pylist() == [None, 10, 11]


def test_a_corrected_key_leaves_the_wrong_one() -> None:
    """A correction that moves a row to another key takes it from the first."""
    rows = table(id=[7, 7], thing=[1, 2], at=[NOON, NOON], known=[NOON, hours(1)], x=[10, 10])
    with opened(view_of(rows, ["x"], known_at="known", identity="id")) as (store, clock):
        assert both(store, thing=[1, 2])["view__x__status"] == ["PRESENT", "MISSING"]
        clock.set(hours(1))
        assert both(store, thing=[1, 2])["view__x__status"] == ["MISSING", "PRESENT"]


def test_older_data_written_later_never_wins() -> None:
    """A late arrival that happened earlier leaves the newer row in place, full or incremental."""
    rows = table(thing=[1, 1], at=[hours(-1), hours(-5)], known=[hours(-1), hours(1)], x=[2, 1])
    with opened(view_of(rows, ["x"], known_at="known")) as (store, clock):
        assert both(store, thing=[1])["view__x"] == [2]
        clock.set(hours(2))
        assert both(store, thing=[1])["view__x"] == [2]
        clock.set(hours(3))
        store.materialize(full=True, progress=False)
        assert both(store, thing=[1])["view__x"] == [2]


def test_ttl_is_one_rule_along_both_paths() -> None:
    """A row counts until event_time + ttl, inclusive, whether or not anything was materialized since."""
    rows = table(thing=[1], at=[NOON], x=[10])
    with opened(view_of(rows, ["x"], ttl="2h")) as (store, clock):
        for moment, status in [(hours(0), "PRESENT"), (hours(2), "PRESENT"), (hours(2) + US, "EXPIRED")]:
            clock.set(moment)
            answer = both(store, thing=[1])
            assert answer["view__x__status"] == [status]
            assert answer["view__x"] == [10 if status == "PRESENT" else None]


def test_a_row_learned_after_the_instant_is_invisible_and_picked_up_by_the_next() -> None:
    """Also where it happened inside what an earlier run completed."""
    rows = table(thing=[1, 1], at=[hours(-9), hours(-5)], known=[hours(-9), hours(0.5)], x=[1, 2])
    with opened(view_of(rows, ["x"], known_at="known", refresh="1h")) as (store, clock):
        assert both(store, thing=[1])["view__x"] == [1]
        clock.set(hours(0.75))
        assert both(store, thing=[1])["view__x"] == [1]
        clock.set(hours(1))
        assert both(store, thing=[1])["view__x"] == [2]


def test_the_first_run_is_no_exception() -> None:
    """Nothing is lost before a first incremental run: its values are training's."""
    rows = table(thing=[1, 2], at=[hours(-24 * 3000), hours(-1)], x=[1, 2])
    with opened(view_of(rows, ["x"])) as (store, _):
        assert both(store, thing=[1, 2])["view__x"] == [1, 2]


def test_a_row_dated_2099_is_invisible_until_then() -> None:
    """It neither shadows what is true now, nor keeps later rows out."""
    far = datetime(2099, 1, 1, tzinfo=UTC)
    rows = table(thing=[1, 1, 1], at=[hours(-1), far, hours(2)], x=[1, 99, 2])
    with opened(view_of(rows, ["x"])) as (store, clock):
        assert both(store, thing=[1])["view__x"] == [1]
        clock.set(hours(2))
        assert both(store, thing=[1])["view__x"] == [2]
        clock.set(far - US)
        assert both(store, thing=[1])["view__x"] == [2]
        clock.set(far)
        assert both(store, thing=[1])["view__x"] == [99]


def test_null_key_known_at_and_event_time_are_never_visible_and_are_counted() -> None:
    """Such rows are invalid; the manifest says how many there are."""
    rows = table(
        thing=pa.array([1, None, 1, 1]), at=[NOON, NOON, None, NOON], known=[NOON, NOON, NOON, None], x=[1, 2, 3, 4]
    )
    with opened(view_of(rows, ["x"], known_at="known")) as (store, _):
        assert both(store, thing=[1, None])["view__x"] == [1, None]
        frame = store.get_historical_features(spine(NOON, thing=[1]), "service")
    assert frame.manifest["invalid_rows"] == {"view": {"no known_at or identity": 1, "no key or event_time": 2}}


# --- values and types ---------------------------------------------------------------------


def test_a_nullable_integer_stays_an_integer() -> None:
    """With and without nulls, along both paths, in the same dtype."""
    rows = table(thing=[1, 2], at=[NOON] * 2, x=pa.array([None, 7], pa.int32()))
    with opened(view_of(rows, ["x"])) as (store, _):
        assert both(store, thing=[1, 2])["view__x"] == [None, 7]
        for keys in ([1, 2], [2], [1]):
            offline = store.get_historical_features(spine(NOON, thing=keys), "service").features
            online = store.get_online_features([{"thing": key} for key in keys], "service").features
            assert offline.dtypes.to_dict() == online.dtypes.to_dict() == {"view__x": pd.ArrowDtype(pa.int32())}


def test_int64_beyond_2_53_beside_a_null_is_exact() -> None:
    """No integer passes through a float, keys included."""
    big = [2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63), None]
    rows = table(thing=pa.array([2**53 + 1, 2**53, 3, 4, 5]), at=[NOON] * 5, x=pa.array(big))
    with opened(view_of(rows, ["x"])) as (store, _):
        assert both(store, thing=[2**53 + 1, 2**53, 3, 4, 5])["view__x"] == big


def test_a_float32_has_the_same_bits_along_both_paths() -> None:
    """0.1 is 0.1 as 32 bits have it, in every place."""
    rows = table(thing=[1], at=[NOON], x=pa.array([0.1], pa.float32()))
    with opened(view_of(rows, ["x"])) as (store, _):
        (value,) = both(store, thing=[1])["view__x"]
        frame = store.get_historical_features(spine(NOON, thing=[1]), "service")
        served = store.get_online_features([{"thing": 1}], "service")
    assert value == float(np.float32(0.1))
    assert frame.to_arrow()["view__x"].type == served.to_arrow()["view__x"].type == pa.float32()
    assert frame.to_numpy().tobytes() == served.to_numpy().tobytes()


def test_a_declared_type_that_is_not_the_sources_is_an_error_when_planned() -> None:
    """What widens without loss is read; what would lose is refused, and the message names both types."""
    rows = table(thing=[1], at=[NOON], x=pa.array([2**40]))
    with FeatureStore.local() as store:
        lossy = view_of(rows, {"x": Latest("x", type=Int32)})
        with pytest.raises(DeclarationError, match=r"feature 'x' .*: the column is Int64, which does not fit Int32"):
            store.plan([lossy])
        with pytest.raises(DeclarationError, match=r"key 'thing' is String.*Int64"):
            store.plan([view_of(rows, ["x"], entity=Entity("named", key={"thing": String}))])


def test_a_declared_type_that_widens_is_read_as_declared() -> None:
    """The declared type, never the column's, is what both paths give."""
    rows = table(thing=pa.array([1], pa.int16()), at=[NOON], x=pa.array([1.5], pa.float32()))
    with opened(view_of(rows, {"x": Latest("x", type=Float64)})) as (store, _):
        assert both(store, thing=[1])["view__x"] == [1.5]


def test_an_unknown_key_is_missing_and_a_null_value_is_present() -> None:
    """The two are told apart by status; a row whose features are all null is a row."""
    rows = table(thing=[1], at=[NOON], x=pa.array([None], pa.int64()), y=pa.array([None], pa.string()))
    with opened(view_of(rows, ["x", "y"])) as (store, _):
        answer = both(store, thing=[1, 2, None])
    for name in ("x", "y"):
        assert answer[f"view__{name}"] == [None, None, None]
        assert answer[f"view__{name}__status"] == ["PRESENT", "MISSING", "MISSING"]


def test_an_all_null_row_replaces_the_values_before_it() -> None:
    """A newer null is the value; nothing falls back to an older row."""
    rows = table(thing=[1, 1], at=[hours(-1), NOON], x=pa.array([5, None]))
    with opened(view_of(rows, ["x"])) as (store, _):
        assert both(store, thing=[1])["view__x"] == [None]


def test_columns_come_in_the_services_order() -> None:
    """In every form of both paths, whatever order the views or files have."""
    names = ["zeta", "alpha", "m", "b", "a"]
    rows = table(thing=[1], at=[NOON], **{name: [i] for i, name in enumerate(sorted(names))})
    one, two = view_of(rows, names), view_of(rows, sorted(names), name="other")
    service = FeatureService("service", features=[two[["m", "zeta"]], one, two["a"]])
    wanted = ["other__m", "other__zeta", *(f"view__{name}" for name in names), "other__a"]
    with opened(one, two, service) as (store, _):
        store.materialize(progress=False)
        frame = store.get_historical_features(spine(NOON, thing=[1]), "service")
        served = store.get_online_features([{"thing": 1}], "service")
    assert list(frame.features) == list(served.features) == wanted
    assert list(served.to_dict()) == ["thing", *wanted]
    assert served.to_arrow().column_names == wanted
    assert frame.to_arrow().column_names[2:] == wanted
    assert frame.to_numpy().tolist() == served.to_numpy().tolist()


def test_a_timestamp_feature_is_exact_to_the_microsecond() -> None:
    """Before 1970 and far away as well, along both paths."""
    values = [
        datetime(2024, 5, 1, 1, 2, 3, 456789, tzinfo=UTC), datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), None,
    ]  # fmt: skip
    rows = table(thing=[0, 1, 2, 3, 4], at=[NOON] * 5, x=pa.array(values, TIME))
    with opened(view_of(rows, ["x"])) as (store, _):
        assert both(store, thing=[0, 1, 2, 3, 4])["view__x"] == values


@pytest.mark.parametrize("of", [pa.float32(), pa.float64()])
def test_nan_null_infinities_and_negative_zero_are_kept_apart(of: pa.DataType) -> None:
    """Six values go in and the same six come out of both paths."""
    values = [math.nan, None, math.inf, -math.inf, -0.0, 0.0]
    rows = table(thing=list(range(6)), at=[NOON] * 6, x=pa.array(values, of))
    with opened(view_of(rows, ["x"])) as (store, _):
        served = both(store, thing=list(range(6)))["view__x"]
        frame = store.get_historical_features(spine(NOON, thing=list(range(6))), "service")
        online = store.get_online_features([{"thing": n} for n in range(6)], "service")
    assert [struct.pack("<d", value) if value is not None else None for value in served] == [
        struct.pack("<d", value) if value is not None else None for value in values
    ]
    assert frame.to_numpy(object).tolist()[1] == online.to_numpy(object).tolist()[1] == [None]
    assert frame.to_numpy().tobytes() == online.to_numpy().tobytes()


def test_the_nan_of_a_parquet_file_is_canonical_along_both_paths(tmp_path: Path) -> None:
    """Whatever sign and payload a NaN has in the file, 7ff8000000000000 comes out of either path."""
    patterns = [0x7FF8000000000000, 0xFFF8000000000000, 0x7FF8000000000123, 0xFFF00000DEADBEEF, 0x7FF0000000000001]
    floats = np.array(patterns, np.uint64).view(np.float64)
    narrow = np.array([0x7FC00000, 0xFFC00000, 0x7FC00123, 0xFF800001, 0x7F800001], np.uint32).view(np.float32)
    keys = list(range(5))
    rows = table(
        thing=keys, at=[NOON] * 5, x=pa.array(floats), y=pa.array(narrow),
        z=pa.array([[value, 1.0] for value in floats], pa.list_(pa.float64())),
    )  # fmt: skip
    path = write(tmp_path / "rows.parquet", rows)
    with opened(view_of(path, ["x", "y", "z"])) as (store, _):
        both(store, thing=keys)
        frame = store.get_historical_features(spine(NOON, thing=keys), "service")
        online = store.get_online_features([{"thing": key} for key in keys], "service")
    for answer in (frame, online):
        arrow = answer.to_arrow()
        assert set(arrow["view__x"].to_numpy().view(np.uint64).tolist()) == {0x7FF8000000000000}
        assert set(arrow["view__y"].to_numpy().view(np.uint32).tolist()) == {0x7FC00000}
        inside = arrow["view__z"].combine_chunks().flatten().to_numpy()[::2]
        assert set(inside.view(np.uint64).tolist()) == {0x7FF8000000000000}


def test_an_nan_of_numpy_backed_pandas_is_null_and_one_of_arrow_is_nan() -> None:
    """pandas cannot tell the two apart in a numpy-backed column; Arrow can, and is believed."""
    frame = pd.DataFrame({"thing": [1, 2], "at": [NOON] * 2, "x": [math.nan, 1.0]})
    backed = pd.DataFrame(
        {
            "thing": [1, 2, 3], "at": [NOON] * 3,
            "x": pd.Series(pd.arrays.ArrowExtensionArray(pa.array([math.nan, 1.0, None]))),
        }
    )  # fmt: skip
    with opened(view_of(frame, ["x"])) as (store, _):
        assert both(store, thing=[1, 2])["view__x"] == [None, 1.0]
    with opened(view_of(backed, ["x"])) as (store, _):
        nan, one, null = both(store, thing=[1, 2, 3])["view__x"]
        assert math.isnan(nan)
        assert (one, null) == (1.0, None)


def test_a_pandas_frame_and_the_parquet_file_that_pandas_makes_of_it_are_read_alike(tmp_path: Path) -> None:
    """pandas writes NaN as null and Arrow keeps it; either way a numpy-backed frame has nulls there."""
    frame = pd.DataFrame({"thing": [1, 2], "at": [NOON] * 2, "x": [math.nan, -0.0], "s": ["", None]})
    frame.to_parquet(tmp_path / "rows.parquet")
    answers = []
    for rows in (frame, tmp_path / "rows.parquet"):
        with opened(view_of(rows, ["x", "s"])) as (store, _):
            answers.append(both(store, thing=[1, 2]))
    assert repr(answers[0]) == repr(answers[1])
    assert answers[0]["view__x"][0] is None
    assert answers[0]["view__s"] == ["", None]


def test_integers_beside_floats_are_one_matrix_of_floats() -> None:
    """Where pandas would give an array of objects; a null is NaN in it."""
    rows = table(thing=[1, 2], at=[NOON] * 2, i=pa.array([1, None], pa.int64()), f=[0.5, 1.5])
    with opened(view_of(rows, ["i", "f"])) as (store, _):
        store.materialize(progress=False)
        frame = store.get_historical_features(spine(NOON, thing=[1, 2]), "service")
        served = store.get_online_features([{"thing": 1}, {"thing": 2}], "service")
    assert frame.features.to_numpy().dtype == object
    for matrix in (frame.to_numpy(), served.to_numpy()):
        assert matrix.dtype == np.float64
        np.testing.assert_array_equal(matrix, [[1, 0.5], [math.nan, 1.5]])


def test_a_lookup_becomes_numpy_without_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a model takes as numpy never goes through a frame, which costs more than the lookup."""
    with opened(view_of(table(thing=[1], at=[NOON], x=[10]), ["x"])) as (store, _):
        store.materialize(progress=False)
        for name in ("DataFrame", "Series"):
            monkeypatch.delattr(pd, name)
            monkeypatch.delitem(vars(featurestore.lazy.pd), name, raising=False)
        served = store.get_online_features({"thing": 1}, "service")
        assert served.to_numpy().tolist() == [[10.0]]
        with pytest.raises(AttributeError):
            served.features  # noqa: B018 - which is one


# --- requests -----------------------------------------------------------------------------


@pytest.mark.parametrize("key", [1.7, "1", 1.0, True, 2**63, b"1"])
def test_a_key_of_another_type_is_refused(key: object) -> None:
    """1.7 is not served as 1, and neither is "1": the message names the column and its type."""
    with opened(view_of(table(thing=[1], at=[NOON], x=[10]), ["x"])) as (store, _):
        store.materialize(progress=False)
        message = raised(RequestError, lambda: store.get_online_features([{"thing": key}], "service"))
        assert "'thing' must be Int64" in message


@pytest.mark.parametrize("keys", [pa.array([1.7]), pa.array(["1"]), pa.array([1.0]), pa.array([True])])
def test_a_spine_key_of_another_type_is_refused(keys: pa.Array) -> None:
    """In training as in serving."""
    with opened(view_of(table(thing=[1], at=[NOON], x=[10]), ["x"])) as (store, _):
        with pytest.raises(SpineError, match="'thing'.*must be Int64"):
            store.get_historical_features(spine(NOON, thing=keys), "service")


def test_a_fraction_in_a_pandas_spine_is_refused_and_a_null_beside_integers_is_not() -> None:
    """pandas turns integers with a null into floats; whole ones are the integers they were."""
    with opened(view_of(table(thing=[1], at=[NOON], x=[10]), ["x"])) as (store, _):
        whole = pd.DataFrame({"thing": [1, None], "event_timestamp": [NOON] * 2})
        assert store.get_historical_features(whole, "service").to_arrow()["view__x"].to_pylist() == [10, None]
        broken = pd.DataFrame({"thing": [1.7, None], "event_timestamp": [NOON] * 2})
        with pytest.raises(SpineError, match=r"'thing' must be Int64: 1\.7 is no integer;"):
            store.get_historical_features(broken, "service")


def plus(x: int, y: int) -> int:
    return x + y


def defaulted(x: int | None, y: int | None) -> int:
    return (x or 0) + (y or 0)


def test_on_demand_with_a_missing_input_has_the_same_outcome_in_both_paths() -> None:
    """A function that handles null gives a value in both; one that does not fails in both, by name."""
    view = view_of(table(thing=[1], at=[NOON], x=[10]), ["x"])
    inputs = [view["x"], Request("y", Int64)]
    careless, careful = on_demand(plus, inputs=inputs, output=Int64), on_demand(defaulted, inputs=inputs, output=Int64)
    services = [FeatureService("careless", features=[careless]), FeatureService("careful", features=[careful])]
    with opened(view, careless, careful, *services) as (store, _):
        assert both(store, "careful", thing=[1, 2, 1], y=[5, 5, None])["defaulted"] == [15, 5, 10]
        assert both(store, "careless", thing=[1], y=[5])["plus"] == [15]
        offline = raised(OnDemandError, lambda: trained(store, NOON, "careless", thing=[2], y=[5]))
        online = raised(OnDemandError, lambda: store.get_online_features([{"thing": 2, "y": 5}], "careless"))
    assert offline.split(" failed for ")[0] == online.split(" failed for ")[0]
    assert "'plus' failed for" in online
    assert "TypeError" in offline
    assert "TypeError" in online


def test_a_missing_request_value_is_a_clear_error_in_both_paths() -> None:
    """A request value that is not there at all is no null."""
    view = view_of(table(thing=[1], at=[NOON], x=[10]), ["x"])
    feature = on_demand(defaulted, inputs=[view["x"], Request("y", Int64)], output=Int64)
    with opened(view, feature, FeatureService("service", features=[feature])) as (store, _):
        store.materialize(progress=False)
        with pytest.raises(RequestError, match="no 'y'"):
            store.get_online_features([{"thing": 1}], "service")
        with pytest.raises(SpineError, match="'y'"):
            trained(store, NOON, thing=[1])


def doubled(x: int) -> int:
    return x * 2


def test_a_default_is_filled_in_before_a_function_sees_it() -> None:
    """The function's input is the feature's value, in both paths; a null in the newest row is no gap to fill."""
    rows = table(thing=[1, 2], at=[NOON] * 2, x=pa.array([5, None]))
    view = view_of(rows, {"x": Latest("x", default=-1)})
    feature = on_demand(doubled, inputs=[view["x"]], output=Int64)
    with opened(view, feature, FeatureService("service", features=[view, feature])) as (store, _):
        answer = both(store, thing=[1, 9])
        assert (answer["view__x"], answer["doubled"]) == ([5, -1], [10, -2])
        assert both_fail(store, thing=2).count("TypeError") == 2


def both_fail(store: FeatureStore, **inputs: Any) -> str:
    """What the two paths say of a row that fails, one after the other."""
    keys = {name: [value] for name, value in inputs.items()}
    offline = raised(OnDemandError, lambda: trained(store, NOON, **keys))
    return offline + raised(OnDemandError, lambda: store.get_online_features([inputs], "service"))


def exponential(x: float) -> float:
    return math.exp(x)


def exponentials(x: pa.Array) -> pa.Array:
    return pa.array(np.exp(x.to_numpy()))


def nothing(x: pa.Array) -> pa.Array:
    with np.errstate(invalid="ignore"):
        return pa.array(np.where(x.to_numpy() > 0, np.inf, 0.0) - np.inf)


def test_a_function_has_the_same_bits_for_one_row_and_for_many() -> None:
    """np.exp and math.exp differ in some bits, so each function runs as it was declared, whole frame or single row."""
    inputs = np.random.default_rng(1).normal(0, 5, 300).tolist()
    x = Request("x", Float64)
    features = [
        on_demand(exponential, inputs=[x], output=Float64),
        on_demand(exponentials, inputs=[x], output=Float64, mode="columns"),
    ]
    with opened(*features, FeatureService("service", features=features)) as (store, _):
        asked = pa.table({"x": inputs, "event_timestamp": pa.array([NOON] * len(inputs), TIME)})
        matrix = store.get_historical_features(asked, "service").to_numpy()
        rows = [store.get_online_features({"x": value}, "service").to_numpy() for value in inputs]
        assert np.concatenate(rows).tobytes() == matrix.tobytes()
        assert store.get_online_features([{"x": value} for value in inputs], "service").to_numpy().tobytes() == (
            matrix.tobytes()
        )


def test_the_nan_that_a_function_computes_is_canonical() -> None:
    """inf - inf is fff8000000000000 on this machine's processor, and 7ff8000000000000 out of either path."""
    feature = on_demand(nothing, inputs=[Request("x", Float64)], output=Float64, mode="columns")
    with opened(feature, FeatureService("service", features=[feature])) as (store, _):
        asked = pa.table({"x": [1.0, 2.0], "event_timestamp": pa.array([NOON] * 2, TIME)})
        trained_bits = store.get_historical_features(asked, "service").to_arrow()["nothing"].to_numpy().view(np.uint64)
        served = store.get_online_features([{"x": 1.0}, {"x": 2.0}], "service").to_arrow()["nothing"].to_numpy()
        assert set(trained_bits.tolist()) == set(served.view(np.uint64).tolist()) == {0x7FF8000000000000}


# --- operation ----------------------------------------------------------------------------


def test_teardown_then_apply_works() -> None:
    """A project that was torn down is as good as new."""
    view = view_of(table(thing=[1], at=[NOON], x=[10]), ["x"])
    with opened(view) as (store, _):
        assert both(store, thing=[1])["view__x"] == [10]
        assert store.teardown() > 0
        assert list(store.online.scan(b"")) in ([], [[]])
        assert store.status() == []
        apply(store, view)
        assert both(store, thing=[1])["view__x"] == [10]


def test_more_than_100_000_keys_are_all_materialized() -> None:
    """Nothing is left out silently, in a first run or in one of changed keys."""
    count = 120_000
    times = pa.array([hours(-1)] * count + [hours(1)] * count, TIME)
    rows = pa.table({"thing": [*range(count)] * 2, "at": times, "x": [*range(count), *range(1, count + 1)]})
    with opened(view_of(rows, ["x"])) as (store, clock):
        for moment, more in ((NOON, 0), (hours(2), 1)):
            clock.set(moment)
            (run,) = store.materialize(progress=False)
            assert (run.keys, run.rows, run.full) == (count, count, more == 0)
            served = store.get_online_features([{"thing": n} for n in range(count)], "service")
            assert served.to_dict()["view__x"] == list(range(more, count + more))


def test_a_clients_mistake_over_http_is_no_server_error() -> None:
    """Whatever a client gets wrong is its own error, said in problem details."""
    bodies: list[tuple[object, int]] = [
        ({"service": "service", "rows": [{"thing": "1"}]}, 422), ({"service": "service", "rows": [{}]}, 422),
        ({"service": "servce", "rows": [{"thing": 1}]}, 404), ({"service": 3, "rows": [{"thing": 1}]}, 400),
        ({"service": "service", "rows": {"thing": [1]}}, 400), ("text", 400), (None, 415),
        ({"service": "service", "fingerprint": "x", "rows": [{"thing": 1}]}, 409),
    ]  # fmt: skip
    with opened(view_of(table(thing=[1], at=[NOON], x=[10]), ["x"])) as (store, _):
        store.materialize(progress=False)

        async def ask() -> list[httpx.Response]:
            transport = httpx.ASGITransport(create_app(store, authentication=False))
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return [await client.post("/v1/online-features", json=body) for body, _ in bodies]

        answers = asyncio.run(ask())
    assert [answer.status_code for answer in answers] == [status for _, status in bodies]
    assert {answer.headers["content-type"] for answer in answers} == {"application/problem+json"}


def test_the_garbage_collector_leaves_alone_what_a_server_has_loaded() -> None:
    """Scanning it again and again would pause requests, so it is frozen before the first of them."""
    with opened(view_of(table(thing=[1], at=[NOON], x=[10]), ["x"])) as (store, _):
        app = create_app(store, authentication=False)

        async def run() -> int:
            async with app.router.lifespan_context(app):
                return gc.get_freeze_count()

        gc.unfreeze()
        try:
            assert asyncio.run(run()) > 10_000
        finally:
            gc.unfreeze()


@pytest.mark.parametrize(("before", "within"), [(700, 10_000), (50_000, 50_000), (0, 0)])
def test_the_garbage_collector_looks_less_often_while_a_server_runs(before: int, within: int) -> None:
    """Never more often than the process asked for, nor where it is switched off; and afterwards as before."""
    with opened(view_of(table(thing=[1], at=[NOON], x=[10]), ["x"])) as (store, _):
        app = create_app(store, authentication=False)

        async def run() -> int:
            async with app.router.lifespan_context(app):
                return gc.get_threshold()[0]

        found = gc.get_threshold()
        gc.set_threshold(before, *found[1:])
        try:
            assert asyncio.run(run()) == within
            assert gc.get_threshold() == (before, *found[1:])
        finally:
            gc.set_threshold(*found)
            gc.unfreeze()


def test_floats_are_json_numbers_where_their_sum_is_none() -> None:
    """A sum beyond every double, and infinities that cancel each other, beside numbers."""
    values = {"x": [1.7e308, math.inf], "y": [1.7e308, -math.inf], "z": [0.5, None]}
    with opened(view_of(table(thing=[1, 2], at=[NOON] * 2, **values), list(values))) as (store, _):
        store.materialize(progress=False)
        bodies = [orjson.loads(b"".join(json_body(store.get_online_features({"thing": n}, "service")))) for n in (1, 2)]
    assert [body["rows"] for body in bodies] == [[[1.7e308, 1.7e308, 0.5]], [["Infinity", "-Infinity", None]]]


@pytest.mark.parametrize(
    ("line", "hint"), [('onlin = "lmdb://x"', "online"), ('[offline]\nmemory_limits = "1GB"', "memory_limit")]
)
def test_a_misspelled_configuration_key_is_refused_with_the_right_one(tmp_path: Path, line: str, hint: str) -> None:
    """Never accepted silently."""
    (tmp_path / "featurestore.toml").write_text(f'project = "p"\n{line}\n')
    message = raised(ConfigError, lambda: FeatureStore(tmp_path))
    assert f"'{hint}'" in message
    assert "featurestore.toml" in message


def test_files_that_disagree_on_a_columns_type_are_refused_by_name(tmp_path: Path) -> None:
    """DuckDB would cast the second file to the first one's types."""
    write(tmp_path / "a.parquet", table(thing=[1], at=[NOON], x=pa.array([1])))
    write(tmp_path / "b.parquet", table(thing=[2], at=[NOON], x=pa.array([1.5])))
    with FeatureStore.local() as store:
        message = raised(SourceError, lambda: store.plan([view_of(tmp_path, ["x"])]))
    said = f"its files disagree on it: int64 in {tmp_path}/a.parquet, double in {tmp_path}/b.parquet"
    assert f"column 'x' of source 'view_rows' is not one column: {said}" in message
    assert "a.parquet" in message
    assert "b.parquet" in message


# --- engines ------------------------------------------------------------------------------


def test_nanoseconds_are_floored_to_microseconds_before_and_after_1970(tmp_path: Path) -> None:
    """Parquet as pandas writes it, with and without zone: 1999 ns is 1 µs and −1 ns is −1 µs, in key, time and value."""
    ns = np.array([1999, 1000, 999, 0, -1, -999, -1000, -1001], "datetime64[ns]")
    keys = list(range(len(ns)))
    wanted = [datetime(1970, 1, 1, tzinfo=UTC) + US * n for n in (1, 1, 0, 0, -1, -1, -1, -2)]
    for zone in (None, "UTC", "America/New_York"):
        stamps = pd.Series(ns) if zone is None else pd.Series(ns).dt.tz_localize("UTC").dt.tz_convert(zone)
        path = tmp_path / f"{'naive' if zone is None else zone.replace('/', '_')}.parquet"
        pd.DataFrame({"thing": keys, "at": stamps, "x": stamps}).to_parquet(path)
        assert pq.read_schema(path).field("x").type.unit == "ns"
        with opened(view_of(path, ["x"])) as (store, _):
            assert both(store, thing=keys)["view__x"] == wanted, zone
            times = [moment for floor in wanted for moment in (floor - US, floor)]
            seen = trained(store, times, thing=[key for key in keys for _ in range(2)])["view__x__status"].to_pylist()
            assert seen == ["MISSING", "PRESENT"] * len(keys), zone


def test_a_nanosecond_spine_is_floored(tmp_path: Path) -> None:
    """A spine row one nanosecond before a row does not see it; one nanosecond after, it does."""
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    with opened(view_of(table(thing=[1], at=[epoch], x=[1]), ["x"])) as (store, _):
        times = pa.array([-1, 0, 1], pa.timestamp("ns"))
        asked = pa.table({"thing": [1, 1, 1], "event_timestamp": times})
        assert store.get_historical_features(asked, "service").to_arrow()["view__x"].to_pylist() == [None, 1, 1]


def test_floor_division_before_1970() -> None:
    """The instant that a refreshed view answers for is floored, where DuckDB's own // would truncate."""
    assert duckdb.sql("SELECT -1 // 10").fetchall() == [(0,)]
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    times = [epoch + timedelta(hours=n) for n in (-3, -2, -1, 0, 1)]
    rows = table(thing=[1] * 5, at=times, x=[-3, -2, -1, 0, 1])
    with opened(view_of(rows, ["x"], refresh="1h")) as (store, clock):
        asked = [epoch - US, epoch - timedelta(hours=1), epoch - timedelta(hours=1) - US, epoch, epoch + US]
        assert trained(store, asked, thing=[1] * 5)["view__x"].to_pylist() == [-1, -1, -2, 0, 0]
        for moment, value in zip(asked[2:0:-1] + asked[:1] + asked[3:], [-2, -1, -1, 0, 0], strict=True):
            clock.set(moment)
            assert both(store, thing=[1])["view__x"] == [value]


def test_the_hour_that_the_clock_shows_twice_is_the_later_one() -> None:
    """01:30 on the night when New York's clocks go back, in sources and in spines alike."""
    naive = pa.array([datetime(2024, 11, 3, 1, 30)], pa.timestamp("us"))
    later = datetime(2024, 11, 3, 6, 30, tzinfo=UTC)
    assert datetime(2024, 11, 3, 1, 30, fold=1, tzinfo=ZoneInfo("America/New_York")).astimezone(UTC) == later
    rows = table(thing=[1], at=naive, x=naive)
    with opened(view_of(rows, ["x"], timezone="America/New_York")) as (store, _):
        times = [later - US, later]
        assert trained(store, times, thing=[1, 1])["view__x"].to_pylist() == [None, later]
        asked = pa.table({"thing": [1], "event_timestamp": naive})
        local = store.get_historical_features(asked, "service", timezone="America/New_York")
        assert local.to_arrow()["view__x"].to_pylist() == [later]


def test_negative_zero_keys_and_ties_do_not_depend_on_the_order_of_rows() -> None:
    """-0.0 = 0.0 for DuckDB; which of two tied rows wins is decided by bytes, and -0.0 is the lesser."""
    for order in ([0, 1], [1, 0]):
        rows = table(thing=[1, 1], at=[NOON] * 2, x=[-0.0, 0.0]).take(order)
        with opened(view_of(rows, ["x"])) as (store, _):
            (value,) = both(store, thing=[1])["view__x"]
            assert math.copysign(1, value) == 1


def test_nulls_do_not_skip_a_row_as_arg_max_would() -> None:
    """The values of a row come together: never one from the newest row and another from an older one."""
    rows = table(thing=[1, 1], at=[hours(-1), NOON], x=pa.array([1, None]), y=pa.array([None, "b"]))
    with opened(view_of(rows, ["x", "y"])) as (store, _):
        answer = both(store, thing=[1])
        assert (answer["view__x"], answer["view__y"]) == ([None], ["b"])


def test_decimals_of_38_digits_are_exact() -> None:
    """No Decimal passes through HUGEINT or a double."""
    values = [Decimal("9" * 38), Decimal("-" + "9" * 38), Decimal(0), None]
    rows = table(thing=[1, 2, 3, 4], at=[NOON] * 4, x=pa.array(values, pa.decimal128(38, 0)))
    with opened(view_of(rows, ["x"])) as (store, _):
        assert both(store, thing=[1, 2, 3, 4])["view__x"] == values


def test_view_declared_without_refresh_says_what_is_missing() -> None:
    """How often values change is never guessed."""
    source = view_of(table(thing=[1], at=[NOON], x=[1]), ["x"]).source
    with pytest.raises(DeclarationError, match="refresh must be said"):
        FeatureView("view", entity=THING, source=source, features=["x"])
