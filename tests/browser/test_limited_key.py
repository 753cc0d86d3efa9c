"""Somebody signs in with a key that is for one service, and looks at everything that the console has: nothing that reaches the browser tells
of what the key is not for, neither a page, nor what it fetches when it is there, nor an export, nor what is found or drawn."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Response, expect

from tests.browser.chromium import DESKTOP, PATIENCE_MS, Visitor
from tests.console_pages.test_limited_keys import HIDDEN, PAGES_SEEN, VALUES, Shared, addresses, two_teams


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    with two_teams(tmp_path_factory.mktemp("shared")) as made:
        yield made


class Guest(Visitor):
    """A visitor who has signed in with the key, and reads whatever he is sent."""

    def __init__(self, browser: Browser, shared: Shared) -> None:
        super().__init__(browser, str(shared.client.base_url).rstrip("/"), DESKTOP)
        self.answers: list[Response] = []
        self.exports: set[str] = set()
        self.page.goto("/ui")
        self.page.locator("#key").fill(shared.secret)
        self.page.get_by_role("button").click()
        expect(self.page.get_by_role("button", name="Sign out")).to_be_visible(timeout=PATIENCE_MS)
        self.complaints.clear()  # that the first page was refused is one
        self.page.on("response", self._keep)

    def _keep(self, answer: Response) -> None:
        if answer.request.resource_type in {
            "fetch",
            "xhr",
        }:  # what a page fetches; the page itself is read as it stands there
            self.answers.append(answer)

    def look(self, path: str) -> int:
        """Open a page, wait for what it fetches, and take its exports; the page's status."""
        status = self.see(path)
        expect(self.page.locator('[hx-trigger="load"]')).to_have_count(0, timeout=PATIENCE_MS)
        silent(self.page.content(), path)
        for link in self.page.locator(".exports a").all():
            address = str(link.get_attribute("href"))
            if address not in self.exports:
                self.exports.add(address)
                answer = self.context.request.get(address, timeout=PATIENCE_MS)
                assert answer.status == 200, address
                silent(answer.text(), address)
        return status

    def heard(self) -> int:
        """Check all that was sent since the last time; how many answers."""
        answers, self.answers[:] = [*self.answers], []
        for answer in answers:
            silent(answer.text(), answer.url)
        return len(answers)


def silent(text: str, where: str) -> None:
    for word in (HIDDEN, *VALUES):
        at = text.lower().find(word)
        assert at < 0, (where, text[max(0, at - 200) : at + 100])


def test_a_limited_key_sees_its_own_alone(browser: Browser, shared: Shared) -> None:
    """Each page in all of its forms, and each of its exports."""
    guest = Guest(browser, shared)
    try:
        seen, fetched = set(), 0
        for kind in [page.kind for page in PAGES_SEEN]:
            for path, words in addresses(shared, kind):
                asked = "&".join(f"{word}={said}" for word, said in words.items())
                address = f"/ui/{path}".rstrip("/") + (f"?{asked}" if asked else "")
                if guest.look(address) == 200:
                    seen.add(kind)
                    assert guest.complaints == [], address
                    assert "limited to service 'mine'" in guest.page.locator(".left-out").inner_text()
                    assert guest.overflow() == 0, address
                    if not words:
                        assert guest.hurdles() == [], address
                guest.complaints.clear()  # that a page is refused is one
                fetched += guest.heard()
        assert fetched > 0
        assert seen == {page.kind for page in PAGES_SEEN}
        assert len(guest.exports) > 30
        assert guest.strangers() == []
    finally:
        guest.close()


def test_nothing_else_is_found_or_drawn(browser: Browser, shared: Shared) -> None:
    """By typing into the search, which fetches as one types, and in the graph of a column that others read too."""
    guest = Guest(browser, shared)
    try:
        guest.look("/ui/catalog")
        page = guest.page
        search, found = page.locator("#search"), page.locator("#found tbody tr")
        search.press_sequentially("thing")
        expect(page).to_have_url(f"{guest.origin}/ui/catalog?q=thing&kind=", timeout=PATIENCE_MS)
        expect(found).not_to_have_count(0)
        silent(page.content(), "what is found by 'thing'")
        search.fill("value")  # the name of a feature of the other team
        expect(found).to_have_count(0, timeout=PATIENCE_MS)
        guest.look("/ui/lineage/shared")
        nodes = page.locator("#graph a, #graph [data-words]")
        expect(nodes).not_to_have_count(0)
        drawn = " ".join(nodes.all_text_contents())
        assert "things" in drawn
        silent(page.locator("#graph").inner_html(), "the graph")
        assert guest.heard() > 0
        assert guest.complaints == []
    finally:
        guest.close()
