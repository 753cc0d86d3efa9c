"""In which definitions those at hand differ from those that are applied; no data is read for it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from featurestore.catalog import Catalog
from featurestore.registry.documents import KINDS, is_as_applied
from featurestore.registry.records import Version

NAMED = 4
"""So many names of a kind are told."""


@dataclass(frozen=True)
class Differences:
    """What differs in anything that can change a value, by name, each once; false where nothing does.

    applied: the number of the version that it was compared with; 0 where nothing is applied. gone: what is applied and
    not at hand.
    """

    applied: int
    changed: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.changed or self.new or self.gone)

    def told(self, whose: str, otherwise: str) -> str:
        """One line: what differs, whose definitions are used, and where all of it is shown; nothing where nothing differs.

        otherwise: what is done where nothing was applied yet.
        """
        if not self:
            return ""
        if not self.applied:
            return f"Nothing is applied yet; {otherwise}. Next: featurestore apply"
        parts = (("changed", self.changed), ("new", self.new), ("not at hand", self.gone))
        named = "; ".join(f"{word}: {_names(names)}" for word, names in parts if names)
        return f"The definitions at hand differ from those that are applied ({named}); {whose}. featurestore plan shows it all"


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def differences(
    at_hand: Catalog, version: Version, *, all_declared: bool, among: Collection[str] | None = None
) -> Differences:
    """What differs between definitions and an applied version.

    all_declared: whether what is not among them is meant to be gone, as where they are all of a repository's files.
    among: only these names are compared.
    """
    found: dict[str, dict[str, None]] = {"changed": {}, "new": {}, "gone": {}}
    for part, name in _each(at_hand, version, among):
        found[part][name] = None
    if not all_declared:
        found["gone"] = {}
    number = version.number if any(version.document[kind] for kind in KINDS) else 0
    return Differences(number, **{part: tuple(names) for part, names in found.items()})


def _each(at_hand: Catalog, version: Version, among: Collection[str] | None) -> Iterator[tuple[str, str]]:
    for kind in reversed(KINDS):  # services and views first: what people ask for
        applied, declared = version.document[kind], getattr(at_hand, kind)
        for name in (
            {**declared, **applied} if among is None else [name for name in among if name in {*declared, *applied}]
        ):
            if name not in declared:
                yield "gone", name
            elif name not in applied:
                yield "new", name
            elif not is_as_applied(kind, declared[name], applied[name]):
                yield "changed", name
