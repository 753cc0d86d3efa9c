"""The client's calls of the HTTP service, as jobs (see `pairs`), beside the same requests sent by hand and not looked at."""

import asyncio
import gc
import http.client
import json
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from benchmarks.latency import Figures, latencies, percentiles
from benchmarks.product import SERVICE, requested_rows
from featurestore.client import AsyncClient, Client

WARMUP = 100


def by_hand(root: str, servers: dict[str, list[str]], keys: int, rounds: int) -> Callable[[], Figures]:
    """http.client, on one connection."""
    url, _, key = servers["ours"]
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def call(body: bytes) -> bytes:
        connection.request("POST", "/v1/online-features", body, headers)
        return connection.getresponse().read()

    return partial(latencies, call, _bodies(root, keys, rounds), warmup=WARMUP)


def client(root: str, servers: dict[str, list[str]], keys: int, rounds: int, form: Any) -> Callable[[], Figures]:
    """Client.get_online_features(…).to_dict()."""
    url, _, key = servers["ours"]
    ours = Client(url, key=key)

    def call(rows: list[dict[str, int]]) -> object:
        return ours.get_online_features(rows, SERVICE, format=form).to_dict()

    return partial(latencies, call, requested_rows(root, keys, rounds), warmup=WARMUP)


def async_by_hand(root: str, servers: dict[str, list[str]], keys: int, rounds: int) -> Callable[[], Figures]:
    """aiohttp, one request after the other."""
    url, _, key = servers["ours"]
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    async def run() -> Figures:
        async with aiohttp.ClientSession(headers=headers) as session:

            async def call(body: bytes) -> object:
                async with session.post(f"{url}/v1/online-features", data=body) as answer:
                    return await answer.read()

            return await _timed(call, _bodies(root, keys, rounds))

    return lambda: asyncio.run(run())


def async_client(root: str, servers: dict[str, list[str]], keys: int, rounds: int) -> Callable[[], Figures]:
    """AsyncClient.get_online_features(…).to_dict(), one after the other."""
    url, _, key = servers["ours"]

    async def run() -> Figures:
        async with AsyncClient(url, key=key) as ours:

            async def call(rows: list[dict[str, int]]) -> object:
                return (await ours.get_online_features(rows, SERVICE)).to_dict()

            return await _timed(call, requested_rows(root, keys, rounds))

    return lambda: asyncio.run(run())


def _bodies(root: str, keys: int, rounds: int) -> list[bytes]:
    return [json.dumps({"service": SERVICE, "rows": rows}).encode() for rows in requested_rows(root, keys, rounds)]


async def _timed(call: Callable[[Any], Awaitable[object]], arguments: list[Any]) -> Figures:
    """`latencies` for coroutines."""
    for argument in arguments[:WARMUP]:
        await call(argument)
    gc.collect()
    taken = []
    for argument in arguments:
        started = time.perf_counter_ns()
        await call(argument)
        taken.append(time.perf_counter_ns() - started)
    return percentiles(taken)
