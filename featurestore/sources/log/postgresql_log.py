"""A log in PostgreSQL: the processes of any number of machines share it.

An append is one row of a table, which holds an Arrow record batch, and one transaction. So it is there whole or not at all, and in the
order of the lock, which a connection has for as long as it lives. All that the lock allows is written by that connection:
a process that has lost it writes nothing any more. A segment that is full is sealed: the rows of the table become one
Parquet file, which lies in PostgreSQL too; each machine reads copies of such files (segment_copies.py).

    push_logs        of each log its columns as Arrow packs them, and what is confirmed of it
    push_segments    the segments; of a sealed one its file, and the checksums of that
    push_frames      the appends of segments that are not sealed
    push_returns     when the online store was found to have come back older
    push_positions   how far streams were read that feed the source; made when a stream first does
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from featurestore.durable.forks import mutex
from featurestore.durable.postgresql import Errors, PostgreSQL, PostgreSQLConnection
from featurestore.errors import LogBusyError, LogDamagedError, LogError, LogUnavailableError
from featurestore.lazy import duckdb, pa
from featurestore.semantics.source_columns import Scan
from featurestore.semantics.values import scalars
from featurestore.sources.log.erasure import emptied, holds, name_anew
from featurestore.sources.log.log import (
    GRACE_SECONDS,
    NEVER,
    SEGMENT_BYTES,
    Compaction,
    Confirmed,
    Log,
    checked,
)
from featurestore.sources.log.manifest import Segment
from featurestore.sources.log.relation import Relation, numbered, scan_of, scan_where, tables_with
from featurestore.sources.log.returns import Return
from featurestore.sources.log.schema import KNOWN_AT, check, difference
from featurestore.sources.log.sealed import read_segment
from featurestore.sources.log.segment import between
from featurestore.sources.log.segment_copies import SegmentCopies, edition_of, segment_file

OF_LOG = Errors(LogError, LogUnavailableError, LogBusyError, "push_log")

VERSION = 1
"""That of the tables."""

TABLES = (
    """CREATE TABLE push_logs (id INTEGER NOT NULL UNIQUE, name TEXT PRIMARY KEY, columns BLOB NOT NULL, written INTEGER NOT NULL,
    served INTEGER NOT NULL)""",
    """CREATE TABLE push_segments (log INTEGER NOT NULL, number INTEGER NOT NULL, edition INTEGER NOT NULL, rows INTEGER NOT NULL,
    first INTEGER, last INTEGER, size INTEGER NOT NULL, checks TEXT, data BLOB, PRIMARY KEY (log, number))""",
    """CREATE TABLE push_frames (log INTEGER NOT NULL, number INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    rows INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (log, first))""",
    "CREATE TABLE push_returns (log INTEGER NOT NULL, back_to INTEGER NOT NULL, noticed INTEGER NOT NULL)",
    "ALTER TABLE push_segments ALTER COLUMN data SET STORAGE EXTERNAL",  # it is compressed already
)

APPEND = """WITH open AS (UPDATE push_segments SET rows = rows + ?, first = coalesce(first, ?), last = ?, size = size + ?
WHERE log = ? AND number = ? RETURNING number)
{also}INSERT INTO push_frames (log, number, first, last, rows, data) SELECT ?, number, ?, ?, ?, ? FROM open"""

POSITIONS = "CREATE TABLE IF NOT EXISTS push_positions (log INTEGER NOT NULL, partition TEXT NOT NULL, position TEXT NOT NULL, PRIMARY KEY (log, partition))"

MOVE = """INSERT INTO push_positions (log, partition, position) SELECT ?, partition, position FROM {of}
unnest(?::text[], ?::text[]) AS moved (partition, position) ON CONFLICT (log, partition) DO UPDATE SET position = excluded.position"""

SEGMENTS = "SELECT number, edition, rows, first, last, size, checks FROM push_segments WHERE log = ? ORDER BY number"

FINDING_OUT = "finding out what was kept"


def push_log_database(url: str, project: str | None, *, wait_seconds: float) -> PostgreSQL:
    """Where the logs of a project lie, at a postgresql:// URL."""
    return PostgreSQL(url, "push log", project=project, schema=VERSION, timeout=wait_seconds, errors=OF_LOG)


@dataclass
class _Held:
    """What the holder of the lock knows, which nobody else changes meanwhile: the last row's known_at, the open segment and its size,
    and what is confirmed. holder: process and thread."""

    connection: PostgreSQLConnection
    holder: tuple[int, int]
    number: int
    size: int
    last: int | None
    confirmed: Confirmed


class _Frame(NamedTuple):
    number: int
    data: bytes


class PostgreSQLLog(Log):
    """A log in PostgreSQL; safe to use from several threads, processes and machines.

    called: its name there. folder: for this machine's copies of sealed segments. schema: called where the log is made, and where rows
    are first read or appended. segment_bytes: a segment that has reached this size is full.
    """

    def __init__(
        self, database: PostgreSQL, called: str, folder: Path, schema: Callable[[], pa.Schema], *, wait_seconds: float,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:  # fmt: skip
        self._database, self._called, self.folder = database, called, folder
        self._declared, self._wait_seconds, self._segment_bytes = schema, wait_seconds, segment_bytes
        self.filled = 0
        self._held: _Held | None = None
        self._gate = mutex()
        self._at_hand: dict[tuple[int, int], list[pa.Table]] = {}
        self._has_positions = False
        self._id, self._columns = self._made()
        self._copies = SegmentCopies(folder, self._id)

    def _made(self) -> tuple[int, pa.Schema]:
        """The number and the columns of the log, which is made where it is missing."""
        found = find_log(self._database, self._called)
        if found is None:
            columns = check(self._declared())
            with self._database.writing() as (transaction, there):
                if not there:
                    for table in TABLES:
                        transaction.execute(table)
                    self._database.mark(transaction)
                found = transaction.execute("SELECT id FROM push_logs WHERE name = ?", (self._called,)).fetchone()
                if found is None:
                    (number,) = transaction.execute("SELECT coalesce(max(id), 0) + 1 FROM push_logs").fetchone()  # type: ignore[misc]  # a statement that always gives a row
                    row = (number, self._called, columns.serialize().to_pybytes(), NEVER, NEVER)
                    transaction.execute("INSERT INTO push_logs VALUES (?, ?, ?, ?, ?)", row)
                    transaction.execute(
                        "INSERT INTO push_segments VALUES (?, 1, 0, 0, NULL, NULL, 0, NULL, NULL)", (number,)
                    )
            return self._made()
        number, columns = found
        return number, pa.ipc.read_schema(pa.py_buffer(columns))

    @property
    def name(self) -> str:
        """The database, and the log's name there."""
        return f"{self._database.name}: {self._called}"

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns of the rows; LogError where the log began with others."""
        schema = check(self._declared())
        differs = difference(self._columns, schema)
        if differs:
            raise LogError(
                f"The push log in {self.name} holds rows of other columns: {differs}. A log keeps the columns that it "
                "began with; give the source another name, or declare its columns as they were."
            )
        return schema

    def close(self) -> None:
        """Let go of rows that are kept at hand; the connections are the database's."""
        with self._gate:
            self._at_hand.clear()

    # --- the lock ---------------------------------------------------------------------------

    @contextmanager
    def lock(self, doing: str = "writing to it") -> Iterator[None]:
        """Hold the log alone, among all machines; waits in turn."""
        if self._holds():
            raise RuntimeError("this thread holds the lock of the push log already")
        with self._database.alone(self._id, doing, wait_seconds=self._wait_seconds) as taken:
            assert taken is not None
            with self._taken(taken[0]):
                yield

    @contextmanager
    def attempt(self, doing: str) -> Iterator[bool]:
        """`lock` where nobody holds it or waits for it; yields whether that is so."""
        if self._holds():
            yield False
            return
        with self._database.alone(self._id, doing, wait_seconds=None) as taken:
            if taken is None:
                yield False
            else:
                with self._taken(taken[0]):
                    yield True

    @contextmanager
    def _taken(self, connection: PostgreSQLConnection) -> Iterator[None]:
        found = connection.at_once(
            f"SELECT written, served, number, size, coalesce(last, (SELECT max(last) FROM push_segments WHERE log = {self._id})) "
            f"FROM push_logs JOIN push_segments ON log = id WHERE id = {self._id} ORDER BY number DESC LIMIT 1"
        )
        if found is None:
            raise LogError(f"The push log in {self.name} has vanished; restore the database from a copy.")
        written, served, number, size, last = found
        holder = os.getpid(), threading.get_ident()
        self._held = _Held(connection, holder, number, size, last, Confirmed(written, served))
        try:
            yield
        finally:
            self._held = None

    def _holds(self) -> bool:
        return self._held is not None and self._held.holder == (os.getpid(), threading.get_ident())

    def _mine(self) -> _Held:
        if self._held is None or not self._holds():
            raise RuntimeError("a push log is changed under its lock: with log.lock(): log.append(…)")
        return self._held

    def _at_once(self, sql: str) -> Any:
        """Run statements on the connection that has the lock; see `PostgreSQLConnection.at_once`."""
        with self._database.failing():
            return self._mine().connection.at_once(sql)

    def confirmed(self) -> Confirmed:
        """What was ever confirmed of the log; under the lock."""
        return self._mine().confirmed

    def confirm(self, *, written: int = NEVER, served: int = NEVER) -> None:
        """Remember what is confirmed, where it is more than before; under the lock.

        The server answers before that is on its disk: the next append, which waits for the disk, takes it there.
        """
        held = self._mine()
        after = Confirmed(max(held.confirmed.written, written), max(held.confirmed.served, served))
        if after != held.confirmed:
            self._at_once(
                f"BEGIN; SET LOCAL synchronous_commit = off; UPDATE push_logs SET written = {after.written}, served = {after.served} "
                f"WHERE id = {self._id}; COMMIT"
            )
            held.confirmed = after

    # --- appending --------------------------------------------------------------------------

    def append(self, batches: Iterable[pa.RecordBatch], moves: Mapping[str, str] | None = None) -> None:
        """Keep rows, all of them or none, under the lock; when it returns the server has them on its disk. moves: see Log; they are
        of the same statement.

        LogUnavailableError where the server went away; its `kept` is "unknown" where nobody can tell whether it had kept them.
        """
        held = self._mine()
        table = checked(batches, self.schema, last=held.last, name=self.name)
        if table.num_rows == 0:
            return
        if held.size >= self._segment_bytes:
            self._roll(held)
        also, moved = "", tuple[Any, ...]()
        if moves is not None:
            self._make_positions()
            also, moved = f", moved AS ({MOVE.format(of='open,')}) ", self._moved(moves)
        data = table.combine_chunks().to_batches()[0].serialize().to_pybytes()
        first, last = table[KNOWN_AT][0].as_py(), table[KNOWN_AT][-1].as_py()
        in_force = (table.num_rows, first, last, len(data), self._id, held.number)
        with self._database.failing():
            try:
                row = self._id, first, last, table.num_rows, data
                if held.connection.execute(APPEND.format(also=also), (*in_force, *moved, *row)).rowcount != 1:
                    raise LogError(
                        f"The push log in {self.name} has lost its last segment; restore the database from a copy."
                    )
            except psycopg.Error as error:
                if not held.connection.is_gone:
                    raise
                self._find_out(table, error)
        held.last, held.size = last, held.size + len(data)

    def move(self, moves: Mapping[str, str]) -> None:
        """Keep how far streams were read that gave no rows, under the lock; when it returns the server has that on its disk."""
        held = self._mine()
        with self._database.failing():
            self._make_positions()
            held.connection.execute(MOVE.format(of=""), self._moved(moves))

    def _moved(self, moves: Mapping[str, str]) -> tuple[Any, ...]:
        return self._id, list(moves), list(moves.values())

    def _make_positions(self) -> None:
        """Make the table where it is missing: a database of an earlier version has none, and is of use to that still."""
        if not self._has_positions:
            self._mine().connection.execute(POSITIONS)
            self._has_positions = True

    def positions(self) -> dict[str, str]:
        """How far streams were read; under the lock as of the rows that are there."""
        look = "SELECT partition, position FROM push_positions WHERE log = ?"
        there = "SELECT to_regclass('push_positions') IS NOT NULL"
        with self._database.failing(), ExitStack() as stack:
            at = self._mine().connection if self._holds() else stack.enter_context(self._reading())
            self._has_positions = self._has_positions or bool(at.execute(there).fetchone()[0])  # type: ignore[index]  # a statement that always gives a row
            return dict(at.execute(look, (self._id,)).fetchall()) if self._has_positions else {}

    def _roll(self, held: _Held) -> None:
        """Take the open segment for full and begin the next."""
        self._at_once(
            f"INSERT INTO push_segments VALUES ({self._id}, {held.number + 1}, 0, 0, NULL, NULL, 0, NULL, NULL)"
        )
        held.number, held.size = held.number + 1, 0
        self.filled += 1

    def _find_out(self, table: pa.Table, error: psycopg.Error) -> None:
        """Whether an append was kept whose connection broke: nobody can tell but who has the lock after it. Others may have had it
        in between, and sealed what was kept: so the rows are looked for, wherever they lie."""
        said = f"The push log {self._database.name} went away while it was told to keep rows"
        first, last = table[KNOWN_AT][0].as_py(), table[KNOWN_AT][-1].as_py()
        try:
            with self._database.alone(self._id, FINDING_OUT, wait_seconds=self._wait_seconds):
                kept = _texts(self.read(first - 1, last)) == _texts(table)
        except LogError:
            unknown = LogUnavailableError(f"{said}, and is not back: {' '.join(str(error).split())}")
            unknown.kept = "unknown"
            raise unknown from error
        if not kept:
            raise LogUnavailableError(f"{said}, and has not.") from error

    def ahead_of(self, upto: int) -> pa.Table:
        """The rows that `take_back` takes; under the lock."""
        held = self._mine()
        *full, _ = self.segments()
        kept = [segment.last for segment in full if segment.last is not None]
        if kept and kept[-1] > upto:
            raise LogError(
                f"The push log in {self.name} has rows ahead of the clock in a full segment, which is never changed."
            )
        mine = f"log = {self._id} AND number = {held.number}"
        (last,) = self._at_once(f"SELECT max(last) FROM push_frames WHERE {mine} AND last <= {upto}")
        return self.read(kept[-1] if last is None and kept else last)

    def take_back(self, upto: int) -> None:
        """Take `ahead_of` out of the log, and forget what was confirmed of that time; under the lock."""
        held = self._mine()
        after = Confirmed(*(min(instant, upto) for instant in held.confirmed))
        mine = f"log = {self._id} AND number = {held.number}"
        (held.last,) = self._at_once(
            f"BEGIN; DELETE FROM push_frames WHERE {mine} AND last > {upto}; "
            f"UPDATE push_segments s SET edition = edition + 1, (rows, first, last, size) = (SELECT coalesce(sum(rows), 0), min(first), "
            f"max(last), coalesce(sum(octet_length(data)), 0) FROM push_frames WHERE {mine}) WHERE {mine}; "
            f"UPDATE push_logs SET written = {after.written}, served = {after.served} WHERE id = {self._id}; COMMIT; SELECT max(last) FROM push_segments WHERE log = {self._id}"
        )
        held.confirmed = after

    def note_return(self, found: Return) -> None:
        """Keep that the online store came back older; under the lock."""
        self._at_once(f"INSERT INTO push_returns VALUES ({self._id}, {found.to}, {found.noticed})")

    def returns(self) -> list[Return]:
        """When the online store was found to have come back older."""
        with self._reading() as transaction:
            look = "SELECT back_to, noticed FROM push_returns WHERE log = ? ORDER BY noticed"
            return [Return(*row) for row in transaction.execute(look, (self._id,))]

    # --- reading ----------------------------------------------------------------------------

    @contextmanager
    def _reading(self) -> Iterator[PostgreSQLConnection]:
        """A transaction that sees one state of the log."""
        with self._database.reading() as transaction:
            if transaction is None:
                raise LogError(f"The push log in {self.name} has vanished; restore the database from a copy.")
            yield transaction

    def last_known_at(self) -> int | None:
        """known_at of the last row, None while there is none; asks nobody under the lock."""
        if self._holds():
            return self._mine().last
        with self._reading() as transaction:
            found = transaction.execute("SELECT max(last) FROM push_segments WHERE log = ?", (self._id,)).fetchone()
            return None if found is None else found[0]

    def segments(self) -> tuple[Segment, ...]:
        """The segments, in order; the last one is open."""
        with self._reading() as transaction:
            return self._segments(transaction)

    def _segments(self, transaction: PostgreSQLConnection) -> tuple[Segment, ...]:
        return tuple(
            Segment(number, segment_file(number, edition, sealed=checks is not None), rows, first, last, size, checks)
            for number, edition, rows, first, last, size, checks in transaction.execute(SEGMENTS, (self._id,))
        )

    def stored_bytes(self) -> int:
        """Bytes of the rows as they lie in the database."""
        look = "SELECT coalesce(sum(coalesce(octet_length(data), size)), 0)::bigint FROM push_segments WHERE log = ?"
        with self._reading() as transaction:
            (found,) = transaction.execute(look, (self._id,)).fetchone()  # type: ignore[misc]  # a statement that always gives a row
            return int(found)

    def read(self, after: int | None = None, upto: int | None = None) -> pa.Table:
        """The rows with after < known_at ≤ upto, in order, of whole appends only."""
        return self._copies.looked(lambda: self._read(after, upto))

    def _read(self, after: int | None, upto: int | None) -> pa.Table:
        with self._reading() as transaction:
            meeting = [
                segment for segment in self._segments(transaction) if segment.rows and segment.meets(after, upto)
            ]
            sealed = self._copies.copied(transaction, [segment for segment in meeting if segment.sealed])
            frames = self._frames(transaction, after=after, upto=upto)
        batches = []
        for segment in sealed:
            batches += read_segment(self.folder, segment, self.schema, after=after, upto=upto)
        recent = [between(self._batch(frame), after, upto) for frame in frames]
        return pa.Table.from_batches([*batches, *(batch for batch in recent if batch.num_rows)], self.schema)

    def _frames(
        self, transaction: PostgreSQLConnection, *, after: int | None = None, upto: int | None = None
    ) -> list[_Frame]:
        """The appends that are not sealed and have such rows."""
        begins = "coalesce((SELECT max(first) FROM push_frames WHERE log = ? AND first <= ?), ?)"
        look = f"SELECT number, data FROM push_frames WHERE log = ? AND first >= {begins} AND last > ? AND first <= ? ORDER BY first"
        after = NEVER if after is None else after
        values = (self._id, self._id, after, NEVER, after, (1 << 63) - 1 if upto is None else upto)
        return [_Frame(*row) for row in transaction.bytes_of(look, values)]

    def _batch(self, frame: _Frame) -> pa.RecordBatch:
        try:
            return pa.ipc.read_record_batch(pa.py_buffer(frame.data), self.schema)
        except (pa.ArrowInvalid, OSError) as error:
            raise LogDamagedError(
                f"The push log is damaged in {self.name}, in segment {frame.number}: {error}. Restore the database from a copy."
            ) from error

    def scan(self, connection: duckdb.DuckDBPyConnection, name: str, *, upto: int | None = None) -> Scan:
        """The log as it is now, for SQL on a connection; upto: without rows that are known later."""
        return self._copies.looked(lambda: self._scan(connection, name, upto))

    def _scan(self, connection: duckdb.DuckDBPyConnection, name: str, upto: int | None) -> Scan:
        with self._reading() as transaction:
            segments = self._segments(transaction)
            sealed = self._copies.copied(transaction, [segment for segment in segments if segment.sealed])
            frames = self._frames(transaction, upto=upto)
        by_number: dict[int, list[pa.RecordBatch]] = {s.number: [] for s in segments if not s.sealed}
        for frame in frames:
            by_number[frame.number].append(self._batch(frame))
        files = [(segment.number, self._copies.path(segment)) for segment in sealed]
        return scan_of(connection, name, self.schema, sealed=files, unsealed=list(by_number.items()))

    def scan_where(
        self, connection: duckdb.DuckDBPyConnection, name: str, wanted: Mapping[str, pa.Array], *, replaces: str
    ) -> Scan:
        """`scan` of the rows in which each of these columns has one of its values, and of those which replace these.

        What is not sealed is kept in memory from then on, so that a look costs what it finds.
        """
        with self._gate:
            files, unsealed = self._copies.looked(self._sealed_and_not)
        return scan_where(Relation(connection, name, self.schema, files, unsealed), wanted, replaces=replaces)

    def _sealed_and_not(self) -> tuple[list[tuple[int, Path]], list[pa.Table]]:
        """The copies of sealed segments, and the rows of the others."""
        with self._reading() as transaction:
            segments = self._segments(transaction)
            sealed = self._copies.copied(transaction, [segment for segment in segments if segment.sealed])
            unsealed = self._unsealed_tables(transaction, [segment for segment in segments if not segment.sealed])
        return [(segment.number, self._copies.path(segment)) for segment in sealed], unsealed

    def _unsealed_tables(self, transaction: PostgreSQLConnection, segments: list[Segment]) -> list[pa.Table]:
        """The rows of unsealed segments with SEGMENT and ROW, those of a segment as `tables_with` joins them."""
        before, self._at_hand = self._at_hand, {}
        found = []
        for segment in segments:
            edition = edition_of(segment.file)
            mine = before.get((segment.number, edition)) or [numbered(segment.number, [], self.schema)]
            rows = sum(table.num_rows for table in mine)
            last = max((table[KNOWN_AT][-1].as_py() for table in mine if table.num_rows), default=None)
            if segment.rows != rows:
                frames = self._frames(transaction, after=last, upto=segment.last)
                batches = [self._batch(frame) for frame in frames if frame.number == segment.number]
                mine = tables_with(mine, numbered(segment.number, batches, self.schema, first=rows))
            self._at_hand[segment.number, edition] = mine
            found += mine
        return found

    def settled_scan(self, connection: duckdb.DuckDBPyConnection, name: str) -> Scan:
        """`scan` of what was there when nobody appended: no row that was reserved before can still be on its way."""
        if self._holds():
            return self.scan(connection, name)
        with self.lock("reading it"):
            last = self._mine().last
        return self.scan(connection, name, upto=NEVER if last is None else last)

    def sealed_files(self) -> frozenset[str]:
        """The names of sealed segments' files."""
        return frozenset(segment.file for segment in self.segments() if segment.sealed)

    # --- sealing ----------------------------------------------------------------------------

    def unsealed(self) -> int:
        """How many segments are full and not sealed yet."""
        return sum(not segment.sealed for segment in self.segments()[:-1])

    def compact(self, *, grace: float = GRACE_SECONDS, everything: bool = False) -> Compaction:  # noqa: ARG002
        """Seal the full segments. Readers have what they began with, so nothing has to stay for a while.

        Where two do it at once, one of them has worked for nothing.
        """
        if everything:
            with self.lock("sealing all of it"):
                held = self._mine()
                if held.size:
                    self._roll(held)
        return self.compact_beside(stop=bool, rest=bool)

    def compact_beside(self, *, stop: Callable[[], bool], rest: Callable[[], object]) -> Compaction:
        """`compact` in a thread beside busy ones; ends early, between two segments, where `stop` says so."""
        done = Compaction()
        for segment in [segment for segment in self.segments()[:-1] if not segment.sealed]:
            if stop():
                break
            if self._seal(segment):
                done = done.beside(Compaction(1, segment.rows or 0))
            rest()
        return done

    def _seal(self, segment: Segment) -> bool:
        """Put a Parquet file in the place of a full segment's appends; False where another has done so."""
        with self._reading() as transaction:
            frames = self._frames(transaction, after=(segment.first or 0) - 1, upto=segment.last)
        batches = [self._batch(frame) for frame in frames if frame.number == segment.number]
        table = pa.Table.from_batches(batches, self.schema).combine_chunks()
        edition = edition_of(segment.file)
        checks, data = self._copies.packed(segment_file(segment.number, edition, sealed=True), table, self.schema)
        with self._database.writing() as (transaction, _):
            put = "UPDATE push_segments SET checks = ?, data = ? WHERE log = ? AND number = ? AND edition = ? AND data IS NULL AND rows = ?"
            values = (checks, data, self._id, segment.number, edition, table.num_rows)
            mine = transaction.execute(put, values).rowcount == 1
            if mine:
                transaction.execute("DELETE FROM push_frames WHERE log = ? AND number = ?", (self._id, segment.number))
        return mine

    def erase(self, known: pa.Array, *, kept: Collection[str]) -> int:
        """Empty rows, by their known_at, but for that and the columns that are `kept`; how many are there.

        Each segment that holds some is sealed and written anew as its next edition, in one transaction each: killed between two, the
        next call completes it. What another process has erased meanwhile stays erased. Copies on other machines' disks go when these
        next read the segment.
        """
        known = known.sort()
        with self.lock("erasing rows of it"):
            if holds(self.segments()[-1], known):
                self._roll(self._mine())
        self.compact()
        return sum(self._erase_in(segment.number, known, kept) for segment in self.segments()[:-1])

    def _erase_in(self, number: int, known: pa.Array, kept: Collection[str]) -> int:
        """Empty rows of one sealed segment; how many."""
        while True:
            segment, rows, count = self._copies.looked(lambda: self._emptied(number, known, kept))
            if rows is None:
                return 0
            name = name_anew(segment)
            checks, data = self._copies.packed(name, rows, self.schema)
            put = "UPDATE push_segments SET edition = ?, checks = ?, data = ? WHERE log = ? AND number = ? AND edition = ? AND data IS NOT NULL"
            values = (edition_of(name), checks, data, self._id, number, edition_of(segment.file))
            with self._database.writing() as (transaction, _):
                mine = transaction.execute(put, values).rowcount == 1
            if mine:
                self._copies.drop_older([segment._replace(file=name)])
                return count

    def _emptied(self, number: int, known: pa.Array, kept: Collection[str]) -> tuple[Segment, pa.Table | None, int]:
        """A sealed segment, what its rows become, None where it holds none of those that are erased, and how many these are."""
        with self._reading() as transaction:
            (segment,) = (one for one in self._segments(transaction) if one.number == number)
            if not holds(segment, known):
                return segment, None, 0
            self._copies.copied(transaction, [segment])
        rows, count = emptied(self.folder, segment, self.schema, known, kept=kept)
        return segment, rows if count else None, count


def find_log(database: PostgreSQL, called: str) -> tuple[int, bytes] | None:
    """The number and the packed columns of a log, where it was made."""
    with database.reading() as transaction:
        if transaction is None:
            return None
        found = transaction.bytes_of("SELECT id, columns FROM push_logs WHERE name = ?", (called,)).fetchone()
        return None if found is None else (found[0], found[1])


def _texts(rows: pa.Table) -> list[str]:
    """The columns as texts, as which NaN is equal to itself, and 0.0 is not to -0.0."""
    return [str(scalars(column)) for column in rows.columns]
