"""What a view reads for a lookup, and what it says where it has no values for it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from featurestore import Count, FeatureService, FeatureStore, FeatureView, Latest, PushSource, Sum
from featurestore.clock import instant_of
from featurestore.errors import NotMaterializedError
from featurestore.online.source_state import SourceState, Witness
from featurestore.online.view_codec import pack_watermark
from featurestore.semantics.service import ServiceView
from featurestore.semantics.status import Status
from featurestore.serving.online_result import PartAnswer
from featurestore.serving.view_readers import ViewReader, _shared, reader_of
from featurestore.types import Bool, Float64, Int64, Timestamp
from tests.small import NOON, THING, hours, opened, raised, table, view_of

PRESENT, EXPIRED = Status.PRESENT, Status.EXPIRED
SCHEMA = {"thing": Int64, "at": Timestamp, "x": Float64, "y": Float64}


def test_a_view_without_values_says_from_when_it_has_some_and_which_it_is() -> None:
    """Of two instants that are complete the first is served first; a definition is told by twelve digits, as everywhere."""
    view = view_of(table(thing=[1], at=[NOON], x=[5]), {"x": Latest("x")}, refresh="1h", ready_after="10m")
    with opened(view) as (store, _):
        part = store.lookup("service").service.parts[0]
    reader = reader_of(part, "project", tagged=False)
    mark = pack_watermark([instant_of(hours(2)), instant_of(hours(1))])
    told = str(raised(NotMaterializedError, lambda: reader.answer(instant_of(NOON), [mark], [])))
    assert f" Its definition is {part.view.fingerprint[:12]}, its first values are served " in told
    assert told.endswith(f"from {(hours(1) + timedelta(minutes=10)).isoformat()} on")
    none = str(raised(NotMaterializedError, lambda: reader.answer(instant_of(NOON), [None], [])))
    assert none.endswith("its first values are served after the first run")


def test_a_view_over_pushed_rows_is_served_once_it_was_filled() -> None:
    """Its source being pushed to for another view is not enough."""
    source = PushSource("rows", schema=SCHEMA, event_time="at")
    views = [FeatureView(f"view_{name}", entity=THING, source=source, features=[name]) for name in ("x", "y")]
    services = [FeatureService(view.name.replace("view", "service"), features=[view]) for view in views]
    with opened(views[0], services[0]) as (store, _):
        store.push("rows", {"thing": 1, "at": hours(-1), "x": 1.0, "y": 2.0})
        store.apply([*views, *services])
        assert store.get_online_features({"thing": 1}, "service_x").to_dict()["view_x__x"] == [1.0]
        with pytest.raises(NotMaterializedError, match="'view_y' .* was not filled from its push log yet"):
            store.get_online_features({"thing": 1}, "service_y")
        store.materialize(progress=False)
        assert store.get_online_features({"thing": 1}, "service_y").to_dict()["view_y__y"] == [2.0]


@pytest.mark.parametrize(
    ("statuses", "lists", "places"),
    [
        ([PRESENT, PRESENT], 1, (0, 0)),
        ([PRESENT, EXPIRED, PRESENT], 2, (0, 1, 0)),
        ([EXPIRED, PRESENT, PRESENT], 2, (0, 1, 1)),
        ([PRESENT], 1, (0,)),
    ],
)
@pytest.mark.parametrize("rows", [1, 2])
def test_columns_share_their_statuses(statuses: list[Status], lists: int, places: tuple[int, ...], rows: int) -> None:
    """Of one row those that are the same; of several those that are one list."""
    one = {status: [status] * rows for status in statuses}
    columns = [[status] if rows == 1 else one[status] for status in statuses]
    judged = _shared(columns)
    assert (len(judged.lists), judged.places, judged.columns()) == (lists, places, columns)


def test_of_a_view_that_withholds_what_is_late_every_value_is_withheld() -> None:
    """As many rows and columns as there would be; what is not late is answered."""
    rows = table(thing=[1, 2], at=[hours(-1)] * 2, x=[5.0, 6.0], y=["a", "b"])
    alone = view_of(rows, ["x"], stale="withhold", refresh="1h")
    with opened(alone) as (store, clock):
        store.materialize(progress=False)
        clock.set(hours(9))
        assert store.get_online_features({"thing": 1}, "service").statuses == {"view__x": ["WITHHELD"]}
    words: dict[str, Any] = {"refresh": "1h", "ready_after": "10m"}
    for stale, late in (("withhold", True), ("serve", False)):
        views = [view_of(rows, ["x", "y"], stale=stale, **words)]
        with opened(*views) as (store, clock):
            store.materialize(progress=False)
            asked = [{"thing": 1}, {"thing": 2}, {"thing": 3}]
            there = store.get_online_features(asked, "service")
            assert there.to_dict() == {"thing": [1, 2, 3], "view__x": [5.0, 6.0, None], "view__y": ["a", "b", None]}
            clock.set(hours(9))
            gone = store.get_online_features(asked, "service")
            expected = ["WITHHELD"] * 3 if late else there.statuses["view__x"]
            assert gone.statuses == {"view__x": expected, "view__y": expected}
            assert (gone.to_dict()["view__y"] == [None] * 3) is late
            assert gone.stale == {"view": True}


def test_a_view_over_pushed_rows_answers_for_each_key() -> None:
    """In whatever company: one with rows, one whose rows are deleted, and one that never had any. Each feature has a status of its own."""
    schema = {"thing": Int64, "at": Timestamp, "x": Float64, "big": Int64, "gone": Bool}
    source = PushSource("rows", schema=schema, event_time="at", identity=["thing", "x"], deleted="gone")
    features = {"n": Count(window="1d"), "total": Sum("big", window="1d"), "x": Latest("x", default=-1.0)}
    with opened(FeatureView("view", entity=THING, source=source, features=features)) as (store, _):
        pushed = [
            {"thing": thing, "at": hours(-1), "x": x, "big": 1 << 62} for thing, x in [(1, 1.0), (1, 2.0), (2, 3.0)]
        ]
        store.push("rows", [*pushed, {**pushed[2], "gone": True}])
        there, missing = (2, None, 2.0), (None, None, -1.0)
        for things in ([1], [2], [3], [1, 2], [2, 1], [1, 3], [3, 1, 1], [2, 3], [1, 1]):
            answer = store.get_online_features([{"thing": thing} for thing in things], "service")
            values, names = answer.to_dict(), ("n", "total", "x")
            found = [*zip(*(values[f"view__{name}"] for name in names), strict=True)]
            assert found == [there if thing == 1 else missing for thing in things]
            statuses = [*zip(*(answer.statuses[f"view__{name}"] for name in names), strict=True)]
            told = ("PRESENT", "OVERFLOW", "PRESENT")
            assert statuses == [told if thing == 1 else ("MISSING",) * 3 for thing in things]


def test_a_watermark_that_moves_is_read_anew() -> None:
    """And so it is when it moves back."""
    with opened(view_of(table(thing=[1], at=[NOON], x=[5]), ["x"], refresh="1h")) as (store, _):
        reader = reader_of(store.lookup("service").service.parts[0], "project", tagged=False)
    for hour in (0, 1, 1, 0):
        answer = reader.answer(instant_of(hours(3)), [pack_watermark([instant_of(hours(hour))])], [None])
        assert answer is not None
        assert (answer[0].as_of, answer[0].statuses) == (instant_of(hours(hour)), {"view__x": [Status.MISSING]})


class Vouching:
    """A process that knows of a source up to an instant, and takes answers for late after so long."""

    def __init__(self, upto: int, lag: int) -> None:
        self.upto, self.lag = upto, lag

    def witness(self, source: PushSource) -> Witness:
        return lambda held, now: self.upto


def pushed_part(store: FeatureStore) -> ServiceView:
    return store.lookup("service").service.parts[0]


def test_pushed_rows_are_answered_for_as_far_as_is_known_now() -> None:
    """By the state of the source, by what the view was filled for and by who vouches: by each anew when it changes."""
    source = PushSource("rows", schema=SCHEMA, event_time="at")
    with opened(FeatureView("view", entity=THING, source=source, features=["x"])) as (store, _):
        part = pushed_part(store)
    now, reader = instant_of(hours(9)), reader_of(part, "project", tagged=False)

    def answered(reader: ViewReader, state: int, filled: int) -> PartAnswer:
        marks = [SourceState(confirmed=instant_of(hours(state))).pack(), pack_watermark([instant_of(hours(filled))])]
        answer = reader.answer(now, marks, [None])
        assert answer is not None
        return answer[0]

    for state, filled in [(1, 0), (2, 0), (2, 3), (1, 3), (1, 0), (4, 0)]:
        assert answered(reader, state, filled).as_of == instant_of(hours(max(state, filled)))
    vouched = reader_of(part, "project", tagged=False, vouched=Vouching(instant_of(hours(7)), 2 * 3_600_000_000))
    assert answered(vouched, 1, 0).as_of == instant_of(hours(7))
    assert [answered(one, 1, 0).stale for one in (reader, vouched)] == [True, False]
    told = str(raised(NotMaterializedError, lambda: reader.answer(now, [None, None], [])))
    assert told.startswith(f"View 'view' ({part.view.fingerprint[:12]}) was not filled")


def test_records_that_were_written_after_the_state_was_read_are_read_again() -> None:
    """Any one of them; those that were written before are answered from."""
    source = PushSource("rows", schema=SCHEMA, event_time="at")
    with opened(FeatureView("view", entity=THING, source=source, features=["x"])) as (store, clock):
        store.push("rows", {"thing": 1, "at": hours(-1), "x": 1.0, "y": 1.0})
        clock.set(hours(2))
        store.push("rows", {"thing": 2, "at": hours(-1), "x": 2.0, "y": 1.0})
        reader = reader_of(pushed_part(store), store.config.project, tagged=False)
        early, late = store.online.get([reader.codec.key((thing,)) for thing in (1, 2)]).values
    marks = [SourceState(confirmed=instant_of(hours(1))).pack(), pack_watermark([instant_of(NOON)])]
    for records, read in [([early], True), ([late], False), ([early, late], False), ([late, early, None], False)]:
        assert (reader.answer(instant_of(hours(3)), marks, records) is not None) is read


@pytest.mark.parametrize(
    ("features", "alike"), [(["x", "y"], (0, 0)), ({"x": Latest("x"), "n": Count(window="1d")}, None)]
)
def test_features_of_one_row_have_one_status(features: Any, alike: tuple[int, ...] | None) -> None:
    """Folded ones each have their own."""
    rows = table(thing=[1], at=[hours(-1)], x=[5.0], y=["a"])
    with opened(view_of(rows, features, refresh="1h")) as (store, _):
        assert reader_of(store.lookup("service").service.parts[0], "project", tagged=False).alike == alike
