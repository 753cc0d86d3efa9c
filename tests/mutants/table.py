"""Which tests hold which module, and which mutants no test can notice: what `table.toml` and `equivalent.toml` say."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["PACKAGE", "Equivalent", "equivalents", "modules", "held_by"]

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PACKAGE = ROOT / "featurestore"


class Equivalent(NamedTuple):
    """A mutant that means the same as the code does: where, its line as it was and as it is, and why."""

    module: str
    function: str
    was: str
    now: str
    because: str


def modules(wanted: Sequence[str] = ()) -> list[str]:
    """The modules that mutants are made of, by their paths in the package; of these only what begins so, if anything is said."""
    roots = _table()["mutated"]
    found = [
        path
        for root in roots
        for path in ([PACKAGE / root] if root.endswith(".py") else (PACKAGE / root).rglob("*.py"))
    ]
    names = [path.relative_to(PACKAGE).as_posix() for path in found if path.name != "__init__.py"]
    return [name for name in sorted(names) if not wanted or any(name.startswith(start) for start in wanted)]


def held_by(module: str) -> tuple[str, ...]:
    """The tests that hold a module, as pytest is told: those of the longest path in the table that its own begins with."""
    held = _table()["held"]
    found = max((path for path in held if module.startswith(path)), key=len, default=None)
    if found is None:
        raise LookupError(f"{HERE.name}/table.toml names no tests for {module}")
    return tuple(held[found])


def equivalents() -> list[Equivalent]:
    """Those that were looked at, in the order of the file."""
    listed = tomllib.loads((HERE / "equivalent.toml").read_text())
    return [Equivalent(**entry) for entry in listed["mutant"]]


def _table() -> dict:
    return tomllib.loads((HERE / "table.toml").read_text())
