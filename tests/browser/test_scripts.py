"""What the console's own scripts do: a catalog that is searched as one types, and a graph that is moved, thinned out and clicked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from featurestore import FeatureStore
from featurestore.console.static_site import build
from tests.browser.chromium import DESKTOP, Visitor
from tests.console_pages.project import project
from tests.server.test_http import serving

PATIENCE_MS = 120_000


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeatureStore]:
    with project(tmp_path_factory.mktemp("scripts")) as store:
        yield store


@pytest.fixture(scope="module")
def visitor(browser: Browser, store: FeatureStore) -> Iterator[Visitor]:
    with serving(store) as client:
        visitor = Visitor(browser, str(client.base_url).rstrip("/"), DESKTOP)
        visitor.page.set_default_timeout(PATIENCE_MS)
        yield visitor
        assert visitor.complaints == []
        assert visitor.strangers() == []
        visitor.close()


def test_the_catalog_is_searched_as_one_types(visitor: Visitor) -> None:
    """The field keeps what was typed, and the address is that of what is found; without a word, all is there again."""
    page = visitor.page
    visitor.see("/ui/catalog?kind=feature+view")
    search = page.locator("#search")
    search.press_sequentially("counts")
    expect(page.locator("#found tbody tr")).to_have_count(1, timeout=PATIENCE_MS)
    expect(page).to_have_url(re.compile(r"[?&]q=counts(&|$)"), timeout=PATIENCE_MS)
    expect(search).to_be_focused(timeout=PATIENCE_MS)
    expect(search).to_have_value("counts", timeout=PATIENCE_MS)
    search.fill("")
    expect(page.locator("#found tbody tr")).to_have_count(2, timeout=PATIENCE_MS)


def test_a_static_catalog_is_searched_without_a_server(browser: Browser, store: FeatureStore, tmp_path: Path) -> None:
    """Opened from the disk, where its graphs are drawn too."""
    build(store, tmp_path / "site")
    page = browser.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto((tmp_path / "site" / "index.html").as_uri())
    page.locator("#filter").fill("counts :n")
    expect(page.locator("#found tbody tr:visible")).to_have_count(1, timeout=PATIENCE_MS)
    page.locator("#found tbody tr:visible a").click()
    page.get_by_role("link", name="Lineage").click()
    expect(page.locator("#graph svg")).to_be_visible(timeout=PATIENCE_MS)
    assert complaints == []
    page.close()


def test_the_graph_is_moved_and_thinned_out_and_leads_on(visitor: Visitor) -> None:
    """A drag is no click; kinds that are left out are gone, and what went through them is still joined; a node leads to its page."""
    page = visitor.page
    visitor.see("/ui/lineage/things")
    graph = page.locator("#graph svg")
    before = graph.get_attribute("viewBox")
    page.locator("#graph-in").click()
    nearer = graph.get_attribute("viewBox")
    assert before != nearer
    node = page.locator("#graph a.root", has_text="view")  # in the middle of the drawing, so near as it may be
    node.hover()  # what lies elsewhere or under something else would fail here
    box = node.bounding_box()
    assert box is not None
    page.mouse.down()
    page.mouse.move(box["x"] - 60, box["y"] + 40, steps=5)
    page.mouse.up()
    assert graph.get_attribute("viewBox") != nearer
    assert page.url.endswith("/ui/lineage/things")
    edges = page.locator("#graph path[marker-end]")
    columns = page.locator("#graph [data-words^='column ']")
    assert columns.count() > 0
    page.get_by_label("column", exact=True).uncheck()
    expect(columns).to_have_count(0, timeout=PATIENCE_MS)
    assert edges.count() > 0
    page.locator("#graph-words").fill("model")
    expect(page.locator("#graph a:not(.faded)", has_text="model")).not_to_have_count(0, timeout=PATIENCE_MS)
    page.locator("#graph-words").fill("")
    page.locator("#graph-fit").click()
    page.locator("#graph a.root", has_text="view").first.focus()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"/ui/(view|feature)/things"), timeout=PATIENCE_MS)
