"""A run key: several processes write for the run that holds the lease, and for no other."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import closing

import pytest

from featurestore.errors import OnlineUnavailableError
from featurestore.materialize.lease import HELD, Lease, LeaseLostError, RunKey
from featurestore.online import Guard, OnlineStore
from tests.online.conftest import opened

LEASE, RUN = b"v:l", b"v:g"


@pytest.fixture
def store(url: str) -> Iterator[OnlineStore]:
    with closing(opened(url)) as held:
        yield held


def taken(store: OnlineStore) -> Lease:
    return Lease(store, LEASE, "view 'v'", run_key=RUN)


def sent(key: RunKey) -> RunKey:
    """A key as another process gets it."""
    again: RunKey = pickle.loads(pickle.dumps(key))
    return again


def test_whoever_has_the_key_writes_as_often_as_they_like(store: OnlineStore) -> None:
    """In any order, while the driver renews its lease; and once the run is over, nothing."""
    lease = taken(store)
    writers = [sent(lease.let_others()).writer(store)]
    writers.append(writers[0])
    for turn in range(2):
        for number, writer in enumerate(writers):
            writer.write({b"v:r%d" % number: b"bytes"})
        lease.renew()
        assert store.get([b"v:r0", b"v:r1"]).values == [b"bytes"] * 2, turn
    lease.release({b"v:w": b"mark"})
    with pytest.raises(LeaseLostError, match="view 'v': its run is over, or another one has taken over"):
        writers[0].write({b"v:r0": b"late"})
    assert store.get([b"v:r0", b"v:w", LEASE, RUN]).values == [b"bytes", b"mark", None, None]


def test_a_new_key_makes_those_before_void(store: OnlineStore) -> None:
    """So what belongs to an earlier instant of the run, and comes late, is not written over a later one's."""
    lease = taken(store)
    first, second = lease.let_others().writer(store), lease.let_others().writer(store)
    second.write({b"v:r": b"second"})
    with pytest.raises(LeaseLostError):
        first.write({b"v:r": b"first"})
    assert store.get([b"v:r"]).values == [b"second"]
    lease.give_up()
    with pytest.raises(LeaseLostError):
        second.write({b"v:r": b"late"})
    assert store.get([b"v:r", LEASE, RUN]).values == [b"second", None, None]


@pytest.mark.parametrize("next_has_others", [False, True])
def test_whoever_takes_the_lease_takes_the_key_away(store: OnlineStore, next_has_others: bool) -> None:
    """The driver was killed, and what it had started goes on writing until the next run begins, and not longer."""
    dead = taken(store)
    orphan = dead.let_others().writer(store)
    HELD.discard(dead._token)  # a run that is over
    orphan.write({b"v:r": b"orphan"})
    alive = taken(store)
    with pytest.raises(LeaseLostError):
        orphan.write({b"v:r": b"late"})
    if next_has_others:
        alive.let_others().writer(store).write({b"v:r": b"alive"})
    with pytest.raises(LeaseLostError):
        dead.let_others()
    assert store.get([b"v:r"]).values == [b"alive" if next_has_others else b"orphan"]
    alive.release({})
    assert store.get([LEASE, RUN]).values == [None, None]


def test_a_batch_of_which_no_answer_came_is_sent_again(store: OnlineStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have been applied, and is the same bytes then."""
    lease = taken(store)
    writer, write, lost = lease.let_others().writer(store), store.write, [True]

    def silent(puts: dict[bytes, bytes | None], *, guard: Guard | None = None) -> bool:
        written = write(puts, guard=guard)
        if lost:
            lost.pop()
            raise OnlineUnavailableError("fell silent")
        return written

    monkeypatch.setattr(store, "write", silent)
    writer.write({b"v:r": b"bytes"})
    assert (store.get([b"v:r"]).values, lost) == ([b"bytes"], [])
    lease.release({})
