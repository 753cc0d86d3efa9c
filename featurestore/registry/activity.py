"""The trail of activity: who applied, retired, materialized, pushed and changed keys, in rows that nothing changes afterwards."""

from __future__ import annotations

import functools
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import orjson

from featurestore.clock import wall_clock
from featurestore.durable.database import Transaction, row_check
from featurestore.durable.forks import event, mutex, renewed_in_child
from featurestore.errors import FeatureStoreError
from featurestore.plurals import plural

LOGGER = logging.getLogger("featurestore")

EVERY_SECONDS = 1.0
"""Seconds for which pushes are gathered. A process that is killed loses those of its last second."""

REQUEST_IDS = 100
"""Ids of requests that one row of the trail names; the others are counted."""

MOST = 10_000
"""Rows that are kept while the registry cannot be written; what comes beyond them is counted as lost."""

COLUMNS = "at, who, what, subject, detail"

ACTIVITY = """TABLE activity (
        id INTEGER PRIMARY KEY AUTOINCREMENT,   -- 1, 2, 3, …: one that is gone is missed
        at INTEGER NOT NULL,                    -- µs since the epoch, by the machine's clock
        who TEXT NOT NULL, what TEXT NOT NULL, subject TEXT NOT NULL,
        detail TEXT NOT NULL,                   -- JSON
        of_row INTEGER NOT NULL                 -- a checksum of the others but for id
    )"""

STAYS = tuple(
    f"CREATE TRIGGER activity_no_{change} BEFORE {change} ON activity "
    "BEGIN SELECT RAISE(ABORT, 'the trail of activity is only added to'); END"
    for change in ("update", "delete")
)

ACTIONS = (
    "apply", "keep", "retire", "teardown", "materialize", "fail to materialize", "push", "take back", "forget", "back up", "restore", "create key",
    "rotate key", "revoke key",
)  # fmt: skip
"""What is in the trail."""


_acting: ContextVar[str | None] = ContextVar("acting", default=None)


@contextmanager
def acting_as(who: str) -> Iterator[None]:
    """What this thread does meanwhile, a principal of the service does."""
    token = _acting.set(who)
    try:
        yield
    finally:
        _acting.reset(token)


@functools.cache
def os_user() -> str:
    """Who runs this process, as the trail has it."""
    try:
        import pwd

        name = pwd.getpwuid(os.geteuid()).pw_name  # and not what $USER says, which anybody may set
    except (ImportError, KeyError):
        name = str(getattr(os, "geteuid", lambda: "unknown")())
    return f"os:{name}@{socket.gethostname()}"


@dataclass(frozen=True)
class Activity:
    """One thing that somebody did. at: µs, by the machine's clock. who: "os:USER@HOST" on a command line or in a program, or the
    name of a principal of the service. what: one of ACTIONS; subject: the name of what it was done to."""

    what: str
    subject: str
    detail: dict[str, Any] = field(default_factory=dict)
    who: str = field(default_factory=lambda: _acting.get() or os_user())
    at: int = field(default_factory=wall_clock)


def add_activity(connection: Transaction, done: Iterable[Activity]) -> None:
    """Add to the trail."""
    for one in done:
        who, what, subject = map(_writable, (one.who, one.what, one.subject))
        row = (one.at, who, what, subject, orjson.dumps(one.detail).decode())
        connection.execute(
            f"INSERT INTO activity ({COLUMNS}, of_row) VALUES (?, ?, ?, ?, ?, ?)", (*row, row_check(row))
        )


def _writable(text: str) -> str:
    """A text that every database takes, whatever a token says that its bearer is called."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", r"\x00")


def activity_in(connection: Transaction, where: str, *values: Any) -> list[Activity]:
    """The trail, or a part of it, in the order in which it was written. where: SQL behind the table's name.

    ValueError where a row is not what was written, or is gone.
    """
    count, last = connection.execute("SELECT count(*), coalesce(max(id), 0) FROM activity").fetchone()
    last = max(last, connection.last_number("activity"))
    if count != last:
        raise ValueError(f"the trail of activity has {count} {plural(count, 'row')} of {last}")
    found = []
    for check, number, *row in connection.execute(f"SELECT of_row, id, {COLUMNS} FROM activity {where}", values):
        if check != row_check(row):
            raise ValueError(f"row {number} of the trail of activity is not what was written")
        at, who, what, subject, detail = row
        found.append(Activity(what, subject, orjson.loads(detail), who, at))
    return found


class PushTrail:
    """Who pushed to which source, by requests: a row a second of each principal and source that pushed in it. write: adds rows
    to the trail."""

    def __init__(self, write: Callable[[list[Activity]], None]) -> None:
        self._write = write
        self._lock, self._turn = mutex(), mutex()
        self._wake = event()
        self.renew()
        renewed_in_child(self)

    def renew(self) -> None:
        """Begin with nothing gathered: in a child, what the parent gathered is the parent's to write."""
        self._gathered: dict[tuple[str, str], Activity] = {}
        self._waiting: list[Activity] = []
        self._lost = 0
        self._writer: threading.Thread | None = None

    def pushed(
        self, source: str, counts: dict[str, int], *, who: str | None = None, request: str | None = None
    ) -> None:
        """One request that was answered. counts: of its rows. who: by default the user who runs this process. request: its id."""
        asker = os_user() if who is None else who
        with self._lock:
            one = self._gathered.get((asker, source))
            if one is None:
                detail: dict[str, Any] = {"requests": 0, **dict.fromkeys(counts, 0), "request_ids": []}
                one = self._gathered[asker, source] = Activity("push", source, detail, asker, wall_clock())
            one.detail["requests"] += 1
            for name, count in counts.items():
                one.detail[name] = one.detail.get(name, 0) + count
            if request is not None and len(one.detail["request_ids"]) < REQUEST_IDS:
                one.detail["request_ids"].append(request)
            if self._writer is None:
                self._writer = threading.Thread(target=self._write_later, name="featurestore push trail", daemon=True)
                self._writer.start()

    def flush(self, *, is_last: bool = False) -> None:
        """Write what is gathered. Where that fails it is told, and tried again with the next, unless this is the last time."""
        with self._turn:  # closing the registry afterwards waits for a batch that a thread is writing
            with self._lock:
                self._waiting += self._gathered.values()
                self._gathered = {}
                if self._lost and len(self._waiting) < MOST:
                    self._waiting.append(Activity("push", "", {"lost_rows_of_the_trail": self._lost}))
                    self._lost = 0
                self._lost += max(0, len(self._waiting) - MOST)
                waiting = self._waiting[:MOST]
                self._waiting = []
            if not waiting:
                return
            try:
                self._write(waiting)
            except FeatureStoreError as error:
                with self._lock:
                    self._waiting = waiting + self._waiting
                become = (
                    "lost: who pushed stands nowhere, and what was pushed is kept" if is_last else "not written yet"
                )
                rows = plural(len(waiting), "row of the trail of activity is", "rows of the trail of activity are")
                LOGGER.warning("%d %s %s: %s", len(waiting), rows, become, error)

    def close(self) -> None:
        """Write the rest."""
        self._wake.set()
        with self._lock:
            writer = self._writer
        if writer is not None:
            writer.join()
        self.flush(is_last=True)

    def _write_later(self) -> None:
        self._wake.wait(EVERY_SECONDS)
        with self._lock:
            self._writer = None
        self.flush()
