"""Where sources lie: which files there are of each, and how each of them was found.

A path is a path: only what a user wrote is read as a pattern, and only where there is nothing of that very name. What
lies below a folder is data where every reader of such folders takes it for data: names that begin with `_` or `.` are what
a writer has not finished, or its notes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from fnmatch import translate
from glob import escape
from pathlib import Path
from typing import NamedTuple, TypeVar

from featurestore.declare.sources import ParquetSource, Source, TableSource
from featurestore.errors import FilesChangedError, SourceError
from featurestore.stores.arrivals import Sighting

__all__ = ["PlaceError", "Places", "SourceFile", "again", "files_below", "source_error"]

T = TypeVar("T")

ATTEMPTS = 3
"""How often files are read anew that change meanwhile."""

SUFFIX = ".parquet"
DEEP = "**"

LISTINGS = 3
"""How often files are listed where one of them goes away meanwhile."""

FORMATS = (("Delta", "_delta_log"), ("Hudi", ".hoodie"))
"""What a folder is that holds a folder of this name."""

ICEBERG = ("metadata", ".metadata.json")


class PlaceError(ValueError):
    """What lies at a place cannot be taken for files of rows; the message says why."""


class SourceFile(NamedTuple):
    """A file as it was found: its size in bytes and time of modification in ns, which change when its content does, and
    its path below the place that its source declares."""

    path: str
    size: int
    modified: int
    name: str = ""

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

    def files(self, source: Source) -> tuple[SourceFile, ...]:
        """The files of a source as they are now; SourceError where there is none."""
        for _ in range(LISTINGS):
            try:
                return tuple(_status(path, name) for path, name in self.named(source).items())
            except FileNotFoundError as error:  # since it was listed
                gone = error.filename
            except UnicodeEncodeError as error:
                raise source_error(source, f"the name of {error.object!r} is not UTF-8; rename it") from None
            except OSError as error:
                raise source_error(source, f"{error.filename} cannot be read: {error.strerror}") from None
        raise source_error(source, f"there is no file {gone}{self._begin(source)}")

    def _begin(self, source: Source) -> str:
        """What to know of a path that leads nowhere: in which folder a relative one begins."""
        absolute = all(Path(path).expanduser().is_absolute() for path in self._declared(source))
        return "" if absolute else f"; relative paths begin in the project's folder, {self._root}"

    def _declared(self, source: Source) -> tuple[str, ...]:
        """The paths of a source, as they are written."""
        assert isinstance(source, (ParquetSource, TableSource))
        if source.name in self._located:
            return (self._located[source.name],)
        return (source.path,) if isinstance(source, TableSource) else source.path

    def check_unchanged(self, source: Source, files: Sequence[SourceFile]) -> None:
        """FilesChangedError where one of these files is not as it was found. Others may have come."""
        for file in files:
            try:
                became = "was written anew" if _status(file.path, file.name) != file else None
            except FileNotFoundError:
                became = "is gone"
            except OSError as error:
                raise source_error(source, f"{file.path} cannot be read: {error.strerror}") from None
            if became:
                raise FilesChangedError(
                    f"{source.title}: its files changed while they were read; ask again: {file.path} {became} ({source.origin})"
                )

    def named(self, source: Source) -> dict[str, str]:
        """The paths of a source's files, in order, each with its part below the place that is declared or located."""
        declared = self._declared(source)
        if isinstance(source, TableSource):
            path = self._root / Path(declared[0]).expanduser()
            return {str(path): path.name}
        found: dict[str, str] = {}
        for written in declared:
            base, part = self._written(Path(written).expanduser())
            try:
                place, matches = _found(base, part)
            except (PlaceError, OSError) as error:
                said = str(error) if isinstance(error, PlaceError) else f"{error.filename}: {error.strerror}"
                raise source_error(source, said) from None
            if not matches:
                raise source_error(source, f"no Parquet file matches {base / part}{self._begin(source)}")
            above = len(str(place / "_")) - 1
            for match in matches:
                found.setdefault(match, match[above:])
        return found

    def _written(self, path: Path) -> tuple[Path, Path]:
        """A path as the folder that nobody wrote, and the part that somebody did: below the repository, or what it shares with
        that. Names of folders in which the repository lies are never patterns, even where the whole path is written."""
        whole = self._root / path
        above = (self._root, *self._root.parents)
        base = next((folder for folder in above if whole.is_relative_to(folder)), Path(whole.anchor))
        return base, whole.relative_to(base)


def source_error(source: Source, problem: str) -> SourceError:
    """An error about a source's data that says where it was declared."""
    return SourceError(f"{source.title}: {problem} ({source.origin})")


def _status(path: str, name: str) -> SourceFile:
    path.encode()
    status = os.stat(path)  # noqa: PTH116 - there may be many
    return SourceFile(path, status.st_size, status.st_mtime_ns, name)


def again(read: Callable[[], T]) -> T:
    """What `read` returns; where a file of its changed meanwhile it begins anew, a few times."""
    for _ in range(ATTEMPTS - 1):
        with suppress(FilesChangedError):
            return read()
    return read()


def files_below(folder: Path) -> list[str]:
    """The Parquet files below a folder that are data, sorted. Raises PlaceError, and OSError."""
    found = sorted(_below(folder))
    _check_plain(folder, found)
    return found


def _found(base: Path, part: Path) -> tuple[Path, list[str]]:
    """The place that a written path names, and the files there, sorted."""
    path = base / part
    if path.is_dir():
        return path, files_below(path)
    if not any(map(_is_pattern, part.parts)):
        return path.parent, [str(path)]
    if path.exists():
        _check_alone(path)
        return path.parent, [str(path)]
    place, pattern = _split(base, part)
    matches: set[str] = set()
    for match, is_folder in _matches(place, pattern):
        matches.update(_below(Path(match)) if is_folder else (match,))
    _check_plain(place, matches)
    return place, sorted(matches)


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
    others = sorted(match for match, _ in _matches(file.parent, [file.name]) if match != str(file))
    if others:
        raise PlaceError(
            f"{file} is the name of a file, and as a pattern it finds {others[0]} too; write {escape(file.name)!r} for that "
            "file alone, or give it another name"
        )


def _matches(folder: Path, pattern: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """What lies below a folder and matches, and whether it is a folder; a `*` finds no hidden name, unless the pattern says
    how it begins."""
    head, rest = pattern[0], pattern[1:]
    if head == DEEP:
        yield from _matches(folder, rest or ("*",))
        for entry in _entries(folder):
            if not _is_hidden(entry.name) and entry.is_dir():
                yield from _matches(Path(entry.path), pattern)
    elif not _is_pattern(head):
        path = folder / head
        if rest:
            yield from _matches(path, rest)
        elif path.exists():
            yield str(path), path.is_dir()
    else:
        fits = re.compile(translate(head)).match
        for entry in _entries(folder):
            if fits(entry.name) and (not _is_hidden(entry.name) or head[0] == entry.name[0]):
                if not rest:
                    yield entry.path, entry.is_dir()
                elif entry.is_dir():
                    yield from _matches(Path(entry.path), rest)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _below(folder: Path) -> Iterator[str]:
    """The files below a folder that a writer has finished; linked folders are not entered."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if _is_hidden(entry.name):
                continue
            if entry.is_dir(follow_symlinks=False):
                with suppress(FileNotFoundError):  # it went away
                    yield from _below(Path(entry.path))
            elif entry.name.endswith(SUFFIX):
                yield entry.path


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
            raise PlaceError(
                f"{folder} is a {kind} table, whose log says which of its files count; that cannot be read yet. Export its "
                "rows to Parquet files, and name these"
            )


def _format_of(folder: Path) -> str | None:
    for kind, log in FORMATS:
        if (folder / log).is_dir():
            return kind
    metadata, suffix = folder / ICEBERG[0], ICEBERG[1]
    return "Iceberg" if any(entry.name.endswith(suffix) for entry in _entries(metadata)) else None
