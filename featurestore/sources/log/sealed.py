"""Segments that are full: as frames until they are sealed, and then as Parquet, with the same rows in the same order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from featurestore.durable.checksums import BLOCK_BYTES, first_damage
from featurestore.durable.disk import sync, sync_folder
from featurestore.durable.parquet import storable
from featurestore.errors import LogDamagedError
from featurestore.lazy import pa, pq
from featurestore.plurals import plural
from featurestore.sources.log.manifest import Segment
from featurestore.sources.log.schema import KNOWN_AT
from featurestore.sources.log.segment import SegmentFile

ROW_GROUP_ROWS = 122_880
"""Rows: what DuckDB reads in one piece on one thread."""

PIECE_FRAMES = 256
"""Frames that are read at once: reading them, and giving them back, holds the interpreter for a few milliseconds."""


def read_segment(
    folder: Path, segment: Segment, schema: pa.Schema, *, after: int | None = None, upto: int | None = None
) -> list[pa.RecordBatch]:
    """The rows of a full segment with after < known_at ≤ upto, in order.

    FileNotFoundError where it was sealed since and deleted; LogDamagedError where it is not what the manifest says.
    """
    if segment.sealed:
        look_at(folder, [segment])
        return _read_parquet(folder / segment.file, schema, after, upto)
    with opened_segment(folder, segment) as file:
        return file.read(schema, after, upto)


def look_at(folder: Path, segments: Sequence[Segment]) -> None:
    """Make sure that sealed segments are what was written, down to the bit; what this process has looked at is not read again.

    FileNotFoundError where one was deleted; LogDamagedError where one has changed.
    """
    found = first_damage(
        [(folder / segment.file, segment.checks) for segment in segments if segment.checks is not None]
    )
    if found is not None:
        path, offset = found
        raise LogDamagedError(
            f"The push log is damaged in {path}, in the {BLOCK_BYTES:,} bytes from byte {offset} on: they are not what was written. "
            "Nothing was removed; restore the file from a copy."
        )


@contextmanager
def opened_segment(folder: Path, segment: Segment) -> Iterator[SegmentFile]:
    """A full segment's file of frames, which are what the manifest says."""
    file = SegmentFile(folder / segment.file, segment.number)
    try:
        followed = file.extend()
        if followed or (file.end, file.rows, file.last) != (segment.size, segment.rows, segment.last):
            raise LogDamagedError(
                f"The push log is damaged in {file.path} at byte {file.end}: the manifest says that it has "
                f"{segment.rows} {plural(segment.rows, 'row')} in {segment.size} {plural(segment.size, 'byte')}, and {file.rows} were found. Restore the file from a copy."
            )
        yield file
    finally:
        file.close()


def seal(folder: Path, segment: Segment, schema: pa.Schema, *, rest: Callable[[], object] = bool) -> str:
    """Write a full segment as Parquet, durably, beside its frames; returns the name of the file.

    rest: called every few milliseconds of reading, for which other threads have waited.
    """
    pieces = [schema.empty_table()]
    with opened_segment(folder, segment) as file:
        for piece in file.pieces(schema, PIECE_FRAMES):
            pieces.append(piece)
            rest()
    return write_sealed(folder, f"{segment.number:08d}.parquet", pa.concat_tables(pieces).combine_chunks(), schema)


def write_sealed(folder: Path, name: str, table: pa.Table, schema: pa.Schema) -> str:
    """Write the rows of a segment as Parquet, durably; returns the name of the file."""
    partial = folder / f"{name}.partial"
    pq.write_table(
        storable(table), partial, compression="zstd", row_group_size=ROW_GROUP_ROWS, write_page_checksum=True,
        use_dictionary=_texts(schema),
    )  # fmt: skip
    descriptor = os.open(partial, os.O_RDWR | os.O_CLOEXEC)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)
    partial.rename(folder / name)
    sync_folder(folder)
    return name


def _texts(schema: pa.Schema) -> list[str]:
    """The columns that get a dictionary. One of numbers, many of which differ, makes the file larger, and must be read as
    a whole for a single row."""
    return [field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_binary(field.type)]


def _read_parquet(path: Path, schema: pa.Schema, after: int | None, upto: int | None) -> list[pa.RecordBatch]:
    wanted = []
    if after is not None:
        wanted.append((KNOWN_AT, ">", after))
    if upto is not None:
        wanted.append((KNOWN_AT, "<=", upto))
    try:
        table = pq.read_table(path, filters=wanted or None, partitioning=None, page_checksum_verification=True)
    except FileNotFoundError:
        raise
    except (pa.ArrowInvalid, OSError) as error:
        raise LogDamagedError(f"The push log is damaged in {path}: {error}. Restore the file from a copy.") from error
    batches: list[pa.RecordBatch] = table.cast(schema).to_batches()
    return batches
