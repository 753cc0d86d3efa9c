"""Which tiles a run of materialize uses: those of files that an earlier run has seen already, made once and kept.

A file is tiled when a second run finds it unchanged: what is written anew each time is read as it is. So is everything where
too few rows would share a tile.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.declare.sources import ParquetSource
from featurestore.durable.owner import OwnedFolder
from featurestore.semantics.view import ResolvedView
from featurestore.sources.offline import Offline
from featurestore.sources.session import Session
from featurestore.sources.source_files import SourceFile
from featurestore.tiles.files import TiledFile, TiledPart, TileFiles, TileWidth
from featurestore.tiles.tile_rows import can_be_tiled
from featurestore.tiles.tiling import FileTiles, Rest, count_rows, joined_sql, make_tiles, width_for

__all__ = ["free_tiles", "tiles_folder", "tiles_for"]

MANY = 8
"""Parts that are read side by side; more are joined, the smallest of them."""

GROWN = 2
"""So many times more bytes of files, and it is decided again how wide tiles are."""

INSTANTS = 24
"""Refresh instants from a run's on for which a width of tiles is to be good."""


def tiles_folder(below: Path | None, *, project: str, online: str) -> OwnedFolder | None:
    """The folder of a project's tiles, below the one that is for all; None where there is none. Leases keep writers apart,
    so each online store, which holds them, has one of its own; online: its URL."""
    if below is None:
        return None
    url = urlsplit(online)
    try:
        port = url.port
    except (
        ValueError
    ):  # it names what was read as the port, which may be a part of a password; opening it says what is wrong
        port = None
    place = f"{project} {url.scheme} {url.hostname} {port} {url.path}"
    return OwnedFolder(
        below / sha256(place.encode()).hexdigest()[:12], project, what="folder of tiles", key="offline.tiles"
    )


def free_tiles(folder: OwnedFolder, view: str, fingerprint: str) -> None:
    """Forget the tiles of a view version."""
    folder.check()
    TileFiles(folder.path, view, fingerprint).remove()


def tiles_for(
    view: ResolvedView, offline: Offline, session: Session, folder: OwnedFolder, *, instant: int,
    seen: Collection[SourceFile],
) -> FileTiles | None:  # fmt: skip
    """The tiles for a view's folds at an instant, of the files that were there before (`seen`); None where rows are read.

    Tiles that are missing are made. The view's lease must be held.
    """
    source = view.source
    if not can_be_tiled(view) or not isinstance(source, ParquetSource) or not seen:
        return None
    folder.claim()
    kept = TileFiles(folder.path, view.name, view.fingerprint)
    files = dict(zip(_identified(offline, session, source), session.files(source), strict=True))
    settled = [file for file, found in files.items() if found in seen]
    width = _width(kept, view, session, instant=instant, settled=sum(file.size for file in settled))
    if width is None:
        return None
    parts = kept.parts(files)
    tiled = {file.identity for part in parts for file in part.files}
    missing = [file for file in settled if file.identity not in tiled]
    if missing:
        parts.append(_made(kept, view, offline, [(file, files[file]) for file in missing], width))
    if len(parts) > MANY:
        parts.sort(key=lambda part: part.rows)
        parts[:MANY] = [_joined(kept, view, session, parts[:MANY])]
    paths = tuple(path for part in parts for path in part.paths)
    if not paths:
        return None
    rest = partial(_rest, session, source, files, parts)
    return FileTiles(width, paths, lambda cut: rest([(b, b + width) for b in cut]))


def _identified(offline: Offline, session: Session, source: ParquetSource) -> list[TiledFile]:
    """The files of a source as tiles know them, whose times are not known yet."""
    files = session.files(source)
    arrived: Sequence[int | None] = [None] * len(files)
    if source.arrives:
        arrived = offline.arrivals.instants(source.name, [file.sighting for file in files])
    return [TiledFile(file.path, file.size, file.modified, at) for file, at in zip(files, arrived, strict=True)]


def _width(kept: TileFiles, view: ResolvedView, session: Session, *, instant: int, settled: int) -> int | None:
    """How wide the view's tiles are; `settled`: the bytes of the files that can have any."""
    choice = kept.choice()
    if settled and (choice is None or settled >= GROWN * choice.bytes):
        step = view.timing.refresh or 0
        instants = [instant + number * step for number in range(INSTANTS)]
        width = width_for(session.connection, view, session.scan(view.source), ats=instants)
        choice = TileWidth(width, settled)
        kept.choose(choice)
    return None if choice is None else choice.width


def _made(
    kept: TileFiles, view: ResolvedView, offline: Offline, files: Sequence[tuple[TiledFile, SourceFile]], width: int
) -> TiledPart:
    """The tiles of these files, read by themselves."""
    with offline.session(files={view.source.name: tuple(file for _, file in files)}) as session:
        plan, times = count_rows(session.connection, view, session.scan(view.source))
        named = [file._replace(first=first, last=last) for number, (file, _) in enumerate(files)
                 for first, last in [times.get(number, (None, None))]]  # fmt: skip
        made = make_tiles(session.connection, plan, width=width)
        return kept.add(width, named, made)


def _joined(kept: TileFiles, view: ResolvedView, session: Session, parts: Sequence[TiledPart]) -> TiledPart:
    paths = [path for part in parts for path in part.paths]
    if not paths:
        return kept.replace(parts, [])
    columns = dict.fromkeys(name for path in paths for name in pq.read_schema(path).names)
    table: pa.Table = session.connection.sql(joined_sql(view, paths, list(columns))).to_arrow_table()
    return kept.replace(parts, [table])


def _rest(
    session: Session, source: ParquetSource, files: dict[TiledFile, SourceFile], parts: Sequence[TiledPart],
    spans: Sequence[tuple[int, int]],
) -> Rest:  # fmt: skip
    """What reads the files without tiles, and those with tiles that may hold rows within these spans of time."""
    by_identity = {file.identity: found for file, found in files.items()}
    tiled = {file.identity: file for part in parts for file in part.files}
    others = [found for identity, found in by_identity.items() if identity not in tiled]
    met = [by_identity[file.identity] for file in tiled.values() if any(file.meets(*span) for span in spans)]
    read = others + met or [min(files.values(), key=lambda file: file.size)]  # of which no row is asked for
    return Rest(session.scan_files(source, read), len(others))
