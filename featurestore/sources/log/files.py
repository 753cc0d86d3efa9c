"""The files of a log as one process sees them: which are in force, and how far the open one is whole.

Two of them hold numbers, which are written under the log's lock and never synced: within one run of the machine they are exact.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from featurestore.durable.disk import sync_folder
from featurestore.durable.forks import mutex
from featurestore.durable.lock import LOCK_WAIT_SECONDS, exclusive
from featurestore.durable.numbers_file import NumbersFile
from featurestore.durable.own_folder import SameFolder, own_folder
from featurestore.errors import LogDamagedError, LogError
from featurestore.lazy import pa
from featurestore.sources.log.log import NEVER, Confirmed
from featurestore.sources.log.manifest import LogManifest, ManifestFile, Segment
from featurestore.sources.log.positions import Moves, Positions, PositionsFile
from featurestore.sources.log.schema import KNOWN_AT
from featurestore.sources.log.segment import SegmentCutError, SegmentFile

MAX_LOOKS = 50  # times that a reader looks again
LOOK_SECONDS = 0.01  # seconds between two of them

POINTER_LAYOUT, CONFIRMED_LAYOUT = "<QQQ", "<qq"
"""The numbers in the files `tip` and `confirmed`, as `struct` has them."""

Found = TypeVar("Found")


class CommitPointer(NamedTuple):
    """The end of the last acknowledged append: the number of the last segment, its acknowledged bytes, and how often bytes
    were cut off the log's end.

    After a crash of the machine it may be behind, never ahead, because the segment is synced first. So it spares the next
    appender a look at what is known to be whole, and bytes before it that are no frame are damage and never a torn tail.
    """

    number: int = 0
    size: int = 0
    cuts: int = 0

    def acknowledged(self, number: int) -> int:
        """How many bytes of a segment were certainly acknowledged."""
        return self.size if self.number == number else 0


def _read(manifest: ManifestFile) -> LogManifest:
    found = manifest.read()
    if found is None:
        raise LogError(f"{manifest.path} has vanished; restore it from a copy.")
    return found


class LogFolder:
    """The folder of a log; made, with its first segment, where it is missing.

    mutex: held by a thread that uses what is remembered here. A process that changes a file holds the log's lock besides.
    """

    def __init__(
        self, folder: Path, schema: Callable[[], pa.Schema], *, wait_seconds: float = LOCK_WAIT_SECONDS
    ) -> None:
        self.folder = folder
        self.lock = folder / "lock"
        self.mutex = mutex()
        self._file: SegmentFile | None = None
        self._manifest = ManifestFile(folder / "manifest.json")
        begun = None if self._manifest.read() is not None else LogManifest.of(schema())
        own_folder(folder)
        self._pointer = NumbersFile(folder / "tip", POINTER_LAYOUT)
        self._confirmed = NumbersFile(folder / "confirmed", CONFIRMED_LAYOUT)
        self.positions_file = PositionsFile(folder)
        if begun is not None:
            with exclusive(self.lock, doing="making the log", wait_seconds=wait_seconds):
                if self._manifest.read() is None:
                    sync_folder(folder.parent)
                    self._begin(1, begun)
        self._itself = SameFolder(folder)

    def close(self) -> None:
        """Give the descriptors up."""
        with self.mutex:
            self._manifest.close()
            self._pointer.close()
            self._confirmed.close()
            self._itself.close()
            if self._file is not None:
                self._file.close()
                self._file = None

    def check_same(self) -> None:
        """LogError where the folder is not the one that was opened: what is remembered of it, and the files that are open, are of
        another log, perhaps of one that was deleted."""
        if not self._itself.is_there():
            raise LogError(
                f"The push log in {self.folder} is not the one that this process began with: its folder was removed, or another was put "
                "in its place. Put the one back that was there, or start this process again to go on with what is there now"
            )

    def in_force(self) -> LogManifest:
        """The manifest as it is now; under the mutex."""
        return _read(self._manifest)

    def schema(self) -> pa.Schema:
        """The columns that the log began with; under the mutex or not."""
        own = ManifestFile(self._manifest.path)  # what is asked once needs nothing that threads share
        try:
            return _read(own).schema
        except (TypeError, ValueError, OSError, pa.ArrowException) as error:
            raise own.damaged(error) from error
        finally:
            own.close()

    def replace(self, manifest: LogManifest) -> None:
        """Put another manifest in force, durably."""
        self._manifest.write(manifest)

    def pointer(self) -> CommitPointer:
        """How far the log was acknowledged, as far as this run of the machine knows."""
        return CommitPointer(*self._pointer.read() or ())

    @property
    def open(self) -> SegmentFile:
        """The segment that is appended to; under the lock, after `recover`."""
        assert self._file is not None
        return self._file

    def last(self, manifest: LogManifest, file: SegmentFile) -> int | None:
        """known_at of the log's last row, None while there is none."""
        if file.last is not None:
            return file.last
        return manifest.segments[-2].last if len(manifest.segments) > 1 else None

    def looked(self, use: Callable[[LogManifest, SegmentFile], Callable[[], Found]]) -> Found:
        """Call `use` with what is in force, under the mutex, and then what it returns; again where files have moved.

        Without the lock, a look may come between the halves of a write, between a cut and the next append, or after
        a file was deleted. None of these lasts.
        """
        for look in range(MAX_LOOKS):
            try:
                with self.mutex:
                    self.check_same()
                    manifest, pointer = self.in_force(), self.pointer()
                    file = self._current(manifest, pointer.cuts)
                    if file.extend() == "damaged" or file.end < pointer.acknowledged(file.number):
                        self._look_again(file, last=look == MAX_LOOKS - 1)
                    finish = use(manifest, file)
                return finish()
            except (SegmentCutError, FileNotFoundError) as error:
                if look == MAX_LOOKS - 1:
                    raise LogError(f"The push log in {self.folder} cannot be read: {error!r}.") from error
                time.sleep(LOOK_SECONDS if isinstance(error, SegmentCutError) else 0)
        raise AssertionError

    def _look_again(self, file: SegmentFile, *, last: bool) -> None:
        if last:
            raise self._damaged(file)
        file.forget(file.cuts)
        raise SegmentCutError

    def _current(self, manifest: LogManifest, cuts: int) -> SegmentFile:
        """The open segment, with an index that holds for the log as it was cut so often."""
        if self._file is None or self._file.number != manifest.open.number:
            if self._file is not None:
                self._file.close()
                self._file = None
            self._file = SegmentFile(self.folder / manifest.open.file, manifest.open.number, cuts)
        elif self._file.cuts != cuts:
            self._file.forget(cuts)
        return self._file

    def _damaged(self, file: SegmentFile) -> LogDamagedError:
        return LogDamagedError(
            f"The push log is damaged in {file.path} at byte {file.end}: what was acknowledged there is missing or has "
            "changed. Nothing was removed; restore the file from a copy."
        )

    # What follows is called under the log's lock.

    def confirmed(self) -> Confirmed:
        """What was ever confirmed of the log."""
        return Confirmed(*self._confirmed.read() or ())

    def confirm(self, *, written: int = NEVER, served: int = NEVER) -> None:
        """Remember what is confirmed, where it is more than before."""
        before = self.confirmed()
        after = Confirmed(max(before.written, written), max(before.served, served))
        if after != before:
            self._confirmed.write(after)

    def confirm_only(self, upto: int) -> None:
        """Forget what was confirmed beyond an instant."""
        before = self.confirmed()
        self._confirmed.write(Confirmed(min(before.written, upto), min(before.served, upto)))

    # What follows is called under the mutex, too.

    def recover(self) -> None:
        """Cut off what a dead appender left unfinished, and make sure that the rest is on the disk."""
        self.check_same()
        pointer = self.pointer()
        file = self._current(self.in_force(), pointer.cuts)
        followed = file.extend()
        acknowledged = pointer.acknowledged(file.number)
        if followed == "damaged" or file.end < acknowledged:
            file.forget(pointer.cuts)  # the index may be what is wrong
            followed = file.extend()
            if followed == "damaged" or file.end < acknowledged:
                raise self._damaged(file)
        if followed == "torn":
            self._cut(file)
        if acknowledged != file.end:
            file.sync()  # its writer may have died before it did
        if pointer != (file.number, file.end, file.cuts):
            self._pointer.write(CommitPointer(file.number, file.end, file.cuts))

    def positions(self) -> Positions:
        """How far streams were read, as of the rows that are there."""
        return self.positions_file.read().with_later(self.open.positions)

    def move(self, moves: Moves) -> None:
        """Note a change without rows, durably."""
        before = self.positions()
        self.positions_file.write(before.after(moves._replace(number=before.number + 1)))

    def append(self, table: pa.Table, moves: Moves | None = None) -> None:
        """Write one frame with the rows of a table, durably; where that fails nothing of it stays. moves: how far the streams were
        read that they come from."""
        file, known = self.open, table.column(KNOWN_AT)
        batch = table.combine_chunks().to_batches()[0]
        if moves is not None:
            moves = moves._replace(number=self.positions().number + 1)
        try:
            file.append(batch, first=known[0].as_py(), last=known[-1].as_py(), moves=moves)
        except BaseException:
            self._cut(file)
            raise
        self._pointer.write(CommitPointer(file.number, file.end, file.cuts))

    def _cut(self, file: SegmentFile) -> None:
        """Cut off what is no acknowledged frame; readers hear of it first, lest they take what comes next for it."""
        pointer = self.pointer()
        self._pointer.write(pointer._replace(cuts=pointer.cuts + 1))
        file.cuts = pointer.cuts + 1
        file.cut()

    def take_back(self, upto: int) -> None:
        """Cut off the appends with rows known after an instant; killed in the middle, they are there still."""
        self._carry_positions()  # rows that are taken back are in somebody's hands, who pushes them again
        file, pointer = self.open, self.pointer()
        file.keep(upto)
        file.cuts = pointer.cuts + 1
        self._pointer.write(CommitPointer(file.number, file.end, file.cuts))
        file.cut()

    def roll(self) -> None:
        """Take the open segment for full and begin the next."""
        self._carry_positions()
        file, manifest = self.open, self.in_force()
        full = manifest.open._replace(rows=file.rows, first=file.first, last=file.last, size=file.end)
        self._begin(file.number + 1, manifest._replace(segments=(*manifest.segments[:-1], full)))

    def _carry_positions(self) -> None:
        """Keep what notes of the open segment say, which nobody looks for there any more."""
        if self.open.positions.number:
            self.positions_file.write(self.positions())

    def _begin(self, number: int, manifest: LogManifest) -> None:
        segment = Segment(number, f"{number:08d}.log")
        path = self.folder / segment.file
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644))
        sync_folder(self.folder)
        self.replace(manifest._replace(segments=(*manifest.segments, segment)))
        cuts = self.pointer().cuts
        self._current(self.in_force(), cuts)
        self._pointer.write(CommitPointer(number, 0, cuts))
