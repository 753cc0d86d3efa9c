"""Whose a folder is: the project that writes it says so inside, and another is refused.

    <folder>/owner.json    {"version": 1, "project": "shop", "adopted": false}

A folder of an earlier version says nothing; it belongs to the first that writes to it, and is adopted: what was in it may
be others' too.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import orjson

from featurestore.durable.disk import put_new
from featurestore.durable.forks import mutex
from featurestore.durable.own_folder import own_folder
from featurestore.errors import ConfigError

FILE = "owner.json"
VERSION = 1


class OwnedFolder:
    """A folder of a project; None: of nobody who would have to be told apart.

    what: its noun in messages. key: where featurestore.toml says where it lies.
    """

    def __init__(self, path: Path, project: str | None, *, what: str, key: str) -> None:
        self.path = path
        self._project, self._what, self._key = project, what, key
        self._claimed = False
        self._lock = mutex()

    def check(self) -> None:
        """ConfigError, which names both, where the folder is another project's; to be asked before it is read."""
        owner = None if self._project is None else self._owner()
        if owner is not None and owner != self._project:
            raise ConfigError(
                f"{self.path} is the {self._what} of project '{owner}', and this is project '{self._project}'; give each "
                f"project a folder of its own (featurestore.toml, {self._key}). Where '{owner}' was renamed to "
                f"'{self._project}', delete {self.path / FILE}"
            )

    @property
    def is_mixed(self) -> bool:
        """Whether it may hold what several projects wrote, before folders said whose they are."""
        said = self._said()
        return self.path.exists() and (said is None or bool(said.get("adopted")))

    def claim(self, filled: bool = False) -> None:
        """Make it this project's where it is nobody's; to be called before it is written. Raises ConfigError and OSError.

        filled: there is something in it that somebody wrote.
        """
        if self._claimed or self._project is None:
            return
        with self._lock:
            try:
                own_folder(self.path)
            except FileExistsError:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(self.path)) from None
            if self._owner() is None:
                said = {"version": VERSION, "project": self._project, "adopted": filled}
                put_new(self.path / FILE, orjson.dumps(said))
            self.check()
            self._claimed = True

    def _owner(self) -> str | None:
        said = self._said()
        return None if said is None else str(said["project"])

    def _said(self) -> dict[str, Any] | None:
        path = self.path / FILE
        try:
            said: dict[str, Any] = orjson.loads(path.read_bytes())
            version, _ = said["version"], said["project"]
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise ConfigError(
                f"{path} does not say whose {self._what} this is: it is damaged. Write "
                f'{{"version": {VERSION}, "project": "…"}} with the project whose it is'
            ) from None
        if version != VERSION:
            raise ConfigError(
                f"{path} was written by a newer version of featurestore (version {version}; this one reads {VERSION}); "
                "upgrade it here"
            )
        return said
