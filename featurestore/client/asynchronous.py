"""The client for coroutines."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from featurestore.client.calls import (
    Call,
    Format,
    address_of,
    listing_of,
    lookup_of,
    materialize_of,
    push_of,
    status_call,
    unreached,
)
from featurestore.client.retries import CallTime, checked_settings
from featurestore.declare.arguments import checked
from featurestore.errors import MissingPackageError
from featurestore.push.pushed import Pushed
from featurestore.serving.online_result import OnlineResult

try:
    import aiohttp
except ImportError as error:
    raise MissingPackageError("AsyncClient needs aiohttp: pip install 'featurestore[client]'") from error

R = TypeVar("R")


class AsyncClient:
    """`Client` for coroutines of one event loop; its words and its methods are the same."""

    def __init__(
        self, url: str, *, key: str | None = None, timeout_seconds: float = 5.0, attempts: int = 4,
        connections: int = 100, authorities: str | None = None, certificate: tuple[str, str] | None = None,
    ) -> None:  # fmt: skip
        checked_settings(timeout_seconds, attempts, connections)
        self._address = address_of(url, key)
        self._seconds, self._attempts, self._connections = timeout_seconds, attempts, connections
        self._tls: ssl.SSLContext | bool = True
        if authorities is not None or certificate is not None:
            self._tls = ssl.create_default_context(cafile=authorities)
            if certificate is not None:
                self._tls.load_cert_chain(*certificate)
        self._session: aiohttp.ClientSession | None = None

    @checked
    async def get_online_features(
        self, rows: Any, features: Any, *, fingerprint: str | None = None, request_id: str | None = None,
        format: Format = "json",  # noqa: A002 - the field's word
    ) -> OnlineResult:  # fmt: skip
        """See `Client.get_online_features`."""
        return await self._call(lookup_of(rows, features, fingerprint=fingerprint, request_id=request_id, form=format))

    @checked
    async def push(self, source: str, rows: Any) -> Pushed:
        """See `Client.push`."""
        return await self._call(push_of(source, rows))

    @checked
    async def materialize(self, views: Sequence[str] | None = None, *, full: bool = False) -> list[str]:
        """See `Client.materialize`."""
        return await self._call(materialize_of(views, full))

    async def status(self) -> list[dict[str, Any]]:
        """See `Client.status`."""
        return await self._call(status_call())

    async def services(self) -> list[dict[str, Any]]:
        """See `Client.services`."""
        return await self._call(listing_of("services"))

    @checked
    async def service(self, name: str) -> dict[str, Any]:
        """See `Client.service`."""
        return await self._call(listing_of("services", name))

    async def views(self) -> list[dict[str, Any]]:
        """See `Client.views`."""
        return await self._call(listing_of("views"))

    @checked
    async def view(self, name: str) -> dict[str, Any]:
        """See `Client.view`."""
        return await self._call(listing_of("views", name))

    async def close(self) -> None:
        """Close the connections. A later call opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncClient({self._address.url + self._address.path!r})"

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:  # within a coroutine, since it belongs to the loop that runs
            connector = aiohttp.TCPConnector(limit=self._connections, ssl=self._tls)
            self._session = aiohttp.ClientSession(
                connector=connector, headers=self._address.headers, timeout=aiohttp.ClientTimeout(), trust_env=False,
                cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False,
            )  # fmt: skip
        return self._session

    async def _call(self, call: Call[R]) -> R:
        where, deadline = self._address.url, CallTime(self._seconds, self._attempts)
        while True:
            try:
                async with asyncio.timeout(deadline.remaining(where)):
                    status, headers, body = await self._sent(call)
            except TimeoutError:
                raise deadline.passed(where) from None
            except aiohttp.ClientError as error:
                wait = deadline.wait()
                if wait is None or isinstance(error, aiohttp.ClientSSLError):
                    raise unreached(where, error) from error
            else:
                wait = deadline.wait(headers) if call.may_repeat(status, body) else None
                if wait is None:
                    return call.result(status, headers, body)
            await asyncio.sleep(wait)

    async def _sent(self, call: Call[Any]) -> tuple[int, Any, bytes]:
        """The answer to one attempt."""
        method, url = "GET" if call.body is None else "POST", self._address.url + self._address.path + call.path
        request = self._opened().request(method, url, data=call.body, headers=call.headers, allow_redirects=False)
        async with request as response:
            return response.status, response.headers, await response.read()
