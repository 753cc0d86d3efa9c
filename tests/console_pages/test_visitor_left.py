"""A page whose visitor left while it waited for its turn is never made, and holds nobody's place."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from featurestore.console import Console, ConsoleAnswer
from featurestore.server.console_routes import THREADS
from tests.console_pages.project import project
from tests.server.test_http import serving
from tests.servers import until

PATIENCE_S = 120.0


def test_what_waits_for_nobody_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While both threads are at a page, somebody asks for a third one and leaves; somebody else, who stays, gets his."""
    made, go_on = list[str](), threading.Event()
    plain = Console.answer

    def answer(self: Console, path: str, query: Mapping[str, str], **words: Any) -> ConsoleAnswer:
        made.append(query.get("q", ""))
        if query.get("q", "").startswith("slow"):
            assert go_on.wait(PATIENCE_S)
        return plain(self, path, query, **words)

    monkeypatch.setattr(Console, "answer", answer)
    with project(tmp_path) as store, serving(store) as client:
        address = (client.base_url.host, client.base_url.port)
        found: dict[str, int] = {}

        def look(word: str) -> None:
            with httpx.Client(base_url=client.base_url, timeout=600) as own:
                found[word] = own.get("/ui/catalog", params={"q": word}).status_code

        def under_way() -> float:
            lines = client.get("/metrics").text.splitlines()
            return float(next(line for line in lines if line.startswith("featurestore_requests_in_flight ")).split()[1])

        visitors = [threading.Thread(target=look, args=(f"slow{n}",)) for n in range(THREADS)]
        for one in visitors:
            one.start()
        until(lambda: len(made) == THREADS)
        held = under_way()
        leaver = socket.create_connection(address)
        leaver.sendall(b"GET /ui/catalog?q=leaves HTTP/1.1\r\nhost: localhost\r\n\r\n")
        until(lambda: under_way() == held + 1)
        leaver.close()
        until(lambda: under_way() == held)
        stays = threading.Thread(target=look, args=("stays",))
        stays.start()
        until(lambda: under_way() == held + 1)
        go_on.set()
        for one in (*visitors, stays):
            one.join(PATIENCE_S)
        assert found == {"slow0": 200, "slow1": 200, "stays": 200}
        assert "leaves" not in made
