"""The tip: up to where the last segment was acknowledged, for the processes that share a log.

It is written after each append and never synced. Within one run of the machine it is exact; after a crash of the
machine it may be behind, never ahead, because the segment is synced first. So it spares the next appender a look
at what is known to be whole, and bytes before it that are no frame are damage and never a torn tail.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

from featurestore.durable.writes import open_file, write_all

__all__ = ["CommitPointer", "CommitPointerFile"]

FIELDS = struct.Struct("<QQQI")


class CommitPointer(NamedTuple):
    """The number of the last segment, its acknowledged bytes, and how often bytes were cut off the log's end."""

    number: int = 0
    size: int = 0
    cuts: int = 0

    def acknowledged(self, number: int) -> int:
        """How many bytes of a segment were certainly acknowledged."""
        return self.size if self.number == number else 0


class CommitPointerFile:
    """The file that holds the tip."""

    def __init__(self, path: Path) -> None:
        self._descriptor = open_file(path, create=True)

    def read(self) -> CommitPointer | None:
        """The tip, or None where none was written or a crash of the machine spoiled it."""
        for _ in range(3):  # a reader may come between two halves of a write
            data = os.pread(self._descriptor, FIELDS.size, 0)
            if len(data) == FIELDS.size:
                *fields, check = FIELDS.unpack(data)
                if check == zlib.crc32(data[:-4]):
                    return CommitPointer(*fields)
        return None

    def write(self, tip: CommitPointer) -> None:
        """Put a tip in the place of the one before."""
        fields = FIELDS.pack(*tip, 0)[:-4]
        write_all(self._descriptor, fields + struct.pack("<I", zlib.crc32(fields)), 0)

    def close(self) -> None:
        """Give the descriptor up."""
        os.close(self._descriptor)
