"""How far a push source is applied online: what lookups read first, and what decides the as_of they may answer."""

from __future__ import annotations

import struct
from typing import NamedTuple

from featurestore.declare.push import PushSource
from featurestore.stores.codec import ViewCodec

__all__ = ["SourceState", "served_as_of", "source_prefix", "state_key"]

PACKED = struct.Struct("<Bqq")
FORMAT = 1
NEVER = -(1 << 63)


class SourceState(NamedTuple):
    """applied: the known_at of the last row that is in every record; reserved: that of the first which is not yet, or
    None. µs."""

    applied: int = NEVER
    reserved: int | None = None

    def pack(self) -> bytes:
        """The state as bytes."""
        return PACKED.pack(FORMAT, self.applied, NEVER if self.reserved is None else self.reserved)

    @classmethod
    def unpack(cls, data: bytes | None) -> SourceState:
        """The state that `pack` wrote; that of a source that nothing was pushed to, for None."""
        if data is None:
            return cls()
        _, applied, reserved = PACKED.unpack(data)
        return cls(applied, None if reserved == NEVER else reserved)


def served_as_of(state: SourceState, now: int) -> int:
    """Rule 6: the instant that records are true for at `now` (µs): now, or just before what is reserved and not applied.

    Never before the last row that was applied: a clock that is behind it, by a step backwards, is that instant.
    """
    now = max(now, state.applied)
    return now if state.reserved is None else min(now, state.reserved - 1)


def source_prefix(project: str, source: PushSource) -> bytes:
    """What the online keys of a push source begin with."""
    return ViewCodec.prefix_of(project, f"push source {source.name}", "")


def state_key(project: str, source: PushSource) -> bytes:
    """The key of a source's state."""
    return source_prefix(project, source) + b"p"
