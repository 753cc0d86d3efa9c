"""The offline store: DuckDB over Parquet files, DuckDB tables and frames in memory."""

from __future__ import annotations

import glob
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa

from featurestore.compile.rows import Scan
from featurestore.declare.sources import DataFrameSource, ParquetSource, Source, TableSource
from featurestore.errors import SourceError
from featurestore.semantics.sql import literal, quote

__all__ = ["Offline", "Session", "SourceFile"]

FRAME_ROW = "__frame_row"


class SourceFile(NamedTuple):
    """A file as it was found: its size in bytes and time of modification in ns, which change when its content does."""

    path: str
    size: int
    modified: int


class Session:
    """A DuckDB instance of its own for one operation; its temporary tables and attached files vanish with it."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, offline: Offline) -> None:
        self.connection = connection
        self._offline = offline
        self._scans: dict[str, Scan] = {}

    def scan(self, source: Source) -> Scan:
        """How SQL in this session reads a source."""
        if source.name not in self._scans:
            self._scans[source.name] = self._open(source, f"source_{len(self._scans)}")
        return self._scans[source.name]

    def _open(self, source: Source, name: str) -> Scan:
        if isinstance(source, ParquetSource):
            paths = self._offline.paths(source)
            hive = any("=" in part for part in Path(paths[0]).parts[len(self._offline.root.parts) :])
            return Scan(
                f"read_parquet({_list(paths)}, hive_partitioning = {str(hive).lower()})",
                "file_index",
                "file_row_number",
            )
        if isinstance(source, TableSource):
            self.connection.execute(f"ATTACH {literal(self._offline.paths(source)[0])} AS {name} (READ_ONLY)")
            full = ".".join([name, *map(quote, source.table.split("."))])
            if self._is_view(name, source.table.split(".")[-1]):  # a view has no row ids
                self.connection.execute(f"CREATE TEMP TABLE {name}_rows AS SELECT * FROM {full}")
                full = f"{name}_rows"
            return Scan(full, "0", "rowid")
        assert isinstance(source, DataFrameSource)
        if source.frame is None:
            raise SourceError(f"{source.title}: its frame is not at hand in this process; declare it again")
        numbers = pa.array(np.arange(source.frame.num_rows))
        self.connection.register(name, source.frame.append_column(FRAME_ROW, numbers))
        return Scan(name, "0", FRAME_ROW)

    def _is_view(self, database: str, table: str) -> bool:
        sql = "SELECT count(*) FROM duckdb_views() WHERE database_name = ? AND view_name = ?"
        return bool(self.connection.execute(sql, [database, table]).fetchall()[0][0])


class Offline:
    """Finds sources and gives out DuckDB sessions; safe to use from several threads.

    root: the folder that relative paths start from. located: source name → where it lies, over what it declares.
    memory_limit: as DuckDB writes it ("4GB"); beyond it, work spills to `spill`, a folder.
    """

    def __init__(
        self,
        root: Path,
        *,
        located: Mapping[str, str] | None = None,
        memory_limit: str | None = None,
        threads: int | None = None,
        spill: Path | None = None,
    ) -> None:
        self.root = root
        self.located = dict(located or {})
        self._own_spill = tempfile.mkdtemp(prefix="featurestore-") if spill is None else None
        config: dict[str, Any] = {
            "temp_directory": str(spill or self._own_spill),
            "preserve_insertion_order": False,  # results are placed by row number
        }
        if memory_limit:
            config["memory_limit"] = memory_limit
        if threads:
            config["threads"] = threads
        self._config = config
        self._raw: dict[tuple[Any, ...], dict[str, str]] = {}

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A DuckDB instance for one operation."""
        connection = duckdb.connect(":memory:", config=self._config)
        try:
            connection.execute("SET TimeZone = 'UTC'")
            (shows,) = connection.execute("SELECT current_setting('enable_progress_bar')").fetchall()[0]
            if shows:  # on standard output; in a notebook it is off, and cannot be set without ipywidgets
                connection.execute("SET enable_progress_bar = false")
            yield Session(connection, self)
        finally:
            connection.close()

    def close(self) -> None:
        """Remove the spill folder where it is our own; idempotent."""
        if self._own_spill:
            shutil.rmtree(self._own_spill, ignore_errors=True)

    def files(self, source: Source) -> tuple[SourceFile, ...]:
        """The files of a source as they are now; for a frame, one entry that its content names."""
        if isinstance(source, DataFrameSource):
            return (SourceFile(f"frame:{source.content}", 0, 0),)
        found = []
        for path in self.paths(source):
            try:
                status = Path(path).stat()
            except FileNotFoundError:
                raise SourceError(f"{source.title}: there is no file {path} ({source.origin})") from None
            found.append(SourceFile(path, status.st_size, status.st_mtime_ns))
        return tuple(found)

    def paths(self, source: Source) -> list[str]:
        """The files of a source that lies in files, each once; SourceError where there is none."""
        assert isinstance(source, (ParquetSource, TableSource))
        declared = (self.located[source.name],) if source.name in self.located else source.path
        patterns = (declared,) if isinstance(declared, str) else declared
        found: list[str] = []
        for pattern in patterns:
            path = self.root / Path(pattern).expanduser()
            if path.is_dir():
                matches = sorted(str(p) for p in path.rglob("*.parquet"))
            elif glob.has_magic(str(path)):
                matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
            else:
                matches = [str(path)]
            if not matches:
                raise SourceError(f"{source.title}: no Parquet file matches {path} ({source.origin})")
            found.extend(matches)
        return list(dict.fromkeys(found))

    def raw_types(self, source: Source) -> dict[str, str]:
        """Column → DuckDB type, the same in every file; SourceError where files differ or cannot be read."""
        files = self.files(source)
        known = self._raw.get((source.name, files))
        if known is None:
            with self.session() as session:
                try:
                    known = self._describe(session, source, files)
                except duckdb.Error as error:
                    raise SourceError(f"{source.title} cannot be read: {error} ({source.origin})") from error
            self._raw[source.name, files] = known
        return known

    def _describe(self, session: Session, source: Source, files: tuple[SourceFile, ...]) -> dict[str, str]:
        def columns(relation: str) -> dict[str, str]:
            rows = session.connection.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()
            return {name: of for name, of, *_ in rows}

        described = columns(session.scan(source).relation)
        described.pop(FRAME_ROW, None)
        if isinstance(source, ParquetSource) and len(files) > 1:
            self._check_alike(session, source, [file.path for file in files])
        return described

    def _check_alike(self, session: Session, source: Source, paths: list[str]) -> None:
        """DuckDB would cast every file to the first one's types, whatever that loses; so files must agree."""
        shape = "name, type, converted_type, logical_type::VARCHAR, scale, precision"
        rows = session.connection.execute(
            f"SELECT {shape}, min(file_name), count(*) FROM parquet_schema({_list(paths)}) "
            f"WHERE num_children IS NULL GROUP BY ALL HAVING count(*) < {len(paths)} ORDER BY name, min(file_name)"
        ).fetchall()
        if rows:
            column = rows[0][0]
            shown = "; ".join(
                f"{row[1]} {row[2] or ''} in {row[-2]}".replace("  ", " ") for row in rows if row[0] == column
            )
            raise SourceError(
                f"{source.title}: its files disagree on column '{column}': {shown}; all {len(paths)} files must have the "
                f"same columns and types ({source.origin})"
            )


def _list(paths: list[str]) -> str:
    return "[" + ", ".join(map(literal, paths)) + "]"
