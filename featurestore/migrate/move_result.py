"""What moving a repository comes to: what was written, each difference in meaning, what is refused, what is to be exported."""

from __future__ import annotations

from dataclasses import dataclass, field

from featurestore.migrate.definition_text import DeclarationCall
from featurestore.migrate.export_recipes import Export
from featurestore.migrate.names import Names, problem_of


@dataclass(frozen=True)
class MeaningDifference:
    """Something that means another thing here. about: the definition, by its name here; matter: what of it; why: the cause."""

    about: str
    matter: str
    there: str
    here: str
    why: str


@dataclass(frozen=True)
class Refusal:
    """Something that was not taken over. kind: what it is in Feast; instead: what can be done."""

    kind: str
    name: str
    why: str
    instead: str = ""


@dataclass(frozen=True)
class DefinitionStatement:
    """A definition that is written. section: the part of the file; call: what it declares; lines: its text where it is no call."""

    section: str
    variable: str
    name: str
    call: DeclarationCall | None = None
    lines: str = ""


@dataclass
class MovedView:
    """A view as it is there and here. features: there → here; keys: join key there → key column here."""

    there: str
    name: str
    variable: str
    entities: tuple[str, ...]
    keys: dict[str, str]
    features: dict[str, str]
    has_data: bool
    pushed: bool


@dataclass
class MovedFunction:
    """An on-demand view as it is there and here. features: there → here; views: those that it reads; requests: name there → name here, and type there."""

    there: str
    features: dict[str, str]
    views: tuple[str, ...]
    requests: dict[str, tuple[str, str | None]]
    variables: dict[str, str]


@dataclass
class MoveResult:
    """All that a repository of Feast's became."""

    statements: list[DefinitionStatement] = field(default_factory=list)
    modules: dict[str, str] = field(default_factory=dict)
    differences: list[MeaningDifference] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    exports: list[Export] = field(default_factory=list)
    views: dict[str, MovedView] = field(default_factory=dict)
    functions: dict[str, MovedFunction] = field(default_factory=dict)
    services: list[str] = field(default_factory=list)
    logged: dict[str, float] = field(default_factory=dict)

    def differs(self, about: str, matter: str, there: str, here: str, why: str) -> None:
        """Note a difference, once."""
        row = MeaningDifference(about, matter, there, here, why)
        if row not in self.differences:
            self.differences.append(row)

    def refuse(self, kind: str, name: str, why: str, instead: str = "") -> None:
        """Note what is not taken over, once."""
        row = Refusal(kind, name, why, instead)
        if row not in self.refused:
            self.refused.append(row)


def named_here(moved: MoveResult, names: Names, name: str) -> str:
    """The name here of what bears a name there; where it is another one, that is noted."""
    own = names.of(name)
    if own != name:
        moved.differs(own, "name", name, own, problem_of(name) or "another bears that name")
    return own
