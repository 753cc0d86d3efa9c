"""A server that speaks S3, as the environment names it, and a way to it that breaks when it is told to."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime

import pyarrow.fs as pafs
import pytest
from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer

from featurestore.sources import object_stores


def refusal(status: str, code: str, message: str) -> bytes:
    """An answer of S3 that is an error."""
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nConnection: close\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


BUSY = refusal("503 Slow Down", "SlowDown", "Please reduce your request rate.")


def written_at(bucket: str, key: str, at: datetime) -> None:
    """The server then says that a file was last written at an instant."""
    s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets[bucket].keys[key].last_modified = at.replace(tzinfo=None)


def put_empty(bucket: str, keys: Iterable[str]) -> None:
    """Objects of no bytes, as many as there are, without a request for each."""
    for key in keys:
        s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object(bucket, key, b"")


@contextmanager
def s3_server() -> Iterator[pafs.FileSystem]:
    """A server, which the environment names as users' environments do, and a client of it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    said = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "some", "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, value in said.items():
            patch.setenv(name, value)
        object_stores._system.cache_clear()
        yield pafs.S3FileSystem(endpoint_override=said["AWS_ENDPOINT_URL"], allow_bucket_creation=True)
    object_stores._system.cache_clear()
    server.stop()


class BadWay:
    """A way to the server that the environment names. left: so many bytes go to the server, and then every connection is
    cut, or goes nowhere. answers: what the next requests are answered with, on the way."""

    def __init__(self) -> None:
        self.left = 1 << 60
        self.answers: list[bytes] = []
        self.stalls = False
        self.reached = threading.Event()
        """That nothing was left."""
        to = os.environ["AWS_ENDPOINT_URL"].removeprefix("http://").split(":")
        self._to = to[0], int(to[1])
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        with suppress(OSError), client:
            if self.answers:
                answer = self.answers.pop()
                client.recv(1 << 16)
                client.sendall(answer)
                return
            with socket.create_connection(self._to) as server:
                threading.Thread(target=self._back, args=(server, client), daemon=True).start()
                while data := client.recv(1 << 16):
                    self.left -= len(data)
                    if self.left < 0:
                        self.reached.set()
                        if self.stalls:
                            threading.Event().wait(600)
                        return
                    server.sendall(data)

    @staticmethod
    def _back(server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 16):
                client.sendall(data)
            client.shutdown(socket.SHUT_WR)


@contextmanager
def bad_way() -> Iterator[BadWay]:
    """The way, which the environment names meanwhile."""
    way = BadWay()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", way.url)
        object_stores._system.cache_clear()
        yield way
    object_stores._system.cache_clear()
    way.close()
