"""A table as CSV is as safe in a spreadsheet as it is on the page."""

from __future__ import annotations

import csv
import io

import pytest

from featurestore.console.exports import as_csv
from featurestore.console.page import PageLink, PageState, PageTable


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"])  # noqa: RUF001 - these are what is meant
def test_no_text_is_a_formula(start: str) -> None:
    """Neither in a cell, nor in a header, a link, a state or a list; a number is a number."""
    text = f"{start}cmd()"
    row = (text, PageLink(text, "view"), PageState(text), [text, "b"], -1.5, -3)
    table = PageTable("t", "T", (text, "link", "state", "list", "number", "count"), [row])
    header, cells = csv.reader(io.StringIO(as_csv(table).decode(), newline=""))
    assert header[0] == f"'{text}"
    assert cells == [f"'{text}", f"'{text}", f"'{text}", f"'{text}, b", "-1.5", "-3"]
