"""Rows that do not meet what is expected: in neither training nor serving, counted, explained, and refused where that is said."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore import (
    Count,
    FeatureStore,
    FeatureView,
    Freshness,
    InRange,
    InSet,
    Latest,
    ManualClock,
    Matches,
    Mean,
    NotNull,
    ParquetSource,
    PushSource,
    RowCount,
    Sum,
    Unique,
)
from featurestore.errors import DeclarationError, ExpectationError, SourceError
from featurestore.types import Float64, Int64, Timestamp
from tests.small import NOON, THING, apply, both, hours, opened, spine, table, trained, write


def rows(*given: tuple[int, float, float | None]) -> pa.Table:
    """Rows of things: when (hours after noon), and x."""
    thing, at, x = zip(*given, strict=True)
    return table(thing=list(thing), at=[hours(one) for one in at], x=pa.array(x, pa.float64()))


GIVEN = rows((1, -3, 1.0), (1, -2, 500.0), (1, -1, 3.0), (2, -1, -7.0), (3, -2, None))
FEATURES = {"x": Latest("x"), "mean": Mean("x", window="1d"), "rows": Count(window="1d")}
HIGH = InRange("x", at_least=0, at_most=100, otherwise="quarantine")


def view_over(path: Path, expectations: list[Any], **words: Any) -> FeatureView:
    """A view over files, of whose rows something is expected."""
    source = ParquetSource("rows", str(path), event_time="at", expectations=expectations)
    return FeatureView("view", entity=THING, source=source, features=FEATURES, **{"refresh": "1h", **words})


def test_a_quarantined_row_is_in_neither_training_nor_serving(tmp_path: Path) -> None:
    """Nor is a key known of which there is no other row; a null is no reason."""
    with opened(view_over(write(tmp_path / "rows.parquet", GIVEN), [HIGH])) as (store, _):
        found = both(store, thing=[1, 2, 3])
    assert found["view__mean"] == [2.0, None, None]
    assert found["view__rows"] == [2, None, 1]
    assert found["view__x__status"] == ["PRESENT", "MISSING", "PRESENT"]


def test_columns_of_several_types_have_limits_of_the_wider_one(tmp_path: Path) -> None:
    """What was applied is read again and is the same view; a wider type that comes later is a change where limits are others."""
    for name, number in (("a", pa.array([5], pa.int32())), ("b", pa.array([-0.5]))):
        write(tmp_path / f"{name}.parquet", table(thing=[1], at=[hours(-1)], x=pa.array([1.0]), number=number))
    for least in (0, 0.0, -0.25):
        expected = [InRange("number", at_least=least, otherwise="quarantine")]
        with opened(view_over(tmp_path / "*.parquet", expected)) as (store, _):
            assert both(store, thing=[1])["view__rows"] == [1]
            assert store.audit().skewed == 0

    write(tmp_path / "b.parquet", table(thing=[1], at=[hours(-1)], x=pa.array([1.0]), number=pa.array([6], pa.int32())))
    view = view_over(tmp_path / "*.parquet", [InRange("number", at_least=0, otherwise="quarantine")])
    with opened(view) as (store, clock):
        assert both(store, thing=[1])["view__rows"] == [2]
        later = table(thing=[1], at=[hours(0.5)], x=pa.array([1.0]), number=pa.array([2**40]))
        write(tmp_path / "c.parquet", later)  # limits of Int32 and Int64 are the same
        clock.set(hours(1))
        assert both(store, thing=[1])["view__rows"] == [3]
        write(tmp_path / "c.parquet", later.set_column(3, "number", pa.array([0.5])))
        clock.set(hours(2))
        with pytest.raises(SourceError, match="column 'number' was Int32"):
            store.materialize(progress=False)


def test_one_limit_said_twice_and_one_of_many_values_are_told_as_what_they_are(tmp_path: Path) -> None:
    """A source quarantines what a view warns of; two long lists that begin alike are two expectations, and none fills a page."""
    path = write(tmp_path / "rows.parquet", GIVEN)
    values = [*range(5000)]
    said = [HIGH, InSet("thing", values, otherwise="warn"), InSet("thing", [*values[:-1], 5000], otherwise="warn")]
    warned = [InRange("x", at_least=0, at_most=100, otherwise="warn")]
    source = ParquetSource("rows", str(path), event_time="at", expectations=said)
    view = FeatureView("view", entity=THING, source=source, refresh="1h", features=FEATURES, expectations=warned)
    with opened(view) as (store, _):
        frame = store.get_historical_features(spine(NOON, thing=[1]), "service")
        notices = [told for told in frame.manifest["notices"] if HIGH.title in told]
        assert [told.rpartition(": ")[2] for told in notices] == [
            "quarantined, and count nowhere",
            "counted all the same",
        ]
        titles = {one.expectation for one in store.quarantine().unmet}
        assert len(titles) == 3
        assert max(map(len, titles)) < 320


def test_one_row_that_is_left_out_is_told_of_as_one(tmp_path: Path) -> None:
    """As several are told of as several."""
    with opened(
        view_over(write(tmp_path / "rows.parquet", GIVEN), [InSet("thing", [1, 2], otherwise="quarantine")])
    ) as (store, _):
        frame = store.get_historical_features(table(thing=[1], event_timestamp=[NOON]), "service")
    (told,) = (told for told in frame.manifest["notices"] if "does not meet" in told)
    assert told.startswith("view 'view': of ParquetSource 'rows', 1 row does not meet")
    assert told.endswith(": quarantined, and counts nowhere")


def test_what_a_view_expects_is_its_own(tmp_path: Path) -> None:
    """Another view over the same source counts the row."""
    source = ParquetSource("rows", str(write(tmp_path / "rows.parquet", GIVEN)), event_time="at")
    views = [
        FeatureView(name, entity=THING, source=source, refresh="1h", features=FEATURES, expectations=said)
        for name, said in (("strict", [HIGH]), ("plain", []))
    ]
    with opened(*views) as (store, _):
        found = both(store, thing=[1, 2])
    assert found["strict__rows"] == [2, None]
    assert found["plain__rows"] == [3, 1]


def test_rows_that_are_left_out_are_counted_and_explained(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In the manifest and its notices, in the run of materialize and the log, and row by row."""
    said = [HIGH, NotNull("x", otherwise="warn"), InSet("thing", [1, 2, 3])]
    with opened(view_over(write(tmp_path / "rows.parquet", GIVEN), said)) as (store, _):
        frame = store.get_historical_features(table(thing=[1], event_timestamp=[NOON]), "service")
        with caplog.at_level(logging.WARNING, "featurestore"):
            (run,) = store.materialize(progress=False)
        told = store.explain("view", {"thing": 1})
    unmet = {HIGH.title: 2, "NotNull('x')": 1, "InSet('thing', values=[1, 2, 3])": 0}
    assert frame.manifest["unmet_expectations"] == {"view": unmet}
    assert run.unmet == unmet
    notices = [
        f"view 'view': of ParquetSource 'rows', 2 rows do not meet {HIGH.title}: quarantined, and count nowhere",
        "view 'view': of ParquetSource 'rows', 1 row does not meet NotNull('x'): counted all the same",
    ]
    assert frame.manifest["notices"][-2:] == notices
    assert [record.message for record in caplog.records] == notices
    assert frame.manifest["invalid_rows"] == {"view": {"no known_at or identity": 0, "no key or event_time": 0}}
    assert told.counts == {"chosen": 1, "older": 1, "quarantined": 1}
    (left_out,) = [row for row in told.rows if row.verdict == "quarantined"]
    assert (left_out.values["x"], left_out.reason) == (500.0, f"does not meet {HIGH.title}")


def test_nothing_is_said_where_nothing_is_expected(tmp_path: Path) -> None:
    """A manifest is as it was."""
    with opened(view_over(write(tmp_path / "rows.parquet", GIVEN), [])) as (store, _):
        frame = store.get_historical_features(table(thing=[1], event_timestamp=[NOON]), "service")
        (run,) = store.materialize(progress=False)
    assert "unmet_expectations" not in frame.manifest
    assert run.unmet == {}


def test_rows_that_refuse_stop_training_and_materialize(tmp_path: Path) -> None:
    """What was served is served on; once they are put right, both go on."""
    refusing = InRange("x", at_least=0, at_most=100)
    good = rows((1, -3, 1.0))
    with opened(view_over(write(tmp_path / "rows.parquet", good), [refusing])) as (store, clock):
        assert both(store, thing=[1])["view__x"] == [1.0]
        write(tmp_path / "rows.parquet", rows((1, -3, 1.0), (1, 0.5, 500.0), (2, 0.5, -1.0)))
        clock.set(hours(2))
        for ask in (lambda: store.materialize(progress=False), lambda: trained(store, hours(1), thing=[1])):
            with pytest.raises(ExpectationError) as refused:
                ask()
            assert "of ParquetSource 'rows', 2 rows do not meet InRange('x', at_least=0, at_most=100)" in str(
                refused.value
            )
            assert "test_expectations.py" in str(refused.value)
        served = store.get_online_features([{"thing": 1}], "service")
        assert served.to_dict()["view__x"] == [1.0]
        assert served.as_of == {"view": NOON}
        write(tmp_path / "rows.parquet", rows((1, -3, 1.0), (1, 0.5, 50.0)))
        assert both(store, thing=[1])["view__x"] == [50.0]


def test_a_change_of_what_becomes_of_a_row_refills_nothing(tmp_path: Path) -> None:
    """Which rows count stays the same; what is expected otherwise is a new version, which is filled anew."""
    path = write(tmp_path / "rows.parquet", GIVEN)
    with opened(view_over(path, [HIGH])) as (store, _):
        both(store, thing=[1])
        refusing = InRange("x", at_least=0, at_most=100)
        apply(store, view_over(path, [refusing]))
        with pytest.raises(ExpectationError):
            trained(store, NOON, thing=[1])
        assert store.get_online_features([{"thing": 1}], "service").to_dict()["view__rows"] == [2]
        apply(store, view_over(path, [InRange("x", at_least=-10, at_most=100, otherwise="quarantine")]))
        assert both(store, thing=[1, 2])["view__rows"] == [2, 1]


def test_a_bad_version_of_a_row_does_not_replace_the_good_one(tmp_path: Path) -> None:
    """Nobody ever learned of it; a deletion is never quarantined, whatever its columns hold."""
    versions = table(
        thing=[1, 1, 2, 2], id=[1, 1, 2, 2], at=[hours(-3)] * 4, learned=[hours(-3), hours(-2)] * 2,
        x=pa.array([1.0, 500.0, 2.0, None]), gone=pa.array([False, False, False, True]),
    )  # fmt: skip
    source = ParquetSource(
        "rows", str(write(tmp_path / "rows.parquet", versions)), event_time="at", known_at="learned", identity="id",
        deleted="gone", expectations=[HIGH, NotNull("x", otherwise="quarantine")],
    )  # fmt: skip
    view = FeatureView("view", entity=THING, source=source, refresh="1h", features=FEATURES)
    with opened(view) as (store, _):
        found = both(store, thing=[1, 2])
    assert found["view__x"] == [1.0, None]
    assert found["view__rows"] == [1, None]


class Drawn(NamedTuple):
    """A version of a row: hours after noon, or null."""

    thing: int | None
    id: int | None
    at: float | None
    learned: float | None
    gone: bool | None
    x: float | None
    code: str | None


HOURS = st.one_of(st.sampled_from([-25, -24, -1, 0, 1, 2, 24]), st.integers(-30, 30))
DRAWN = st.lists(
    st.builds(
        Drawn, st.sampled_from([1, 1, 2, 3, None]), st.sampled_from([1, 2, 3, 4, 5, None]), st.one_of(HOURS, HOURS, st.none()),
        st.one_of(HOURS, HOURS, HOURS, st.none()), st.sampled_from([None, False, False, True]),
        st.sampled_from([None, 1.0, 2.0, 100.0, 101.0, -1.0, float("nan")]), st.sampled_from(["A1", "B2", "b2", "", None]),
    ),
    min_size=1, max_size=14,
)  # fmt: skip
EXPECTED = [HIGH, Matches("code", "[A-Z][0-9]", otherwise="quarantine")]


def counts(row: Drawn) -> bool:
    """Whether a row meets what is expected, in so many words."""
    in_range = row.x is None or 0 <= row.x <= 100
    return bool(row.gone) or (in_range and row.code in {"A1", "B2", None})


def table_of(drawn: list[Drawn]) -> pa.Table:
    """The rows as a table, of some rows or none."""
    types = {"thing": pa.int64(), "id": pa.int64(), "gone": pa.bool_(), "x": pa.float64(), "code": pa.string()}
    columns = {name: pa.array([getattr(row, name) for row in drawn], of) for name, of in types.items()}
    for name in ("at", "learned"):
        moments = [None if (one := getattr(row, name)) is None else hours(one) for row in drawn]
        columns[name] = pa.array(moments, pa.timestamp("us", "UTC"))
    return pa.table(columns)


@contextmanager
def store_over(folder: Path, expectations: list[Any], *, identity: bool) -> Iterator[tuple[FeatureStore, ManualClock]]:
    """A store over the files in a folder."""
    words: dict[str, Any] = {"identity": "id", "deleted": "gone"} if identity else {}
    source = ParquetSource("rows", str(folder), event_time="at", known_at="learned", expectations=expectations, **words)
    features = {
        "x": Latest("x"),
        "code": Latest("code"),
        "sum": Sum("x", window="1d"),
        "rows": Count(window="lifetime"),
    }
    view = FeatureView(
        "view", entity=THING, source=source, refresh="1h", settle="1h", ready_after="1h", ttl="1d", features=features
    )
    with opened(view, at=hours(-26)) as found:
        yield found


@settings(max_examples=15, deadline=None)
@given(first=DRAWN, second=DRAWN, steps=st.lists(st.integers(1, 20), min_size=2, max_size=4), identity=st.booleans())
def test_a_store_with_bad_rows_is_one_without_them(
    tmp_path_factory: pytest.TempPathFactory,
    first: list[Drawn],
    second: list[Drawn],
    steps: list[int],
    *,
    identity: bool,
) -> None:
    """Along random histories, in training at every instant, after each incremental run of materialize as after a full one."""
    whole, clean = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("clean")
    if not identity:  # then nothing deletes
        first, second = ([row._replace(gone=None) for row in drawn] for drawn in (first, second))
    for number, drawn in enumerate((first, second)):
        write(whole / f"{number}.parquet", table_of(drawn))
        write(clean / f"{number}.parquet", table_of([row for row in drawn if counts(row)]))
    keys = [{"thing": thing} for thing in (1, 2, 3, 4)]
    instants = [hours(at) for at in range(-30, 31, 5)]
    asked = {"thing": [thing for thing in (1, 2, 3, 4) for _ in instants]}
    with (
        store_over(whole, EXPECTED, identity=identity) as (bad, clock),
        store_over(clean, [], identity=identity) as (good, other),
    ):
        at: datetime = hours(-26)
        for step in steps:
            at += timedelta(hours=step)
            clock.set(at)
            other.set(at)
            for store in (bad, good):
                store.materialize(progress=False)
            one, two = (store.get_online_features(keys, "service") for store in (bad, good))
            assert str(one.to_dict()) == str(two.to_dict())
            assert one.statuses == two.statuses
        frames = [trained(store, instants * 4, **asked) for store in (bad, good)]
        assert str(frames[0].to_pydict()) == str(frames[1].to_pydict())
        assert bad.verify().ok
        served = bad.get_online_features(keys, "service").to_dict()
        bad.materialize(full=True, progress=False)
        assert str(bad.get_online_features(keys, "service").to_dict()) == str(served)


def test_a_source_with_repeated_rows_stops_both(tmp_path: Path) -> None:
    """Nulls repeat nothing; where it only warns, it is told."""
    given_rows = table(thing=[1, 1, 2, None, None], at=[hours(-1)] * 5, x=pa.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    path = write(tmp_path / "rows.parquet", given_rows)
    with opened(view_over(path, [Unique("thing")])) as (store, _):
        for ask in (lambda: store.materialize(progress=False), lambda: trained(store, NOON, thing=[1])):
            with pytest.raises(
                ExpectationError,
                match=r"of ParquetSource 'rows', 1 row repeats another, where Unique\(columns=\['thing'\]\)",
            ):
                ask()
        apply(store, view_over(path, [Unique("thing", otherwise="warn")]))
        (run,) = store.materialize(progress=False)
        frame = store.get_historical_features(table(thing=[1], event_timestamp=[NOON]), "service")
    assert run.unmet == frame.manifest["unmet_expectations"]["view"] == {"Unique(columns=['thing'])": 1}
    assert "1 row repeats another" in frame.manifest["notices"][-1]
    with (
        opened(view_over(path, [Unique("thin")])) as (store, _),
        pytest.raises(DeclarationError, match="Did you mean 'thing'"),
    ):
        store.materialize(progress=False)


def test_a_source_that_is_not_fresh_stops_both(tmp_path: Path) -> None:
    """Its newest row counts that is known; those to come do not, nor those that are quarantined."""
    path = write(tmp_path / "rows.parquet", rows((1, -3, 1.0), (1, -1, 500.0), (1, 1, 1.0)))
    with opened(view_over(path, [Freshness("3h"), HIGH])) as (store, clock):
        assert both(store, thing=[1])["view__x"] == [1.0]
        clock.set(hours(0.5))
        with pytest.raises(
            ExpectationError, match=r"the newest row was learned 3h30m ago, where Freshness\(within='3h'\)"
        ):
            trained(store, NOON, thing=[1])
        clock.set(hours(1))
        assert both(store, thing=[1])["view__x"] == [1.0]
        clock.set(hours(5))
        with pytest.raises(ExpectationError, match="4h ago"):
            store.materialize(progress=False)
    empty = rows((1, -3, 500.0))
    with (
        opened(view_over(write(path, empty), [Freshness("3h"), HIGH])) as (store, _),
        pytest.raises(ExpectationError, match="no row is known"),
    ):
        store.materialize(progress=False)


def test_a_source_that_lost_rows_since_the_last_load_publishes_nothing(tmp_path: Path) -> None:
    """The first load is of any size; a refused one is no load; what was served is served on."""
    path = tmp_path / "rows.parquet"
    four = [(1, -3.0, 1.0), (1, -2.0, 2.0), (2, -3.0, 1.0), (3, -3.0, 1.0)]
    with opened(view_over(write(path, rows(*four)), [RowCount(at_least=0.5, at_most=2)])) as (store, clock):
        assert both(store, thing=[1])["view__rows"] == [2]
        for hour, count, says in (
            (1, 1, "there is 1 row, after 4 at the last load"),
            (2, 9, "there are 9 rows, after 4"),
        ):
            clock.set(hours(hour))
            write(path, rows(*[(1, -3, 1.0)] * count))
            with pytest.raises(ExpectationError, match=says):
                store.materialize(progress=False)
            assert store.get_online_features([{"thing": 1}], "service").to_dict()["view__rows"] == [2]
        write(path, rows(*four[:2]))
        assert both(store, thing=[1, 2])["view__rows"] == [2, None]
        write(path, rows(four[0]))
        clock.set(hours(3))
        assert both(store, thing=[1])["view__rows"] == [1]


@pytest.mark.parametrize("otherwise", ["refuse", "quarantine", "warn"])
def test_rows_of_a_history_are_refused_or_counted(
    otherwise: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By training, materialize and the list alike; what happened after the cutover counts nowhere anyhow."""
    history = write(tmp_path / "rows.parquet", rows((1, -3, 1.0), (1, -2, 500.0), (1, 1, 900.0)))
    expected = InRange("x", at_most=100, otherwise=otherwise)
    source = PushSource(
        "pushed", schema={"thing": Int64, "at": Timestamp, "x": Float64}, event_time="at", expectations=[expected],
        history=ParquetSource("old", str(history), event_time="at", known_after="1m"), cutover=hours(-1),
    )  # fmt: skip
    view = FeatureView("view", entity=THING, source=source, features={"rows": Count(window="lifetime")})
    with opened(view) as (store, _):
        assert [(one.of, one.otherwise, one.rows) for one in store.quarantine().unmet] == [
            ("view", otherwise, 1),
            ("pushed", "quarantine", 0),
        ]
        if otherwise == "refuse":
            for asked in (
                lambda: store.materialize(progress=False),
                lambda: store.get_historical_features(spine(NOON, thing=[1]), "service"),
            ):
                with pytest.raises(ExpectationError, match="1 row does not meet InRange"):
                    asked()
            return
        (run,) = store.materialize(progress=False)
        assert run.unmet == {expected.title: 1}
        assert f"1 row does not meet {expected.title}" in caplog.text
        frame = store.get_historical_features(spine(NOON, thing=[1]), "service")
        assert frame.manifest["unmet_expectations"] == {"view": {expected.title: 1}}
        assert both(store, thing=[1])["view__rows"] == [2 if otherwise == "warn" else 1]
        assert store.audit().skewed == 0
