"""Bits of files that change by themselves, as on a disk that rots: which, and how one of them is flipped."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from featurestore.errors import FeatureStoreError

__all__ = ["flip", "flipped", "outcome", "places"]

T = TypeVar("T")

EDGE = 64
"""Bytes at either end of a file, where what says how to read the rest lies."""

_ticks = iter(range(1, 1 << 60))


def places(size: int, count: int, *, seed: str) -> list[int]:
    """So many bits of a file of so many bytes, a third of them at its beginning and a third at its end."""
    chosen = random.Random(seed)
    ranges = [(0, min(EDGE, size)), (0, size), (max(0, size - EDGE), size)]
    return [8 * chosen.randrange(*ranges[n % 3]) + chosen.randrange(8) for n in range(count)] if size else []


@contextmanager
def flipped(path: Path | str, bit: int) -> Iterator[None]:
    """The file with one bit flipped, in its place; as it was afterwards."""
    flip(path, bit)
    try:
        yield
    finally:
        if path.exists():
            flip(path, bit)


def flip(path: Path | str, bit: int) -> None:
    """Flip a bit; the file's time of modification is one that it never had, however coarse the system's clock."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        (byte,) = os.pread(descriptor, 1, bit // 8)
        os.pwrite(descriptor, bytes([byte ^ 1 << bit % 8]), bit // 8)
        now = os.fstat(descriptor).st_mtime_ns + next(_ticks)
        os.utime(descriptor, ns=(now, now))
    finally:
        os.close(descriptor)


def outcome(of: Callable[[], T]) -> T | FeatureStoreError:
    """What a call returns, or the product's error that it ends in; any other error is raised."""
    try:
        return of()
    except FeatureStoreError as error:
        return error
