"""What attackers send, beside what limits and foreign pages have tests of their own for: framing, paths, bytes and numbers."""

from __future__ import annotations

import ast
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import featurestore
from featurestore import FeatureStore
from featurestore.access.api_keys import create_key
from featurestore.server.app import create_app
from featurestore.settings import ServerConfig
from tests.server.test_limits import DEFINITIONS, LOOKUP, PUSH, lookup, push
from tests.servers import FeatureServer

BODY = json.dumps(lookup()).encode()
INNER = b"GET /v1/inner HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
"""A request that a proxy in front may take for a part of a body; whoever answers it took it for a request."""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, str]]:
    """The port of a server that asks for keys, and a key that reads and pushes."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "featurestore.toml").write_text('project = "hostile"\n')
    (folder / "definitions.py").write_text(DEFINITIONS)
    with FeatureStore(folder) as store:
        store.apply()
        store.materialize(progress=False)
        secret = create_key(store.registry, "web", ["read", "push"]).secret
    with FeatureServer(folder, answers="/healthz") as server:
        yield server.port, secret


def told(port: int, data: bytes) -> bytes:
    """All that the server sends; where the request asks for it, it ends the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=600) as connection:
        connection.sendall(data)
        found = b""
        while True:
            try:
                piece = connection.recv(1 << 16)
            except ConnectionResetError:
                return found
            if not piece:
                return found
            found += piece


def posted(secret: str, framing: str, body: bytes) -> bytes:
    lines = f"POST {LOOKUP} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {secret}\r\nContent-Type: application/json\r\n"
    return f"{lines}{framing}\r\n".encode() + body


@pytest.mark.parametrize(
    "framing",
    [
        "Content-Length: {n}\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: {n}\r\n",
        "Content-Length: {n}\r\nContent-Length: {more}\r\n",
        "Content-Length: {n}, {more}\r\n",
        "Content-Length: +{n}\r\n",
        "Content-Length: 0x1\r\n",
        "Content-Length: -1\r\n",
        "Content-Length : {n}\r\n",
        "Content-Length: {n}\nX: y\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding: identity\r\nContent-Length: {n}\r\n",
    ],
)
def test_a_body_whose_end_two_readers_may_see_elsewhere_is_refused(guarded: tuple[int, str], framing: str) -> None:
    """Whatever follows it is answered by nobody: a proxy may have taken it for a part of the body."""
    port, secret = guarded
    said = framing.format(n=len(BODY), more=len(BODY) + len(INNER))
    found = told(port, posted(secret, said, BODY + INNER))
    assert found.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 413 ")), found[:200]
    assert found.count(b"HTTP/1.1 ") == 1
    assert b"/v1/inner" not in found


def test_requests_of_one_connection_are_answered_in_their_order(guarded: tuple[int, str]) -> None:
    """Those that are sent before the first is answered, refused ones among them."""
    port, secret = guarded
    whole = posted(secret, f"Content-Length: {len(BODY)}\r\n", BODY)
    paths = [b"/v1/views/x%d" % number for number in range(5)]
    gets = [
        b"GET %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n\r\n" % (path, secret.encode())
        for path in paths
    ]
    last = INNER.replace(b"Host", b"Authorization: Bearer %s\r\nHost" % secret.encode())
    found = told(port, b"".join([one for get in gets for one in (get, whole)] + [last]))
    statuses = [part[:3] for part in found.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [*[b"404", b"200"] * 5, b"404"]
    assert [found.index(b'"instance":"%s"' % path) for path in paths] == sorted(
        found.index(b'"instance":"%s"' % path) for path in paths
    )


@pytest.mark.parametrize(
    "path",
    [
        "/healthz/../v1/views", "/healthz/..%2fv1/views", "/healthz%2f..%2fv1%2fviews", "/%2e%2e/v1/views", "//v1/views",
        "/healthz//../v1/views", "/v1//views", "/V1/views", "/v1/views/", "/v1/views;/healthz", "/healthz;/v1/views",
        "/v1/views%00", "/v1/views%00/healthz", "/healthz%00/../v1/views", "/v1/views%0d%0aX:y", "/v1/./views", "/v1\\views",
        "/docs/../v1/views", "/openapi.json/../v1/views", "/v1/views?/healthz", "/v1/views#/healthz",
        "http://localhost/v1/views", "http://localhost/healthz/../v1/views", "/%76%31/views", "/v1/views/..%2f..%2fetc%2fpasswd",
    ],
)  # fmt: skip
def test_no_spelling_of_a_path_leads_past_the_key(guarded: tuple[int, str], path: str) -> None:
    """It is an open path, or it takes a key, or it is none; and no file is ever one."""
    port, _ = guarded
    found = told(port, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert found.split(b" ", 2)[1] in {b"400", b"401", b"404"}, found[:200]
    assert not {b'"views"', b"root:"} & {*found.split(b"\r\n\r\n", 1)[1].split(b":")}


@pytest.mark.parametrize(
    "text",
    [
        "a\0b",
        "\0",
        "a\0",
        "'; DROP TABLE x; --",
        "../../etc/passwd",
        "${HOME}",
        "{0.__class__}",
        "%n%s",
        "\u202e\ufeff",
        "\U0010ffff",
    ],
)
def test_a_text_is_a_value_whatever_it_looks_like(guarded: tuple[int, str], text: str) -> None:
    """As a key, as an identity, as the name of a service: it is found again, and nothing else is."""
    port, secret = guarded
    with httpx.Client(
        base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {secret}"}, timeout=600
    ) as client:
        rows = push(thing=text)
        rows["rows"] = [{**row, "id": f"{text}{row['id']}"} for row in rows["rows"]]
        first, second = (client.post(PUSH, json=rows) for _ in range(2))
        assert (first.status_code, second.status_code) == (200, 200), first.text
        assert second.json()["unchanged"] + second.json()["late"] == 1
        assert client.post(LOOKUP, json=lookup(thing=text)).status_code == 200
        nowhere = client.post(LOOKUP, json={"service": text, "rows": [{"thing": "a"}]})
        assert nowhere.status_code == 404
        assert nowhere.json()["type"] == "urn:featurestore:NotFound"


@pytest.mark.parametrize(
    "number",
    [
        "1" + "0" * 400,
        "9223372036854775808",
        "-9223372036854775809",
        "1e400",
        "NaN",
        "Infinity",
        "-Infinity",
        "1.5",
        "1e2",
    ],
)
def test_a_number_that_is_no_key_is_refused(guarded: tuple[int, str], number: str) -> None:
    """Where a text is asked for, and in the place of a list of rows."""
    port, secret = guarded
    for body in (
        f'{{"features":["view:n1"],"rows":[{{"thing":{number}}}]}}',
        f'{{"features":["view:n1"],"rows":{number}}}',
    ):
        found = told(port, posted(secret, f"Content-Length: {len(body)}\r\nConnection: close\r\n", body.encode()))
        assert found.split(b" ", 2)[1] in {b"400", b"422"}, found[:200]


def test_the_description_says_what_is_refused(tmp_path: Path) -> None:
    """No lookup without rows, no manifest without a service and a fingerprint, and that anything may be a 500."""
    (tmp_path / "featurestore.toml").write_text('project = "described"\ndefinitions = []\n')
    with FeatureStore(tmp_path) as store:
        routes = create_app(store, authentication=False).openapi()["paths"]
    asked = {
        path: route["post"]["requestBody"]["content"]["application/json"]["schema"]
        for path, route in routes.items()
        if "post" in route
    }
    assert "rows" in asked[LOOKUP]["required"]
    assert asked["/v1/manifests"]["required"] == ["service", "fingerprint"]
    for path, route in routes.items():
        for method in route.values():
            assert "500" in method["responses"], path


def test_a_server_listens_for_this_machine_alone_where_nobody_says_otherwise() -> None:
    assert ServerConfig().host == "127.0.0.1"
    assert ServerConfig().authentication == "required"


RUNS = {"eval", "exec", "compile", "__import__"}
UNSAFE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml", "xmlrpc", "code"}
OTHER_PYTHON = "migrate/feast_reader/repository.py"
"""It runs in Feast's own environment, over a repository of the user's, and reads YAML that runs nothing."""
DECLARED = {"declare/arguments.py", "declare/syntax.py"}
"""Where the annotations of this package are read, and the definitions of the user compiled, which are not run there."""


def test_nothing_that_is_sent_is_ever_run() -> None:
    """No module of the package unpickles, or reads YAML; and those that run code run the project's own."""
    root = Path(featurestore.__file__).parent
    runs = set()
    for path in sorted(root.rglob("*.py")):
        if path == root / OTHER_PYTHON:
            assert set(re.findall(r"\byaml\.(\w+)\(", path.read_text())) == {"safe_load"}
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and [alias.name for alias in node.names] != ["UnpicklingError"]:
                names.append(node.module or "")
            assert not UNSAFE & {name.partition(".")[0] for name in names}, path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in RUNS:
                runs.add(path.relative_to(root).as_posix())
    assert runs == DECLARED
