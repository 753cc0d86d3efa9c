"""The rows that another frame was made of: the files, and of tables the versions, that its manifest names, as long as they are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from featurestore.clock import instant_of, to_datetime
from featurestore.declare.sources import FileSource, Source
from featurestore.errors import FilesChangedError, ManifestError, SourceError
from featurestore.semantics.service import ResolvedService
from featurestore.sources.offline import Offline
from featurestore.sources.source_files import SourceFile, footer_digest
from featurestore.sources.sources import SCHEMA_ID
from featurestore.training.historical import Listing
from featurestore.training.manifest import Manifest, load_manifest


class _Named(NamedTuple):
    """A file as a manifest names it."""

    path: str
    size: int
    modified: int
    state: int | None
    """The version or snapshot of the table that it was read of; None of other files."""
    schema: int | None
    """The schema of the table whose columns were read, where that is said."""
    seen: int | None
    """When (µs) it was first seen, where its rows are known from then."""

    @property
    def identity(self) -> tuple[str, int, int]:
        """What it has in common with the same file in another place."""
        return _identity(self.path, self.size, self.modified)


def asked_listing(service: ResolvedService, offline: Offline, sources_as_in: Any) -> Listing | None:
    """The files that a manifest names, or that of what `load_manifest` takes; None where none is given."""
    return None if sources_as_in is None else pinned_listing(service, offline, load_manifest(sources_as_in))


def pinned_listing(service: ResolvedService, offline: Offline, manifest: Manifest) -> Listing:
    """The files of every source of a service that a manifest names, as they were then: of a table those of the version that it
    names, whatever was committed since; of others these very files, without those that came since.

    ManifestError where it says nothing of a source. SourceError where what it names is gone, is not as it was, or is known from
    another instant than it was.
    """
    listing: Listing = {}
    for part in service.parts:
        source = part.view.source
        if source.name not in listing:
            named = _named(source, manifest)
            if isinstance(source, FileSource) and source.PINNED_AS:
                files = _of_table(source, offline, named, manifest)
            else:
                files = _as_named(source, offline, named, manifest)
            check_footers(source, files, manifest.sources[source.name], f"the frame of {manifest} was made")
            if source.arrives:
                _check_arrivals(source, offline, files, named, manifest)
            listing |= offline.listing(source, files)
    return listing


def check_footers(source: Source, files: Sequence[SourceFile], said: Sequence[Mapping[str, Any]], since: str) -> None:
    """FilesChangedError where a Parquet file has another footer than is said of the file at its path, though it may be as large and as old.
    said: the files as a manifest has them; one of before it had footers says nothing. since: since when, for the message."""
    footers = {one["path"]: one.get("footer") for one in said}
    for file in files:
        before = footers.get(file.path)
        if before is not None and footer_digest(file.path) not in {None, before}:
            raise FilesChangedError(
                f"{source.title}: {file.path} was written anew since {since}, with its size and time as they were ({source.origin})"
            )


def _named(source: Source, manifest: Manifest) -> list[_Named]:
    said = manifest.sources.get(source.name)
    if not said:
        raise ManifestError(
            f"The manifest of {manifest} names no files of {source.title}, so which rows it had then is not known"
        )
    word = source.PINNED_AS if isinstance(source, FileSource) else ""
    found = []
    for one in said:
        path, size, modified, state, schema, seen = (
            one.get(name) for name in ("path", "size", "modified_ns", word, SCHEMA_ID, "first_seen")
        )
        if not isinstance(path, str) or not isinstance(size, int) or not isinstance(modified, int):
            raise ManifestError(
                f"The manifest of {manifest} does not say path, size and modified_ns of a file of {source.title}"
            )
        if word and not isinstance(state, int):
            raise ManifestError(f"The manifest of {manifest} does not say which {word} of {source.title} was read")
        try:
            instant = None if seen is None else instant_of(datetime.fromisoformat(seen))
        except (TypeError, ValueError):
            raise ManifestError(f"The manifest of {manifest}: first_seen of {path} is no instant: {seen!r}") from None
        found.append(
            _Named(path, size, modified, state if word else None, schema if isinstance(schema, int) else None, instant)
        )
    return found


def _of_table(
    source: FileSource, offline: Offline, named: Sequence[_Named], manifest: Manifest
) -> tuple[SourceFile, ...]:
    """The files of a table in the state that a manifest names, which are those that it names."""
    states = {(one.state, one.schema) for one in named}
    (state, schema), *others = states
    if others or state is None:
        raise ManifestError(f"The manifest of {manifest} names several of {source.PINNED_AS} for {source.title}")
    pinned, word = source.pinned(state, schema), f"{source.PINNED_AS} {state}"
    try:
        files = offline.files(pinned)
        offline.check_unchanged(pinned, files)
    except SourceError as error:
        raise SourceError(
            f"The rows of {word}, which the manifest of {manifest} names, cannot be read; a vacuum, or snapshots that are expired, "
            f"remove them for good: {error}"
        ) from error
    if sorted(one.identity for one in named) != sorted(map(_identity_of, files)):
        raise SourceError(
            f"{source.title}: {word} has other files than the manifest of {manifest} names: the table was made anew, or lies "
            f"elsewhere, or files that were compacted are gone ({source.origin})"
        )
    return files


def _as_named(source: Source, offline: Offline, named: Sequence[_Named], manifest: Manifest) -> tuple[SourceFile, ...]:
    """The files of a source that a manifest names, each as it was."""
    there = {file.path: file for file in offline.files(source)}
    files = []
    for one in named:
        file = there.get(one.path)
        if file is None or _identity_of(file) != one.identity:
            became = "is gone" if file is None else "was written anew"
            raise FilesChangedError(
                f"{source.title}: {one.path} {became} since the frame of {manifest} was made, so its rows cannot be had again "
                f"({source.origin})"
            )
        files.append(file)
    return tuple(files)


def _check_arrivals(
    source: Source, offline: Offline, files: tuple[SourceFile, ...], named: Sequence[_Named], manifest: Manifest
) -> None:
    """SourceError where rows that are known from their arrival are known from another instant than they were."""
    said = {one.identity: one.seen for one in named}
    for file, instant in zip(files, offline.instants(source, files), strict=True):
        seen = said[_identity_of(file)]
        if seen not in {None, instant}:
            raise SourceError(
                f"{source.title}: the rows of {file.path} are known from {to_datetime(instant).isoformat()}, and the manifest of {manifest} "
                f"says from {to_datetime(seen).isoformat()}: the journal of arrivals is another ({source.origin})"
            )


def _identity_of(file: SourceFile) -> tuple[str, int, int]:
    return _identity(file.path, file.size, file.modified)


def _identity(path: str, size: int, modified: int) -> tuple[str, int, int]:
    return path.rpartition("/")[2], size, modified
