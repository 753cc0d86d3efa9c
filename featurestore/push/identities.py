"""Rule 7: which version of a row is the last, and which rows were pushed already.

    identity   known_at of the last version (i64), its event_time (i64; the least int where it has none), then a digest of
               each version that was ever pushed

It is kept in the online store beside the records, and written together with them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

import pyarrow as pa

from featurestore.declare.push import PushSource
from featurestore.semantics.order import order_bytes
from featurestore.semantics.values import scalars

__all__ = ["IDENTITY", "NO_TIME", "Identity", "digests_of", "identity_keys"]

PACKED = struct.Struct("<qq")
DIGEST_BYTES = 16
IDENTITY = b"i"  # follows the prefix of a source
NO_TIME = -(1 << 63)


class Identity(NamedTuple):
    """What is remembered of one row."""

    known_at: int
    event_time: int
    versions: tuple[bytes, ...]

    @property
    def time(self) -> int:
        """When the row happened (µs), or was deleted before it ever did: what its age is counted from."""
        return self.known_at if self.event_time == NO_TIME else self.event_time

    def pack(self) -> bytes:
        """The identity as bytes."""
        return PACKED.pack(self.known_at, self.event_time) + b"".join(self.versions)

    @classmethod
    def unpack(cls, data: bytes) -> Identity:
        """The identity that `pack` wrote."""
        known_at, event_time = PACKED.unpack_from(data)
        rest = data[PACKED.size :]
        return cls(known_at, event_time, tuple(rest[i : i + DIGEST_BYTES] for i in range(0, len(rest), DIGEST_BYTES)))


def identity_keys(source: PushSource, prefix: bytes, rows: pa.Table) -> list[bytes]:
    """The online key of each row's identity."""
    return [prefix + IDENTITY + digest for digest in _digests(source, rows, source.identity)]


def digests_of(source: PushSource, rows: pa.Table) -> list[bytes]:
    """A digest of each row's columns: equal for equal rows, to the bit."""
    return _digests(source, rows, tuple(source.columns))


def _digests(source: PushSource, rows: pa.Table, names: Sequence[str]) -> list[bytes]:
    columns = [
        [order_bytes(source.columns[name], value) for value in scalars(rows[name].combine_chunks())] for name in names
    ]
    return [blake2b(b"".join(parts), digest_size=DIGEST_BYTES).digest() for parts in zip(*columns, strict=True)]
