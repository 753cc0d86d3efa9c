"""Calls of an online store on another machine, and connections to it, for metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from time import perf_counter
from typing import Any, ClassVar, NamedTuple, Protocol
from weakref import WeakSet

from featurestore.online.contract import Guard, OnlineStore, Reading

Watcher = Callable[[str, float, bool], None]
"""Is told of a call when it ends: which one ("get" or "write"), how many seconds it took, whether it was answered."""


class ConnectionPool(Protocol):
    """Connections of this process to one server."""

    @property
    def in_use(self) -> int:
        """Those that a call has now."""

    max_connections: int


POOLS: WeakSet[ConnectionPool] = WeakSet()
"""Those of this process that are open."""


class HeldConnections(NamedTuple):
    """How many connections calls have now, and may have at most, over all servers of this process."""

    in_use: int
    most: int


def connections() -> HeldConnections:
    """Those of this process to online stores."""
    pools = list(POOLS)
    return HeldConnections(sum(pool.in_use for pool in pools), sum(pool.max_connections for pool in pools))


class WatchedStore:
    """Passes everything on to a store, and tells of its calls where somebody wants to know. watcher: that somebody."""

    blocking: ClassVar[bool] = True

    def __init__(self, store: OnlineStore) -> None:
        self._store = store
        self.watcher: Watcher | None = None

    def __repr__(self) -> str:
        return repr(self._store)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    @property
    def tagged(self) -> bool:
        """As the store says it."""
        return self._store.tagged

    def get(self, keys: Sequence[bytes]) -> Reading:
        """The store's."""
        return self._store.get(keys) if self.watcher is None else self._timed("get", self._store.get, keys)

    def write(self, puts: Mapping[bytes, bytes | None], *, guard: Guard | None = None) -> bool:
        """The store's."""
        if self.watcher is None:
            return self._store.write(puts, guard=guard)
        written: bool = self._timed("write", self._store.write, puts, guard=guard)
        return written

    def scan(self, prefix: bytes) -> Iterator[list[bytes]]:
        """The store's, of which nobody is told: it has as many round trips as there are keys."""
        return self._store.scan(prefix)

    def close(self) -> None:
        """The store's."""
        self._store.close()

    def _timed(self, name: str, call: Callable[..., Any], *given: Any, **words: Any) -> Any:
        began, answered = perf_counter(), False
        try:
            result = call(*given, **words)
            answered = True
        finally:
            if self.watcher is not None:
                self.watcher(name, perf_counter() - began, answered)
        return result
