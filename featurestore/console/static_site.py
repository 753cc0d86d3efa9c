"""The catalog as a static site: each definition's page and lineage as a file, by the same models and templates as the console."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from featurestore.console.addresses import FileAddresses, place_of
from featurestore.console.files import files
from featurestore.console.page import PageKind, PageRequest
from featurestore.console.pages.catalog import entries
from featurestore.console.readable_store import ReadableStore
from featurestore.console.rendering import PageFrame
from featurestore.console.site_map import PAGES
from featurestore.durable.disk import write_file
from featurestore.errors import ConfigError
from featurestore.store import FeatureStore

START = "catalog"
"""The kind of the first page."""

MARK = ".featurestore-docs"
"""A file that says that a folder was written by this, and may be written again."""


def build(store: FeatureStore, folder: Path) -> int:
    """Write the site into a folder that is not there, is empty, or holds an earlier site, whose files are replaced; how many pages
    it has. What is gone from the catalog is gone from the folder. Nothing in it asks a server, and it can be opened from the disk.

    ConfigError where the folder holds something else, or links to something else in the places of pages. Raises what describing a definition raises.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; name a folder")
    is_ours = (folder / MARK).exists()
    if folder.is_dir() and not is_ours and any(folder.iterdir()):
        raise ConfigError(
            f"{folder} holds files that `featurestore docs build` did not write; name an empty or a new folder"
        )
    written = {folder / MARK}
    pages = list(_pages(ReadableStore(store), store.config.project))
    contents = {folder / place: content for place, content in pages}
    contents |= {folder / "files" / name: file.content for name, file in files().items()}
    for path in (folder / MARK, *contents, *(path.parent for path in contents if path.parent != folder)):
        if path.is_symlink():
            raise ConfigError(
                f"{path} is a link, and what it leads to is not written; remove it, or name another folder"
            )
    for path, content in contents.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, content, lasting=False)  # pages are many, and made again in a moment
        written.add(path)
    write_file(folder / MARK, "featurestore docs build writes this folder anew\n")
    for path in [*folder.glob("*/*.html"), *folder.glob("files/*")] if is_ours else []:
        if path not in written and not path.parent.is_symlink():
            path.unlink()
    return len(pages)


def _pages(store: ReadableStore, project: str) -> Iterator[tuple[str, bytes]]:
    """Each page by its place in the site. The lineage of a name is that of all that bear it."""
    kinds = {page.kind: page for page in PAGES if page.is_static}
    places = {place_of(START, "", START): (START, "")}
    for entry in entries(store):
        for kind in (entry.page,) if entry.page == "entity" else (entry.page, "lineage"):
            places.setdefault(place_of(kind, entry.name, START), (kind, entry.name))
    for place, (kind, name) in places.items():
        yield place, _page(store, project, kinds, kind, name)


def _page(store: ReadableStore, project: str, kinds: dict[str, PageKind], kind: str, name: str) -> bytes:
    addresses = FileAddresses(0 if kind == START else 1, frozenset(kinds), START)
    frame = PageFrame(project, list(kinds.values()), addresses, is_static=True)
    return frame.page(kinds[kind].model(store, PageRequest(name, is_static=True)), kind, name)
