"""The online store on the Redis server that Sentinels say is the primary, whichever that is after a fail-over."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import ReadOnlyError
from redis.retry import Retry
from redis.sentinel import Sentinel

from featurestore.online.redis import RedisStore
from featurestore.online.redis_server import RedisServer
from featurestore.online.redis_url import Address

NO_PRIMARY = "the server at {}:{} is a replica, and the Sentinels do not say yet which is the primary"


class _PrimaryConnection(redis.Connection):  # type: ignore[misc]
    """A connection to whichever server is the primary when it is made. primary: says which, within so many seconds."""

    def __init__(self, *, primary: Callable[[float], Address], **options: Any) -> None:
        super().__init__(**options)
        self._primary = primary

    def connect(self) -> None:
        """Connect where that is not so; ConnectionError where there is no primary, or it is one no more."""
        if self._sock is not None:
            return
        self.host, self.port = self._primary(self.socket_timeout)
        try:
            super().connect()
            self.send_command("ROLE")
            if self.read_response()[0] != b"master":
                raise redis.ConnectionError(NO_PRIMARY.format(self.host, self.port))
        except BaseException:
            self.disconnect()
            raise


class _PrimaryTlsConnection(_PrimaryConnection, redis.SSLConnection):  # type: ignore[misc]
    pass


class SentinelStore(RedisStore):
    """The online store behind Sentinels: `redis+sentinel://[user][:password@]host[:port],…/name[/db][?options]`.

    Options: those of RedisStore, and `sentinel_username` and `sentinel_password`, where the Sentinels have their own. Each connection
    asks them for the primary; a server that is one no more breaks its connections, and what is asked then is asked of the next.
    """

    def _first_server(self) -> RedisServer:
        kind = _PrimaryTlsConnection if self._place.tls else _PrimaryConnection
        return self._server_with(kind, primary=self._primary)

    def _primary(self, seconds: float) -> Address:
        """The address of the primary, by the first Sentinel that knows it. seconds: for them all, and the primary."""
        addresses, options = self._place.addresses, self._place.options
        each = min(self._connect_timeout, seconds / (2 * len(addresses) + 2))
        words: dict[str, Any] = {
            **{name: value for name, value in self._place.connection.items() if name.startswith("ssl_")},
            **({"ssl": True} if self._place.tls else {}),
            "username": options.get("sentinel_username"),
            "password": options.get("sentinel_password"),
            "socket_timeout": each,
            "socket_connect_timeout": each,
            "protocol": 2,
            "retry": Retry(NoBackoff(), 0),
        }
        with ExitStack() as closing:
            sentinels = Sentinel(list(addresses), sentinel_kwargs=words)
            for one in sentinels.sentinels:
                closing.callback(one.close)
            host, port = sentinels.discover_master(self._place.service)
        return str(host), int(port)

    def _is_passing(self, error: Exception) -> bool:
        """A primary that has become a replica is left for the next one."""
        return isinstance(error, ReadOnlyError) or super()._is_passing(error)
