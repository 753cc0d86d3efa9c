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
import yaml

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_what_the_image_copies_exists_and_it_runs_without_rights() -> None:
    """Every file that is copied is in the repository and let through; the user is not root."""
    ignored = (ROOT / ".dockerignore").read_text().split()
    for sources in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists()
            assert f"!{source}" in ignored
    assert re.search(r"^USER featurestore$", DOCKERFILE, re.MULTILINE)


def test_the_composition_keeps_what_it_is_given() -> None:
    """Redis never evicts, and the server waits until it answers."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    command = services["redis"]["command"]
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"
    assert services["server"]["depends_on"] == {"redis": {"condition": "service_healthy"}}
    assert services["server"]["build"] == "."


def test_the_entry_point_serves_and_stops_in_order(tmp_path: Path) -> None:
    """The image's own command, but for its paths, answers on a port and ends on SIGTERM."""
    featurestore = shutil.which("featurestore", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert featurestore is not None
    subprocess.run([featurestore, "init", str(tmp_path / "repo")], check=True, capture_output=True)
    entry, command = (
        json.loads(re.findall(rf"^{word} (\[.+\])$", DOCKERFILE, re.MULTILINE)[0]) for word in ("ENTRYPOINT", "CMD")
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    replaced = {
        "featurestore": featurestore,
        "/repo": str(tmp_path / "repo"),
        "6570": str(port),
        "0.0.0.0": "127.0.0.1",
    }
    process = subprocess.Popen([replaced.get(word, word) for word in [*entry, *command]], stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        while True:
            assert process.poll() is None
            assert time.monotonic() < deadline
            try:
                assert httpx.get(f"http://127.0.0.1:{port}/healthz").json() == {"status": "up"}
                break
            except httpx.ConnectError:
                time.sleep(0.1)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) in {0, -signal.SIGTERM}
        assert process.stderr is not None
        process.stderr.close()
