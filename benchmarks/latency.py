"""How long single calls take: percentiles over many of them."""

import gc
import time
from collections.abc import Callable, Sequence
from typing import Any

Figures = dict[str, float]


def percentiles(nanoseconds: Sequence[int]) -> Figures:
    ordered = sorted(nanoseconds)

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] / 1e6

    return {"p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": ordered[-1] / 1e6}


def latencies(call: Callable[[Any], object], arguments: Sequence[Any], *, warmup: int = 100) -> Figures:
    """p50, p99 and the slowest of one call per argument, in ms, after `warmup` calls that do not count."""
    for argument in arguments[:warmup]:
        call(argument)
    gc.collect()
    taken = []
    for argument in arguments:
        started = time.perf_counter_ns()
        call(argument)
        taken.append(time.perf_counter_ns() - started)
    return percentiles(taken)
