"""The files of the serving log: how they are called, how one appears, and which of them count.

A file's name ends with a checksum of all its bytes, so that a reader can tell whether they are what was written. Those
of an earlier version have none.

A merged file (see `serving.log.upkeep`) says in its metadata which files it replaces. They stay for a while, for readers that
listed them before; a reader that lists the files now leaves them out.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

from featurestore.durable.checksums import check_of, is_whole
from featurestore.durable.disk import sync
from featurestore.durable.own_folder import own_folder
from featurestore.durable.parquet import storable
from featurestore.lazy import pa, pq
from featurestore.sources.object_stores import readable

HOUR_US = 3_600_000_000
"""µs: what is merged into one file."""

REPLACES = b"featurestore.replaces"
"""The metadata key of a merged file under which the names of the files that it replaces stand, as a JSON list."""

NAME = re.compile(r"[0-9]{1,19}-[0-9]{1,19}-.+\.parquet")
"""How a file of the log is called; any other beside them is somebody else's."""

MERGED = "merged"
FOUND = ("request", "time")
"""Columns by which rows are looked for."""


class ServedSegment(NamedTuple):
    """A file by its name: the first and the last time of its rows (µs), and whether it was merged of others."""

    path: Path
    first: int
    last: int
    merged: bool

    @property
    def hour(self) -> int:
        """The hour in which its first row was served, counted from 1970."""
        return self.first // HOUR_US

    def is_within(self, since: int | None, until: int | None) -> bool:
        """Whether it may have rows from `since` on and before `until` (µs); None: no bound."""
        return (since is None or self.last >= since) and (until is None or self.first < until)

    @classmethod
    def of(cls, path: Path) -> ServedSegment:
        """What the name says."""
        first, last, by, *_ = path.name.split("-")
        return cls(path, int(first), int(last), by == MERGED)


def segment_name(first: int, last: int, by: str) -> str:
    """The name of a segment with rows from `first` to `last` (µs), which `appearing` puts the checksum into."""
    return f"{first}-{last}-{by}.parquet"


def merged_name(first: int, last: int, mark: str) -> str:
    """The name of a merged file."""
    return segment_name(first, last, f"{MERGED}-{mark}")


@contextmanager
def appearing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that appears all at once: it is whole then, and on the disk, and its name ends with its checksum.
    Raises OSError."""
    own_folder(path.parent)
    made = path.with_name(f".{path.name}")
    try:
        with made.open("wb") as file:
            yield file
            file.flush()
            sync(file.fileno())
        os.replace(made, path.with_suffix(f".{check_of(made)}{path.suffix}"))  # noqa: PTH105 - atomic, and named so
    finally:
        with suppress(OSError):
            made.unlink()


def is_sound(path: Path) -> bool:
    """Whether a file is what was written, as far as its name can tell. Raises FileNotFoundError."""
    _, *checks, _ = path.name.split(".")
    try:
        return all(is_whole(path, check) for check in checks)
    except FileNotFoundError:
        raise
    except OSError:  # the disk cannot read it
        return False


def write_quickly(table: pa.Table, into: Any) -> None:
    """Encode a segment: with dictionaries of texts and statistics by which requests are found, and no more, because the
    processors are shared with lookups. Merged files are smaller."""
    texts = [field.name for field in table.schema if pa.types.is_string(field.type)]
    found = [name for name in FOUND if name in table.column_names]
    pq.write_table(
        storable(table),
        into,
        compression="snappy",
        use_dictionary=texts,
        write_statistics=found,
        row_group_size=table.num_rows,
    )


def segments(
    folder: Path, *, service: str | None = None, since: int | None = None, until: int | None = None
) -> dict[tuple[str, str], list[Path]]:
    """The segments of each service version, by (service, fingerprint), oldest first, every row in one of them.

    since, until: µs; without those that have no row from `since` on, or before `until`.
    """
    found: dict[tuple[str, str], list[Path]] = {}
    for version in sorted(folder.glob("*/*/")):
        if service not in {None, version.parent.name}:
            continue
        files = [file.path for file in live(version) if file.is_within(since, until)]
        if files:
            found[version.parent.name, version.name] = files
    return found


def live(version: Path) -> list[ServedSegment]:
    """The files of one service version that count, oldest first."""
    files = listed(version)
    gone = replaced(files)
    return [file for file in files if file.path.name not in gone]


def listed(version: Path) -> list[ServedSegment]:
    """All files of one service version, oldest first."""
    files = (ServedSegment.of(path) for path in version.glob("[0-9]*.parquet") if NAME.fullmatch(path.name))
    return sorted(files, key=lambda file: (file.first, file.path.name))


def replaced(files: Sequence[ServedSegment], of: Callable[[ServedSegment], bool] = lambda _: True) -> set[str]:
    """The names of files that merged ones among them, such as `of` says, stand for. Those that are alone in their hour are
    not looked into."""
    hours = Counter(file.hour for file in files)
    return {name for file in files if file.merged and hours[file.hour] > 1 and of(file) for name in replaced_by(file)}


def replaced_by(file: ServedSegment) -> set[str]:
    """The names of the files that a merged one stands for; none where it is gone, or damaged: they count again then, those
    that are still there."""
    try:
        return replaced_in(file.path) if is_sound(file.path) else set()
    except FileNotFoundError:
        return set()


def replaced_in(place: Path | str) -> set[str]:
    """What a merged file says that it stands for, of one in an object store by its URL; nothing where it is damaged. Raises
    FileNotFoundError, ObjectStoreError."""
    try:
        metadata = pq.read_schema(place if isinstance(place, Path) else readable(place)).metadata or {}
    except pa.ArrowException:
        return set()
    return set(json.loads(metadata.get(REPLACES, b"[]")))


def rows_served(folder: Path, service: str, fingerprint: str, *, since: int) -> int:
    """The rows of a service version that lie in the serving log from `since` (µs) on, to a segment.

    Segments that cannot be read are not counted: a plan does not fail for them.
    """
    rows = 0
    for path in segments(folder, service=service, since=since).get((service, fingerprint), []):
        with suppress(OSError, pa.ArrowException):
            rows += pq.read_metadata(path).num_rows
    return rows
