"""Two jobs side by side, each call in a process of its own, in turn: A B A B …, so that what else the machine does meets both.

A job is a function `module:name` of JSON arguments that prepares and returns what is to be measured, a callable without
arguments; what that returns is kept until memory was read, and added to the figures where it is a dict of numbers.
"""

import gc
import importlib
import inspect
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
MB = 1 << 20

Figures = dict[str, float]


class JobError(Exception):
    """A job ended without figures; the message is what it wrote last."""


@dataclass(frozen=True)
class Job:
    """call: "module:function"; warm: calls of what it returns before the one that counts, in the same process."""

    name: str
    call: str
    arguments: dict[str, Any] = field(default_factory=dict)
    warm: int = 0
    environment: dict[str, str] = field(default_factory=dict)
    offered: dict[str, Any] = field(default_factory=dict)

    def told(self, more: dict[str, Any]) -> "Job":
        """This job with arguments, such as where a server listens, that it gets if it has parameters of these names."""
        return replace(self, offered={**self.offered, **more})


@dataclass(frozen=True)
class Spread:
    """The median of some figures with the least and the greatest."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, figures: list[float]) -> "Spread":
        return cls(statistics.median(figures), min(figures), max(figures))


def measure(job: Job) -> Figures:
    """Run a job once in a new process: wall_s, cpu_s, peak_mb of the measured call, and its own figures."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        written = Path(folder, "figures.json")
        order = {"call": job.call, "arguments": job.arguments, "offered": job.offered, "warm": job.warm}
        ended = subprocess.run(
            [sys.executable, "-m", "benchmarks.pairs", json.dumps(order), str(written)],
            cwd=ROOT, env={**os.environ, **job.environment}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if ended.returncode or not written.exists():
            last = (ended.stderr or ended.stdout).strip().splitlines()[-1:] or [f"exit code {ended.returncode}"]
            raise JobError(f"{job.name}: {last[0]}")
        figures: Figures = json.loads(written.read_text())
        return figures


def alternate(
    jobs: list[Job], pairs: int, *, warmups: int = 1, progress: Callable[[str], None] = lambda _: None
) -> list[list[Figures]]:
    """The figures of each job, one entry a round: every round runs each job once, and the first `warmups` do not count."""
    figures: list[list[Figures]] = [[] for _ in jobs]
    for number in range(warmups + pairs):
        for job, taken in zip(jobs, figures, strict=True):
            round_name = "warm-up" if number < warmups else f"{number - warmups + 1}/{pairs}"
            progress(f"{job.name} {round_name}")
            measured = measure(job)
            if number >= warmups:
                taken.append(measured)
    return figures


def ratio(ours: list[Figures], floor: list[Figures], measure_name: str) -> Spread:
    """Ours over the floor's, pair by pair."""
    return Spread.of([a[measure_name] / b[measure_name] for a, b in zip(ours, floor, strict=True)])


def spread(figures: list[Figures], measure_name: str) -> Spread:
    return Spread.of([taken[measure_name] for taken in figures])


def _cpu_seconds() -> float:
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _peak_bytes() -> int:
    """Of this process since it was started; getrusage would count what the process that forked it had."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _run(order: dict[str, Any]) -> Figures:
    module, _, name = order["call"].partition(":")
    prepare = getattr(importlib.import_module(module), name)
    taken = {name: order["offered"][name] for name in inspect.signature(prepare).parameters if name in order["offered"]}
    call = prepare(**order["arguments"], **taken)
    for _ in range(order["warm"]):
        call()
    gc.collect()
    wall, cpu = time.perf_counter(), _cpu_seconds()
    result = call()
    figures = {"wall_s": time.perf_counter() - wall, "cpu_s": _cpu_seconds() - cpu, "peak_mb": _peak_bytes() / MB}
    if isinstance(result, dict):
        figures |= {name: float(value) for name, value in result.items()}
    return figures


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(_run(json.loads(sys.argv[1]))))
