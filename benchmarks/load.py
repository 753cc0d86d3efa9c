"""A load generator for HTTP/1.1 on loopback: so many connections, each of which asks again once it is answered."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from typing import cast
from urllib.parse import urlsplit

import uvloop

from benchmarks.latency import Figures, percentiles


class _Asker(asyncio.Protocol):
    """One connection: sends requests in turn until the deadline; notes how long each answer took."""

    def __init__(self, requests: Sequence[bytes], until: float, seed: int) -> None:
        self.requests = requests
        self.until = until
        self.choice = random.Random(seed)
        self.taken: list[int] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.WriteTransport", transport)  # uvloop's own class says nothing of asyncio's
        self._ask()

    def _ask(self) -> None:
        self.received = b""
        self.asked = time.perf_counter_ns()
        self.transport.write(self.choice.choice(self.requests))

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, separator, body = self.received.partition(b"\r\n\r\n")
        if not separator:
            return
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        if not head.startswith(b"HTTP/1.1 200") or not length.strip().isdigit():
            self._end(RuntimeError(f"answer without status 200 or length: {self.received[:500]!r}"))
        elif len(body) >= int(length):
            self.taken.append(time.perf_counter_ns() - self.asked)
            if time.perf_counter() < self.until:
                self._ask()
            else:
                self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc or ConnectionError("the server hung up"))

    def _end(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None) if error is None else self.done.set_exception(error)
            self.transport.close()


def _post(path: str, host: str, key: str, body: bytes) -> bytes:
    more = f"Authorization: Bearer {key}\r\n" if key else ""
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\n{more}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def _drive(
    url: str, bodies: Sequence[bytes], connections: int, seconds: float, key: str
) -> tuple[list[int], float]:
    where = urlsplit(url)
    requests = [_post(where.path, where.netloc, key, body) for body in bodies]
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    askers = []
    for seed in range(connections):
        _, asker = await loop.create_connection(
            lambda seed=seed: _Asker(requests, started + seconds, seed), where.hostname, where.port
        )
        askers.append(asker)
    async with asyncio.timeout(seconds + 30):
        await asyncio.gather(*(asker.done for asker in askers))
    return [taken for asker in askers for taken in asker.taken], time.perf_counter() - started


def drive(
    url: str, bodies: Sequence[bytes], *, connections: int, seconds: float, key: str = "",
    begun: Callable[[], object] = lambda: None,
) -> Figures:  # fmt: skip
    """POST bodies, chosen at random, for so many seconds after one that do not count: requests/s and latencies in ms.

    key: sent with each, where there is one. begun: called when those begin that count. An answer of any other status than 200 is an error.
    """
    uvloop.run(_drive(url, bodies, connections, 1.0, key))
    begun()
    taken, elapsed = uvloop.run(_drive(url, bodies, connections, seconds, key))
    return {"requests": len(taken), "requests_per_s": len(taken) / elapsed, **percentiles(taken)}
