"""The copies on this machine of the sealed segments of a log in PostgreSQL: Parquet files in a folder, which DuckDB reads.

All processes of a machine share the folder. A copy that is missing or damaged is fetched again; one of a segment as it was before
rows of it were erased is deleted by the next reader.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from featurestore.durable.checksums import checks_of
from featurestore.durable.disk import error_of
from featurestore.durable.own_folder import own_folder
from featurestore.durable.postgresql import PostgreSQLConnection
from featurestore.durable.temporary import TemporaryFolder
from featurestore.errors import LogDamagedError
from featurestore.lazy import pa
from featurestore.sources.log.files import MAX_LOOKS, Found
from featurestore.sources.log.manifest import Segment
from featurestore.sources.log.sealed import look_at, write_sealed


class SegmentCopies:
    """The copies in a folder of the sealed segments of one log. log: its number in the database."""

    def __init__(self, folder: Path, log: int) -> None:
        self._folder, self._log = folder, log

    def path(self, segment: Segment) -> Path:
        """Where the copy of a sealed segment lies."""
        return self._folder / segment.file

    def copied(self, transaction: PostgreSQLConnection, sealed: Sequence[Segment]) -> Sequence[Segment]:
        """Sealed segments, of each of which there is a whole copy in the folder afterwards, and none as it was before rows of it were
        erased. FileNotFoundError where a process that has erased rows of one has deleted the copy again."""
        self.drop_older(sealed)
        for segment in sealed:
            place = self.path(segment)
            try:
                if place.exists():
                    with suppress(LogDamagedError, FileNotFoundError):
                        look_at(self._folder, [segment])
                        continue
                look = "SELECT data FROM push_segments WHERE log = ? AND number = ?"
                row = transaction.bytes_of(look, (self._log, segment.number)).fetchone()
                assert row is not None
                with self._beside() as folder:  # several processes may copy one at once
                    (folder / segment.file).write_bytes(row[0])
                    (folder / segment.file).rename(place)
                look_at(self._folder, [segment])
            except FileNotFoundError:
                raise
            except OSError as error:
                raise error_of(error, place) from error
        return sealed

    def looked(self, look: Callable[[], Found]) -> Found:
        """What a look at copies returns; it is made again where a copy that it found was deleted meanwhile, since another process of
        this machine erased rows of the segment, or has read it as it is after that."""
        for _ in range(MAX_LOOKS - 1):
            with suppress(FileNotFoundError):
                return look()
        try:
            return look()
        except FileNotFoundError as error:
            raise error_of(error, self._folder) from error

    def drop_older(self, sealed: Sequence[Segment]) -> None:
        """Delete the copies of segments as they were before rows of them were erased, and none of what they have become since."""
        erased = {f"{one.number:08d}": edition for one in sealed if (edition := edition_of(one.file))}
        try:
            for path in self._folder.glob("????????.*.parquet") if erased else ():
                if edition_of(path.name) < erased.get(path.name.split(".")[0], 0):
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise error_of(error, self._folder) from error

    def packed(self, name: str, rows: pa.Table, schema: pa.Schema) -> tuple[str, bytes]:
        """The checksums and the bytes of a Parquet file of rows, for the database to keep."""
        try:
            with self._beside() as folder:
                path = folder / write_sealed(folder, name, rows, schema)
                return checks_of(path), path.read_bytes()
        except OSError as error:
            raise error_of(error, self._folder) from error

    @contextmanager
    def _beside(self) -> Iterator[Path]:
        """A folder on the same disk as the copies, for a file until it is whole; where this process is killed, the next one removes it."""
        own_folder(self._folder)
        made = TemporaryFolder(self._folder)
        try:
            yield made.path
        finally:
            made.remove()


def edition_of(file: str) -> int:
    """The edition in the name of a segment's file."""
    return int(file.split(".")[1])


def segment_file(number: int, edition: int, *, sealed: bool) -> str:
    """What a segment's file is called, or would be."""
    return f"{number:08d}.{edition}.{'parquet' if sealed else 'frames'}"
