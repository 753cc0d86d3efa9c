"""Files that differ, and types that the engine would change: what is used is compared as a whole, the rest does not matter."""

from __future__ import annotations

import decimal
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import (
    Count,
    FeatureService,
    FeatureStore,
    FeatureView,
    LastN,
    Latest,
    Min,
    ParquetSource,
    Sum,
    TableSource,
)  # fmt: skip
from featurestore.declare import frames
from featurestore.errors import DeclarationError, FeatureStoreError, SourceError
from featurestore.registry.steps import ChangeLabel
from featurestore.types import Array, Decimal, Float64, Int64
from tests.small import NOON, THING, both, hours, opened, raised, spine, table, view_of, write

D = decimal.Decimal
F32, F64 = pa.list_(pa.float32()), pa.list_(pa.float64())


def files(folder: Path, *columns: dict[str, Any]) -> Path:
    """A file for each of these, with one row, of things 1, 2, …, and these columns."""
    for number, more in enumerate(columns, 1):
        write(folder / f"{number}.parquet", table(thing=[number], at=[hours(-1)], **more))
    return folder


def source_of(folder: Path, **words: Any) -> ParquetSource:
    return ParquetSource("rows", folder, event_time="at", **words)


def view(source: Any, features: Any, **words: Any) -> FeatureView:
    return FeatureView("view", entity=THING, source=source, features=features, **{"refresh": "continuous", **words})


def refused(*views: FeatureView) -> str:
    """What a plan says of a source that it refuses."""
    with FeatureStore.local() as store:
        return raised(FeatureStoreError, lambda: store.plan([*views]))


# --- files that disagree --------------------------------------------------------------------------


def nested(of: pa.DataType) -> pa.Array:
    """One value of a nested type."""
    return pa.array([[0.1]], of) if pa.types.is_list(of) else pa.array([{"a": {"b": [0.1]}}], of)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    ("types", "said"),
    [
        ((pa.int64(), pa.float64()), ("int64", "double", "")),
        ((pa.list_(pa.int64()), F64), ("int64", "double", r" at '\[\]'")),
        ((pa.list_(pa.list_(pa.int64())), pa.list_(F64)), ("int64", "double", r" at '\[\]\[\]'")),
        ((pa.timestamp("us"), pa.timestamp("us", "UTC")), (r"timestamp\[us\]", r"timestamp\[us, tz=UTC\]", "")),
        ((pa.decimal128(38, 0), pa.decimal128(38, 10)), (r"decimal128\(38, 0\)", r"decimal128\(38, 10\)", "")),
        ((pa.string(), pa.int32()), ("string", "int32", "")),
    ],
)
def test_files_whose_types_no_type_holds_are_refused_with_both(
    tmp_path: Path, types: Sequence[pa.DataType], said: Sequence[str], order: int
) -> None:
    """Whichever file comes first; the message names both files, and where within the column they differ."""
    files(tmp_path, *({"y": pa.nulls(1, of)} for of in types[::order]))
    one, another = said[:2][::order]
    message = f"column 'y' of source 'rows' is not one column: its files disagree on it: {one} in .*1.parquet, {another} in .*2.parquet{said[2]};"
    with pytest.raises(SourceError, match=message), FeatureStore.local() as store:
        store.plan([view(source_of(tmp_path), ["y"])])
    with opened(view(source_of(tmp_path), {"n": Count(window="1d")})) as (store, _):
        assert both(store, thing=[1, 2])["view__n"] == [1, 1]


@pytest.mark.parametrize("order", [1, -1])
def test_lists_of_two_precisions_are_not_cut_to_the_first(tmp_path: Path, order: int) -> None:
    """The wider holds both, and is what the definition has to state."""
    files(tmp_path, *({"y": nested(of)} for of in (F32, F64)[::order]))
    message = refused(view(source_of(tmp_path), {"y": Latest("y")}))
    assert "several types: Array(Float" in message
    assert "Latest('y', type=Array(Float64), …)" in message
    with opened(view(source_of(tmp_path), {"y": Latest("y", type=Array(Float64))})) as (store, _):
        narrow = float(np.float32(0.1))
        assert both(store, thing=[1, 2])["view__y"] == [[narrow], [0.1]][::order]


def test_structs_that_differ_deep_within_are_refused_where_a_derived_column_reads_one(tmp_path: Path) -> None:
    """A struct is no feature; a field of it can be."""
    struct = [pa.struct({"a": pa.struct({"b": of})}) for of in (F32, F64)]
    files(tmp_path, *({"y": nested(of)} for of in struct))
    source = source_of(tmp_path, derived={"z": "y.a.b[1]"})
    with pytest.raises(DeclarationError, match=r"derived column 'z': column 'y' is not one column.* float in .*1.parquet, double in .*2.parquet at '\.a\.b\[\]'"), opened(view(source, ["z"])):  # fmt: skip
        pass


# --- types that the engine would change -----------------------------------------------------------

CHANGED = {
    "decimal256": (pa.array([D("0.1")], pa.decimal256(50, 2)), r"decimal256\(50, 2\)", "DOUBLE"),
    "list": (pa.array([[D("0.1")]], pa.list_(pa.decimal256(50, 2))), r"decimal256\(50, 2\) at '\[\]'", r"DOUBLE"),
    "struct": (
        pa.array([{"a": D("0.1")}], pa.struct({"a": pa.decimal256(50, 2)})),
        r"decimal256\(50, 2\) at '\.a'",
        "DOUBLE",
    ),
    "duration": (pa.array([5], pa.duration("us")), r"duration\[us\]", "BIGINT"),
    "bool8": (
        pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1], pa.int8())),
        r"extension<arrow.bool8>",
        "TINYINT",
    ),
}


@pytest.mark.parametrize("kind", CHANGED)
def test_a_type_that_the_engine_would_change_is_refused_where_it_is_used(tmp_path: Path, kind: str) -> None:
    """By both names, with the file; in features, conditions, words and derived columns. Elsewhere it does not matter."""
    values, own, read = CHANGED[kind]
    files(tmp_path, {"y": values, "x": [1]})
    said = f"column 'y'.* is {own}, which the engine reads as {read}, in .*1.parquet"
    uses = (
        view(source_of(tmp_path), {"f": Latest("y")}), view(source_of(tmp_path), {"n": Count(window="1d", where="y IS NOT NULL")}),
        view(source_of(tmp_path, derived={"z": "y IS NULL"}), ["x"]), view(source_of(tmp_path, tiebreak="y"), ["x"]),
    )  # fmt: skip
    for used in uses:
        with pytest.raises((SourceError, DeclarationError), match=said), opened(used):
            pass
    with opened(view(source_of(tmp_path), ["x"])) as (store, _):
        assert both(store, thing=[1])["view__x"] == [1]


def test_a_frame_may_have_columns_that_the_engine_does_not_take(tmp_path: Path) -> None:
    """What is not used is left out; what is used is refused by name."""
    rows = table(thing=[1], at=[hours(-1)], y=pa.array([D("0.1")], pa.decimal256(50, 2)), x=[1])
    with opened(view_of(rows, ["x"])) as (store, _):
        assert both(store, thing=[1])["view__x"] == [1]
    with pytest.raises(SourceError, match=r"feature 'y': column 'y' of .* is decimal256\(50, 2\), which the engine does not take"), opened(view_of(rows, ["y"])):  # fmt: skip
        pass


# --- types that are read exactly ------------------------------------------------------------------

ID = uuid.UUID("00000000-0000-4000-8000-0000000000ff")
EXACT = {
    "float16": (pa.array([np.float16(0.1)]), float(np.float16(0.1))),
    "decimal256 of few digits": (pa.array([D("0.10")], pa.decimal256(20, 2)), D("0.10")),
    "decimal32": (pa.array([D("0.10")], pa.decimal32(5, 2)), D("0.10")),
    "uint64": (pa.array([(1 << 63) - 1], pa.uint64()), (1 << 63) - 1),
    "uint64 list": (pa.array([[7, None]], pa.list_(pa.uint64())), [7, None]),
    "large_string": (pa.array(["a"], pa.large_string()), "a"),
    "string_view": (pa.array(["a"], pa.string_view()), "a"),
    "large_binary": (pa.array([b"a"], pa.large_binary()), b"a"),
    "fixed_size_binary": (pa.array([b"abcd"], pa.binary(4)), b"abcd"),
    "dictionary": (pa.array(["a"]).dictionary_encode(), "a"),
    "uuid": (pa.ExtensionArray.from_storage(pa.uuid(), pa.array([ID.bytes], pa.binary(16))), str(ID)),
    "json": (pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a":"b"}'])), '{"a":"b"}'),
    "json text": (pa.ExtensionArray.from_storage(pa.json_(), pa.array(['"b"'])), '"b"'),
    "large_list": (pa.array([[0.5]], pa.large_list(pa.float32())), [0.5]),
}


@pytest.mark.parametrize("kind", EXACT)
@pytest.mark.parametrize("place", ["file", "frame"])
def test_what_is_exact_is_read_alike_from_files_and_frames(tmp_path: Path, kind: str, place: str) -> None:
    """Served and trained, in whatever form it is stored."""
    values, value = EXACT[kind]
    rows = table(thing=[1], at=[hours(-1)], y=values)
    given = rows if place == "frame" else write(tmp_path / "1.parquet", rows)
    with opened(view_of(given, ["y"])) as (store, _):
        assert both(store, thing=[1])["view__y"] == [value]


@pytest.mark.parametrize("deprecated", [True, False])
def test_timestamps_are_one_instant_in_every_unit_and_form(tmp_path: Path, deprecated: bool) -> None:
    """Those of 96 bits too; finer ones are floored, before 1970 as well."""
    values = pa.array([-1001], pa.timestamp("ns"))
    rows = table(thing=[1], at=[hours(-1)], y=values)
    pq.write_table(rows, tmp_path / "1.parquet", use_deprecated_int96_timestamps=deprecated)
    with opened(view_of(tmp_path / "1.parquet", ["y"])) as (store, _):
        assert both(store, thing=[1])["view__y"][0].microsecond == 999_998


BEYOND = {"UBIGINT": (1 << 63, (1 << 64) - 1), "HUGEINT": (-(1 << 63) - 1, 1 << 63), "UHUGEINT": (1 << 63, 1 << 127)}


def in_table(folder: Path, of: str, *values: Any) -> TableSource:
    """A table with a row of type `of` for each value."""
    with duckdb.connect(str(folder / "w.duckdb")) as connection:
        connection.execute(f'CREATE TABLE t (thing BIGINT, "at" TIMESTAMPTZ, y {of})')
        for number, value in enumerate(values, 1):
            connection.execute(f"INSERT INTO t VALUES (?, ?, {value}::{of})", [number, hours(-1)])
    return TableSource("rows", folder / "w.duckdb", table="t", event_time="at")


@pytest.mark.parametrize("of", BEYOND)
def test_wider_integers_are_taken_where_they_fit_and_refused_by_value_where_not(tmp_path: Path, of: str) -> None:
    """`sum()` in SQL makes a HUGEINT of small numbers."""
    most, least = (1 << 63) - 1, 0 if of[0] == "U" else -(1 << 63)
    (tmp_path / "good").mkdir()
    fits = view(in_table(tmp_path / "good", of, most, least, "NULL"), {"y": Latest("y"), "sum": Sum("y", window="1d")})
    with opened(fits) as (store, _):
        answer = both(store, thing=[1, 2, 3])
        assert answer["view__y"] == [most, least, None]
        assert answer["view__sum"] == [most, least, None]
    for number, value in enumerate(BEYOND[of]):
        (tmp_path / str(number)).mkdir()
        with opened(view(in_table(tmp_path / str(number), of, 1, value), ["y"])) as (store, _):
            said = f"column 'y' of source 'rows' holds {value}, which is beyond Int64"
            assert said in raised(SourceError, lambda: store.get_historical_features(spine(NOON, thing=[2]), "service"))
            assert said in raised(SourceError, lambda: store.materialize(progress=False))


def test_wider_integers_are_keys_where_they_fit(tmp_path: Path) -> None:
    """An uint64 key column of a file finds the spine's int64."""
    write(
        tmp_path / "1.parquet", table(thing=pa.array([1, (1 << 63) - 1], pa.uint64()), at=[hours(-1)] * 2, x=[10, 20])
    )
    with opened(view_of(tmp_path, ["x"])) as (store, _):
        assert both(store, thing=[1, (1 << 63) - 1, 5])["view__x"] == [10, 20, None]


def test_an_enum_is_text_and_orders_as_text(tmp_path: Path) -> None:
    """Its own order is that in which its words were declared; rule 2 orders by the bytes of the text."""
    with duckdb.connect(str(tmp_path / "w.duckdb")) as connection:
        connection.execute("CREATE TABLE t (thing BIGINT, \"at\" TIMESTAMPTZ, y ENUM('b', 'a'), x INT)")
        connection.execute("INSERT INTO t VALUES (1, $1, 'b', 2), (1, $1, 'a', 1)", [hours(-1)])
    source = TableSource("rows", tmp_path / "w.duckdb", table="t", event_time="at", tiebreak="y")
    with opened(view(source, {"x": Latest("x"), "least": Min("y", window="1d")})) as (store, _):
        answer = both(store, thing=[1])
        assert (answer["view__x"], answer["view__least"]) == ([2], ["a"])


def test_text_beyond_32_bit_offsets_is_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """pandas' own text is `large_string`, of which one chunk may be longer than a plain one can be."""
    monkeypatch.setattr(frames, "PLAIN_BYTES", 64)
    words = [f"word {number}" * 3 for number in range(50)]
    frame = pd.DataFrame(
        {"thing": range(50), "at": [hours(-1)] * 50, "y": pd.array(words, dtype="str"), "z": [[word] for word in words]}
    )
    assert len(frames.table_of(frame)["y"].chunks) > 10
    with opened(view_of(frame, ["y", "z"])) as (store, _):
        answer = both(store, thing=list(range(50)))
        assert answer["view__y"] == words
        assert answer["view__z"] == [[word] for word in words]


def test_text_that_lies_beyond_32_bit_offsets_in_a_longer_column_is_taken() -> None:
    """A slice keeps the offsets of the whole; the memory before it is never touched."""
    whole = 1 << 31
    data = np.zeros(whole + 3, np.uint8)
    data[whole:] = list(b"abc")
    offsets = pa.py_buffer(np.array([0, whole, whole + 3]))
    column = pa.Array.from_buffers(pa.large_string(), 2, [None, offsets, pa.py_buffer(data)]).slice(1)
    with opened(view_of(table(thing=[1], at=[hours(-1)], y=column), ["y"])) as (store, _):
        assert both(store, thing=[1])["view__y"] == ["abc"]


# --- files that changed over time -----------------------------------------------------------------


def test_columns_that_nobody_uses_do_not_matter(tmp_path: Path) -> None:
    """A new one, one that is gone, a struct with a new field, another type, other places in the file."""
    struct = pa.array([{"a": 1}], pa.struct({"a": pa.int64()}))
    wider = pa.array([{"a": 1, "b": "x"}], pa.struct({"a": pa.int64(), "b": pa.string()}))
    files(
        tmp_path, {"x": [1], "s": struct, "gone": [1], "t": [1]}, {"t": ["a"], "new": [1], "s": wider, "x": [2]},
        {"x": [3], "s": struct, "gone": [1], "t": [1]}, {"x": [4]},
    )  # fmt: skip
    features = {"x": Latest("x"), "n": Count(window="1d", where="x > 0")}
    with opened(view(source_of(tmp_path), features)) as (store, _):
        answer = both(store, thing=[1, 2, 3, 4])
        assert (answer["view__x"], answer["view__n"]) == ([1, 2, 3, 4], [1, 1, 1, 1])
        explained = store.explain("view", {"thing": 3}, at=NOON)
        assert str(next(row for row in explained.rows if row.verdict == "chosen").file).endswith("3.parquet")


def test_a_column_that_a_file_lacks_is_null_where_the_source_says_so(tmp_path: Path) -> None:
    """Else it is an error with the word to write."""
    files(tmp_path, {}, {"x": [20]}, {})
    message = refused(view(source_of(tmp_path), ["x"]))
    assert "feature 'x': column 'x' of source 'rows' is missing in" in message
    assert "1.parquet, and there in" in message
    assert "2.parquet; say optional=['x']" in message
    features = {"x": Latest("x"), "n": Count("x", window="1d"), "none": Count(window="1d", where="x IS NULL")}
    with opened(view(source_of(tmp_path, optional="x"), features)) as (store, _):
        answer = both(store, thing=[1, 2, 3])
        assert answer["view__x"] == [None, 20, None]
        assert answer["view__x__status"] == ["PRESENT"] * 3
        assert (answer["view__n"], answer["view__none"]) == ([0, 1, 0], [1, 0, 1])


def test_an_optional_column_that_no_file_has_is_refused(tmp_path: Path) -> None:
    """Nobody knows its type."""
    files(tmp_path, {"x": [1]})
    assert "column 'y' of source 'rows' is in none of its files" in refused(
        view(source_of(tmp_path, optional=["y"]), ["y"])
    )


def test_a_column_that_is_all_null_in_a_file_has_the_type_of_the_others(tmp_path: Path) -> None:
    """Writers that see only nulls write a column of no type."""
    files(tmp_path, {"x": pa.nulls(1)}, {"x": ["a"]}, {"x": pa.nulls(1)})
    with opened(view(source_of(tmp_path), ["x"])) as (store, _):
        assert both(store, thing=[1, 2, 3])["view__x"] == [None, "a", None]


WIDENING = [
    (pa.array([1], pa.int32()), pa.array([1 << 40], pa.int64()), Int64, [1, 1 << 40]),
    (pa.array([1], pa.int16()), pa.array([0.5]), Float64, [1.0, 0.5]),
    (pa.array([0.1], pa.float32()), pa.array([0.1]), Float64, [float(np.float32(0.1)), 0.1]),
    (pa.array([D("1.25")], pa.decimal128(5, 2)), pa.array([D("1.125")], pa.decimal128(9, 3)), Decimal(9, 3), [D("1.250"), D("1.125")]),
]  # fmt: skip


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("narrow", "wide", "of", "values"), WIDENING, ids=lambda value: str(value)[:12])
def test_a_stated_type_holds_what_files_have_in_several(
    tmp_path: Path, narrow: pa.Array, wide: pa.Array, of: Any, values: list[Any], turned: bool
) -> None:
    """Whichever file comes first; what is not stated is refused with what to state."""
    step = -1 if turned else 1
    files(tmp_path, *({"x": array} for array in (narrow, wide)[::step]))
    assert f"State one that holds them: Latest('x', type={of}, …)" in refused(view(source_of(tmp_path), ["x"]))
    features = {"x": Latest("x", type=of), "last": LastN("x", 2, type=Array(of))}
    with opened(view(source_of(tmp_path), features)) as (store, _):
        answer = both(store, thing=[1, 2])
        assert answer["view__x"] == values[::step]
        assert answer["view__last"] == [[value] for value in values[::step]]


def test_small_integers_of_several_widths_are_one_type(tmp_path: Path) -> None:
    """All of them are Int32, so nothing is to be stated; instants of several units are one too, floored to µs."""
    units = [("s", 1), ("ms", 1_000), ("us", 1_000_000), ("ns", 1_000_000_001)]
    kinds = [pa.int8(), pa.int16(), pa.int32(), pa.uint8()]
    files(
        tmp_path, *({"x": pa.array([7], of), "y": pa.array([value], pa.timestamp(unit))}
                    for of, (unit, value) in zip(kinds, units, strict=True)),
    )  # fmt: skip
    with opened(view(source_of(tmp_path), ["x", "y"])) as (store, _):
        answer = both(store, thing=[1, 2, 3, 4])
        assert answer["view__x"] == [7] * 4
        assert len(set(answer["view__y"])) == 1


def test_files_of_a_wider_type_change_no_view_that_states_it(tmp_path: Path) -> None:
    """What was applied goes on with its values and its fingerprint; a key of several widths too."""
    files(tmp_path, {"x": pa.array([1], pa.int32())})
    states = view(source_of(tmp_path), {"x": Latest("x", type=Int64)}, refresh="1h")
    with opened(states) as (store, clock):
        assert both(store, thing=[1])["view__x"] == [1]
        before = store._project.registry.current().document["views"]["view"]["fingerprint"]
        rows = table(thing=pa.array([2], pa.int32()), at=[hours(0.5)], x=[1 << 40])
        write(tmp_path / "2.parquet", rows)
        clock.set(hours(1))
        assert both(store, thing=[1, 2])["view__x"] == [1, 1 << 40]
        assert not store.plan([states]).steps
        assert store._project.registry.current().document["views"]["view"]["fingerprint"] == before


def test_a_fold_whose_states_would_change_is_planned_anew(tmp_path: Path) -> None:
    """A sum of Int64 is kept as one of Int64: the plan says that the column's type is another."""
    files(tmp_path, {"x": pa.array([1], pa.int32())})
    sums = view(source_of(tmp_path), {"x": Sum("x", window="1d")}, refresh="1h")
    with opened(sums) as (store, clock):
        assert both(store, thing=[1])["view__x"] == [1]
        write(tmp_path / "2.parquet", table(thing=[2], at=[hours(0.5)], x=[1 << 40]))
        clock.set(hours(1))
        with pytest.raises(SourceError, match=r"'x' \(feature 'x'\) was Int32 \(INTEGER\) .* and is Int64 \(BIGINT\)"):
            store.materialize(progress=False)
        plan = store.plan([sums, FeatureService("service", features=[sums])], accept_types=True)
        store.apply(plan)
        assert both(store, thing=[1, 2])["view__x"] == [1, 1 << 40]


MOMENT = pd.Timestamp("2026-03-01 11:00:00.123456")

REWRITTEN: dict[str, list[pa.Array]] = {
    "instants of any unit and zone": [
        pa.array([MOMENT], pa.timestamp("ns", "UTC")), pa.array([MOMENT], pa.timestamp("us", "UTC")),
        pa.array([MOMENT.value + 1], pa.timestamp("ns", "Europe/Berlin")),
    ],
    "coarse instants": [pa.array([7], pa.timestamp("s", "UTC")), pa.array([7000], pa.timestamp("ms", "UTC"))],
    "naive times of any unit": [
        pa.array([7], pa.timestamp("s")), pa.array([7_000], pa.timestamp("ms")),
        pa.array([7_000_000], pa.timestamp("us")), pa.array([7_000_000_001], pa.timestamp("ns")),
    ],
    "lists of instants": [
        pa.array([[MOMENT]], pa.list_(pa.timestamp("ns", "UTC"))),
        pa.array([[MOMENT]], pa.large_list(pa.timestamp("us", "UTC"))),
    ],
    "small integers": [pa.array([7], of) for of in (pa.int8(), pa.int32(), pa.uint16(), pa.int16())],
    "large integers": [pa.array([7], of) for of in (pa.int64(), pa.uint32())],
    "small floats": [pa.array(np.array([0.5], "float16"), pa.float16()), pa.array([0.5], pa.float32())],
    "text": [
        pa.array(["a"]), pa.array(["a"], pa.large_string()), pa.array(["a"]).dictionary_encode(),
        pa.array(["a"], pa.string_view()),
    ],
    "bytes": [pa.array([b"a"], of) for of in (pa.binary(), pa.large_binary(), pa.binary(1))],
    "days": [pa.array([NOON.date()], of) for of in (pa.date32(), pa.date64())],
}  # fmt: skip
"""What a column of one feature type may be stored as: each of these has the same value."""


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("kind", REWRITTEN)
def test_a_file_that_stores_the_same_type_otherwise_is_no_change(tmp_path: Path, kind: str, *, back: bool) -> None:
    """Materialize goes on over it and plan has no value that changes, with the fingerprint as it was."""
    first, *others = REWRITTEN[kind][::-1] if back else REWRITTEN[kind]
    files(tmp_path, {"x": first})
    definitions = [view(source_of(tmp_path), ["x"], refresh="1h")]
    with opened(*definitions) as (store, clock):
        value = both(store, thing=[1])["view__x"]
        document = store.registry.current().document
        for hour, column in enumerate(others, 1):
            files(tmp_path, {"x": column})
            clock.set(hours(hour))
            store.materialize(progress=False)
            assert both(store, thing=[1])["view__x"] == value
            plan = store.plan(definitions)
            assert plan.document["views"]["view"]["fingerprint"] == document["views"]["view"]["fingerprint"]
            assert [step for step in plan.steps if not isinstance(step, ChangeLabel)] == []


@pytest.mark.parametrize("column", ["at", "x"])
@pytest.mark.parametrize("stored", [pa.timestamp("us"), pa.timestamp("ns")])
def test_a_naive_time_in_place_of_an_instant_is_a_change(tmp_path: Path, stored: pa.DataType, column: str) -> None:
    """As it is in files beside each other: the message shows both, and what to do about it takes it."""
    times = table(thing=[1], at=[hours(-1)], x=[hours(-2)])
    write(tmp_path / "1.parquet", times)
    definitions = [view(source_of(tmp_path), ["x"], refresh="1h")]
    with opened(*definitions) as (store, clock):
        place = times.column_names.index(column)
        write(tmp_path / "1.parquet", times.set_column(place, column, times[column].cast(stored)))
        clock.set(hours(1))
        for refused in (store.plan, store.apply, lambda _=None: store.materialize(progress=False)):
            said = raised(SourceError, lambda call=refused: call(definitions))
            assert f"column '{column}' (" in said
            assert "was Timestamp (TIMESTAMP WITH TIME ZONE) when it was applied and is naive Timestamp" in said
            assert "featurestore plan --accept-types" in said
        store.apply(definitions, accept_types=True)
        store.materialize(progress=False)
        assert store.plan(definitions).is_empty


def test_the_plan_says_what_it_saw(tmp_path: Path) -> None:
    """Which columns files have in several types, which some lack, and which cannot be used."""
    files(tmp_path, {"x": pa.array([1], pa.int32()), "bad": [1]}, {"x": [2], "y": [3], "bad": ["a"]})
    seen = view(source_of(tmp_path, optional=["y"]), {"x": Latest("x", type=Int64), "y": Latest("y")})
    with FeatureStore.local() as store:
        said = " ".join(str(notice) for notice in store.plan([seen]).notices)
    assert "'x' is Int32 (INTEGER) in" in said
    assert "'y' is null in files without it, such as" in said
    assert "differ in columns that no view reads: 'bad'" in said
