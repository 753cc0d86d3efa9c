"""Which consumer reads which partitions: a record in the online store, in which those who read one source's stream sign up.

Each signs up again every few seconds, and says which partitions it reads and how far it is. From who has signed up follows, for
everybody alike, who is to read what; a partition changes hands when the one who reads it has let go of it, or has not signed up for as
long as a lease lasts. That keeps two from working on the same messages. That no message counts twice is held by the log, which refuses
rows of a partition that another has taken over.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import orjson

from featurestore.errors import OnlineStoreError
from featurestore.materialize.lease import HELD, Holder
from featurestore.online import Guard, OnlineStore
from featurestore.online.view_codec import project_prefix

LEASE_US = 30_000_000
"""µs for which a consumer may be silent before others read its partitions; a dead process of the same machine loses them at once."""

ATTEMPTS = 50
"""How often one tries to sign up while others do so, too."""


class PartitionReport(NamedTuple):
    """How far a consumer is in a partition it reads. lag: messages behind the end, None where that is not known; is_least: at least so
    many; caught_up: when it was last at the end, or began to read where it never was (µs, by the online store's clock)."""

    lag: int | None
    is_least: bool
    caught_up: int


class SignedUp(NamedTuple):
    """A consumer that has signed up: who it is, and what it says of each partition that it reads. alive: by all that is known."""

    token: str
    holder: Holder
    partitions: Mapping[int, PartitionReport]
    alive: bool


class Assignment(NamedTuple):
    """What follows for one consumer: the partitions that it is to read, those of them that it may begin to read, and who reads the
    others. now: µs, by the online store's clock."""

    mine: frozenset[int]
    free: frozenset[int]
    now: int
    others: tuple[SignedUp, ...]


def consumers_key(project: str, source: str) -> bytes:
    """The key of the record of a source's consumers."""
    return project_prefix(project) + hashlib.blake2b(f"consume {source}".encode(), digest_size=8).digest() + b"c"


def signed_up(value: bytes | None, now: int) -> list[SignedUp]:
    """Who has signed up, by what the key holds."""
    found = []
    for own, said in (orjson.loads(value) if value else {}).items():
        holder = Holder(said["host"], said["pid"], own, said["until"], said["space"])
        reports = {int(number): PartitionReport(*report) for number, report in said["partitions"].items()}
        found.append(SignedUp(own, holder, reports, holder.is_alive(now)))
    return found


class Membership:
    """One consumer among those of a source. For one thread."""

    def __init__(self, store: OnlineStore, key: bytes) -> None:
        self._store, self._key = store, key
        self.token = secrets.token_hex(8)
        HELD.add(self.token)

    def sign_up(self, reports: Mapping[int, PartitionReport], partitions: Iterable[int]) -> Assignment:
        """Say what one reads, and be told what one is to read of all partitions. OnlineStoreError."""
        every = sorted(partitions)
        for _ in range(ATTEMPTS):
            now, held, others = self._others()
            if self._put(held, [*others, self._me(now, reports)]):
                return self._assigned(every, others, reports, now)
        raise OnlineStoreError("So many consumers sign up at once that this one could not; it tries again.")

    def leave(self, reports: Mapping[int, PartitionReport]) -> None:
        """Sign up no more: others read the partitions from now on. What is said last of them stays until others have more to say."""
        try:
            for _ in range(ATTEMPTS):
                _, held, others = self._others()
                if self._put(held, [*others, SignedUp(self.token, Holder.this(self.token, 0), reports, alive=False)]):
                    return
        finally:
            HELD.discard(self.token)

    def _others(self) -> tuple[int, bytes | None, list[SignedUp]]:
        """The time (µs), what the key holds, and who else has signed up and is alive."""
        now, (held,) = self._store.get([self._key])
        return now, held, [one for one in signed_up(held, now) if one.alive and one.token != self.token]

    def _me(self, now: int, reports: Mapping[int, PartitionReport]) -> SignedUp:
        return SignedUp(self.token, Holder.this(self.token, now + LEASE_US), reports, alive=True)

    def _assigned(
        self, every: list[int], others: list[SignedUp], reports: Mapping[int, PartitionReport], now: int
    ) -> Assignment:
        tokens = sorted([self.token, *(one.token for one in others)])
        turn = tokens.index(self.token)
        mine = frozenset(every[turn :: len(tokens)])
        taken = {number for one in others for number in one.partitions}
        return Assignment(mine, mine - taken - reports.keys(), now, tuple(others))

    def _put(self, held: bytes | None, everybody: list[SignedUp]) -> bool:
        said: dict[str, Any] = {
            one.token: {
                "host": one.holder.host, "pid": one.holder.pid, "space": one.holder.space, "until": one.holder.ends,
                "partitions": {str(number): list(report) for number, report in one.partitions.items()},
            }
            for one in everybody
        }  # fmt: skip
        return self._store.write({self._key: orjson.dumps(said)}, guard=Guard(self._key, held))
