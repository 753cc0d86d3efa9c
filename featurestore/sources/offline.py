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
from featurestore.errors import SourceError
from featurestore.lazy import duckdb, pa
from featurestore.semantics.columns import RawColumns
from featurestore.semantics.forgotten import ForgottenKeys
from featurestore.sources.arrivals import Arrivals
from featurestore.sources.history import check_history
from featurestore.sources.instances import Instances
from featurestore.sources.push_logs import PushLogs
from featurestore.sources.session import Session, SharedInstance, stated_columns
from featurestore.sources.source_files import NoFileError, SourceFile, again
from featurestore.sources.sources import Sources
from featurestore.sources.unreadable import engine_words


class Offline(Sources, BoundToProcess):
    """The sources of a project, and DuckDB sessions that read them; safe to use from several threads.

    instances: those that sessions take, which `close` closes too. The others: see `Sources`.
    """

    def __init__(
        self,
        root: Path,
        *,
        located: Mapping[str, str] | None = None,
        logs: PushLogs | None = None,
        arrivals: Arrivals | None = None,
        instances: Instances | None = None,
    ) -> None:
        super().__init__(root, located=located, logs=logs, arrivals=arrivals)
        self.forgotten: Callable[[], ForgottenKeys | None] = lambda: None
        """Tells, to each session, the keys whose rows do not count."""
        self.copies_folder: Path | None = None
        """Where copies of rows lie that are in no Parquet file. None: where work spills to."""
        self._instances = instances or Instances()
        self._raw: dict[tuple[Any, ...], RawColumns] = {}

    @contextmanager
    def session(
        self, *, files: Mapping[str, tuple[SourceFile, ...]] | None = None, forgotten: ForgottenKeys | None = None,
        rows: Mapping[str, pa.Table] | None = None,
    ) -> Iterator[Session]:  # fmt: skip
        """A DuckDB instance that one operation has for itself. files: source name → the files to read of it, instead of all.
        forgotten: the keys whose rows do not count, instead of those of the project. rows: source name → its rows, which are
        read as they are, and nothing of it on the disk."""
        shared = SharedInstance(dict(files or {}), self.forgotten() if forgotten is None else forgotten, rows or {})
        with self._instances.connection(lambda: not shared.attached) as connection:
            yield Session(connection, self, shared)

    def copies(self) -> Path:
        """The folder of copies of rows that lie in no Parquet file."""
        return self.copies_folder or self._instances.spill_folder().path / "copies"

    def close(self) -> None:
        """Close the push logs, and the instances with the folder that they spill to; idempotent."""
        self.logs.close()
        self._instances.close()

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
