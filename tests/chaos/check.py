"""What must hold whatever was killed: nothing acknowledged is lost or doubled, no older version wins, and a lookup is what
training says at the instant that it answers for."""

from __future__ import annotations

import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from featurestore import FeatureStore
from featurestore.errors import FeatureStoreError
from featurestore.online.source_state import NEVER
from tests.chaos.world import KEYS, PUSHERS, Pushes, temporary, versions
from tests.small import bits

READY = timedelta(milliseconds=500)
"""`ready_after` of the refreshed view."""

T = TypeVar("T")


def checked(folder: str, what: str) -> None:
    """The body of a process that checks; what it found wrong comes into a file."""
    temporary(Path(folder))
    try:
        with FeatureStore(folder) as store:
            (at_work if what == "at work" else at_rest)(store, Path(folder))
    except BaseException:
        with Path(folder, "unexpected").open("a") as file:
            file.write(f"--- check, {what}\n{traceback.format_exc()}\n")
        raise


def at_work(store: FeatureStore, _folder: Path) -> None:
    """While others go on: the next run succeeds, and what is served now is what training says."""
    until_it_can(lambda: store.materialize(progress=False))
    online = until_it_can(lambda: store.get_online_features([{"thing": key} for key in range(KEYS)], "both"))
    for view, at in {"live": online.as_of["live"], "slow": online.as_of["slow"] + READY}.items():
        spine = pa.table(
            {"thing": range(KEYS), "event_timestamp": pa.array([at] * KEYS, pa.timestamp("us", "UTC"))},
        )
        trained = until_it_can(
            lambda spine=spine, view=view: store.get_historical_features(spine, [view], with_status=True).to_arrow()  # type: ignore[misc]  # mypy infers no type of a lambda with defaults
        )
        for column in online.service.columns:
            if column.name.startswith(f"{view}__"):
                served, right = online.to_dict()[column.name], trained[column.name].to_pylist()
                where = f"{column.name} at {at.isoformat()}: served {served}, trained {right}"
                assert bits(column.type, served) == bits(column.type, right), where
                assert online.statuses[column.name] == trained[f"{column.name}__status"].to_pylist(), where


def at_rest(store: FeatureStore, folder: Path) -> None:
    """When all others are dead: every verb succeeds once more, and the log and the audit say that nothing went wrong."""
    for words in (["materialize"], ["compact"], ["status"], ["plan"], ["audit", "--json"]):
        done = subprocess.run(
            [sys.executable, "-m", "featurestore", *words, "--repo", str(folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (words, done.stdout[-2_000:], done.stderr[-2_000:])
    store.push(
        "events", [{"id": -1, "n": 1, "thing": 0, "at": _now(), "amount": 1.0, "kind": "z", "gone": False}], json=True
    )
    at_work(store, folder)
    source: Any = store.catalog.sources["events"]
    logged = versions(iter(store.offline.log(source).read(NEVER).to_pylist()))
    for who in range(PUSHERS):
        pushes = Pushes(folder, who)
        sent, acknowledged = versions(pushes.sent()), versions(pushes.acknowledged())
        assert acknowledged, f"pusher {who} pushed nothing"
        for of, kept in acknowledged.items():
            lost = {*kept} - {*logged[of]}
            assert not lost, f"row {of}: versions {lost} were acknowledged and are not in the log"
        for of in sent:
            assert logged[of] == sorted({*logged[of]}), f"row {of}: versions {logged[of]} are doubled or out of order"
            assert {*logged[of]} <= {*sent[of]}, f"row {of}: versions {logged[of]} were never sent"
    audit = store.audit()
    found = [place.name for place in (folder / "temporary").iterdir()]
    assert len(found) <= 1, f"killed processes left {found}"  # this one has a folder to spill to
    assert audit.compared, audit
    assert not audit.skewed, audit  # values that are not training's, and instants that came early


def _now() -> str:

    return datetime.now(UTC).isoformat()


def until_it_can(attempt: Callable[[], T]) -> T:
    """What an attempt gives once it no longer raises what is to be tried again."""
    deadline = time.monotonic() + 600
    while True:
        try:
            return attempt()
        except FeatureStoreError as error:
            if not error.retry or time.monotonic() > deadline:
                raise
        time.sleep(0.02)
