"""A backup as it lies on the disk: a folder, or one tar file, of a manifest and the files that it lists.

manifest.json       format, project, when and by which version it was made; of each file its bytes and SHA-256
registry.db         what was applied, runs, keys of the service, the trail of activity
arrivals.db         when files were first seen
logs/<source>/…     the logs of pushed rows, those of late rows too
served/…            the serving log
featurestore.toml   as it is written, variables and all
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from featurestore.clock import to_datetime
from featurestore.durable.checksums import decoded, encoded
from featurestore.durable.disk import sync, sync_folder
from featurestore.errors import BackupError
from featurestore.plurals import plural

VERSION = 1
"""The version of the layout above; it is counted up when that changes, and an older program then refuses the backup."""

MANIFEST = "manifest.json"
REGISTRY, ARRIVALS, LOGS, SERVED, SETTINGS = "registry.db", "arrivals.db", "logs", "served", "featurestore.toml"
TAR = ".tar"
PIECE_BYTES = 1 << 20


class FileMark(NamedTuple):
    """What a file of a backup has to be: its bytes, and their SHA-256 in hexadecimal digits."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class BackupManifest:
    """What a backup is. created: µs; release: the version of featurestore that made it; has_registry: whether the registry and
    the journal of arrivals are in it, and not in PostgreSQL; files: by name, with slashes."""

    project: str
    created: int
    release: str
    has_registry: bool
    files: dict[str, FileMark]

    def encode(self) -> bytes:
        """As it is written, under a checksum of its own."""
        words = {"version": VERSION, "project": self.project, "created": self.created, "release": self.release}
        words["has_registry"] = self.has_registry
        return encoded({**words, "files": {name: list(mark) for name, mark in self.files.items()}}, indent=True)

    @classmethod
    def decode(cls, data: bytes, where: Path) -> BackupManifest:
        """What `encode` wrote; BackupError where that cannot be told any more."""
        try:
            words = decoded(data)
            if words["version"] > VERSION:
                raise BackupError(
                    f"{where} was made by a newer version of featurestore (format {words['version']}; this one reads "
                    f"{VERSION}); restore it by that"
                )
            files = {str(name): FileMark(int(mark[0]), str(mark[1])) for name, mark in words["files"].items()}
            said = str(words["project"]), int(words["created"]), str(words["release"]), bool(words["has_registry"])
            return cls(*said, files)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BackupError(f"{where} is damaged: its {MANIFEST} is not what was written ({error})") from None

    def __str__(self) -> str:
        return f"project '{self.project}' at {to_datetime(self.created):%Y-%m-%dT%H:%M:%SZ}"


def marks_of(folder: Path) -> dict[str, FileMark]:
    """The mark of each file below a folder, all of which are on the disk when it returns, readable by their owner alone."""
    marks = {}
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            path.chmod(0o700)
            continue
        path.chmod(0o600)
        with path.open("rb") as file:
            marks[path.relative_to(folder).as_posix()] = _mark(file)
            sync(file.fileno())
    for path in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        sync_folder(path)
    return marks


def _mark(file: IO[bytes]) -> FileMark:
    size, digest = 0, hashlib.sha256()
    while piece := file.read(PIECE_BYTES):
        size += len(piece)
        digest.update(piece)
    return FileMark(size, digest.hexdigest())


def write_tar(folder: Path, names: Iterable[str], to: Path) -> None:
    """Put files of a folder into a tar file in this order; each is deleted when it is in it."""
    descriptor = os.open(to, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as out, tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in names:
            tar.add(folder / name, name, recursive=False)
            (folder / name).unlink()
        tar.close()
        out.flush()
        sync(out.fileno())


class Archive:
    """A backup to be read, a folder or a tar file. Raises OSError, and BackupError where it is none, or damaged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            raise BackupError(f"There is no {path}")
        self.manifest = BackupManifest.decode(self.read(MANIFEST), path)

    def check(self) -> None:
        """BackupError, which names each file that is missing, has changed or is not the backup's."""
        wanted = dict(self.manifest.files)
        problems = [f"'{name}' is no name of a file in it" for name in wanted if not _is_plain(name)]
        with self._failing():
            for name, file in self._files():
                if name == MANIFEST:
                    continue
                mark = wanted.pop(name, None)
                if mark is None:
                    problems.append(f"'{name}' is not in its manifest")
                elif (found := _mark(file)) != mark:
                    problems.append(
                        f"'{name}' is not what was written ({found.bytes} {plural(found.bytes, 'byte')} of {mark.bytes})"
                    )
        problems += [f"'{name}' is missing" for name in wanted if _is_plain(name)]
        if problems:
            raise self._damaged("; ".join(problems))

    def unpack(self, places: dict[str, Path]) -> None:
        """Write each file to its place, by its name, and look once more whether it is what was written."""
        with self._failing():
            for name, file in self._files():
                if name in places and _write(file, places[name]) != self.manifest.files[name]:
                    raise self._damaged(f"'{name}' is not what was written")

    def read(self, name: str) -> bytes:
        """All of one small file."""
        with self._failing():
            for found, file in self._files():
                if found == name:
                    return file.read()
        raise BackupError(f"{self.path} is no backup: it has no {name}")

    def _files(self) -> Iterator[tuple[str, IO[bytes]]]:
        """Each file by its name, to be read before the next is asked for."""
        if self.path.is_dir():
            for path in sorted(self.path.rglob("*")):
                if path.is_file() or path.is_symlink():
                    with path.open("rb") as file:
                        yield path.relative_to(self.path).as_posix(), file
            return
        with tarfile.open(self.path, mode="r:") as tar:
            for member in tar:
                packed = tar.extractfile(member) if member.isfile() else None
                if packed is None:
                    raise self._damaged(f"'{member.name}' is no file")
                yield member.name, packed

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except tarfile.TarError as error:
            raise self._damaged(f"it is no whole tar file ({error})") from None

    def _damaged(self, problem: str) -> BackupError:
        return BackupError(f"{self.path} is damaged: {problem}. Nothing was restored")


def _is_plain(name: str) -> bool:
    """Whether a name leads to a file below where it is unpacked, and no further."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\0" not in name


def _write(file: IO[bytes], to: Path) -> FileMark:
    to.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    size, digest = 0, hashlib.sha256()
    with os.fdopen(descriptor, "wb") as out:
        while piece := file.read(PIECE_BYTES):
            out.write(piece)
            digest.update(piece)
            size += len(piece)
        out.flush()
        sync(out.fileno())
    return FileMark(size, digest.hexdigest())


def plain(manifest: BackupManifest) -> dict[str, Any]:
    """What a manifest says of the whole, as plain values."""
    size, created = sum(mark.bytes for mark in manifest.files.values()), to_datetime(manifest.created)
    said = {"project": manifest.project, "created": created, "release": manifest.release}
    return {**said, "files": len(manifest.files), "bytes": size}
