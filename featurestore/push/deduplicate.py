"""Rule 7: the rows of a batch sorted out, what is new and what each row replaces, retries, rows that came too late.

What is remembered of each row lies in the online store beside the records, and is written together with them:

    identity   known_at of the last version (i64), its event_time (i64; the least int where it has none), then a digest of
               each version that was ever pushed, of the last one last
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NamedTuple

from featurestore.clock import to_datetime
from featurestore.declare.durations import show_duration
from featurestore.declare.push import PushSource
from featurestore.errors import PushError, RowRefusedError
from featurestore.lazy import pa
from featurestore.push.pushed import Pushed
from featurestore.semantics.order import order_bytes
from featurestore.semantics.values import instants, scalars
from featurestore.types import Timestamp, timestamp_of, to_json

PACKED = struct.Struct("<qq")
DIGEST_BYTES = 16
IDENTITY = b"i"  # follows the prefix of a source
NO_TIME = -(1 << 63)


class PendingKnownAt(NamedTuple):
    """The known_at that a fresh row of this batch will have, before it is reserved."""

    place: int


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


class KnownIdentities(NamedTuple):
    """What is remembered of the identities of some rows: by its key; each row's key; each row's digest."""

    identities: dict[bytes, Identity | None]
    keys: list[bytes]
    digests: list[bytes]


@dataclass
class Deduplicated:
    """The numbers of the rows that are new, beside what each replaces, of those that came too late, and of those that are
    quarantined; the identities after them; what becomes of each request."""

    identities: dict[bytes, Identity | None]
    fresh: list[int] = field(default_factory=list)
    replaces: list[int | PendingKnownAt | None] = field(default_factory=list)
    late: list[int] = field(default_factory=list)
    quarantined: list[int] = field(default_factory=list)
    outcomes: list[Pushed | PushError] = field(default_factory=list)

    def renewed(self, first: int) -> dict[bytes, bytes | None]:
        """The identities as they are to be kept, where `first` is the known_at of the first fresh row."""
        changed = {key: held for key, held in self.identities.items() if held is not None and _is_mine(held)}
        return {key: _placed(held, first).pack() for key, held in changed.items()}

    def replaced(self, first: int) -> list[int | None]:
        """The known_at of what each fresh row replaces, likewise."""
        return [first + n.place if isinstance(n, PendingKnownAt) else n for n in self.replaces]


def deduplicate(
    source: PushSource,
    tables: Sequence[pa.Table],
    known: KnownIdentities,
    *,
    now: int,
    refused: Mapping[int, PushError],
    overwriting: Collection[int] = (),
    quarantined: Container[int] = frozenset(),
) -> Deduplicated:
    """Sort the rows of requests, in order. refused: requests of which nothing is kept, by number, and why.

    overwriting: requests that say what rows are from now on. A row of these is the same only as the last version of it, and
    one that comes too late to count refuses the request. quarantined: rows, by number, that do not meet what is expected of them.
    """
    found = Deduplicated(dict(known.identities))
    first = 0
    happened = instants(pa.chunked_array([chunk for table in tables for chunk in table[source.event_time].chunks]))
    for number, table in enumerate(tables):
        times = happened[first : first + table.num_rows]
        rows, overwrites = range(first, first + len(times)), number in overwriting
        error = refused.get(number) or _ahead(source, times, now)
        if error is None and overwrites:
            error = _behind(source, times, _held(found, rows, known), now)
        if error is not None:
            found.outcomes.append(error)
        else:
            outcome = _sort(
                found, times, rows, known, now - source.lateness, overwrites=overwrites, quarantined=quarantined
            )
            found.outcomes.append(outcome.telling(lateness=source.lateness) if outcome.late else outcome)
        first += len(times)
    return found


def _ahead(source: PushSource, times: Sequence[int | None], now: int) -> PushError | None:
    """What is wrong with the rows that are further ahead of the store's clock than a row may be."""
    ahead = {
        row: f"column '{source.event_time}': it happened at {to_json(Timestamp, timestamp_of(happened))}, and the store's clock is at "
        f"{to_datetime(now).isoformat()}; a row may be at most {show_duration(source.tolerance)} ahead of it"
        for row, happened in enumerate(times)
        if happened is not None and happened > now + source.tolerance
    }
    for row, why in ahead.items():
        return RowRefusedError(f"{source.title}: row {row}, {why}", ahead)
    return None


def _behind(
    source: PushSource, times: Sequence[int | None], held: Sequence[Identity | None], now: int
) -> PushError | None:
    """What is wrong with the first row that came too late to count."""
    for row, (happened, identity) in enumerate(zip(times, held, strict=True)):
        if _is_late(happened, identity, now - source.lateness):
            why = (
                f"came too late, and would never be served nor trained on: it happened more than {show_duration(source.lateness)} "
                "ago, the lateness of the source"
            )
            return RowRefusedError(f"{source.title}: row {row} {why}", {row: why})
    return None


def _held(found: Deduplicated, rows: range, known: KnownIdentities) -> list[Identity | None]:
    """What is remembered of each of some rows by now."""
    return [found.identities[known.keys[row]] if known.keys else None for row in rows]


def _is_late(happened: int | None, held: Identity | None, earliest: int) -> bool:
    """A row that is a deletion without a time belongs to the time of the row that it deletes."""
    return _is_forgotten(held, earliest) if happened is None else happened < earliest


def _is_forgotten(held: Identity | None, earliest: int) -> bool:
    return held is not None and NO_TIME < held.event_time < earliest


def _sort(
    found: Deduplicated,
    times: list[int | None],
    rows: range,
    known: KnownIdentities,
    earliest: int,
    *,
    overwrites: bool,
    quarantined: Container[int],
) -> Pushed:
    """Sort one request's rows."""
    accepted = unchanged = late = aside = 0
    for row, happened in zip(rows, times, strict=True):
        key = known.keys[row] if known.keys else None
        held = None if key is None else found.identities[key]
        if held is not None and known.digests[row] in (held.versions[-1:] if overwrites else held.versions):
            unchanged += 1
            continue
        if _is_late(happened, held, earliest):
            found.late.append(row)
            late += 1
            continue
        if row in quarantined:
            found.quarantined.append(row)
            aside += 1
            continue
        mine: Any = PendingKnownAt(len(found.fresh))
        found.fresh.append(row)
        found.replaces.append(None if held is None or _is_forgotten(held, earliest) else held.known_at)
        if key is not None:
            found.identities[key] = next_version(held, mine, happened, known.digests[row])
        accepted += 1
    pushed = Pushed(accepted, unchanged, late)
    return pushed.telling(quarantined=aside) if aside else pushed


def next_version(held: Identity | None, known_at: int, event_time: int | None, digest: bytes) -> Identity:
    """The identity after a version more, which is the last of its versions; one without a time (a deletion) leaves the time as
    it was."""
    before = () if held is None else tuple(version for version in held.versions if version != digest)
    time = event_time if event_time is not None else NO_TIME if held is None else held.event_time
    return Identity(known_at, time, (*before, digest))


def _is_mine(identity: Identity) -> bool:
    known_at: Any = identity.known_at
    return isinstance(known_at, PendingKnownAt)


def _placed(identity: Identity, first: int) -> Identity:
    mine: Any = identity.known_at
    return identity._replace(known_at=first + mine.place)


def identity_keys(source: PushSource, prefix: bytes, rows: pa.Table) -> list[bytes]:
    """The online key of each row's identity."""
    return [prefix + IDENTITY + digest for digest in digests_of(source, rows, source.identity)]


def digests_of(source: PushSource, rows: pa.Table, names: Iterable[str] | None = None) -> list[bytes]:
    """A digest of each row's columns, or of these of them: equal for equal values, to the bit."""
    parts = [b""] * rows.num_rows
    for name in source.columns if names is None else names:
        of = source.columns[name]
        values = scalars(rows[name].combine_chunks())
        parts = [before + order_bytes(of, value) for before, value in zip(parts, values, strict=True)]
    return [blake2b(part, digest_size=DIGEST_BYTES).digest() for part in parts]
