"""An instant exactly on an edge of rule 1, 4 or 6, and the µs beside it: each edge on each path that judges it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from featurestore import Count, FeatureService, FeatureStore, FeatureView, First, Latest, PushSource, Sum
from featurestore.push.merge_rows import PushedView, read_rows
from featurestore.serving.lookup import Lookup
from featurestore.tiles.series import Replaced
from featurestore.types import Bool, Float64, Int64, Timestamp
from tests.pushing import InterleavedStore
from tests.small import NOON, THING, both, hours, opened, table, trained, view_of

US = timedelta(microseconds=1)
EVERY = {"plain": Latest("x"), "folded": Latest("x", where="x > 0")}


# --- materialized views ---------------------------------------------------------------------


@pytest.mark.parametrize("beside", [[], [hours(-9)]])
def test_a_version_counts_until_the_instant_at_which_the_next_is_known(beside: list[Any]) -> None:
    """Its successor happened earlier; whether all rows of the spine have one instant (which is a way of its own), or not."""
    rows = table(id=[7, 7], thing=[1, 1], at=[NOON, hours(-1)], known=[NOON, hours(1)], x=[10, 11])
    with opened(view_of(rows, ["x"], known_at="known", identity="id")) as (store, clock):
        for moment, x in [(NOON, 10), (hours(1) - US, 10), (hours(1), 11), (hours(1) + US, 11)]:
            clock.set(moment)
            answer = trained(store, [moment, *beside], thing=[1, *[1 for _ in beside]])
            assert answer["view__x"].to_pylist() == [x, *[None for _ in beside]]
            assert both(store, thing=[1])["view__x"] == [x]


@pytest.mark.parametrize("where", [None, "x > 0"])
def test_a_validity_ends_at_its_until(where: str | None) -> None:
    """Also of a fold whose status was settled when it was materialized: its key is asked for again."""
    rows = table(thing=[1], at=[NOON], until=[hours(1)], x=[10])
    with opened(view_of(rows, {"x": Latest("x", where=where)}, until="until")) as (store, clock):
        for moment, status in [(NOON, "PRESENT"), (hours(1) - US, "PRESENT"), (hours(1), "EXPIRED")]:
            clock.set(moment)
            assert both(store, thing=[1])["view__x__status"] == [status]


def test_each_row_of_a_lookup_expires_by_itself() -> None:
    """Whichever of them is the newest."""
    rows = table(thing=[1, 2, 3], at=[hours(-2), hours(0), hours(-1)], x=[1, 2, 3])
    with opened(view_of(rows, ["x"], ttl="1h")) as (store, _):
        assert both(store, thing=[1, 2, 3])["view__x__status"] == ["EXPIRED", "PRESENT", "PRESENT"]
        assert both(store, thing=[3, 2, 1])["view__x"] == [3, 2, None]


def test_history_is_until_its_last_instant() -> None:
    """A row that happened at `history_until` counts from then on, and the one after it from when it was learned."""
    rows = table(thing=[1, 2], at=[NOON, NOON + US], known=[hours(9)] * 2, x=[1, 2])
    with opened(view_of(rows, {**EVERY}, known_at="known", history_until=NOON)) as (store, clock):
        clock.set(hours(1))
        answer = both(store, thing=[1, 2])
        assert (answer["view__plain"], answer["view__folded"]) == ([1, None], [1, None])
        clock.set(hours(9))
        assert both(store, thing=[1, 2])["view__plain"] == [1, 2]


# --- pushed rows ----------------------------------------------------------------------------

SCHEMA = {"id": Int64, "thing": Int64, "at": Timestamp, "x": Float64}


def pushed(features: dict[str, Any], *, until: str | None = None) -> tuple[FeatureView, FeatureService]:
    """A view over a push source of its own, and its service."""
    schema = {**SCHEMA, **({} if until is None else {until: Timestamp})}
    source = PushSource("swipes", schema=schema, event_time="at", identity="id", until=until)
    view = FeatureView("view", entity=THING, source=source, features=features)
    return view, FeatureService("service", features=[view])


def row(number: int, *, at: Any, x: float = 1.0, **more: Any) -> dict[str, Any]:
    return {"id": number, "thing": 1, "at": at, "x": x, **more}


def served(store: FeatureStore, *, by: Lookup | None = None) -> dict[str, Any]:
    """What is served of the thing 1 is what training says at the as_of served."""
    online = by.get([{"thing": 1}]) if by else store.get_online_features([{"thing": 1}], "service")
    offline = trained(store, online.as_of["view"], thing=[1])
    for name, statuses in online.statuses.items():
        assert online.to_dict()[name] == offline[name].to_pylist(), (name, online.as_of)
        assert statuses == offline[f"{name}__status"].to_pylist(), (name, online.as_of)
    return {name: (status[0], online.to_dict()[name][0]) for name, status in online.statuses.items()}


@pytest.mark.parametrize("where", [None, "x > 0"])
def test_a_pushed_rows_validity_ends_at_its_until(where: str | None) -> None:
    with opened(*pushed({"x": Latest("x", where=where)}, until="until")) as (store, clock):
        store.push("swipes", row(1, at=NOON, until=hours(1)))
        for moment, answer in [(hours(1) - US, ("PRESENT", 1.0)), (hours(1), ("EXPIRED", None))]:
            clock.set(moment)
            assert served(store) == {"view__x": answer}


def test_a_record_keeps_the_oldest_tile_that_a_window_sees() -> None:
    """A push drops what is out of reach at its instant, and nothing else: the row after the window's start counts."""
    with opened(*pushed({"count": Count(window="1h", hop="5m")})) as (store, clock):
        store.push("swipes", [row(1, at=hours(-1)), row(2, at=hours(-1) + US)])
        store.push("swipes", row(3, at=NOON))
        assert served(store) == {"view__count": ("PRESENT", 2)}
        clock.set(NOON + timedelta(minutes=5))
        store.push("swipes", row(4, at=clock()))
        assert served(store) == {"view__count": ("PRESENT", 2)}


def test_a_row_is_merged_and_taken_out_once() -> None:
    """A record that is true for a row's instant has it already, however often the row comes again."""
    with opened(*pushed({"count": Count(window="lifetime"), "total": Sum("x", window="lifetime")})) as (store, _):
        store.push("swipes", [row(1, at=NOON), row(2, at=NOON, x=2.0), row(1, at=NOON, x=4.0)])
        view = PushedView(store.config.project, store.lookup("service").service.parts[0].view, tagged=False)
        first, second, third = [one.row for one in read_rows([view], store.offline.log(view.source).read())]
        changed = view.records.changed
        whole = changed(None, [first, second], [])
        assert changed(whole, [first, second], []) == whole == changed(whole, [second], [])
        corrected = changed(whole, [third], [Replaced(first, third.known_at)])
        assert corrected != whole
        assert changed(corrected, [third], [Replaced(first, third.known_at)]) == corrected


def test_a_record_that_is_newer_than_the_marks_is_read_again() -> None:
    """Marks are read first, so a push in between may show in a record: its values would be early at the as_of served."""
    with opened(*pushed({"count": Count(window="lifetime"), "total": Sum("x", window="lifetime")})) as (store, _):
        store.push("swipes", row(1, at=NOON))
        of = store.lookup("service").service
        torn: Any = InterleavedStore(store.online, 2, lambda: store.push("swipes", row(2, at=NOON)))
        lookup = Lookup(of, torn, project=store.config.project)
        assert served(store, by=lookup) == {"view__count": ("PRESENT", 2), "view__total": ("PRESENT", 2.0)}
        assert torn.readings == 2


@pytest.mark.parametrize(
    "folds", [{"count": Count(window="lifetime")}, {"x": First("x", window="lifetime")}], ids=["taken out", "made anew"]
)
@pytest.mark.parametrize("more", [{"thing": 2}, {"thing": None}, {"gone": True}], ids=["moved", "to none", "deleted"])
def test_a_key_whose_last_row_goes_between_marks_and_records_is_read_again(
    folds: dict[str, Any], more: dict[str, Any]
) -> None:
    """Its record says since when it is empty: an absent one would be served as MISSING at an instant when there was a row."""
    source = PushSource("swipes", schema={**SCHEMA, "gone": Bool}, event_time="at", identity="id", deleted="gone")
    view = FeatureView("view", entity=THING, source=source, features=folds)
    with opened(view, FeatureService("service", features=[view])) as (store, _):
        store.push("swipes", {**row(1, at=NOON), "gone": False})
        of = store.lookup("service").service
        after = {**row(1, at=NOON), "gone": False, **more}
        torn: Any = InterleavedStore(store.online, 2, lambda: store.push("swipes", after))
        lookup = Lookup(of, torn, project=store.config.project)
        assert {status for status, _ in served(store, by=lookup).values()} == {"MISSING"}
        assert torn.readings == 2
        assert store.verify().ok
