"""Names of another store's as names of ours, and the reason where they differ."""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Container, Iterable

from featurestore.declare.declaration import column_name, definition_name

LONGEST = 120
"""Characters of a name that is made."""


class Names:
    """Gives each thing of one kind a name of its own. column: names of features and columns, which may hold `__`."""

    def __init__(self, *, column: bool = False, prefix: str = "n") -> None:
        self._given: dict[str, str] = {}
        self._taken: set[str] = set()
        self._column, self._prefix = column, prefix

    def of(self, name: str) -> str:
        """The name here of what bears a name there; the same each time."""
        if name not in self._given:
            self._given[name] = self._free(name)
        return self._given[name]

    @property
    def given(self) -> dict[str, str]:
        """The names here by those there."""
        return dict(self._given)

    def reserve(self, names: Iterable[str]) -> None:
        """Give none of these names away."""
        self._taken.update(names)

    def fresh(self, name: str) -> str:
        """A name of our own making that nothing bears yet."""
        return self._free(name)

    def _free(self, name: str) -> str:
        good = name if self._is_name(name) else _made(name, self._prefix)
        free, number = good, 2
        while free in self._taken:
            free, number = f"{good}_{number}", number + 1
        self._taken.add(free)
        return free

    def _is_name(self, name: str) -> bool:
        return problem_of(name, column=self._column) is None


def _made(name: str, prefix: str) -> str:
    """The nearest name of letters, digits and single underscores."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    words = re.sub(r"[^A-Za-z0-9]+", "_", plain).strip("_")[:LONGEST].strip("_")
    if not words:
        return prefix
    return words if words[0].isalpha() else f"{prefix}_{words}"


def problem_of(name: str, *, column: bool = False) -> str | None:
    """Why a name is none here; None where it is one."""
    try:
        column_name(name) if column else definition_name(name)
    except ValueError as error:
        return str(error)
    return None


def variable(name: str, taken: Container[str]) -> str:
    """A variable's name that is none of these, and no word of Python's."""
    free, number = f"{name}_" if keyword.iskeyword(name) or keyword.issoftkeyword(name) else name, 2
    while free in taken:
        free, number = f"{name}_{number}", number + 1
    return free
