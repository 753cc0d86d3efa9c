"""A forked child begins with free locks, without its parent's descriptors, and with renewed owners of threads."""

from __future__ import annotations

import fcntl
import gc
import os
from pathlib import Path

import pytest

from featurestore.durable.forks import closed_in_child, event, mutex, renewed_in_child
from featurestore.durable.lock import close, taken
from featurestore.durable.temporary import OWNER, TemporaryFolder

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def in_child(*checks: object) -> bool:
    """Whether each of these functions is true in a child."""
    child = os.fork()
    if not child:
        code = 1
        try:
            code = 0 if all(check() for check in checks) else 1  # type: ignore[operator]  # checks are functions
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


class Owner:
    renewed = 0

    def renew(self) -> None:
        self.renewed += 1


def test_locks_are_free_and_events_as_they_were() -> None:
    lock, unset, was_set = mutex(), event(), event()
    was_set.set()
    with lock:
        assert not lock.acquire(blocking=False)
        assert in_child(lambda: lock.acquire(blocking=False), was_set.is_set, lambda: not unset.is_set())
        assert not lock.acquire(blocking=False)


def test_owners_are_renewed_as_long_as_they_live() -> None:
    owner, other = Owner(), Owner()
    seen: list[int] = []
    other.renew = lambda: seen.append(1)  # type: ignore[method-assign]  # replaced for this handle alone
    renewed_in_child(owner)
    renewed_in_child(other)
    assert in_child(lambda: owner.renewed == 1, lambda: seen == [1])
    del other
    gc.collect()
    assert in_child(lambda: owner.renewed == 1, lambda: seen == [])
    assert owner.renewed == 0


def test_a_child_does_not_keep_a_lock_of_its_parent(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    held = closed_in_child(os.open(path, os.O_RDWR | os.O_CREAT))
    assert taken(held)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        close(held)  # which it has not any more: its parent's lock stays
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    again = os.open(path, os.O_RDWR)
    assert not taken(again)
    close(held)
    assert taken(again), "though the child lives"
    os.close(again)
    os.close(write)
    os.close(read)
    os.waitpid(child, 0)


class Holder(TemporaryFolder):
    def renew(self) -> None:
        self.remove()


def test_a_child_does_not_let_go_of_a_lock_of_its_parent(tmp_path: Path) -> None:
    """By what begins anew in it before all else: the descriptor is the parent's, too, and so is its lock."""
    folder = Holder(tmp_path)
    renewed_in_child(folder)
    assert in_child(folder.path.exists)
    again = os.open(folder.path / OWNER, os.O_RDWR)
    assert not taken(again)
    os.close(again)
    folder.remove()


def test_a_child_keeps_its_own_lock_when_its_parents_object_goes(tmp_path: Path) -> None:
    """Which has the number of a descriptor that is the child's by then."""
    folder = TemporaryFolder(tmp_path)

    number = folder._remove.peek()[2][1]

    def keeps() -> bool:
        while (one := os.open(os.devnull, os.O_RDONLY)) != number:
            assert one < number
        os.close(one)
        own = TemporaryFolder(tmp_path)
        assert own._remove.peek()[2][1] == number
        folder.remove()
        again = os.open(own.path / OWNER, os.O_RDWR)
        return not taken(again)

    assert in_child(keeps)
    folder.remove()


def test_what_a_child_opens_under_the_number_of_such_a_descriptor_stays_open(tmp_path: Path) -> None:
    folder = TemporaryFolder(tmp_path)

    def opens() -> bool:
        files = [os.open(tmp_path / str(n), os.O_RDWR | os.O_CREAT) for n in range(50)]
        folder.remove()
        return all(fcntl.fcntl(file, fcntl.F_GETFD) >= 0 for file in files) and folder.path.exists()

    assert in_child(opens)
    assert (folder.path / OWNER).exists()
    folder.remove()
    assert not folder.path.exists()
