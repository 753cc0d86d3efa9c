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
