"""An experiment of Katib's own objects, made in an environment of its own, and its trials, run one by one."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from tests.platforms.conftest import Told
from tests.platforms.frameworks import BLOCK, PAGES, example_project, run_blocks
from tests.platforms.shop import bits
from tests.servers import PATIENCE_SECONDS

PYTHON = Path(__file__).parents[2] / ".venv-katib" / "bin" / "python"
GOLDEN = Path(__file__).with_name("golden_experiment.yaml")
SHOWN, ONCE, EXPERIMENT, TRIAL = BLOCK.findall((PAGES / "katib.md").read_text())
METRIC = re.compile(r"^([\w|-]+)\s*=\s*([+-]?\d*(\.\d+)?([Ee][+-]?\d+)?)$", re.MULTILINE)
"""What Katib's collector finds in what a trial prints."""

AGAIN = """
import json, sys
from types import SimpleNamespace
from kubeflow.katib.api_client import ApiClient
text = json.dumps(ApiClient().sanitize_for_serialization(experiment))
read = ApiClient().deserialize(SimpleNamespace(data=text), "V1beta1Experiment")
assert ApiClient().sanitize_for_serialization(read) == json.loads(text)
import importlib.metadata
print(importlib.metadata.version("kubeflow-katib"))
"""


def run(python: Path | str, code: str, folder: Path, *arguments: str, code_of_exit: int = 0) -> str:
    done = subprocess.run(
        [python, "-c", code, *arguments], cwd=folder, env={**os.environ, "PYTHONPATH": ""}, capture_output=True,
        text=True, timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == code_of_exit, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The page's first step done: `training.parquet`, and what there is to know about it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rides").mkdir()
    with example_project(tmp_path / "rides") as names:
        yield run_blocks(ONCE, names)


def trials(experiment: dict[str, Any], folder: Path) -> Iterator[tuple[dict[str, str], list[str]]]:
    """Each point of the grid, and the arguments that the controller gives to its trial."""
    spec = experiment["spec"]
    spaces = {each["name"]: each["feasibleSpace"] for each in spec["parameters"]}
    choices = {name: space.get("list", [space.get("min"), space.get("max")]) for name, space in spaces.items()}
    template = spec["trialTemplate"]
    (container,) = template["trialSpec"]["spec"]["template"]["spec"]["containers"]
    assert container["name"] == template["primaryContainerName"]
    for point in itertools.product(*choices.values()):
        values = dict(zip(choices, point, strict=True))
        text = json.dumps(container["command"])
        for each in template["trialParameters"]:
            text = text.replace(f"${{trialParameters.{each['name']}}}", values[each["reference"]])
        assert "$" not in text
        program, script, *arguments = json.loads(text)
        assert (program, script) == ("python", "train.py")
        yield values, [one.replace("/training/", f"{folder}/") for one in arguments]


def test_an_experiment_over_services(project: dict[str, Any], tmp_path: Path, tell: Told) -> None:
    """Its YAML is the golden one, is what Katib reads, and its trials learn from what the store says of each service."""
    run(PYTHON, SHOWN, tmp_path)
    version = run(PYTHON, EXPERIMENT + AGAIN, tmp_path).strip()
    digest = project["about"]["sha256"]
    text = (tmp_path / "experiment.yaml").read_text().replace(digest, "DIGEST")
    if "GOLDEN" in os.environ:
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()

    store, rides, count, seen = project["store"], project["rides"], 0, set()
    experiment = yaml.safe_load((tmp_path / "experiment.yaml").read_text())
    file = pq.read_table(tmp_path / "training.parquet")
    for values, arguments in trials(experiment, tmp_path):
        frame = store.get_historical_features(rides, project["candidates"][values["feature_service"]])
        table = frame.to_arrow()
        for name in table.column_names:
            assert bits(file[name].to_pylist()) == bits(table[name].to_pylist())
        count += table.num_rows * table.num_columns
        x, y = np.nan_to_num(frame.to_numpy()), rides["tip"].to_numpy()
        weights = np.linalg.solve(x.T @ x + float(values["alpha"]) * np.eye(x.shape[1]), x.T @ y)
        ((name, found, *_),) = METRIC.findall(run(sys.executable, TRIAL, tmp_path, *arguments))
        assert name == experiment["spec"]["objective"]["objectiveMetricName"]
        assert float(found) == np.mean((x @ weights - y) ** 2)
        seen.add((x.shape[1], found))
    assert project["columns"]["ranking"] == list(store.get_historical_features(rides, "ranking").types)
    assert len(seen) == experiment["spec"]["maxTrialCount"] == 4
    tell(
        "katib",
        version=f"kubeflow-katib {version}",
        ran="its objects and their YAML, the trials one by one, without a cluster",
        compared=count,
    )


def test_a_trial_takes_no_other_training_set(project: dict[str, Any], tmp_path: Path) -> None:
    """Written anew, be it of the same rows, it is another one: its manifest says when."""
    run(PYTHON, EXPERIMENT, tmp_path)
    project["store"].get_historical_features(project["rides"], project["every"]).to_parquet("training.parquet")
    for _, arguments in trials(yaml.safe_load((tmp_path / "experiment.yaml").read_text()), tmp_path):
        assert "is not the training set of this experiment" in run(
            sys.executable, TRIAL, tmp_path, *arguments, code_of_exit=1
        )
