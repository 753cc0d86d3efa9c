"""What an online store must do: keep opaque bytes by key. It knows nothing of features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol


class Reading(NamedTuple):
    """What one round trip saw: the store's clock in µs since the epoch, then a value for each key."""

    now: int
    values: list[bytes | None]


class Guard(NamedTuple):
    """A condition of a write: `key` still holds exactly `value` (None: it is absent)."""

    key: bytes
    value: bytes | None


class OnlineStore(Protocol):
    """Opaque bytes by key, safe to use from several threads and processes at once.

    Keys and values are any bytes; both may be empty. A store keeps each value `sealed` and checks the seal where it is read
    (`online.value_checksums`), raising OnlineStoreError. Every method raises OnlineUnavailableError where the store
    cannot be reached and OnlineStoreError where it refuses, is full or was closed.
    """

    @property
    def blocking(self) -> bool:
        """Whether `get` waits for another machine, so that an event loop must call it from a thread."""

    @property
    def tagged(self) -> bool:
        """Whether keys lie on several servers, by the hash tag `{…}` in them. Then what is promised of a batch is promised of one whose
        keys have a tag in common: no other one is written, but that keys of several tags may be deleted in one call, tag by tag."""

    def get(self, keys: Sequence[bytes]) -> Reading:
        """The store's clock, then the value of each key (None: absent), in one round trip.

        The clock is read first, and a key is read no later than the keys after it, so that a caller who puts
        watermarks before records never sees a watermark newer than its records. Where keys lie on several servers, that is so of
        those with one tag, and the clock is the one that is furthest behind.
        """

    def write(self, puts: Mapping[bytes, bytes | None], *, guard: Guard | None = None) -> bool:
        """Put (or, for None, delete) all keys at once, or nothing and return False where the guard does not hold.

        When it returns True, the whole batch has been acknowledged as durably as the store is configured to be;
        a reader or a crash never sees a part of a batch on one server. When the store falls silent after the batch
        was sent, OnlineUnavailableError says that it may have been applied: read the keys to know. A batch that
        changes its own guard key is applied at most once, however often it was sent.
        """

    def scan(self, prefix: bytes) -> Iterator[list[bytes]]:
        """All keys that begin with `prefix`, in batches and in no order; a key may come more than once.

        Keys that are written or deleted meanwhile may or may not appear.
        """

    def close(self) -> None:
        """Release connections and files; idempotent. Every later call raises OnlineStoreError."""
