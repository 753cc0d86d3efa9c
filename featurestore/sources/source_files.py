"""Where sources lie: which files there are of each, and how each of them was found.

A path is a path: only what a user wrote is read as a pattern, and only where there is nothing of that very name. What
lies below a folder is data where every reader of such folders takes it for data: names that begin with `_` or `.` are what
a writer has not finished, or its notes.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from fnmatch import translate
from glob import escape
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple, TypeVar

from featurestore.declare.sources import FileSource, ParquetSource, Source, TableSource, is_url, no_path
from featurestore.errors import FilesChangedError, SourceError
from featurestore.sources import object_stores
from featurestore.sources.arrivals import Sighting
from featurestore.sources.unreadable import PARQUET

T = TypeVar("T")

MAX_READINGS = 3
"""How often files are read anew that change meanwhile."""

DEEP = "**"

REMOTE = re.compile(r"[a-z][a-z0-9+.-]*://")
"""How the path of what lies elsewhere begins, in a store that we read or in one of which we have copies."""

MAX_LISTINGS = 3
"""How often files are listed where one of them goes away meanwhile."""

FORMATS = (("Delta", "_delta_log"), ("Hudi", ".hoodie"))
"""What a folder is that holds a folder of this name."""

ICEBERG = "metadata/*.metadata.json"

PARQUET_TAIL = struct.Struct("<I4s")
"""How a Parquet file ends: the bytes of its footer, which stands before that, and how all such files end."""

READ_AS = {
    "Delta": "Declare it as a DeltaSource",
    "Hudi": "Export its rows to Parquet files, and name these",
    "Iceberg": "Declare it as an IcebergSource",
}


class PlaceError(ValueError):
    """What lies at a place cannot be taken for files of rows; the message says why."""


class NoFileError(SourceError):
    """A source has no file yet, or its path leads nowhere."""


class SourceFile(NamedTuple):
    """A file as it was found; its size and time of modification change when its content does."""

    path: str
    size: int
    """Bytes."""
    modified: int
    """ns since the epoch."""
    name: str = ""
    """Its path below the place that its source declares."""
    copy: str = ""
    """The Parquet file that has its rows; empty where it is one itself."""

    @property
    def parquet(self) -> str:
        """The Parquet file of its rows."""
        return self.copy or self.path

    @property
    def sighting(self) -> Sighting:
        """The file as the journal of arrivals knows it, wherever its source lies."""
        return Sighting(self.name, self.size, self.modified)


class Places:
    """Finds the files of sources. root: the folder that relative paths start from. located: source name → where it lies,
    over what it declares."""

    def __init__(self, root: Path, located: Mapping[str, str]) -> None:
        self._root = root
        self._located = located

    def files(self, source: Source, listed: Sequence[SourceFile] | None = None) -> tuple[SourceFile, ...]:
        """The files of a source as they are now; SourceError where there is none. listed: these, of which those on this machine
        are looked at, in place of what the source's own paths name."""
        gone = ""
        for _ in range(MAX_LISTINGS):
            try:
                found = {file.path: self._now(source, file) for file in listed or self._listed(source)}
            except UnicodeEncodeError as error:
                raise source_error(source, f"the name of {error.object!r} is not UTF-8; rename it") from None
            gone = next((path for path, file in found.items() if file is None), "")
            if not gone:
                return tuple(file for file in found.values() if file is not None)
        raise _no_file(source, f"there is no file {gone}{self._begin(source)}")

    def _now(self, source: Source, file: SourceFile) -> SourceFile | None:
        """A file of this machine as it is now, one of an object store as it was listed; None where it is gone. A table's is what the
        table says of it, where its size is."""
        if REMOTE.match(file.path):
            return file
        try:
            now = _status(file.path, file.name)
            return file._replace(size=now.size, copy="") if _is_of_table(source) else now
        except FileNotFoundError:
            return None
        except OSError as error:
            raise source_error(source, f"{error.filename or file.path} cannot be read: {error.strerror}") from None

    def _begin(self, source: Source) -> str:
        """What to know of a path that leads nowhere: in which folder a relative one begins."""
        absolute = all(Path(path).expanduser().is_absolute() for path in self._declared(source))
        return "" if absolute else f"; relative paths begin in the project's folder, {self._root}"

    def _declared(self, source: Source) -> tuple[str, ...]:
        """The paths of a source, as they are written."""
        assert isinstance(source, (FileSource, TableSource))
        if source.name in self._located:
            return (self._located[source.name],)
        return (source.path,) if isinstance(source, TableSource) else source.path

    def check_unchanged(self, source: Source, files: Sequence[SourceFile]) -> None:
        """FilesChangedError where one of these files is not as it was found. Others may have come."""
        stored = [file for file in files if is_url(file.parquet)]
        remote = self._looked_at(source, stored) if stored else {}
        for file in files:
            now: SourceFile | None = file._replace(copy="")
            if not (_is_of_table(source) and file.copy):
                now = remote[file.path] if file.path in remote else self._now(source, file)
            if now is None:
                became = "is gone"
            elif now != file._replace(copy=""):
                became = "was written anew"
            elif file.copy and not Path(file.copy).exists():
                became = "has lost its copy"
            else:
                continue
            raise FilesChangedError(
                f"{source.title}: its files changed while they were read; ask again: {file.path} {became} ({source.origin})"
            )

    def _looked_at(self, source: Source, files: Sequence[SourceFile]) -> dict[str, SourceFile | None]:
        """Files of object stores as they are now, by URL; None where one is gone."""
        try:
            found = object_stores.looked_at([file.path for file in files])
        except object_stores.ObjectStoreError as error:
            raise source_error(source, str(error)) from error
        return {
            file.path: None
            if now is None
            else SourceFile(now.url, now.size, file.modified if _is_of_table(source) else now.modified, file.name)
            for file, now in zip(files, found, strict=True)
        }

    def paths(self, source: Source) -> list[str]:
        """The paths of a source's files, in order."""
        return [file.path for file in self._listed(source)]

    def _listed(self, source: Source) -> list[SourceFile]:
        """The files of a source, in order, each with its part below the place that is declared or located; of those on this
        machine nothing more is known yet."""
        declared = self._declared(source)
        if isinstance(source, TableSource):
            problem = no_path(declared[0])
            if problem is not None:
                raise source_error(source, problem)
            path = self._root / Path(declared[0]).expanduser()
            return [SourceFile(str(path), 0, 0, path.name)]
        assert isinstance(source, FileSource)
        found: dict[str, SourceFile] = {}
        for written in declared:
            problem = no_path(written, remote=source.REMOTE)
            if problem is not None:
                raise source_error(source, problem)
            of_one = self._stored(source, written) if is_url(written) else self._local(source, written)
            for file in of_one:
                found.setdefault(file.path, file)
        return list(found.values())

    def _local(self, source: FileSource, written: str) -> list[SourceFile]:
        base, part = self._written(Path(written).expanduser())
        try:
            place, matches = _found(base, part, source.SUFFIXES)
        except (PlaceError, OSError) as error:
            said = str(error) if isinstance(error, PlaceError) else f"{error.filename}: {error.strerror}"
            raise source_error(source, said) from None
        if not matches:
            raise _no_file(
                source,
                f"no {source.FORMAT} file matches {base / part}{_of_another_name(base / part, source)}{self._begin(source)}",
            )
        above = len(str(place / "_")) - 1
        return [SourceFile(match, 0, 0, match[above:]) for match in matches]

    def _stored(self, source: FileSource, url: str) -> list[SourceFile]:
        try:
            place, files = object_stores.listed(url, source.SUFFIXES)
        except object_stores.ObjectStoreError as error:
            raise source_error(source, str(error)) from error
        if not files:
            raise _no_file(source, f"no {source.FORMAT} file matches {url}")
        return [SourceFile(file.url, file.size, file.modified, file.url[len(place) + 1 :]) for file in files]

    def place(self, source: FileSource) -> str:
        """The one folder, file or URL that a source names."""
        (written,) = self._declared(source)
        problem = no_path(written, remote=source.REMOTE)
        if problem is not None:
            raise source_error(source, problem)
        return written.rstrip("/") if is_url(written) else str(self._root / Path(written).expanduser())

    def _written(self, path: Path) -> tuple[Path, Path]:
        """A path as the folder that nobody wrote, and the part that somebody did: below the repository, or what it shares with
        that. Names of folders in which the repository lies are never patterns, even where the whole path is written."""
        whole = self._root / path
        above = (self._root, *self._root.parents)
        base = next((folder for folder in above if whole.is_relative_to(folder)), Path(whole.anchor))
        return base, whole.relative_to(base)


def _is_of_table(source: Source) -> bool:
    """Whether a table says which files it has, none of which is ever changed."""
    return isinstance(source, FileSource) and source.IMMUTABLE


def source_error(source: Source, problem: str) -> SourceError:
    """An error about a source's data that says where it was declared."""
    return SourceError(f"{source.title}: {problem} ({source.origin})")


def _of_another_name(folder: Path, source: FileSource) -> str:
    """What to know of a folder without files of a format: that it has others, such as Hive's, whose names have no suffix."""
    other = next(_below(_root(folder), ("",)), None) if folder.is_dir() else None
    if other is None:
        return ""
    said = " or ".join(source.SUFFIXES)
    return f": there is {other.path}, whose name does not end in {said}; where it is one, name it, or a pattern that finds it"


def _no_file(source: Source, problem: str) -> NoFileError:
    return NoFileError(str(source_error(source, problem)))


def _status(path: str, name: str) -> SourceFile:
    path.encode()
    status = os.stat(path)  # noqa: PTH116 - there may be many
    if not stat.S_ISREG(status.st_mode):  # to open a pipe is to wait for its writer
        raise OSError(errno.EINVAL, "it is no file", path)
    if "\\" in path and any(sign in path for sign in "*?["):
        raise OSError(
            errno.EINVAL, "the engine finds no file with a backslash and one of * ? [ in its path; rename it", path
        )
    return SourceFile(path, status.st_size, status.st_mtime_ns, name)


def footer_digest(path: str) -> str | None:
    """A digest of the footer of a Parquet file of this machine, which tells its rows, columns, statistics and writer; None of any other
    file, and of one that cannot be read."""
    if REMOTE.match(path):
        return None
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - there may be many
            end = file.seek(-PARQUET_TAIL.size, os.SEEK_END)
            footer_bytes, magic = PARQUET_TAIL.unpack(file.read())
            if magic != PARQUET or footer_bytes > end:
                return None
            file.seek(end - footer_bytes)
            return blake2b(file.read(footer_bytes), digest_size=8).hexdigest()
    except OSError:
        return None


def again(read: Callable[[], T]) -> T:
    """What `read` returns; where a file of its changed meanwhile it begins anew, a few times."""
    for _ in range(MAX_READINGS - 1):
        with suppress(FilesChangedError):
            return read()
    return read()


def files_below(folder: Path, suffixes: tuple[str, ...] = ParquetSource.SUFFIXES) -> list[str]:
    """The files below a folder that are data, sorted. Raises PlaceError, and OSError."""
    found = _once(folder, _below(_root(folder), suffixes))
    _check_plain(folder, found)
    return found


def _found(base: Path, part: Path, suffixes: tuple[str, ...]) -> tuple[Path, list[str]]:
    """The place that a written path names, and the files there, sorted."""
    path = base / part
    if path.is_dir():
        return path, files_below(path, suffixes)
    if not any(map(_is_pattern, part.parts)):
        return path.parent, [str(path)]
    if path.exists():
        _check_alone(path)
        return path.parent, [str(path)]
    place, pattern = _split(base, part)
    matches: list[_Entry] = []
    for match in _matches(_root(place), pattern):
        matches.extend(_below(match, suffixes) if match.is_folder else [match])
    found = _once(place, matches)
    _check_plain(place, found)
    return place, found


def _split(base: Path, part: Path) -> tuple[Path, tuple[str, ...]]:
    """The folder that a pattern starts from, and the names and patterns below it. What has brackets and is there is a name."""
    place, rest = base, part.parts
    while len(rest) > 1 and _is_name(place, rest[0]):
        place, rest = place / rest[0], rest[1:]
    return place, rest


def _is_name(folder: Path, text: str) -> bool:
    if not _is_pattern(text):
        return True
    return "*" not in text and "?" not in text and (folder / text).exists()


def _check_alone(file: Path) -> None:
    """PlaceError where a file is called like a pattern that finds others beside it: `*.parquet` is rarely meant as a name."""
    if "*" not in file.name and "?" not in file.name:
        return
    others = sorted(match.path for match in _matches(_root(file.parent), [file.name]) if match.path != str(file))
    if others:
        raise PlaceError(
            f"{file} is the name of a file, and as a pattern it finds {others[0]} too; write {escape(file.name)!r} for that "
            "file alone, or give it another name"
        )


class _Entry(NamedTuple):
    """A file or folder that was come to. entered: the real paths of the folders that links led into on the way, the place
    itself first."""

    path: str
    is_folder: bool
    entered: tuple[str, ...]
    linked: bool = False

    def below(self) -> Iterator[_Entry]:
        """What lies in the folder; of links, those that lead to a file, or to a folder that we are not in already."""
        try:
            with os.scandir(self.path) as entries:
                listed = list(entries)
        except (FileNotFoundError, NotADirectoryError):  # it went away
            return
        for entry in listed:
            if entry.is_symlink():
                yield from self.at(entry.name)
            else:
                yield _Entry(entry.path, entry.is_dir(), self.entered, self.linked)

    def at(self, name: str) -> Iterator[_Entry]:
        """What has a name in the folder, if it is there."""
        path = os.path.join(self.path, name)  # noqa: PTH118 - there may be many
        is_link, is_folder = os.path.islink(path), os.path.isdir(path)  # noqa: PTH112, PTH114
        if not is_link and not os.path.exists(path):  # noqa: PTH110
            return
        entered = self.entered
        if is_link and is_folder:
            real, here = os.path.realpath(path), os.path.realpath(self.path)
            if real in entered or f"{here}/".startswith(f"{real.rstrip('/')}/"):
                return  # round and round
            entered = (*entered, real)
        yield _Entry(path, is_folder, entered, self.linked or is_link)


def _root(folder: Path) -> _Entry:
    return _Entry(str(folder), is_folder=True, entered=(os.path.realpath(folder),))


def _matches(folder: _Entry, pattern: Sequence[str]) -> Iterator[_Entry]:
    """What lies below a folder and matches; a `*` finds no hidden name, unless the pattern says how it begins."""
    head, rest = pattern[0], pattern[1:]
    if head == DEEP:
        yield from _matches(folder, rest or ("*",))
        for entry in folder.below():
            if entry.is_folder and not _is_hidden(_name(entry)):
                yield from _matches(entry, pattern)
        return
    fits = re.compile(translate(head)).match
    for entry in folder.below() if _is_pattern(head) else folder.at(head):
        name = _name(entry)
        if _is_pattern(head) and (not fits(name) or (_is_hidden(name) and head[0] != name[0])):
            continue
        if not rest:
            yield entry
        elif entry.is_folder:
            yield from _matches(entry, rest)


def _below(folder: _Entry, suffixes: tuple[str, ...]) -> Iterator[_Entry]:
    """The files below a folder that a writer has finished."""
    for entry in folder.below():
        name = _name(entry)
        if _is_hidden(name):
            continue
        if entry.is_folder:
            yield from _below(entry, suffixes)
        elif name.endswith(suffixes):
            yield entry


def _name(entry: _Entry) -> str:
    return entry.path[entry.path.rindex("/") + 1 :]


def _once(place: Path, found: Iterable[_Entry]) -> list[str]:
    """The files, sorted, each once by its own name, however many links lead to it; PlaceError where a link makes other
    rows of one, by the partitions on its way."""
    entries = {entry.path: entry for entry in found}
    paths = {path for path, entry in entries.items() if not entry.linked}
    if len(paths) == len(entries):
        return sorted(paths)
    by_real = {os.path.realpath(path): path for path in paths}
    for path in sorted(entries.keys() - paths):
        known = by_real.setdefault(os.path.realpath(path), path)
        if known == path:
            paths.add(path)
        elif not _partitions(place, path) <= _partitions(place, known):
            raise PlaceError(f"{path} leads to {known}, which is read already, in a folder of other partitions")
    return sorted(paths)


def _partitions(place: Path, path: str) -> set[str]:
    return {folder for folder in Path(path).relative_to(place).parts[:-1] if "=" in folder}


def _is_pattern(name: str) -> bool:
    return any(sign in name for sign in "*?[")


def _is_hidden(name: str) -> bool:
    return name.startswith(("_", "."))


def _check_plain(place: Path, files: Iterable[str]) -> None:
    """PlaceError where a log says which of the files count, at the place or between it and a file."""
    while "=" in place.name or place.name == "data":  # a part of a table's folder
        place = place.parent
    folders = {place}
    for folder in map(Path, {os.path.dirname(file) for file in files}):  # noqa: PTH120 - there may be many
        folders.update(parent for parent in (folder, *folder.parents) if place in parent.parents)
    for folder in folders:
        kind = _format_of(folder)
        if kind:
            raise PlaceError(f"{folder} is a {kind} table, whose log says which of its files count. " + READ_AS[kind])


def _format_of(folder: Path) -> str | None:
    for kind, log in FORMATS:
        if (folder / log).is_dir():
            return kind
    return "Iceberg" if any(folder.glob(ICEBERG)) else None
