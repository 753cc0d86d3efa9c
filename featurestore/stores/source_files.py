"""Where sources lie: which files there are of each, and how each of them was found."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from featurestore.declare.sources import ParquetSource, Source, TableSource
from featurestore.errors import SourceError
from featurestore.stores.arrivals import Sighting

__all__ = ["Places", "SourceFile"]


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
        found = []
        for path, name in self.named(source).items():
            try:
                status = Path(path).stat()
            except FileNotFoundError:
                raise SourceError(f"{source.title}: there is no file {path} ({source.origin})") from None
            found.append(SourceFile(path, status.st_size, status.st_mtime_ns, name))
        return tuple(found)

    def named(self, source: Source) -> dict[str, str]:
        """The paths of a source's files, in order, each with its part below the place that is declared or located."""
        assert isinstance(source, (ParquetSource, TableSource))
        declared = (self._located[source.name],) if source.name in self._located else source.path
        patterns = (declared,) if isinstance(declared, str) else declared
        found: dict[str, str] = {}
        for pattern in patterns:
            path = self._root / Path(pattern).expanduser()
            place = path
            if path.is_dir():
                matches = sorted(str(p) for p in path.rglob("*.parquet"))
            elif glob.has_magic(str(path)):
                matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
                place = next(parent for parent in path.parents if not glob.has_magic(str(parent)))
            else:
                matches, place = [str(path)], path.parent
            if not matches:
                raise SourceError(f"{source.title}: no Parquet file matches {path} ({source.origin})")
            for match in matches:
                found.setdefault(match, Path(match).relative_to(place).as_posix())
        return found
