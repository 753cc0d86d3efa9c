"""DuckDB instances that are kept between operations: to open one takes some 15 ms of work, to use it again none.

They end with the interpreter, and never in a forked child.
"""

from __future__ import annotations

import atexit
import os
from weakref import WeakSet

from featurestore.lazy import duckdb


class KeptInstance:
    """The first connection of an instance, in the process that opened it."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection: duckdb.DuckDBPyConnection | None = connection
        self._process = os.getpid()
        _KEPT.add(self)

    def usable(self) -> duckdb.DuckDBPyConnection | None:
        """The connection; none in a forked child, and none when it was released."""
        return self._connection if self._process == os.getpid() else None

    def release(self) -> None:
        """Give the connection up, unless it is another process's."""
        if self._process == os.getpid():
            self._connection = None


_KEPT: WeakSet[KeptInstance] = WeakSet()
_OF_PARENT: list[KeptInstance] = []
"""What a forked child never gives up: threads stay behind in the parent, and to end their connections there crashes."""
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=lambda: _OF_PARENT.extend(_KEPT), after_in_parent=_OF_PARENT.clear)


@atexit.register
def _release() -> None:
    """Threads that nobody waits for, such as a server's, never give up what is theirs; the engine would call it leaked."""
    for kept in list(_KEPT):
        kept.release()
