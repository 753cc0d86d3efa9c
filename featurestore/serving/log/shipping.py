"""Files of the serving log in an object store: shipped when their hour is over, read back, and erased from.

    <url>/<project>/<service>/<fingerprint>/<name>      the same file under the same name

A name is that of a file's content, so a file that is there is shipped: nothing else says so. A process that is killed on the way ships it
again, to the same place. What a merged file replaces it replaces there too, and wherever the two lie.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from featurestore.durable.forks import mutex, renewed_in_child
from featurestore.durable.lock import alone
from featurestore.durable.temporary import TemporaryFolder
from featurestore.serving.log.segments import HOUR_US, NAME, ServedSegment, is_sound, listed, replaced_by, replaced_in
from featurestore.serving.log.upkeep import SETTLED_US, UPKEEP, Limits, delete
from featurestore.sources import object_stores

Version = tuple[str, str]
"""A service and its fingerprint."""

SHIPPING = ".shipping"
"""The file in the log's folder whose lock is held by the process that ships or erases."""

MAX_LISTINGS = 3
"""How often a store is listed where a file of it goes away meanwhile."""


class Shipped(NamedTuple):
    """What was done: so many files were shipped, and so many deleted here that lie there; how many bytes that freed."""

    shipped: int = 0
    deleted: int = 0
    freed: int = 0


class ShippedLog:
    """The files of a project's serving log in an object store, below a URL. Safe to use from several threads."""

    def __init__(self, url: str, project: str) -> None:
        self.url = f"{url.rstrip('/')}/{project}"
        self._replaces: dict[str, set[str]] = {}  # of merged files, by name, which is that of their content
        self._opening = mutex()
        self.renew()
        renewed_in_child(self)

    def renew(self) -> None:
        """In a child, which fetches into a folder of its own: the parent's vanishes with the parent."""
        self._fetched: TemporaryFolder | None = None

    def listing(self) -> dict[Version, dict[str, int]]:
        """By service version the files that are there: name → bytes. Raises ObjectStoreError."""
        found: dict[Version, dict[str, int]] = {}
        for name, size in object_stores.below(self.url).items():
            parts = name.split("/")
            if len(parts) == 3 and NAME.fullmatch(parts[2]):
                found.setdefault((parts[0], parts[1]), {})[parts[2]] = size
        return found

    def put(self, path: Path) -> None:
        """Ship a file of this machine. Raises FileNotFoundError where it is gone, and ObjectStoreError."""
        path.stat()
        object_stores.put(self._place(path), path)

    def remove(self, path: Path) -> None:
        """Remove what lies there of a file, whether or not it lies here. Raises ObjectStoreError."""
        object_stores.remove(self._place(path))

    def _place(self, path: Path) -> str:
        return "/".join([self.url, *path.parts[-3:]])

    def fetched(self, version: Version, name: str, size: int) -> Path:
        """A file of the store on this machine, until this is closed. Raises FileNotFoundError, ObjectStoreError."""
        with self._opening:
            if self._fetched is None:
                self._fetched = TemporaryFolder()
            folder = self._fetched.path
        path = folder.joinpath(*version, name)
        if not path.exists() or path.stat().st_size != size:
            path.parent.mkdir(parents=True, exist_ok=True)
            coming = path.with_name(f".{os.getpid()}-{os.urandom(4).hex()}-{name}")
            try:
                object_stores.fetch(self._place(path), coming)
                coming.rename(path)
            finally:
                coming.unlink(missing_ok=True)
        return path

    def forget(self, version: Version, name: str) -> None:
        """Remove the copy of a file that was fetched, if there is one."""
        if self._fetched is not None:
            self._fetched.path.joinpath(*version, name).unlink(missing_ok=True)

    def segments(
        self, folder: Path, *, service: str | None = None, since: int | None = None, until: int | None = None
    ) -> dict[Version, list[Path]]:
        """`segments` of a log whose files lie in `folder`, there, or in both: every row in one of them. Those that lie there alone are
        fetched. Raises ObjectStoreError."""
        for attempt in range(MAX_LISTINGS):
            try:
                return self._segments(folder, service=service, since=since, until=until)
            except FileNotFoundError:  # another file took its place meanwhile
                if attempt == MAX_LISTINGS - 1:
                    raise
        raise AssertionError("unreachable")

    def _segments(
        self, folder: Path, *, service: str | None, since: int | None, until: int | None
    ) -> dict[Version, list[Path]]:
        there, found = self.listing(), {}
        self._forget_others(there)
        for version in sorted(there.keys() | local_versions(folder)):
            if service in {None, version[0]}:
                live = self.live(folder, version, there.get(version, {}), since=since, until=until)
                if live:
                    found[version] = [file.path for file in live]
        return found

    def _forget_others(self, there: Mapping[Version, Mapping[str, int]]) -> None:
        """Remove copies of files that are not there any more: somebody erased rows of them."""
        for path in [] if self._fetched is None else [*self._fetched.path.glob("*/*/[0-9]*.parquet")]:
            if path.name not in there.get((path.parent.parent.name, path.parent.name), {}):
                path.unlink(missing_ok=True)

    def live(
        self, folder: Path, version: Version, names: Mapping[str, int],
        *, since: int | None = None, until: int | None = None,
    ) -> list[ServedSegment]:  # fmt: skip
        """The files of a service version that count, here and there, the oldest first, within the bounds (µs); those that lie there
        alone, or are damaged here, are fetched. names: those there, with their bytes. Raises FileNotFoundError, ObjectStoreError."""
        found = self.counting(folder, version, names, since=since, until=until)
        return [
            file if self._is_to_read(file.path, names) else self._fetched_of(version, file, names) for file in found
        ]

    def _is_to_read(self, path: Path, names: Mapping[str, int]) -> bool:
        """Whether a file is read here: it is here, and whole as far as one that is there too could take its place."""
        try:
            return path.exists() and (path.name not in names or is_sound(path))
        except FileNotFoundError:
            return False

    def _fetched_of(self, version: Version, file: ServedSegment, names: Mapping[str, int]) -> ServedSegment:
        name = file.path.name
        if name not in names:
            raise FileNotFoundError(str(file.path))  # it was merged into another since it was listed
        return file._replace(path=self.fetched(version, name, names[name]))

    def counting(
        self, folder: Path, version: Version, names: Mapping[str, int],
        *, since: int | None = None, until: int | None = None,
    ) -> list[ServedSegment]:  # fmt: skip
        """Those files by where they would lie here: of merged ones in the store the end is read, which says what they replace."""
        place = folder.joinpath(*version)
        here = {file.path.name for file in listed(place)}
        every = sorted(
            (ServedSegment.of(place / name) for name in here | names.keys()),
            key=lambda file: (file.first, file.path.name),
        )
        within = [file for file in every if file.is_within(since, until)]
        several = {hour for hour, count in Counter(file.hour for file in every).items() if count > 1}
        hours = {file.hour for file in within} & several
        merged = [file for file in every if file.merged and file.hour in hours]
        gone: set[str] = set()
        for file in merged:
            is_here = file.path.name not in names or self._is_to_read(file.path, names)
            gone |= self._replaced_by(file, is_here=is_here)
        return [file for file in within if file.path.name not in gone]

    def replaced_there(self, here: Sequence[ServedSegment], names: Mapping[str, int]) -> set[str]:
        """The names of files that those stand for that lie there alone, as far as they may be files of `here`. Raises ObjectStoreError."""
        if not here:
            return set()
        own, folder = {file.path.name for file in here}, here[0].path.parent
        hours = {file.hour for file in here if file.path.name not in names}
        gone: set[str] = set()
        for file in [ServedSegment.of(folder / name) for name in names if name not in own]:
            if file.merged and file.hour in hours:
                with suppress(FileNotFoundError):  # another took its place meanwhile
                    gone |= self._replaced_by(file, is_here=False)
        return gone

    def _replaced_by(self, file: ServedSegment, *, is_here: bool) -> set[str]:
        if is_here:
            return replaced_by(file)
        name = file.path.name
        if name not in self._replaces:
            try:
                self._replaces[name] = replaced_in(self._place(file.path))
            except object_stores.ObjectStoreError as error:
                if isinstance(error.__cause__, FileNotFoundError):
                    raise error.__cause__ from None
                raise
        return self._replaces[name]

    def close(self) -> None:
        """Remove what was fetched; idempotent."""
        fetched, self._fetched = self._fetched, None
        if fetched is not None:
            fetched.remove()


def local_versions(folder: Path) -> set[Version]:
    """The service versions that have a folder on this machine."""
    return {(path.parent.name, path.name) for path in folder.glob("*/*/") if path.is_dir()}


def ship(
    folder: Path, there: ShippedLog, limits: Limits, *, now: int, between: Callable[[], None] = lambda: None
) -> Shipped | None:
    """Ship the files of past hours that are not in the store, and then delete those here that are, as the limits say; None where another
    process is at it. now: µs. between: called before each file; what it raises ends the work. Raises OSError: the rest is shipped
    the next time."""
    if not folder.is_dir():
        return Shipped()
    with alone(folder / SHIPPING) as is_alone:
        if not is_alone:
            return None
        known, count = there.listing(), 0
        for version in sorted(local_versions(folder)):
            names = known.setdefault(version, {})
            for file in _closed(folder, version, there, names, now):
                between()
                with suppress(FileNotFoundError):  # it was merged into another, which is shipped in its place
                    size = file.path.stat().st_size
                    there.put(file.path)
                    names[file.path.name] = size
                    count += 1
                    for name in replaced_by(file) & names.keys():
                        there.remove(file.path.with_name(name))
                        del names[name]
        if count:
            known = there.listing()
        _delete_replaced(folder, there, known)
        deleted = _delete_shipped(folder, known, limits, now)
        return deleted._replace(shipped=count)


def _closed(
    folder: Path, version: Version, there: ShippedLog, names: Mapping[str, int], now: int
) -> Sequence[ServedSegment]:
    """The files of a version that are to be shipped: of hours that are over and merged, sound, not there, and replaced by none that
    is here or there."""
    here = listed(folder.joinpath(*version))
    past = [file for file in here if (file.hour + 1) * HOUR_US + SETTLED_US <= now]
    over = [file for file in past if names.get(file.path.name) != _size(file.path)]
    if not over:
        return ()
    hours = {file.hour for file in over}
    first, last = min(hours) * HOUR_US, (max(hours) + 1) * HOUR_US
    counting = {file.path.name for file in there.counting(folder, version, names, since=first, until=last)}
    return [file for file in over if file.path.name in counting and is_sound(file.path)]


def _size(path: Path) -> int | None:
    """Bytes of a file; None where it is gone."""
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return None


def _delete_replaced(folder: Path, there: ShippedLog, known: Mapping[Version, Mapping[str, int]]) -> None:
    """Delete files here that a file there takes the place of, as where another machine erased rows of them: they count no more, and
    would never be shipped."""
    with alone(folder / UPKEEP) as is_alone:
        for version in local_versions(folder) if is_alone else ():
            files = listed(folder.joinpath(*version))
            names = known.get(version, {})
            gone = there.replaced_there(files, names)
            delete([file for file in files if file.path.name in gone and file.path.name not in names])


def _delete_shipped(folder: Path, known: Mapping[Version, Mapping[str, int]], limits: Limits, now: int) -> Shipped:
    """Delete files here that are there, of the same size: those that are too old, and then the oldest, until all take no more than
    they may."""
    with alone(folder / UPKEEP) as is_alone:
        if not is_alone:
            return Shipped()
        files = [file for version in local_versions(folder) for file in listed(folder.joinpath(*version))]
        sizes = {file.path: _size(file.path) for file in files}
        shipped = [file for file in files if _names(known, file.path).get(file.path.name, -1) == sizes[file.path]]
        over = sum(size or 0 for size in sizes.values()) - limits.max_bytes if limits.max_bytes is not None else 0
        done = Shipped()
        for file in sorted(shipped, key=lambda file: file.last):
            is_old = limits.retention is not None and file.last < now - limits.retention
            if is_old or done.freed < over:
                done = Shipped(0, done.deleted + 1, done.freed + delete([file]))
        return done


def _names(known: Mapping[Version, Mapping[str, int]], path: Path) -> Mapping[str, int]:
    return known.get((path.parent.parent.name, path.parent.name), {})
