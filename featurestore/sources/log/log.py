"""What a log of a push source must be able to do, wherever it lies: batches of rows of one schema, kept in the order of known_at
and never changed.

Code that pushes, trains, audits or seals works with a `Log` alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Self

from featurestore.lazy import duckdb, pa
from featurestore.plurals import plural
from featurestore.semantics.source_columns import Scan
from featurestore.sources.log.manifest import Segment
from featurestore.sources.log.returns import Return
from featurestore.sources.log.schema import KNOWN_AT, difference

NEVER = -(1 << 63)

ERASING = "erasing rows of forgotten keys"
"""What the lock is taken for, as others are told, by a process that empties rows."""

SEGMENT_BYTES = 64 * 1024**2
"""A segment that has reached this size is full."""

GRACE_SECONDS = 3600.0
"""Seconds for which a file that is no longer in force stays: longer than a query that has found it may run."""

MAX_APPEND_BYTES = 1 << 30
"""Bytes that one append may have."""


class Confirmed(NamedTuple):
    """written: the greatest instant that was to be confirmed in the online store. served: the greatest that any answer
    was for, as far as a process with the log at hand vouched for it. µs. Every new row gets a later known_at.

    It lies beside the log and not in the online store, which may come back older and with a clock that is behind.
    """

    written: int = NEVER
    served: int = NEVER


class Compaction(NamedTuple):
    """What a compaction did: how many segments it sealed, their rows, and how many old files it deleted."""

    segments: int = 0
    rows: int = 0
    deleted: int = 0

    def beside(self, other: Compaction) -> Compaction:
        """What two of them did."""
        return Compaction(*(mine + its for mine, its in zip(self, other, strict=True)))


class Log(ABC):
    """A log of one push source; safe to use from several threads and processes.

    An append is kept whole or not at all, and is durable when `append` returns. known_at increases strictly over the whole
    log. One appends at a time, among all who have the log; who dies loses its lock. Readers take none, and see whole appends.
    """

    filled: int = 0
    """How many segments were full when this object appended."""
    folder: Path
    """Where its files lie, or copies of what lies elsewhere."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Where it lies, as messages say it."""

    @property
    @abstractmethod
    def schema(self) -> pa.Schema:
        """The columns of the rows; LogError where the log began with others."""

    @abstractmethod
    def close(self) -> None:
        """Give up what it holds. What was appended is safe without it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def lock(self, doing: str = "writing to it") -> AbstractContextManager[None]:
        """Hold the log alone, among all who have it; waits in turn, and gives up with LogBusyError.

        doing: what for, as those are told who give up.
        """

    @abstractmethod
    def attempt(self, doing: str) -> AbstractContextManager[bool]:
        """`lock` where nobody holds it or waits for it, and the log can be written; yields whether that is so."""

    # What follows is called under the lock.

    @abstractmethod
    def confirmed(self) -> Confirmed:
        """What was ever confirmed of the log."""

    @abstractmethod
    def confirm(self, *, written: int = NEVER, served: int = NEVER) -> None:
        """Remember what is confirmed, where it is more than before."""

    @abstractmethod
    def append(self, batches: Iterable[pa.RecordBatch], moves: Mapping[str, str] | None = None) -> None:
        """Keep rows, all of them or none; when it returns they are durable.

        batches: of the log's schema; known_at without nulls, strictly increasing, above that of all rows before.
        Together at most 1 GiB. moves: the positions of the partitions of streams from which the rows come, which are kept if they
        are; see `positions`. ValueError where they are not so; LogError where they cannot be written.
        """

    @abstractmethod
    def move(self, moves: Mapping[str, str]) -> None:
        """Keep positions without rows; when it returns they are durable."""

    @abstractmethod
    def ahead_of(self, upto: int) -> pa.Table:
        """The rows that `take_back` takes: those of appends with any row known after an instant.

        LogError where some are in a segment that is full already.
        """

    @abstractmethod
    def take_back(self, upto: int) -> None:
        """Take `ahead_of` out of the log, and forget what was confirmed of that time."""

    @abstractmethod
    def note_return(self, found: Return) -> None:
        """Keep that the online store came back older."""

    # What follows takes no lock.

    @abstractmethod
    def positions(self) -> dict[str, str]:
        """By partition of a stream how far it was read, as a text that the stream's reader understands. Under the lock that is
        exactly as of the rows that are there. Rows that are taken back change no position."""

    @abstractmethod
    def returns(self) -> list[Return]:
        """When the online store was found to have come back older."""

    @abstractmethod
    def last_known_at(self) -> int | None:
        """known_at of the last row, None while there is none; reads no rows."""

    @abstractmethod
    def read(self, after: int | None = None, upto: int | None = None) -> pa.Table:
        """The rows with after < known_at ≤ upto, in order, of whole appends only."""

    @abstractmethod
    def segments(self) -> tuple[Segment, ...]:
        """The parts in which it lies, in order; the last one is open and described as far as it was written."""

    @abstractmethod
    def stored_bytes(self) -> int:
        """How many bytes the rows take where they lie."""

    @abstractmethod
    def scan(self, connection: duckdb.DuckDBPyConnection, name: str) -> Scan:
        """The log as it is now, for SQL on a connection: makes a temporary view of that name, with the columns SEGMENT and ROW."""

    @abstractmethod
    def scan_where(
        self, connection: duckdb.DuckDBPyConnection, name: str, wanted: Mapping[str, pa.Array], *, replaces: str
    ) -> Scan:
        """`scan` of the rows in which each of these columns has one of its values, and of those which replace these.

        replaces: the column with the known_at of the row that a row replaces.
        """

    @abstractmethod
    def settled_scan(self, connection: duckdb.DuckDBPyConnection, name: str) -> Scan:
        """`scan` when nobody appends: no row that was reserved before now can still be on its way."""

    @abstractmethod
    def sealed_files(self) -> frozenset[str]:
        """The names of what is sealed. Only an erasure takes one out of force."""

    # What follows changes no row, but for `erase`, and takes locks of its own.

    @abstractmethod
    def unsealed(self) -> int:
        """How many segments are full and not sealed yet."""

    @abstractmethod
    def compact(self, *, grace: float = GRACE_SECONDS, everything: bool = False) -> Compaction:
        """Seal the full segments into Parquet, and delete files that have been out of force for `grace` seconds.

        everything: the open segment is taken for full. One process at a time does it; killed anywhere, the next call completes it.
        """

    @abstractmethod
    def compact_beside(self, *, stop: Callable[[], bool], rest: Callable[[], object]) -> Compaction:
        """`compact` in a thread beside busy ones, or nothing where another does it.

        Ends early, between two segments, where `stop` says so; calls `rest` every few milliseconds.
        """

    @abstractmethod
    def erase(self, known: pa.Array, *, kept: Collection[str]) -> int:
        """Empty rows, by their known_at, but for that and the columns that are `kept`; how many are there.

        Killed anywhere, the next call completes it.
        """


def checked(batches: Iterable[pa.RecordBatch], schema: pa.Schema, *, last: int | None, name: str) -> pa.Table:
    """The rows of an append as one table; ValueError where they are not what a log takes after a row known at `last`."""
    given = list(batches)
    for batch in given:
        if batch.schema != schema:
            raise ValueError(f"The push log in {name} holds other columns: {difference(schema, batch.schema)}.")
    table = pa.Table.from_batches([batch.cast(schema) for batch in given], schema)
    if table.nbytes > MAX_APPEND_BYTES:
        raise ValueError(
            f"{table.nbytes} {plural(table.nbytes, 'byte is', 'bytes are')} too many for one append; give at most {MAX_APPEND_BYTES} at once."
        )
    for field in schema:
        if not field.nullable and table.column(field.name).null_count:
            raise ValueError(f"'{field.name}' is null in a row for the push log.")
    known = table.column(KNOWN_AT)
    if known.null_count:
        raise ValueError("known_at is null in a row for the push log.")
    values = known.to_numpy()
    if len(values) and ((values[1:] <= values[:-1]).any() or (last is not None and values[0] <= last)):
        raise ValueError(
            f"known_at must increase strictly over the whole push log, whose last row has {last}; the rows for it "
            f"begin at {values[0]} and end at {values[-1]}."
        )
    return table
