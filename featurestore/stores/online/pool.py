"""Connections to Redis, each used by one thread at a time."""

from __future__ import annotations

import contextlib
import queue
from typing import Any

import redis

__all__ = ["Pool"]


class Pool(redis.BlockingConnectionPool):  # type: ignore[misc]
    """redis-py's pool, without what it does on each use for metrics and notices that nobody asked for.

    That took a tenth of the time of a lookup of one key.
    """

    def get_connection(self, *_: Any, **__: Any) -> Any:
        """A connection that is up and holds no rest of an earlier reply, waited for where all are in use.

        Raises ConnectionError, in the context of queue.Empty where none became free in time.
        """
        self._checkpid()
        try:
            connection = self.pool.get(timeout=self.timeout) or self.make_connection()
        except queue.Empty:
            raise redis.ConnectionError("No connection available.")  # noqa: B904 - its context tells the cause
        try:
            connection.connect()
            try:
                usable = not connection.can_read()
            except (redis.ConnectionError, redis.TimeoutError, OSError):
                usable = False
            if not usable:  # the server closed it meanwhile, or more came than was read
                connection.disconnect()
                connection.connect()
        except BaseException:
            self.release(connection)
            raise
        return connection

    def release(self, connection: Any) -> None:
        """Give a connection back; one from before a fork is its parent's, and only makes place for a new one."""
        self._checkpid()
        if not self.owns_connection(connection):
            connection.disconnect()
            connection = None
        with contextlib.suppress(queue.Full):
            self.pool.put_nowait(connection)
