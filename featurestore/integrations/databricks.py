"""Databricks' names for training sets and models, over our store: `FeatureLookup`, `create_training_set`, `log_model` and
`score_batch`; and feature_spec.yaml, in which Databricks says what a model looks up.

Words that would make training differ from serving are refused, each with what to do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from featurestore.declare.durations import show_duration
from featurestore.declare.problems import shown
from featurestore.declare.views import FeatureView, Selection
from featurestore.durable.disk import write_file
from featurestore.errors import RequestError, did_you_mean
from featurestore.integrations.rows import called, names_of, pandas_of, taken
from featurestore.lazy import pa, pd
from featurestore.store import FeatureStore
from featurestore.training.training_frame import TrainingFrame, writable_target

if TYPE_CHECKING:
    from mlflow.models.model import ModelInfo

SPEC_FILE = "feature_spec.yaml"

SPEC_LAYOUT = 11
"""Of that file's form, as databricks-feature-engineering 0.18 reads and writes it."""

PREDICTION = "prediction"

RESULTS = {
    "boolean": "bool", "double": "float64", "float": "float32", "int": "int32", "long": "int64", "string": "str",
}  # fmt: skip
"""By Databricks' words for what a model gives numpy's."""

DEFAULTS = {"Bool", "Int32", "Int64", "Float32", "Float64", "String"}
"""Types of which feature_spec.yaml can say a default."""


@dataclass(frozen=True)
class FeatureLookup:
    """Features of a view, found by columns of the frame.

    table_name: the view; what stands before its last point, a catalog and a schema, is left out. lookup_key: the columns that hold
    its keys, in the order of its entity. feature_names: these, by default all. rename_outputs: by the feature's name another one.
    timestamp_lookup_key: the column of instants. lookback_window, default_values (by the output's name): what the view says, its
    `ttl` and `default`; others are refused, since serving would not have them.
    """

    table_name: str
    lookup_key: str | Sequence[str]
    _: KW_ONLY
    feature_names: str | Sequence[str] | None = None
    rename_outputs: Mapping[str, str] | None = None
    timestamp_lookup_key: str | Sequence[str] | None = None
    lookback_window: timedelta | None = None
    default_values: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        texts, window = ("lookup_key", "feature_names", "timestamp_lookup_key"), self.lookback_window
        if not isinstance(self.table_name, str):
            raise RequestError(f"table_name is the name of a view, and not {shown(self.table_name)}")
        for word in texts:
            _texts(getattr(self, word), word)
        for word in ("rename_outputs", "default_values"):
            if not isinstance(getattr(self, word), Mapping | None) or not all(map(_is_text, getattr(self, word) or ())):
                raise RequestError(f"{word} is a dict by the names of columns, and not {shown(getattr(self, word))}")
        if not all(map(_is_text, (self.rename_outputs or {}).values())):
            raise RequestError(f"rename_outputs has the new names as texts, and not {shown(self.rename_outputs)}")
        if not isinstance(window, timedelta | None):
            raise RequestError(f"lookback_window is a datetime.timedelta, and not {shown(window)}")


@dataclass(frozen=True)
class _BoundLookup:
    """A lookup, and the view that it is of. alias: under which the view is joined. outputs: by feature its name in the result."""

    said: FeatureLookup
    view: FeatureView
    keys: tuple[str, ...]
    alias: str
    outputs: dict[str, str]

    @property
    def features(self) -> list[Selection]:
        selection = self.view.alias(self.alias, key=dict(zip(self.view.entity.key, self.keys, strict=True)))
        return [selection[name] for name in self.outputs]

    @property
    def names(self) -> dict[str, str]:
        """By the training frame's columns those of the result."""
        return {f"{self.alias}__{name}": output for name, output in self.outputs.items()}


@dataclass(frozen=True)
class TrainingSet:
    """The frame with features beside it. frame: as the store has it, with its manifest and its own names."""

    frame: TrainingFrame
    lookups: tuple[_BoundLookup, ...]
    timestamp: str
    labels: tuple[str, ...]
    exclude_columns: tuple[str, ...]

    @property
    def names(self) -> dict[str, str]:
        """By the frame's feature columns what they are called in `load_df`, in order; excluded ones too."""
        return {column: name for lookup in self.lookups for column, name in lookup.names.items()}

    def load_df(self) -> pd.DataFrame:
        """A pandas frame: the columns that came, the features by their names, the labels last; without what is excluded."""
        whole = self.frame.to_pandas().rename(columns=self.names)
        return whole[[*(name for name in whole.columns if self._is_included(name)), *self.labels]]

    def feature_spec(self) -> dict[str, Any]:
        """What Databricks' feature_spec.yaml says of it: the columns of the frame, and what is looked up in which table by which
        keys. A view's `ttl` is the table's lookback_window. RequestError for a type or a default that it has no word for."""
        features = {column: name for column, name in self.names.items() if self._is_included(name)}
        columns = dict(self._of_frame())
        for lookup in self.lookups:
            columns |= {
                name: self._of_feature(lookup, feature, column)
                for (column, name), feature in zip(lookup.names.items(), lookup.outputs, strict=True)
                if column in features
            }
        sources = sorted(name for name, said in columns.items() if said["source"] == "training_data")
        order = {name: place for place, name in enumerate([*sources, *sorted(set(columns) - set(sources))])}
        for name, said in columns.items():
            said["topological_ordering"], said["source"] = order[name], said.pop("source")
        used = {lookup.said.table_name: lookup.view for lookup in self.lookups if set(lookup.names) & set(features)}
        return {
            "input_columns": [{name: said} for name, said in columns.items()],
            "workspace_id": "0",
            "feature_store_client_version": f"featurestore {version('featurestore')}",
            "input_tables": [{table: _lookback(used[table])} for table in sorted(used)],
            "serialization_version": SPEC_LAYOUT,
        }

    def save_feature_spec(self, folder: str | Path) -> Path:
        """Write `feature_spec` into a folder, as JSON, which is YAML."""
        path = writable_target(Path(folder) / SPEC_FILE, SPEC_FILE)
        write_file(path, json.dumps(self.feature_spec(), indent=2, ensure_ascii=False) + "\n")
        return path

    def _is_included(self, name: Any) -> bool:
        return name not in self.labels and name not in self.exclude_columns

    def _of_frame(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The frame's own columns, of which an excluded one stays where it is a key."""
        keys = {key for lookup in self.lookups for key in lookup.keys}
        for field in self.frame.to_arrow().schema:
            included = self._is_included(field.name)
            if field.name not in self.names and field.name not in self.labels and (included or field.name in keys):
                left_out = {} if included else {"include": False}
                yield (
                    field.name,
                    {"data_type": _spark_type(field.name, field.type), **left_out, "source": "training_data"},
                )

    def _of_feature(self, lookup: _BoundLookup, feature: str, column: str) -> dict[str, Any]:
        of, default = self.frame.types[column], lookup.view.features[feature].default
        if default is not None and (of.kind not in DEFAULTS or default == ""):
            raise RequestError(f"{SPEC_FILE} cannot say the default {shown(default)} of '{feature}', a {of}")
        return {
            "table_name": lookup.said.table_name,
            "feature_name": feature,
            "lookup_key": list(lookup.keys),
            "timestamp_lookup_key": [self.timestamp],
            **({} if default is None else {"default_value": str(default)}),
            "data_type": _spark_type(feature, of.arrow),
            "source": "feature_store",
        }


@dataclass(frozen=True)
class FeatureEngineeringClient:
    """Their client's calls for training and batches, over a store."""

    store: FeatureStore

    def create_training_set(
        self, *, df: Any, feature_lookups: Sequence[FeatureLookup], label: str | Sequence[str] | None = None,
        exclude_columns: Sequence[str] | None = None, use_spark_native_join: bool = False,  # noqa: ARG002
        use_timeseries_filtering: bool = False,  # noqa: ARG002
    ) -> TrainingSet:  # fmt: skip
        """The rows of `df`, each once and in order, with the values as of its instant.

        df: a frame of any library. The two words of Spark's change nothing. Raises RequestError, and what
        `get_historical_features` raises.
        """
        rows = taken(df, "df")
        given = names_of(rows)
        lookups = tuple(self._found(place, lookup) for place, lookup in enumerate(_listed(feature_lookups)))
        timestamp = _instant_of(lookups)
        outputs = [name for lookup in lookups for name in lookup.outputs.values()]
        columns = [*given, *outputs]
        if twice := sorted({name for name in columns if columns.count(name) > 1}, key=str):
            raise RequestError(
                f"Two columns would be called '{twice[0]}'; rename_outputs of its FeatureLookup gives another name"
            )
        labels = _texts(label, "label")
        excluded = _texts(exclude_columns, "exclude_columns")
        _check_there("label", labels, given)
        _check_there("exclude_columns", excluded, columns)
        if both := [name for name in excluded if name in labels]:
            raise RequestError(f"exclude_columns has '{both[0]}', which is a label")
        features = [feature for lookup in lookups for feature in lookup.features]
        with called("df"):
            frame = self.store.get_historical_features(rows, features, timestamp=timestamp)
        return TrainingSet(frame, lookups, timestamp, labels, excluded)

    def log_model(
        self, *, model: Any, artifact_path: str, training_set: TrainingSet, flavor: Any = None,  # noqa: ARG002
        registered_model_name: str | None = None, form: Literal["arrow", "numpy", "matrix"] = "arrow", **words: Any,
    ) -> ModelInfo:  # fmt: skip
        """Log a model that learned from a training set's features to MLflow, so that it is asked with keys alone; see
        `integrations.mlflow.log_model`, whose other words are taken too. Its feature_spec.yaml is among the artifacts.

        form: in which it takes its features, "arrow" as `load_df` has them. flavor: is not needed, since the model is packed
        as it is. RequestError where it learned from other columns of the frame.
        """
        from featurestore.integrations.mlflow import FeatureModel, log_model

        if not isinstance(training_set, TrainingSet):
            raise RequestError(f"training_set is what create_training_set gave, and not {shown(training_set)}")
        names, excluded = training_set.names, training_set.exclude_columns
        own = [name for name in training_set.load_df().columns if name not in {*names.values(), *training_set.labels}]
        if own:
            raise RequestError(
                f"The training set has '{own[0]}' of the frame itself beside the features, and clients of the model send keys alone; "
                "exclude_columns leaves it out. What a request brings is declared: an on-demand feature with a Request"
            )
        columns = {column: name for column, name in names.items() if name not in excluded}
        packed = FeatureModel(model, form=form, columns=columns, timestamp=training_set.timestamp)
        with TemporaryDirectory() as folder:
            spec = training_set.save_feature_spec(folder)
            words["artifacts"] = {**words.get("artifacts", {}), "feature_spec": str(spec)}
            return log_model(
                packed, training=training_set.frame, store=self.store, name=artifact_path, form=form,
                registered_model_name=registered_model_name, **words,
            )  # fmt: skip

    def score_batch(
        self, *, model_uri: str, df: Any, result_type: str = "double", env_manager: str = "local",
        params: Mapping[str, Any] | None = None, use_spark_native_join: bool = False,  # noqa: ARG002
    ) -> pd.DataFrame:  # fmt: skip
        """The rows of `df`, the features that a logged model takes of each, and its predictions: as of the times in the column
        that the training set had them in, as of now where there is none.

        result_type: boolean, double, float, int, long or string. Raises RequestError, FingerprintError.
        """
        from featurestore.integrations.mlflow import loaded_model

        if env_manager != "local" or params:
            word = "params" if params else "env_manager"
            raise RequestError(
                f"score_batch has no {word} here: the model runs in this process, and is asked with keys alone"
            )
        if result_type not in RESULTS:
            raise RequestError(
                f"result_type is {shown(result_type)}.{did_you_mean(str(result_type), RESULTS, noun='There are')}"
            )
        rows, model = pandas_of(df, "df"), loaded_model(model_uri)
        if PREDICTION in rows.columns:
            raise RequestError(f"df has a column '{PREDICTION}', which is to be that of the predictions; rename it")
        with called("df"):
            found = model.look_up(rows, model.timestamp if model.timestamp in rows.columns else None)
        features = model.named(found.features).set_axis(rows.index)
        if both := [name for name in features.columns if name in rows.columns]:
            raise RequestError(
                f"df has a column '{both[0]}', whose values Databricks takes in place of the feature's. Here features come from the "
                "store alone; leave it out"
            )
        frame: pd.DataFrame = pd.concat([rows, features], axis=1)
        return frame.assign(**{PREDICTION: _typed(model.score_found(found), result_type)})

    def _found(self, place: int, lookup: FeatureLookup) -> _BoundLookup:
        """The lookup's view, and what it is to be called; RequestError where it asks for what serving would not give."""
        if not isinstance(lookup, FeatureLookup):
            raise RequestError(
                f"feature_lookups[{place}] is {shown(lookup)}, and must be a FeatureLookup of this module; a function is declared: "
                "@on_demand"
            )
        view = self.store.catalog.view(lookup.table_name.rpartition(".")[2])
        title, keys = f"FeatureLookup of '{view.name}'", _texts(lookup.lookup_key)
        if len(keys) != len(view.entity.key):
            raise RequestError(f"{title}: lookup_key is {list(keys)}, and its keys are {list(view.entity.key)}")
        names, renamed = _texts(lookup.feature_names) or tuple(view.features), lookup.rename_outputs or {}
        outputs = {name: renamed.get(name, name) for name in names}
        _check_there(f"{title}: rename_outputs", tuple(renamed), names)
        _check_there(f"{title}: default_values", tuple(lookup.default_values or ()), tuple(outputs.values()))
        ttl, window = view.said("ttl"), lookup.lookback_window
        if window is not None and window // timedelta(microseconds=1) != ttl:
            own = "has no ttl" if ttl is None else f"has ttl={show_duration(ttl)!r}"
            raise RequestError(
                f"{title}: lookback_window is {window}, and the view {own}. One that training alone has is skew; the view's ttl holds "
                "in training and in serving"
            )
        for name, output in outputs.items():
            declared = view.features[name].default if name in view.features else None
            if output in (lookup.default_values or {}) and not _same(lookup.default_values[output], declared):  # type: ignore[index]  # it is in default_values, so there are some
                raise RequestError(
                    f"{title}: default_values gives '{output}' {shown(lookup.default_values[output])}, and the view "  # type: ignore[index]  # it is in default_values, so there are some
                    f"{'none' if declared is None else shown(declared)}. One that training alone has is skew; the default of the view's feature "
                    "holds in training and in serving"
                )
        return _BoundLookup(lookup, view, keys, f"lookup{place}", outputs)


def _listed(lookups: Any) -> Sequence[Any]:
    if not isinstance(lookups, (list, tuple)) or not lookups:
        raise RequestError(f"feature_lookups is a list of FeatureLookup, and not {shown(lookups)}")
    return lookups


def _is_text(said: object) -> bool:
    return isinstance(said, str)


def _texts(said: str | Sequence[str] | None, word: str = "") -> tuple[str, ...]:
    """The names that a word says, one or several; RequestError where it says anything else."""
    found = () if said is None else (said,) if isinstance(said, str) else said
    if not isinstance(found, (list, tuple)) or not all(map(_is_text, found)):
        raise RequestError(f"{word} is the name of a column, or a list of names, and not {shown(said)}")
    return tuple(found)


def _instant_of(lookups: Sequence[_BoundLookup]) -> str:
    """The column of instants of all lookups."""
    instants = {_texts(lookup.said.timestamp_lookup_key) for lookup in lookups}
    if len(instants) != 1 or len(next(iter(instants))) != 1:
        raise RequestError(
            "Each FeatureLookup names the same timestamp_lookup_key, and one: a training row has one instant. Without it the values of "
            "today would be joined to rows of the past"
        )
    return next(iter(instants))[0]


def _check_there(word: str, names: Sequence[str], known: Sequence[Any]) -> None:
    for name in names:
        if name not in known:
            raise RequestError(
                f"{word}: there is no column '{name}'.{did_you_mean(str(name), map(str, known), noun='There are')}"
            )


def _same(value: Any, declared: Any) -> bool:
    if isinstance(value, bool) is not isinstance(declared, bool):
        return False
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return bool(value == declared or (value != value and declared != declared))  # noqa: PLR0124  NaN


def _lookback(view: FeatureView) -> dict[str, float]:
    """What the file says of a table: its lookback_window in seconds, if any."""
    ttl = view.said("ttl")
    return {} if ttl is None else {"lookback_window": ttl / 1e6}


def _typed(predictions: Any, result_type: str) -> Any:
    """What a model gave, as what it is said to give; RequestError where that would change it."""
    given = np.asarray(predictions)
    try:
        return given.astype(RESULTS[result_type], casting="same_kind")
    except TypeError:
        raise RequestError(
            f"The model gives {given.dtype}, and result_type is '{result_type}', the default being 'double'; say what it gives"
        ) from None


def _spark_type(name: str, of: pa.DataType) -> str:
    """Spark's name of a type. Raises RequestError."""
    types = pa.types
    if types.is_list(of) or types.is_fixed_size_list(of) or types.is_large_list(of):
        return f"array<{_spark_type(name, of.value_type)}>"
    if types.is_decimal(of):
        return f"decimal({of.precision},{of.scale})"
    if types.is_timestamp(of):
        return "timestamp"
    if str(of) not in SPARK_TYPES:
        raise RequestError(f"{SPEC_FILE} has no type for column '{name}', which is {of}; convert or exclude it")
    return SPARK_TYPES[str(of)]


SPARK_TYPES = {
    "bool": "boolean", "int8": "tinyint", "int16": "smallint", "int32": "int", "int64": "bigint", "float": "float", "double": "double",
    "string": "string", "large_string": "string", "binary": "binary", "date32[day]": "date",
}  # fmt: skip
"""By Arrow's names of types Spark's."""
