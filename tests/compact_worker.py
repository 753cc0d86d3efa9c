"""Run as a program: push rows while the log is compacted in the background, and be killed in the middle of that.

compact_worker FOLDER SEED CRASH

CRASH: the step of the file system, of those that the background thread makes, at which the process is killed. The number
of each row is printed when its push was answered.
"""

from __future__ import annotations

import os
import random
import sys
import threading
from datetime import UTC, datetime
from typing import Any

from featurestore import FeatureStore
from featurestore.push.compactor import THREAD
from featurestore.sources.log import FileLog
from tests.sources.log_workers import STEPS, plant

SEGMENT = 6_000
"""Bytes after which a segment is full: some ten pushes."""


def small_segments() -> None:
    """Every log of this process has segments of a few rows."""
    defaults: Any = FileLog.__init__.__kwdefaults__
    defaults["segment_bytes"] = SEGMENT


def plant_in_background(crash: int, chosen: random.Random) -> None:
    """Kill this process at a step of the background thread; those of others do not count."""
    own = {name: getattr(os, name) for name in STEPS}
    plant(crash, chosen)
    for name in STEPS:
        planted = getattr(os, name)

        def step(*args: Any, _planted: Any = planted, _own: Any = own[name], **kwargs: Any) -> Any:
            return (_planted if threading.current_thread().name == THREAD else _own)(*args, **kwargs)

        setattr(os, name, step)


def main(folder: str, seed: str, crash: str) -> None:
    small_segments()
    plant_in_background(int(crash), random.Random(int(seed)))
    with FeatureStore(folder) as store:
        for number in range(1_000):
            store.push("swipes", {"swipe": number, "card": number % 3, "at": datetime.now(UTC)})
            print(number, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
