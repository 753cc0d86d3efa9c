"""A Redis Stream: one partition, whose places are ids of entries. No consumer group of Redis is used, and nothing is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import redis

from featurestore.declare.streams import RedisStream
from featurestore.errors import BrokerError, BrokerUnavailableError, ConfigError, MessagesLostError, StreamReplacedError
from featurestore.online.redis_url import parse_redis_url
from featurestore.plurals import plural
from featurestore.streams.reader import Message, PartitionLag, Place

FIRST = "0-0"
"""The place before every entry."""

COUNTED, COUNTED_AT_ONCE = 10_000, 1_000
"""Entries after a place that are counted where Redis (before 7.0) does not tell how many there are; and how many at once."""

FIRST_READ, READ_BYTES = 100, 16 << 20
"""Entries that are read at once at first, and bytes that they are to have at most, by what the last ones had."""

AWAY = (redis.ConnectionError, redis.TimeoutError, redis.exceptions.BusyLoadingError, redis.exceptions.TryAgainError)


class _Info(NamedTuple):
    """What Redis says of a stream. added: how many entries there ever were; None before Redis 7.0."""

    length: int
    last: str
    added: int | None


class RedisReader:
    """Reads a Redis Stream."""

    def __init__(self, stream: RedisStream, settings: Mapping[str, str]) -> None:
        self._stream, self._called = stream, stream.title
        if "url" not in settings:
            raise ConfigError(f'{stream.title}: brokers.{stream.broker} of featurestore.toml has no url = "redis://…"')
        place = parse_redis_url(settings["url"])
        if place.service or len(place.addresses) > 1 or "+" in settings["url"].partition("://")[0]:
            raise ConfigError(
                f"{stream.title}: brokers.{stream.broker}: a stream is read from one server, redis:// or rediss://"
            )
        (host, port), self._name = place.addresses[0], place.name
        self._client = redis.Redis(host=host, port=port, **place.connection)
        self._place: Place | None = None
        self._most = FIRST_READ

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def partitions(self) -> list[int]:
        """The one that there is, whether the stream was begun or not."""
        with self._failing():
            self._client.ping()
        return [0]

    def identity(self) -> str:
        """Redis does not tell."""
        return ""

    def assign(self, places: Mapping[int, Place]) -> dict[int, str]:
        """Read on from a place; from the beginning or the end where there is none yet."""
        self._place = places.get(0)
        if self._place is None:
            return {}
        with self._failing():
            info = self._info()
            if self._place.at is None:
                begins = self._begin(info)
                self._place = begins
            else:
                self._check(self._place, info)
        assert self._place.at is not None
        return {0: self._place.at}

    def _begin(self, info: _Info | None) -> Place:
        if info is None:
            return Place(FIRST, ordinal=0)
        if self._stream.start == "last":
            return Place(info.last, ordinal=info.added)
        return Place(FIRST, ordinal=None if info.added is None else info.added - info.length)

    def _check(self, place: Place, info: _Info | None) -> None:
        """That the stream is the one of which this was a place, and that nothing was lost after it."""
        assert place.at is not None
        if info is None and place.at == FIRST:
            return
        if info is None:
            raise BrokerUnavailableError(f"{self._called}: there is no such stream at {self._name} just now")
        if _id(info.last) < _id(place.at) or (None not in {info.added, place.ordinal} and info.added < place.ordinal):  # type: ignore[operator]  # neither is None
            raise StreamReplacedError(
                f"{self._called} at {self._name} ends at {info.last}, and was read up to {place.at}: it was deleted and made again, or "
                "came back older. Nothing was read of it. To read it from its beginning: featurestore consume --begin-again",
                partition=0,
            )
        if info.last == place.at or place.skipped:
            return
        if info.added is not None and place.ordinal is not None:
            lost = info.added - info.length - place.ordinal
            if lost > 0:
                raise self._lost(place, lost)
        elif place.at != FIRST and not self._client.xrange(self._stream.key, place.at, place.at, count=1):
            raise self._lost(place, None)

    def _lost(self, place: Place, lost: int | None) -> MessagesLostError:
        assert place.at is not None
        said = "perhaps some entries" if lost is None else f"{lost} {plural(lost, 'entry', 'entries')}"
        return MessagesLostError(
            f"{self._called} at {self._name}: {said} after {place.at}, the last that was read, were deleted or trimmed before they were "
            "read. To go on with those that are there: featurestore consume --skip-lost",
            partition=0, place=place.at, lost=lost,
        )  # fmt: skip

    def read(self, most: int, seconds: float) -> Sequence[Message]:
        """The next entries."""
        place = self._place
        if place is None or place.at is None:
            return ()
        with self._failing():
            found = self._entries(place, min(most, self._most))
            if not found and seconds > 0:
                wait = self._client.xread({self._stream.key: place.at}, count=1, block=max(1, round(seconds * 1000)))
                found = self._entries(place, min(most, self._most)) if wait else []
        if found:
            size = sum(len(one.value or b"") for one in found) // len(found)
            self._most = max(1, min(most, READ_BYTES // max(1, size)))
            self._place = Place(found[-1].after, ordinal=found[-1].ordinal)
        return found

    def _entries(self, place: Place, most: int) -> list[Message]:
        """What follows a place, in one step with a look whether anything between them is gone."""
        assert place.at is not None
        key = self._stream.key
        pipeline: Any = self._client.pipeline(transaction=True)
        pipeline.xrange(key, f"({place.at}", "+", count=most)
        pipeline.xrange(key, place.at, place.at, count=1)
        pipeline.exists(key)
        entries, last, there = pipeline.execute()
        if (entries and not last) or not there:
            self._check(place, self._info())
        ordinal = place.ordinal
        found = []
        for name, fields in entries:
            at = name.decode()
            ordinal = None if ordinal is None else ordinal + 1
            value = fields.get(self._stream.field.encode())
            problem = f"the entry has no field '{self._stream.field}'" if value is None else ""
            found.append(Message(0, at, at, None, value or b"", _id(at)[0], ordinal, problem))
        return found

    def lags(self) -> dict[int, PartitionLag]:
        """How many entries follow the last that was read."""
        place = self._place
        if place is None or place.at is None:
            return {}
        with self._failing():
            info = self._info()
            if info is None or info.last == place.at:
                self._place = place._replace(ordinal=None if info is None else info.added)
                return {0: PartitionLag(0)}
            if info.added is not None and place.ordinal is not None:
                return {0: PartitionLag(max(0, info.added - place.ordinal))}
            counted, at = 0, place.at
            while counted < COUNTED:
                entries: Any = self._client.xrange(self._stream.key, f"({at}", "+", count=COUNTED_AT_ONCE)
                counted += len(entries)
                if len(entries) < COUNTED_AT_ONCE:
                    return {0: PartitionLag(counted)}
                at = entries[-1][0].decode()
            return {0: PartitionLag(counted, is_least=True)}

    def _info(self) -> _Info | None:
        """What Redis says of the stream; None where there is none."""
        try:
            said: Any = self._client.xinfo_stream(self._stream.key)
        except redis.ResponseError as error:
            if "no such key" in str(error):
                return None
            raise
        added = said.get("entries-added")
        return _Info(said["length"], said["last-generated-id"].decode(), None if added is None else int(added))

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """What goes wrong within, as errors of a broker."""
        try:
            yield
        except AWAY as error:
            raise BrokerUnavailableError(f"{self._called}: Redis at {self._name} cannot be reached: {error}") from None
        except redis.RedisError as error:
            raise BrokerError(f"{self._called}: Redis at {self._name} refuses: {error}") from None


def _id(name: str) -> tuple[int, int]:
    """An entry's id as it is ordered."""
    milliseconds, _, number = name.partition("-")
    return int(milliseconds), int(number or 0)
