"""An explanation of folds says which rows made each of them."""

from __future__ import annotations

import json
from collections import Counter as Tally
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings

from featurestore import Count, FeatureView, Latest, PushSource, Sum
from featurestore.errors import NotFoundError
from featurestore.reports.explain.explain import explain
from featurestore.reports.explain.explanation import ExplainedRow, Explanation
from featurestore.semantics.view import ResolvedView
from featurestore.sources.offline import Offline
from featurestore.testing import FeatureTest
from featurestore.types import Bool, Float64, Int64, Timestamp
from tests.draws import draws
from tests.folding import CONDITIONS, FoldSpec, folded_value, reading, visible
from tests.histories import History
from tests.oracle import ViewSpec, as_of, columns_read, current_rows, event_time, sort_key
from tests.small import THING, hours, opened, table, view_of
from tests.test_windows import folded_histories
from tests.test_windows import view_of as declared_view
from tests.world import resolved


@pytest.fixture(scope="module")
def offline() -> Offline:
    return Offline(Path())


def counted_by_the_oracle(
    history: History, read: ViewSpec, spec: FoldSpec, *, key: tuple[Any, ...], instant: int, known_by: int
) -> list[int]:
    """The rows that are visible to a fold."""
    if any(part is None for part in key):
        return []
    source, rows, types = history.source, history.rows, history.types
    current, _ = current_rows(source, read, rows, types, known_by)
    columns = read.key.values()
    mine = [
        i for i in current
        if all(sort_key(types[c], rows[i][c]) == sort_key(types[c], k) for c, k in zip(columns, key, strict=True))
    ]  # fmt: skip
    happened = [i for i in mine if event_time(source, rows[i]) <= instant]
    met = [i for i in happened if spec.where is None or CONDITIONS[spec.where](rows[i])]
    return [i for i in met if visible(event_time(source, rows[i]), read, spec, instant)]


def at_edges(history: History, specs: list[FoldSpec]) -> Iterator[tuple[tuple[Any, ...], int]]:
    """Questions for which a row lies at the far end of a window, and a µs to either side of it."""
    for row in history.rows[:2]:
        happened = event_time(history.source, row)
        for spec in specs[:1]:
            if isinstance(happened, int) and isinstance(spec.window, int):
                key = tuple(row[column] for column in history.view.key.values())
                yield from ((key, happened + spec.window + spec.offset + by) for by in (-1, 0, 1))


def check(
    history: History, read: ViewSpec, specs: list[FoldSpec], view: ResolvedView, told: Explanation, t: int
) -> None:
    instant, known_by = as_of(history.view, t)
    key = tuple(told.key[name] for name in history.view.key)
    columns = columns_read(history.source, read)
    types, zone = history.types, history.source.timezone

    def seen(values: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(sort_key(types[column], values[column], zone) for column in columns)

    results = {feature.name: str(feature.type).replace(", ", ",") for feature in view.features}
    for i, spec in enumerate(specs):
        name = f"fold_{i}"
        if name in {feature.name for feature in view.plain}:
            continue
        rows = counted_by_the_oracle(history, read, spec, key=key, instant=instant, known_by=known_by)
        shown = [seen(row.values) for row in told.rows if name in row.counts_for]
        assert Tally(shown) == Tally(seen(history.rows[n]) for n in rows), (name, spec)
        assert told.counted[name] == len(rows)
        status, _ = folded_value(history, read, spec, results[name], key=key, as_of=instant, known_by=known_by)
        assert told.statuses[name] == status


@settings(max_examples=draws(40), deadline=None, suppress_health_check=list(HealthCheck))
@given(world=folded_histories())
def test_the_rows_counted_for_a_fold_are_those_that_the_oracle_sees(
    offline: Offline, world: tuple[History, list[FoldSpec], bool]
) -> None:
    """Windows, offsets, hops, ttl and conditions, over ties, late rows, corrections, deletions and nulls."""
    history, specs, plain = world
    view = resolved(declared_view(history, specs, plain=plain), offline).parts[0].view
    read = reading(history, specs, plain=plain)
    for key, t in [*history.spine, *at_edges(history, specs)]:
        told = explain(view, offline, dict(zip(history.view.key, key, strict=True)), at=t)
        check(history, read, specs, view, told, t)
        for form in (str(told), told._repr_html_()):
            assert told.summary.split(":")[0] in form
        json.dumps(told.to_dict(), allow_nan=False)


# --- Cases ----------------------------------------------------------------------------------------------------------

ROWS = table(
    thing=pa.array([1, 1, 1, 1]), at=[hours(-30), hours(-3), hours(-1), hours(1)],
    v=pa.array([1.0, 2.0, None, 8.0]), ok=pa.array([True, False, True, True]),
)  # fmt: skip


def counts(told: Explanation) -> dict[Any, tuple[str, ...]]:
    return {row.event_time: row.counts_for for row in told.rows}


def test_a_report_shows_beside_each_row_what_it_counts_for() -> None:
    """The features of a row, how many rows each has, and a status where it is another than the view's."""
    features = {
        "n_1d": Count(window="1d"), "good_1d": Sum("v", window="1d", where="ok"), "ever": Count(window="lifetime"),
        "bad": Latest("v", where="ok IS NULL"),
    }  # fmt: skip
    with opened(view_of(ROWS, features, ttl="1d")) as (store, clock):
        told = store.explain("view", {"thing": 1}, at=clock())
    assert told.values == {"n_1d": 2, "good_1d": None, "ever": 3, "bad": None}
    assert told.counted == {"n_1d": 2, "good_1d": 1, "ever": 3, "bad": 0}
    assert counts(told) == {
        hours(-1): ("ever", "good_1d", "n_1d"), hours(-3): ("ever", "n_1d"), hours(-30): ("ever",), hours(1): (),
    }  # fmt: skip
    text = str(told)
    assert told.summary == "PRESENT: the key is known, and each value is the fold of the rows that count for it"
    assert "  bad = null, EXPIRED, of 0 rows" in text
    assert "  good_1d = null, of 1 row\n" in text
    assert "counts for" in text
    assert "ever, good_1d, n_1d" in told._repr_html_()
    assert told.to_dict()["rows"][0]["counts_for"] == ["ever", "good_1d", "n_1d"]
    assert told.to_dict()["counted"]["n_1d"] == 2


def test_an_expired_row_that_folds_count_says_so() -> None:
    """Its ttl is of the newest row and what is read from it; a window may be longer."""
    features = {"v": Latest("v"), "n": Count(window="3h"), "m": Count(window="2d")}
    with opened(view_of(ROWS, features, ttl="2h")) as (store, clock):
        told = store.explain("view", {"thing": 1}, at=clock())
    beyond = "happened more than 2h before 2024-05-01 12:00:00Z, which is beyond the ttl"
    assert {row.event_time: (row.verdict, row.reason, row.counts_for) for row in told.rows} == {
        hours(-1): ("chosen", "the newest row that counts", ("m", "n")),
        hours(-3): ("expired", beyond + "; folds over longer windows count it", ("m",)),
        hours(-30): ("expired", beyond + "; folds over longer windows count it", ("m",)),
        hours(1): ("not yet known", "known at 2024-05-01 13:00:00Z, after 2024-05-01 12:00:00Z", ()),
    }
    assert "  all 2 folds  " in str(told)
    with opened(view_of(ROWS, {"v": Latest("v")}, ttl="2h")) as (store, clock):
        (first, *_) = [row for row in store.explain("view", {"thing": 1}, at=clock()).rows if row.verdict == "expired"]
    assert first.reason == beyond


def test_one_feature_is_explained_by_the_word_that_names_it() -> None:
    """Its value, status, conflicts and counts alone; the rows are those of the view."""
    features = {"v": Latest("v"), "n": Count(window="3h"), "m": Count(window="2d")}
    with opened(view_of(ROWS, features, ttl="30m")) as (store, clock):
        whole, view = store.explain("view", {"thing": 1}, at=clock()), store.catalog.view("view")
        some = {asked: store.explain(asked, {"thing": 1}, at=clock()) for asked in ("view:m", "view:v")}
        assert store.explain(view["m"], {"thing": 1}, at=clock()) == some["view:m"]
        assert store.explain(view, {"thing": 1}, at=clock()) == whole
        for wrong, says in (
            ("view:w", "no feature 'w'"),
            ("vie:m", "Did you mean 'view'"),
            ("service", "'service' is a feature service"),
        ):
            with pytest.raises(NotFoundError, match=says):
                store.explain(wrong, {"thing": 1})
    told = some["view:m"]
    assert (told.values, told.statuses, told.counted) == ({"m": 3}, {"m": "PRESENT"}, {"m": 3})
    assert [(row.place, row.verdict) for row in told.rows] == [(row.place, row.verdict) for row in whole.rows]
    assert {row.counts_for for row in told.rows} == {("m",), ()}
    assert str(told).startswith("view:m of thing=1\n")
    assert str(whole).startswith("view of thing=1\n")
    assert "counts for" not in str(some["view:v"])


def test_plain_columns_beside_folds_keep_their_own_words() -> None:
    """The newest row holds them; that the key is known is no status of theirs."""
    features = {"v": Latest("v"), "n": Count(window="3h"), "m": Count(window="1h")}
    with opened(view_of(ROWS, features, ttl="30m")) as (store, clock):
        told = store.explain("view", {"thing": 1}, at=clock())
        unknown = store.explain("view", {"thing": 2}, at=clock())
    assert (told.status, told.statuses) == ("EXPIRED", {"v": "EXPIRED", "n": "PRESENT", "m": "PRESENT"})
    assert "  n = 1, PRESENT, of 1 row\n" in str(told)
    assert "older than the ttl" in told.summary
    assert (unknown.status, unknown.counted) == ("MISSING", {"n": 0, "m": 0})


def test_pushed_rows_are_superseded_by_exactly_what_each_replaces() -> None:
    """A correction and a deletion say what they replaced; a row pushed again after its lateness stands beside the first."""
    source = PushSource(
        "swipes",
        schema={"thing": Int64, "swipe": Int64, "at": Timestamp, "v": Float64, "gone": Bool},
        event_time="at", identity="swipe", deleted="gone", lateness="2h",
    )  # fmt: skip
    view = FeatureView("swiped", entity=THING, source=source, features={"total": Sum("v", window="lifetime")})

    def swipe(number: int, at: float, v: float, *, gone: bool = False) -> dict[str, Any]:
        return {"thing": 1, "swipe": number, "at": hours(at), "v": v, "gone": gone}

    with opened(view) as (store, clock):
        store.push("swipes", [swipe(1, -1, 1.0), swipe(2, -1, 10.0), swipe(3, -1, 100.0)])
        store.push("swipes", [swipe(2, -1, 20.0), swipe(3, -1, 100.0, gone=True)])
        clock.set(hours(2))
        store.push("swipes", [swipe(1, 1.5, 2.0)])  # the first version is older than is remembered
        told = store.explain("swiped", {"thing": 1})
        served = store.get_online_features({"thing": 1}, "service").to_dict()["swiped__total"]
    assert told.values == {"total": 23.0}
    assert served == [23.0]

    def of(verdict: str) -> list[float]:
        return sorted(row.values["v"] for row in told.rows if row.verdict == verdict)

    assert (of("superseded"), of("deleted"), of("older"), of("chosen")) == ([10.0, 100.0], [100.0], [1.0, 20.0], [2.0])
    counted: list[ExplainedRow] = [row for row in told.rows if row.counts_for]
    assert sorted(row.values["v"] for row in counted) == [1.0, 2.0, 20.0]
    (replaced,) = (row for row in told.rows if row.values["v"] == 10.0)
    assert "push log 'swipes' segment 1 row 3" in replaced.reason


def test_a_feature_test_explains_folds_too() -> None:
    """As a store does."""
    view = view_of(ROWS, {"n": Count(window="1d")})
    test = FeatureTest(view).rows("view_rows", ROWS)
    assert counts(test.explain_at(hours(0), thing=1))[hours(-3)] == ("n",)
