"""What there was when a value was computed: the files of its source, and the versions of its view."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from featurestore.declare.database_source import DatabaseSource
from featurestore.declare.push import PushSource
from featurestore.declare.sources import DataFrameSource, Source
from featurestore.errors import SourceError
from featurestore.project import Project
from featurestore.semantics.view import ResolvedView
from featurestore.sources.arrivals import Stay
from featurestore.sources.offline import Offline
from featurestore.sources.session import Session
from featurestore.sources.source_files import SourceFile


@dataclass(frozen=True)
class Then:
    """The files of a source at an instant, against those of now: whether any of them was written anew or removed since,
    and those of now that were there already."""

    changed: bool
    there: tuple[SourceFile, ...]


class FileHistory:
    """The files of a source that lies in files, over time: as they are now and as the journal of arrivals knows them."""

    def __init__(self, source: Source, stays: Sequence[Stay], now: tuple[SourceFile, ...]) -> None:
        self.source = source
        self.now = now
        seen = {stay.file: stay.seen for stay in stays}
        present = {file.sighting for file in self.now}
        # A file that nobody journalled is taken to have come when it was written.
        self._since = [seen.get(file.sighting, file.modified // 1000) for file in self.now]
        self._gone = [(stay.seen, stay.missed) for stay in stays if stay.file not in present]

    def at(self, instant: int) -> Then:
        """The files at an instant, in µs."""
        changed = any(seen <= instant and (missed is None or missed > instant) for seen, missed in self._gone)
        there = tuple(file for file, since in zip(self.now, self._since, strict=True) if since <= instant)
        return Then(changed, there)


def file_source(source: Source) -> Source | None:
    """The source whose files have the rows of one, which is a push source's history; None where its rows lie in no file."""
    of = source.history if isinstance(source, PushSource) else source
    return None if of is None or isinstance(of, DataFrameSource) else of


def stays_of(source: Source, offline: Offline) -> tuple[Stay, ...]:
    """When its files were there; nothing of a database's rows, whose copies are ours: they are merged, and never written anew."""
    return () if isinstance(source, DatabaseSource) else tuple(offline.arrivals.stays(source.name))


def files_of(source: Source, stays: Sequence[Stay], session: Session) -> FileHistory | None:
    """The files of a source, or of a push source's history, as a session reads them; None where its rows lie in none."""
    of = file_source(source)
    return None if of is None else FileHistory(of, stays, session.files(of))


def other_versions(project: Project, view: ResolvedView) -> Iterator[ResolvedView]:
    """The other versions of a view that were ever applied, newest first, over its sources as they are now."""
    seen = {view.fingerprint}
    for version in project.registry.history():
        record = version.document["views"].get(view.name)
        if record is not None and record["fingerprint"] not in seen:
            seen.add(record["fingerprint"])
            try:
                other = project.rebound(version.view(view.name))
            except SourceError:  # what it read is not there any more
                continue
            if [key.type for key in other.keys] == [key.type for key in view.keys]:
                yield other
