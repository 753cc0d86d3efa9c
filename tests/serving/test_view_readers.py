"""What a view reads for a lookup, and what it says where it has no values for it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from featurestore import FeatureService, FeatureView, Latest, PushSource
from featurestore.clock import instant_of
from featurestore.errors import NotMaterializedError
from featurestore.online.view_codec import pack_watermark
from featurestore.semantics.status import Status
from featurestore.serving.view_readers import _shared, reader_of
from featurestore.types import Float64, Int64, Timestamp
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
    words = {"refresh": "1h", "ready_after": "10m"}
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
