"""The offline store: DuckDB over Parquet files, DuckDB tables and frames in memory."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa

from featurestore.declare.push import KNOWN_AT, REPLACES, PushSource
from featurestore.declare.sources import DataFrameSource, ParquetSource, Source, TableSource
from featurestore.durable.disk_errors import told
from featurestore.durable.temporary import TemporaryFolder
from featurestore.errors import FilesChangedError, SourceError
from featurestore.semantics.columns import RawColumns
from featurestore.semantics.expressions import check_faults, guarded, normalised, settled
from featurestore.semantics.rows import ARRIVED, Scan, own_columns
from featurestore.semantics.sql import literal, quote
from featurestore.sources.arrivals import Arrivals
from featurestore.sources.history import check_history, with_history
from featurestore.sources.log import Log
from featurestore.sources.partitions import (
    FILE_NUMBER,
    check_own_columns,
    guessed_types,
    partition_columns,
    values_table,
)
from featurestore.sources.pointers import folded
from featurestore.sources.push_logs import ROWS, PushLogs
from featurestore.sources.scans import rows_of_files, rows_of_table
from featurestore.sources.schemas import FileColumns, Schemas, agreed_columns, pushed_types, readable, taken_columns
from featurestore.sources.source_files import Places, SourceFile, source_error
from featurestore.types import FeatureType

__all__ = ["Offline", "Session"]

AGREED = 64
"""How many sets of files are remembered with what their columns are as a whole."""


class OpenedSource(NamedTuple):
    """How SQL reads a source without its derived columns, and the columns that it reads."""

    scan: Scan
    columns: RawColumns


@dataclass(frozen=True)
class _Shared:
    """What the sessions of one instance have in common: by source its files and which were asked for, and by path the names of attached files."""

    files: dict[str, tuple[SourceFile, ...]]
    read: dict[str, Source] = field(default_factory=dict)
    attached: dict[Path, str] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Session:
    """A DuckDB instance of its own for one operation; its temporary tables and attached files vanish with it."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, offline: Offline, shared: _Shared) -> None:
        self.connection = connection
        self._offline = offline
        self._scans: dict[str, Scan] = {}
        self._shared = shared
        self._numbers = itertools.count()
        connection.execute("SET TimeZone = 'UTC'")
        (shows,) = connection.execute("SELECT current_setting('enable_progress_bar')").fetchall()[0]
        if shows:  # on standard output; in a notebook it is off, and cannot be set without ipywidgets
            connection.execute("SET enable_progress_bar = false")

    @contextmanager
    def beside(self) -> Iterator[Session]:
        """A session for another thread: of the same instance, files and tables, with temporary tables of its own."""
        connection = self.connection.cursor()
        try:
            yield Session(connection, self._offline, self._shared)
        finally:
            connection.close()

    def files(self, source: Source) -> tuple[SourceFile, ...]:
        """The files of a source as this session reads them: those that were there when it first asked."""
        with self._shared.lock:
            if source.name not in self._shared.files:
                self._shared.files[source.name] = self._offline.files(source)
            self._shared.read[source.name] = source
            return self._shared.files[source.name]

    @contextmanager
    def reading(self) -> Iterator[None]:
        """What is read within is one state of the files that this session found first: FilesChangedError where one of them
        changed or vanished meanwhile, whatever else went wrong then. Files that land are left to others."""
        try:
            yield
        except (duckdb.Error, SourceError):
            self._check_unchanged()
            raise
        self._check_unchanged()

    def _check_unchanged(self) -> None:
        for name, source in self._shared.read.items():
            self._offline.check_unchanged(source, self._shared.files[name])

    def scan(self, source: Source) -> Scan:
        """How SQL in this session reads a source, its derived columns included."""
        if source.name not in self._scans:
            if isinstance(source, ParquetSource):
                self._offline.check_settled(self.connection, source, self.files(source))
            self._scans[source.name] = self._read(source, f"source_{next(self._numbers)}", self.files(source))
        return self._scans[source.name]

    def _read(self, source: Source, name: str, files: Sequence[SourceFile]) -> Scan:
        own = self._open(source, name, files)
        if source.arrives:
            own = own._replace(scan=self._arrived(source, own.scan, f"{name}_arrived", files))
        return _derived(source, own)

    def described(self, relation: str) -> list[tuple[str, str]]:
        """The columns of a relation as DuckDB names them, in their order, with its types."""
        return [(name, of) for name, of, *_ in self.connection.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()]

    def own(self, source: Source) -> OpenedSource:
        """How SQL in this session reads a source without its derived columns, and these columns."""
        return self._open(source, f"own_{source.name}", self.files(source))

    def scan_files(self, source: ParquetSource, files: Sequence[SourceFile]) -> Scan:
        """How SQL in this session reads some files of a source, numbered as they are given."""
        return self._read(source, f"some_{next(self._numbers)}", files)

    def scan_where(self, source: PushSource, wanted: Mapping[str, pa.Array]) -> Scan:
        """How SQL reads a push source under the log's lock, where only rows matter in which each of these columns of its
        own has one of its values: of the log those, and what replaces them; of a history everything."""
        name = f"some_{source.name}"
        log = self._offline.log(source).scan_where(self.connection, name, wanted, replaces=REPLACES)
        return _derived(source, self._beside_history(source, log, name))

    def _open(self, source: Source, name: str, files: Sequence[SourceFile]) -> OpenedSource:
        if isinstance(source, ParquetSource):
            partitions = partition_columns(source, files)
            own = self._parquet(source, name, files, beside=partitions)
            return self._partitioned(source, own, name, files, partitions) if partitions else own
        if isinstance(source, TableSource):
            if any(sign in files[0].path for sign in "?\\"):
                raise source_error(
                    source, f"DuckDB opens no file whose path has ? or \\ in it: {files[0].path}; give it another name"
                )
            database = self._attached(files[0].path)
            full = ".".join([database, *map(quote, source.table.split("."))])
            if self._is_view(database, source.table.split(".")[-1]):  # a view has no row ids
                self.connection.execute(f"CREATE TEMP TABLE {name}_rows AS SELECT * FROM {full}")
                full = f"{name}_rows"
            stored = self.described(full)
            columns = readable(source, stored)
            return OpenedSource(rows_of_table(source, full, stored, columns, row="rowid"), columns)
        if isinstance(source, PushSource):
            return self._beside_history(source, self._offline.log(source).settled_scan(self.connection, name), name)
        assert isinstance(source, DataFrameSource)
        return self._framed(source, name, self._offline.frame(source))

    def _framed(self, source: DataFrameSource, name: str, frame: pa.Table) -> OpenedSource:
        """The rows of a frame, which the store numbers itself."""
        taken = taken_columns(frame)
        rows = pa.array(np.arange(frame.num_rows))
        given = (
            pa.table([column for column, _ in taken.values()], names=["c"] * len(taken)) if taken else frame.select([])
        )
        self.connection.register(name, given.append_column("", rows))
        stored = [(frame.schema.names[place], raw) for place, (_, raw) in taken.items()]
        columns = readable(source, stored, frame.schema)
        return OpenedSource(rows_of_table(source, name, stored, columns, row=f"c{len(taken)}", more=1), columns)

    def _beside_history(self, source: PushSource, log: Scan, name: str) -> OpenedSource:
        """The log's rows and those of the source's history, if it has one."""
        history = source.history
        columns = RawColumns(pushed_types(source))
        if history is None:
            return OpenedSource(log, columns)
        scan = _derived(history, self._open(history, f"{name}_history", self.files(history)))
        return OpenedSource(with_history(source, log, history, scan, self._offline.raw_types(history)), columns)

    def _parquet(
        self, source: ParquetSource, name: str, files: Sequence[SourceFile], *, beside: Iterable[str]
    ) -> OpenedSource:
        """The rows of files, numbered as they are given."""
        stored = self._offline.columns_of(self.connection, source, files)
        columns = self._offline.agreed_columns(self.connection, source, files)
        rows = rows_of_files(
            self.connection, name, source, list(zip(files, stored, strict=True)), columns, beside=beside
        )
        return OpenedSource(rows, columns)

    def _arrived(self, source: Source, own: Scan, name: str, files: Sequence[SourceFile]) -> Scan:
        """The rows of a source's files, each with when its file was first seen."""
        seen = self._offline.arrivals.instants(source.name, [file.sighting for file in files])
        instants = pa.array(seen, pa.int64())
        numbers = pa.array(np.arange(len(instants)), FILE_NUMBER)
        self.connection.register(f"{name}_given", pa.table({"number": numbers, ARRIVED: instants}))
        self.connection.execute(f"CREATE TEMP TABLE {name} AS FROM {name}_given")
        # A join costs the same for any number of files; an array that is indexed costs more with each of them.
        rows = f"(SELECT s.*, a.{ARRIVED} FROM {own.relation} s LEFT JOIN {name} a ON a.number = s.{own.file})"
        return own._replace(relation=rows)

    def _partitioned(
        self, source: ParquetSource, own: OpenedSource, name: str, files: Sequence[SourceFile],
        partitions: dict[str, tuple[FeatureType, list[str | None]]],
    ) -> OpenedSource:  # fmt: skip
        """The rows of files, each with what the names of the folders say that its file lies in."""
        scan, stored = own
        check_own_columns(
            self.connection, source, files, partitions, stored, self._offline.agreed,
            read=lambda some: self._parquet(source, f"{name}_own", some, beside=()).scan,
        )  # fmt: skip
        unclear = {folded(column) for column in stored.faults}  # which a folder's text does not replace either
        added = {
            column: of for column, of in partitions.items() if column not in stored and folded(column) not in unclear
        }
        if not added:
            return own
        self.connection.register(f"{name}_named", values_table(source, files, added))
        self.connection.execute(f"CREATE OR REPLACE TEMP TABLE {name}_folders AS FROM {name}_named")
        self.connection.unregister(f"{name}_named")
        values = ", ".join(f"p.p{place} AS {quote(column)}" for place, column in enumerate(added))
        rows = f"(SELECT s.*, {values} FROM {scan.relation} s LEFT JOIN {name}_folders p ON p.number = s.{scan.file})"
        types = {column: of.duckdb for column, (of, _) in added.items()}
        return OpenedSource(scan._replace(relation=rows), stored.with_types(types))

    def _attached(self, path: str) -> str:
        """The name of a DuckDB file in this instance, which has it once."""
        file = Path(path).resolve()
        with self._shared.lock:
            name = self._shared.attached.get(file)
            if name is None:
                name = self._shared.attached[file] = f"attached_{len(self._shared.attached)}"
                self.connection.execute(f"ATTACH {literal(path)} AS {name} (READ_ONLY)")
            return name

    def _is_view(self, database: str, table: str) -> bool:
        sql = "SELECT count(*) FROM duckdb_views() WHERE database_name = ? AND view_name = ?"
        return bool(self.connection.execute(sql, [database, table]).fetchall()[0][0])


class Offline:
    """Finds sources and gives out DuckDB sessions; safe to use from several threads.

    root: the folder that relative paths start from. located: source name → where it lies, over what it declares.
    memory_limit: as DuckDB writes it ("4GB"); beyond it, work spills to `spill`, a folder. logs: those of push sources.
    arrivals: the journal of when files were first seen.
    """

    def __init__(
        self,
        root: Path,
        *,
        located: Mapping[str, str] | None = None,
        memory_limit: str | None = None,
        threads: int | None = None,
        spill: Path | None = None,
        logs: PushLogs | None = None,
        arrivals: Arrivals | None = None,
    ) -> None:
        self.root = root
        self.logs = logs or PushLogs(root / "logs")
        self.arrivals = arrivals or Arrivals(root / "arrivals.db")
        self.located = dict(located or {})
        self._places = Places(root, self.located)
        self._spill_place = spill
        self._spill: TemporaryFolder | None = None  # made when something is read for the first time
        self._opening = threading.Lock()
        config: dict[str, Any] = {"preserve_insertion_order": False}  # results are placed by row number
        if memory_limit:
            config["memory_limit"] = memory_limit
        if threads:
            config["threads"] = threads
        self._config = config
        self._raw: dict[tuple[Any, ...], RawColumns] = {}
        self._frames: dict[str, pa.Table] = {}
        self._schemas = Schemas()
        self._settled: dict[str, tuple[SourceFile, ...]] = {}  # source → its files when its types were last asked for
        self._agreed: dict[tuple[Any, ...], RawColumns] = {}
        self.agreed: set[tuple[str, SourceFile]] = set()  # files whose own columns say what their folders say

    @contextmanager
    def session(self, *, files: Mapping[str, tuple[SourceFile, ...]] | None = None) -> Iterator[Session]:
        """A DuckDB instance for one operation. files: source name → the files to read of it, instead of all."""
        connection = duckdb.connect(":memory:", config={**self._config, "temp_directory": self._spill_folder()})
        try:
            yield Session(connection, self, _Shared(dict(files or {})))
        finally:
            connection.close()

    def _spill_folder(self) -> str:
        with self._opening:
            if self._spill is None:
                try:
                    self._spill = TemporaryFolder(self._spill_place)
                except OSError as error:
                    raise SourceError(
                        f"No folder for what does not fit into memory can be made: {told(error)}. `offline.spill`, or "
                        "TMPDIR in the environment, names another place"
                    ) from error
            return str(self._spill.path)

    def close(self) -> None:
        """Close the push logs, and remove the folder that is spilled to; idempotent."""
        self.logs.close()
        if self._spill is not None:
            self._spill.remove()
            self._spill = None

    def log(self, source: PushSource, part: str = ROWS) -> Log:
        """The log of a push source; part LATE: of the rows that came too late to count."""
        return self.logs.log(source, part)

    def frame(self, source: DataFrameSource) -> pa.Table:
        """The rows of a frame source, of one that was read back from the registry too, where this process has seen them."""
        if source.frame is not None:
            self._frames[source.content] = source.frame
        elif source.content not in self._frames:
            raise SourceError(f"{source.title}: its frame is not at hand in this process; declare it again")
        return self._frames[source.content]

    def files(self, source: Source) -> tuple[SourceFile, ...]:
        """The files of a source as they are now; for a frame, one entry that its content names."""
        if isinstance(source, DataFrameSource):
            return (SourceFile(f"frame:{source.content}", 0, 0),)
        if isinstance(source, PushSource):
            beside = () if source.history is None else self.files(source.history)
            return (SourceFile(f"log:{source.name}", 0, 0), *beside)
        return self._places.files(source)

    def listing(self, source: Source, files: tuple[SourceFile, ...]) -> dict[str, tuple[SourceFile, ...]]:
        """What `session` is to read where a source has these files, its history's among them."""
        history = source.history if isinstance(source, PushSource) else None
        return {source.name: files} if history is None else {source.name: files, history.name: files[1:]}

    def check_unchanged(self, source: Source, files: Sequence[SourceFile]) -> None:
        """FilesChangedError where one of these files of a source is not as it was found."""
        if isinstance(source, PushSource):
            if source.history is not None:
                self.check_unchanged(source.history, files[1:])
        elif not isinstance(source, DataFrameSource):
            self._places.check_unchanged(source, files)

    def paths(self, source: Source) -> list[str]:
        """The files of a source that lies in files, each once; SourceError where there is none."""
        return list(self._places.named(source))

    def see(
        self, source: Source, *, now: int | None = None, known_by: int | None = None, must: bool = False
    ) -> tuple[SourceFile, ...]:
        """`files`, of which those that were not seen before are journalled where rows are known from their arrival.

        now: as seen at (µs; the store's clock by default). known_by: files that are seen later count after that only.
        must: RegistryError where the journal cannot be written; a reader goes on, and they are known from now on.
        """
        if source.arrives:
            self._look(source, now=now, known_by=known_by, must=must)
        return self.files(source)

    def note(self, source: Source, *, now: int) -> None:
        """Journal which files there are at `now` (µs) of any source, for an audit to ask; where that can be written."""
        for of in (source, source.history if isinstance(source, PushSource) else None):
            if isinstance(of, (ParquetSource, TableSource)) and not of.arrives:
                self._look(of, now=now)

    def _look(self, source: Source, *, now: int | None, known_by: int | None = None, must: bool = False) -> None:
        self.arrivals.see(
            source.name, lambda: [file.sighting for file in self.files(source)], now=now, known_by=known_by, must=must
        )

    def guessed_partitions(self, source: ParquetSource) -> dict[str, FeatureType]:
        """As what the text in folders' names could be declared, by column, where that is more than text."""
        return guessed_types(source, self.files(source))

    def raw_types(self, source: Source) -> RawColumns:
        """Column → DuckDB type, the same in every file; SourceError where files differ or cannot be read."""
        files = self.files(source)
        self._settled[source.name] = files
        said = (source.derived, getattr(source, "partitions", None), getattr(source, "optional", None), source.known_at)
        key = (source.name, files, repr(said))
        known = self._raw.get(key)
        if known is None:
            with self.session() as session:
                try:
                    known = self._describe(session, source)
                except duckdb.Error as error:
                    raise SourceError(f"{source.title} cannot be read: {error} ({source.origin})") from error
            self._raw[key] = known
        return known

    def columns_of(
        self, connection: duckdb.DuckDBPyConnection, source: Source, files: Iterable[SourceFile]
    ) -> list[FileColumns]:
        """The columns of each of these Parquet files."""
        return [self._schemas.of(connection, source, file) for file in files]

    def agreed_columns(
        self, connection: duckdb.DuckDBPyConnection, source: ParquetSource, files: Iterable[SourceFile]
    ) -> RawColumns:
        """The columns of a source whose files these are, or some of them: those of all that were last asked for the types
        of its columns count too, so that what is read of some files has the types that definitions were settled with."""
        every = tuple(dict.fromkeys((*self._settled.get(source.name, ()), *files)))
        return self._agreed_columns(connection, source, every)

    def _agreed_columns(
        self, connection: duckdb.DuckDBPyConnection, source: ParquetSource, files: tuple[SourceFile, ...]
    ) -> RawColumns:
        key = (source.name, source.optional, source.arrives, files)
        known = self._agreed.get(key)
        if known is None:
            found = zip(files, self.columns_of(connection, source, files), strict=True)
            if len(self._agreed) >= AGREED:
                self._agreed.clear()
            known = self._agreed[key] = agreed_columns(source, list(found))
        return known

    def check_settled(
        self, connection: duckdb.DuckDBPyConnection, source: ParquetSource, files: tuple[SourceFile, ...]
    ) -> None:
        """FilesChangedError where files have come, since definitions were settled, with which a column is another."""
        settled_ = self._settled.get(source.name)
        if settled_ is None or set(files) <= set(settled_):
            return
        before = self._agreed_columns(connection, source, settled_)
        now = self.agreed_columns(connection, source, files)
        for column, of in before.items():
            if now.get(column) != of:
                said = now.faults.get(column, f"is {now.get(column)}")
                came = ", ".join(file.path for file in files if file not in settled_)
                raise FilesChangedError(
                    f"{source.title}: files came with which column '{column}' {said}, and was {of}: {came} ({source.origin})"
                )

    def _describe(self, session: Session, source: Source) -> RawColumns:
        if isinstance(source, PushSource):
            columns = RawColumns({**pushed_types(source), KNOWN_AT: "BIGINT", REPLACES: "BIGINT"})
            if source.history is not None:
                check_history(source, source.history, self.raw_types(source.history))
        else:
            columns = session.own(source).columns
        taken = {folded(name) for name in (*columns, *columns.faults)}
        for name in source.derived:
            if folded(name) in taken:
                raise source.error(f"derived column '{name}' has the name of a column of its own; give it another")
        derived = {name: _checked(source, name, columns) for name in source.derived}
        return columns.with_types(derived)


def _derived(source: Source, own: OpenedSource) -> Scan:
    """The source with its derived columns beside its own; what is not read of either is not computed."""
    scan, columns = own
    if not source.derived:
        return scan
    added = ", ".join(f"({normalised(expression)}) AS {quote(name)}" for name, expression in source.derived.items())
    kept = ", ".join([*filter(None, [guarded(columns)]), *own_columns(source), scan.file, scan.row])
    return scan._replace(relation=f"(SELECT *, {added} FROM (SELECT {kept} FROM {scan.relation}))")


def _checked(source: Source, name: str, columns: RawColumns) -> str:
    """The DuckDB type of a derived column; DeclarationError where its expression is none over the source's columns."""
    try:
        check_faults(source.derived[name], columns)
        return settled(source.derived[name], columns).type
    except ValueError as error:
        raise source.error(f"derived column '{name}': {error}") from None
