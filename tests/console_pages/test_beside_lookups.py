"""Pages are made beside the event loop: however long one takes, lookups are answered, and not more pages wait than may."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import islice
from typing import Any

import httpx
import pytest
from starlette.types import Message

from featurestore import FeatureStore
from featurestore.access.authentication import Authentication
from featurestore.access.sessions import Sessions
from featurestore.server.console_routes import THREADS, WAITING, ConsoleRoutes
from featurestore.server.limits import ServerLimits
from tests.server.test_http import serving

SLOW = THREADS + 1
"""Pages that are asked for: one waits for a thread."""


def test_lookups_are_answered_while_pages_are_made(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The status that pages ask for does not come before lookups, the sign of life and files of the console were answered."""
    begun, goes_on, status = threading.Semaphore(0), threading.Event(), store.status

    def slow_status() -> object:
        begun.release()
        assert goes_on.wait(600)
        return status()

    monkeypatch.setattr(store, "status", slow_status)
    with serving(store) as client, ThreadPoolExecutor(SLOW) as visitors:
        pages = [visitors.submit(httpx.get, f"{client.base_url}/ui", timeout=600) for _ in range(SLOW)]
        try:
            for _ in range(THREADS):
                assert begun.acquire(timeout=600)
            for _ in range(20):
                answer = client.post(
                    "/v1/online-features", json={"service": "model", "rows": [{"thing": 1, "fee": 1.0}]}
                )
                assert answer.status_code == 200
            assert client.get("/healthz").status_code == 200
            assert client.get("/ui/files/console.css").status_code == 200
            assert not any(page.done() for page in pages)
        finally:
            goes_on.set()
        assert [page.result(600).status_code for page in pages] == [200] * SLOW


def test_no_page_waits_behind_an_audit(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many are asked for; they are made one after the other, exports too."""
    begun, goes_on, audit = threading.Semaphore(0), threading.Event(), store.audit

    def slow_audit(**words: Any) -> object:
        begun.release()
        assert goes_on.wait(600)
        return audit(**words)

    monkeypatch.setattr(store, "audit", slow_audit)
    asked = ["since=1d&run=1"] * THREADS + ["format=json"]
    with serving(store) as client, ThreadPoolExecutor(len(asked)) as visitors:
        pages = [visitors.submit(httpx.get, f"{client.base_url}/ui/audit?{words}", timeout=600) for words in asked]
        try:
            assert begun.acquire(timeout=600)
            for page in ("", "/catalog", "/audit?since=1d", "/runs"):
                assert client.get(f"/ui{page}").status_code == 200
            assert not begun.acquire(blocking=False)
            assert not any(page.done() for page in pages)
        finally:
            goes_on.set()
        assert [page.result(600).status_code for page in pages] == [200] * len(asked)


def test_many_audits_keep_nobody_from_other_pages(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what takes long, and of all else, so many may wait each."""
    goes_on, audit = threading.Event(), store.audit

    def slow_audit(**words: Any) -> object:
        assert goes_on.wait(600)
        return audit(**words)

    monkeypatch.setattr(store, "audit", slow_audit)
    asked = WAITING + 2
    with serving(store) as client, ThreadPoolExecutor(asked) as visitors:
        try:
            address = f"{client.base_url}/ui/audit?since=1d&run=1"
            pages = [visitors.submit(httpx.get, address, timeout=600) for _ in range(asked)]
            refused = list(islice(as_completed(pages, timeout=600), asked - WAITING))
            assert [page.result().status_code for page in refused] == [429] * (asked - WAITING)
            for page in ("", "/catalog", "/audit"):
                assert client.get(f"/ui{page}").status_code == 200
        finally:
            goes_on.set()
        assert sorted(page.result(600).status_code for page in pages) == [200] * WAITING + [429] * (asked - WAITING)


def test_a_server_that_ends_begins_no_page(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for the audit that it is at, and not for those behind it."""
    begun, goes_on, audit, audits = threading.Event(), threading.Event(), store.audit, []

    def slow_audit(**words: Any) -> object:
        audits.append(words)
        begun.set()
        assert goes_on.wait(600)
        return audit(**words)

    monkeypatch.setattr(store, "audit", slow_audit)
    scope = {"type": "http", "method": "GET", "path": "/ui/audit", "query_string": b"since=1d&run=1", "headers": []}
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        await asyncio.Event().wait()  # whoever asks stays
        raise AssertionError

    async def ended() -> None:
        limits = ServerLimits(store.config.server)
        routes = ConsoleRoutes(store, limits, Authentication(None), Sessions("x" * 32))
        first = asyncio.create_task(routes(dict(scope), receive, send))
        assert await asyncio.to_thread(begun.wait, 600)
        second = asyncio.create_task(routes(dict(scope), receive, send))
        await asyncio.sleep(0)
        closing = asyncio.create_task(asyncio.to_thread(routes.close))
        await asyncio.wait([second], timeout=600)
        assert second.cancelled()
        goes_on.set()
        await asyncio.gather(first, closing)

    asyncio.run(ended())
    assert len(audits) == 1
    assert [message["status"] for message in sent if "status" in message] == [200]


def test_more_pages_than_may_wait_are_refused(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 429 and when to ask again; those that wait are made, and then there is room."""
    goes_on, status = threading.Event(), store.status

    def slow_status() -> object:
        assert goes_on.wait(600)
        return status()

    monkeypatch.setattr(store, "status", slow_status)
    asked = WAITING + 5
    with serving(store) as client, ThreadPoolExecutor(asked) as visitors:
        try:
            pages = [visitors.submit(httpx.get, f"{client.base_url}/ui", timeout=600) for _ in range(asked)]
            refused = list(islice(as_completed(pages, timeout=600), asked - WAITING))
            assert [page.result().status_code for page in refused] == [429] * (asked - WAITING)
            assert refused[0].result().headers["retry-after"] == "1"
        finally:
            goes_on.set()
        assert sorted(page.result(600).status_code for page in pages) == [200] * WAITING + [429] * (asked - WAITING)
        assert client.get("/ui").status_code == 200
