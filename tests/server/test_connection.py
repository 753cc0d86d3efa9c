"""What a connection reads and what it does not, against the server that `featurestore serve` runs."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.server.test_http import PROBLEM
from tests.server.test_limits import LOOKUP, PUSH, answered, connect, get, head, lookup, served
from tests.servers import PATIENCE_SECONDS

CHUNKED = "Host: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with served(tmp_path_factory.mktemp("connection"), "request_seconds = 600\n") as port:
        yield port


def sent(port: int, data: bytes) -> httpx.Response:
    """The answer to some bytes, after which the server ends the connection; how much of them it takes does not matter."""
    connection = connect(port)
    try:
        connection.sendall(data)
    except OSError:  # it was ended before all was sent
        pass
    answer = answered(connection)
    assert answer is not None
    return answer


def is_problem(answer: httpx.Response, status: int) -> bool:
    return (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM)


def chunked(text: bytes, trailers: str = "", *, more: str = CHUNKED) -> bytes:
    line = f"POST {LOOKUP} HTTP/1.1\r\n{more}Connection: close\r\n\r\n".encode()
    return line + b"%x\r\n%s\r\n0\r\n%s\r\n" % (len(text), text, trailers.encode())


def test_trailers_are_bounded_and_dropped(port: int) -> None:
    """Who asks, from where and with what stands in the head alone."""
    text = json.dumps(lookup()).encode()
    assert sent(port, chunked(text, "a: b\r\nHost: evil.example\r\nContent-Type: text/plain\r\n")).status_code == 200
    assert is_problem(sent(port, chunked(text, "a:\r\n" * 100_000)), 431)
    foreign = CHUNKED.replace("localhost", "evil.example")
    assert is_problem(sent(port, chunked(text, "Host: localhost\r\n", more=foreign)), 421)
    untyped = CHUNKED.replace("application/json", "text/plain")
    assert is_problem(sent(port, chunked(text, "Content-Type: application/json\r\n", more=untyped)), 415)
    page = CHUNKED + "Origin: http://evil.example\r\n"
    assert is_problem(sent(port, chunked(text, "Origin: http://localhost\r\n", more=page)), 403)


def test_chunks_are_bounded(port: int) -> None:
    """Small ones are taken, but not a body that is little beside what frames it."""
    text = json.dumps(lookup()).encode()
    begin = f"POST {LOOKUP} HTTP/1.1\r\n{CHUNKED}Connection: close\r\n\r\n".encode()
    small = b"".join(b"1\r\n%c\r\n" % byte for byte in text)
    assert sent(port, begin + small + b"0\r\n\r\n").status_code == 200
    assert is_problem(sent(port, begin + b"1\r\n \r\n" * 200_000), 400)
    assert is_problem(sent(port, begin + b"1;" + b"x" * 200_000), 400)


def test_the_rest_of_what_is_refused_is_not_read(port: int) -> None:
    """The answer says that the connection ends, and what comes after it is no request, nor refused once more."""
    for more, status in (("Origin: http://evil.example\r\n", 403), ("Content-Encoding: gzip\r\n", 415)):
        answer = sent(port, head(length=1_000_000, more=more) + b" " * 10_000)
        assert is_problem(answer, status)
        assert answer.headers["connection"] == "close"
    with connect(port, head(length=1_000, more="Origin: http://evil.example\r\n")) as connection:
        found = b""
        while b"\r\n\r\n" not in found:
            found += connection.recv(1 << 16)
        connection.sendall(b" " * 1_000 + head("/healthz", length=0, method="GET"))
        while piece := connection.recv(1 << 16):
            found += piece
    assert found.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in found


def test_an_upgrade_is_ignored(port: int) -> None:
    """The request is answered as it is, in one piece or byte by byte; so is the next one."""
    text = json.dumps(lookup()).encode()
    asks = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"
    one = head(length=len(text), more=asks) + text
    last = head(length=len(text), more=asks.replace("Upgrade,", "close, Upgrade,")) + text
    with connect(port) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in one:
            connection.sendall(bytes([byte]))
        connection.sendall(one + last)
        found = b""
        while piece := connection.recv(1 << 16):
            found += piece
    assert found.count(b"HTTP/1.1 200 OK") == 3
    assert found.count(b'"as_of":{"view"') == 3
    chunks = chunked(text, more=CHUNKED + "Upgrade: websocket\r\nConnection: Upgrade\r\n")
    assert sent(port, chunks).status_code == 200
    assert is_problem(sent(port, b"CONNECT a.example:443 HTTP/1.1\r\nHost: localhost\r\n\r\n"), 405)


def test_fields_of_a_head_are_bounded(port: int) -> None:
    def fields(count: int) -> bytes:
        lines = "Host: localhost\r\nConnection: close\r\n" + "a:\r\n" * (count - 2)
        return f"GET /healthz HTTP/1.1\r\n{lines}".encode()

    assert sent(port, fields(100) + b"\r\n").status_code == 200
    assert is_problem(sent(port, fields(101) + b"\r\n"), 431)
    assert is_problem(sent(port, fields(200)), 431)  # before the head ends


def test_whom_a_request_is_for(port: int) -> None:
    def asked(host: str, target: str = "/healthz") -> httpx.Response:
        return sent(port, f"GET {target} HTTP/1.1\r\n{host}Connection: close\r\n\r\n".encode())

    for host in (f"127.0.0.1:{port}", "localhost", "LOCALHOST.", "[::1]:80"):
        assert asked(f"Host: {host}\r\n").status_code == 200, host
    for host in (f"127.0.0.1:{port}@evil", "localhost:1:2", "localhost/x", "[::1", "localhost:x"):
        assert is_problem(asked(f"Host: {host}\r\n"), 400), host
    assert is_problem(asked("Host: localhost\r\nHost: localhost\r\n"), 400)
    origin = f"Origin: http://localhost:{port}\r\n"
    assert asked(f"Host: localhost:{port}\r\n{origin}").status_code == 200
    assert is_problem(asked(f"Host: localhost:{port}\r\n{origin}{origin}"), 400)
    assert is_problem(asked("Host: localhost\r\n", "http://evil.example/healthz"), 421)
    assert is_problem(asked("Host: localhost\r\n", "http://a@localhost/healthz"), 400)
    assert asked("Host: evil.example\r\n", f"http://localhost:{port}/healthz").status_code == 200


def test_methods_and_paths(port: int) -> None:
    url = f"http://127.0.0.1:{port}"
    for path in ("/healthz", "/readyz"):
        got, only_head = get(port, path), httpx.head(url + path, timeout=PATIENCE_SECONDS)
        assert (only_head.status_code, only_head.content) == (200, b"")
        assert only_head.headers["content-length"] == got.headers["content-length"]
    for path in (LOOKUP, PUSH, "/healthz"):
        answer = httpx.post(f"{url}{path}/", json=lookup(), timeout=PATIENCE_SECONDS)
        assert is_problem(answer, 404), path
        assert "location" not in answer.headers
    gzip = httpx.post(url + LOOKUP, json=lookup(), headers={"content-encoding": "gzip"}, timeout=PATIENCE_SECONDS)
    assert is_problem(gzip, 415)
    assert "gzip" in gzip.json()["detail"]


def _malformed(lines: list[str]) -> list[int]:
    """How much was no HTTP, by the lines that tell it whole."""
    return [int(count) for line in lines for count in re.findall(r"no HTTP: (\d+) times since", line)]


def test_what_is_no_http_is_counted_in_the_log(tmp_path: Path) -> None:
    """However much of it comes, a line a second says how often; an upgrade that is ignored says nothing."""
    told: list[str] = []
    began = time.monotonic()
    with served(tmp_path, "", told=told) as port:
        for _ in range(100):
            assert is_problem(sent(port, b"\x16\x03\x01 hello\r\n\r\n"), 400)
        asks = "Connection: close, Upgrade\r\nUpgrade: h2c\r\n"
        assert sent(port, head("/healthz", length=0, method="GET", more=asks)).status_code == 200
        deadline = time.monotonic() + PATIENCE_SECONDS
        while sum(counts := _malformed((tmp_path / "stderr").read_text().splitlines())) < 100:
            assert time.monotonic() < deadline, counts
            time.sleep(0.05)
    counts = _malformed(told)
    assert sum(counts) == 100
    assert 1 <= len(counts) <= 1 + time.monotonic() - began
    assert not [line for line in told if "Invalid HTTP" in line or "pgrade" in line]
