"""A batch source as it grows: what was known before the start lies there, the rest lands in new files.

Rows are those of the real source, read through the offline store. A row lands when it is known: by its known_at, by
event_time + known_after, or, where it is known from the arrival of its file, by the journal of arrivals (by its
event_time where that does not know the file).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from featurestore.declare.sources import ParquetSource, Source
from featurestore.declare.views import FeatureView
from featurestore.errors import SourceError
from featurestore.lazy import duckdb, pa
from featurestore.reports.simulation.faults import Faults, Stretch, chances
from featurestore.reports.simulation.world import relocated
from featurestore.semantics.forgotten import has_forgotten
from featurestore.semantics.rows import timed_sql, words_sql
from featurestore.semantics.source_columns import cell, happened_of, known_of
from featurestore.semantics.sql import literal, quote
from featurestore.semantics.time import BEGINNING
from featurestore.semantics.view import resolve
from featurestore.sources.offline import Offline
from featurestore.sources.session import Session
from featurestore.sources.unreadable import engine_words

RETRIED_WITHIN_US = 3_600_000_000
"""µs within which a row that comes twice comes again."""

DISORDER_FILES = 2
"""Over how many files the rows of one step are spread where they come in disorder."""

Ints = npt.NDArray[np.int64]


@dataclass
class Came:
    """What became of a source's rows: there before, come since, and of these how many late, and by how much at most (µs)."""

    history: int = 0
    rows: int = 0
    late: int = 0
    late_by: int = 0


@dataclass
class Landed(Came):
    """Those of a batch source: in how many files they landed, and how many of them were there already."""

    files: int = 0
    duplicates: int = 0


class LandingSource:
    """One source of `offline`, the real one.

    session: of it, which must stay open. folder: where the files come to lie. number: of its own, by which its tables are
    named: names of sources may differ in their case alone, which names of tables do not. views: those over it.
    """

    def __init__(
        self,
        source: Source,
        offline: Offline,
        session: Session,
        folder: Path,
        *,
        number: int,
        views: Sequence[FeatureView] = (),
    ) -> None:
        raw = offline.raw_types(source)
        self.source = source
        self.folder = folder
        self.done = Landed()
        self._connection = session.connection
        self._all, self._rows, self._seen = f"all_{number}", f"rows_{number}", f"seen_{number}"
        self._columns = [name for name in raw if name not in source.derived]
        self._at: Ints = np.zeros(0, np.int64)
        self._order: Ints = self._at
        self._late: Ints = self._at
        self._next = 0
        self._disorder = False
        self._shuffle = np.random.default_rng(0)
        self._open(offline, session, raw, views)

    @property
    def timeless(self) -> bool:
        """Whether nothing says when its rows came, so that all are there from the start."""
        return self.source.event_time is None

    def moved(self) -> Source:
        """The source as it is declared, but for where its rows lie."""
        return relocated(self.source, ParquetSource, str(self.folder))

    def newest(self, upto: int) -> int | None:
        """The last instant up to `upto` (µs) at which a row became known."""
        if self.timeless:
            return None
        sql = f"SELECT max(known) FROM {self._all} WHERE known <= {upto}"
        found: int | None = self._connection.execute(sql).fetchall()[0][0]
        return found

    def begin(self, span: Stretch, faults: Faults, seed: int, *, lands: bool = True) -> list[tuple[Path, int]]:
        """Write what was known at the start, and choose when the other rows land; the files, and when each was first
        seen (µs). lands: whether there are others."""
        self.folder.mkdir(parents=True)
        known = f"known IS NULL OR known <= {span.start}"
        before = "true" if self.timeless else known
        self.done.history = self._count(before)
        files = self._history(before, span.start)
        if self.timeless or not lands:
            return files
        self._connection.execute(
            f"CREATE TEMP TABLE {self._rows} AS SELECT row_number() OVER (ORDER BY known, event_us, file, row) - 1 AS n, * "
            f"FROM {self._all} WHERE known > {span.start} AND known <= {span.end}"
        )
        times = self._connection.sql(f"SELECT known FROM {self._rows} ORDER BY n").to_arrow_table()
        self._choose(times["known"].to_numpy(), faults, seed)
        self._disorder = faults.disorder
        self._shuffle = chances(seed, f"files of {self.source.name}")
        return files

    def land(self, now: int) -> int:
        """Let the rows land that do so up to `now`, in files of that time; how many."""
        upto = int(np.searchsorted(self._at, now, "right"))
        rows, late = self._order[self._next : upto], self._late[self._next : upto]
        self._next = max(self._next, upto)
        if not len(rows):
            return 0
        files = [np.arange(len(rows))]
        if self._disorder and len(rows) > 1:
            files = np.array_split(self._shuffle.permutation(len(rows)), DISORDER_FILES)
        for number, places in enumerate(files):
            picked = pa.table({"n": rows[places], "place": np.arange(len(places))})
            self._connection.register("picked", picked)
            path = self.folder / f"{now}-{number}.parquet"
            self._copy(f"(SELECT * FROM {self._rows} JOIN picked USING (n)) ORDER BY place", path, now)
            self._connection.unregister("picked")
        self.done.files += len(files)
        self.done.rows += len(rows)
        self.done.late += int((late > 0).sum())
        self.done.late_by = max(self.done.late_by, int(late.max()))
        self.done.duplicates += int((late < 0).sum())
        return len(rows)

    # --- the rows ---------------------------------------------------------------------------

    def _open(self, offline: Offline, session: Session, raw: dict[str, str], views: Sequence[FeatureView]) -> None:
        """The view of all rows but those of forgotten keys: each column as `cell` names it, event_us (happened), known, file and row, seen."""
        source, scan = self.source, session.scan(self.source)
        seen, joined = "CAST(NULL AS BIGINT)", ""
        learned = "CAST(NULL AS BIGINT)" if self.timeless else known_of(source, raw)
        if source.arrives:
            journal = offline.arrivals.seen(source.name, [file.sighting for file in session.files(source)])
            table = pa.table({"file_number": np.arange(len(journal)), "first_seen": pa.array(journal, pa.int64())})
            self._connection.register(self._seen, table)
            joined = f" LEFT JOIN {self._seen} ON file_number = {scan.file}"
            seen, learned = "first_seen", f"coalesce(first_seen, {happened_of(source, raw)})"
        cells = "".join(f"{quote(name)} AS {cell(name)}, " for name in self._columns)
        joined_scan = scan._replace(relation=scan.relation + joined)
        rows = timed_sql(source, raw, joined_scan, f"{cells}{seen} AS seen", learned=learned)
        gone = [
            f"SELECT file, row FROM ({words_sql(view, scan)}) WHERE forgotten"
            for view in (resolve(declared, raw) for declared in views)
            if has_forgotten(view, scan.forgotten)
        ]
        if gone:
            rows = f"SELECT r.* FROM ({rows}) r ANTI JOIN ({' UNION ALL '.join(gone)}) g ON r.file = g.file AND r.row = g.row"
        try:
            self._connection.execute(f"CREATE TEMP VIEW {self._all} AS {rows}")
        except duckdb.Error as error:
            raise SourceError(f"{source.title} cannot be read: {engine_words(error)} ({source.origin})") from error

    def _count(self, condition: str) -> int:
        return int(self._connection.execute(f"SELECT count(*) FROM {self._all} WHERE {condition}").fetchall()[0][0])

    def _history(self, condition: str, start: int) -> list[tuple[Path, int]]:
        """One file; of files that were seen at several instants, one for each."""
        instants: list[int | None] = [None]
        if self.source.arrives:
            sql = f"SELECT DISTINCT seen FROM {self._all} WHERE {condition} ORDER BY seen NULLS FIRST"
            instants = [row[0] for row in self._connection.execute(sql).fetchall()] or [None]
        files = []
        for number, seen in enumerate(instants):
            same = f"seen IS NOT DISTINCT FROM CAST({'NULL' if seen is None else seen} AS BIGINT)"
            path = self.folder / f"history-{number}.parquet"
            self._copy(f"{self._all} WHERE ({condition}) AND {same}", path, start)
            files.append((path, BEGINNING if seen is None else seen))
        return files

    def _choose(self, known: Ints, faults: Faults, seed: int) -> None:
        """When each row lands, and by how much that is late; a row that comes twice has -1 there the second time."""
        drawn = chances(seed, f"lateness of {self.source.name}")
        late = faults.delays(drawn, len(known))
        rows, at = np.arange(len(known)), known + late
        if self.source.identity and faults.duplicates:
            again = np.flatnonzero(drawn.random(len(known)) < faults.duplicates)
            rows = np.concatenate([rows, again])
            at = np.concatenate([at, at[again] + drawn.integers(0, RETRIED_WITHIN_US, len(again))])
            late = np.concatenate([late, np.full(len(again), -1)])
        order = np.lexsort((rows, at))
        self._at, self._order, self._late = at[order], rows[order], late[order]

    def _copy(self, rows: str, path: Path, now: int) -> None:
        """One Parquet file, as if it had been written at `now` (µs)."""
        columns = ", ".join(f"{cell(name)} AS {quote(name)}" for name in self._columns)
        self._connection.execute(f"COPY (SELECT {columns} FROM {rows}) TO {literal(str(path))} (FORMAT parquet)")
        os.utime(path, ns=(now * 1000, now * 1000))
