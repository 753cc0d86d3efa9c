"""The image and the composition: what they name exists, and what they run runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import redis
import yaml

from feature_repo.prepare import prepare
from featurestore.config import load_config

ROOT = Path(__file__).parents[1]
FLIGHTS = ROOT / "feature_repo"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
ENTRYPOINT, CMD = (
    json.loads(re.findall(rf"^{word} (\[.+\])$", DOCKERFILE, re.MULTILINE)[0]) for word in ("ENTRYPOINT", "CMD")
)
COMPOSITION = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVED = ("apply", "materialize", "first-key", "server")


def test_what_the_image_copies_exists_and_it_runs_without_rights() -> None:
    """Every file that is copied is in the repository and let through; the user is not root."""
    ignored = (ROOT / ".dockerignore").read_text().split()
    for sources in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists()
            assert f"!{source}" in ignored
    assert re.search(r"^USER featurestore$", DOCKERFILE, re.MULTILINE)


def test_the_composition_keeps_what_it_is_given() -> None:
    """Redis never evicts, and nobody asks it before it answers; what must last lies in volumes."""
    services = COMPOSITION["services"]
    command = services["redis"]["command"]
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"
    assert services["server"]["depends_on"] == {
        "redis": {"condition": "service_healthy"},
        "first-key": {"condition": "service_completed_successfully"},
    }
    assert services["materialize"]["depends_on"] == {"apply": {"condition": "service_completed_successfully"}}
    used = {volume.split(":")[0] for service in services.values() for volume in service["volumes"]}
    assert used - set(COMPOSITION["volumes"]) == {"${REPO"}


def test_the_composition_names_what_the_flights_and_the_image_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default it serves the flights from its own Redis, with a registry where the image's user may write."""
    for name in ("REDIS_URL", "REGISTRY"):
        monkeypatch.delenv(name, raising=False)
    for name in SERVED:
        service = COMPOSITION["services"][name]
        assert service["build"] == "."
        (default,) = re.findall(r"^\$\{FEATURESTORE_ENV:-(\w+)\}$", service["environment"]["FEATURESTORE_ENV"])
        assert service["volumes"] == ["${REPO:-./feature_repo}:/repo:ro", "state:/state"]
    config = load_config(FLIGHTS, default)
    assert config.online == "redis://redis:6379/0"
    assert "redis" in COMPOSITION["services"]
    assert config.registry.parent == Path("/state")
    assert re.search(r"mkdir /repo /state && chown featurestore /repo /state", DOCKERFILE)


@pytest.fixture(scope="module")
def environ(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The composition's environment, with a Redis and a registry that there are."""
    prepare(FLIGHTS / "data")
    state = tmp_path_factory.mktemp("state")
    return {
        **os.environ,
        "FEATURESTORE_ENV": "compose",
        "REDIS_URL": redis_url,
        "REGISTRY": str(state / "registry.db"),
        "PYTHONPATH": str(ROOT),
    }


def command_line(command: list[str], **replaced: str) -> list[str]:
    """The image's ENTRYPOINT with a command, over the flights."""
    featurestore = shutil.which("featurestore", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert featurestore is not None
    words = {"featurestore": featurestore, "/repo": str(FLIGHTS), **replaced}
    return [words.get(word, word) for word in [*ENTRYPOINT, *command]]


def answered(process: subprocess.Popen[bytes], url: str) -> httpx.Response:
    """What the server says, as soon as it says anything."""
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None
        assert time.monotonic() < deadline
        try:
            return httpx.get(url)
        except httpx.ConnectError:
            time.sleep(0.1)


def test_what_the_composition_runs_serves_flights_from_redis(environ: dict[str, str]) -> None:
    """Its commands, but for paths and port: not ready at first, then a flight's aircraft out of Redis; SIGTERM ends it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    words = {"6570": port, "0.0.0.0": "127.0.0.1"}
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(command_line(CMD, **words), env=environ)
    try:
        assert answered(process, f"{url}/healthz").json() == {"status": "up"}
        assert httpx.get(f"{url}/readyz").status_code == 503
        file = Path(environ["REGISTRY"]).with_name("first.key")
        for name in ("apply", "materialize", "first-key", "first-key"):
            command = command_line(COMPOSITION["services"][name]["command"], **{"/state/first.key": str(file)})
            subprocess.run(command, env=environ, check=True, capture_output=True)
        assert file.stat().st_mode & 0o777 == 0o600
        headers = {"Authorization": f"Bearer {file.read_text().strip()}"}
        assert httpx.get(f"{url}/readyz").json() == {"status": "ready"}
        flight = {"carrier": "UA", "tailnum": "N14228", "origin": "EWR", "dest": "IAH"}
        flight |= {"month": 1, "hour": 5, "weekday": 2, "distance": 1400}
        asked = {"service": "delay_model", "rows": [flight]}
        assert httpx.post(f"{url}/v1/online-features", json=asked).status_code == 401
        body = httpx.post(f"{url}/v1/online-features", json=asked, headers=headers).json()
        found = dict(zip(body["columns"], body["rows"][0], strict=True))
        statuses = dict(zip(body["columns"], body["statuses"][0], strict=True))
        assert (found["aircraft_facts__built"], found["aircraft_facts__seats"]) == (1999, 149)
        assert (found["dest__lat"], found["flight_distance"]) == (29.984433, 1400)
        assert statuses["carrier_last__arr_delay"] == "EXPIRED"  # a flight of 2013
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) in {0, -signal.SIGTERM}
    with redis.Redis.from_url(environ["REDIS_URL"]) as client:
        keys = list(client.scan_iter(b"flights:*"))
        assert len(keys) > 3_000  # aircraft, airports, carriers
        client.delete(*keys)
