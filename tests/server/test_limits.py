"""Every limit at its edge, against the server that `featurestore serve` runs: one more than is taken is refused, by name."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from featurestore import FeatureStore
from tests.server.test_http import JSON, PROBLEM
from tests.servers import PATIENCE_SECONDS, FeatureServer

ROOT = Path(__file__).parents[2]
DEFINITIONS = """
from featurestore import Count, Entity, FeatureService, FeatureView, PushSource
from featurestore.types import String, Timestamp

schema = {"id": String, "thing": String, "note": String, "at": Timestamp}
clicks = PushSource("clicks", schema=schema, event_time="at", identity="id")
view = FeatureView("view", entity=Entity("thing", key={"thing": String}), source=clicks,
                   features={f"n{hours}": Count(window=f"{hours}h") for hours in range(1, 9)})
service = FeatureService("service", features=[view])
"""
LOOKUP, PUSH = "/v1/online-features", "/v1/push"
SECURITY = {
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
MANY = """body_bytes = 100_000
row_bytes = 5_000
manifest_bytes = 2_000
lookup_rows = 1_000
push_rows = 50
features = 3
key_bytes = 100
answer_bytes = 60_000
header_bytes = 2_000
request_seconds = 600
idle_seconds = 600
connections = 60
hosts = ["features.example.com"]
"""
FEW = """requests = 5
body_bytes = 100_000
bytes_in_flight = 100_000
request_seconds = 600
answer_seconds = 600
"""
HASTY = """request_seconds = 3
idle_seconds = 5
answer_seconds = 2
"""
"""What comes to an end in time, and asks nothing else of the server that might take as long."""


@contextmanager
def served(folder: Path, limits: str, *, told: list[str] | None = None) -> Iterator[int]:
    """The port of a real server over a project with these limits. told: what it logs is put there, once it has ended."""
    (folder / "featurestore.toml").write_text(f'project = "limits"\n[server]\n{limits}')
    (folder / "definitions.py").write_text(DEFINITIONS)
    with FeatureStore(folder) as store:
        store.apply()
        store.materialize(progress=False)
    log = folder / "stderr"
    with (
        log.open("wb") as errors,
        FeatureServer(folder, "--no-authentication", stderr=errors) as running,
    ):
        yield running.port
        assert running.process.poll() is None
    assert "Traceback" not in log.read_text(), log.read_text()
    if told is not None:
        told += log.read_text().splitlines()


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with served(tmp_path_factory.mktemp("many"), MANY) as port:
        yield port


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with served(tmp_path_factory.mktemp("few"), FEW) as port:
        yield port


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with served(tmp_path_factory.mktemp("hasty"), HASTY) as port:
        yield port


def get(port: int, path: str, **words: Any) -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE_SECONDS, **words)


def post(port: int, path: str, body: Any, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) or hasattr(body, "__next__") else json.dumps(body).encode()
    return httpx.post(
        f"http://127.0.0.1:{port}{path}", content=content, headers={**JSON, **headers}, timeout=PATIENCE_SECONDS
    )


def refused(answer: httpx.Response, status: int, limit: str) -> None:
    """The answer is a problem that names the limit, and says when to come again where that helps."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM), answer.text
    assert (answer.json()["status"], answer.json()["limit"]) == (status, limit)
    assert ("retry-after" in answer.headers) == (status in {429, 503})
    assert SECURITY.items() <= answer.headers.items()


def lookup(rows: int = 1, thing: str = "a", **more: Any) -> dict[str, Any]:
    return {"features": ["view:n1"], "rows": [{"thing": thing}] * rows, **more}


def push(rows: int = 1, **values: str) -> dict[str, Any]:
    row = {"thing": "a", "at": "2024-05-01T12:00:00Z", **values}
    return {"source": "clicks", "rows": [{"id": f"{n}", **row} for n in range(rows)]}


def connect(port: int, sent: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
    connection.sendall(sent)
    return connection


def answered(connection: socket.socket) -> httpx.Response | None:
    """What the server sends until it ends the connection; None where that is nothing."""
    found = b""
    with connection:
        while True:
            try:
                piece = connection.recv(1 << 16)
            except ConnectionResetError:
                break
            if not piece:
                break
            found += piece
    if not found:
        return None
    head, _, body = found.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return httpx.Response(int(first.split()[1]), headers=headers, content=body)


def still_taken(connection: socket.socket) -> bool:
    """Whether the server has the connection still: one byte more is no error."""
    try:
        connection.send(b"\r")
    except (ConnectionResetError, BrokenPipeError):
        return False
    return True


def until(connection: socket.socket, text: bytes) -> None:
    """Read until a text comes."""
    found = b""
    while text not in found:
        piece = connection.recv(1 << 16)
        assert piece, found
        found += piece


def head(path: str = LOOKUP, *, length: int, method: str = "POST", more: str = "") -> bytes:
    lines = (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n"
    )
    return f"{lines}{more}\r\n".encode()


# --- bodies -----------------------------------------------------------------------------------


def test_bytes_of_a_body(many: int) -> None:
    """By its length before it is sent, and as it comes where it has none."""
    for path, body in ((LOOKUP, lookup()), (PUSH, push())):
        text = json.dumps(body).encode()
        padded = text[:-1] + b" " * (4_900 - len(text)) + b"}"
        assert post(many, path, padded).status_code == 200
        for sent in (b" " * 100_001, (b" " * 1_000 for _ in range(101))):
            refused(post(many, path, sent), 413, "body_bytes")
        exactly = post(many, path, b" " * 100_000)
        assert (exactly.status_code, exactly.json().get("limit")) == (413, "row_bytes")  # read, and nothing but space
    refused(post(many, "/readyz", b" " * 100_001), 413, "body_bytes")
    answer = answered(connect(many, head(length=1 << 40)))
    assert answer is not None
    refused(answer, 413, "body_bytes")


def test_a_row_a_manifest_and_what_is_beside_rows(many: int) -> None:
    many_rows = lookup(1_000, "x" * 40)["rows"]  # more than is read at once
    assert (
        post(many, LOOKUP, lookup() | {"rows": [*many_rows[1:], {"thing": "a", "x": "x" * 4_900}]}).status_code == 200
    )
    refused(
        post(many, LOOKUP, lookup() | {"rows": [*many_rows[1:], {"thing": "a", "x": "x" * 5_100}]}), 413, "row_bytes"
    )
    refused(post(many, LOOKUP, lookup() | {"rows": many_rows, "fingerprint": "x" * 5_100}), 413, "row_bytes")
    assert post(many, "/v1/manifests", b" " * 2_000).status_code == 400
    refused(post(many, "/v1/manifests", b" " * 2_001), 413, "manifest_bytes")


def test_rows_features_and_keys(many: int) -> None:
    assert post(many, LOOKUP, lookup(1_000)).status_code == 200
    refused(post(many, LOOKUP, lookup(1_001)), 422, "lookup_rows")
    refused(post(many, LOOKUP, lookup(3_500)), 422, "lookup_rows")  # beside the event loop
    assert post(many, PUSH, push(50)).status_code == 200
    refused(post(many, PUSH, push(51)), 422, "push_rows")
    refused(post(many, PUSH, push(900)), 422, "push_rows")
    names = [f"view:n{hours}" for hours in range(1, 5)]
    assert post(many, LOOKUP, {"features": names[:3], "rows": [{"thing": "a"}]}).status_code == 200
    refused(post(many, LOOKUP, {"features": names, "rows": [{"thing": "a"}]}), 422, "features")
    for letter in ("x", "é"):
        fits = letter * (100 // len(letter.encode()))
        for rows in (1, 300):
            assert post(many, LOOKUP, lookup(rows, fits)).status_code == 200
            refused(post(many, LOOKUP, lookup(rows, fits + letter)), 422, "key_bytes")
        assert post(many, PUSH, push(thing=fits)).status_code == 200
        refused(post(many, PUSH, push(thing=fits + letter)), 422, "key_bytes")
        refused(post(many, PUSH, push() | {"rows": [push()["rows"][0] | {"id": fits + letter}]}), 422, "key_bytes")
    assert post(many, PUSH, push(note="x" * 4_000)).status_code == 200  # which is no key


def test_bytes_of_an_answer(many: int) -> None:
    """As JSON and as Arrow; what is smaller is answered as a whole."""
    for headers in ({}, {"accept": "application/vnd.apache.arrow.stream"}):
        assert (
            post(many, LOOKUP, {"features": ["view:n1"], "rows": [{"thing": "a"}] * 100}, **headers).status_code == 200
        )
        whole = {"service": "service", "rows": [{"thing": "a"}] * 990}
        refused(post(many, LOOKUP, whole, **headers), 422, "answer_bytes")


# --- connections ------------------------------------------------------------------------------


def test_bytes_of_a_head(many: int) -> None:
    """In one header, in many, and in one that never ends; what is as large as it may be is taken."""

    def with_header(size: int) -> httpx.Response:
        return get(many, "/healthz", headers={"x": "y" * size})

    assert with_header(1_700).status_code == 200
    refused(with_header(2_000), 431, "header_bytes")
    refused(get(many, "/healthz", headers={f"h{n}": "y" for n in range(500)}), 431, "header_bytes")
    for sent in (b"GET /healthz HTTP/1.1\r\nx: " + b"y" * 3_000, b"GET /" + b"y" * 3_000):
        answer = answered(connect(many, sent))
        assert answer is not None
        refused(answer, 431, "header_bytes")
    chunked = head(length=0, more="Transfer-Encoding: chunked\r\n").replace(b"Content-Length: 0\r\n", b"")
    answer = answered(connect(many, chunked + b"0\r\n" + (b"t: " + b"y" * 10_000 + b"\r\n") * 20))
    assert answer is not None
    refused(answer, 431, "header_bytes")  # what comes after the last chunk is not kept either


def test_time_to_send_a_request(hasty: int) -> None:
    """Requests of which only a part comes are ended, and the server goes on meanwhile: heads, bodies, and what follows an answer."""
    text = json.dumps(lookup()).encode()
    whole = head(length=len(text)) + text
    with ExitStack() as stack:
        halves = [stack.enter_context(connect(hasty, whole[: 1 + n * len(whole) // 41])) for n in range(40)]
        ignored = stack.enter_context(connect(hasty, head("/nowhere", length=50_000) + b"x"))
        at_once = answered(connect(hasty, head(length=len(text), more="Connection: close\r\n") + text))
        assert at_once is not None
        assert at_once.status_code == 200
        for half in halves:
            answer = answered(half)
            assert answer is not None
            refused(answer, 408, "request_seconds")
        late = answered(ignored)
        assert late is not None
        assert late.status_code == 404


def test_time_without_a_request(hasty: int) -> None:
    """Connections that never ask, and those that were answered, are closed without a word."""
    with ExitStack() as stack:
        silent = stack.enter_context(connect(hasty))
        asked = stack.enter_context(connect(hasty, head("/healthz", length=0, method="GET")))
        until(asked, b'{"status":"up"}')
        assert answered(silent) is None
        assert answered(asked) is None


def test_number_of_connections(many: int) -> None:
    """An idle one makes room for a new one; where none is idle, the new one is refused."""
    with ExitStack() as stack:
        idle = [stack.enter_context(connect(many)) for _ in range(100)]
        assert get(many, "/healthz").status_code == 200
        assert idle[0].recv(1) == b""
    with ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(connect(many, b"POST /v1"))
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:  # until all of them are taken
            answer = answered(connect(many, head("/healthz", length=0, method="GET", more="Connection: close\r\n")))
            if answer is not None and answer.status_code == 503:
                break
        assert answer is not None
        refused(answer, 503, "connections")


def test_what_is_no_http_is_a_problem(many: int) -> None:
    answer = answered(connect(many, b"\x16\x03\x01 hello\r\n\r\n"))
    assert answer is not None
    assert (answer.status_code, answer.headers["content-type"]) == (400, PROBLEM)
    assert SECURITY.items() <= answer.headers.items()


# --- what is under way ------------------------------------------------------------------------


def test_number_of_requests(few: int) -> None:
    """Beyond it, nothing but health is answered; each that ends makes room."""
    text = json.dumps(lookup()).encode()
    with ExitStack() as stack:
        under_way = [stack.enter_context(connect(few, head(length=len(text)) + text[:-1])) for _ in range(5)]
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (answer := post(few, LOOKUP, lookup())).status_code == 200:
            assert time.monotonic() < deadline
        refused(answer, 429, "requests")
        refused(get(few, "/v1/services"), 429, "requests")
        for path in ("/healthz", "/readyz"):
            assert get(few, path).status_code == 200
        under_way[0].sendall(text[-1:])
        until(under_way[0], b"HTTP/1.1 200")
        assert post(few, LOOKUP, lookup()).status_code == 200


def test_bytes_under_way(few: int) -> None:
    """A large body waits for room, and is refused where there is none; a small one is taken all the same."""
    large = lookup(3_000)
    with connect(few, head(length=90_000) + b" " * 100) as holds:
        refused(post(few, LOOKUP, large), 429, "bytes_in_flight")
        assert post(few, LOOKUP, lookup()).status_code == 200
        holds.close()
    assert post(few, LOOKUP, large).status_code == 200


def test_an_answer_that_nobody_takes(hasty: int) -> None:
    """Is given up: the connection ends before all of it was taken."""
    asked = head("/openapi.json", length=0, method="GET")
    size = len(get(hasty, "/openapi.json").content)
    times = 99
    with socket.socket() as lazy:
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.settimeout(PATIENCE_SECONDS)
        lazy.connect(("127.0.0.1", hasty))
        lazy.sendall(asked * times)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while still_taken(lazy):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        taken = 0
        try:
            while piece := lazy.recv(1 << 20):
                taken += len(piece)
        except ConnectionResetError:
            pass
    assert taken < size * times
    assert get(hasty, "/healthz").status_code == 200
