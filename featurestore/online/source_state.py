"""How far the online records hold the log of a push source, and for which instant lookups may answer.

    state    format (u8), applied, reserved, confirmed, last (i64 each; the least int where there is none)

It lies beside the records and is written together with them, so a store that comes back older (a snapshot that was
restored, a replica that was behind) brings the state of then, which is true of the records of then.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from featurestore.declare.push import PushSource
from featurestore.errors import OnlineStoreError
from featurestore.online.view_codec import source_prefix

PACKED = struct.Struct("<Bqqqq")
FORMAT = 2
BEFORE = struct.Struct("<Bqq")
"""Format 1, which said neither what was confirmed nor which row was the last."""
NEVER = -(1 << 63)

LAG_US = 1_000_000
"""µs that an answer of a source in use may be behind the clock, because what is confirmed is written a few times a second.
An older one is stale."""

Witness = Callable[[bytes | None, int], int]
"""Says until when (µs, or NEVER) a reading with this state at this instant of the store's clock has all of the log."""


class SourceState(NamedTuple):
    """What the records hold. All in µs.

    applied: the instant by which all rows of the records were known and had happened. reserved: the known_at of the
    first row that is on its way into the log, or None. confirmed: the records hold every row, of those to come too, that
    is known by this instant. last: the known_at of the last row that is in every record, None while there is none.
    """

    applied: int = NEVER
    reserved: int | None = None
    confirmed: int = NEVER
    last: int | None = None

    def pack(self) -> bytes:
        """The state as bytes."""
        reserved, last = (NEVER if instant is None else instant for instant in (self.reserved, self.last))
        return PACKED.pack(FORMAT, self.applied, reserved, self.complete, last)

    @classmethod
    def unpack(cls, data: bytes | None) -> SourceState:
        """The state that `pack` wrote; that of a source that nothing was pushed to, for None."""
        if data is None:
            return cls()
        if data[:1] == b"\1":
            _, applied, reserved = BEFORE.unpack(data)
            return cls(applied, _known(reserved))
        if data[:1] != bytes([FORMAT]) or len(data) != PACKED.size:
            raise OnlineStoreError(
                f"The online store holds the state of a push source in format {data[0] if data else 'nothing'}, and this "
                f"version reads {FORMAT}; use the version that wrote it"
            )
        _, applied, reserved, confirmed, last = PACKED.unpack(data)
        return cls(applied, _known(reserved), confirmed, _known(last))

    @property
    def complete(self) -> int:
        """What is confirmed; of a state of format 1, what is applied."""
        return max(self.confirmed, self.applied)

    @property
    def is_old(self) -> bool:
        """Whether it was read in format 1, and does not say which row was the last."""
        return self.confirmed < self.applied


def _known(instant: int) -> int | None:
    return None if instant == NEVER else instant


def served_as_of(
    state: SourceState, now: int, *, held: bytes | None, filled: int, witness: Witness | None
) -> int:  # fmt: skip
    """Rule 6: the instant that records are true for at `now` (µs), which were read together with this state.

    It is never later than what is confirmed, by the state itself or by a witness, who has the log at hand; and never
    before the last row that was applied: a clock that is behind it, by a step backwards, is that instant. filled: the
    instant for which the view was filled. held: the state's bytes.
    """
    complete = max(state.complete, filled)
    if complete < now and witness is not None:
        complete = max(complete, witness(held, now))
    return min(complete, max(now, state.applied))


def state_key(project: str, source: PushSource, *, tagged: bool = False) -> bytes:
    """The key of a source's state."""
    return source_prefix(project, source.name, tagged=tagged) + b"p"
