"""A segment that is not sealed yet: a file of frames, and where its frames lie."""

from __future__ import annotations

import os
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from pathlib import Path

from featurestore.durable.disk import open_file, sync, write_all
from featurestore.lazy import pa
from featurestore.sources.log.frame import HEADER, Scanned, encode, scan
from featurestore.sources.log.positions import Moves, Positions


class SegmentCutError(Exception):
    """Bytes are no longer where they were: an append that was never acknowledged was cut off since. Look again."""


class SegmentFile:
    """The frames of a segment as far as they were looked at; its index grows as the file does.

    end: where the last whole frame ends, in bytes. rows: how many they hold. first, last: known_at of the first and
    last row, None while there is none. cuts: how often the log had been cut when the index was begun. positions: those that its
    frames' notes say.
    """

    def __init__(self, path: Path, number: int, cuts: int = 0) -> None:
        self.path = path
        self.number = number
        self._descriptor = open_file(path)
        self.forget(cuts)

    def forget(self, cuts: int) -> None:
        """Begin the index anew."""
        self.cuts = cuts
        self.end = self.rows = 0
        self.first: int | None = None
        self.positions = Positions()
        self._offsets, self._lasts = array("q"), array("q")

    @property
    def last(self) -> int | None:
        """known_at of the last row."""
        return self._lasts[-1] if self._lasts else None

    def extend(self) -> str:
        """Index what was written since; returns what follows the last whole frame, as `Scanned.after` has it."""
        there = os.fstat(self._descriptor).st_size
        if there < self.end:
            self.forget(self.cuts)
        if there == self.end:
            return ""
        scanned = scan(self._bytes(self.end, there), self.number, self.end)
        self._add(scanned)
        return scanned.after

    def _add(self, scanned: Scanned) -> None:
        for frame in scanned.frames:
            if self.first is None:
                self.first = frame.first
            self._offsets.append(frame.offset)
            self._lasts.append(frame.last)
            self.rows += frame.rows
            if frame.note:
                self.positions = self.positions.after(Moves.decode(frame.note))
        self.end = scanned.end

    def append(self, batch: pa.RecordBatch, *, first: int, last: int, moves: Moves | None = None) -> None:
        """Write a batch behind the last whole frame, durably; OSError leaves bytes there that `cut` removes. moves: of the streams
        that its rows come from."""
        note = b"" if moves is None else moves.encode()
        data = encode(batch, self.number, self.end, first=first, last=last, note=note)
        write_all(self._descriptor, data, self.end)
        sync(self._descriptor)
        if self.first is None:
            self.first = first
        self._offsets.append(self.end)
        self._lasts.append(last)
        self.rows += batch.num_rows
        self.end += len(data)
        if moves is not None:
            self.positions = self.positions.after(moves)

    def last_until(self, upto: int) -> int | None:
        """known_at of the last row of the frames that `keep` keeps; None where that is none."""
        count = bisect_right(self._lasts, upto)
        return self._lasts[count - 1] if count else None

    def keep(self, upto: int) -> None:
        """Leave the frames out of the index whose last row is known after an instant; `cut` removes them."""
        count = bisect_right(self._lasts, upto)
        if count < len(self._lasts):
            self.end = self._offsets[count]
            del self._offsets[count:], self._lasts[count:]
            self.rows = sum(frame.rows for frame in scan(self._bytes(0, self.end), self.number, 0).frames)
            self.first = self.first if count else None

    def cut(self) -> None:
        """Cut off what follows the last whole frame."""
        os.ftruncate(self._descriptor, self.end)
        sync(self._descriptor)

    def sync(self) -> None:
        """Return when all frames are on the disk."""
        sync(self._descriptor)

    def read(self, schema: pa.Schema, after: int | None = None, upto: int | None = None) -> list[pa.RecordBatch]:
        """The rows with after < known_at ≤ upto, in order; only the bytes of their frames are read."""
        start = 0 if after is None else bisect_right(self._lasts, after)
        stop = len(self._lasts) if upto is None else min(len(self._lasts), bisect_left(self._lasts, upto) + 1)
        batches = self._batches(schema, start, stop)
        return [part for batch in batches if (part := between(batch, after, upto)).num_rows]

    def pieces(self, schema: pa.Schema, frames: int) -> Iterator[pa.Table]:
        """All rows in order, those of so many frames at a time."""
        for start in range(0, len(self._lasts), frames):
            batches = self._batches(schema, start, min(start + frames, len(self._lasts)))
            yield pa.Table.from_batches(batches, schema).combine_chunks()

    def _batches(self, schema: pa.Schema, start: int, stop: int) -> list[pa.RecordBatch]:
        """The frames by number from `start` up to `stop`; only their bytes are read."""
        if start >= stop:
            return []
        begin = self._offsets[start]
        end = self._offsets[stop] if stop < len(self._offsets) else self.end
        data = self._bytes(begin, end)
        scanned = scan(data, self.number, begin)
        if [(f.offset, f.last) for f in scanned.frames] != list(
            zip(self._offsets[start:stop], self._lasts[start:stop], strict=True)
        ):
            self.forget(self.cuts)
            raise SegmentCutError
        view = pa.py_buffer(data)
        return [
            pa.ipc.read_record_batch(view.slice(f.offset - begin + HEADER, f.size - HEADER), schema)
            for f in scanned.frames
        ]

    def whole(self) -> bytes:
        """All of its whole frames, as they lie in the file."""
        return self._bytes(0, self.end)

    def _bytes(self, start: int, stop: int) -> bytes:
        """What lies between two offsets; the system may give less than asked for at once."""
        parts = []
        while start < stop and (part := os.pread(self._descriptor, stop - start, start)):
            parts.append(part)
            start += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Give the descriptor up, whose number is another file's from then on."""
        os.close(self._descriptor)
        self._descriptor = -1


def between(batch: pa.RecordBatch, after: int | None, upto: int | None) -> pa.RecordBatch:
    """The rows of a batch with after < known_at ≤ upto."""
    known = batch.column("known_at").to_numpy()
    start = 0 if after is None else int(known.searchsorted(after, side="right"))
    stop = batch.num_rows if upto is None else int(known.searchsorted(upto, side="right"))
    return batch if stop - start == batch.num_rows else batch.slice(start, max(0, stop - start))
