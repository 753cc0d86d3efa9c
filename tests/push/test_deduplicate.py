"""Rule 7 on rows alone: what is new and what it replaces, what was pushed before, what came too late or too early."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore import PushSource
from featurestore.errors import PushError
from featurestore.push.deduplicate import (
    NO_TIME,
    Deduplicated,
    Identity,
    KnownIdentities,
    PendingKnownAt,
    deduplicate,
    next_version,
)
from featurestore.push.pushed import Pushed
from featurestore.types import Int64, Timestamp
from tests.histories import EPOCH, MICROSECOND
from tests.small import TIME

NOW = 100
SOURCE = PushSource(
    "rows", schema={"id": Int64, "at": Timestamp}, event_time="at", identity="id", lateness="10us", tolerance="5us"
)
A, B = b"a", b"b"
ONE, TWO, THREE = (bytes([n]) * 16 for n in (1, 2, 3))


def sorted_out(
    *requests: Sequence[int | None],
    keys: Sequence[bytes] = (),
    digests: Sequence[bytes] = (),
    held: Mapping[bytes, Identity] | None = None,
    refused: Mapping[int, PushError] | None = None,
    overwriting: Collection[int] = (),
) -> Deduplicated:
    """The rows of requests, by the times at which they happened."""
    times: list[list[datetime | None]] = [
        [None if at is None else EPOCH + at * MICROSECOND for at in request] for request in requests
    ]
    tables = [pa.table({"at": pa.array(each, TIME)}) for each in times]
    known = KnownIdentities({key: (held or {}).get(key) for key in keys}, list(keys), list(digests))
    return deduplicate(SOURCE, tables, known, now=NOW, refused=refused or {}, overwriting=overwriting)


def test_rows_without_identities_are_new_each_time() -> None:
    found = sorted_out([95, 95], [96])
    assert (found.fresh, found.replaces, found.late) == ([0, 1, 2], [None] * 3, [])
    assert found.outcomes == [Pushed(2, 0, 0), Pushed(1, 0, 0)]


def test_a_row_is_late_once_it_is_older_than_the_lateness() -> None:
    found = sorted_out([90, 89, 91])
    assert (found.fresh, found.late, found.outcomes) == ([0, 2], [1], [Pushed(2, 0, 1)])


@pytest.mark.parametrize(("at", "refused"), [(105, False), (106, True), (None, False)])
def test_a_row_may_be_ahead_by_the_tolerance(at: int | None, refused: bool) -> None:
    (outcome,) = sorted_out([95, at]).outcomes
    assert isinstance(outcome, PushError) is refused
    assert not refused or "row 1, column 'at'" in str(outcome)
    assert not refused or "at most 5us ahead" in str(outcome)


def test_of_a_refused_request_nothing_is_kept_and_the_others_are() -> None:
    """Each keeps the numbers of its rows among all."""
    error = PushError("no")
    found = sorted_out([95, 95], [200], [96, 80], refused={0: error})
    assert (found.fresh, found.late) == ([3], [4])
    assert found.outcomes[0] is error
    assert isinstance(found.outcomes[1], PushError)
    assert found.outcomes[2] == Pushed(1, 0, 1)


def test_the_lateness_is_told_where_rows_came_too_late() -> None:
    """And only there."""
    outcomes = [outcome for outcome in sorted_out([95], [96, 80]).outcomes if isinstance(outcome, Pushed)]
    assert [outcome.lateness for outcome in outcomes] == [0, 10]


def test_a_version_replaces_the_last_one_and_is_kept_once() -> None:
    """Within one turn too, and across its requests; a retry of any version changes nothing."""
    held = {A: Identity(50, 95, (ONE,))}
    found = sorted_out([95, 96], [97, 98, 99], keys=[A, A, A, B, B], digests=[ONE, TWO, ONE, TWO, TWO], held=held)
    assert found.fresh == [1, 3]
    assert found.replaces == [50, None]
    assert found.outcomes == [Pushed(1, 1, 0), Pushed(1, 2, 0)]
    third = sorted_out([96, 97], keys=[A, A], digests=[TWO, THREE], held=held)
    assert third.replaces == [50, PendingKnownAt(0)]
    assert third.replaced(70) == [50, 70]
    assert third.renewed(70) == {A: Identity(71, 97, (ONE, TWO, THREE)).pack()}
    assert found.renewed(70) == {A: Identity(70, 96, (ONE, TWO)).pack(), B: Identity(71, 98, (TWO,)).pack()}


def test_an_overwriting_request_is_judged_by_the_last_version_and_as_a_whole() -> None:
    """What a row was before the last version it becomes again; where one comes too late, nothing of the request is kept, and of
    the others that is kept which can be."""
    held = {A: Identity(50, 95, (ONE, TWO)), B: Identity(60, 89, (ONE,))}
    found = sorted_out(
        [95, 95, 95], [95, 95], keys=[A] * 5, digests=[TWO, ONE, ONE, TWO, ONE], held=held, overwriting={0}
    )
    assert found.outcomes == [Pushed(1, 2, 0), Pushed(0, 2, 0)]
    assert found.renewed(70) == {A: Identity(70, 95, (TWO, ONE)).pack()}
    for times in ([95, 89], [95, None]):
        late = sorted_out(times, [95], keys=[A, B, A], digests=[THREE] * 3, held=held, overwriting={0})
        assert "row 1 came too late" in str(late.outcomes[0])
        assert (late.outcomes[1:], late.fresh, late.late) == ([Pushed(1, 0, 0)], [2], [])


@settings(max_examples=100, deadline=None)
@given(
    batches=st.lists(
        st.lists(st.tuples(st.sampled_from([A, B]), st.integers(0, 7), st.one_of(st.none(), st.integers(85, 105))), min_size=1),
        min_size=1, max_size=4,
    )
)  # fmt: skip
def test_no_version_is_replaced_twice(batches: list[list[tuple[bytes, int, int | None]]]) -> None:
    """Whatever is pushed, in one batch and one after the other: what a row replaces was of its identity, came before it, and
    is what no other row replaces. So a version has one instant from which it no longer counts."""
    held: dict[bytes, Identity] = {}
    first, replaced, of = 1_000, [], {}
    for batch in batches:
        keys, digests = [key for key, _, _ in batch], [bytes([n]) * 16 for _, n, _ in batch]
        found = sorted_out([at for _, _, at in batch], keys=keys, digests=digests, held=held)
        for known_at, (row, before) in enumerate(zip(found.fresh, found.replaced(first), strict=True), first):
            of[known_at] = keys[row]
            if before is not None:
                assert before < known_at
                assert of[before] == keys[row]
                replaced.append(before)
        held |= {key: Identity.unpack(data) for key, data in found.renewed(first).items() if data is not None}
        first += len(found.fresh)
    assert len(replaced) == len({*replaced})


def test_what_did_not_change_is_not_written() -> None:
    held = {A: Identity(50, 95, (ONE,))}
    found = sorted_out([95], keys=[A], digests=[ONE], held=held)
    assert (found.fresh, found.renewed(70), found.replaced(70)) == ([], {}, [])
    assert held[A] == Identity(50, 95, (ONE,))


@pytest.mark.parametrize(
    ("happened", "at", "fate"),
    [
        (90, None, "replaces"),
        (89, None, "late"),  # a deletion belongs to the time of the row that it deletes
        (NO_TIME, None, "replaces"),
        (89, 95, "new"),  # what was known of the old one is forgotten
        (90, 95, "replaces"),
        (NO_TIME, 95, "replaces"),
        (90, 89, "late"),
    ],
)
def test_an_identity_is_remembered_as_long_as_a_row_may_be_late(happened: int, at: int | None, fate: str) -> None:
    found = sorted_out([at], keys=[A], digests=[TWO], held={A: Identity(50, happened, (ONE,))})
    assert found.late == ([0] if fate == "late" else [])
    assert found.replaces == {"replaces": [50], "new": [None], "late": []}[fate]


def test_a_deletion_without_a_time_is_of_the_time_before() -> None:
    assert next_version(Identity(1, 7, (ONE,)), 2, None, TWO) == Identity(2, 7, (ONE, TWO))
    assert next_version(Identity(1, 7, (ONE,)), 2, 8, TWO) == Identity(2, 8, (ONE, TWO))
    assert next_version(Identity(1, 7, (ONE, TWO)), 2, 8, ONE) == Identity(2, 8, (TWO, ONE)), (
        "what it is again, it is last"
    )
    assert next_version(None, 2, None, TWO) == Identity(2, NO_TIME, (TWO,))
    assert next_version(None, 2, 9, TWO) == Identity(2, 9, (TWO,))


def test_an_identity_is_read_back() -> None:
    """As it was written: two numbers, then a digest of each version. One without a time is as old as when it was learned of."""
    one = Identity(5, -7, (ONE, TWO))
    assert one.pack() == (5).to_bytes(8, "little") + (-7).to_bytes(8, "little", signed=True) + ONE + TWO
    assert Identity.unpack(one.pack()) == one
    assert Identity.unpack(Identity(5, NO_TIME, ()).pack()) == Identity(5, -(1 << 63), ())
    assert (one.time, Identity(5, NO_TIME, ()).time, Identity(5, 0, ()).time) == (-7, 5, 0)
