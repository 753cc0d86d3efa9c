"""Somebody signs in with a key that is for one service, and goes through the console: he sees the service and what it is made of, and what
reaches the browser tells nothing of the rest, neither a page, nor what it fetches when it is there, nor what is found or drawn.

What every export and every address answers to such a key is asked without a browser, in tests/console_pages/test_limited_keys.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, Route, expect

from featurestore.console.site_map import PAGES
from tests.browser.chromium import DESKTOP, PATIENCE_MS, Visitor
from tests.console_pages.test_limited_keys import GUESSES, HIDDEN, NAMES, PAGES_SEEN, VALUES, Shared, two_teams

READ = {"document", "fetch", "xhr"}
"""What of that which a browser asks for tells of a project; the rest are the console's own files."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    with two_teams(tmp_path_factory.mktemp("shared")) as made:
        yield made


class Guest(Visitor):
    """A visitor who has signed in with the key, and reads whatever he is sent before his browser has it."""

    def __init__(self, browser: Browser, shared: Shared) -> None:
        super().__init__(browser, str(shared.client.base_url).rstrip("/"), DESKTOP)
        self.told: list[str] = []
        self.fetched = 0
        self.page.goto("/ui")
        self.page.locator("#key").fill(shared.secret)
        self.page.get_by_role("button").click()
        expect(self.page.get_by_role("button", name="Sign out")).to_be_visible(timeout=PATIENCE_MS)
        self.complaints.clear()  # that the first page was refused is one
        self.page.route("**/ui**", self._read)
        self.but = ""
        """What was asked for, which may be said again."""

    def _read(self, route: Route) -> None:
        if route.request.resource_type not in READ:
            route.continue_()
            return
        answer = route.fetch(timeout=PATIENCE_MS)
        text = answer.text().lower()
        for said in filter(None, (self.but, urlencode({"": self.but})[1:].lower())):
            text = text.replace(said, "")
        self.told += [f"{route.request.url}: {word}" for word in (HIDDEN, *VALUES) if word in text]
        self.fetched += route.request.resource_type != "document"
        route.fulfill(response=answer)

    def look(self, path: str, *, but: str = "") -> int:
        """Open a page, and wait for what it fetches when it is there; the page's status."""
        self.but = but
        status = self.see(path)
        expect(self.page.locator('[hx-trigger="load"]')).to_have_count(0, timeout=PATIENCE_MS)
        assert self.told == []
        return status


@pytest.fixture(scope="module")
def guest(browser: Browser, shared: Shared) -> Iterator[Guest]:
    guest = Guest(browser, shared)
    yield guest
    assert guest.strangers() == []
    guest.close()


def test_pages_show_what_the_key_is_for(guest: Guest, shared: Shared) -> None:
    """All that the navigation offers, the pages of what the service is made of, and what these fetch; each says that something is left out."""
    guest.look("/ui")
    offered = [
        str(link.get_attribute("href")) for link in guest.page.get_by_role("navigation").get_by_role("link").all()
    ]
    assert sorted(offered) == sorted(f"/ui/{page.kind}".rstrip("/") for page in PAGES_SEEN if page.is_listed)
    named = [f"/ui/{kind}/{name}" for kind, name in NAMES.items()]
    fetching = [
        "/ui/audit?since=1d",
        "/ui/drift?service=mine&since=1d&baseline=mine.parquet",
        "/ui/availability?view=things",
    ]
    asked = [
        "/ui/lookup?service=mine&in.thing=1",
        "/ui/explain?view=things&key.thing=1",
        f"/ui/request?id={shared.request}",
    ]
    for path in [*offered, *named, *fetching, *asked]:
        assert guest.look(path) == 200, path
        assert guest.complaints == [], path
        assert "limited to service 'mine'" in guest.page.locator(".left-out").inner_text(), path
        assert guest.overflow() == 0, path
    assert guest.fetched >= len(fetching)
    guest.look("/ui/service/mine")
    assert guest.hurdles() == []


def test_other_pages_say_no(guest: Guest, shared: Shared) -> None:
    """What is the other team's is not there; what is for administrators takes another key, and no link leads there."""
    refused = [(f"/ui/{kind}/{names[0]}", names[0], 404) for kind, names in GUESSES.items()]
    refused += [(f"/ui/{page.kind}", "", 403) for page in PAGES if page not in PAGES_SEEN]
    refused += [("/ui/lookup?service=hush_service&in.thing=1", "hush_service", 404)]
    for path, name, status in refused:
        assert guest.look(path, but=name) == status, path
        assert guest.page.locator(".problem").count() == 1, path
    hidden = guest.look(f"/ui/request?id={shared.hidden_request}")
    assert hidden == 200
    assert "or this key may not read it" in guest.page.get_by_role("alert").inner_text()
    guest.complaints.clear()  # that a page was refused is one each


def test_nothing_else_is_found_or_drawn(guest: Guest) -> None:
    """By typing into the search, which fetches as one types, and in the graph of a source that the other team reads too."""
    page = guest.page
    guest.look("/ui/catalog")
    search, found = page.locator("#search"), page.locator("#found tbody tr")
    before = guest.fetched
    search.press_sequentially("thing")
    expect(page.locator("#found bdi")).to_have_text("thing", timeout=PATIENCE_MS)
    assert "things:x" in page.locator("#found").inner_text()
    search.fill("value")  # the name of a feature of the other team
    expect(page.locator("#found bdi")).to_have_text("value", timeout=PATIENCE_MS)
    expect(found).to_have_count(0, timeout=PATIENCE_MS)
    assert guest.fetched > before
    guest.look("/ui/lineage/shared")
    expect(page.locator("#graph a", has_text="things")).not_to_have_count(0, timeout=PATIENCE_MS)
    drawn = page.locator("#graph").inner_html().lower()
    assert "mine" in drawn
    assert not [word for word in (HIDDEN, *VALUES) if word in drawn]
    assert guest.told == []
    assert guest.complaints == []
