"""One browser for all tests, and visitors of both widths."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.browser.chromium import DESKTOP, PHONE, Width, chromium


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture(params=[DESKTOP, PHONE], ids=lambda width: width.name, scope="session")
def width(request: pytest.FixtureRequest) -> Width:
    chosen: Width = request.param
    return chosen
