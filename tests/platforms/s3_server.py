"""A server that speaks S3, as the environment names it, and a way to it that breaks when it is told to."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pyarrow.fs as pafs
import pytest
from moto.server import ThreadedMotoServer

from featurestore.sources import object_stores

SLOW = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
BUSY = (
    b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(SLOW), SLOW)
)


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
    cut, or goes nowhere; busy: so many connections are told to slow down."""

    def __init__(self) -> None:
        self.left, self.busy = 1 << 60, 0
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
            if self.busy > 0:
                self.busy -= 1
                client.recv(1 << 16)
                client.sendall(BUSY)
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
