"""What was ever confirmed of a log: the instants beyond which the known_at of every later row has to lie.

It lies beside the log and not in the online store, which may come back older and with a clock that is behind. It is
written under the log's lock and never synced: within one run of the machine it is exact.
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

from featurestore.durable.writes import open_file, write_all

__all__ = ["NEVER", "Confirmed", "ConfirmedFile"]

FIELDS = struct.Struct("<qqI")
NEVER = -(1 << 63)


class Confirmed(NamedTuple):
    """written: the greatest instant that was to be confirmed in the online store. served: the greatest that any answer
    was for, as far as whoever has the log at hand vouched for it. µs."""

    written: int = NEVER
    served: int = NEVER


class ConfirmedFile:
    """The file that holds it; made where it is missing and anything can be written."""

    def __init__(self, path: Path) -> None:
        self._descriptor: int | None = None
        try:
            self._descriptor = open_file(path, create=True)
        except OSError as error:
            if error.errno != errno.EROFS:  # of a log of before, that nobody writes to
                raise

    def read(self) -> Confirmed:
        """What was confirmed; nothing where a crash of the machine spoiled it."""
        data = b"" if self._descriptor is None else os.pread(self._descriptor, FIELDS.size, 0)
        if len(data) == FIELDS.size:
            written, served, check = FIELDS.unpack(data)
            if check == zlib.crc32(data[:-4]):
                return Confirmed(written, served)
        return Confirmed()

    def write(self, confirmed: Confirmed) -> None:
        """Put it in the place of what was there before."""
        assert self._descriptor is not None  # the log's lock is held, which is written to
        fields = FIELDS.pack(*confirmed, 0)[:-4]
        write_all(self._descriptor, fields + struct.pack("<I", zlib.crc32(fields)), 0)

    def close(self) -> None:
        """Give the descriptor up."""
        if self._descriptor is not None:
            os.close(self._descriptor)
