"""How a model becomes a page: templates in which every value is escaped, over one frame with navigation and search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from featurestore.access.principal import Principal
from featurestore.console.addresses import Addresses
from featurestore.console.page import (
    LONGEST_CELL_CHARACTERS,
    PageKind,
    PageLink,
    PageModel,
    PageRequest,
    PageState,
    plain_text,
)
from featurestore.console.readable_store import left_out
from featurestore.plurals import plural
from featurestore.report import cell, plain

LONGEST_TABLE_ROWS = 200
"""Rows of a table that a page shows at first; below them a link leads to more. Exports and a static site have all."""

LONGEST_TEXT_CHARACTERS = 40_000
"""Characters of a text of many lines, such as a manifest, that a page shows at first; as of a table, a link leads to more."""

PART_SIZE = 10
"""How many times as much as at first a page shows of a table or a text where more is asked for: a browser takes that at once, and no more is sent,
however much there is. The other parts are asked for one by one."""

LONGEST_WORD_CHARACTERS = 40
"""Characters of a word that stays whole in a table: a fingerprint has 32."""


@dataclass(frozen=True)
class ShownPart:
    """What a page shows of a table's rows or a text's characters: `first` to `last`, counted from 1, of `total`. number: which part of how many;
    None where none is asked for, and the beginning is shown. size: of a part."""

    shown: Sequence[Any]
    first: int
    total: int
    size: int
    number: int | None = None

    @property
    def last(self) -> int:
        """0 of nothing."""
        return self.first + len(self.shown) - 1

    @property
    def parts(self) -> int:
        """How many parts there are."""
        return -(-self.total // self.size)

    @property
    def others(self) -> list[tuple[str, int]]:
        """The parts that links lead to, before it and after it."""
        if self.number is None:
            return []
        before = [("First", 1), ("Previous", self.number - 1)] if self.number > 1 else []
        return before + ([("Next", self.number + 1), ("Last", self.parts)] if self.number < self.parts else [])

    @classmethod
    def of(cls, whole: Sequence[Any], at_first: int, number: int | None) -> ShownPart:
        """The beginning, or the part that is asked for; beyond the last one that one."""
        size = at_first * PART_SIZE
        if number is None or len(whole) <= at_first:
            return cls(whole[:at_first], 1, len(whole), size)
        number = min(number, -(-len(whole) // size))
        before = (number - 1) * size
        return cls(whole[before : before + size], before + 1, len(whole), size, number)


@cache
def environment() -> Environment:
    """All templates. What a template names and nobody gave is an error."""
    made = Environment(
        loader=PackageLoader("featurestore.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["cell"] = cell
    made.filters["thousands"] = "{:,}".format
    made.globals["plural"] = plural
    return made


def compile_templates() -> None:
    """Read all templates now, which the first page of each kind would wait for: some 0.1 s of CPU time, once in a process."""
    for name in environment().list_templates(extensions=["html"]):
        environment().get_template(name)


class PageFrame:
    """What stands around each page. project: the store's; kinds: those of the navigation; has_session: whether whoever looks can
    sign out; is_static: whether the page is a file, which nobody answers questions of."""

    def __init__(
        self, project: str, kinds: Sequence[PageKind], addresses: Addresses, *, principal: Principal | None = None,
        has_session: bool = False, is_static: bool = False,
    ) -> None:  # fmt: skip
        self.project, self.principal, self.has_session, self.is_static = project, principal, has_session, is_static
        self._kinds, self._addresses = kinds, addresses

    def page(self, model: PageModel, kind: str, name: str = "", query: Mapping[str, str] | None = None) -> bytes:
        """A page in HTML. query: the words of its address. Raises RequestError where these ask for a part of a table or a text by what is no number."""
        asked = PageRequest(name, query or {})
        tables = {table.name: table for table in model.tables}
        data = None if model.data is None else self._data(model.data)

        def part(of: str, whole: Sequence[Any], at_first: int) -> ShownPart:
            return (
                ShownPart(whole, 1, len(whole), 1) if self.is_static else ShownPart.of(whole, at_first, asked.part(of))
            )

        return self._shown(
            model.template, kind=kind, name=name, query=asked.question(), parts=asked.parts(), part=part, title=model.title, tables=tables,
            data=data, **model.values, **model.drawings,
        )  # fmt: skip

    def error(self, title: str, detail: str, request_id: str) -> bytes:
        """A page that says what went wrong."""
        return self._shown(
            "error.html", kind=None, name="", query={}, title=title, detail=detail, request_id=request_id, data=None
        )

    def login(self, *, then: str, why: str = "", action: str = "") -> bytes:
        """The form that asks for a key, and nothing of the project. then: the address that was asked for; why: what was wrong with
        the last key."""
        template = environment().get_template("login.html")
        return template.render(then=then, why=why, action=action, file=self._addresses.file).encode()

    def _shown(self, template: str, **values: Any) -> bytes:
        frame = {
            "left_out": "" if self.principal is None else left_out(self.principal), "project": self.project, "principal": self.principal, "has_session": self.has_session,
            "is_static": self.is_static, "navigation": self._navigation(), "url": self._url, "file": self._addresses.file,
            "show": self._cell, "longest_table_rows": LONGEST_TABLE_ROWS,
            "longest_text_characters": LONGEST_TEXT_CHARACTERS,
        }  # fmt: skip
        assert values.keys() & frame.keys() <= {"left_out"}, f"{template} would not see what a page says by these words"
        return environment().get_template(template).render({**values, **frame}).encode()

    def _navigation(self) -> dict[str, list[PageKind]]:
        groups: dict[str, list[PageKind]] = {}
        for kind in self._kinds:
            may = self.principal is None or kind.may_see(self.principal)
            if kind.is_listed and may and self._addresses.page(kind.kind) is not None:
                groups.setdefault(kind.group, []).append(kind)
        return groups

    def _url(self, kind: str, name: str = "", /, **query: object) -> str:
        asked = {word: str(value) for word, value in query.items() if value not in (None, "")}
        return self._addresses.page(kind, name, asked) or ""

    def _data(self, value: Any) -> Any:
        """What scripts read: links with their addresses, all else as JSON has it."""
        if isinstance(value, PageLink):
            return {"text": value.text, "href": self._addresses.page(value.kind, value.name, value.query)}
        if isinstance(value, Mapping):
            return {str(key): self._data(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._data(item) for item in value]
        return plain(value)

    def _cell(self, value: object) -> Markup:
        """A value of a table or a list of facts: links lead somewhere, long texts are cut, and all text is escaped."""
        if isinstance(value, PageLink):
            address = self._addresses.page(value.kind, value.name, value.query)
            text = _text(value.text)
            return text if address is None else Markup('<a href="{}">{}</a>').format(address, text)
        if isinstance(value, PageState):
            return Markup('<span class="mark {}">{}</span>').format(value.level, _text(value.text))
        if isinstance(value, (list, tuple)) and any(isinstance(one, (PageLink, PageState)) for one in value):
            return Markup(", ").join(map(self._cell, value))
        if isinstance(value, datetime):
            return Markup('<time datetime="{}">{}</time>').format(plain(value), plain_text(value))
        return _text(plain_text(value))


def _text(text: str) -> Markup:
    """A text, escaped; a long one is cut, and one with a word that is too long for a column may be broken anywhere."""
    cut = text if len(text) <= LONGEST_CELL_CHARACTERS else f"{text[: LONGEST_CELL_CHARACTERS - 1]}…"
    if any(len(word) > LONGEST_WORD_CHARACTERS for word in cut.split()):
        return Markup('<span class="long">{}</span>').format(cut)
    return escape(cut)
