"""The rows of a batch sorted out by rule 7: what is new and what each row replaces, retries, rows that came too late."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

from featurestore.clock import to_datetime
from featurestore.declare.push import PushSource
from featurestore.errors import PushError
from featurestore.push.identities import NO_TIME, Identity
from featurestore.push.pushed import Pushed
from featurestore.semantics.values import instants
from featurestore.types import Timestamp, timestamp_of, to_json

__all__ = ["Deduplicated", "KnownIdentities", "PendingKnownAt", "deduplicate", "next_version"]


class PendingKnownAt(NamedTuple):
    """The known_at that a fresh row of this batch will have, before it is reserved."""

    place: int


class KnownIdentities(NamedTuple):
    """What is remembered of the identities of some rows: by its key; each row's key; each row's digest."""

    identities: dict[bytes, Identity | None]
    keys: list[bytes]
    digests: list[bytes]


@dataclass
class Deduplicated:
    """The numbers of the rows that are new, beside what each replaces, and of those that came too late; the identities
    after them; what becomes of each request."""

    identities: dict[bytes, Identity | None]
    fresh: list[int] = field(default_factory=list)
    replaces: list[int | PendingKnownAt | None] = field(default_factory=list)
    late: list[int] = field(default_factory=list)
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
) -> Deduplicated:
    """Sort the rows of requests, in order. refused: requests of which nothing is kept, by number, and why."""
    found = Deduplicated(dict(known.identities))
    first = 0
    happened = instants(pa.chunked_array([chunk for table in tables for chunk in table[source.event_time].chunks]))
    for number, table in enumerate(tables):
        times = happened[first : first + table.num_rows]
        error = refused.get(number) or _ahead(source, times, now)
        if error is not None:
            found.outcomes.append(error)
        else:
            rows = range(first, first + len(times))
            found.outcomes.append(_sort(found, times, rows, known, now - source.lateness))
        first += len(times)
    return found


def _ahead(source: PushSource, times: Sequence[int | None], now: int) -> PushError | None:
    """What is wrong with the first row that is further ahead of the store's clock than a row may be."""
    for row, happened in enumerate(times):
        if happened is not None and happened > now + source.tolerance:
            return PushError(
                f"{source.title}: row {row}, column '{source.event_time}': it happened at "
                f"{to_json(Timestamp, timestamp_of(happened))}, and the store's clock is at {to_datetime(now).isoformat()}; a row may "
                f"be at most {source.tolerance / 1e6:g} s ahead of it"
            )
    return None


def _sort(found: Deduplicated, times: list[int | None], rows: range, known: KnownIdentities, earliest: int) -> Pushed:
    """Sort one request's rows. A row that is a deletion without a time belongs to the time of the row that it deletes."""
    accepted = unchanged = late = 0
    for row, happened in zip(rows, times, strict=True):
        key = known.keys[row] if known.keys else None
        held = None if key is None else found.identities[key]
        if held is not None and known.digests[row] in held.versions:
            unchanged += 1
            continue
        forgotten = held is not None and NO_TIME < held.event_time < earliest
        if forgotten if happened is None else happened < earliest:
            found.late.append(row)
            late += 1
            continue
        mine: Any = PendingKnownAt(len(found.fresh))
        found.fresh.append(row)
        found.replaces.append(None if held is None or forgotten else held.known_at)
        if key is not None:
            found.identities[key] = next_version(held, mine, happened, known.digests[row])
        accepted += 1
    return Pushed(accepted, unchanged, late)


def next_version(held: Identity | None, known_at: int, event_time: int | None, digest: bytes) -> Identity:
    """The identity after a version more; a version without a time (a deletion) leaves the time as it was."""
    before = () if held is None else held.versions
    time = event_time if event_time is not None else NO_TIME if held is None else held.event_time
    return Identity(known_at, time, (*before, digest))


def _is_mine(identity: Identity) -> bool:
    known_at: Any = identity.known_at
    return isinstance(known_at, PendingKnownAt)


def _placed(identity: Identity, first: int) -> Identity:
    mine: Any = identity.known_at
    return identity._replace(known_at=first + mine.place)
