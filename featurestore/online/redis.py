"""The online store for many users: Redis (6.2 or later) or Valkey, one server, plain or over TLS.

A batch is one transaction of MSET and DEL, guarded by WATCH. A Lua script would save a round trip, but it was measured
to hold the server, and so every reader, 2.5 times longer per key, and to write 0.6 times as many keys per second.
"""

from __future__ import annotations

import queue
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, ClassVar, TypeVar

import redis
from redis.backoff import EqualJitterBackoff
from redis.exceptions import AskError, ClusterCrossSlotError, ClusterError, ReadOnlyError

from featurestore.bound import BoundToProcess
from featurestore.clock import Clock, reader
from featurestore.errors import OnlineStoreError, OnlineUnavailableError
from featurestore.online.contract import Guard, Reading
from featurestore.online.redis_server import (
    REFUSED,
    SILENT,
    LeftAloneError,
    PolicyError,
    RedisServer,
    UnansweredError,
    is_silence,
    is_tls_fault,
    read_values,
    reading,
    transaction,
)
from featurestore.online.redis_url import parse_redis_url
from featurestore.online.timed_connection import Deadline, TimedConnection, TimedTlsConnection
from featurestore.online.value_checksums import PutBatch, opened
from featurestore.plurals import plural

T = TypeVar("T")

_GLOB = re.compile(rb"([*?\[\]\\])")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.025, 1.0  # seconds before a retry: doubled each time, with jitter

_OTHERS: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    (
        (ClusterError, ClusterCrossSlotError, AskError),
        (
            "is part of a Redis Cluster, which spreads keys over several servers. Give the URL of the cluster: it begins with "
            "redis+cluster://, and has this host and port"
        ),
    ),
    (
        (ReadOnlyError,),
        "is a replica, which takes no writes. Give the URL of its primary, or of the Sentinels that know it: redis+sentinel://host/name",
    ),
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
    tagged: ClassVar[bool] = False

    def __init__(self, url: str, *, clock: Clock | None = None) -> None:
        self._place = parse_redis_url(url)
        self._name, connection, options = self._place.name, self._place.connection, self._place.options
        self._secrets = [text for text in (connection["password"], options.get("sentinel_password")) if text]
        self._pool_size, self._pool_timeout = options.get("pool_size", 32), options.get("pool_timeout", 5.0)
        self._timeout: float = connection["socket_timeout"]
        self._connect_timeout: float = connection["socket_connect_timeout"]
        self._retries: int = options.get("retries", 2)
        self._pauses = EqualJitterBackoff(_LONGEST_PAUSE, _FIRST_PAUSE)
        self._clock = None if clock is None else reader(clock)
        self._closed = False
        self._written: PutBatch | None = None
        self._server = self._first_server()

    def _first_server(self) -> RedisServer:
        """The one server."""
        host, port = self._place.addresses[0]
        return self._server_with(self._connection_class, host=host, port=port)

    @property
    def _connection_class(self) -> type[TimedConnection]:
        return TimedTlsConnection if self._place.tls else TimedConnection

    def _server_with(self, connection_class: Any, **more: Any) -> RedisServer:
        return RedisServer(
            self._where,
            connection_class,
            {**self._place.connection, **more},
            size=self._pool_size,
            wait=self._pool_timeout,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}('{self._name}')"

    @property
    def _where(self) -> str:
        return f"The online store {self._name}"

    def get(self, keys: Sequence[bytes]) -> Reading:
        """The server's clock and the values of `keys` in one round trip, all of one moment; see the contract."""
        deadline = self._begun()
        now = None if self._clock is None else self._clock()
        found, stored = self._persist(lambda: self._read(keys, deadline), deadline)
        now = found if now is None else now
        batch, self._written = self._written, None
        if batch is not None and batch.is_stored(keys, lambda first, part: stored[first : first + len(part)]):
            return Reading(now, batch.values)
        return Reading(now, opened(keys, stored, where=self._where))

    def _read(self, keys: Sequence[bytes], deadline: Deadline) -> tuple[int, list[bytes | None]]:
        """The clock, where none is injected, and what is stored under keys."""
        server, commands = self._server, reading(keys, clock=self._clock is None)
        server.check(deadline)
        if not commands:
            return 0, []
        return parsed(server.ask(b"".join(commands), len(commands), deadline), len(keys), clock=self._clock is None)

    def write(self, puts: Mapping[bytes, bytes | None], *, guard: Guard | None = None) -> bool:
        """Write the batch in one transaction where the guard holds; see the contract.

        A batch that certainly never reached the server is sent again. One that was sent and not answered is sent
        again only if it changes its guard key: WATCH then lets at most one copy through, even one that was long on
        its way. Where the guard no longer holds by then, that copy or another writer changed it, and only the
        caller can tell which.
        """
        deadline = self._begun()
        whole = transaction(puts, guard=guard)
        home = guard.key if guard is not None else next(iter(puts), None)
        repeatable = guard is not None and puts.get(guard.key, guard.value) != guard.value
        unanswered = False

        def attempt() -> bool:
            nonlocal unanswered
            try:
                return self._write_once(whole.packed, whole.replies, guard, deadline, home=home)
            except UnansweredError as error:
                unanswered = True
                if repeatable:
                    raise error.cause from None
                self._lost(error.cause)
                raise

        try:
            written = self._persist(attempt, deadline)
        except (UnansweredError, OnlineStoreError) as error:
            if not unanswered:
                raise
            raise self._unknown() from error
        if unanswered and not written:
            raise self._unknown()
        self._written = whole.batch if written else None
        return written

    def _write_once(
        self, batch: bytes, replies: int, guard: Guard | None, deadline: Deadline, *, home: bytes | None
    ) -> bool:
        """One attempt at a batch. home: one of its keys."""
        server = self._server_of(home, deadline)
        server.check(deadline)
        return server.write(batch, replies, guard, deadline)

    def _server_of(self, key: bytes | None, deadline: Deadline) -> RedisServer:  # noqa: ARG002 - there is but one
        """The server of a key."""
        return self._server

    def scan(self, prefix: bytes) -> Iterator[list[bytes]]:
        """Keys that begin with `prefix`, in batches, over a connection of its own.

        When that connection breaks, the scan starts over: the server may have been restarted, after which an old
        cursor could pass keys by.
        """
        deadline = self._begun()
        self._persist(lambda: self._scanned(deadline), deadline)
        return self._scan(_GLOB.sub(rb"\\\1", prefix) + b"*")

    def close(self) -> None:
        """Close the connections that nobody uses now; those in use are closed when they come back."""
        self._closed = True
        self._server.close()

    def _scanned(self, deadline: Deadline) -> list[RedisServer]:
        """The servers to scan, which throw no key away."""
        self._server.check(deadline)
        return [self._server]

    def _scan_ends(self, deadline: Deadline) -> bool:  # noqa: ARG002 - nor does anything move
        """Whether no key can have been passed by, now that all servers were scanned; else the scan starts over."""
        return True

    def _scan(self, pattern: bytes) -> Iterator[list[bytes]]:
        left: list[RedisServer] | None = None  # those to scan, the last of them now
        connection: Any = None
        cursor, deadline = b"0", Deadline(self._timeout)

        def step() -> list[bytes]:
            nonlocal left, connection, cursor
            try:
                if left is None:
                    left = self._scanned(deadline)
                if connection is None:
                    connection = left[-1].own_connection()
                cursor, keys = left[-1].scan_step(connection, cursor, pattern, deadline)
            except redis.RedisError:
                if connection is not None:
                    connection.disconnect()
                left, connection, cursor = None, None, b"0"
                raise
            if cursor == b"0":
                connection.disconnect()
                connection = None
                left.pop()
            if not left and not self._scan_ends(deadline):
                left = None
            return list(keys)

        try:
            while left is None or left:
                deadline = Deadline(self._timeout)
                keys = self._persist(step, deadline)
                if keys:
                    yield keys
        finally:
            if connection is not None:
                connection.disconnect()

    def _begun(self) -> Deadline:
        """When a call that begins now is to be answered."""
        if self._closed:
            raise OnlineStoreError(f"{self._where} was closed.")
        return Deadline(self._timeout)

    def _persist(self, attempt: Callable[[], T], deadline: Deadline) -> T:
        """The result of `attempt`, tried again after connection errors while time is left; what redis-py raises, in our
        words."""
        failures = 0
        while True:
            try:
                return attempt()
            except PolicyError as error:
                raise self._throws_away(error.policy) from None
            except (redis.RedisError, OSError) as error:
                failures += 1
                pause = self._pauses.compute(failures)
                self._lost(error)
                if not self._is_passing(error) or failures > self._retries or not deadline.allows(pause):
                    text = str(error)
                    if any(secret in text for secret in self._secrets):  # a server may quote what it did not understand
                        for secret in self._secrets:
                            text = text.replace(secret, "***")
                        raise self._error(error, text) from None
                    raise self._error(error, text) from error
            time.sleep(pause)

    def _lost(self, error: Exception) -> None:
        """What was known of where the servers are may be so no more."""

    def _is_passing(self, error: Exception) -> bool:
        """Whether another attempt may succeed."""
        return isinstance(error, SILENT) and _is_passing(error)

    def _error(self, error: Exception, text: str) -> OnlineStoreError:
        name, text = self._where, text.rstrip(".")
        for kinds, what in _OTHERS:
            if isinstance(error, kinds):
                return OnlineStoreError(f"{name} {what.format(text=text)}.")
        if "DB index is out of range" in text:
            return OnlineStoreError(f"{name} has no database of the number in which its URL ends; most have 0 to 15.")
        if isinstance(error.__context__, queue.Empty):
            return OnlineUnavailableError(
                f"{name} has all {self._pool_size} {plural(self._pool_size, 'connection')} of this process in use, and none became free in "
                f"{self._pool_timeout:g} s. Raise pool_size in its URL, or use fewer threads."
            )
        if isinstance(error, REFUSED):
            return OnlineStoreError(f"{name} refused the user, the password or a permission: {text}.")
        if is_tls_fault(error):
            return OnlineStoreError(
                f"{name} could not be reached over TLS: {text}. If its certificate is your own, name the authority's "
                "file: ?ca_file=/path/ca.pem."
            )
        if isinstance(error, (*SILENT, OSError)) or text.startswith("BUSY"):
            away = OnlineUnavailableError(f"{name} cannot be reached just now: {text}.")
            away.retry_after_seconds = error.seconds if isinstance(error, LeftAloneError) else None
            return away
        if isinstance(error, redis.OutOfMemoryError):
            return OnlineStoreError(f"{name} is full, nothing was written: {text}. Give it more maxmemory.")
        return OnlineStoreError(f"{name} refused a command: {text}.")

    def _unknown(self) -> OnlineUnavailableError:
        return OnlineUnavailableError(
            f"{self._where} fell silent after a batch was sent; the batch may or may not have been "
            "applied. Read its keys to know."
        )

    def _throws_away(self, policy: str) -> OnlineStoreError:
        return OnlineStoreError(
            f"{self._where} has maxmemory-policy {policy}: it silently drops features when its "
            "memory is full. Set it to noeviction, in redis.conf or with: CONFIG SET maxmemory-policy "
            "noeviction; then `featurestore verify --repair` finds and fills what it has dropped."
        )


def parsed(replies: list[Any], keys: int, *, clock: bool) -> tuple[int, list[bytes | None]]:
    """The clock (µs), where it was asked for, and the values of so many keys, as a server replied to `reading`."""
    answers, now = read_values(replies, keys), 0
    if clock:
        (whole, micros), *answers = answers
        now = int(whole) * 1_000_000 + int(micros)
    return now, answers[0] if len(answers) == 1 else list(chain.from_iterable(answers))


def _is_passing(error: Exception) -> bool:
    """Whether another attempt may succeed."""
    return is_silence(error) and not isinstance(error, LeftAloneError)
