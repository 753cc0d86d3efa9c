"""Databricks: the invocations of a serving endpoint, as its SDK and MLflow's deployments client send them.

An endpoint is a service, or a view; a row has the keys and request values that it takes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import orjson

from featurestore.plurals import plural
from featurestore.server.bodies import AskedLookup
from featurestore.server.compatible.routes import CompatibleRoute, Platform, worded
from featurestore.server.compatible.values import check_rows, column_types, json_columns, read_object, shown_names
from featurestore.server.compatible.written_views import check_named
from featurestore.server.hot_routes import JSON, HotCall, HotRoutes, LookupForm
from featurestore.server.json_answers import PIECE_VALUES, within
from featurestore.server.problems import BadRequest, HttpAnswer
from featurestore.serving.online_result import OnlineResult
from featurestore.settings import ServerConfig

FORMS = ("dataframe_records", "dataframe_split", "inputs")
"""The ways in which a body says its rows."""

BESIDE = ("client_request_id", "databricks_options")
"""What a body may have beside its rows, and is no matter here."""

CODES = {
    400: "INVALID_PARAMETER_VALUE",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    408: "DEADLINE_EXCEEDED",
    409: "RESOURCE_CONFLICT",
    422: "INVALID_PARAMETER_VALUE",
    429: "REQUEST_LIMIT_EXCEEDED",
    503: "TEMPORARILY_UNAVAILABLE",
}
"""By the status of a problem the platform's word for it; of all others INTERNAL_ERROR, or INVALID_PARAMETER_VALUE below 500."""


def routes(hot: HotRoutes) -> list[CompatibleRoute]:
    """What is answered to the platform's clients."""
    platform = Platform(_problem)

    async def invocations(call: HotCall, body: bytes) -> HttpAnswer:
        name = call.scope["path_params"]["name"]
        return await hot.looked_up(LookupForm(partial(_read, name), partial(_written, name), JSON), call, body)

    path = "/serving-endpoints/{name}/invocations"
    return [CompatibleRoute(platform, "POST", path, "read", partial(hot.take, invocations))]


def _problem(answer: HttpAnswer, _: Exception) -> HttpAnswer:
    status, code, detail = worded(answer, CODES, "INTERNAL_ERROR")
    told = {"error_code": code, "message": detail}
    return answer._replace(status=status, media_type=JSON, pieces=[orjson.dumps(told)])


def _read(name: str, body: bytes, config: ServerConfig) -> AskedLookup:
    asked = read_object(body)
    given = [form for form in FORMS if asked.get(form) is not None]
    if len(given) != 1:
        raise BadRequest(f"The body must have one of {', '.join(FORMS)}; it has {', '.join(asked) or 'nothing'}")
    if unknown := [field for field in asked if field not in (*FORMS, *BESIDE) and asked[field] is not None]:
        raise BadRequest(f"The body has '{unknown[0]}', which an endpoint of features does not take")
    rows = _split(asked[given[0]]) if given[0] == "dataframe_split" else _rows(given[0], asked[given[0]])
    check_rows(len(rows), config)
    return AskedLookup(name, None, rows, is_service=False)


def _rows(form: str, given: Any) -> list[Any]:
    """Rows as a list of objects, of one object, or of columns."""
    if isinstance(given, dict) and any(isinstance(column, list) for column in given.values()):
        lengths = {len(column) if isinstance(column, list) else 1 for column in given.values()}
        if len(lengths) > 1:
            raise BadRequest(
                f"The columns of {form} have {' and '.join(map(str, sorted(lengths)))} values; give each as many"
            )
        columns = [column if isinstance(column, list) else [column] for column in given.values()]
        return [dict(zip(given, row, strict=True)) for row in zip(*columns, strict=True)]
    rows = [given] if isinstance(given, dict) else given
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BadRequest(f"{form} must be a list of objects, each of which maps names to values")
    return rows


def _split(given: Any) -> list[Any]:
    """Rows as the names of columns, and a list of values a row."""
    columns, data = (given.get("columns"), given.get("data")) if isinstance(given, dict) else (None, None)
    if not isinstance(columns, list) or not isinstance(data, list) or not all(isinstance(row, list) for row in data):
        raise BadRequest('dataframe_split must be {"columns": ["name", …], "data": [[value, …], …]}')
    wrong = next((number for number, row in enumerate(data) if len(row) != len(columns)), None)
    if wrong is not None:
        raise BadRequest(
            f"Row {wrong} of dataframe_split has {len(data[wrong])} {plural(len(data[wrong]), 'value')} for {len(columns)} {plural(len(columns), 'column')}"
        )
    if not all(isinstance(name, str) for name in columns):
        raise BadRequest("The columns of dataframe_split must be text")
    if twice := next((name for name, count in Counter(columns).items() if count > 1), None):
        raise BadRequest(f"dataframe_split has column '{twice}' twice")
    return [dict(zip(columns, row, strict=True)) for row in data]


def _written(name: str, result: OnlineResult, most: int) -> list[bytes]:
    check_named(result.service, name)
    inputs = json_columns(result.inputs, result.service.inputs)
    features = json_columns(result.columns, column_types(result))
    names = [*result.inputs, *shown_names(result, name)]
    rows = list(zip(*inputs, *features, strict=True))
    return within(_pieces(names, rows), most)


def _pieces(names: list[str], rows: list[tuple[Any, ...]]) -> Iterator[bytes]:
    count = max(1, PIECE_VALUES // len(names))
    yield b'{"outputs":['
    for at in range(0, len(rows), count):
        part = orjson.dumps([dict(zip(names, row, strict=True)) for row in rows[at : at + count]])
        yield (b"," if at else b"") + part[1:-1]
    yield b"]}"
