"""A topic of Kafka, read by librdkafka from places that are ours: partitions are assigned, no group is joined, and nothing is committed."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

from featurestore.declare.streams import KafkaStream
from featurestore.errors import (
    BrokerError,
    BrokerUnavailableError,
    ConfigError,
    MessagesLostError,
    MissingPackageError,
    StreamReplacedError,
)
from featurestore.plurals import plural
from featurestore.streams.reader import Message, PartitionLag, Place

try:
    import confluent_kafka as kafka
    from confluent_kafka.admin import AdminClient
except ImportError as error:
    raise MissingPackageError(f"Kafka needs {error.name}: pip install 'featurestore[kafka]'") from error

LOGGER = logging.getLogger("featurestore.streams.kafka")

SECONDS = 10.0
"""How long a question to the broker may take."""

FIRST_ASK_SECONDS, ASK_SECONDS = 2.0, 20.0
"""How long a topic's id is waited for at first; and after how long it is asked for again, for which nobody waits."""

DEFAULTS = {
    "client.id": "featurestore",
    "group.id": "featurestore",
    "isolation.level": "read_committed",
    "queued.max.messages.kbytes": "16384",
}
"""What librdkafka is told where `[brokers]` says nothing else: aborted transactions are not read; memory for what is fetched ahead."""

OURS = {
    "enable.auto.commit": "false", "enable.auto.offset.store": "false", "auto.offset.reset": "error", "enable.partition.eof": "true",
}  # fmt: skip
"""What it is told in any case: where reading goes on is ours to say, and a place that is gone is an error."""

OF_CONSUMERS = {"isolation.level", "group.id", "queued.max.messages.kbytes"}
"""Settings that say nothing to a client that asks for a topic's id."""

REGISTRY = "schema.registry."
"""How the settings begin that are not librdkafka's."""

GONE = {kafka.KafkaError._AUTO_OFFSET_RESET, kafka.KafkaError.OFFSET_OUT_OF_RANGE}
NO_TOPIC = {
    kafka.KafkaError.UNKNOWN_TOPIC_OR_PART,
    kafka.KafkaError._UNKNOWN_TOPIC,
    kafka.KafkaError._UNKNOWN_PARTITION,
}


class KafkaReader:
    """Reads partitions of a topic."""

    def __init__(self, stream: KafkaStream, settings: Mapping[str, str]) -> None:
        self._stream, self._called = stream, stream.title
        said = {name: value for name, value in settings.items() if not name.startswith(REGISTRY)}
        if "bootstrap.servers" not in said:
            raise ConfigError(
                f'{stream.title}: brokers.{stream.broker} of featurestore.toml has no "bootstrap.servers" = "host:9092"'
            )
        for name in sorted(said.keys() & OURS.keys()):
            raise ConfigError(
                f"{stream.title}: brokers.{stream.broker}: '{name}' is not to be set: it is always {OURS[name]} here"
            )
        self._trouble = ""
        options: dict[str, Any] = {**DEFAULTS, **said, **OURS, "error_cb": self._failed, "logger": LOGGER}
        try:
            self._consumer = kafka.Consumer(options)
            self._admin = AdminClient(
                {**{name: value for name, value in said.items() if name not in OF_CONSUMERS}, "logger": LOGGER}
            )
        except kafka.KafkaException as error:
            raise ConfigError(f"{stream.title}: brokers.{stream.broker}: {_text(error)}") from None
        self._cluster = ""
        self._identity: str | None = None
        self._asked: Any = None
        self._ask_at = 0.0
        self._places: dict[int, Place] = {}
        self._at_end: set[int] = set()
        self._wrong: list[Any] = []

    def close(self) -> None:
        """Let go of the broker."""
        self._consumer.close()

    def _failed(self, error: Any) -> None:
        """What librdkafka has to say of a broker, in a thread of its own."""
        self._trouble = error.str()

    def partitions(self) -> list[int]:
        """Those of the topic, as the broker says now."""
        try:
            told = self._consumer.list_topics(self._stream.topic, timeout=SECONDS)
            topic = told.topics.get(self._stream.topic)
            self._cluster = told.cluster_id or ""
        except kafka.KafkaException as error:
            raise self._error(error.args[0]) from None
        if topic is None or topic.error is not None:
            raise self._error(
                kafka.KafkaError(kafka.KafkaError.UNKNOWN_TOPIC_OR_PART) if topic is None else topic.error
            )
        return sorted(topic.partitions)

    def identity(self) -> str:
        """The cluster's id and the topic's, as they were told last; "" where the broker has none, or has not told yet."""
        if self._asked is None and time.monotonic() >= self._ask_at:
            names = kafka.TopicCollection([self._stream.topic])
            self._asked = self._admin.describe_topics(names, request_timeout=SECONDS)[self._stream.topic]
            self._ask_at = time.monotonic() + ASK_SECONDS
        if self._asked is not None:
            try:
                told = self._asked.result(0 if self._identity is not None else FIRST_ASK_SECONDS)
            except FutureTimeoutError:
                self._identity = self._identity or ""
            except (kafka.KafkaException, ValueError):  # it knows no such question
                self._asked, self._identity = None, self._identity or ""
            else:
                found = str(getattr(told, "topic_id", None) or "")
                self._asked, self._identity = None, "" if set(found) <= {"A", "="} else found  # zeros: there is none
        return f"{self._cluster}/{self._identity or ''}"

    def assign(self, places: Mapping[int, Place]) -> dict[int, str]:
        """Read these partitions alone, from their places."""
        begins: dict[int, str] = {}
        for number, place in places.items():
            begins[number] = self._begin(number) if place.at is None else place.at
        self._places = {number: place._replace(at=begins[number]) for number, place in places.items()}
        self._at_end.clear()
        self._wrong.clear()
        try:
            self._consumer.assign(
                [kafka.TopicPartition(self._stream.topic, number, int(at)) for number, at in begins.items()]
            )
        except kafka.KafkaException as error:
            raise self._error(error.args[0]) from None
        return begins

    def _begin(self, number: int) -> str:
        first, end = self._ends(number)
        return str(end if self._stream.start == "last" else first)

    def _ends(self, number: int) -> tuple[int, int]:
        """The offsets of the first message and behind the last one, as the broker says now."""
        try:
            found = self._consumer.get_watermark_offsets(
                kafka.TopicPartition(self._stream.topic, number), timeout=SECONDS
            )
        except kafka.KafkaException as error:
            raise self._error(error.args[0]) from None
        if found is None:
            raise BrokerUnavailableError(
                f"{self._called}: the broker does not answer where partition {number} begins and ends"
            )
        return int(found[0]), int(found[1])

    def read(self, most: int, seconds: float) -> Sequence[Message]:
        """The next messages, of all partitions that are read."""
        try:
            polled = self._consumer.consume(most, seconds)
        except kafka.KafkaException as error:
            raise self._error(error.args[0]) from None
        found: list[Message] = []
        for one in polled:
            told = one.error()
            if told is None:
                self._add(found, one)
            elif told.code() == kafka.KafkaError._PARTITION_EOF:
                self._at_end.add(one.partition())
            else:
                self._wrong.append(one)
        if self._wrong and not found:
            self._raise(self._wrong.pop(0))
        return found

    def _add(self, found: list[Message], one: Any) -> None:
        """Take a message that comes after those before it: librdkafka may deliver one again, or of what was read before."""
        number = one.partition()
        place = self._places.get(number)
        if place is not None and one.offset() >= int(place.at or 0):
            found.append(_message(one))
            self._places[number] = place._replace(at=found[-1].after)
            self._at_end.discard(number)

    def _raise(self, told: Any) -> None:
        error, number = told.error(), told.partition()
        if error.code() in GONE and number in self._places:
            raise self._gone(number)
        raise self._error(error)

    def _gone(self, number: int) -> BrokerError:
        """What it means that the broker has nothing at a partition's place."""
        first, end = self._ends(number)
        at = int(self._places[number].at or 0)
        where = f"{self._called}, partition {number}"
        if at < first:
            return MessagesLostError(
                f"{where}: {first - at} {plural(first - at, 'offset')}, from {at} on, {plural(first - at, 'was', 'were')} deleted by the broker before anybody read that; the first that it has "
                f"is {first}. To go on there: featurestore consume --skip-lost",
                partition=number, place=str(first), lost=first - at,
            )  # fmt: skip
        return StreamReplacedError(
            f"{where} ends at offset {end}, and was read up to {at}: the topic was deleted and made again, or has lost its end. "
            "Nothing was read of it. To read it from its beginning: featurestore consume --begin-again",
            partition=number,
        )

    def lags(self) -> dict[int, PartitionLag]:
        """How many offsets lie between each place and the end, as far as the broker has told with its messages. A partition is at its
        end where the broker said so."""
        found = {}
        for number, place in self._places.items():
            if number in self._at_end:
                found[number] = PartitionLag(0)
                continue
            partition = kafka.TopicPartition(self._stream.topic, number)
            try:
                ends = self._consumer.get_watermark_offsets(partition, cached=True)
            except kafka.KafkaException:
                ends = None
            lag = 0 if ends is None else int(ends[1]) - int(place.at or 0)
            found[number] = PartitionLag(lag if lag > 0 else None)
        return found

    def _error(self, error: Any) -> BrokerError:
        """What the broker, or librdkafka, says, as an error of ours."""
        if error.code() in NO_TOPIC:
            return BrokerUnavailableError(
                f"{self._called}: there is no such topic at the broker just now ({error.str()})"
            )
        trouble = f"; {self._trouble}" if self._trouble and self._trouble != error.str() else ""
        self._trouble = ""
        if error.retriable() or error.code() in _AWAY:
            return BrokerUnavailableError(f"{self._called}: the broker cannot be reached: {error.str()}{trouble}")
        return BrokerError(f"{self._called}: the broker refuses: {error.str()}{trouble}")


_AWAY = {
    getattr(kafka.KafkaError, name)
    for name in ("_TRANSPORT", "_ALL_BROKERS_DOWN", "_TIMED_OUT", "_RESOLVE", "_MAX_POLL_EXCEEDED", "_WAIT_COORD", "_DESTROY",
                 "LEADER_NOT_AVAILABLE", "NOT_LEADER_FOR_PARTITION", "REQUEST_TIMED_OUT", "BROKER_NOT_AVAILABLE", "_LEADER_NOT_AVAILABLE")
    if hasattr(kafka.KafkaError, name)
}  # fmt: skip
"""What passes by itself."""


def _message(one: Any) -> Message:
    kind, milliseconds = one.timestamp()
    offset = one.offset()
    return Message(
        one.partition(), str(offset), str(offset + 1), one.key(), one.value(),
        None if kind == kafka.TIMESTAMP_NOT_AVAILABLE else milliseconds,
    )  # fmt: skip


def _text(error: Any) -> str:
    told = error.args[0]
    return str(told.str() if hasattr(told, "str") else told)
