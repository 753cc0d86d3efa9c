"""What the server logs: a request's id everywhere, JSON lines, and a line for each request."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from featurestore import FeatureStore
from featurestore.access.api_keys import create_key
from featurestore.access.principal import Principal
from featurestore.log_lines import JsonLines, tell
from featurestore.server import access_log
from featurestore.server.access_log import ASKED, MOST_BYTES, AccessLog
from featurestore.server.admission import PRINCIPAL
from tests.server.test_http import JSON, serving
from tests.server.test_metrics import LOOKUP, PUSH, ROW, definitions
from tests.servers import PATIENCE_SECONDS, FeatureServer

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
NEW = re.compile(r"[0-9a-f]{32}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
LOOK: dict[str, Any] = {"service": "m", "rows": [{"thing": "a"}, {"thing": "a secret thing"}]}
SHARDS = ["--workers", "2"]


def project(folder: Path, more: str) -> dict[str, str]:
    """A repository that is applied and materialized, and its keys by their names."""
    (folder / "featurestore.toml").write_text(f'project = "p"\ndefinitions = []\n{more}')
    with FeatureStore(folder) as store:
        store.apply(definitions())
        store.materialize(progress=False)
        keys = {"model": ["read"], "feeder": ["push"]}
        return {name: create_key(store.registry, name, scopes).secret for name, scopes in keys.items()}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("unlogged")
    project(folder, "")
    with FeatureStore(folder) as store, serving(store) as client:
        yield client


@pytest.mark.parametrize(
    ("headers", "known"),
    [
        ({"x-request-id": "order-17"}, "order-17"),
        ({"x-request-id": "order-17", "traceparent": PARENT}, "order-17"),
        ({"traceparent": PARENT}, TRACE),
        ({"traceparent": f"01{PARENT[2:]}-and-what-a-later-version-adds"}, TRACE),
        ({"traceparent": PARENT.replace("00-", "ff-", 1)}, None),
        ({"traceparent": PARENT.upper()}, None),
        ({"traceparent": PARENT.replace(TRACE, "0" * 32)}, None),
        ({"traceparent": PARENT.replace("00f067aa0ba902b7", "0" * 16)}, None),
        ({"traceparent": f"{PARENT}-more"}, None),
        ({"traceparent": ""}, None),
        ({}, None),
    ],
)
@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", LOOKUP, {"service": "m", "rows": [{"thing": "a"}]}, 200),
        ("POST", LOOKUP, {"service": "m", "rows": [{"thing": "a"}] * 2_000}, 200),
        ("POST", LOOKUP, {"service": "nobody", "rows": [{"thing": "a"}]}, 404),
        ("POST", PUSH, {"source": "s", "rows": [{}]}, 422),
        ("GET", "/v1/views", None, 200),
        ("HEAD", "/v1/views", None, 200),
        ("GET", "/nowhere", None, 404),
        ("DELETE", "/v1/views", None, 405),
        ("GET", "/healthz", None, 200),
    ],
)
def test_a_request_has_an_id_in_every_answer(
    client: httpx.Client, method: str, path: str, body: Any, status: int, headers: dict[str, str], known: str | None
) -> None:
    """The client's own, else its trace's, else a new one; a problem says it too."""
    words = {} if body is None else {"json": body}
    answers = [client.request(method, path, headers=headers, **words) for _ in range(2)]
    assert {answer.status_code for answer in answers} == {status}
    ids = [answer.headers.get_list("x-request-id") for answer in answers]
    if known is not None:
        assert ids == [[known]] * 2
    else:
        assert all(len(one) == 1 and NEW.fullmatch(one[0]) for one in ids)
        assert ids[0] != ids[1]
    if status >= 400:
        assert [answer.json()["request_id"] for answer in answers] == [one for (one,) in ids]


def test_an_id_that_is_none_is_refused_where_it_would_be_logged(client: httpx.Client) -> None:
    """Elsewhere the request has a new one; a header within an id ends nothing."""
    for given in (b"", b"a" * 129, b"caf\xe9", b"tab\there"):
        refused = client.post(LOOKUP, json=LOOK, headers={b"x-request-id": given})
        assert refused.status_code == 400
        assert NEW.fullmatch(refused.json()["request_id"])
        other = client.get("/v1/views", headers={b"x-request-id": given})
        assert other.status_code == 200
        assert NEW.fullmatch(other.headers["x-request-id"])


# --- a server that logs ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict]:
    """What two workers wrote on stdout and on stderr while they answered some requests, as JSON; and what was answered."""
    folder = tmp_path_factory.mktemp("logged")
    keys = project(
        folder, '[server]\naccess_log = "stdout"\nlog_format = "json"\nhosts = ["name"]\n[serving_log]\nrate = 1.0\n'
    )
    out, err = folder / "out", folder / "err"
    answers: dict[str, httpx.Response] = {}
    by = {name: {"authorization": f"Bearer {key}"} for name, key in keys.items()}
    with (
        out.open("wb") as stdout,
        err.open("wb") as stderr,
        FeatureServer(folder, *SHARDS, stdout=stdout, stderr=stderr) as running,
    ):
        with running.client(headers=JSON, timeout=600) as client:
            answers["lookup"] = client.post(LOOKUP, json=LOOK, headers=by["model"] | {"traceparent": PARENT})
            answers["push"] = client.post(
                PUSH, json={"source": "s", "rows": [ROW]}, headers=by["feeder"] | {"x-request-id": 'p"1'}
            )
            answers["nobody"] = client.post(LOOKUP, json=LOOK)
            answers["unknown"] = client.get("/v1/views/a-secret-thing", headers=by["model"])
            answers["nowhere"] = client.get(f"/nowhere/{keys['model']}?{keys['model']}", headers=by["model"])
            answers["large"] = client.get("/v1/views", headers={"x": "x" * 20_000, "x-request-id": "large"})
        with socket.create_connection(("127.0.0.1", running.port)) as hangs_up:
            body = json.dumps({**LOOK, "rows": LOOK["rows"] * 2000}).encode()
            head = f"POST {LOOKUP} HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: gone\r\nAuthorization: Bearer {keys['model']}\r\n"
            hangs_up.sendall(
                f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body[:100]
            )
        deadline = time.monotonic() + PATIENCE_SECONDS
        while '"gone"' not in out.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert not any(key in out.read_text() + err.read_text() for key in keys.values())
    lines, told = ([json.loads(line) for line in file.read_text().splitlines()] for file in (out, err))
    return lines, told, answers


def test_each_request_is_a_line(logged: Any) -> None:
    """With its id, who asked, what for, and what came of it; nothing of a key or a value, and no path that is no route."""
    lines, _, answers = logged
    by_id = {line["request_id"]: line for line in lines}
    assert len(by_id) == len(lines)
    assert not any("secret" in json.dumps(line) for line in lines)
    for line in lines:
        assert TIME.fullmatch(line.pop("time"))
        assert 0 <= line.pop("milliseconds") < 120_000
    lookup = answers["lookup"]
    assert lookup.status_code == 200
    assert by_id[lookup.headers["x-request-id"]] == {
        "request_id": lookup.headers["x-request-id"], "trace_id": TRACE, "principal": "key:model", "method": "POST",
        "route": LOOKUP, "service": "m", "rows": 2, "status": 200, "bytes": len(lookup.content),
    }  # fmt: skip
    assert lookup.headers["x-request-id"] != TRACE  # it is logged, and has the log's own id
    push = answers["push"]
    assert by_id['p"1'] == {
        "request_id": 'p"1', "principal": "key:feeder", "method": "POST", "route": PUSH, "source": "s", "rows": 1,
        "status": 200, "bytes": len(push.content),
    }  # fmt: skip
    for name, route, principal in (
        ("nobody", LOOKUP, "anonymous"), ("unknown", "/v1/views/{name}", "key:model"), ("nowhere", "(other)", "key:model"),
    ):  # fmt: skip
        line = by_id[answers[name].json()["request_id"]]
        assert (line["route"], line["principal"], line["status"]) == (route, principal, answers[name].status_code)
        assert line["bytes"] == len(answers[name].content)
        assert "service" not in line
    assert (by_id["gone"]["status"], by_id["gone"]["bytes"]) == (None, 0)
    assert "large" not in by_id  # no request came of it
    assert answers["large"].headers["x-request-id"] == answers["large"].json()["request_id"]


def test_all_else_that_is_logged_is_json_too(logged: Any) -> None:
    """Uvicorn's lines and our own."""
    _, lines, _ = logged
    assert any(line["logger"] == "uvicorn.error" and "startup" in line["message"] for line in lines)
    assert all({"time", "level", "logger", "message"} <= set(line) for line in lines)


def test_an_unexpected_error_is_logged_under_its_requests_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever has the answer finds the cause."""
    project(tmp_path, "")

    def fails(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("two\nlines")

    with FeatureStore(tmp_path) as store, serving(store) as client:
        monkeypatch.setattr(store, "aget_online_features", fails)
        answer = client.post(LOOKUP, json={**LOOK, "rows": LOOK["rows"][:1]})
    assert answer.status_code == 500
    (record,) = [record for record in caplog.records if record.name == "featurestore.server"]
    line = JsonLines().format(record)
    assert "\n" not in line
    said = json.loads(line)
    assert said["request_id"] == answer.json()["request_id"]
    assert (said["level"], said["message"]) == ("error", f"POST {LOOKUP}")
    assert said["error"].endswith("ZeroDivisionError: two\nlines")


def test_any_text_is_a_line(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    """Names of files may hold what is no text."""
    record = logging.LogRecord("x", logging.WARNING, "f", 1, "no %s", ("\udcff\n",), None)
    assert json.loads(JsonLines().format(record))["message"] == "no \\udcff\n"
    tell("hear", as_json=False)
    assert capsys.readouterr().err == "hear\n"
    tell("listen", as_json=True)
    assert [record.message for record in caplog.records] == ["listen"]


# --- whoever does not take the lines --------------------------------------------------------------


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing a log waits for its last lines as long as that takes."""
    monkeypatch.setattr(access_log, "CLOSE_SECONDS", PATIENCE_SECONDS)


def noted(log: AccessLog, count: int, name: str = "nobody") -> None:
    scope = {"method": "POST", PRINCIPAL: Principal(name, frozenset()), ASKED: ("service", "m", 1)}
    for _ in range(count):
        log.note(dict(scope), route=LOOKUP, status=200, seconds=0.001, size=10)


@pytest.mark.usefixtures("patient")
def test_a_reader_that_stands_still_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines wait in bounded memory, and those beyond it are dropped and counted; the others come whole once they are taken."""
    reads, writes = os.pipe()
    dropped: list[int] = []
    with os.fdopen(writes, "wb", buffering=0) as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)

        async def run() -> list[bytes]:
            log = AccessLog("stdout", dropped.append)
            noted(log, 40_000)
            assert sum(dropped) > 20_000
            await asyncio.sleep(0.3)  # the pipe is full by now, or it is later: both are the same to who looks
            taken: list[bytes] = []
            reading = threading.Thread(target=lambda: taken.extend(iter(lambda: os.read(reads, 65_536), b"")))
            reading.start()
            await log.close()
            stdout.close()
            await asyncio.to_thread(reading.join)
            return b"".join(taken).splitlines()

        lines = asyncio.run(run())
    os.close(reads)
    assert len(lines) + sum(dropped) == 40_000
    assert sum(map(len, lines)) <= MOST_BYTES
    assert {json.loads(line)["route"] for line in lines} == {LOOKUP}


@pytest.mark.usefixtures("patient")
def test_a_reader_that_is_gone_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the server goes on; a name that is no text is written all the same."""
    reads, writes = os.pipe()
    dropped: list[int] = []
    with os.fdopen(writes, "wb", buffering=0) as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)

        async def run() -> None:
            log = AccessLog("stdout", dropped.append)
            noted(log, 1, "jwt:\ud800")
            await log.close()
            os.close(reads)
            log = AccessLog("stdout", dropped.append)
            noted(log, 5)
            await log.close()
            await asyncio.sleep(0)

        asyncio.run(run())
    assert dropped == [5]


@pytest.mark.usefixtures("patient")
def test_a_line_that_was_torn_spoils_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a disk is full in the middle of a line, the next one begins on a line of its own."""
    with (tmp_path / "log").open("wb", buffering=0) as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        whole, dropped = os.write, []
        room = [100]

        def write(descriptor: int, data: bytes) -> int:
            if descriptor == stdout.fileno() and room:
                size = room.pop()
                room.append(0) if size else None
                if not size:
                    raise OSError(28, "No space left on device")
                return whole(descriptor, data[:size])
            return whole(descriptor, data)

        async def run() -> None:
            told = asyncio.Event()
            log = AccessLog("stdout", lambda lines: (dropped.append(lines), told.set()))  # type: ignore[arg-type]  # what it returns is not looked at
            monkeypatch.setattr(os, "write", write)
            noted(log, 3)
            await told.wait()
            noted(log, 2)
            await log.close()

        asyncio.run(run())
    torn, *lines = (tmp_path / "log").read_text().splitlines()
    assert dropped == [3]
    assert len(torn) == 100
    assert [json.loads(line)["status"] for line in lines] == [200, 200]
