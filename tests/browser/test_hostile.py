"""Texts that would run, in a browser that would run them; and what somebody sees who has no key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, expect

from featurestore.access.api_keys import create_key
from featurestore.console.site_map import PAGES
from tests.browser.chromium import PATIENCE_MS, Visitor, Width
from tests.console_pages.pages import HOSTILE
from tests.console_pages.project import project
from tests.console_pages.told import Told, told
from tests.server.test_http import serving


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    with told(tmp_path_factory.mktemp("told")) as made:
        yield made


def looked_at(visitor: Visitor, paths: list[str]) -> None:
    """Each page is shown, and nothing of it is run: no dialog, no picture, no complaint."""
    for path in paths:
        assert visitor.see(path) == 200, path
        expect(visitor.page.locator('[hx-trigger="load"]')).to_have_count(0, timeout=PATIENCE_MS)
        assert visitor.complaints == [], path
        assert visitor.strangers() == [], path
        assert visitor.page.locator("img").count() == 0, path
        assert visitor.page.locator("script:not([src]):not([type='application/json'])").count() == 0, path
        assert visitor.overflow() == 0, path


def test_hostile_keys_and_values_are_texts(browser: Browser, width: Width, made: Told) -> None:
    """In tables, drawings and forms alike: scripts, marks that turn the writing round, and 10,000 characters."""
    asked = urlencode({"view": "said", "key.name": HOSTILE, "at": "2024-05-01T12:00:00Z"})
    drift = urlencode({"service": "model", "since": "1d", "baseline": str(made.frame), "every": "1h"})
    with serving(made.store) as client:
        visitor = Visitor(browser, str(client.base_url).rstrip("/"), width)
        try:
            looked_at(visitor, [f"/ui/explain?{asked}", f"/ui/request?id={made.request}", "/ui/audit?since=1d", f"/ui/drift?{drift}",
                                f"/ui/explain?{urlencode({'view': 'said', 'key.name': 'x' * 5_000})}"])  # fmt: skip
            assert visitor.see("/ui/request?" + urlencode({"id": HOSTILE * 20})) == 200
            assert visitor.overflow() == 0
        finally:
            visitor.close()


def test_hostile_definitions_are_texts(browser: Browser, width: Width, tmp_path: Path) -> None:
    """Names of owners, descriptions, tags, notes and code."""
    paths = ["/ui", "/ui/catalog", "/ui/entity/thing", "/ui/source/files", "/ui/view/things", "/ui/feature/things:x", "/ui/function/with_fee",
             "/ui/service/model", "/ui/service/clicked", "/ui/lineage/model", "/ui/pushes", "/ui/runs", "/ui/activity"]  # fmt: skip
    with project(tmp_path) as store, serving(store) as client:
        visitor = Visitor(browser, str(client.base_url).rstrip("/"), width)
        try:
            looked_at(visitor, [*paths, "/ui/catalog?" + urlencode({"q": HOSTILE})])
        finally:
            visitor.close()


def test_who_has_no_key_sees_nothing(browser: Browser, width: Width, made: Told) -> None:
    """Each page is the form that asks for one, and says nothing of the project; with a key it is the page that was asked for."""
    secret = create_key(made.store.registry, f"web-{width.name}", ["read"]).secret
    with serving(made.store, authentication=True) as client:
        visitor = Visitor(browser, str(client.base_url).rstrip("/"), width)
        try:
            named = {
                "entity": "person",
                "source": "rows",
                "view": "said",
                "feature": "said:n",
                "function": "scaled",
                "service": "model",
                "lineage": "said",
            }
            for page in PAGES:
                assert visitor.see("/ui/" + "/".join(filter(None, (page.kind, named.get(page.kind))))) == 401
                assert visitor.page.locator("h1").inner_text() == "Sign in"
                assert "told" not in visitor.page.content()
            assert visitor.hurdles() == []
            visitor.complaints.clear()  # that the pages are refused is one each
            visitor.see("/ui/runs")
            visitor.page.locator("#key").fill(secret)
            visitor.page.get_by_role("button").click()
            expect(visitor.page.locator("h1")).to_have_text("Runs", timeout=PATIENCE_MS)
            assert [cookie["httpOnly"] for cookie in visitor.context.cookies()] == [True]
            assert secret not in str(visitor.context.cookies())
            assert visitor.see("/ui/activity") == 403
            visitor.page.get_by_role("button", name="Sign out").click()
            expect(visitor.page.locator("h1")).to_have_text("Sign in", timeout=PATIENCE_MS)
        finally:
            visitor.close()
