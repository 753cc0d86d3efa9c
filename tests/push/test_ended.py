"""Pushes of a store that was closed, and of one that a process took over by a fork."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from featurestore import Count, Entity, FeatureService, FeatureStore, FeatureView, PushSource
from featurestore.errors import FeatureStoreError
from featurestore.types import Int64, Timestamp

SOURCE = PushSource("clicks", schema={"id": Int64, "user": Int64, "at": Timestamp}, event_time="at", identity="id")
VIEW = FeatureView(
    "of_user", entity=Entity("user", key={"user": Int64}), source=SOURCE, features={"n": Count(window="1h")}
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FeatureStore]:
    folder = tmp_path / "repo"
    folder.mkdir()
    (folder / "featurestore.toml").write_text('project = "clicks"\ndefinitions = []\n')
    with FeatureStore(folder) as store:
        store.apply([FeatureService("users", features=[VIEW])])
        yield store


CHILD_SECONDS = 600
AT = datetime.now(UTC)


def click(number: int) -> dict[str, object]:
    return {"id": number, "user": 1, "at": AT}


def test_a_closed_store_writes_into_nobodys_file(store: FeatureStore, tmp_path: Path) -> None:
    """Which may have got the number of a descriptor that the store gave up."""
    store.push("clicks", click(1))
    store.close()
    files = [(tmp_path / str(number)).open("wb+", buffering=0) for number in range(30)]
    with pytest.raises(FeatureStoreError):
        store.push("clicks", click(2))
    assert {os.fstat(file.fileno()).st_size for file in files} == {0}
    for file in files:
        file.close()


def test_a_child_pushes_after_its_parent_did(store: FeatureStore) -> None:
    store.push("clicks", click(1))
    child = os.fork()  # with a thread of the parent that takes batches, which the child has not
    if not child:
        code = 1
        signal.alarm(CHILD_SECONDS)  # ends a child that waits for ever
        try:
            code = 0 if store.push("clicks", click(2)).accepted == 1 else 2
            if not any(thread.name == "featurestore-heartbeat" for thread in threading.enumerate()):
                code = 3  # nothing would confirm what the child pushed
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store.push("clicks", [click(2), click(3)]) == (1, 1, 0)
    assert store.get_online_features({"user": 1}, "users").to_dict()["of_user__n"] == [3]
