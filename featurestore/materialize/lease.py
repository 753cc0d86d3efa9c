"""One run at a time per version of a view: a lease in the online store that every batch of a run renews.

Each batch is written only while the lease still holds exactly what this run last put there, and puts a new value in
its place. A run that lost its lease can therefore write nothing more, and a batch is applied at most once.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Mapping

import orjson

from featurestore.clock import to_datetime
from featurestore.declare.views import FeatureView
from featurestore.errors import MaterializeError
from featurestore.online import Guard, OnlineStore

LEASE_US = 120_000_000
"""µs for which a run may be silent before another takes its place; a dead process of this machine is replaced at once."""


class _LostError(MaterializeError):
    """The lease no longer holds what this run last put there."""


class Lease:
    """The right to write a view's records."""

    def __init__(self, store: OnlineStore, key: bytes, view: FeatureView) -> None:
        self._store = store
        self._key = key
        self._view = view
        self._token = secrets.token_hex(8)
        try:
            self._take()
        except _LostError:
            # Another run took it in between, or a run was killed while LMDB committed: readers see the commit before that
            # one until somebody writes. Either way the next look shows who holds it.
            self._take()

    def _take(self) -> None:
        reading = self._store.get([self._key])
        self._value = reading.values[0]
        if self._value is not None:
            self._refuse_where_alive(orjson.loads(self._value), reading.now)
        self.write({})

    def _refuse_where_alive(self, holder: dict[str, str | int], now: int) -> None:
        here = holder["host"] == socket.gethostname()
        if int(holder["until"]) <= now or (here and not _is_alive(int(holder["pid"]))):
            return
        raise MaterializeError(
            f"{self._view.title} is being materialized by process {holder['pid']} on {holder['host']}; its lease ends at "
            f"{to_datetime(int(holder['until'])).isoformat()}. Try again then"
        )

    def write(self, puts: Mapping[bytes, bytes | None]) -> None:
        """Write a batch and renew the lease, at once; MaterializeError where another run has taken it."""
        now = self._store.get([]).now
        renewed = orjson.dumps(
            {
                "token": self._token,
                "turn": secrets.token_hex(4),
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "until": now + LEASE_US,
            }
        )
        self._swap(puts, renewed)

    def release(self, puts: Mapping[bytes, bytes | None]) -> None:
        """Write the last batch and give the lease up, at once."""
        self._swap(puts, None)

    def _swap(self, puts: Mapping[bytes, bytes | None], value: bytes | None) -> None:
        if not self._store.write({**puts, self._key: value}, guard=Guard(self._key, self._value)):
            raise _LostError(f"{self._view.title}: another run has taken over; this one wrote nothing since")
        self._value = value


def _is_alive(pid: int) -> bool:
    """Whether there is a process of that number, whoever owns it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
