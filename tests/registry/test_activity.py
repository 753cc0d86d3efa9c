"""The trail of activity: what is in it, by whom, and that nothing changes it."""

from __future__ import annotations

import os
import pwd
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from featurestore import FeatureStore
from featurestore.access.api_keys import create_key, revoke_key, rotate_key
from featurestore.clock import wall_clock
from featurestore.errors import RegistryError, RequestError
from featurestore.registry import activity as trail
from featurestore.registry.activity import Activity, PushTrail
from featurestore.registry.documents import empty_document
from featurestore.registry.records import RunRecord
from featurestore.registry.store import Registry, ServiceVersion
from tests.cli.test_commands import run
from tests.registry.older import make_older
from tests.registry.places import REFUSED, by_hand, words

ME = f"os:{pwd.getpwuid(os.geteuid()).pw_name}@{socket.gethostname()}"


@pytest.fixture
def registry(place: Path | str) -> Registry:
    return Registry(place)


def told(registry: Registry) -> list[tuple[str, str, str]]:
    return [(one.who, one.what, one.subject) for one in registry.activity()]


def test_what_a_project_lives_through_is_in_the_trail(tmp_path: Path) -> None:
    """By whoever ran it; also of a store that was not closed, since who asks is told all."""
    run(tmp_path, "init", "shop")
    begin = wall_clock()
    with FeatureStore(tmp_path / "shop") as store:
        store.apply(note="first")
        store.materialize(progress=False)
        rows = [{"cart": "1", "customer": "ann", "at": "2025-01-05T00:00:00Z", "amount": 1.0}]
        for number in range(3):
            store.push("carts", rows, json=True, who="key:web", request_id=f"r{number}")
        store.push("carts", rows, json=True)
        create_key(store.registry, "web", ["read"])
        rotate_key(store.registry, "web", overlap_us=0)
        revoke_key(store.registry, "web")
        store.teardown()
        found = store.activity()
        assert {one.what for one in found} == {
            "apply", "materialize", "push", "create key", "rotate key", "revoke key", "teardown"
        }  # fmt: skip
        assert [one.subject for one in store.activity(what="push")] == ["carts"] * len(store.activity(what="push"))
        by_key = [one for one in store.activity(what="push") if one.who == "key:web"]
        assert sum(one.detail["requests"] for one in by_key) == 3
        assert [name for one in reversed(by_key) for name in one.detail["request_ids"]] == ["r0", "r1", "r2"]
        counts = [one.detail[name] for one in store.activity(what="push") for name in ("accepted", "unchanged", "late")]
        assert sum(counts) == 4
        assert {one.who for one in found} == {ME, "key:web"}
        assert store.activity(what="apply")[0].detail["note"] == "first"
        assert all(begin <= one.at <= wall_clock() for one in found)
        assert store.activity(since="1h") == found
        assert store.activity(limit=2) == found[:2]
        with pytest.raises(RequestError, match="Did you mean 'push'"):
            store.activity(what="pushh")
    trail_of_keys = [one.detail for one in found if one.what.endswith("key")]
    assert all("hash" not in detail for detail in trail_of_keys)


def test_versions_that_are_kept_and_retired_are_in_the_trail(registry: Registry) -> None:
    one = ServiceVersion("s", "a" * 64)
    for number, letter in enumerate("ab"):
        service = {"fingerprint": letter * 64, "declared": {"features": []}}
        document = empty_document() | {"services": {"s": service}}
        registry.commit(document, expected=number, keep=[one] if number else [])
    registry.commit(empty_document(), expected=2, retire=[one])
    assert told(registry)[::-1] == [
        (ME, "apply", "version 1"),
        (ME, "apply", "version 2"),
        (ME, "keep", str(one)),
        (ME, "teardown", "version 3"),
        (ME, "retire", str(one)),
    ]


def test_what_did_not_happen_is_not_in_the_trail(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """What changes the registry and its row are one transaction."""

    def fails(*_: object) -> None:
        raise RegistryError("no room")

    monkeypatch.setattr("featurestore.registry.store.add_activity", fails)
    with pytest.raises(RegistryError):
        registry.commit(empty_document(), expected=0, note="never")
    with pytest.raises(RegistryError):
        registry.record_run(RunRecord("v", "f", 1, 2, 3, 4, 5, "complete"))
    with pytest.raises(RegistryError):
        create_key(registry, "web", ["read"])
    assert (registry.history(), registry.runs(), registry.api_keys(), registry.activity()) == ((), (), [], [])


@pytest.mark.parametrize("change", ["UPDATE activity SET who = 'os:eve@x'", "DELETE FROM activity"])
def test_nothing_changes_the_trail(registry: Registry, change: str) -> None:
    registry.add_activity([Activity("push", "a"), Activity("push", "b")])
    with pytest.raises(REFUSED, match="is only added to"):
        by_hand(registry.place, change)
    assert [one.subject for one in registry.activity()] == ["b", "a"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("UPDATE activity SET who = 'os:eve@x' WHERE id = 1", "row 1 of the trail of activity is not what was written"),
        ("DELETE FROM activity WHERE id = 2", "has 1 row of 2"),
        ("DELETE FROM activity WHERE id = 1", "has 1 row of 2"),
        ("DELETE FROM activity", "has 0 rows of 2"),
    ],
)
def test_what_was_changed_by_other_means_is_found(registry: Registry, change: str, says: str) -> None:
    registry.add_activity([Activity("push", "a"), Activity("push", "b")])
    on = words(registry.place, "", "ON activity")
    by_hand(registry.place, *(f"DROP TRIGGER activity_no_{one} {on}" for one in ("update", "delete")), change)
    with pytest.raises(RegistryError, match=says):
        registry.activity()


def test_a_registry_of_before_has_no_trail_and_gets_one(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry.db")
    create_key(registry, "web", ["read"])
    make_older(registry.place, 5)
    before = registry.place.read_bytes()
    assert registry.activity() == []
    assert registry.place.read_bytes() == before
    revoke_key(registry, "web")
    assert told(registry) == [(ME, "revoke key", "web")]
    with pytest.raises(REFUSED, match="is only added to"):
        by_hand(registry.place, "DELETE FROM activity")


def test_any_name_is_written(registry: Registry) -> None:
    """A token may say that its bearer is called anything; one that could not be written would keep all later ones waiting."""
    registry.add_activity([Activity("push", "s", who="jwt:a\0b\ud800ü")])
    assert [one.who for one in registry.activity()] == [r"jwt:a\x00b\ud800ü"]


def test_who_is_not_what_a_variable_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("USER", "LOGNAME", "USERNAME"):
        monkeypatch.setenv(name, "eve")
    assert trail.os_user.__wrapped__() == ME


# --- pushes -------------------------------------------------------------------------------------------


@pytest.fixture
def pushes(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Iterator[PushTrail]:
    monkeypatch.setattr(trail, "EVERY_SECONDS", 600.0)  # written when the test says so
    made = PushTrail(registry.add_activity)
    yield made
    made.close()


def test_pushes_of_a_second_are_one_row_of_each_principal_and_source(registry: Registry, pushes: PushTrail) -> None:
    threads = [
        threading.Thread(
            target=lambda: [pushes.pushed("s", {"accepted": 2}, who="key:a", request="r") for _ in range(100)]
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pushes.pushed("t", {"accepted": 1}, who="key:a")
    pushes.pushed("s", {"accepted": 1})
    pushes.flush()
    pushes.flush()
    found = {(one.who, one.subject): one.detail for one in registry.activity()}
    assert found == {
        ("key:a", "s"): {"requests": 400, "accepted": 800, "request_ids": ["r"] * 100},
        ("key:a", "t"): {"requests": 1, "accepted": 1, "request_ids": []},
        (ME, "s"): {"requests": 1, "accepted": 1, "request_ids": []},
    }
    assert len(registry.activity()) == 3


def test_pushes_are_written_without_anybody_s_asking(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trail, "EVERY_SECONDS", 0.01)
    pushes = PushTrail(registry.add_activity)
    for number in range(2):
        pushes.pushed("s", {"accepted": 1})
        deadline = time.monotonic() + 600
        while len(registry.activity()) <= number:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_closing_waits_for_rows_that_are_being_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever closes the registry next does not close it under them."""
    monkeypatch.setattr(trail, "EVERY_SECONDS", 0.0)
    began, goes_on, written = threading.Event(), threading.Event(), list[Activity]()

    def write(done: list[Activity]) -> None:
        began.set()
        assert goes_on.wait(600)
        written.extend(done)

    pushes = PushTrail(write)
    pushes.pushed("s", {"accepted": 1})
    assert began.wait(600)
    closing = threading.Thread(target=pushes.close)
    closing.start()
    closing.join(0.1)
    assert closing.is_alive()
    goes_on.set()
    closing.join(600)
    assert [one.subject for one in written] == ["s"]


def test_who_closes_while_the_first_push_begins_the_thread_waits_for_it(pushes: PushTrail) -> None:
    """A thread that is not started yet cannot be waited for."""
    with pushes._lock:
        pushes._writer = threading.Thread(target=pushes._write_later)
        closing = threading.Thread(target=pushes.close)
        closing.start()
        closing.join(0.1)
        assert closing.is_alive()
        pushes._writer.start()
    closing.join(600)
    assert pushes._writer is None


def test_a_registry_that_cannot_be_written_loses_no_row_and_stops_no_push(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond a bound the oldest stay, and the others are counted."""
    monkeypatch.setattr(trail, "EVERY_SECONDS", 600.0)
    registry = Registry(tmp_path / "registry.db")
    pushes = PushTrail(registry.add_activity)
    monkeypatch.setattr(trail, "MOST", 3)
    registry.place.mkdir()
    for number in range(5):
        pushes.pushed(f"s{number}", {"accepted": 1})
        pushes.flush()
    assert "rows of the trail of activity are not written yet" in caplog.text
    registry.place.rmdir()
    pushes.flush()
    pushes.flush()
    assert [one.subject for one in registry.activity()][::-1] == ["s0", "s1", "s2", ""]
    assert registry.activity()[0].detail == {"lost_rows_of_the_trail": 2}


def test_a_child_does_not_write_what_its_parent_did(registry: Registry, pushes: PushTrail) -> None:
    pushes.pushed("parent", {"accepted": 1})
    child = os.fork()
    if child == 0:
        try:
            pushes.close()
            pushes.pushed("child", {"accepted": 1})
            pushes.close()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert [one.subject for one in registry.activity()] == ["child"]
    pushes.close()
    assert [one.subject for one in registry.activity()] == ["parent", "child"]


def test_rows_that_are_never_written_are_told_as_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Such as those of a role that may only read: what was pushed is kept, and who pushed it is not."""
    registry = Registry(tmp_path / "registry.db")
    registry.place.mkdir()
    pushes = PushTrail(registry.add_activity)
    pushes.pushed("s", {"accepted": 1})
    pushes.close()
    assert "1 row of the trail of activity is lost: who pushed stands nowhere" in caplog.text
