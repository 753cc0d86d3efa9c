"""The image and the composition: what they name exists, and what they run runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
import yaml

from feature_repo.prepare import prepare
from featurestore.config import load_config
from tests.ports import free_port
from tests.servers import PATIENCE_SECONDS

ROOT = Path(__file__).parents[1]
FLIGHTS = ROOT / "feature_repo"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
ENTRYPOINT, CMD = (
    json.loads(re.findall(rf"^{word} (\[.+\])$", DOCKERFILE, re.MULTILINE)[0]) for word in ("ENTRYPOINT", "CMD")
)
COMPOSITION = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVED = ("apply", "materialize", "first-key", "prometheus-key", "server")
SERVICES = COMPOSITION["services"]
STATE_VOLUMES = ["${REPO:-./feature_repo}:/repo:ro", "state:/state"]


def test_what_the_image_copies_exists_and_it_runs_without_rights() -> None:
    """Every file that is copied is in the repository and let through; the user is not root, by a number that others can look at."""
    ignored = (ROOT / ".dockerignore").read_text().split()
    copied = [
        source
        for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
        for source in sources.split()
    ]
    assert copied
    for source in copied:
        assert (ROOT / source).exists()
        assert f"!{source}" in ignored
    assert re.findall(r"^USER (.+)$", DOCKERFILE, re.MULTILINE) == ["10001"]


def test_the_image_installs_nothing_but_by_its_hash() -> None:
    """Neither what it runs nor what builds it; the product itself is built from the sources that are copied."""
    installs = re.findall(r"pip (?:install|wheel) (.+?)(?: &&|$)", DOCKERFILE.replace("\\\n", " "), re.MULTILINE)
    assert len(installs) == 4
    for words in installs:
        by_hash = "--require-hashes" in words and "--only-binary :all:" in words
        own = "--no-deps" in words and ("--no-index /wheel/" in words or words.endswith(" ."))
        assert by_hash != own


def test_the_composition_keeps_what_it_is_given() -> None:
    """Valkey never evicts, and nobody asks it before it answers; what must last lies in volumes."""
    command = SERVICES["valkey"]["command"]
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"
    assert SERVICES["server"]["depends_on"] == {
        "valkey": {"condition": "service_healthy"},
        "first-key": {"condition": "service_completed_successfully"},
    }
    assert SERVICES["materialize"]["depends_on"] == {"apply": {"condition": "service_completed_successfully"}}
    used = {volume.split(":")[0] for service in SERVICES.values() for volume in service["volumes"]}
    assert {name for name in used - set(COMPOSITION["volumes"]) if not name.startswith("./deploy/")} == {"${REPO"}
    assert all((ROOT / name).exists() for name in used if name.startswith("./"))


def test_nothing_of_the_composition_is_open() -> None:
    """No service writes to its root file system or may more than it needs; the store is in a network without a way out; what is
    published asks for a key or a password, or is this machine's alone; images may be given by their digests."""
    for service in SERVICES.values():
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "privileged" not in service
        assert service["image"] == "featurestore" or re.fullmatch(
            r"\$\{[A-Z]+_IMAGE:-[^:]+:v?\d[\d.]*\}", service["image"]
        )
    assert COMPOSITION["networks"]["data"] == {"internal": True}
    assert SERVICES["valkey"]["networks"] == ["data"]
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert ports == {"server": ["6570:6570"], "prometheus": ["127.0.0.1:9090:9090"], "grafana": ["127.0.0.1:3000:3000"]}
    assert "no-authentication" not in (ROOT / "docker-compose.yml").read_text()
    assert load_config(FLIGHTS, "compose").server.authentication == "required"
    assert re.match(r"\$\{GRAFANA_PASSWORD:\?", SERVICES["grafana"]["environment"]["GF_SECURITY_ADMIN_PASSWORD"])


def test_prometheus_and_grafana_have_what_they_are_told_of() -> None:
    """The key, the rules, the dashboard and the server, where their settings say."""
    settings = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    (job,) = settings["scrape_configs"]
    key = job["authorization"]["credentials_file"]
    command = SERVICES["prometheus-key"]["command"]
    assert (command[command.index("--output") + 1], command[command.index("--scope") + 1]) == (key, "metrics")
    assert "watch:/watch" in SERVICES["prometheus"]["volumes"]
    assert SERVICES["prometheus"]["user"] == "10001"  # whose the key is
    assert job["static_configs"] == [{"targets": ["server:6570"]}]
    assert set(SERVICES["prometheus"]["networks"]) & set(SERVICES["server"]["networks"])
    provided = yaml.safe_load((ROOT / "deploy/grafana/provisioning/dashboards/featurestore.yml").read_text())
    folder = provided["providers"][0]["options"]["path"]
    assert f"./deploy/grafana/featurestore.json:{folder}/featurestore.json:ro" in SERVICES["grafana"]["volumes"]
    source = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text())
    assert source["datasources"][0]["url"] == "http://prometheus:9090"


def test_the_composition_names_what_the_flights_and_the_image_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default it serves the flights from its own Valkey, and all that is written lies where the image's user may write."""
    for name in ("REDIS_URL", "REGISTRY", "STATE"):
        monkeypatch.delenv(name, raising=False)
    for name in SERVED:
        service = SERVICES[name]
        assert service["build"]["context"] == "."
        (default,) = re.findall(r"^\$\{FEATURESTORE_ENV:-(\w+)\}$", service["environment"]["FEATURESTORE_ENV"])
        assert service["volumes"][:2] == STATE_VOLUMES
    config = load_config(FLIGHTS, default)
    assert config.online == "redis://valkey:6379/0"
    assert "valkey" in SERVICES
    written: list[Any] = [config.logs, config.offline.tiles, config.serving_log.folder, config.registry]
    assert all(Path(place).parent == Path("/state") for place in written)
    assert re.search(r"mkdir --mode=0700 /repo /state /watch && chown featurestore /repo /state /watch", DOCKERFILE)


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
        "STATE": str(state),
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
    deadline = time.monotonic() + 600
    while True:
        assert process.poll() is None
        assert time.monotonic() < deadline
        try:
            return httpx.get(url, timeout=PATIENCE_SECONDS)
        except httpx.ConnectError:
            time.sleep(0.1)


def test_what_the_composition_runs_serves_flights_from_redis(environ: dict[str, str]) -> None:
    """Its commands, but for paths and port: not ready at first, then a flight's aircraft out of Redis; SIGTERM ends it."""
    port = str(free_port())
    words = {"6570": port, "0.0.0.0": "127.0.0.1"}
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(command_line(CMD, **words), env=environ)
    try:
        assert answered(process, f"{url}/healthz").json() == {"status": "up"}
        assert httpx.get(f"{url}/readyz", timeout=PATIENCE_SECONDS).status_code == 503
        file = Path(environ["REGISTRY"]).with_name("first.key")
        for name in ("apply", "first-key", "first-key", "prometheus-key"):
            places = {"/state/first.key": str(file), "/watch/prometheus.key": str(file.with_name("prometheus.key"))}
            subprocess.run(
                command_line(SERVICES[name]["command"], **places), env=environ, check=True, capture_output=True
            )
        following = subprocess.Popen(command_line(SERVICES["materialize"]["command"]), env=environ)
        try:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while httpx.get(f"{url}/readyz", timeout=PATIENCE_SECONDS).status_code != 200:
                assert following.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.2)
        finally:
            following.send_signal(signal.SIGTERM)
            assert following.wait(timeout=600) == 0
        assert file.stat().st_mode & 0o777 == 0o600
        headers = {"Authorization": f"Bearer {file.read_text().strip()}"}
        assert httpx.get(f"{url}/readyz", timeout=PATIENCE_SECONDS).json() == {"status": "ready"}
        watcher = {"Authorization": f"Bearer {file.with_name('prometheus.key').read_text().strip()}"}
        assert httpx.get(f"{url}/metrics", headers=watcher, timeout=PATIENCE_SECONDS).status_code == 200
        assert httpx.get(f"{url}/metrics", timeout=PATIENCE_SECONDS).status_code == 401
        flight: dict[str, Any] = {"carrier": "UA", "tailnum": "N14228", "origin": "EWR", "dest": "IAH"}
        flight |= {"month": 1, "hour": 5, "weekday": 2, "distance": 1400}
        asked = {"service": "delay_model", "rows": [flight]}
        assert httpx.post(f"{url}/v1/online-features", json=asked, timeout=PATIENCE_SECONDS).status_code == 401
        body = httpx.post(f"{url}/v1/online-features", json=asked, headers=headers, timeout=PATIENCE_SECONDS).json()
        found = dict(zip(body["columns"], body["rows"][0], strict=True))
        statuses = dict(zip(body["columns"], body["statuses"][0], strict=True))
        assert (found["aircraft_facts__built"], found["aircraft_facts__seats"]) == (1999, 149)
        assert (found["dest__lat"], found["flight_distance"]) == (29.984433, 1400)
        assert statuses["carrier_last__arr_delay"] == "EXPIRED"  # a flight of 2013
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=600) in {0, -signal.SIGTERM}
    with redis.Redis.from_url(environ["REDIS_URL"]) as client:
        keys = list(client.scan_iter(b"flights:*"))
        assert len(keys) > 3_000  # aircraft, airports, carriers
        client.delete(*keys)
