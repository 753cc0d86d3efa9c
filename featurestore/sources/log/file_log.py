"""A log in a folder: the processes of one machine share it."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cached_property
from pathlib import Path

from featurestore.clock import Clock, reader
from featurestore.durable.disk import error_of, unwritable
from featurestore.durable.lock import LOCK_WAIT_SECONDS, BusyError, attempt, exclusive
from featurestore.errors import LogBusyError, LogError
from featurestore.lazy import duckdb, pa
from featurestore.semantics.source_columns import Scan
from featurestore.sources.log.compaction import compact
from featurestore.sources.log.copying import copy_log
from featurestore.sources.log.erasure import erase
from featurestore.sources.log.files import LogFolder
from featurestore.sources.log.log import (
    ERASING,
    GRACE_SECONDS,
    NEVER,
    SEGMENT_BYTES,
    Compaction,
    Confirmed,
    Log,
    checked,
)
from featurestore.sources.log.manifest import LogManifest, Segment
from featurestore.sources.log.positions import Moves
from featurestore.sources.log.relation import Relation, scan_of, scan_where
from featurestore.sources.log.returns import Return, read_returns, write_return
from featurestore.sources.log.schema import check, difference
from featurestore.sources.log.sealed import look_at, read_segment
from featurestore.sources.log.segment import SegmentFile
from featurestore.sources.log.unsealed_cache import UnsealedCache

SEALING = "sealing full segments"


class FileLog(Log):
    """A folder that holds the log; safe to use from several threads and processes of one machine.

    folder: made where it is missing. schema: called where
    rows are first read or appended; with `known_at`, int64, which increases strictly over the whole log.
    segment_bytes: a segment that has reached this size is full. clock: says how long a file has been out of force.
    claim: called under a lock before anything is kept, with whether there are rows; what it raises keeps it from that.
    wait_seconds: seconds for which its locks are waited for.
    """

    def __init__(
        self, folder: Path, schema: Callable[[], pa.Schema], *, segment_bytes: int = SEGMENT_BYTES, clock: Clock | None = None,
        claim: Callable[[bool], None] = lambda _: None,
        wait_seconds: float = LOCK_WAIT_SECONDS,
    ) -> None:  # fmt: skip
        self.folder = folder
        self._declared = schema
        self._segment_bytes, self._wait_seconds = segment_bytes, wait_seconds
        self._now = reader(clock)
        self._claim = claim
        self._holder: tuple[int, int] | None = None  # process and thread
        self.filled = 0
        with _failing(folder):
            self._files = LogFolder(folder, lambda: check(schema()), wait_seconds=wait_seconds)

    @property
    def name(self) -> str:
        """The folder."""
        return str(self.folder)

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns of the rows; LogError where the log began with others."""
        schema = check(self._declared())
        differs = difference(self._files.schema(), schema)
        if differs:
            raise LogError(
                f"The push log in {self.folder} holds rows of other columns: {differs}. A log keeps the columns that it "
                "began with; give the source another name, or declare its columns as they were."
            )
        return schema

    @cached_property
    def _unsealed(self) -> UnsealedCache:
        return UnsealedCache(self.folder, self.schema)

    def close(self) -> None:
        """Give its descriptors up. What was appended is safe without it."""
        self._files.close()

    @contextmanager
    def lock(self, doing: str = "writing to it") -> Iterator[None]:
        """Hold the log alone, among all threads and processes of the machine; waits in turn.

        doing: what for, as those are told who give up waiting, with LogBusyError. What a dead process left unfinished is
        cut off. LogDamagedError where acknowledged bytes have changed.
        """
        if self._holds():
            raise RuntimeError("this thread holds the lock of the push log already")
        closed = unwritable(self.folder)  # then nobody writes, and there is nothing that could be cut off
        with ExitStack() as stack:
            if not closed:
                with _failing(self._files.lock):
                    stack.enter_context(exclusive(self._files.lock, doing=doing, wait_seconds=self._wait_seconds))
            stack.enter_context(self._taken(recover=not closed))
            yield

    @contextmanager
    def attempt(self, doing: str) -> Iterator[bool]:
        """`lock` where nobody holds it or waits for it, and it can be written; yields whether that is so."""
        if self._holds() or unwritable(self.folder):
            yield False
            return
        with ExitStack() as stack:
            with _failing(self._files.lock):
                alone = stack.enter_context(attempt(self._files.lock, doing=doing))
            if alone:
                stack.enter_context(self._taken())
            yield alone

    @contextmanager
    def _taken(self, *, recover: bool = True) -> Iterator[None]:
        with _failing(self.folder), self._files.mutex:
            if recover:
                self._files.recover()
        self._holder = os.getpid(), threading.get_ident()
        try:
            yield
        finally:
            self._holder = None

    def confirmed(self) -> Confirmed:
        """What was ever confirmed of the log; under the lock."""
        return self._files.confirmed()

    def confirm(self, *, written: int = NEVER, served: int = NEVER) -> None:
        """Remember what is confirmed, where it is more than before; under the lock."""
        self._check_writable()
        with _failing(self.folder):
            self._files.confirm(written=written, served=served)

    def _check_writable(self) -> None:
        if unwritable(self.folder):
            raise error_of(OSError(errno.EROFS, os.strerror(errno.EROFS)), self.folder)

    def _holds(self) -> bool:
        return self._holder == (os.getpid(), threading.get_ident())

    def append(self, batches: Iterable[pa.RecordBatch], moves: Mapping[str, str] | None = None) -> None:
        """Keep rows, all of them or none, under the lock; when it returns they are on the disk.

        batches: of the log's schema; known_at without nulls, strictly increasing, above that of all rows before.
        Together at most 1 GiB. moves: see Log. ValueError where they are not so; LogError where they cannot be written.
        """
        if not self._holds():
            raise RuntimeError("a push log is appended to under its lock: with log.lock(): log.append(…)")
        self._check_writable()
        with self._files.mutex:
            last = self._files.last(self._files.in_force(), self._files.open)
            table = checked(batches, self.schema, last=last, name=self.name)
            if table.num_rows == 0:
                return
            try:
                self._claim(last is not None)
                if self._files.open.end >= self._segment_bytes:
                    self._files.roll()
                    self.filled += 1
                self._files.append(table, None if moves is None else Moves(moves))
            except OSError as error:
                raise error_of(error, self._files.open.path) from error

    def move(self, moves: Mapping[str, str]) -> None:
        """Keep how far streams were read that gave no rows, under the lock; when it returns that is on the disk."""
        if not self._holds():
            raise RuntimeError("a push log is changed under its lock")
        self._check_writable()
        with self._files.mutex:
            place = self._files.positions_file.path
            try:
                self._claim(self._files.last(self._files.in_force(), self._files.open) is not None)
                self._files.move(Moves(moves))
            except OSError as error:
                raise error_of(error, place) from error

    def positions(self) -> dict[str, str]:
        """How far streams were read; under the lock exactly, and else as it was a moment ago."""

        def use(_: LogManifest, file: SegmentFile) -> Callable[[], dict[str, str]]:
            found = self._files.positions_file.read().with_later(file.positions)
            return lambda: dict(found.held)

        return self._files.looked(use)

    def ahead_of(self, upto: int) -> pa.Table:
        """The rows that `take_back` takes: those of appends with any row known after an instant; under the lock.

        LogError where some are in a segment that is full already.
        """
        kept = [segment.last for segment in self.segments()[:-1] if segment.last is not None]
        if kept and kept[-1] > upto:
            raise LogError(
                f"The push log in {self.folder} has rows ahead of the clock in a full segment, which is never changed."
            )
        with self._files.mutex:
            last = self._files.open.last_until(upto)
        return self.read(kept[-1] if last is None and kept else last)

    def take_back(self, upto: int) -> None:
        """Take `ahead_of` out of the log, and forget what was confirmed of that time; under the lock."""
        if not self._holds():
            raise RuntimeError("a push log is changed under its lock")
        with _failing(self.folder):
            with self._files.mutex:
                self._files.take_back(upto)
            self._files.confirm_only(upto)

    def note_return(self, found: Return) -> None:
        """Keep that the online store came back older; under the lock."""
        with _failing(self.folder):
            write_return(self.folder / "returns", found)

    def returns(self) -> list[Return]:
        """When the online store was found to have come back older."""
        return read_returns(self.folder / "returns")

    def last_known_at(self) -> int | None:
        """known_at of the last row, None while there is none; reads no rows."""

        def use(manifest: LogManifest, file: SegmentFile) -> Callable[[], int | None]:
            last = self._files.last(manifest, file)
            return lambda: last

        return self._files.looked(use)

    def read(self, after: int | None = None, upto: int | None = None) -> pa.Table:
        """The rows with after < known_at ≤ upto, in order; takes no lock, and sees whole appends only. Of segments that are
        full, only those that hold such rows are read."""

        def use(manifest: LogManifest, file: SegmentFile) -> Callable[[], pa.Table]:
            recent = file.read(self.schema, after, upto)

            def finish() -> pa.Table:
                batches = []
                for segment in manifest.segments[:-1]:
                    if segment.meets(after, upto):
                        batches += read_segment(self.folder, segment, self.schema, after=after, upto=upto)
                return pa.Table.from_batches(batches + recent, self.schema)

            return finish

        return self._files.looked(use)

    def segments(self) -> tuple[Segment, ...]:
        """The files in force, in order; the last one is open and described as far as it was written."""

        def use(manifest: LogManifest, file: SegmentFile) -> Callable[[], tuple[Segment, ...]]:
            written = manifest.open._replace(rows=file.rows, first=file.first, last=file.last, size=file.end)
            return lambda: (*manifest.segments[:-1], written)

        return self._files.looked(use)

    def stored_bytes(self) -> int:
        """Bytes on the disk; a sealed segment remembers those that it had before."""
        return sum((self.folder / s.file).stat().st_size if s.sealed else s.size or 0 for s in self.segments())

    def scan(self, connection: duckdb.DuckDBPyConnection, name: str) -> Scan:
        """The log as it is now, for SQL on a connection: makes a temporary view of that name; see `scan_of`."""

        def use(manifest: LogManifest, file: SegmentFile) -> Callable[[], Scan]:
            recent = file.read(self.schema)

            def finish() -> Scan:
                sealed = self._sealed(manifest)
                unsealed = [
                    (s.number, read_segment(self.folder, s, self.schema)) for s in manifest.segments[len(sealed) : -1]
                ]
                unsealed.append((manifest.open.number, recent))
                return scan_of(connection, name, self.schema, sealed=sealed, unsealed=unsealed)

            return finish

        return self._files.looked(use)

    def scan_where(
        self, connection: duckdb.DuckDBPyConnection, name: str, wanted: Mapping[str, pa.Array], *, replaces: str
    ) -> Scan:
        """`scan` of the rows in which each of these columns has one of its values, and of those which replace these.

        replaces: the column with the known_at of the row that a row replaces. What is not sealed is kept in memory from
        then on, so that a look costs what it finds.
        """

        def use(manifest: LogManifest, file: SegmentFile) -> Callable[[], Scan]:
            unsealed = self._unsealed.tables(manifest, file)

            def finish() -> Scan:
                relation = Relation(connection, name, self.schema, self._sealed(manifest), unsealed)
                return scan_where(relation, wanted, replaces=replaces)

            return finish

        return self._files.looked(use)

    def _sealed(self, manifest: LogManifest) -> list[tuple[int, Path]]:
        """The number and file of each sealed segment, all of which are there and undamaged."""
        sealed = [segment for segment in manifest.segments if segment.sealed]
        for segment in sealed:
            (self.folder / segment.file).stat()
        look_at(self.folder, sealed)
        return [(segment.number, self.folder / segment.file) for segment in sealed]

    def copy_to(self, place: Path) -> None:
        """Write the log as it is by now into a folder that is to be made, while nobody waits for it; see `copy_log`. OSError
        where that cannot be written."""
        with _waiting():
            copy_log(self._files, place)

    def settled_scan(self, connection: duckdb.DuckDBPyConnection, name: str) -> Scan:
        """`scan` when nobody appends: no row that was reserved before now can still be on its way."""
        if self._holds():
            return self.scan(connection, name)
        with self.lock("reading it"):
            return self.scan(connection, name)

    @property
    def cuts(self) -> int:
        """How often an append that was never acknowledged was cut off the end of the log."""
        return self._files.pointer().cuts

    def unsealed(self) -> int:
        """How many segments are full and not sealed yet."""
        with self._files.mutex:
            return len(self._files.in_force().unsealed)

    def compact(self, *, grace: float = GRACE_SECONDS, everything: bool = False) -> Compaction:
        """Seal the full segments into Parquet, and delete files that have been out of force for `grace` seconds.

        Appenders are held up only while the manifest is swapped. everything: the open segment is taken for full.
        One process at a time does it; killed anywhere, the next call completes it.
        """
        place = self.folder / "compaction"
        with _failing(self.folder), exclusive(place, doing=SEALING, wait_seconds=self._wait_seconds):
            self._claim(self.last_known_at() is not None)
            if everything:
                with self.lock(SEALING), self._files.mutex:
                    if self._files.open.rows:
                        self._files.roll()
            return compact(self._files, self._sealing, now=self._now, grace=round(grace * 1_000_000))

    def erase(self, known: pa.Array, *, kept: Collection[str]) -> int:
        """Empty rows, by their known_at, but for that and the columns that are `kept`; how many are there.

        The files that held them are deleted, those too that an erasure left which was killed. Appenders are held up only while
        the manifest is swapped. One process at a time does it; killed anywhere, the next call completes it.
        """
        known = known.sort()
        place = self.folder / "compaction"
        with _failing(self.folder), exclusive(place, doing=ERASING, wait_seconds=self._wait_seconds):
            self._check_writable()
            with self.lock(ERASING), self._files.mutex:
                first = self._files.open.first
                if first is not None and len(known) and known[-1].as_py() >= first:
                    self._files.roll()
            return erase(self._files, lambda: self.lock(ERASING), known, kept=kept)

    def sealed_files(self) -> frozenset[str]:
        """The names of the files of sealed segments. Only an erasure takes one out of force."""
        with _failing(self.folder), self._files.mutex:
            return frozenset(segment.file for segment in self._files.in_force().segments if segment.sealed)

    def compact_beside(self, *, stop: Callable[[], bool], rest: Callable[[], object]) -> Compaction:
        """`compact` in a thread beside busy ones, or nothing where another does it.

        Ends early, between two segments, where `stop` says so; calls `rest` every few milliseconds.
        """
        with _failing(self.folder), attempt(self.folder / "compaction", doing=SEALING) as alone:
            if not alone:
                return Compaction()
            self._claim(self.last_known_at() is not None)
            grace = round(GRACE_SECONDS * 1_000_000)
            return compact(self._files, self._sealing, now=self._now, grace=grace, stop=stop, rest=rest)

    def _sealing(self) -> AbstractContextManager[None]:
        return self.lock(SEALING)


@contextmanager
def _waiting() -> Iterator[None]:
    """A lock that another process holds for too long, as an error of the log."""
    try:
        yield
    except BusyError as error:
        raise LogBusyError(f"The push log is busy: {error}") from None


@contextmanager
def _failing(path: Path) -> Iterator[None]:
    """What goes wrong within, at a path, as errors of the log."""
    try:
        with _waiting():
            yield
    except OSError as error:
        raise error_of(error, path) from error
