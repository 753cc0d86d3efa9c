"""The online store on the Redis server that Sentinels say is the primary, whichever that is after a fail-over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import redis
from redis.exceptions import ReadOnlyError

from featurestore.online.redis import RedisStore
from featurestore.online.redis_server import SILENT, RedisServer
from featurestore.online.redis_url import Address
from featurestore.online.timed_connection import WITHOUT_LIBRARY, Deadline, TimedConnection, TimedTlsConnection

NO_PRIMARY = "the server at {}:{} is a replica, and the Sentinels do not say yet which is the primary"


class _PrimaryConnection(TimedConnection):
    """A connection to whichever server is the primary when it is made. primary: says which, within a part of a deadline."""

    def __init__(self, *, primary: Callable[[Deadline], Address], **options: Any) -> None:
        super().__init__(**options)
        self._primary = primary

    def connect(self) -> None:
        """Connect where that is not so; ConnectionError where there is no primary, or it is one no more."""
        if self._sock is not None:
            return
        self.host, self.port = self._primary(self.deadline)
        try:
            super().connect()
            self.send_command("ROLE")
            if self.read_response()[0] != b"master":
                raise redis.ConnectionError(NO_PRIMARY.format(self.host, self.port))
        except BaseException:
            self.disconnect()
            raise


class _PrimaryTlsConnection(_PrimaryConnection, TimedTlsConnection):
    pass


class SentinelStore(RedisStore):
    """The online store behind Sentinels: `redis+sentinel://[user][:password@]host[:port],…/name[/db][?options]`.

    Options: those of RedisStore, and `sentinel_username` and `sentinel_password`, where the Sentinels have their own. Each connection
    asks them for the primary; a server that is one no more breaks its connections, and what is asked then is asked of the next.
    """

    def _first_server(self) -> RedisServer:
        kind = _PrimaryTlsConnection if self._place.tls else _PrimaryConnection
        return self._server_with(kind, primary=self._primary)

    def _primary(self, deadline: Deadline) -> Address:
        """The address of the primary, by the first Sentinel that knows it; ConnectionError where none does. Each has a share of the time,
        and so has the primary."""
        addresses, options, said = self._place.addresses, self._place.options, []
        each = min(self._connect_timeout, deadline.left() / (len(addresses) + 1))
        words: dict[str, Any] = {
            **{name: value for name, value in self._place.connection.items() if name.startswith("ssl_")},
            "username": options.get("sentinel_username"),
            "password": options.get("sentinel_password"),
            "socket_connect_timeout": each,
            "protocol": 2,
            **WITHOUT_LIBRARY,
        }
        for host, port in addresses:
            sentinel = self._connection_class(host=host, port=port, **words)
            try:
                sentinel.bring_up(Deadline(each, begun=deadline.begun))
                sentinel.send_command("SENTINEL", "MASTERS")
                found = _primary_of(sentinel.read_response(), self._place.service)
            except SILENT as error:
                said.append(f"{host}:{port}: {error}")
            else:
                if found is not None:
                    return found
            finally:
                sentinel.disconnect()
        heard = f": {'; '.join(said)}" if said else ""
        raise redis.ConnectionError(f"no Sentinel knows where the primary '{self._place.service}' is{heard}")

    def _is_passing(self, error: Exception) -> bool:
        """A primary that has become a replica is left for the next one."""
        return isinstance(error, ReadOnlyError) or super()._is_passing(error)


def _primary_of(told: Sequence[Sequence[bytes]], service: str) -> Address | None:
    """The address of a service's primary, as SENTINEL MASTERS tells: name and value by turns, for each service. None where it is not
    there, or the Sentinel takes it for gone."""
    for about in told:
        state = dict(zip(about[::2], about[1::2], strict=True))
        if state[b"name"] == service.encode():
            flags = state[b"flags"].split(b",")
            if b"master" in flags and b"s_down" not in flags and b"o_down" not in flags:
                return state[b"ip"].decode(), int(state[b"port"])
    return None
