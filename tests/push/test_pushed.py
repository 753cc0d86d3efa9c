"""What a push is answered beside its counts: rows without a key, and timestamps without a zone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from featurestore import Count, Entity, FeatureService, FeatureStore, FeatureView, ManualClock, PushSource
from featurestore.types import Bool, Int64, String, Timestamp

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SCHEMA = {"id": Int64, "card": String, "shop": String, "at": Timestamp, "gone": Bool}
SWIPES = PushSource("swipes", schema=SCHEMA, event_time="at", identity="id", deleted="gone")
CARD, SHOP = Entity("card", key={"card": String}), Entity("shop", key={"shop": String})
OF_CARD = FeatureView("of_card", entity=CARD, source=SWIPES, features={"n": Count(window="1h")})
OF_SHOP = FeatureView("of_shop", entity=SHOP, source=SWIPES, features={"n": Count(window="1h")})


@pytest.fixture
def store() -> Iterator[FeatureStore]:
    with FeatureStore.local(clock=ManualClock(NOW)) as store:
        store.apply([FeatureService("cards", features=[OF_CARD])])
        yield store


def row(number: int, card: str | None = "a", **more: Any) -> dict[str, Any]:
    return {"id": number, "card": card, "at": NOW - timedelta(minutes=number), **more}


def test_accepted_rows_without_a_key_are_counted(store: FeatureStore) -> None:
    told = store.push("swipes", [row(1), row(2, None), {"id": 3, "at": NOW}])
    assert told == (3, 0, 0)
    assert told.without_key == 2
    assert told.notices == (
        "2 of the accepted rows have no key: they are kept in the log, and count for no view over the source",
    )
    assert store.get_online_features({"card": "a"}, "of_card:n").to_dict()["of_card__n"] == [1]
    again = store.push("swipes", [row(2, None), row(4, None)])
    assert (again, again.without_key) == ((1, 1, 0), 1)  # a retry is not accepted anew
    assert again.notices == (
        "1 of the accepted rows has no key: it is kept in the log, and counts for no view over the source",
    )
    assert store.push("swipes", row(5)).without_key == 0


def test_a_row_that_some_view_counts_and_a_deletion_are_not_counted(store: FeatureStore) -> None:
    store.apply([OF_SHOP])
    assert store.push("swipes", [row(1, None, shop="s"), row(2)]).without_key == 0
    assert store.push("swipes", row(3, None)).without_key == 1
    assert store.push("swipes", {"id": 2, "gone": True}).without_key == 0


def test_each_push_of_a_batch_is_told_of_its_own_rows(store: FeatureStore) -> None:
    asked = [[row(1), row(2, None)], [row(3)], [row(4, None), row(5, None), row(6)]]
    pusher = store._project.pushing._pusher("swipes")
    with pusher.alone():  # all wait, and share a batch
        answers = [pusher.submit(rows) for rows in asked]
    told = [answer.result() for answer in answers]
    assert [(one.accepted, one.without_key) for one in told] == [(2, 1), (1, 0), (3, 2)]


def test_timestamps_without_a_zone_are_told(store: FeatureStore) -> None:
    naive, text = NOW.replace(tzinfo=None), NOW.replace(tzinfo=None).isoformat()
    numpy = pd.DataFrame({"id": [10], "card": ["a"], "at": pd.to_datetime([text])})
    arrow = pa.table({"id": [11], "card": ["a"], "at": pa.array([naive], pa.timestamp("us"))})
    pushed = [store.push("swipes", {**row(1), "at": naive}), store.push("swipes", numpy), store.push("swipes", arrow)]
    pushed += [store.push("swipes", {**row(2), "at": text}, json=True)]
    says = ("timestamps without a zone are read as UTC: 'at'; send them with one where they are local",)
    assert [one.notices for one in pushed] == [says] * 4
    assert store.get_online_features({"card": "a"}, "of_card:n").to_dict()["of_card__n"] == [4]  # as UTC
    fine = [store.push("swipes", row(n)) for n in (3, 4)]
    fine += [
        store.push("swipes", {**row(5), "at": zoned}, json=True)
        for zoned in (f"{text}Z", f"{text}+00:00", "2026-03-01T06:30:00-05:00")
    ]
    fine += [store.push("swipes", numpy.assign(id=12, at=pd.to_datetime([NOW])))]
    assert [one.notices for one in fine] == [()] * len(fine)


def test_rows_that_came_too_late_are_told(store: FeatureStore) -> None:
    """Every row, or how many of the push, each with the lateness; a retry of what is known is no late row."""
    old: dict[str, Any] = {"at": NOW - timedelta(days=8)}
    says = (
        "came too late, and is never served nor trained on: it happened more than 7d ago, the lateness of the source, and "
        "is kept aside"
    )
    assert store.push("swipes", [row(1, **old), row(2, **old)]).notices == (f"every row {says}",)
    assert store.push("swipes", [row(3), row(4, **old)]).notices == (f"1 row {says}",)
    assert store.push("swipes", [row(3), row(4, **old), row(5, **old)]).notices == (f"2 rows {says}",)
    assert store.push("swipes", [row(3)]).notices == ()


def test_an_answer_is_a_tuple_of_counts_and_more(store: FeatureStore) -> None:
    told = store.push("swipes", [row(1), row(2, None)])
    assert repr(told) == "Pushed(accepted=2, unchanged=0, late=0, without_key=1)"
    assert repr(store.push("swipes", row(1))) == "Pushed(accepted=0, unchanged=1, late=0)"
    assert told.to_dict() == {
        "accepted": 2,
        "unchanged": 0,
        "late": 0,
        "quarantined": 0,
        "without_key": 1,
        "notices": list(told.notices),
    }
