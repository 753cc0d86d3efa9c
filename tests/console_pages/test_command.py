"""`featurestore ui`: the console for whoever sits at this machine, where nothing can be changed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.cli.test_commands import run
from tests.console_pages.pages import read
from tests.servers import ROOT


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    for line in (
        ["init", str(folder)],
        ["--repo", str(folder), "apply", "--yes"],
        ["--repo", str(folder), "materialize"],
    ):
        run(tmp_path, *line)
    return folder


def test_it_says_where_it_is_and_answers(shop: Path) -> None:
    """On a loopback address, until it is told to stop; what would change something is refused, and so is another host's name."""
    command = [sys.executable, "-m", "featurestore", "--repo", str(shop), "ui", "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            found = re.fullmatch(
                r"The console is at (http://127\.0\.0\.1:[0-9]+)/ui \(Ctrl\+C ends it\)\n", process.stdout.readline()
            )
            assert found is not None
            with httpx.Client(base_url=found[1], timeout=600) as client:
                assert "customer_orders" in read(client.get("/ui")).text
                for path, body in (("/v1/push", {"source": "carts", "rows": []}), ("/v1/materialize", {})):
                    assert client.post(path, json=body).status_code == 403
                assert client.get("/ui", headers={"host": "evil.example"}).status_code == 421
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(600)


def test_a_port_that_is_taken_is_said(shop: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run(shop, "ui", "--port", str(taken.getsockname()[1]), code=1)
    assert "--port 0" in done.stderr
