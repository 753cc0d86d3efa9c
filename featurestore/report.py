"""Reports: a title, notes and tables, laid out here alone: as text for a terminal, as HTML for a notebook, as JSON for a program."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from decimal import Decimal
from html import escape
from io import StringIO
from pathlib import Path
from typing import Any

from featurestore import types
from featurestore.clock import to_datetime
from featurestore.typed_json import JSON_FORMS

WIDEST_CELL_CHARACTERS = 40
"""Characters of a value of a known type in a report; what is longer is cut."""

LONGEST_LINE_CHARACTERS = 28
"""Characters of a cell in HTML that need not be folded: an instant to the microsecond has 27."""

UNBOUNDED_COLUMNS = 10_000
"""Columns of a terminal that nothing is folded for."""


@dataclass(frozen=True)
class ReportTable:
    """A table; each value stands as `cell` shows it. Without a header its rows are lines."""

    header: Sequence[str]
    rows: Sequence[Sequence[object]]

    def lines(self, width: int) -> list[str]:
        """Each column as wide as its widest cell; folded where the whole would be wider than `width`."""
        from rich.console import Console
        from rich.table import Table as Grid
        from rich.text import Text

        grid = Grid(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=bool(self.header))
        for name in self.header:
            grid.add_column(Text(name), overflow="fold")
        for row in self.rows:
            grid.add_row(*(Text(cell(value), overflow="fold") for value in row))
        shown = StringIO()
        if grid.columns:
            Console(file=shown, width=width, force_terminal=False, force_jupyter=False).print(grid)
        return [line.rstrip() for line in shown.getvalue().splitlines()]

    def html(self) -> str:
        """Every cell is escaped."""
        head = "".join(_html_cell("th", name) for name in self.header)
        rows = ("".join(_html_cell("td", cell(value)) for value in row) for row in self.rows)
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


@dataclass(frozen=True)
class Figure:
    """A plot, which only HTML shows."""

    title: str
    svg: str

    def html(self) -> str:
        """The plot as it is."""
        return f"<figure><figcaption><b>{escape(self.title)}</b></figcaption>{self.svg}</figure>"


@dataclass(frozen=True)
class Report:
    """A title, and below it in their order: notes, which are sentences, tables, plots, and reports about a part of it."""

    title: str
    parts: Sequence[str | ReportTable | Figure | Report] = ()

    def text(self, width: int = UNBOUNDED_COLUMNS) -> str:
        """Lines for a terminal of that width; notes are as long as they are."""
        return "\n".join(self._lines(width))

    def _lines(self, width: int) -> Iterator[str]:
        yield from [self.title] if self.title else []
        is_apart, is_first = False, not self.title
        for part in self.parts:
            if isinstance(part, Figure):
                continue
            was_apart, is_apart = (
                is_apart,
                isinstance(part, Report) or (isinstance(part, ReportTable) and bool(part.header)),
            )
            yield from [""] if (is_apart or was_apart) and not is_first else []
            is_first = False
            if isinstance(part, str):
                yield part
            elif isinstance(part, ReportTable):
                yield from part.lines(width)
            else:
                title, *rest = part._lines(width)
                yield title
                yield from (f"  {line}".rstrip() for line in rest)

    def html(self) -> str:
        """A piece of a page; all text is escaped."""
        title = f"<strong>{escape(self.title)}</strong>" if self.title else ""
        parts = (f"<p>{escape(part)}</p>" if isinstance(part, str) else part.html() for part in self.parts)
        return f"<div>{title}{''.join(parts)}</div>"


def _html_cell(tag: str, text: str) -> str:
    """A cell of a table; a page may keep cells on one line, but for those whose text is long."""
    folded = ";white-space:normal;overflow-wrap:anywhere" if len(text) > LONGEST_LINE_CHARACTERS else ""
    return f"<{tag} style='text-align:left{folded}'>{escape(text)}</{tag}>"


class Reported:
    """What has a report: text and a notebook's HTML are made of it, and JSON of its fields."""

    def report(self) -> Report:
        """What is shown of it."""
        raise NotImplementedError

    def __str__(self) -> str:
        return self.report().text()

    def _repr_html_(self) -> str:
        return self.report().html()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: instants as RFC 3339, NaN and infinities as strings, bytes as base64."""
        return plain_fields(self, *_shown_fields(self))


def cell(value: object) -> str:
    """A value as it stands in a table; text as it is."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(cell, value))}]"
    if isinstance(value, datetime):
        return shown_instant(value) if value.tzinfo is not None else value.isoformat(sep=" ")
    return str(plain(value))


def typed_cell(value: Any, of: types.FeatureType) -> str:
    """A canonical value of a type, with all of its digits, and text in quotes."""
    if value is None:
        return "null"
    if isinstance(value, (types.FarDate, types.FarTimestamp)):
        return str(types.to_json(of, value))
    if of == types.Timestamp:
        return shown_instant(value)
    bare = of.kind in {"Bool", "Int32", "Int64", "Date", "Decimal"} or of == types.Array(types.Timestamp)
    text = str(value) if bare else repr(value)
    return text if len(text) <= WIDEST_CELL_CHARACTERS else f"{text[: WIDEST_CELL_CHARACTERS - 1]}…"


def shown_instant(value: datetime | None) -> str:
    """As short as it is exact: "2013-01-01 12:00:00Z"."""
    return "-" if value is None else f"{value.astimezone(UTC).replace(tzinfo=None).isoformat(sep=' ')}Z"


def within(path: str, root: Path) -> str:
    """A path as it is seen from a folder; one that does not lie in it, and a URL, as it is."""
    for folder in (str(root), str(root.resolve())):
        if path.startswith(f"{folder.rstrip('/')}/"):
            return path[len(folder.rstrip("/")) + 1 :]
    return path


def instant_json(instant_us: int | None) -> str | None:
    """An instant as every JSON document has it: "2013-01-01T12:00:00.000000Z"."""
    return None if instant_us is None else str(plain(to_datetime(instant_us)))


def plain(value: Any) -> Any:
    """The JSON form of a value: of a scalar of any feature type that of `featurestore.types`, of records their fields."""
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Reported):
        return value.to_dict()
    if is_dataclass(value):
        return plain_fields(value, *_shown_fields(value))
    for kind, of in JSON_FORMS:
        if isinstance(value, kind):
            return types.to_json(of, value)
    return format(value, "f") if isinstance(value, Decimal) else value


def _shown_fields(record: Any) -> list[str]:
    return [field.name for field in fields(record) if field.repr]


def plain_fields(record: object, *names: str, **renamed: str) -> dict[str, Any]:
    """The JSON forms of some fields of a record. renamed: JSON name → field."""
    wanted = {**{name: name for name in names}, **renamed}
    return {name: plain(getattr(record, attribute)) for name, attribute in wanted.items()}
