"""Explain a request: what a model was served in it, and the computation that gives it again.

Each view is asked for the key of the request at the as_of that was served, and each function for the inputs that were
logged. What comes out is put beside what the log holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from featurestore.clock import to_datetime
from featurestore.declare.on_demand import OnDemand
from featurestore.errors import FingerprintError, NotFoundError, OnDemandError, RequestError
from featurestore.lazy import pa, pc
from featurestore.online.source_state import LAG_US
from featurestore.reports.audit.logged import Logged, answered
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
from featurestore.serving.log.project_log import ProjectLog
from featurestore.serving.served_rows import find_request
from featurestore.settings import ServingLogConfig
from featurestore.sources.offline import Offline
from featurestore.types import FeatureType

Resolve = Callable[[str, str], ResolvedService]


def explain_request(
    request: str, log: ProjectLog, offline: Offline, resolve: Resolve, *, row: int = 0, limit: int = 100
) -> RequestExplanation:
    """How row `row` (from 0) of a logged request came about.

    resolve: (service, fingerprint) → the definitions that were served, with the functions at hand. limit: rows of the
    source that are shown of each view. Raises NotFoundError where the log has no such request, RequestError where it
    has no such row, FingerprintError where what was served is not at hand any more, SourceError.
    """
    found = find_request(log.folder, request)
    if found is None and log.there is not None:
        found = find_request(log.folder, request, listed=log.segments)
    if found is None:
        raise NotFoundError(f"The serving log has no request '{request}'. {_why_none(log.said)}")
    name, fingerprint, rows = found
    rows = rows.filter(pc.equal(rows["time"], rows["time"][-1]))  # an id used again: what it was last answered
    try:
        service = resolve(name, fingerprint)
    except (LookupError, FingerprintError) as error:
        raise FingerprintError(
            f"Request '{request}' was answered by service '{name}' with fingerprint {fingerprint}, whose definitions are not "
            f"at hand: {error}"
        ) from error
    numbers = rows["row"].to_pylist()  # not all of them, where a part of the keys is logged
    if row not in numbers:
        raise RequestError(f"Request '{request}' has no row {row} in the log; it has {', '.join(map(str, numbers))}")
    logged = Logged(service, None, rows.slice(numbers.index(row), 1))
    if not answered(logged.rows).num_rows:
        raise NotFoundError(
            f"Request '{request}' came while the online store could not be reached: it was answered with the defaults, "
            "which come of no rows"
        )
    inputs = {name: _only(canonical(logged.brought[name], of)) for name, of in logged.brought_types.items()}
    views = tuple(_view(part, logged, inputs, offline, limit=limit) for part in service.parts)
    return RequestExplanation(
        request=request,
        row=row,
        rows=rows.num_rows,
        service=name,
        fingerprint=fingerprint,
        time=inputs[REQUEST_TIME],
        inputs={column: inputs[column] for column in service.inputs},
        input_types=service.inputs,
        views=views,
        functions=tuple(_function(item, logged, inputs, views) for item in service.on_demand),
    )


def _why_none(log: ServingLogConfig) -> str:
    if not log.rate and not any(log.rates.values()):
        return "It is off: [serving_log] rate in featurestore.toml says how many of the requests are logged."
    sampled = log.rate < 1 or any(rate < 1 for rate in log.rates.values())
    part = "Only a part of the requests is logged ([serving_log] rate in featurestore.toml), and " if sampled else ""
    text = f"{part}a process writes what it served within about a second; an answer's `request` is its id, where it is logged."
    return text[0].upper() + text[1:]


def _only(column: pa.Array | pa.ChunkedArray) -> Any:
    """The value of the one row."""
    return scalars(column)[0]


def _view(part: ServiceView, logged: Logged, inputs: dict[str, Any], offline: Offline, *, limit: int) -> ServedView:
    key = {key.name: inputs[column] for key, column in zip(part.view.keys, part.inputs, strict=True)}
    instants = logged.as_of(part)
    assert instants is not None
    as_of = int(instants[0])
    explanation = explain_as_of(part.view, offline, key, as_of=as_of, limit=limit)
    _, served = logged.of_part(part)
    features = []
    for feature in part.features:
        column = part.column(feature.name)
        status, value = str(served.statuses[column][0]), _only(served.columns[column])
        status_now, now = explanation.statuses[feature.name], explanation.values[feature.name]
        agrees: bool | None = None
        if status != Status.WITHHELD.name:
            agrees = status == status_now and same_value(feature.type, value, now)
        features.append(ServedFeature(column, feature.type, value, status, now, status_now, agrees))
    due = part.view.timing.as_of(int(logged.times[0]))
    lag = timedelta(microseconds=LAG_US if part.view.is_pushed else 0)
    return ServedView(part.name, to_datetime(as_of), to_datetime(due), tuple(features), explanation, lag)


def _function(item: OnDemand, logged: Logged, brought: dict[str, Any], views: tuple[ServedView, ...]) -> ServedFunction:
    features = {feature.column: feature for view in views for feature in view.features}
    names = input_names(item)
    types = {name: features[name].type if name in features else logged.brought_types[name] for name in names}
    inputs = {name: features[name].served if name in features else brought[name] for name in names}
    served = logged.column(item.name, item.output)
    assert served is not None
    value, error = _only(served), None
    try:
        now = _evaluated(item, inputs, types)
    except OnDemandError as raised:
        now, error = None, str(raised)
    agrees = error is None and same_value(item.output, value, now)
    return ServedFunction(item.name, item.output, inputs, types, value, now, error, agrees)


def _evaluated(item: OnDemand, inputs: Mapping[str, Any], types: Mapping[str, FeatureType]) -> Any:
    arrays = {name: canonical(pa.array([value], types[name].arrow), types[name]) for name, value in inputs.items()}
    return scalars(evaluate(item, arrays, lambda _: "the logged row"))[0]
