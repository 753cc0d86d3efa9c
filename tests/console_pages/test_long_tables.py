"""A long table is shown by its first rows, with links to the others, so many at a time; a file, which nobody answers questions of, has all."""

from __future__ import annotations

import csv
import io
import json
import re
from html import unescape
from urllib.parse import parse_qsl, urlsplit

import pytest

from featurestore.console.addresses import ServerAddresses
from featurestore.console.exports import as_csv, as_json
from featurestore.console.page import PageLink, PageModel, PageTable
from featurestore.console.rendering import LONGEST_TABLE_ROWS, LONGEST_TEXT_CHARACTERS, PART_SIZE, PageFrame
from featurestore.errors import RequestError
from tests.console_pages.pages import checked

PART_ROWS = LONGEST_TABLE_ROWS * PART_SIZE


def model_of(rows: int) -> PageModel:
    found = [(PageLink(f"<thing {n}>", "view", f"things{n}"), n) for n in range(rows)]
    other = PageTable("others", "Others", ("n",), [(n,) for n in range(LONGEST_TABLE_ROWS + 1)])
    return PageModel(
        "table.html", "Things", {"about": ""}, [PageTable("things", "Things", ("name", "n"), found), other]
    )


def shown(rows: int, query: dict[str, str], *, is_static: bool = False) -> str:
    frame = PageFrame("project", (), ServerAddresses(), is_static=is_static)
    return frame.page(model_of(rows), "things", "", query).decode()


def numbers(page: str) -> list[int]:
    """The things that are shown."""
    return [int(number) for number in re.findall(r"&lt;thing (\d+)&gt;", page)]


def link(page: str, text: str) -> str:
    """Where the link of the table leads that says this; "" where there is none."""
    found = re.search(rf'<a href="([^"]*#table-things)" aria-label="[^"]* of Things">{text}</a>', page)
    return "" if found is None else unescape(found[1])


def asked(link: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(link).query))


@pytest.mark.parametrize("rows", [0, 1, LONGEST_TABLE_ROWS])
def test_a_table_that_is_not_long_is_whole(rows: int) -> None:
    for query in ({}, {"part.things": "7"}):
        page = shown(rows, query)
        assert numbers(page) == list(range(rows))
        assert "Parts of Things" not in page


@pytest.mark.parametrize("rows", [LONGEST_TABLE_ROWS + 1, PART_ROWS])
def test_a_table_that_a_page_can_have_leads_to_all_of_it(rows: int) -> None:
    """What else was asked stays asked, and the other tables of the page are as they were."""
    page = shown(rows, {"q": "th&ing"})
    assert numbers(page) == list(range(LONGEST_TABLE_ROWS))
    assert f"The first {LONGEST_TABLE_ROWS} of {rows:,} rows" in page
    leads = link(page, "Show all")
    assert asked(leads) == {"q": "th&ing", "part.things": "1"}
    whole = shown(rows, asked(leads))
    assert numbers(whole) == list(range(rows))
    assert "Parts of Things" not in whole
    assert "Parts of Others" in whole


def test_no_page_has_more_rows_than_a_browser_takes_and_links_go_through_all() -> None:
    """Each row is in one part, however many there are."""
    rows = 2 * PART_ROWS + 3
    page = shown(rows, {})
    found: list[int] = []
    leads, back = link(page, f"Show {PART_ROWS:,} at a time"), ""
    while leads:
        page = shown(rows, asked(leads))
        checked(page)
        part = numbers(page)
        assert len(part) <= PART_ROWS
        assert f"Rows {part[0] + 1:,} to {part[-1] + 1:,} of {rows:,}." in page
        found += part
        back, leads = link(page, "Previous"), link(page, "Next")
    assert found == list(range(rows))
    assert numbers(shown(rows, asked(back)))[0] == PART_ROWS
    assert numbers(shown(rows, asked(link(page, "First"))))[0] == 0
    assert numbers(shown(rows, asked(link(shown(rows, {"part.things": "1"}), "Last")))) == found[2 * PART_ROWS :]


@pytest.mark.parametrize(("said", "first"), [("0", 0), ("99", PART_ROWS), ("999999999", PART_ROWS)])
def test_a_part_that_is_not_there_is_the_nearest(said: str, first: int) -> None:
    """As where rows went since a link was made."""
    assert numbers(shown(PART_ROWS + 5, {"part.things": said}))[0] == first


@pytest.mark.parametrize("said", ["-1", "x", "1.5", "9" * 5000])
def test_what_is_no_number_of_a_part_is_refused(said: str) -> None:
    with pytest.raises(RequestError, match=r"part\.things is a whole number"):
        shown(PART_ROWS + 5, {"part.things": said})


def test_exports_have_all_rows_whatever_part_is_shown() -> None:
    rows = PART_ROWS + 5
    page = shown(rows, {"part.things": "2", "run": "1"})
    (leads,) = {unescape(to) for to in re.findall(r'href="([^"]*format=csv[^"]*table=things)"', page)}
    assert asked(leads) == {"format": "csv", "table": "things"}
    model = model_of(rows)
    assert len(list(csv.reader(io.StringIO(as_csv(model.tables[0]).decode())))) == rows + 1
    assert len(json.loads(as_json(model, "things"))) == rows


def test_a_long_text_is_shown_in_parts() -> None:
    text = "".join(f"{n:07}\n" for n in range(LONGEST_TEXT_CHARACTERS * PART_SIZE // 8 + 10))
    values = {"path": "frame.parquet", "beside": None, "manifest": text, "check": "", "why": None, "service": None}
    model = PageModel("training.html", "Training", values, [PageTable("frames", "Frames", ("n",), [])])
    frame = PageFrame("project", (), ServerAddresses())

    def page(query: dict[str, str]) -> str:
        found = re.search(r"<code>(.*?)</code>", frame.page(model, "training", "", query).decode(), re.DOTALL)
        assert found is not None
        return found[1]

    assert page({}) == text[:LONGEST_TEXT_CHARACTERS]
    assert page({"part.manifest": "1"}) + page({"part.manifest": "2"}) == text


def test_a_file_has_all_rows() -> None:
    rows = PART_ROWS + 5
    page = shown(rows, {}, is_static=True)
    assert numbers(page) == list(range(rows))
    assert "Parts of" not in page
