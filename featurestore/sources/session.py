"""A session: one DuckDB instance, and how SQL in it reads sources."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from featurestore.declare.push import KNOWN_AT, REPLACES, PushSource
from featurestore.declare.sources import DataFrameSource, FileSource, Source, TableSource, is_url
from featurestore.declare.text_sources import TextSource
from featurestore.errors import FilesChangedError, SourceError, did_you_mean
from featurestore.lazy import duckdb, pa
from featurestore.semantics.columns import RawColumns
from featurestore.semantics.engine import settle_session
from featurestore.semantics.expressions import check_faults, guarded, normalised, settled
from featurestore.semantics.forgotten import ForgottenKeys
from featurestore.semantics.source_columns import ARRIVED, Scan, own_columns
from featurestore.semantics.sql import folded, literal, quote
from featurestore.semantics.view import ResolvedView
from featurestore.sources.history import with_history
from featurestore.sources.log import ROW, SEGMENT
from featurestore.sources.object_stores import register
from featurestore.sources.partitions import (
    FILE_NUMBER,
    check_own_columns,
    partition_columns,
    values_table,
)
from featurestore.sources.scans import both_scans, rows_of_copies, rows_of_files, rows_of_table
from featurestore.sources.schemas import pushed_types, readable, taken_columns
from featurestore.sources.sorted.sorted_copies import (
    SortedCopies,
    SortedKey,
    folder_of,
    has_copies,
    keys_stay_of,
    may_leave_out,
)
from featurestore.sources.source_files import SourceFile, source_error
from featurestore.sources.sources import Sources
from featurestore.sources.unreadable import no_database
from featurestore.types import FeatureType

KEYS = "kept_keys"
"""The table of the keys of `Session.of_keys`."""


class OpenedSource(NamedTuple):
    """How SQL reads a source without its derived columns, and the columns that it reads."""

    scan: Scan
    columns: RawColumns


class RowRange(NamedTuple):
    """Consecutive rows of one of a source's files, which are numbered as the session lists them; a table and a frame have one."""

    file: int
    first: int
    rows: int


@dataclass(frozen=True)
class SharedInstance:
    """What the sessions of one instance have in common: by source its files and which were asked for, by path the names of
    attached files, by push source the sealed files of its log, which keys are forgotten, and by source rows that stand for its
    files."""

    files: dict[str, tuple[SourceFile, ...]]
    forgotten: ForgottenKeys | None = None
    rows: Mapping[str, pa.Table] = field(default_factory=dict)
    read: dict[str, Source] = field(default_factory=dict)
    attached: dict[Path, str] = field(default_factory=dict)
    sealed: dict[str, frozenset[str]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Session:
    """A DuckDB instance that one operation has for itself; its temporary tables and attached files vanish with it."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, sources: Sources, shared: SharedInstance) -> None:
        self.connection = connection
        self._sources = sources
        self._scans: dict[str, Scan] = {}
        self._shared = shared
        self._numbers = itertools.count()
        self._rows_of_keys: dict[tuple[Any, ...], Scan] | None = None
        """Within `of_keys`: rows that were read already."""
        settle_session(connection)

    @contextmanager
    def beside(self) -> Iterator[Session]:
        """A session for another thread: of the same instance, files and tables, with temporary tables of its own."""
        connection = self.connection.cursor()
        try:
            yield Session(connection, self._sources, self._shared)
        finally:
            connection.close()

    @property
    def forgotten(self) -> ForgottenKeys | None:
        """The keys whose rows do not count here."""
        return self._shared.forgotten

    def files(self, source: Source) -> tuple[SourceFile, ...]:
        """The files of a source as this session reads them: those that were there when it first asked; none of one whose rows
        it was given."""
        if source.name in self._shared.rows:
            return ()
        with self._shared.lock:
            if source.name not in self._shared.files:
                self._shared.files[source.name] = self._sources.files(source)
            self._shared.read[source.name] = source
            return self._shared.files[source.name]

    @contextmanager
    def reading(self) -> Iterator[None]:
        """What is read within is one state of the files that this session found first: FilesChangedError where one of them
        changed or vanished meanwhile, whatever else went wrong then. Files that land are left to others."""
        try:
            yield
        except (duckdb.Error, SourceError) as error:
            self.check_unchanged()
            self._check_in_force(error)
            raise
        self.check_unchanged()

    def check_unchanged(self) -> None:
        """FilesChangedError where a file that this session found is not as it was."""
        for name, source in self._shared.read.items():
            self._sources.check_unchanged(source, self._shared.files[name])
            if isinstance(source, PushSource) and not self._shared.sealed.get(name, frozenset()) <= self._sealed(
                source
            ):
                raise _erased(source)

    def _check_in_force(self, error: Exception) -> None:
        """FilesChangedError where what could not be read is a file of a log that was sealed and erased from since it was listed, or of a
        sorted copy that was removed since it was chosen: then the files are read."""
        text = "".join(str(one) for one in (error, error.__cause__) if isinstance(one, duckdb.IOException))
        for source in self._shared.read.values():
            if isinstance(source, FileSource) and f"{folder_of(self._sources.copies(), source.name)}/" in text:
                raise FilesChangedError(
                    f"{source.title}: its sorted copies were removed while they were read; ask again ({source.origin})"
                ) from error
            if not isinstance(source, PushSource) or f"{self._sources.log(source).folder}/" not in text:
                continue
            if not any(f"/{file}" in text for file in self._sealed(source)):
                raise _erased(source) from error

    def _sealed(self, source: PushSource) -> frozenset[str]:
        return self._sources.log(source).sealed_files()

    def is_given(self, source: Source) -> bool:
        """Whether the session was given the rows of a source, and reads none of its files."""
        return source.name in self._shared.rows

    def scan(self, source: Source) -> Scan:
        """How SQL in this session reads a source, its derived columns included."""
        if source.name not in self._scans:
            if isinstance(source, FileSource) and source.name not in self._shared.rows:
                self._sources.check_settled(self.connection, source, self.files(source))
            self._scans[source.name] = self._read(source, f"source_{next(self._numbers)}", self.files(source))
        return self._scans[source.name]

    def scan_of_keys(self, view: ResolvedView, requests: str) -> Scan:
        """`scan` of a view's source for a query of the keys in a table of requests `(k…)`, and no others: rows of other keys may
        be left out. Sorted copies are read in place of files where that is less, and the view cannot tell."""
        leaves_out = isinstance(view.source, FileSource) and bool(view.keys) and keys_stay_of(view)
        if self._rows_of_keys is not None and leaves_out and not self.is_given(view.source):
            return self._scan_of_kept(view)
        return self._scan_of_asked(view, requests)

    def _scan_of_asked(self, view: ResolvedView, requests: str) -> Scan:
        """`scan_of_keys`, from files or their sorted copies."""
        source, folder = view.source, self._sources.copies()
        given = source.name in self._shared.rows
        if (
            given
            or not isinstance(source, FileSource)
            or not may_leave_out(view)
            or not has_copies(folder, source.name)
        ):
            return self.scan(source)
        self._sources.check_settled(self.connection, source, self.files(source))
        own = self.own(source)
        copies = SortedCopies(folder, source, SortedKey.of(view), own.columns)
        chosen = copies.chosen(self.connection, self.files(source), SortedKey.asked(view), requests)
        if chosen is None:
            return self.scan(source)
        scan = rows_of_copies(chosen.paths, own.columns, own.scan, first=len(chosen.rest)) if chosen.paths else None
        if chosen.rest:
            rest = self._open(source, f"rest_{next(self._numbers)}", chosen.rest).scan
            scan = rest if scan is None else both_scans(rest, scan, own.columns)
        assert scan is not None, "something is read"
        return self._remembering(_derived(source, own._replace(scan=scan)))

    @contextmanager
    def of_keys(self, keys: pa.Table) -> Iterator[None]:
        """Within, `scan_of_keys` is asked for some of these keys `(k…)` and no others, again and again: the rows of theirs are read once, into a
        table that spills, of each source whose rows of other keys may be left out."""
        self.connection.register(KEYS, keys)
        self._rows_of_keys = {}
        try:
            yield
        finally:
            for scan in self._rows_of_keys.values():
                self.connection.execute(f"DROP TABLE {scan.relation}")
            self._rows_of_keys = None
            self.connection.unregister(KEYS)

    def _scan_of_kept(self, view: ResolvedView) -> Scan:
        """The rows of the keys of `of_keys`, with the columns that a view reads."""
        assert self._rows_of_keys is not None
        source, key, columns = view.source, SortedKey.of(view), [*sorted(view.columns), *own_columns(view.source)]
        named = (source.name, key, *columns)
        if named not in self._rows_of_keys:
            scan, table = self._scan_of_asked(view, KEYS), f"rows_of_keys_{next(self._numbers)}"
            asked = f"({', '.join(key.sql)}) IN (SELECT ({', '.join(SortedKey.asked(view))}) FROM {KEYS})"
            cells = ", ".join([*map(quote, columns), scan.file, scan.row])
            self.connection.execute(f"CREATE TEMP TABLE {table} AS SELECT {cells} FROM {scan.relation} WHERE {asked}")
            self._rows_of_keys[named] = scan._replace(relation=table)
        return self._rows_of_keys[named]

    def own_rows(self, source: FileSource, files: Sequence[SourceFile]) -> OpenedSource:
        """How SQL in this session reads some files of a source, without its derived columns."""
        return self._open(source, f"some_{next(self._numbers)}", files)

    def _read(self, source: Source, name: str, files: Sequence[SourceFile]) -> Scan:
        return self._remembering(_derived(source, self._arriving(source, name, files)))

    def _arriving(self, source: Source, name: str, files: Sequence[SourceFile]) -> OpenedSource:
        """The rows of a source without its derived columns, and beside them when their files came, where they count from then."""
        if source.name in self._shared.rows:
            return self._framed(source, name, self._shared.rows[source.name])
        own = self._open(source, name, files)
        if source.arrives:
            own = own._replace(scan=self._arrived(source, own.scan, f"{name}_arrived", files))
        return own

    def rows(self, source: Source, columns: Iterable[str], *, ranges: Iterable[RowRange] | None = None) -> pa.Table:
        """Some columns of all rows of a source, and what the store adds to them: what another session can be given for its files.
        Derived columns are none of these; they are computed by the reader of the rows. ranges: only these rows."""
        own = self._arriving(source, f"rows_{next(self._numbers)}", self.files(source))
        named = ", ".join([*map(quote, columns), *own_columns(source)])
        all_rows = f"SELECT {named} FROM {own.scan.relation}"
        if ranges is not None:
            scan = own.scan
            all_rows = " UNION ALL ".join(
                f"{all_rows} WHERE {scan.file} = {file} AND {scan.row} >= {first} AND {scan.row} < {first + rows}"
                for file, first, rows in ranges
            )
        found: pa.Table = self.connection.sql(all_rows).to_arrow_table()
        return found

    def _remembering(self, scan: Scan) -> Scan:
        """A scan that knows which keys are forgotten."""
        return scan._replace(forgotten=self._shared.forgotten)

    def described(self, relation: str) -> list[tuple[str, str]]:
        """The columns of a relation as DuckDB names them, in their order, with its types."""
        return [(name, of) for name, of, *_ in self.connection.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()]

    def own(self, source: Source) -> OpenedSource:
        """How SQL in this session reads a source without its derived columns, and these columns."""
        if source.name in self._shared.rows:
            return self._framed(source, f"own_{source.name}", self._shared.rows[source.name])
        return self._open(source, f"own_{source.name}", self.files(source))

    def columns(self, source: Source) -> RawColumns:
        """The columns of a source, its derived ones included; SourceError, or DeclarationError where one of those is none."""
        if isinstance(source, PushSource) and source.name not in self._shared.rows:
            own = RawColumns({**pushed_types(source), KNOWN_AT: "BIGINT", REPLACES: "BIGINT"})
        else:
            own = self.own(source).columns
        return own.with_types(_derived_types(source, own))

    def scan_files(self, source: FileSource, files: Sequence[SourceFile]) -> Scan:
        """How SQL in this session reads some files of a source, numbered as they are given."""
        return self._read(source, f"some_{next(self._numbers)}", files)

    def scan_where(self, source: PushSource, wanted: Mapping[str, pa.Array]) -> Scan:
        """How SQL reads a push source under the log's lock, where only rows matter in which each of these columns of its
        own has one of its values: of the log those, and what replaces them; of a history everything."""
        name = f"some_{source.name}"
        self._shared.sealed.setdefault(source.name, self._sealed(source))
        log = self._sources.log(source).scan_where(self.connection, name, wanted, replaces=REPLACES)
        return self._remembering(_derived(source, self._beside_history(source, log, name)))

    def scan_logged(self, source: PushSource, rows: pa.Table, name: str) -> Scan:
        """How SQL reads rows of a log that are at hand, with known_at, numbered from 0; the source's derived columns included."""
        numbers = pa.array(np.arange(rows.num_rows))
        table = rows.append_column(SEGMENT, pa.nulls(rows.num_rows, pa.int64())).append_column(ROW, numbers)
        self.connection.register(name, table)
        own = OpenedSource(Scan(quote(name), SEGMENT, ROW), RawColumns(pushed_types(source)))
        return self._remembering(_derived(source, own))

    def _open(self, source: Source, name: str, files: Sequence[SourceFile]) -> OpenedSource:
        if isinstance(source, FileSource):
            partitions = partition_columns(source, files)
            own = self._parquet(source, name, files, beside=partitions)
            return self._partitioned(source, own, name, files, partitions) if partitions else own
        if isinstance(source, TableSource):
            if any(sign in files[0].path for sign in "?\\"):
                raise source_error(
                    source, f"DuckDB opens no file whose path has ? or \\ in it: {files[0].path}; give it another name"
                )
            database = self._attached(source, files[0].path)
            self._check_table(source, database, files[0].path)
            full = ".".join([database, *map(quote, source.table.split("."))])
            if self._is_view(database, source.table.split(".")[-1]):  # a view has no row ids
                self.connection.execute(f"CREATE TEMP TABLE {name}_rows AS SELECT * FROM {full}")
                full = f"{name}_rows"
            stored = self.described(full)
            columns = readable(source, stored)
            return OpenedSource(rows_of_table(source, full, stored, columns, row="rowid"), columns)
        if isinstance(source, PushSource):
            self._shared.sealed.setdefault(source.name, self._sealed(source))
            return self._beside_history(source, self._sources.log(source).settled_scan(self.connection, name), name)
        assert isinstance(source, DataFrameSource)
        return self._framed(source, name, self._sources.frame(source))

    def _framed(self, source: Source, name: str, frame: pa.Table) -> OpenedSource:
        """The rows of a frame, which the store numbers itself. Of a source that the store adds columns to, it has these too."""
        taken = taken_columns(frame)
        rows = pa.array(np.arange(frame.num_rows))
        given = [*(column for column, _ in taken.values()), rows]
        names = [
            f"c{number}" for number in range(len(given))
        ]  # of names that repeat, version 1 of the engine finds none
        self.connection.register(name, pa.table(given, names=names))
        stored = [(frame.schema.names[place], raw) for place, (_, raw) in taken.items()]
        added = dict.fromkeys(own_columns(source), "BIGINT")
        for column in added:
            if (column, "BIGINT") not in stored:
                raise source_error(source, f"the rows that are given for it have no column '{column}' of 64 bits")
        given_columns = [(column, raw) for column, raw in stored if column not in added]
        schema = pa.schema([field_ for field_ in frame.schema if field_.name not in added])
        columns = readable(source, given_columns, schema)
        read = columns.with_types(added)
        return OpenedSource(rows_of_table(source, name, stored, read, row=names[-1], more=1), columns)

    def _beside_history(self, source: PushSource, log: Scan, name: str) -> OpenedSource:
        """The log's rows and those of the source's history, if it has one."""
        history = source.history
        columns = RawColumns(pushed_types(source))
        if history is None:
            return OpenedSource(log, columns)
        own = self._open(history, f"{name}_history", self.files(history))
        types = own.columns.with_types(_derived_types(history, own.columns))
        return OpenedSource(with_history(source, log, history, _derived(history, own), types), columns)

    def _parquet(
        self, source: FileSource, name: str, files: Sequence[SourceFile], *, beside: Iterable[str]
    ) -> OpenedSource:
        """The rows of files, numbered as they are given."""
        urls = [file.parquet for file in files if is_url(file.parquet)]
        if urls:
            register(self.connection, urls)
        stored = self._sources.columns_of(self.connection, source, files)
        columns = self._sources.agreed_columns(self.connection, source, files)
        rows = rows_of_files(
            self.connection, name, source, list(zip(files, stored, strict=True)), columns, beside=beside
        )
        return OpenedSource(rows, columns)

    def _arrived(self, source: Source, own: Scan, name: str, files: Sequence[SourceFile]) -> Scan:
        """The rows of a source's files, each with when its file was first seen."""
        seen = self._sources.instants(source, files)
        instants = pa.array(seen, pa.int64())
        numbers = pa.array(np.arange(len(instants)), FILE_NUMBER)
        self.connection.register(f"{name}_given", pa.table({"number": numbers, ARRIVED: instants}))
        self.connection.execute(f"CREATE TEMP TABLE {name} AS FROM {name}_given")
        # A join costs the same for any number of files; an array that is indexed costs more with each of them.
        rows = f"(SELECT s.*, a.{ARRIVED} FROM {own.relation} s LEFT JOIN {name} a ON a.number = s.{own.file})"
        return own._replace(relation=rows)

    def _partitioned(
        self, source: FileSource, own: OpenedSource, name: str, files: Sequence[SourceFile],
        partitions: dict[str, tuple[FeatureType, list[str | None]]],
    ) -> OpenedSource:  # fmt: skip
        """The rows of files, each with what the names of the folders say that its file lies in."""
        scan, stored = own
        check_own_columns(
            self.connection, source, files, partitions, stored, self._sources.agreed,
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

    def _attached(self, source: TableSource, path: str) -> str:
        """The name of a DuckDB file in this instance, which has it once."""
        file = Path(path).resolve()
        with self._shared.lock:
            name = self._shared.attached.get(file)
            if name is None:
                name = f"attached_{len(self._shared.attached)}"
                try:
                    self.connection.execute(f"ATTACH {literal(path)} AS {name} (READ_ONLY)")
                except duckdb.Error as error:
                    raise source_error(source, no_database(path, error)) from error
                self._shared.attached[file] = name
            return name

    def _check_table(self, source: TableSource, database: str, path: str) -> None:
        """SourceError where a DuckDB file has no table or view of the name."""
        sql = "SELECT schema_name, {0}_name FROM duckdb_{0}s() WHERE database_name = ? AND NOT internal"
        found = [
            row
            for kind in ("table", "view")
            for row in self.connection.execute(sql.format(kind), [database]).fetchall()
        ]
        names = {name if schema == "main" else f"{schema}.{name}" for schema, name in found}
        if source.table.lower().removeprefix("main.") not in {name.lower() for name in names}:
            hint = did_you_mean(source.table, names, noun="It has")
            raise source_error(source, f"{path} has no table '{source.table}'.{hint}")

    def _is_view(self, database: str, table: str) -> bool:
        sql = "SELECT count(*) FROM duckdb_views() WHERE database_name = ? AND view_name = ?"
        return bool(self.connection.execute(sql, [database, table]).fetchall()[0][0])


def _erased(source: PushSource) -> FilesChangedError:
    return FilesChangedError(f"{source.title}: rows were erased from its log while it was read; try again")


def _derived(source: Source, own: OpenedSource) -> Scan:
    """The source with its derived columns beside its own; what is not read of either is not computed."""
    scan, columns = own
    if not source.derived:
        return scan
    added = ", ".join(f"({normalised(expression)}) AS {quote(name)}" for name, expression in source.derived.items())
    kept = ", ".join([*filter(None, [guarded(columns)]), *own_columns(source), scan.file, scan.row])
    return scan._replace(relation=f"(SELECT *, {added} FROM (SELECT {kept} FROM {scan.relation}))")


def stated_columns(source: TextSource) -> RawColumns:
    """The columns of a source that has no file yet: those of its schema, and those that its folders are said to make."""
    types = {**source.partitions, **source.declared_types}
    own = RawColumns({name: of.duckdb for name, of in types.items() if of is not None})
    return own.with_types(_derived_types(source, own))


def _derived_types(source: Source, columns: RawColumns) -> dict[str, str]:
    """The DuckDB types of derived columns; DeclarationError where one has the name of another, or is no expression over these."""
    taken = {folded(name) for name in (*columns, *columns.faults)}
    types = {}
    for name, expression in source.derived.items():
        if folded(name) in taken:
            raise source.error(f"derived column '{name}' has the name of a column of its own; give it another")
        try:
            check_faults(expression, columns)
            types[name] = settled(expression, columns).type
        except ValueError as error:
            raise source.error(f"derived column '{name}': {error}") from None
    return types
