"""The decision about a request: who asks, how soon a revocation counts, and what no message says."""

from __future__ import annotations

import asyncio
import logging
import socket
import sqlite3
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from featurestore.access import json_web_tokens
from featurestore.access.api_keys import create_key, revoke_key, rotate_key
from featurestore.access.authentication import Authentication, check_open_host
from featurestore.access.principal import EVERYBODY, Principal
from featurestore.clock import wall_clock
from featurestore.config import Config
from featurestore.errors import AccessUnavailableError, ConfigError, UnauthenticatedError
from featurestore.registry.store import Registry
from featurestore.settings import JwtConfig
from tests.access.issuer import AUDIENCE, ISSUER, KeySetServer, SigningKey
from tests.servers import until

MISSING = "fsk_000000000000_" + "A" * 43


@dataclass
class World:
    """A registry, and an authentication whose clocks are moved by hand."""

    folder: Path
    seconds: float = 1000.0
    ahead_us: int = 0
    config: Config = field(init=False)
    registry: Registry = field(init=False)
    authentication: Authentication = field(init=False)

    def __post_init__(self) -> None:
        self.config = Config.local(self.folder)
        self.registry = Registry(self.config.registry, project="local")
        self.authentication = self.fresh()

    def fresh(self, config: Config | None = None) -> Authentication:
        return Authentication(
            config or self.config, clock=lambda: self.seconds, now=lambda: wall_clock() + self.ahead_us
        )

    def asks(self, secret: str) -> Principal:
        return self.authentication.authenticate(bearer(secret))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def bearer(secret: str) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"here"), (b"authorization", b"Bearer " + secret.encode())]


def test_a_key_names_who_asks(world: World) -> None:
    """In either header, whatever the case of the scheme."""
    secret = create_key(world.registry, "web", ["read"], only_on=["service:a"]).secret
    expected = Principal("key:web", frozenset({"read"}), frozenset({"service:a"}))
    for header in (
        (b"authorization", b"Bearer " + secret.encode()),
        (b"authorization", b"bearer   " + secret.encode() + b" "),
        (b"x-api-key", secret.encode()),
    ):
        assert world.authentication.authenticate([header]) == expected
        assert world.authentication.at_once([header]) == expected


@pytest.mark.parametrize(
    ("headers", "says", "challenge"),
    [
        ([], "brings no key", 'Bearer realm="featurestore"'),
        ([(b"authorization", b"Bearer ")], "brings no key", 'Bearer realm="featurestore"'),
        ([(b"x-api-key", b"")], "brings no key", 'Bearer realm="featurestore"'),
        ([(b"authorization", b"Basic YTpi")], "must be Bearer", 'error="invalid_token"'),
        ([(b"authorization", b"Bearer")] * 2, "more than one", 'error="invalid_token"'),
        ([(b"authorization", b"Bearer a"), (b"x-api-key", b"a")], "more than one", 'error="invalid_token"'),
        ([(b"authorization", b"Bearer \xff\xfe")], "is not known", 'error="invalid_token"'),
        (bearer(MISSING), "is not known", 'error="invalid_token"'),
        (bearer(MISSING[:-1]), "has not the shape of one", 'error="invalid_token"'),
        (bearer("a.b.c"), "tokens are not configured here", 'error="invalid_token"'),
    ],
)
def test_who_names_nobody_is_told_what_to_send(world: World, headers: Any, says: str, challenge: str) -> None:
    for ask in (world.authentication.authenticate, world.authentication.at_once):
        with pytest.raises(UnauthenticatedError, match=says) as caught:
            ask(headers)
        assert challenge in caught.value.challenge


def test_the_first_request_waits_for_the_registry_and_no_other_does(world: World) -> None:
    secret = create_key(world.registry, "web", ["read"]).secret
    assert world.authentication.at_once(bearer(secret)) is None
    assert asyncio.run(world.authentication.aauthenticate(bearer(secret))).name == "key:web"
    reads: list[float] = []
    read = world.authentication._keys._read
    world.authentication._keys._read = lambda: reads.append(world.seconds) or read()
    for _ in range(1000):
        assert world.authentication.at_once(bearer(secret)) is not None
    assert reads == []
    world.seconds += 1.5  # read beside the requests
    for _ in range(1000):
        assert world.authentication.at_once(bearer(secret)) is not None
    until(lambda: reads == [1001.5])
    world.seconds += 100
    assert world.authentication.at_once(bearer(secret)) is None
    assert world.asks(secret).name == "key:web"
    assert reads == [1001.5, 1101.5]


def test_a_revocation_counts_within_two_seconds(world: World) -> None:
    """For keys that are in use all the time too; so does a new key, and the end of a rotated one."""
    secret = create_key(world.registry, "web", ["read"]).secret
    world.asks(secret)
    revoke_key(world.registry, "web")
    world.seconds += 2
    with pytest.raises(UnauthenticatedError, match=r"The key fsk_[0-9a-f]{12} is revoked$"):
        world.asks(secret)
    old = create_key(world.registry, "web", ["read"]).secret
    world.seconds += 2
    world.asks(old)
    new = rotate_key(world.registry, "web", overlap_us=60_000_000).secret
    world.seconds += 2
    assert world.asks(old) == world.asks(new)
    world.ahead_us = 60_000_000
    with pytest.raises(UnauthenticatedError, match="is expired"):
        world.asks(old)
    assert world.asks(new).name == "key:web"


def test_a_new_key_counts_at_once_and_unknown_ones_do_not_read_the_registry_each(world: World) -> None:
    world.asks(create_key(world.registry, "one", ["read"]).secret)
    reads: list[float] = []
    read = world.authentication._keys._read
    world.authentication._keys._read = lambda: reads.append(world.seconds) or read()
    world.seconds += 0.1
    made = create_key(world.registry, "two", ["read"]).secret
    assert world.authentication.at_once(bearer(made)) is None  # it must be looked up
    assert world.asks(made).name == "key:two"
    for number in range(100):
        with pytest.raises(UnauthenticatedError):
            world.asks(f"fsk_{number:012x}_{'A' * 43}")
    assert reads == [1000.1]


def test_a_secret_is_right_as_a_whole_or_not_at_all(world: World) -> None:
    """Whichever sign of it is another; and the id of a key with the secret of another opens nothing."""
    one, two = (create_key(world.registry, name, ["read"]) for name in ("one", "two"))
    for place in range(len(one.secret)):
        changed = one.secret[:place] + ("b" if one.secret[place] != "b" else "c") + one.secret[place + 1 :]
        with pytest.raises(UnauthenticatedError):
            world.asks(changed)
    with pytest.raises(UnauthenticatedError, match="is not known"):
        world.asks(f"fsk_{one.key.id}_{two.secret[17:]}")
    world.asks(one.secret)


def test_where_the_registry_cannot_be_read_keys_count_for_a_minute(world: World) -> None:
    """Then requests are refused, and not with a word that says the key is wrong; afterwards all is as before."""
    secret = create_key(world.registry, "web", ["read"]).secret
    world.asks(secret)
    until(lambda: world.registry.api_keys()[0].used_at is not None)  # no thread opens the file while it is moved
    content = world.config.registry.read_bytes()
    moved = world.config.registry.with_name("moved.db")
    world.config.registry.rename(moved)
    world.config.registry.mkdir()
    world.seconds += 59
    assert world.asks(secret).name == "key:web"
    assert world.authentication.at_once(bearer(secret)) is not None
    world.seconds += 1
    for ask in (world.authentication.authenticate, world.authentication.at_once):
        with pytest.raises(AccessUnavailableError, match="API keys cannot be read") as caught:
            ask(bearer(secret))
        assert caught.value.retry
    world.config.registry.rmdir()
    moved.rename(world.config.registry)
    assert world.config.registry.read_bytes() == content
    world.seconds += 1
    assert world.asks(secret).name == "key:web"


def test_a_damaged_key_is_no_reason_to_let_anybody_in(world: World) -> None:
    secret = create_key(world.registry, "web", ["read"]).secret
    with closing(sqlite3.connect(world.config.registry, isolation_level=None)) as connection:
        connection.execute("""UPDATE api_keys SET scopes = '["admin"]'""")
    with pytest.raises(AccessUnavailableError, match="is not what was written"):
        world.asks(secret)


def test_when_a_key_was_used_is_noted_every_ten_minutes_at_most(world: World) -> None:
    """Though it is used for every request; and not where it is sent with a wrong secret."""
    made = create_key(world.registry, "web", ["read"])
    with pytest.raises(UnauthenticatedError):
        world.asks(f"fsk_{made.key.id}_{'A' * 43}")
    begin = wall_clock()
    for _ in range(100):
        world.asks(made.secret)
    until(lambda: world.registry.api_keys()[0].used_at is not None)
    first = world.registry.api_keys()[0].used_at
    assert begin <= first <= wall_clock()
    world.ahead_us = 500_000_000 - (wall_clock() - first)
    world.asks(made.secret)
    world.seconds += 1
    assert world.registry.api_keys()[0].used_at == first
    world.ahead_us = 600_000_000
    world.asks(made.secret)
    until(lambda: world.registry.api_keys()[0].used_at >= first + 600_000_000)


def test_a_registry_that_cannot_be_written_lets_keys_in(world: World, caplog: pytest.LogCaptureFixture) -> None:
    made = create_key(world.registry, "web", ["read"])
    with closing(sqlite3.connect(world.config.registry, isolation_level=None)) as connection:
        connection.execute("CREATE TRIGGER no_room BEFORE UPDATE ON api_keys BEGIN SELECT RAISE(FAIL, 'no room'); END")
    with caplog.at_level(logging.WARNING):
        assert world.asks(made.secret).name == "key:web"
        until(lambda: any("is not noted" in one.getMessage() for one in caplog.records))
    assert made.secret not in caplog.text


def test_no_message_log_or_repr_has_a_secret(world: World, caplog: pytest.LogCaptureFixture) -> None:
    made = create_key(world.registry, "web", ["read"], lasts_us=1)
    key = SigningKey("k")
    with caplog.at_level(logging.DEBUG), KeySetServer(key) as issuer:
        issuer.status = 500
        config = world.config.model_copy(
            update={"jwt": JwtConfig(jwks=issuer.url, issuer=ISSUER, audience=(AUDIENCE,))}
        )
        both = world.fresh(config)
        for secret in (made.secret, made.secret[:-1], made.secret + "x", key.token(), key.token() + "x"):
            with pytest.raises((UnauthenticatedError, AccessUnavailableError)) as caught:
                both.authenticate(bearer(secret))
            told = [str(caught.value), repr(caught.value), repr(both), caplog.text]
            told.append(getattr(caught.value, "challenge", ""))
            random = [secret.split("_", 2)[2]] if secret.startswith("fsk_") else secret.split(".")
            assert not [part for part in random for text in told if part[:20] in text]


def test_tokens_are_taken_beside_keys(world: World) -> None:
    made, key = create_key(world.registry, "web", ["push"]), SigningKey("k")
    with KeySetServer(key) as issuer:
        jwt = JwtConfig(jwks=issuer.url, issuer=ISSUER, audience=(AUDIENCE,))
        both = world.fresh(world.config.model_copy(update={"jwt": jwt}))
        assert both.authenticate(bearer(made.secret)) == Principal("key:web", frozenset({"push"}))
        assert both.at_once(bearer(key.token())) is None
        assert asyncio.run(both.aauthenticate(bearer(key.token()))) == Principal("jwt:ann", frozenset({"read"}))


def test_off_lets_everybody_do_everything_on_this_machine_alone() -> None:
    off = Authentication(None)
    assert off.authenticate([]) is off.at_once([]) is EVERYBODY
    for host in ("127.0.0.1", "127.9.9.9", "localhost", "::1", "[::1]"):
        check_open_host(host)
    for host in ("0.0.0.0", "", "::", "10.0.0.1", "localhost.example.org", "2130706433", "features"):
        with pytest.raises(ConfigError, match="Authentication is off"):
            check_open_host(host)


def test_many_threads_that_wait_read_once(world: World) -> None:
    secret = create_key(world.registry, "web", ["read"]).secret
    world.asks(secret)
    world.seconds += 100
    reads: list[float] = []
    read, go = world.authentication._keys._read, threading.Barrier(8)

    def slow() -> Any:
        reads.append(world.seconds)
        time.sleep(0.05)
        return read()

    world.authentication._keys._read = slow
    found: list[Principal] = []

    def ask() -> None:
        go.wait()
        found.append(world.asks(secret))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(reads) == 1


def test_an_issuer_that_hangs_delays_no_key(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many tokens wait for its one fetch: they hold no thread, of which there are few."""
    made, token = create_key(world.registry, "web", ["read"]), SigningKey("k").token()
    monkeypatch.setattr(json_web_tokens, "FETCH_SECONDS", 600.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/keys"
        jwt = JwtConfig(jwks=url, issuer=ISSUER, audience=(AUDIENCE,))
        both = world.fresh(world.config.model_copy(update={"jwt": jwt}))

        async def flood() -> None:
            before = threading.active_count()
            tokens = [asyncio.create_task(both.aauthenticate(bearer(token))) for _ in range(100)]
            connection, _ = await asyncio.to_thread(silent.accept)
            assert (await both.aauthenticate(bearer(made.secret))).name == "key:web"
            assert not any(task.done() for task in tokens)
            assert (
                threading.active_count() <= before + 4
            )  # accept's, the issuer's, the registry's, and what notes the use
            tokens[0].cancel()
            connection.close()
            found = await asyncio.gather(*tokens, return_exceptions=True)
            assert isinstance(found[0], asyncio.CancelledError)
            assert {type(one) for one in found[1:]} == {AccessUnavailableError}

        asyncio.run(asyncio.wait_for(flood(), 600))


def test_a_new_key_counts_at_once_beside_any_number_of_unknown_ones(world: World) -> None:
    """A reading that began before the key was made says nothing of it; all that came since wait for the one after it."""
    authentication = Authentication(world.config)
    authentication.authenticate(bearer(create_key(world.registry, "web", ["read"]).secret))
    read, reads, entered, go = authentication._keys._read, [], threading.Event(), threading.Event()

    def slow() -> Any:
        found = read()
        reads.append(len(found))
        entered.set()
        go.wait(600)
        return found

    authentication._keys._read = slow

    async def flood() -> None:
        early = asyncio.create_task(authentication.aauthenticate(bearer(MISSING)))
        await asyncio.to_thread(entered.wait, 600)
        made = create_key(world.registry, "new", ["read"])
        asked = [made.secret, *(f"fsk_{number:012x}_{'A' * 43}" for number in range(100)), made.secret]
        late = [asyncio.create_task(authentication.aauthenticate(bearer(secret))) for secret in asked]
        await asyncio.sleep(0)  # each of them begins, and waits
        go.set()
        with pytest.raises(UnauthenticatedError):
            await early
        first, *unknown, last = await asyncio.gather(*late, return_exceptions=True)
        assert first == last == Principal("key:new", frozenset({"read"}))
        assert {type(one) for one in unknown} == {UnauthenticatedError}

    asyncio.run(asyncio.wait_for(flood(), 600))
    assert reads == [1, 2]


def test_a_key_that_cannot_be_looked_up_is_not_called_unknown(world: World) -> None:
    """The registry went after its keys were read: those count on, and of others nothing is known."""
    secret = create_key(world.registry, "web", ["read"]).secret
    world.asks(secret)
    until(lambda: world.registry.api_keys()[0].used_at is not None)  # no thread opens the file while it is moved
    moved = world.config.registry.with_name("moved.db")
    world.config.registry.rename(moved)
    world.config.registry.mkdir()
    world.seconds += 0.5
    for _ in range(3):
        with pytest.raises(AccessUnavailableError):
            world.asks(MISSING)
        assert world.asks(secret).name == "key:web"
    world.config.registry.rmdir()
    moved.rename(world.config.registry)
    world.seconds += 1
    with pytest.raises(UnauthenticatedError):
        world.asks(MISSING)
