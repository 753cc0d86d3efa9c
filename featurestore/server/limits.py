"""What one process takes at a time: requests, and the bytes of large bodies and answers; and what is done beside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Self, TypeVar

from featurestore.plurals import plural
from featurestore.server.problems import LimitError
from featurestore.settings import ServerConfig

SMALL_BYTES = 32 << 10
"""Bytes of a body or an answer that is read or written on the event loop, and not counted: it takes less than 5 ms."""

SMALL_VALUES = 10_000
"""Values of a lookup that is answered on the event loop."""

SMALL_SECONDS = 0.01
"""Seconds that the work on such a lookup may be expected to take, by what its rows took before."""

LANES = 2
"""Threads for what is large. More would take more memory and not be faster, since Python runs in one of them at a time."""

PATIENCE_SECONDS = 5.0
"""Seconds for which a large request waits for room."""

T = TypeVar("T")


class Share:
    """The bytes of one principal's large requests. users: how many requests have the share at hand."""

    __slots__ = ("bytes", "turn", "users")

    def __init__(self) -> None:
        self.bytes = self.users = 0
        self.turn = asyncio.Lock()


class Room:
    """The bytes that one request of a principal has taken; they are given back when it ends."""

    __slots__ = ("_limits", "_principal", "_share", "size")

    def __init__(self, limits: ServerLimits, principal: str) -> None:
        self._limits, self._principal = limits, principal
        self._share: Share | None = None
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._share is not None:
            self._limits.give_back(self._principal, self._share, self.size)

    async def take(self, size: int) -> None:
        """So many bytes more, see `ServerLimits.take`."""
        await self._limits.take(self._at_hand(), size)
        self.size += size

    def add(self, size: int) -> None:
        """So many bytes more that are there already, such as those of an answer; the next who take some wait for them."""
        self._limits.bytes += size
        self._at_hand().bytes += size
        self.size += size

    async def beside(self, call: Callable[[], T]) -> T:
        """The result of what would hold up the event loop, in one of the lanes; it waits until the answers that are being sent
        leave room for another."""
        await self.take(0)
        return await self._limits.in_lane(call)

    def _at_hand(self) -> Share:
        if self._share is None:
            self._share = self._limits.share_of(self._principal)
        return self._share


class ServerLimits:
    """The requests of one event loop that are under way, and what they take."""

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self.requests = 0
        self.bytes = 0
        self._turn, self._room = asyncio.Lock(), asyncio.Event()
        self._shares: dict[str, Share] = {}
        self._share_bytes = max(config.body_bytes, config.bytes_in_flight // 2)
        self._lanes = ThreadPoolExecutor(LANES, "featurestore-lane")

    def enter(self) -> None:
        """One request more; LimitError where there are so many already. A request that enters leaves."""
        if self.requests >= self.config.requests:
            raise LimitError(
                "requests",
                f"{self.requests} {plural(self.requests, 'request is', 'requests are')} under way, and no more are taken",
                status=429,
            )
        self.requests += 1

    def leave(self) -> None:
        """One request less."""
        self.requests -= 1

    def check_body(self, size: int) -> None:
        """LimitError where a body of so many bytes is too large."""
        if size > self.config.body_bytes:
            detail = f"The body is larger than {self.config.body_bytes} {plural(self.config.body_bytes, 'byte')}; send fewer rows at a time"
            raise LimitError("body_bytes", detail, status=413)

    def share_of(self, principal: str) -> Share:
        """What a principal has, for one request more; it is given back."""
        share = self._shares.setdefault(principal, Share())
        share.users += 1
        return share

    async def take(self, share: Share, size: int) -> None:
        """So many bytes, once there is room for them; LimitError where there is none in time.

        First come, first served: among those of the principal until his share has room, and then among all. So nobody waits
        for bytes that another one's slow clients hold, but for the part that all share.
        """
        try:
            async with asyncio.timeout(PATIENCE_SECONDS), share.turn:
                while share.bytes + size > self._share_bytes:
                    await self._next_room()
                async with self._turn:
                    while self.bytes + size > self.config.bytes_in_flight:
                        await self._next_room()
                    self.bytes += size
                    share.bytes += size
        except TimeoutError:
            detail = f"{self.bytes} {plural(self.bytes, 'byte')} of large requests are under way, and there is no room for {size} more"
            if share.bytes + size > self._share_bytes:
                detail = f"{share.bytes} {plural(share.bytes, 'byte')} of your large requests are under way, and there is no room for {size} more"
            raise LimitError("bytes_in_flight", detail, status=429) from None

    async def _next_room(self) -> None:
        self._room.clear()
        await self._room.wait()

    def give_back(self, principal: str, share: Share, size: int) -> None:
        """Bytes that a room had."""
        self.bytes -= size
        share.bytes -= size
        share.users -= 1
        if not share.users:
            del self._shares[principal]
        self._room.set()

    async def in_lane(self, call: Callable[[], T]) -> T:
        """The result of a call, in one of the lanes."""
        there = copy_context()  # of the request, whose trace it is
        return await asyncio.get_running_loop().run_in_executor(self._lanes, partial(there.run, call))

    def close(self) -> None:
        """End the lanes, once their work is done."""
        self._lanes.shutdown()
