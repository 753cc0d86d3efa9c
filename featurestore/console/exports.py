"""What a page shows as CSV and as JSON, for programs and spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

import orjson

from featurestore.console.page import PageLink, PageModel, PageState, PageTable, plain_text
from featurestore.errors import NotFoundError, did_you_mean
from featurestore.report import plain

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""How a text begins that a spreadsheet would run; the last four are the first ones as wide as a Chinese character."""


def table_of(model: PageModel, name: str | None) -> PageTable:
    """A table of a page by its name, the first one where none is asked for; NotFoundError."""
    named = {table.name: table for table in model.tables}
    if name is None and model.tables:
        return model.tables[0]
    if name is None or name not in named:
        raise NotFoundError(f"The page has no table '{name or ''}'.{did_you_mean(name or '', named, noun='Tables')}")
    return named[name]


def as_csv(table: PageTable) -> bytes:
    """A table as RFC 4180 has it, in UTF-8. A text that a spreadsheet would take for a formula has an apostrophe before it."""
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerow(map(_inert, table.header))
    for row in table.rows:
        writer.writerow([_inert(plain_text(value)) if _is_text(value) else plain_text(value) for value in row])
    return written.getvalue().encode()


def as_json(model: PageModel, name: str | None) -> bytes:
    """One table as a list of records, or the whole page."""
    if name is not None:
        return orjson.dumps(_records(table_of(model, name)))
    tables = {table.name: _records(table) for table in model.tables}
    values = {word: _plain(value) for word, value in model.values.items()}
    return orjson.dumps({"title": model.title, **values, "tables": tables, "data": _plain(model.data)})


def _is_text(value: object) -> bool:
    return isinstance(value, (str, PageLink, PageState, list, tuple))


def _inert(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA) else text


def _records(table: PageTable) -> list[dict[str, Any]]:
    return [{name: _plain(value) for name, value in zip(table.header, row, strict=True)} for row in table.rows]


def _plain(value: Any) -> Any:
    """The JSON form of what a page shows."""
    if isinstance(value, (PageLink, PageState)):
        return value.text
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, PageTable):
        return _records(value)
    if isinstance(value, (list, tuple)) and not hasattr(value, "_asdict"):
        return [_plain(item) for item in value]
    return plain(value)
