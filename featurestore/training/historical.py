"""Training frames: the kernel asked for every row of a spine, chunk by chunk, over the files that a project has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from featurestore.clock import to_datetime
from featurestore.declare.sources import Source, known_zone
from featurestore.errors import FilesChangedError, SpineError
from featurestore.semantics.engine import is_relation
from featurestore.semantics.service import ResolvedService
from featurestore.sources.offline import Offline
from featurestore.sources.source_files import SourceFile, footer_digest
from featurestore.training.kernel import (
    Counts,
    Options,
    answer,
    check_expected,
    check_sources,
    event_time_name,
    status_name,
)
from featurestore.training.manifest import library_versions
from featurestore.training.spine import SpineRows, chunks_of, pandas_of, stays
from featurestore.training.training_frame import Block, TrainingFrame

Listing = dict[str, tuple[SourceFile, ...]]
"""By source its files, each as it was found."""


def get_historical_features(
    spine: Any,
    service: ResolvedService,
    offline: Offline,
    *,
    now: int,
    options: Options,
    listing: Listing | None = None,
) -> TrainingFrame:
    """The training frame of a service for a spine; `now`, µs, tells which rows lie past the last complete instant.

    listing: the files to read, and no others; else those that are there now, or when the frame is read anew because one
    of these changed.
    """
    pandas = pandas_of(spine)
    check_options(service, options)
    given, reading = listing, listing or listing_of(service, offline)
    manifest = manifest_of(service, offline, reading, now=now, options=options)

    views = {part.name for part in service.parts}

    def blocks() -> Iterator[Block]:
        nonlocal reading
        if given is None and _changed(service, offline, reading):
            reading = listing_of(service, offline)
            manifest["sources"] = _sources(service, offline, reading)
        total = Counts()
        for chunk in chunks_of(spine if pandas is None else pandas, zone=options.zone):
            with offline.session(files=reading) as session, session.reading():
                block, counts = answer(session, chunk, service, now=now, options=options, from_pandas=pandas is not None,
                                       counted=() if chunk.first else views)  # fmt: skip
                if not chunk.first:
                    total += check_sources(session, service, now=now)
            total = check_expected(service, total + counts)
            total.enter(manifest)
            yield block

    types = {column.name: column.type for column in service.columns}
    frame = TrainingFrame(types, manifest, blocks, pandas, once=given is not None or not stays(spine))
    if not is_relation(spine) and not isinstance(spine, (str, bytes, SpineRows)) and not hasattr(spine, "__fspath__"):
        len(frame)  # in memory already: answered now, so that mistakes show here
    return frame


def check_options(service: ResolvedService, options: Options) -> None:
    """SpineError where the zone is none, or a column that is asked for beside the features has the name of one of them."""
    if options.zone != "UTC":
        try:
            known_zone(options.zone)
        except ValueError as error:
            raise SpineError(str(error)) from None
    names = {column.name for column in service.columns}
    asked = {"with_status": [status_name(column) for column in service.columns if column.part] * options.with_status}
    asked["with_event_time"] = [event_time_name(part) for part in service.parts] * options.with_event_time
    for word, added in asked.items():
        for name in added:
            if name in names:
                raise SpineError(
                    f"{word} adds a column '{name}', which is a feature too; rename the feature, or leave it out"
                )


def listing_of(service: ResolvedService, offline: Offline) -> Listing:
    """The files of every source of a service as they are now, those that are new being journalled."""
    listing: Listing = {}
    for part in service.parts:
        if part.view.source.name not in listing:
            listing |= offline.listing(part.view.source, offline.see(part.view.source))
    return listing


def _changed(service: ResolvedService, offline: Offline, listing: Listing) -> bool:
    try:
        for part in service.parts:
            offline.check_unchanged(part.view.source, listing[part.view.source.name])
    except FilesChangedError:
        return True
    return False


def manifest_of(
    service: ResolvedService, offline: Offline, listing: Listing, *, now: int, options: Options
) -> dict[str, Any]:
    """What a frame is made of: definitions by fingerprint, source files, versions; counts are added as rows are made."""
    sources = {part.view.source.name: part.view.source for part in service.parts}
    return {
        "service": service.name,
        "fingerprint": service.fingerprint,
        "columns": {column.name: str(column.type) for column in service.columns},
        "views": {part.name: part.view.fingerprint for part in service.parts},
        "created": to_datetime(now).isoformat(),
        "timestamp": options.timestamp,
        "timezone": options.zone,
        "notices": [],
        "sources": _sources(service, offline, listing),
        "without_history": sorted(name for name, source in sources.items() if source.event_time is None),
        "versions": library_versions(),
        "definition": service.definition,
    }


def _sources(service: ResolvedService, offline: Offline, listing: Listing) -> dict[str, list[dict[str, Any]]]:
    sources = {part.view.source.name: part.view.source for part in service.parts}
    return {name: _files(source, offline, listing[name]) for name, source in sources.items()}


def _files(source: Source, offline: Offline, found: Sequence[SourceFile]) -> list[dict[str, Any]]:
    """The files of a source for the manifest, with when each was first seen where that is when its rows are known."""
    files: list[dict[str, Any]] = [
        {"path": file.path, "size": file.size, "modified_ns": file.modified} for file in found
    ]
    for said, one in zip(files, found, strict=True):
        footer = footer_digest(one.path)
        if footer is not None:
            said["footer"] = footer
    state = offline.table_state(source, tuple(found))
    files = [{**file, **state} for file in files]
    if source.arrives:
        for file, instant in zip(
            files, offline.arrivals.seen(source.name, [file.sighting for file in found]), strict=True
        ):
            file["first_seen"] = None if instant is None else to_datetime(instant).isoformat()
    return files
