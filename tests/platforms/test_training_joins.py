"""Databricks' names for training sets: values are the store's own, and rows are neither lost nor doubled."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor

from featurestore import DataFrameSource, Entity, FeatureStore, FeatureView, Latest
from featurestore.errors import DeclarationError, FeatureStoreError, NotFoundError, RequestError, SpineError
from featurestore.integrations.databricks import FeatureEngineeringClient, FeatureLookup
from featurestore.types import Bool, FeatureType, Float32, Float64, Int32, Int64, String
from tests.platforms.conftest import Told
from tests.platforms.frameworks import DEFINITIONS, PAGES, example_project, run_blocks
from tests.platforms.shop import KEYS, NOON, PAIRS, TYPES, bits, opened
from tests.servers import PATIENCE_SECONDS

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MLflow warns of its own type hints
    import mlflow

    import featurestore.integrations.mlflow  # noqa: F401

DATABRICKS = Path(__file__).parents[2] / ".venv-databricks" / "bin"


def version_of(environment: Path, package: str) -> str:
    code = f"import importlib.metadata; print(importlib.metadata.version('{package}'))"
    done = subprocess.run([environment / "python", "-c", code], check=True, capture_output=True, text=True)
    return f"{package} {done.stdout.strip()}"


@pytest.fixture
def project(tmp_path: Path) -> Iterator[dict[str, Any]]:
    with example_project(tmp_path) as names:
        yield names


def listed(frame: Any, name: str) -> Any:
    return bits(frame[name].array.__arrow_array__().to_pylist())


def test_the_values_are_the_stores(tmp_path: Path, tell: Told) -> None:
    """Of every type; keys under other names; several tables, renamed where they share names."""
    draw = random.Random(3)
    with opened(tmp_path) as store:
        pairs = [draw.choice(PAIRS) for _ in range(60)]
        rows = pd.DataFrame({
            "rider": [draw.choice(KEYS) for _ in pairs], "airline": [pair[0] for pair in pairs], "number": [pair[1] for pair in pairs],
            "y": range(60), "at": [NOON - timedelta(minutes=draw.randrange(-5, 900)) for _ in pairs],
        })  # fmt: skip
        names = list(store.catalog.view("pairs").features)
        lookups = [
            FeatureLookup(table_name="users", lookup_key="rider", timestamp_lookup_key="at"),
            FeatureLookup(table_name="a.b.pairs", lookup_key=["airline", "number"], timestamp_lookup_key="at",
                          rename_outputs={name: f"of_pair_{name}" for name in names}),
        ]  # fmt: skip
        client = FeatureEngineeringClient(store)
        found = client.create_training_set(
            df=rows, feature_lookups=lookups, label="y", exclude_columns=["airline"]
        ).load_df()
        assert list(found.columns)[-1] == "y"
        assert "airline" not in found
        renamed = rows.rename(columns={"rider": "user_id", "airline": "carrier", "number": "flight"})
        expected = store.get_historical_features(renamed, ["users", "pairs"], timestamp="at").features
        for column in expected.columns:
            view, _, name = column.partition("__")
            assert listed(found, name if view == "users" else f"of_pair_{name}") == listed(expected, column)
        assert len(expected.columns) >= len(TYPES)
    tell("databricks names in Python", version="none needed", ran="their names, our code", compared=expected.size)


SHOWN = {
    "Bool": "boolean", "Int32": "int", "Int64": "bigint", "Float32": "float", "Float64": "double", "String": "string",
    "Bytes": "binary", "Date": "date", "Timestamp": "timestamp", "Decimal(12, 3)": "decimal(12,3)",
}  # fmt: skip


def spark(of: FeatureType) -> str:
    return SHOWN[str(of)] if of.element is None else f"array<{spark(of.element)}>"


def read_spec(folder: Path, columns: list[Any], tables: list[Any]) -> dict[str, Any]:
    """What Databricks' classes find in the file of a folder, and what they make of these columns and tables."""
    done = subprocess.run(
        [DATABRICKS / "python", Path(__file__).with_name("databricks_spec.py"), folder],
        input=json.dumps({"columns": columns, "tables": tables}), capture_output=True, text=True, timeout=PATIENCE_SECONDS,
        env={**os.environ, "PYTHONPATH": "", "MLFLOW_DISABLE_TELEMETRY": "true"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["found"] == found["expected"]
    assert found["file"] == found["written"]
    assert found["found"][2] == 11
    return found


def test_databricks_reads_what_a_training_set_looks_up(tmp_path: Path, tell: Told) -> None:
    """feature_spec.yaml, read by their own classes: every field is what they would have written of the same lookups."""
    (tmp_path / "shop").mkdir()
    with opened(tmp_path / "shop") as store:
        rows = pa.table({
            "airline": ["UA", "AA"], "number": pa.array([0, -1]), "rider": ["u1", "u2"], "y": [1.0, 2.0], "extra": pa.array([1, 2], pa.int32()),
            "at": pa.array([NOON] * 2, pa.timestamp("us", "UTC")),
        })  # fmt: skip
        renamed = {name: f"of_pair_{name}" for name in TYPES}
        training_set = FeatureEngineeringClient(store).create_training_set(
            df=rows, label="y", exclude_columns=["rider", "at", "flag"],
            feature_lookups=[
                FeatureLookup("main.shop.users", "rider", timestamp_lookup_key="at"),
                FeatureLookup("main.shop.pairs", ["airline", "number"], timestamp_lookup_key="at", rename_outputs=renamed,
                              lookback_window=timedelta(days=1)),
            ],
        )  # fmt: skip
        training_set.save_feature_spec(tmp_path)
    columns: list[Any] = [
        ["source", {"name": "airline"}, True, "string"],
        ["source", {"name": "number"}, True, "bigint"],
        ["source", {"name": "rider"}, False, "string"],
        ["source", {"name": "extra"}, True, "int"],
    ]
    for table, keys, names in (
        ("main.shop.users", ["rider"], {name: name for name in TYPES if name != "flag"}),
        ("main.shop.pairs", ["airline", "number"], renamed),
    ):
        for name, output in names.items():
            fields = {
                "table_name": table,
                "feature_name": name,
                "lookup_key": keys,
                "output_name": output,
                "timestamp_lookup_key": ["at"],
            }
            columns.append(["feature", fields, True, spark(TYPES[name])])
    found = read_spec(tmp_path, columns, [["main.shop.pairs", 86400.0], ["main.shop.users", None]])
    fields = sum(len(info) + len(rest) for _, info, rest in found["found"][0])
    told = version_of(DATABRICKS, "databricks-feature-engineering")
    tell("databricks feature_spec.yaml", version=told, ran="their classes read it", compared=fields)


def test_defaults_are_read_as_they_were_declared(tmp_path: Path) -> None:
    """Of each type that the file can say; another one is refused."""
    times = pa.array([NOON], pa.timestamp("us", "UTC"))
    defaults = {
        "flag": True,
        "small": -7,
        "big": 2**53 + 1,
        "narrow": np.float32(0.1).item(),
        "wide": -0.0,
        "nan": math.nan,
        "text": "null",
    }
    types = {
        "flag": Bool,
        "small": Int32,
        "big": Int64,
        "narrow": Float32,
        "wide": Float64,
        "nan": Float64,
        "text": String,
    }
    columns = {name: pa.nulls(1, of.arrow) for name, of in types.items()}
    source = DataFrameSource(
        "facts", pa.table({"k": ["a"], "t": times, "day": pa.nulls(1, pa.date32()), **columns}), event_time="t"
    )
    folds = {name: Latest(name, default=default) for name, default in defaults.items()}
    entity = Entity("k", key={"k": String})
    view = FeatureView("facts", entity=entity, source=source, refresh="1h", features=folds)
    others = {"day": Latest("day", default=NOON.date()), "empty": Latest("text", default="")}
    undefaulted = [
        FeatureView(name, entity=entity, source=source, refresh="1h", features={name: fold})
        for name, fold in others.items()
    ]
    with FeatureStore.local() as store:
        store.apply([view, *undefaulted])
        rows = pa.table({"k": ["a"], "t": times})
        client, at = FeatureEngineeringClient(store), {"timestamp_lookup_key": "t"}
        lookup = FeatureLookup("c.s.facts", "k", default_values=defaults, **at)
        training_set = client.create_training_set(df=rows, feature_lookups=[lookup])
        training_set.save_feature_spec(tmp_path)
        for name in others:
            with pytest.raises(RequestError, match=f"cannot say the default .* of '{name}'"):
                client.create_training_set(df=rows, feature_lookups=[FeatureLookup(name, "k", **at)]).feature_spec()
    said: list[Any] = [["source", {"name": "k"}, True, "string"], ["source", {"name": "t"}, True, "timestamp"]]
    for name, default in defaults.items():
        fields = {"table_name": "c.s.facts", "feature_name": name, "lookup_key": ["k"], "output_name": name, "timestamp_lookup_key": ["t"],
                  "default_value_str": str(default)}  # fmt: skip
        said.append(["feature", fields, True, spark(types[name])])
    found = read_spec(tmp_path, said, [["c.s.facts", None]])["defaults"]
    assert {name: bits(value) for name, value in found.items()} == {
        name: bits(default) for name, default in defaults.items()
    }


@pytest.fixture
def tracked(tmp_path: Path) -> Iterator[None]:
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.create_experiment("rides", artifact_location=(tmp_path / "artifacts").as_uri())
    mlflow.set_experiment("rides")
    yield
    mlflow.set_tracking_uri(None)


@pytest.mark.usefixtures("tracked")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")
def test_a_logged_model_scores_batches(project: dict[str, Any]) -> None:
    """As of the times of the column that it was trained with, and as of now, by the names that it learned; features are shown."""
    client = FeatureEngineeringClient(project["store"])
    rides = project["rides"].rename(columns={"driver_id": "whose", "event_timestamp": "at"})
    lookup = FeatureLookup(
        "main.shop.drivers",
        "whose",
        feature_names=["trips", "fare"],
        timestamp_lookup_key="at",
        rename_outputs={"fare": "last"},
    )
    training_set = client.create_training_set(
        df=pl.DataFrame(rides), feature_lookups=[lookup], label="tip", exclude_columns=["whose", "at"]
    )
    frame = training_set.load_df()
    assert list(frame.columns) == ["trips", "last", "tip"]
    for form in ("arrow", "numpy", "matrix"):
        taken = frame[["trips", "last"]] if form == "arrow" else frame[["trips", "last"]].astype("float64")
        taken = taken.to_numpy() if form == "matrix" else taken
        model = HistGradientBoostingRegressor(min_samples_leaf=1).fit(taken, rides["tip"])
        info = client.log_model(model=model, artifact_path="model", flavor=None, training_set=training_set, form=form,
                                registered_model_name="tips")  # fmt: skip
        uri = f"models:/tips/{info.registered_model_version}"
        scored = client.score_batch(model_uri=uri, df=rides.set_index(pd.Index([7, 8, 9, 10])))
        assert list(scored.columns) == [*rides.columns, "trips", "last", "prediction"]
        assert list(scored.index) == [7, 8, 9, 10]
        assert bits(scored["prediction"].tolist()) == bits(model.predict(taken).tolist())
        assert listed(scored, "last") == listed(frame, "last")
        now = client.score_batch(model_uri=uri, df=pl.DataFrame(rides[["whose"]]))
        assert listed(now, "last") == bits([9.5, 9.5, 20.25, None])
        assert bits(mlflow.pyfunc.load_model(uri).predict(rides[["whose"]]).tolist()) == bits(
            now["prediction"].tolist()
        )
    held = Path(mlflow.artifacts.download_artifacts(f"{uri}/artifacts/feature_spec.yaml"))
    assert json.loads(held.read_text()) == training_set.feature_spec()
    needed = Path(mlflow.pyfunc.get_model_dependencies(uri)).read_text()
    assert f"scikit-learn=={version('scikit-learn')}" in needed
    cases: list[tuple[dict[str, Any], str]] = [
        ({"df": rides.assign(last=1.0)}, "takes in place of the feature's"),
        ({"df": rides.assign(prediction=1.0)}, "a column 'prediction'"),
        ({"df": rides, "env_manager": "virtualenv"}, "no env_manager here"),
        ({"df": rides, "params": {"a": 1}}, "no params here"),
        ({"df": rides, "result_type": "doubel"}, "Did you mean 'double'"),
        ({"df": rides, "result_type": "int"}, "The model gives float64, and result_type is 'int'"),
    ]
    for words, says in cases:
        with pytest.raises(RequestError, match=says):
            client.score_batch(model_uri=uri, **words)
    assert client.score_batch(model_uri=uri, df=rides, result_type="float")["prediction"].dtype == "float32"
    kept = client.create_training_set(df=rides, feature_lookups=[lookup], label="tip")
    for given, says in ((kept, "'whose' of the frame itself"), (frame, "what create_training_set gave")):
        with pytest.raises(RequestError, match=says):
            client.log_model(model=model, artifact_path="model", training_set=given)


def test_every_kind_of_frame(project: dict[str, Any]) -> None:
    """The same training set; a frame of another library comes back with Arrow's types."""
    rides, client = project["rides"], FeatureEngineeringClient(project["store"])
    lookup, table = (
        FeatureLookup("drivers", "driver_id", timestamp_lookup_key=["event_timestamp"]),
        pa.table(project["rides"]),
    )
    expected = client.create_training_set(df=rides, feature_lookups=[lookup], label=["tip"]).load_df()
    for given in (pl.DataFrame(rides), table, table.to_reader(), duckdb.from_arrow(table), table.to_pydict()):
        found = client.create_training_set(df=given, feature_lookups=[lookup], label=["tip"]).load_df()
        assert list(found.columns) == list(expected.columns) == ["driver_id", "event_timestamp", "fare", "trips", "tip"]
        assert pa.table(found).to_pylist() == pa.table(expected).to_pylist()


def test_mistakes_are_told(project: dict[str, Any]) -> None:
    """With the way out."""
    client, rides = FeatureEngineeringClient(project["store"]), project["rides"]
    at = {"timestamp_lookup_key": "event_timestamp"}
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"timestamp_lookup_key": None}, RequestError, "Without it the values of today"),
        ({"timestamp_lookup_key": ["a", "b"]}, RequestError, "a training row has one instant"),
        ({"table_name": "drivres"}, NotFoundError, "drivers"),
        ({"lookup_key": ["driver_id", "x"]}, RequestError, "its keys are"),
        ({"lookup_key": "driver"}, SpineError, "df: The spine has no input column 'driver'. Did you mean 'driver_id'"),
        ({"rename_outputs": {"fare": "tip"}}, RequestError, "'tip'"),
        (
            {"rename_outputs": {"fair": "x"}},
            RequestError,
            "rename_outputs: there is no column 'fair'. Did you mean 'fare'",
        ),
        ({"feature_names": "fair"}, DeclarationError, "fare"),
        (
            {"lookback_window": timedelta(days=7)},
            RequestError,
            "lookback_window is 7 days, 0:00:00, and the view has no ttl",
        ),
        ({"default_values": {"fare": 0.0}}, RequestError, "default_values gives 'fare' 0.0, and the view none"),
        ({"default_values": {"fair": 0.0}}, RequestError, "default_values: there is no column 'fair'"),
    ]
    for words, error, says in cases:
        lookup = FeatureLookup(**{"table_name": "drivers", "lookup_key": "driver_id", **at, **words})
        with pytest.raises(error, match=says):
            client.create_training_set(df=rides, feature_lookups=[lookup])
    sound = FeatureLookup("drivers", "driver_id", **at)
    asked: list[tuple[dict[str, Any], str]] = [
        ({"feature_lookups": []}, "a list of FeatureLookup"),
        ({"feature_lookups": sound}, "a list of FeatureLookup"),
        ({"feature_lookups": ["drivers"]}, "feature_lookups.0. is 'drivers', and must be a FeatureLookup"),
        ({"feature_lookups": [sound], "label": "tipp"}, "label: there is no column 'tipp'. Did you mean 'tip'"),
        ({"feature_lookups": [sound], "exclude_columns": ["x"]}, "exclude_columns: there is no column 'x'"),
        ({"feature_lookups": [sound], "label": "tip", "exclude_columns": ["tip"]}, "which is a label"),
        ({"feature_lookups": [sound], "df": rides["tip"]}, "df is no frame"),
    ]
    for words, says in asked:
        with pytest.raises(RequestError, match=says):
            client.create_training_set(**{"df": rides, **words})
    made: list[tuple[dict[str, Any], str]] = [
        ({"table_name": None}, "table_name is the name of a view, and not None"),
        ({"lookup_key": 5}, "lookup_key is the name of a column, or a list of names, and not 5"),
        ({"feature_names": {"fare"}}, "feature_names is the name of a column, or a list of names, and not a set"),
        ({"rename_outputs": {"fare": 5}}, "rename_outputs has the new names as texts"),
        ({"rename_outputs": ["fare"]}, "rename_outputs is a dict by the names of columns"),
        ({"default_values": {5: 0.0}}, "default_values is a dict by the names of columns"),
        ({"lookback_window": "1d"}, "lookback_window is a datetime.timedelta, and not '1d'"),
    ]
    for words, says in made:
        with pytest.raises(RequestError, match=says):
            FeatureLookup(**{"table_name": "drivers", "lookup_key": "driver_id", **words})
    odd = FeatureLookup("drivers", "driver_id", **at, default_values={"fare": np.zeros(2)})
    with pytest.raises(RequestError, match="default_values gives 'fare' a ndarray, and the view none"):
        client.create_training_set(df=rides, feature_lookups=[odd])
    two = ["driver_id", "event_timestamp"]
    learned = client.create_training_set(df=rides, feature_lookups=[sound], label="tip", exclude_columns=two)
    with pytest.raises(FeatureStoreError, match="A model is one with predict, .* and not None"):
        client.log_model(model=None, artifact_path="model", training_set=learned)
    one = client.create_training_set(df=rides, feature_lookups=[sound], label="tip", exclude_columns="driver_id")
    assert "driver_id" not in one.load_df().columns
    with pytest.raises(FeatureStoreError, match="feature_spec.yaml cannot be written: .*there is no folder"):
        one.save_feature_spec("nowhere")


def test_limits_that_serving_has_too_are_taken(tmp_path: Path) -> None:
    """lookback_window and default_values where they are the view's ttl and default; others are refused with what it has."""
    with opened(tmp_path) as store:
        client, at = FeatureEngineeringClient(store), {"timestamp_lookup_key": "at"}
        rows = pa.table({"carrier": ["UA"], "flight": [0], "at": pa.array([NOON], pa.timestamp("us", "UTC"))})
        for window, refused in ((timedelta(days=1), False), (timedelta(hours=25), True), (timedelta(0), True)):
            lookup = FeatureLookup("pairs", ["carrier", "flight"], lookback_window=window, **at)
            with pytest.raises(RequestError, match="the view has ttl='1d'") if refused else nullcontext():
                client.create_training_set(df=rows, feature_lookups=[lookup])


@pytest.mark.usefixtures("tracked")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")
def test_what_the_page_shows(project: dict[str, Any]) -> None:
    """docs/platforms/training-joins.md: the joins of others on the same table."""
    run_blocks(DEFINITIONS, project)
    run_blocks((PAGES / "training-joins.md").read_text(), project)
