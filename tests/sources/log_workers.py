"""Run as a program: fork workers that append to a log and compact it, and that may be killed at any of their steps.

Standard input has one JSON list a line, an order for each worker; the answer is their exit codes, one line.
An order: folder, who, first (its first turn), turns, seed, crash (the step of the file system at which it is killed,
or 0), compacts (how likely a turn compacts rather than appends).
A worker writes each turn to <folder>.acks/<who> once it was acknowledged.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from featurestore.sources.log import FileLog
from tests.sources.log_rows import SCHEMA, batch

SEGMENT = 6000
STEPS = ("pwrite", "fdatasync", "fsync", "ftruncate", "rename", "unlink", "open")


def plant(crash: int, chosen: random.Random) -> None:
    """Kill this process at its crash-th step: before it, after it, or with a write half done."""
    left = crash

    def wrapped(name: str) -> Any:
        step = getattr(os, name)

        def run(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left:
                return step(*args, **kwargs)
            if chosen.random() < 0.5:
                if name == "pwrite":
                    descriptor, data, at = args
                    step(descriptor, data[: chosen.randrange(len(data) + 1)], at)
                elif name != "open":
                    step(*args, **kwargs)
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError

        return run

    for name in STEPS:
        setattr(os, name, wrapped(name))


def work(order: dict[str, Any]) -> None:
    chosen = random.Random(order["seed"])
    acks = os.open(f"{order['folder']}.acks/{order['who']}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    if order["crash"]:
        plant(order["crash"], chosen)
    with FileLog(Path(order["folder"]), lambda: SCHEMA, segment_bytes=SEGMENT) as log:
        for turn in range(order["first"], order["first"] + order["turns"]):
            if chosen.random() < order["compacts"]:
                log.compact(grace=0, everything=chosen.random() < 0.3)
                continue
            with log.lock():
                last = log.last_known_at()
                start = 0 if last is None else last + 1 + chosen.randrange(3)
                log.append([batch(start, 1 + turn % 4, who=order["who"], turn=turn)])
                os.write(acks, b"%d\n" % turn)


def warm() -> None:
    """Import what each forked worker would import anew: pandas too, which Arrow imports when it makes its first array."""
    import pyarrow.parquet  # noqa: F401

    with tempfile.TemporaryDirectory() as folder, FileLog(Path(folder), lambda: SCHEMA) as log, log.lock():
        log.append([batch(0, 1, who=0, turn=0)])


def main() -> None:
    warm()
    for line in sys.stdin:
        pids = []
        for order in json.loads(line):
            pid = os.fork()
            if pid == 0:
                try:
                    work(order)
                    os._exit(0)
                except BaseException as error:
                    print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
                    os._exit(1)
            pids.append(pid)
        print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]), flush=True)


if __name__ == "__main__":
    main()
