"""Coroutines that read at the same time share round trips and still get their own answers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.errors import OnlineUnavailableError
from featurestore.online import Guard, OnlineStore, Reading, open_online
from featurestore.online.coalesce import CoalescingReader
from tests.servers import patient


class Slow:
    """A store of `key -> key` whose every get waits to be let go; keys that begin with ! fail."""

    blocking = True
    tagged = False

    def __init__(self) -> None:
        self.asked: list[list[bytes]] = []
        self.go = threading.Semaphore(0)

    def get(self, keys: Sequence[bytes]) -> Reading:
        self.asked.append(list(keys))
        self.go.acquire()
        if any(key.startswith(b"!") for key in keys):
            raise OnlineUnavailableError("away")
        return Reading(len(self.asked), list(keys))

    def write(self, puts: Mapping[bytes, bytes | None], *, guard: Guard | None = None) -> bool:
        raise NotImplementedError

    def scan(self, prefix: bytes) -> Iterator[list[bytes]]:
        raise NotImplementedError

    def close(self) -> None:
        pass


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_those_who_wait_go_together() -> None:
    """While one read is under way the others gather; their keys go once, and all watermarks go first."""

    async def main() -> None:
        store = Slow()
        reader = CoalescingReader(store)
        tasks = [asyncio.create_task(reader.get([b"a"]))]
        await settle()
        tasks += [
            asyncio.create_task(reader.get([b"b", b"c"], first=[b"w"])),
            asyncio.create_task(reader.get([b"c", b"w", b"c"], first=[b"x", b"w"])),
            asyncio.create_task(reader.get([])),
        ]
        await settle()
        store.go.release(2)
        assert await asyncio.gather(*tasks) == [
            (1, [b"a"]),
            (2, [b"w", b"b", b"c"]),
            (2, [b"x", b"w", b"c", b"w", b"c"]),
            (2, []),
        ]
        assert store.asked == [[b"a"], [b"w", b"x", b"b", b"c", b"w"]]

    asyncio.run(main())


def test_one_read_does_not_grow_without_bound() -> None:
    """Beyond max_keys the rest waits for its turn."""

    async def main() -> None:
        store = Slow()
        store.go.release(10)
        reader = CoalescingReader(store, max_keys=4)
        await asyncio.gather(*(reader.get([b"%d" % index, b"x%d" % index]) for index in range(5)))
        assert [len(keys) for keys in store.asked] == [4, 4, 2]

    asyncio.run(main())


def test_an_error_goes_to_all_who_shared_the_read_and_to_nobody_else() -> None:
    """After a failed read the next one is tried as if nothing had been."""

    async def main() -> None:
        store = Slow()
        reader = CoalescingReader(store)
        first = asyncio.create_task(reader.get([b"a"]))
        await settle()
        shared = [asyncio.create_task(reader.get([key])) for key in (b"b", b"!", b"c")]
        await settle()
        store.go.release(3)
        assert (await first).values == [b"a"]
        for outcome in await asyncio.gather(*shared, return_exceptions=True):
            assert isinstance(outcome, OnlineUnavailableError)
        assert (await reader.get([b"b"])).values == [b"b"]

    asyncio.run(main())


def test_cancelling_one_harms_no_other() -> None:
    """A caller that gives up, while waiting or while its read is under way, changes nothing for the rest."""

    async def main() -> None:
        store = Slow()
        reader = CoalescingReader(store)
        running = [asyncio.create_task(reader.get([b"a"])) for _ in range(2)]
        await settle()
        waiting = [asyncio.create_task(reader.get([key])) for key in (b"b", b"gone", b"c")]
        await settle()
        running[0].cancel()
        waiting[1].cancel()
        await settle()
        store.go.release(2)
        assert (await running[1]).values == [b"a"]
        assert (await waiting[0]).values == [b"b"]
        assert (await waiting[2]).values == [b"c"]
        assert store.asked == [[b"a"], [b"b", b"c"]]
        waiting[1].cancel()
        assert [task.cancelled() for task in (running[0], waiting[1])] == [True, True]

    asyncio.run(main())


def test_a_loop_that_ends_leaves_nobody_waiting() -> None:
    """When the loop shuts down in the middle of a read, its callers are cancelled, and a new loop works."""
    store = Slow()
    reader = CoalescingReader(store)

    async def cut() -> None:
        task = asyncio.create_task(reader.get([b"a"]))
        await settle()
        waiting = asyncio.create_task(reader.get([b"b"]))
        await settle()
        store.go.release(1)
        del task, waiting

    async def again() -> Reading:
        store.go.release(1)
        return await reader.get([b"c"])

    asyncio.run(cut())
    assert asyncio.run(again()).values == [b"c"]


def test_a_store_in_memory_is_read_at_once() -> None:
    """A store that does not block is asked in the caller's own thread, first keys first."""

    class Quick(Slow):
        blocking = False
        tagged = False

        def get(self, keys: Sequence[bytes]) -> Reading:
            assert threading.current_thread() is threading.main_thread()
            return Reading(1, list(keys))

    assert asyncio.run(CoalescingReader(Quick()).get([b"a"], first=[b"w"])) == (1, [b"w", b"a"])


@settings(max_examples=15, deadline=None)
@given(requests=st.lists(st.tuples(*[st.lists(st.sampled_from([b"a", b"b", b"c", b"x"]))] * 2), max_size=12))
def test_everybody_gets_what_they_asked_for(redis_url: str, requests: list[tuple[list[bytes], list[bytes]]]) -> None:
    """On a real server any mix of requests is answered key for key."""
    values = {b"a": b"1", b"b": b"2", b"c": b"", b"x": None}

    async def main(store: OnlineStore) -> None:
        reader = CoalescingReader(store)
        answers = await asyncio.gather(*(reader.get(keys, first=first) for first, keys in requests))
        for (first, keys), answer in zip(requests, answers, strict=True):
            assert answer.values == [values[key] for key in [*first, *keys]]

    with closing(open_online(patient(redis_url))) as store:
        store.write(values)
        asyncio.run(main(store))


@pytest.mark.parametrize(("scheme", "blocking"), [("lmdb", False), ("redis", True)])
def test_stores_say_whether_they_block(scheme: str, blocking: bool) -> None:
    """Only the embedded store may be read on the event loop."""
    from featurestore.online.lmdb import LmdbStore
    from featurestore.online.redis import RedisStore

    stores: dict[str, Any] = {"lmdb": LmdbStore, "redis": RedisStore}
    assert stores[scheme].blocking is blocking


def test_each_caller_waits_for_as_long_as_it_said() -> None:
    """Of those who wait for one silent store, whoever is due is told so, in that order; the others are answered when it goes on."""
    go_on = threading.Event()

    class Silent(Slow):
        def get(self, keys: Sequence[bytes]) -> Reading:
            assert go_on.wait(600)
            return Reading(1, list(keys))

    async def ask(reader: CoalescingReader, key: bytes, seconds: float, ended: list[bytes]) -> Reading | None:
        try:
            return await reader.get([key], within_seconds=seconds)
        except TimeoutError:
            ended.append(key)
            return None

    async def main() -> None:
        reader, ended = CoalescingReader(Silent()), list[bytes]()
        seconds = {b"never": inf, b"later": 0.3, b"long": 1000.0, b"soon": 0.05}
        asked = [asyncio.ensure_future(ask(reader, key, wait, ended)) for key, wait in seconds.items()]
        assert await asked[1] is None
        assert ended == [b"soon", b"later"]
        go_on.set()
        assert [await one for one in asked] == [(1, [b"never"]), None, (1, [b"long"]), None]

    asyncio.run(main())
