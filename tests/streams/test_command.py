"""`featurestore consume` and `featurestore poison` as processes: they end when told, go on after kill -9, and say what they did."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from featurestore import FeatureStore
from tests.servers import ROOT, FeatureServer, RedisServer
from tests.streams.shop import configure, logged, served, text

DEFINITIONS = """
from featurestore import RedisStream
from tests.streams.shop import declared

service = declared(RedisStream("swipes", broker="cache"))
"""


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def shop(tmp_path: Path, redis: RedisServer) -> Path:
    """A repository whose swipes come by a Redis Stream; applied."""
    configure(tmp_path, "[brokers.cache]", f'url = "{redis.url}"')
    config = tmp_path / "featurestore.toml"
    config.write_text(config.read_text().replace("definitions = []\n", ""))
    (tmp_path / "definitions.py").write_text(DEFINITIONS)
    run(tmp_path, "apply", "--yes")
    return tmp_path


def command(folder: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "featurestore", "--repo", str(folder), *words]


def run(folder: Path, *words: str, code: int = 0) -> str:
    done = subprocess.run(command(folder, *words), cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def add(redis: RedisServer, *values: bytes) -> None:
    with redis.client() as client:
        for value in values:
            client.xadd("swipes", {"data": value})


def test_it_consumes_to_the_end_and_tells_what_it_kept_aside(shop: Path, redis: RedisServer) -> None:
    """What was done as a table or JSON; poison is listed, replayed and discarded; status has the partition."""
    add(redis, text(1), b"\x1b[31mred", text(2))
    done = json.loads(run(shop, "consume", "--until-end", "--json"))
    assert done == {"swipes": {"messages": 3, "accepted": 2, "unchanged": 0, "late": 0, "poison": 1, "lost": 0}}
    listed = run(shop, "poison", "list", "swipes")
    assert "\x1b" not in listed
    assert "no JSON" in listed
    (one,) = json.loads(run(shop, "poison", "list", "swipes", "--json"))
    assert (one["partition"], one["value"]) == (0, "G1szMW1yZWQ=")
    assert "0 messages pushed, 1 refused again" in run(shop, "poison", "replay", "swipes", code=3)
    (status,) = json.loads(run(shop, "status", "--json"))["views"]
    (partition,) = status["pushes"]["partitions"]
    assert (partition["taken"], partition["consumer"], status["pushes"]["poison"]) == (3, None, 1)
    assert "partition 0 of its stream: read up to" in run(shop, "status")
    assert run(shop, "poison", "discard", "swipes", code=1) == ""  # nobody says that all are meant
    assert "1 message forgotten" in run(shop, "poison", "discard", "swipes", str(one["id"]))
    assert "No message of swipes is kept aside" in run(shop, "poison", "list", "swipes")


def test_metrics_have_the_lag(shop: Path, redis: RedisServer) -> None:
    """A server tells of each partition how far behind it is, also while nobody reads it."""
    add(redis, text(1), b"wrong")
    run(shop, "consume", "--until-end", "--quiet")
    with FeatureServer(shop, "--no-authentication") as server, server.client() as client:
        told = metrics(client)
    labels = 'partition="0",source="swipes"'
    assert told[f"featurestore_stream_messages_total{{{labels}}}"] == 2
    assert told[f"featurestore_stream_is_read{{{labels}}}"] == 0
    assert told[f"featurestore_stream_lost_messages_total{{{labels}}}"] == 0
    assert told['featurestore_stream_poison_messages{source="swipes"}'] == 1


def test_a_backup_goes_on_where_it_was_made(shop: Path, redis: RedisServer, tmp_path: Path) -> None:
    """What was read before it is read no more, what came after is; and it has the messages that were kept aside."""
    add(redis, text(1), b"wrong", text(2))
    run(shop, "consume", "--until-end", "--quiet")
    run(shop, "backup", str(tmp_path / "backup.tar"))
    add(redis, text(3))
    run(shop, "consume", "--until-end", "--quiet")
    other = tmp_path / "other"
    configure(other, "[brokers.cache]", f'url = "{redis.url}"')
    (other / "definitions.py").write_text(DEFINITIONS)
    run(other, "restore", str(tmp_path / "backup.tar"))
    done = json.loads(run(other, "consume", "--until-end", "--json"))
    assert done["swipes"]["accepted"] == 1
    with FeatureStore(other) as store:
        assert logged(store) == [1, 2, 3]
        assert [one.message.value for one in store.poison("swipes")] == [b"wrong"]


def metrics(client: httpx.Client) -> dict[str, float]:
    found = {}
    for line in client.get("/metrics").text.splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            head, brace, labels = name.partition("{")
            found[head + brace + (",".join(sorted(labels[:-1].split(","))) + "}" if brace else "")] = float(value)
    return found


def started(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command(folder, "consume"), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def wait_for(store: FeatureStore, rows: int, *processes: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 600
    while len(logged(store)) < rows:
        assert any(process.poll() is None for process in processes)
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_sigterm_ends_it_and_kill_9_harms_nothing(shop: Path, redis: RedisServer) -> None:
    """Killed at any moment, again and again, each message is there once at the end; told to stop, it ends with 0."""
    chosen, written = random.Random(16), 0
    with FeatureStore(shop) as store:
        for _ in range(3):
            process = started(shop)
            try:
                wait_for(store, max(1, written), process) if written else None
                for _ in range(chosen.randint(1, 4)):
                    more = chosen.randint(1, 400)
                    add(redis, *map(text, range(written, written + more)))
                    written += more
                if len(logged(store)) < written:
                    time.sleep(chosen.random() / 5)
            finally:
                process.kill()
                process.communicate()
        process = started(shop)
        try:
            add(redis, *map(text, range(written, written + 10)))
            written += 10
            wait_for(store, written, process)
        finally:
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
        assert sorted(logged(store)) == list(range(written))
        assert served(store) == written


def test_words_that_are_wrong(shop: Path) -> None:
    """Are refused with what is right."""
    for words, says in (
        (("consume", "swipe"), "Did you mean 'swipes'"),
        (("poison", "replay", "swipes", "7"), "No message 7"),
    ):
        done = subprocess.run(command(shop, *words), cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert says in done.stderr
