"""What only Redis does: servers that are away, refuse, evict or fall silent, passwords and TLS."""

from __future__ import annotations

import os
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from featurestore.clock import ManualClock, to_datetime
from featurestore.errors import OnlineStoreError, OnlineUnavailableError
from featurestore.online import Guard, open_online
from tests.ports import free_port
from tests.servers import Front, RedisServer, certificate, patient

SECRET = "p@ss:w/rd?#%1"


@pytest.fixture(scope="module")
def guarded() -> Iterator[RedisServer]:
    """A server with a password full of characters that mean something in a URL."""
    with RedisServer(password=SECRET) as server:
        yield server


@contextmanager
def monitored(url: str) -> Iterator[list[str]]:
    """The commands that the server receives meanwhile."""
    seen: list[str] = []
    with redis.Redis.from_url(url) as client, client.monitor() as monitor:
        ended = threading.Event()

        def listen() -> None:
            for entry in monitor.listen():
                if entry["command"] == "PING end":
                    ended.set()
                    return
                if (name := entry["command"].split()[0]) not in {"HELLO", "CLIENT"}:
                    seen.append(name)

        thread = threading.Thread(target=listen)
        thread.start()
        yield seen
        client.execute_command("PING", "end")
        thread.join()


def shown(error: BaseException | None) -> str:
    """Everything that a traceback of an error would print of its messages."""
    parts = []
    while error is not None:
        parts.append(f"{error} {error!r}")
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n".join(parts)


def test_a_get_is_one_command_for_the_time_and_one_for_all_keys(redis_url: str) -> None:
    """TIME, then MGET; with an injected clock MGET alone; the eviction policy is asked for once."""
    with (
        closing(open_online(patient(redis_url))) as store,
        closing(open_online(patient(redis_url), clock=ManualClock(to_datetime(0)))) as still,
    ):
        store.get([b"a"])
        still.get([b"a"])
        with monitored(redis_url) as seen:
            store.get([b"a", b"b"])
            still.get([b"a", b"b"])
            still.get([])
    assert seen == ["TIME", "MGET", "MGET"]


def test_a_get_of_more_keys_than_one_command_takes_is_one_transaction(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that what is read first and what is read last are of one moment."""
    monkeypatch.setattr("featurestore.online.redis_server.COMMAND_KEYS", 2)
    keys = [b"many %d" % n for n in range(5)]
    with closing(open_online(patient(redis_url))) as store:
        store.write({key: key for key in keys[:-1]})
        for clock, time_ in ((None, ["TIME"]), (ManualClock(to_datetime(7)), [])):
            with closing(open_online(patient(redis_url), clock=clock)) as reader:
                reader.get([])
                with monitored(redis_url) as seen:
                    reading = reader.get(keys)
                assert seen == ["MULTI", *time_, "MGET", "MGET", "MGET", "EXEC"]
                assert reading.values == [*keys[:-1], None]
                assert reading.now == 7 or clock is None


def test_the_right_password_opens_and_is_never_shown(guarded: RedisServer) -> None:
    """A password of any characters works from a URL, and neither repr nor str has it."""
    with closing(open_online(patient(guarded.url))) as store:
        store.write({b"a": b"1"})
        assert store.get([b"a"]).values == [b"1"]
        assert repr(store) == f"RedisStore('redis://127.0.0.1:{guarded.port}/0')"
        assert SECRET not in f"{store} {vars(store)['_server'].pool!r}"


@pytest.mark.parametrize("password", ["wr0ng", ""])
def test_a_wrong_password_is_refused_at_once(guarded: RedisServer, password: str) -> None:
    """A wrong or missing password is an error that no retry helps, and that shows no password."""
    store = open_online(patient(guarded.url_with(password=password)))
    for use in (lambda: store.get([b"a"]), lambda: store.write({b"a": b"1"}), lambda: list(store.scan(b""))):
        with pytest.raises(OnlineStoreError, match=rf"127\.0\.0\.1:{guarded.port}/0 refused the user") as caught:
            use()
        assert caught.value.retry is False
        assert "wr0ng" not in shown(caught.value)
    store.close()


def test_a_server_that_quotes_the_password_is_not_repeated() -> None:
    """Without its AUTH command, a server answers with the arguments; the message leaves the password out."""
    with RedisServer(rename_command='AUTH" "') as server:
        store = open_online(patient(server.url_with(password="plain-s3cret")))
        with pytest.raises(OnlineStoreError, match=r"\*\*\*") as caught:
            store.get([b"a"])
        assert "plain-s3cret" not in shown(caught.value)
        store.close()


@pytest.mark.parametrize("use", ["get", "write", "scan"])
def test_a_server_that_evicts_is_refused(use: str) -> None:
    """The error names maxmemory-policy, what it is and how to set it; set right, the same store works."""
    with RedisServer(maxmemory_policy="allkeys-lru") as server, closing(open_online(patient(server.url))) as store:
        calls = {"get": lambda: store.get([b"a"]), "write": lambda: store.write({}), "scan": lambda: store.scan(b"")}
        with pytest.raises(OnlineStoreError, match="maxmemory-policy allkeys-lru.*CONFIG SET maxmemory-policy noevict"):
            calls[use]()
        with server.client() as client:
            client.config_set("maxmemory-policy", "noeviction")
        calls[use]()


@pytest.mark.parametrize("policy", ["noeviction", "volatile-ttl"])
def test_where_config_is_forbidden_info_tells_the_policy(policy: str) -> None:
    """Hosted servers have no CONFIG; the check is made all the same."""
    with (
        RedisServer(maxmemory_policy=policy, rename_command='CONFIG" "') as server,
        closing(open_online(patient(server.url))) as store,
    ):
        if policy == "noeviction":
            assert store.get([b"a"]).values == [None]
        else:
            with pytest.raises(OnlineStoreError, match=policy):
                store.get([b"a"])


def test_the_documented_permissions_are_enough() -> None:
    """A user with the commands that docs/online-stores.md lists, and no others, can do everything."""
    needed = "client|setname info time mget get mset del multi exec watch unwatch scan".split()
    with RedisServer() as server:
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "small", "on", ">pw", "~*", *(f"+{name}" for name in needed))
        with closing(open_online(patient(f"redis://small:pw@127.0.0.1:{server.port}"))) as store:
            assert store.write({b"a": b"1", b"b": None}, guard=Guard(b"a", None)) is True
            assert store.write({b"a": b"2"}, guard=Guard(b"a", None)) is False
            assert store.get([b"a"]).values == [b"1"]
            assert list(store.scan(b"")) == [[b"a"]]


def test_a_user_without_permission_is_told_which() -> None:
    """A user that may not read INFO is refused with the server's own words."""
    with RedisServer() as server:
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "small", "on", ">pw", "~*", "+@all", "-info", "-config")
        with closing(open_online(patient(f"redis://small:pw@127.0.0.1:{server.port}"))) as store:
            with pytest.raises(OnlineStoreError, match="refused the user, the password or a permission.*info"):
                store.get([b"a"])


def test_a_full_server_refuses_the_whole_batch() -> None:
    """With no memory left nothing of a batch is written, deletes included."""
    with RedisServer() as server, closing(open_online(patient(server.url))) as store, server.client() as client:
        store.write({b"old": b"1"})
        client.config_set("maxmemory", "1000000")
        large = {b"old": None} | {b"%d" % index: b"v" * 1000 for index in range(3000)}
        for batch in (large, {b"old": None, b"last": b"v" * 1_000_000}):
            for guard in (None, Guard(b"old", b"1")):
                with pytest.raises(OnlineStoreError, match="is full, nothing was written.*maxmemory"):
                    store.write(batch, guard=guard)
        assert store.get([b"old", b"last", b"0"]).values == [b"1", None, None]


def test_a_value_of_another_type_is_an_error(redis_url: str) -> None:
    """A guard on a key that somebody made a list is refused with the server's words, and the connection lives on."""
    with closing(open_online(patient(f"{redis_url}?pool_size=1"))) as store, redis.Redis.from_url(redis_url) as client:
        client.delete("list")
        client.rpush("list", "x")
        with pytest.raises(OnlineStoreError, match="WRONGTYPE"):
            store.write({b"a": b"1"}, guard=Guard(b"list", None))
        store.write({b"a": b"2"})
        assert store.get([b"a", b"list"]).values == [b"2", None]


def test_a_server_that_is_away_and_comes_back(guarded: RedisServer) -> None:
    """Away, it is unavailable and worth a retry; back, the same handle works; coming back meanwhile is not noticed."""
    with (
        RedisServer(password=SECRET) as server,
        closing(open_online(f"{server.url}?timeout=120&retries=1000")) as store,
    ):
        impatient = open_online(patient(f"{server.url}?retries=0"))
        store.write({b"a": b"1"})
        impatient.get([])
        server.stop()
        for use in (
            lambda: impatient.get([b"a"]),
            lambda: impatient.write({b"a": b"1"}),
            lambda: list(impatient.scan(b"")),
        ):
            with pytest.raises(OnlineUnavailableError, match=f"127.0.0.1:{server.port}/0 cannot be reached") as caught:
                use()
            assert caught.value.retry is True
            assert SECRET not in shown(caught.value)
        starting = threading.Timer(0.1, server.start)
        starting.start()
        assert store.write({b"a": b"2"}, guard=Guard(b"a", None)) is True
        starting.join()
        assert store.get([b"a"]).values == [b"2"]
        impatient._server._breaker.answered()  # type: ignore[attr-defined]  # which lets nobody in for a while
        assert impatient.get([b"a"]).values == [b"2"]
        impatient.close()


def refusal(url: str) -> str:
    """Why nothing can be written to a server."""
    with closing(open_online(patient(url))) as store, pytest.raises(OnlineStoreError) as caught:
        store.write({b"a": b"1", b"b": b"2"})
    assert url in str(caught.value)
    return str(caught.value)


def test_a_server_of_a_cluster_is_told_for_what_it_is() -> None:
    """Before its slots are given to servers, and after."""
    with RedisServer(cluster_enabled="yes") as server:
        assert "is part of a Redis Cluster" in refusal(server.url)
        with server.client() as client:
            client.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
            while client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
                time.sleep(0.01)
        told = refusal(server.url)
    assert "is part of a Redis Cluster" in told
    assert told.endswith("it begins with redis+cluster://, and has this host and port.")


def test_a_replica_is_told_for_what_it_is() -> None:
    with RedisServer() as server:
        with server.client() as client:
            client.replicaof("127.0.0.1", str(free_port()))
        assert "is a replica, which takes no writes. Give the URL of its primary, or of the Sentinels" in refusal(
            server.url
        )


def test_a_database_that_is_not_there_is_told(redis_url: str) -> None:
    assert "has no database of the number in which its URL ends" in refusal(f"{redis_url.rpartition('/')[0]}/99")


def test_another_service_is_told_for_none_of_redis() -> None:
    """What answers on its port, as a web server does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=answer_as_a_web_server, args=(listener,), daemon=True).start()
        assert "does not answer as Redis does" in refusal(f"redis://127.0.0.1:{listener.getsockname()[1]}/0")


def answer_as_a_web_server(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def test_a_silent_server_times_out() -> None:
    """A reply that does not come is unavailable after the timeout, and its late reply answers nobody else."""
    with RedisServer() as server:
        store: Any = open_online(server.url_with(query="pool_size=1&timeout=0.3&retries=1"))
        with closing(store):
            store._timeout = 60
            store.write({b"a": b"1", b"b": b"2"})
            with server.silent():
                store._timeout = 0.3
                with pytest.raises(OnlineUnavailableError, match="Timeout"):
                    store.get([b"a"])
            store._timeout = 60
            assert store.get([b"b"]).values == [b"2"]


def test_a_server_that_takes_no_connection_times_out() -> None:
    """An address where nobody answers is given up after connect_timeout."""
    import socket

    with socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        with closing(open_online(f"redis://127.0.0.1:{hole.getsockname()[1]}?retries=0&connect_timeout=0.2")) as store:
            with pytest.raises(OnlineUnavailableError, match="cannot be reached"):
                store.get([b"a"])


def test_a_pool_without_a_free_connection_says_so() -> None:
    """More threads than pool_size wait for pool_timeout, and the message names both."""
    with RedisServer() as server:
        store: Any = open_online(server.url_with(query="pool_size=1&pool_timeout=0.1&timeout=60"))
        with closing(store):
            store.get([b"a"])
            thread = threading.Thread(target=store.get, args=([b"a"],))
            with server.silent():
                thread.start()
                while not store._server.pool.pool.empty():  # until it has the only connection
                    time.sleep(0.001)
                with pytest.raises(OnlineUnavailableError, match=r"all 1 connection .* in 0\.1 s\. Raise pool_size"):
                    store.get([b"a"])
            thread.join()


def test_threads_share_a_small_pool(redis_url: str) -> None:
    """Eight threads on two connections all get their own answers."""
    with closing(open_online(patient(f"{redis_url}?pool_size=2"))) as store:
        store.write({b"%d" % index: b"v%d" % index for index in range(8)})
        wrong = []

        def work(index: int) -> None:
            wrong.extend(1 for _ in range(50) if store.get([b"%d" % index]).values != [b"v%d" % index])

        threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


def test_a_scan_that_loses_its_connection_starts_over(redis_url: str) -> None:
    """No key is missed, though the connection breaks between batches."""
    port = int(redis_url.rsplit(":", 1)[1].split("/", maxsplit=1)[0])
    with Front(port) as front, closing(open_online(patient(f"redis://127.0.0.1:{front.port}"))) as store:
        keys = {b"scan:%d" % index for index in range(3000)}
        store.write(dict.fromkeys(keys, b""))
        found = set()
        for turn, batch in enumerate(store.scan(b"scan:")):
            found.update(batch)
            if turn == 1:
                front.drop()
        assert found == keys


def test_tls(redis_url: str, tmp_path: Path) -> None:
    """rediss:// reads and writes over TLS, and refuses a certificate that no named authority signed."""
    port = int(redis_url.rsplit(":", 1)[1].split("/", maxsplit=1)[0])
    pem = certificate(tmp_path)
    with Front(port, certificate=pem) as front:
        with closing(open_online(patient(f"rediss://127.0.0.1:{front.port}?ca_file={pem}"))) as store:
            store.write({b"tls:%d" % index: b"v" * 1000 for index in range(500)})
            assert store.get([b"tls:499", b"tls:500"]).values == [b"v" * 1000, None]
            assert sum(map(len, store.scan(b"tls:"))) == 500
            assert repr(store) == f"RedisStore('rediss://127.0.0.1:{front.port}/0')"
        with closing(open_online(patient(f"rediss://127.0.0.1:{front.port}"))) as store:
            with pytest.raises(OnlineStoreError, match=r"over TLS.*\?ca_file=") as caught:
                store.get([b"a"])
            assert caught.value.retry is False


def test_tls_takes_the_certificate_of_no_other_host(redis_url: str, tmp_path: Path) -> None:
    """Though the authority that is named signed it."""
    pem = certificate(tmp_path)
    with (
        Front(int(redis_url.rsplit(":", 1)[1].split("/", maxsplit=1)[0]), certificate=pem) as front,
        closing(open_online(patient(f"rediss://localhost:{front.port}?ca_file={pem}"))) as store,
        pytest.raises(OnlineStoreError, match="over TLS"),
    ):
        store.get([b"a"])


def test_tls_shows_a_certificate_of_the_client(redis_url: str, tmp_path: Path) -> None:
    """Where the server asks for one (mTLS)."""
    pem = certificate(tmp_path)
    port = int(redis_url.rsplit(":", 1)[1].split("/", maxsplit=1)[0])
    with Front(port, certificate=pem, client_ca=pem) as front:
        url = f"rediss://127.0.0.1:{front.port}?ca_file={pem}"
        with closing(open_online(patient(f"{url}&cert_file={pem}&key_file={pem}"))) as store:
            store.write({b"mtls": b"v"})
            assert store.get([b"mtls"]).values == [b"v"]
        with closing(open_online(patient(url))) as store, pytest.raises(OnlineStoreError):
            store.get([b"mtls"])


def test_databases_are_apart(redis_url: str) -> None:
    """The number at the end of the URL chooses the database."""
    with closing(open_online(patient(redis_url))) as zero, closing(open_online(patient(redis_url[:-1] + "3"))) as three:
        zero.write({b"a": b"0"})
        three.write({b"a": b"3"})
        assert (zero.get([b"a"]).values, three.get([b"a"]).values) == ([b"0"], [b"3"])
        assert list(three.scan(b"")) == [[b"a"]]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_handle_works_on_both_sides_of_a_fork(redis_url: str) -> None:
    """A child makes connections of its own."""
    with closing(open_online(patient(redis_url))) as store:
        store.write({b"a": b"parent"})
        pid = os.fork()
        if pid == 0:
            ok = False
            try:
                ok = store.write({b"a": b"child"}, guard=Guard(b"a", b"parent")) and store.get([b"a"]).values == [
                    b"child"
                ]
            except BaseException:
                traceback.print_exc()
            finally:  # whatever happens, no child goes on with its parent's tests
                os._exit(0 if ok else 1)
        assert os.waitpid(pid, 0)[1] == 0
        assert store.get([b"a"]).values == [b"child"]
