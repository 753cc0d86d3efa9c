"""Connections to Redis, each used by one thread at a time."""

from __future__ import annotations

import contextlib
import queue
from typing import Any

import redis

from featurestore.online.timed_connection import Deadline
from featurestore.online.watched import POOLS


class Pool(redis.BlockingConnectionPool):  # type: ignore[misc]  # the base class has no types
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

    def take(self, deadline: Deadline) -> Any:
        """A connection that is up and holds no rest of an earlier reply, waited for where all are in use.

        deadline: by when it has to be up, and all that is done with it ends. Raises ConnectionError, in the context of
        queue.Empty where none became free in time.
        """
        self._checkpid()
        try:
            connection = self.pool.get(timeout=min(self.timeout, deadline.left())) or self.make_connection()
        except queue.Empty:
            raise redis.ConnectionError("No connection available.")  # noqa: B904 - its context tells the cause
        try:
            connection.bring_up(deadline)
            try:
                usable = not connection.can_read()
            except (redis.ConnectionError, redis.TimeoutError, OSError):
                usable = False
            if not usable:  # the server closed it meanwhile, or more came than was read
                connection.disconnect()
                connection.bring_up(deadline)
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
