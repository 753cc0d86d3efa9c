"""Where pages and files are: on a server, and as files of a static site."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote, urlencode

from featurestore.console.files import version_of

ROOT = "/ui"
"""Where the console is on a server."""


class Addresses(Protocol):
    """Turns kinds and names into addresses."""

    def page(self, kind: str, name: str = "", query: Mapping[str, str] | None = None) -> str | None:
        """The address of a page; None where there is no such page."""

    def file(self, name: str) -> str:
        """The address of a file, such as a style sheet."""


@dataclass(frozen=True)
class ServerAddresses:
    """Addresses on a server. prefix: what stands before all of its paths, where it is behind something that adds one."""

    prefix: str = ""

    def page(self, kind: str, name: str = "", query: Mapping[str, str] | None = None) -> str:
        """ "/ui/view/NAME?…"."""
        parts = [quote(part, safe=":@~") for part in (kind, name) if part]
        asked = f"?{urlencode(query)}" if query else ""
        return "/".join([self.prefix + ROOT, *parts]) + asked

    def file(self, name: str) -> str:
        """A browser may keep it: the address changes when the file does."""
        return f"{self.prefix}{ROOT}/files/{name}?v={version_of(name)}"


@dataclass(frozen=True)
class FileAddresses:
    """Addresses of the files of a static site, as they are seen from one of them. depth: folders between that and the site's own;
    kinds: those of pages that are there; start: the one that is the first page."""

    depth: int
    kinds: frozenset[str]
    start: str

    def page(self, kind: str, name: str = "", query: Mapping[str, str] | None = None) -> str | None:
        """ "../view/NAME.html"; what is asked of a page is left out, since nobody answers."""
        if kind == "":
            kind = self.start
        return f"{'../' * self.depth}{place_of(kind, name, self.start)}" if kind in self.kinds and not query else None

    def file(self, name: str) -> str:
        """ "../files/NAME"."""
        return f"{'../' * self.depth}files/{name}"


def place_of(kind: str, name: str, start: str) -> str:
    """Where a page is in a static site. Names have no dot, so that no two pages are one file."""
    return "index.html" if kind == start else f"{kind}/{name.replace(':', '.')}.html"
