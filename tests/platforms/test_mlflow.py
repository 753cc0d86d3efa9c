"""Runs, models and projects of the real MLflow, over SQLite."""

from __future__ import annotations

import json
import os
import re
import sys
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

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
from tests.platforms.frameworks import PAGES, example_project, run_blocks
from tests.platforms.shop import KEYS, NOON, PAIRS, bits, opened

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MLflow warns of its own type hints, and Starlette of its test client
    import mlflow
    from mlflow.pyfunc import scoring_server
    from starlette.testclient import TestClient

    from featurestore.integrations.mlflow import FeatureModel, log_model, log_training_set, score_batch

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
    assert given.dataset.digest == content_digest(frame.to_arrow().replace_schema_metadata(None))
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
        log_model(model, training=frame, store=store, form="pandas")  # type: ignore[arg-type]


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
                with pytest.raises(RequestError, match="beyond 2\\^53"):
                    model.predict(rows)


def test_what_the_page_shows(project: dict[str, Any]) -> None:
    """docs/platforms/mlflow.md."""
    assert run_blocks((PAGES / "mlflow.md").read_text(), project)["served"].shape == (2,)


def test_the_commands_of_a_project(project: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The MLproject that the page shows, run by MLflow."""
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", (PAGES / "mlflow.md").read_text(), re.DOTALL | re.MULTILINE)
    folder = tmp_path / "rides"
    (folder / "MLproject").write_text(text)
    project["rides"].to_parquet(folder / "rides.parquet")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    run = mlflow.projects.run(
        str(folder), "training_set", parameters={"service": "ranking"}, env_manager="local", experiment_name="rides"
    )
    assert run.get_status() == "FINISHED"
    manifest = json.loads((folder / "training.parquet.manifest.json").read_text())
    assert manifest["service"] == "ranking"
    assert pq.read_table(folder / "training.parquet")["drivers__fare"].to_pylist() == [None, 9.5, 20.25, None]
