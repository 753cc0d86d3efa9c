"""The pages of platforms: a suite runs each, the commands that they begin with run here, and the versions that they name are those of
the suites."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from featurestore import FeatureStore
from tests.servers import PATIENCE_SECONDS, free_port

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs/platforms").glob("*.md"))
SUITES = sorted((ROOT / "tests/platforms").glob("*.py"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
VERSION = re.compile(r"\d+\.\d+\.\d+")
NAMED_VERSION = re.compile(r"([A-Za-z][\w-]*) (\d+\.\d+\.\d+)")
PACKAGES = {"spark": "pyspark"}
"""What pages call a package that has another name."""


def installed() -> dict[str, set[str]]:
    """The versions of each package that some environment of the suites has."""
    files = [
        ROOT / "constraints.txt",
        ROOT / "constraints-platforms.txt",
        *(ROOT / "tests").glob("platforms*/environments/*.txt"),
    ]
    found: dict[str, set[str]] = {}
    for file in files:
        for name, version in re.findall(r"^([\w.-]+)(?:\[.*\])?==([\w.]+)", file.read_text(), re.MULTILINE):
            found.setdefault(name.lower().replace("_", "-"), set()).add(version)
    return found


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_versions_in_tables_are_those_that_the_suites_install(page: Path) -> None:
    """Each with the name of its package."""
    known = installed()
    assert known["boto3"]
    for line in page.read_text().splitlines():
        if line.startswith("|"):
            named = NAMED_VERSION.findall(line)
            assert len(named) == len(VERSION.findall(line)), f"a version without its package: {line}"
            for name, version in named:
                assert version in known.get(PACKAGES.get(name.lower(), name.lower()), ()), f"{name} {version}"


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_a_suite_runs_each_page_that_shows_code(page: Path) -> None:
    """It reads the page's text, or runs it by its name."""
    if "python" not in [kind for kind, _ in BLOCK.findall(page.read_text())]:
        return
    named = {page.name, page.stem} if page.stem not in {"index", "frameworks"} else {page.name}
    calls = [
        call for suite in SUITES for call in ast.walk(ast.parse(suite.read_text()))
        if isinstance(call, ast.Call | ast.BinOp | ast.List)
    ]  # fmt: skip
    read = {part.value for call in calls for part in ast.iter_child_nodes(call) if isinstance(part, ast.Constant)}
    assert named & read, f"no suite of tests/platforms runs {page.name}"


def write_project(folder: Path, page: str, config: str) -> str:
    """The definitions that a page shows, beside its configuration; its commands."""
    shown = BLOCK.findall((ROOT / "docs/platforms" / page).read_text())
    (definitions,) = [text for kind, text in shown if kind == "python" and "Entity(" in text]
    (commands,) = [text for kind, text in shown if kind == "text"]
    (folder / "definitions.py").write_text(definitions)
    (folder / "featurestore.toml").write_text(config)
    return commands


def ran(command: str, folder: Path) -> None:
    """Run a command in a shell, as it is shown."""
    program = folder / "bin" / "featurestore"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m featurestore "$@"\n')
    program.chmod(0o755)
    path = f"{program.parent}:{os.environ['PATH']}"
    done = subprocess.run(
        command, shell=True, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": path}, capture_output=True,
        text=True, timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_project_that_clients_ask_is_made_by_its_commands(tmp_path: Path) -> None:
    """From nothing, and its server answers the platform that the last of them names."""
    commands = write_project(tmp_path, "index.md", 'project = "drivers"\n')
    *before, serve = commands.strip().splitlines()
    for command in before:
        ran(command, tmp_path)
    port = free_port()
    program, *words = serve.split()
    assert (program, words[0]) == ("featurestore", "serve")
    server = subprocess.Popen(
        [sys.executable, "-m", "featurestore", *words, "--port", str(port)], cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_SECONDS) as client:
            end = time.monotonic() + PATIENCE_SECONDS
            while True:
                assert server.poll() is None
                assert time.monotonic() < end
                try:
                    if client.get("/readyz").status_code == 200:
                        break
                except httpx.TransportError:
                    time.sleep(0.05)
            asked = {"dataframe_records": [{"driver_id": "d1"}]}
            told = client.post("/serving-endpoints/ranking/invocations", json=asked)
            assert told.status_code == 200, told.text
            assert told.json()["outputs"][0]["drivers__trips"] == 14
    finally:
        server.terminate()
        server.wait(PATIENCE_SECONDS)


def test_the_project_of_frameworks_is_made_by_its_commands(tmp_path: Path) -> None:
    """From nothing, until it is served."""
    commands = write_project(tmp_path, "frameworks.md", 'project = "rides"\n')
    for command in commands.strip().splitlines():
        ran(command, tmp_path)
    with FeatureStore(tmp_path) as store:
        assert store.get_online_features({"driver_id": "d2"}, "ranking").to_dict()["drivers__fare"] == [20.25]
