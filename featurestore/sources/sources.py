"""The sources of a project as they lie now: their files, logs and frames, when these came, and the columns of files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from featurestore.declare.database_source import DatabaseSource
from featurestore.declare.delta_source import DeltaSource
from featurestore.declare.iceberg_source import IcebergSource
from featurestore.declare.push import PushSource
from featurestore.declare.sources import DataFrameSource, FileSource, Source, TableSource
from featurestore.declare.text_sources import TextSource
from featurestore.durable.disk import told
from featurestore.errors import FilesChangedError, SourceError
from featurestore.lazy import duckdb, pa, pq
from featurestore.plurals import plural
from featurestore.semantics.columns import RawColumns, said_type
from featurestore.sources.arrivals import Arrivals, Sighting
from featurestore.sources.copies import Batches, copy_of, copy_path, parquet_batches, tidy
from featurestore.sources.databases.database_copies import copied_files
from featurestore.sources.log import Log
from featurestore.sources.partitions import guessed_types
from featurestore.sources.push_logs import ROWS, PushLogs
from featurestore.sources.schemas import FileColumns, Schemas, agreed_columns
from featurestore.sources.source_files import Places, SourceFile, source_error
from featurestore.sources.tables.delta_tables import DeltaTables
from featurestore.sources.tables.iceberg_tables import IcebergTables
from featurestore.sources.tables.table_files import (
    Arrival,
    ReadInstead,
    RowsDigest,
    TableFile,
    TableState,
    rows_without,
    same_rows,
)
from featurestore.sources.text.text_files import batches
from featurestore.types import FeatureType

SCHEMA_ID = "schema_id"
"""Under which a manifest says the schema of a table."""

AGREED_SETS = 64
"""How many sets of files are remembered with what their columns are as a whole."""


class SourceFacts(NamedTuple):
    """What one process found of a source, for another one that reads some of its files. columns: those of all of its files.
    instants: by file, from when (µs) its rows are known."""

    columns: RawColumns
    instants: Mapping[SourceFile, int]


class _LocalTableCopies:
    """What is kept of tables in a folder of copies."""

    def __init__(self, folder: Callable[[], Path]) -> None:
        self._folder = folder
        self.compared: dict[str, set[Path]] = {}
        """By table where it is kept which of its files have the same rows."""

    def has_copy(self, table: str, of: TableFile) -> bool:
        return copy_path(self._folder(), table, [of.state, of.file.size]).exists()

    def are_same(
        self,
        table: str,
        replaced: Sequence[TableFile],
        written: Sequence[TableFile],
        exists: Callable[[TableFile], bool],
    ) -> bool:
        state = {
            kind: [[one.partition, one.state, one.file.size] for one in of]
            for kind, of in (("replaced", replaced), ("written", written))
        }
        path = copy_path(self._folder(), table, state)
        if not path.exists() and not all(map(exists, (*replaced, *written))):
            return False

        def compared() -> Batches:
            batch = pa.RecordBatch.from_pydict({"same": [same_rows(replaced, written)]})
            return batch.schema, iter([batch])

        copy_of(self._folder(), table, state, compared, whole=False)
        self.compared.setdefault(table, set()).add(path)
        return bool(pq.read_table(path)["same"][0].as_py())


class Sources:
    """Finds sources; safe to use from several threads.

    root: the folder that relative paths start from. located: source name → where it lies, over what it declares.
    logs: those of push sources. arrivals: the journal of when files were first seen.
    """

    def __init__(
        self, root: Path, *, located: Mapping[str, str] | None = None, logs: PushLogs | None = None,
        arrivals: Arrivals | None = None,
    ) -> None:  # fmt: skip
        self.root = root
        self.logs = logs or PushLogs(root / "logs")
        self.arrivals = arrivals or Arrivals(root / "arrivals.db")
        self.located = dict(located or {})
        self.databases: Mapping[str, str] = {}
        """By name the URLs of the databases that sources name."""
        self.catalogs: Mapping[str, Mapping[str, str]] = {}
        """By name the properties of the Iceberg catalogs that sources name."""
        self.facts: Mapping[str, SourceFacts] = {}
        """By source what another process found of it."""
        self._places = Places(root, self.located)
        self._delta_tables, self._iceberg_tables = DeltaTables(), IcebergTables()
        self._kept = _LocalTableCopies(self.copies)
        self._table_states: dict[tuple[str, tuple[SourceFile, ...]], dict[str, int]] = {}
        self._came: dict[str, dict[Sighting, Arrival]] = {}  # of tables, by source
        self._frames: dict[str, pa.Table] = {}
        self._schemas = Schemas()
        self._settled: dict[str, tuple[SourceFile, ...]] = {}  # source → its files when its types were last asked for
        self._agreed: dict[tuple[Any, ...], RawColumns] = {}
        self.agreed: set[tuple[str, SourceFile]] = set()  # files whose own columns say what their folders say

    def log(self, source: PushSource, which: str = ROWS) -> Log:
        """The log of a push source; which: of the rows that count, or one of those kept aside."""
        return self.logs.log(source, which)

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
        if isinstance(source, DeltaSource):
            return self._delta(source)
        if isinstance(source, IcebergSource):
            return self._iceberg(source)
        if isinstance(source, DatabaseSource):
            return self._database(source)
        files = self._places.files(source)
        return tuple(self._text(source, file) for file in files) if isinstance(source, TextSource) else files

    def _delta(self, source: DeltaSource) -> tuple[SourceFile, ...]:
        place = self._places.place(source)
        found = self._delta_tables.state(source, place, self._kept)
        return self._table(source, found, f"the Delta table {place}", f"version {found.number}")

    def _iceberg(self, source: IcebergSource) -> tuple[SourceFile, ...]:
        place = Path(self._places.place(source)) if source.path or source.name in self.located else None
        found = self._iceberg_tables.state(source, place, self.catalogs, self._kept)
        return self._table(source, found, f"the Iceberg table {place or source.table}", f"snapshot {found.number}")

    def _table(self, source: FileSource, found: TableState, title: str, state: str) -> tuple[SourceFile, ...]:
        """The files of a table in a state; of those that are not read as they are, with copies of what the table says that they
        hold."""
        if found.number is None or not found.files:
            raise source_error(
                source, f"{title} has no snapshot yet" if found.number is None else f"{title} has no rows, in {state}"
            )
        kept = [not one.as_is and self._kept.has_copy(found.table, one) for one in found.files]
        looked = [one.file for one, copied in zip(found.files, kept, strict=True) if not copied and one.before is None]
        there = {file.path: file for file in self._places.files(source, looked)} if looked else {}
        files = tuple(
            self._of_table(source, there.get(one.file.path, one.file), found.table, one) for one in found.files
        )
        if not all(one.as_is for one in found.files):
            compared = [copy_path(self.copies(), found.table, one.state) for one in found.stand_ins]
            compared += self._kept.compared.get(found.table, ())
            tidy(self.copies(), found.table, *(Path(file.copy) for file in files if file.copy), *compared)
        copies = {one.file.path: file.copy for one, file in zip(found.files, files, strict=True)}
        for stand_in in found.stand_ins:
            self._check_stand_in(source, copies, found.table, stand_in)
        self._note_state(source, files, found)
        came = self._came.setdefault(source.name, {})
        came.update({file.sighting: found.came[file.path] for file in files if file.path in found.came})
        return files

    def _of_table(self, source: FileSource, file: SourceFile, table: str, one: TableFile) -> SourceFile:
        if one.as_is:
            return file
        try:
            rows = partial(self._rows_of_table, table, one)
            copy = copy_of(self.copies(), table, [one.state, one.file.size], rows, whole=False)
        except OSError as error:
            raise source_error(source, f"no copy of {file.path} can be made: {told(error)}") from error
        return file._replace(copy=copy)

    def _rows_of_table(self, table: str, one: TableFile) -> Batches:
        """The rows of a table's file; where rows were deleted of it by their values, those of its last copy, without them."""
        deleted: list[TableFile] = []
        while one.before is not None:
            deleted += one.deleted
            one = one.before
            copy = copy_path(self.copies(), table, [one.state, one.file.size])
            if copy.exists():
                return rows_without(parquet_batches(copy), [of.rows() for of in deleted])
        return rows_without(one.rows(), [of.rows() for of in deleted]) if deleted else one.rows()

    def _check_stand_in(self, source: FileSource, copies: Mapping[str, str], table: str, stand_in: ReadInstead) -> None:
        """SourceError where what is read in place of some of a table's files has not the rows of these: of rows that are equal in all columns
        some were deleted and some not, or the table does not say all that was. It is found out once: that they are the same is kept as a
        copy that holds their number. copies: of the files that are read, by path."""

        def compared() -> Batches:
            num_rows = self._same_rows(source, [copies[one.file.path] for one in stand_in.pieces], stand_in)
            batch = pa.RecordBatch.from_pydict({"rows": [num_rows]})
            return batch.schema, iter([batch])

        try:
            copy_of(self.copies(), table, stand_in.state, compared, whole=False)
        except (OSError, pa.ArrowException, duckdb.Error) as error:
            raise source_error(
                source,
                f"known_at=ARRIVAL: the rows that {stand_in.title} of its table wrote cannot be compared with those that it replaced: "
                f"{told(error) if isinstance(error, OSError) else error}",
            ) from error

    def _same_rows(self, source: FileSource, copies: Sequence[str], stand_in: ReadInstead) -> int | None:
        """How many rows the copies have, which are those of the table's files; SourceError where they are not. Where a commit said that it
        changed no row, they are only counted, if the table says how many it has; None where it does not."""
        said = [one.num_rows for one in stand_in.outputs]
        if stand_in.says_rows:
            types = dict[str, pa.DataType]()
            here, there = RowsDigest(types), RowsDigest(types)
            for output in stand_in.outputs:
                there.add(output.rows())
            for copy in copies:
                here.add(parquet_batches(Path(copy)))
            rows, expected, are_same = here.count, there.count, (here.count, here.sum) == (there.count, there.sum)
        elif None in said:
            return None
        else:
            rows, expected = sum(pq.read_metadata(copy).num_rows for copy in copies), sum(one or 0 for one in said)
            are_same = rows == expected
        if not are_same:
            there_are = f"there are {expected}" if rows != expected else "those that there are differ from these"
            raise source_error(
                source,
                f"known_at=ARRIVAL: what its table says of the rows that {stand_in.title} and commits before it changed makes {rows} {plural(rows, 'row')}, and "
                f"{there_are}: of rows that are equal in all columns only some were changed, or not all changes are "
                "said. When each row came is not known then. Say known_at=…, a column of when a row was learned",
            )
        return rows

    def _note_state(self, source: FileSource, files: tuple[SourceFile, ...], found: TableState) -> None:
        assert found.number is not None
        said = {source.PINNED_AS: found.number, **({} if found.schema is None else {SCHEMA_ID: found.schema})}
        self._table_states.pop((source.name, files), None)
        self._table_states[source.name, files] = said
        while len(self._table_states) > AGREED_SETS:  # the oldest, which nobody has just listed
            self._table_states.pop(next(iter(self._table_states)), None)

    def _database(self, source: DatabaseSource) -> tuple[SourceFile, ...]:
        """The copies of a database's rows, those that came since among them."""
        named = copied_files(source, self.copies(), self.databases)
        if not named:
            raise source_error(source, f"{source.table or 'its query'} of database '{source.database}' has no rows yet")
        return self._places.files(source, [SourceFile(path, 0, 0, name) for path, name in named.items()])

    def table_state(self, source: Source, files: tuple[SourceFile, ...]) -> dict[str, int]:
        """Of a table that was listed here, which state of it has these files: the option that says it, and what it says; and, where that
        does not say the columns, the id of their schema under SCHEMA_ID."""
        return self._table_states.get((source.name, files), {})

    def _text(self, source: TextSource, file: SourceFile) -> SourceFile:
        return self._copied(source, file, source.reading, lambda: batches(source, file.path))

    def copies(self) -> Path:
        """The folder of copies of rows that lie in no Parquet file."""
        return self.root / "copies"

    def _copied(self, source: FileSource, file: SourceFile, read_as: Any, rows: Callable[[], Batches]) -> SourceFile:
        """A file with the copy of its rows, of which `read_as` says how they are read, as plain JSON; FilesChangedError where it
        changed while it was copied."""
        try:
            copy = copy_of(self.copies(), {"path": file.path, "read as": read_as}, [file.size, file.modified], rows)
        except OSError as error:
            raise source_error(source, f"no copy of {file.path} can be made: {told(error)}") from error
        copied = file._replace(copy=copy)
        self._places.check_unchanged(source, [copied])
        return copied

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
        if isinstance(source, IcebergSource) and not source.path and source.name not in self.located:
            return [f"{source.table} of catalog '{source.catalog}'"]
        if isinstance(source, (DeltaSource, IcebergSource)):
            return [self._places.place(source)]
        if isinstance(source, DatabaseSource):
            return [f"database '{source.database}'"]
        return self._places.paths(source)

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
            if isinstance(of, (FileSource, TableSource)) and not of.arrives:
                self._look(of, now=now)

    def _look(self, source: Source, *, now: int | None, known_by: int | None = None, must: bool = False) -> None:
        def look() -> list[Sighting]:
            return [file.sighting for file in self.files(source)]

        came = partial(self._told_arrivals, source)
        self.arrivals.see(source.name, look, now=now, known_by=known_by, must=must, came=came)

    def instants(self, source: Source, files: Sequence[SourceFile]) -> list[int]:
        """From when (µs) the rows of each file are known: since it was first seen, else since its table says that they came, else
        from now on. Raises RegistryError."""
        if source.name in self.facts:
            return [self.facts[source.name].instants[file] for file in files]
        sightings = [file.sighting for file in files]
        return self.arrivals.instants(source.name, sightings, came=partial(self._told_arrivals, source))

    def _told_arrivals(
        self, source: Source, new: Sequence[Sighting], known: Collection[Sighting]
    ) -> dict[Sighting, int]:
        """When a table says that the rows of files came that are not journalled. known: those that are. SourceError where there are such, and
        rows of a new one were written anew: they may be in those, and came with them."""
        told = self._came.get(source.name, {})
        found = {sighting: told[sighting] for sighting in new if sighting in told}
        for sighting, arrival in found.items():
            if known and arrival.unknown:
                raise source_error(
                    source,
                    f"known_at=ARRIVAL: {arrival.unknown} {sighting.name}, and when each of them came is "
                    "not known any more. Say known_at=…, a column of when a row was learned",
                )
        return {sighting: arrival.at for sighting, arrival in found.items()}

    def guessed_partitions(self, source: FileSource) -> dict[str, FeatureType]:
        """As what the text in folders' names could be declared, by column, where that is more than text."""
        return guessed_types(source, self.files(source))

    def columns_of(
        self, connection: duckdb.DuckDBPyConnection, source: Source, files: Iterable[SourceFile]
    ) -> list[FileColumns]:
        """The columns of each of these Parquet files."""
        return [self._schemas.of(connection, source, file) for file in files]

    def agreed_columns(
        self, connection: duckdb.DuckDBPyConnection, source: FileSource, files: Iterable[SourceFile]
    ) -> RawColumns:
        """The columns of a source whose files these are, or some of them: those of all that were last asked for the types
        of its columns count too, so that what is read of some files has the types that definitions were settled with."""
        if source.name in self.facts:
            return self.facts[source.name].columns
        every = tuple(dict.fromkeys((*self._settled.get(source.name, ()), *files)))
        return self._agreed_columns(connection, source, every)

    def _agreed_columns(
        self, connection: duckdb.DuckDBPyConnection, source: FileSource, files: tuple[SourceFile, ...]
    ) -> RawColumns:
        key = (source.name, source.optional, source.arrives, files)
        known = self._agreed.get(key)
        if known is None:
            found = zip(files, self.columns_of(connection, source, files), strict=True)
            if len(self._agreed) >= AGREED_SETS:
                self._agreed.clear()
            known = self._agreed[key] = agreed_columns(source, list(found))
        return known

    def facts_of(
        self, connection: duckdb.DuckDBPyConnection, source: FileSource, files: tuple[SourceFile, ...]
    ) -> SourceFacts:
        """What this process finds of a source, for another process that reads these files of it."""
        instants = self.instants(source, files) if source.arrives else [0] * len(files)
        return SourceFacts(self.agreed_columns(connection, source, files), dict(zip(files, instants, strict=True)))

    def check_settled(
        self, connection: duckdb.DuckDBPyConnection, source: FileSource, files: tuple[SourceFile, ...]
    ) -> None:
        """FilesChangedError where files have come, since definitions were settled, with which a column is another."""
        settled_ = self._settled.get(source.name)
        if settled_ is None or set(files) <= set(settled_):
            return
        before = self._agreed_columns(connection, source, settled_)
        now = self.agreed_columns(connection, source, files)
        for column, of in before.items():
            if now.get(column) != of:
                said = now.faults.get(column, f"is {said_type(now.get(column))}")
                came = ", ".join(file.path for file in files if file not in settled_)
                raise FilesChangedError(
                    f"{source.title}: files came with which column '{column}' {said}, and was {said_type(of)}: {came} ({source.origin})"
                )
