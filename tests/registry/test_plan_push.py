"""A plan says what becomes of views over pushed rows."""

from __future__ import annotations

from typing import Any

import pytest

from featurestore import Count, DataFrameSource, FeatureView, PushSource, Sum
from featurestore.errors import DeclarationError
from featurestore.registry.steps import Refill
from featurestore.types import Float64, Int64, Timestamp
from tests.small import NOON, THING, hours, opened, table

SCHEMA = {"thing": Int64, "at": Timestamp, "amount": Float64}
SWIPES = PushSource("swipes", schema=SCHEMA, event_time="at")


def swiped(source: PushSource = SWIPES, **features: Any) -> FeatureView:
    return FeatureView("swiped", entity=THING, source=source, features=features or {"n": Count(window="1d")})


def told(plan: Any) -> str:
    return "\n".join(notice.text for notice in plan.notices if notice.name == "swiped")


def test_a_new_or_changed_view_over_pushed_rows_shows_its_refill() -> None:
    """With the rows from which it is filled; an unchanged one shows none."""
    with opened() as (store, _):
        plan = store.plan([swiped()])
        assert [step.reason for step in plan.steps if isinstance(step, Refill)] == ["it is new"]
        assert "from the log of push source 'swipes', 0 rows" in told(plan)
        store.apply([swiped()])
        store.push("swipes", [{"thing": 1, "at": hours(-1), "amount": 1.0}] * 3)
        assert store.plan([swiped()]).steps == ()
        assert "materialize fills it" not in told(store.plan([swiped()]))
        changed = swiped(n=Count(window="1d"), total=Sum("amount", window="7d"))
        plan = store.plan([changed])
        assert [step.reason for step in plan.steps if isinstance(step, Refill)] == ["its definition changes"]
        assert "refill swiped" in str(plan)
        assert "from the log of push source 'swipes', 3 rows. Pushes wait meanwhile" in str(plan)


def test_a_history_and_its_cutover_are_part_of_what_is_said() -> None:
    """A view is not filled before the cutover."""
    old = DataFrameSource(
        "old", table(thing=[1], at=[hours(-1)], amount=[1.0]), event_time="at", known_after="1m"
    )  # fmt: skip
    source = PushSource("swipes", schema=SCHEMA, event_time="at", history=old, cutover=NOON)
    with opened() as (store, _):
        assert "and its history 'old'; not before the cutover, 2024-05-01T12:00:00+00:00" in told(
            store.plan([swiped(source)])
        )


def test_rows_of_a_history_after_the_cutover_are_counted() -> None:
    """By when they happened and by when they were known, as training leaves them out; none is no notice."""
    rows = table(thing=[1, 1, 1, 1], at=[hours(-1), hours(0), hours(-0.01), hours(2)], amount=[1.0, 2.0, 4.0, 8.0])
    old = DataFrameSource("old", rows, event_time="at", known_after="1m")
    for cutover, said in ((NOON, "3 of 4 rows of its history 'old'"), (hours(3), None)):
        source = PushSource("swipes", schema=SCHEMA, event_time="at", history=old, cutover=cutover)
        view = swiped(source, total=Sum("amount", window="1d"))
        with opened() as (store, clock):
            clock.set(hours(4))
            plan = str(store.plan([view]))
            assert ("reach no view" in plan, said is None or said in plan) == (said is not None, True)
            asked = table(thing=[1], event_timestamp=[hours(4)])
            (total,) = store.get_historical_features(asked, [view]).to_arrow()["swiped__total"].to_pylist()
            assert total == (1.0 if said else 15.0)


def test_a_mistake_over_pushed_rows_names_the_log() -> None:
    """There are no files to name."""
    with opened() as (store, _), pytest.raises(DeclarationError, match=r"no column 'amout'.*push log of 'swipes'"):
        store.plan([swiped(n=Sum("amout", window="1d"))])
