"""A request's body, counted as it arrives, whatever its length says."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope

from featurestore.server.limits import SMALL_BYTES, Room, ServerLimits

HEADERS = "featurestore.headers"
"""Where the scope of a request has its headers by name, once the edge has read them."""

HEAD = "featurestore.head"
"""Where the scope of a request has what was found of its head before, where the connection has seen the same one but for its length;
code that finds something that the rest of the head decides may keep it there."""

CAME = "featurestore.came"
"""Where the scope of a request has when it came, by the monotonic clock, where that was earlier than its application is called."""


def headers_of(scope: Scope) -> Mapping[bytes, bytes]:
    """The headers of a request by their names, which are in lower case; of two of one name the last."""
    found: Mapping[bytes, bytes] | None = scope.get(HEADERS)
    if found is None:
        found = scope[HEADERS] = dict(scope["headers"])
    return found


async def received(headers: Mapping[bytes, bytes], receive: Receive, limits: ServerLimits, room: Room) -> bytes:
    """The whole body; what is large takes room before it is read.

    Raises LimitError where it is too large or there is no room in time, ClientDisconnect where the client hangs up.
    """
    said = int(headers.get(b"content-length", 0))
    limits.check_body(said)
    if said > SMALL_BYTES:
        await room.take(said)
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    if not message.get("more_body"):
        whole: bytes = message.get("body", b"")
        limits.check_body(len(whole))
        return whole
    body = bytearray()
    while True:
        body += message.get("body", b"")
        limits.check_body(len(body))
        if len(body) > max(room.size, SMALL_BYTES):
            await room.take(len(body))  # twice as much as there was, until all of it is there
        if not message.get("more_body"):
            return bytes(body)
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect


def counted(headers: Mapping[bytes, bytes], receive: Receive, limits: ServerLimits) -> Receive:
    """`receive` that raises LimitError where a body becomes too large, for a route that reads it itself."""
    limits.check_body(int(headers.get(b"content-length", 0)))
    size = 0

    async def counting() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        limits.check_body(size)
        return message

    return counting
