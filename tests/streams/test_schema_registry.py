"""A schema registry that does not answer as it should."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from featurestore.errors import BrokerUnavailableError
from featurestore.streams.schema_registry import URL, SchemaRegistry
from tests.servers import Front

SCHEMA = {"type": "record", "name": "Click", "fields": [{"name": "user", "type": "long"}]}


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({"schema": json.dumps(SCHEMA)}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def front() -> Iterator[Front]:
    """The network before a registry that answers."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        with Front(server.server_port) as made:
            yield made
        server.shutdown()


def registry(front: Front) -> SchemaRegistry:
    return SchemaRegistry({URL: f"http://127.0.0.1:{front.port}"}, "clicks")


def test_one_that_answers_byte_by_byte_is_given_up(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes in time, and the last of them long after it was to have answered; asked again, it answers."""
    asked = registry(front)
    with monkeypatch.context() as patch, front.trickling(0.05):
        patch.setattr("featurestore.streams.schema_registry.SECONDS", 0.5)
        with pytest.raises(BrokerUnavailableError, match="cannot be reached"):
            asked.schemas(1)
    assert asked.schemas(1) == [SCHEMA]


def test_an_answer_that_ends_too_early_is_none(front: Front) -> None:
    """Before it begins, or within its body: the registry is away, and may be asked again."""
    asked = registry(front)
    front.said = 0
    assert asked.schemas(0) == [SCHEMA]
    for cut in (0, front.said - 80, front.said - 1):
        front.ends = (cut, socket.SHUT_RDWR)
        with pytest.raises(BrokerUnavailableError):
            asked.schemas(1)
    assert asked.schemas(1) == [SCHEMA]
