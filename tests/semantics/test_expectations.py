"""Expectations of rows: the SQL form says what the Arrow form says, and what is declared is settled or refused by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore import (
    FeatureView,
    Freshness,
    InRange,
    InSet,
    Latest,
    Matches,
    NotNull,
    ParquetSource,
    PushSource,
    RowCount,
    Unique,
)
from featurestore.declare.expectations import RowExpectation
from featurestore.declare.stored import dump, read_source, read_view
from featurestore.errors import DeclarationError
from featurestore.semantics.engine import settle_session
from featurestore.semantics.expectations import met, met_sql, removing, settle, unmet, unmet_sql
from featurestore.semantics.view import resolve
from featurestore.types import Array, Bool, Date, FeatureType, Float32, Float64, Int32, Int64, String, Timestamp
from featurestore.types import Decimal as DecimalType
from tests.small import THING

DAY, OTHER = date(2024, 2, 29), date(1969, 12, 31)
MOMENT = datetime(2024, 5, 1, 12, tzinfo=UTC)
FLOATS = st.one_of(
    st.sampled_from([0.0, -0.0, 1.5, float("nan"), float("inf"), -float("inf"), 5e-324]), st.floats(width=32)
)
MONEY = DecimalType(6, 2)
TEXTS = st.one_of(
    st.sampled_from(["", "a", "A", "ab", "a\n", "a\nb", "é", "a'b", 'a"b', "𝄞", "0", "٣"]), st.text(max_size=3)
)
DRAWN: dict[FeatureType, Any] = {
    Int32: st.one_of(st.sampled_from([0, 9, 10, 11, -(1 << 31), (1 << 31) - 1]), st.integers(-20, 20)),
    Int64: st.one_of(st.sampled_from([0, 9, 10, 11, -(1 << 63), (1 << 63) - 1]), st.integers(-20, 20)),
    Float32: FLOATS,
    Float64: st.one_of(FLOATS, st.sampled_from([0.1, 1.5000000000000002])),
    MONEY: st.decimals(-9999, 9999, places=2),
    Date: st.one_of(st.sampled_from([DAY, OTHER]), st.dates()),
    Timestamp: st.one_of(
        st.just(MOMENT), st.datetimes(datetime(1960, 1, 1), datetime(2060, 1, 1), timezones=st.just(UTC))
    ),
    String: TEXTS.filter(lambda text: "\0" not in text),
    Bool: st.booleans(),
}
RANGED = [Int32, Int64, Float32, Float64, MONEY, Date, Timestamp]
LISTED = [Int32, Int64, String, Bool, Date, MONEY]
PATTERNS = [
    "a",
    "a.b",
    ".*",
    "[a-z]+",
    "(?i)a",
    "(?s)a.b",
    "a|b",
    r"\d",
    r"\w*",
    "a$",
    "^a",
    "[^a]*",
    "é",
    r"a\n?",
    "a'b",
]


@st.composite
def expected(draw: Any) -> tuple[FeatureType, RowExpectation]:
    """A type, and something that is expected of a column of it."""
    kind = draw(st.sampled_from(["null", "range", "set", "pattern"]))
    if kind == "null":
        return draw(st.sampled_from(list(DRAWN))), NotNull("x")
    if kind == "pattern":
        return String, Matches("x", draw(st.sampled_from(PATTERNS)))
    if kind == "set":
        of = draw(st.sampled_from(LISTED))
        return of, InSet("x", draw(st.lists(DRAWN[of], min_size=1, max_size=4)))
    of = draw(st.sampled_from(RANGED))
    finite = DRAWN[of].filter(lambda value: not isinstance(value, float) or abs(value) < float("inf"))
    edges = sorted([draw(finite), draw(finite)])
    given_edges = draw(st.sampled_from([(0,), (1,), (0, 1)]))
    said = {name: edges[place] for place, name in enumerate(("at_least", "at_most")) if place in given_edges}
    return of, InRange("x", **said)


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    """One for all examples."""
    with duckdb.connect() as connection:
        settle_session(connection)
        yield connection


@settings(max_examples=300, deadline=None)
@given(pair=expected(), data=st.data())
def test_both_forms_say_the_same(
    connection: duckdb.DuckDBPyConnection, pair: tuple[FeatureType, RowExpectation], data: st.DataObject
) -> None:
    """Of every type, nulls, NaN and edges included; and of rows that delete nothing is expected."""
    of, said = pair
    limits = [limit for limit in said.limits(of) if of.kind != "String" or said.kind != "matches"]
    beside = [value for value in limits if value is not None and (of != Float32 or value in (0.0, 1.5))]
    values = data.draw(
        st.lists(st.one_of(DRAWN[of], st.none(), *([st.sampled_from(beside)] if beside else [])), max_size=8)
    )
    gone = data.draw(st.lists(st.sampled_from([None, False, True]), min_size=len(values), max_size=len(values)))
    one = settle(said, of)
    rows = pa.table({"x": pa.array(values, of.arrow), "gone": pa.array(gone, pa.bool_())})
    source = ParquetSource("rows", "x", event_time="at", known_at="at", identity="id", deleted="gone")
    connection.register("rows", rows)
    raw = connection.sql("DESCRIBE rows").fetchall()[0][1]
    in_sql = connection.sql(f"SELECT {met_sql(one, raw, 'UTC')} FROM rows").fetchall()
    (sql,) = unmet_sql(source, [one], {"x": raw}, "coalesce(gone, false)")
    unmet_in_sql = connection.sql(f"SELECT {sql} FROM rows").fetchall()
    assert [row for (row,) in in_sql] == met(one, rows["x"]).tolist()
    assert [row for (row,) in unmet_in_sql] == unmet(source, [one], rows)[0].tolist()
    assert all(row or not deletes for row, deletes in zip(~unmet(source, [one], rows)[0], gone, strict=True))


MEANT: list[tuple[RowExpectation, FeatureType, list[Any], list[bool]]] = [
    (NotNull("x"), Float64, [1.0, None, float("nan")], [True, False, True]),
    (InRange("x", at_least=0), Float64, [-0.0, 0.0, -5e-324, None, float("nan"), float("inf")], [True, True, False, True, False, True]),
    (InRange("x", at_least=1, at_most=3), Int32, [0, 1, 3, 4, None], [False, True, True, False, True]),
    (InRange("x", at_most=Decimal("1.50")), MONEY, [Decimal("1.50"), Decimal("1.51")], [True, False]),
    (InRange("x", at_most=0.1), Float32, [0.1, 0.09], [False, True]),
    (InRange("x", at_least=DAY), Date, [OTHER, DAY], [False, True]),
    (InRange("x", at_most=MOMENT), Timestamp, [MOMENT, MOMENT.replace(microsecond=1)], [True, False]),
    (InSet("x", ["a", "b"]), String, ["a", "A", "", None], [True, False, False, True]),
    (InSet("x", [True]), Bool, [True, False, None], [True, False, True]),
    (Matches("x", "[A-Z]{2}"), String, ["AB", "xAB", "ABC", "AB\n", None], [True, False, False, False, True]),
    (Matches("x", "a|b"), String, ["a", "b", "ab"], [True, True, False]),
]  # fmt: skip


@pytest.mark.parametrize(("said", "of", "values", "meant"), MEANT, ids=[said.title for said, *_ in MEANT])
def test_what_meets_an_expectation(said: RowExpectation, of: FeatureType, values: list[Any], meant: list[bool]) -> None:
    """Limits are inclusive, patterns match as a whole, and a null meets all but NotNull."""
    assert met(settle(said, of), pa.array(values, of.arrow)).tolist() == meant


def test_nan_is_found_in_files_whose_statistics_leave_it_out(tmp_path: Path) -> None:
    """The engine concludes from them that a column has no NaN, and must not be asked so."""
    pq.write_table(pa.table({"x": [1.0, float("nan"), 2.0]}), tmp_path / "x.parquet")
    sql = met_sql(settle(InRange("x", at_least=0, at_most=9), Float64), "DOUBLE", "UTC")
    with duckdb.connect() as connection:
        found = connection.sql(f"SELECT {sql} FROM '{tmp_path / 'x.parquet'}'").fetchall()
    assert [row for (row,) in found] == [True, False, True]


NAIVE = "SELECT TIMESTAMP '2024-05-01 12:00:00' AS x"


@pytest.mark.parametrize(("zone", "within"), [("UTC", True), ("America/New_York", False)])
def test_a_naive_instant_is_read_in_the_sources_zone(zone: str, *, within: bool) -> None:
    """As its times are."""
    with duckdb.connect() as connection:
        settle_session(connection)
        sql = met_sql(settle(InRange("x", at_most=MOMENT), Timestamp), "TIMESTAMP", zone)
        assert connection.sql(f"SELECT {sql} FROM ({NAIVE})").fetchall() == [(within,)]


def test_a_row_of_a_source_is_judged_in_its_zone() -> None:
    """In UTC where it says none."""
    one = settle(InRange("x", at_most=MOMENT), Timestamp)
    with duckdb.connect() as connection:
        settle_session(connection)
        for said, met_there in ((None, True), ("UTC", True), ("America/New_York", False)):
            source = ParquetSource("rows", "x", event_time="at", timezone=said)
            (sql,) = unmet_sql(source, [one], {"x": "TIMESTAMP"}, "")
            assert connection.sql(f"SELECT {sql} FROM ({NAIVE})").fetchall() == [(not met_there,)]


@pytest.mark.parametrize(
    ("said", "of", "same", "other"),
    [
        (InRange("x", at_least=0), Int64, ["INTEGER", "BIGINT"], ["DOUBLE", "VARCHAR", "TIME"]),
        (InRange("x", at_least=0), Float32, ["FLOAT", "DOUBLE"], ["BIGINT", "TIME"]),
        (NotNull("x"), Int64, ["BIGINT", "VARCHAR", "TIME"], []),
    ],
)
def test_of_which_columns_an_expectation_means_the_same(
    said: RowExpectation, of: FeatureType, same: list[str], other: list[str]
) -> None:
    """Of those whose values are compared alike; that there is a value means the same of every column, even of one that cannot be read."""
    one = settle(said, of)
    assert [one.is_of(raw) for raw in same] == [True] * len(same)
    assert [one.is_of(raw) for raw in other] == [False] * len(other)


def test_of_a_source_that_deletes_nothing_every_row_is_judged() -> None:
    """In the order of its expectations; of one of which nothing is expected none is."""
    rows = pa.table({"x": pa.array([1, None, 3])})
    source = ParquetSource("rows", "x", event_time="at")
    every = [settle(NotNull("x"), Int64), settle(InRange("x", at_most=2), Int64)]
    assert [flags.tolist() for flags in unmet(source, every, rows)] == [[False, True, False], [False, False, True]]
    assert unmet(source, [], rows) == []


def test_unmet_rows_count_unless_it_only_warns() -> None:
    """So those are told by their places."""
    every = [settle(NotNull("x", otherwise=otherwise), Int64) for otherwise in ("refuse", "warn", "quarantine")]
    assert removing(every) == [0, 2]


def anything(value: Any) -> Any:
    """A value of which no type checker knows the type."""
    return value


REFUSED: list[tuple[Callable[[], object], str]] = [
    (lambda: InRange("x"), "say at_least or at_most"),
    (lambda: InRange("x", at_least=float("nan")), "must be finite"),
    (lambda: InRange("x", at_least=datetime(2024, 1, 1)), "must have a zone"),
    (lambda: InRange("x", at_least=[1]), "must be a number, text"),
    (lambda: InSet("x", "abc"), "must be a list of values"),
    (lambda: InSet("x", []), "values"),
    (lambda: InSet("x", ["a\0"]), "NUL"),
    (lambda: InSet("x", [None]), "must be a number, text"),
    (lambda: Matches("x", ""), "pattern"),
    (lambda: Matches("x", "a\0"), "NUL"),
    (lambda: NotNull("x", otherwise=anything("drop")), "otherwise: must be 'refuse', 'quarantine' or 'warn'"),
    (lambda: NotNull(anything(3)), "column: must be text"),
    (lambda: Unique("x", otherwise="quarantine"), "there is none to quarantine"),
    (lambda: Unique([]), "columns"),
    (lambda: Freshness("0s"), "within"),
    (RowCount, "say at_least or at_most"),
    (lambda: RowCount(at_least=-1), "at_least"),
    (lambda: ParquetSource("rows", "x", event_time="at", expectations=anything(["x > 3"])), "is no expectation, such as NotNull"),
    (lambda: ParquetSource("rows", "x", event_time="at", expectations=anything(3)), "must be a list of expectations"),
    (lambda: pushed([NotNull("y")]), "the schema has no column 'y'"),
    (lambda: pushed([InRange("thing", at_least="a")]), "at_least must be Int64"),
    (lambda: pushed([Matches("thing", "a")]), "column 'thing' is Int64, and it is for String"),
    (lambda: pushed([Freshness("1h")]), "is about all rows together, and rows are pushed one by one"),
    (lambda: FeatureView("v", entity=THING, source=pushed([]), features=["x"], expectations=[NotNull("x")]), "say them of PushSource 'rows'"),
]  # fmt: skip


def pushed(expectations: list[Any]) -> PushSource:
    """A push source of which something is expected."""
    schema = {"thing": Int64, "at": Timestamp, "x": Float64}
    return PushSource("rows", schema=schema, event_time="at", expectations=expectations)


@pytest.mark.parametrize(("declare", "says"), REFUSED, ids=[says for _, says in REFUSED])
def test_what_is_declared_wrongly_is_refused(declare: Callable[[], object], says: str) -> None:
    """By name, and with what would be right."""
    with pytest.raises(DeclarationError, match=says.replace("(", r"\(")):
        declare()


RAW = {"thing": "BIGINT", "at": "TIMESTAMP", "x": "DOUBLE", "text": "VARCHAR", "list": "DOUBLE[]"}
UNFIT = [
    (NotNull("y"), "has no column 'y' for its expectation NotNull"),
    (InRange("text", at_least=1), "column 'text' is String, and it is for Int32"),
    (InRange("x", at_least="a"), "at_least must be Float64, as column 'x' is"),
    (InRange("x", at_least=2, at_most=1), "at_least is greater than at_most"),
    (InSet("x", [1.5]), "column 'x' is Float64, and it is for"),
    (InSet("thing", [1, "a"]), "each of values must be Int64"),
    (Matches("text", "("), "it is no regular expression of RE2: missing"),
    (Matches("text", "a)|(b"), "it is no regular expression of RE2"),
    (Matches("text", r"(a)\1"), "it is no regular expression of RE2"),
    (Matches("text", r"\Qa.b"), r"end with \\E what begins with \\Q"),
]


@pytest.mark.parametrize(("said", "says"), UNFIT, ids=[says for _, says in UNFIT])
def test_what_no_column_can_meet_is_refused_when_it_is_planned(said: RowExpectation, says: str) -> None:
    """Of the source as of the view, naming what is expected."""
    for of_source, of_view in (([said], []), ([], [said])):
        source = ParquetSource("rows", "x", event_time="at", expectations=of_source)
        view = FeatureView("v", entity=THING, source=source, refresh="1h", features=["x"], expectations=of_view)
        with pytest.raises(DeclarationError, match=says.replace("(", r"\(")):
            resolve(view, RAW)


def test_any_column_may_be_not_null() -> None:
    """Lists, too."""
    assert met(settle(NotNull("list"), Array(Float64)), pa.array([[1.0], None, []])).tolist() == [True, False, True]


def fingerprint(of_source: list[Any] = [], of_view: list[Any] = []) -> str:  # noqa: B006 - nothing writes to it
    """That of a view with expectations."""
    source = ParquetSource("rows", "x", event_time="at", expectations=of_source)
    view = FeatureView(
        "v", entity=THING, source=source, refresh="1h", features={"x": Latest("x")}, expectations=of_view
    )
    return resolve(view, RAW).fingerprint


def test_which_rows_count_is_part_of_a_views_identity() -> None:
    """What becomes of the others is not: whether they refuse or are put aside, who expects it, in which order, and how it is written."""
    plain, low = fingerprint(), InRange("x", at_least=0)
    assert fingerprint([InRange("x", at_least=0, otherwise="warn")]) == plain
    assert fingerprint([Unique("x"), Freshness("1d"), RowCount(at_least=0.5)]) == plain
    assert fingerprint([low]) != plain
    assert (
        fingerprint([low])
        == fingerprint([InRange("x", at_least=0.0, otherwise="quarantine")])
        == fingerprint([], [low])
    )
    assert fingerprint([low]) != fingerprint([InRange("x", at_least=1)])
    assert fingerprint([low]) != fingerprint([InRange("x", at_most=0)])
    both, turned = [low, InSet("text", ["b", "a"])], [InSet("text", ["a", "b", "b"]), low, low]
    assert fingerprint(both) == fingerprint(turned) != fingerprint([low])


def test_definitions_with_expectations_are_stored_and_read_back() -> None:
    """Every kind, with values of every kind."""
    every = [
        NotNull("x", otherwise="warn"), InRange("x", at_least=1.5, at_most=Decimal("2.50")), InRange("at", at_least=MOMENT),
        InSet("text", ["a", "é"]), InSet("day", [DAY]), InSet("n", [1, 2]), Matches("text", "a.*", otherwise="quarantine"),
        Unique(["x", "y"]), Freshness("1d", otherwise="warn"), RowCount(at_least=0.5),
    ]  # fmt: skip
    source = ParquetSource("rows", "x", event_time="at", expectations=every)
    again = read_source(dump(source))
    assert again == source
    assert [one.title for one in again.expectations] == [one.title for one in every]
    assert again.expectations[1].at_most == Decimal("2.50")  # type: ignore[attr-defined]  # an InRange
    view = FeatureView("v", entity=THING, source=source, refresh="1h", features=["x"], expectations=every[:2])
    assert (
        read_view(
            {
                **dump(view, without={"entity", "source", "features"}),
                "entity": THING,
                "source": source,
                "features": view.features,
            }
        )
        == view
    )
