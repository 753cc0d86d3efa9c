"""Pushed rows that do not meet what their source expects: refused by row, kept aside, or counted and told."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore import (
    Count,
    FeatureStore,
    FeatureView,
    InRange,
    InSet,
    Latest,
    ManualClock,
    Matches,
    NotNull,
    PushSource,
    Sum,
)
from featurestore.declare.expectations import Expectation
from featurestore.errors import DeclarationError, RowRefusedError
from featurestore.push import judged_rows
from featurestore.semantics.values import scalars
from featurestore.sources.push_logs import LATE, QUARANTINE
from featurestore.types import Bool, Float64, Int64, String, Timestamp
from tests.small import NOON, THING, both, hours, opened

HIGH = InRange("x", at_least=0, at_most=100, otherwise="quarantine")


def source_of(*expectations: Expectation, **words: Any) -> PushSource:
    """A source of rows of which something is expected."""
    schema = {"thing": Int64, "id": Int64, "at": Timestamp, "x": Float64, "code": String, "gone": Bool}
    return PushSource(
        "pushed",
        schema=schema,
        event_time="at",
        identity="id",
        deleted="gone",
        expectations=list(expectations),
        **words,
    )


@contextmanager
def store_over(*expectations: Expectation, **words: Any) -> Iterator[tuple[FeatureStore, ManualClock]]:
    """A store with a continuous view over it."""
    features = {"x": Latest("x"), "sum": Sum("x", window="1d"), "rows": Count(window="lifetime")}
    view = FeatureView("view", entity=THING, source=source_of(*expectations, **words), features=features)
    with opened(view) as found:
        yield found


def row(number: int, x: float | None, **more: Any) -> dict[str, Any]:
    """A row of thing 1."""
    return {"thing": 1, "id": number, "at": NOON, "x": x, **more}


def aside(store: FeatureStore, which: str = QUARANTINE) -> list[float | None]:
    """The x of rows that are kept aside."""
    source = store.catalog.sources["pushed"]
    assert isinstance(source, PushSource)
    if not store._project.offline.logs.has("pushed", which):
        return []
    return scalars(store._project.offline.log(source, which).read(None, None)["x"])


def test_a_row_that_is_refused_is_told_with_its_column_and_expectation() -> None:
    """Nothing of its push is kept; each row that is refused has its reason."""
    with store_over(InRange("x", at_least=0), Matches("code", "[A-Z]+")) as (store, _):
        with pytest.raises(RowRefusedError) as refused:
            store.push("pushed", [row(1, 1.0), row(2, -1.0, code="a"), row(3, float("nan")), row(4, 2.0, code="a")])
        assert (
            str(refused.value) == "PushSource 'pushed': row 1, column 'x': -1.0 does not meet InRange('x', at_least=0)"
        )
        assert refused.value.reasons == {
            1: "column 'x': -1.0 does not meet InRange('x', at_least=0)",
            2: "column 'x': nan does not meet InRange('x', at_least=0)",
            3: "column 'code': 'a' does not meet Matches('code', pattern='[A-Z]+')",
        }
        assert store.get_online_features([{"thing": 1}], "service").to_dict()["view__rows"] == [None]
        assert tuple(store.push("pushed", [row(1, 1.0), row(5, None)])) == (2, 0, 0)
        assert both(store, thing=[1])["view__rows"] == [2]


def test_a_quarantined_row_is_kept_aside_and_counts_nowhere() -> None:
    """The other rows of the push count; training says the same, and so does a store that is filled anew."""
    with store_over(HIGH) as (store, _):
        told = store.push("pushed", [row(1, 1.0), row(2, 500.0), row(3, 2.0), row(4, float("nan"))])
        assert (tuple(told), told.quarantined) == ((2, 0, 0), 2)
        assert told.notices == (
            "2 rows do not meet what the source expects, and count nowhere: they are kept aside, in quarantine",
        )
        assert told.to_dict()["quarantined"] == 2
        assert told.telling(quarantined=1).notices == (
            "1 row does not meet what the source expects, and counts nowhere: it is kept aside, in quarantine",
        )
        assert str(aside(store)) == "[500.0, nan]"
        assert both(store, thing=[1])["view__sum"] == [3.0]
        store.materialize(full=True, progress=False)
        assert both(store, thing=[1])["view__rows"] == [2]
        assert store.verify().ok


def test_a_push_of_quarantined_rows_alone_is_kept() -> None:
    """And answered, as one of late rows is."""
    with store_over(HIGH) as (store, _):
        told = store.push("pushed", [row(1, 500.0)])
        assert (tuple(told), told.quarantined, aside(store)) == ((0, 0, 0), 1, [500.0])


def test_a_bad_version_does_not_replace_the_good_one_that_was_pushed() -> None:
    """A corrected one does; a deletion is taken whatever else it holds."""
    with store_over(HIGH, NotNull("code", otherwise="refuse")) as (store, _):
        store.push("pushed", [row(1, 1.0, code="a"), row(2, 2.0, code="a")])
        assert store.push("pushed", [row(1, 500.0, code="a")]).quarantined == 1
        assert both(store, thing=[1])["view__sum"] == [3.0]
        store.push("pushed", [row(1, 5.0, code="a")])
        assert both(store, thing=[1])["view__sum"] == [7.0]
        assert tuple(store.push("pushed", [{"id": 2, "gone": True}])) == (1, 0, 0)
        assert both(store, thing=[1])["view__sum"] == [5.0]


def test_a_row_that_was_there_before_is_unchanged_and_one_that_came_too_late_is_late() -> None:
    """What was taken when less was expected stays; what is late is kept aside as that."""
    with store_over() as (store, _):
        store.push("pushed", [row(1, 500.0)])
        view = store.catalog.views["view"]
        store.apply([view.model_copy(update={"source": source_of(HIGH)})])
        told = store.push("pushed", [row(1, 500.0), row(2, 500.0), row(3, 500.0, at=hours(-24 * 8))])
        assert (tuple(told), told.quarantined) == ((0, 1, 1), 1)
        assert (len(aside(store)), len(aside(store, LATE))) == (1, 1)
        assert both(store, thing=[1])["view__sum"] == [500.0]


def test_rows_that_only_warn_count_and_are_told(caplog: pytest.LogCaptureFixture) -> None:
    """Each push is told how many; the log of the process once."""
    said = InSet("code", ["a"], otherwise="warn")
    judged_rows._told.clear()
    with store_over(said) as (store, _), caplog.at_level(logging.WARNING, "featurestore"):
        told = [
            store.push("pushed", [row(number, 1.0, code="b"), row(number + 10, 1.0, code="a")]) for number in (1, 2)
        ]
        assert [tuple(one) for one in told] == [(2, 0, 0)] * 2
        assert told[0].notices == (f"1 row does not meet {said.title}, and count all the same",)
        assert both(store, thing=[1])["view__rows"] == [4]
    assert [record.message for record in caplog.records] == [
        f"PushSource 'pushed': pushed rows do not meet {said.title}; this is logged once"
    ]


def test_what_is_expected_of_pushed_rows_is_no_part_of_a_views_identity() -> None:
    """Its values are those of the log, in which a row is or is not; nothing is filled anew."""
    with store_over() as (store, _):
        store.push("pushed", [row(1, 1.0)])
        before = store.registry.current().document["views"]["view"]["fingerprint"]
        view = store.catalog.views["view"]
        plan = store.plan([view.model_copy(update={"source": source_of(HIGH)})])
        assert "refill" not in str(plan)
        store.apply([view.model_copy(update={"source": source_of(HIGH)})])
        assert store.registry.current().document["views"]["view"]["fingerprint"] == before
        assert store.push("pushed", [row(2, 500.0)]).quarantined == 1


def test_a_source_that_expects_what_its_columns_cannot_is_refused_when_it_is_applied() -> None:
    """Not when the first row comes."""
    with pytest.raises(DeclarationError, match="no regular expression of RE2"), store_over(Matches("code", "(")):
        pass


X = st.sampled_from([None, 0.0, -0.0, 1.0, 100.0, 100.5, -1.0, float("nan")])
PUSHES = st.lists(
    st.lists(st.tuples(st.integers(1, 4), X, st.sampled_from([None, False, True])), min_size=1, max_size=4),
    min_size=1,
    max_size=5,
)


@settings(max_examples=10, deadline=None)
@given(pushes=PUSHES)
def test_a_log_that_was_pushed_bad_rows_is_one_that_was_not(
    pushes: list[list[tuple[int, float | None, bool | None]]],
) -> None:
    """Along random pushes, corrections and deletions; the rows that are missing are those that are kept aside."""
    with store_over(HIGH) as (store, _), store_over() as (clean, _):
        for each in (store, clean):
            each.materialize(progress=False)
        bad: list[float | None] = []
        for push in pushes:
            given_rows = [{"thing": 1, "id": number, "at": NOON, "x": x, "gone": gone} for number, x, gone in push]
            good = [one for one in given_rows if one["gone"] or one["x"] is None or 0 <= float(str(one["x"])) <= 100]
            bad += [x for (_, x, _), one in zip(push, given_rows, strict=True) if one not in good]
            store.push("pushed", given_rows)
            clean.push("pushed", good)
            one, two = (of.get_online_features([{"thing": 1}], "service").to_dict() for of in (store, clean))
            assert str(one) == str(two)
        assert sorted(map(str, aside(store))) == sorted(map(str, bad))
        assert str(both(store, thing=[1])) == str(both(clean, thing=[1]))
