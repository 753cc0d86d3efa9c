"""The offline store: DuckDB over Parquet files, DuckDB tables, frames in memory and push logs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from featurestore.bound import BoundToProcess
from featurestore.declare.push import PushSource
from featurestore.declare.sources import Source
from featurestore.declare.text_sources import TextSource
from featurestore.durable.disk import told
from featurestore.durable.forks import mutex, renewed_in_child
from featurestore.durable.temporary import TemporaryFolder
from featurestore.errors import ConfigError, SourceError
from featurestore.lazy import duckdb, pa
from featurestore.semantics.columns import RawColumns
from featurestore.semantics.forgotten import ForgottenKeys
from featurestore.semantics.instance import KeptInstance
from featurestore.semantics.sql import quote
from featurestore.sources.arrivals import Arrivals
from featurestore.sources.history import check_history
from featurestore.sources.push_logs import PushLogs
from featurestore.sources.session import Session, SharedInstance, stated_columns
from featurestore.sources.source_files import NoFileError, SourceFile, again
from featurestore.sources.sources import Sources
from featurestore.sources.unreadable import engine_words

MAX_IDLE = 2
"""Instances that wait for the next session. One operation may have a session within another's."""


class Offline(Sources, BoundToProcess):
    """The sources of a project, and DuckDB sessions that read them; safe to use from several threads.

    memory_limit: as DuckDB writes it ("4GB"); beyond it, work spills to `spill`, a folder. The others: see `Sources`.
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
        super().__init__(root, located=located, logs=logs, arrivals=arrivals)
        self.forgotten: Callable[[], ForgottenKeys | None] = lambda: None
        """Tells, to each session, the keys whose rows do not count."""
        self.copies_folder: Path | None = None
        """Where copies of rows lie that are in no Parquet file. None: where work spills to."""
        self._spill_place = spill
        self._spill: TemporaryFolder | None = None  # made when something is read for the first time
        self._opening = mutex()
        renewed_in_child(self)
        config: dict[str, Any] = {"preserve_insertion_order": False}  # results are placed by row number
        if memory_limit:
            config["memory_limit"] = memory_limit
        if threads:
            config["threads"] = threads
        config["enable_external_file_cache"] = False  # an instance sees many states of the files
        self._config = config
        self._idle: list[KeptInstance] = []
        self._raw: dict[tuple[Any, ...], RawColumns] = {}

    def renew(self) -> None:
        """In a child, which spills to a folder of its own: the parent's vanishes with the parent, and its names repeat."""
        self._spill = None

    @contextmanager
    def session(
        self, *, files: Mapping[str, tuple[SourceFile, ...]] | None = None, forgotten: ForgottenKeys | None = None,
        rows: Mapping[str, pa.Table] | None = None,
    ) -> Iterator[Session]:  # fmt: skip
        """A DuckDB instance that one operation has for itself. files: source name → the files to read of it, instead of all.
        forgotten: the keys whose rows do not count, instead of those of the project. rows: source name → its rows, which are
        read as they are, and nothing of it on the disk."""
        spill = self._spill_folder()
        shared = SharedInstance(dict(files or {}), self.forgotten() if forgotten is None else forgotten, rows or {})
        kept, first = self._instance(spill)
        connection, done = first.cursor(), False
        try:
            yield Session(connection, self, shared)
            done = True
        finally:
            connection.close()
            if not done or shared.attached or not self._keep(kept, first, spill):
                first.close()

    def _instance(self, spill: TemporaryFolder) -> tuple[KeptInstance, duckdb.DuckDBPyConnection]:
        """An instance that no session uses, and its first connection."""
        with self._opening:
            while self._idle:
                kept = self._idle.pop()
                if (usable := kept.usable()) is not None:
                    return kept, usable
        connection = self._connection(spill)
        return KeptInstance(connection), connection

    def _keep(self, kept: KeptInstance, first: duckdb.DuckDBPyConnection, spill: TemporaryFolder) -> bool:
        """Leave an instance to the next session, without the tables of this one; False where it is not to be used again."""
        for (name,) in first.execute("SELECT table_name FROM duckdb_tables()").fetchall():
            first.execute(f"DROP TABLE {quote(name)}")
        with self._opening:
            wanted = self._spill is spill and len(self._idle) < MAX_IDLE
            if wanted:
                self._idle.append(kept)
        return wanted

    def _connection(self, spill: TemporaryFolder) -> duckdb.DuckDBPyConnection:
        config = {**self._config, "temp_directory": str(spill.path)}
        try:
            return duckdb.connect(":memory:", config=config)
        except (
            duckdb.ParserException,
            duckdb.InvalidInputException,
        ) as error:  # whose text may show a variable's content
            raise ConfigError(
                "offline.memory_limit of featurestore.toml must be a size such as '4GB' or '80%'"
            ) from error

    def _spill_folder(self) -> TemporaryFolder:
        with self._opening:
            if self._spill is None:
                try:
                    self._spill = TemporaryFolder(self._spill_place)
                except OSError as error:
                    raise SourceError(
                        f"No folder for what does not fit into memory can be made: {told(error)}. `offline.spill`, or "
                        "TMPDIR in the environment, names another place"
                    ) from error
            return self._spill

    def copies(self) -> Path:
        """The folder of copies of rows that lie in no Parquet file."""
        return self.copies_folder or self._spill_folder().path / "copies"

    def close(self) -> None:
        """Close the push logs, and remove the folder that is spilled to; idempotent."""
        self.logs.close()
        with self._opening:
            idle, self._idle = self._idle, []
            spill, self._spill = self._spill, None
        for kept in idle:
            kept.release()
        if spill is not None:
            spill.remove()

    def raw_types(self, source: Source) -> RawColumns:
        """Column → DuckDB type, the same in every file; SourceError where files differ or cannot be read."""
        return again(lambda: self._raw_types(source))

    def _raw_types(self, source: Source) -> RawColumns:
        try:
            files = self.files(source)
        except NoFileError:
            if isinstance(source, TextSource):  # which says itself what its columns are
                return stated_columns(source)
            raise
        self._settled[source.name] = files
        said = (source.derived, getattr(source, "partitions", None), getattr(source, "optional", None), source.known_at)
        key = (source.name, files, repr(said))
        known = self._raw.get(key)
        if known is None:
            if isinstance(source, PushSource) and source.history is not None:
                check_history(source, source.history, self.raw_types(source.history))
            with self.session() as session:
                try:
                    known = session.columns(source)
                except (duckdb.Error, SourceError) as error:
                    session.check_unchanged()
                    if isinstance(error, SourceError):
                        raise
                    raise SourceError(
                        f"{source.title} cannot be read: {engine_words(error)} ({source.origin})"
                    ) from error
            self._raw[key] = known
        return known
