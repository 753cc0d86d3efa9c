"""A view with everything settled that can change a value: types, times, defaults. Its fingerprint is its identity."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson

from featurestore.declare.durations import show_duration
from featurestore.declare.folds import Fold
from featurestore.declare.sources import Source
from featurestore.declare.views import FeatureView
from featurestore.errors import DeclarationError, SourceError, did_you_mean
from featurestore.semantics.columns import instant_sql, type_of_column, widens
from featurestore.semantics.folds import FOLDS
from featurestore.semantics.time import Timing
from featurestore.types import FeatureType, to_json

__all__ = ["KeyColumn", "ResolvedFeature", "ResolvedView", "fingerprint_of", "resolve"]


@dataclass(frozen=True, slots=True)
class KeyColumn:
    """One column of an entity's key: its name, its type, and the source column that holds it."""

    name: str
    type: FeatureType
    column: str


@dataclass(frozen=True, slots=True)
class ResolvedFeature:
    """One feature: what it is made of, and the type of its values."""

    name: str
    fold: Fold
    type: FeatureType
    default: Any


@dataclass(frozen=True)
class ResolvedView:
    """A view whose types are settled. `columns` has the type as which each source column is read, `raw` DuckDB's own."""

    declared: FeatureView
    keys: tuple[KeyColumn, ...]
    features: tuple[ResolvedFeature, ...]
    timing: Timing
    ttl: int | None
    columns: dict[str, FeatureType]
    raw: dict[str, str]

    @property
    def name(self) -> str:
        """The view's name."""
        return self.declared.name

    @property
    def source(self) -> Source:
        """Where its rows come from."""
        return self.declared.source

    @cached_property
    def definition(self) -> dict[str, Any]:
        """All that can change a value, as plain JSON; where the data lies is no part of it."""
        source = self.source
        words = source.model_dump(
            mode="json",
            include={
                "name", "event_time", "known_at", "known_after", "history_until", "identity", "version", "tiebreak",
                "deleted", "until", "valid_from", "date", "period",
            },
        )  # fmt: skip
        timing = self.timing
        return {
            "view": self.name,
            "source": {**words, "timezone": source.timezone or "UTC"},
            "columns": {name: str(of) for name, of in sorted(self.columns.items())},
            "keys": [[key.name, str(key.type), key.column] for key in self.keys],
            "refresh": None if timing.refresh is None else show_duration(timing.refresh),
            "refresh_offset": show_duration(timing.offset),
            "settle": show_duration(timing.settle),
            "ready_after": show_duration(timing.ready_after),
            "ttl": None if self.ttl is None else show_duration(self.ttl),
            "stale": self.declared.stale,
            "features": {
                feature.name: {
                    **feature.fold.model_dump(mode="json", exclude={"default", "type"}),
                    "type": str(feature.type),
                    "default": to_json(feature.type, feature.default),
                }
                for feature in self.features
            },
        }

    @cached_property
    def fingerprint(self) -> str:
        """The value fingerprint: equal for equal values, whatever the description says."""
        return fingerprint_of(self.definition)


def fingerprint_of(definition: Any) -> str:
    """The fingerprint of a plain JSON definition: 32 hex digits of BLAKE2b over its canonical form."""
    text = orjson.dumps(definition, option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(text, digest_size=16).hexdigest()


def resolve(view: FeatureView, raw: dict[str, str]) -> ResolvedView:
    """The view over a source whose columns have the DuckDB types `raw`.

    Raises DeclarationError where a column does not exist or a stated type would lose something, SourceError where a
    column's type is none that a feature can have.
    """
    columns: dict[str, FeatureType] = {}
    keys = []
    for name, of in view.entity.key.items():
        column = view.key_column(name)
        _read(view, raw, columns, column, of, f"key '{name}'")
        keys.append(KeyColumn(name, of, column))
    features = []
    for name, fold in view.features.items():
        own = _own_type(view, raw, fold.column, f"feature '{name}'")
        result = fold.type or FOLDS[fold.kind].result(own)
        _read(view, raw, columns, fold.column, result, f"feature '{name}'")
        features.append(ResolvedFeature(name, fold, result, _default(view, name, fold, result)))
    _read_words(view, raw, columns)
    refresh = view.said("refresh")
    continuous = refresh == "continuous"
    settle = 0 if continuous else view.said("settle") or 0
    ready = view.said("ready_after")
    timing = Timing(
        refresh=None if continuous else refresh,
        offset=0 if continuous else view.said("refresh_offset") or 0,
        settle=settle,
        ready_after=0 if continuous else settle if ready is None else ready,
    )
    return ResolvedView(
        declared=view,
        keys=tuple(keys),
        features=tuple(sorted(features, key=lambda feature: feature.name)),  # as listed or not: one order in records
        timing=timing,
        ttl=view.said("ttl"),
        columns=columns,
        raw={name: raw[name] for name in columns},
    )


def _own_type(view: FeatureView, raw: dict[str, str], column: str, role: str) -> FeatureType:
    if column not in raw:
        hint = did_you_mean(column, raw, noun="Columns")
        raise view.error(f"source '{view.source.name}' has no column '{column}' for its {role}.{hint}")
    of = type_of_column(raw[column])
    if of is None:
        raise SourceError(
            f"{view.title}: {role}: column '{column}' of source '{view.source.name}' is {raw[column]}, which no feature type "
            f"holds exactly; cast it in the data ({view.origin})"
        )
    return of


def _read(
    view: FeatureView, raw: dict[str, str], columns: dict[str, FeatureType], column: str, target: FeatureType, role: str
) -> None:
    own = _own_type(view, raw, column, role)
    if not widens(own, target):
        raise view.error(
            f"{role} is {target}, but column '{column}' of source '{view.source.name}' is {own} ({raw[column]}), "
            "which does not fit without loss"
        )
    # Two features may read one column as different types; each casts from the column's own, so the order is the same.
    columns[column] = own


def _read_words(view: FeatureView, raw: dict[str, str], columns: dict[str, FeatureType]) -> None:
    source = view.source
    for column in source.word_columns:
        columns[column] = _own_type(view, raw, column, f"source '{source.name}'")
    for column in source.time_columns:
        try:
            instant_sql(source, column, raw[column])
        except ValueError as error:
            raise source.error(f"column '{column}' cannot be a time: {error}") from None
    if source.deleted and raw[source.deleted] != "BOOLEAN":
        raise source.error(f"deleted column '{source.deleted}' is {raw[source.deleted]}, and must be BOOLEAN")


def _default(view: FeatureView, name: str, fold: Fold, of: FeatureType) -> Any:
    try:
        return of.accept(fold.default)
    except ValueError as error:
        raise DeclarationError(f"{view.title}: default of feature '{name}': {error} ({fold.origin})") from None
