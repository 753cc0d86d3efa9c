"""A server that is told to stop finishes what it has begun."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.console import featurestore
from tests.server.test_http import JSON
from tests.servers import PATIENCE_SECONDS, FeatureServer

ROOT = Path(__file__).parents[2]
ASKED = json.dumps({"service": "order_model", "rows": [{"customer": "ann", "amount": 1.0}] * 50}).encode()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository that `init` writes, applied and materialized."""
    folder = tmp_path_factory.mktemp("shop") / "repo"
    featurestore("init", str(folder))
    featurestore("--repo", str(folder), "apply")
    featurestore("--repo", str(folder), "materialize")
    return folder


def begun(port: int) -> socket.socket:
    """A connection that has sent all of a lookup but the last bytes of its body."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=600)
    head = f"POST /v1/online-features HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(ASKED)}\r\nConnection: close\r\n\r\n"
    connection.sendall(head.encode() + ASKED[:-5])
    return connection


def finished(connection: socket.socket) -> tuple[bytes, dict]:
    """The status line and the body of the answer, once the last bytes are sent."""
    with connection:
        connection.sendall(ASKED[-5:])
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    head, body = answer.split(b"\r\n\r\n", 1)
    return head.split(b"\r\n")[0], json.loads(body)


def looking(port: int, answers: list[httpx.Response]) -> None:
    """Look up without pause until the server is gone."""
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600) as client:
        while True:
            try:
                answers.append(client.post("/v1/online-features", content=ASKED, headers=JSON))
            except httpx.TransportError:
                return


@pytest.mark.parametrize("workers", [1, 2])
def test_requests_under_way_are_answered_after_sigterm(shop: Path, tmp_path: Path, workers: int) -> None:
    """Under load, each request that was begun before the signal gets its whole answer, and the process ends by itself."""
    answers: list[httpx.Response] = []
    log = tmp_path / "stderr"
    with log.open("wb") as errors:
        running = FeatureServer(shop, "--no-authentication", "--workers", str(workers), stderr=errors)
        crowd = [threading.Thread(target=looking, args=(running.port, answers)) for _ in range(4)]
        with running:
            process = running.process
            for thread in crowd:
                thread.start()
            connections = [begun(running.port) for _ in range(10)]
            while len(answers) < 50:
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            assert process.poll() is None, "it waits for what is under way"
            told = [finished(connection) for connection in connections]
            assert process.wait(PATIENCE_SECONDS) in {0, -signal.SIGTERM}
    for thread in crowd:
        thread.join()
    assert {status for status, _ in told} == {b"HTTP/1.1 200 OK"}
    assert all(len(body["rows"]) == 50 for _, body in told)
    assert {answer.status_code for answer in answers} == {200}
    assert {json.dumps(answer.json()["rows"]) for answer in answers} == {json.dumps(told[0][1]["rows"])}
    assert "Traceback" not in log.read_text()
