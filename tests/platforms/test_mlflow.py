"""Runs, models and projects of the real MLflow, over SQLite."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

import httpx
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor

from featurestore import FeatureService, FeatureStore
from featurestore.declare.frames import content_digest
from featurestore.errors import FeatureStoreError, FingerprintError, ManifestError, RequestError
from tests.platforms.conftest import Told
from tests.platforms.frameworks import PAGES, beginning, example_project, run_blocks, write_example
from tests.platforms.shop import KEYS, NOON, PAIRS, bits, opened
from tests.ports import free_port
from tests.servers import PATIENCE_SECONDS, RedisServer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MLflow warns of its own type hints, and Starlette of its test client
    import mlflow
    from mlflow.exceptions import MlflowException
    from mlflow.pyfunc import scoring_server
    from starlette.testclient import TestClient

    from featurestore.integrations.mlflow import FeatureModel, log_model, log_training_set, score_batch

PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*type hints.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*integer column.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*[Pp]ickle.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),  # of SQLAlchemy, by MLflow
]


@pytest.fixture(autouse=True)
def tracked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A tracking server of its own, in SQLite."""
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.create_experiment("rides", artifact_location=(tmp_path / "artifacts").as_uri())
    mlflow.set_experiment("rides")
    yield
    mlflow.set_tracking_uri(None)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[dict[str, Any]]:
    (tmp_path / "rides").mkdir()
    with example_project(tmp_path / "rides") as names:
        yield names


def trained(project: dict[str, Any], **words: Any) -> tuple[Any, Any, Any]:
    """A training frame, a model of it, and what was logged."""
    store, rides = project["store"], project["rides"]
    frame = store.get_historical_features(rides, "ranking")
    model = HistGradientBoostingRegressor(min_samples_leaf=1).fit(frame.features, rides["tip"])
    with mlflow.start_run():
        info = log_model(model, training=frame, store=store, registered_model_name="tips", **words)
    return frame, model, info


def test_a_run_tells_what_it_learned_from(project: dict[str, Any], tmp_path: Path) -> None:
    """Dataset, digest, tags, manifest; and the source reads the file again."""
    frame = project["store"].get_historical_features(project["rides"], "ranking")
    path = frame.to_parquet(tmp_path / "training.parquet")
    with mlflow.start_run() as run:
        log_training_set(frame, targets="tip", path=path)
    run = mlflow.get_run(run.info.run_id)
    assert run.data.tags["featurestore.fingerprint"] == frame.manifest["fingerprint"]
    (given,) = run.inputs.dataset_inputs
    assert {tag.key: tag.value for tag in given.tags}["featurestore.service"] == "ranking"
    assert given.dataset.digest == content_digest(frame.to_arrow())
    assert given.dataset.source_type == "featurestore"
    source = mlflow.data.get_source(given.dataset)
    assert source.load().equals(frame.to_arrow())
    manifest = mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/featurestore_manifest.json")
    assert project["store"].load_manifest(manifest).fingerprint == frame.manifest["fingerprint"]
    project["store"].get_historical_features(project["rides"], ["drivers:fare"]).to_parquet(path)
    with pytest.raises(ManifestError, match="by now, and the run was of ranking@"):
        source.load()
    with mlflow.start_run() as run:
        log_training_set(frame.split_by_time("2026-01-02")[0])
    (given,) = mlflow.get_run(run.info.run_id).inputs.dataset_inputs
    with pytest.raises(ManifestError, match="was not written"):
        mlflow.data.get_source(given.dataset).load()


def test_a_model_without_a_run(project: dict[str, Any]) -> None:
    """Where no run is active, the model and its version say service and fingerprint, and MLflow has no run for it."""
    store, rides = project["store"], project["rides"]
    frame = store.get_historical_features(rides, "ranking")
    model = HistGradientBoostingRegressor(min_samples_leaf=1).fit(frame.features, rides["tip"])
    info = log_model(model, training=frame, store=store, registered_model_name="tips")
    assert info.run_id is None
    registered = mlflow.MlflowClient().get_model_version("tips", str(info.registered_model_version))
    assert registered.tags["featurestore.fingerprint"] == frame.manifest["fingerprint"]
    assert len(mlflow.pyfunc.load_model(info.model_uri).predict(rides[["driver_id"]])) == len(rides)
    with pytest.raises(FeatureStoreError, match="form is 'arrow', 'numpy' or 'matrix', and not 'pandas'"):
        log_model(model, training=frame, store=store, form="pandas")  # type: ignore[arg-type]  # the mistake


def test_what_is_no_model_is_refused_before_it_is_logged(project: dict[str, Any]) -> None:
    frame = project["store"].get_historical_features(project["rides"], "ranking")
    for model in (None, 7, np.zeros(2), FeatureModel()):
        with pytest.raises(FeatureStoreError, match="A model is one with predict, a FeatureModel, or the path"):
            log_model(model, training=frame, store=project["store"])
    assert not mlflow.search_logged_models(output_format="list")


def test_a_server_says_what_is_wrong_and_whose_fault_it_is(tmp_path: Path) -> None:
    """Of `/invocations`: 400 with our words, and 503 while the online store is away, upon which a caller tries again."""
    with RedisServer() as redis, ExitStack() as stack:
        lines = f'project = "rides"\nonline = "{redis.url}"\n'
        (tmp_path / "rides").mkdir()
        write_example(tmp_path / "rides")
        (tmp_path / "rides/featurestore.toml").write_text(lines)
        with FeatureStore(tmp_path / "rides") as store:
            store.apply()
            store.materialize(progress=False)
        names = stack.enter_context(beginning(tmp_path / "rides"))
        _, model, info = trained(names)
        client = TestClient(scoring_server.init(mlflow.pyfunc.load_model(info.model_uri)))

        def ask(key: Any) -> Any:
            return client.post("/invocations", json={"dataframe_records": [{"driver_id": key}]})

        fare = names["store"].get_online_features([{"driver_id": "d1"}], "ranking").features
        assert ask("d1").json()["predictions"] == model.predict(fare).tolist()
        answer = ask(["d1"])
        assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE"), answer.text
        assert "'driver_id' must be String" in answer.json()["message"]
        redis.stop()
        answer = ask("d1")
        assert (answer.status_code, answer.json()["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE"), answer.text
        assert "OnlineUnavailableError: " in answer.json()["message"]
        redis.start()


def test_a_model_of_a_list_of_features(project: dict[str, Any]) -> None:
    """Which no service declares: it is loaded, asked with keys of other names, and asked as of times."""
    store, rides = project["store"], project["rides"].rename(columns={"driver_id": "whose", "event_timestamp": "at"})
    view = store.catalog.view("drivers")
    for features in (["drivers:fare"], view.alias("theirs", key={"driver_id": "whose"})):
        named = rides if features != ["drivers:fare"] else rides.rename(columns={"whose": "driver_id"})
        frame = store.get_historical_features(named, features, timestamp="at")
        model = HistGradientBoostingRegressor(min_samples_leaf=1).fit(frame.features, rides["tip"])
        info = log_model(model, training=frame, store=store)
        at = score_batch(info.model_uri, named, timestamp="at")
        assert bits(at["prediction"].tolist()) == bits(model.predict(frame.features).tolist())
        again = score_batch(info.model_uri, named)  # the column of times that the training set says
        assert bits(again["prediction"].tolist()) == bits(at["prediction"].tolist())
        with pytest.raises(RequestError, match="no column 'att', as of which they would be scored. Did you mean 'at'"):
            score_batch(info.model_uri, named, timestamp="att")
        with pytest.raises(RequestError, match="rows: The frame has no input column '.*'. Its columns: tip"):
            score_batch(info.model_uri, named[["tip"]])
        now = named.drop(columns="at")
        expected = model.predict(store.get_online_features(now.drop(columns="tip"), features).features).tolist()
        assert bits(score_batch(info.model_uri, now)["prediction"].tolist()) == bits(expected)


def test_what_a_model_needs_is_said_in_mlflows_words(project: dict[str, Any]) -> None:
    """More of it beside ours, all of it in place of ours; a file of a frame is a source by itself."""
    frame = project["store"].get_historical_features(project["rides"], "ranking")
    own = f"featurestore[mlflow]=={version('featurestore')}"
    for words, lines in (
        ({"extra_pip_requirements": ["six"]}, {own, "six"}),
        ({"pip_requirements": ["six"]}, {"six"}),
        ({"conda_env": {"name": "x", "dependencies": ["python=3.11", {"pip": ["six"]}]}}, {"six"}),
    ):
        info = log_model(FeatureModel(Kept()), training=frame, store=project["store"], **words)
        needed = Path(mlflow.pyfunc.get_model_dependencies(info.model_uri)).read_text().split()
        assert lines <= {*needed}
        assert (own in needed) is (own in lines)
    assert (
        mlflow.data.from_pandas(frame.to_pandas(), source=frame, digest="any").to_dict()["source_type"]
        == "featurestore"
    )


def test_a_digest_is_of_all_rows(project: dict[str, Any]) -> None:
    """And of nothing else: not of when the frame was made."""
    store, rides = project["store"], project["rides"]
    many = pd.concat([rides] * 3000, ignore_index=True)
    other = many.copy()
    other.loc[11_999, "tip"] = 7.0
    digests = []
    for spine in (many, many, other):
        with mlflow.start_run() as run:
            log_training_set(store.get_historical_features(spine, "ranking"))
        digests.append(mlflow.get_run(run.info.run_id).inputs.dataset_inputs[0].dataset.digest)
    assert digests[0] == digests[1] != digests[2]


def test_a_model_answers_from_keys_alone(project: dict[str, Any], tell: Told) -> None:
    """Loaded by its alias, served, and in a batch: the predictions of the training frame's own features."""
    frame, model, info = trained(project)
    client, fingerprint = mlflow.MlflowClient(), frame.manifest["fingerprint"]
    client.set_registered_model_alias("tips", "champion", info.registered_model_version)
    assert client.get_model_version_by_alias("tips", "champion").tags["featurestore.fingerprint"] == fingerprint
    assert client.get_run(info.run_id).data.tags["featurestore.model"] == f"ranking@{fingerprint}"
    assert mlflow.models.get_model_info(info.model_uri).metadata["featurestore.service"] == "ranking"
    assert info.signature.inputs.input_names() == ["driver_id"]

    keys = project["rides"][["driver_id"]]
    now = keys.assign(event_timestamp=pd.Timestamp.now("UTC"))
    expected = model.predict(project["store"].get_historical_features(now, "ranking").features).tolist()
    loaded = mlflow.pyfunc.load_model("models:/tips@champion")
    assert bits(loaded.predict(keys).tolist()) == bits(expected)
    assert bits(loaded.predict(keys.assign(drivers__fare=1e9)).tolist()) == bits(expected)  # nobody sends features
    served = TestClient(scoring_server.init(loaded))
    told = [
        {"dataframe_records": keys.to_dict("records")},
        {"dataframe_split": {"columns": ["driver_id"], "data": keys.to_numpy().tolist()}},
        {"inputs": {"driver_id": keys["driver_id"].tolist()}},
    ]
    for body in told:
        assert bits(served.post("/invocations", json=body).json()["predictions"]) == bits(expected)
    at = score_batch("models:/tips@champion", project["rides"])
    assert bits(at["prediction"].tolist()) == bits(model.predict(frame.features).tolist())
    assert list(at.columns) == [*project["rides"].columns, "prediction"]
    assert bits(score_batch("models:/tips@champion", pl.DataFrame(keys), result="p")["p"].tolist()) == bits(expected)
    with pytest.raises(RequestError, match="result= gives the predictions another name"):
        score_batch("models:/tips@champion", at)
    tell("mlflow", version=f"mlflow-skinny {version('mlflow-skinny')}", ran="it ran", compared=6 * len(keys))


def test_the_commands_serve_what_the_model_says(project: dict[str, Any], tmp_path: Path) -> None:
    """`mlflow models serve` of an alias, in a process of its own; its manifest is that of the training frame."""
    frame, _, info = trained(project)
    mlflow.MlflowClient().set_registered_model_alias("tips", "champion", info.registered_model_version)
    uri, port = "models:/tips@champion", free_port()
    held = Path(mlflow.artifacts.download_artifacts(f"{uri}/artifacts/featurestore_manifest.json"))
    assert project["store"].load_manifest(held).fingerprint == frame.manifest["fingerprint"]
    words = ["models", "serve", "-m", uri, "--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(), "PATH": PATH}
    with (tmp_path / "served.txt").open("w+") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *words], env=environment, stderr=said, start_new_session=True
        )
        try:
            keys = project["rides"][["driver_id"]]
            asked = {"dataframe_records": keys.to_dict("records")}
            url, due = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE_SECONDS
            while True:
                with suppress(httpx.TransportError):
                    if httpx.get(f"{url}/ping", timeout=PATIENCE_SECONDS).status_code == 200:
                        break
                assert process.poll() is None, (tmp_path / "served.txt").read_text()
                assert time.monotonic() < due
                time.sleep(0.1)
            answer = httpx.post(f"{url}/invocations", json=asked, timeout=PATIENCE_SECONDS).json()
            assert bits(answer["predictions"]) == bits(mlflow.pyfunc.load_model(uri).predict(keys).tolist())
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()


def test_a_changed_definition_is_refused_at_load(project: dict[str, Any], tmp_path: Path) -> None:
    """Where another project is named, as where the same one has changed."""
    _, _, info = trained(project)
    other = tmp_path / "other"
    other.mkdir()
    (other / "featurestore.toml").write_text((tmp_path / "rides/featurestore.toml").read_text())
    text = (tmp_path / "rides/definitions.py").read_text()
    (other / "definitions.py").write_text(text.replace('"lifetime"', '"7d"'))
    with FeatureStore(other) as store:
        store.apply()
        store.materialize(progress=False)
        with pytest.raises(FingerprintError):
            mlflow.pyfunc.load_model(info.model_uri, model_config={"featurestore_project": str(other)})
    assert mlflow.pyfunc.load_model(info.model_uri) is not None


def test_a_kept_version_is_what_its_model_is_asked_with(project: dict[str, Any], tmp_path: Path) -> None:
    """As of now and as of times, after its definitions were changed; without keeping it, neither."""
    frame, model, info = trained(project)
    expected = bits(model.predict(frame.features).tolist())
    text = (tmp_path / "rides/definitions.py").read_text()
    (tmp_path / "rides/definitions.py").write_text(text.replace('"lifetime"', '"1h"'))
    project["store"].close()
    config = {"featurestore_project": str(tmp_path / "rides")}
    with FeatureStore(tmp_path / "rides") as store:
        store.apply(keep=True)
        store.materialize(progress=False)
        assert (
            store.get_historical_features(project["rides"], "ranking").manifest["fingerprint"]
            != frame.manifest["fingerprint"]
        )
        inner = mlflow.pyfunc.load_model(info.model_uri, model_config=config).unwrap_python_model()
        found = inner.look_up(project["rides"], "event_timestamp")
        assert bits(inner.score_found(found).tolist()) == expected


class Kept:
    """A model that keeps what it was given."""

    def __init__(self) -> None:
        self.given: list[Any] = []

    def predict(self, features: Any) -> Any:
        self.given.append(features)
        return np.zeros(len(features))


def test_features_of_every_type_arrive_as_they_were(tmp_path: Path) -> None:
    """Keys of two columns among the inputs."""
    (tmp_path / "shop").mkdir()
    with opened(tmp_path / "shop") as store:
        store.apply([FeatureService("everything", features=[store.catalog.view("users"), store.catalog.view("pairs")])])
        pairs = [PAIRS[place % len(PAIRS)] for place in range(len(KEYS))]
        rows = pd.DataFrame({"user_id": KEYS, **pd.DataFrame(pairs, columns=["carrier", "flight"])})
        frame = store.get_historical_features(rows.assign(event_timestamp=NOON), "everything")
        with mlflow.start_run():
            info = log_model(FeatureModel(Kept()), training=frame, store=store)
        assert info.signature.inputs.input_names() == ["user_id", "carrier", "flight"]
        model = mlflow.pyfunc.load_model(info.model_uri)
        inner = model.unwrap_python_model()
        inner._store = store  # whose clock is set
        for form in ("arrow", "numpy", "matrix"):
            inner.form = form
            answer = store.get_online_features(rows, "everything")
            if form == "arrow":
                model.predict(rows)
                found, expected = inner.model.given[-1], answer.features
                assert list(found.dtypes) == list(expected.dtypes)
                for name in expected.columns:
                    assert bits(found[name].array.__arrow_array__().to_pylist()) == bits(
                        expected[name].array.__arrow_array__().to_pylist()
                    )
            else:  # some of the integers are no doubles, which the store tells whoever asks for them
                with pytest.raises(MlflowException, match="RequestError: .*beyond 2\\^53") as caught:
                    model.predict(rows)
                assert caught.value.get_http_status_code() == 400


def test_what_the_page_shows(project: dict[str, Any]) -> None:
    """docs/platforms/mlflow.md."""
    assert run_blocks((PAGES / "mlflow.md").read_text(), project)["served"].shape == (2,)


def test_the_commands_of_a_project(project: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The MLproject that the page shows, run by MLflow."""
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", (PAGES / "mlflow.md").read_text(), re.DOTALL | re.MULTILINE)
    folder = tmp_path / "rides"
    (folder / "MLproject").write_text(text)
    project["rides"].to_parquet(folder / "rides.parquet")
    monkeypatch.setenv("PATH", PATH)
    for entry, given in (("training_set", {"service": "ranking"}), ("materialize", {}), ("audit", {})):
        run = mlflow.projects.run(str(folder), entry, parameters=given, env_manager="local", experiment_name="rides")
        assert run.get_status() == "FINISHED"
    manifest = json.loads((folder / "training.parquet.manifest.json").read_text())
    assert manifest["service"] == "ranking"
    assert pq.read_table(folder / "training.parquet")["drivers__fare"].to_pylist() == [None, 9.5, 20.25, None]
