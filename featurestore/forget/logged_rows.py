"""Rows of forgotten keys in what a push source has on the disk: its log, the log of late rows, files of rows taken back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from featurestore.declare.push import KNOWN_AT, REPLACES, PushSource
from featurestore.durable.parquet import restored
from featurestore.errors import SourceError
from featurestore.lazy import duckdb, pa, pq
from featurestore.push.rows import write_rows
from featurestore.semantics.rows import words_sql
from featurestore.semantics.source_columns import has_key
from featurestore.semantics.view import ResolvedView
from featurestore.sources.log import Log
from featurestore.sources.log.log import ERASING
from featurestore.sources.session import Session
from featurestore.sources.unreadable import engine_words

ALWAYS = -(1 << 62)
"""µs: when rows were learned that say nothing of it; before anything is forgotten."""


class LoggedSource(NamedTuple):
    """A push source, and the versions of views over it that say in which columns the entity's key is."""

    source: PushSource
    views: tuple[ResolvedView, ...]


def mappings(views: Iterable[ResolvedView]) -> tuple[ResolvedView, ...]:
    """Of views over one source, those that find a key in different columns, or in rows of different columns: a log keeps those that
    it began with."""
    found: dict[object, ResolvedView] = {}
    for view in views:
        source = view.source
        assert isinstance(source, PushSource)
        columns = tuple(key.column for key in view.keys)
        found.setdefault(
            (columns, tuple(sorted(source.derived.items())), source.timezone, frozenset(source.columns)), view
        )
    return tuple(found.values())


def forgotten_rows(session: Session, logged: LoggedSource, log: Log) -> Iterator[pa.Table]:
    """The rows of a log that are of forgotten keys, a segment's at a time; none that was emptied."""
    for segment in log.segments():
        if segment.rows and segment.first is not None:
            rows = log.read(segment.first - 1, segment.last)
            found = np.flatnonzero(_are_forgotten(session, logged, rows))
            if len(found):
                yield rows.take(pa.array(found))


def _are_forgotten(
    session: Session, logged: LoggedSource, rows: pa.Table
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    found = np.zeros(rows.num_rows, np.bool_)
    for view in logged.views:
        assert isinstance(view.source, PushSource)
        scan = session.scan_logged(view.source, with_columns(view.source, rows), "logged_rows")
        sql = f"SELECT row FROM ({words_sql(view, scan)}) WHERE forgotten"
        try:
            places = session.connection.sql(sql).fetchnumpy()["row"]
        except duckdb.Error as error:  # of an expression of an older version, say, that fails for a row
            raise SourceError(f"{view.declared.title} over {view.source.title}: {engine_words(error)}") from error
        found[places.astype(np.int64)] = True
    return found


def with_columns(source: PushSource, rows: pa.Table) -> pa.Table:
    """Rows of a log with every column that a version of its source has, null where the log, which keeps those that it began with,
    has it not. So a row has a key wherever the columns of the key are there, and none elsewhere."""
    for name, of in source.columns.items():
        if name not in rows.column_names:
            rows = rows.append_column(name, pa.nulls(rows.num_rows, of.arrow))
    return rows


def counting(session: Session, views: Sequence[ResolvedView], rows: pa.Table) -> list[str]:
    """The views for which some of these rows, which are of forgotten keys, have a key all the same."""
    found = []
    for view in views:
        assert isinstance(view.source, PushSource)
        words = words_sql(view, session.scan_logged(view.source, with_columns(view.source, rows), "logged_rows"))
        sql = f"SELECT count(*) FROM ({words}) WHERE {has_key(view)} AND event_us IS NOT NULL"
        if session.connection.execute(sql).fetchall()[0][0]:
            found.append(view.name)
    return found


def remove_unfinished(log: Log, folder: Path) -> None:
    """Delete what a process that was killed left of a file of rows that it took back; the process that takes back holds the log's lock."""
    with log.lock(ERASING):
        for path in folder.glob("taken-back-*.parquet.partial"):
            path.unlink(missing_ok=True)


def rows_taken_back(session: Session, logged: LoggedSource, folder: Path, *, erase: bool) -> int:
    """How many rows of forgotten keys are in the files of rows that were taken back; erase: files are written anew without them."""
    count = 0
    for path in sorted(folder.glob("taken-back-*.parquet")):
        rows = restored(pq.read_table(path, partitioning=None))
        dated = rows.append_column(KNOWN_AT, pa.array(np.full(rows.num_rows, ALWAYS)))
        found = _are_forgotten(session, logged, dated.append_column(REPLACES, pa.nulls(rows.num_rows, pa.int64())))
        count += int(found.sum())
        if erase and found.all():
            path.unlink()
        elif erase and found.any():
            write_rows(rows.filter(pa.array(~found)), path)
    return count
