"""A frame: one append, as it lies in a segment file.

    offset  bytes
    0       4      "FSL1", or "FSL2" where a note follows the payload
    4       4      length of the payload and the note, a multiple of 8
    8       4      rows
    12      4      CRC-32 of the payload and the note
    16      8      known_at of the first row
    24      8      known_at of the last row
    32      4      CRC-32 of the segment's number, the frame's offset and the bytes above
    36      4      length of the note; zero in FSL1
    40      …      payload: one Arrow IPC record batch message, without its schema; then the note, and zeros up to a multiple of 8

Numbers are little-endian. Frames follow each other without gaps, each at a multiple of 8. One append is one frame, so
a crash leaves all of it or nothing that counts: what the note says of the rows is there if they are. The header's checksum covers where the frame lies (in FSL2 the length of the note, too): bytes that
were left over from elsewhere are no frame.
"""

from __future__ import annotations

import struct
import zlib
from itertools import pairwise
from typing import NamedTuple

from featurestore.lazy import pa

MAGIC = b"FSL1"
NOTED_MAGIC = b"FSL2"
ANY_MAGIC = MAGIC[:3]
FIELDS = struct.Struct("<4sIIIqq")
PLACE = struct.Struct("<QQ")
CHECK = struct.Struct("<II")
LENGTH = struct.Struct("<I")
HEADER = FIELDS.size + CHECK.size
SECTOR_BYTES = 512
"""Bytes that a disk writes at once: what a crash of the machine left unwritten is whole sectors of zeros."""


class LogFrame(NamedTuple):
    """Where a frame lies in its file, in bytes, which rows it holds, and its note."""

    offset: int
    size: int
    rows: int
    first: int
    last: int
    note: bytes = b""


class Scanned(NamedTuple):
    """The whole frames of a stretch of a file, the offset at which they end, and what follows there.

    after: "" for nothing, "torn" for an append that was never completed, "damaged" for bytes that have changed.
    """

    frames: list[LogFrame]
    end: int
    after: str


def encode(batch: pa.RecordBatch, number: int, offset: int, *, first: int, last: int, note: bytes = b"") -> bytes:
    """The bytes of a frame at an offset of segment `number`; first and last are the known_at of the batch's rows."""
    payload = memoryview(batch.serialize())
    tail = note + bytes(-len(note) % 8)
    check = zlib.crc32(tail, zlib.crc32(payload))
    fields = FIELDS.pack(NOTED_MAGIC if note else MAGIC, len(payload) + len(tail), batch.num_rows, check, first, last)
    head = CHECK.pack(_header_check(fields, number, offset, len(note)), len(note))
    return b"".join((fields, head, payload, tail))


def _header_check(fields: bytes | memoryview, number: int, offset: int, note: int) -> int:
    check = zlib.crc32(fields, zlib.crc32(PLACE.pack(number, offset)))
    return zlib.crc32(LENGTH.pack(note), check) if note else check


def _header(data: memoryview, at: int, number: int, offset: int) -> tuple[LogFrame, int] | None:
    """The frame whose header lies at `at` of data, which is `offset` of the file, and the length of its note; None where there is
    none."""
    if at + HEADER > len(data):
        return None
    magic, length, rows, _, first, last = FIELDS.unpack_from(data, at)
    check, note = CHECK.unpack_from(data, at + FIELDS.size)
    if magic == MAGIC:
        note = 0
    elif magic != NOTED_MAGIC or not note:
        return None
    if check != _header_check(data[at : at + FIELDS.size], number, offset, note):
        return None
    return LogFrame(offset, HEADER + length, rows, first, last), note


def scan(data: bytes, number: int, base: int) -> Scanned:
    """The frames in data, which lies at offset `base` of segment `number` and reaches to the end of the file."""
    view, frames, at = memoryview(data), [], 0
    while at < len(view):
        found = _header(view, at, number, base + at)
        if found is None:
            extent = at + HEADER
        else:
            frame, note = found
            extent = at + frame.size
            payload = view[at + HEADER : extent]
            if extent <= len(view) and zlib.crc32(payload) == FIELDS.unpack_from(view, at)[3]:
                begins = extent - note - -note % 8
                frames.append(frame._replace(note=bytes(view[begins : begins + note])))
                at = extent
                continue
        torn = extent > len(view) or _unwritten(view, at, extent)
        torn = torn and not _frame_follows(data, at + 1, number, base)
        return Scanned(frames, base + at, "torn" if torn else "damaged")
    return Scanned(frames, base + at, "")


def _unwritten(view: memoryview, start: int, stop: int) -> bool:
    """Whether a sector's share of a frame holds nothing but zeros."""
    cuts = [start, *range((start // SECTOR_BYTES + 1) * SECTOR_BYTES, stop, SECTOR_BYTES), stop]
    return any(not any(view[a:b]) for a, b in pairwise(cuts))


def _frame_follows(data: bytes, start: int, number: int, base: int) -> bool:
    """Whether any later bytes are the header of a frame: then an append was acknowledged after the one that is damaged."""
    view, at = memoryview(data), data.find(ANY_MAGIC, start)
    while at >= 0:
        if _header(view, at, number, base + at) is not None:
            return True
        at = data.find(ANY_MAGIC, at + 1)
    return False
