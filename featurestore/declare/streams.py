"""Streams of a broker that feed push sources: what their messages mean. Where the broker is, `[brokers]` of featurestore.toml says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypedDict, Unpack

from pydantic import AfterValidator, BeforeValidator, Field

from featurestore.declare.declaration import ColumnName, Declaration, declares

OFFSET, PARTITION, TIMESTAMP, KEY = "$offset", "$partition", "$timestamp", "$key"
"""What a column may be of a message beside its fields."""


def _path(value: str) -> str:
    if not value or "" in value.split("."):
        raise ValueError(f"{value!r} names no field of a message; one within another is written 'outer.inner'")
    first = value.split(".", maxsplit=1)[0]
    if first.startswith("$") and (first not in {OFFSET, PARTITION, TIMESTAMP, KEY} or first not in {value, KEY}):
        raise ValueError(
            f"{value!r} is nothing of a message; beside its fields there are $offset, $partition, $timestamp, $key, and $key.field"
        )
    return value


def _names(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class StreamOptions(TypedDict, total=False):
    """What streams of all brokers say."""

    format: Literal["json", "avro", "arrow"]
    """What a message is: a JSON object, Avro in the wire form of a schema registry, or an Arrow IPC stream of many rows. "json"
    where nothing is said."""
    fields: Mapping[str, str]
    """By column the field of a message where that is called otherwise: "outer.inner" within another, or "$key", "$key.field",
    "$timestamp" (when the message was written), "$partition", "$offset"."""
    ignore: str | list[str] | tuple[str, ...]
    """Fields of messages that are no columns, or "*": whatever is none. A message with any other is refused, as a push is."""
    start: Literal["first", "last"]
    """Where reading begins that never began: with the first message there is, or with those that come after. "first" where
    nothing is said."""


class Stream(Declaration):
    """A stream of messages, each of which is a row, or several."""

    kind: str
    broker: Annotated[str, Field(min_length=1)]
    """The name that `[brokers]` of featurestore.toml has for where it lies."""
    format: Literal["json", "avro", "arrow"] = "json"
    fields: dict[ColumnName, Annotated[str, AfterValidator(_path)]] = {}
    ignore: Annotated[tuple[str, ...], BeforeValidator(_names)] = ()
    start: Literal["first", "last"] = "first"

    @property
    def called(self) -> str:
        """Its name at its broker."""
        raise NotImplementedError

    @property
    def title(self) -> str:
        """Its class and its name at its broker, for messages."""
        return f"{type(self).__name__} '{self.called}'"


class KafkaStream(Stream):
    """A topic of Kafka: `KafkaStream("swipes", broker="events")`. It takes the extra `kafka`.

    A message without a value is a deletion, where the source says `deleted`: the columns that `fields` reads of the key say of what.
    """

    kind: Literal["kafka"] = "kafka"
    """Which of the streams it is."""
    topic: Annotated[str, Field(min_length=1)]
    """The topic's name."""

    @property
    def called(self) -> str:
        """The topic's name."""
        return self.topic

    @declares
    def __init__(self, topic: str, *, broker: str, **options: Unpack[StreamOptions]) -> None:
        self.fill(topic=topic, broker=broker, **options)


class RedisStream(Stream):
    """A Redis Stream: `RedisStream("swipes", broker="cache")`, entries of which have a message in one of their fields."""

    kind: Literal["redis"] = "redis"
    """Which of the streams it is."""
    key: Annotated[str, Field(min_length=1)]
    """The key in Redis under which it lies."""
    field: str = "data"
    """The field of an entry that has the message; the other fields are not read."""

    @property
    def called(self) -> str:
        """The key in Redis."""
        return self.key

    @declares
    def __init__(self, key: str, *, broker: str, field: str = "data", **options: Unpack[StreamOptions]) -> None:
        self.fill(key=key, broker=broker, field=field, **options)
