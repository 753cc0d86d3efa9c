"""Feast: its feature server's paths, as a client with a remote online store asks and writes there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import orjson

from featurestore.clock import EPOCH
from featurestore.declare.push import PushSource
from featurestore.plurals import plural
from featurestore.semantics.status import Status
from featurestore.server.bodies import AskedLookup
from featurestore.server.compatible.routes import CompatibleRoute, Platform
from featurestore.server.compatible.values import check_pushed_rows, check_rows, json_columns, read_object, text_of
from featurestore.server.compatible.written_views import WrittenView, check_late, put, written_view
from featurestore.server.hot_routes import JSON, HotCall, HotRoutes, LookupForm
from featurestore.server.json_answers import instant, within
from featurestore.server.problems import BadRequest, HttpAnswer, LimitError
from featurestore.serving.online_result import OnlineResult
from featurestore.settings import ServerConfig
from featurestore.store import FeatureStore
from featurestore.types import FeatureType, to_json

STATUSES = {"MISSING": "NOT_FOUND", "EXPIRED": "OUTSIDE_MAX_AGE", "PRESENT": "PRESENT"}
"""Our statuses in the platform's words; where the value is null, and in all other cases, NULL_VALUE."""

EVENT_TIME, CREATED = "event_timestamp", "created"
"""Under which names a client writes a row's times; when it was created is ours to say."""

ERRORS = {403: "FeastPermissionError", 404: "FeatureViewNotFoundException"}
"""By the status of a problem the class that the client raises; of others it is that of all its errors."""


def routes(hot: HotRoutes) -> list[CompatibleRoute]:
    """What is answered to the platform's clients."""
    platform = Platform(_problem)

    async def look_up(call: HotCall, body: bytes) -> HttpAnswer:
        asked: dict[str, Any] = {}

        def read(text: bytes, config: ServerConfig) -> AskedLookup:
            asked.update(read_object(text))
            return _read(asked, config)

        def write(result: OnlineResult, most: int) -> list[bytes]:
            return _written(result, most, full=bool(asked.get("full_feature_names")))

        return await hot.looked_up(LookupForm(read, write, JSON), call, body)

    async def push(call: HotCall, body: bytes) -> HttpAnswer:
        asked = await call.room.beside(partial(read_object, body))
        source, to = asked.get("push_source_name"), asked.get("to", "online")
        if not isinstance(source, str):
            raise BadRequest("push_source_name must be the name of a push source")
        if to not in ("online", "online_and_offline"):
            raise BadRequest("to must be online or online_and_offline: what is kept in the history is served, too")
        call.principal.must("push", f"source:{source}")
        types = await call.room.beside(partial(_column_types, hot.store, source))
        pushed = await hot.pushed(
            lambda _, config: (source, _checked(_transposed("df", asked.get("df")), types, config)), call, body
        )
        check_late(pushed)
        return HttpAnswer(200, JSON, [b"null"])

    async def write(call: HotCall, body: bytes) -> HttpAnswer:
        asked = await call.room.beside(partial(read_object, body))
        name = asked.get("feature_view_name")
        if not isinstance(name, str):
            raise BadRequest("feature_view_name must be the name of a view")
        view = await call.room.beside(partial(written_view, hot.store, name, call.principal))
        pushed = await hot.pushed(
            lambda _, config: (view.source.name, _rows_of_view(view, asked.get("df"), config)), call, body
        )
        check_late(pushed)
        return HttpAnswer(200, JSON, [b"null"])

    async def health(_: HotCall, __: bytes) -> HttpAnswer:
        return HttpAnswer(200, JSON, [b"null"])

    told = [
        ("POST", "/get-online-features", "read", look_up), ("POST", "/push", "push", push),
        ("POST", "/write-to-online-store", "push", write), ("GET", "/health", None, health),
    ]  # fmt: skip
    return [
        CompatibleRoute(platform, method, path, needs, partial(hot.take, answers))
        for method, path, needs, answers in told
    ]


def _problem(answer: HttpAnswer, _: Exception) -> HttpAnswer:
    """A text, in which the client finds the class and the words of what it raises."""
    detail = orjson.loads(answer.pieces[0])["detail"]
    told = {"module": "feast.errors", "class": ERRORS.get(answer.status, "FeastError"), "message": detail}
    return answer._replace(media_type=JSON, pieces=[orjson.dumps(orjson.dumps(told).decode())])


def _read(asked: Mapping[str, Any], config: ServerConfig) -> AskedLookup:
    service: Any = asked.get("feature_service")
    features: Any = asked.get("features")
    if (service is None) == (features is None):
        raise BadRequest("The body must have features, or a feature_service")
    if service is None:
        if not isinstance(features, list) or not features or not all(isinstance(name, str) for name in features):
            raise BadRequest('features must be a list such as ["view:feature"]')
        if len(features) > config.features:
            raise LimitError(
                "features",
                f"{len(features)} {plural(len(features), 'feature is', 'features are')} asked for; at most {config.features} are, at a time",
            )
    elif not isinstance(service, str):
        raise BadRequest("feature_service must be the name of a service")
    rows = _transposed("entities", asked.get("entities"))
    check_rows(len(rows), config)
    return AskedLookup(features if service is None else service, None, rows, is_service=service is not None)


def _transposed(name: str, columns: Any) -> list[dict[str, Any]]:
    """Rows, of lists of values by column."""
    if not isinstance(columns, dict) or not columns or not all(isinstance(values, list) for values in columns.values()):
        raise BadRequest(f"{name} must map names to lists of values")
    lengths = sorted({len(values) for values in columns.values()})
    if len(lengths) > 1:
        raise BadRequest(f"The lists of {name} have {' and '.join(map(str, lengths))} values; give each as many")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _written(result: OnlineResult, most: int, *, full: bool) -> list[bytes]:
    names = [column.name if full else column.feature or column.name for column in result.service.columns]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise BadRequest(f"Two features are called '{twice}'; ask with full_feature_names=True")
    count = len(result)
    inputs = json_columns(result.inputs, result.service.inputs)
    results = [
        {"values": values, "statuses": ["PRESENT"] * count, "event_timestamps": [instant(result.now)] * count}
        for values in inputs
    ]
    for column, statuses in zip(result.service.columns, result.judged.columns(), strict=True):
        values = _values(column.type, result.columns[column.name])
        part = result.parts[column.part] if column.part is not None else None
        as_of = result.now if part is None or part.as_of is None else part.as_of
        results.append(
            {"values": values, "statuses": _statuses(values, statuses), "event_timestamps": [instant(as_of)] * count}
        )
    told = {"metadata": {"feature_names": [*result.inputs, *names]}, "results": results}
    write = (
        _with_nan
        if any((column.type.element or column.type).is_float for column in result.service.columns)
        else orjson.dumps
    )
    return within([write(told)], most)


def _with_nan(told: Any) -> bytes:
    """JSON as Python reads and writes it, with `NaN` and `Infinity`, which are no numbers of JSON."""
    return json.dumps(told, separators=(",", ":")).encode()


def _values(of: FeatureType, values: Sequence[Any]) -> Sequence[Any]:
    """JSON forms, but floats as they are: the client takes the type from the text, and of a NaN that is text a string. It cannot take an
    empty list at all, nor one with a null, which are sent as text."""
    if of.element is not None:
        inner = of.element
        return [
            None if value is None else text_of(of, value) if not value or None in value else _values(inner, value)
            for value in values
        ]
    return values if of.is_float else json_columns({"": values}, {"": of})[0]


def _statuses(values: Sequence[Any], statuses: Sequence[Status]) -> list[str]:
    words = [STATUSES.get(status.name, "NULL_VALUE") for status in statuses]
    return [
        "NULL_VALUE" if value is None and word == "PRESENT" else word for value, word in zip(values, words, strict=True)
    ]


# --- writing ------------------------------------------------------------------------------


def _column_types(store: FeatureStore, source: str) -> Mapping[str, FeatureType]:
    """The columns of a push source; none where there is no such source, which pushing to it says."""
    declared = store.registry.current().catalog.sources.get(source)
    return declared.columns if isinstance(declared, PushSource) else {}


def _rows_of_view(view: WrittenView, df: Any, config: ServerConfig) -> list[Any]:
    """Rows of a view's source: the client names the features, and the times in its own words."""
    columns = {**view.columns, EVENT_TIME: view.source.event_time}
    given = {name: values for name, values in df.items() if name != CREATED} if isinstance(df, dict) else df
    rows = []
    for told in _transposed("df", given):
        row: dict[str, Any] = {}
        for name, value in told.items():
            if name != EVENT_TIME:
                put(row, columns.get(name, name), value, name)
        if EVENT_TIME in told:  # which counts, whatever a feature says
            row[columns[EVENT_TIME]] = told[EVENT_TIME]
        rows.append(row)
    return _checked(rows, view.source.columns, config)


def _checked(rows: list[dict[str, Any]], types: Mapping[str, FeatureType], config: ServerConfig) -> list[Any]:
    check_pushed_rows(len(rows), config)
    return [{name: _form(types.get(name), value) for name, value in row.items()} for row in rows]


def _form(of: FeatureType | None, value: Any) -> Any:
    """A value's JSON form: the client sends timestamps as seconds."""
    if of is None or value is None:
        return value
    if of.element is not None and isinstance(value, list):
        return [_form(of.element, item) for item in value]
    if of.kind == "Timestamp" and type(value) is int and abs(value) < 1 << 36:
        return to_json(of, EPOCH + timedelta(seconds=value))
    return value
