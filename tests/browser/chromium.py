"""Chromium without a window, and what it notices of a page: what it says on its console, whom it asks, what axe finds wrong."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Dialog, FloatRect, Page, sync_playwright

FETCHED = Path(__file__).parents[2] / ".chromium" / "usr" / "lib"
SWITCHES = (
    "--no-sandbox",  # root may have no other one
    "--disable-background-networking", "--disable-component-update", "--disable-quic", "--disable-sync",
    "--font-render-hinting=none",
)  # fmt: skip


PATIENCE_MS = 300_000
"""How long a page is waited for on a machine that does much else."""


PICTURE_PIXELS = 720
"""How high a picture is, where nothing else is said."""


class Width(NamedTuple):
    """A screen on which pages are looked at."""

    name: str
    pixels: tuple[int, int]
    is_phone: bool


DESKTOP, PHONE = Width("desktop", (1280, 900), False), Width("phone", (390, 844), True)


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser on PATH, else the one that `make chromium` has fetched; a test that needs it fails where there is none."""
    found = shutil.which("chromium") or shutil.which("chromium", path=FETCHED / "chromium")
    if found is None:
        pytest.fail(
            f"There is no Chromium, neither on PATH nor in {FETCHED / 'chromium'}: make chromium, or install Debian's package "
            "chromium",
            pytrace=False,
        )
    libraries = [str(folder) for place in FETCHED.glob("*-linux-gnu") for folder in (place, place / "pulseaudio")]
    beside = {"LD_LIBRARY_PATH": ":".join(libraries)} if Path(found).is_relative_to(FETCHED) else {}
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=list(SWITCHES), env={**os.environ, **beside})
        try:
            yield browser
        finally:
            browser.close()


class Visitor:
    """Somebody who looks at the pages of one server, and keeps what must not happen meanwhile."""

    def __init__(self, browser: Browser, origin: str, width: Width, **words: Any) -> None:
        size = {"width": width.pixels[0], "height": width.pixels[1]}
        mobile = {"is_mobile": True, "has_touch": True} if width.is_phone else {}
        self.origin, self.width = origin, width
        self.context: BrowserContext = browser.new_context(
            viewport=size,
            base_url=origin,
            timezone_id="UTC",
            locale="en-GB",
            reduced_motion="reduce",
            **mobile,
            **words,
        )
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("dialog", self._dismiss)
        self.page.on(
            "requestfailed", lambda request: self.complaints.append(f"failed: {request.url} {request.failure}")
        )
        self.page.on("request", lambda request: self.asked.append(request.url))

    def _hear(self, said: ConsoleMessage) -> None:
        if said.type in {"error", "warning"}:
            self.complaints.append(f"console {said.type}: {said.text}")

    def _dismiss(self, dialog: Dialog) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def see(self, path: str) -> int:
        """Open a page and wait until it asks for nothing more; its status."""
        answer = self.page.goto(path, wait_until="networkidle")
        assert answer is not None
        return int(answer.status)

    def strangers(self) -> list[str]:
        """What was asked of anybody but the server."""
        return [
            url
            for url in self.asked
            if not url.startswith("data:") and f"{urlsplit(url).scheme}://{urlsplit(url).netloc}" != self.origin
        ]

    def hurdles(self) -> list[str]:
        """What keeps somebody who cannot see, or has no mouse, from the page, as axe finds it."""
        found = Axe().run(self.page).response["violations"]
        return [f"{one['id']}: {one['help']}: {[node['html'][:200] for node in one['nodes'][:3]]}" for one in found]

    def overflow(self) -> int:
        """By how many pixels the page is wider than the screen."""
        root = "document.documentElement"
        return int(self.page.evaluate(f"{root}.scrollWidth - {root}.clientWidth"))

    def picture(self, path: Path, high: int = PICTURE_PIXELS) -> None:
        """A file of what there is to see, from the top of the page on: of a page that is so long `high` pixels, on a phone as many as it shows."""
        path.parent.mkdir(exist_ok=True)
        wide, screen = self.width.pixels
        self.page.mouse.move(0, 0)
        there = int(self.page.evaluate("document.documentElement.scrollHeight"))
        most = min(screen, PICTURE_PIXELS) if self.width.is_phone else high
        clip: FloatRect = {"x": 0, "y": 0, "width": wide, "height": min(there, most)}
        path.write_bytes(self.page.screenshot(animations="disabled", scale="css", full_page=True, clip=clip))

    def close(self) -> None:
        """Go away."""
        self.context.close()
