"""Databricks' names for training sets in Python, over our store: `FeatureLookup` and `create_training_set(…).load_df()`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from featurestore.declare.frames import is_pandas
from featurestore.errors import RequestError
from featurestore.lazy import pd
from featurestore.store import FeatureStore
from featurestore.training.training_frame import TrainingFrame


@dataclass(frozen=True, kw_only=True)
class FeatureLookup:
    """Features of a view, found by columns of the frame.

    table_name: the view; what stands before its last point, a catalog and a schema, is left out. lookup_key: the columns that hold
    its keys, in the order of its entity. timestamp_lookup_key: the column of instants. feature_names: these, by default all.
    """

    table_name: str
    lookup_key: str | Sequence[str]
    timestamp_lookup_key: str | None = None
    feature_names: str | Sequence[str] | None = None
    rename_outputs: dict[str, str] | None = None


@dataclass(frozen=True)
class TrainingSet:
    """The frame with features beside it. frame: as the store has it, with its manifest and its own names."""

    frame: TrainingFrame
    names: dict[str, str]
    label: str | None
    exclude_columns: Sequence[str]

    def load_df(self) -> pd.DataFrame:
        """A pandas frame: the columns that came, the features by their bare names, the label last; without what is excluded."""
        whole = self.frame.to_pandas().rename(columns=self.names).drop(columns=list(self.exclude_columns))
        if self.label is None:
            return whole
        return whole[[*(name for name in whole.columns if name != self.label), self.label]]


@dataclass(frozen=True)
class FeatureEngineeringClient:
    """Their client's calls for training, over a store."""

    store: FeatureStore

    def create_training_set(
        self, *, df: Any, feature_lookups: Sequence[FeatureLookup], label: str | None = None,
        exclude_columns: Sequence[str] = (),
    ) -> TrainingSet:  # fmt: skip
        """The rows of `df`, each once and in order, with the values as of its instant. Raises RequestError, and what
        `get_historical_features` raises."""
        instants = {lookup.timestamp_lookup_key for lookup in feature_lookups}
        if len(instants) != 1 or None in instants:
            raise RequestError(
                "Each FeatureLookup names the same timestamp_lookup_key, and one: a training row has one instant. Without it the values of "
                "today would be joined to rows of the past"
            )
        features, names = [], dict[str, str]()
        for place, lookup in enumerate(feature_lookups):
            view = self.store.catalog.view(lookup.table_name.rpartition(".")[2])
            keys = [lookup.lookup_key] if isinstance(lookup.lookup_key, str) else list(lookup.lookup_key)
            if len(keys) != len(view.entity.key):
                raise RequestError(
                    f"FeatureLookup of '{view.name}': lookup_key is {keys}, and its keys are {list(view.entity.key)}"
                )
            alias = f"lookup{place}"
            chosen = view.features if lookup.feature_names is None else lookup.feature_names
            wanted = [chosen] if isinstance(chosen, str) else list(chosen)
            selection = view.alias(alias, key=dict(zip(view.entity.key, keys, strict=True)))
            features += [selection[name] for name in wanted]
            names |= {f"{alias}__{name}": (lookup.rename_outputs or {}).get(name, name) for name in wanted}
        given = [*(df.columns if is_pandas(df) else df.column_names), *names.values()]
        if twice := sorted({name for name in given if given.count(name) > 1}):
            raise RequestError(
                f"Two columns would be called '{twice[0]}'; rename_outputs of its FeatureLookup gives another name"
            )
        (timestamp,) = instants
        frame = self.store.get_historical_features(df, features, timestamp=str(timestamp))
        return TrainingSet(frame, names, label, exclude_columns)
