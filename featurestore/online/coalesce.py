"""Reading from asyncio: callers that come while a read is under way share the next one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence
from itertools import chain
from math import inf
from typing import NamedTuple

from featurestore.errors import OnlineDamagedError, OnlineUnavailableError
from featurestore.online.contract import OnlineStore, Reading
from featurestore.online.reading_threads import THREADS

_Answer = asyncio.Future[Reading]

APART = 0.9
"""The share of distinct keys from which on the others are read as often as they were asked for: that is less work than to tell
whose they are."""


class _WaitingGet(NamedTuple):
    first: Sequence[bytes]
    keys: Sequence[bytes]
    answer: _Answer
    due: float


class CoalescingReader:
    """`get` for the coroutines of one event loop.

    A store that does not block is read at once. Of a store that blocks, at most one `get` is under way, in a worker
    thread; requests that arrive meanwhile wait and go together as the next one, each distinct key about once. So the
    number of round trips does not grow with the number of callers, and nobody is answered from before they asked. Where
    the store cannot be reached, all who wait are told so: nobody waits for two silences.
    """

    _loop: asyncio.AbstractEventLoop

    def __init__(self, store: OnlineStore, *, max_keys: int = 10_000) -> None:
        """`max_keys`: a shared `get` takes in no further request once it has so many keys."""
        self._store = store
        self._max_keys = max_keys
        self._waiting: list[_WaitingGet] = []
        self._under_way: Sequence[_WaitingGet] = ()
        self._task: asyncio.Task[None] | None = None
        self._look: asyncio.TimerHandle | None = None
        self._looks_at = inf

    async def get(self, keys: Sequence[bytes], *, first: Sequence[bytes] = (), within_seconds: float = inf) -> Reading:
        """The store's clock and the values of `first`, then of `keys`; all of `first` are read no later than `keys`.

        Raises what the store's `get` raises, and TimeoutError where it takes longer than it may. Call it from one event loop only.
        """
        reading = self.ask(keys, first=first, within_seconds=within_seconds)
        return reading if isinstance(reading, Reading) else await reading

    def ask(
        self, keys: Sequence[bytes], *, first: Sequence[bytes] = (), within_seconds: float = inf
    ) -> Reading | asyncio.Future[Reading]:
        """`get` for who does not wait as a coroutine: the reading of a store that does not block, else what will have it."""
        if not self._store.blocking:
            return self._store.get([*first, *keys])
        serves = self._task is not None and not self._task.done()
        if not serves:  # else the loop is the same, and asking for it takes a call of the system
            self._loop = asyncio.get_running_loop()
        answer: _Answer = self._loop.create_future()
        due = time.monotonic() + within_seconds
        self._waiting.append(_WaitingGet(first, keys, answer, due))
        if not serves:
            self._task = self._loop.create_task(self._serve())
        if due < self._looks_at:
            self._look_at(due)
        return answer

    def _look_at(self, due: float) -> None:
        """See at an instant who is due then. There is one timer for all: mostly it is set once in so many seconds as they may wait."""
        if self._look is not None:
            self._look.cancel()
        self._looks_at = due
        self._look = self._loop.call_later(max(0.0, due - time.monotonic()), self._give_up)

    def _give_up(self) -> None:
        """Tell those who are due that nothing came, and look again when the next one is."""
        now, self._look, self._looks_at = time.monotonic(), None, inf
        waiting = [request for request in (*self._under_way, *self._waiting) if not request.answer.done()]
        for request in waiting:
            if request.due <= now and not request.answer.done():  # one that goes once more is there twice
                request.answer.set_exception(TimeoutError())
        following = min((request.due for request in waiting if request.due > now), default=inf)
        if following < inf:
            self._look_at(following)

    async def _serve(self) -> None:
        """Read for the waiting requests until none is left."""
        requests: list[_WaitingGet] = []
        try:
            while requests := self._take():
                self._under_way = requests
                await self._read(requests)
        finally:  # only a loop that shuts down cancels this; its callers must not wait for ever
            for request in [*requests, *self._waiting]:
                request.answer.cancel()
            self._waiting.clear()
            self._under_way = ()

    def _take(self) -> list[_WaitingGet]:
        """The requests that the next `get` answers: the oldest ones whose callers still wait."""
        waiting = [request for request in self._waiting if not request.answer.done()]
        size = count = 0
        while count < len(waiting) and (count == 0 or size < self._max_keys):
            size += len(waiting[count].first) + len(waiting[count].keys)
            count += 1
        self._waiting = waiting[count:]
        return waiting[:count]

    async def _read(self, requests: list[_WaitingGet]) -> None:
        # A key that one caller reads first and another later is read twice: each place keeps its own promise.
        first = dict.fromkeys(chain.from_iterable([request.first for request in requests]))
        keys: Collection[bytes] = list(chain.from_iterable([request.keys for request in requests]))
        is_apart = len({*keys}) >= len(keys) * APART
        if not is_apart:
            keys = dict.fromkeys(keys)
        try:
            now, values = await THREADS.run(self._store.get, [*first, *keys], loop=self._loop)
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the callers
            self._fail(requests, error)
            return
        early = dict(zip(first, values, strict=False))
        late, at = values[len(first) :], 0
        of_key = {} if is_apart else dict(zip(keys, late, strict=True))
        for request in requests:
            begin, at = at, at + len(request.keys)
            if not request.answer.done():
                own = late[begin:at] if is_apart else map(of_key.__getitem__, request.keys)
                request.answer.set_result(Reading(now, [*map(early.__getitem__, request.first), *own]))

    def _fail(self, requests: list[_WaitingGet], error: Exception) -> None:
        """Tell those whom an error concerns."""
        if isinstance(error, OnlineDamagedError):  # those who asked for these keys; the others go once more
            hit = {*error.keys}
            self._waiting[:0] = [each for each in requests if hit.isdisjoint((*each.first, *each.keys))]
            requests = [each for each in requests if not hit.isdisjoint((*each.first, *each.keys))]
        if isinstance(error, OnlineUnavailableError):  # also who came meanwhile: he has waited long enough
            requests, self._waiting = [*requests, *self._waiting], []
        for request in requests:
            if not request.answer.done():
                request.answer.set_exception(error)
