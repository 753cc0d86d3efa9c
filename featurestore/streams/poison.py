"""Messages that cannot be taken, kept aside with the reason: beside the logs of pushed rows, in an SQLite file or in PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from featurestore.durable.database import opened
from featurestore.streams.reader import Message

SCHEMA = 1
APPLICATION = 0x46535058
TABLE = """CREATE TABLE poison (id INTEGER PRIMARY KEY AUTOINCREMENT, source TEXT NOT NULL, stream TEXT NOT NULL,
partition INTEGER NOT NULL, place TEXT NOT NULL, timestamp INTEGER, message_key BLOB, value BLOB, reason TEXT NOT NULL,
kept INTEGER NOT NULL, UNIQUE (source, stream, partition, place))"""
COLUMNS = "id, stream, partition, place, timestamp, message_key, value, reason, kept"


WHAT = "poison messages"
"""What errors call it."""


def place_in(logs: Path) -> Path:
    """The file in a folder of logs."""
    return logs / "poison.db"


LONGEST_REASON = 2_000
"""Characters of a reason that are kept: it may quote a message."""


def shown_reason(error: object) -> str:
    """An error as a reason that may stand in a terminal, a log and a database: without signs that these take for something else."""
    text = str(error)
    text = text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]}…"
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


class PoisonMessage(NamedTuple):
    """A message that was kept aside, since it could not be taken."""

    id: int
    """By which `replay_poison` and `discard_poison` name it."""
    stream: str
    """Which stream it came from: its kind and its name at the broker."""
    message: Message
    """Its partition, offset, key and value, and when it was written."""
    reason: str
    """What is wrong with it."""
    kept: int
    """When it was kept aside (µs since the epoch, UTC)."""


class Poison:
    """The messages of a project that are kept aside. place: a folder, or a postgresql:// URL."""

    def __init__(self, place: Path | str, project: str, *, now: Callable[[], int], wait_seconds: float = 60.0) -> None:
        at = place_in(place) if isinstance(place, Path) else place
        self._now = now
        self._database = opened(
            at, WHAT, application=APPLICATION, schema=SCHEMA, timeout=wait_seconds, project=project
        )  # fmt: skip

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    def add(self, source: str, stream: str, messages: Iterable[tuple[Message, str]]) -> None:
        """Keep messages, each with its reason; one that is there already changes nothing. They are durable when this returns."""
        rows = [
            (source, stream, one.partition, one.offset, one.timestamp, one.key, one.value, reason, self._now())
            for one, reason in messages
        ]
        put = (
            "INSERT INTO poison (source, stream, partition, place, timestamp, message_key, value, reason, kept) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
        )
        with self._database.writing() as (transaction, there):
            if not there:
                transaction.execute(TABLE)
                self._database.mark(transaction)
            transaction.executemany(put, rows)

    def count(self, source: str) -> int:
        """How many messages of a source's stream are kept aside."""
        with self._database.reading() as transaction:
            if transaction is None:
                return 0
            found = transaction.execute("SELECT count(*) FROM poison WHERE source = ?", (source,)).fetchone()
            return int(found[0])

    def messages(self, source: str, *, after: int = 0, most: int = 1_000) -> list[PoisonMessage]:
        """Those of a source, in the order in which they were kept, after an id."""
        look = f"SELECT {COLUMNS} FROM poison WHERE source = ? AND id > ? ORDER BY id LIMIT {most}"
        with self._database.reading() as transaction:
            rows = [] if transaction is None else transaction.execute(look, (source, after)).fetchall()
        found = []
        for number, stream, partition, place, timestamp, key, value, reason, kept in rows:
            whole = [None if one is None else bytes(one) for one in (key, value)]
            message = Message(partition, place, "", whole[0], whole[1], timestamp)
            found.append(PoisonMessage(number, stream, message, reason, kept))
        return found

    def remove(self, source: str, ids: Sequence[int]) -> int:
        """Forget some messages; how many were there."""
        with self._database.writing() as (transaction, there):
            removed = 0
            for number in ids if there else ():
                gone = transaction.execute("DELETE FROM poison WHERE source = ? AND id = ?", (source, number))
                removed += int(gone.rowcount)  # type: ignore[attr-defined]  # a cursor has one
            return removed
