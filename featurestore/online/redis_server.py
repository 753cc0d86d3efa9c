"""One Redis server: its connections, and what is asked of it, once. The caller decides whether to try again."""

from __future__ import annotations

import queue
import re
import ssl
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple, TypeVar

import hiredis
import redis
from redis.exceptions import AuthorizationError, NoPermissionError

from featurestore.online.breaker import Breaker
from featurestore.online.contract import Guard
from featurestore.online.pool import Pool
from featurestore.online.timed_connection import Deadline
from featurestore.online.value_checksums import PutBatch, opened_one, sealed

T = TypeVar("T")

pack: Callable[..., bytes] = hiredis.pack_command
TIME = pack(("TIME",))
MULTI = pack(("MULTI",))
EXEC = pack(("EXEC",))
_UNWATCH = pack(("UNWATCH",))
COMMAND_KEYS = 50_000
"""Keys in one command: Redis takes 1,048,576 arguments."""

_SCAN_KEYS = 1000  # keys that the server looks at in one step of a scan

POLICY_SECONDS = 5.0
"""Seconds after which a server is asked again whether it may throw keys away."""

SILENT = (redis.ConnectionError, redis.TimeoutError)
REFUSED = (redis.AuthenticationError, AuthorizationError, NoPermissionError)
_REPLIES = (*REFUSED, redis.BusyLoadingError)  # redis-py calls some of the server's replies connection errors


class LeftAloneError(redis.ConnectionError):  # type: ignore[misc]  # the base class has no types
    """The server has failed several times in a row, and is not asked for so many seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"it has failed several times in a row, and is asked again in {seconds:.1f} s")
        self.seconds = seconds


class UnansweredError(Exception):
    """A batch was sent and the connection broke before the reply."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class PolicyError(Exception):
    """The server may throw keys away."""

    def __init__(self, policy: str) -> None:
        super().__init__(policy)
        self.policy = policy


class RedisServer:
    """A server by its connections. where: the store's name, in messages; options: those of a connection; size, wait: connections at most, and seconds
    to wait for a free one."""

    def __init__(
        self, where: str, connection_class: Any, options: Mapping[str, Any], *, size: int, wait: float
    ) -> None:
        self._where, self._class, self._options = where, connection_class, dict(options)
        self.pool: Any = Pool(max_connections=size, timeout=wait, connection_class=connection_class, **options)
        self._breaker = Breaker()
        self._check_at = 0.0  # by the monotonic clock; at the first use
        self._closed = False

    def admit(self, deadline: Deadline) -> None:
        """Before anything is asked; LeftAloneError where the server has failed too often. A caller that is admitted says by `judge` what came of it."""
        if not self._breaker.admits(deadline.begun):
            raise LeftAloneError(self._breaker.left())

    def judge(self, error: BaseException | None, deadline: Deadline, *, heard: bool = True) -> None:
        """What came of asking: an error, or none. heard: whether anything was waited for."""
        if not heard:
            self._breaker.gave_up()
        elif error is None or isinstance(error, (redis.ResponseError, *REFUSED)):
            self._breaker.answered()
        elif isinstance(error, UnansweredError) or is_silence(error):
            self._breaker.failed(deadline.begun)
        else:
            self._breaker.gave_up()

    def taken(self, deadline: Deadline) -> Any:
        """A connection, to be given back by `released`."""
        return self.pool.take(deadline)

    def released(self, connection: Any) -> None:
        """A connection that is not used any more."""
        if self._closed:
            connection.disconnect()
        self.pool.release(connection)

    def own_connection(self) -> Any:
        """A connection of nobody else, for `scan_step`, to be disconnected."""
        return self._class(**self._options)

    def scan_step(
        self, connection: Any, cursor: bytes, pattern: bytes, deadline: Deadline
    ) -> tuple[bytes, list[bytes]]:
        """The next cursor and keys of a scan, over `own_connection`."""
        self.admit(deadline)
        try:
            connection.bring_up(deadline)
            connection.send_command("SCAN", cursor, "MATCH", pattern, "COUNT", _SCAN_KEYS)
            following, keys = connection.read_response()
        except BaseException as error:
            self.judge(error, deadline)
            raise
        self.judge(None, deadline)
        return following, list(keys)

    def close(self) -> None:
        """Close the connections that nobody uses now; those in use are closed when they come back."""
        self._closed = True
        self.pool.close_unused()

    def ask(self, request: bytes, replies: int, deadline: Deadline) -> list[Any]:
        """The replies to a request."""
        self.admit(deadline)
        try:
            found = self._asked(request, replies, deadline)
        except BaseException as error:
            self.judge(error, deadline)
            raise
        self.judge(None, deadline)
        return found

    def _asked(self, request: bytes, replies: int, deadline: Deadline) -> list[Any]:
        connection = self.taken(deadline)
        try:
            connection.send_packed_command((request,))
            return replies_of(connection, replies)
        except BaseException:
            connection.disconnect()  # replies to this request may still come
            raise
        finally:
            self.released(connection)

    def write(self, batch: bytes, replies: int, guard: Guard | None, deadline: Deadline) -> bool:
        """Send a packed transaction where the guard holds; UnansweredError where it may have come there."""
        self.admit(deadline)
        try:
            written = self._written(batch, replies, guard, deadline)
        except BaseException as error:
            self.judge(error, deadline)
            raise
        self.judge(None, deadline)
        return written

    def _written(self, batch: bytes, replies: int, guard: Guard | None, deadline: Deadline) -> bool:
        connection = self.taken(deadline)
        sent = False
        try:
            while True:
                if guard is not None and not self._watch(connection, guard):
                    return False
                connection.send_packed_command((batch,))
                sent = True
                results = replies_of(connection, replies)[-1]
                if results is not None:
                    return _all_done(results)
                sent = False  # the guard key was written since it was looked at; it may hold the same value
        except SILENT as error:
            connection.disconnect()
            if sent and not isinstance(error, _REPLIES):
                raise UnansweredError(error) from error
            raise
        except BaseException:
            connection.disconnect()
            raise
        finally:
            self.released(connection)

    def _watch(self, connection: Any, guard: Guard) -> bool:
        """Watch the guard key and say whether it holds; where it does not, stop watching."""
        connection.send_packed_command((pack(("WATCH", guard.key)) + pack(("GET", guard.key)),))
        if opened_one(guard.key, replies_of(connection, 2)[1], where=self._where) == guard.value:
            return True
        connection.send_packed_command((_UNWATCH,))
        replies_of(connection, 1)
        return False

    def check(self, deadline: Deadline) -> None:
        """PolicyError where the server may throw keys away when its memory is full; asked at the first use, and every few seconds,
        since that can be changed while it runs."""
        if time.monotonic() < self._check_at:
            return
        policy = self._policy(deadline)
        if policy != "noeviction":
            raise PolicyError(policy)
        self._check_at = time.monotonic() + POLICY_SECONDS

    def _policy(self, deadline: Deadline) -> str:
        try:
            return str(self.ask(pack(("CONFIG", "GET", "maxmemory-policy")), 1, deadline)[0][1], "ascii")
        except (redis.ResponseError, IndexError):  # forbidden, renamed or empty, as hosted servers have it
            memory = self.ask(pack(("INFO", "memory")), 1, deadline)[0]
        found = re.search(rb"^maxmemory_policy:(\S+)", memory, re.MULTILINE)
        return str(found[1], "ascii") if found else "unknown"


def is_silence(error: BaseException) -> bool:
    """Whether a server was not reached or fell silent, which may pass; its refusals and a pool without a free connection stay."""
    stays = isinstance(error, REFUSED) or isinstance(error.__context__, queue.Empty) or is_tls_fault(error)
    return isinstance(error, (*SILENT, OSError)) and not stays


def is_tls_fault(error: BaseException) -> bool:
    """Whether TLS itself failed, and not the connection under it."""
    fault = error.__context__
    return isinstance(fault, ssl.SSLError) and not isinstance(fault, ssl.SSLEOFError | ssl.SSLZeroReturnError)


def replies_of(connection: Any, count: int) -> list[Any]:
    """The next replies."""
    return [connection.read_response() for _ in range(count)]


class PackedBatch(NamedTuple):
    """A packed transaction, the number of replies that it brings, and how what it puts is stored, but for the key of its guard; None where
    that is little."""

    packed: bytes
    replies: int
    batch: PutBatch | None


def transaction(puts: Mapping[bytes, bytes | None], *, guard: Guard | None = None) -> PackedBatch:
    """The transaction that applies `puts`."""
    kept = {key: value for key, value in puts.items() if value is not None and (guard is None or key != guard.key)}
    words: list[bytes] = []
    batch = PutBatch.of(
        list(kept), list(kept.values()), lambda *part: words.extend(chain.from_iterable(zip(*part, strict=True)))
    )
    if guard is not None and (value := puts.get(guard.key)) is not None:
        words += (guard.key, sealed(guard.key, value))
    commands = [MULTI, *(pack(("MSET", *some)) for some in _chunks(words, of_key=2))]
    gone = [key for key, value in puts.items() if value is None]
    commands.extend(pack(("DEL", *some)) for some in _chunks(gone))
    commands.append(EXEC)
    return PackedBatch(b"".join(commands), len(commands), batch)


def reading(keys: Sequence[bytes], *, clock: bool) -> list[bytes]:
    """The packed commands that read keys at one moment, and before them, where it is asked for, the clock."""
    commands = [TIME] if clock else []
    commands += [pack(("MGET", *chunk)) for chunk in _chunks(keys)]
    return [MULTI, *commands, EXEC] if len(keys) > COMMAND_KEYS else commands  # else nobody writes between two of them


def read_values(replies: list[Any], keys: int) -> list[Any]:
    """What the replies to `reading` say of so many keys; the clock before it, where it was asked for."""
    return replies[-1] if keys > COMMAND_KEYS else replies


def _chunks(items: Sequence[T], *, of_key: int = 1) -> Iterable[Sequence[T]]:
    """The items of each command. of_key: how many there are of a key."""
    size = of_key * COMMAND_KEYS
    return (items[start : start + size] for start in range(0, len(items), size))


def _all_done(results: Iterable[Any]) -> bool:
    for result in results:
        if isinstance(result, Exception):
            raise result
    return True
