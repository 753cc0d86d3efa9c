"""The routes that FastAPI answers, and its description of all of them, those of `hot_routes` included."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse
from fastapi.routing import APIRoute

from featurestore.access.principal import Principal
from featurestore.errors import ManifestError, NotFoundError, did_you_mean
from featurestore.server.admission import SCHEMES, principal_of, security_of
from featurestore.server.bodies import (
    ARROW,
    FINGERPRINT,
    PUSH,
    PUSHED,
    REQUEST,
    RESPONSE,
    TIMEOUT,
    LookupRequest,
    LookupResponse,
    MaterializeRequest,
    PushRequest,
    PushResponse,
    read_manifest,
    read_materialize,
)
from featurestore.server.hot_routes import HotRoutes
from featurestore.server.limits import Room, ServerLimits
from featurestore.server.materializing import Materializing
from featurestore.server.metrics import Metrics
from featurestore.server.page import page
from featurestore.server.presented import versions
from featurestore.server.problems import FULL_DETAIL, FULL_TITLE, BadRequest, LimitError, described
from featurestore.server.readiness import Readiness
from featurestore.server.received import received
from featurestore.server.request_ids import REQUEST_ID, request_id_of
from featurestore.store import FeatureStore
from featurestore.training.manifest import Manifest


def _problems(path: str, *rows: tuple[int, str, str, str]) -> dict[int | str, dict[str, Any]]:
    return {status: described(status, text, kind=kind, detail=detail, path=path) for status, text, kind, detail in rows}


UNKNOWN = (401, "No key, or a wrong one", "Unauthenticated", "The request brings no key. Send one as …")
FOREIGN = (
    403,
    "A foreign web page asks, or a scope is missing",
    "foreign",
    "Pages of https://example.com may not ask here",
)
MISDIRECTED = (421, "The request is for another machine", "foreign", "'example.com' is no name of this machine. …")
BUSY = (429, "Too many requests are under way", "limit", "500 requests are under way, and no more are taken")
UNEXPECTED = (500, "A defect of the server", "unexpected", "ZeroDivisionError; see the server's log")
SLOW = (408, "The request took too long to send", "limit", "The request was not sent within 20 s")
LARGE = (413, "The body is too large", "limit", "The body is larger than 16777216 bytes; send fewer rows at a time")
HEAD = (431, "The request's head is too large", "limit", "The head is larger than 16384 bytes")
UNTYPED = (415, "The body is not said to be JSON", "bad-request", "The body's Content-Type must be application/json; …")
UNREADABLE = (400, "The request cannot be read", "bad-request", "The body has no field 'row'. Did you mean 'rows'?")
NOWHERE = (
    404,
    "No such service or view",
    "NotFound",
    "No feature service, feature view or on-demand feature 'delay' was applied.",
)
NO_VIEW = (404, "No such view", "NotFound", "No feature view 'delay' was applied. Did you mean 'delays'?")
BUSY_FILLING = (
    409,
    "This process materializes already",
    "Materialize",
    "This server materializes already; GET /v1/status tells how far it has come",
)
ABSENT = (503, "Not materialized, or no online store", "NotMaterialized", "View 'carrier_delays' has no values online.")

COMMON = _problems("/v1/services", UNKNOWN, FOREIGN, MISDIRECTED, HEAD, BUSY, UNEXPECTED)
"""What any request may be answered."""

WITH_BODY = (UNREADABLE, UNKNOWN, FOREIGN, SLOW, LARGE, UNTYPED, MISDIRECTED, HEAD, BUSY, UNEXPECTED)
PROBLEMS = _problems(
    "/v1/online-features", *WITH_BODY, NOWHERE, ABSENT,
    (409, "The fingerprint is not served", "Fingerprint", "Service 'delay_model' is not served as the model knew it."),
    (422, "A key or request value is wrong", "Request", "Row 0 has no 'sched_minutes' (Int64); it brings carrier"),
)  # fmt: skip
PUSH_PROBLEMS = _problems(
    "/v1/push", *WITH_BODY,
    (404, "No such push source", "NotFound", "No push source 'swipe' was applied. Did you mean 'swipes'?"),
    (422, "A row is not as the source declares", "Push", "PushSource 'swipes': row 0 has no 'at', which is its event_time"),
    (503, "The online store cannot be reached, or not in time; the detail ends with what became of the rows", "OnlineUnavailable",
     "The push was not answered in the time that it was given. Nothing of this push was kept; push the rows again."),
    (507, FULL_TITLE, "disk-full", FULL_DETAIL),
)  # fmt: skip

CHECKED = {
    "service": "delay_model", "fingerprint": FINGERPRINT, "state": "replaced", "served": False, "unfilled": [],
    "refusal": "Service 'delay_model' is no longer served as the model was trained on it",
    "applied": [{"field": "parts.carrier_delays.view.ttl", "before": "2d", "after": "3d"}], "at_hand": [],
    "libraries": {"numpy": ["1.26.4", "2.4.0"]}, "notes": [],
}  # fmt: skip
"""The example of a manifest that was compared."""


def add_routes(
    app: FastAPI, store: FeatureStore, pinned: Mapping[str, Manifest], limits: ServerLimits, hot: HotRoutes,
    readiness: Readiness, *, secured: bool,
) -> None:  # fmt: skip
    """All routes of a store. secured: whether requests must say who asks."""
    _describe_hot(app, hot)
    _add_manifests(app, store, limits)
    _add_catalog(app, store, pinned)
    _add_serving_log(app, store)
    _add_health(app, readiness)
    app.openapi = cache(partial(_openapi, app, secured=secured))  # type: ignore[method-assign]  # as FastAPI documents it
    description = cache(lambda: orjson.dumps(app.openapi()))
    docs_page = cache(lambda: page(app.openapi()).encode())

    @app.get("/openapi.json", include_in_schema=False)
    def openapi() -> Response:
        return Response(description(), media_type="application/json")

    @app.get("/docs", include_in_schema=False)
    def docs() -> Response:
        return HTMLResponse(docs_page())


def _openapi(app: FastAPI, *, secured: bool) -> dict[str, Any]:
    """The description, with what the edge asks of each route, and without FastAPI's own error: names in paths are any text, so
    it never happens."""
    described = FastAPI.openapi(app)
    if secured:
        described.setdefault("components", {})["securitySchemes"] = SCHEMES
    for path, operations in described["paths"].items():
        for operation in operations.values():
            if secured:
                operation["security"] = security_of(path)
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]
    return described


class _HotRoute(APIRoute):
    """A route that the edge answers. A request that comes here past it, by another application's router, is answered the same: its
    endpoint is an ASGI application, with nothing to be read or checked in between."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **described: Any) -> None:
        super().__init__(path, _described_as(endpoint), **described)
        self.app = endpoint


def _described_as(answers: Callable[..., Any]) -> Callable[[], None]:
    """A function without parameters, of which FastAPI makes a description: that of an ASGI application."""

    def endpoint() -> None: ...

    endpoint.__name__, endpoint.__doc__ = answers.__name__, answers.__doc__
    return endpoint


def _describe_hot(app: FastAPI, hot: HotRoutes) -> None:
    header: dict[str, Any] = {"name": REQUEST_ID, "in": "header", "required": False, "description": "What it is logged under",
              "schema": {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[!-~]([ -~]*[!-~])?$"}}  # fmt: skip
    content: dict[str, Any] = {"application/json": {"example": RESPONSE}, ARROW: {}}
    responses: dict[int | str, dict[str, Any]] = {200: {"model": LookupResponse, "content": content}, **PROBLEMS}
    asks: dict[str, Any] = {"requestBody": _body(LookupRequest.model_json_schema(), REQUEST), "parameters": [header]}
    asks["parameters"].append(_timeout("lookup_seconds"))
    _add_hot(app, "/v1/online-features", hot.lookup, responses=responses, openapi_extra=asks)
    content = {"application/json": {"example": PUSHED}}
    responses = {200: {"model": PushResponse, "content": content}, **PUSH_PROBLEMS}
    asks = {
        "requestBody": _body(PushRequest.model_json_schema(), PUSH),
        "parameters": [header, _timeout("push_seconds")],
    }
    _add_hot(app, "/v1/push", hot.push, responses=responses, openapi_extra=asks)


def _timeout(setting: str) -> dict[str, Any]:
    text = f"Seconds for which the client waits; more than `{setting}` of [server] is that"
    schema = {"type": "number", "exclusiveMinimum": 0}
    return {"name": TIMEOUT, "in": "header", "required": False, "schema": schema, "description": text}


def _add_hot(app: FastAPI, path: str, answers: Callable[..., Any], **described: Any) -> None:
    app.router.add_api_route(path, answers, methods=["POST"], route_class_override=_HotRoute, **described)


def _body(schema: dict[str, Any], example: Any) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schema, "example": example}}}


def _add_manifests(app: FastAPI, store: FeatureStore, limits: ServerLimits) -> None:
    schema: dict[str, Any] = {
        "type": "object", "required": ["service", "fingerprint"],
        "properties": {
            "service": {"type": "string", "minLength": 1},
            "fingerprint": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
        },
    }  # fmt: skip
    body = _body(schema, {"service": "delay_model", "fingerprint": FINGERPRINT})
    responses: dict[int | str, dict[str, Any]] = {**_example(CHECKED), **_problems("/v1/manifests", *WITH_BODY)}

    @app.post("/v1/manifests", responses=responses, openapi_extra={"requestBody": body})
    async def manifests(request: Request) -> Response:
        """Compare a training frame's manifest with what is applied, at hand and served; a refusal of its fingerprint can
        then say what changed even where it was never applied."""
        principal = principal_of(request.scope)
        with Room(limits, principal.name) as room:
            body = await received(dict(request.scope["headers"]), request.receive, limits, room)
            check = await room.beside(partial(_checked, store, body, limits, principal))
        return Response(orjson.dumps(check), media_type="application/json")


def _checked(store: FeatureStore, body: bytes, limits: ServerLimits, principal: Principal) -> dict[str, Any]:
    try:
        manifest = store.load_manifest(read_manifest(body, limits.config))
    except LimitError:
        raise
    except (BadRequest, ManifestError) as error:
        raise BadRequest(f"The body is no manifest: {error}") from None
    principal.must("read", f"service:{manifest.service}")
    return store.check_manifest(manifest).to_dict()


def _example(value: Any) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {"application/json": {"example": value}}}}


def _add_catalog(app: FastAPI, store: FeatureStore, pinned: Mapping[str, Manifest]) -> None:
    def listed(kind: str, principal: Principal) -> Response:
        records = store.registry.current().document[kind]
        seen = {name: one for name, one in records.items() if principal.may("read", f"{kind[:-1]}:{name}")}
        body = [{"name": name, "fingerprint": record["fingerprint"]} for name, record in seen.items()]
        return Response(orjson.dumps({kind: body}), media_type="application/json")

    def one(kind: str, name: str, principal: Principal) -> Response:
        principal.must("read", f"{kind[:-1]}:{name}")
        records = store.registry.current().document[kind]
        if name not in records:
            raise NotFoundError(f"There is no '{name}' among the applied {kind}.{did_you_mean(name, records)}")
        record = records[name]
        body = {"name": name, "fingerprint": record["fingerprint"], "definition": record["definition"]}
        return Response(orjson.dumps(body), media_type="application/json")

    listing = {"name": "delay_model", "fingerprint": FINGERPRINT}

    @app.get(
        "/v1/services", responses={**_example({"services": [{**listing, "kept": [], "manifest": None}]}), **COMMON}
    )
    def services(request: Request) -> Response:
        """The feature services: what is applied, the versions kept beside it, and that of the manifest, if there is one."""
        principal = principal_of(request.scope)
        seen = [one for one in versions(store, pinned) if principal.may("read", f"service:{one['name']}")]
        return Response(orjson.dumps({"services": seen}), media_type="application/json")

    @app.get("/v1/services/{name}", responses={**_example({**listing, "definition": {}}), 404: PROBLEMS[404], **COMMON})
    def service(name: str, request: Request) -> Response:
        """One applied service: all that can change what it gives."""
        return one("services", name, principal_of(request.scope))

    @app.get("/v1/views", responses={**_example({"views": [{**listing, "name": "carrier_delays"}]}), **COMMON})
    def views(request: Request) -> Response:
        """The applied feature views."""
        return listed("views", principal_of(request.scope))

    @app.get("/v1/views/{name}", responses={**_example({**listing, "definition": {}}), 404: PROBLEMS[404], **COMMON})
    def view(name: str, request: Request) -> Response:
        """One applied view: all that can change its values."""
        return one("views", name, principal_of(request.scope))


def add_materialize(app: FastAPI, store: FeatureStore, limits: ServerLimits, materializing: Materializing) -> None:
    """The routes that fill views, and tell how far they have come."""
    begun = {"views": ["carrier_delays"], "status": "/v1/status"}
    content = {"application/json": {"example": begun}}
    responses: dict[int | str, dict[str, Any]] = {
        202: {"content": content, "description": "It has begun"},
        **_problems("/v1/materialize", *WITH_BODY, NO_VIEW, BUSY_FILLING),
    }
    body = {**_body(MaterializeRequest.model_json_schema(), {"views": ["carrier_delays"]}), "required": False}

    @app.post("/v1/materialize", status_code=202, responses=responses, openapi_extra={"requestBody": body})
    async def materialize(request: Request) -> Response:
        """Compute and publish what is due now of the applied views, in the background. `GET /v1/status` tells how far it has come; what fails is in the log and in the
        trail of activity."""
        principal = principal_of(request.scope)
        with Room(limits, principal.name) as room:
            body = await received(dict(request.scope["headers"]), request.receive, limits, room)
            views, full = read_materialize(body)
            told = await room.beside(partial(_begun, store, materializing, views, full, principal))
        return Response(orjson.dumps(told), 202, {"Location": "/v1/status"}, "application/json")

    status = {"views": [{"view": "carrier_delays", "fingerprint": FINGERPRINT, "state": "fresh", "run": None}]}

    @app.get("/v1/status", responses={**_example(status), **COMMON})
    async def status_of_views(request: Request) -> Response:
        """How far each applied view has come online, and the run of materialize that works on it just now; "unknown" where the online
        store cannot be read."""
        principal = principal_of(request.scope)
        seen = [one.to_dict() for one in await materializing.status() if principal.may("read", f"view:{one.view}")]
        return Response(orjson.dumps({"views": seen}), media_type="application/json")


def _begun(
    store: FeatureStore, materializing: Materializing, views: list[str] | None, full: bool, principal: Principal
) -> dict[str, Any]:
    names = views or list(store.registry.current().document["views"])
    principal.must("materialize", *(f"view:{name}" for name in names))
    materializing.begin(names, full=full, who=principal.name)
    return {"views": names, "status": "/v1/status"}


def _add_serving_log(app: FastAPI, store: FeatureStore) -> None:
    told = {"offered": 1200, "written": 1180, "dropped": 0, "lost": 3, "last_error": None}

    @app.get("/v1/serving-log", responses={**_example(told), **COMMON})
    def serving_log() -> Response:
        """What became of the requests that were to be logged, over all processes."""
        return Response(orjson.dumps(store.serving_log_losses()._asdict()), media_type="application/json")


def add_metrics(app: FastAPI, metrics: Metrics) -> None:
    """The route for Prometheus."""
    told = "# HELP featurestore_refusals_total Requests refused for a limit, or for who asks\n# TYPE featurestore_refusals_total counter\n…"
    text = {"schema": {"type": "string"}, "example": told}
    content = {"text/plain": text, "application/openmetrics-text": text}

    @app.get("/metrics", response_class=PlainTextResponse, responses={200: {"content": content}, **COMMON})
    def exposition(request: Request) -> Response:
        """Metrics of all workers, as Prometheus reads them; OpenMetrics by `Accept`."""
        told, media_type = metrics.exposition(request.headers.get("accept", ""))
        return Response(told, headers={"content-type": media_type})


def _add_health(app: FastAPI, readiness: Readiness) -> None:
    @app.get("/healthz", responses={**_example({"status": "up"}), **COMMON})
    async def healthz() -> dict[str, str]:
        """Whether the process is up."""
        return {"status": "up"}

    @app.get("/readyz", responses={**_example({"status": "ready"}), 503: PROBLEMS[503], **COMMON})
    async def readyz(request: Request) -> Response:
        """Whether lookups can be answered: services applied, every view materialized, the online store reachable.

        A service that was applied with other functions than this process has is served in the version whose code it has, and
        named in `behind`; where it has the code of none, the server is not ready.
        A server that was started with manifests answers in their versions, and is ready when these can be served.
        One that was told to stop is not ready, and answers on for `drain_seconds` of [server].
        Without a key that may read everything the answer names nothing, and may be a second old.
        """
        answer = await readiness.answer(principal_of(request.scope))
        if answer.status != HTTPStatus.OK:
            answer = answer.of_request(request_id_of(request.scope))
        return answer.response()
