"""Erasure: rows of a log are emptied. Their places stay, with when each was known and which row it replaced, so that whatever is
said of the log by known_at, by segment or by row within it stays true, and what they replaced stays replaced.

Each full segment that holds such rows is written anew as Parquet, beside its file; the manifest swaps the two, and the old file is
deleted at once. At each step the manifest in force names whole files only, and what it does not name is deleted by the next
erasure or compaction. Who reads a file that is deleted under his hands looks at the log again.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from featurestore.durable.checksums import checks_of
from featurestore.lazy import pa, pc
from featurestore.sources.log.compaction import Lock, remove_strays
from featurestore.sources.log.files import LogFolder
from featurestore.sources.log.manifest import Segment
from featurestore.sources.log.schema import KNOWN_AT
from featurestore.sources.log.sealed import read_segment, write_sealed


def erase(files: LogFolder, lock: Lock, known: pa.Array, *, kept: Collection[str]) -> int:
    """Empty the rows with these known_at in full segments, which are sealed by that; how many there were. kept: columns that keep
    their values, beside known_at. At most one runs at a time, and no compaction beside it."""
    with files.mutex:
        manifest = files.in_force()
    remove_strays(files, manifest)
    last = max((s.number for s in manifest.segments[:-1] if holds(s, known)), default=0)
    erased = 0
    for segment in manifest.segments[:-1]:
        if segment.number > last or (segment.sealed and not holds(segment, known)):
            continue
        rows, count = emptied(files.folder, segment, files.schema(), known, kept=kept)
        if count or not segment.sealed:  # sealed ones are the first of the log, without gaps
            name = write_sealed(files.folder, name_anew(segment), rows, files.schema())
            checks = checks_of(files.folder / name)
            with lock(), files.mutex:
                _swap(files, segment._replace(file=name, checks=checks))
            erased += count
    with files.mutex:
        manifest = files.in_force()
    remove_strays(files, manifest)
    return erased


def holds(segment: Segment, known: pa.Array) -> bool:
    """Whether a full segment may hold one of the rows."""
    return bool(len(known)) and segment.rows != 0 and segment.meets(known[0].as_py() - 1, known[-1].as_py())


def name_anew(segment: Segment) -> str:
    """The name of a file for a segment that is written anew, and was none of its names before."""
    _, *times, _ = segment.file.split(".")
    return f"{segment.number:08d}.{int(times[0]) + 1 if times else 1}.parquet"


def emptied(
    folder: Path, segment: Segment, schema: pa.Schema, known: pa.Array, *, kept: Collection[str]
) -> tuple[pa.Table, int]:
    """The rows of a segment's file, those with these known_at emptied, and how many of these were not empty before."""
    rows = pa.Table.from_batches(read_segment(folder, segment, schema), schema)
    found = pc.is_in(rows[KNOWN_AT], known)
    were_there = pc.is_null(rows[KNOWN_AT])  # which none is
    for place, field in enumerate(rows.schema):
        if field.name != KNOWN_AT and field.name not in kept:
            were_there = pc.or_(were_there, pc.is_valid(rows[field.name]))
            rows = rows.set_column(place, field, pc.if_else(found, pa.scalar(None, field.type), rows[field.name]))
    return rows.combine_chunks(), pc.sum(pc.and_(found, were_there)).as_py() or 0


def _swap(files: LogFolder, anew: Segment) -> None:
    """Put a segment's new file in force, and leave no name to its older ones."""
    manifest = files.in_force()
    segments = tuple(anew if s.number == anew.number else s for s in manifest.segments)
    retired = tuple(r for r in manifest.retired if int(r.file.split(".")[0]) != anew.number)
    files.replace(manifest._replace(segments=segments, retired=retired))
