"""A long table is shown by its first rows, with a link to all of them; a file, which nobody answers questions of, has all."""

from __future__ import annotations

import re

import pytest

from featurestore.console.addresses import ServerAddresses
from featurestore.console.page import PageLink, PageModel, PageTable
from featurestore.console.rendering import LONGEST_TABLE_ROWS, PageFrame


def shown(rows: int, query: dict[str, str], *, is_static: bool = False) -> str:
    found = [(PageLink(f"<thing {n}>", "view", f"things{n}"), n) for n in range(rows)]
    model = PageModel("table.html", "Things", {"about": ""}, [PageTable("things", "Things", ("name", "n"), found)])
    frame = PageFrame("project", (), ServerAddresses(), is_static=is_static)
    return frame.page(model, "things", "", query).decode()


@pytest.mark.parametrize("rows", [0, 1, LONGEST_TABLE_ROWS])
def test_a_table_that_is_not_long_is_whole(rows: int) -> None:
    page = shown(rows, {})
    assert page.count("&lt;thing ") == rows
    assert "Show all" not in page


def test_a_long_table_leads_to_all_of_it() -> None:
    """What else was asked stays asked."""
    rows = LONGEST_TABLE_ROWS + 1_000
    page = shown(rows, {"q": "th&ing"})
    assert page.count("&lt;thing ") == LONGEST_TABLE_ROWS
    assert f"The first {LONGEST_TABLE_ROWS} of {rows:,} rows" in page
    assert re.search(r'<a href="/ui/things\?q=th%26ing&amp;all=1" aria-label="All rows of Things">Show all</a>', page)
    whole = shown(rows, {"q": "th&ing", "all": "1"})
    assert whole.count("&lt;thing ") == rows
    assert "Show all" not in whole


def test_a_file_has_all_rows() -> None:
    page = shown(LONGEST_TABLE_ROWS + 1, {}, is_static=True)
    assert page.count("&lt;thing ") == LONGEST_TABLE_ROWS + 1
    assert "Show all" not in page
