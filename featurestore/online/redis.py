"""The online store for many users: one Redis (6.2 or later) or Valkey server, plain or over TLS.

A batch is one transaction of MSET and DEL, guarded by WATCH. A Lua script would save a round trip, but it was measured
to hold the server, and so every reader, 2.5 times longer per key, and to write 0.6 times as many keys per second.
"""

from __future__ import annotations

import queue
import re
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, ClassVar, TypeVar
from urllib.parse import unquote, urlsplit

import hiredis
import redis
from redis.backoff import EqualJitterBackoff
from redis.exceptions import (
    AskError,
    AuthorizationError,
    ClusterCrossSlotError,
    ClusterError,
    NoPermissionError,
    ReadOnlyError,
)

from featurestore.bound import BoundToProcess
from featurestore.clock import Clock, reader
from featurestore.errors import ConfigError, OnlineStoreError, OnlineUnavailableError
from featurestore.online.contract import Guard, Reading
from featurestore.online.pool import WITHOUT_LIBRARY, Deadline, Pool, brought_up
from featurestore.online.url import Parser, file_path, parse_options, seconds, whole_number
from featurestore.online.value_checksums import opened, opened_one, sealed

T = TypeVar("T")

_pack: Callable[..., bytes] = hiredis.pack_command
_TIME = _pack(("TIME",))
_MULTI = _pack(("MULTI",))
_EXEC = _pack(("EXEC",))
_UNWATCH = _pack(("UNWATCH",))
_COMMAND_KEYS = 50_000  # keys in one command: Redis takes 1,048,576 arguments
_SCAN_KEYS = 1000  # keys that the server looks at in one step of a scan
_GLOB = re.compile(rb"([*?\[\]\\])")
_POLICY_SECONDS = 5.0  # seconds after which a server is asked again whether it may throw keys away
_FIRST_PAUSE, _LONGEST_PAUSE = 0.025, 1.0  # seconds before a retry: doubled each time, with jitter

_SILENT = (redis.ConnectionError, redis.TimeoutError)
_REFUSED = (redis.AuthenticationError, AuthorizationError, NoPermissionError)
_REPLIES = (*_REFUSED, redis.BusyLoadingError)  # redis-py calls some of the server's replies connection errors

_OTHERS: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    (
        (ClusterError, ClusterCrossSlotError, AskError),
        (
            "is part of a Redis Cluster, which spreads keys over several servers: a batch, which one server must write at once, "
            "cannot go there. Give the URL of one server that is in no cluster"
        ),
    ),
    ((ReadOnlyError,), "is a replica, which takes no writes. Give the URL of its primary"),
    (
        (redis.InvalidResponse,),
        "does not answer as Redis does ({text}). Is its port another service's, or one for TLS, whose URLs begin with rediss://?",
    ),
)
"""Servers of which no batch is taken: by what redis-py raises, what they are."""


class RedisStore(BoundToProcess):
    """The online store on one server: `redis://[user][:password@]host[:port][/db][?options]`, `rediss://` for TLS.

    Options: `timeout` (seconds that a call takes at most, connecting and retries included, 5), and within it
    `connect_timeout` (seconds, 1), `pool_size` (connections at most, 32), `pool_timeout` (seconds to wait for a free
    one, 5), `retries` (after connection errors, 2); with TLS also `ca_file`, `cert_file` and `key_file`. The clock is the server's unless one is injected.
    """

    blocking: ClassVar[bool] = True
    OPTIONS: ClassVar[dict[str, Parser]] = {
        "timeout": seconds,
        "connect_timeout": seconds,
        "pool_size": whole_number(1),
        "pool_timeout": seconds,
        "retries": whole_number(0),
    }
    TLS_OPTIONS: ClassVar[dict[str, Parser]] = {"ca_file": file_path, "cert_file": file_path, "key_file": file_path}

    def __init__(self, url: str, *, clock: Clock | None = None) -> None:
        tls, self._name, connection, options = _parse(url)
        self._secret: str | None = connection["password"]
        self._connection_class = redis.SSLConnection if tls else redis.Connection
        self._connection_options = connection
        self._pool_size, self._pool_timeout = options.get("pool_size", 32), options.get("pool_timeout", 5.0)
        self._pool: Any = Pool(
            max_connections=self._pool_size,
            timeout=self._pool_timeout,
            connection_class=self._connection_class,
            **connection,
        )
        self._timeout: float = connection["socket_timeout"]
        self._connect_timeout: float = connection["socket_connect_timeout"]
        self._retries: int = options.get("retries", 2)
        self._pauses = EqualJitterBackoff(_LONGEST_PAUSE, _FIRST_PAUSE)
        self._clock = None if clock is None else reader(clock)
        self._check_at = 0.0  # by the monotonic clock; at the first use
        self._closed = False

    def __repr__(self) -> str:
        return f"RedisStore('{self._name}')"

    @property
    def _where(self) -> str:
        return f"The online store {self._name}"

    def get(self, keys: Sequence[bytes]) -> Reading:
        """The server's clock and the values of `keys` in one round trip, all of one moment; see the contract."""
        deadline = Deadline(self._timeout)
        if time.monotonic() >= self._check_at:
            self._check(deadline)
        now = 0 if self._clock is None else self._clock()
        commands = [_TIME] if self._clock is None else []
        commands += [_pack(("MGET", *chunk)) for chunk in _chunks(keys)]
        if len(keys) > _COMMAND_KEYS:  # else nobody writes between two of them
            request = b"".join([_MULTI, *commands, _EXEC])
            answers = self._persist(lambda: self._ask(request, len(commands) + 2, deadline), deadline)[-1]
        else:
            request = b"".join(commands)
            ask = partial(self._ask, request, len(commands), deadline)
            answers = self._persist(ask, deadline) if commands else []
        if self._clock is None:
            (whole, micros), *answers = answers
            now = int(whole) * 1_000_000 + int(micros)
        stored = answers[0] if len(answers) == 1 else list(chain.from_iterable(answers))
        return Reading(now, opened(keys, stored, where=self._where))

    def write(self, puts: Mapping[bytes, bytes | None], *, guard: Guard | None = None) -> bool:
        """Write the batch in one transaction where the guard holds; see the contract.

        A batch that certainly never reached the server is sent again. One that was sent and not answered is sent
        again only if it changes its guard key: WATCH then lets at most one copy through, even one that was long on
        its way. Where the guard no longer holds by then, that copy or another writer changed it, and only the
        caller can tell which.
        """
        deadline = Deadline(self._timeout)
        if time.monotonic() >= self._check_at:
            self._check(deadline)
        batch, replies = _transaction(puts)
        repeatable = guard is not None and puts.get(guard.key, guard.value) != guard.value
        unanswered = False

        def attempt() -> bool:
            nonlocal unanswered
            try:
                return self._write_once(batch, replies, guard, deadline)
            except _UnansweredError as error:
                unanswered = True
                if repeatable:
                    raise error.cause from None
                raise

        try:
            written = self._persist(attempt, deadline)
        except (_UnansweredError, OnlineStoreError) as error:
            if not unanswered:
                raise
            raise self._unknown() from error
        if unanswered and not written:
            raise self._unknown()
        return written

    def scan(self, prefix: bytes) -> Iterator[list[bytes]]:
        """Keys that begin with `prefix`, in batches, over a connection of its own.

        When that connection breaks, the scan starts over: the server may have been restarted, after which an old
        cursor could pass keys by.
        """
        deadline = Deadline(self._timeout)
        if time.monotonic() >= self._check_at:
            self._check(deadline)
        return self._scan(_GLOB.sub(rb"\\\1", prefix) + b"*")

    def close(self) -> None:
        """Close the connections that nobody uses now; those in use are closed when they come back."""
        self._check_at, self._closed = 0.0, True
        self._pool.close_unused()

    def _scan(self, pattern: bytes) -> Iterator[list[bytes]]:
        connection: Any = self._connection_class(**self._connection_options)
        cursor, deadline = b"0", Deadline(self._timeout)

        def step() -> tuple[bytes, list[bytes]]:
            nonlocal cursor
            try:
                brought_up(connection, deadline, connect=self._connect_timeout)
                connection.send_command("SCAN", cursor, "MATCH", pattern, "COUNT", _SCAN_KEYS)
                following, keys = connection.read_response()
            except _SILENT:
                connection.disconnect()
                cursor = b"0"
                raise
            return following, keys

        try:
            while True:
                deadline = Deadline(self._timeout)
                cursor, keys = self._persist(step, deadline)
                if keys:
                    yield keys
                if cursor == b"0":
                    return
        finally:
            connection.disconnect()

    def _ask(self, request: bytes, replies: int, deadline: Deadline) -> list[Any]:
        connection = self._pool.take(deadline, connect=self._connect_timeout)
        try:
            connection.send_packed_command((request,))
            return _replies(connection, replies, deadline)
        except BaseException:
            connection.disconnect()  # replies to this request may still come
            raise
        finally:
            self._release(connection)

    def _write_once(self, batch: bytes, replies: int, guard: Guard | None, deadline: Deadline) -> bool:
        connection = self._pool.take(deadline, connect=self._connect_timeout)
        sent = False
        try:
            while True:
                if guard is not None and not self._watch(connection, guard, deadline):
                    return False
                connection.send_packed_command((batch,))
                sent = True
                results = _replies(connection, replies, deadline)[-1]
                if results is not None:
                    return _all_done(results)
                sent = False  # the guard key was written since it was looked at; it may hold the same value
        except _SILENT as error:
            connection.disconnect()
            if sent and not isinstance(error, _REPLIES):
                raise _UnansweredError(error) from error
            raise
        except BaseException:
            connection.disconnect()
            raise
        finally:
            self._release(connection)

    def _watch(self, connection: Any, guard: Guard, deadline: Deadline) -> bool:
        """Watch the guard key and say whether it holds; where it does not, stop watching."""
        connection.send_packed_command((_pack(("WATCH", guard.key)) + _pack(("GET", guard.key)),))
        if opened_one(guard.key, _replies(connection, 2, deadline)[1], where=self._where) == guard.value:
            return True
        connection.send_packed_command((_UNWATCH,))
        _replies(connection, 1, deadline)
        return False

    def _release(self, connection: Any) -> None:
        if self._closed:
            connection.disconnect()
        self._pool.release(connection)

    def _persist(self, attempt: Callable[[], T], deadline: Deadline) -> T:
        """The result of `attempt`, tried again after connection errors while time is left; what redis-py raises, in our
        words."""
        failures = 0
        while True:
            try:
                return attempt()
            except (redis.RedisError, OSError) as error:
                failures += 1
                pause = self._pauses.compute(failures)
                passing = isinstance(error, _SILENT) and _is_passing(error)
                if not passing or failures > self._retries or not deadline.allows(pause):
                    text = str(error)
                    if self._secret and self._secret in text:  # a server may quote what it did not understand
                        raise self._error(error, text.replace(self._secret, "***")) from None
                    raise self._error(error, text) from error
            time.sleep(pause)

    def _error(self, error: Exception, text: str) -> OnlineStoreError:
        name, text = self._where, text.rstrip(".")
        for kinds, what in _OTHERS:
            if isinstance(error, kinds):
                return OnlineStoreError(f"{name} {what.format(text=text)}.")
        if "DB index is out of range" in text:
            return OnlineStoreError(f"{name} has no database of the number in which its URL ends; most have 0 to 15.")
        if isinstance(error.__context__, queue.Empty):
            return OnlineUnavailableError(
                f"{name} has all {self._pool_size} connections of this process in use, and none became free in "
                f"{self._pool_timeout:g} s. Raise pool_size in its URL, or use fewer threads."
            )
        if isinstance(error, _REFUSED):
            return OnlineStoreError(f"{name} refused the user, the password or a permission: {text}.")
        if _is_tls_fault(error):
            return OnlineStoreError(
                f"{name} could not be reached over TLS: {text}. If its certificate is your own, name the authority's "
                "file: ?ca_file=/path/ca.pem."
            )
        if isinstance(error, (*_SILENT, OSError)) or text.startswith("BUSY"):
            return OnlineUnavailableError(f"{name} cannot be reached just now: {text}.")
        if isinstance(error, redis.OutOfMemoryError):
            return OnlineStoreError(f"{name} is full, nothing was written: {text}. Give it more maxmemory.")
        return OnlineStoreError(f"{name} refused a command: {text}.")

    def _unknown(self) -> OnlineUnavailableError:
        return OnlineUnavailableError(
            f"The online store {self._name} fell silent after a batch was sent; the batch may or may not have been "
            "applied. Read its keys to know."
        )

    def _check(self, deadline: Deadline) -> None:
        """Refuse a server that may throw keys away when its memory is full; at the first use, and every few seconds, since
        that can be changed while it runs."""
        if self._closed:
            raise OnlineStoreError(f"The online store {self._name} was closed.")
        policy = self._persist(lambda: self._policy(deadline), deadline)
        if policy != "noeviction":
            raise OnlineStoreError(
                f"The online store {self._name} has maxmemory-policy {policy}: it silently drops features when its "
                "memory is full. Set it to noeviction, in redis.conf or with: CONFIG SET maxmemory-policy "
                "noeviction; then `featurestore verify --repair` finds and fills what it has dropped."
            )
        self._check_at = time.monotonic() + _POLICY_SECONDS

    def _policy(self, deadline: Deadline) -> str:
        try:
            return str(self._ask(_pack(("CONFIG", "GET", "maxmemory-policy")), 1, deadline)[0][1], "ascii")
        except (redis.ResponseError, IndexError):  # forbidden, renamed or empty, as hosted servers have it
            memory = self._ask(_pack(("INFO", "memory")), 1, deadline)[0]
        found = re.search(rb"^maxmemory_policy:(\S+)", memory, re.MULTILINE)
        return str(found[1], "ascii") if found else "unknown"


class _UnansweredError(Exception):
    """A batch was sent and the connection broke before the reply."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


def _replies(connection: Any, count: int, deadline: Deadline) -> list[Any]:
    """The next replies, each waited for no longer than what is left."""
    found = []
    for _ in range(count):
        deadline.limit(connection)
        found.append(connection.read_response())
    return found


def _is_passing(error: Exception) -> bool:
    """Whether another attempt may succeed: the server's refusals and a pool without a free connection stay."""
    return not isinstance(error, _REFUSED) and not (isinstance(error.__context__, queue.Empty) or _is_tls_fault(error))


def _is_tls_fault(error: Exception) -> bool:
    """Whether TLS itself failed, and not the connection under it."""
    fault = error.__context__
    return isinstance(fault, ssl.SSLError) and not isinstance(fault, ssl.SSLEOFError | ssl.SSLZeroReturnError)


def _transaction(puts: Mapping[bytes, bytes | None]) -> tuple[bytes, int]:
    """A packed transaction that applies `puts`, and the number of replies it brings."""
    commands = [_MULTI]
    kept = [(key, sealed(key, value)) for key, value in puts.items() if value is not None]
    commands.extend(_pack(("MSET", *chain.from_iterable(chunk))) for chunk in _chunks(kept))
    if len(kept) < len(puts):
        gone = [key for key, value in puts.items() if value is None]
        commands.extend(_pack(("DEL", *chunk)) for chunk in _chunks(gone))
    commands.append(_EXEC)
    return b"".join(commands), len(commands)


def _chunks(items: Sequence[T]) -> Iterable[Sequence[T]]:
    return (items[start : start + _COMMAND_KEYS] for start in range(0, len(items), _COMMAND_KEYS))


def _all_done(results: Iterable[Any]) -> bool:
    for result in results:
        if isinstance(result, Exception):
            raise result
    return True


def _parse(url: str) -> tuple[bool, str, dict[str, Any], dict[str, Any]]:
    """Whether to use TLS, the store's name without a password, redis-py's connection options, and ours."""
    scheme = url.partition("://")[0]
    tls = scheme == "rediss"
    encode = "In a user or password, write @ : / ? # % as %40 %3A %2F %3F %23 %25."
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "localhost", parts.port or 6379
    except ValueError:  # its message would show a part of the password
        raise ConfigError(f"The {scheme}:// URL has a host or port that cannot be read. {encode}") from None
    db = parts.path.strip("/") or "0"
    if parts.fragment or not (db.isascii() and db.isdigit()):
        raise ConfigError(
            f"The {scheme}:// URL ends in a database number, such as {scheme}://localhost:6379/0. {encode}"
        )
    options = parse_options(
        parts.query, {**RedisStore.OPTIONS, **(RedisStore.TLS_OPTIONS if tls else {})}, scheme=scheme
    )
    if "key_file" in options and "cert_file" not in options:
        raise ConfigError(f"Option 'key_file' of the {scheme}:// URL needs 'cert_file' beside it.")
    connection = {
        "host": host,
        "port": port,
        "db": int(db),
        "username": unquote(parts.username) if parts.username else None,
        "password": unquote(parts.password) if parts.password else None,
        "socket_timeout": options.get("timeout", 5.0),
        "socket_connect_timeout": options.get("connect_timeout", 1.0),
        "protocol": 2,  # with 3, and with the library's name, connecting takes more round trips
        **WITHOUT_LIBRARY,
        "client_name": "featurestore",  # seen in CLIENT LIST; over TLS its reply also brings in the session tickets,
        # which redis-py would otherwise take for the rest of an earlier answer
    }
    if tls:
        connection |= {
            "ssl_ca_certs": options.get("ca_file"),
            "ssl_certfile": options.get("cert_file"),
            "ssl_keyfile": options.get("key_file"),
            "ssl_check_hostname": True,  # redis-py did not until 6, and took any certificate of the authority
            "ssl_min_version": ssl.TLSVersion.TLSv1_2,
        }
    shown = f"[{host}]" if ":" in host else host
    return tls, f"{scheme}://{shown}:{port}/{int(db)}", connection, options
