"""The manifest: the files of a log that are in force, in order; replaced as a whole whenever that changes."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import NamedTuple

import orjson

from featurestore.durable.checksums import CHECK, encoded, unsigned
from featurestore.durable.disk import replace
from featurestore.errors import LogDamagedError, LogError
from featurestore.lazy import pa

VERSION = 2
"""2: with checksums of its own words and of sealed segments. 1, which has none, is still read."""


class Segment(NamedTuple):
    """A file of the log. The last one is open: its rows, first, last and size are None.

    number: 1, 2, …; stays when the segment is sealed. first, last: known_at of its first and last row. checks: those of a
    sealed one's file, see `checks_of`; None where it was sealed without.
    """

    number: int
    file: str
    rows: int | None = None
    first: int | None = None
    last: int | None = None
    size: int | None = None
    checks: str | None = None

    @property
    def sealed(self) -> bool:
        """Whether it is a Parquet file."""
        return self.file.endswith(".parquet")

    def meets(self, after: int | None, upto: int | None) -> bool:
        """Whether a full segment has rows with after < known_at ≤ upto, or at least may have."""
        assert self.first is not None
        assert self.last is not None
        return (after is None or self.last > after) and (upto is None or self.first <= upto)


class Retired(NamedTuple):
    """A file that is no longer in force, and since when, in µs since the epoch; readers may still have it in hand."""

    file: str
    since: int


class LogManifest(NamedTuple):
    """What is in force. The segments' rows are strictly increasing in known_at, over all of them. columns: the schema of the
    rows as Arrow packs it, in base64."""

    columns: str
    segments: tuple[Segment, ...]
    retired: tuple[Retired, ...] = ()

    @classmethod
    def of(cls, schema: pa.Schema) -> LogManifest:
        """That of a log without a segment."""
        return cls(base64.b64encode(schema.serialize()).decode(), ())

    @property
    def schema(self) -> pa.Schema:
        """The schema of the rows."""
        return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(self.columns)))

    @property
    def open(self) -> Segment:
        """The segment that is appended to."""
        return self.segments[-1]

    @property
    def unsealed(self) -> tuple[Segment, ...]:
        """The segments that are full and not sealed yet, oldest first."""
        return tuple(segment for segment in self.segments[:-1] if not segment.sealed)

    def encode(self) -> bytes:
        """As it is written."""
        return encoded(
            {
                "version": VERSION,
                "schema": self.columns,
                "segments": [segment._asdict() for segment in self.segments],
                "retired": [retired._asdict() for retired in self.retired],
            },
            indent=True,
        )


class ManifestFile:
    """The manifest of a folder, read again only when another was put in its place."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None  # stays open, so that no other file can get the same number
        self._manifest: LogManifest | None = None

    def read(self) -> LogManifest | None:
        """The manifest in force, or None where there is none."""
        try:
            there = self.path.stat()
        except FileNotFoundError:
            return None
        if self._descriptor is not None and os.path.samestat(os.fstat(self._descriptor), there):
            return self._manifest
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        self.close()
        self._descriptor = descriptor
        self._manifest = self._decode(os.pread(descriptor, os.fstat(descriptor).st_size, 0))
        return self._manifest

    def write(self, manifest: LogManifest) -> None:
        """Put a manifest in the place of the one before, durably and at once."""
        replace(self.path, manifest.encode())

    def close(self) -> None:
        """Give the descriptor up."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = self._manifest = None

    def _decode(self, data: bytes) -> LogManifest:
        try:
            read = orjson.loads(data)
            if read["version"] not in {1, VERSION}:
                raise LogError(
                    f"{self.path} is of version {read['version']}; this program reads version {VERSION}. "
                    "Use the program that wrote it, or a newer one."
                )
            if read["version"] != 1 or CHECK in read:
                read = unsigned(read)
            return LogManifest(
                read["schema"],
                tuple(Segment(**segment) for segment in read["segments"]),
                tuple(Retired(**retired) for retired in read["retired"]),
            )
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise self.damaged(error) from error

    def damaged(self, error: Exception) -> LogDamagedError:
        """What to raise where the file says nothing that can be read."""
        return LogDamagedError(
            f"The push log is damaged in {self.path}, which says what is in force: {error}. Restore the file from a copy."
        )
