"""Sentences of what a value means, each held on both paths."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import (
    ApproxCountDistinct,
    ApproxQuantile,
    CountDistinct,
    FeatureView,
    LastDistinctN,
    LastN,
    Latest,
    ParquetSource,
    PushSource,
)
from featurestore.semantics.windows import default_hop
from featurestore.types import Float64, Int64, Timestamp
from tests.small import NOON, THING, both, hours, opened, table, trained, view_of, write
from tests.test_push import opened as pushing
from tests.test_push import view_over

SECOND = timedelta(seconds=1)
EVENTS = PushSource("events", schema={"thing": Int64, "at": Timestamp, "x": Float64, "n": Int64}, event_time="at")


@pytest.mark.parametrize("large", [False, True])
def test_a_default_hop_is_never_longer_than_its_window(large: bool) -> None:
    edges = [1, 2, 999_999, 30_000_000, 59_999_999, 60_000_000, 60_000_001, 3_600_000_000, 86_400_000_000 * 40]
    for length in edges:
        assert 0 < default_hop(length, few=large) <= length


@pytest.mark.parametrize(
    "fold",
    [
        CountDistinct("x", window="10s"),
        ApproxCountDistinct("x", window="10s"),
        ApproxQuantile("x", q=1.0, window="10s"),
    ],
)
def test_sets_and_sketches_over_a_few_seconds_see_at_most_one_window_more(fold) -> None:
    """Rows of a whole minute ago are no part of ten seconds, in training as in serving."""
    rows = [{"thing": 1, "at": NOON + SECOND * second, "x": float(second), "n": 0} for second in (1, 12, 25, 38)]
    with pushing(view_over(EVENTS, features={"seen": fold})) as (store, clock):
        clock.advance(SECOND * 40)
        store.push("events", rows)
        found = both(store, thing=[1])
        assert found["view__seen__status"] == ["PRESENT"]
        value = found["view__seen"][0]
        assert value == 1 if fold.kind != "ApproxQuantile" else abs(value - 38) < 1


@pytest.mark.parametrize("pushed", [False, True])
def test_nulls_within_the_ttl_make_the_last_distinct_values_empty_and_present(pushed: bool) -> None:
    """A row whose column is null lies within the ttl: it is EXPIRED only once no row does; where it is not let through, at once."""
    features = {
        "distinct": LastDistinctN("x", n=2),
        "some": LastDistinctN("x", n=2, where="n > 0"),
        "last": LastN("x", n=2),
        "newest": Latest("x", where="n > 0"),
    }
    rows = [
        {"thing": 1, "at": hours(-2.5), "x": 7.0, "n": 1},
        {"thing": 1, "at": hours(-0.5), "x": None, "n": 0},
    ]
    if pushed:
        with pushing(view_over(EVENTS, features=features, ttl="1h")) as (store, clock):
            clock.set(hours(-2.5))
            store.push("events", rows[:1])
            clock.set(hours(-0.5))
            store.push("events", rows[1:])
            check(store, clock)
    else:
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        with opened(view_of(table(**columns), features, ttl="1h")) as (store, clock):
            check(store, clock)


def check(store, clock) -> None:
    clock.set(NOON)
    found = both(store, thing=[1])
    assert (found["view__distinct"], found["view__distinct__status"]) == ([[]], ["PRESENT"])
    assert (found["view__last"], found["view__last__status"]) == ([[None]], ["PRESENT"])
    for feature in ("some", "newest"):  # whose condition lets through only a row that is too old
        assert (found[f"view__{feature}"], found[f"view__{feature}__status"]) == ([None], ["EXPIRED"])
    clock.set(hours(1))
    found = both(store, thing=[1])
    assert {found[f"view__{name}__status"][0] for name in ("distinct", "some", "last", "newest")} == {"EXPIRED"}


@pytest.mark.parametrize("zone", [None, "UTC"])
def test_nanoseconds_are_floored_before_ties_conditions_and_derived_columns_see_them(tmp_path: Path, zone) -> None:
    """Two rows of one µs tie, whichever has more ns: the columns' bytes decide, here the value's."""
    start = int(NOON.timestamp()) * 1_000_000_000
    at = pa.array(np.array([start + 900, start + 100]), pa.timestamp("ns", zone))
    rows = pa.table({"thing": [1, 1], "at": at, "x": [1.0, 2.0]})
    path = tmp_path / "rows.parquet"
    pq.write_table(rows, path)
    features = {
        "x": Latest("x"),
        "all": LastN("x", n=3),
        "part": Latest("ns"),
        "exact": LastN("x", n=3, where=f'epoch_ns("at") = {start}'),
    }
    source = ParquetSource("rows", str(path), event_time="at", derived={"ns": 'epoch_ns("at") % 1000'})
    view = FeatureView("view", entity=THING, source=source, features=features, refresh="continuous")
    with opened(view, at=hours(1)) as (store, _):
        found = both(store, thing=[1])
    assert (found["view__x"], found["view__part"]) == ([2.0], [0])
    assert found["view__all"] == [[2.0, 1.0]] == found["view__exact"]


def test_identities_tie_in_the_same_microsecond_too(tmp_path: Path) -> None:
    """Of two versions learned in one µs the one with the greater bytes was learned last, not the one with more ns."""
    start = int(NOON.timestamp()) * 1_000_000_000
    learned = pa.array(np.array([start + 900, start + 100]), pa.timestamp("ns", "UTC"))
    rows = pa.table({"thing": [1, 1], "id": [5, 5], "at": [NOON, NOON], "learned": learned, "x": [1.0, 2.0]})
    view = view_of(str(write(tmp_path / "rows.parquet", rows)), ["x"], known_at="learned", identity="id")
    with opened(view, at=hours(1)) as (store, _):
        assert both(store, thing=[1])["view__x"] == [2.0]


def test_history_until_moves_when_a_row_counts_and_not_the_order_of_versions() -> None:
    """The bulk load learned the second version last: it counts from its event_time on, and still replaces the first."""
    rows = table(
        thing=[1, 1],
        id=[5, 5],
        at=[hours(-4), hours(-5)],  # the later version happened earlier
        learned=[hours(-2), hours(-1)],
        x=[1.0, 2.0],
    )
    words: dict[str, Any] = {"known_at": "learned", "identity": "id", "history_until": hours(-3)}
    with opened(view_of(rows, ["x"], **words)) as (store, _):
        asked = [hours(-5), hours(-4), hours(-2), NOON]
        frame = trained(store, asked, thing=[1] * 4)
        assert frame["view__x"].to_pylist() == [2.0, 2.0, 2.0, 2.0]
        assert both(store, thing=[1])["view__x"] == [2.0]
