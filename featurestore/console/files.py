"""The files of the console that are sent as they are: its style sheet and scripts, and the libraries that it brings along."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources
from typing import NamedTuple

MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

FOLDERS = ("static", "vendored")


class ConsoleFile(NamedTuple):
    """A file: its bytes, what they are, and 16 hex digits that change with them."""

    media_type: str
    content: bytes
    version: str


@cache
def files() -> dict[str, ConsoleFile]:
    """All of them by name."""
    found = {}
    for folder in FOLDERS:
        for entry in resources.files("featurestore.console").joinpath(folder).iterdir():
            media_type = MEDIA_TYPES.get(entry.name[entry.name.rfind(".") :])
            if media_type is not None:
                content = entry.read_bytes()
                found[entry.name] = ConsoleFile(media_type, content, hashlib.sha256(content).hexdigest()[:16])
    return found


def version_of(name: str) -> str:
    """16 hex digits that change with a file."""
    return files()[name].version
