"""Run as a program: forget Anna in copies of a project, and be killed before the first, the second, … change of anything.

kill_worker FOLDER COPIES INSTANT EVERY

EVERY: so many changes lie between two of these. Beside each copy is a file that says what was about to be changed. It ends with
the first copy in which nobody was killed.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from featurestore import FeatureStore, ManualClock
from featurestore.lazy import duckdb, pa, pads, pc, pq
from featurestore.online.lmdb import LmdbStore
from featurestore.registry.store import Registry
from tests.forget.shop import ANNA

CHANGES: list[tuple[Any, str]] = [
    (Registry, "put_forgetting"),
    (LmdbStore, "write"),
    (Path, "unlink"),
    (Path, "rename"),
    (os, "replace"),
]


def plant(number: int, said: Path) -> None:
    """Die before the change of that number."""
    made = [0]

    def dying(change: Callable[..., Any], name: str) -> Callable[..., Any]:
        def changed(*args: Any, **words: Any) -> Any:
            made[0] += 1
            if made[0] == number:
                said.write_text(name)
                os.kill(os.getpid(), signal.SIGKILL)
            return change(*args, **words)

        return changed

    for of, name in CHANGES:
        setattr(of, name, dying(getattr(of, name), name))


def main(folder: str, copies: str, instant: str, every: str) -> None:
    assert all(
        (duckdb.connect, pa.table, pads.dataset, pc.equal, pq.read_table)
    )  # imported once, before anybody is born
    for number in itertools.count(1, int(every)):
        copy = Path(copies, f"{number:02d}")
        shutil.copytree(folder, copy)
        child = os.fork()
        if not child:
            plant(number, Path(copies, f"{number:02d}.said"))
            with FeatureStore(copy, clock=ManualClock(datetime.fromisoformat(instant))) as store:
                store.forget("customer", {"customer": ANNA})
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            assert os.waitstatus_to_exitcode(status) == 0
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
