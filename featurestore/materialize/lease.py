"""One run at a time per version of a view: a lease in the online store that every batch of a run renews.

Each batch is written only while the lease still holds exactly what this run last put there, and puts a new value in
its place. A run that lost its lease can therefore write nothing more, and a batch is applied at most once.

Where several processes write for one run, it gives them a run key: they write only while it holds what their run put there, in any
order and as often as they like. A process that takes the lease takes the run key away.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from collections.abc import Mapping
from typing import NamedTuple

import orjson

from featurestore.clock import to_datetime
from featurestore.errors import FeatureStoreError, MaterializeError, OnlineUnavailableError
from featurestore.online import Guard, OnlineStore
from featurestore.online.value_checksums import read_past_damage

LEASE_US = 120_000_000
"""µs for which a run may be silent before another takes its place; a dead process of this machine is replaced at once."""


HELD: set[str] = set()
"""The tokens of this process's leases. One of its own that is not among them is of a run that is over."""


class RunProgress(NamedTuple):
    """How far a run has come: the instant (µs) that it computes, how many keys it has written, and how many it was to write."""

    instant: int
    written: int
    keys: int

    def plus(self, keys: int) -> RunProgress:
        """The same with so many keys more, which may be more than were to be written."""
        written = self.written + keys
        return RunProgress(self.instant, written, max(self.keys, written))


class Holder(NamedTuple):
    """Who holds a lease, and until when (µs, by the online store's clock) without another word. space: in which the pid is one;
    None where an earlier version did not say. progress: that of a run of materialize, once it has written any."""

    host: str
    pid: int
    token: str
    ends: int
    space: str | None = None
    progress: RunProgress | None = None

    @classmethod
    def of(cls, value: bytes) -> Holder:
        """What a lease's value says."""
        said = orjson.loads(value)
        progress = None if said.get("progress") is None else RunProgress(*said["progress"])
        return cls(said["host"], int(said["pid"]), said["token"], int(said["until"]), said.get("space"), progress)

    def is_alive(self, now: int) -> bool:
        """Whether its lease has not run out at an instant (µs), and nothing shows that it is dead."""
        if self.ends <= now:
            return False
        if self.host != socket.gethostname() or self.space not in {None, _pid_space()}:
            return True
        return self.token in HELD if self.pid == os.getpid() else _is_alive(self.pid)

    @classmethod
    def this(cls, token: str, ends: int) -> Holder:
        """This process."""
        return cls(socket.gethostname(), os.getpid(), token, ends, _pid_space())

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def alive_holder(value: bytes | None, now: int) -> Holder | None:
    """Who holds a lease at an instant (µs), by what its key holds."""
    holder = None if value is None else Holder.of(value)
    return holder if holder is not None and holder.is_alive(now) else None


class LeaseTakenError(MaterializeError):
    """Another run, the `holder`, has the lease."""

    def __init__(self, title: str, holder: Holder) -> None:
        ends = to_datetime(holder.ends).isoformat()
        super().__init__(f"{title} is being materialized by {holder}; its lease ends at {ends}. Try again then")
        self.holder = holder


class LeaseLostError(MaterializeError):
    """The lease no longer holds what this run last put there."""


class RunKey(NamedTuple):
    """The right to write for a run that another process drives, until its driver gives another one, or ends. title: as of the lease."""

    guard: Guard
    title: str

    def writer(self, store: OnlineStore) -> RunKeyWriter:
        """What writes by it."""
        return RunKeyWriter(store, self)


class RunKeyWriter:
    """Writes for a run that another process drives. A batch may be written again: nothing but the same run writes these keys."""

    def __init__(self, store: OnlineStore, key: RunKey) -> None:
        self._store, self._key = store, key

    def write(self, puts: Mapping[bytes, bytes | None]) -> None:
        """Write a batch; LeaseLostError where the run is over, or has given another key."""
        try:
            written = self._store.write(puts, guard=self._key.guard)
        except OnlineUnavailableError:  # it may have been applied
            written = self._store.write(puts, guard=self._key.guard)
        if not written:
            raise LeaseLostError(
                f"{self._key.title}: its run is over, or another one has taken over; nothing was written since"
            )


class Lease:
    """The right to write the records of a view, or to see to it that they are. title: what of, in messages. run_key: under which key
    others are let write for it, where any may be. progress: what other processes are told of it, from the next batch on."""

    def __init__(self, store: OnlineStore, key: bytes, title: str, *, run_key: bytes | None = None) -> None:
        self._store = store
        self._key = key
        self._run_key = run_key
        self._lets_others = False  # whether there may be a run key
        self._title = title
        self._token = secrets.token_hex(8)
        self.progress: RunProgress | None = None
        HELD.add(self._token)
        try:
            try:
                self._take()
            except LeaseLostError:
                # Another run took it in between, or a run was killed while LMDB committed: readers see the commit before
                # that one until somebody writes. Either way the next look shows who holds it.
                self._take()
        except BaseException:
            HELD.discard(self._token)
            raise

    def _take(self) -> None:
        now = self._store.get([]).now
        self._value, *run_key = self._held()
        holder = alive_holder(self._value, now)
        if holder is not None:
            raise LeaseTakenError(self._title, holder)
        self._lets_others = run_key not in ([], [None])  # a run that is dead did
        self.write(self._run_over())
        self._lets_others = False

    def _held(self) -> list[bytes | None]:
        """What the lease holds, and the run key where there may be one. What is damaged is nobody's, and goes: the process that put it there finds it
        changed, and writes nothing more."""
        held, damaged = read_past_damage(self._store, [self._key, *([] if self._run_key is None else [self._run_key])])
        if damaged:
            self._store.write(dict.fromkeys(damaged))
        return held

    def let_others(self) -> RunKey:
        """A run key, by which other processes write for this run; those that were given before are void."""
        assert self._run_key is not None, "the lease has a run key"
        value, self._lets_others = secrets.token_bytes(8), True
        self.write({self._run_key: value})
        return RunKey(Guard(self._run_key, value), self._title)

    def _run_over(self) -> dict[bytes, bytes | None]:
        """What takes the run key away."""
        return {self._run_key: None} if self._lets_others and self._run_key is not None else {}

    def write(self, puts: Mapping[bytes, bytes | None]) -> None:
        """Write a batch and renew the lease, at once; MaterializeError where another run has taken it."""
        now = self._store.get([]).now
        renewed = orjson.dumps(
            {
                "token": self._token,
                "turn": secrets.token_hex(4),
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "space": _pid_space(),
                "until": now + LEASE_US,
                "progress": None if self.progress is None else list(self.progress),
            }
        )
        self._swap(puts, renewed)

    def renew(self) -> None:
        """Renew the lease alone; where the answer to a renewal was lost, what it wrote is still this one's."""
        self._find_again()
        self.write({})

    def release(self, puts: Mapping[bytes, bytes | None]) -> None:
        """Write the last batch and give the lease up, at once."""
        self._swap({**puts, **self._run_over()}, None)
        HELD.discard(self._token)

    def give_up(self) -> None:
        """Release the lease after a failure, where that is still possible; it is nobody's for this process in any case."""
        with contextlib.suppress(FeatureStoreError):  # the failure that led here is the one to tell of
            self._find_again()
            self._swap(self._run_over(), None)
        HELD.discard(self._token)

    def _find_again(self) -> None:
        """Take what is there for what this run last put there, where it is its own: nobody else writes its token."""
        (held,) = self._store.get([self._key]).values
        if held is not None and Holder.of(held).token == self._token:
            self._value = held

    def _swap(self, puts: Mapping[bytes, bytes | None], value: bytes | None) -> None:
        if not self._store.write({**puts, self._key: value}, guard=Guard(self._key, self._value)):
            raise LeaseLostError(f"{self._title}: another run has taken over; this one wrote nothing since")
        self._value = value


def _pid_space() -> str:
    """Among which processes of the machine a pid is this one's: containers on the host's network have its name, and each has a
    process 1."""
    try:
        return os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - it is a link to nothing
    except OSError:
        return ""


def _is_alive(pid: int) -> bool:
    """Whether there is a process of that number, of any user."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
