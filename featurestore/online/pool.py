"""Connections to Redis, each used by one thread at a time, and how long a call may take over all that it does."""

from __future__ import annotations

import contextlib
import inspect
import queue
import time
from typing import Any

import redis
import redis.cluster
from redis.connection import AbstractConnection

from featurestore.online.due import due
from featurestore.online.watched import POOLS

_TAKEN = inspect.signature(AbstractConnection.__init__).parameters
WITHOUT_LIBRARY = {"driver_info": None} if "driver_info" in _TAKEN else {"lib_name": None, "lib_version": None}
"""Options of a connection that does not tell the server which library made it; they had other names before redis-py 7.1."""
_PARSER = getattr(redis.cluster, "ClusterParser", None)
WITH_REDIRECTIONS = {} if _PARSER is None else {"parser_class": _PARSER}
"""Options of a connection that knows what the servers of a cluster say; in later versions of redis-py every one does."""
MIN_WAIT_SECONDS = 0.001
"""Seconds that a socket is given at least: 0 would mean not to wait at all, and to fail in another way."""

SLACK_SECONDS = 0.001
"""Seconds by which what a socket was told before may differ from what is left."""


class Deadline:
    """When a caller is to be answered: what is left of its seconds is all that each step may take, a retry included."""

    def __init__(self, seconds: float, *, begun: float | None = None) -> None:
        now = time.monotonic()
        self.begun = now if begun is None else begun
        """When the call began, of which this is the time or a part of it; by the monotonic clock."""
        self._at = min(now + seconds, due())

    def left(self) -> float:
        """Seconds that are left; a little where there are none."""
        return max(MIN_WAIT_SECONDS, self._at - time.monotonic())

    def allows(self, pause: float) -> bool:
        """Whether anything would be left after a pause of so many seconds."""
        return time.monotonic() + pause < self._at

    def limit(self, connection: Any) -> None:
        """Let what a connection sends or reads next take no longer than what is left, but for SLACK_SECONDS: to tell its socket is a
        call of the system, for which the thread gives Python's lock away."""
        sock = connection._sock
        if sock is not None:
            left, told = self.left(), sock.gettimeout()
            if told is None or abs(told - left) > SLACK_SECONDS:
                sock.settimeout(left)


class Pool(redis.BlockingConnectionPool):  # type: ignore[misc]
    """redis-py's pool, without what it does on each use for metrics and notices that nobody asked for.

    That took a tenth of the time of a lookup of one key.
    """

    def __init__(self, **words: Any) -> None:
        super().__init__(**words)
        POOLS.add(self)

    @property
    def in_use(self) -> int:
        """Connections that calls have now."""
        return int(self.max_connections) - int(self.pool.qsize())

    def take(self, deadline: Deadline, *, connect: float) -> Any:
        """A connection that is up and holds no rest of an earlier reply, waited for where all are in use.

        deadline: by when it has to be up. connect: seconds that the network may take to make one, at most. Raises
        ConnectionError, in the context of queue.Empty where none became free in time.
        """
        self._checkpid()
        try:
            connection = self.pool.get(timeout=min(self.timeout, deadline.left())) or self.make_connection()
        except queue.Empty:
            raise redis.ConnectionError("No connection available.")  # noqa: B904 - its context tells the cause
        try:
            brought_up(connection, deadline, connect=connect)
            try:
                usable = not connection.can_read()
            except (redis.ConnectionError, redis.TimeoutError, OSError):
                usable = False
            if not usable:  # the server closed it meanwhile, or more came than was read
                connection.disconnect()
                brought_up(connection, deadline, connect=connect)
        except BaseException:
            self.release(connection)
            raise
        return connection

    def close_unused(self) -> None:
        """Close the connections that nobody uses now."""
        self._checkpid()
        unused = 0
        with contextlib.suppress(queue.Empty):
            while True:
                connection = self.pool.get_nowait()
                unused += 1
                if connection is not None:
                    connection.disconnect()
        for _ in range(unused):
            self.pool.put_nowait(None)  # room for a new one

    def release(self, connection: Any) -> None:
        """Give a connection back; one from before a fork is its parent's, and only makes place for a new one."""
        self._checkpid()
        if not self.owns_connection(connection):
            connection.disconnect()
            connection = None
        with contextlib.suppress(queue.Full):
            self.pool.put_nowait(connection)


def brought_up(connection: Any, deadline: Deadline, *, connect: float) -> None:
    """Connect where that is not so, and let what is sent or read next end by the deadline."""
    left = deadline.left()
    connection.socket_timeout, connection.socket_connect_timeout = left, min(connect, left)
    if connection._sock is None:  # else it does nothing, by way of what tries again
        connection.connect()
    deadline.limit(connection)
