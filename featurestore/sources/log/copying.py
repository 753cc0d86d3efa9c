"""A copy of a log, taken beside those who append to it, seal it and read it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from featurestore.durable.disk import write_all
from featurestore.durable.numbers_file import NumbersFile
from featurestore.errors import LogDamagedError
from featurestore.sources.log.files import CONFIRMED_LAYOUT, POINTER_LAYOUT, CommitPointer, LogFolder
from featurestore.sources.log.log import Confirmed
from featurestore.sources.log.manifest import LogManifest, ManifestFile
from featurestore.sources.log.sealed import look_at, opened_segment
from featurestore.sources.log.segment import SegmentCutError, SegmentFile

RETURNS = "returns"


def copy_log(files: LogFolder, place: Path) -> None:
    """Write the log as it is by now into a folder that is to be made: every append that was acknowledged before, whole.

    Nobody waits for it. What is in force is read together; full segments never change, and where one was sealed and deleted
    meanwhile, all is looked at again. LogDamagedError where the log is damaged.
    """

    def use(manifest: LogManifest, file: SegmentFile) -> Callable[[], None]:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        positions = files.positions_file.content()
        file.extend()
        if files.positions_file.content() != positions or files.in_force() is not manifest:
            raise SegmentCutError  # the positions are to be those of the rows, neither more nor less
        whole = file.whole()

        def finish() -> None:
            last = place / manifest.open.file
            with last.open("wb", buffering=0) as copy:
                write_all(copy.fileno(), whole, 0)
            for segment in manifest.segments[:-1]:
                shutil.copyfile(files.folder / segment.file, place / segment.file)
            ManifestFile(place / "manifest.json").write(manifest._replace(retired=()))
            _look_at(manifest, files.folder, place)
            _check_open(last, manifest.open.number, len(whole))
            if positions is not None:
                (place / files.positions_file.path.name).write_bytes(positions)
            _write(place / "tip", POINTER_LAYOUT, CommitPointer(manifest.open.number, len(whole)))

        return finish

    files.looked(use)
    with_returns = files.folder / RETURNS
    if with_returns.exists():
        shutil.copyfile(with_returns, place / RETURNS)
    confirmed = files.confirmed()  # last: every instant that a row was confirmed by lies before it
    if confirmed != Confirmed():
        _write(place / "confirmed", CONFIRMED_LAYOUT, confirmed)


def _look_at(manifest: LogManifest, folder: Path, place: Path) -> None:
    """LogDamagedError where a full segment of the copy is not what was written."""
    try:
        for segment in manifest.segments[:-1]:
            if segment.sealed:
                look_at(place, [segment])
            else:
                with opened_segment(place, segment):
                    pass
    except LogDamagedError as error:
        raise LogDamagedError(str(error).replace(str(place), str(folder))) from None


def _check_open(path: Path, number: int, size: int) -> None:
    """The bytes are frames still: none of them was cut off, and written over, while they were read."""
    file = SegmentFile(path, number)
    try:
        if file.extend() or file.end != size:
            raise SegmentCutError
    finally:
        file.close()


def _write(path: Path, layout: str, numbers: tuple[int, ...]) -> None:
    file = NumbersFile(path, layout)
    try:
        file.write(numbers)
    finally:
        file.close()
