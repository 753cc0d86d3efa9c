"""What a view reads for a lookup, and what it says where it has no values for it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from featurestore import FeatureService, FeatureView, Latest, PushSource
from featurestore.clock import instant_of
from featurestore.errors import NotMaterializedError
from featurestore.online.view_codec import pack_watermark
from featurestore.serving.view_readers import reader_of
from featurestore.types import Float64, Int64, Timestamp
from tests.small import NOON, THING, hours, opened, raised, table, view_of

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
