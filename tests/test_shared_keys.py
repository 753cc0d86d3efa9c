"""Rows of a request that share a key, as those of a ranking share a user: it is asked for once, and each row is answered as alone."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore import (
    Count,
    DataFrameSource,
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    LastN,
    Latest,
    PushSource,
    Request,
    RequestTime,
    Sum,
    on_demand,
)
from featurestore.errors import OnDemandError
from featurestore.online import Guard, OnlineStore, Reading
from featurestore.serving import lookup as lookups
from featurestore.serving.lookup import Lookup
from featurestore.serving.online_result import OnlineResult
from featurestore.types import Array, Bool, Date, Float64, String, Timestamp
from featurestore.types import Decimal as Dec
from tests.draws import draws
from tests.small import NOON, bits, hours, opened, raised

USER = Entity("user", key={"user": String})
ITEM = Entity("item", key={"item": Dec(6, 2), "day": Date, "at": Timestamp, "new": Bool})
EVERYBODY = Entity("everybody", key={})

DAY, OTHER_DAY = date(2024, 4, 30), date(2024, 5, 1)
EARLY = datetime(2024, 4, 30, 8, tzinfo=UTC)
EARLY_ELSEWHERE = EARLY.astimezone(timezone(timedelta(hours=5)))


def frame(**columns: Any) -> pa.Table:
    return pa.table(
        {**columns, "event": pa.array([hours(-3)] * len(next(iter(columns.values()))), pa.timestamp("us", "UTC"))}
    )


TASTES = frame(user=["ann", "bob", "eve"], x=[-0.0, math.nan, None], tags=[[3.0, -0.0, 1.0], [], None])
OLD = pa.table(
    {
        "user": ["ann", "bob"],
        "spent": pa.array([7, 8], pa.int64()),
        "event": pa.array([hours(-3), hours(-30)], pa.timestamp("us", "UTC")),
    }
)
PRICES = frame(
    item=pa.array([Decimal("1.00"), Decimal("0.00")], pa.decimal128(6, 2)),
    day=[DAY, OTHER_DAY],
    at=pa.array([EARLY, EARLY], pa.timestamp("us", "UTC")),
    new=[True, False],
    price=[1 / 3, -0.0],
)
ALL = frame(total=pa.array([5], pa.int64()))
CLICKS = PushSource("clicks", schema={"user": String, "when": Timestamp, "y": Float64}, event_time="when")


def declared(name: str, entity: Entity, rows: pa.Table, features: Any, **words: Any) -> FeatureView:
    source = DataFrameSource(f"{name}_rows", rows, event_time="event")
    return FeatureView(name, entity=entity, source=source, features=features, refresh="1h", **words)


tastes = declared("tastes", USER, TASTES, ["x", "tags"])
spending = declared("spending", USER, OLD, {"spent": Latest("spent", default=-1)}, ttl="1d")
prices = declared("prices", ITEM, PRICES, ["price"])
everybody = declared("everybody", EVERYBODY, ALL, ["total"])
FOLDS = {"clicks": Count(window="1h"), "sum": Sum("y", window="30d"), "last": LastN("y", n=3)}
clicked = FeatureView("clicked", entity=USER, source=CLICKS, features=FOLDS)
clicked_ever = FeatureView("clicked_ever", entity=USER, source=CLICKS, features={"ever": Count(window="lifetime")})


@on_demand(inputs=[tastes["tags"], tastes["x"]], output=Array(Float64))
def ordered(tags: list[float] | None, x: float | None) -> list[float] | None:
    """Sorts what it was given, and returns that."""
    if tags is None:
        return None
    tags.sort()
    return tags


@on_demand(inputs=[tastes["x"], Request("amount", Float64), Request("note", String)], output=String)
def signs(x: float | None, amount: float | None, note: str | None) -> str:
    if note == "bad":
        raise ValueError(f"{amount} is bad")
    return f"{x!r} {amount!r} {note}"


@on_demand(inputs=[prices["price"], clicked["sum"], Request("sizes", Array(Float64))], output=String)
def mixed(price: float | None, total: float | None, sizes: list[float] | None) -> str:
    return f"{price!r} {total!r} {sizes!r}"


@on_demand(inputs=[RequestTime()], output=Timestamp)
def asked_at(now: datetime) -> datetime:
    return now


@on_demand(inputs=[clicked["clicks"], Request("amount", Float64)], output=Float64, mode="columns")
def scaled(clicks: Any, amount: Any) -> Any:
    return clicks * amount


FUNCTIONS = [ordered, signs, mixed, asked_at, scaled]
VIEWS = [tastes, spending, prices, everybody, clicked, clicked_ever]
SERVICE = FeatureService("service", features=[*VIEWS, *FUNCTIONS])


class Counted:
    """A store that remembers the keys of each round trip."""

    def __init__(self, store: OnlineStore, *, blocking: bool = False) -> None:
        self._store, self.blocking, self.tagged = store, blocking, store.tagged
        self.trips: list[list[bytes]] = []

    def get(self, keys: Sequence[bytes]) -> Reading:
        self.trips.append([*keys])
        return self._store.get(keys)

    def scan(self, prefix: bytes) -> Iterator[list[bytes]]:
        return self._store.scan(prefix)

    def write(self, puts: Mapping[bytes, bytes | None], *, guard: Guard | None = None) -> bool:
        return self._store.write(puts, guard=guard)

    def close(self) -> None:
        self._store.close()

    def asked(self) -> list[bytes]:
        """The keys of the one round trip that was made since the last call."""
        (trip,) = self.trips
        self.trips.clear()
        return trip


@pytest.fixture(scope="module")
def store() -> Iterator[FeatureStore]:
    with opened(*VIEWS, SERVICE) as (store, clock):
        store.materialize(progress=False)
        pushed = [("ann", -2, 0.1), ("ann", -0.5, -0.0), ("eve", -0.2, math.nan), ("ann", -0.1, None)]
        store.push("clicks", [{"user": user, "when": hours(at), "y": y} for user, at, y in pushed])
        clock.set(NOON + timedelta(seconds=5))
        yield store


def counted(store: FeatureStore, *, blocking: bool = False) -> tuple[Lookup, Counted]:
    """The service, loaded over the same store with its keys written down."""
    project = store._project
    watched = Counted(project.online, blocking=blocking)
    made = Lookup(store.lookup("service").service, watched, project=project.config.project, vouched=project.pushing)
    return made, watched


def asked(user: str | None = "ann", item: Any = Decimal("1.00"), **more: Any) -> dict[str, Any]:
    keys = {"user": user, "item": item, "day": DAY, "at": EARLY, "new": True}
    return {**keys, "amount": 1.5, "note": "a", "sizes": [1.0, 2.0], **more}


requests = st.lists(
    st.builds(
        asked,
        st.sampled_from(["ann", "bob", "eve", "zoe", "", None]),
        st.sampled_from([Decimal("1.00"), Decimal("1.0"), 1, 0, Decimal("-0.00"), Decimal("2.50"), None]),
        day=st.sampled_from([DAY, OTHER_DAY, None]),
        at=st.sampled_from([EARLY, EARLY_ELSEWHERE, EARLY + timedelta(microseconds=1), None]),
        new=st.booleans(),
        amount=st.sampled_from([0.0, -0.0, math.nan, float("nan"), 1, 1.0, None]),
        note=st.sampled_from(["a", "b", None]),
        sizes=st.sampled_from([[0.0], [-0.0], [], None]),
    ),
    min_size=1,
    max_size=12,
)


def answers(result: OnlineResult) -> list[Any]:
    """Each row's values, to the bit, and statuses."""
    types = {**result.service.inputs, **{column.name: column.type for column in result.service.columns}}
    values = {name: bits(types[name], column) for name, column in result.to_dict().items()}
    columns = [*values.values(), *result.statuses.values()]
    return [[row, result.as_of, result.stale] for row in zip(*columns, strict=True)]


@settings(max_examples=draws(150), deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=requests, shared=st.sets(st.sampled_from(["user", "item", "day", "at", "new", "amount", "note"])))
def test_rows_that_share_keys_are_answered_as_each_alone(
    store: FeatureStore, rows: list[dict[str, Any]], shared: set[str]
) -> None:
    """To the bit, nulls, statuses and functions included; and what is asked of the store is what they ask for alone, once."""
    rows = [{**row, **{name: rows[0][name] for name in shared}} for row in rows]
    lookup, watched = counted(store)
    together, keys = answers(lookup.get(rows)), watched.asked()
    alone, wanted = [], set()
    for row in rows:
        alone += answers(lookup.get([row]))
        wanted |= {*watched.asked()}
    assert together == alone
    assert len(keys) == len({*keys})
    assert {*keys} == wanted


def test_the_keys_of_a_ranking_are_asked_for_once(store: FeatureStore) -> None:
    """Four views of the user are four records, the view without keys is one; views over one push source share its state."""
    rows = [asked("ann", Decimal(number)) for number in range(500)]
    lookup, watched = counted(store)
    marks = 4 + 1 + 2  # of each materialized view, of the push source, of each view over it
    result = lookup.get(rows)
    assert len(watched.asked()) == marks + 4 + 1 + 500
    assert result.to_dict()["clicked__clicks"] == [2] * 500
    assert result.to_dict()["prices__price"][:3] == [None, 1 / 3, None]

    lookup, watched = counted(store, blocking=True)
    many = [rows[:300], rows[200:]]

    async def both() -> list[OnlineResult]:
        return await asyncio.gather(*(lookup.aget(each) for each in many))

    results = asyncio.run(both())
    assert [len(trip) for trip in watched.trips] == [marks + 4 + 1 + 500]
    assert [answers(each) for each in results] == [answers(lookup.get(each)) for each in many]


def test_functions_are_called_once_for_arguments_that_are_the_same(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: dict[str, int] = {}
    real = lookups.evaluate_rows  # type: ignore[attr-defined]  # a name that the module imports, to be replaced

    def noted(item: Any, columns: Any, rows: int, row_name: Any) -> list[Any]:
        called[item.name] = rows
        return real(item, columns, rows, row_name)

    monkeypatch.setattr(lookups, "evaluate_rows", noted)
    lookup, _ = counted(store)
    amounts = [0.0, -0.0, math.nan, 1.0] * 25
    rows = [asked("ann", Decimal(number), amount=amount) for number, amount in enumerate(amounts)]
    values = lookup.get(rows).to_dict()
    assert called == {"ordered": 1, "signs": 4, "mixed": 100, "asked_at": 1}
    assert values["signs"] == ["-0.0 0.0 a", "-0.0 -0.0 a", "-0.0 nan a", "-0.0 1.0 a"] * 25
    lookup.get([asked(user, note=note) for user in ("ann", "bob") for note in "abcab"])
    assert called == {"ordered": 2, "signs": 6, "mixed": 10, "asked_at": 1}


def test_whoever_changes_a_list_changes_no_other_row(store: FeatureStore) -> None:
    rows = [asked("ann", Decimal(number)) for number in range(3)]
    result = store.get_online_features(rows, "service")
    for taken in (result.to_dict(), result.to_dict()):
        for name, value in (("tastes__tags", [3.0, -0.0, 1.0]), ("ordered", [-0.0, 1.0, 3.0])):
            taken[name][0].append(9.0)
            assert taken[name] == [[*value, 9.0], value, value]
        taken["clicked__last"][1].clear()
        assert [len(each) for each in taken["clicked__last"]] == [3, 0, 3]
    place = [column.name for column in result.service.columns].index("ordered")
    matrix = result.to_numpy(object)
    matrix[0, place].clear()
    assert [len(each) for each in matrix[:, place]] == [0, 3, 3]
    statuses = result.statuses
    statuses["tastes__x"][0] = "changed"
    assert statuses["tastes__tags"] == ["PRESENT"] * 3


def test_a_function_that_fails_names_the_first_row_for_which_it_does(store: FeatureStore) -> None:
    rows = [asked("ann", Decimal(number), note=note) for number, note in enumerate(["a", "b", "a", "bad", "b", "bad"])]

    def get(rows: list[dict[str, Any]]) -> str:
        return raised(OnDemandError, lambda: store.get_online_features(rows, "service"))

    assert get(rows) == get([rows[3]])
    assert "item=Decimal('3.00')" in get(rows)


def test_what_is_logged_of_rows_that_share_keys_is_what_training_says(tmp_path: Path) -> None:
    text = 'project = "shared"\nonline = "lmdb://online"\ndefinitions = []\n[serving_log]\nrate = 1.0\n'
    (tmp_path / "featurestore.toml").write_text(text)
    clock = NOON + timedelta(seconds=5)
    with FeatureStore(tmp_path, clock=lambda: clock) as store:
        store.apply([*VIEWS, SERVICE])
        store.materialize(progress=False)
        rows = [asked(user, Decimal(number % 2)) for number in range(20) for user in ("ann", "bob", "zoe", None)]
        result = store.get_online_features(rows, "service")
        audit = store.audit()
        assert audit.skewed == 0
        assert audit.compared >= len(rows) * len(result.service.columns) - len(rows)
