"""The application: routes over one store."""

from __future__ import annotations

import contextlib
import functools
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import request_response

from featurestore.errors import FeatureStoreError, ManifestError, NotFoundError, did_you_mean
from featurestore.server.bodies import (
    ARROW,
    FINGERPRINT,
    PUSH,
    PUSHED,
    REQUEST,
    REQUEST_ID,
    RESPONSE,
    LookupRequest,
    LookupResponse,
    PushRequest,
    PushResponse,
    arrow_body,
    json_body,
    read_object,
    read_push,
    read_request,
    request_id,
)
from featurestore.server.presented import presented, unready, versions
from featurestore.server.problems import (
    BadRequest,
    answer_error,
    answer_http,
    answer_unexpected,
    described,
    problem,
)
from featurestore.store import FeatureStore
from featurestore.training.manifest import Manifest

MAX_BODY = 16 << 20
"""Bytes of a request's body; a larger one is refused with 413."""

GARBAGE = 10_000
"""New objects between two looks of the garbage collector; requests make many, and hardly any that only it can free."""

PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: described(status, text, kind=kind, detail=detail)
    for status, text, kind, detail in (
        (400, "The request cannot be read", "bad-request", "The body has no field 'row'. Did you mean 'rows'?"),
        (
            404,
            "No such service or view",
            "NotFound",
            "No feature service, feature view or on-demand feature 'delay' was applied.",
        ),
        (
            409,
            "The fingerprint is not served",
            "Fingerprint",
            "Service 'delay_model' is not served as the model knew it.",
        ),
        (413, "The body is too large", "bad-request", f"The body is larger than {MAX_BODY} bytes."),
        (422, "A key or request value is wrong", "Request", "Row 0 has no 'sched_minutes' (Int64); it brings carrier"),
        (503, "Not materialized, or no online store", "NotMaterialized", "View 'carrier_delays' has no values online."),
    )
}

CHECKED = {
    "service": "delay_model", "fingerprint": FINGERPRINT, "state": "replaced", "served": False, "unfilled": [],
    "refusal": "Service 'delay_model' is no longer served as the model was trained on it",
    "applied": [{"field": "parts.carrier_delays.view.ttl", "before": "2d", "after": "3d"}], "at_hand": [],
    "libraries": {"numpy": ["1.26.4", "2.4.0"]}, "notes": [],
}  # fmt: skip
"""The example of a manifest that was compared."""

PUSH_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: described(status, text, kind=kind, detail=detail, path="/v1/push")
    for status, text, kind, detail in (
        (400, "The request cannot be read", "bad-request", "source must be the name of a push source"),
        (404, "No such push source", "NotFound", "No push source 'swipe' was applied. Did you mean 'swipes'?"),
        (413, "The body is too large", "bad-request", f"The body is larger than {MAX_BODY} bytes."),
        (
            422,
            "A row is not as the source declares",
            "Push",
            "PushSource 'swipes': row 0 has no 'at', which is its event_time",
        ),
        (503, "The online store cannot be reached", "OnlineUnavailable", "The online store did not answer within 2 s."),
    )
}


def create_app(store: FeatureStore, *, manifests: Iterable[Any] = (), close_store: bool = False) -> FastAPI:
    """The FastAPI application of a store. close_store: close it when the application shuts down.

    manifests: what `store.load_manifest` takes; their services are served in exactly these versions to whoever names none.
    Raises ManifestError, and FingerprintError with the difference where a version is refused.
    """
    pinned = presented(store, manifests)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with contextlib.suppress(FeatureStoreError):  # a server starts without its online store, and says so when asked
            await run_in_threadpool(store.repair)
        with contextlib.suppress(FeatureStoreError):
            await run_in_threadpool(store.confirm_pushes)
        gc.collect()
        gc.freeze()  # what is loaded by now stays; scanning it again and again would pause requests
        before = gc.get_threshold()
        if 0 < before[0] < GARBAGE:  # and not where it does not look at all
            gc.set_threshold(GARBAGE, *before[1:])
        yield
        gc.set_threshold(*before)
        gc.unfreeze()  # else nothing of it is given back when the interpreter ends
        if close_store:
            await run_in_threadpool(store.close)

    app = FastAPI(title="featurestore", version="1", lifespan=lifespan)
    for kind in (FeatureStoreError, BadRequest):
        app.add_exception_handler(kind, answer_error)
    app.add_exception_handler(HTTPException, answer_http)
    app.add_exception_handler(Exception, answer_unexpected)
    _add_lookup(app, store, pinned)
    _add_manifests(app, store)
    _add_push(app, store)
    _add_catalog(app, store, pinned)
    _add_serving_log(app, store)
    _add_health(app, store, pinned)
    app.openapi = functools.partial(_openapi, app)  # type: ignore[method-assign]
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The description, without FastAPI's own error: names in paths are any text, so it never happens."""
    described = FastAPI.openapi(app)
    for operations in described["paths"].values():
        for operation in operations.values():
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]
    return described


def _add_lookup(app: FastAPI, store: FeatureStore, pinned: Mapping[str, Manifest]) -> None:
    body = {"schema": LookupRequest.model_json_schema(), "example": REQUEST}
    request_body = {"required": True, "content": {"application/json": body}}
    header = {"name": REQUEST_ID, "in": "header", "required": False, "description": "What it is logged under",
              "schema": {"type": "string", "minLength": 1, "maxLength": 128}}  # fmt: skip
    content = {"application/json": {"example": RESPONSE}, ARROW: {}}
    responses: dict[int | str, dict[str, Any]] = {200: {"model": LookupResponse, "content": content}, **PROBLEMS}

    async def online_features(request: Request) -> Response:
        """The features of each row, as of now; JSON, or an Arrow IPC stream by `Accept`."""
        given = request_id(request.headers)
        asked = read_request(await _body(request))
        features, fingerprint, rows, _ = asked
        if fingerprint is None and isinstance(features, str) and features in pinned:
            fingerprint = pinned[features].fingerprint
        result = asked.checked(
            await store.aget_online_features(rows, features, fingerprint=fingerprint, json=True, request_id=given)
        )
        known = given or result.request
        headers = None if known is None else {REQUEST_ID: known}
        if ARROW in request.headers.get("accept", ""):
            return Response(arrow_body(result), media_type=ARROW, headers=headers)
        return Response(json_body(result), media_type="application/json", headers=headers)

    asks = {"requestBody": request_body, "parameters": [header]}
    _add_direct(app, "/v1/online-features", online_features, responses=responses, openapi_extra=asks)


def _add_manifests(app: FastAPI, store: FeatureStore) -> None:
    asked = {"schema": {"type": "object"}, "example": {"service": "delay_model", "fingerprint": FINGERPRINT}}
    request_body = {"required": True, "content": {"application/json": asked}}
    responses = {**_example(CHECKED), 400: PROBLEMS[400], 413: PROBLEMS[413]}

    @app.post("/v1/manifests", responses=responses, openapi_extra={"requestBody": request_body})
    async def manifests(request: Request) -> Response:
        """Compare a training frame's manifest with what is applied, at hand and served; a refusal of its fingerprint can
        then say what changed even where it was never applied."""
        body = await _body(request)
        try:
            manifest = store.load_manifest(read_object(body, "{} is no manifest, which is an object"))
        except (BadRequest, ManifestError) as error:
            raise BadRequest(f"The body is no manifest: {error}") from None
        check = await run_in_threadpool(store.check_manifest, manifest)
        return Response(orjson.dumps(check.to_dict()), media_type="application/json")


def _add_push(app: FastAPI, store: FeatureStore) -> None:
    asked = {"schema": PushRequest.model_json_schema(), "example": PUSH}
    request_body = {"required": True, "content": {"application/json": asked}}
    content = {"application/json": {"example": PUSHED}}
    responses: dict[int | str, dict[str, Any]] = {200: {"model": PushResponse, "content": content}, **PUSH_PROBLEMS}

    async def push(request: Request) -> Response:
        """Keep rows of a push source: on the disk, and seen by the next lookup, when it answers."""
        source, rows = read_push(await _body(request))
        pushed = await store.apush(source, rows, json=True)
        return Response(orjson.dumps(pushed.to_dict()), media_type="application/json")

    _add_direct(app, "/v1/push", push, responses=responses, openapi_extra={"requestBody": request_body})


class _DirectRoute(APIRoute):
    """A route whose endpoint takes the request and gives the response, with nothing to be read or checked in between."""

    def __init__(self, path: str, endpoint: Callable[[Request], Awaitable[Response]], **described: Any) -> None:
        super().__init__(path, endpoint, **described)
        self.app = request_response(endpoint)


def _add_direct(app: FastAPI, path: str, endpoint: Callable[[Request], Awaitable[Response]], **described: Any) -> None:
    app.router.add_api_route(path, endpoint, methods=["POST"], route_class_override=_DirectRoute, **described)


async def _body(request: Request) -> bytes:
    """The request's body, counted as it arrives, whatever its length says."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY:
            raise BadRequest(f"The body is larger than {MAX_BODY} bytes; send fewer rows at a time", status=413)
    return bytes(body)


def _example(value: Any) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {"application/json": {"example": value}}}}


def _add_catalog(app: FastAPI, store: FeatureStore, pinned: Mapping[str, Manifest]) -> None:
    def listed(kind: str) -> Response:
        records = store.registry.current().document[kind]
        body = [{"name": name, "fingerprint": record["fingerprint"]} for name, record in records.items()]
        return Response(orjson.dumps({kind: body}), media_type="application/json")

    def one(kind: str, name: str) -> Response:
        records = store.registry.current().document[kind]
        if name not in records:
            raise NotFoundError(f"There is no '{name}' among the applied {kind}.{did_you_mean(name, records)}")
        record = records[name]
        body = {"name": name, "fingerprint": record["fingerprint"], "definition": record["definition"]}
        return Response(orjson.dumps(body), media_type="application/json")

    listing = {"name": "delay_model", "fingerprint": FINGERPRINT}

    @app.get("/v1/services", responses=_example({"services": [{**listing, "kept": [], "manifest": None}]}))
    def services() -> Response:
        """The feature services: what is applied, the versions kept beside it, and that of the manifest, if there is one."""
        return Response(orjson.dumps({"services": versions(store, pinned)}), media_type="application/json")

    @app.get("/v1/services/{name}", responses={**_example({**listing, "definition": {}}), 404: PROBLEMS[404]})
    def service(name: str) -> Response:
        """One applied service: all that can change what it gives."""
        return one("services", name)

    @app.get("/v1/views", responses=_example({"views": [{**listing, "name": "carrier_delays"}]}))
    def views() -> Response:
        """The applied feature views."""
        return listed("views")

    @app.get("/v1/views/{name}", responses={**_example({**listing, "definition": {}}), 404: PROBLEMS[404]})
    def view(name: str) -> Response:
        """One applied view: all that can change its values."""
        return one("views", name)


def _add_serving_log(app: FastAPI, store: FeatureStore) -> None:
    told = {"offered": 1200, "written": 1180, "dropped": 0, "lost": 3, "last_error": None}

    @app.get("/v1/serving-log", responses=_example(told))
    def serving_log() -> Response:
        """What became of the requests that were to be logged, over all processes."""
        return Response(orjson.dumps(store.serving_log_losses()._asdict()), media_type="application/json")


def _add_health(app: FastAPI, store: FeatureStore, pinned: Mapping[str, Manifest]) -> None:
    @app.get("/healthz", responses=_example({"status": "up"}))
    async def healthz() -> dict[str, str]:
        """Whether the process is up."""
        return {"status": "up"}

    @app.get("/readyz", responses={**_example({"status": "ready"}), 503: PROBLEMS[503]})
    def readyz() -> Response:
        """Whether lookups can be answered: services applied, every view materialized, the online store reachable.

        A service that was applied with other functions than this process has is served in the version whose code it has, and
        named in `behind`; where it has the code of none, the server is not ready.
        A server that was started with manifests answers in their versions, and is ready when these can be served.
        """
        if pinned:
            why = unready(store, pinned)
            if why is not None:
                return problem(503, "Not ready", why, kind="NotServed", path="/readyz")
            served = {name: manifest.fingerprint for name, manifest in pinned.items()}
            return Response(orjson.dumps({"status": "ready", "manifests": served}), media_type="application/json")
        if not store.registry.current().document["services"]:
            return problem(503, "Not ready", "No feature service was applied", kind="NotApplied", path="/readyz")
        missing = [status.view for status in store.status() if status.served is None and not status.kept_for]
        if missing:
            detail = f"These views have no values online: {', '.join(missing)}"
            return problem(503, "Not ready", detail, kind="NotMaterialized", path="/readyz")
        behind = store.behind()
        refused = [service.why for service in behind if service.served is None]
        if refused:
            return problem(503, "Not ready", "; ".join(refused), kind="Fingerprint", path="/readyz")
        told = {"status": "ready"} | ({"behind": [service._asdict() for service in behind]} if behind else {})
        return Response(orjson.dumps(told), media_type="application/json")
