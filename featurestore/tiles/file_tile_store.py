"""Tiles of a view over files, kept so that what a run added up need not be read again by the next one.

    folder/choice.json      the hop of tiles, and of how many bytes of files that was decided
    folder/<part>/          the tiles of some files: part.json, which names them, and Parquet files of `tiles.tile_rows`,
                            whose checksums are in part.json; both JSON files have checksums of their own words

A part is a function of its files and of the view's definition, which names the folder. It is right as long as these files are
there, unchanged; so nothing of it is ever mended, and all of it may be deleted. What is damaged is deleted, and made anew. Only the holder of the view's lease writes.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import orjson

from featurestore.durable.checksums import checks_of, decoded, encoded, first_damage
from featurestore.durable.disk import replace, sync
from featurestore.durable.own_folder import OWNERS, own_folder
from featurestore.lazy import duckdb, pa, pq

FORMAT = 3
"""Of the Parquet files and of both JSON files; what another version wrote is forgotten, and made anew."""

CHOICE, PART = "choice.json", "part.json"


class TiledFile(NamedTuple):
    """A file of a source as it was read."""

    path: str
    size: int
    """bytes"""

    modified: int
    """ns"""

    arrived: int | None
    """When it was first seen (µs), where rows count from then."""

    first: int | None = None
    """The event_time of its oldest row (µs), None where it has none."""

    last: int | None = None
    """The event_time of its newest row (µs)."""

    @property
    def identity(self) -> tuple[str, int, int, int | None]:
        """What changes when its rows do."""
        return self[:4]

    def meets(self, low: int, high: int) -> bool:
        """Whether it may hold a row with low < event_time ≤ high."""
        return self.first is not None and self.last is not None and self.first <= high and self.last > low


class HopChoice(NamedTuple):
    """What was decided for tiles of a view's files."""

    hop: int | None
    """(µs); None: none are made."""

    bytes: int
    """How large the files were then."""


class TiledPart(NamedTuple):
    """The tiles of some files."""

    name: str
    hop: int
    """µs"""

    files: tuple[TiledFile, ...]
    rows: int
    """How many tiles there are."""

    paths: tuple[str, ...]
    """Where they lie."""

    checks: tuple[str, ...]
    """Of each Parquet file, see `checks_of`."""


class TileFiles:
    """The tiles of one view version, below a folder of all views' tiles."""

    def __init__(self, folder: Path, view: str, fingerprint: str) -> None:
        self._versions = folder / view / fingerprint[:16]
        self._folder = self._versions / f"{FORMAT}-{duckdb.__version__}"  # whose engine evaluated the conditions

    def choice(self) -> HopChoice | None:
        """What was decided, None where nothing was, or that cannot be told any more."""
        try:
            return HopChoice(**decoded((self._folder / CHOICE).read_bytes()))
        except (FileNotFoundError, ValueError):
            return None

    def choose(self, choice: HopChoice) -> None:
        """Decide anew. Parts of another hop, format or engine are gone."""
        own_folder(self._folder)
        for other in self._versions.iterdir():
            if other != self._folder:
                shutil.rmtree(other, ignore_errors=True)
        replace(self._folder / CHOICE, encoded(choice._asdict()))
        for part in self._parts():
            if part.hop != choice.hop:
                self._remove(part.name)

    def parts(self, files: Collection[TiledFile]) -> list[TiledPart]:
        """The parts whose files are all among these, unchanged, each file in one of them. The others are removed, and what a
        killed run left: parts that were joined into another, or whose removal had begun, and parts that
        are not what was written."""
        for left in self._folder.glob(".*"):
            shutil.rmtree(left, ignore_errors=True)
        there = {file.identity for file in files}
        kept: list[TiledPart] = []
        tiled: set[tuple[str, int, int, int | None]] = set()
        for part in sorted(self._parts(), key=lambda part: -len(part.files)):
            own = {file.identity for file in part.files}
            if own <= there and tiled.isdisjoint(own) and _is_sound(part):
                kept.append(part)
                tiled |= own
            else:
                self._remove(part.name)
        return kept

    def add(self, hop: int, files: Sequence[TiledFile], tables: Iterable[pa.Table]) -> TiledPart:
        """Keep the tiles of these files; they are there as a whole or not at all."""
        name = sha256(orjson.dumps([hop, sorted(file.identity for file in files)])).hexdigest()[:24]
        made = self._folder / f".{name}"
        own_folder(self._folder)
        made.mkdir(mode=OWNERS)
        rows, names, checks = 0, [], []
        for number, table in enumerate(tables):
            names.append(f"{number}.parquet")
            with (made / names[-1]).open("wb") as file:
                pq.write_table(table, file, compression="zstd")
                file.flush()
                sync(file.fileno())  # on the disk before its name is
            checks.append(checks_of(made / names[-1]))
            rows += table.num_rows
        words = {"hop": hop, "files": list(map(list, files)), "rows": rows, "names": names, "checks": checks}
        replace(made / PART, encoded(words))
        shutil.rmtree(self._folder / name, ignore_errors=True)
        made.rename(self._folder / name)
        return _part(self._folder / name)

    def join(self, parts: Sequence[TiledPart], tables: Iterable[pa.Table]) -> TiledPart:
        """One part instead of several, whose tiles are joined in `tables`."""
        files = [file for part in parts for file in part.files]
        joined = self.add(parts[0].hop, files, tables)
        for part in parts:
            self._remove(part.name)
        return joined

    def exists(self) -> bool:
        """Whether anything was ever kept of the view version."""
        return self._versions.exists()

    def remove(self) -> None:
        """Forget all tiles of the view version."""
        shutil.rmtree(self._versions, ignore_errors=True)

    def _parts(self) -> list[TiledPart]:
        found = self._folder.iterdir() if self._folder.exists() else ()
        parts = []
        for folder in sorted(found):
            if (folder / PART).exists() and folder.name[0] != ".":
                try:
                    parts.append(_part(folder))
                except ValueError:
                    self._remove(folder.name)
        return parts

    def _remove(self, name: str) -> None:
        shutil.rmtree(self._folder / name, ignore_errors=True)


def _part(folder: Path) -> TiledPart:
    """What part.json says. ValueError where that is not what was written."""
    said = decoded((folder / PART).read_bytes())
    files = tuple(TiledFile(*file) for file in said["files"])
    paths = tuple(str(folder / name) for name in said["names"])
    return TiledPart(folder.name, said["hop"], files, said["rows"], paths, tuple(said["checks"]))


def _is_sound(part: TiledPart) -> bool:
    try:
        return first_damage((Path(path), checks) for path, checks in zip(part.paths, part.checks, strict=True)) is None
    except OSError:  # one is gone, or the disk cannot read it
        return False
