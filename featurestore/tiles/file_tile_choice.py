"""Which tiles a run of materialize uses: those of files that an earlier run has seen already, made once and kept.

A file is tiled when a second run finds it unchanged: what is written anew each time is read as it is. So is everything where
too few rows would share a tile.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

from featurestore.declare.sources import FileSource
from featurestore.durable.owner import OwnedFolder
from featurestore.lazy import pa, pq
from featurestore.query.windows.addends import INTEGERS
from featurestore.semantics.view import ResolvedFeature, ResolvedView, algebra_of
from featurestore.semantics.windows import TileGrid
from featurestore.sources.offline import Offline
from featurestore.sources.session import Session
from featurestore.sources.source_files import SourceFile
from featurestore.tiles.file_tile_query import FileTiles, Rest, count_rows, hop_for, joined_sql, make_tiles, tile_grid
from featurestore.tiles.file_tile_store import HopChoice, TiledFile, TiledPart, TileFiles

SIDE_BY_SIDE_PARTS = 8
"""So many parts are read side by side; where there are more, the smallest of them are joined."""

DECIDED_AGAIN_GROWTH = 2
"""Where the files have so many times more bytes, the hop of tiles is decided again."""

DECIDED_FOR_INSTANTS = 24
"""A hop is to be good at so many refresh instants, from a run's on."""


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


def has_tiles(folder: OwnedFolder, view: str, fingerprint: str) -> bool:
    """Whether there are tiles of a view version, or what is left of them."""
    folder.check()
    return TileFiles(folder.path, view, fingerprint).exists()


def can_be_tiled(view: ResolvedView) -> bool:
    """Whether tiles of some of a view's files can stand for their rows.

    They cannot where a row of another file may replace one of theirs, where a fold picks rows or keeps sets or sketches,
    and where a least or greatest value is no number.
    """
    source = view.source
    if not isinstance(source, FileSource) or source.event_time is None or source.identity or not view.folded:
        return False
    return all(_has_tiles(feature) for feature in view.folded)


def _has_tiles(feature: ResolvedFeature) -> bool:
    """Whether it is finished from partial sums; codes of values that are no numbers differ from file to file."""
    fields, of = algebra_of(feature).sum_fields, feature.reads
    coded = not {"least", "greatest"} & {*(fields or ())} or (of is not None and (of.is_float or of.kind in INTEGERS))
    return fields is not None and coded


@dataclass(frozen=True)
class ChosenTiles:
    """The tiles for a view's folds at an instant, for any session that reads these files of its source. files: by what tiles know of each.
    parts: the tiles, which lie in paths."""

    source: FileSource
    grid: TileGrid
    paths: tuple[str, ...]
    files: Mapping[TiledFile, SourceFile]
    parts: tuple[TiledPart, ...]

    def tiling(self, session: Session) -> FileTiles:
        """The tiles, and what a session reads beside them."""

        def rest(starts: Sequence[int]) -> Rest:
            spans = [(start, start + self.grid.hop) for start in starts]
            return _rest(session, self.source, self.files, self.parts, spans)

        return FileTiles(self.grid, self.paths, rest)


def tiles_for(
    view: ResolvedView, offline: Offline, session: Session, folder: OwnedFolder, *, instant: int,
    seen: Collection[SourceFile],
) -> ChosenTiles | None:  # fmt: skip
    """The tiles for a view's folds at an instant, of the files that were there before (`seen`); None where rows are read.

    Tiles that are missing are made. The view's lease must be held.
    """
    source = view.source
    if not can_be_tiled(view) or not isinstance(source, FileSource) or not seen:
        return None
    folder.claim()
    kept = TileFiles(folder.path, view.name, view.fingerprint)
    files = dict(zip(_identified(offline, session, source), session.files(source), strict=True))
    settled = [file for file, found in files.items() if found in seen]
    hop = _hop(kept, view, session, instant=instant, settled_bytes=sum(file.size for file in settled))
    if hop is None:
        return None
    grid = tile_grid(view, hop)
    parts = kept.parts(files)
    tiled = {file.identity for part in parts for file in part.files}
    missing = [file for file in settled if file.identity not in tiled]
    if missing:
        parts.append(_made(kept, view, offline, [(file, files[file]) for file in missing], grid))
    if len(parts) > SIDE_BY_SIDE_PARTS:
        parts.sort(key=lambda part: part.rows)
        parts[:SIDE_BY_SIDE_PARTS] = [_joined(kept, view, session, parts[:SIDE_BY_SIDE_PARTS])]
    paths = tuple(path for part in parts for path in part.paths)
    if not paths:
        return None
    return ChosenTiles(source, grid, paths, files, tuple(parts))


def _identified(offline: Offline, session: Session, source: FileSource) -> list[TiledFile]:
    """The files of a source as tiles know them, whose times are not known yet."""
    files = session.files(source)
    arrived: Sequence[int | None] = [None] * len(files)
    if source.arrives:
        arrived = offline.instants(source, files)
    return [TiledFile(file.path, file.size, file.modified, at) for file, at in zip(files, arrived, strict=True)]


def _hop(kept: TileFiles, view: ResolvedView, session: Session, *, instant: int, settled_bytes: int) -> int | None:
    """The hop of the view's tiles; settled_bytes: how large the files are that can have any."""
    choice = kept.choice()
    if settled_bytes and (choice is None or settled_bytes >= DECIDED_AGAIN_GROWTH * choice.bytes):
        step = view.timing.refresh or 0
        instants = [instant + number * step for number in range(DECIDED_FOR_INSTANTS)]
        hop = hop_for(session.connection, view, session.scan(view.source), ats=instants)
        choice = HopChoice(hop, settled_bytes)
        kept.choose(choice)
    return None if choice is None else choice.hop


def _made(
    kept: TileFiles, view: ResolvedView, offline: Offline, files: Sequence[tuple[TiledFile, SourceFile]], grid: TileGrid
) -> TiledPart:
    """The tiles of these files, read by themselves."""
    with offline.session(files={view.source.name: tuple(file for _, file in files)}) as session:
        plan, times = count_rows(session.connection, view, session.scan(view.source))
        named = [file._replace(first=first, last=last) for number, (file, _) in enumerate(files)
                 for first, last in [times.get(number, (None, None))]]  # fmt: skip
        return kept.add(grid.hop, named, make_tiles(session.connection, plan, grid))


def _joined(kept: TileFiles, view: ResolvedView, session: Session, parts: Sequence[TiledPart]) -> TiledPart:
    paths = [path for part in parts for path in part.paths]
    if not paths:
        return kept.join(parts, [])
    columns = dict.fromkeys(name for path in paths for name in pq.read_schema(path).names)
    table: pa.Table = session.connection.sql(joined_sql(view, paths, list(columns))).to_arrow_table()
    return kept.join(parts, [table])


def _rest(
    session: Session, source: FileSource, files: Mapping[TiledFile, SourceFile], parts: Sequence[TiledPart],
    spans: Sequence[tuple[int, int]],
) -> Rest:  # fmt: skip
    """What reads the files without tiles, and those with tiles that may hold rows within these spans of time."""
    by_identity = {file.identity: found for file, found in files.items()}
    tiled = {file.identity: file for part in parts for file in part.files}
    others = [found for identity, found in by_identity.items() if identity not in tiled]
    met = [by_identity[file.identity] for file in tiled.values() if any(file.meets(*span) for span in spans)]
    read = others + met or [min(files.values(), key=lambda file: file.size)]  # of which no row is asked for
    return Rest(session.scan_files(source, read), len(others))
