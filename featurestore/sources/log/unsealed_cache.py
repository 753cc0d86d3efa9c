"""The rows that are not sealed yet, as one process keeps them at hand: decoded once, not at each look.

Only a process that looks for single keys keeps them. They are as many as the segments that are not sealed hold.
"""

from __future__ import annotations

from pathlib import Path

from featurestore.lazy import pa
from featurestore.sources.log.manifest import LogManifest
from featurestore.sources.log.relation import numbered, tables_with
from featurestore.sources.log.sealed import read_segment
from featurestore.sources.log.segment import SegmentFile


class UnsealedCache:
    """The rows of a log's unsealed segments; to be used under the mutex of its files."""

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self._folder, self._schema = folder, schema
        self._full: dict[int, pa.Table] = {}
        self._open: list[pa.Table] = []  # see tables_with
        self._place: tuple[int, int] | None = None  # of `_open`: the segment's number, and how often the log was cut
        self._last: int | None = None  # known_at of the last row in it

    def tables(self, manifest: LogManifest, file: SegmentFile) -> list[pa.Table]:
        """The rows in order, with SEGMENT and ROW; one table at least."""
        unsealed = manifest.unsealed
        self._full = {
            segment.number: self._full[segment.number] for segment in unsealed if segment.number in self._full
        }
        for segment in unsealed:
            if segment.number not in self._full:
                batches = read_segment(self._folder, segment, self._schema)
                self._full[segment.number] = numbered(segment.number, batches, self._schema)
        self._extend(file)
        return [self._full[segment.number] for segment in unsealed] + self._open

    def _extend(self, file: SegmentFile) -> None:
        """Take in what was appended to the open segment since."""
        if self._place != (file.number, file.cuts):
            self._open, self._last, self._place = [], None, (file.number, file.cuts)
        elif self._last == file.last:
            return
        rows = sum(table.num_rows for table in self._open)
        new = numbered(file.number, file.read(self._schema, self._last), self._schema, first=rows)
        self._open = tables_with(self._open, new)
        self._last = file.last
