"""Components compiled by the real compiler of Kubeflow Pipelines, and run by its local runner."""

import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import kfp
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from kfp import compiler, dsl, local

from featurestore import FeatureStore
from featurestore.declare.frames import content_digest
from featurestore.integrations.kubeflow import components
from featurestore.integrations.training_sets import facts
from tests.platforms.conftest import Told
from tests.platforms.frameworks import BLOCK, DEFINITIONS, PAGES, example_project
from tests.platforms.shop import KEYS, NOON, bits, opened
from tests.servers import PATIENCE_SECONDS
from tests.tampering import tamper

GOLDEN = Path(__file__).with_name("golden_pipeline.yaml")
LOCAL = {"base_image": "python:3.11", "install_kfp_package": False}
LOGGED = "[serving_log]\nrate = 1.0\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rides").mkdir()
    with example_project(tmp_path / "rides") as names:
        yield names


@pytest.fixture(autouse=True)
def runner(tmp_path: Path) -> None:
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "runs"))


@dsl.pipeline(name="rides")
def gated(repo: str, spine: str, service: str = "ranking", since: str = "1d", minimum_compared: int = 0) -> dsl.Dataset:
    features = components(**LOCAL)
    applied = features.apply(repo=repo, note="nightly")
    filled = features.materialize(repo=repo, views=["drivers"]).after(applied)
    gate = features.audit(repo=repo, since=since, service=service, minimum_compared=minimum_compared).after(filled)
    rows = dsl.importer(artifact_uri=spine, artifact_class=dsl.Dataset, reimport=True)
    learned = features.training_set(repo=repo, service=service, spine=rows.output).after(gate)
    return learned.outputs["training"]


def of_step(root: Path, step: str) -> dict[str, dict[str, Any]]:
    """By output the metadata that the last run of a step has left."""
    (*_, said) = sorted(root.glob(f"*/{step}/executor_output.json"))
    outputs = json.loads(said.read_text())["artifacts"]
    return {name: one["artifacts"][0]["metadata"] for name, one in outputs.items()}


def compared(path: Path, expected: Any) -> int:
    """How many values of a training set were compared, all of which are the store's own."""
    found, table = pq.read_table(path), expected.to_arrow()
    assert found.schema.names == table.schema.names
    for name in table.column_names:
        assert bits(found[name].to_pylist()) == bits(table[name].to_pylist())
    return int(table.num_rows * table.num_columns)


def test_the_page_runs_and_its_artifacts_say_what_they_are(project: dict[str, Any], tmp_path: Path, tell: Told) -> None:
    """docs/platforms/kubeflow.md: files with the verbs' values, and metadata that go from one step to the next."""
    page = tmp_path / "page.py"  # whose text kfp copies into its components
    page.write_text("\n\n".join(BLOCK.findall((PAGES / "kubeflow.md").read_text())))
    before = sorted((one.name, one.version) for one in distributions())
    names = runpy.run_path(str(page), init_globals=project)
    assert sorted((one.name, one.version) for one in distributions()) == before
    store, (folder,) = names["store"], (tmp_path / "runs").glob("rides-*")
    frame = store.get_historical_features(names["rides"], "ranking")
    trained = folder / "training-set" / "training"
    count = compared(trained, frame)
    fingerprint = frame.manifest["fingerprint"]
    content = content_digest(frame.to_arrow())
    told = {"service": "ranking", "fingerprint": fingerprint, "rows": 4, "content": content}
    assert of_step(tmp_path / "runs", "training-set") == {"training": told}
    assert store.load_manifest(trained).fingerprint == fingerprint
    assert of_step(tmp_path / "runs", "train") == {"model": {"fingerprint": fingerprint}}
    assert json.loads((folder / "train" / "model").read_text()) == {"mean_tip": 1.5}
    applied = of_step(tmp_path / "runs", "apply")["applied"]
    assert applied == {"version": 1, "changed": False, "services": {"ranking": fingerprint}}
    (state,) = (each.to_dict() for each in store.status())
    seen = {name: state[name] for name in ("fingerprint", "state", "as_of")}
    online = of_step(tmp_path / "runs", "materialize")["online"]
    assert online["views"].keys() == {"drivers"}
    assert online["views"]["drivers"]["fingerprint"] == seen["fingerprint"]
    assert online["views"]["drivers"]["state"] == "fresh"
    tell("kubeflow pipelines", version=f"kfp {kfp.__version__}", ran="it ran, with its local runner", compared=count)


def test_what_is_compiled(tmp_path: Path) -> None:
    """The whole file, without the versions of kfp; images and packages are those that were asked for."""

    @dsl.pipeline(name="rides")
    def nightly(repo: str, spine: str, env: str = "cluster") -> None:
        features = components(base_image="registry.example/rides:7", packages_to_install=["numpy>=2"])
        applied = features.apply(repo=repo, env=env)
        filled = features.materialize(repo=repo, env=env).after(applied)
        filled.set_retry(3)
        gate = features.audit(repo=repo, env=env, since="12h").after(filled)
        rows = dsl.importer(artifact_uri=spine, artifact_class=dsl.Dataset, reimport=True)
        features.training_set(repo=repo, env=env, service="ranking", spine=rows.output).after(gate)

    compiler.Compiler().compile(nightly, str(tmp_path / "pipeline.yaml"))
    text = (tmp_path / "pipeline.yaml").read_text().replace(kfp.__version__, "VERSION")
    if "GOLDEN" in os.environ:
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()
    made = yaml.safe_load(text)
    for executor in (one for name, one in made["deploymentSpec"]["executors"].items() if name != "exec-importer"):
        assert executor["container"]["image"] == "registry.example/rides:7"
        assert "'numpy>=2'" in " ".join(executor["container"]["command"])
    tasks = made["root"]["dag"]["tasks"]
    ours = {"apply", "materialize", "training-set", "audit"}
    assert {name for name, task in tasks.items() if "enableCache" not in task["cachingOptions"]} == ours
    compiler.Compiler().compile(components(**LOCAL).audit, str(tmp_path / "audit.yaml"))
    assert "pip install" not in (tmp_path / "audit.yaml").read_text()


def test_skew_stops_the_pipeline(project: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A value online that nobody computed is served, and nothing is learned until it is gone; a damaged log stops it too."""
    repo, spine, runs = tmp_path / "rides", tmp_path / "spine.parquet", tmp_path / "runs"
    project["rides"].to_parquet(spine)
    (repo / "featurestore.toml").write_text((repo / "featurestore.toml").read_text() + LOGGED)
    asked = [{"driver_id": "d1"}, {"driver_id": "d2"}, {"driver_id": "nobody"}]

    with pytest.raises(RuntimeError, match="'audit'"):  # nothing was served
        gated(repo=str(repo), spine=str(spine), minimum_compared=1)
    assert "0 values were compared, and a gate wants 1 at least" in capfd.readouterr().out
    assert not list(runs.glob("*/training-set/training"))
    gated(repo=str(repo), spine=str(spine))
    assert of_step(runs, "audit")["metrics"] == {"compared": 0, "exact": 0, "rewritten": 0, "skewed": 0}

    with FeatureStore(repo) as store:
        assert store.get_online_features(asked, "ranking").to_dict()["drivers__fare"] == [9.5, 20.25, None]
    gated(repo=str(repo), spine=str(spine))
    assert of_step(runs, "audit")["metrics"] == {"compared": 6, "exact": 6, "rewritten": 0, "skewed": 0}
    (*_, report) = sorted(runs.glob("*/audit/report"))
    assert "6 values compared, 0 skewed" in report.read_text()

    with FeatureStore(repo) as store:
        tamper(store, "drivers", ["d2"], {"fare": 20.5}, event_time=datetime(2026, 1, 2, 8, tzinfo=UTC))
        assert store.get_online_features(asked, "ranking").to_dict()["drivers__fare"] == [9.5, 20.5, None]
    capfd.readouterr()
    with pytest.raises(RuntimeError, match="'audit'"):
        gated(repo=str(repo), spine=str(spine))
    said = capfd.readouterr().out
    assert "The audit stops the pipeline: ranking is over its skew budget" in said
    assert "served 20.5 PRESENT, training says 20.25 PRESENT" in said
    assert len(list(runs.glob("*/training-set/training"))) == 2

    with FeatureStore(repo) as store:
        folder = store.config.serving_log.folder
    for segment in folder.rglob("*.parquet"):
        segment.write_bytes(segment.read_bytes()[:-9] + bytes(9))
    with pytest.raises(RuntimeError, match="'audit'"):
        gated(repo=str(repo), spine=str(spine))
    assert "is damaged" in capfd.readouterr().out
    assert len(list(runs.glob("*/training-set/training"))) == 2


@pytest.mark.parametrize("name", ['it\'s "here"', "two\nlines", "日本 ü", "{{x}} ${HOME} `id` %s \\"])
def test_arguments_arrive_as_they_are(name: str, project: dict[str, Any], tmp_path: Path) -> None:
    """Folders and notes that mean something to a shell, to YAML or to kfp."""
    features = components(**LOCAL)
    folder = tmp_path / name
    folder.mkdir()
    (folder / "featurestore.toml").write_text('project = "rides"\nonline = "lmdb://online"\n')
    (folder / "definitions.py").write_text(DEFINITIONS)

    @dsl.pipeline
    def pipeline(repo: str, note: str) -> None:
        features.apply(repo=repo, note=note)

    pipeline(repo=str(folder), note=name)
    with FeatureStore(folder) as store:
        assert store.history()[0].note == name


def test_what_fails_says_why_and_nothing_follows(
    project: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """No project, definitions that are wrong, a service that is not there, rows without times."""
    repo, spine = tmp_path / "rides", tmp_path / "spine.parquet"
    project["rides"].to_parquet(spine)
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    (wrong / "featurestore.toml").write_text('project = "wrong"\nonline = "lmdb://online"\n')
    (wrong / "definitions.py").write_text(DEFINITIONS.replace('Latest("fare")', 'Latest("fair")'))
    project["rides"].drop(columns="event_timestamp").to_parquet(tmp_path / "timeless.parquet")
    cases: list[tuple[str, dict[str, str], str]] = [
        ("apply", {"repo": str(tmp_path / "nowhere")}, "nowhere"),
        ("apply", {"repo": str(wrong)}, "Did you mean 'fare'?"),
        ("training-set", {"service": "rankings"}, "Did you mean 'ranking'?"),
        ("training-set", {"spine": str(tmp_path / "timeless.parquet")}, "event_timestamp"),
        ("audit", {"since": "yesterday"}, "yesterday"),
    ]
    for step, other, says in cases:
        given = {"repo": str(repo), "spine": str(spine), **other}
        service = given.pop("service", "ranking")
        local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / says))

        @dsl.pipeline
        def learn(repo: str, spine: str, since: str = "1d", service: str = service) -> None:
            features = components(**LOCAL)
            applied = features.apply(repo=repo)
            gate = features.audit(repo=repo, since=since, minimum_compared=0).after(applied)
            rows = dsl.importer(artifact_uri=spine, artifact_class=dsl.Dataset, reimport=True)
            features.training_set(repo=repo, service=service, spine=rows.output).after(gate)

        capfd.readouterr()
        with pytest.raises(RuntimeError, match=f"'{step}'"):
            learn(**given)
        assert says in capfd.readouterr().out, step
        assert not list((tmp_path / says).glob("*/training-set/training"))
    assert not (wrong / "online").exists()


def test_no_step_is_left_out_as_it_ran_before(project: dict[str, Any], tmp_path: Path) -> None:
    """The inputs of a nightly pipeline are the same each night, and its data are not."""
    repo, spine = tmp_path / "rides", tmp_path / "spine.parquet"
    project["rides"].to_parquet(spine)
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "runs"), enable_caching=True)
    gated(repo=str(repo), spine=str(spine))
    first = of_step(tmp_path / "runs", "training-set")["training"]
    definitions = repo / "definitions.py"
    definitions.write_text(definitions.read_text().replace("14.0, 9.5", "14.0, 9.75"))
    gated(repo=str(repo), spine=str(spine))
    second = of_step(tmp_path / "runs", "training-set")["training"]
    assert first["fingerprint"] == second["fingerprint"]
    assert first["content"] != second["content"]
    (*_, trained) = sorted((tmp_path / "runs").glob("*/training-set/training"))
    assert pq.read_table(trained)["drivers__fare"].to_pylist()[1] == 9.75


TWICE = """
import sys
from kfp import local
from tests.platforms.test_kubeflow import gated
repo, spine, root = sys.argv[1:]
local.init(local.SubprocessRunner(use_venv=False), pipeline_root=root)
gated(repo=repo, spine=spine)
"""


def test_two_runs_at_once(project: dict[str, Any], tmp_path: Path) -> None:
    """Of a project that nobody applied: each succeeds, or is told that the other one runs; what is there in the end is whole."""
    repo, spine = tmp_path / "twice", tmp_path / "spine.parquet"
    repo.mkdir()
    project["rides"].to_parquet(spine)
    for name in ("featurestore.toml", "definitions.py"):
        (repo / name).write_text((tmp_path / "rides" / name).read_text())
    command = [sys.executable, "-W", "error", "-c", TWICE, str(repo), str(spine)]
    running = [
        subprocess.Popen(
            [*command, str(tmp_path / f"run{number}")], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            cwd=Path(__file__).parents[2],
        )
        for number in range(2)
    ]  # fmt: skip
    said = [one.communicate(timeout=PATIENCE_SECONDS)[0] for one in running]
    for process, text in zip(running, said, strict=True):
        assert process.returncode == 0 or "LeaseTakenError: FeatureView 'drivers' is being materialized by" in text, (
            text
        )
    assert any(process.returncode == 0 for process in running), said
    with FeatureStore(repo) as store:
        assert store.history()[0].number == 1
        frame = store.get_historical_features(project["rides"], "ranking")
        for trained in tmp_path.glob("run?/*/training-set/training"):
            compared(trained, frame)
        asked = [{"driver_id": "d1"}, {"driver_id": "d2"}]
        assert store.get_online_features(asked, "ranking").to_dict()["drivers__fare"] == [9.5, 20.25]


def test_the_facts_of_a_file_are_those_of_its_frame(tmp_path: Path) -> None:
    """Of every type: the digest of what is read again is that of the frame in memory."""
    with opened(tmp_path) as store:
        rows = pd.DataFrame({"user_id": KEYS, "add": 1, "event_timestamp": [NOON] * len(KEYS)})
        frame = store.get_historical_features(rows, "model")
        told = facts(frame.to_parquet(tmp_path / "training.parquet"))
    content = content_digest(frame.to_arrow())
    expected = {"service": "model", "fingerprint": frame.manifest["fingerprint"], "rows": len(KEYS)}
    assert told == {**expected, "content": content}


def test_the_page_says_what_each_component_takes_and_gives() -> None:
    """Each input and output, in the table of docs/platforms/kubeflow.md."""
    page = (PAGES / "kubeflow.md").read_text()
    every = components(**LOCAL)
    for name in ("apply", "materialize", "training_set", "audit"):
        spec = getattr(every, name).component_spec
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}`")]
        named = set(re.findall(r"`(\w+)`", row)) | {"repo", "env"}
        assert {*spec.inputs, *spec.outputs} <= named, name
