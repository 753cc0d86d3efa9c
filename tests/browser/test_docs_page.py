"""The description of the API at /docs, in a browser."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Browser

from featurestore import FeatureStore
from tests.browser.chromium import Visitor, Width
from tests.server.test_http import serving


def test_the_description_is_read_without_complaint(browser: Browser, width: Width, tmp_path: Path) -> None:
    """It says nothing on the console, asks nobody else, fits the screen, and axe finds nothing wrong."""
    (tmp_path / "featurestore.toml").write_text('project = "p"\ndefinitions = []\n')
    with FeatureStore(tmp_path) as store, serving(store) as client:
        visitor = Visitor(browser, str(client.base_url), width)
        try:
            assert visitor.see("/docs") == 200
            assert visitor.page.locator("h1").count() == 1
            assert visitor.complaints == []
            assert visitor.strangers() == []
            assert visitor.overflow() == 0
            assert visitor.hurdles() == []
        finally:
            visitor.close()
