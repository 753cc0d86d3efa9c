"""Traces for OpenTelemetry: a span of each request, in the trace that its client has begun, and its export."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from featurestore.errors import MissingPackageError
from featurestore.server.access_log import ASKED
from featurestore.server.metrics import CLOSED, Metrics
from featurestore.server.request_ids import TRACE, request_id_of
from featurestore.tracing import traced_by

try:
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError as error:
    raise MissingPackageError(f"Traces need {error.name}: pip install 'featurestore[telemetry]'") from error

HEADERS = (b"traceparent", b"tracestate")
NAME = "featurestore"

CLOSE_SECONDS = 2.0
"""Seconds for which the end of the server waits for a receiver."""


class TracedEdge:
    """The edge of an application, each of whose requests is a span, those who look whether it is alive left out."""

    def __init__(self, edge: ASGIApp, tracer: trace.Tracer, metrics: Metrics, untraced: frozenset[str]) -> None:
        self._edge, self._tracer, self._metrics, self._untraced = edge, tracer, metrics, untraced
        self._propagator = TraceContextTextMapPropagator()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        if path in self._untraced:
            await self._edge(scope, receive, send)
            return
        status = CLOSED

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        sent = {name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in HEADERS}
        with self._tracer.start_as_current_span(
            scope["method"], self._propagator.extract(sent), trace.SpanKind.SERVER,
            record_exception=False, set_status_on_exception=False,
        ) as span:  # fmt: skip
            context = span.get_span_context()
            if context.is_valid:
                scope[TRACE] = trace.format_trace_id(context.trace_id)
            try:
                await self._edge(scope, receive, told)
            finally:
                self._describe(span, scope, path, status)

    def _describe(self, span: trace.Span, scope: Scope, path: str, status: int) -> None:
        """What is known of the request when it is over, in the words of OpenTelemetry's conventions for HTTP; no path and no key."""
        if not span.is_recording():
            return
        method, route = scope["method"], self._metrics.route(scope, path)
        span.update_name(f"{method} {route}")
        told: dict[str, Any] = {"http.request.method": method, "http.route": route, "url.scheme": scope["scheme"]}
        told["featurestore.request_id"] = request_id_of(scope)
        if status != CLOSED:
            told["http.response.status_code"] = status
        asked = scope.get(ASKED)
        if asked is not None:
            told[f"featurestore.{asked[0]}"], told["featurestore.rows"] = asked[1:]
        span.set_attributes(told)
        if status >= 500 or status == CLOSED:
            span.set_attribute("error.type", str(status) if status else "closed")
            span.set_status(trace.Status(trace.StatusCode.ERROR))


class Traces:
    """The tracer of a server. The program's own provider is used where there is one; else spans go to an OTLP receiver, as the
    environment variables of OpenTelemetry say."""

    def __init__(self) -> None:
        self._own: TracerProvider | None = None
        provider = trace.get_tracer_provider()
        if isinstance(provider, trace.ProxyTracerProvider):
            named = Resource.create({"service.name": NAME, "service.version": version(NAME)})
            from_environment = Resource.create()  # OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES
            given = from_environment.attributes.get("service.name", "")
            own = named if str(given).startswith("unknown_service") else named.merge(from_environment)
            provider = self._own = TracerProvider(resource=own)
            self._exporter = OTLPSpanExporter()
            provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self.tracer = provider.get_tracer(NAME, version(NAME))

    def around(self, edge: ASGIApp, metrics: Metrics, untraced: frozenset[str]) -> TracedEdge:
        """An edge whose requests are spans. untraced: paths that are not."""
        return TracedEdge(edge, self.tracer, metrics, untraced)

    @contextmanager
    def running(self) -> Iterator[None]:
        """While this lasts, what lookups do are spans too."""
        with traced_by(self.tracer):
            yield

    def close(self) -> None:
        """Send the last spans, unless nobody takes them in time."""
        if self._own is None:
            return
        ending = threading.Thread(target=self._own.shutdown, name="featurestore traces end", daemon=True)
        ending.start()
        ending.join(CLOSE_SECONDS)
        if ending.is_alive():
            self._exporter.shutdown()  # type: ignore[no-untyped-call] # ends what it tries again
            ending.join()
