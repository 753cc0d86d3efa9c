"""A server that is told to stop finishes what it has begun."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.console import featurestore
from tests.server.test_http import JSON
from tests.servers import FeatureServer

ROOT = Path(__file__).parents[2]
ASKED = json.dumps({"service": "order_model", "rows": [{"customer": "ann", "amount": 1.0}] * 50}).encode()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository that `init` writes, applied and materialized."""
    folder = tmp_path_factory.mktemp("shop") / "repo"
    featurestore("init", str(folder))
    with (folder / "featurestore.toml").open("a") as settings:  # halves of requests wait until the test goes on
        settings.write("\n[server]\nrequest_seconds = 600\n")
    featurestore("--repo", str(folder), "apply")
    featurestore("--repo", str(folder), "materialize")
    return folder


def begun(port: int, *, seen: bool = False) -> socket.socket:
    """A connection that has sent all of a lookup but the last bytes of its body. seen: the server has begun to read it."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=600)
    head = f"POST /v1/online-features HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(ASKED)}\r\nConnection: close\r\n"
    connection.sendall(head.encode() + (b"Expect: 100-continue\r\n\r\n" if seen else b"\r\n"))
    told = b""
    while seen and not told.endswith(b"\r\n\r\n"):
        told += connection.recv(1)
    assert not seen or b" 100 " in told
    connection.sendall(ASKED[:-5])
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


@contextmanager
def running(shop: Path, *words: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A server that is ready, and its port; what it logs has no traceback."""
    log = shop / "stderr"
    with log.open("wb") as errors, FeatureServer(shop, "--no-authentication", *words, stderr=errors) as server:
        yield server.process, server.port
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize("workers", [1, 2])
def test_requests_under_way_are_answered_after_sigterm(shop: Path, workers: int) -> None:
    """Under load, each request that was begun before the signal gets its whole answer, and the process ends by itself."""
    answers: list[httpx.Response] = []
    with running(shop, "--workers", str(workers)) as (process, port):
        crowd = [threading.Thread(target=looking, args=(port, answers)) for _ in range(4)]
        for thread in crowd:
            thread.start()
        connections = [begun(port, seen=True) for _ in range(10)]
        while len(answers) < 50:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert process.poll() is None, "it waits for what is under way"
        told = [finished(connection) for connection in connections]
        assert process.wait(timeout=600) in {0, -signal.SIGTERM}
        for thread in crowd:
            thread.join()
    assert {status for status, _ in told} == {b"HTTP/1.1 200 OK"}
    assert all(len(body["rows"]) == 50 for _, body in told)
    assert {answer.status_code for answer in answers} == {200}
    assert {json.dumps(answer.json()["rows"]) for answer in answers} == {json.dumps(told[0][1]["rows"])}


def answering(process: subprocess.Popen[bytes]) -> list[int]:
    """The processes that answer: the children of one that has some, or itself."""
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    commands = {int(child): Path(f"/proc/{child}/cmdline").read_bytes() for child in found}
    return [child for child, command in commands.items() if b"spawn_main" in command] or [process.pid]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_drains_before_it_stops(shop: Path, workers: int) -> None:
    """It says that it is not ready, and answers on, on connections that it has and on new ones, each of which ends with its answer. A
    second SIGTERM ends that; what was begun is finished."""
    settings = shop / "featurestore.toml"
    with settings.open("a") as file:
        file.write(f"\n[env.patient{workers}.server]\ndrain_seconds = 600\n")
    with running(shop, "--env", f"patient{workers}", "--workers", str(workers)) as (process, port):
        url, closing = f"http://127.0.0.1:{port}", {"Connection": "close"}
        with (
            httpx.Client(base_url=url, timeout=600) as kept,
            httpx.Client(base_url=url, timeout=600, headers=closing) as new,
        ):
            assert "connection" not in kept.post("/v1/online-features", content=ASKED, headers=JSON).headers
            process.send_signal(signal.SIGTERM)
            deadline, unready = time.monotonic() + 600, 0
            while unready < 10:  # of all workers, whichever answers
                assert time.monotonic() < deadline
                said = new.get("/readyz")
                unready = unready + 1 if said.status_code == 503 else 0
            assert said.json()["type"] == "urn:featurestore:Draining"
            assert int(said.headers["retry-after"]) >= 1
            for client in (kept, new):
                answer = client.post("/v1/online-features", content=ASKED, headers=JSON)
                assert (answer.status_code, answer.headers["connection"]) == (200, "close")
            assert new.get("/healthz").status_code == 200
        assert process.poll() is None
        under_way = begun(port, seen=True)
        for pid in answering(process):
            os.kill(pid, signal.SIGTERM)
        assert finished(under_way)[0] == b"HTTP/1.1 200 OK"
        assert process.wait(timeout=600) in {0, -signal.SIGTERM}


def test_it_stops_when_the_time_to_drain_is_over(shop: Path) -> None:
    with (shop / "featurestore.toml").open("a") as file:
        file.write("\n[env.quick.server]\ndrain_seconds = 0.3\n")
    with running(shop, "--env", "quick") as (process, _):
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=600) in {0, -signal.SIGTERM}
