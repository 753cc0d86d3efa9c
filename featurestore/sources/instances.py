"""DuckDB instances that operations take in turn, and the folder that they spill to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from featurestore.bound import BoundToProcess
from featurestore.durable.disk import told
from featurestore.durable.forks import mutex, renewed_in_child
from featurestore.durable.temporary import TemporaryFolder
from featurestore.errors import ConfigError, SourceError
from featurestore.lazy import duckdb
from featurestore.semantics.engine import KeptInstance, connect
from featurestore.semantics.sql import quote

MAX_IDLE = 2
"""Instances that wait for the next session. One operation may have a session within another's."""


class Instances(BoundToProcess):
    """Instances of one configuration; safe to use from several threads.

    memory_limit: as DuckDB writes it ("4GB"); beyond it, work spills to a folder in `spill`.
    """

    def __init__(
        self, *, memory_limit: str | None = None, threads: int | None = None, spill: Path | None = None
    ) -> None:  # fmt: skip
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

    def renew(self) -> None:
        """In a child, which spills to a folder of its own: the parent's vanishes with the parent, and its names repeat."""
        self._spill = None

    @contextmanager
    def connection(self, may_keep: Callable[[], bool]) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection to an instance that nobody else uses meanwhile. may_keep: whether the next one may get it, asked in the end where all
        went well."""
        spill = self.spill_folder()
        kept, first = self._instance(spill)
        connection, done = first.cursor(), False
        try:
            yield connection
            done = True
        finally:
            connection.close()
            if not done or not may_keep() or not self._keep(kept, first, spill):
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
            return connect(":memory:", config=config)
        except (
            duckdb.ParserException,
            duckdb.InvalidInputException,
        ) as error:  # whose text may show a variable's content
            raise ConfigError(
                "offline.memory_limit of featurestore.toml must be a size such as '4GB' or '80%'"
            ) from error

    def spill_folder(self) -> TemporaryFolder:
        """The folder for what does not fit into memory. SourceError where none can be made."""
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

    def close(self) -> None:
        """Give up the instances that nobody uses, and remove the folder that is spilled to; idempotent."""
        with self._opening:
            idle, self._idle = self._idle, []
            spill, self._spill = self._spill, None
        for kept in idle:
            kept.release()
        if spill is not None:
            spill.remove()

    def _instead(self) -> str:
        return "Make them there"
