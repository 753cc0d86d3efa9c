"""Explain a request: what a model was served in it, and the computation that gives it again.

Each view is asked for the key of the request at the as_of that was served, and each function for the inputs that were
logged. What comes out is put beside what the log holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from featurestore.clock import instant_of, to_datetime
from featurestore.config import ServingLogConfig
from featurestore.declare.on_demand import OnDemand
from featurestore.errors import FingerprintError, NotFoundError, OnDemandError, RequestError
from featurestore.online.source_state import LAG
from featurestore.reports.explain.explain import explain_as_of
from featurestore.reports.explain.request_explanation import (
    RequestExplanation,
    ServedFeature,
    ServedFunction,
    ServedView,
)
from featurestore.semantics.evaluate import evaluate, input_names
from featurestore.semantics.order import same_value
from featurestore.semantics.service import REQUEST_TIME, ResolvedService, ServiceView
from featurestore.semantics.status import Status
from featurestore.semantics.values import canonical, scalars
from featurestore.serving.served_rows import (
    as_of_column,
    feature_column,
    find_request,
    input_column,
    status_columns,
)
from featurestore.sources.offline import Offline
from featurestore.types import FeatureType, Timestamp

__all__ = ["explain_request"]

Resolve = Callable[[str, str], ResolvedService]


def explain_request(
    request: str, log: ServingLogConfig, offline: Offline, resolve: Resolve, *, row: int = 0, limit: int = 100
) -> RequestExplanation:
    """How row `row` (from 0) of a logged request came about.

    resolve: (service, fingerprint) → the definitions that were served, with the functions at hand. limit: rows of the
    source that are shown of each view. Raises NotFoundError where the log has no such request, RequestError where it
    has no such row, FingerprintError where what was served is not at hand any more, SourceError.
    """
    found = find_request(log.folder, request)
    if found is None:
        raise NotFoundError(f"The serving log has no request '{request}'. {_why_none(log)}")
    name, fingerprint, rows = found
    rows = rows.filter(pc.equal(rows["time"], rows["time"][-1]))  # an id used again: what it was last answered
    try:
        service = resolve(name, fingerprint)
    except (LookupError, FingerprintError) as error:
        raise FingerprintError(
            f"Request '{request}' was answered by service '{name}' with fingerprint {fingerprint}, whose definitions are not "
            f"at hand: {error}"
        ) from error
    logged = rows["row"].to_pylist()  # not all of them, where a part of the keys is logged
    if row not in logged:
        raise RequestError(f"Request '{request}' has no row {row} in the log; it has {', '.join(map(str, logged))}")
    served = _Served(service, rows.slice(logged.index(row), 1))
    views = tuple(_view(part, served, offline, limit=limit) for part in service.parts)
    return RequestExplanation(
        request=request,
        row=row,
        rows=rows.num_rows,
        service=name,
        fingerprint=fingerprint,
        time=served.time,
        inputs={column: served.input(column) for column in service.inputs},
        input_types=service.inputs,
        views=views,
        functions=tuple(_function(item, served, views) for item in service.declared.on_demand),
    )


def _why_none(log: ServingLogConfig) -> str:
    if not log.rate and not any(log.rates.values()):
        return "It is off: [serving_log] rate in featurestore.toml says how many of the requests are logged."
    sampled = log.rate < 1 or any(rate < 1 for rate in log.rates.values())
    part = "Only a part of the requests is logged ([serving_log] rate in featurestore.toml), and " if sampled else ""
    text = f"{part}a process writes what it served within about a second; an answer's `request` is its id, where it is logged."
    return text[0].upper() + text[1:]


class _Served:
    """One logged row, by the names that the log has for what is in it."""

    def __init__(self, service: ResolvedService, row: pa.Table) -> None:
        self._row = row
        self._types = {column.name: column.type for column in (*service.columns, *service.hidden)}
        self._inputs = service.inputs

    def value(self, column: str) -> Any:
        """The value of a feature column, as served."""
        return self._scalar(feature_column(column), self._types[column])

    def input(self, name: str) -> Any:
        """A key or request value."""
        return self._scalar(input_column(name), self._inputs[name])

    def word(self, column: str) -> Any:
        """A status, or an instant."""
        return self._row[column][0].as_py()

    def instant(self, column: str) -> int:
        """An instant in µs."""
        return instant_of(self.word(column))

    @property
    def time(self) -> Any:
        """When the request was answered."""
        return self.word("time")

    def _scalar(self, column: str, of: FeatureType) -> Any:
        return scalars(canonical(self._row[column], of))[0]


def _view(part: ServiceView, served: _Served, offline: Offline, *, limit: int) -> ServedView:
    key = {key.name: served.input(column) for key, column in zip(part.view.keys, part.inputs, strict=True)}
    as_of = served.instant(as_of_column(part))
    explanation = explain_as_of(part.view, offline, key, as_of=as_of, limit=limit)
    statuses = {column: served.word(own) for own, columns in status_columns(part).items() for column in columns}
    features = []
    for feature in part.features:
        column = part.column(feature.name)
        status, now, status_now = statuses[column], explanation.values[feature.name], explanation.statuses[feature.name]
        value = served.value(column)
        agrees: bool | None = None
        if status != Status.WITHHELD.name:
            agrees = status == status_now and same_value(feature.type, value, now)
        features.append(ServedFeature(column, feature.type, value, status, now, status_now, agrees))
    due = part.view.timing.as_of(instant_of(served.time))
    lag = timedelta(microseconds=LAG if part.view.is_pushed else 0)
    return ServedView(part.name, to_datetime(as_of), to_datetime(due), tuple(features), explanation, lag)


def _function(item: OnDemand, served: _Served, views: tuple[ServedView, ...]) -> ServedFunction:
    features = {feature.column: feature for view in views for feature in view.features}
    inputs: dict[str, Any] = {}
    types: dict[str, FeatureType] = {}
    for name, declared in zip(input_names(item), item.inputs, strict=True):
        if name in features:
            feature = features[name]
            types[name], inputs[name] = feature.type, feature.served
        elif name == REQUEST_TIME:
            types[name], inputs[name] = Timestamp, served.time
        else:
            types[name], inputs[name] = getattr(declared, "type"), served.input(name)  # noqa: B009 - a Request
    value, error = served.value(item.name), None
    try:
        now = _evaluated(item, inputs, types)
    except OnDemandError as raised:
        now, error = None, str(raised)
    agrees = error is None and same_value(item.output, value, now)
    return ServedFunction(item.name, item.output, inputs, types, value, now, error, agrees)


def _evaluated(item: OnDemand, inputs: Mapping[str, Any], types: Mapping[str, FeatureType]) -> Any:
    arrays = {name: canonical(pa.array([value], types[name].arrow), types[name]) for name, value in inputs.items()}
    return scalars(evaluate(item, arrays, lambda _: "the logged row"))[0]
