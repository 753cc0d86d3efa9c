"""Columns of the data that bear names of the engine's, or of the store's own: where a row lies never goes by a name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from featurestore import (
    ARRIVAL,
    Count,
    FeatureView,
    Latest,
    ParquetSource,
    PushSource,
    Sum,
    TableSource,
)
from featurestore.errors import DeclarationError, SourceError
from featurestore.types import Int64, Timestamp
from tests.small import NOON, THING, both, hours, opened, table, trained, view_of, write

OWN = (
    "rowid", "file_row_number", "file_index", "filename", "__file", "__row", "__frame_row", "__row_file", "__row_number",
    "__log_segment", "__log_row", "__known_at", "__replaces", "file", "row", "e", "o", "v", "g", "k0", "w0", "c0", "c1",
    "known", "number", "n", "p", "s", "event_us", "learned_us", "counts_from", "counts_until", "key_no", "as_of", "request_no",
)  # fmt: skip
"""What the engine and the store call columns of their own."""

SPELLED = [OWN, tuple(name.upper() for name in OWN), tuple(name.title() for name in OWN)]


def rows(names: tuple[str, ...], *, shift: int = 0) -> pa.Table:
    """Rows of four things, and beside them columns that hold the same number in every row."""
    things = [1 + shift, 2 + shift, 3 + shift, 4 + shift]
    beside = {name: pa.array([0] * 4) for name in names}
    return table(**beside, thing=things, at=[hours(-1)] * 4, x=[10 * thing for thing in things])


def features(names: tuple[str, ...]) -> dict[str, Any]:
    """Columns of a row, folds with and without a condition, and one of the columns beside."""
    return {
        "x": Latest("x"), "beside": Latest(names[0]), "sum": Sum("x", window="1d"),
        "some": Count(window="1d", where=f'"{names[1]}" = 0 AND x > 0'),
    }  # fmt: skip


def expected(things: list[int]) -> dict[str, list[int]]:
    """What each of these things has."""
    own = [10 * thing for thing in things]
    return {"x": own, "beside": [0] * len(things), "sum": own, "some": [1] * len(things)}


def check(view: FeatureView, things: list[int]) -> None:
    """Both paths have each thing's own row, and so has explain."""
    with opened(view) as (store, _):
        answer = both(store, thing=things)
        assert {name: answer[f"view__{name}"] for name in view.features} == expected(things)
        for thing in (things[0], things[-1]):
            explained = store.explain("view", {"thing": thing}, at=NOON)
            assert explained.values["x"] == 10 * thing


@pytest.mark.parametrize("names", SPELLED, ids=["lower", "upper", "title"])
@pytest.mark.parametrize("files", [1, 2])
def test_columns_of_parquet_files_may_have_any_name(tmp_path: Path, names: tuple[str, ...], files: int) -> None:
    """`file_row_number` and `file_index` of the data hide the engine's own of these names."""
    for number in range(files):
        write(tmp_path / f"{number}.parquet", rows(names, shift=4 * number))
    check(view_of(tmp_path, features(names)), list(range(1, 4 * files + 1)))


@pytest.mark.parametrize("names", SPELLED, ids=["lower", "upper", "title"])
@pytest.mark.parametrize("kind", ["TABLE", "VIEW"])
def test_columns_of_tables_and_views_may_have_any_name(tmp_path: Path, names: tuple[str, ...], kind: str) -> None:
    """`rowid` of a table hides the engine's own."""
    with duckdb.connect(str(tmp_path / "w.duckdb")) as connection:
        connection.register("given", rows(names))
        connection.execute("CREATE TABLE kept AS FROM given")
        connection.execute(f"CREATE {kind} asked AS FROM kept")
    source = TableSource("rows", tmp_path / "w.duckdb", table="asked", event_time="at")
    check(
        FeatureView("view", entity=THING, source=source, refresh="continuous", features=features(names)), [1, 2, 3, 4]
    )


@pytest.mark.parametrize("names", SPELLED, ids=["lower", "upper", "title"])
def test_columns_of_frames_may_have_any_name(names: tuple[str, ...]) -> None:
    """The store numbers a frame's rows itself."""
    check(view_of(rows(names), features(names)), [1, 2, 3, 4])


def test_names_hold_beside_derived_columns_and_identities(tmp_path: Path) -> None:
    """Versions of rows, and columns that expressions make, are found by where they lie too."""
    first, second = rows(OWN), rows(OWN, shift=0)
    later = second.set_column(second.schema.get_field_index("x"), "x", pa.array([11, 21, 31, 41]))
    for number, (given, at) in enumerate(((first, hours(-1)), (later, hours(-0.5)))):
        write(tmp_path / f"{number}.parquet", given.append_column("learned", table(learned=[at] * 4)["learned"]))
    source = ParquetSource(
        "rows", tmp_path, event_time="at", known_at="learned", identity="thing",
        derived={"more": "x + rowid + file_row_number + __row"},
    )  # fmt: skip
    view = FeatureView(
        "view", entity=THING, source=source, refresh="continuous",
        features={"more": Latest("more"), "sum": Sum("more", window="1d")},
    )  # fmt: skip
    with opened(view) as (store, _):
        answer = both(store, thing=[1, 2, 3, 4])
        assert answer["view__more"] == answer["view__sum"] == [11, 21, 31, 41]
        before = trained(store, hours(-0.75), thing=[1, 2, 3, 4])
        assert before["view__more"].to_pylist() == before["view__sum"].to_pylist() == [10, 20, 30, 40]


def test_names_hold_where_rows_are_known_from_their_arrival(tmp_path: Path) -> None:
    """When a file was first seen is joined to its rows by a number that is no column of theirs."""
    for number in range(2):
        write(tmp_path / f"{number}.parquet", rows(OWN, shift=4 * number))
    source = ParquetSource("rows", tmp_path, event_time="at", known_at=ARRIVAL)
    check(
        FeatureView("view", entity=THING, source=source, refresh="continuous", features=features(OWN)), [*range(1, 9)]
    )


def test_a_column_with_the_name_of_an_arrival_is_refused_where_it_is_used(tmp_path: Path) -> None:
    """And is nobody's concern where it is not."""
    write(tmp_path / "0.parquet", rows(("__Arrived",)))
    source = ParquetSource("rows", tmp_path, event_time="at", known_at=ARRIVAL)

    def view(feature: str) -> FeatureView:
        return FeatureView("view", entity=THING, source=source, refresh="continuous", features={"x": Latest(feature)})

    with opened(view("x")) as (store, _):
        assert both(store, thing=[1, 2])["view__x"] == [10, 20]
    with (
        pytest.raises(
            SourceError, match=r"feature 'x': column '__Arrived' of source 'rows' has the name of .* store's own"
        ),
        opened(view("__Arrived")),
    ):
        pass


# --- pushed rows ----------------------------------------------------------------------------------


PUSHABLE = tuple(name for name in OWN if not name.startswith("_"))


@contextmanager
def pushed(names: tuple[str, ...], history: Any = None) -> Iterator[tuple[Any, Any]]:
    """A store over a push source with these columns beside, to which each thing's row was pushed."""
    schema = {**dict.fromkeys(names, Int64), "thing": Int64, "at": Timestamp, "x": Int64}
    words = {} if history is None else {"history": history, "cutover": hours(-2)}
    source = PushSource("rows", schema=schema, event_time="at", **words)
    view = FeatureView("view", entity=THING, source=source, features=features(names))
    with opened(view) as (store, clock):
        store.materialize(progress=False)
        for thing in (1, 2, 3, 4):
            row = {**dict.fromkeys(names, 0), "thing": thing, "at": hours(-1), "x": 10 * thing}
            store.push("rows", [row])
        clock.set(hours(1))
        yield store, store._project.offline.log(source)


@pytest.mark.parametrize("names", [PUSHABLE, tuple(name.upper() for name in PUSHABLE)], ids=["lower", "upper"])
@pytest.mark.parametrize("history", [False, True])
def test_columns_of_pushed_rows_may_have_any_name(tmp_path: Path, names: tuple[str, ...], history: bool) -> None:
    """Once sealed, a log's rows are numbered by the engine, and some are not sealed."""
    given = None
    if history:
        past = rows(names, shift=4)
        past = past.set_column(past.schema.get_field_index("at"), "at", table(at=[hours(-5)] * 4)["at"])
        given = ParquetSource("past", write(tmp_path / "past.parquet", past), event_time="at", known_after="1m")
    things = [*range(1, 9 if history else 5)]
    with pushed(names, given) as (store, log):
        first = trained(store, hours(1), thing=things)
        log.compact(everything=True)
        store.push("rows", [{**dict.fromkeys(names, 0), "thing": 9, "at": hours(1), "x": 90}])
        log.compact(everything=True)
        store.push("rows", [{**dict.fromkeys(names, 0), "thing": 10, "at": hours(1), "x": 100}])
        for name, values in expected(things).items():
            assert first[f"view__{name}"].to_pylist() == values, name
        answer = both(store, thing=[*things, 9, 10])
        assert {name: answer[f"view__{name}"] for name in expected([])} == expected([*things, 9, 10])


@pytest.mark.parametrize("name", ["known_at", "Known_At", "KNOWN_AT"])
def test_a_pushed_row_has_no_known_at_in_any_case(name: str) -> None:
    """The store says it."""
    with pytest.raises(DeclarationError, match=f"no column '{name}'"):
        PushSource("rows", schema={"thing": Int64, "at": Timestamp, name: Timestamp}, event_time="at")


def test_pushed_columns_differ_in_more_than_case() -> None:
    """SQL cannot tell them apart; both are named."""
    with pytest.raises(DeclarationError, match="columns 'x' and 'X' differ in case alone"):
        PushSource("rows", schema={"thing": Int64, "at": Timestamp, "x": Int64, "X": Int64}, event_time="at")


# --- names that SQL cannot tell apart -------------------------------------------------------------


def doubled(tmp_path: Path, kind: str, names: list[str]) -> Any:
    """Rows with two columns more, in a frame or a file."""
    given = rows(())
    for name, value in zip(names, (1, 2), strict=True):
        given = given.append_column(name, pa.array([value] * 4))
    return given if kind == "frame" else write(tmp_path / "0.parquet", given)


@pytest.mark.parametrize("kind", ["frame", "file"])
@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["y", "Y"], "cannot be told apart in SQL: 'y' and 'Y' differ in case alone"),
        (["Y", "y"], "cannot be told apart in SQL: 'Y' and 'y' differ in case alone"),
        (["y", "y"], "is there twice"),
    ],
)
def test_a_column_that_sql_cannot_tell_from_another_is_refused_where_it_is_used(
    tmp_path: Path, kind: str, names: list[str], said: str
) -> None:
    """As a feature, in a condition and in a derived column; elsewhere it does not matter."""
    given = doubled(tmp_path, kind, names)
    if kind == "frame" and len(set(names)) < len(names):  # which is seen when it is declared
        with pytest.raises(DeclarationError, match="has a column 'y' twice"):
            view_of(given, ["x"])
        return
    with opened(view_of(given, ["x"])) as (store, _):
        assert both(store, thing=[1, 2, 3, 4])["view__x"] == [10, 20, 30, 40]
    for used in (["y"], {"n": Count(window="1d", where="y = 1")}):
        with (
            pytest.raises((SourceError, DeclarationError), match=f"column '[yY]'.*{said}"),
            opened(view_of(given, used)),
        ):
            pass
    source = ParquetSource("rows", given, event_time="at", derived={"z": "y + 1"}) if kind == "file" else None
    if source is not None:
        view = FeatureView("view", entity=THING, source=source, refresh="continuous", features=["z"])
        with pytest.raises(DeclarationError, match=f"derived column 'z': column '[yY]' {said}"), opened(view):
            pass
