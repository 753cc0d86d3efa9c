"""The examples for schedulers: what they start runs, and their forms are right as far as their own tools can tell here."""

from __future__ import annotations

import ast
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from featurestore import FeatureStore
from tests.cli.test_commands import run
from tests.test_follow import read_until

SCHEDULE = Path(__file__).parents[1] / "examples/schedule"
PROGRAM = "/opt/featurestore/bin/featurestore"
UNITS = sorted(path.name for path in SCHEDULE.iterdir() if path.suffix in {".service", ".timer"})


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The paths of the examples, and what stands for each here: an environment's command, a repository that is applied."""
    folder = tmp_path_factory.mktemp("schedule")
    run(folder, "init", "shop")
    run(folder / "shop", "apply", "--yes")
    program = folder / "featurestore"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m featurestore "$@"\n')
    program.chmod(0o755)
    os.environ["PYTHONPATH"] = str(SCHEDULE.parents[1])
    yield {PROGRAM: str(program), "/srv/shop": str(folder / "shop")}
    del os.environ["PYTHONPATH"]


def here(text: str, words: dict[str, str]) -> str:
    for theirs, ours in words.items():
        text = text.replace(theirs, ours)
    return text


def command_of(unit: str) -> str:
    (line,) = [line for line in (SCHEDULE / unit).read_text().splitlines() if line.startswith("ExecStart=")]
    return line.removeprefix("ExecStart=")


def succeeds(command: str, words: dict[str, str]) -> str:
    done = subprocess.run(here(command, words), shell=True, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done
    return done.stdout


def test_systemd_takes_the_units(words: dict[str, str], tmp_path: Path) -> None:
    """Where systemd's own tool is, it finds nothing to say; everywhere, a timer has the service that it starts."""
    for name in UNITS:
        (tmp_path / name).write_text(here((SCHEDULE / name).read_text(), {PROGRAM: "/bin/true"}))
        if name.endswith(".timer"):
            assert name.replace(".timer", ".service") in UNITS
    if tool := shutil.which("systemd-analyze"):
        done = subprocess.run(
            [tool, "verify", *(tmp_path / name for name in UNITS)], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_what_the_service_follows_ends_by_sigterm(words: dict[str, str]) -> None:
    command = here(command_of("featurestore-follow.service"), words).split()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        read_until(process, "customer_orders as of")
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()  # to its end, so that it can write all that it has to say
    assert process.returncode == 0


def test_what_systemd_cron_and_airflow_start_runs(words: dict[str, str]) -> None:
    """Each command, with its words as they stand."""
    assert succeeds(command_of("featurestore-materialize.service"), words) == ""
    with FeatureStore(words["/srv/shop"]) as store:  # an audit of nothing would stop
        store.get_online_features({"customer": "ann", "amount": 1.0}, "order_model")
    lines = [
        line.split(maxsplit=5) for line in (SCHEDULE / "crontab").read_text().splitlines() if line[:1] in "*0123456789"
    ]
    assert len(lines) == 3
    for *when, command in lines:
        assert len(when) == 5
        succeeds(command, words)
    dag = ast.parse((SCHEDULE / "airflow_features.py").read_text())
    commands = [node.values[1].value for node in ast.walk(dag) if isinstance(node, ast.JoinedStr)]  # type: ignore[attr-defined]  # each is a node of a formatted value
    assert len(commands) == 2
    for rest in commands:
        succeeds(f"{PROGRAM} --repo /srv/shop{rest}", words)


def test_what_kubernetes_starts_runs_without_rights(words: dict[str, str]) -> None:
    """As the image's user, on a file system that is read-only, with arguments that the image's command takes."""
    job, deployment = yaml.safe_load_all((SCHEDULE / "kubernetes.yaml").read_text())
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    pods = [job["spec"]["jobTemplate"]["spec"]["template"], deployment["spec"]["template"]]
    assert deployment["spec"]["selector"]["matchLabels"] == deployment["spec"]["template"]["metadata"]["labels"]
    for pod in pods:
        spec, (container,) = pod["spec"], pod["spec"]["containers"]
        assert (spec["securityContext"]["runAsNonRoot"], spec["securityContext"]["runAsUser"]) == (True, 10001)
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in spec["volumes"]}
        assert container["args"][0] == "materialize"
    assert [pod["spec"]["containers"][0]["args"][1] for pod in pods] == ["--quiet", "--follow"]
    succeeds(f"{PROGRAM} --repo /srv/shop {' '.join(pods[0]['spec']['containers'][0]['args'])}", words)
