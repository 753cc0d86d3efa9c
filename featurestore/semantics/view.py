"""A view with everything settled that can change a value: types, times, defaults. Its fingerprint is its identity."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import orjson

from featurestore.declare.durations import show_duration
from featurestore.declare.expectations import RowExpectation
from featurestore.declare.folds import Fold
from featurestore.declare.push import PushSource
from featurestore.declare.sources import Source
from featurestore.declare.views import FeatureView
from featurestore.errors import DeclarationError, SourceError, did_you_mean
from featurestore.semantics.columns import RawColumns, identity_of, instant_sql, type_of_column, widens
from featurestore.semantics.expectations import SettledExpectation, pushed_expectations, removing, settle
from featurestore.semantics.expressions import check_faults, settled
from featurestore.semantics.folds import FOLDS, Algebra
from featurestore.semantics.time import Timing
from featurestore.semantics.tokens import names_in, normalised
from featurestore.semantics.windows import Span, default_hop
from featurestore.types import FeatureType, to_json

EVENT_TIME, UNTIL = "event time", "until when"
"""Columns of an answer's rows beside the features; no feature can bear such a name."""


def status_column(feature: str) -> str:
    """The column of an answer's rows with a folded feature's Status."""
    return f"status of {feature}"


@dataclass(frozen=True, slots=True)
class KeyColumn:
    """One column of an entity's key: its name, its type, and the source column that holds it."""

    name: str
    type: FeatureType
    column: str


@dataclass(frozen=True, slots=True)
class ResolvedFeature:
    """One feature: what it is made of, and the type of its values.

    reads: the type as which its column is read, None if it names no column. span: its window, None if it has none (then the view's ttl
    bounds it, if there is one). where: the SQL condition on its rows, the view's included.
    """

    name: str
    fold: Fold
    type: FeatureType
    default: Any
    reads: FeatureType | None
    span: Span | None
    where: str | None

    @property
    def ttl_counts_nulls(self) -> bool:
        """Whether a row within the ttl can keep it from being EXPIRED and yet add nothing to its value."""
        return self.span is None and not algebra_of(self).takes_null

    @property
    def plain(self) -> bool:
        """Whether its value is a column of the view's newest visible row, as all plain columns of the view are."""
        return self.fold.kind == "Latest" and self.span is None and self.where is None


@dataclass(frozen=True)
class ResolvedView:
    """A view whose types are settled. `columns` has the type as which each source column is read, `raw` DuckDB's own.

    first: of columns that files have in several types, the DuckDB type by which its identity names them.
    """

    declared: FeatureView
    keys: tuple[KeyColumn, ...]
    features: tuple[ResolvedFeature, ...]
    timing: Timing
    ttl: int | None
    columns: dict[str, FeatureType]
    raw: dict[str, str]
    first: dict[str, str] = field(default_factory=dict)
    expectations: tuple[SettledExpectation, ...] = ()
    """What is expected of each row of its source's files, by the source and by the view; of pushed rows it is when they are pushed."""

    @property
    def named_raw(self) -> dict[str, str]:
        """`raw` as its identity names it."""
        return {**self.raw, **self.first}

    @cached_property
    def identity_columns(self) -> dict[str, str]:
        """`columns` as its identity names them, by name."""
        narrow = {name: of for name, raw in self.first.items() if (of := type_of_column(raw)) is not None}
        named, raws = {**self.columns, **narrow}, self.named_raw
        return {name: identity_of(of, raws[name]) for name, of in sorted(named.items())}

    @property
    def name(self) -> str:
        """The view's name."""
        return self.declared.name

    @property
    def source(self) -> Source:
        """Where its rows come from."""
        return self.declared.source

    @property
    def is_pushed(self) -> bool:
        """Whether its records online are kept up to date by pushes, and not by materialize."""
        return isinstance(self.source, PushSource) and self.timing.refresh is None

    @cached_property
    def definition(self) -> dict[str, Any]:
        """All that can change a value, as plain JSON; where the data lies is no part of it."""
        source = self.source
        timing = self.timing
        derived = {name: normalised(text) for name, text in source.derived.items() if name in self.columns}
        return {
            "view": self.name,
            "source": {**_source_words(source), **_history_words(source)},
            "columns": self.identity_columns,
            **({"derived": derived} if derived else {}),
            **_expected(self.expectations),
            "keys": [[key.name, str(key.type), key.column] for key in self.keys],
            "refresh": None if timing.refresh is None else show_duration(timing.refresh),
            "refresh_offset": show_duration(timing.offset),
            "settle": show_duration(timing.settle),
            "ready_after": show_duration(timing.ready_after),
            "ttl": None if self.ttl is None else show_duration(self.ttl),
            "stale": self.declared.stale,
            "features": {feature.name: _feature_definition(feature, self.ttl) for feature in self.features},
        }

    @cached_property
    def plain(self) -> tuple[ResolvedFeature, ...]:
        """The features that are columns of the newest visible row."""
        return tuple(feature for feature in self.features if feature.plain)

    @cached_property
    def folded(self) -> tuple[ResolvedFeature, ...]:
        """The features that are folds of several rows, or of chosen ones."""
        return tuple(feature for feature in self.features if not feature.plain)

    @cached_property
    def fingerprint(self) -> str:
        """The value fingerprint: equal for equal values, whatever the description says."""
        return fingerprint_of(self.definition)


def _source_words(source: Source) -> dict[str, Any]:
    words = source.model_dump(
        mode="json",
        include={
            "name", "event_time", "known_at", "known_after", "history_until", "identity", "version", "tiebreak", "deleted",
            "until", "valid_from", "date", "period",
        },
    )  # fmt: skip
    return {**words, "timezone": source.timezone or "UTC", **source.value_words}


def _history_words(source: Source) -> dict[str, Any]:
    """What a push source says of the batch rows before its cutover; where they lie is no part of it."""
    if not isinstance(source, PushSource) or source.history is None:
        return {}
    history = source.history
    assert source.cutover is not None, "a history has one"
    derived = {name: normalised(text) for name, text in history.derived.items() if name in source.columns}
    words = {
        **_source_words(history),
        **({"derived": derived} if derived else {}),
        **_expected(pushed_expectations(source)),
    }
    return {"cutover": source.cutover.isoformat(), "history": words}


def _expected(expectations: Sequence[SettledExpectation]) -> dict[str, Any]:
    """Which rows count nowhere for what they say; whether they are refused or kept aside changes no value."""
    meanings = {orjson.dumps(expectations[place].meaning) for place in removing(expectations)}
    return {"expectations": [orjson.loads(meaning) for meaning in sorted(meanings)]} if meanings else {}


def _feature_definition(feature: ResolvedFeature, ttl: int | None) -> dict[str, Any]:
    said = feature.fold.model_dump(mode="json", exclude_defaults=True, exclude={"default", "type", "where", "hop"})
    span = feature.span
    return {
        **said,
        "kind": feature.fold.kind,
        **feature.fold.parameters,
        "type": str(feature.type),
        "default": to_json(feature.type, feature.default),
        **({"hop": show_duration(span.hop)} if span is not None and span.hop else {}),
        **({"where": feature.where} if feature.where else {}),
        **({"ttl": "of rows"} if ttl is not None and feature.ttl_counts_nulls else {}),
    }


def fingerprint_of(definition: Any) -> str:
    """The fingerprint of a plain JSON definition: 32 hex digits of BLAKE2b over its canonical form."""
    text = orjson.dumps(definition, option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(text, digest_size=16).hexdigest()


def resolve(view: FeatureView, raw: dict[str, str], *, checked: bool = False) -> ResolvedView:
    """The view over a source whose columns have the DuckDB types `raw`.

    checked: its conditions were checked when it was applied, and `raw` has the columns that it reads and no others. Then the engine need not
    be asked: each column is read as its own type, whatever reads it.

    Raises DeclarationError where a column does not exist or a stated type would lose something, SourceError where a
    column's type is none that a feature can have.
    """
    columns: dict[str, FeatureType] = {}
    keys = []
    for name, of in view.entity.key.items():
        column = view.key_column(name)
        columns[column] = own = _own_type(view, raw, column, f"key '{name}'")
        if not widens(own, of):
            raise view.error(
                f"key '{name}' is {of}, but column '{column}' of source '{view.source.name}' is {own} ({raw[column]}), which does "
                "not fit without loss"
            )
        keys.append(KeyColumn(name, of, column))
    features = [_feature(view, raw, columns, name, fold, checked=checked) for name, fold in view.features.items()]
    _read_words(view, raw, columns)
    expectations = _expectations(view, raw, columns)
    refresh = view.said("refresh")
    settle = view.said("settle") or 0
    timing = Timing(
        refresh=None if refresh == "continuous" else refresh,
        offset=view.said("refresh_offset") or 0,
        settle=settle,
        ready_after=view.said("ready_after") or settle,
    )
    return ResolvedView(
        declared=view,
        keys=tuple(keys),
        features=tuple(sorted(features, key=lambda feature: feature.name)),  # as listed or not: one order in records
        timing=timing,
        ttl=view.said("ttl"),
        columns=columns,
        raw={name: raw[name] for name in columns},
        first=_first(raw, columns, features, expectations),
        expectations=expectations,
    )


def _first(
    raw: Mapping[str, str],
    columns: Iterable[str],
    features: Sequence[ResolvedFeature],
    expectations: Sequence[SettledExpectation],
) -> dict[str, str]:
    """The columns of several types whose wider type is no part of a view's identity: those of which no state is kept, and with
    whose values no limits are compared as other types, so that files of a wider type change no value."""
    kept = {feature.fold.column for feature in features if not feature.plain}
    mixed = {name: mix for name in columns if name not in kept and (mix := RawColumns.mix(raw, name)) is not None}
    other = {
        one.said.column
        for one in expectations
        if one.said.column in mixed and not one.is_of(mixed[one.said.column].first)
    }
    return {name: mix.first for name, mix in mixed.items() if name not in other}


def _feature(
    view: FeatureView, raw: dict[str, str], columns: dict[str, FeatureType], name: str, fold: Fold, *, checked: bool
) -> ResolvedFeature:
    """One feature with its types and its window settled; the columns that it reads are added to `columns`."""
    role = f"feature '{name}'"
    # Two features may read one column as different types; each casts from the column's own, so the order is the same.
    own = None if fold.column is None else columns.setdefault(fold.column, _own_type(view, raw, fold.column, role))
    meaning = FOLDS[fold.kind]
    if fold.column is not None and fold.type is None:
        _check_one_type(view, raw, fold, role)
    try:
        result = fold.type or meaning.result(own, **fold.parameters)
        meaning.algebra(own, result, **fold.parameters)
    except ValueError as error:
        raise view.error(
            f"{role} is {fold.title} of column '{fold.column}' of source '{view.source.name}': {error}"
        ) from None
    where = _condition(view, raw, columns, fold, role, checked=checked)
    return ResolvedFeature(name, fold, result, _default(view, name, fold, result), own, _span(view, fold), where)


def _check_one_type(view: FeatureView, raw: Mapping[str, str], fold: Fold, role: str) -> None:
    """DeclarationError where a fold's type would hang on which of a source's files there are."""
    assert fold.column is not None
    mix = RawColumns.mix(raw, fold.column)
    if mix is None:
        return
    try:
        results = {FOLDS[fold.kind].result(of, **fold.parameters) for of in mix.types.values()}
    except ValueError:  # which is said where the column is read
        return
    if len(results) > 1:
        raise view.error(
            f"{role}: the files of source '{view.source.name}' have column '{fold.column}' in several types: {mix.shown}. "
            f"State one that holds them: {fold.kind}({fold.column!r}, type={type_of_column(raw[fold.column])}, …)"
        )


def algebra_of(feature: ResolvedFeature) -> Algebra:
    """The algebra of a feature's fold."""
    return FOLDS[feature.fold.kind].algebra(feature.reads, feature.type, **feature.fold.parameters)


def _span(view: FeatureView, fold: Fold) -> Span | None:
    """The fold's window with its hop: for a continuous view the declared one or the default, else none."""
    if fold.window is None:
        return None
    if view.source.event_time is None and fold.window != "lifetime":
        raise view.error(
            f"{fold.title} needs event_time; its source is a table without time, where only 'lifetime' is known"
        )
    length = None if fold.window == "lifetime" else fold.window
    assert length is None or isinstance(length, int)
    if view.said("refresh") != "continuous":
        if fold.hop is not None:
            raise view.error(f"{fold.title}: hop is for continuous views; a refreshed view's windows are exact")
        return Span(length, fold.offset)
    hop = 0 if length is None else fold.hop or default_hop(length, few=FOLDS[fold.kind].large)
    return Span(length, fold.offset, hop)


def _condition(
    view: FeatureView, raw: dict[str, str], columns: dict[str, FeatureType], fold: Fold, role: str, *, checked: bool
) -> str | None:
    """The fold's condition and the view's as one; its columns are added to `columns`."""
    said = [text for text in (view.where, fold.where) if text is not None]
    for text in said:
        if checked:
            columns.update((column, _own_type(view, raw, column, role)) for column in names_in(text, raw))
            continue
        try:
            check_faults(text, raw)
            of, read = settled(text, raw)
            if of != "BOOLEAN":
                raise ValueError(f"it is {of}, and a condition must be BOOLEAN")
        except ValueError as error:
            raise view.error(f"{role}: where {text!r}: {error}") from None
        for column in read:
            columns[column] = _own_type(view, raw, column, f"{role}'s condition")
    return " AND ".join(f"({normalised(text)})" for text in said) or None


def _own_type(view: FeatureView, raw: dict[str, str], column: str, role: str) -> FeatureType:
    fault = RawColumns.fault(raw, column)
    if fault is not None:
        raise SourceError(
            f"{view.title}: {role}: column '{column}' of source '{view.source.name}' {fault} ({view.origin})"
        )
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


def _read_words(view: FeatureView, raw: dict[str, str], columns: dict[str, FeatureType]) -> None:
    source = view.source
    for column in source.option_columns:
        columns[column] = _own_type(view, raw, column, source.option_of(column))
    for column in source.time_columns:
        try:
            instant_sql(source, column, raw[column])
        except ValueError as error:
            raise source.error(f"column '{column}' cannot be a time: {error}") from None
    if source.deleted and raw[source.deleted] != "BOOLEAN":
        raise source.error(f"deleted column '{source.deleted}' is {raw[source.deleted]}, and must be BOOLEAN")


def _expectations(
    view: FeatureView, raw: dict[str, str], columns: dict[str, FeatureType]
) -> tuple[SettledExpectation, ...]:
    """What is expected of the rows of files; the columns that it reads are added to `columns`."""
    if isinstance(view.source, PushSource):
        pushed_expectations(view.source)
        return ()
    found = []
    for by in (view.source, view):
        for one in by.expectations:
            try:
                if isinstance(one, RowExpectation):
                    columns[one.column] = of = _own_type(view, raw, one.column, f"expectation {one.title}")
                    found.append(settle(one, of))
            except ValueError as error:
                if isinstance(error, DeclarationError):
                    raise
                raise by.error(f"expectations: {error}") from None
    return tuple(found)


def _default(view: FeatureView, name: str, fold: Fold, of: FeatureType) -> Any:
    try:
        return of.accept(fold.default)
    except ValueError as error:
        raise DeclarationError(f"{view.title}: default of feature '{name}': {error}", fold.origin) from None
