"""What a page is: a kind, with a function that makes its model of what the store says; tables, and links between pages."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from featurestore.access.principal import EVERYBODY, Principal
from featurestore.clock import to_datetime
from featurestore.console.readable_store import ReadableStore
from featurestore.declare.durations import show_duration
from featurestore.errors import RequestError
from featurestore.report import cell

SECOND = 1_000_000
"""µs."""

DURATION_PART = re.compile(r"\d+[a-z]+")

LONGEST_CELL_CHARACTERS = 400
"""Characters of a cell that a page shows; an export has all of them."""

ANSWER_WORDS = frozenset({"run", "format", "table"})
"""The words of an address that say how it is to be answered; the others say what is asked."""

PART = "part."
"""How the word begins that says which part of a table or a text is shown; its name follows."""

MOST_PARTS = 10**9


@dataclass(frozen=True)
class PageLink:
    """A text that leads to a page. kind, name: which one; query: what is asked of it."""

    text: str
    kind: str
    name: str = ""
    query: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class PageState:
    """A word about how something is, shown as a mark. level: "good", "warn", "bad" or "plain"."""

    text: str
    level: str = "plain"

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class PageTable:
    """A table of a page, which exports as CSV and JSON. name: what it is called in an address. Cells are plain values, links
    and states, or lists of these; without rows, `nothing` is said instead."""

    name: str
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    nothing: str = "None."


@dataclass(frozen=True)
class PageModel:
    """What a page shows. template: the file that shows it; values: its variables, of plain values, links and states; data: what
    its scripts read, plain JSON; drawings: what the template draws, which no export has. A template shows the tables where it wants to, by
    their names."""

    template: str
    title: str
    values: Mapping[str, Any] = field(default_factory=dict)
    tables: Sequence[PageTable] = ()
    data: Mapping[str, Any] | None = None
    drawings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PageRequest:
    """What is asked for. name: of the thing that the page is about, "" where it is about none; query: the words of the address."""

    name: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    principal: Principal = EVERYBODY
    is_static: bool = False
    """Whether the page becomes a file, in which what is true for a moment has no place."""

    def word(self, name: str) -> str | None:
        """A word of the address, without blanks around it; None where it is not there or empty."""
        return self.query.get(name, "").strip() or None

    def question(self, **words: str) -> dict[str, str]:
        """What is asked, with some words changed: the query of a link that asks it. Its page is there before what takes long is done, and begins
        with the first rows of its tables."""
        asked = {**self.query, **words}.items()
        return {word: said for word, said in asked if word not in ANSWER_WORDS and not word.startswith(PART)}

    def part(self, name: str) -> int | None:
        """Which part of a table or a text is asked for, counted from 1; None where none is. RequestError."""
        return None if self.word(PART + name) is None else max(1, self.number(PART + name, 1, most=MOST_PARTS))

    def parts(self) -> dict[str, str]:
        """The words that say which parts are asked for."""
        return {word: said for word, said in self.query.items() if word.startswith(PART)}

    @property
    def is_run(self) -> bool:
        """Whether what takes long is to be done now: a page asks for it when it is there, and an export at once."""
        return self.word("run") is not None or self.query.get("format", "html") != "html"

    def number(self, name: str, default: int, *, most: int) -> int:
        """A whole number of the address, from 0 to `most`; RequestError where it is none."""
        said = self.word(name)
        if said is None:
            return default
        if not said.isascii() or not said.isdecimal() or len(said) > len(str(most)) or int(said) > most:
            raise RequestError(f"{name} is a whole number from 0 to {most}, and not {said[:40]!r}")
        return int(said)


@dataclass(frozen=True)
class PageKind:
    """A kind of page. kind: the word in its address, "" for the first page; title: what the navigation calls it. model: calls an
    operation of the store and says what is shown; is_named: whether it is about one thing, whose name ends the address; scope:
    what whoever looks must have; is_listed: whether the navigation has it;
    takes_long: whether an operation may take minutes where `is_run` is so; group: the part of the navigation."""

    kind: str
    title: str
    model: Callable[[ReadableStore, PageRequest], PageModel]
    is_named: bool = False
    scope: str = "read"
    is_listed: bool = True
    takes_long: bool = False
    is_static: bool = False
    """Whether a static site has it."""
    group: str = "What exists"

    def may_see(self, principal: Principal) -> bool:
        """Whether a principal may see any page of the kind: what is for administrators is of the whole project."""
        return principal.may(self.scope) and (principal.only_on is None or self.scope == "read")


def instant(instant_us: int | None) -> object:
    """An instant as a cell; "-" where there is none."""
    return "-" if instant_us is None else to_datetime(instant_us)


def moment(instant_us: int | None) -> object:
    """When something was done, to the second."""
    return instant(None if instant_us is None else instant_us // SECOND * SECOND)


def about(duration_us: int) -> str:
    """A duration in its two largest units, as "2m5s"."""
    parts = DURATION_PART.findall(show_duration(max(0, duration_us)))
    return "".join(parts[:2])


def plain_text(value: object) -> str:
    """A cell as text, whole, as exports have it: that of a link or a state, and all values as reports show them."""
    if isinstance(value, (PageLink, PageState)):
        return value.text
    if isinstance(value, (list, tuple)):
        return ", ".join(map(plain_text, value))
    return cell(value)
