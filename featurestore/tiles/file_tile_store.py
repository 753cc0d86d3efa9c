"""Tiles of a view over files, kept so that what a run added up need not be read again by the next one.

    folder/choice.json      the hop of tiles, and of how many bytes of files that was decided
    folder/<part>/          the tiles of some files, Parquet files of `tiles.tile_rows`: see `durable.part_folder`

A part is a function of its files and of the view's definition, which names the folder. It is right as long as these files are
there, unchanged; so nothing of it is ever mended, and all of it may be deleted. Only the holder of the view's lease writes.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from featurestore.durable.checksums import decoded, encoded
from featurestore.durable.disk import replace
from featurestore.durable.own_folder import own_folder
from featurestore.durable.part_folder import KeptPart, PartFolder
from featurestore.lazy import duckdb, pa, pq

FORMAT = 3
"""Of the Parquet files and of what the JSON files say; what another version wrote is forgotten, and made anew."""

CHOICE = "choice.json"


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


class TileFiles:
    """The tiles of one view version, below a folder of all views' tiles."""

    def __init__(self, folder: Path, view: str, fingerprint: str) -> None:
        self._versions = folder / view / fingerprint[:16]
        self._folder = self._versions / f"{FORMAT}-{duckdb.__version__}"  # whose engine evaluated the conditions
        self._kept = PartFolder(self._folder)

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
        self._kept.clear()
        for part in self._kept.parts():
            if part.words["hop"] != choice.hop:
                self._kept.remove(part.name)

    def parts(self, files: Collection[TiledFile]) -> list[TiledPart]:
        """The parts whose files are all among these, unchanged, each file in one of them. The others are removed, and what a
        killed run left: parts that were joined into another, or whose removal had begun, and parts that
        are not what was written."""
        self._kept.clear()
        there = {file.identity for file in files}
        kept: list[TiledPart] = []
        tiled: set[tuple[str, int, int, int | None]] = set()
        for part in sorted(self._kept.parts(), key=lambda part: -len(part.words["files"])):
            of = _tiled(part)
            own = {file.identity for file in of.files}
            if own <= there and tiled.isdisjoint(own) and part.is_sound():
                kept.append(of)
                tiled |= own
            else:
                self._kept.remove(part.name)
        return kept

    def add(self, hop: int, files: Sequence[TiledFile], tables: Iterable[pa.Table]) -> TiledPart:
        """Keep the tiles of these files; they are there as a whole or not at all."""

        def write(folder: Path) -> tuple[list[str], dict[str, Any]]:
            rows, names = 0, []
            for number, table in enumerate(tables):
                names.append(f"{number}.parquet")
                pq.write_table(table, folder / names[-1], compression="zstd")
                rows += table.num_rows
            return names, {"hop": hop, "files": list(map(list, files)), "rows": rows}

        return _tiled(self._kept.add([hop, sorted(file.identity for file in files)], write))

    def join(self, parts: Sequence[TiledPart], tables: Iterable[pa.Table]) -> TiledPart:
        """One part instead of several, whose tiles are joined in `tables`."""
        files = [file for part in parts for file in part.files]
        joined = self.add(parts[0].hop, files, tables)
        for part in parts:
            self._kept.remove(part.name)
        return joined

    def exists(self) -> bool:
        """Whether anything was ever kept of the view version."""
        return self._versions.exists()

    def remove(self) -> None:
        """Forget all tiles of the view version."""
        shutil.rmtree(self._versions, ignore_errors=True)


def _tiled(part: KeptPart) -> TiledPart:
    words = part.words
    files = tuple(TiledFile(*file) for file in words["files"])
    return TiledPart(part.name, words["hop"], files, words["rows"], tuple(map(str, part.paths)))
