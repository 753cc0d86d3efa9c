"""The streams of a project's push sources, each read by a consumer of its own, in a thread of this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from featurestore.declare.push import PushSource
from featurestore.declare.streams import KafkaStream, RedisStream, Stream
from featurestore.errors import ConfigError, NotFoundError, PushError, did_you_mean
from featurestore.lazy import pa
from featurestore.online import OnlineStore
from featurestore.push.push_queue import Advance, PushAnswer
from featurestore.push.push_sources import Pushing
from featurestore.push.pushed import Pushed
from featurestore.streams.consumer import Consumed, ConsumeOptions, Consumer
from featurestore.streams.decoder import Decoder, Read, read_object, read_table
from featurestore.streams.membership import Membership, consumers_key
from featurestore.streams.poison import Poison
from featurestore.streams.reader import StreamReader

Settings = Mapping[str, Mapping[str, str]]
"""By broker what `[brokers]` of featurestore.toml says of it."""


class StreamProject(NamedTuple):
    """What consumers work on. told: called with what became of the rows of each push."""

    name: str
    pushing: Pushing
    online: OnlineStore
    poison: Poison
    brokers: Settings
    told: Callable[[str, Pushed], object]


class _SourceLog:
    """The push log of one source, for its consumer."""

    def __init__(self, project: StreamProject, source: str) -> None:
        self._project, self._source = project, source

    def submit(self, rows: pa.Table, advance: Advance) -> PushAnswer:
        answer = self._project.pushing.submit(self._source, rows, advance=advance)
        if rows.num_rows:
            answer.add_done_callback(self._tell)
        return answer

    def _tell(self, answer: object) -> None:
        assert isinstance(answer, PushAnswer)
        if not answer.cancelled() and answer.exception() is None:
            self._project.told(self._source, answer.result())

    def positions(self) -> dict[str, str]:
        return self._project.pushing.positions(self._source)

    def is_open(self) -> bool:
        return self._project.pushing.is_open(self._source)


def streamed(pushing: Pushing, names: Sequence[str] | None) -> list[PushSource]:
    """The applied push sources that have a stream, only those named. NotFoundError, PushError."""
    known = {source.name: source for source in pushing.sources()}
    for name in names or ():
        if name not in known:
            raise NotFoundError(f"No push source '{name}' was applied.{did_you_mean(name, known, noun='Push sources')}")
        if known[name].stream is None:
            raise PushError(
                f"{known[name].title} has no stream: say stream=KafkaStream(…) or RedisStream(…), and apply"
            )
    return [source for source in known.values() if source.stream is not None and (not names or source.name in names)]


def consume(
    project: StreamProject, sources: Sequence[PushSource], *, stop: threading.Event, options: ConsumeOptions
) -> dict[str, Consumed]:
    """Push what the streams of sources have, until `stop` is set; what was done, by source. Where one cannot go on, the others stop
    too, and its error is raised."""
    consumers = {
        source.name: _consumer(project, source, options) for source in sources
    }  # what is wrong is told before any begins

    def run(name: str) -> Consumed:
        try:
            return consumers[name].consume(stop)
        except BaseException:
            stop.set()
            raise

    with ThreadPoolExecutor(max(1, len(consumers)), "featurestore consume") as threads:
        running = {name: threads.submit(run, name) for name in consumers}
        try:
            for one in running.values():
                one.exception()
        except BaseException:
            stop.set()
            raise
    return {name: one.result() for name, one in running.items()}


def _consumer(project: StreamProject, source: PushSource, options: ConsumeOptions) -> Consumer:
    stream = source.stream
    assert stream is not None
    settings = _settings(project, stream)
    return Consumer(
        source, log=_SourceLog(project, source.name), reader=_reader(stream, settings),
        decoder=decoder_of(project, source), poison=project.poison,
        membership=Membership(project.online, consumers_key(project.name, source.name)), options=options,
    )  # fmt: skip


def decoder_of(project: StreamProject, source: PushSource) -> Decoder:
    """What reads the messages of a source's stream. ConfigError, where its broker is not configured."""
    stream = source.stream
    assert stream is not None
    return Decoder(source, stream, _read(stream, _settings(project, stream)))


def _settings(project: StreamProject, stream: Stream) -> Mapping[str, str]:
    if stream.broker not in project.brokers:
        hint = did_you_mean(stream.broker, project.brokers, noun="Brokers")
        raise ConfigError(
            f"{stream.title}: featurestore.toml has no [brokers.{stream.broker}], which says where it lies.{hint}"
        )
    return project.brokers[stream.broker]


def _reader(stream: Stream, settings: Mapping[str, str]) -> StreamReader:
    if isinstance(stream, RedisStream):
        from featurestore.streams.redis_reader import RedisReader

        return RedisReader(stream, settings)
    from featurestore.streams.kafka_reader import KafkaReader

    assert isinstance(stream, KafkaStream)
    return KafkaReader(stream, settings)


def _read(stream: Stream, settings: Mapping[str, str]) -> Read:
    """What the bytes of its messages say."""
    if stream.format == "avro":
        from featurestore.streams.avro_decoder import AvroDecoder
        from featurestore.streams.schema_registry import SchemaRegistry

        return AvroDecoder(SchemaRegistry(settings, f"{stream.title}: brokers.{stream.broker}"))
    return read_table if stream.format == "arrow" else read_object
