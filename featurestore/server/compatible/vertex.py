"""Vertex AI Feature Store: values of a feature view, as google-cloud-aiplatform fetches them over REST.

A feature view is a view, or a service; the project, the location and the online store in its path are any. A key is one text, or a
composite key of one text for each column.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import orjson

from featurestore.errors import NotFoundError
from featurestore.number_texts import whole_of
from featurestore.server.bodies import AskedLookup
from featurestore.server.compatible.routes import CompatibleRoute, Platform, worded
from featurestore.server.compatible.values import (
    check_pushed_rows,
    column_types,
    key_rows,
    member,
    read_object,
    shown_names,
)
from featurestore.server.compatible.written_views import WrittenView, check_late, put, readable, written_view
from featurestore.server.hot_routes import JSON, HotCall, HotRoutes, LookupForm
from featurestore.server.json_answers import instant, within
from featurestore.server.problems import BadRequest, HttpAnswer
from featurestore.serving.online_result import OnlineResult
from featurestore.types import FeatureType, to_json

CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    409: "FAILED_PRECONDITION",
    413: "INVALID_ARGUMENT",
    422: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
}
"""By the status of a problem the platform's word for it; of all others INVALID_ARGUMENT below 500, or INTERNAL."""

STRUCT = (2, "PROTO_STRUCT")
"""How a request asks for plain values, in place of values with their types."""

SCALARS = {
    "Bool": "boolValue", "Int32": "int64Value", "Int64": "int64Value", "Float32": "doubleValue", "Float64": "doubleValue",
    "Bytes": "bytesValue",
}  # fmt: skip
LISTS = {
    "boolValue": "boolArrayValue",
    "int64Value": "int64ArrayValue",
    "doubleValue": "doubleArrayValue",
    "stringValue": "stringArrayValue",
}

STORE = "/projects/{project}/locations/{location}/featureOnlineStores/{store}"
VIEW = STORE + "/featureViews/{name}"
VERSIONS = ("/v1", "/v1beta1")
"""Of the platform's API, which are the same here; its higher client asks by either."""


def routes(hot: HotRoutes) -> list[CompatibleRoute]:
    """What is answered to the platform's clients."""
    platform = Platform(_problem)
    views = _Views(hot)
    told = [
        ("POST", VIEW + ":fetchFeatureValues", "read", views.fetch), ("POST", VIEW + ":directWrite", "push", views.write),
        ("GET", VIEW, "read", views.view), ("GET", STORE, "read", views.store),
    ]  # fmt: skip
    return [
        CompatibleRoute(platform, method, version + path, needs, partial(hot.take, answers))
        for version in VERSIONS
        for method, path, needs, answers in told
    ]


def _problem(answer: HttpAnswer, _: Exception) -> HttpAnswer:
    status, code, detail = worded(answer, CODES, "INTERNAL")
    told = {"error": {"code": status, "message": detail, "status": code}}
    return answer._replace(status=status, media_type=JSON, pieces=[orjson.dumps(told)])


class _Views:
    """The operations on feature views, over the lookups and pushes of a server."""

    def __init__(self, hot: HotRoutes) -> None:
        self._hot = hot

    async def fetch(self, call: HotCall, body: bytes) -> HttpAnswer:
        """fetchFeatureValues: the features of one key, in either format."""
        asked, name = await call.room.beside(partial(read_object, body)), call.scope["path_params"]["name"]
        service = await call.room.beside(partial(readable, self._hot.store, name, call.principal))
        parts, data_key = _parts(asked.get("dataKey"), asked.get("id"))
        rows = key_rows(service.inputs, [parts], self._hot.config)

        def write(result: OnlineResult, most: int) -> list[bytes]:
            told = _struct(result, name) if asked.get("dataFormat") in STRUCT else _key_values(result, name)
            return within([orjson.dumps({**told, "dataKey": data_key})], most)

        found = AskedLookup(name, None, rows, is_service=False)
        return await self._hot.looked_up(LookupForm(lambda *_: found, write, JSON), call, b"")

    async def write(self, call: HotCall, body: bytes) -> HttpAnswer:
        """directWrite: a row of the view's push source for each key."""
        asked, name = await call.room.beside(partial(read_object, body)), call.scope["path_params"]["name"]
        view = await call.room.beside(partial(written_view, self._hot.store, name, call.principal))
        entries = asked.get("dataKeyAndFeatureValues")
        if not isinstance(entries, list) or not entries:
            raise BadRequest("dataKeyAndFeatureValues must be a list of one at least")
        check_pushed_rows(len(entries), self._hot.config)
        told = await call.room.beside(lambda: [self._row(view, entry) for entry in entries])
        rows, keys = zip(*told, strict=True)
        check_late(await self._hot.pushed(lambda *_: (view.source.name, list(rows)), call, body))
        return HttpAnswer(
            200, JSON, [orjson.dumps({"status": {}, "writeResponses": [{"dataKey": key} for key in keys]})]
        )

    def _row(self, view: WrittenView, entry: Any) -> tuple[dict[str, Any], Any]:
        """A row of the view's source, in JSON forms, and its key as it came."""
        if not isinstance(entry, dict):
            raise BadRequest("dataKeyAndFeatureValues must be a list of objects")
        parts, data_key = _parts(entry.get("dataKey"), None)
        (key,) = key_rows({key.name: key.type for key in view.view.keys}, [parts], self._hot.config)
        row = {column.column: key[column.name] for column in view.view.keys}
        for feature in member(entry, "features", list) or []:
            name = str(feature.get("name")) if isinstance(feature, dict) else ""
            column = view.columns.get(name)
            if column is None:
                raise BadRequest(
                    f"View '{view.view.name}' has no feature '{name}' that can be written; it has {', '.join(view.columns)}"
                )
            put(row, column, _form(view.source.columns[column], name, feature.get("value")), name)
        return row, data_key

    async def view(self, call: HotCall, _: bytes) -> HttpAnswer:
        """The description of a feature view, which the client asks for before it reads."""
        name = call.scope["path_params"]["name"]
        service = await call.room.beside(partial(readable, self._hot.store, name, call.principal))
        source = {"uri": "bq://featurestore", "entityIdColumns": list(service.inputs)}
        return HttpAnswer(200, JSON, [orjson.dumps({"name": _resource(call), "bigQuerySource": source})])

    async def store(self, call: HotCall, _: bytes) -> HttpAnswer:
        """The description of an online store: there is one of any name, and the client asks of which kind it is."""
        scaling = {"autoScaling": {"minNodeCount": 1, "maxNodeCount": 1}}
        return HttpAnswer(200, JSON, [orjson.dumps({"name": _resource(call), "bigtable": scaling, "state": "STABLE"})])


def _resource(call: HotCall) -> str:
    path: str = call.scope["path"]
    return path[path.index("/projects/") + 1 :]


def _parts(data_key: Any, plain: Any) -> tuple[list[Any], Any]:
    """The texts of a key, and the key as the answer has it."""
    if data_key is None and isinstance(plain, str):
        data_key = {"key": plain}
    if isinstance(data_key, dict):
        composite = data_key.get("compositeKey")
        if isinstance(data_key.get("key"), str):
            return [data_key["key"]], data_key
        if (
            isinstance(composite, dict)
            and isinstance(parts := composite.get("parts", []), list)
            and all(isinstance(part, str) for part in parts)
        ):
            return parts, data_key
    raise BadRequest('dataKey must be {"key": "…"}, or {"compositeKey": {"parts": ["…", …]}}')


def _values(result: OnlineResult, name: str) -> Iterator[tuple[str, FeatureType, Any, str | None]]:
    """The name, type and value of each feature, and the instant that it is true for; NotFoundError where no feature has a row."""
    columns, types = result.service.columns, column_types(result)
    statuses = [
        each[0].name for column, each in zip(columns, result.judged.columns(), strict=True) if column.on_demand is None
    ]
    if statuses and {*statuses} == {"MISSING"}:
        raise NotFoundError(f"'{name}' has no values for this key")
    for shown, column in zip(shown_names(result, name), columns, strict=True):
        as_of = result.parts[column.part].as_of if column.part is not None else result.now
        yield shown, types[column.name], result.columns[column.name][0], None if as_of is None else instant(as_of)


def _key_values(result: OnlineResult, name: str) -> dict[str, Any]:
    features = []
    for shown, of, value, as_of in _values(result, name):
        told: dict[str, Any] = {"name": shown}
        if value is not None:
            told["value"] = _typed(of, value) | ({} if as_of is None else {"metadata": {"generateTime": as_of}})
        features.append(told)
    return {"keyValues": {"features": features}}


def _typed(of: FeatureType, value: Any) -> dict[str, Any]:
    """A value under the name of its type; integers are text, as the platform's JSON has them."""
    if of.element is not None:
        inner = LISTS.get(SCALARS.get(of.element.kind, "stringValue"))
        if inner is None or None in value:
            return {"stringValue": orjson.dumps(to_json(of, value)).decode()}
        return {inner: {"values": [_plain(of.element, item) for item in value]}}
    return {SCALARS.get(of.kind, "stringValue"): _plain(of, value)}


def _plain(of: FeatureType, value: Any) -> Any:
    written = to_json(of, value)
    return str(written) if of.kind in {"Int32", "Int64"} else written


def _struct(result: OnlineResult, name: str) -> dict[str, Any]:
    return {"protoStruct": {shown: to_json(of, value) for shown, of, value, _ in _values(result, name)}}


def _form(of: FeatureType, name: str, value: Any) -> Any:
    """The JSON form of a value that is written."""
    if value is None:
        return None
    given = [(kind, held) for kind, held in value.items() if kind != "metadata"] if isinstance(value, dict) else []
    if len(given) != 1:
        raise BadRequest(f"'{name}' must have one value, such as {{'int64Value': '14'}}")
    kind, held = given[0]
    try:
        if kind == "int64Value":
            return _whole(held)
        if kind == "int64ArrayValue":
            return [_whole(item) for item in held.get("values", [])]
        return held.get("values", []) if kind in LISTS.values() else held
    except (TypeError, ValueError, AttributeError) as error:
        raise BadRequest(f"'{name}' must be {of}: {error}") from None


def _whole(held: Any) -> int:
    """An integer, which the platform's JSON has as text."""
    if type(held) not in {int, str}:
        raise ValueError("it is no integer")
    return whole_of(held) if isinstance(held, str) else int(held)
