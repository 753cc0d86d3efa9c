"""How fast this machine is at a job: the job itself, run on a scale model of it three times, and what follows from these for all rows.

The time on the processors grows with the rows of sources and with those asked for, and so does memory; beside both is what any run takes.
Of n rows and s asked ones, runs are of (n/4, s/4), (n, s/4) and (n, s): what the second takes more than the first is due to rows of
sources, what the third takes more than the second to those that are asked for.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

SMALL = 0.25
"""The part of the rows that the smaller runs have."""


class Taken(NamedTuple):
    """What a run took."""

    cpu_s: float
    wall_s: float
    peak_bytes: int | None
    """The greatest memory of the process; None where the system does not tell it."""


class Speed(NamedTuple):
    """What a job takes: beside what any run does, for each row of its sources, and for each that is asked for."""

    any_run: float
    per_row: float
    per_asked: float

    @classmethod
    def of(cls, small: float, more_rows: float, whole: float, *, rows: int, asked: int) -> Speed:
        """From runs of (rows/4, asked/4), (rows, asked/4) and (rows, asked)."""
        per_row = max(0.0, more_rows - small) / max(1, rows - int(rows * SMALL))
        per_asked = max(0.0, whole - more_rows) / max(1, asked - int(asked * SMALL))
        beside = small - per_row * int(rows * SMALL) - per_asked * int(asked * SMALL)
        return cls(max(0.0, beside), per_row, per_asked)

    def of_job(self, rows: float, asked: float) -> float:
        """What so many rows and asked ones take."""
        return self.any_run + self.per_row * rows + self.per_asked * asked


class Calibration(NamedTuple):
    """How fast this machine was, with which rows that was measured, and how long that took."""

    cpu_s: Speed
    memory_bytes: Speed | None
    """Beyond what the process has at rest; None where the system does not tell it."""

    at_rest_bytes: int
    """What the process has, without what it was measured with; 0 where the system does not tell it."""

    cores: float
    """How many processors the job kept busy."""

    rows: int
    asked: int
    took_s: float


Job = Callable[[], object]


def calibrated(
    job: Callable[[float, float], Job], *, rows: int, asked: int, prepared_bytes: Callable[[], int]
) -> Calibration:
    """Run a job and say how fast it was. job: gives it for a part of the rows, and a part of those that are asked for.
    prepared_bytes: what is in memory for these alone."""
    began = time.perf_counter()
    jobs = [job(*parts) for parts in ((SMALL, SMALL), (1.0, SMALL), (1.0, 1.0))]
    jobs[0]()  # the first run loads libraries
    gc.collect()
    at_rest = memory_bytes()
    small, more, whole = map(_taken, jobs)
    memory = None
    if at_rest is not None and None not in {small.peak_bytes, more.peak_bytes, whole.peak_bytes}:
        beyond = [max(0, (one.peak_bytes or 0) - at_rest) for one in (small, more, whole)]
        memory = Speed.of(*map(float, beyond), rows=rows, asked=asked)
    cpu = Speed.of(small.cpu_s, more.cpu_s, whole.cpu_s, rows=rows, asked=asked)
    cores = max(0.1, whole.cpu_s / whole.wall_s) if whole.wall_s else 1.0
    rest = max(0, (at_rest or 0) - prepared_bytes())
    return Calibration(cpu, memory, rest, cores, rows, asked, time.perf_counter() - began)


def _taken(job: Job) -> Taken:
    _forget_peak()
    wall, cpu = time.perf_counter(), time.process_time()
    kept = job()
    taken = Taken(time.process_time() - cpu, time.perf_counter() - wall, peak_bytes())
    del kept
    return taken


STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_bytes() -> int | None:
    """The greatest memory of this process since it was last forgotten; None where the system does not tell it."""
    return _of_status("VmHWM")


def memory_bytes() -> int | None:
    """The memory of this process now; None where the system does not tell it."""
    return _of_status("VmRSS")


def _of_status(word: str) -> int | None:
    if sys.platform != "linux":
        return None
    try:
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{word}:"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def _forget_peak() -> None:
    """Let the system measure the greatest memory from now on. Nothing happens where it cannot."""
    try:
        CLEAR.write_text("5")
    except OSError:
        return
