"""FeatureTest with folds, conditions, derived columns and push sources: trained as served, without a store."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest

from featurestore import (
    Count,
    FeatureService,
    FeatureView,
    Latest,
    Mean,
    ParquetSource,
    PushSource,
    Request,
    Sum,
    on_demand,
)
from featurestore.errors import PushError, SourceError
from featurestore.semantics.expressions import columns_named
from featurestore.testing import FeatureTest
from featurestore.types import Bool, Float64, Int64, String, Timestamp
from tests.small import NOON, THING, hours, raised

ORDERS = ParquetSource(
    "orders", "nowhere/orders.parquet", event_time="at", known_after="1m", derived={"euros": "Cents / 100.0"}
)
SWIPES = PushSource(
    "swipes",
    schema={"swipe": String, "thing": Int64, "at": Timestamp, "amount": Float64, "gone": Bool},
    event_time="at", identity="swipe", deleted="gone",
)  # fmt: skip


def ordered(**features: Any) -> FeatureView:
    return FeatureView(
        "ordered", entity=THING, source=ORDERS, features=features, refresh="1h", where="status <> 'test'"
    )


def swiped(source: PushSource = SWIPES, **features: Any) -> FeatureView:
    return FeatureView("swiped", entity=THING, source=source, features=features)


def order(at: str, cents: int, status: str = "paid", **more: Any) -> dict[str, Any]:
    return {"thing": 1, "at": f"2024-05-01T{at}Z", "cents": cents, "status": status, **more}


def swipe(name: str, at: str, amount: float, **more: Any) -> dict[str, Any]:
    return {"swipe": name, "thing": 1, "at": f"2024-05-01T{at}Z", "amount": amount, **more}


def test_folds_of_derived_columns_under_conditions() -> None:
    """Windows at their edges; columns that only SQL names are read, in any case."""
    test = FeatureTest(
        ordered(
            n_2h=Count(window="2h"), euros_2h=Sum("euros", window="2h", where="status = 'paid'"), last=Latest("euros")
        )
    )
    test.rows(
        "orders", [order("10:00", 150), order("11:00", 250), order("11:30", 999, "test"), order("11:30", 50, "void")]
    )
    wanted = {"ordered__n_2h": 2, "ordered__euros_2h": 2.5, "ordered__last": 0.5}
    assert test.served_at("2024-05-01T12:30Z", thing=1) == wanted
    assert test.value_at("2024-05-01T11:59Z", thing=1)["ordered__n_2h"] == 1


def test_a_column_that_only_sql_names_must_be_said() -> None:
    """Where no row has it, and where nothing tells its type."""
    view = ordered(n=Count(window="2h", where="kind IN ('a', 'b')"))
    told = raised(SourceError, lambda: FeatureTest(view).rows("orders", [order("10:00", 1)]))
    assert "no row has a column 'kind', which the features read" in told
    told = raised(SourceError, lambda: FeatureTest(view).value_at(NOON, thing=1))
    assert "nothing tells the type of column 'cents'" in told
    test = FeatureTest(view)
    test.rows("orders", [], schema={"thing": Int64, "cents": Int64, "status": String, "kind": String})
    assert test.value_at(NOON, thing=1) == {"ordered__n": None}


def test_columns_that_an_expression_names() -> None:
    """As it writes them, each once; the parameter of a lambda is none."""
    assert columns_named('a + "B c" > a AND list_sum(list_transform(l, lambda x: x + d)) > 0') == ("a", "B c", "l", "d")


def test_pushed_rows_count_from_when_they_are_pushed() -> None:
    """As they happen, or at their known_at; to the µs; trained as served, forwards and back in time."""
    test = FeatureTest(
        swiped(n=Count(window="1h"), total=Sum("amount", window="lifetime"), big=Count(window="1h", where="amount > 5"))
    )
    test.rows(
        "swipes",
        [
            swipe("a", "10:00", 1.0), swipe("b", "10:00", 2.0), swipe("c", "10:10", 8.0, known_at="2024-05-01T10:30Z"),
            swipe("d", "10:20", 4.0),
        ],
    )  # fmt: skip
    wanted = {
        "09:59:59.999999": (None, None, None), "10:00": (2, 3.0, 0), "10:29:59.999999": (3, 7.0, 0), "10:30": (4, 15.0, 1),
        "10:59": (4, 15.0, 1), "11:09": (2, 15.0, 1), "13:00": (0, 15.0, 0),
    }  # fmt: skip
    for at in [*wanted, "10:30", "10:00"]:
        served = test.served_at(f"2024-05-01T{at}Z", thing=1)
        assert tuple(served[f"swiped__{name}"] for name in ("n", "total", "big")) == wanted[at], at
    assert test.status_at(NOON, thing=2) == dict.fromkeys(("swiped__n", "swiped__total", "swiped__big"), "MISSING")


def test_corrections_retries_and_deletions_of_pushed_rows() -> None:
    """By identity, each from when it was learned."""
    test = FeatureTest(swiped(total=Sum("amount", window="lifetime")))
    test.rows(
        "swipes",
        [
            swipe("a", "10:00", 1.0), swipe("a", "10:00", 2.0, known_at="2024-05-01T10:05Z"),
            swipe("a", "10:00", 2.0, known_at="2024-05-01T10:06Z"), swipe("b", "10:01", 8.0),
            swipe("b", "10:01", 8.0, gone=True, known_at="2024-05-01T10:10Z"),
        ],
    )  # fmt: skip
    for at, total in (("10:04", 9.0), ("10:05", 10.0), ("10:09", 10.0), ("10:10", 2.0)):
        assert test.served_at(f"2024-05-01T{at}Z", thing=1) == {"swiped__total": total}
    told = test.explain_at("2024-05-01T10:10Z", thing=1)
    assert sorted(row.verdict for row in told.rows) == ["chosen", "deleted", "superseded", "superseded"]


def test_rows_of_one_instant_are_known_a_microsecond_apart_where_they_say_when() -> None:
    """The store never knows two rows at once, and none before it was told."""
    test = FeatureTest(swiped(n=Count(window="1h")))
    late = [swipe(name, "10:00", 1.0, known_at="2024-05-01T10:30Z") for name in "abc"]
    test.rows("swipes", late)
    for at, n in (("10:29:59.999999", None), ("10:30", 1), ("10:30:00.000001", 2), ("10:30:00.000002", 3)):
        assert test.served_at(f"2024-05-01T{at}Z", thing=1) == {"swiped__n": n}


def test_frames_are_pushed_too() -> None:
    """With a column known_at, and without."""
    at = pa.array([hours(-2), hours(-1)], pa.timestamp("us", "UTC"))
    frame = pa.table({"swipe": ["a", "b"], "thing": [1, 1], "at": at, "amount": [1.0, 2.0]})
    test = FeatureTest(swiped(n=Count(window="1d"))).rows("swipes", frame)
    assert test.served_at(hours(-1), thing=1) == {"swiped__n": 2}
    test.rows("swipes", frame.append_column("known_at", pa.array([hours(-1), hours(0)], pa.timestamp("us", "UTC"))))
    assert test.served_at(hours(-1), thing=1) == {"swiped__n": 1}
    assert test.served_at(hours(0), thing=1) == {"swiped__n": 2}


def test_pushed_and_batch_rows_meet_in_a_service() -> None:
    """With an on-demand feature over both; a source without rows is empty."""
    orders = FeatureView(
        "ordered", entity=THING, source=ORDERS, features={"mean": Mean("euros", window="1d")}, refresh="1h"
    )
    swipes = swiped(last=Latest("amount"))

    @on_demand(inputs=[orders["mean"], swipes["last"], Request("limit", Float64)], output=Bool)
    def unusual(mean, last, limit):
        return mean is not None and last is not None and last > mean * limit

    test = FeatureTest(FeatureService("model", features=[orders, swipes, unusual]))
    test.rows("orders", [order("09:00", 100), order("10:00", 300)])
    assert test.served_at(NOON, thing=1, limit=2.0) == {"ordered__mean": 2.0, "swiped__last": None, "unusual": False}
    test.rows("swipes", [swipe("a", "11:00", 5.0)])
    assert test.served_at(NOON, thing=1, limit=2.0) == {"ordered__mean": 2.0, "swiped__last": 5.0, "unusual": True}


def test_a_history_is_given_rows_like_any_source() -> None:
    """Its types are those of the schema; pushes begin at the cutover."""
    history = ParquetSource("old", "nowhere/old.parquet", event_time="at", known_after="1m")
    source = PushSource(
        "swipes", schema={"thing": Int64, "at": Timestamp, "amount": Float64}, event_time="at", history=history, cutover=NOON
    )  # fmt: skip
    test = FeatureTest(swiped(source, total=Sum("amount", window="lifetime")))
    test.rows("old", [{"thing": 1, "at": hours(-2), "amount": 1.0}, {"thing": 1, "at": hours(0), "amount": 100.0}])
    test.rows("swipes", [{"thing": 1, "at": hours(0), "amount": 2.0, "known_at": hours(1)}])
    assert test.value_at(hours(-1), thing=1) == {"swiped__total": 1.0}
    assert test.served_at(NOON, thing=1) == {"swiped__total": 1.0}
    assert test.served_at(hours(1), thing=1) == {"swiped__total": 3.0}
    test.rows("swipes", [{"thing": 1, "at": hours(-1), "amount": 2.0}])
    with pytest.raises(PushError, match="from its cutover on"):
        test.value_at(NOON, thing=1)


def test_rows_that_cannot_be_pushed_are_refused() -> None:
    """A column that the schema has not, a row that nothing dates, and what the pusher itself refuses."""
    test = FeatureTest(swiped(n=Count(window="1h")))
    assert "has no column 'amout'" in raised(SourceError, lambda: test.rows("swipes", [{"amout": 1.0}]))
    told = raised(SourceError, lambda: test.rows("swipes", [{"swipe": "a", "gone": True}]))
    assert "nothing says when to push it" in told
    test.rows("swipes", [{"thing": 1, "at": NOON, "amount": 1.0}])
    with pytest.raises(PushError, match="row 0 has no 'swipe'"):
        test.value_at(NOON + timedelta(hours=1), thing=1)
