"""A file of a few numbers and their CRC-32, written over in place and never synced: exact within one run of the machine."""

from __future__ import annotations

import errno
import os
import struct
import zlib
from pathlib import Path

from featurestore.durable.disk import open_file, write_all

CHECK = struct.Struct("<I")
LOOKS = 3
"""Times that a reader looks, who may come between two halves of a write."""


class NumbersFile:
    """The file, which is made where it is missing and anything can be written; layout: the numbers as `struct` has them."""

    def __init__(self, path: Path, layout: str) -> None:
        self._layout = struct.Struct(layout)
        self._descriptor: int | None = None
        try:
            self._descriptor = open_file(path, create=True)
        except OSError as error:
            if error.errno != errno.EROFS:  # there it is of a folder that nobody writes to, and says nothing
                raise

    def read(self) -> tuple[int, ...] | None:
        """The numbers, or None where none were written or a crash of the machine spoiled them."""
        size = self._layout.size + CHECK.size
        for _ in range(LOOKS):
            if self._descriptor is None:
                break
            data = os.pread(self._descriptor, size, 0)
            if len(data) == size and CHECK.unpack(data[-CHECK.size :])[0] == zlib.crc32(data[: -CHECK.size]):
                return self._layout.unpack(data[: -CHECK.size])
        return None

    def write(self, numbers: tuple[int, ...]) -> None:
        """Put numbers in the place of those before; under a lock, which says that the folder can be written.

        OSError where it was closed: its descriptor may be another file's by now.
        """
        if self._descriptor is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        data = self._layout.pack(*numbers)
        write_all(self._descriptor, data + CHECK.pack(zlib.crc32(data)), 0)

    def close(self) -> None:
        """Give the descriptor up."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
