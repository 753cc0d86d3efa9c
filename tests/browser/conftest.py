"""One browser for all tests, and visitors of both widths."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import Browser

from tests.browser.chromium import DESKTOP, PHONE, Visitor, Width, chromium
from tests.browser.flights import Flights, flights
from tests.server.test_http import serving


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture(params=[DESKTOP, PHONE], ids=lambda width: width.name, scope="session")
def width(request: pytest.FixtureRequest) -> Width:
    chosen: Width = request.param
    return chosen


class Demonstration(NamedTuple):
    """The flights on a server that lets everybody in, and where that is."""

    flights: Flights
    origin: str


@pytest.fixture(scope="session")
def demonstration() -> Iterator[Demonstration]:
    with (  # pages and their pictures tell of paths: these say nothing of who ran the tests
        tempfile.TemporaryDirectory(prefix="flights-") as name,
        flights(Path(name)) as made,
        serving(made.store) as client,
    ):
        yield Demonstration(made, str(client.base_url).rstrip("/"))


@pytest.fixture(scope="session")
def visitor(browser: Browser, demonstration: Demonstration, width: Width) -> Iterator[Visitor]:
    """One for all pages of a width: what a page leaves behind is a page's fault."""
    visitor = Visitor(browser, demonstration.origin, width)
    yield visitor
    visitor.close()
