"""What only a store on several Redis servers does: a cluster, and servers behind Sentinels."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import redis
from redis.crc import key_slot

from featurestore.errors import OnlineStoreError, OnlineUnavailableError
from featurestore.online import Guard, open_online
from tests.online.test_online_redis import monitored, shown
from tests.ports import free_port
from tests.servers import RedisCluster, RedisSentinel, certificate, patient

PATIENT = "?timeout=60&connect_timeout=60"


def tags_of(cluster: RedisCluster) -> list[bytes]:
    """A tag on each primary, in their order."""
    found: dict[int, bytes] = {}
    for number in range(1000):
        tag = b"{%d}" % number
        found.setdefault(cluster.primaries.index(cluster.primary_of(tag)), tag)
    return [found[number] for number in range(3)]


@pytest.fixture
def cluster(redis_cluster: RedisCluster) -> RedisCluster:
    for server in redis_cluster.primaries:
        with server.client() as client:
            client.flushall()
    return redis_cluster


def test_keys_of_several_primaries_are_read_at_once(cluster: RedisCluster) -> None:
    """Each primary is asked for its clock and its keys, slot by slot, in one round trip; the values come in the order of the keys."""
    tags = tags_of(cluster)
    other = next(b"{%d}" % n for n in range(1000, 2000) if cluster.primary_of(b"{%d}" % n) is cluster.primaries[0])
    assert key_slot(other) != key_slot(tags[0])
    with closing(open_online(cluster.url + PATIENT)) as store:
        for tag in [*tags, other]:
            assert store.write({tag + b"a": tag, tag + b"b": None}, guard=Guard(tag + b"a", None))
        keys = [tags[2] + b"a", tags[0] + b"a", tags[1] + b"a", other + b"a", tags[0] + b"b", tags[2] + b"a"]
        values = [tags[2], tags[0], tags[1], other, None, tags[2]]
        assert store.get(keys).values == values
        with ExitStack() as stack:
            urls = [server.url for server in cluster.primaries]
            seen = [stack.enter_context(monitored(url)) for url in urls]
            reading = store.get(keys)
        assert reading.values == values
        assert seen == [["TIME", "MGET", "TIME", "MGET"], ["TIME", "MGET"], ["TIME", "MGET"]]
        with cluster.primaries[0].client() as client:
            whole, micros = client.time()
        assert abs(whole * 1_000_000 + micros - reading.now) < 60_000_000


def test_what_is_written_at_once_has_one_tag(cluster: RedisCluster) -> None:
    """Else nothing of it is written; but keys of any tags are deleted at once."""
    one, two, _ = tags_of(cluster)
    batches: list[tuple[dict[bytes, bytes | None], Guard | None]] = [
        ({one: b"1", two: b"2"}, None),
        ({one: b"1"}, Guard(two, None)),
        ({one: None, two: None}, Guard(one, None)),
    ]
    with closing(open_online(cluster.url + PATIENT)) as store:
        for puts, guard in batches:
            with pytest.raises(OnlineStoreError, match="must have one hash tag"):
                store.write(puts, guard=guard)
        assert store.get([one, two]).values == [None, None]
        store.write({one: b"1"})
        store.write({two: b"2"})
        assert {key for keys in store.scan(b"{") for key in keys} == {one, two}
        assert store.write({one: None, two: None})
        assert store.get([one, two]).values == [None, None]


def test_a_primary_that_stands_still_keeps_its_own_keys_only(cluster: RedisCluster) -> None:
    """What lies on the others is answered meanwhile."""
    one, two, _ = tags_of(cluster)
    quick, patient = open_online(f"{cluster.url}?timeout=0.5&retries=0"), open_online(cluster.url + PATIENT)
    with closing(quick), closing(patient):
        patient.write({two: b"2"})
        with cluster.primaries[0].silent():
            with pytest.raises(OnlineUnavailableError):
                quick.get([one])
            assert patient.get([two]).values == [b"2"]
        assert patient.get([one, two]).values == [None, b"2"]


def test_a_slot_that_is_moved_is_found_where_it_is(cluster: RedisCluster) -> None:
    """While its keys are on their way they cannot be reached, nor can a scan be trusted; then the same handle finds them."""
    tag = tags_of(cluster)[0]
    keys = [tag + b"%d" % number for number in range(10)]
    slot, (source, target, _) = key_slot(tag), cluster.primaries
    with (
        closing(open_online(cluster.url + PATIENT)) as store,
        source.client() as old,
        target.client() as new,
    ):
        store.write({key: key for key in keys})
        begin_move(slot, old, new)
        move = ("MIGRATE", "127.0.0.1", target.port, "", 0, 60_000, "KEYS")
        old.execute_command(*move, *keys[:5])
        for use in (
            lambda: store.get(keys),
            lambda: store.write({keys[0]: b"x", keys[9]: b"x"}, guard=Guard(keys[0], keys[0])),
            lambda: list(store.scan(tag)),
        ):
            with pytest.raises(OnlineUnavailableError, match="on their way to another server"):
                use()
        old.execute_command(*move, *keys[5:])
        end_move(slot, old, new)
        assert store.get(keys).values == keys
        assert {key for some in store.scan(tag) for key in some} == {*keys}
        assert store.write(dict.fromkeys(keys), guard=Guard(keys[0], keys[0]))
        begin_move(slot, new, old)  # back, for the other tests
        end_move(slot, new, old)
        assert store.get(keys).values == [None] * 10


def begin_move(slot: int, source: redis.Redis, target: redis.Redis) -> None:
    target.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", source.execute_command("CLUSTER", "MYID"))
    source.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", target.execute_command("CLUSTER", "MYID"))


def end_move(slot: int, source: redis.Redis, target: redis.Redis) -> None:
    for client in (target, source):
        client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", target.execute_command("CLUSTER", "MYID"))


def test_a_server_that_is_in_no_cluster_is_told(redis_url: str) -> None:
    address = redis_url.removeprefix("redis://").removesuffix("/0")
    with closing(open_online(f"redis+cluster://{address}")) as store, pytest.raises(OnlineStoreError, match="cluster"):
        store.get([b"a"])


def test_the_next_sentinel_is_asked_where_one_is_away(redis_sentinel: RedisSentinel) -> None:
    """Whether it refuses or stands still."""
    with closing(
        open_online(f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{redis_sentinel.port}/online{PATIENT}")
    ) as store:
        assert store.write({b"a": b"1"})
        assert store.get([b"a"]).values == [b"1"]


def test_a_primary_that_no_sentinel_knows_is_told(redis_sentinel: RedisSentinel) -> None:
    """By its name, and without the password that the Sentinels were given."""
    url = f"redis+sentinel://127.0.0.1:{redis_sentinel.port}/others?retries=0"
    with closing(open_online(url)) as store, pytest.raises(OnlineUnavailableError, match="'others'"):
        store.get([b"a"])
    with closing(open_online(f"{url}&sentinel_password=s3cret")) as store, pytest.raises(OnlineStoreError) as caught:
        store.get([b"a"])
    assert "s3cret" not in shown(caught.value)


def test_a_connection_is_made_to_no_replica(redis_sentinel: RedisSentinel) -> None:
    """Where Sentinels name one, they do not know better yet: the store cannot be reached, and nothing old is read."""
    with closing(open_online(f"{redis_sentinel.url}{PATIENT}&retries=0")) as store:
        store._primary = lambda seconds: ("127.0.0.1", redis_sentinel.replica.port)  # type: ignore[attr-defined]  # of a store behind Sentinel
        store._server = store._first_server()  # type: ignore[attr-defined]  # of a store behind Sentinel
        for _ in range(2):
            with pytest.raises(OnlineUnavailableError, match="is a replica"):
                store.get([b"a"])
        with redis.Redis(port=redis_sentinel.replica.port) as client:
            assert client.info("clients")["connected_clients"] < 10


# --- TLS ----------------------------------------------------------------------------------------------


def untrusted(url: str) -> None:
    """Refused by who is told of no authority."""
    with closing(open_online(url.partition("?")[0])) as store:
        with pytest.raises(OnlineStoreError) as caught:
            store.get([b"a"])
        assert "hush" not in str(caught.value)


def test_a_cluster_over_tls(tmp_path: Path) -> None:
    """Each of its servers is asked over TLS, at the addresses that they tell of."""
    with RedisCluster(password="hush", certificate=certificate(tmp_path)) as cluster:
        with closing(open_online(patient(cluster.url))) as store:
            tags = tags_of(cluster)
            keys = [b"tls:%s:%d" % (tag, number) for tag in tags for number in range(20)]
            for tag in tags:
                assert store.write({key: b"v" for key in keys if tag in key})
            assert store.get(keys).values == [b"v"] * len(keys)
            assert {key for found in store.scan(b"tls:") for key in found} == {*keys}
        assert all(front.encrypted for front in cluster.fronts)
        untrusted(cluster.url)


def test_sentinels_and_a_fail_over_over_tls(tmp_path: Path) -> None:
    """The Sentinel, the primary, and the replica that takes its place are all asked over TLS."""
    with RedisSentinel(password="hush", certificate=certificate(tmp_path)) as servers:
        with closing(open_online(patient(servers.url))) as store:
            assert store.write({b"before": b"v"})
            with servers.primary.client() as client:
                assert client.wait(1, 0) == 1
            primary, replica, sentinel = servers.fronts
            assert primary.encrypted
            assert sentinel.encrypted
            assert not replica.encrypted
            servers.primary.stop()
            servers.wait_until(lambda about: int(about["port"]) == replica.port)
            deadline = time.monotonic() + 600
            while True:
                try:
                    assert store.write({b"after": b"w"})
                    break
                except OnlineStoreError:
                    assert time.monotonic() < deadline
            assert store.get([b"before", b"after"]).values == [b"v", b"w"]
            assert replica.encrypted
        untrusted(servers.url)
