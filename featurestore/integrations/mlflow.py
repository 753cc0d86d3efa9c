"""Training sets and models in MLflow: a run tells what a model learned from, and the model is asked with keys alone.

A logged model holds the manifest of its training set. Where it is loaded it opens the project, and is refused there if the
features that it was trained on are not served.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from importlib.metadata import packages_distributions, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.models.model import ModelInfo
from mlflow.protos import databricks_pb2 as codes
from mlflow.types.schema import Array, ColSpec, DataType, Schema

from featurestore.declare.frames import content_digest, is_pandas
from featurestore.declare.problems import shown
from featurestore.declare.sources import is_url
from featurestore.durable.checksums import signed
from featurestore.errors import FeatureStoreError, FingerprintError, OnDemandError, RequestError, did_you_mean
from featurestore.integrations.mlflow_source import TrainingSetSource
from featurestore.integrations.opened import StorePath, opened, path_of
from featurestore.integrations.rows import called, pandas_of
from featurestore.lazy import pa, pd
from featurestore.serving.online_result import OnlineResult
from featurestore.store import FeatureStore
from featurestore.training.manifest import Manifest, load_manifest
from featurestore.training.snapshot import TIMESTAMP
from featurestore.training.training_frame import TrainingFrame
from featurestore.types import FeatureType, from_json

MANIFEST_FILE = "featurestore_manifest.json"
"""What the manifest is called among the artifacts of a run, and of a model."""

MANIFEST, PROJECT, ENV = "featurestore_manifest", "featurestore_project", "featurestore_env"
"""A model's artifact, and the keys of its `model_config`: where it is served, another project can be named."""

Form = Literal["arrow", "numpy", "matrix"]
"""How a model takes its features: as `frame.features`, as `frame.to_pandas(dtypes="numpy")` has them, or as `frame.to_numpy()`."""

DATA_TYPES = {
    "Bool": DataType.boolean, "Int32": DataType.integer, "Int64": DataType.long, "Float32": DataType.float,
    "Float64": DataType.double, "String": DataType.string, "Bytes": DataType.binary, "Timestamp": DataType.datetime,
}  # fmt: skip
"""MLflow's types of inputs; what it has none for comes as text, in the form that JSON has."""


def _absolute(path: str | Path) -> str:
    return path if isinstance(path, str) and is_url(path) else str(Path(path).absolute())


def log_training_set(
    frame: TrainingFrame, *, name: str | None = None, targets: str | None = None, context: str = "training",
    path: str | Path | None = None,
) -> TrainingSetSource:  # fmt: skip
    """Note in the active run what it learns from: a dataset with a digest of its whole content, tags, and the manifest as an artifact.

    name: of the dataset, by default the service's. targets: the column of the labels. path: the Parquet file that the frame
    was written to, from which `mlflow.data.get_source(…).load()` reads it again.
    """
    source = TrainingSetSource(load_manifest(frame), None if path is None else _absolute(path))
    table = frame.to_arrow()
    with warnings.catch_warnings():
        # Whole numbers are nullable here, and arrive as they left.
        warnings.filterwarnings("ignore", message=".*integer column.*")
        dataset = mlflow.data.from_pandas(
            frame.to_pandas(), source=source, targets=targets, name=name or source.manifest.service,
            digest=content_digest(table),
        )  # fmt: skip
        mlflow.log_input(dataset, context=context, tags=_tags(source.manifest))
    mlflow.set_tags(_tags(source.manifest))
    mlflow.log_dict(signed(frame.manifest), MANIFEST_FILE)
    return source


class FeatureModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]  # the base class has no types
    """A model that is asked with keys and request values, and gets its features from the store.

    model: one with `predict`. form: how it takes its features. columns: by the service's columns what the model calls them, in its
    order; by default all, under their own names. timestamp: the column of times that `score_batch` looks for, by default that of
    what it learned from. A model that is written as code inherits from this, and says `score`.
    """

    def __init__(
        self, model: Any = None, *, form: Form = "arrow", columns: Mapping[str, str] | None = None,
        timestamp: str | None = None,
    ) -> None:  # fmt: skip
        if form not in get_args(Form):
            raise FeatureStoreError(f"form is 'arrow', 'numpy' or 'matrix', and not {form!r}")
        self.model = model
        self.form = form
        self.columns = None if columns is None else dict(columns)
        self.timestamp = timestamp

    def load_context(self, context: Any) -> None:
        """Open the project, and refuse the model here if its features are not served. Raises FingerprintError."""
        config = context.model_config or {}
        self._manifest = load_manifest(Path(context.artifacts[MANIFEST]))
        self._store = opened(config[PROJECT], config.get(ENV))
        self._inputs = self._store.lookup(self._manifest).service.inputs
        self.timestamp = self.timestamp or self._manifest.raw.get("timestamp") or TIMESTAMP

    def score(self, features: Any) -> Any:
        """The predictions of features, in the form that the model takes."""
        return self.model.predict(features)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> Any:  # noqa: ARG002
        """The predictions of rows of keys and request values, with their features as of now. Raises MlflowException, with our words
        and the code from which its server has the status."""
        try:
            return self.score_found(self.look_up(model_input))
        except FeatureStoreError as error:
            raise MlflowException(f"{type(error).__name__}: {error}", _code(error)) from error

    def look_up(self, rows: Any, timestamp: str | None = None) -> TrainingFrame | OnlineResult:
        """The features that the model was trained on, of each row: as of its time in the column `timestamp`, or as of now where
        that is None. Raises FingerprintError."""
        rows = _read(rows, self._inputs)
        if timestamp is None:
            return self._store.get_online_features(rows, self._manifest)
        return self._store.get_historical_features(rows, self._manifest, timestamp=timestamp)

    @property
    def scores(self) -> bool:
        """Whether there is what makes predictions: a model with `predict`, or a class with a `score` of its own."""
        return type(self).score is not FeatureModel.score or callable(getattr(self.model, "predict", None))

    def score_found(self, found: TrainingFrame | OnlineResult) -> Any:
        """The predictions of what `look_up` found."""
        if self.form == "matrix":
            return self.score(found.to_numpy(columns=None if self.columns is None else list(self.columns)))
        frame = (
            found.features if self.form == "arrow" else found.to_pandas(dtypes="numpy")[list(found.features.columns)]
        )
        return self.score(self.named(frame))

    def named(self, features: pd.DataFrame) -> pd.DataFrame:
        """A service's columns as the model knows them."""
        return features if self.columns is None else features[list(self.columns)].rename(columns=self.columns)

    def __getstate__(self) -> dict[str, Any]:
        kept = {"model", "form", "columns", "timestamp"}
        return {name: value for name, value in self.__dict__.items() if name in kept}


def log_model(
    model: Any, *, training: TrainingFrame | Manifest, store: FeatureStore | StorePath, name: str = "model",
    form: Form = "arrow", env: str | None = None, **words: Any,
) -> ModelInfo:  # fmt: skip
    """Log a model with the manifest of what it learned from, so that it is asked with keys alone.

    model: one with `predict`, a `FeatureModel`, or the path of a file that calls `mlflow.models.set_model` with one. store: the
    store, or the path of the project, that it is served from; `model_config={"featurestore_project": …}` of `load_model` names
    another one. words: of `mlflow.pyfunc.log_model`, such as registered_model_name. The run, the model and its version say
    service and fingerprint.
    """
    manifest = load_manifest(training)
    env = store.config.environment if isinstance(store, FeatureStore) else env
    service = opened(store, env).lookup(manifest).service
    python_model = model if isinstance(model, (FeatureModel, str, Path)) else FeatureModel(model, form=form)
    if isinstance(python_model, FeatureModel) and not python_model.scores:
        raise FeatureStoreError(
            f"A model is one with predict, a FeatureModel, or the path of a file that sets one, and not {shown(python_model.model)}"
        )
    if isinstance(model, (str, Path)) and form != "arrow":
        raise FeatureStoreError("A model that is written as code says its form itself: FeatureModel.__init__(form=…)")
    config = {PROJECT: str(Path(path_of(store)).absolute()), ENV: env}
    with TemporaryDirectory() as folder:
        file = Path(folder) / MANIFEST_FILE
        file.write_text(json.dumps(signed(manifest.raw), indent=2) + "\n")
        words = {"signature": _signature(service.inputs), **_needs(model, words), **words}
        words["artifacts"] = {**words.get("artifacts", {}), MANIFEST: str(file)}
        words["model_config"] = {**config, **words.get("model_config", {})}
        words["metadata"] = {**words.get("metadata", {}), **_tags(manifest)}
        words["tags"] = {**words.get("tags", {}), **_tags(manifest)}
        with warnings.catch_warnings():
            # The signature is not guessed from an example: it is that of the service's inputs.
            warnings.filterwarnings("ignore", message=".*input example was not provided")
            info = mlflow.pyfunc.log_model(name=name, python_model=_as_text(python_model), **words)
    if info.run_id is not None:  # where no run is active, MLflow logs a model without one
        mlflow.MlflowClient().set_tag(info.run_id, "featurestore.model", str(manifest))
    if info.registered_model_version is not None:
        for tag, value in _tags(manifest).items():
            mlflow.MlflowClient().set_model_version_tag(
                words["registered_model_name"], str(info.registered_model_version), tag, value
            )
    return info


def score_batch(model_uri: str, rows: Any, *, timestamp: str | None = None, result: str = "prediction") -> pd.DataFrame:
    """The rows with the predictions of a logged model beside them: as of their times where they have a column `timestamp` (by
    default the model's), as of now where they have none. A column that is named here has to be there. result: the name of the
    predictions' column."""
    frame = pandas_of(rows, "rows")
    if result in frame.columns:
        raise RequestError(f"The rows have a column '{result}'; result= gives the predictions another name")
    model = loaded_model(model_uri)
    if timestamp is not None and timestamp not in frame.columns:
        known = did_you_mean(timestamp, map(str, frame.columns), noun="Their columns")
        raise RequestError(f"The rows have no column '{timestamp}', as of which they would be scored.{known}")
    at = model.timestamp if timestamp is None else timestamp
    with called("rows"):
        found = model.look_up(frame, at if at in frame.columns else None)
    return frame.assign(**{result: model.score_found(found)})


def loaded_model(model_uri: str) -> FeatureModel:
    """The model that `log_model` logged under a URI, its project opened. Raises FingerprintError, RequestError."""
    model = mlflow.pyfunc.load_model(model_uri).unwrap_python_model()
    if not isinstance(model, FeatureModel):
        raise RequestError(f"{model_uri} is no model that log_model of this module logged")
    return model


def _code(error: FeatureStoreError) -> int:
    """MLflow's code of an error: of status 400, 409, 503 or 500."""
    if isinstance(error, (RequestError, OnDemandError)):
        return int(codes.INVALID_PARAMETER_VALUE)
    if isinstance(error, FingerprintError):
        return int(codes.RESOURCE_CONFLICT)
    return int(codes.TEMPORARILY_UNAVAILABLE if error.retry else codes.INTERNAL_ERROR)


def _tags(manifest: Manifest) -> dict[str, str]:
    return {"featurestore.service": manifest.service, "featurestore.fingerprint": manifest.fingerprint}


def _as_text(model: Any) -> Any:
    return str(model) if isinstance(model, Path) else model


def _signature(inputs: Mapping[str, FeatureType]) -> ModelSignature:
    return ModelSignature(inputs=Schema([ColSpec(_data_type(of), name) for name, of in inputs.items()]))


def _data_type(of: FeatureType) -> Any:
    if of.element is not None:
        return Array(_data_type(of.element))
    return DATA_TYPES.get(of.kind, DataType.string)


def _read(rows: Any, inputs: Mapping[str, FeatureType]) -> Any:
    """The rows, with the text of what MLflow has no type for read as what it is."""
    told = [name for name, of in inputs.items() if of.kind not in DATA_TYPES and of.element is None]
    if not told or not is_pandas(rows):
        return rows
    columns = {name: rows[name] for name in rows.columns}
    for name in set(told) & set(columns):
        of = inputs[name]
        values = [from_json(of, value) if isinstance(value, str) else value for value in columns[name]]
        columns[name] = pd.Series(pd.arrays.ArrowExtensionArray(pa.array(values, of.arrow)), index=rows.index)
    return pd.DataFrame(columns)


def _needs(model: Any, words: dict[str, Any]) -> dict[str, Any]:
    """The word of MLflow's for what a model needs where it is loaded; none where the caller says all of it."""
    if words.keys() & {"pip_requirements", "conda_env"}:
        return {}
    more = words.pop("extra_pip_requirements", None) or ()
    return {"pip_requirements": [*_requirements(model), *([f"-r {more}"] if isinstance(more, str) else more)]}


def _requirements(model: Any) -> list[str]:
    """This product, and the library that the model is of."""
    needed = [f"featurestore[mlflow]=={version('featurestore')}"]
    own = model.model if isinstance(model, FeatureModel) else None
    library = type(model if own is None else own).__module__.partition(".")[0]
    for name in packages_distributions().get(library, ()):
        needed += [f"{name}=={version(name)}"] if name != "featurestore" else []
    return needed
