"""Push: what is refused, kept, changed by nothing, corrected and deleted; and every view over a source, old and new."""

from __future__ import annotations

import asyncio
import gc
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from featurestore import (
    Count,
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    LastN,
    Latest,
    ManualClock,
    Max,
    Mean,
    PushSource,
    Sum,
    TableSource,
)
from featurestore.errors import NotFoundError, NotMaterializedError, PushError
from featurestore.online.view_codec import source_prefix
from featurestore.push import push_queue as line
from featurestore.push.deduplicate import IDENTITY
from featurestore.push.push_sources import Pushing
from featurestore.server import create_app
from featurestore.types import Array, Bool, Float64, Int32, Int64, String, Timestamp
from tests.pushing import DyingStore, Killed
from tests.servers import RedisServer
from tests.small import NOON, THING, bits, hours, raised, trained

SCHEMA = {"id": Int64, "thing": Int64, "at": Timestamp, "x": Float64, "note": String, "gone": Bool}
SWIPES = PushSource("swipes", schema=SCHEMA, event_time="at", identity="id", deleted="gone")
FOLDS = {"count": Count(window="1h"), "total": Sum("x", window="lifetime"), "last": Latest("x")}


def view_over(source: PushSource = SWIPES, *, name: str = "view", features: Any = None, **words: Any) -> FeatureView:
    return FeatureView(name, entity=THING, source=source, features=features or FOLDS, **words)


@contextmanager
def opened(*views: FeatureView, online: str = "") -> Iterator[tuple[FeatureStore, ManualClock]]:
    """An embedded store with the views applied as one service, and its clock."""
    clock = ManualClock(NOON)
    with FeatureStore.local(clock=clock) as store:
        if online:
            store._project.config = store.config.model_copy(update={"online": online})
        store.apply(list(views) + [FeatureService("service", features=list(views))])
        yield store, clock


def row(
    number: int, thing: int | None = 1, x: float | None = 1.0, *, at: datetime = NOON, **more: Any
) -> dict[str, Any]:
    return {"id": number, "thing": thing, "at": at, "x": x, **more}


def logged(store: FeatureStore, source: PushSource = SWIPES, part: str = "rows") -> list[dict[str, Any]]:
    return store.offline.log(source, part).read().to_pylist()


def served(store: FeatureStore, *things: int, service: str = "service") -> dict[str, list[Any]]:
    """What a lookup answers now; training answers the same at the as_of served, statuses included, to the bit."""
    online = store.get_online_features([{"thing": thing} for thing in things], service)
    for part, as_of in online.as_of.items():
        offline = trained(store, as_of, service, thing=list(things))
        for column in online.service.columns:
            if column.part == part:
                answers = online.to_dict()[column.name]
                assert bits(column.type, answers) == bits(column.type, offline[column.name].to_pylist()), column.name
                assert online.statuses[column.name] == offline[f"{column.name}__status"].to_pylist()
    return online.to_dict()


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([row(1), row(2, colour="red")], "row 1 has a column 'colour'"),
        ([row(1), row(2) | {"x": "much"}], "row 1, column 'x' must be Float64"),
        ([row(1), row(2) | {"thing": 2**63}], "row 1, column 'thing' must be Int64"),
        ([row(1), row(None)], "row 1 has no 'id', which is its identity"),  # type: ignore[arg-type]  # the mistake
        ([row(1), {"id": 2, "thing": 1}], "row 1 has no 'at', which is its event_time"),
        ([row(1), row(2, at=None)], "row 1 has no 'at'"),  # type: ignore[arg-type]  # the mistake
        ([row(1), row(2, at=NOON + timedelta(seconds=1, microseconds=1))], "row 1, column 'at': it happened at"),
        ([row(1), 7], "row 1 is int"),
        (7, "int is neither rows nor a frame"),
        (pa.table({"id": [1], "colour": ["red"]}), "no column 'colour'"),
        (pa.table({"id": [1], "x": ["much"]}), "column 'x' is string, and must be Float64"),
        (pa.table({"id": [1], "at": pa.nulls(1)}), "row 0 has no 'at'"),
        (pl.DataFrame({"id": [1, 2], "at": [NOON, None]}), "row 1 has no 'at'"),
    ],
)
def test_what_is_refused_names_row_and_column_and_keeps_nothing(rows: Any, said: str) -> None:
    """The rows beside it are not kept either."""
    with opened(view_over()) as (store, _):
        assert said in raised(PushError, lambda: store.push("swipes", rows))
        assert logged(store) == logged(store, part="late") == []


def test_a_source_that_takes_no_pushes_is_said_to() -> None:
    table = TableSource("facts", "facts.duckdb", table="facts", event_time="at")
    with opened(view_over()) as (store, _):
        assert "Did you mean 'swipes'" in raised(NotFoundError, lambda: store.push("swipe", []))
        assert table.name == "facts"


def test_a_row_for_which_an_expression_fails_is_refused_and_blocks_nobody() -> None:
    """Neither the rows that are pushed beside it, nor those that are pushed after it."""
    source = SWIPES.model_copy(update={"derived": {"number": "CAST(note AS INTEGER)"}})
    with opened(view_over(source, features={"sum": Sum("number", window="lifetime")})) as (store, _):
        message = raised(PushError, lambda: store.push("swipes", [row(1, note="7"), row(2, note="seven")]))
        assert "row 1" in message
        assert "number" in message
        assert logged(store) == []
        assert store.get_online_features({"thing": 1}, "service").stale == {"view": False}
        store.push("swipes", [row(1, note="7")])
        assert served(store, 1)["view__sum"] == [7]
        many = [row(n, note="eleven" if n == 21 else "1") for n in range(10, 30)]
        assert "row 11: " in raised(PushError, lambda: store.push("swipes", many))
        together = push_together(store, [[row(3, note="3")], [row(4, note="four")], [row(5, note="5")]])
        assert [isinstance(one, PushError) for one in together] == [False, True, False]
        assert served(store, 1)["view__sum"] == [15]


def push_together(store: FeatureStore, pushes: list[Any]) -> list[Any]:
    """What becomes of pushes that share one turn, in their order."""
    answers: list[Any] = [None] * len(pushes)

    def push(number: int) -> None:
        try:
            answers[number] = store.push("swipes", pushes[number])
        except PushError as error:
            answers[number] = error

    own = store._project.pushing._pusher("swipes")
    threads = [threading.Thread(target=push, args=(number,)) for number in range(len(pushes))]
    with own._batch_lock:
        for number, thread in enumerate(threads):
            thread.start()
            while len(own._queue._waiting) <= number:
                time.sleep(0.001)
    for thread in threads:
        thread.join(600)
    assert None not in answers
    return answers


def test_those_who_wait_for_a_full_turn_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when all who came before them had their rows in an earlier turn."""
    monkeypatch.setattr(line, "BATCH_ROWS", 2)
    with opened(view_over()) as (store, _):
        answers = push_together(store, [[row(3 * n), row(3 * n + 1)] for n in range(4)])
        assert answers == [(2, 0, 0)] * 4
        assert served(store, 1)["view__count"] == [8]


def test_coroutines_share_turns_and_one_that_gives_up_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each that waits is answered, beside a thread that pushes; a push that was cancelled before its turn is not kept."""
    monkeypatch.setattr(line, "BATCH_ROWS", 7)
    with opened(view_over()) as (store, _):
        store.push("swipes", row(0))

        async def all_at_once() -> None:
            with store._project.pushing._pusher("swipes").alone():  # so that all of them wait
                pushes = [asyncio.ensure_future(store.apush("swipes", [row(n)])) for n in range(1, 41)]
                large = asyncio.ensure_future(store.apush("swipes", [row(n) for n in range(100, 200)]))
                nothing = asyncio.ensure_future(store.apush("swipes", []))
                thread = asyncio.ensure_future(asyncio.to_thread(store.push, "swipes", row(50)))
                await asyncio.sleep(0.2)
                pushes[-1].cancel()
                await asyncio.sleep(0)
            assert await asyncio.gather(*pushes[:-1], thread) == [(1, 0, 0)] * 40
            assert await asyncio.gather(large, nothing) == [(100, 0, 0), (0, 0, 0)]
            with pytest.raises(PushError, match="must be Float64"):
                await store.apush("swipes", [row(60, x="much")])  # type: ignore[arg-type]  # the mistake
            with pytest.raises(NotFoundError, match="swipe"):
                await store.apush("swipe", [row(61)])
            assert await store.apush("swipes", [row(62)]) == (1, 0, 0)

        asyncio.run(all_at_once())
        assert sorted(each["id"] for each in logged(store)) == [*range(40), 50, 62, *range(100, 200)]
        assert served(store, 1)["view__count"] == [142]


# --- what is kept -------------------------------------------------------------------------------------------------


def test_an_empty_push_changes_nothing() -> None:
    with opened(view_over()) as (store, _):
        for nothing in ([], pa.table({"id": pa.array([], pa.int64())}), pl.DataFrame(), pd.DataFrame()):
            assert store.push("swipes", nothing) == (0, 0, 0)
        assert logged(store) == []


def test_every_form_of_rows_is_the_same_rows() -> None:
    """Dicts, one dict, JSON, Arrow, polars and pandas; a naive timestamp is UTC; a column that is left out is null."""
    plain = [row(1, note="a"), row(2, 2, None)]
    columns = {"id": [1, 2], "thing": [1, 2], "at": [NOON, NOON], "x": [1.0, None], "note": ["a", None]}
    naive = {**columns, "at": [NOON.replace(tzinfo=None)] * 2}
    as_json = [{**one, "at": "2024-05-01T12:00:00Z"} for one in plain]
    small = pa.table({**columns, "id": pa.array([1, 2], pa.int32())})
    found = []
    for rows in (plain, columns, pa.table(columns), small, pa.table(columns).to_batches()[0], pl.DataFrame(columns),
                 pl.DataFrame(naive), pd.DataFrame(columns), pd.DataFrame(naive), as_json):  # fmt: skip
        with opened(view_over()) as (store, _):
            assert store.push("swipes", rows, json=rows is as_json) == (2, 0, 0)
            found.append(logged(store))
            assert served(store, 1, 2)["view__last"] == [1.0, None]
    assert all(rows == found[0] for rows in found)
    with opened(view_over()) as (store, _):
        assert store.push("swipes", plain[0]) == (1, 0, 0)


def test_one_row_with_an_array_is_one_row() -> None:
    source = PushSource("tagged", schema={"thing": Int64, "at": Timestamp, "tags": Array(Int64)}, event_time="at")
    with opened(view_over(source, features={"tags": Latest("tags"), "count": Count(window="1h")})) as (store, _):
        store.push("tagged", {"thing": 1, "at": NOON, "tags": [1, 2]})
        assert served(store, 1) == {"thing": [1], "view__tags": [[1, 2]], "view__count": [1]}


def test_edges_of_values_keep_their_bits() -> None:
    """NaN is NaN, except in pandas, where it is null; -0.0 and 0.0, and the ends of int64, stay what they are."""
    source = PushSource(
        "edges", schema={"thing": Int64, "at": Timestamp, "f": Float64, "i": Int64, "s": Int32}, event_time="at"
    )
    features = {"f": Latest("f"), "i": Latest("i"), "fs": LastN("f", n=5), "most": Max("f", window="lifetime"),
                "ints": Sum("i", window="lifetime"), "small": Sum("s", window="lifetime")}  # fmt: skip
    ends = [2**63 - 1, -(2**63)]
    with opened(view_over(source, features=features)) as (store, clock):
        clock.advance(timedelta(seconds=10))
        values = [math.nan, -0.0, 0.0, math.inf]
        times = [NOON + timedelta(seconds=n) for n in range(4)]
        store.push("edges", [{"thing": 1, "at": at, "f": f, "i": i, "s": 2**31 - 1}
                             for at, f, i in zip(times, values, ends * 2, strict=True)])  # fmt: skip
        found = served(store, 1)
        assert bits(Float64, found["view__fs"][0]) == bits(Float64, values[::-1])
        assert (found["view__i"], found["view__ints"], found["view__small"]) == ([ends[1]], [-2], [4 * (2**31 - 1)])
        assert math.isnan(found["view__most"][0])
        store.push("edges", [{"thing": 2, "at": NOON, "i": ends[0]}, {"thing": 2, "at": NOON, "i": ends[0]}])
        online = store.get_online_features({"thing": 2}, "service")
        assert online.statuses["view__ints"] == ["OVERFLOW"]
        frame = pd.DataFrame({"thing": [3], "at": [NOON], "f": np.array([np.nan]), "i": [float(2**53)]})
        store.push("edges", frame)
        store.push(
            "edges", pa.table({"thing": [4], "at": pa.array([NOON], pa.timestamp("us", "UTC")), "f": [math.nan]})
        )
        found = served(store, 3, 4)
        assert found["view__f"][0] is None
        assert math.isnan(found["view__f"][1])
        assert found["view__i"] == [2**53, None]
        assert "column 'i'" in raised(PushError, lambda: store.push("edges", frame.assign(i=[0.5])))


def test_a_null_key_is_kept_and_counts_for_nobody() -> None:
    with opened(view_over()) as (store, _):
        store.push("swipes", [row(1, None), row(2)])
        assert len(logged(store)) == 2
        assert served(store, 1)["view__count"] == [1]
        store.push("swipes", [row(1, 1)])  # a correction gives it a key
        assert served(store, 1)["view__count"] == [2]


# --- retries, late rows, corrections, deletions -------------------------------------------------------------------


def test_what_was_pushed_before_changes_nothing() -> None:
    """A retry, alone, within a push and beside new rows; A, B and A again leave B."""
    with opened(view_over()) as (store, clock):
        assert store.push("swipes", [row(1), row(1), row(2, x=5.0)]) == (2, 1, 0)
        before, now = logged(store), clock()
        assert store.push("swipes", [row(1), row(2, x=5.0)]) == (0, 2, 0)
        assert (logged(store), clock()) == (before, now)
        assert store.push("swipes", [row(2, x=6.0), row(3)]) == (2, 0, 0)
        assert store.push("swipes", [row(2, x=5.0)]) == (0, 1, 0)
        assert served(store, 1) == {"thing": [1], "view__count": [3], "view__total": [8.0], "view__last": [1.0]}


def test_a_retry_differs_by_the_bits_of_any_column() -> None:
    with opened(view_over()) as (store, _):
        assert store.push("swipes", [row(1, x=0.0)]) == (1, 0, 0)
        assert store.push("swipes", [row(1, x=-0.0)]) == (1, 0, 0)
        assert store.push("swipes", [row(1, x=math.nan)]) == (1, 0, 0)
        assert store.push("swipes", [row(1, x=-math.nan), row(1, x=-0.0)]) == (0, 2, 0)


def test_without_an_identity_every_row_counts() -> None:
    source = PushSource("bare", schema={"thing": Int64, "at": Timestamp, "x": Float64}, event_time="at")
    with opened(view_over(source)) as (store, _):
        one = {"thing": 1, "at": NOON, "x": 1.0}
        assert store.push("bare", [one, one]) == (2, 0, 0)
        assert store.push("bare", one) == (1, 0, 0)
        assert served(store, 1)["view__count"] == [3]


def test_rows_older_than_the_lateness_are_kept_aside() -> None:
    """Counted, in a log of their own; a row exactly as old still counts; so does a correction of what is remembered."""
    week = timedelta(days=7)
    with opened(view_over()) as (store, _):
        old = NOON - week
        answer = store.push("swipes", [row(1, at=old), row(2, at=old - timedelta(microseconds=1)), row(3)])
        assert answer == (2, 0, 1)
        assert [one["id"] for one in logged(store, part="late")] == [2]
        assert [one["id"] for one in logged(store)] == [1, 3]
        assert store.push("swipes", [row(2, at=old - timedelta(microseconds=1))]) == (0, 0, 1)
        assert served(store, 1)["view__total"] == [2.0]


def test_what_is_older_than_the_lateness_is_neither_replaced_nor_deleted() -> None:
    with opened(view_over()) as (store, clock):
        store.push("swipes", [row(1, x=4.0)])
        clock.advance(timedelta(days=8))
        assert store.push("swipes", [{"id": 1, "gone": True}]) == (0, 0, 1)
        assert store.push("swipes", [row(1, x=4.0)]) == (0, 1, 0)
        assert store.push("swipes", [row(1, x=2.0, at=clock())]) == (1, 0, 0)
        assert logged(store)[-1]["__replaces"] is None
        assert served(store, 1)["view__total"] == [6.0]


@pytest.mark.parametrize("exact", [True, False])
def test_a_correction_replaces_in_its_tile_another_tile_and_another_key(exact: bool) -> None:
    """Also within one push, and where the old row's key has no row left; `exact` folds subtract, others fold anew."""
    exactly = {"count": Count(window="1h"), "total": Sum("x", window="lifetime"), "mean": Mean("x", window="2h")}
    with opened(view_over(features=exactly if exact else {**exactly, "last": Latest("x")})) as (store, _):
        store.push("swipes", [row(1, x=1.0, at=hours(-0.1)), row(2, x=2.0), row(2, x=3.0)])
        assert served(store, 1)["view__total"] == [4.0]
        store.push("swipes", [row(1, x=10.0, at=hours(-1.5))])
        assert (served(store, 1)["view__count"], served(store, 1)["view__total"]) == ([1], [13.0])
        store.push("swipes", [row(1, 2, x=10.0, at=hours(-0.2)), row(2, 2, x=3.0)])
        assert served(store, 1, 2)["view__total"] == [None, 13.0]
        assert served(store, 1, 2)["view__count"] == [None, 2]
        assert store.get_online_features({"thing": 1}, "service").statuses["view__total"] == ["MISSING"]
        store.push("swipes", [row(1, 1, x=10.0), row(1, 3, x=11.0), row(1, 1, x=12.0)])
        assert served(store, 1, 2, 3)["view__total"] == [12.0, 3.0, None]
        store.push("swipes", [row(1, None, x=1.0)])
        assert served(store, 1, 2)["view__count"] == [None, 1]


def test_a_deletion_removes_its_row() -> None:
    """It may leave out all but the identity; before its row it removes nothing; after it the row may come again, changed."""
    with opened(view_over()) as (store, _):
        assert store.push("swipes", [{"id": 1, "gone": True}]) == (1, 0, 0)
        assert store.push("swipes", [row(1), row(2, x=2.0)]) == (2, 0, 0)
        assert served(store, 1)["view__total"] == [3.0]
        assert store.push("swipes", [{"id": 1, "gone": True}]) == (0, 1, 0)  # which was pushed before
        assert store.push("swipes", [row(1, gone=True)]) == (1, 0, 0)
        assert served(store, 1)["view__total"] == [2.0]
        assert store.push("swipes", [{"id": 2, "gone": True}]) == (1, 0, 0)
        assert served(store, 1)["view__total"] == [None]
        assert store.push("swipes", [row(2, x=9.0)]) == (1, 0, 0)
        assert served(store, 1)["view__last"] == [9.0]


def test_a_row_that_is_a_little_ahead_counts_from_when_it_happened() -> None:
    """The push returns then; what is served before it is of before; a correction and a fill at that time have it too."""
    ahead = NOON + timedelta(milliseconds=500)
    with opened(view_over()) as (store, clock):
        store.push("swipes", [row(1, at=ahead)])
        assert clock() == ahead
        assert served(store, 1)["view__count"] == [1]
        store.push("swipes", [row(1, x=2.0, at=ahead + timedelta(milliseconds=100))])
        assert served(store, 1)["view__total"] == [2.0]
        store.materialize(full=True, progress=False)
        assert served(store, 1)["view__total"] == [2.0]


def test_a_reservation_that_is_seen_too_late_takes_nothing_back() -> None:
    """A store that is slow for once: until all is written, answers are for what was confirmed, and as_of never goes back."""
    now = [NOON]

    def clock() -> datetime:
        now[0] += timedelta(milliseconds=1)
        return now[0]

    class Slow(DyingStore):
        def write(self, puts: Any, *, guard: Any = None) -> bool:
            now[0] += timedelta(milliseconds=50)
            look()
            written = super().write(puts, guard=guard)
            look()
            return written

    view, seen = view_over(), list[datetime]()
    with FeatureStore.local(clock=clock) as store:

        def look() -> None:
            seen.append(store.get_online_features({"thing": 1}, "service").as_of["view"])

        store.apply([view, FeatureService("service", features=[view])])
        store.materialize(progress=False)
        slow = Slow(store.online, 99)
        pushing = Pushing(store.registry, store.offline, slow, project=store.config.project, clock=clock)
        pushing.push("swipes", row(1))
        assert len(seen) == 4  # reserved, then written
        assert seen == sorted(seen)
        assert served(store, 1)["view__count"] == [1]
        assert store.get_online_features({"thing": 1}, "service").stale == {"view": False}


def test_identities_are_forgotten_when_their_rows_are_older_than_the_lateness() -> None:
    """By compact: what can be replaced no more takes no room online; what can is recognised and replaced as before."""
    with opened(view_over()) as (store, clock):
        store.push("swipes", [row(n) for n in range(5)] + [{"id": 9, "gone": True}])
        clock.advance(timedelta(days=7))
        at = clock() - timedelta(hours=1)
        store.push("swipes", [row(n, x=2.0, at=at) for n in range(5, 8)] + [row(0, x=0.0)])
        assert len(identities(store)) == 9
        store.compact()
        assert len(identities(store)) == 3
        assert store.push("swipes", [row(5, x=2.0, at=at), row(6, x=3.0, at=at), row(1, x=7.0)]) == (1, 1, 1)
        assert served(store, 1)["view__total"] == [5.0 + 2.0 + 3.0 + 2.0]


def identities(store: FeatureStore) -> list[bytes]:
    prefix = source_prefix(store.config.project, SWIPES.name) + IDENTITY
    return [key for keys in store.online.scan(prefix) for key in keys]


def test_a_server_that_starts_repairs_what_was_left() -> None:
    """A pusher died between log and records: lookups answer for the instant before it, and after a start for now."""
    with opened(view_over()) as (store, clock):
        store.push("swipes", row(1))
        dying = DyingStore(store.online, 1)
        pushing = Pushing(store.registry, store.offline, dying, project=store.config.project, clock=clock)
        with pytest.raises(Killed):
            pushing.push("swipes", row(2))
        clock.advance(timedelta(seconds=1))
        assert store.get_online_features({"thing": 1}, "service").stale == {"view": True}
        assert served(store, 1)["view__count"] == [1]
        asyncio.run(start_and_stop(store))
        assert store.get_online_features({"thing": 1}, "service").stale == {"view": False}
        assert served(store, 1)["view__count"] == [2]


async def start_and_stop(store: FeatureStore) -> None:
    app = create_app(store, authentication=False)
    async with app.router.lifespan_context(app):
        gc.unfreeze()  # this process goes on


# --- several views, versions, stores ------------------------------------------------------------------------------


def test_every_view_over_a_source_takes_its_rows_from_when_it_is_filled() -> None:
    """A view that is applied after pushes is refused until materialize has filled it, then kept up to date."""
    with opened(view_over()) as (store, _):
        store.push("swipes", [row(1), row(2, x=2.0)])
        by_note = FeatureView(
            "by_note",
            entity=Entity("note", key={"note": String}),
            source=SWIPES,
            features={"count": Count(window="1h")},
        )
        store.apply([by_note, FeatureService("notes", features=[by_note])])
        store.push("swipes", [row(3, note="a"), row(2, x=2.0, note="a")])
        with pytest.raises(NotMaterializedError, match="materialize"):
            store.get_online_features({"note": "a"}, "notes")
        runs = {run.view: run.rows for run in store.materialize(progress=False)}
        assert runs == {"by_note": 1}
        assert store.get_online_features({"note": "a"}, "notes").to_dict()["by_note__count"] == [2]
        store.push("swipes", [row(4, note="a"), row(3, note="b")])
        assert store.get_online_features([{"note": "a"}, {"note": "b"}], "notes").to_dict()["by_note__count"] == [2, 1]
        assert served(store, 1)["view__count"] == [4]
        assert store.materialize(progress=False) == []


def test_a_changed_view_is_rolled_out_beside_the_old_one() -> None:
    """Both are kept up to date, each by its own derived column, until the old one is freed."""
    old_source = SWIPES.model_copy(update={"derived": {"y": "x * 2"}})
    new_source = SWIPES.model_copy(update={"derived": {"y": "x * 100"}})
    features = {"total": Sum("y", window="lifetime")}
    with opened(view_over(old_source, features=features)) as (store, clock):
        store.push("swipes", [row(1)])
        old = store.lookup("service").service.fingerprint
        new = view_over(new_source, features=features)
        store.apply([new, FeatureService("service", features=[new])])
        store.push("swipes", [row(2), row(3)])
        assert store.get_online_features({"thing": 1}, "service").to_dict()["view__total"] == [6.0]  # still the old
        store._project.pushing.fill(
            store._project.applied(["view"])[0], full=False
        )  # published, the old one not yet freed
        store.push("swipes", [row(4), row(3, x=2.0)])
        store.reload()
        assert store.get_online_features({"thing": 1}, "service").to_dict()["view__total"] == [500.0]
        both = store.get_online_features({"thing": 1}, "service", fingerprint=old)
        assert both.to_dict()["view__total"] == [10.0]
        store.materialize(progress=False)
        assert store.registry.leftovers() == ()
        store.push("swipes", [row(5)])
        assert store.get_online_features({"thing": 1}, "service").to_dict()["view__total"] == [600.0]
        assert clock() > NOON


def test_a_view_that_was_taken_back_is_as_true_as_before() -> None:
    """Its records of the first time are not served again, though rows of theirs were deleted meanwhile."""
    first, second = view_over(features={"a": Latest("x")}), view_over(features={"b": Latest("x")})
    with opened(first) as (store, _):
        store.push("swipes", [row(1), row(2, 2)])
        codec = (
            store._project.pushing._pusher("swipes")
            ._state.applying._views[store._project.applied(["view"])[0].fingerprint]
            .keys
        )
        kept = {key: value for keys in store.online.scan(codec.record_prefix)
                for key, value in zip(keys, store.online.get(keys).values, strict=True)}  # fmt: skip
        store.apply([second, FeatureService("service", features=[second])])
        store.materialize(progress=False)
        store.push("swipes", [{"id": 2, "gone": True}])
        store.online.write(kept)  # what a pusher left that was overtaken by the freeing
        store.apply([first, FeatureService("service", features=[first])])
        store.materialize(progress=False)
        assert served(store, 1, 2)["view__a"] == [1.0, None]


@pytest.mark.parametrize("online", ["lmdb", "redis"])
def test_an_emptied_store_is_refused_then_restored(online: str) -> None:
    """NOT_MATERIALIZED, never MISSING; materialize restores it, and what was pushed within the lateness is recognised."""
    with RedisServer() as server, opened(view_over(), online=server.url if online == "redis" else "") as (store, clock):
        store.push("swipes", [row(1), row(2, x=2.0), row(3, x=3.0, at=hours(-1))])
        clock.advance(timedelta(days=6))
        store.push("swipes", [row(1, x=4.0)])
        before = served(store, 1)
        for keys in list(store.online.scan(b"")):
            store.online.write(dict.fromkeys(keys))
        assert store.push("swipes", [row(2, x=2.0)]) == (0, 1, 0)
        with pytest.raises(NotMaterializedError, match="filled"):
            store.get_online_features({"thing": 1}, "service")
        store.materialize(progress=False)
        assert served(store, 1) == before
        assert store.push("swipes", [row(1), row(1, x=4.0), row(3, x=3.0, at=hours(-1))]) == (0, 3, 0)
        assert store.push("swipes", [row(3, x=30.0, at=hours(-1))]) == (1, 0, 0)
        assert served(store, 1)["view__total"] == [36.0]


def test_teardown_frees_all_and_keeps_the_log() -> None:
    with opened(view_over()) as (store, _):
        store.push("swipes", [row(1)])
        assert store.teardown() > 0
        assert list(store.online.scan(b"")) == []
        assert raised(NotFoundError, lambda: store.push("swipes", [row(2)]))
        view = view_over()
        store.apply([view, FeatureService("service", features=[view])])
        assert store.push("swipes", [row(1), row(2)]) == (1, 1, 0)
        with pytest.raises(NotMaterializedError):
            store.get_online_features({"thing": 1}, "service")
        store.materialize(progress=False)
        assert served(store, 1)["view__count"] == [2]


def test_a_refreshed_view_over_pushed_rows_is_materialized() -> None:
    """With corrections, deletions and moves to another key between two instants."""
    view = view_over(refresh="1h", features={"count": Count(window="3h"), "last": Latest("x")})
    with opened(view) as (store, clock):
        store.push("swipes", [row(1), row(2, x=2.0), row(3, 2, x=3.0)])
        with pytest.raises(NotMaterializedError):
            store.get_online_features({"thing": 1}, "service")
        clock.set(hours(1))
        store.materialize(progress=False)
        assert served(store, 1, 2)["view__count"] == [2, 1]
        store.push("swipes", [row(2, 2, x=5.0), {"id": 3, "gone": True}, row(4, 3)])
        assert served(store, 1, 2, 3)["view__count"] == [2, 1, None]  # of the instant before
        clock.set(hours(2))
        store.materialize(progress=False)
        assert served(store, 1, 2, 3) == {
            "thing": [1, 2, 3], "view__count": [1, 1, 1], "view__last": [1.0, 5.0, 1.0]
        }  # fmt: skip


def test_a_changed_source_is_noticed_by_a_pusher_that_runs() -> None:
    """Its lateness counts from the next push on, without a restart."""
    with opened(view_over()) as (store, _):
        store.push("swipes", [row(1)])
        view = view_over(SWIPES.model_copy(update={"lateness": 3_600_000_000}))
        store.apply([view, FeatureService("service", features=[view])])
        assert store.push("swipes", [row(2, at=hours(-2))]) == (0, 0, 1)


def test_the_log_survives_a_store_of_its_own(tmp_path: Path) -> None:
    """Another process over the same folders goes on where this one stopped."""
    (tmp_path / "featurestore.toml").write_text('project = "again"\nonline = "lmdb://online"\ndefinitions = []\n')
    clock = ManualClock(NOON)
    view = view_over()
    for number in range(3):
        with FeatureStore(tmp_path, clock=clock) as store:
            if not number:
                store.apply([view, FeatureService("service", features=[view])])
            assert store.push("swipes", [row(number), row(0)]) == ((1, 1, 0) if number else (1, 1, 0))
            assert served(store, 1)["view__count"] == [number + 1]
