"""Optimize: sorted copies of sources made, kept up as files come, and told of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from featurestore.declare.sources import FileSource, Source
from featurestore.durable.disk import told
from featurestore.durable.lock import BusyError, exclusive
from featurestore.durable.own_folder import own_folder
from featurestore.errors import NotFoundError, SourceError, did_you_mean
from featurestore.lazy import duckdb, pa
from featurestore.plurals import plural
from featurestore.report import plain
from featurestore.semantics.view import ResolvedView
from featurestore.sources.offline import Offline
from featurestore.sources.session import Session
from featurestore.sources.sorted.sorted_copies import (
    JOINED_BELOW,
    SortedCopies,
    SortedKey,
    can_be_sorted,
    has_copies,
    identity,
    may_leave_out,
    remove_copies,
    tidy_other_states,
)
from featurestore.sources.source_files import SourceFile
from featurestore.sources.unreadable import engine_words

WAIT_SECONDS = 600.0
"""How long another process may copy before one gives up waiting for it."""


@dataclass(frozen=True)
class Optimized:
    """The sorted copy of a source by one key."""

    source: str
    """The name of the source."""

    key: tuple[str, ...]
    """The columns by which rows lie together."""

    files: int
    """Of the source."""

    copied: int
    """The files of which it has the rows; those of the others are read where they lie."""

    rows: int
    """Of these files."""

    bytes: int
    """On the disk."""

    made: int = 0
    """The files of which this run has copied the rows, those copied once more among them."""

    removed: int = 0
    """Bytes that this run has freed."""

    why: str | None = None
    """Why there is none; None where there is one, or one could be made."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dict(plain(self))

    def __str__(self) -> str:
        of = f"source '{self.source}'" + (f" by {', '.join(self.key)}" if self.key else "")
        if self.why is not None:
            return f"{of}: no sorted copy, {self.why}"
        if self.removed:
            return f"{of}: its sorted copies are removed, {self.removed:,} {plural(self.removed, 'byte')}"
        rest = self.files - self.copied
        beside = f"; {rest} {plural(rest, 'is', 'are')} read as they lie" if rest else ""
        made = f"; {self.made} copied now" if self.made else ""
        return f"{of}: a sorted copy of {self.copied} of {self.files} {plural(self.files, 'file')}, {self.rows:,} {plural(self.rows, 'row')}, {self.bytes:,} {plural(self.bytes, 'byte')}{made}{beside}"


def over_sources(views: Iterable[ResolvedView], sources: Sequence[str] | None) -> list[ResolvedView]:
    """Those of the views that are over these sources, or all. NotFoundError where a source has none."""
    every = list(views)
    names = {view.source.name for view in every}
    for name in sources or ():
        if name not in names:
            raise NotFoundError(f"No view reads a source '{name}'.{did_you_mean(name, names, noun='Sources')}")
    return [view for view in every if sources is None or view.source.name in sources]


def optimize(views: Iterable[ResolvedView], offline: Offline) -> list[Optimized]:
    """Copy what is not copied yet, for each source and key of these views. Raises SourceError: nothing of what was there is lost
    then, and where nothing is there files are read."""
    found: list[Optimized] = []
    for source, keyed in _by_source(views):
        kept: list[SortedCopies] = []
        files: tuple[SourceFile, ...] = ()
        for key, view in keyed.items():
            why = _why_not(view)
            if why is not None:
                found.append(Optimized(source.name, key.columns, 0, 0, 0, 0, why=why))
                continue
            assert isinstance(source, FileSource)
            try:
                files = offline.files(source)
                copies, told_of = _kept_up(source, key, files, offline)
            except (OSError, pa.ArrowException) as error:
                said = told(error, offline.copies()) if isinstance(error, OSError) else str(error)
                raise SourceError(f"{source.title}: no sorted copy can be made: {said} ({source.origin})") from error
            except duckdb.Error as error:
                raise SourceError(
                    f"{source.title}: no sorted copy can be made: {engine_words(error)} ({source.origin})"
                ) from error
            except BusyError as error:
                raise SourceError(f"{source.title}: its rows are being sorted: {error}") from error
            kept.append(copies)
            found.append(told_of)
        tidy_other_states(offline.copies(), source, files, kept)
    return found


def remove(views: Iterable[ResolvedView], offline: Offline) -> list[Optimized]:
    """Remove the sorted copies of the sources of these views. Raises SourceError where some stay, which may have rows that were erased
    from files."""
    found = []
    for source, _ in _by_source(views):
        if has_copies(offline.copies(), source.name):
            try:
                removed = remove_copies(offline.copies(), source.name)
            except OSError as error:
                said = told(error, offline.copies())
                raise SourceError(
                    f"{source.title}: its sorted copies are not removed: {said} ({source.origin})"
                ) from error
            found.append(Optimized(source.name, (), 0, 0, 0, 0, removed=removed))
    return found


def sorted_states(views: Iterable[ResolvedView], offline: Offline) -> list[Optimized]:
    """The sorted copies that there are of the sources of these views."""
    found = []
    for source, keyed in _by_source(views):
        if not isinstance(source, FileSource) or not has_copies(offline.copies(), source.name):
            continue
        try:
            files = offline.files(source)
            with offline.session(files={source.name: files}) as session:
                columns = session.own(source).columns
        except (SourceError, duckdb.Error) as error:  # a report tells of the rest
            found.append(Optimized(source.name, (), 0, 0, 0, 0, why=f"as far as can be told: {error}"))
            continue
        for key, view in keyed.items():
            if may_leave_out(view):
                found.append(_told(SortedCopies(offline.copies(), source, key, columns), files))
    return found


def _by_source(views: Iterable[ResolvedView]) -> list[tuple[Source, dict[SortedKey, ResolvedView]]]:
    """The sources of views, each with the keys by which they read it."""
    sources: dict[str, tuple[Source, dict[SortedKey, ResolvedView]]] = {}
    for view in views:
        _, keyed = sources.setdefault(view.source.name, (view.source, {}))
        keyed.setdefault(SortedKey.of(view), view)
    return list(sources.values())


def _why_not(view: ResolvedView) -> str | None:
    source = view.source
    if not isinstance(source, FileSource):
        return "since its rows lie in no files of their own"
    if not can_be_sorted(source):
        return "since its rows count from when their file came"
    if not view.keys:
        return f"since view '{view.name}' has no key"
    if not may_leave_out(view):
        return "since its key is a derived column, or a row of another key may replace one: its identity has not all of the key's columns"
    return None


def _kept_up(
    source: FileSource, key: SortedKey, files: tuple[SourceFile, ...], offline: Offline
) -> tuple[SortedCopies, Optimized]:
    """The copies of one source by one key, of all files that are there."""
    made = 0
    with offline.session(files={source.name: files}) as session, session.reading():
        copies = SortedCopies(offline.copies(), source, key, session.own(source).columns)
        own_folder(copies.lock.parent)
        with exclusive(copies.lock, doing=f"sorting {source.title}", wait_seconds=WAIT_SECONDS):
            copies.tidy(files)
            parts = copies.parts(files)
            there = {of for part in parts for of in part.files}
            taken = [file for file in files if identity(file) not in there]
            if taken:
                rows = _count(session, source, taken)
                for part in sorted(parts, key=lambda part: part.rows):
                    if part.rows < JOINED_BELOW * rows:
                        taken += [file for file in files if identity(file) in part.files]
                        rows += part.rows
                relation = session.own_rows(source, taken).scan.relation
                copies.add(
                    session.connection, taken, relation, rows=rows, check=lambda: offline.check_unchanged(source, taken)
                )
                made = len(taken)
    return copies, _told(copies, files, made=made)


def _count(session: Session, source: FileSource, files: Sequence[SourceFile]) -> int:
    relation = session.own_rows(source, files).scan.relation
    count: int = session.connection.execute(f"SELECT count(*) FROM {relation}").fetchall()[0][0]
    return count


def _told(copies: SortedCopies, files: Sequence[SourceFile], *, made: int = 0) -> Optimized:
    parts = copies.parts(files)
    copied = sum(len(part.files) for part in parts)
    rows, size = sum(part.rows for part in parts), sum(part.bytes for part in parts)
    return Optimized(copies.source.name, copies.key.columns, len(files), copied, rows, size, made)
