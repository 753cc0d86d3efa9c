"""Compaction: full segments become Parquet, the manifest swaps the two, and old files are deleted when nobody can
still have them in hand.

At each step the manifest in force names whole files only. A run that is killed leaves a file that no manifest names,
which the next run deletes, or one that the manifest calls retired, which a later run deletes in its time.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from featurestore.durable.checksums import checks_of
from featurestore.sources.log.files import LogFolder
from featurestore.sources.log.log import Compaction
from featurestore.sources.log.manifest import LogManifest, Retired, Segment
from featurestore.sources.log.sealed import seal

Lock = Callable[[], AbstractContextManager[None]]


def compact(
    files: LogFolder, lock: Lock, *, now: Callable[[], int], grace: int, stop: Callable[[], bool] = bool,
    rest: Callable[[], object] = bool,
) -> Compaction:  # fmt: skip
    """Seal the full segments, oldest first. now, grace: in µs. stop: asked before each. rest: see `seal`.

    At most one runs at a time.
    """
    with files.mutex:
        manifest = files.in_force()
    remove_strays(files, manifest)
    sealed = []
    for segment in manifest.unsealed:
        if stop():
            break
        name = seal(files.folder, segment, files.schema(), rest=rest)
        checks = checks_of(files.folder / name)
        with lock(), files.mutex:
            _swap(files, segment._replace(file=name, checks=checks), now())
        sealed.append(segment)
    _take_checks(files, lock, manifest)
    deleted = _delete(files, lock, now() - grace)
    return Compaction(len(sealed), sum(segment.rows or 0 for segment in sealed), deleted)


def _swap(files: LogFolder, sealed: Segment, now: int) -> None:
    manifest = files.in_force()
    frames = tuple(Retired(s.file, now) for s in manifest.segments if s.number == sealed.number)
    segments = tuple(sealed if s.number == sealed.number else s for s in manifest.segments)
    files.replace(manifest._replace(segments=segments, retired=(*manifest.retired, *frames)))


def _take_checks(files: LogFolder, lock: Lock, manifest: LogManifest) -> None:
    """Give checksums to segments that were sealed without: from now on they stay what they are found to be."""
    taken = {s.number: checks_of(files.folder / s.file) for s in manifest.segments if s.sealed and s.checks is None}
    if taken:
        with lock(), files.mutex:
            manifest = files.in_force()
            segments = tuple(s._replace(checks=taken.get(s.number, s.checks)) for s in manifest.segments)
            files.replace(manifest._replace(segments=segments))


def _delete(files: LogFolder, lock: Lock, before: int) -> int:
    with lock(), files.mutex:
        manifest = files.in_force()
        old = [retired for retired in manifest.retired if retired.since <= before]
        if old:
            kept = tuple(retired for retired in manifest.retired if retired.since > before)
            files.replace(manifest._replace(retired=kept))
    for retired in old:
        (files.folder / retired.file).unlink(missing_ok=True)
    return len(old)


def remove_strays(files: LogFolder, manifest: LogManifest) -> None:
    """Delete what a killed compaction or erasure left: Parquet that was never in force, frames that are no longer named."""
    named = {segment.file for segment in manifest.segments} | {retired.file for retired in manifest.retired}
    for path in list(files.folder.iterdir()):
        unfinished = path.name.endswith((".parquet", ".parquet.partial"))
        dropped = path.suffix == ".log" and int(path.stem) < manifest.open.number  # a later one is being begun
        if path.name not in named and (unfinished or dropped):
            path.unlink(missing_ok=True)
