"""Two stores' frames, cell by cell: each cause is found by taking back what the move changed; what nothing gives is unexplained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import (
    Entity,
    FeatureStore,
    FeatureView,
    Latest,
    ManualClock,
    ParquetSource,
    PushSource,
    Request,
    on_demand,
)
from featurestore.clock import instant_of
from featurestore.migrate.comparison import Comparison, SpineRow, read_by, tried
from featurestore.migrate.frame_differences import CAUSES, EXAMPLES, DifferingCell, FrameDifferences
from featurestore.migrate.same_value import Likeness, likeness
from featurestore.types import Float64, Int64, Timestamp
from tests.small import TIME, hours

DRIVER = Entity("driver", key={"driver": Int64})
MICRO = timedelta(microseconds=1)


@contextmanager
def comparing(folder: Path, items: Sequence[Any], rows: Sequence[SpineRow], **features: str) -> Iterator[Comparison]:
    """A comparison of features with Feast's columns, over views at hand; the store's clock stands long after."""
    with FeatureStore.local(clock=ManualClock(hours(1000))) as store:

        def train(spine: pa.Table, asked: Sequence[Any]) -> list[dict[str, Any]]:
            return store.get_historical_features(
                spine, list(asked), with_status=True, with_event_time=True
            ).to_arrow().to_pylist()  # fmt: skip

        shown = {own: own for own in features.values()}
        types = {"driver": pa.int64(), **({"extra": pa.float64()} if "extra" in rows[0].here else {})}
        yield Comparison(FrameDifferences("stats"), train, items, features, shown, [], [], rows, types, types)


def told(comparison: Comparison, folder: Path, feast: dict[int, Any], column: str = "stats__x") -> FrameDifferences:
    """What a comparison comes to where Feast gives these values by row; rows that it leaves out are not among them."""
    path = folder / "answer.parquet"
    pq.write_table(pa.table({"row_number": list(feast), column: list(feast.values())}), path)
    with FeatureStore.local() as store, store.offline.session() as session:
        comparison.compare(path, session)
    return comparison.differences


def at(*moments: datetime, driver: int = 1) -> list[SpineRow]:
    return [SpineRow({"driver": driver}, {"driver": driver}, instant_of(moment)) for moment in moments]


def files(folder: Path, *rows: tuple[Any, ...], unit: str = "us", words: tuple[str, ...] = ()) -> Path:
    """A file of rows: when, x, and more columns of instants."""
    columns = {
        "driver": pa.array([1] * len(rows)), "at": pa.array([row[0] for row in rows], pa.timestamp(unit, "UTC")),
        "x": pa.array([row[1] for row in rows]),
    }  # fmt: skip
    more = {word: pa.array([row[2 + place] for row in rows], TIME) for place, word in enumerate(words)}
    path = folder / "rows.parquet"
    pq.write_table(pa.table({**columns, **more}), path)
    return path


def view_of(path: Path, *, ttl: str | None = None, refresh: str = "1h", **words: Any) -> FeatureView:
    source = ParquetSource("rows", path, event_time="at", **words)
    return FeatureView("stats", entity=DRIVER, source=source, ttl=ttl, refresh=refresh, features=["x"])


def causes(folder: Path, view: FeatureView, rows: list[SpineRow], feast: dict[int, Any]) -> dict[str, int]:
    with comparing(folder, [view], rows, stats__x="stats__x") as comparison:
        found = told(comparison, folder, feast)
    assert found.equal + sum(found.causes.values()) == found.cells == len(rows)
    assert set(found.causes) <= set(CAUSES)
    return found.causes


def test_values_that_are_equal_are_counted(tmp_path: Path) -> None:
    view = view_of(files(tmp_path, (hours(0), 1.5), (hours(1), None)))
    assert (
        causes(tmp_path, view, at(hours(0), hours(0.5), hours(1), hours(-1)), {0: 1.5, 1: 1.5, 2: None, 3: None}) == {}
    )


def test_a_row_that_counts_at_once_there_and_at_the_refresh_here(tmp_path: Path) -> None:
    view = view_of(files(tmp_path, (hours(0), 1), (hours(0.5), 2)))
    assert causes(tmp_path, view, at(hours(0.5), hours(1)), {0: 2, 1: 2}) == {"refresh": 1}


def test_a_ttl_that_is_judged_at_the_refresh_here(tmp_path: Path) -> None:
    view = view_of(files(tmp_path, (hours(0), 1)), ttl="1h")
    assert causes(tmp_path, view, at(hours(1), hours(1.5)), {0: 1}) == {"refresh": 1}


def test_a_row_that_was_created_after_the_request(tmp_path: Path) -> None:
    path = files(tmp_path, (hours(0), 1, hours(0)), (hours(1), 2, hours(5)), words=("made",))
    assert causes(tmp_path, view_of(path, known_at="made"), at(hours(2), hours(5)), {0: 2, 1: 2}) == {"late row": 1}


def test_a_row_of_a_history_counts_a_second_later(tmp_path: Path) -> None:
    past = ParquetSource("past", files(tmp_path, (hours(0), 1), (hours(1), 2)), event_time="at", known_after="1s")
    schema = {"driver": Int64, "at": Timestamp, "x": Int64}
    pushed = PushSource("pushed", schema=schema, event_time="at", history=past, cutover=hours(2))
    view = FeatureView("stats", entity=DRIVER, source=pushed, features=["x"])
    assert causes(tmp_path, view, at(hours(1), hours(1.5)), {0: 2, 1: 2}) == {"history": 1}


def test_a_row_within_the_microsecond_of_the_request(tmp_path: Path) -> None:
    """Feast counts nanoseconds: there the row is still to come."""
    nanos = int(hours(0).timestamp()) * 10**9
    path = files(tmp_path, (nanos, 1), (nanos + 1_000_000_700, 2), unit="ns")
    moment = hours(0) + timedelta(seconds=1)
    assert causes(tmp_path, view_of(path, refresh="continuous"), at(moment, moment + MICRO), {0: 1, 1: 2}) == {
        "finer time": 1
    }


def test_a_row_that_is_exactly_as_old_as_the_ttl(tmp_path: Path) -> None:
    """Two stores that disagree whether it counts."""
    view = view_of(files(tmp_path, (hours(0), 1)), ttl="2h")
    assert causes(tmp_path, view, at(hours(2), hours(1)), {0: None, 1: 1}) == {"ttl edge": 1}


def test_a_ttl_that_is_not_judged_there(tmp_path: Path) -> None:
    view = view_of(files(tmp_path, (hours(0), 1)), ttl="2h")
    assert causes(tmp_path, view, at(hours(9)), {0: 1}) == {"ttl": 1}


def test_another_row_of_the_same_key_and_time(tmp_path: Path) -> None:
    path = files(tmp_path, (hours(0), 5, hours(0)), (hours(0), 6, hours(1)), words=("made",))
    assert causes(tmp_path, view_of(path, tiebreak="made"), at(hours(1)), {0: 5}) == {"tie": 1}


def test_a_null_in_the_newest_row(tmp_path: Path) -> None:
    view = view_of(files(tmp_path, (hours(0), 5), (hours(1), None)))
    assert causes(tmp_path, view, at(hours(1)), {0: 5}) == {"null row": 1}


def test_a_row_of_the_spine_that_is_left_out(tmp_path: Path) -> None:
    """Which is no cause where something lies within the ttl."""
    view = view_of(files(tmp_path, (hours(0), 5), (hours(8), None)), ttl="1h")
    assert causes(tmp_path, view, at(hours(4), hours(8), hours(-1)), {}) == {"dropped row": 2, "unexplained": 1}


def test_a_value_in_another_form(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    words = pa.array([{"a": 1}])
    pq.write_table(pa.table({"driver": [1], "at": pa.array([hours(0)], TIME), "words": words}), path)
    source = ParquetSource("rows", path, event_time="at", derived={"text": "CAST(to_json(words) AS VARCHAR)"})
    view = FeatureView("stats", entity=DRIVER, source=source, refresh="1h", features={"x": Latest("text")})
    assert causes(tmp_path, view, at(hours(0)), {0: {"a": 1}}) == {"type": 1}


def test_what_nothing_gives_is_unexplained_and_shown(tmp_path: Path) -> None:
    view = view_of(files(tmp_path, (hours(0), 5)), ttl="1d")
    with comparing(tmp_path, [view], at(hours(0), hours(1)), stats__x="stats__x") as comparison:
        found = told(comparison, tmp_path, {0: 5, 1: 7})
    assert found.examples == [
        DifferingCell("stats__x", {"driver": 1}, hours(1).isoformat(), 7, 5, "unexplained"),
    ]


def test_some_examples_of_each_kind_are_kept() -> None:
    found = FrameDifferences("stats")
    for number in range(10):
        found.note(DifferingCell("x", {}, str(number), 1, 2, "tie"))
        found.note(DifferingCell("y", {}, str(number), 1, 2, "tie"))
    assert found.causes == {"tie": 20}
    assert [one.at for one in found.examples if one.of == "y"] == [str(number) for number in range(EXAMPLES)]


# --- functions ----------------------------------------------------------------------------------


def test_the_inputs_of_a_function_have_the_same_causes(tmp_path: Path) -> None:
    view = view_of(files(tmp_path, (hours(0), 1.0), (hours(0.5), 2.0)), ttl="1d")

    @on_demand(inputs=[view["x"], Request("extra", Float64)], output=Float64)
    def more(x, extra):  # type: ignore[no-untyped-def]  # a user's function without types
        return 0.0 if x is None else x + extra

    rows = [
        SpineRow({}, {"driver": 1, "extra": 0.5}, instant_of(moment))
        for moment in (hours(0.5), hours(1), hours(90), hours(2))
    ]
    with comparing(tmp_path, [more], rows, more__more="more") as comparison:
        found = told(comparison, tmp_path, {0: 2.5, 1: 2.5, 3: 9.0}, "more__more")
    assert (found.equal, found.causes) == (1, {"refresh": 1, "dropped row": 1, "unexplained": 1})


def test_a_row_that_feast_merges_with_another_of_its_instant(tmp_path: Path) -> None:
    """Its file store joins a view without keys first, and keeps one row of each instant."""
    path = files(tmp_path, (hours(0), 1.0))
    view = view_of(path)
    everything = FeatureView(
        "all", entity=Entity("world", key={}), source=view.source, refresh="1h", features={"y": Latest("x")}
    )

    @on_demand(inputs=[view["x"], everything["y"]], output=Float64)
    def more(x, y):  # type: ignore[no-untyped-def]  # a user's function without types
        return (x or 0.0) + y

    rows = [*at(hours(1), hours(2)), *at(hours(1), driver=1)]
    with comparing(tmp_path, [more], rows, more__more="more") as comparison:
        found = told(comparison, tmp_path, {0: 2.0}, "more__more")
    assert (found.equal, found.causes) == (1, {"unexplained": 1, "merged rows": 1})


def test_an_output_that_feasts_frame_leaves_out_is_told_and_not_counted(tmp_path: Path) -> None:
    view = view_of(files(tmp_path, (hours(0), 1.0)))
    with comparing(tmp_path, [view], at(hours(1)), stats__x="stats__x", stats__gone="stats__x") as comparison:
        found = told(comparison, tmp_path, {0: 1.0})
    assert (found.cells, found.equal, found.causes) == (1, 1, {})
    assert found.problem == "Feast's frame has no stats__gone, as where an input bears the same name"


def test_where_a_function_fails_the_rows_without_null_inputs_are_compared(tmp_path: Path) -> None:
    view = view_of(files(tmp_path, (hours(0), 1.0)))

    @on_demand(inputs=[view["x"], Request("extra", Float64)], output=Float64)
    def more(x, extra):  # type: ignore[no-untyped-def]  # a user's function without types
        return x + extra

    rows = [SpineRow({}, {"driver": driver, "extra": 0.5}, instant_of(hours(1))) for driver in (1, 2)]
    with comparing(tmp_path, [more], rows, more__more="more") as comparison:
        why = tried(lambda: told(comparison, tmp_path, {0: 1.5}, "more__more") and None, comparison.differences)  # type: ignore[arg-type]  # what it returns is not looked at
        assert "failed for" in str(why)
        assert [one.columns for one in read_by([more])] == [("stats__x",)]
        whole = comparison.whole_rows()
        assert whole == rows[:1]
        comparison.only(whole, str(why))
        found = told(comparison, tmp_path, {0: 1.5}, "more__more")
    assert (found.cells, found.equal, found.causes) == (2, 1, {"on-demand error": 1})
    assert str(found.problem).startswith("it fails where an input is null: ")


# --- values -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("here", "there", "like"),
    [
        (None, float("nan"), "same"),
        (5, 5.0, "same"),
        (0.1, 0.1, "same"),
        ([1, None], [1.0, float("nan")], "same"),
        (datetime(2024, 5, 1, tzinfo=UTC), datetime(2024, 5, 1), "same"),
        (0.10000000149011612, 0.1, "type"),
        (date(2024, 5, 1), datetime(2024, 5, 1, tzinfo=UTC), "type"),
        (Decimal("1.50"), "1.5", "type"),
        (Decimal("1.50"), 1.5, "same"),
        ('{"a": 1, "b": null}', {"a": 1, "b": None}, "type"),
        ('{"a": 1}', [("a", 1)], "type"),
        ("[1, 2]", [1, 2], "type"),
        ('{"a":1}', '{"a": 1}', "type"),
        ("5", 5, "type"),
        (None, 0, "other"),
        (0, None, "other"),
        (5, 6, "other"),
        (2**53 + 1, float(2**53), "type"),
        ("a", "b", "other"),
        ("{", "[", "other"),
        ([1], [2], "other"),
        (0.1, 0.2, "other"),
        (datetime(2024, 5, 1, tzinfo=UTC), datetime(2024, 5, 1, 0, 0, 0, 1, tzinfo=UTC), "other"),
    ],
)
def test_values_are_equal_in_another_form_or_differ(here: Any, there: Any, like: Likeness) -> None:
    assert likeness(here, there) == like
