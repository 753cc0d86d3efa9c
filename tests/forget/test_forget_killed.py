"""Killed anywhere, forgetting leaves nothing that is untrue, and the same call completes it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from featurestore import FeatureStore, ManualClock
from tests.forget.shop import ANNA, BOB, HOUR, NOON, configured, files_with, filled, look, of_anna, order, trained

EVERY = 3
"""Every third change; 1: all, which takes three times as long."""


def test_killed_before_any_change_it_is_completed_by_the_same_call(tmp_path: Path) -> None:
    """From the first change on, training counts nothing of the key; what is served is that, or what it was; other pushes go on."""
    clock = ManualClock(NOON)
    folder, copies = tmp_path / "shop", tmp_path / "copies"
    folder.mkdir()
    copies.mkdir()
    with FeatureStore(configured(folder), clock=clock) as store:
        filled(store, clock)
        store.push("orders", [order(6, ANNA, NOON - 24 * 60 * HOUR)])
        look(store)
    clock.advance(HOUR)
    done = subprocess.run(
        [sys.executable, "-m", "tests.forget.kill_worker", str(folder), str(copies), clock().isoformat(), str(EVERY)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    killed = sorted(copies.glob("*.said"))
    assert {path.read_text() for path in killed} == {"put_forgetting", "write", "unlink", "rename"}
    now = clock()
    for said in killed:
        clock.set(now)
        copy = said.with_suffix("")
        with FeatureStore(copy, clock=clock) as store:
            is_forgotten = bool(store.registry.forgettings())
            served, training = look(store), trained(store, clock())
            assert bool(of_anna(training, ("totals",))) is not is_forgotten
            assert served["totals__n"][0] in {None, 3}
            store.push("orders", [order(7, BOB, clock())])
            clock.advance(HOUR / 60)
            store.forget("customer", {"customer": ANNA})
            assert [name for name in files_with(copy) if not name.startswith(("data/", "online/"))] == []
            found = look(store)
            assert found == trained(store, clock()), said.read_text()
            assert (of_anna(found), found["totals__n"][1], found["branches__n"]) == ([], 3, [3])
