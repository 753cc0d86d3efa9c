"""A folder of parts: files that were made together of what the part's words say, and are never changed.

    folder/<part>/part.json   the part's words, which files it has, and their checksums; a checksum of its own words
    folder/<part>/<file>      as many as it has

A part is there as a whole or not at all, and named by what it was made of. What is damaged is deleted, and made anew by
the process that needs it. One process at a time may write.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from featurestore.durable.checksums import checks_of, damaged_at, decoded, encoded, first_damage
from featurestore.durable.disk import replace, sync
from featurestore.durable.own_folder import OWNERS, own_folder

PART = "part.json"


class KeptPart(NamedTuple):
    """A part that is there."""

    folder: Path
    words: Mapping[str, Any]
    paths: tuple[Path, ...]
    checks: tuple[str, ...]
    """Of each file, see `checks_of`."""

    @property
    def name(self) -> str:
        """What it is called: by what it was made of."""
        return self.folder.name

    def is_sound(self) -> bool:
        """Whether all its files are what was written."""
        try:
            return first_damage(zip(self.paths, self.checks, strict=True)) is None
        except OSError:  # one is gone, or the disk cannot read it
            return False

    def is_sound_file(self, number: int) -> bool:
        """The same of one of them."""
        try:
            return damaged_at(self.paths[number], self.checks[number]) is None
        except OSError:
            return False


class PartFolder:
    """The parts in a folder, which need not be there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def parts(self) -> list[KeptPart]:
        """Those whose words can be told; none where the folder goes away meanwhile, or is another user's."""
        return [part for folder in self._entries() if folder.name[0] != "." and (part := _read(folder)) is not None]

    def _entries(self) -> list[Path]:
        try:
            return sorted(self.path.iterdir())
        except OSError:
            return []

    def clear(self) -> None:
        """Remove what a killed process left, and parts whose words cannot be told any more."""
        for folder in self._entries():
            if folder.name[0] == "." or ((folder / PART).exists() and _read(folder) is None):
                shutil.rmtree(folder, ignore_errors=True)

    def add(self, of: Any, write: Callable[[Path], tuple[Sequence[str], Mapping[str, Any]]]) -> KeptPart:
        """Make the part of something, told as plain JSON, or make it anew. write: writes files into a folder; their names, and the part's
        words. Raises OSError and what `write` raises, and leaves nothing then."""
        name = sha256(orjson.dumps(of)).hexdigest()[:24]
        made, folder = self.path / f".{name}", self.path / name
        own_folder(self.path)
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(mode=OWNERS)
        try:
            names, words = write(made)
            checks = []
            for each in names:  # on the disk before its name is
                with (made / each).open("rb") as file:
                    sync(file.fileno())
                checks.append(checks_of(made / each))
            replace(made / PART, encoded({**words, "names": list(names), "checks": checks}))
            shutil.rmtree(folder, ignore_errors=True)
            made.rename(folder)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
        part = _read(folder)
        assert part is not None, "it was written just now"
        return part

    def remove(self, name: str) -> None:
        """Delete a part."""
        shutil.rmtree(self.path / name, ignore_errors=True)


def _read(folder: Path) -> KeptPart | None:
    """A part as its words say; None where there are none, or they are not what was written."""
    try:
        said = decoded((folder / PART).read_bytes())
    except (OSError, ValueError):
        return None
    paths = tuple(folder / name for name in said["names"])
    return KeptPart(folder, said, paths, tuple(said["checks"]))
