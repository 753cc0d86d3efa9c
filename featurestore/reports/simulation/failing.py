"""An online store whose process dies before a write that is chosen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from featurestore.online import Guard, OnlineStore, Reading


class Killed(BaseException):
    """The process ended here. No handler of errors meets it, as none meets a signal."""


class FailingStore:
    """Passes everything on to an embedded store, until it is told to die.

    From the chosen write on, every write raises, so that the process that died can release nothing afterwards.
    """

    blocking: ClassVar[bool] = False
    tagged: ClassVar[bool] = False

    def __init__(self, store: OnlineStore) -> None:
        self._store = store
        self._left: int | None = None

    def die_after(self, writes: int | None) -> None:
        """So many more writes are done (None: all)."""
        self._left = writes

    def get(self, keys: Sequence[bytes]) -> Reading:
        """The store's."""
        return self._store.get(keys)

    def write(self, puts: Mapping[bytes, bytes | None], *, guard: Guard | None = None) -> bool:
        """The store's, or Killed."""
        if self._left is not None:
            if self._left == 0:
                raise Killed
            self._left -= 1
        return self._store.write(puts, guard=guard)

    def scan(self, prefix: bytes) -> Iterator[list[bytes]]:
        """The store's."""
        return self._store.scan(prefix)

    def close(self) -> None:
        """The store's."""
        self._store.close()
