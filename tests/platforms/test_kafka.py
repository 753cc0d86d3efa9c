"""Topics of Kafka that feed a push source, read from two brokers of its protocol: Tansu, and the one inside of librdkafka."""

from __future__ import annotations

import io
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import confluent_kafka
import fastavro
import pyarrow as pa
import pytest
from confluent_kafka import Producer

from featurestore import FeatureStore, KafkaStream
from featurestore.declare.streams import Stream
from featurestore.errors import ConfigError, MessagesLostError, StreamReplacedError
from featurestore.streams import consumer, kafka_reader
from featurestore.streams.consumer import Consumed
from featurestore.types import parse_type
from tests.platforms.conftest import Told
from tests.platforms.kafka_brokers import QUIET, Broker, librdkafka, tansu
from tests.servers import ROOT, PostgresServer, RedisServer
from tests.streams.shop import configure, declared, logged, served, text

RAN = "its client; the brokers are Tansu and librdkafka's own"
STREAM = KafkaStream("swipes", broker="events")


@pytest.fixture(params=[tansu, librdkafka], ids=["tansu", "librdkafka"])
def broker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    """A broker with a topic `swipes` of several partitions."""
    monkeypatch.setattr(kafka_reader, "FIRST_ASK_SECONDS", 0.2)  # neither tells the id of a topic
    with request.param() as found:
        if request.param is tansu:
            found.create("swipes", 4)
        yield found


@pytest.fixture
def own() -> Iterator[Broker]:
    """Tansu alone, for what takes deleting or making topics."""
    with tansu() as found:
        yield found


def lines(broker: Broker, *more: str) -> list[str]:
    return ["[brokers.events]", f'"bootstrap.servers" = "{broker.address}"', *more]


def messages(begin: int, end: int, **more: Any) -> Iterator[tuple[bytes, bytes]]:
    return ((f"k{number % 7}".encode(), text(number, **more)) for number in range(begin, end))


def consumed(store: FeatureStore, **options: Any) -> Consumed:
    return store.consume(until_end=True, **options)["swipes"]


def told(tell: Told, compared: int) -> None:
    tell("kafka", version=f"confluent-kafka {version('confluent-kafka')}", ran=RAN, compared=compared)


def until(holds: Callable[[], bool], *threads: threading.Thread) -> None:
    deadline = time.monotonic() + 600
    while not holds():
        assert all(thread.is_alive() for thread in threads)
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_topic_becomes_rows(broker: Broker, tmp_path: Path, tell: Told) -> None:
    """Each message of each partition is a row, once, in the order of its partition; lookups and training count it."""
    configure(tmp_path, *lines(broker))
    with FeatureStore(tmp_path) as store:
        store.apply([declared(STREAM)])
        broker.write("swipes", messages(0, 500))
        done = consumed(store)
        assert (done.messages, done.accepted) == (500, 500)
        assert sorted(logged(store)) == list(range(500))
        for key in range(7):
            of_key = [number for number in logged(store) if number % 7 == key]
            assert of_key == sorted(of_key)
        assert served(store) == 500
        broker.write("swipes", messages(500, 520))
    with FeatureStore(tmp_path) as store:
        assert consumed(store).accepted == 20
        assert consumed(store).messages == 0
        assert (sorted(logged(store)), served(store)) == (list(range(520)), 520)
    told(tell, 520)


def test_what_is_delivered_twice_counts_once(broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """librdkafka may deliver a message again, at once or later, and messages of partitions that are read no more."""
    configure(tmp_path, *lines(broker))
    init = kafka_reader.KafkaReader.__init__
    before: list[Any] = []

    class Twice:
        def __init__(self, consumer: Any) -> None:
            self._consumer = consumer

        def __getattr__(self, name: str) -> Any:
            return getattr(self._consumer, name)

        def consume(self, *args: Any) -> list[Any]:
            polled = self._consumer.consume(*args)
            before.extend(polled[:3])
            return [*polled, *polled, *before]

    def made(self: kafka_reader.KafkaReader, *args: Any) -> None:
        init(self, *args)
        self._consumer = Twice(self._consumer)

    monkeypatch.setattr(kafka_reader.KafkaReader, "__init__", made)
    with FeatureStore(tmp_path) as store:
        store.apply([declared(STREAM)])
        broker.write("swipes", messages(0, 50))
        assert consumed(store).messages == 50
        broker.write("swipes", messages(50, 60))
        assert consumed(store).messages == 10
        assert sorted(logged(store)) == list(range(60))


def test_deletions_keys_and_places(broker: Broker, tmp_path: Path) -> None:
    """A message without a value deletes what its key names; key, time, partition and offset are columns where that is said."""
    schema = {
        "card": "String",
        "at": "Timestamp",
        "amount": "Float64",
        "void": "Bool",
        "part": "Int64",
        "place": "Int64",
    }
    fields = {"card": "$key", "at": "$timestamp", "part": "$partition", "place": "$offset"}
    types = {name: parse_type(of) for name, of in schema.items()}
    stream = KafkaStream("swipes", broker="events", fields=fields)
    configure(tmp_path, *lines(broker))
    with FeatureStore(tmp_path) as store:
        store.apply([declared(stream, schema=types, identity=["card"])])
        at = int(datetime.now(UTC).timestamp() * 1000) - 5_000
        pairs = [(b"c1", b'{"amount": 1}'), (b"c2", b'{"amount": 2}'), (b"c1", None), (None, None)]
        broker.write("swipes", pairs, partition=1, timestamp=at)
        assert consumed(store) == (4, 3, 0, 0, 1, 0)
        rows = store.offline.log(store.catalog.sources["swipes"]).read().to_pylist()
        assert [(row["card"], row["part"], row["place"]) for row in rows[:2]] == [("c1", 1, 0), ("c2", 1, 1)]
        assert int(rows[0]["at"].timestamp() * 1000) == at
        assert served(store) == 1
        (one,) = store.poison("swipes")
        assert (one.message.partition, one.message.offset, one.message.value) == (1, "3", None)


def test_aborted_transactions_are_not_read(broker: Broker, tmp_path: Path) -> None:
    """What a producer took back never counts, and does not hold up what comes after it."""
    configure(tmp_path, *lines(broker))
    producer = Producer({"bootstrap.servers": broker.address, "transactional.id": "t1", **QUIET})
    producer.init_transactions(120)
    for number, keep in enumerate((True, False, True)):
        producer.begin_transaction()
        producer.produce("swipes", key=b"k", value=text(number))
        producer.flush(120)
        producer.commit_transaction(120) if keep else producer.abort_transaction(120)
    with FeatureStore(tmp_path) as store:
        store.apply([declared(STREAM)])
        assert consumed(store).accepted in {2, 3}
        assert set(logged(store)) in ({0, 2}, {0, 1, 2})  # neither broker says which transactions were aborted
        assert consumed(store).messages == 0


def test_several_consumers_share_the_partitions(
    broker: Broker, tmp_path: Path, tell: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three processes' worth of consumers, of which one leaves and one comes: every message counts once, whoever reads it."""
    monkeypatch.setattr(consumer, "SIGN_UP_SECONDS", 0.3)
    configure(tmp_path, *lines(broker))
    stores = [FeatureStore(tmp_path) for _ in range(3)]
    stores[0].apply([declared(STREAM)])
    stops = [threading.Event() for _ in stores]
    failed: list[BaseException] = []

    def run(store: FeatureStore, stop: threading.Event) -> None:
        try:
            store.consume(stop)
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=run, args=pair) for pair in zip(stores, stops, strict=True)]
    written = 0
    with FeatureStore(tmp_path) as look:
        try:
            for turn in range(3):
                threads[turn].start()
                broker.write("swipes", messages(written, written + 150))
                written += 150
                until(lambda: len(logged(look)) >= written or bool(failed))
            assert not failed
            stops[0].set()
            threads[0].join()
            broker.write("swipes", messages(written, written + 150))
            written += 150
            until(lambda: len(logged(look)) >= written, *threads[1:])
            (view,) = look.status()
            assert view.pushes is not None
            assert len(view.pushes.partitions) == 4
        finally:
            for stop, thread in zip(stops, threads, strict=True):
                stop.set()
                if thread.ident is not None:
                    thread.join()
            for store in stores:
                store.close()
        assert sorted(logged(look)) == list(range(written))
        assert served(look) == written
    told(tell, written)


def test_partitions_that_are_added_are_read_from_their_first_message(
    own: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a consumer runs, a topic gets partitions more: their messages count. Neither broker adds any, so it is told of one at first."""
    monkeypatch.setattr(consumer, "SIGN_UP_SECONDS", 0.3)
    monkeypatch.setattr(kafka_reader, "FIRST_ASK_SECONDS", 0.2)
    own.create("swipes", 3)
    configure(tmp_path, *lines(own))
    store, stop = FeatureStore(tmp_path), threading.Event()
    store.apply([declared(STREAM)])
    partitions, known = kafka_reader.KafkaReader.partitions, [1]
    monkeypatch.setattr(kafka_reader.KafkaReader, "partitions", lambda self: partitions(self)[: known[0]])
    thread = threading.Thread(target=lambda: store.consume(stop))
    thread.start()
    with FeatureStore(tmp_path) as look:
        try:
            own.write("swipes", messages(0, 5), partition=0)
            until(lambda: len(logged(look)) == 5, thread)
            own.write("swipes", messages(5, 8), partition=2)
            known[0] = 3
            until(lambda: len(logged(look)) == 8, thread)
        finally:
            stop.set()
            thread.join()
            store.close()
        assert sorted(logged(look)) == list(range(8))


def test_a_topic_that_was_made_again_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By an end before the place that was read, and by another id where the broker has ids; on request it is read from its beginning."""
    monkeypatch.setattr(kafka_reader, "FIRST_ASK_SECONDS", 0.2)
    with librdkafka() as broker:
        configure(tmp_path, *lines(broker))
        with FeatureStore(tmp_path) as store:
            store.apply([declared(STREAM)])
            broker.write("swipes", messages(0, 5), partition=0)
            assert consumed(store).accepted == 5
    with librdkafka() as broker:
        configure(tmp_path, *lines(broker))
        with FeatureStore(tmp_path) as store:
            broker.write("swipes", messages(10, 12), partition=0)
            identity = kafka_reader.KafkaReader.identity
            with pytest.raises(StreamReplacedError, match="another topic of that name"):  # the cluster has another id
                consumed(store)
            monkeypatch.setattr(kafka_reader.KafkaReader, "identity", lambda _: "")  # as of brokers without ids
            with pytest.raises(StreamReplacedError, match="ends at offset 2, and was read up to 5"):
                store.consume(threading.Event())
            monkeypatch.setattr(kafka_reader.KafkaReader, "identity", identity)
            assert consumed(store, begin_again=True).accepted == 2
            assert logged(store) == [*range(5), 10, 11]
            monkeypatch.setattr(kafka_reader.KafkaReader, "identity", lambda _: "/one")
            broker.write("swipes", messages(12, 13), partition=0)
            assert consumed(store).accepted == 1
            monkeypatch.setattr(kafka_reader.KafkaReader, "identity", lambda _: "/another")
            with pytest.raises(StreamReplacedError, match="another topic of that name"):
                consumed(store)


def test_messages_that_retention_deleted_are_an_error_or_counted(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the broker begins after the place that was read: an error that says how many; on request it goes on, and that is counted."""
    configure(tmp_path, *lines(broker))
    with FeatureStore(tmp_path) as store:
        store.apply([declared(STREAM)])
        broker.write("swipes", messages(0, 5), partition=0)
        assert consumed(store).accepted == 5
        broker.write("swipes", messages(5, 9), partition=0)
        found: list[Any] = [_Gone(0)]
        read = kafka_reader.KafkaReader.read

        def reading(self: kafka_reader.KafkaReader, most: int, seconds: float) -> Any:
            if found and int(self._places.get(0, kafka_reader.Place("9")).at or 9) < 7:
                self._raise(found[0])
            return read(self, most, seconds)

        monkeypatch.setattr(kafka_reader.KafkaReader, "read", reading)
        monkeypatch.setattr(kafka_reader.KafkaReader, "_ends", lambda *_: (7, 9))
        with pytest.raises(MessagesLostError, match="2 offsets, from 5 on"):
            consumed(store)
        done = consumed(store, skip_lost=True)
        assert (done.accepted, done.lost) == (2, 2)
        assert logged(store) == [*range(5), 7, 8]
        (view,) = store.status()
        assert view.pushes is not None
        assert view.pushes.partitions[0].lost == 2


class _Gone:
    """What librdkafka delivers where the broker has nothing at a place: neither broker here ever deletes anything."""

    def __init__(self, partition: int) -> None:
        self.partition = lambda: partition
        self.error = lambda: confluent_kafka.KafkaError(confluent_kafka.KafkaError._AUTO_OFFSET_RESET)


def test_a_broker_that_stands_still_is_waited_for(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is lost, the partition is told as behind meanwhile, and it goes on by itself."""
    monkeypatch.setattr(consumer, "SIGN_UP_SECONDS", 0.3)
    monkeypatch.setattr(consumer, "LONGEST_PAUSE_SECONDS", 0.3)
    monkeypatch.setattr(kafka_reader, "SECONDS", 1.0)
    configure(tmp_path, *lines(broker, '"socket.timeout.ms" = 2000'))
    store, stop = FeatureStore(tmp_path), threading.Event()
    store.apply([declared(STREAM)])
    broker.write("swipes", messages(0, 10))
    thread = threading.Thread(target=lambda: store.consume(stop))
    thread.start()
    with FeatureStore(tmp_path) as look:

        def behind() -> list[int | None]:
            (view,) = look.status()
            return [] if view.pushes is None else [one.behind for one in view.pushes.partitions]

        try:
            until(lambda: len(logged(look)) == 10, thread)
            until(lambda: behind() == [0] * 4, thread)
            with broker.silent():
                until(lambda: all(one is not None and one > 0 for one in behind()), thread)
            broker.write("swipes", messages(10, 20))
            until(lambda: len(logged(look)) == 20, thread)
        finally:
            stop.set()
            thread.join()
            store.close()
        assert sorted(logged(look)) == list(range(20))


@pytest.mark.parametrize("log", ["file", "postgresql"])
def test_kill_9_again_and_again(tmp_path: Path, log: str, tell: Told) -> None:
    """Two consumer processes are killed at any moment, with the log in a folder and in PostgreSQL: each message counts once, and the
    audit finds no skew."""
    chosen, written = random.Random(log), 0
    with tansu() as broker, PostgresServer() as postgres, RedisServer() as redis:
        broker.create("swipes", 4)
        more = [f'registry = "{postgres.url}"', f'push_log = "{postgres.url}"'] if log == "postgresql" else []
        settings = [*more, "[serving_log]", "rate = 1", *lines(broker)]
        configure(tmp_path, *settings, online=redis.url if more else "lmdb://online", project=f"kafka_{log}")
        with FeatureStore(tmp_path) as store:
            store.apply([declared(STREAM)])
            running: list[subprocess.Popen[bytes]] = []
            try:
                for _ in range(6):
                    running += [started(tmp_path) for _ in range(2 - len(running))]
                    broker.write("swipes", messages(written, written + 300))
                    written += 300
                    least = len(logged(store)) + chosen.randint(1, 300)
                    until(lambda: len(logged(store)) >= min(least, written))
                    served(store)
                    victim = running.pop(chosen.randrange(len(running)))
                    victim.kill()
                    victim.communicate()
                running.append(started(tmp_path))
                until(lambda: len(logged(store)) >= written)
                until(
                    lambda: served(store) >= written
                )  # what was logged by one that was killed then is written by another one
            finally:
                for process in running:
                    process.send_signal(signal.SIGTERM)
                    process.communicate(timeout=600)
            assert sorted(logged(store)) == list(range(written))
            assert served(store) == written
            audit = store.audit()
            assert (audit.skewed, audit.compared > 0) == (0, True)
            told(tell, written + audit.compared)


def started(folder: Path) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "featurestore", "--repo", str(folder), "consume", "--quiet"]
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Registry(ThreadingHTTPServer):
    """A schema registry as Confluent's answers: GET /schemas/ids/N, and /subjects/S/versions/V for references."""

    daemon_threads = True

    def __init__(self) -> None:
        self.schemas: dict[str, dict[str, Any]] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.fails = 0
        super().__init__(("127.0.0.1", 0), _Answers)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Answers(BaseHTTPRequestHandler):
    server: Registry

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        found = self.server.schemas.get(self.path)
        code = 503 if self.server.fails else 200 if found is not None else 404
        self.server.fails = max(0, self.server.fails - 1)
        body = json.dumps(found if code == 200 else {"error_code": code, "message": "no"}).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


CARD = {"type": "record", "name": "shop.Card", "fields": [{"name": "number", "type": "string"}]}
SWIPE = {
    "type": "record",
    "name": "shop.Swipe",
    "fields": [
        {"name": "swipe", "type": "long"},
        {"name": "card", "type": "shop.Card"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "amount", "type": ["null", "double"], "default": None},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "void", "type": "boolean"},
    ],
}


def avro(schema: Any, number: int, value: Any) -> bytes:
    named: dict[str, Any] = {}
    fastavro.parse_schema(CARD, named_schemas=named)
    written = io.BytesIO()
    fastavro.schemaless_writer(written, fastavro.parse_schema(schema, named_schemas=named), value)
    return b"\0" + number.to_bytes(4, "big") + written.getvalue()


def test_avro_with_a_schema_registry(
    broker: Broker, tmp_path: Path, tell: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each message is read by the schema that it names, references included; a schema that changed is another number. What is no such
    message is kept aside, and a registry that is away is waited for."""
    monkeypatch.setattr(consumer, "LONGEST_PAUSE_SECONDS", 0.2)
    types = {
        "swipe": "Int64",
        "card": "String",
        "at": "Timestamp",
        "amount": "Float64",
        "price": "Decimal(9, 2)",
        "void": "Bool",
    }
    schema = {name: parse_type(of) for name, of in types.items()}
    stream = KafkaStream("swipes", broker="events", format="avro", fields={"card": "card.number"})
    with Registry() as registry:
        reference = {"name": "shop.Card", "subject": "card", "version": 3}
        registry.schemas["/schemas/ids/7"] = {"schema": json.dumps(SWIPE), "references": [reference]}
        registry.schemas["/subjects/card/versions/3"] = {"schema": json.dumps(CARD)}
        less = {**SWIPE, "fields": [one for one in SWIPE["fields"] if one["name"] != "amount"]}  # type: ignore[attr-defined]  # fields are dicts
        registry.schemas["/schemas/ids/8"] = {"schema": json.dumps(less), "references": [reference]}
        registry.schemas["/schemas/ids/9"] = {"schema": "syntax = 'proto3';", "schemaType": "PROTOBUF"}
        registry.fails = 2
        more = (f'"schema.registry.url" = "{registry.url}"', '"schema.registry.basic.auth.user.info" = "me:secret"')
        configure(tmp_path, *lines(broker, *more))
        with FeatureStore(tmp_path) as store:
            assert "secret" not in repr(store.config)
            store.apply([declared(stream, schema=schema)])
            at = datetime.now(UTC).replace(microsecond=123_456)
            value = {
                "swipe": 1,
                "card": {"number": "c1"},
                "at": at,
                "amount": 0.1,
                "price": Decimal("9.95"),
                "void": False,
            }
            right = avro(SWIPE, 7, value)
            other = avro(less, 8, {name: one for name, one in value.items() if name != "amount"})
            wrong = [
                b"",
                b"\0\0\0",
                b"{}",
                right[:-3],
                right + b"x",
                avro(SWIPE, 6, value),
                b"\0" + (9).to_bytes(4, "big"),
            ]
            broker.write("swipes", [(None, one) for one in (right, *wrong, other)], partition=0)
            assert consumed(store) == (9, 2, 0, 0, len(wrong), 0)
            rows = store.offline.log(store.catalog.sources["swipes"]).read().to_pylist()
            assert [(row["card"], row["at"], row["amount"], row["price"]) for row in rows] == [
                ("c1", at, 0.1, Decimal("9.95")),
                ("c1", at, None, Decimal("9.95")),
            ]
            reasons = [one.reason for one in store.poison("swipes")]
            for reason, says in zip(
                reasons, ["does not begin"] * 3 + ["is not what", "goes on", "not known", "PROTOBUF"], strict=True
            ):
                assert says in reason
        asked = [path for path, _ in registry.asked if path == "/schemas/ids/7"]
        assert len(asked) == 3  # two that failed
        assert {user for _, user in registry.asked} == {"Basic bWU6c2VjcmV0"}
    told(tell, 2 * len(types))


def test_arrow_has_many_rows_a_message(broker: Broker, tmp_path: Path) -> None:
    """A message is taken as a whole; one of which a row is refused is kept aside as a whole."""
    configure(tmp_path, *lines(broker))
    at = pa.array([datetime.now(UTC)] * 3, pa.timestamp("us", "UTC"))

    def batch(begin: int, card: list[str | None]) -> bytes:
        table = pa.table(
            {"swipe": pa.array(range(begin, begin + 3), pa.int64()), "card": card, "at": at, "amount": [1.0, 2.0, None]}
        )
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        data: bytes = sink.getvalue().to_pybytes()
        return data

    late = batch(6, ["c0", "c1", "c2"])
    with FeatureStore(tmp_path) as store:
        store.apply([declared(KafkaStream("swipes", broker="events", format="arrow"))])
        values = [batch(0, ["c0", "c1", "c2"]), b"nonsense", batch(3, ["c0", None, "c1"]), late[:-40]]
        broker.write("swipes", [(None, one) for one in values], partition=0)
        assert consumed(store) == (4, 6, 0, 0, 2, 0)
        assert (logged(store), served(store)) == (list(range(6)), 5)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ([], 'has no "bootstrap.servers"'),
        (
            ['"bootstrap.servers" = "127.0.0.1:1"', '"enable.auto.commit" = true'],
            "'enable.auto.commit' is not to be set",
        ),
        (['"bootstrap.servers" = "127.0.0.1:1"', '"no.such.setting" = 1'], "no.such.setting"),
    ],
)
def test_settings_that_are_wrong(tmp_path: Path, settings: list[str], says: str) -> None:
    """Are told before anything is read."""
    configure(tmp_path, "[brokers.events]", *settings)
    stream: Stream = STREAM
    with FeatureStore(tmp_path) as store:
        store.apply([declared(stream)])
        with pytest.raises(ConfigError, match=says):
            consumed(store)
