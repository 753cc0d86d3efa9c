"""Connections to Redis that do all that a call asks of them by its deadline, however the server parcels out what it says."""

from __future__ import annotations

import inspect
import time
from typing import Any

import redis
import redis.cluster
from redis.connection import AbstractConnection

from featurestore.online.due import due

_TAKEN = inspect.signature(AbstractConnection.__init__).parameters
WITHOUT_LIBRARY = {"driver_info": None} if "driver_info" in _TAKEN else {"lib_name": None, "lib_version": None}
"""Options of a connection that does not tell the server which library made it; they had other names before redis-py 7.1."""
_PARSER = getattr(redis.cluster, "ClusterParser", None)
WITH_REDIRECTIONS = {} if _PARSER is None else {"parser_class": _PARSER}
"""Options of a connection that knows what the servers of a cluster say; in later versions of redis-py every one does."""

MIN_WAIT_SECONDS = 0.001
"""Seconds that a step is given at least: 0 would mean not to wait at all, and to fail in another way."""

SLACK_SECONDS = 0.001
"""Seconds by which what a socket was told before may differ from what is left: to tell it is a call of the system, for which the
thread gives Python's lock away."""


class Deadline:
    """When a caller is to be answered: what is left of its seconds is all that each step may take, a retry included."""

    def __init__(self, seconds: float, *, begun: float | None = None) -> None:
        now = time.monotonic()
        self.begun = now if begun is None else begun
        """When the call began, of which this is the time or a part of it; by the monotonic clock."""
        self.at = min(now + seconds, due())
        """By when it is to be answered; by the monotonic clock."""

    def left(self) -> float:
        """Seconds that are left; a little where there are none."""
        return max(MIN_WAIT_SECONDS, self.at - time.monotonic())

    def allows(self, pause: float) -> bool:
        """Whether anything would be left after a pause of so many seconds."""
        return time.monotonic() + pause < self.at


class TimedSocket:
    """A socket of which all that is sent and read ends by a deadline; by itself a socket gives each piece all the time anew, so that a
    server that says one byte every now and then holds its caller as long as it likes."""

    __slots__ = ("_socket", "deadline")

    def __init__(self, sock: Any, deadline: Deadline) -> None:
        self._socket, self.deadline = sock, deadline

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def sendall(self, data: Any) -> None:
        """Send all of it; TimeoutError where the deadline comes first. Over TLS a socket's own would give each record its time."""
        rest = memoryview(data)
        while rest:
            self._limit()
            rest = rest[self._socket.send(rest) :]

    def recv(self, *given: Any) -> Any:
        """As of a socket; TimeoutError where the deadline has come."""
        self._limit()
        return self._socket.recv(*given)

    def recv_into(self, *given: Any) -> Any:
        """As of a socket; TimeoutError where the deadline has come."""
        self._limit()
        return self._socket.recv_into(*given)

    def _limit(self) -> None:
        """Let the next piece take no longer than what is left, but for SLACK_SECONDS."""
        told = self._socket.gettimeout()
        if told == 0:  # somebody asks what is there already
            return
        left = self.deadline.at - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        if told is None or abs(told - left) > SLACK_SECONDS:
            self._socket.settimeout(left)


class TimedConnection(redis.Connection):  # type: ignore[misc]  # the base class has no types
    """A connection that its first user may use until a deadline. socket_connect_timeout: seconds that the network may take to make
    it, at most."""

    def __init__(self, *, socket_connect_timeout: float, **options: Any) -> None:
        self._connect_seconds, self.deadline = socket_connect_timeout, Deadline(0.0)
        super().__init__(**options)

    @property
    def socket_timeout(self) -> float:
        """What is left, as often as redis-py asks."""
        return self.deadline.left()

    @socket_timeout.setter
    def socket_timeout(self, seconds: float) -> None:
        """What redis-py has for all calls alike is none of them."""

    @property
    def socket_connect_timeout(self) -> float:
        """What one address of the server may take."""
        return min(self._connect_seconds, self.deadline.left())

    @socket_connect_timeout.setter
    def socket_connect_timeout(self, seconds: float) -> None:
        """As for `socket_timeout`."""

    def bring_up(self, deadline: Deadline) -> None:
        """Connect where that is not so; all that is done with the connection from now on ends by the deadline."""
        self.deadline = deadline
        if self._sock is None:  # else it does nothing, by way of what tries again
            self.connect()
        else:
            self._sock.deadline = deadline

    def _connect(self) -> TimedSocket:
        return TimedSocket(super()._connect(), self.deadline)


class TimedTlsConnection(TimedConnection, redis.SSLConnection):  # type: ignore[misc]  # the base class has no types
    """The same over TLS, the handshake included."""
