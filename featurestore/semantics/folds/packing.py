"""States as bytes: integers of any size, and runs of bytes, one after the other.

An integer is the number of its bytes, then the bytes of its two's complement, little-endian, as few as hold it (none
for 0). A count of bytes is one byte up to 254, else 0xff and four bytes.
"""

from __future__ import annotations

from collections.abc import Iterable

LONG_RUN_BYTES = 255
"""From this length on, a run is behind a byte that says so and four bytes."""


def pack_runs(runs: Iterable[bytes]) -> bytes:
    """Runs of bytes, each behind its length."""
    parts: list[bytes] = []
    for run in runs:
        size = len(run)
        parts.append(bytes([size]) if size < LONG_RUN_BYTES else b"\xff" + size.to_bytes(4, "little"))
        parts.append(run)
    return b"".join(parts)


def unpack_runs(data: bytes) -> list[bytes]:
    """The runs that `pack_runs` wrote."""
    at, end = 0, len(data)
    runs = []
    while at < end:
        size = data[at]
        at += 1
        if size == LONG_RUN_BYTES:
            size = int.from_bytes(data[at : at + 4], "little")
            at += 4
        runs.append(data[at : at + size])
        at += size
    return runs


def pack_ints(values: Iterable[int]) -> bytes:
    """Signed integers of any size."""
    return pack_runs(
        [value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True) if value else b"" for value in values]
    )


def unpack_ints(data: bytes) -> list[int]:
    """The integers that `pack_ints` wrote."""
    return [int.from_bytes(run, "little", signed=True) for run in unpack_runs(data)]
