"""Files that an engine's tasks read one at a time by the code of one machine, for engines that read none themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from featurestore.declare.sources import FileSource
from featurestore.engines.buckets import buckets_of_source
from featurestore.engines.steps import Route
from featurestore.engines.tasks import TaskLimits, engine_of
from featurestore.lazy import pa
from featurestore.semantics.columns import RawColumns
from featurestore.semantics.forgotten import ForgottenKeys
from featurestore.sources.offline import Offline
from featurestore.sources.source_files import SourceFile
from featurestore.sources.sources import SourceFacts


def files_with_facts(
    offline: Offline, route: Route, files: Sequence[SourceFile]
) -> Iterator[tuple[SourceFile, SourceFacts]]:
    """Each file of a route's source, and what a process has to know of the source that reads it alone."""
    source = route.source
    assert isinstance(source, FileSource)
    instants = offline.instants(source, files) if source.arrives else [0] * len(files)
    with offline.session() as session:
        own = offline.agreed_columns(session.connection, source, files)
    columns = RawColumns({name: of for name, of in own.items() if name in route.columns})
    for file, instant in zip(files, instants, strict=True):
        yield file, SourceFacts(columns, {file: instant})


def buckets_of_file(
    route: Route, count: int, part: tuple[SourceFile, SourceFacts], limits: TaskLimits, forgotten: ForgottenKeys | None
) -> list[pa.Table]:
    """The rows of a file of a route's source, by key or by identity. part: one of `files_with_facts`."""
    file, facts = part
    # One thread reads rows in the order of the file, so that what is run again gives the same tables.
    with engine_of(replace(limits, threads=1), forgotten) as offline:
        offline.facts = {route.source.name: facts}
        with offline.session(files={route.source.name: (file,)}) as session, session.reading():
            rows = session.rows(route.source, route.columns)
        return buckets_of_source(rows, route, count, offline)
