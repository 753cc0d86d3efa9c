"""A Redis Stream that feeds a push source: each entry counts once, whoever dies where; what cannot be taken is kept aside."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from featurestore import FeatureStore, InRange, RedisStream
from featurestore.errors import (
    ConfigError,
    DeposedError,
    MessagesLostError,
    NotFoundError,
    PushError,
    StreamReplacedError,
)
from featurestore.online.lmdb import LmdbStore
from featurestore.online.redis import RedisStore
from featurestore.push.push_batch import PushBatch
from featurestore.sources.log import FileLog, Log
from featurestore.sources.log.postgresql_log import PostgreSQLLog
from featurestore.streams import consumer, membership
from featurestore.streams.consumer import Consumed
from featurestore.streams.poison import Poison
from featurestore.streams.redis_reader import RedisReader
from tests.pushing import Killed
from tests.servers import PostgresServer, RedisServer
from tests.streams.shop import SCHEMA, configure, declared, logged, served, text

NAMES = (f"streams{n}" for n in itertools.count())
STREAM = RedisStream("swipes", broker="cache")


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


Opened = Callable[..., FeatureStore]


@pytest.fixture(params=["file", "postgresql"])
def opened(request: pytest.FixtureRequest, tmp_path: Path, redis: RedisServer) -> Iterator[Opened]:
    """Opens the shop as another process would, with its log in a folder, or in PostgreSQL."""
    with redis.client() as client:
        client.flushall()
    if request.param == "file":
        configure(tmp_path, "[brokers.cache]", f'url = "{redis.url}"')
    else:
        database = request.getfixturevalue("postgres").url
        lines = [f'registry = "{database}"', f'push_log = "{database}"', "[brokers.cache]", f'url = "{redis.url}"']
        configure(tmp_path, *lines, online=redis.url, project=next(NAMES))
    stores: list[FeatureStore] = []

    def open_store() -> FeatureStore:
        stores.append(FeatureStore(tmp_path))
        return stores[-1]

    yield open_store
    for store in stores:
        store.close()


def add(redis: RedisServer, *values: bytes) -> None:
    with redis.client() as client:
        for value in values:
            client.xadd("swipes", {"data": value})


def consumed(store: FeatureStore, **options: Any) -> Consumed:
    return store.consume(until_end=True, **options)["swipes"]


def test_entries_become_rows(opened: Opened, redis: RedisServer) -> None:
    """What was in the stream before counts, what comes later counts when it is read, nothing counts twice; training sees the same."""
    with opened() as store:
        store.apply([declared(STREAM)])
        add(redis, *map(text, range(20)))
        assert consumed(store) == (20, 20, 0, 0, 0, 0)
        assert (logged(store), served(store)) == (list(range(20)), 20)
        assert consumed(store) == (0,) * 6
        add(redis, text(20))
        assert consumed(store)[:2] == (1, 1)
    with opened() as store:
        assert consumed(store) == (0,) * 6
        assert (logged(store), served(store)) == (list(range(21)), 21)


def test_a_start_at_the_end_leaves_out_what_was_there(opened: Opened, redis: RedisServer) -> None:
    """`start="last"`: what comes after the first consumer counts, also after that one ended."""
    with opened() as store:
        store.apply([declared(RedisStream("swipes", broker="cache", start="last"))])
        add(redis, *map(text, range(3)))
        assert consumed(store) == (0,) * 6
        add(redis, *map(text, range(3, 6)))
        assert consumed(store).messages == 3
        assert logged(store) == [3, 4, 5]


def test_retries_corrections_deletions_and_late_rows(opened: Opened, redis: RedisServer) -> None:
    """Messages are pushed by the source's own rules."""
    with opened() as store:
        store.apply([declared(STREAM, identity=["swipe"])])
        old = text(7, minutes=9 * 24 * 60)
        first = text(1)
        add(redis, first, text(2), first, text(2, amount=9.5), text(1, void=True), old)
        assert consumed(store) == (6, 4, 1, 1, 0, 0)
        assert (logged(store, "late"), served(store)) == ([7], 1)


STEPS = ("poison", "late noted", "append", "appended", "confirm", "confirmed", "late", "late kept aside", "late done")


def planted(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Die at one step of the next batch that has rows: before it, or after."""
    appended: list[bool] = []

    def dying(kind: type, name: str, *, after: bool, when: Callable[..., bool] = lambda *_: True) -> None:
        before = getattr(kind, name)

        def die(self: Any, *args: Any, **words: Any) -> Any:
            if not when(*args):
                return before(self, *args, **words)
            if after:
                before(self, *args, **words)
            raise Killed

        monkeypatch.setattr(kind, name, die)

    def noting(kind: type) -> None:
        before = getattr(kind, "append")

        def append(self: Any, batches: Any, *more: Any) -> None:
            before(self, batches, *more)
            appended.extend([True] if batches else [])

        monkeypatch.setattr(kind, "append", append)

    logs, stores = (FileLog, PostgreSQLLog), (LmdbStore, RedisStore)
    if step == "poison":
        dying(Poison, "add", after=True)
    elif step in {"append", "appended"}:
        for log in logs:
            dying(log, "append", after=step == "appended", when=lambda batches, *_: bool(batches))
    elif step in {"confirm", "confirmed"}:
        for log in logs:
            noting(log)
        for store in stores:
            dying(store, "write", after=step == "confirmed", when=lambda *_: bool(appended))
    elif step in {"late noted", "late done"}:
        for log in logs:
            dying(
                log,
                "move",
                after=True,
                when=lambda moves: (" " in moves.get("late", " ")) == (step == "late noted") and "late" in moves,
            )
    else:
        dying(PushBatch, "_keep_aside", after=step == "late kept aside")


@pytest.mark.parametrize("step", STEPS)
def test_whoever_dies_between_two_steps_neither_loses_nor_doubles(
    opened: Opened, redis: RedisServer, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Killed before or after any step of a batch, the next consumer leaves every row, late row, row in quarantine and poison message
    there once; a row that is refused for what it says is such a message."""
    store = opened()
    expected = [InRange("amount", at_most=1000, otherwise="quarantine"), InRange("amount", at_least=0)]
    store.apply([declared(STREAM, expectations=expected)])
    add(redis, text(0))
    assert consumed(store).accepted == 1
    add(redis, *map(text, range(1, 6)), b"nonsense", text(6), text(100, minutes=9 * 24 * 60), text(200, amount=5000.0))
    refused = text(300, amount=-1.0)
    add(redis, refused)
    store._project.pushing._heartbeat.close()  # which would die of what is planted, in a thread of its own
    with monkeypatch.context() as planting:
        planted(planting, step)
        with pytest.raises(Killed):
            consumed(store)
    with opened() as after:
        consumed(after)
        assert logged(after) == list(range(7))
        assert logged(after, "late") == [100]
        assert logged(after, "quarantine") == [200]
        assert [one.message.value for one in after.poison("swipes")] == [b"nonsense", refused]
        assert "does not meet InRange('amount', at_least=0)" in after.poison("swipes")[1].reason
        assert served(after) == 7
        assert consumed(after) == (0,) * 6


def test_a_deposed_consumer_can_keep_nothing(
    opened: Opened, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A consumer that stood still while another took over is refused by the log, and reads nothing any more."""
    first, second = opened(), opened()
    first.apply([declared(STREAM)])
    stop, stands, goes_on = threading.Event(), threading.Event(), threading.Event()
    keep = consumer.Consumer._keep
    deposed: list[DeposedError] = []

    def standing(self: consumer.Consumer, messages: Any) -> None:
        if not stands.is_set():
            stands.set()
            goes_on.wait(600)
        try:
            keep(self, messages)
        except DeposedError as error:
            deposed.append(error)
            raise

    monkeypatch.setattr(consumer.Consumer, "_keep", standing)
    add(redis, *map(text, range(5)))
    thread = threading.Thread(target=lambda: first.consume(stop))
    thread.start()
    assert stands.wait(600)
    monkeypatch.setattr(membership, "signed_up", lambda *_, **__: [])  # its lease has run out
    assert consumed(second).accepted == 5
    monkeypatch.undo()
    goes_on.set()
    try:
        add(redis, text(5))
        while logged(second) != list(range(6)):
            assert thread.is_alive()
            stop.wait(0.05)
        assert len(deposed) == 1
    finally:
        stop.set()
        thread.join()
    assert (logged(second), served(second)) == (list(range(6)), 6)


def test_two_at_once_are_two_and_the_stream_is_read_by_one(opened: Opened, redis: RedisServer) -> None:
    """Of two consumers one reads the partition that there is; when it leaves, the other goes on."""
    first, second = opened(), opened()
    first.apply([declared(STREAM)])
    stops = [threading.Event(), threading.Event()]
    threads = [
        threading.Thread(target=lambda store=store, stop=stop: store.consume(stop))
        for store, stop in zip((first, second), stops, strict=True)
    ]
    for thread in threads:
        thread.start()
    try:
        third = opened()
        for turn, stop in enumerate([None, *stops[:1]]):
            if stop is not None:
                stop.set()
                threads[0].join()
            add(redis, *map(text, range(10 * turn, 10 * turn + 10)))
            while len(logged(third)) < 10 * turn + 10:
                assert threads[1].is_alive()
                threading.Event().wait(0.05)
    finally:
        for stop, thread in zip(stops, threads, strict=True):
            stop.set()
            thread.join()
    assert sorted(logged(third)) == list(range(20))
    assert served(third) == 20


def test_what_cannot_be_taken_is_kept_aside_and_never_blocks(opened: Opened, redis: RedisServer) -> None:
    """Each message that is refused is kept with its reason, the others are taken; put right, it is replayed once."""
    with opened() as store:
        store.apply([declared(STREAM)])
        wrong = {
            b"nonsense": "no JSON",
            b"[1]": "must be an object",
            b'{"swipe": 1, "swipe": 2}': "twice",
            text(3, amount="much"): "'amount' must be Float64",
            text(4, more=1): "a field 'more' that is no column",
            text(5, minutes=-60): "ahead of it",
            b'{"card": "c1"}': "has no 'at'",
            b'{"\\u0000\\u001b[31m\\ud83d\\ude00": 1}': "'\\x00\\x1b[31m\U0001f600'",
            b'{"n": 1, "n":' + b"[" * 990 + b"]" * 990 + b"}": "",
        }
        add(redis, text(1), *wrong, text(2))
        with redis.client() as client:
            client.xadd("swipes", {"other": "x"})
        assert consumed(store) == (12, 2, 0, 0, 10, 0)
        wrong[b""] = "no field 'data'"
        found = store.poison("swipes")
        assert {one.message.value for one in found} == wrong.keys()
        for one in found:
            assert one.message.value is not None
            assert wrong[one.message.value] in one.reason
        (view,) = [status for status in store.status() if status.pushes is not None]
        assert view.pushes is not None
        assert view.pushes.poison == 10
        store.apply([declared(RedisStream("swipes", broker="cache", ignore="more"))])
        again = store.replay_poison("swipes")
        taken = {number for number, one in again.items() if not isinstance(one, PushError)}
        assert taken == {one.id for one in found if "'more'" in one.reason}
        assert logged(store) == [1, 2, 4]
        assert store.replay_poison("swipes").keys() == {one.id for one in found} - taken
        with pytest.raises(NotFoundError, match="No message 9999"):
            store.replay_poison("swipes", [9999])
        (first, *_) = store.poison("swipes")
        assert store.discard_poison("swipes", [first.id]) == 1
        assert store.discard_poison("swipes") == 8
        assert (store.poison("swipes"), logged(store), served(store)) == ([], [1, 2, 4], 3)


def test_a_replay_that_died_takes_a_message_once(
    opened: Opened, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the push of a message that was kept aside and forgetting it, the next replay does not push it again."""
    store = opened()
    store.apply([declared(STREAM)])
    add(redis, text(1, more=1))
    assert consumed(store).poison == 1
    store.apply([declared(RedisStream("swipes", broker="cache", ignore="more"))])

    def dead(*_: Any) -> int:
        raise Killed

    with monkeypatch.context() as planting:
        planting.setattr(Poison, "remove", dead)
        with pytest.raises(Killed):
            store.replay_poison("swipes")
    with opened() as after:
        assert after.replay_poison("swipes") == {}
        assert (after.poison("swipes"), logged(after)) == ([], [1])


def test_lost_entries_are_an_error_or_counted(opened: Opened, redis: RedisServer) -> None:
    """Where entries were trimmed that nobody had read, reading stops with an error; on request it goes on, and that is counted."""
    with opened() as store:
        store.apply([declared(STREAM)])
        add(redis, *map(text, range(3)))
        assert consumed(store).accepted == 3
        add(redis, *map(text, range(3, 9)))
        with redis.client() as client:
            client.xtrim("swipes", maxlen=2, approximate=False)
        with pytest.raises(MessagesLostError, match="--skip-lost"):
            consumed(store)
        assert logged(store) == [0, 1, 2]
        done = consumed(store, skip_lost=True)
        assert (done.accepted, done.lost) == (2, 4 if tells_how_many(redis) else 0)
        assert logged(store) == [0, 1, 2, 7, 8]
        add(redis, text(9))
        assert consumed(store).accepted == 1


def tells_how_many(redis: RedisServer) -> bool:
    """Whether the server says how many entries a stream ever had: from version 7.0 on."""
    with redis.client() as client:
        return int(client.info("server")["redis_version"].split(".")[0]) >= 7


def test_entries_that_were_read_may_be_trimmed(opened: Opened, redis: RedisServer) -> None:
    """A stream of which all that was read was deleted is at its end, and goes on."""
    with opened() as store:
        store.apply([declared(STREAM)])
        add(redis, *map(text, range(3)))
        assert consumed(store).accepted == 3
        with redis.client() as client:
            client.xtrim("swipes", maxlen=0, approximate=False)
        assert consumed(store) == (0,) * 6
        add(redis, text(3), text(4))
        if tells_how_many(redis):
            assert consumed(store).accepted == 2
        else:  # whether there were others in between, nobody can tell
            with pytest.raises(MessagesLostError, match="perhaps some entries"):
                consumed(store)
            assert consumed(store, skip_lost=True).accepted == 2
        assert logged(store) == list(range(5))


def test_a_stream_that_was_made_again_is_an_error(opened: Opened, redis: RedisServer) -> None:
    """Whose entries have lesser ids than what was read: nothing is read of it, but on request from its beginning."""
    with opened() as store:
        store.apply([declared(STREAM)])
        add(redis, text(0))
        assert consumed(store).accepted == 1
        with redis.client() as client:
            client.delete("swipes")
            client.xadd("swipes", {"data": text(1)}, id="5-1")
        with pytest.raises(StreamReplacedError, match="--begin-again"):
            consumed(store)
        assert logged(store) == [0]
        assert consumed(store, begin_again=True).accepted == 1
        assert (logged(store), consumed(store).messages) == ([0, 1], 0)


def test_a_broker_that_is_away_is_waited_for(opened: Opened, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """While Redis restarts nothing is lost, and the consumer goes on by itself."""
    monkeypatch.setattr(consumer, "LONGEST_PAUSE_SECONDS", 0.2)
    config = tmp_path / "featurestore.toml"
    with RedisServer(save="60 1", dir=str(tmp_path)) as broker:
        lines = config.read_text().rsplit("url = ", 1)[0]
        config.write_text(f'{lines}url = "{broker.url}"\n')
        store, stop = opened(), threading.Event()
        store.apply([declared(STREAM)])
        add(broker, *map(text, range(3)))
        thread = threading.Thread(target=lambda: store.consume(stop))
        thread.start()
        try:
            other = opened()
            while len(logged(other)) < 3:
                assert thread.is_alive()
                stop.wait(0.05)
            with broker.client() as client:
                client.save()
            broker.stop()
            stop.wait(1)
            assert thread.is_alive()
            broker.start()
            add(broker, *map(text, range(3, 6)))
            while len(logged(other)) < 6:
                assert thread.is_alive()
                stop.wait(0.05)
        finally:
            stop.set()
            thread.join()
        assert logged(other) == list(range(6))


def test_a_log_that_is_away_is_no_poison(opened: Opened, redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that fails since the log or the store is away is tried again, and no message of it is kept aside."""
    from featurestore.errors import LogUnavailableError, OnlineUnavailableError

    failures: Iterator[Exception] = iter([LogUnavailableError("away"), OnlineUnavailableError("away")] * 3)
    store = opened()
    store.apply([declared(STREAM)])
    log: Log = store.offline.log(store.catalog.sources["swipes"])  # type: ignore[arg-type]  # a push source, by its name
    append = type(log).append

    def failing(self: Log, batches: Any, *more: Any) -> None:
        if batches and (error := next(failures, None)) is not None:
            raise error
        append(self, batches, *more)

    monkeypatch.setattr(type(log), "append", failing)
    add(redis, *map(text, range(4)))
    assert consumed(store) == (4, 4, 0, 0, 0, 0)
    assert (logged(store), store.poison("swipes")) == ([0, 1, 2, 3], [])


def test_status_tells_how_far_it_is(opened: Opened, redis: RedisServer) -> None:
    """Place, lag, consumer and how long it has been behind are in the status of the source."""
    store, stop = opened(), threading.Event()
    store.apply([declared(STREAM)])
    add(redis, *map(text, range(3)))
    assert consumed(store).accepted == 3
    reader = RedisReader(STREAM, {"url": redis.url})
    with redis.client() as client:
        ((last, _),) = client.xrevrange("swipes", count=1)
    (one,) = progress(store)
    assert (one.place, one.taken, one.lost, one.consumer) == (last.decode(), 3, 0, None)
    thread = threading.Thread(target=lambda: store.consume(stop))
    thread.start()
    try:
        while (one := progress(store)[0]).consumer is None or one.lag != 0:
            assert thread.is_alive()
            stop.wait(0.05)
        assert (one.behind, one.at_least) == (0, False)
    finally:
        stop.set()
        thread.join()
        reader.close()


def progress(store: FeatureStore) -> Any:
    (view,) = store.status()
    assert view.pushes is not None
    return view.pushes.partitions


def test_what_is_wrong_is_said_before_anything_is_read(opened: Opened, redis: RedisServer) -> None:
    """A broker that nothing names, a source without a stream, a setting that is missing."""
    with opened() as store:
        store.apply([declared(RedisStream("swipes", broker="cahe"))])
        with pytest.raises(ConfigError, match=r"no \[brokers.cahe\].*Did you mean 'cache'"):
            consumed(store)
        with pytest.raises(NotFoundError, match="Did you mean 'swipes'"):
            store.consume(sources=["swipe"])
        store.apply([declared(None)])  # type: ignore[arg-type]  # the mistake
        assert store.consume() == {}
        with pytest.raises(PushError, match="has no stream"):
            store.consume(sources=["swipes"])


def test_a_postgresql_that_crashes_is_waited_for(
    tmp_path: Path, redis: RedisServer, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the log's server crashes and starts again, with the registry in it, the consumer waits; each message counts once."""
    monkeypatch.setattr(consumer, "LONGEST_PAUSE_SECONDS", 0.2)
    with redis.client() as client:
        client.flushall()
    lines = [f'registry = "{postgres.url}"', f'push_log = "{postgres.url}"', "[brokers.cache]", f'url = "{redis.url}"']
    configure(tmp_path, *lines, online=redis.url, project=next(NAMES))
    stop, written = threading.Event(), 0
    with FeatureStore(tmp_path) as store, FeatureStore(tmp_path) as look:
        store.apply([declared(STREAM)])
        thread = threading.Thread(target=lambda: store.consume(stop))
        thread.start()
        try:
            add(redis, text(0))
            written += 1
            while not logged(look):  # it has begun: who begins while the registry is away is told
                assert thread.is_alive()
                stop.wait(0.05)
            for _ in range(3):
                add(redis, *map(text, range(written, written + 40)))
                written += 40
                postgres.stop()
                add(redis, *map(text, range(written, written + 5)))
                written += 5
                postgres.start()
                while len(logged(look)) < written:
                    assert thread.is_alive()
                    stop.wait(0.05)
        finally:
            stop.set()
            thread.join()
        assert (logged(look), served(look), look.poison("swipes")) == (list(range(written)), written, [])


def test_a_source_that_is_not_open_yet_is_waited_for(
    tmp_path: Path, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the cutover rows are refused, and no message is kept aside for that; from then on they count."""
    from featurestore import DataFrameSource, ManualClock

    monkeypatch.setattr(consumer, "LONGEST_PAUSE_SECONDS", 0.1)
    with redis.client() as client:
        client.flushall()
    configure(tmp_path, "[brokers.cache]", f'url = "{redis.url}"')
    now = datetime.now(UTC)
    clock = ManualClock(now - timedelta(minutes=5))
    old = pa.table({name: pa.array([], of.arrow) for name, of in SCHEMA.items()})
    history = DataFrameSource("old", old, event_time="at", known_after="1m")
    stop = threading.Event()
    with FeatureStore(tmp_path, clock=clock) as store:
        store.apply([declared(STREAM, history=history, cutover=now)])
        add(redis, *map(text, range(3)))
        failed: list[BaseException] = []

        def run() -> None:
            try:
                store.consume(stop)
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            waited = threading.Event()
            waited.wait(2)
            assert not failed
            assert logged(store) == []
            clock.advance(timedelta(minutes=6))
            while not failed and len(logged(store)) < 3:
                waited.wait(0.05)
        finally:
            stop.set()
            thread.join()
        assert (failed, logged(store), store.poison("swipes")) == ([], [0, 1, 2], [])
