"""A snapshot is the training frame of every key at one instant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore import Entity, FeatureService, RequestTime, on_demand
from featurestore.declare.on_demand import Request
from featurestore.errors import SpineError
from featurestore.semantics.values import canonical, scalars
from featurestore.sources.offline import Offline
from featurestore.training.kernel import Options
from featurestore.training.snapshot import keys_in, next_keys, snapshot
from featurestore.types import Int64, String
from tests import oracle
from tests.draws import draws
from tests.histories import History, histories
from tests.small import NOON, hours, opened, raised, spine, table, trained, view_of
from tests.world import bits, declare, resolved


@pytest.fixture(scope="module")
def offline() -> Offline:
    return Offline(Path())


def keys_of(history: History) -> dict[Any, tuple[Any, ...]]:
    """Every key without a null that any row bears, whatever became of the row; by its bits."""
    columns = list(history.view.key.values())
    keys = [tuple(row[column] for column in columns) for row in history.rows]
    return {
        tuple(oracle.sort_key(history.types[column], part) for column, part in zip(columns, key, strict=True)): key
        for key in keys
        if None not in key
    }


@settings(max_examples=draws(120), deadline=None, suppress_health_check=list(HealthCheck))
@given(history=histories(), data=st.data())
def test_a_snapshot_is_training_at_its_instant_for_every_key(offline: Offline, history: History, data: Any) -> None:
    """Each key that any row ever bore, once, with the oracle's value and status at that instant; no other key."""
    at = data.draw(st.sampled_from(history.instants))
    frame = snapshot(
        resolved(declare(history), offline), offline, at=[at], now=at, options=Options(with_status=True)
    ).to_arrow()
    names, columns = list(history.view.key), list(history.view.key.values())
    left = keys_of(history)
    as_of, known_by = oracle.as_of(history.view, at)
    for row in frame.to_pylist():
        key = left.pop(tuple(
            oracle.sort_key(history.types[column], row[name]) for name, column in zip(names, columns, strict=True)
        ))  # fmt: skip
        answer = oracle.value_at(history.source, history.view, history.rows, history.types, key, as_of, known_by)
        for name in history.view.features:
            assert row[f"view__{name}__status"] == answer.status, (key, name)
            assert bits(history, name, row[f"view__{name}"]) == bits(history, name, answer.values[name]), (key, name)
    assert not left


@settings(max_examples=draws(60), deadline=None, suppress_health_check=list(HealthCheck))
@given(history=histories(), most=st.integers(1, 4))
def test_pages_of_keys_are_those_of_a_snapshot(offline: Offline, history: History, most: int) -> None:
    """One after the other, each from the key on with which the one before it ended, whatever the types of the key are."""
    service = resolved(declare(history), offline)
    frame = snapshot(service, offline, at=[0], now=0, options=Options()).to_arrow()
    columns = [scalars(canonical(frame[name], of)) for name, of in service.key_inputs.items()]
    pages, after = [], None
    while page := keys_in(service, next_keys(service, offline, after=after, most=most)):
        assert len(page) <= most
        pages += page
        after = page[-1]
    assert pages == (list(zip(*columns, strict=True)) if columns else [()] * frame.num_rows)


def test_vanished_and_expired_keys_are_in_a_snapshot() -> None:
    """Deleted, corrected to another key, not yet known, too old, ended: each has a row, whose status says what it is."""
    rows = table(
        id=[1, 2, 2, 3, 3, 4, 5, 6, 7],
        thing=pa.array([1, 2, 2, 3, 8, 4, 5, 6, None], pa.int64()),
        at=[hours(-1)] * 5 + [hours(-9), hours(3), hours(-1), hours(-1)],
        known=[hours(-1), hours(-1), hours(0), hours(-1), hours(0), hours(-9), hours(3), hours(-1), hours(-1)],
        gone=[False, False, True, False, False, False, False, False, False],
        end=[None] * 7 + [hours(0), None],
        x=list(range(9)),
    )
    words: dict[str, Any] = {"known_at": "known", "identity": ["id"], "deleted": "gone", "until": "end", "ttl": "4h"}
    with opened(view_of(rows, ["x"], **words)) as (store, _):
        frame = store.snapshot("service", at=NOON, with_status=True).to_arrow()
        before = store.snapshot("service", at=hours(-0.5), with_status=True).to_arrow()
        never = store.snapshot("service", at=hours(-99), with_status=True).to_arrow()
    status = dict(zip(frame["thing"].to_pylist(), frame["view__x__status"].to_pylist(), strict=True))
    assert status == {
        1: "PRESENT", 2: "MISSING", 3: "MISSING", 4: "EXPIRED", 5: "MISSING", 6: "EXPIRED", 8: "PRESENT",
    }  # fmt: skip
    assert dict(zip(before["thing"].to_pylist(), before["view__x"].to_pylist(), strict=True)) == {
        1: 0, 2: 1, 3: 3, 4: None, 5: None, 6: 7, 8: None,
    }  # fmt: skip
    assert set(never["view__x__status"].to_pylist()) == {"MISSING"}


def test_a_snapshot_is_in_the_order_of_its_keys_and_bears_its_instant() -> None:
    """Keys first, in the entity's order, then the instant; a frame like any other, with a manifest."""
    pair = Entity("pair", key={"right": String, "left": Int64})
    rows = table(left=[2, 1, 1, 2], right=["b", "b", "a", "a"], at=[NOON] * 4, x=[1, 2, 3, 4])
    with opened(view_of(rows, ["x"], entity=pair, refresh="1h", ready_after="10m")) as (store, _):
        frame = store.snapshot("service", at=hours(0.1))
        got = frame.to_arrow()
        assert got.column_names == ["right", "left", "event_timestamp", "view__x"]
        assert got.select(["right", "left"]).to_pylist() == [
            {"right": right, "left": left} for right in "ab" for left in (1, 2)
        ]
        assert got["event_timestamp"].to_pylist() == [hours(0.1)] * 4
        assert got["view__x"].null_count == 4  # what happened at noon is served from ten past on
        assert store.snapshot("service", at=hours(0.2)).to_arrow()["view__x"].to_pylist() == [3, 4, 2, 1]
        assert frame.manifest["rows"] == 4
        assert frame.manifest["fingerprint"] == store.lookup("service").service.fingerprint


def test_a_snapshot_of_several_instants_is_one_of_each_after_the_other() -> None:
    """Also of an instant that is asked for twice, and of none."""
    rows = table(thing=[2, 1, 1], at=[NOON, hours(1), hours(2)], x=[1, 2, 3])
    with opened(view_of(rows, ["x"], refresh="1h")) as (store, _):
        instants = [hours(2), hours(0.5), hours(2)]
        frame = store.snapshot("service", at=instants, with_status=True)
        each = [store.snapshot("service", at=one, with_status=True).to_arrow() for one in instants]
        assert frame.to_arrow().equals(pa.concat_tables(each).combine_chunks())
        assert frame.manifest["rows"] == 6
        assert store.snapshot("service", at=[]).to_arrow().num_rows == 0


def test_an_entity_without_keys_has_one_row() -> None:
    """And its value is training's."""
    rows = table(at=[hours(-1), hours(1)], x=[1, 2])
    world = Entity("world", key={})
    with opened(view_of(rows, ["x"], entity=world)) as (store, _):
        for at, value in ((hours(-2), None), (NOON, 1), (hours(1), 2)):
            frame = store.snapshot("service", at=at, with_status=True).to_arrow()
            assert frame.to_pylist() == [
                {"event_timestamp": at, "view__x": value, "view__x__status": "MISSING" if value is None else "PRESENT"}
            ]
            asked = table(event_timestamp=[at])
            assert store.get_historical_features(asked, "service", with_status=True).to_arrow().equals(frame)


def test_a_source_without_rows_has_a_snapshot_without_rows() -> None:
    """With all its columns."""
    with opened(view_of(table(thing=[1], at=[NOON], x=[1]).slice(1), ["x"])) as (store, _):
        got = store.snapshot("service", at=NOON).to_arrow()
    assert got.column_names == ["thing", "event_timestamp", "view__x"]
    assert got.num_rows == 0


def test_views_of_one_key_share_a_snapshot() -> None:
    """A key that one of them has is a row; the other says MISSING. On-demand features are evaluated."""
    first = view_of(table(thing=[1, 2], at=[NOON] * 2, x=[10, 20]), ["x"], name="first")
    second = view_of(table(thing=[2, 3], at=[NOON] * 2, y=[5, 6]), ["y"], name="second", refresh="1h")

    @on_demand(inputs=[first["x"], second["y"], RequestTime()], output=Int64)
    def total(x: int | None, y: int | None, now: Any) -> int:
        return (x or 0) + (y or 0) + now.hour

    service = FeatureService("service", features=[first, second.alias("other"), total])
    with opened(service) as (store, _):
        got = store.snapshot("service", at=hours(1), with_status=True).to_arrow()
        assert got["thing"].to_pylist() == [1, 2, 3]
        assert got["total"].to_pylist() == [23, 38, 19]
        assert got["other__y__status"].to_pylist() == ["MISSING", "PRESENT", "PRESENT"]
        assert got.equals(trained(store, hours(1), thing=[1, 2, 3]))


def test_a_service_that_no_snapshot_can_answer_is_refused() -> None:
    """Views of different keys, one view in two roles, request values: the message says which."""
    here = view_of(table(thing=[1], at=[NOON], x=[10]), ["x"], name="here")
    there = view_of(
        table(place=[1], at=[NOON], y=[10]), ["y"], name="there", entity=Entity("place", key={"place": Int64})
    )

    @on_demand(inputs=[here["x"], Request("factor", Int64)], output=Int64)
    def times(x: int | None, factor: int) -> int:
        return (x or 0) * factor

    services = [
        FeatureService("mixed", features=[here, there]),
        FeatureService("roles", features=[here.alias("a", key={"thing": "a"}), here.alias("b", key={"thing": "b"})]),
        FeatureService("asks", features=[here, times]),
    ]
    with opened(*services) as (store, _):
        for name, words in {
            "mixed": "'here' by thing among thing, place",
            "roles": "by a among a, b",
            "asks": "(factor)",
        }.items():
            text = raised(SpineError, lambda name=name: store.snapshot(name, at=NOON))
            assert f"'{name}'" in text
            assert words in text


def test_a_snapshot_asks_for_nothing_but_its_instant() -> None:
    """The clock does not matter to its values, only to what the manifest counts as past the last complete instant."""
    rows = table(thing=[1], at=[hours(5)], x=[10])
    with opened(view_of(rows, ["x"], refresh="1h")) as (store, clock):
        early = store.snapshot("service", at=hours(6))
        clock.set(hours(48))
        late = store.snapshot("service", at=hours(6))
    assert early.to_arrow()["view__x"].to_pylist() == late.to_arrow()["view__x"].to_pylist() == [10]
    assert early.manifest["spine_rows_past_the_last_complete_instant"] == {"view": 1}
    assert late.manifest["spine_rows_past_the_last_complete_instant"] == {"view": 0}
    assert spine(hours(6), thing=[1]).equals(
        late.to_arrow().select(["thing", "event_timestamp"]).replace_schema_metadata()
    )
