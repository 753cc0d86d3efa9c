"""Every type, with every edge, is the same value in every place where it appears."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from datetime import UTC, date, datetime
from decimal import Decimal as D
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from featurestore import Entity, FeatureView
from featurestore.online.view_codec import ViewCodec
from featurestore.semantics.values import canonical
from featurestore.semantics.view import EVENT_TIME, UNTIL, resolve
from featurestore.sources.instances import Instances
from featurestore.sources.offline import Offline
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
    from_json,
    parse_type,
    to_json,
)
from tests import golden_wire
from tests.small import NOON, both, opened, spine, table, view_of

TINY, HUGE = 5e-324, 1.7976931348623157e308
EDGES: dict[FeatureType, list[Any]] = {
    Bool: [True, False],
    Int32: [0, 1, -1, 2**31 - 1, -(2**31)],
    Int64: [0, 1, -1, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63)],
    Float32: [0.0, -0.0, math.nan, math.inf, -math.inf, 1.401298464324817e-45, float(np.float32(0.1))],
    Float64: [0.0, -0.0, math.nan, math.inf, -math.inf, TINY, HUGE, 0.1],
    String: ["", "a", "ß", "日本", "\0", "a\0b", "x" * 300, "🦆"],
    Bytes: [b"", b"\0", b"\xff\xfe", b"x" * 300],
    Date: [date(1970, 1, 1), date(1969, 12, 31), date(1, 1, 1), date(9999, 12, 31)],
    Timestamp: [
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    ],
    Decimal(10, 2): [D("0.00"), D("0.01"), D("-0.01"), D("99999999.99"), D("-99999999.99")],
    Decimal(38, 0): [D(0), D(1), D(-1), D("9" * 38), D("-" + "9" * 38)],
    Decimal(38, 20): [D("0." + "0" * 19 + "1"), D("123456789012345678.12345678901234567890")],
    Array(Float64): [[], [None], [0.0, -0.0, math.nan, None, math.inf], [1.5] * 9],
    Array(String): [[], [""], [None], ["a", None, "", "日本"]],
    Array(Int64): [[], [None, 2**63 - 1], list(range(17))],
    Array(Bool): [[], [True, None, False]],
    Array(Timestamp): [[], [datetime(1969, 1, 1, 0, 0, 0, 1, tzinfo=UTC), None]],
    Array(Decimal(38, 0)): [[], [D("-" + "9" * 38), None, D(0)]],
    Array(Float32, 3): [[0.0, -0.0, 1.5], [math.nan, math.inf, -math.inf]],
}
TYPES = list(EDGES)
KEY_TYPES = [of for of in TYPES if not of.is_float and of.element is None]
by_type = pytest.mark.parametrize("of", TYPES, ids=str)


def arrow(of: FeatureType, values: list[Any]) -> pa.Array:
    return canonical(pa.array(values, of.arrow), of)


def codec_of(of: FeatureType, *, key: FeatureType = Int64, until: bool = False) -> ViewCodec:
    columns = {"thing": pa.array([], key.arrow), "at": pa.array([], pa.timestamp("us", "UTC"))}
    columns |= {"x": pa.array([], of.arrow), "y": pa.array([], of.arrow)}
    columns |= {"end": pa.array([], pa.timestamp("us", "UTC"))} if until else {}
    rows = pa.table(columns)
    words = {"until": "end"} if until else {}
    view = view_of(rows, ["x", "y"], entity=Entity("thing", key={"thing": key}), **words)
    return ViewCodec("p", resolve(view, Offline.raw_types(OFFLINE, view.source)))


OFFLINE = Offline.__new__(Offline)


@pytest.fixture(autouse=True, scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> None:
    OFFLINE.__init__(tmp_path_factory.mktemp("root"), instances=Instances(spill=tmp_path_factory.mktemp("spill")))


def shown(of: FeatureType, values: Iterable[Any]) -> list[str]:
    """Values as text that tells all of them apart."""
    return [repr(value) for value in values]


@by_type
@pytest.mark.parametrize("until", [False, True])
def test_a_slot_gives_back_what_was_put_in(of: FeatureType, until: bool) -> None:
    """Columns are encoded together and decoded one by one; nulls anywhere, sliced arrays too."""
    codec, values = codec_of(of, until=until), [*EDGES[of], None]
    other = values[1:] + values[:1]
    rows = pa.table(
        {
            EVENT_TIME: pa.array(range(-1, len(values)), pa.int64()),
            UNTIL: pa.array([1 << 62] * (len(values) + 1), pa.int64()),
            "x": arrow(of, [values[0], *values]),
            "y": arrow(of, [values[0], *other]),
        }
    ).slice(1)
    records = codec.records(77, rows, ["x", "y"])
    slots = [codec.slot(record, 100).data for record in records]
    assert records == [codec.record([slot]) for slot in slots]
    decoded = [codec.slot(codec.with_older(record, codec.empty(5)), 100) for record in records]
    assert shown(of, [slot.row.values[0] for slot in decoded]) == shown(of, values)
    assert shown(of, [slot.row.values[1] for slot in decoded]) == shown(of, other)
    assert [(slot.instant, slot.row.event_time) for slot in decoded] == [(77, n) for n in range(len(values))]
    assert [slot.data for slot in decoded] == slots
    assert [shown(of, column) for column in codec.rows(records, 77).columns] == [shown(of, values), shown(of, other)]
    record = codec.record([slots[0], slots[-1]])
    assert codec.slot(record, 76) is None
    assert codec.slot(codec.record([codec.empty(80), slots[0]]), 79).data == slots[0]


@by_type
@pytest.mark.parametrize("until", [False, True])
def test_records_read_together_are_what_they_are_one_by_one(of: FeatureType, until: bool) -> None:
    """Whatever slots they have: the newest one, an older one, one without a row, two of them."""
    codec, values = codec_of(of, until=until), [*EDGES[of], None]
    times = pa.array(range(len(values)), pa.int64())
    rows = pa.table({EVENT_TIME: times, UNTIL: times, "x": arrow(of, values), "y": arrow(of, values[1:] + values[:1])})
    plain = codec.records(77, rows, ["x", "y"])
    older = [codec.slot(record, 77).data for record in codec.records(7, rows, ["x", "y"])]
    behind = [codec.with_older(record, slot) for record, slot in zip(plain, older[::-1], strict=True)]
    empty = [codec.record([codec.empty(77), slot]) for slot in older]
    for records in (plain, behind, [*plain, *behind], [*behind, *empty], empty, []):
        for base in (76, 77):
            slots = [codec.slot(record, base) for record in records]
            if None in slots:
                with pytest.raises(LookupError):
                    codec.rows(records, base)
                continue
            event_times, untils, columns, _ = codec.rows(records, base)
            held = [number for number, slot in enumerate(slots) if slot.row is not None]
            assert [number for number, time in enumerate(event_times) if time is not None] == held
            for number in held:
                assert (event_times[number], untils[number]) == slots[number].row[:2]
                assert shown(of, [column[number] for column in columns]) == shown(of, slots[number].row.values)


@pytest.mark.parametrize("of", KEY_TYPES, ids=str)
def test_keys_by_the_column_are_keys_one_by_one(of: FeatureType) -> None:
    """What materialize writes is what a lookup asks for, and no two values share a key."""
    codec, values = codec_of(Int64, key=of), EDGES[of]
    by_column = codec.keys([arrow(of, values)], len(values))
    assert by_column == [codec.key([of.accept(value)]) for value in values]
    assert len(set(by_column)) == len(values)


@pytest.mark.parametrize("of", KEY_TYPES, ids=str)
def test_a_key_of_every_type_is_found_along_both_paths(of: FeatureType) -> None:
    """Each edge value, as a key."""
    values = EDGES[of]
    rows = table(thing=arrow(of, values), at=[NOON] * len(values), x=list(range(len(values))))
    with opened(view_of(rows, ["x"], entity=Entity("thing", key={"thing": of}))) as (store, _):
        assert both(store, thing=values)["view__x"] == list(range(len(values)))


def two_paths(of: FeatureType) -> tuple[Any, Any]:
    values = [*EDGES[of], None]
    keys = list(range(len(values)))
    rows = table(thing=keys, at=[NOON] * len(values), x=arrow(of, values))
    with opened(view_of(rows, ["x"])) as (store, _):
        store.materialize(progress=False)
        frame = store.get_historical_features(spine(NOON, thing=[*keys, 999]), "service")
        return frame, store.get_online_features([{"thing": key} for key in [*keys, 999]], "service")


@pytest.fixture(scope="module", params=TYPES, ids=str)
def answers(request: pytest.FixtureRequest) -> tuple[FeatureType, Any, Any]:
    """Training's and serving's answer for every edge of a type, null and a missing key."""
    return request.param, *two_paths(request.param)


def test_training_is_serving_to_the_bit(answers: tuple[FeatureType, Any, Any]) -> None:
    """The Arrow columns of both are one, and hold what was put in."""
    of, frame, online = answers
    left, right = frame.to_arrow()["view__x"].combine_chunks(), online.to_arrow()["view__x"].combine_chunks()
    assert left.type == right.type == of.arrow
    wanted = shown(of, [*EDGES[of], None, None])
    assert shown(of, online.to_dict()["view__x"]) == wanted
    assert shown(of, arrow_scalars(of, left)) == shown(of, arrow_scalars(of, right)) == wanted


def arrow_scalars(of: FeatureType, column: pa.Array) -> list[Any]:
    return [of.accept(value) for value in column.to_pylist()]


def test_pandas_has_one_dtype_for_both(answers: tuple[FeatureType, Any, Any]) -> None:
    """Arrow-backed and numpy-backed alike, and the table of types names the latter."""
    of, frame, online = answers
    assert frame.features.dtypes.to_dict() == online.features.dtypes.to_dict()
    if of.kind == "Int64":
        for answer in (frame, online):
            with pytest.raises(ValueError, match="beyond 2\\^53"):
                answer.to_pandas(dtypes="numpy")
        return
    left, right = frame.to_pandas(dtypes="numpy")["view__x"], online.to_pandas(dtypes="numpy")["view__x"]
    assert str(left.dtype) == str(right.dtype) == of.numpy
    assert shown(of, left.tolist()) == shown(of, right.tolist())


def test_numpy_has_the_same_bits_or_the_same_refusal(answers: tuple[FeatureType, Any, Any]) -> None:
    """Numbers become float64; text and integers that float64 cannot hold are refused by name in both."""
    of, frame, online = answers
    assert shown(of, frame.to_numpy(object)[:, 0].tolist()) == shown(of, online.to_numpy(object)[:, 0].tolist())
    if of.kind in {"Bool", "Int32", "Float32", "Float64"}:
        for dtype in (None, np.float32):
            with np.errstate(over="ignore"):
                left, right = frame.to_numpy(dtype), online.to_numpy(dtype)
            assert left.dtype == right.dtype
            assert left.tobytes() == right.tobytes()
        return
    messages = []
    for answer in (frame, online):
        with pytest.raises(ValueError, match="'view__x'") as error:
            answer.to_numpy()
        messages.append(str(error.value))
    assert messages[0] == messages[1]


def test_polars_reads_both(answers: tuple[FeatureType, Any, Any]) -> None:
    """Through the Arrow C stream, with equal schemas."""
    _, frame, online = answers
    left, right = pl.DataFrame(frame), pl.DataFrame(online)
    assert left["view__x"].dtype == right["view__x"].dtype
    assert left["view__x"].equals(right["view__x"], null_equal=True)


@by_type
def test_json_gives_back_what_was_put_in(of: FeatureType) -> None:
    """Through real JSON text, NaN and the infinities included."""
    for value in [*EDGES[of], None]:
        text = json.dumps(to_json(of, value), allow_nan=False)
        assert repr(from_json(of, json.loads(text))) == repr(of.accept(value))


@by_type
def test_a_types_name_reads_back(of: FeatureType) -> None:
    """`str` and `parse_type` are each other's inverse."""
    assert parse_type(str(of)) == of


def test_the_wire_is_what_it_was() -> None:
    """A record that an earlier version wrote is read by this one; a change of format has to change FORMAT."""
    assert golden_wire.current() == json.loads(golden_wire.WIRE.read_text())


@pytest.mark.parametrize("name", sorted(golden_wire.CASES))
def test_the_as_of_query_is_what_it_was(name: str) -> None:
    """A change of the query shows in review."""
    assert golden_wire.sql_of(name) == (golden_wire.GOLDEN / f"{name}.sql").read_text()


def test_every_golden_file_belongs_to_a_case() -> None:
    """None is left behind."""
    assert {path.stem for path in golden_wire.GOLDEN.glob("*.sql")} == set(golden_wire.CASES)
    assert isinstance(golden_wire.CASES["plain"], FeatureView)
