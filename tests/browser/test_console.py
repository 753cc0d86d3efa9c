"""Every page of the console over the flights, in a browser, on a desk and on a phone; and a picture of each that the documentation shows.

The pictures are written by `SCREENSHOTS=1 make test-browser`.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlencode

import pytest
from playwright.sync_api import expect

from featurestore.console.site_map import PAGES
from tests.browser.chromium import PATIENCE_MS, PICTURE_PIXELS, Visitor
from tests.browser.conftest import Demonstration

PICTURES = Path(__file__).parents[2] / "docs" / "console"
LARGEST_BYTES = 150_000

SEEN_AT = "2013-12-01T18:20:00Z"

ADDRESSES = {
    "": "overview",
    "catalog?q=delay": "catalog",
    "entity/carrier": "entity",
    "source/landings": "source",
    "view/carrier_delays": "view",
    "feature/carrier_delays:mean_delay_1h": "feature",
    "function/flight_carrier": "function",
    "service/delay_model": "service",
    "lineage/carrier_last": "lineage",
    "training": "training",
    "lookup?service=delay_model": "lookup",
    "pushes": "pushes",
    "quarantine": "quarantine",
    "keys": "keys",
    "activity": "activity",
    "statistics?service=delay_model": "statistics",
    "runs": "runs",
    "availability?since=2d": "availability",
    "audit?since=1d": "audit",
    "drift?service=delay_model&since=1d&every=1h&baseline={frame}": "drift",
    f"explain?{urlencode({'view': 'carrier_delays:mean_delay_1h', 'key.carrier': 'UA', 'at': SEEN_AT})}": "explain",
    "request?id={request}": "request",
}
"""What stands behind /ui/, and how the picture of it is called."""

HIGH = {"explain": 900, "drift": 1_500}
"""How many pixels high the pictures of pages are whose drawings lie farther below; the others as high as a screen shows."""

ON_A_PHONE = {"overview", "audit", "explain"}
"""Of these there is a picture of a phone too."""

ON_A_DESK = set(ADDRESSES.values()) - {"activity", "keys"}
"""Of those two there is none: they show who ran the tests, and where."""


def address(demonstration: Demonstration, path: str) -> str:
    """With what only this run knows."""
    made = demonstration.flights
    said = {"{frame}": urlencode({"": str(made.frame)})[1:], "{request}": urlencode({"": made.request})[1:]}
    for word, value in said.items():
        path = path.replace(word, value)
    return f"/ui/{path}" if path else "/ui"


def whole(visitor: Visitor, path: str) -> None:
    """Open a page, and wait for what it asks for when it is there."""
    assert visitor.see(path) == 200
    expect(visitor.page.locator('[hx-trigger="load"]')).to_have_count(0, timeout=PATIENCE_MS)


def test_every_kind_of_page_is_looked_at() -> None:
    """A page that is added is added here."""
    kinds = {path.partition("/")[0].partition("?")[0] for path in ADDRESSES}
    assert kinds == {page.kind for page in PAGES}


@pytest.mark.parametrize("path", ADDRESSES, ids=list(ADDRESSES.values()))
def test_a_page_is_read_without_complaint(visitor: Visitor, demonstration: Demonstration, path: str) -> None:
    """It says nothing on the console, asks nobody else, fits the screen, and axe finds nothing wrong."""
    visitor.complaints.clear()
    visitor.asked.clear()
    whole(visitor, address(demonstration, path))
    name = ADDRESSES[path]
    if os.environ.get("SCREENSHOTS") and name in (ON_A_PHONE if visitor.width.is_phone else ON_A_DESK):
        visitor.picture(PICTURES / f"{name}-{visitor.width.name}.png", HIGH.get(name, PICTURE_PIXELS))
    assert visitor.page.locator("h1").count() == 1
    assert visitor.complaints == []
    assert visitor.strangers() == []
    assert visitor.overflow() == 0
    assert visitor.hurdles() == []


@pytest.mark.parametrize("path", ["audit?since=1d", f"explain?{urlencode({'view': 'carrier_last', 'key.carrier': 'UA', 'at': SEEN_AT})}"],
                         ids=["audit", "explain"])  # fmt: skip
def test_dark_pages_can_be_read_too(visitor: Visitor, demonstration: Demonstration, path: str) -> None:
    """axe measures the contrast of what is there."""
    visitor.page.emulate_media(color_scheme="dark")
    try:
        whole(visitor, address(demonstration, path))
        assert visitor.hurdles() == []
    finally:
        visitor.page.emulate_media(color_scheme="light")


def test_a_short_page_is_laid_out_as_a_long_one(visitor: Visitor, demonstration: Demonstration) -> None:
    """The navigation ends with its last link, and no link of it is two lines high, that of the page itself neither."""
    for path in ("pushes", "request"):
        assert visitor.see(f"/ui/{path}") == 200
        navigation = visitor.page.get_by_role("navigation")
        heights = {round(link.bounding_box()["height"]) for link in navigation.get_by_role("link").all()}  # type: ignore[index]  # a link that is shown has a box
        assert len(heights) == 1, path
        if visitor.width.is_phone:
            ends = "(one) => one.getBoundingClientRect().bottom - one.lastElementChild.getBoundingClientRect().bottom"
            assert navigation.evaluate(ends) < 20, path


def test_a_table_of_few_narrow_columns_need_not_be_scrolled(visitor: Visitor, demonstration: Demonstration) -> None:
    """Its headings have several lines where one is too wide."""
    if not visitor.width.is_phone:
        assert visitor.see("/ui/pushes") == 200
        hidden = visitor.page.locator(".wide").first.evaluate("(one) => one.scrollWidth - one.clientWidth")
        assert hidden == 0


def test_what_an_input_suggests_is_read_in_the_dark_as_other_quiet_texts(
    visitor: Visitor, demonstration: Demonstration
) -> None:
    """axe does not look at it."""
    assert visitor.see("/ui/explain") == 200
    for scheme in ("dark", "light"):
        visitor.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]  # a text of the two
        color = visitor.page.locator("#at").evaluate("(one) => getComputedStyle(one, '::placeholder').color")
        assert color == visitor.page.locator("nav h2").first.evaluate("(one) => getComputedStyle(one).color")


def test_from_the_map_of_an_audit_to_the_rows_of_a_value(visitor: Visitor, demonstration: Demonstration) -> None:
    """As somebody who is on call goes: a cell of the map, an example, its request, and the line of time of its rows."""
    page = visitor.page
    whole(visitor, "/ui/audit?since=1d")
    page.locator("table.heat td.rewritten a").first.click()
    page.wait_for_url("**feature=*")
    expect(page.locator("#table-examples")).to_be_in_viewport(timeout=PATIENCE_MS)
    page.locator("section:has(#table-examples) a[href*='/ui/request']").first.click()
    expect(page.locator("svg.time-line").first).to_be_visible(timeout=PATIENCE_MS)
    assert page.locator("section:has(#table-values) .mark.bad").count() >= 1


def test_a_value_is_explained_from_an_empty_form(visitor: Visitor, demonstration: Demonstration) -> None:
    """Name a view, then its key: with a keyboard alone."""
    page = visitor.page
    whole(visitor, "/ui/explain")
    page.locator("#view").press_sequentially("carrier_last")
    page.keyboard.press("Enter")
    page.wait_for_url("**view=carrier_last*")
    page.locator("#key-1").press_sequentially("UA")
    page.keyboard.press("Enter")
    expect(page.locator("svg.time-line")).to_be_visible(timeout=PATIENCE_MS)
    assert page.locator("g.row.chosen").count() == 1


def test_what_fails_after_its_page_was_painted_is_told_there(browser, demonstration: Demonstration, width) -> None:  # type: ignore[no-untyped-def]  # a pytest fixture of the browser's plugin has no types
    """The frame stays; in place of what was promised stands why it is not there."""
    visitor = Visitor(browser, demonstration.origin, width)
    try:
        for path, said in (("quarantine?of=nothing", "nothing"), ("audit?since=1d&until=x", "no instant")):
            assert visitor.see(f"/ui/{path}") == 200
            expect(visitor.page.locator("main .problem")).to_contain_text(said, timeout=PATIENCE_MS)
            expect(visitor.page.locator('[hx-trigger="load"]')).to_have_count(0, timeout=PATIENCE_MS)
            assert visitor.page.locator("h1").count() == 1
    finally:
        visitor.close()


def test_without_scripts_every_page_can_be_reached(browser, demonstration: Demonstration, width) -> None:  # type: ignore[no-untyped-def]  # a pytest fixture of the browser's plugin has no types
    """What is slow is a link away."""
    visitor = Visitor(browser, demonstration.origin, width, java_script_enabled=False)
    try:
        visitor.see("/ui/audit?since=1d")
        visitor.page.get_by_role("link", name="Wait for it on a page of its own").click()
        expect(visitor.page.locator("table.heat")).to_be_visible(timeout=PATIENCE_MS)
    finally:
        visitor.close()


def test_the_pictures_of_the_documentation_are_small() -> None:
    """And there is one of each page of which one is shown."""
    for name in [*(f"{name}-desktop" for name in ON_A_DESK), *(f"{name}-phone" for name in ON_A_PHONE)]:
        found = PICTURES / f"{name}.png"
        assert found.stat().st_size < LARGEST_BYTES, found
