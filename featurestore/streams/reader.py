"""What a reader of a stream must be able to do, whichever broker has it.

A place in a partition is a text that only its reader understands: of Kafka the offset of the next message, of Redis the id of the
last entry that was read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import NamedTuple, Protocol


class Message(NamedTuple):
    """One message. offset: its own place, as errors name it; after: the place behind it; timestamp: when it was written, ms; ordinal:
    how many messages of the partition were written up to it, where the broker tells; problem: why it is none, where it is not."""

    partition: int
    offset: str
    after: str
    key: bytes | None
    value: bytes | None
    timestamp: int | None
    ordinal: int | None = None
    problem: str = ""


class Place(NamedTuple):
    """Where reading goes on in a partition. at: None where it never began. identity: of the stream that it was a place of, "" where
    its broker does not tell. ordinal: see Message. skipped: what is lost after it is known, and is passed over."""

    at: str | None = None
    identity: str = ""
    ordinal: int | None = None
    skipped: bool = False


def is_same(first: str, second: str) -> bool:
    """Whether two identities may be of one stream: of what a broker tells (its cluster, the topic), nothing that both know differs."""
    return all(
        not one or not other or one == other for one, other in zip(first.split("/"), second.split("/"), strict=False)
    )


def known_of(before: str, now: str) -> str:
    """An identity, with the parts that were known before where they are not now."""
    return "/".join(one or other for one, other in zip_longest(now.split("/"), before.split("/"), fillvalue=""))


class PartitionLag(NamedTuple):
    """How far a partition is behind its end. messages: None where that is not known; is_least: there are at least so many."""

    messages: int | None
    is_least: bool = False


class StreamReader(Protocol):
    """Reads some partitions of one stream, in the order of each. For one thread. Every method raises BrokerUnavailableError where the
    broker cannot be reached."""

    def partitions(self) -> list[int]:
        """The partitions that the stream has now."""

    def identity(self) -> str:
        """What tells the stream from a later one of its name: parts with a "/" between them, each "" where the broker does not tell."""

    def assign(self, places: Mapping[int, Place]) -> dict[int, str]:
        """Read these partitions alone from now on, each from its place; where each begins. MessagesLostError, StreamReplacedError."""

    def read(self, most: int, seconds: float) -> Sequence[Message]:
        """The next messages, at most so many; none where none came within the time."""

    def lags(self) -> dict[int, PartitionLag]:
        """How far each partition that is read was behind its end when that was last known."""

    def close(self) -> None:
        """Let go of the broker."""
