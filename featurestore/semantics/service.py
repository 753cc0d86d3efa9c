"""A service with everything settled: what it reads, the columns it gives, and the fingerprint a model is pinned to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from featurestore.declare.on_demand import OnDemand, Request, RequestTime
from featurestore.declare.services import FeatureService
from featurestore.declare.views import Selection
from featurestore.semantics.view import ResolvedFeature, ResolvedView, fingerprint_of
from featurestore.types import FeatureType

REQUEST_TIME = "request time"
"""Under which name the instants of the requests are among the inputs of functions; no input can bear it."""


@dataclass(frozen=True, slots=True)
class ServiceView:
    """A view as one service reads it: under a name, its keys taken from `inputs`, the features that are needed."""

    name: str
    view: ResolvedView
    inputs: tuple[str, ...]
    features: tuple[ResolvedFeature, ...]

    def column(self, feature: str) -> str:
        """The column name of one of its features."""
        return f"{self.name}__{feature}"


@dataclass(frozen=True, slots=True)
class ServiceColumn:
    """One column of the result: a feature of a part, or an on-demand feature."""

    name: str
    type: FeatureType
    part: str | None
    feature: str | None
    on_demand: OnDemand | None


@dataclass(frozen=True)
class ResolvedService:
    """What one model eats, column by column."""

    declared: FeatureService
    parts: tuple[ServiceView, ...]
    columns: tuple[ServiceColumn, ...]
    key_inputs: dict[str, FeatureType]
    request_inputs: dict[str, FeatureType]

    @property
    def name(self) -> str:
        """The service's name."""
        return self.declared.name

    @property
    def inputs(self) -> dict[str, FeatureType]:
        """Every column that a request row or a spine must bring: entity keys, then request values."""
        return {**self.key_inputs, **self.request_inputs}

    @cached_property
    def on_demand(self) -> tuple[OnDemand, ...]:
        """Its on-demand features."""
        return self.declared.on_demand

    @cached_property
    def hidden(self) -> tuple[ServiceColumn, ...]:
        """The features that only on-demand features read: looked up and logged, and no column of the result."""
        shown = {column.name for column in self.columns}
        return tuple(
            ServiceColumn(part.column(feature.name), feature.type, part.name, feature.name, None)
            for part in self.parts
            for feature in part.features
            if part.column(feature.name) not in shown
        )

    @cached_property
    def kinds(self) -> dict[str, list[int]]:
        """The kinds of its columns' types, and at which places the columns of each kind are."""
        places: dict[str, list[int]] = {}
        for place, column in enumerate(self.columns):
            places.setdefault(column.type.kind, []).append(place)
        return places

    @cached_property
    def definition(self) -> dict[str, Any]:
        """All that can change what the model is given, as plain JSON."""
        return {
            "columns": [[column.name, str(column.type)] for column in self.columns],
            "parts": {part.name: {"view": part.view.definition, "inputs": list(part.inputs)} for part in self.parts},
            "on_demand": {
                item.name: {
                    "code": item.code,
                    "mode": item.mode,
                    "output": str(item.output),
                    "inputs": [_input(value) for value in item.inputs],
                }
                for item in self.on_demand
            },
        }

    @cached_property
    def fingerprint(self) -> str:
        """What a model was trained on: stamped into manifests, checked when served."""
        return fingerprint_of(self.definition)


def _input(value: Selection | Request | RequestTime) -> list[str]:
    if isinstance(value, Selection):
        return ["feature", value.columns[0]]
    if isinstance(value, Request):
        return ["request", value.name, str(value.type)]
    return ["request_time"]


def resolve_service(service: FeatureService, views: Mapping[str, ResolvedView]) -> ResolvedService:
    """The service over resolved views (by name); DeclarationError where its names or types clash."""
    parts = _parts(service, views)
    columns = []
    for item in service.features:
        if isinstance(item, OnDemand):
            columns.append(ServiceColumn(item.name, item.output, None, None, item))
            continue
        types = {feature.name: feature.type for feature in views[item.view.name].features}
        columns += [ServiceColumn(f"{item.name}__{name}", types[name], item.name, name, None) for name in item.features]
    names = [column.name for column in columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise service.error(f"column '{twice[0]}' is listed twice; list it once, or give one of the views an alias")
    keys: dict[str, FeatureType] = {}
    for part in parts:
        for column, key in zip(part.inputs, part.view.keys, strict=True):
            if keys.setdefault(column, key.type) != key.type:
                raise service.error(
                    f"key column '{column}' is {keys[column]} for one view and {key.type} for '{part.name}'"
                )
    requests: dict[str, FeatureType] = {}
    for item in service.on_demand:
        for request in item.requests:
            of = keys.get(request.name, requests.get(request.name, request.type))
            if of != request.type:
                raise service.error(f"request value '{request.name}' is {of} and {request.type}; give them one type")
            if request.name not in keys:
                requests[request.name] = request.type
    _check_apart(service, parts, {*keys, *requests})
    return ResolvedService(service, parts, tuple(columns), keys, requests)


def _check_apart(service: FeatureService, parts: tuple[ServiceView, ...], inputs: set[str]) -> None:
    """DeclarationError where one name stands for two of what functions and results are given by name: the inputs, the
    features of views, those that only functions read among them, and the functions' own."""
    of_views = {part.column(feature.name) for part in parts for feature in part.features}
    functions = {item.name for item in service.on_demand}
    both = sorted(functions & of_views)
    if both:
        raise service.error(f"'{both[0]}' is both an on-demand feature and a feature of a view; rename one")
    clash = sorted(inputs & (of_views | functions))
    if clash:
        raise service.error(f"'{clash[0]}' is both an input column and a feature; rename one")
    if REQUEST_TIME in inputs:
        raise service.error(f"no input column can be called '{REQUEST_TIME}', which is RequestTime()'s; rename it")


def _parts(service: FeatureService, views: Mapping[str, ResolvedView]) -> tuple[ServiceView, ...]:
    chosen: dict[str, tuple[Selection, dict[str, None]]] = {}
    for item in service.selections():
        first, features = chosen.setdefault(item.name, (item, {}))
        if first.view != item.view or first.key != item.key:
            raise service.error(
                f"'{item.name}' names two things: view '{first.view.name}' by {first.key} and view "
                f"'{item.view.name}' by {item.key}; give one an alias"
            )
        features.update(dict.fromkeys(item.features))
    parts = []
    for name, (item, features) in chosen.items():
        view = views[item.view.name]
        needed = tuple(feature for feature in view.features if feature.name in features)
        parts.append(ServiceView(name, view, tuple(item.key[key.name] for key in view.keys), needed))
    return tuple(parts)
